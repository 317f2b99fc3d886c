"""Training goes on from a classifier: a published one, held to transformers, or one of gptcls."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers import random_bert, random_llama
from helpers.random_gpt2 import stir
from helpers.tiny import CPU, ROWS, stopped_before, write_csv
from safetensors.torch import load_file
from torch import nn

from gptcls import InputError, fit, load_classifier, train
from gptcls.classify.predict import TextClassifier
from gptcls.classify.store import save_classifier
from gptcls.core.loop import Hook
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.core.tokenizer import GPT2, VOCAB_SIZE
from gptcls.models.heads import Head
from gptcls.models.pretrained import load_pretrained, load_tokenizer
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_of
from gptcls.train.setup import Setup, prepare

FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
TEXTS = ["win a prize now", "see you at home", "call me", "did you eat " * 3]
QUICK = {"lr": 1e-3, "epochs": 1, "calibrate": "none", "device": "cpu", "precision": "fp32", "max_length": 48}
KEPT, NEW = "its head is trained on", "gets a new head"
KINDS = (
    "gpt2",
    "qwen2",
    "llama",
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "ernie",
    "deberta",
    "modernbert",
)


def published(kind: str, folder: Path, **options: Any) -> nn.Module:
    """transformers' classifier with a tokenizer, in ``folder``; of its labels spam comes first."""
    names = {"id2label": {0: "spam", 1: "ham"}, "label2id": {"spam": 0, "ham": 1}}
    options = (names if "num_labels" not in options else {}) | options
    texts = [text for text, _ in ROWS]
    if kind == "gpt2":
        sizes = {"n_layer": 2, "n_embd": 48, "n_head": 3, "n_positions": 64, "vocab_size": VOCAB_SIZE}
        config = transformers.GPT2Config(**sizes, pad_token_id=50256, **options)
        torch.manual_seed(0)
        model = stir(transformers.GPT2ForSequenceClassification(config))
    elif kind in random_llama.KINDS:
        options = {"vocab_size": 400, **options}
        model = random_llama.oracle_of(kind, "ForSequenceClassification", **options)
    else:
        model = random_bert.oracle_of(kind, **{"vocab_size": 300, **options})
    model.save_pretrained(folder)
    if kind in random_llama.KINDS:
        random_llama.byte_level(texts).save(str(folder / "tokenizer.json"))
    elif kind != "gpt2":
        (random_bert.roberta_bpe if kind == "roberta" else random_bert.wordpiece)(texts, folder)
    return model


def their_logits(model: nn.Module, folder: Path) -> torch.Tensor:
    tokenizer = load_tokenizer(folder)
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([tokenizer.encode(text)])).logits for text in TEXTS])


def begun(model: Path | str, rows: pd.DataFrame = FRAME, **options: Any) -> Setup:
    """A run before its first step."""
    config = resolve(TrainConfig.of(model=str(model), **QUICK | options))
    return prepare(split_of(rows, config), config)


def answers(setup: Setup) -> np.ndarray:
    return TextClassifier(setup.saved, CPU, "fp32").outputs(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_classifier_begins_with_its_answers(kind: str, tmp_path: Path, caplog) -> None:
    model = published(kind, tmp_path)
    with caplog.at_level("INFO", "gptcls"):
        setup = begun(tmp_path)
    assert KEPT in caplog.text
    assert "left out, as heads" not in caplog.text
    assert setup.saved.task.labels == ("ham", "spam"), "the rows' order"
    expected = their_logits(model, tmp_path).softmax(dim=-1)[:, [1, 0]]
    assert np.ptp(expected.numpy(), axis=0).max() > 0.005, "else they say nothing"
    np.testing.assert_allclose(answers(setup), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("problem", "several"), [("multi_label_classification", True), ("regression", False)]
)
def test_labels_on_their_own_and_numbers(problem: str, several: bool, tmp_path: Path, caplog) -> None:
    labels = {"id2label": {0: "b", 1: "a"}} if several else {"num_labels": 1}
    model = published("bert", tmp_path, problem_type=problem, **labels)
    values = ['["a"]', '["a", "b"]', "[]"] if several else ["1.5", "-2", "7"]
    rows = FRAME.assign(label=[values[i % 3] for i in range(len(FRAME))])
    with caplog.at_level("INFO", "gptcls"):
        setup = begun(tmp_path, rows, task="multi" if several else "regression")
    assert KEPT in caplog.text
    expected = their_logits(model, tmp_path)
    expected = expected.sigmoid()[:, [1, 0]] if several else expected
    np.testing.assert_allclose(answers(setup), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "options", "why"),
    [
        ({0: "good", 1: "bad"}, {}, "its own answers good, bad, the rows have ham, spam"),
        ({0: "spam", 1: "ham", 2: "other"}, {}, "its own answers spam, ham, other"),
        ({0: "spam", 1: "ham"}, {"pooling": "mean"}, "its own reads --pooling first, not mean"),
        ({0: "spam", 1: "ham"}, {"problem_type": "regression"}, "its own is of a regression task"),
    ],
)
def test_a_head_of_something_else_gives_way(labels, options, why, tmp_path: Path, caplog) -> None:
    own = {"problem_type": options.pop("problem_type", None)}
    published("bert", tmp_path, id2label=labels, label2id={v: k for k, v in labels.items()}, **own)
    with caplog.at_level("INFO", "gptcls"):
        setup = begun(tmp_path, **options)
    assert f"{NEW}: {why}" in caplog.text
    fresh = nn.Linear(48, 2)
    assert setup.saved.model.head.weight.std() < 2 * fresh.weight.std(), "0.2 in what was published"


def test_only_a_classifier_of_texts_has_a_head(tmp_path: Path, caplog) -> None:
    """The token classifier's layer has the same name, and ModernBERT's mean is taken where ours is not."""
    random_bert.oracle_of("bert", "ForTokenClassification", vocab_size=300).save_pretrained(tmp_path / "a")
    published("modernbert", tmp_path / "b", classifier_pooling="mean")
    random_bert.wordpiece([text for text, _ in ROWS], tmp_path / "a")
    for name in "ab":
        with caplog.at_level("INFO", "gptcls"):
            begun(tmp_path / name)
        assert KEPT not in caplog.text
        assert "left out, as heads for another purpose: classifier" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification", "DoubleHeadsModel"])
def test_a_gpt2_is_read_without_its_head(head: str, tmp_path: Path, caplog) -> None:
    config = transformers.GPT2Config(
        n_layer=2, n_embd=48, n_head=3, n_positions=32, vocab_size=97, num_labels=1
    )
    theirs = stir(getattr(transformers, f"GPT2{head}")(config))
    theirs.save_pretrained(tmp_path)
    with caplog.at_level("INFO", "gptcls"):
        ours = load_pretrained(tmp_path)
    assert "left out, as heads for another purpose: " in caplog.text
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs.transformer(ids)[0], atol=1e-5, rtol=0)


def test_labels_that_read_the_same_agree() -> None:
    def rows(theirs, ours, kind="single_label", task=SingleLabel):
        zeros = torch.zeros(len(theirs), 4), torch.zeros(len(theirs))
        return Head(tuple(theirs), kind, "first", *zeros).rows_of(task(tuple(ours)))

    assert rows(["b", "a", "c"], "abc") == [1, 0, 2]
    assert rows(["POSITIVE", "NEGATIVE"], ["negative", "positive"]) == [1, 0]
    assert rows(["LABEL_1", "LABEL_0"], "01") == [1, 0]
    assert rows(["A", "a"], "aA") == [1, 0]
    assert rows(["A", "a"], "aB") is rows("ab", "abc") is rows("aab", "abc") is None
    assert rows("ab", "ab", "multi_label") is None
    assert rows("ab", "ba", "multi_label", MultiLabel) == [1, 0]
    assert rows(["LABEL_0"], ["label"], "regression", Regression) == [0]


# Classifiers of gptcls


def saved(folder: Path, base: Path, full: bool, rows: pd.DataFrame = FRAME, **options: Any) -> np.ndarray:
    """A classifier in ``folder`` that no longer is as it began; returns its answers."""
    setup = begun(base, rows, **{"train": "last_block"} | options)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in setup.saved.model.trained_parameters().values():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    save_classifier(folder, setup.saved, full)
    return answers(setup)


@pytest.mark.parametrize(
    ("options", "full"),
    [
        ({}, False),
        ({"train": "lora", "lora_rank": 2}, False),
        ({"train": "all", "no_causal_mask": True, "pooling": "mean"}, True),
        ({"pooling": "position-1"}, True),
    ],
)
def test_one_of_gptcls_begins_with_its_answers(options, full, base: Path, tmp_path: Path, caplog) -> None:
    expected = saved(tmp_path / "run" / "classifier", base, full, **options)
    with caplog.at_level("INFO", "gptcls"):
        setup = begun(tmp_path / "run")
    assert KEPT in caplog.text
    np.testing.assert_allclose(answers(setup), expected, atol=1e-5)


def test_numbers_go_on_in_the_new_rows_units(base: Path, tmp_path: Path) -> None:
    rows = FRAME.assign(label=[f"{len(text)}" for text in FRAME["text"]])
    expected = saved(tmp_path / "x", base, True, rows, task="regression")
    others = rows.assign(label=[f"{float(label) * 100 + 7}" for label in rows["label"]])
    setup = begun(tmp_path / "x", others, task="regression")
    assert setup.saved.task.scales[0] > 50, "not those of the first rows"
    np.testing.assert_allclose(answers(setup), expected, rtol=1e-4)


def test_what_it_stores_lies_over_the_same_base_where_it_can(base: Path, tmp_path: Path) -> None:
    saved(tmp_path / "x", base, False)
    assert begun(tmp_path / "x", train="last_2", save="trained").saved.base["name"] == str(base)
    assert begun(tmp_path / "x", train="head").saved.base is None, "the last block is not the base's any more"
    with pytest.raises(InputError, match=r"--save trained: .* differs from all base weights in more"):
        begun(tmp_path / "x", train="head", save="trained")
    saved(tmp_path / "y", base, True)
    assert begun(tmp_path / "y", train="last_2").saved.base is None, "it may be gone"


@pytest.mark.slow
def test_trained_on_stored_and_resumed(base: Path, tmp_path: Path) -> None:
    """Through files, as a user would."""
    before = saved(tmp_path / "x", base, False)
    data = write_csv(tmp_path / "rows.csv")
    options = {"data": str(data), "model": str(tmp_path / "x"), "train": "last_block", **QUICK}
    whole = train(**options, save="trained", out=tmp_path / "whole")
    assert np.abs(whole.predictor.outputs(TEXTS) - before).max() > 1e-4
    stored = load_file(tmp_path / "whole" / "classifier" / "model.safetensors")
    assert stored.keys() == whole.classifier.model.trained_parameters().keys()
    back = load_classifier(tmp_path / "whole", "cpu", "fp32")
    np.testing.assert_allclose(back.outputs(TEXTS), whole.predictor.outputs(TEXTS), atol=1e-5)
    with stopped_before(2):
        train(**options, save="trained", out=tmp_path / "halved")
    shutil.copytree(tmp_path / "halved", tmp_path / "again")
    resumed = train(out=tmp_path / "halved", resume=True)
    np.testing.assert_array_equal(resumed.outputs["test"], whole.outputs["test"])
    description = tmp_path / "x" / "classifier.json"
    description.write_text(description.read_text().replace('"lr": 0.001', '"lr": 0.002'))
    with pytest.raises(InputError, match="no longer has the weights"):
        train(out=tmp_path / "again", resume=True)


def test_every_network_of_an_ensemble_begins_with_the_head(base: Path, tmp_path: Path) -> None:
    expected = saved(tmp_path / "x", base, False)
    seen = []

    class Look(Hook):
        def on_start(self, trainer: Any) -> None:
            seen.append({name: p.detach().clone() for name, p in trainer.model.named_parameters()})

    run = fit(FRAME, tmp_path / "x", seeds=(1, 2), train="last_block", hooks=[Look()], **QUICK)
    assert len(seen) == 2
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in seen[0].items())
    assert np.abs(run.predictor.outputs(TEXTS) - expected).max() < 0.3
    save_classifier(tmp_path / "two", run.classifier)
    with pytest.raises(InputError, match="is an ensemble of 2 networks: take a classifier that is one"):
        begun(tmp_path / "two")


def test_one_that_ships_with_the_package() -> None:
    setup, shipped = begun("sms-spam-nano", max_length=None), load_classifier(precision="fp32")
    head = setup.saved.model.head
    assert torch.equal(head.weight, shipped.saved.model.head.weight)
    ids = GPT2.encode("win a prize now")
    batch = torch.tensor([ids]), torch.tensor([len(ids)])
    with torch.inference_mode():
        torch.testing.assert_close(setup.saved.model(*batch), shipped.model(*batch), atol=1e-5, rtol=0)


def test_other_cleaning_is_said(base: Path, tmp_path: Path, caplog) -> None:
    saved(tmp_path / "x", base, True, clean=True)
    with caplog.at_level("INFO", "gptcls"):
        begun(tmp_path / "x")
    assert "read texts that were cleaned otherwise: add --clean" in caplog.text


def test_without_its_base_the_ways_out_are_those_of_training(base: Path, tmp_path: Path) -> None:
    saved(tmp_path / "x" / "y", base, False)
    base.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"put them next to .*y, or train it again with --save full"):
        begun(tmp_path / "x" / "y")
