"""python -m gptcls.train, evaluate and classify as a user runs them, and what they refuse."""

import csv
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS, write_csv
from safetensors.torch import load_file, save_file

import gptcls.classify.run
import gptcls.evaluate
import gptcls.train.run
from gptcls.classify.predict import load_classifier
from gptcls.core.errors import InputError
from gptcls.pretrain.adapt import AdaptedConfig
from gptcls.train.config import BOOK, TrainConfig
from gptcls.train.folder import RunFolder
from gptcls.train.resolve import resolve

QUICK = ("--epochs", "1", "--max-length", "16", "--device", "cpu")


@pytest.fixture
def command(run_main, monkeypatch, tmp_path):
    """``run_main`` in a folder of its own, with something on standard input."""
    monkeypatch.chdir(tmp_path)

    def run(verb, *arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return run_main(verb, *arguments)

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv")


@pytest.fixture(scope="module")
def run_folder(data, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("runs") / "x"
    gptcls.train.run.train(TrainConfig.of(data=str(data), out=folder, epochs=2, max_length=16, device="cpu"))
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
        "accuracy.png", "classifier/README.md", "classifier/classifier.json", "classifier/model.safetensors",
        "config.json", "confusion.png", "coverage.png", "history.csv", "loss.png", "metrics.json",
        "mistakes.md", "precision_recall.png", "predictions.csv", "reliability.png",
        "split/report.json", "split/test.csv", "split/train.csv", "split/validation.csv",
    ]  # fmt: skip
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["scores"].keys() == {"train", "validation", "test"}
    assert metrics["baselines"].keys() == {
        "majority class", "TF-IDF of words and characters", "probe of the frozen blocks",
    }  # fmt: skip
    parts = {name: pd.read_csv(run_folder / "split" / f"{name}.csv") for name in metrics["scores"]}
    assert sum(map(len, parts.values())) == len(ROWS)
    assert not set(parts["train"].text) & (set(parts["test"].text) | set(parts["validation"].text))
    for name, part in parts.items():
        assert metrics["scores"][name]["n"] == len(part)
    history = list(csv.DictReader((run_folder / "history.csv").open()))
    assert [row["epoch"] for row in history if row["train_accuracy"]] == ["1.0", "2.0"]
    assert TrainConfig.of(**json.loads((run_folder / "config.json").read_text())["options"]).fit.epochs == 2


def test_scores_are_those_of_the_saved_classifier(run_folder):
    classifier = load_classifier(run_folder, device="cpu")
    test = pd.read_csv(run_folder / "split" / "test.csv")
    accuracy = (pd.Series(classifier.predict(test.text)) == test.label).mean()
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["scores"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert classifier.saved.scores == metrics["scores"]


@pytest.mark.slow
def test_table_on_the_terminal(command, data):
    status, out, err = command(gptcls.train.run, "--data", data, *QUICK)
    assert status == 0, err
    for word in (
        "train",
        "validation",
        "test",
        "majority class",
        "TF-IDF of words and",
        "probe of the frozen blocks",
        "runs/gpt2-nano-rows",
    ):
        assert word in out
    assert "gpt2-nano: training last_block" in err
    assert command(gptcls.train.run, "--data", data, *QUICK)[1].count("runs/gpt2-nano-rows-2") == 2


def test_a_run_repeats_exactly(data, tmp_path):
    for name in ("a", "b"):
        gptcls.train.run.train(
            TrainConfig.of(data=str(data), out=tmp_path / name, epochs=1, max_length=16, device="cpu")
        )
    one, two = (load_file(tmp_path / name / "classifier" / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert (tmp_path / "a" / "history.csv").read_text() == (tmp_path / "b" / "history.csv").read_text()


@pytest.mark.slow
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
    status, out, _ = command(gptcls.train.run, "--help-all")
    assert status == 0
    vocabulary = """--model --data --validation --test --text-column --label-column --balance --train
        --pooling --epochs --batch-size --lr --weight-decay --seed --recipe --out --resume"""
    for option in vocabulary.split():
        assert re.search(rf"^  {option} ", out, re.MULTILINE)
    assert set(re.findall(r"^  --(\S+)", out, re.MULTILINE)) == {
        name.replace("_", "-") for name in AdaptedConfig.defaults()
    }


def test_recipes():
    def resolved(*names, **options):
        values = resolve(TrainConfig.of(**options)).flat()
        return tuple(values[name] for name in names)

    assert resolved(*BOOK)[0] == "none"  # and what the preset settles with the rows
    names = ("pooling", "schedule", "clip", "balance")
    assert resolved(*names, recipe="book") == ("position-1", "constant", 0.0, "undersample")
    names = ("epochs", "batch_size", "lr", "weight_decay", "seed")
    assert resolved(*names, recipe="book") == (5, 8, 5e-5, 0.1, 123)
    assert resolved("epochs", recipe="book", epochs=1) == (1,)
    assert resolved("train", "lr", init="random") == ("all", 1e-3)
    assert None not in resolved(*BOOK, recipe="book")


def test_options_go_by_name_whichever_group_they_are_in():
    config = TrainConfig.of(data="a.csv", epochs=3, out=Path("x"), label_columns=("p", "q"))
    assert (config.data.data, config.fit.epochs, config.run.out) == ("a.csv", 3, Path("x"))
    assert TrainConfig.of(**json.loads(json.dumps(config.to_json()))) == config
    assert config.changed(epochs=4) == TrainConfig.of(**config.flat() | {"epochs": 4})
    with pytest.raises(TypeError, match=r"'epoch'.*'epochs'"):
        TrainConfig.of(epoch=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "sms-sampel"], ["sms-sampel", "sms-sample"]),
        (["--model", "gpt2-smal"], ["gpt2-smal", "gpt2-small"]),
        (["--train", "last_9"], ["last_9", "3 blocks"]),
        (["--train", "some"], ["some", "last_block"]),
        (["--device", "quantum"], ["quantum", "cpu"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--lr", "nan"], ["--lr nan"]),
        (["--batch-size", "-3"], ["--batch-size -3"]),
        (["--test-fraction", "1.5"], ["--test-fraction 1.5"]),
        (["--max-length", "5000"], ["256", "--max-length"]),
        (["--positive", "eggs"], ["eggs", "ham, spam"]),
        (["--init", "random", "--save", "trained"], ["--save trained", "random"]),
        (["--seed", "-1"], ["--seed -1"]),
        (["--seed", "99999999999"], ["--seed 99999999999"]),
        (["--precision", "fp16"], ["fp16", "GPU"]),
        (["--no-cache", "--cache", "x"], ["--no-cache", "--cache x"]),
        (["--train", "all", "--cache", "x"], ["--cache x", "--train all"]),
        (["--train", "lora", "--cache", "x"], ["--cache x", "every block"]),
        (["--train", "lora", "--lora-rank", "0"], ["--lora-rank 0"]),
        (["--train", "lora", "--lora-rank", "257"], ["--lora-rank 257", "256"]),
        (["--train", "lora", "--lora-rank", "many"], ["--lora-rank", "many"]),
        (["--train", "lora", "--lora-alpha", "0"], ["--lora-alpha 0"]),
        (["--train", "lora", "--lora-alpha", "nan"], ["--lora-alpha nan"]),
        (["--train", "lora", "--lora-dropout", "1"], ["--lora-dropout 1"]),
        (["--train", "lora", "--lora-dropout", "-0.1"], ["--lora-dropout -0.1"]),
        (
            ["--train", "lora", "--lora-targets", "q_proj"],
            ["'q_proj'", "blocks.*.attn.qkv", "blocks.*.mlp.fc"],
        ),
        (["--train", "last_block", "--lora-rank", "8"], ["--lora-rank", "--train lora"]),
        (["--lora-targets", "qkv"], ["--lora-targets", "--train lora"]),
        (["--recipe", "book", "--validation-fraction", "0.3"], ["--recipe book", "--validation-fraction"]),
        (["--recipe", "book", "--test", "x.csv"], ["--recipe book", "--test"]),
        (["--modle", "x"], ["--modle", "--model"]),
        (["--epochs", "many"], ["--epochs", "many"]),
        (["--balance", "foo"], ["--balance", "foo", "undersample"]),
        (["--epochs"], ["--epochs"]),
        (["--resume"], ["--resume needs --out"]),
        (["--resume", "--out", "nowhere"], ["nowhere", "no interrupted run"]),
        (["--text-column", "txet"], ["txet", "text"]),
    ],
)
def test_wrong_options(command, data, tmp_path, options, words):
    refused(command(gptcls.train.run, "--data", data, *QUICK, *options), *words)
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_out_that_holds_something_else(command, data, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("precious")
    refused(command(gptcls.train.run, "--data", data, *QUICK, "--out", "thesis"), "thesis", "another folder")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "precious"


def test_out_that_holds_a_finished_run(command, data, run_folder):
    before = (run_folder / "config.json").read_text()
    refused(command(gptcls.train.run, "--data", data, *QUICK, "--out", run_folder), "finished run")
    assert (run_folder / "config.json").read_text() == before


def test_out_that_holds_a_model(command, data, base):
    before = (base / "config.json").read_text()
    refused(command(gptcls.train.run, "--model", base, "--data", data, *QUICK, "--out", base), "holds no run")
    assert (base / "config.json").read_text() == before


def test_ctrl_c_while_scoring_keeps_what_was_trained(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        gptcls.train.run, "dataset_logits", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        gptcls.train.run.train(
            TrainConfig.of(data=str(data), out=tmp_path / "x", epochs=1, max_length=16, device="cpu")
        )
    assert load_classifier(tmp_path / "x").predict("win a prize") in ("ham", "spam")


def test_a_full_disk_at_a_checkpoint_does_not_end_the_run(data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("gptcls.train.hooks.CHECKPOINT_SECONDS", -1)
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("gptcls.train.hooks.save_file", lambda *a: (_ for _ in ()).throw(full))
    with caplog.at_level(logging.INFO, "gptcls"):
        gptcls.train.run.train(
            TrainConfig.of(data=str(data), out=tmp_path / "x", epochs=1, max_length=16, device="cpu")
        )
    assert "No space left on device" in caplog.text
    assert "training goes on" in caplog.text
    assert (tmp_path / "x" / "metrics.json").exists()


def opened(**options):
    """The folder of a run with these options."""
    return RunFolder(TrainConfig.of(**options), "classifier", resolve)


HERE = (torch.device("cpu"), torch.float32)


def test_runs_side_by_side_take_different_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [opened(data="rows.csv"), opened(data="rows.csv")]
    assert folders[0].path == folders[1].path, "chosen at the same time"
    assert folders[0].begin(None, *HERE, "") != folders[1].begin(None, *HERE, "")


def test_resuming_elsewhere_is_said(tmp_path, caplog):
    opened(out=tmp_path).begin(None, *HERE, "")
    (tmp_path / "checkpoint").mkdir()
    again = opened(out=tmp_path, resume=True)
    with caplog.at_level(logging.INFO, "gptcls"):
        again.begin(None, *HERE, "")
        assert not caplog.text
        again.description["environment"] |= {"threads": 64, "precision": "torch.bfloat16"}
        again.begin(None, *HERE, "")
    assert "threads 64, now" in caplog.text
    assert "precision torch.bfloat16, now torch.float32" in caplog.text


def test_options_given_one_by_one_are_explicit(tmp_path):
    """``train(out=…, resume=True, seed=123)`` is refused where the run has another seed."""
    opened(out=tmp_path, seed=5).begin(None, *HERE, "")
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(InputError, match="--seed cannot change"):
        gptcls.train.run.train(out=tmp_path, resume=True, seed=123)


def test_ctrl_c_keeps_the_checkpoint_where_the_classifier_cannot_be_saved(data, base, tmp_path, monkeypatch):
    def cannot(*_):
        raise InputError("full")

    monkeypatch.setattr(gptcls.train.run, "save_classifier", cannot)
    with pytest.raises(InputError, match="full"):
        interrupted_run(tmp_path / "x", data, base, monkeypatch)
    assert (tmp_path / "x" / "checkpoint" / "progress.json").exists()


def interrupted_run(folder, data, base, monkeypatch):
    """A run over ``base`` that was stopped after 3 steps."""
    step = gptcls.core.loop.Trainer._step

    def stopping(self, group):
        if self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(gptcls.core.loop.Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            gptcls.train.run.train(TrainConfig.of(model=str(base), data=str(data), out=folder, device="cpu"))


def test_resume_refuses_changed_base_weights_and_options(command, data, base, tmp_path, monkeypatch):
    interrupted_run(tmp_path / "x", data, base, monkeypatch)
    refused(command(gptcls.train.run, "--out", "x", "--resume", "--lr", "0.5"), "--lr cannot change")
    refused(
        command(gptcls.train.run, "--out", "x", "--resume", "--model", "gpt2-nano"), "--model cannot change"
    )
    weights = load_file(base / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, base / "model.safetensors")
    refused(command(gptcls.train.run, "--out", "x", "--resume"), "no longer has the weights")
    save_file(weights, base / "model.safetensors")
    (tmp_path / "x" / "config.json").write_text("{")
    refused(command(gptcls.train.run, "--out", "x", "--resume"), "config.json is damaged")


@pytest.mark.parametrize(
    ("options", "stored"), [([], "all"), (["--save", "trained"], "trained"), (["--save", "full"], "all")]
)
def test_what_is_stored_over_pretrained_weights(command, data, base, options, stored):
    status, _, err = command(
        gptcls.train.run, "--model", base, "--data", data, "--out", "x", *QUICK, *options
    )
    assert status == 0, err
    assert "training blocks" in err or "training last_block" in err
    spec = json.loads(Path("x/classifier/classifier.json").read_text())
    assert spec["tensors"] == stored
    assert load_classifier("x").predict("win a prize") in ("ham", "spam")


@pytest.mark.parametrize("balance", ["undersample", "weights"])
def test_balance(command, tmp_path, balance):
    ham = [row for row in ROWS if row[1] == "ham"]
    write_csv(tmp_path / "skewed.csv", [*ham, *[row for row in ROWS if row[1] == "spam"][:10]])
    status, _, err = command(
        gptcls.train.run, "--data", "skewed.csv", *QUICK, "--balance", balance, "--out", "x"
    )
    assert status == 0, err
    counts = pd.read_csv("x/split/train.csv").label.value_counts()
    assert (counts["ham"] == counts["spam"]) == (balance == "undersample")
    assert pd.read_csv("x/split/test.csv").label.value_counts()["ham"] == 6, "the test part stays as it is"
    weights = json.loads(Path("x/classifier/classifier.json").read_text())["task"]["class_weights"]
    expected = [counts.sum() / 2 / counts[label] for label in ("ham", "spam")]
    assert weights is None if balance == "undersample" else weights == pytest.approx(expected)


def test_the_books_pooling_saved_and_used(command, data, base):
    options = ("--recipe", "book", "--epochs", "1", "--out", "x", "--device", "cpu")
    status, _, err = command(gptcls.train.run, "--model", base, "--data", data, *options)
    assert status == 0, err
    classifier = load_classifier("x", device="cpu", precision="fp32")
    assert classifier.saved.pad_to == classifier.saved.max_length
    test = pd.read_csv("x/split/test.csv")
    accuracy = (pd.Series(classifier.predict(test.text)) == test.label).mean()
    assert json.loads(Path("x/metrics.json").read_text())["scores"]["test"]["accuracy"] == pytest.approx(
        accuracy
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--precision", "fp32"), ("--precision", "bf16"), ("--cache", "features")]
)
def test_speed_options(command, data, base, options):
    fast, slow = (
        command(gptcls.train.run, "--model", base, "--data", data, *QUICK, "--out", out, *more)
        for out, more in (("fast", options), ("slow", ("--no-cache",)))
    )
    assert fast[0] == slow[0] == 0, fast[2] + slow[2]
    losses = [pd.read_csv(f"{out}/history.csv").train_loss.dropna() for out in ("fast", "slow")]
    assert losses[0].to_numpy() == pytest.approx(
        losses[1].to_numpy(), abs=1e-5 if "fp32" in options else 2e-2
    )
    if "--cache" in options:
        assert "60 computed" in fast[2]
        again = command(
            gptcls.train.run, "--model", base, "--data", data, *QUICK, "--seed", "5", "--out", "z", *options
        )
        assert "60 texts from" in again[2]


GOOD = "".join(f"{text},{label}\n" for text, label in ROWS)
BAD_FILES = {
    "empty": (b"", ["empty"]),
    "header only": (b"text,label\n", []),
    "one class": (("text,label\n" + "".join(f"hello {i},ham\n" for i in range(20))).encode(), ["'ham'"]),
    "too few texts of a class": (("text,label\n" + GOOD + "zzz,rare\n").encode(), ["'rare'"]),
    "missing column": (b"a,b,c\n1,2,3\n", ["--text-column"]),
    "duplicate column": (b"text,text,label\na,b,c\n", ["text"]),
    "blank texts": (b"text,label\n,ham\n ,spam\n", ["no row has text"]),
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
    of_the_split = name in (
        "one class",
        "too few texts of a class",
    )  # about the rows, wherever they came from
    refused(
        command(gptcls.train.run, "--data", file, *QUICK, "--out", "x"),
        *words,
        "" if of_the_split else "bad.csv",
    )
    assert [p.name for p in tmp_path.iterdir()] == ["bad.csv"], "nothing half-written"


def test_bom_is_read(command, tmp_path):
    (tmp_path / "bom.csv").write_bytes(("text,label\n" + GOOD).encode("utf-8-sig"))
    assert command(gptcls.train.run, "--data", "bom.csv", *QUICK)[0] == 0


def test_files_with_their_separator_and_encoding_and_rows_without_text(command, tmp_path):
    lines = [f"{text} café;{label}" for text, label in ROWS]
    (tmp_path / "a.csv").write_bytes("\n".join(["text;label", "  ;ham", *lines]).encode("cp1252"))
    (tmp_path / "t.csv").write_bytes("text;label\nné;ham\nwin né;spam\n".encode("cp1252"))
    options = ("--data", "a.csv", "--test", "t.csv", "--separator", ";", "--encoding", "cp1252")
    status, _, err = command(gptcls.train.run, *options, *QUICK, "--out", "x")
    assert status == 0, err
    assert "a.csv: no text in column 'text' in line 2: dropped" in err
    assert pd.read_csv("x/split/test.csv").text.tolist() == ["né", "win né"]
    refused(command(gptcls.train.run, "--data", "a.csv", "--separator", "7", *QUICK), "--separator '7'")
    refused(command(gptcls.train.run, "--data", "a.csv", *QUICK), "--encoding CP1252")
    refused(command(gptcls.train.run, "--recipe", "book", "--separator", ";"), "leave out --separator")


def test_oversampling_is_for_the_training_rows(command, tmp_path):
    write_csv(tmp_path / "a.csv", [row for i, row in enumerate(ROWS) if row[1] == "ham" or i % 4 == 0])
    for balance in ("none", "oversample"):
        status, _, err = command(
            gptcls.train.run, "--data", "a.csv", "--balance", balance, *QUICK, "--out", balance
        )
        assert status == 0, err
    assert "oversampled:" in err
    parts = {
        name: {balance: pd.read_csv(f"{balance}/split/{name}.csv") for balance in ("none", "oversample")}
        for name in ("train", "validation", "test")
    }
    for name in ("validation", "test"):
        pd.testing.assert_frame_equal(*parts[name].values())
    assert set(parts["train"]["none"].text) == set(parts["train"]["oversample"].text)
    assert parts["train"]["none"].label.value_counts().nunique() == 2
    assert parts["train"]["oversample"].label.value_counts().nunique() == 1


def test_given_validation_and_test_files(command, tmp_path):
    write_csv(tmp_path / "a.csv", ROWS)
    write_csv(tmp_path / "v.csv", [*ROWS[:4], ("new one", "ham"), ("win new", "spam")])
    write_csv(tmp_path / "t.csv", [*ROWS[4:12], ("newer one", "ham"), ("win newer", "spam")])
    status, _, err = command(
        gptcls.train.run, "--data", "a.csv", "--validation", "v.csv", "--test", "t.csv", *QUICK, "--out", "x"
    )
    assert status == 0, err
    parts = {name: pd.read_csv(f"x/split/{name}.csv") for name in ("train", "validation", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": 48, "validation": 6, "test": 10}
    assert not set(parts["train"].text) & set(parts["test"].text)


def test_train_api_raises_input_error(tmp_path):
    with pytest.raises(InputError, match="nothing-there"):
        gptcls.train.run.train(TrainConfig.of(data=str(tmp_path / "nothing-there.csv")))


def test_paths_may_be_given_as_text_and_tuples_as_lists():
    config = TrainConfig.of(out="runs/a", test="more.csv", lora_targets=["out_proj"])
    assert (config.run.out, config.data.test) == (Path("runs/a"), Path("more.csv"))
    assert config.model.lora_targets == ("out_proj",)
    assert config == TrainConfig.of(out=Path("runs/a"), test=Path("more.csv"), lora_targets=("out_proj",))
