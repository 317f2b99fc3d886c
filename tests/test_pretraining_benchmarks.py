"""benchmarks.probe and benchmarks.nano on tiny data: their paths, their intervals, and that they go on."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import contestants, nano, nano_labels, nano_steps, probe, setup
from benchmarks.cells import Cells
from benchmarks.datasets import few_labels, rt_polarity, split_by
from benchmarks.nano_steps import kept, load_step, save_step, save_table
from benchmarks.nano_tokens import tokens_seen
from benchmarks.over_seeds import gain, over_seeds
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.data.sources import load_data
from gptcls.evaluation.intervals import mean_interval, wilson_interval
from gptcls.models.pretrained import load_pretrained
from gptcls.pretrain.next_token import perplexity

HAM, SPAM = "see you at home at {} then", "win {} prizes, call now"
QUESTIONS = {"NUM:count": "How many of the {} are left ?", "LOC:city": "Which city has {} bridges ?"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The data sets' folder: 40 messages, 40 reviews, 40 questions and 12 for the test."""
    root = tmp_path_factory.mktemp("data")
    for name in ("sms", "trec6", "rt_polarity"):
        (root / name).mkdir()
    messages = [
        f"{label}\t{text.format(i)}" for i in range(20) for label, text in (("ham", HAM), ("spam", SPAM))
    ]
    (root / "sms" / "SMSSpamCollection").write_text("\n".join(messages) + "\n", encoding="utf-8")
    for part, numbers in (("train", range(20)), ("test", range(100, 106))):
        lines = [f"{label} {text.format(i)}" for i in numbers for label, text in QUESTIONS.items()]
        (root / "trec6" / f"{part}.txt").write_text("\n".join(lines) + "\n", encoding="latin-1")
    with zipfile.ZipFile(root / "rt_polarity" / "sentence_polarity.zip", "w") as archive:
        for kind, text in (("neg", "a dull film , part {}"), ("pos", "caf\xe9 scenes to love , part {}")):
            lines = "\n".join(text.format(i) for i in range(20)) + "\n"
            archive.writestr(f"sentence_polarity/rt-polarity.{kind}", lines.encode("latin-1"))
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return setup.random_weights("gpt2-nano", tmp_path_factory.mktemp("weights") / "step-000003")


# --- data ---


def test_reviews_are_read_by_kind(folder):
    rows = rt_polarity(folder)["train"]
    assert rows["label"].value_counts().to_dict() == {"neg": 20, "pos": 20}
    assert rows["text"].tolist()[20] == "caf\xe9 scenes to love , part 0"


def test_test_parts_share_no_row_with_those_that_settings_are_chosen_on(folder):
    splits = [split_by("rt_polarity", folder, seed) for seed in (0, 1, 2)]
    looked_at = set(splits[0].validation["text"])
    for split in splits:
        assert set(split.validation["text"]) == looked_at
        assert not looked_at & (set(split.test["text"]) | set(split.train["text"]))
        assert [len(frame) for _, frame in split.items()] == [28, 4, 8]
    assert set(splits[0].test["text"]) != set(splits[1].test["text"])


def test_official_test_part_stays(folder):
    assert len(split_by("trec6", folder, 0).test) == 12


def test_few_labels_keep_the_shares_and_every_class(folder):
    rows = rt_polarity(folder)["train"][:24]  # 20 neg, 4 pos
    for n in (2, 3, 12, 23):
        drawn = few_labels(rows, n, seed=0)["label"].value_counts()
        assert drawn.sum() == n
        assert drawn["pos"] == max(1, round(n * 4 / 24))
    assert few_labels(rows, 24, seed=0) is rows
    assert set(few_labels(rows, 6, seed=0)["text"]) <= set(few_labels(rows, 12, seed=0)["text"])
    with pytest.raises(InputError, match="1 labels do not reach for 2 classes"):
        few_labels(rows, 1, seed=0)


# --- intervals ---


def test_paired_interval_is_the_normal_one_of_differences_with_a_gain_and_a_loss_added():
    random = np.random.RandomState(0)
    right, other = random.randint(2, size=(2, 300))
    extended = np.array([*(right - other), 1, -1])
    half = 1.959964 * extended.std() / len(extended) ** 0.5
    difference, low, high = probe.paired_interval(right.tolist(), other.tolist())
    assert difference == pytest.approx(right.mean() - other.mean())
    assert (low, high) == pytest.approx((extended.mean() - half, extended.mean() + half), abs=1e-6)
    with pytest.raises(ValueError, match="3 and 2 texts"):
        probe.paired_interval([1, 0, 1], [1, 0])


def test_paired_interval_holds_what_it_says():
    random = np.random.RandomState(1)
    held = 0
    for _ in range(400):  # the better side has 12 % that the other lacks, and lacks 6 %
        kinds = random.choice(3, size=200, p=[0.82, 0.12, 0.06])
        _, low, high = probe.paired_interval((kinds == 1).tolist(), (kinds == 2).tolist())
        held += low <= 0.06 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_interval_over_seeds_is_students_and_of_seeds_that_agree_wilsons():
    low, high = wilson_interval(40, 50)
    same = {"accuracy": 0.8, "accuracy_low": low, "accuracy_high": high, "f1": 0.7}
    assert over_seeds([same, same], "accuracy") == pytest.approx((80, 100 * low, 100 * high))
    other = same | {"accuracy": 0.9}
    assert over_seeds([same, other, same], "accuracy") == pytest.approx(mean_interval([80, 90, 80]))
    one, two = {"accuracy": 0.85}, {"accuracy": 0.82}
    assert gain([one, two], [same, same], "accuracy") == pytest.approx(mean_interval([5, 2]))


def test_interval_over_seeds_that_redraw_the_split_is_wider_and_ends_at_one_hundred():
    runs, rivals = ([{"accuracy": x} for x in values] for values in ((0.96, 0.99, 1.0), (0.95, 0.97, 0.99)))
    plain, redrawn = over_seeds(runs, "accuracy"), over_seeds(runs, "accuracy", overlap=2 / 7)
    assert plain[2] == redrawn[2] == 100, "Student's would be 103.5"
    # Nadeau and Bengio 2003, section 3.2: s² (1/J + n2/n1) in place of s² / J.
    width = [3.182446 * np.std([1, 2, 1], ddof=1) * x**0.5 for x in (1 / 3, 1 / 3 + 2 / 7)]
    mean, low, high = gain(runs, rivals, "accuracy", overlap=2 / 7)
    ratio = (high - mean) / (gain(runs, rivals, "accuracy")[2] - mean)
    assert (high + low) / 2 == pytest.approx(mean)
    assert ratio == pytest.approx(width[1] / width[0])


# --- probe ---


def test_mean_vectors_are_the_means_of_the_real_tokens(weights):
    model, texts = load_pretrained(weights), ["see you at home", "win 7 prizes, call now and here", "ok"]
    found = probe.mean_vectors(model, texts)
    assert list(found) == ["token table", *(f"block {i}" for i in range(1, len(model.blocks) + 1)), "norm"]
    for row, text in enumerate(texts):
        ids = torch.tensor([probe.encode(text)])
        with torch.inference_mode():
            expected = {"token table": model.wte(ids), "norm": model(ids)}
        for depth, x in expected.items():
            np.testing.assert_allclose(found[depth][row], x[0].mean(0).numpy(), atol=1e-5)


def test_cross_validation_with_one_row_of_a_class():
    x, y = np.arange(8.0)[:, None], np.array(["ham"] * 7 + ["spam"])
    found = probe.cross_validated(probe.regression_on_vectors(0.01), x, y)
    assert 0 < found < 1  # the fold that trains on ham is lost


@pytest.mark.slow
@pytest.mark.draws
def test_probe_prints_writes_and_draws(folder, weights, tmp_path, capsys):
    options = probe.Options(
        models=(str(weights),), names=("before",), data=folder, sets=("trec6",), test=True,
        json=tmp_path / "probe.json", plot=tmp_path / "probe.png",
    )  # fmt: skip
    probe.run(options)
    printed, written = capsys.readouterr().out, json.loads(options.json.read_text())
    assert "| before | block 3 |" in printed
    assert written["probes"][probe.TFIDF][""]["trec6"]["test"] == 1
    assert written["gains"]["before"]["trec6"]["low"] <= written["gains"]["before"]["trec6"]["gain"]
    assert options.plot.read_bytes().startswith(b"\x89PNG")


# --- cells ---


def test_cells_are_measured_once_and_others_are_kept(tmp_path):
    path, calls = tmp_path / "cells.json", []
    mine, theirs = Cells(path), Cells(path)
    for cells, name in ((mine, "a"), (theirs, "b"), (mine, "a"), (mine, "c")):
        assert cells.measured(name, lambda x: calls.append(x) or {"x": x}, name) == {"x": name}
    assert calls == ["a", "b", "c"]
    assert set(json.loads(path.read_text())) == {"a", "b", "c"}
    mine.under({"steps": 6}, "labels")
    Cells(path).under({"steps": 6}, "labels")
    with pytest.raises(InputError, match="labels was measured with steps 6, and would now have 7"):
        Cells(path).under({"steps": 7}, "labels")
    path.write_text("no")
    with pytest.raises(InputError, match="is not JSON"):
        Cells(path)


# --- tables ---


@pytest.fixture
def thrifty(monkeypatch):
    """One or two settings each, and few steps."""
    monkeypatch.setattr(nano_labels, "FEWEST_STEPS", 2)
    for name, grid in contestants.GRIDS.items():
        monkeypatch.setitem(contestants.GRIDS, name, grid[::3] if "fine" not in name else grid[:1])


def test_grids_are_of_one_size():
    assert {len(grid) for grid in contestants.GRIDS.values()} == {4}


@pytest.mark.slow
def test_labels_are_measured_drawn_and_taken_up(folder, weights, tmp_path, thrifty, monkeypatch, capsys):
    options = nano.Options(
        tables=("labels",), data=folder, model=str(weights), seeds=(0, 1), sets=("sms",),
        labels=(4, 0), steps=0.5, passes=1, json=tmp_path / "nano.json", plot=tmp_path,
    )  # fmt: skip
    nano.run(options)
    first = capsys.readouterr().out
    assert "| **pretrained minus the better TF-IDF** |" in first
    assert "F1 of spam %, text messages" in first
    assert "2 for 4 labels" in first
    cells = json.loads(options.json.read_text())
    assert "labels/sms/all/random weights, fine-tuned/seed 1" in cells
    assert {path.name for path in tmp_path.glob("*.png")} == {"labels.png", "labels-gain.png"}
    for name in ("fine_tuned", "probed", "tfidf"):
        monkeypatch.setattr(contestants, name, lambda *_, **__: pytest.fail("a finished cell, again"))
    nano.run(options)
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_tokens_are_measured_and_drawn(folder, weights, tmp_path, thrifty, capsys):
    options = nano.Options(
        tables=("tokens",), data=folder, checkpoints=(weights,), tokens_per_step=100, tokens_labels=4,
        seeds=(0, 1), sets=("trec6",), steps=0.5, passes=1, json=tmp_path / "nano.json", plot=tmp_path,
    )  # fmt: skip
    nano.run(options)
    printed = capsys.readouterr().out
    assert "| 0, random weights |" in printed
    assert "| 300 |" in printed
    assert (tmp_path / "tokens.png").exists()


@pytest.mark.slow
def test_book_and_honest_split_with_weights_of_ones_own(folder, weights, tmp_path, monkeypatch, capsys):
    for table, rows in nano.SPLITS.items():
        short = {name: settings | {"epochs": 1} for name, settings in rows.items()}
        monkeypatch.setitem(nano.SPLITS, table, short)
    nano.run(nano.Options(data=folder, model=str(weights), seeds=(0, 1), plot=tmp_path))
    printed = capsys.readouterr().out
    assert "| gain by pretraining, all layers |" in printed
    assert "| sms-spam-nano |" in printed
    assert {path.name for path in tmp_path.glob("*.png")} == {"book.png", "honest.png"}


def test_tokens_of_a_checkpoint(tmp_path):
    step = tmp_path / "run" / "kept" / "step-000200"
    step.mkdir(parents=True)
    with pytest.raises(InputError, match="give --tokens-per-step"):
        tokens_seen(step)
    assert tokens_seen(step, 8192) == 200 * 8192
    (tmp_path / "run" / "history.csv").write_text("step,tokens\n50,200\n100,400\n")
    assert tokens_seen(step) == 800
    (tmp_path / "run" / "metrics.json").write_text('{"tokens_seen": 900}')
    assert tokens_seen(tmp_path / "run" / "model") == 900


def test_random_weights_have_the_pretrained_sizes_and_a_seed(weights):
    first, again, other = (contestants.backbone_of(str(weights), seed) for seed in (0, 0, 1))
    assert first.config == load_pretrained(weights).config
    assert torch.equal(first.wte.weight, again.wte.weight)
    assert not torch.equal(first.wte.weight, other.wte.weight)


# --- weights on the way ---


def test_the_kept_weights_learn_from_step_to_step():
    """Judged by messages of ours, which none of them has read."""
    rows = load_data("sms-sample")["text"][:40]
    ids = torch.tensor([i for text in rows for i in (*probe.encode(text), 50256)][: 8 * 64 + 1])
    windows = torch.stack([ids[start : start + 65] for start in range(0, 8 * 64, 64)])
    found = [perplexity(load_step(tokens), windows) for tokens in kept()]
    found.append(perplexity(load_pretrained("gpt2-nano").eval(), windows))
    assert found == sorted(found, reverse=True)
    with pytest.raises(InputError, match="819200"):
        load_step(1)


def test_a_kept_step_comes_back_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(nano_steps, "FOLDER", tmp_path)
    torch.manual_seed(0)
    model = GPT2(PRESETS["gpt2-nano"])
    save_table(model.wte.weight.detach())
    save_step(model, 7)
    assert kept() == [7]
    back = load_step(7).state_dict()
    for name, value in model.state_dict().items():
        step = value.abs().amax(dim=-1, keepdim=True) / 127 if name == "wte.weight" else value.abs() / 1024
        assert ((back[name] - value).abs() <= step / 2 + 1e-7).all(), name
