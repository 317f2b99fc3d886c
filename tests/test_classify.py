"""python -m gptcls.classify: what comes out stays next to what went in, and nothing is labelled unread."""

import io
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tyro
from helpers.tiny import run_of_sure_answers

from gptcls.classify.predict import load_classifier
from gptcls.classify.run import ClassifyConfig, arriving_lines, classify, classify_file
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import encode

TEXTS = ["win a prize", 'quoted "yes", he said', "see you", "ünï 你好 🎉", "free entry now " * 30]
COMMAND = [sys.executable, "-m", "gptcls.classify", "--device", "cpu", "--model"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_of_sure_answers(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def classifier(folder):
    return load_classifier(folder, device="cpu", precision="fp32")


@pytest.fixture
def run(folder, monkeypatch, capsys, tmp_path_factory):
    """Classify with these options and this standard input: the lines printed, each split at its tab."""

    def run(stdin: bytes = b"", encoding="utf-8", **options) -> list[list[str]]:
        file = tmp_path_factory.mktemp("stdin") / "stdin"
        file.write_bytes(stdin)
        with file.open(encoding=encoding, errors="surrogateescape") as opened:
            monkeypatch.setattr(sys, "stdin", opened)
            classify(ClassifyConfig(model=folder, device="cpu", precision="fp32", **options))
        return [line.split("\t") for line in capsys.readouterr().out.splitlines()]

    return run


# --- texts and lines ---


def test_texts_are_answered_in_their_order(run, classifier):
    lines = run(texts=tuple(TEXTS))
    assert [label for label, _ in lines] == classifier.predict(TEXTS)
    assert len({label for label, _ in lines}) == 2
    expected = classifier.predict_proba(TEXTS).max(axis=1)
    np.testing.assert_allclose([float(probability) for _, probability in lines], expected, atol=1e-4)


def test_a_line_out_for_every_line_in(run, classifier):
    lines = run(stdin="\ufeffwin a prize\r\n\n  \t\nsee you\n\nno newline at the end".encode())
    labels = classifier.predict(["win a prize", "see you", "no newline at the end"])
    assert [label for label, _ in lines] == [labels[0], "", "", labels[1], "", labels[2]]
    assert [probability == "" for _, probability in lines] == [False, True, True, False, True, False]
    assert run(stdin=b"\n\n") == [["", ""], ["", ""]]
    assert run(stdin=b"") == []
    assert run(texts=("", "see you"))[0] == ["", ""]


def test_a_folder_in_front_is_the_classifier(folder, run, caplog, monkeypatch, capsys):
    caplog.set_level(logging.INFO, "gptcls")
    expected = run(texts=(TEXTS[0], str(folder)))
    assert len(expected) == 2, "where --model is given, a folder's name is a text"
    options = {"device": "cpu", "precision": "fp32"}
    classify(ClassifyConfig(texts=(str(folder), TEXTS[0]), **options))
    assert capsys.readouterr().out.split("\t")[0] == expected[0][0]
    assert f"{folder} is taken for --model" in caplog.text
    classify(ClassifyConfig(texts=("sms-spam-nano", "see you"), **options))
    assert capsys.readouterr().out.startswith("ham\t")


def test_a_table_in_front_is_hardly_a_text(folder, tmp_path):
    pd.DataFrame({"text": TEXTS}).to_csv(tmp_path / "in.csv", index=False)
    with pytest.raises(InputError, match=r"in\.csv is a file: give --data .*in\.csv --out FILE"):
        classify(ClassifyConfig(texts=(str(tmp_path / "in.csv"),)))
    classify_into = {"data": tmp_path / "in.csv", "out": tmp_path / "out.csv", "device": "cpu"}
    classify(ClassifyConfig(texts=(str(folder),), **classify_into))
    assert len(pd.read_csv(tmp_path / "out.csv")) == len(TEXTS)
    with pytest.raises(InputError, match="holds no classifier"):
        classify(ClassifyConfig(texts=(str(tmp_path), "text")))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_lines_are_utf8_whatever_the_locale(run, encoding):
    text = "café 你好, win £100"
    assert run(stdin=text.encode(), encoding=encoding) == run(texts=(text,))
    with pytest.raises(InputError, match=r"standard input, line 2: .*CP1252.*iconv"):
        run(stdin=b"hello\ncaf\xe9\nbye\n", encoding=encoding)
    with pytest.raises(InputError, match=r"line 1: .*UTF-8"):
        run(stdin="hello".encode("utf-16"))
    with pytest.raises(InputError, match=r"line 1: .*NUL"):
        run(stdin="hello".encode("utf-16-le"))


def test_lines_before_a_bad_one_are_answered(folder):
    """In a process of its own: a reader that dies must not leave the others waiting."""
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    result = subprocess.run(
        [*COMMAND, folder], input=b"hello\ncaf\xe9\n", capture_output=True, env=environment, timeout=60
    )
    assert result.returncode == 2
    assert result.stdout.count(b"\n") == 1
    assert result.stderr.startswith(b"error: standard input, line 2: ")


def test_lines_that_arrive_together_are_one_batch():
    lines = [f"line {i}" for i in range(1000)]
    batches = list(arriving_lines(io.BytesIO("\n".join(lines).encode())))
    assert [line for batch in batches for line in batch] == lines
    assert max(map(len, batches)) <= 256


def test_a_reading_error_is_passed_on():
    class Broken(io.BytesIO):
        def readline(self, *_):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(arriving_lines(Broken()))


def test_closed_standard_input(folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"standard input .*--data"):
        classify(ClassifyConfig(model=folder))


@pytest.mark.slow
def test_broken_pipe_is_no_error(folder):
    process = subprocess.Popen(
        f"yes win | head -3000 | {sys.executable} -m gptcls.classify --model {folder} | head -1",
        shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert out.count("\n") == 1
    assert err == ""


def test_slow_input_is_answered_line_by_line_until_ctrl_c(folder):
    process = subprocess.Popen(
        [*COMMAND, folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    for text in ("first\n", "\n", "second\n"):
        process.stdin.write(text)
        assert process.stdout.readline().count("\t") == 1
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # while the reader waits for a line
    assert process.wait(timeout=30) == 130
    assert process.stderr.read() == "interrupted\n"
    process.stdin.close()


def test_texts_that_are_cut_are_counted(run, tmp_path, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    fits = "win " * 63 + "win"
    assert len(encode(fits)) == 64, "all that the classifier reads"
    long = [fits + " win", "\x01" * 65]  # a token per character
    run(texts=(fits,))
    assert "longer" not in caplog.text
    run(texts=(fits, *long))
    assert "2 texts are longer than 64 tokens" in caplog.text
    caplog.clear()
    pd.DataFrame({"text": [fits, long[0], ""]}).to_csv(tmp_path / "in.csv")
    run(data=tmp_path / "in.csv", out=tmp_path / "out.csv")
    assert "1 texts are longer than 64 tokens" in caplog.text


# --- files ---


@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
def test_a_file(run, classifier, tmp_path, caplog, source, target):
    caplog.set_level(logging.INFO, "gptcls")
    if "parquet" in (source, target):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    frame = pd.DataFrame({"id": ["007", "NA", "x"], "text": [*TEXTS[:2], " "]})
    file, out = tmp_path / f"in.{source}", tmp_path / f"out.{target}"
    write = {"csv": frame.to_csv, "tsv": frame.to_csv, "jsonl": frame.to_json, "parquet": frame.to_parquet}
    options = {"csv": {"index": False}, "tsv": {"index": False, "sep": "\t"}}
    write[source](
        file, **options.get(source, {"orient": "records", "lines": True} if source == "jsonl" else {})
    )
    run(data=file, out=out)
    assert "1 rows have no text" in caplog.text
    assert f"3 rows labelled: {out}" in caplog.text
    read = {"csv": pd.read_csv, "jsonl": pd.read_json, "parquet": pd.read_parquet}
    options = {"csv": {"keep_default_na": False}, "jsonl": {"lines": True, "dtype": False}}
    labelled = read[target](out, **options.get(target, {}))
    assert list(labelled.columns) == ["id", "text", "label", "probability_ham", "probability_spam"]
    assert labelled.id.tolist() == frame.id.tolist()
    assert labelled.text.tolist() == frame.text.tolist()
    assert labelled.label.tolist()[:2] == classifier.predict(TEXTS[:2])
    assert labelled.label[2] == "" if target == "csv" else pd.isna(labelled.label[2])
    written = labelled[["probability_ham", "probability_spam"]][:2].astype(float)
    np.testing.assert_allclose(written, classifier.predict_proba(TEXTS[:2]), atol=1e-6)


def test_a_column_named_label_stays(run, tmp_path):
    (tmp_path / "in.csv").write_text("text,label\nwin a prize,ham\n")
    run(data=tmp_path / "in.csv", out=tmp_path / "out.csv")
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header == "text,label,predicted_label,probability_ham,probability_spam"


@pytest.mark.parametrize("name", ["label", "probability_spam"])
def test_a_column_that_first_appears_late_is_never_overwritten(run, tmp_path, name):
    rows = [{"text": "hi"}] * 4100 + [{"text": "hi", name: "mine"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        InputError, match=rf"in\.jsonl has a column '{name}' already \(in lines 4097 to 4101\)"
    ):
        run(data=tmp_path / "in.jsonl", out=tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_blank_texts_at_the_start_of_a_parquet_file(run, classifier, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    for name, texts in (("some", ["win a prize"]), ("out", [""] * 4096 + ["win a prize"])):
        pd.DataFrame({"text": texts}).to_parquet(tmp_path / "in.parquet")
        run(data=tmp_path / "in.parquet", out=tmp_path / f"{name}.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").types == pq.read_schema(tmp_path / "some.parquet").types
    labelled = pd.read_parquet(tmp_path / "out.parquet")
    assert labelled.label.isna().tolist() == [True] * 4096 + [False]
    assert labelled.label[4096] == classifier.predict("win a prize")
    assert labelled.probability_spam[4096] == pytest.approx(
        classifier.predict_proba("win a prize")[1], abs=1e-6
    )


def test_a_progress_bar_on_a_terminal_only(classifier, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("tqdm.std.time", itertools.count(0, 100).__next__)  # a slow file
    (tmp_path / "in.csv").write_text("text\n" + "hi\n" * 50)
    for screen, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", screen)
        assert classify_file(classifier, tmp_path / "in.csv", tmp_path / "out.csv") == 50
        assert ("50 rows" in screen.getvalue()) is shown


@pytest.mark.slow
def test_a_file_is_read_within_bounded_memory(folder, tmp_path):
    """Peak memory grows by less than the size of the file."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")  # ru_maxrss would count the parent's memory as well
    probe = (
        "import sys; from pathlib import Path; from gptcls.classify.predict import load_classifier; "
        "from gptcls.classify.run import classify_file; c = load_classifier(sys.argv[1], 'cpu')\n"
        "for source in sys.argv[2:]:\n"
        "    classify_file(c, Path(source), Path(source + '.out.csv'))\n"
        "    print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    sources = [tmp_path / "short.csv", tmp_path / "long.csv"]
    for source, n in zip(sources, (13_000, 40_000), strict=True):  # more than two chunks each
        source.write_text("text,more\n" + ("hi,x\n" + f",{'x' * 4000}\n" * 9) * (n // 10))
    result = subprocess.run(
        [sys.executable, "-c", probe, folder, *sources],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    small, large = map(int, result.stdout.split())
    assert large - small < 60_000, f"{small} and {large} KiB: 97 MB more rows need as much more memory"


# --- options ---


def test_old_names_of_the_options():
    for data, out in (("--data", "--out"), ("--input", "--output")):
        config = tyro.cli(ClassifyConfig, args=["--model", "m", data, "a.csv", out, "b.csv"])
        assert (config.data, config.out) == (Path("a.csv"), Path("b.csv"))


def test_a_file_with_its_separator_and_encoding(folder, classifier, tmp_path):
    (tmp_path / "in.csv").write_bytes('Text;n\n"café; now";1\n'.encode("cp1252"))
    written = {"separator": ";", "encoding": "cp1252", "device": "cpu"}
    classify(ClassifyConfig(model=folder, data=tmp_path / "in.csv", out=tmp_path / "out.csv", **written))
    labelled = pd.read_csv(tmp_path / "out.csv")
    assert labelled[["Text", "n"]].values.tolist() == [["café; now", 1]]
    assert labelled.label.tolist() == classifier.predict(["café; now"])


def test_refusals(run, folder, tmp_path):
    file = tmp_path / "in.csv"
    file.write_text("text\nhi\n")
    for said, options in {
        f"--data {file} .*--out": {"data": file},
        "--out x.csv .*--data": {"out": Path("x.csv"), "texts": ("text",)},
        "texts .*--data": {"data": file, "out": Path("x.csv"), "texts": ("text",)},
        "input itself": {"data": file, "out": file},
        "'.doc'": {"data": file, "out": Path("x.doc")},
        "--separator, .*go with --data": {"separator": ";", "texts": ("text",)},
        "--text-column, .*go with --data": {"text_column": "text", "texts": ("text",)},
        "--separator 'x'": {"data": file, "out": Path("x.csv"), "separator": "x"},
        f"{folder}.*--base": {"base": "gpt2-nano", "texts": ("text",)},
    }.items():
        with pytest.raises(InputError, match=said):
            run(**options)
    with pytest.raises(InputError, match="holds no classifier"):
        classify(ClassifyConfig(model=tmp_path, texts=("text",)))
    with pytest.raises(InputError, match="--precision fp16"):
        classify(ClassifyConfig(model=folder, texts=("text",), device="cpu", precision="fp16"))


def test_nothing_half_written_stays(run, tmp_path):
    (tmp_path / "late.csv").write_text("text,n\n" + "fine,1\n" * 5000 + "too,many,fields\n")
    with pytest.raises(InputError, match=r"late\.csv, line 5002"):
        run(data=tmp_path / "late.csv", out=tmp_path / "x.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["late.csv"]
