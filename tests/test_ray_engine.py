"""python -m gptcls.classify --engine ray: what the local engine answers, whatever happens to an actor."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from helpers.tiny import run_of_sure_answers

from gptcls.classify import ray_engine
from gptcls.classify.predict import load_classifier
from gptcls.classify.ray_engine import (
    WHERE,
    Job,
    Labeller,
    RayOptions,
    labelled_parts,
    pieces,
    sources_of,
)
from gptcls.classify.run import ClassifyConfig, classify, classify_file
from gptcls.core.errors import InputError
from gptcls.data.readers import PLAIN

pytest.importorskip("pyarrow")
TEXTS = [f"win a prize {i}" if i % 3 else f"ünï, 你好 {i}" for i in range(50)] + ["", "free entry now " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_of_sure_answers(tmp_path_factory.mktemp("run"))


@pytest.fixture
def rows(tmp_path):
    """Three files, one of them without rows."""
    (tmp_path / "in").mkdir()
    frame = pd.DataFrame({"id": range(len(TEXTS)), "text": TEXTS, "label": "?"})
    frame[:30].to_parquet(tmp_path / "in" / "a.parquet")
    frame[:0].to_parquet(tmp_path / "in" / "b.parquet")
    frame[30:].to_parquet(tmp_path / "in" / "c.parquet")
    frame.to_parquet(tmp_path / "all.parquet")
    return tmp_path


def config(folder, **options) -> ClassifyConfig:
    return ClassifyConfig(model=str(folder), device="cpu", precision="fp32", **options)


def locally(folder, file: Path) -> pd.DataFrame:
    classifier = load_classifier(folder, device="cpu", precision="fp32")
    classify_file(classifier, file, file.with_name("local.parquet"))
    return pd.read_parquet(file.with_name("local.parquet"))


def job(folder, out, **options) -> Job:
    given = {"texts": ("text",), "columns": ("id", "text", "label"), "dialect": PLAIN, "piece": 8}
    given["added"] = ("predicted_label", "probability_ham", "probability_spam")
    given |= {"out": str(out), "system": None, "suffix": ".parquet", "escape_formulas": False, "threads": 1}
    return Job(options=config(folder), **given | options, tries=str(out) + "-tries")


def labelled(job: Job, sources) -> list:
    label = Labeller(job)
    found = (piece for i, source in enumerate(sources) for piece in pieces(job, i, source))
    return [pickle.loads(label({"piece": pickle.dumps(piece)})["part"]) for piece in found]


# --- readers and actors, in this process ---


def test_the_parts_hold_what_the_local_engine_writes_in_the_order_of_the_rows(rows, folder):
    (rows / "out").mkdir()
    parts = labelled(job(folder, rows / "out"), sources_of(rows / "in"))
    assert [part.rows for part in parts] == [8, 8, 8, 6, 8, 8, 6]
    assert sum(part.blank for part in parts) == sum(part.truncated for part in parts) == 1
    found = pd.concat([pd.read_parquet(file) for file in sorted((rows / "out").iterdir())], ignore_index=True)
    expected = locally(folder, rows / "all.parquet")
    pd.testing.assert_frame_equal(found.drop(columns=[*WHERE]), expected, rtol=1e-5)
    assert len({*found["predicted_label"].dropna()}) == 2
    assert found["source_row"].tolist() == [*range(1, 31), *range(1, 23)]
    assert found["source_file"].is_monotonic_increasing


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_other_formats_of_parts_are_read_back_as_the_same(rows, folder, suffix):
    (rows / "out").mkdir()
    labelled(job(folder, rows / "out", suffix=suffix), sources_of(rows / "in" / "a.parquet"))
    read = pd.read_csv if suffix == ".csv" else lambda file: pd.read_json(file, lines=True)
    found = pd.concat(map(read, sorted((rows / "out").iterdir())))["predicted_label"].tolist()
    assert found == locally(folder, rows / "all.parquet")["predicted_label"][:30].tolist()


def test_a_file_that_cannot_be_read_to_its_end_is_named(rows, folder):
    (rows / "out").mkdir()
    (rows / "bad.csv").write_text("text\nsee you\nwin, a prize\n")
    *_, last = labelled(job(folder, rows / "out", columns=("text",)), sources_of(rows / "bad.csv"))
    assert "bad.csv, line 3: the header has 1 fields, this row 2" in last.error
    pd.DataFrame({"body": ["see you"]}).to_parquet(rows / "other.parquet")
    (other,) = labelled(job(folder, rows / "out"), sources_of(rows / "other.parquet"))
    assert "other.parquet has other columns than the first file ('body')" in other.error
    pd.DataFrame({"id": 1, "text": [7], "label": "?"}).to_parquet(rows / "number.parquet")
    (number,) = labelled(job(folder, rows / "out"), sources_of(rows / "number.parquet"))
    assert "a value of type int in column 'text', not text" in number.error


def test_rows_that_no_actor_survives_end_the_run_and_are_named(rows, folder):
    (rows / "out").mkdir()
    doomed = job(folder, rows / "out", piece=30)
    (piece,) = pieces(doomed, 0, *sources_of(rows / "in" / "a.parquet"))
    label, row = Labeller(doomed), {"piece": pickle.dumps(piece)}
    label.part = lambda piece: (_ for _ in ()).throw(SystemExit)  # which nothing in an actor catches
    for _ in range(ray_engine.TRIES):
        with pytest.raises(SystemExit):
            label(row)
    said = pickle.loads(label(row)["part"]).error
    assert "a.parquet, rows 1 to 30: 4 actors died" in said
    assert "--piece" in said


# --- what is read ---


def test_a_pattern_a_folder_and_a_uri_name_the_same_files(rows):
    (rows / "in" / "_SUCCESS").touch()
    (rows / "in" / "deep" / ".hidden").mkdir(parents=True)
    shutil.copy(rows / "all.parquet", rows / "in" / "deep" / ".hidden" / "x.parquet")
    shutil.copy(rows / "all.parquet", rows / "in" / "deep" / "d.parquet")
    every = [str(rows / "in" / name) for name in ("a.parquet", "b.parquet", "c.parquet", "deep/d.parquet")]
    assert [source.path for source in sources_of(rows / "in")] == every
    assert [source.path for source in sources_of(f"file://{rows}/in")] == every
    for head in ("", "file://"):
        assert [source.path for source in sources_of(f"{head}{rows}/in/[ab].p*")] == every[:2]
        assert [source.path for source in sources_of(f"{head}{rows}/in/deep/*")] == every[3:]
    (uri,) = sources_of(f"file://{rows}/in/a.parquet")
    with uri.here() as path:
        assert path.read_bytes() == (rows / "in" / "a.parquet").read_bytes()
        assert path.parent != rows / "in"
    assert not path.exists()


def test_what_is_elsewhere_is_named_as_people_know_it(rows, folder):
    (rows / "in" / "c.parquet").write_bytes(b"PAR1 and no more")
    (source,) = sources_of(f"file://{rows}/in/c.parquet")
    (piece,) = pieces(job(folder, rows), 0, source)
    assert piece.error.startswith(f"file://{rows}/in/c.parquet is not a readable Parquet file")
    (gone,) = pieces(job(folder, rows), 0, replace(source, path=f"{rows}/gone"))
    assert gone.error.startswith(f"file://{rows}/in/c.parquet cannot be read")


# --- refusals, before Ray starts ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": "none"}, "none: no such file"),
        ({"data": "none/*.csv"}, "no file there"),
        ({"data": "s4://bucket/x"}, "cannot be used"),
        ({"data": "."}, "files of several formats (.csv, .parquet)"),
        ({"data": "empty"}, "has no rows"),
        ({"data": "in", "text_column": ("body",)}, "--text-column names 'body'"),
        ({"data": "answered.csv"}, "has a column 'probability_ham' already"),
        ({"data": "in", "out": "in"}, "holds something already"),
        ({"data": "in", "out": "all.parquet"}, "holds something already"),
        ({"data": "in", "out": "file://{}/in"}, "holds something already"),
        ({"data": "in", "ray": RayOptions(actors=0)}, "--actors 0 is too small"),
        ({"data": "in", "escape_formulas": True}, "--parts csv"),
        ({"data": "in", "model": "no/such/model"}, "does not exist"),
        ({"data": None, "out": None}, "goes with --data"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line_and_nothing_stays(rows, folder, monkeypatch, options, said):
    pytest.importorskip("ray")
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.chdir(rows)
    (rows / "empty").mkdir()
    pd.read_parquet("in/b.parquet").to_parquet("empty/x.parquet")
    (rows / "answered.csv").write_text("text,probability_ham\nsee you,1\n")
    before = sorted(rows.rglob("*"))
    if options.get("out"):
        options = options | {"out": options["out"].format(rows)}
    with pytest.raises(InputError) as error:
        classify(replace(config(folder, out="out", engine="ray"), **options))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(rows.rglob("*")) == before


def test_without_ray_the_extra_is_named(rows, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs ray: pip install 'gptcls\[ray\]'"):
        classify(config(folder, data=rows / "in", out=rows / "out", engine="ray"))


def test_the_local_engine_refuses_what_only_ray_takes(rows, folder):
    for options, said in (
        ({"data": "s3://bucket/x"}, "s3://bucket/x is a URI"),
        ({"data": rows / "all.parquet", "ray": RayOptions(actors=2)}, "go with --engine ray"),
    ):
        with pytest.raises(InputError, match=said):
            classify(config(folder, out=rows / "out.csv", **options))


# --- Ray itself ---


@pytest.mark.slow
def test_two_actors_answer_as_one_process_though_one_is_killed(rows, folder):
    """The first actor that has written a part is killed; a file:// URI stands for an object store."""
    pytest.importorskip("ray")
    frame = pd.concat([pd.read_parquet(rows / "all.parquet")] * 10, ignore_index=True)
    for i in range(4):
        frame[i * 130 : (i + 1) * 130].to_csv(rows / f"{i}.csv", index=False)
    frame.astype(str).to_csv(rows / "whole.csv", index=False)
    options, pids = config(folder), []
    given = options, options, rows / "?.csv", f"file://{rows}/out", RayOptions(actors=2, piece=5)
    with closing(labelled_parts(*given)) as parts:
        for part in parts:
            if not pids:
                os.kill(part.pid, signal.SIGKILL)
            assert not (rows / "out" / "_SUCCESS").exists()
            pids.append(part.pid)
    assert len({*pids[1:]} - {pids[0]}) >= 2, "another took its place"
    assert (rows / "out" / "_SUCCESS").exists()
    files = sorted((rows / "out").glob("part-*.parquet"))
    assert len(files) == len(pids) == 4 * 26
    found = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    expected = locally(folder, rows / "whole.csv")
    pd.testing.assert_frame_equal(found.drop(columns=[*WHERE]), expected, rtol=1e-5, check_dtype=False)
    assert found["source_row"].tolist() == [*range(1, 131)] * 4


@pytest.mark.slow
def test_a_terminated_command_leaves_nothing(rows, folder):
    pytest.importorskip("ray")
    pd.concat([pd.read_parquet(rows / "all.parquet")] * 400).to_parquet(rows / "many.parquet")
    before = sorted(rows.iterdir())
    command = [sys.executable, "-m", "gptcls.classify", "--model", folder, "--engine", "ray", "--piece", "5"]
    files = ["--data", rows / "many.parquet", "--out", rows / "out", "--actors", "1"]
    with subprocess.Popen([*command, *files], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not [*rows.glob(".out.*.partial/new/out/part-*.parquet")]:
            pass
        process.terminate()
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 143, said
    assert said.splitlines()[-1] == "terminated"
    assert sorted(rows.iterdir()) == before
