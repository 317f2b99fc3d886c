"""python -m gptcls.train, evaluate and classify as a user runs them, and what they refuse."""

import csv
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny import ROWS, write_csv

import gptcls.classify
import gptcls.evaluate
import gptcls.train
from gptcls.config import RECIPES, TrainConfig
from gptcls.errors import InputError
from gptcls.predict import load_classifier

QUICK = ("--epochs", "1", "--max-length", "16", "--device", "cpu")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run a verb in this process, in a folder of its own: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(verb, *arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", [verb.__name__, *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        log = logging.getLogger("gptcls")
        log.handlers.clear()
        try:
            verb.main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code or 0
        finally:
            log.handlers.clear()
            log.propagate = True
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv")


@pytest.fixture(scope="module")
def run_folder(data, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "x"
    gptcls.train.train(TrainConfig(data=str(data), out=folder, epochs=2, max_length=16, device="cpu"))
    return folder


def refused(result, *words):
    """The command ended with status 2 and one line on stderr, behind log lines, that has these words."""
    status, out, err = result
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2, err
    assert len(lines) == 1
    assert err.rstrip().splitlines()[-1] == lines[0]
    assert "Traceback" not in out + err
    for word in words:
        assert word in lines[0]


def test_what_a_run_leaves(run_folder):
    assert sorted(str(p.relative_to(run_folder)) for p in run_folder.rglob("*") if p.is_file()) == [
        "accuracy.png", "classifier/classifier.json", "classifier/model.safetensors", "config.json",
        "confusion.png", "history.csv", "loss.png", "metrics.json", "precision_recall.png",
        "split/test.csv", "split/train.csv", "split/validation.csv",
    ]  # fmt: skip
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["scores"].keys() == {"train", "validation", "test"}
    assert metrics["baselines"].keys() == {"majority class", "TF-IDF + logistic regression"}
    parts = {name: pd.read_csv(run_folder / "split" / f"{name}.csv") for name in metrics["scores"]}
    assert sum(map(len, parts.values())) == len(ROWS)
    assert not set(parts["train"].text) & (set(parts["test"].text) | set(parts["validation"].text))
    for name, part in parts.items():
        assert metrics["scores"][name]["n"] == len(part)
    history = list(csv.DictReader((run_folder / "history.csv").open()))
    assert [row["epoch"] for row in history if row["train_accuracy"]] == ["1.0", "2.0"]
    assert TrainConfig.from_json(json.loads((run_folder / "config.json").read_text())).epochs == 2


def test_scores_are_those_of_the_saved_classifier(run_folder):
    classifier = load_classifier(run_folder, device="cpu")
    test = pd.read_csv(run_folder / "split" / "test.csv")
    accuracy = (pd.Series(classifier.predict(test.text)) == test.label).mean()
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["scores"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert classifier.saved.scores == metrics["scores"]


def test_table_on_the_terminal(command, data):
    status, out, err = command(gptcls.train, "--data", data, *QUICK)
    assert status == 0, err
    for word in (
        "train",
        "validation",
        "test",
        "majority class",
        "TF-IDF + logistic regression",
        "runs/gpt2-nano-rows",
    ):
        assert word in out
    assert "random weights" in err
    assert "training all" in err
    assert command(gptcls.train, "--data", data, *QUICK)[1].count("runs/gpt2-nano-rows-2") == 2


def test_a_run_repeats_exactly(data, tmp_path):
    for name in ("a", "b"):
        gptcls.train.train(
            TrainConfig(data=str(data), out=tmp_path / name, epochs=1, max_length=16, device="cpu")
        )
    one, two = (load_file(tmp_path / name / "classifier" / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert (tmp_path / "a" / "history.csv").read_text() == (tmp_path / "b" / "history.csv").read_text()


def test_ctrl_c_saves_and_resume_ends_with_the_same_bits(data, tmp_path):
    """In a process of its own, as a user interrupts it."""
    options = [
        "--data",
        str(data),
        "--max-length",
        "16",
        "--device",
        "cpu",
        "--epochs",
        "16",
        "--patience",
        "0",
    ]
    train = [sys.executable, "-m", "gptcls.train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = subprocess.run(
        [*train, *options, "--out", tmp_path / "whole"], env=environment, capture_output=True
    )
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [*train, *options, "--out", tmp_path / "cut"], env=environment, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if line.startswith("epoch 3"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "--resume" in rest
    assert (tmp_path / "cut" / "checkpoint").is_dir()
    assert load_classifier(tmp_path / "cut").predict("win a prize") in ("ham", "spam")

    again = subprocess.run(
        [*train, "--out", tmp_path / "cut"], env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert again.returncode == 2
    assert "--resume" in again.stderr
    resumed = subprocess.run(
        [*train, "--out", tmp_path / "cut", "--resume"], env=environment, capture_output=True, text=True
    )
    assert resumed.returncode == 0, resumed.stderr
    one, two = (load_file(tmp_path / name / "classifier" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not (tmp_path / "cut" / "checkpoint").exists()
    for file in ("history.csv", "split/train.csv"):
        assert (tmp_path / "whole" / file).read_text() == (tmp_path / "cut" / file).read_text()


def test_help_names_every_option_of_the_vocabulary(command):
    status, out, _ = command(gptcls.train, "--help")
    assert status == 0
    vocabulary = """--model --data --validation --test --text-column --label-column --balance --train
        --pooling --epochs --batch-size --lr --weight-decay --seed --recipe --out --resume"""
    for option in vocabulary.split():
        assert f"{option} " in out or f"{option}," in out
    assert out.count("(default:") >= len(fields(TrainConfig))


def test_recipes():
    plain, book = (
        TrainConfig(model="gpt2-small", recipe=recipe).resolved() for recipe in ("default", "book")
    )
    assert (plain.train, plain.pooling, plain.lr) == ("last_block", "last", 5e-5)
    assert (book.pooling, book.schedule, book.clip, book.balance) == (
        "position-1",
        "constant",
        0.0,
        "undersample",
    )
    assert (book.epochs, book.batch_size, book.lr, book.weight_decay, book.seed) == (5, 8, 5e-5, 0.1, 123)
    assert TrainConfig(recipe="book", epochs=1).resolved().epochs == 1
    nano = TrainConfig().resolved()
    assert (nano.train, nano.lr) == ("all", 1e-3)
    assert RECIPES["book"].keys() == RECIPES["default"].keys()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "sms-sampel"], ["sms-sampel", "sms-sample"]),
        (["--model", "gpt2-smal"], ["gpt2-smal", "gpt2-small"]),
        (["--train", "last_9"], ["last_9", "4 blocks"]),
        (["--train", "some"], ["some", "last_block"]),
        (["--device", "quantum"], ["quantum", "cpu"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--lr", "nan"], ["--lr nan"]),
        (["--batch-size", "-3"], ["--batch-size -3"]),
        (["--test-fraction", "1.5"], ["--test-fraction 1.5"]),
        (["--max-length", "5000"], ["1024", "--max-length"]),
        (["--positive", "eggs"], ["eggs", "ham, spam"]),
        (["--save", "trained"], ["--save trained", "random"]),
        (["--resume"], ["--resume needs --out"]),
        (["--resume", "--out", "nowhere"], ["nowhere", "no interrupted run"]),
        (["--text-column", "txet"], ["txet", "text"]),
    ],
)
def test_wrong_options(command, data, tmp_path, options, words):
    refused(command(gptcls.train, "--data", data, *QUICK, *options), *words)
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_out_that_holds_something_else(command, data, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    refused(command(gptcls.train, "--data", data, *QUICK, "--out", "thesis"), "thesis", "another folder")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "precious"


GOOD = "".join(f"{text},{label}\n" for text, label in ROWS)
BAD_FILES = {
    "empty": (b"", ["empty"]),
    "header only": (b"text,label\n", []),
    "one class": (("text,label\n" + "".join(f"hello {i},ham\n" for i in range(20))).encode(), ["'ham'"]),
    "too few rows of a class": (("text,label\n" + GOOD + "zzz,rare\n").encode(), ["'rare'"]),
    "missing column": (b"a,b,c\n1,2,3\n", ["--text-column"]),
    "duplicate column": (b"text,text,label\na,b,c\n", ["text"]),
    "blank text": (("text,label\n,ham\n" + GOOD).encode(), ["line 2"]),
    "blank label": (("text,label\nhello,\n" + GOOD).encode(), ["line 2"]),
    "utf-16": (("text,label\n" + GOOD).encode("utf-16"), ["UTF-16", "iconv"]),
    "cp1252": (("text,label\ncaf\xe9 \x80 now,ham\n" + GOOD).encode("latin-1"), ["iconv"]),
    "ragged quotes": (('text,label\n"open,ham\n' + GOOD).encode(), ["line"]),
    "ragged row": (("text,label\na,b,c,d\n" + GOOD).encode(), ["line 2"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(command, tmp_path, name):
    content, words = BAD_FILES[name]
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    of_the_split = name in ("one class", "too few rows of a class")  # about the rows, wherever they came from
    refused(
        command(gptcls.train, "--data", file, *QUICK, "--out", "x"), *words, "" if of_the_split else "bad.csv"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"], "nothing half-written"


def test_bom_is_read(command, tmp_path):
    (tmp_path / "bom.csv").write_bytes(("text,label\n" + GOOD).encode("utf-8-sig"))
    assert command(gptcls.train, "--data", "bom.csv", *QUICK)[0] == 0


def test_given_validation_and_test_files(command, tmp_path):
    write_csv(tmp_path / "a.csv", ROWS)
    write_csv(tmp_path / "v.csv", [*ROWS[:4], ("new one", "ham"), ("win new", "spam")])
    write_csv(tmp_path / "t.csv", [*ROWS[4:12], ("newer one", "ham"), ("win newer", "spam")])
    status, _, err = command(
        gptcls.train, "--data", "a.csv", "--validation", "v.csv", "--test", "t.csv", *QUICK, "--out", "x"
    )
    assert status == 0, err
    parts = {name: pd.read_csv(f"x/split/{name}.csv") for name in ("train", "validation", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": 48, "validation": 6, "test": 10}
    assert not set(parts["train"].text) & set(parts["test"].text)


def test_evaluate(command, run_folder, data, tmp_path):
    unseen = write_csv(
        tmp_path / "new.csv", [("entirely new", "ham"), ("win new cash", "spam"), ROWS[0], ROWS[1]]
    )
    status, out, err = command(gptcls.evaluate, "--model", run_folder, "--data", unseen, "--out", "report")
    assert status == 0, err
    assert "accuracy" in out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    trained = set(pd.read_csv(run_folder / "split" / "train.csv").text)
    assert metrics["scores"]["data"]["n"] == 4 - sum(text in trained for text, _ in ROWS[:2])
    assert (tmp_path / "report" / "confusion.png").exists()


def test_evaluate_refuses_an_unseen_label(command, run_folder, tmp_path):
    file = write_csv(tmp_path / "new.csv", [("a", "ham"), ("b", "eggs")])
    refused(command(gptcls.evaluate, "--model", run_folder, "--data", file), "eggs", "ham, spam")


def test_classify_texts_and_lines(command, run_folder):
    classifier = load_classifier(run_folder, device="cpu")
    texts = ["win a prize", "see you"]
    expected = classifier.predict(texts)
    status, out, err = command(gptcls.classify, "--model", run_folder, *texts)
    assert status == 0, err
    assert [line.split("\t")[0] for line in out.splitlines()] == expected
    status, out, _ = command(gptcls.classify, "--model", run_folder, stdin="win a prize\n\nsee you\n")
    assert [line.split("\t")[0] for line in out.splitlines()] == expected
    assert all(0.5 <= float(line.split("\t")[1]) <= 1 for line in out.splitlines())


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_classify_a_file(command, run_folder, tmp_path, suffix):
    frame = pd.DataFrame({"id": ["007", "NA", "x"], "text": ["win a prize", 'quoted "yes", he said', " "]})
    source = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(source)
    elif suffix == "jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        frame.to_csv(source, index=False, sep="," if suffix == "csv" else "\t")
    status, _, err = command(
        gptcls.classify, "--model", run_folder, "--input", source, "--output", "out.jsonl"
    )
    assert status == 0, err
    assert "1 rows have no text" in err
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    classifier = load_classifier(run_folder, device="cpu")
    assert [row["id"] for row in rows] == ["007", "NA", "x"]
    assert [row["text"] for row in rows] == frame.text.tolist()
    assert [row["label"] for row in rows[:2]] == classifier.predict(frame.text.tolist()[:2])
    assert rows[2]["label"] is None
    probabilities = classifier.predict_proba(frame.text.tolist()[:2])
    assert [row["probability_spam"] for row in rows[:2]] == pytest.approx(probabilities[:, 1], abs=1e-5)


def test_classify_refusals(command, run_folder, tmp_path):
    file = write_csv(tmp_path / "in.csv")
    model = ("--model", run_folder)
    refused(command(gptcls.classify, *model, "--input", file), "--output")
    refused(command(gptcls.classify, *model, "--output", "x.csv", "text"), "--input")
    refused(command(gptcls.classify, *model, "--input", file, "--output", "x.csv", "text"), "not both")
    refused(command(gptcls.classify, *model, "--input", file, "--output", file), "in.csv")
    refused(command(gptcls.classify, *model, "--input", file, "--output", "x.doc"), ".doc")
    refused(command(gptcls.classify, "--model", tmp_path, "text"), "holds no classifier")
    (tmp_path / "late.csv").write_text("text,n\n" + "fine,1\n" * 5000 + "too,many,fields\n")
    refused(command(gptcls.classify, *model, "--input", "late.csv", "--output", "x.csv"), "late.csv", "5002")
    assert not (tmp_path / "x.csv").exists()


def test_classify_streams_a_file_within_bounded_memory(run_folder, tmp_path):
    """Peak memory grows by less than the size of the file."""
    resource = pytest.importorskip("resource")
    assert resource
    probe = (
        "import sys, resource; from pathlib import Path; from gptcls.predict import load_classifier; "
        "from gptcls.classify import classify_file; c = load_classifier(sys.argv[1], 'cpu'); "
        "classify_file(c, Path(sys.argv[2]), Path(sys.argv[3])); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for n in (5_000, 40_000):
        source = tmp_path / f"{n}.csv"
        source.write_text("text,more\n" + f"hi,{'x' * 1000}\n" * n)
        result = subprocess.run(
            [sys.executable, "-c", probe, run_folder, source, tmp_path / "out.csv"],
            capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 20_000, f"{peaks} KiB: 35 MB more rows need as much more memory"


def test_broken_pipe_is_no_error(run_folder):
    process = subprocess.Popen(
        f"yes win | head -3000 | {sys.executable} -m gptcls.classify --model {run_folder} | head -1",
        shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert out.count("\n") == 1
    assert "Traceback" not in err


def test_slow_input_is_answered_line_by_line(run_folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "gptcls.classify", "--model", str(run_folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    for text in ("first\n", "second\n"):
        process.stdin.write(text)
        assert process.stdout.readline().count("\t") == 1
        time.sleep(0.05)
    process.stdin.close()
    assert process.wait(timeout=30) == 0


def test_unknown_option_exits_with_2(command):
    status, _, err = command(gptcls.train, "--modle", "gpt2-small")
    assert status == 2
    assert "--model" in err


def test_train_api_raises_input_error(tmp_path):
    with pytest.raises(InputError, match="nothing-there"):
        gptcls.train.train(TrainConfig(data=str(tmp_path / "nothing-there.csv")))
