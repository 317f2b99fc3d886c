"""Pseudo-labels: only what the classifier is sure of, and none of it in validation or test."""

import logging
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS, tiny_saved, write_csv

import gptcls.pseudo_label
from gptcls.classify import run as run_room
from gptcls.classify.predict import TextClassifier, load_classifier, ready
from gptcls.classify.store import save_classifier
from gptcls.core.errors import InputError
from gptcls.data.sources import labelled_frame, load_data
from gptcls.data.split import Split, with_extra
from gptcls.pseudo_label import PseudoLabelConfig, pseudo_label, table
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import train

TEXTS = [f"{word} {i}" for i in range(40) for word in ("win a prize", "see you", "claim now", "at home")]


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    saved = tiny_saved()
    with torch.no_grad():  # so that probabilities spread from 0 to 1
        saved.model.head.weight.mul_(40)
    save_classifier(folder / "classifier", saved)
    return folder


def run(folder, data, out, **options):
    return pseudo_label(
        PseudoLabelConfig(model=folder, data=data, out=out, device="cpu", precision="fp32", **options)
    )


@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
def test_rows_taken_are_the_sure_ones(folder, tmp_path, log, monkeypatch, target):
    if target == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    chunks = run_room.read_chunks
    monkeypatch.setattr(run_room, "read_chunks", lambda path, dialect: chunks(path, rows=7, dialect=dialect))
    pd.DataFrame({"id": range(162), "text": [*TEXTS, "", "win " * 70]}).to_csv(
        tmp_path / "in.csv", index=False
    )
    probabilities = load_classifier(folder, "cpu", "fp32").predict_proba(TEXTS)
    confidence = float(np.quantile(probabilities.max(axis=1), 0.6))
    sure = [i for i, row in enumerate(probabilities) if row.max() >= confidence]
    out = tmp_path / f"out.{target}"
    log.clear()
    counts = run(folder, tmp_path / "in.csv", out, confidence=confidence)[-1].taken
    read = {"csv": pd.read_csv, "jsonl": lambda p: pd.read_json(p, lines=True), "parquet": pd.read_parquet}[
        target
    ]
    found = read(out)
    assert list(found.columns) == ["text", "label", "probability"]
    assert 0 < len(sure) < len(TEXTS)
    kept = found[found.text.str.len() < 100]  # the long one may be sure as well
    assert kept.text.tolist() == [TEXTS[i] for i in sure]
    assert kept.label.tolist() == [("ham", "spam")[probabilities[i].argmax()] for i in sure]
    np.testing.assert_allclose(kept.probability.astype(float), probabilities[sure].max(axis=1), atol=1e-6)
    assert counts == {label: int((found.label == label).sum()) for label in ("ham", "spam")}
    said = f"{len(found)} of 162 rows taken ({counts['ham']} ham, {counts['spam']} spam): {out}"
    assert said in log.text
    assert "1 rows have no text" in log.text
    assert "1 texts are longer than 64 tokens" in log.text


@pytest.mark.slow
def test_then_a_second_run_trains_on_both(folder, base, tmp_path, log):
    data = write_csv(tmp_path / "labelled.csv")
    options = {"model": str(base), "data": str(data), "epochs": 1, "device": "cpu"}
    first = train(TrainConfig.of(**options, out=tmp_path / "first"))
    unlabelled = tmp_path / "unlabelled.csv"
    texts = [text for text, _ in ROWS]
    pd.DataFrame({"text": [*TEXTS, *texts, *TEXTS[:5]]}).to_csv(unlabelled, index=False)
    run(tmp_path / "first", unlabelled, tmp_path / "pseudo.csv", confidence=0.5)
    log.clear()
    second = train(TrainConfig.of(**options, extra=tmp_path / "pseudo.csv", out=tmp_path / "second"))
    parts = ("train", "validation", "test")
    one, two = (
        {part: load_data(tmp_path / name / "split" / f"{part}.csv") for part in parts}
        for name in ("first", "second")
    )
    for part in parts[1:]:
        pd.testing.assert_frame_equal(one[part], two[part])
    n = len(one["train"])
    pd.testing.assert_frame_equal(two["train"][:n], one["train"])
    assert two["train"].text[n:].tolist() == TEXTS, "each new text once, and none of the labelled ones"
    assert second.scores["train"]["n"] == n + len(TEXTS) == first.scores["train"]["n"] + len(TEXTS)
    assert "dropped 5 repeated texts" in log.text
    for part in parts:
        assert (
            f"removed {len(one[part])} rows from {tmp_path / 'pseudo.csv'}: their texts also stand in {part}"
            in log.text
        )
    assert f"{len(TEXTS)} rows added to train" in log.text


def test_extra_rows_that_cannot_be_used():
    def frame(*rows):
        return labelled_frame([text for text, _ in rows], [label for _, label in rows])

    split = Split(frame(("a", "x"), ("b", "y")), frame(("c", "x")), frame(("d", "y")))
    assert with_extra(split, frame(("e", "x"), ("d", "y")), "p.csv").train.values.tolist() == [
        ["a", "x"], ["b", "y"], ["e", "x"],
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"p.csv: label 'z' is not among the labels .* x, y"):
        with_extra(split, frame(("e", "z")), "p.csv")
    with pytest.raises(InputError, match=r"p.csv: every text stands in the data already; give others"):
        with_extra(split, frame(("a", "x"), ("d", "y")), "p.csv")
    with pytest.raises(InputError, match="leave out --extra"):
        resolve(TrainConfig.of(recipe="book", extra="p.csv"))


def test_a_confidence_for_each_label(folder, tmp_path):
    pd.DataFrame({"text": TEXTS}).to_csv(tmp_path / "in.csv", index=False)
    probabilities = load_classifier(folder, "cpu", "fp32").predict_proba(TEXTS)
    (found,) = run(folder, tmp_path / "in.csv", tmp_path / "out.csv", confidence=("spam=0.99", "0.6"))
    best, largest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    assert found.taken == {
        "ham": int(((best == 0) & (largest >= 0.6)).sum()),
        "spam": int(((best == 1) & (largest >= 0.99)).sum()),
    }
    assert 0 < found.taken["spam"] < (best == 1).sum()
    for wrong, said in [
        (("eggs=0.9",), "--confidence eggs=0.9: the labels are ham, spam"),
        (("ham=0.9",), "--confidence says nothing of 'spam'; add spam=0.95"),
        (("0.9", "ham=0.9", "ham=0.8"), "says twice how sure"),
        (("0.9", "0.8"), "says twice how sure"),
        (("ham=much",), "--confidence much is not a probability"),
    ]:
        with pytest.raises(InputError, match=said):
            run(folder, tmp_path / "in.csv", tmp_path / "no.csv", confidence=wrong)
    assert not (tmp_path / "no.csv").exists()


def test_networks_that_agree(tmp_path):
    one, other = tiny_saved(seed=0), tiny_saved(seed=1)
    for saved in (one, other):
        with torch.no_grad():
            saved.model.head.weight.mul_(40)
    both = replace(one, members=(other.model.trained_parameters(),))
    save_classifier(tmp_path / "both", both)
    pd.DataFrame({"text": TEXTS}).to_csv(tmp_path / "in.csv", index=False)
    first, second = (ready(each, torch.device("cpu"), "fp32").predict_proba(TEXTS) for each in (one, other))
    least = np.minimum(first, second)
    sure = [i for i in range(len(TEXTS)) if first[i].argmax() == second[i].argmax() and least[i].max() >= 0.6]
    run(tmp_path / "both", tmp_path / "in.csv", tmp_path / "out.csv", confidence=("0.6",), agree=True)
    found = pd.read_csv(tmp_path / "out.csv")
    assert 0 < len(sure) < len(TEXTS)
    assert found.text.tolist() == [TEXTS[i] for i in sure]
    np.testing.assert_allclose(found.probability, least[sure].max(axis=1), atol=1e-5)
    save_classifier(tmp_path / "one", one)
    with pytest.raises(InputError, match="--agree: --model is one network; train several with"):
        run(tmp_path / "one", tmp_path / "in.csv", tmp_path / "no.csv", agree=True)


def test_rounds_are_what_one_does_by_hand(base, tmp_path, run_main):
    data = write_csv(tmp_path / "labelled.csv")
    options = {"model": str(base), "data": str(data), "device": "cpu", "precision": "fp32"}
    first = train(TrainConfig.of(**options, out=tmp_path / "first"))
    held = first.split.test.text.tolist()
    truth = ["spam" if "win" in text or "claim" in text else "ham" for text in [*TEXTS, *held]]
    pd.DataFrame({"text": [*TEXTS, *held], "truth": truth}).to_csv(tmp_path / "in.csv", index=False)
    how = {"confidence": ("0.5",), "text_column": ("text",), "truth": "truth"}
    one, two = run(tmp_path / "first", tmp_path / "in.csv", tmp_path / "two.csv", rounds=2, **how)
    assert one.validation["accuracy"] == first.scores["validation"]["accuracy"]

    (by_hand,) = run(tmp_path / "first", tmp_path / "in.csv", tmp_path / "one.csv", **how)
    assert (by_hand.taken, by_hand.wrong) == (one.taken, one.wrong)
    again = train(TrainConfig.of(**options, extra=tmp_path / "one.csv", out=tmp_path / "second"))
    assert two.validation["accuracy"] == again.scores["validation"]["accuracy"]
    assert len(again.split.train) == len(first.split.train) + len(TEXTS), "no text of the test part"
    (second,) = run(tmp_path / "second", tmp_path / "in.csv", tmp_path / "by-hand.csv", **how)
    assert (second.taken, second.wrong) == (two.taken, two.wrong)
    theirs, ours = (pd.read_csv(tmp_path / name) for name in ("by-hand.csv", "two.csv"))
    assert ours.label.tolist() == theirs.label.tolist()
    np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-5)
    wrong = ours.label != pd.read_csv(tmp_path / "in.csv").truth
    assert two.wrong == wrong.sum()
    lines = table([one, two]).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        [str(i), str(len(truth)), str(each.wrong)] for i, each in enumerate((one, two), 1)
    ]
    for more, said in [
        (["--rounds", "0"], "--rounds 0 is too small"),
        (["--rounds", "2", "--model", "sms-spam-nano"], "next to sms-spam-nano are none"),
        (["--truth", "trut"], "--truth names 'trut'.* did you mean 'truth'"),
    ]:
        given = ["--model", tmp_path / "first", "--data", tmp_path / "in.csv", "--out", tmp_path / "no.csv"]
        status, out, err = run_main(gptcls.pseudo_label, *given, "--text-column", "text", *more)
        assert (status, out) == (2, "")
        assert re.search(said, err), err
        assert not (tmp_path / "no.csv").exists()


def test_almost_sure_is_not_called_sure(folder, tmp_path, monkeypatch):
    data = tmp_path / "in.csv"
    data.write_text("text\nhello\n")
    almost = np.array([[1 - 2**-24, 2**-24]], dtype=np.float32)
    monkeypatch.setattr(TextClassifier, "scored", lambda *_: (almost, 0))
    with pytest.raises(InputError, match=r" 0\.9999999\d; lower --confidence"):
        run(folder, data, tmp_path / "out.csv", confidence=1.0)


def test_refusals_leave_nothing(folder, tmp_path):
    data = tmp_path / "in.csv"
    data.write_text("text\nhello\n")
    for options, said in [
        ({"confidence": 0.0}, "--confidence 0.0 "),
        ({"confidence": 1.5}, "--confidence 1.5 "),
        ({"confidence": float("nan")}, "--confidence nan "),
        ({"confidence": 1.0}, r" 1.0 .* 0\.\d+; lower --confidence"),
        ({"text_column": "zzz"}, "--text-column names 'zzz'"),
        ({"separator": "ab"}, "--separator 'ab'"),
    ]:
        with pytest.raises(InputError, match=said):
            run(folder, data, tmp_path / "out.csv", **options)
    with pytest.raises(InputError, match="is the input itself"):
        run(folder, data, data)
    with pytest.raises(InputError, match="holds no classifier"):
        run(tmp_path, data, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
