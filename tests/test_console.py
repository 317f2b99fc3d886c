"""What people are shown: any encoding, closed streams, nothing that steers the terminal; formulas as text."""

import csv
import io
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from helpers.tiny import HAM, SPAM, tiny_saved, write_csv

import gptcls
import gptcls.classify.run
import gptcls.train.run
from gptcls.classify.store import save_classifier
from gptcls.common import cli, help
from gptcls.common.cli import OneLine
from gptcls.common.console import CONTROLS, escaped
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.writer import ChunkWriter
from gptcls.evaluation.report import scores_table

HOME = str(Path(gptcls.__file__).parents[1])
HOSTILE = "sp\x1b[2Jam\n\u202ehä─\x9b31m\r"
SHOWN = r"sp\x1b[2Jam\n\u202ehä─\x9b31m\r"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier with a label that would clear the screen."""
    saved = tiny_saved()
    saved.task = SingleLabel((HOSTILE, HOSTILE + "2"))
    place = tmp_path_factory.mktemp("classifier") / "x"
    save_classifier(place, saved)
    return place


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    """In bash, with ``gptcls`` for the console script."""
    script = f"gptcls() {{ {sys.executable} -c 'from gptcls.common.cli import main; main()' \"$@\"; }}; "
    known = os.environ | {"PYTHONPATH": HOME} | environment
    return subprocess.run(["bash", "-c", script + command], capture_output=True, env=known, timeout=300)


def as_shown(encoding: str) -> bytes:
    """:data:`SHOWN` on a terminal of that encoding."""
    return SHOWN.replace("─", "-").replace("ä", "ä" if encoding == "cp1252" else r"\xe4").encode(encoding)


# --- escapes ---


def test_every_control_character_and_no_other_is_escaped():
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # Unicode's classes
    for code in range(sys.maxunicode + 1):
        sign = chr(code)
        expected = unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or (
            unicodedata.bidirectional(sign) in bidi
        )
        assert bool(CONTROLS.fullmatch(sign)) == expected, hex(code)
    assert escaped(HOSTILE) == SHOWN


def test_log_lines_stay_lines():
    record = logging.LogRecord("gptcls", logging.INFO, "", 0, "%s of %s", (3, HOSTILE), None)
    assert OneLine().format(record) == f"3 of {SHOWN}"


def test_tables_show_labels_escaped():
    import numpy as np

    from gptcls.evaluation.judge import judge_of

    for names in ((HOSTILE, "b"), ("a", HOSTILE), ("a", "b", HOSTILE)):
        task = SingleLabel(names)
        scores = judge_of(task).scores(np.arange(len(names)), np.eye(len(names)))
        table = scores_table(task, {"test": scores}, {})
        assert not CONTROLS.search(table.replace("\n", ""))
        assert len(names) == 2 or SHOWN in table


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_answers_on_a_narrow_terminal(folder, encoding):
    done = shell(f"gptcls classify --model {folder} 'a text' 'ein Satz — “x”'", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.split(b"\t")[0].startswith(as_shown(encoding)) for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("text", ["a ─ table \N{EN DASH} with …", "한국어 \U0001f600", HOSTILE])
def test_streams_take_all_text(encoding, text):
    code = "from gptcls.common import cli, console; console.prepare_streams(); console.say(input())"
    environment = os.environ | {"PYTHONPATH": HOME, "PYTHONIOENCODING": encoding}
    typed = text.replace("\n", " ").encode("ascii", "backslashreplace").decode()
    code = code.replace("input()", ascii(text))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b""), typed
    out = done.stdout.decode(encoding)
    assert not CONTROLS.search(out.replace("\n", ""))
    if encoding == "utf-8":
        assert out == escaped(text, keep="\n") + "\n"
    elif text.startswith("a"):
        dots = "…" if encoding == "cp1252" else "..."
        dash = "\N{EN DASH}" if encoding == "cp1252" else "-"
        assert out == f"a - table {dash} with {dots}\n"


def test_help_pages_on_a_narrow_terminal(monkeypatch):
    for verb, (module, _) in cli.VERBS.items():
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", [f"gptcls {verb}", "--help-all"])
        with pytest.raises(SystemExit) as exit_:
            __import__(module, fromlist=["main"]).main()
        assert exit_.value.code == 0
        stream.seek(0)
        assert stream.read().startswith(f"usage: gptcls {verb}")


def test_the_bar_on_a_narrow_terminal(monkeypatch):
    from helpers.tiny import tiny_trainer

    from gptcls.train.hooks import ProgressBar

    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    stream = Terminal(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    trainer = tiny_trainer(epochs=1)
    trainer.hooks[:] = [ProgressBar("training")]
    trainer.fit()
    stream.seek(0)
    assert "100%|###" in stream.read()


# --- streams that are closed ---


def test_closed_and_full_streams(folder):
    """A closed one swallows what is printed; a full disk is an error that says whose."""
    full = "error: standard output: No space left on device; free space there, or choose another place\n"
    for command, status, err in (
        ("gptcls --help >&-", 0, ""),
        ("gptcls --help | true; exit ${PIPESTATUS[0]}", 0, ""),
        ("gptcls nonsense 2>&-", 2, ""),
        ("gptcls --version >/dev/full", 2, full),
        ("gptcls --help 2>/dev/full >/dev/full", 2, ""),
    ):
        done = shell(command)
        assert (done.returncode, done.stderr.decode()) == (status, err), command


@pytest.mark.slow
@pytest.mark.parametrize(
    "streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "2>&1 | head -1"]
)
def test_a_run_with_closed_streams_does_its_work(base, tmp_path, streams):
    data = write_csv(tmp_path / "rows.csv")
    train = f"gptcls train --model {base} --data {data} --epochs 1 --device cpu --out {tmp_path}/run"
    done = shell(f"{train} {streams}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr + done.stdout
    assert (tmp_path / "run" / "metrics.json").exists()
    assert not (tmp_path / "run" / "checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_run_with_hostile_labels_and_names(base, tmp_path, encoding):
    rows = [
        (f"{text} {i}", label) for i in range(9) for text, label in zip(HAM + SPAM, "abc" * 4, strict=True)
    ]
    names = {"a": HOSTILE, "b": "=1+1", "c": "한국어"}
    data = tmp_path / "r\x1bows\u202e.csv"
    frame = pd.DataFrame(rows, columns=["text", "label"]).replace({"label": names})
    frame.to_csv(data, index=False)
    train = [sys.executable, "-m", "gptcls.train", "--model", base, "--data", data, "--epochs", "1"]
    train += ["--device", "cpu", "--out", tmp_path / "o\x1but"]
    environment = os.environ | {"PYTHONPATH": HOME, "PYTHONIOENCODING": encoding}
    done = subprocess.run(train, capture_output=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    shown = (done.stdout + done.stderr).decode(encoding)
    assert not CONTROLS.search(shown.replace("\n", ""))
    assert as_shown(encoding).decode(encoding).removesuffix("\\r") in shown  # labels are stripped
    assert "Traceback" not in shown
    assert "a spreadsheet would take for formulas" in shown


# --- formulas ---


FORMULAS = ['=HYPERLINK("x")', "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "- tea"]
HARMLESS = ["x=1", "-5", "+3.5", "-1e-5", "-50%", "'=1", " =1", "1+1", "", "(=1)"]


def written(path: Path, frame: pd.DataFrame, **how) -> list[list[str]]:
    with ChunkWriter(path, **how) as writer:
        writer.write(frame)
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("name", ["x.csv", "x.tsv"])
def test_formulas_become_text(tmp_path, name):
    frame = pd.DataFrame({"text": FORMULAS + HARMLESS, "=n": [-1.5] * (len(FORMULAS) + len(HARMLESS))})
    head, *rows = written(tmp_path / name, frame, escape_formulas=True)
    assert head == ["text", "'=n"]
    assert [row[0] for row in rows] == [f"'{cell}" for cell in FORMULAS] + HARMLESS
    assert {row[1] for row in rows} == {"-1.5"}
    assert written(tmp_path / name, frame)[1:] == [[c, "-1.5"] for c in FORMULAS + HARMLESS]


def test_the_log_says_how_many_there_are(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    frame = pd.DataFrame({"text": FORMULAS + HARMLESS, "label": "a"})
    for option in (None, True):
        written(tmp_path / "x.csv", frame, escape_formulas=option)
        assert caplog.text == ""
    written(tmp_path / "x.csv", frame[len(FORMULAS) :], escape_formulas=False)
    assert caplog.text == ""
    written(tmp_path / "x.csv", frame, escape_formulas=False)
    assert f"take for formulas: {len(FORMULAS)}; --escape-formulas makes them text" in caplog.text


def test_the_option_on_the_command_line(folder, tmp_path, run_main):
    (tmp_path / "in.csv").write_text("text\n=1+1\nhello\n")
    arguments = ["--model", folder, "--data", tmp_path / "in.csv", "--out", tmp_path / "out.csv"]
    status, _, err = run_main(gptcls.classify.run, *arguments)
    assert (status, "for formulas: 1;" in err) == (0, True)
    status, _, err = run_main(gptcls.classify.run, *arguments, "--escape-formulas")
    assert (status, "formulas" in err) == (0, False)
    assert pd.read_csv(tmp_path / "out.csv")["text"].tolist() == ["'=1+1", "hello"]
    with pytest.raises(InputError, match=r"--escape-formulas goes with \.csv, \.tsv"):
        ChunkWriter(tmp_path / "x.jsonl", escape_formulas=True)
    status, _, err = run_main(gptcls.classify.run, "--escape-formulas", "a text")
    assert (status, err.count("\n")) == (2, 1)
    flags = [flag for o in help.options_of(gptcls.train.config.TrainConfig) for flag in o.flags]
    assert "--escape-formulas" in flags
