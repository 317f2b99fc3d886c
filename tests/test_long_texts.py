"""Texts longer than the model: which tokens are read, and that a text's scores are its own."""

import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.random_gpt2 import stir, transformers_gpt2
from helpers.tiny import CPU, ROWS, stopped_before, tiny_classifier, tiny_saved, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.classify.predict import load_classifier
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.classify.store import read_classifier, save_classifier
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import MAX_CHARS, PAD_ID, Tokenizer, encode
from gptcls.data.long_texts import CUTS, LOST, head_tail, windows
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Autocast, Frozen, Staged, Trained
from gptcls.models.pretrained import load_pretrained
from gptcls.train.config import TrainConfig
from gptcls.train.run import train

LENGTH = 12
TEXTS = [
    "",
    "see you at home",
    "win" + " win" * (LENGTH - 1),
    "a prize for you now " * 9,
    "call me after work " * 30,
]
sizes = st.integers(1, 60)


@pytest.fixture(scope="module")
def model():
    model = tiny_classifier().eval()
    stir(model)
    return model


# --- which tokens ---


@settings(deadline=None)
@given(sizes, sizes)
def test_head_tail_by_the_formula(n, max_length):
    """Sun et al. 2019: the first 128 and the last 382 of 510."""
    ids = list(range(n + max_length))
    first = round(128 / 510 * max_length)
    (row,) = head_tail(ids, max_length)
    assert row == ids[:first] + ids[len(ids) - (max_length - first) :]
    assert len(row) == max_length
    (row,) = head_tail(list(range(600)), 510)
    assert row == [*range(128), *range(600 - 382, 600)]


@settings(deadline=None)
@given(sizes, sizes)
def test_windows_cover_the_text_and_overlap(n, max_length):
    ids = list(range(max_length + n))
    rows = windows(ids, max_length)
    starts = [row[0] for row in rows]
    assert all(row == ids[row[0] : row[0] + max_length] for row in rows)
    assert (starts[0], rows[-1][-1]) == (0, ids[-1])
    steps = np.diff(starts)
    assert len(rows) > 1
    assert steps.min() >= 1
    assert steps.max() <= max(1, max_length * 3 / 4), "neighbours share a quarter"
    assert steps.max() - steps.min() <= 1, "evenly spread"
    fewest = -(-n // max(1, max_length * 3 // 4)) + 1
    assert len(rows) == fewest


class Counting(Tokenizer):
    """The text "3" has the ids 0, 1, 2, and 100 and 101 around them."""

    pad_id, prefix, suffix = 99, (100,), (101,)

    def encode(self, text, max_length=None):
        return self.cut([100, *range(int(text)), 101], max_length)

    def decode(self, ids):
        raise AssertionError


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=8), st.integers(3, 12))
def test_a_text_that_fits_is_one_row_in_every_way(lengths, max_length):
    texts, tokenizer = list(map(str, lengths)), Counting()
    for long, cut in CUTS.items():
        data = TextDataset(texts, torch.zeros(len(texts)), max_length, tokenizer=tokenizer, cut=cut)
        assert sorted(set(data.owners)) == list(range(len(texts)))
        assert data.truncated == sum(n + 2 > max_length for n in lengths)
        for row, owner in zip(data.rows, data.owners, strict=True):
            assert (row[0], row[-1]) == (100, 101), "around every row"
            assert len(row) == min(lengths[owner] + 2, max_length)
            assert lengths[owner] + 2 > max_length or row == tokenizer.encode(texts[owner])
        if long != "windows":
            assert data.owners == list(range(len(texts)))


@pytest.mark.parametrize("long", CUTS)
def test_dataset(long):
    targets = torch.tensor([0, 1, 0, 1, 0])
    data = TextDataset(TEXTS, targets, LENGTH, cut=CUTS[long])
    assert data.truncated == 2
    assert len(data) == len(data.owners) == len(data.lengths)
    assert data.rows[:3] == [[PAD_ID], encode(TEXTS[1]), encode(TEXTS[2])]
    assert [target for _, target in map(data.__getitem__, range(len(data)))] == targets[data.owners].tolist()
    ids = encode(TEXTS[4])
    read = [row for row, owner in zip(data.rows, data.owners, strict=True) if owner == 4]
    assert read == CUTS[long](ids, LENGTH)
    if long == "tail":
        assert read == [ids[-LENGTH:]]


def test_the_end_of_a_text_beyond_the_cap_on_characters_is_read():
    text = "word " * (MAX_CHARS // 4) + "the very end"
    (row,) = TextDataset([text], torch.zeros(1), LENGTH, cut=CUTS["tail"]).rows
    assert row[-3:] == encode(" the very end")
    assert row == encode(text)[-LENGTH:]


# --- scores ---


def test_windows_are_the_mean_of_a_hand_computation(tmp_path):
    """transformers' network on each window, unpadded; the head and the mean by hand."""
    pytest.importorskip("transformers", reason="needs pip install transformers")
    theirs = transformers_gpt2(vocab_size=50257, n_positions=64).transformer
    theirs.save_pretrained(tmp_path)
    ours = Classifier(load_pretrained(tmp_path), 2)
    data = TextDataset(TEXTS, torch.zeros(len(TEXTS)), LENGTH, cut=CUTS["windows"])
    found = dataset_logits(ours, data, CPU)
    assert found.shape == (len(TEXTS), 2)
    for text, row in zip(TEXTS, found, strict=True):
        ids = encode(text) or [PAD_ID]
        parts = windows(ids, LENGTH) if len(ids) > LENGTH else [ids]
        with torch.no_grad():
            hidden = [theirs(torch.tensor([part])).last_hidden_state[0, -1] for part in parts]
            logits = [ours.head.weight @ vector + ours.head.bias for vector in hidden]
        torch.testing.assert_close(row, sum(logits) / len(parts), atol=1e-4, rtol=0)


@pytest.mark.parametrize("long", CUTS)
def test_short_texts_score_the_same_bits_in_every_way(model, long):
    def logits(way):
        return dataset_logits(model, TextDataset(TEXTS[:3], torch.zeros(3), LENGTH, cut=CUTS[way]), CPU)

    assert torch.equal(logits(long), logits("head"))


def test_windows_differ_from_head_on_long_texts_only(model):
    def logits(way):
        return dataset_logits(model, TextDataset(TEXTS, torch.zeros(len(TEXTS)), LENGTH, cut=CUTS[way]), CPU)

    found = {way: logits(way) for way in CUTS}
    for way in ("tail", "head-tail", "windows"):
        difference = (found[way] - found["head"]).abs().amax(dim=1)
        assert difference[:3].max() < 1e-5
        assert difference[3:].min() > 1e-4


@pytest.mark.parametrize("long", CUTS)
@pytest.mark.parametrize("depth", [1, 3])
def test_the_feature_cache_gives_the_same_scores(model, long, depth):
    data = TextDataset(TEXTS, torch.zeros(len(TEXTS), dtype=torch.int64), LENGTH, cut=CUTS[long])
    features = FeatureCache().datasets(Frozen(model, depth), {"test": data}, CPU)["test"]
    found = dataset_logits(Trained(model, depth), features, CPU)
    torch.testing.assert_close(found, dataset_logits(model, data, CPU), atol=1e-5, rtol=0)


def test_an_empty_data_set(model):
    data = TextDataset([], torch.zeros(0, dtype=torch.int64), LENGTH)
    upper = Trained(model, 2)
    for network in (model, upper, Autocast(model, torch.bfloat16), Staged(model)):
        found = dataset_logits(network, data, CPU)
        assert found.shape == (0, 2)
        assert found.dtype == torch.float32


# --- from training to use ---


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [(f"{text} and so on and on" * (1 + i % 3), label) for i, (text, label) in enumerate(ROWS)]
    return write_csv(tmp_path_factory.mktemp("data") / "rows.csv", rows)


@pytest.mark.parametrize("long", ["head-tail", "windows"])
def test_a_run_is_scored_by_text_and_used_as_it_was_trained(base, data, tmp_path, caplog, long):
    caplog.set_level(logging.INFO, "gptcls")
    options = {"model": str(base), "data": str(data), "epochs": 1, "max_length": 8, "device": "cpu"}
    run = train(TrainConfig.of(**options, long=long, precision="fp32", out=tmp_path / "x"))
    assert f"train: {len(ROWS) * 7 // 10} texts are longer than 8 tokens; {LOST[long]}" in caplog.text
    test = pd.read_csv(tmp_path / "x" / "split" / "test.csv")
    assert run.scores["test"]["n"] == len(test) == 12
    classifier = load_classifier(tmp_path / "x", "cpu", "fp32")
    assert classifier.saved.long == long
    accuracy = (pd.Series(classifier.predict(test.text)) == test.label).mean()
    assert run.scores["test"]["accuracy"] == pytest.approx(accuracy)
    config = EvaluateConfig(model=tmp_path / "x", device="cpu", precision="fp32")
    pd.testing.assert_series_equal(pd.Series(evaluate(config)), pd.Series(run.scores["test"]))  # to 1e-5
    plain = train(
        TrainConfig.of(**options, long=long, no_cache=True, precision="fp32", out=tmp_path / "plain")
    )
    losses = [[row["train_loss"] for row in r.history if "train_loss" in row] for r in (run, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_resume_keeps_the_way(base, data, tmp_path):
    options = {"model": str(base), "data": str(data), "max_length": 8, "device": "cpu", "epochs": 1}
    options["long"] = "windows"
    whole = train(TrainConfig.of(**options, out=tmp_path / "whole"))
    with stopped_before(3):
        train(TrainConfig.of(**options, out=tmp_path / "x"))
    resumed = train(TrainConfig.of(out=tmp_path / "x", resume=True))
    assert resumed.scores == whole.scores
    assert read_classifier(tmp_path / "x").long == "windows"
    with pytest.raises(InputError, match="holds a finished run"):
        train(TrainConfig.of(out=tmp_path / "x", resume=True, long="tail"))


@pytest.mark.parametrize("long", CUTS)
def test_every_verb_says_what_became_of_long_texts(tmp_path, caplog, capsys, long):
    caplog.set_level(logging.INFO, "gptcls")
    save_classifier(tmp_path / "x", replace(tiny_saved(), long=long))
    line = f"1 texts are longer than 64 tokens; {LOST[long]}"
    texts = ["win " * 65, "see you"]
    classifier = load_classifier(tmp_path / "x", "cpu", "fp32")
    for said in (classifier.predict, classifier.predict_proba):
        said(texts)
        assert line in caplog.text
        caplog.clear()
    classify(ClassifyConfig(model=tmp_path / "x", texts=tuple(texts), device="cpu", precision="fp32"))
    assert caplog.text.count(line) == 1
    caplog.clear()
    write_csv(tmp_path / "in.csv", [(texts[0], "spam"), (texts[1], "ham")])
    evaluate(EvaluateConfig(model=tmp_path / "x", data=str(tmp_path / "in.csv"), device="cpu"))
    assert caplog.text.count(line) == 1
    caplog.clear()
    classifier.predict(texts, max_length=2)
    assert f"1 texts are longer than 2 tokens; {LOST[long]}" in caplog.text


def test_saved_classifiers_of_version_1_read_the_head(tmp_path):
    save_classifier(tmp_path, tiny_saved())
    file = tmp_path / "classifier.json"
    spec = json.loads(file.read_text()) | {"format_version": 1}
    for name in ("long", "cleaning"):
        del spec[name]
    file.write_text(json.dumps(spec))
    back = read_classifier(tmp_path)
    assert (back.long, back.cleaning) == ("head", "none")
    for name, value in (("long", "middle"), ("cleaning", ["basic"])):
        file.write_text(json.dumps(spec | {name: value}))
        with pytest.raises(InputError, match=f"says {name} .* not one of"):
            read_classifier(tmp_path)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=6))
def test_the_texts_beside_it_change_no_score(model, texts):
    def logits(some):
        return dataset_logits(
            model, TextDataset(some, torch.zeros(len(some)), LENGTH, cut=CUTS["windows"]), CPU
        )

    alone = torch.cat([logits([text]) for text in texts])
    torch.testing.assert_close(logits(texts), alone, atol=1e-5, rtol=0)
