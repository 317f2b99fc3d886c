"""--seeds: an ensemble is the mean of runs with each seed, saved as one classifier."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS, stopped_before, write_csv
from safetensors.torch import load_file, save_file

from gptcls import fit, load_classifier, train
from gptcls.classify.predict import TextClassifier
from gptcls.classify.store import read_classifier
from gptcls.core.errors import InputError
from gptcls.train import run as train_run
from gptcls.train.config import TrainConfig
from gptcls.train.rows import split_of

QUICK = {"epochs": 2, "max_length": 16, "device": "cpu", "lr": 3e-3, "precision": "fp32"}
SEEDS = (3, 4, 5)
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
NEW = ["win a prize now", "see you at home", "free free free"]


@pytest.fixture
def split():
    return split_of(FRAME, TrainConfig.of(seed=1))


@pytest.mark.parametrize("what", ["last_block", "all"])
def test_it_is_the_mean_of_runs_with_each_seed(split, base, what, caplog):
    caplog.set_level("INFO", "gptcls")
    together = fit(split, base, seeds=SEEDS, train=what, **QUICK)
    alone = [fit(split, base, seed=seed, train=what, **QUICK) for seed in SEEDS]
    each = [run.predict_proba(NEW) for run in alone]
    assert np.ptp(each, axis=0).max() > 1e-3, "else they say nothing"
    np.testing.assert_allclose(together.predict_proba(NEW), np.mean(each, axis=0), atol=1e-5)
    found = np.mean([run.outputs["test"] for run in alone], axis=0)
    np.testing.assert_allclose(together.outputs["test"], found, atol=1e-5)
    for member, seed, run in zip(together.extra["networks"], SEEDS, alone, strict=True):
        assert member["seed"] == seed
        assert member["test"] == pytest.approx(run.scores["test"]["accuracy"])
    assert "3 networks: test accuracy" in caplog.text
    for one, other in zip(together.history, alone[-1].history, strict=True):  # the last one's curves
        assert one == pytest.approx(other, abs=1e-5)


def test_it_is_one_folder_that_can_be_moved(base, tmp_path):
    run = train(data=FRAME, model=str(base), seeds=SEEDS, save="full", out=tmp_path / "run", **QUICK)
    (tmp_path / "run" / "classifier").rename(tmp_path / "moved")
    base.rename(tmp_path / "gone")
    back = load_classifier(tmp_path / "moved", "cpu", "fp32")
    np.testing.assert_allclose(back.predict_proba(NEW), run.predict_proba(NEW), atol=1e-6)
    assert json.loads((tmp_path / "moved" / "classifier.json").read_text())["members"] == 3
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [member["seed"] for member in metrics["networks"]] == list(SEEDS)
    tensors = load_file(tmp_path / "moved" / "members.safetensors")
    save_file(
        {k: v for k, v in tensors.items() if k != "3.head.bias"}, tmp_path / "moved/members.safetensors"
    )
    with pytest.raises(InputError, match=r"tensor 3\.head\.bias"):
        load_classifier(tmp_path / "moved")


@pytest.mark.parametrize(("step", "number"), [(0, 2), (3, 2), (3, 3)])
def test_a_run_interrupted_in_any_network_ends_the_same(base, tmp_path, monkeypatch, step, number):
    options = {"data": str(write_csv(tmp_path / "rows.csv")), "model": str(base), "seeds": SEEDS, **QUICK}
    whole = train(out=tmp_path / "whole", **options)
    # Ctrl-C in a later network, whose steps are counted from 0 again.
    begun = []
    restart = train_run.restart
    monkeypatch.setattr(train_run, "restart", lambda *a: (begun.append(a[1]), restart(*a))[1])

    with stopped_before(step, lambda: len(begun) == number):
        train(out=tmp_path / "run", **options)
    so_far = read_classifier(tmp_path / "run")
    first = whole.classifier.model.trained_parameters()
    assert torch.equal(so_far.members[0]["head.weight"], first["head.weight"])
    assert len(so_far.members) == number - 1
    again = train(out=tmp_path / "run", resume=True)
    networks = [
        [run.classifier.model.trained_parameters(), *run.classifier.members] for run in (whole, again)
    ]
    for number, (one, two) in enumerate(zip(*networks, strict=True)):
        assert all(torch.equal(one[name], two[name]) for name in one), number
    assert np.array_equal(again.outputs["test"], whole.outputs["test"])
    assert again.history == whole.history


def test_the_checkpoint_of_a_full_disk_has_every_network_once(base, tmp_path, monkeypatch):
    options = {"data": str(write_csv(tmp_path / "rows.csv")), "model": str(base), "seeds": SEEDS, **QUICK}
    whole = train(out=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        patch.setattr("gptcls.classify.store.save_file", full)
        with pytest.raises(InputError, match="once there is room"):
            train(out=tmp_path / "run", **options)
    again = train(out=tmp_path / "run", resume=True)
    assert len(again.classifier.members) == 2
    np.testing.assert_array_equal(again.outputs["test"], whole.outputs["test"])


def test_the_scores_of_each_network_are_of_its_answers(split, base, tmp_path):
    (tmp_path / "costs.csv").write_text("true,ham,spam\nham,0,9\nspam,1,0\n")
    run = fit(split, base, seeds=SEEDS, costs=tmp_path / "costs.csv", **QUICK)
    for member, network in zip(run.extra["networks"], run.predictor.models, strict=True):
        alone = replace(run.classifier, model=network.frozen.classifier, members=())
        answers = TextClassifier(alone, torch.device("cpu"), "fp32").predict(split.test["text"].tolist())
        assert member["test"] == pytest.approx(np.mean(np.array(answers) == split.test["label"].to_numpy()))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--seeds", "1"), "--seeds 1: an ensemble has two or more"),
        (("--seeds", "1", "1"), "--seeds 1 1: an ensemble"),
        (("--seeds", "1", "-2"), "--seed -2 is out of range"),
        (("--seeds", "1", "2", "--train", "lora"), "leave out --train lora or --seeds"),
        (("--seeds", "1", "2", "--recipe", "book"), "--recipe book trains one network"),
    ],
)
def test_wrong_seeds_are_one_line(run_main, options, said):
    status, out, error = run_main(train_run, *options)
    assert (status, out) == (2, "")
    assert said in error
