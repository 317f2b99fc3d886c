"""A run with --train lora from the rows to the saved adapter, and everything that a run can do."""

import json
import logging
import os
import shutil
import signal

import pandas as pd
import pytest
import torch
from helpers.tiny import CPU, write_csv
from safetensors.torch import load_file

import gptcls.train.run
from gptcls import classify_review
from gptcls.classify.predict import load_classifier
from gptcls.classify.run import classify_file
from gptcls.classify.store import read_classifier
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset
from gptcls.core.errors import InputError
from gptcls.data.split import load_split
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.models.lora import lora_layers
from gptcls.models.pretrained import load_pretrained
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve

QUICK = {"train": "lora", "lora_rank": 4, "lr": 5e-3, "epochs": 3, "max_length": 16, "device": "cpu"}
QUICK |= {"precision": "fp32"}  # in bf16 an answer in use has other last digits than the one that was scored


@pytest.fixture
def data(tmp_path):
    return str(write_csv(tmp_path / "rows.csv"))


@pytest.fixture
def train(base, data, tmp_path):
    """Train over the base with LoRA, with these options, into a folder of this name."""

    def run(name="x", **options):
        options = {"model": str(base), "data": data} | QUICK | options
        return gptcls.train.run.train(TrainConfig.of(out=tmp_path / name, **options))

    return run


def tensors(folder):
    """Everything that a classifier's folder holds."""
    files = sorted((folder / "classifier").glob("*.safetensors"))
    return {f"{file.name} {name}": tensor for file in files for name, tensor in load_file(file).items()}


def logits(saved, rows):
    """Those of the plain network, its adapters in place."""
    targets = saved.task.targets(rows["label"].tolist())
    return dataset_logits(saved.model, TextDataset(rows["text"].tolist(), targets, 16), CPU), targets


def same_bits(one, two):
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def same_but_for_rounding(found, expected):
    """Merged adapters round otherwise, which the calibration's numbers show in their last digits."""
    found, expected = dict(found), dict(expected)
    one, two = (scores.pop("calibration") for scores in (found, expected))
    assert found == expected
    assert {name: one[name] for name in ("ece", "log_loss")} == pytest.approx(
        {name: two[name] for name in ("ece", "log_loss")}, abs=1e-5
    )


def test_the_base_stays_bit_for_bit(train, base, caplog):
    with caplog.at_level(logging.INFO, "gptcls"):
        run = train(weight_decay=0.5, epochs=10, eval_freq=10, patience=0)
    model = run.classifier.model
    layers = lora_layers(model.backbone)
    before = load_pretrained(base).state_dict()
    after = model.backbone.state_dict()
    untouched = {
        name.replace(".base.", "."): tensor for name, tensor in after.items() if ".lora_" not in name
    }
    assert same_bits(before, untouched)
    for layer in layers.values():
        assert layer.lora_B.weight.any()
    n_adapters = 3 * 4 * ((16 + 48) + (16 + 16) + (16 + 64) + (64 + 16))
    total = sum(tensor.numel() for tensor in before.values()) + n_adapters + 34
    assert f"training lora, {n_adapters + 34:,} of {total:,} parameters" in caplog.text
    losses = [entry["train_loss"] for entry in run.history if "train_loss" in entry]
    assert losses[-1] < 0.5 * losses[0]
    assert run.scores["train"]["accuracy"] > 0.9


def test_what_is_left_can_be_used(train, tmp_path):
    run = train()
    names = {file.name for file in (tmp_path / "x" / "classifier").iterdir()}
    assert names == {
        "README.md",
        "classifier.json",
        "model.safetensors",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    test = load_split(tmp_path / "x" / "split").test
    classifier = load_classifier(tmp_path / "x", device="cpu", precision="fp32")
    labels = classifier.predict(test["text"].tolist())
    assert (pd.Series(labels) == test["label"]).mean() == pytest.approx(run.scores["test"]["accuracy"])
    found = evaluate(EvaluateConfig(model=tmp_path / "x", device="cpu", precision="fp32"))
    same_but_for_rounding(found, run.scores["test"])
    assert classify_review(test["text"][0], model=load_classifier(tmp_path / "x")) in ("spam", "not spam")
    write_csv(tmp_path / "new.csv", [(text, "?") for text in test["text"]])
    classify_file(classifier, tmp_path / "new.csv", tmp_path / "out.csv")
    assert pd.read_csv(tmp_path / "out.csv")["predicted_label"].tolist() == labels

    # The plain network, its adapters in place, says the same as the merged one in use.
    plain = read_classifier(tmp_path / "x")
    assert lora_layers(plain.model)
    expected = plain.outputs(logits(plain, test)[0], test["text"].tolist())
    assert classifier.predict_proba(test["text"].tolist()) == pytest.approx(expected, abs=1e-5)


def test_ctrl_c_and_resume_end_with_the_same_bits(train, tmp_path, monkeypatch):
    """With dropout, so that the random numbers matter as well, and with rates that differ."""
    options = {"lora_dropout": 0.3, "patience": 2, "epochs": 4, "lora_targets": ("qkv", "mlp.*", "wte")}
    options |= {"lora_kind": "dora", "lora_plus": 4.0}
    train("whole", **options)
    step = gptcls.core.loop.Trainer._step

    def stopping(self, group):
        if self.progress.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(gptcls.core.loop.Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train("cut", **options)
    assert load_classifier(tmp_path / "cut").predict("win a prize") in ("ham", "spam")
    gptcls.train.run.train(TrainConfig.of(out=tmp_path / "cut", resume=True))
    assert same_bits(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))
    assert (tmp_path / "whole" / "history.csv").read_text() == (tmp_path / "cut" / "history.csv").read_text()


VARIANTS = {
    "rslora": {"lora_kind": "rslora"},
    "dora": {"lora_kind": "dora", "lora_dropout": 0.2, "lora_targets": ("blocks.2.*",)},
    "plus": {"lora_plus": 8.0, "lr": 2e-3},
    "table": {"lora_kind": "dora", "lora_targets": ("qkv", "wte")},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_learns_and_comes_back(train, tmp_path, name):
    run = train(epochs=8, precision="fp32", **VARIANTS[name])
    assert run.scores["train"]["accuracy"] > 0.9
    layers = lora_layers(run.classifier.model)
    assert ("backbone.wte" in layers) == (name == "table")
    changed = [p for layer in layers.values() for p in layer.adapter()]
    assert all(p.abs().max() > 0 for p in changed), "what starts at zero has moved"
    for layer in layers.values():
        if name in ("dora", "table"):
            assert (layer.magnitude - layer.matrix.norm(dim=1)).abs().max() > 1e-5
        else:
            assert layer.magnitude is None
    kinds = {(layer.config.rslora, layer.config.dora) for layer in layers.values()}
    assert kinds == {(name == "rslora", name in ("dora", "table"))}
    texts = run.split.test["text"].tolist()
    back = load_classifier(tmp_path / "x", device="cpu", precision="fp32")
    assert back.predict_proba(texts) == pytest.approx(run.outputs["test"], abs=1e-5)
    description = json.loads((tmp_path / "x" / "classifier" / "adapter_config.json").read_text())
    assert (description["use_rslora"], description["use_dora"]) == next(iter(kinds))


def test_b_learns_faster_with_lora_plus(train, monkeypatch):
    """With a rate as small as this one AdamW's first step is the rate, for every number."""
    steps = {}
    for factor in (1.0, 16.0):
        run = train(f"x{factor:g}", lr=1e-7, epochs=1, lora_plus=factor, schedule="constant", warmup=0.0)
        layers = lora_layers(run.classifier.model).values()
        steps[factor] = torch.cat([layer.lora_B.weight.abs().flatten() for layer in layers]).max().item()
    assert steps[16.0] == pytest.approx(16 * steps[1.0], rel=0.05)


def test_the_weights_of_the_best_epoch_are_kept(train, tmp_path):
    run = train(lr=0.3, epochs=8, patience=2, schedule="constant")
    judged = [row["full_val_loss"] for row in run.history if row.get("full_val_loss") is not None]
    assert run.best_epoch < len(judged), "the last epoch was not the best"
    saved = read_classifier(tmp_path / "x")
    rows = load_split(tmp_path / "x" / "split").validation
    assert saved.task.loss(*logits(saved, rows)).item() == pytest.approx(min(judged), rel=1e-4)


def test_frozen_blocks_below_the_adapters_run_once(train, tmp_path, caplog):
    """With adapters on the last block alone the rest is a fixed function, as with --train last_block."""
    options = {"lora_targets": ("blocks.2.*",), "precision": "fp32"}
    with caplog.at_level(logging.INFO, "gptcls"):
        fast, slow = (
            train("fast", **options, cache=tmp_path / "features"),
            train("slow", **options, no_cache=True),
        )
    assert "60 computed" in caplog.text
    losses = [[e["train_loss"] for e in run.history if "train_loss" in e] for run in (fast, slow)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert fast.scores["test"]["accuracy"] == slow.scores["test"]["accuracy"]
    one, two = fast.classifier.model.trained_parameters(), slow.classifier.model.trained_parameters()
    assert len(one) == 2 * 4 + 2
    for name, parameter in one.items():
        torch.testing.assert_close(parameter, two[name], atol=1e-4, rtol=1e-3, msg=name)


def test_save_full_needs_no_base(train, base, tmp_path):
    run = train(save="full")
    expected = run.scores["test"]
    shutil.rmtree(base)
    spec = json.loads((tmp_path / "x" / "classifier" / "classifier.json").read_text())
    assert (spec["tensors"], spec["trained"]) == ("all", "all")
    assert spec["training"]["train"] == "lora"
    found = evaluate(EvaluateConfig(model=tmp_path / "x", device="cpu", precision="fp32"))
    same_but_for_rounding(found, expected)
    assert not lora_layers(read_classifier(tmp_path / "x").model)


def test_from_random_weights_the_whole_is_saved(train, tmp_path):
    run = train(model="gpt2-nano", init="random", epochs=1, lr=None)
    assert TrainConfig.of(**run.classifier.training).fit.lr == 8e-4
    assert {file.name for file in (tmp_path / "x" / "classifier").iterdir()} == {
        "README.md", "classifier.json", "model.safetensors",
    }  # fmt: skip
    assert load_classifier(tmp_path / "x").predict("win a prize") in ("ham", "spam")


def test_a_changed_base_is_refused_when_the_run_is_used(train, base, tmp_path):
    train(epochs=1)
    (base / "model.safetensors").unlink()
    with pytest.raises(InputError, match="needs the base weights"):
        load_classifier(tmp_path / "x")


def test_the_books_recipe_with_lora(train):
    run = train(recipe="book", epochs=1, max_length=None)
    assert run.classifier.pad_to
    assert run.classifier.model.policy == "lora"


def test_settings():
    def resolved(**options):
        return resolve(TrainConfig.of(model="gpt2-small", **options))

    config = resolved(train="lora")
    names = ("lora_kind", "lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_plus", "lr")
    assert [config.flat()[name] for name in names] == ["lora", 16, 16.0, 0.0, ("*",), 1.0, 8e-4]
    assert resolved(train="lora", recipe="book").fit.lr == 8e-4
    assert resolved(train="lora", lr=1e-4, lora_rank=4).fit.lr == 1e-4
    assert TrainConfig.of(**json.loads(json.dumps(config.to_json()))) == config
    plain = resolved()
    assert (plain.model.lora_rank, plain.model.lora_targets) == (None, None)
    before_lora = {k: v for k, v in plain.to_json().items() if not k.startswith("lora_")}
    assert TrainConfig.of(**before_lora) == plain, "a run of an older gptcls resumes"


def test_values_of_no_effect(train):
    with pytest.raises(InputError, match=r"--lora-alpha 0\.0 is too small; use more than 0"):
        train(lora_alpha=0.0)
    with pytest.raises(InputError, match="--lora-targets names no layer"):
        train(lora_targets=())
    with pytest.raises(InputError, match=r"--lora-plus 0\.5 is too small; use 1 or more"):
        train(lora_plus=0.5)
    with pytest.raises(InputError, match=r"--lora-kind 'adalora'.* lora, rslora, dora"):
        train(lora_kind="adalora")
    for name, value in (("lora_kind", "dora"), ("lora_plus", 16.0)):
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')} goes with --train lora"):
            train(train="head", lora_rank=None, **{name: value})
