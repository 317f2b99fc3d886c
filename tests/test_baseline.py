"""The classical baselines, against their published numbers on the SMS Spam Collection."""

import csv
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import train_test_split

from gptcls.core.errors import InputError
from gptcls.evaluation.baselines import (
    MAJORITY,
    TFIDF,
    baselines,
    class_probabilities,
    majority_baseline,
    tfidf_char_baseline,
    tfidf_vectorizer,
)
from gptcls.evaluation.metrics import classification_scores

SMS = Path(__file__).parents[2] / "shared" / "data" / "sms" / "SMSSpamCollection"
needs_sms = pytest.mark.skipif(not SMS.exists(), reason=f"the SMS Spam Collection is not at {SMS}")
LABELS = ["ham", "spam"]
TEXTS = ["win a prize now", "see you at noon", "free prize, call now", "noon is fine", "call me at home"]
TARGETS = [1, 0, 1, 0, 0]


def texts_and_targets(frame: pd.DataFrame) -> tuple[list[str], list[int]]:
    return frame["text"].tolist(), (frame["label"] == "spam").astype(int).tolist()


@pytest.fixture(scope="module")
def book_split() -> dict:
    """Chapter 6 of the book: default quoting, undersampled, shuffled, 70/10/20."""
    frame = pd.read_csv(SMS, sep="\t", header=None, names=["label", "text"])
    spam = frame[frame["label"] == "spam"]
    ham = frame[frame["label"] == "ham"].sample(len(spam), random_state=123)
    frame = pd.concat([ham, spam]).sample(frac=1, random_state=123).reset_index(drop=True)
    first, second = int(len(frame) * 0.7), int(len(frame) * 0.7) + int(len(frame) * 0.1)
    parts = {"train": frame[:first], "validation": frame[first:second], "test": frame[second:]}
    return {name: texts_and_targets(part) for name, part in parts.items()}


@needs_sms
def test_words_on_the_book_split(book_split):
    results = baselines(book_split, LABELS)
    assert {name: scores["n"] for name, scores in results[TFIDF].items()} == {
        "train": 1045,
        "validation": 149,
        "test": 300,
    }
    assert results[TFIDF]["test"]["support"] == {"ham": 149, "spam": 151}
    assert round(100 * results[TFIDF]["test"]["accuracy"], 2) == 96.67
    # 517 of 1,045 training texts are spam, so the majority is ham: 149 of the 300 test texts.
    assert results[MAJORITY]["test"]["accuracy"] == pytest.approx(149 / 300)


@needs_sms
def test_characters_on_the_book_split(book_split):
    train_texts, train_targets = book_split["train"]
    texts, targets = book_split["test"]
    model = tfidf_char_baseline().fit(train_texts, train_targets)
    scores = classification_scores(targets, class_probabilities(model, texts, 2), LABELS)
    assert round(100 * scores["accuracy"], 2) == 97.67


def honest_split(seed: int) -> dict:
    """Distinct texts at their natural rate, stratified 70/10/20."""
    frame = pd.read_csv(SMS, sep="\t", header=None, names=["label", "text"], quoting=csv.QUOTE_NONE)
    frame = frame.drop_duplicates("text")
    assert len(frame) == 5171
    train, rest = train_test_split(frame, test_size=0.3, stratify=frame["label"], random_state=seed)
    validation, test = train_test_split(rest, test_size=2 / 3, stratify=rest["label"], random_state=seed)
    parts = {"train": train, "validation": validation, "test": test}
    return {name: texts_and_targets(part) for name, part in parts.items()}


@pytest.mark.slow
@needs_sms
def test_words_on_the_honest_split():
    scores = [baselines(honest_split(seed), LABELS)[TFIDF]["test"] for seed in range(5)]
    # Measured elsewhere over five splits: 98.24 +- 0.48 % and F1 .927 +- .021; the seeds' splits may differ.
    assert np.mean([100 * each["accuracy"] for each in scores]) == pytest.approx(98.24, abs=0.48)
    assert np.mean([each["f1"] for each in scores]) == pytest.approx(0.927, abs=0.021)


@pytest.mark.slow
@needs_sms
def test_balanced_characters_on_the_honest_split():
    train, (texts, targets) = (honest_split(0)[part] for part in ("train", "test"))
    plain, balanced = (
        classification_scores(targets, class_probabilities(model.fit(*train), texts, 2), LABELS)
        for model in (tfidf_char_baseline(), tfidf_char_baseline(class_weight="balanced"))
    )
    # Measured elsewhere over five splits: 98.71 +- 0.46 % and 99.03 +- 0.12 %; here twice that.
    assert 100 * plain["accuracy"] == pytest.approx(98.71, abs=0.92)
    assert 100 * balanced["accuracy"] == pytest.approx(99.03, abs=0.24)
    assert balanced["recall"] > plain["recall"]


def test_characters_stay_inside_words_and_count_sublinearly():
    vectorizer = tfidf_char_baseline()[0]
    (weights,) = vectorizer.fit_transform(["ab ab cd"]).toarray()
    weight = dict(zip(vectorizer.get_feature_names_out(), weights, strict=True))
    assert weight[" ab "] / weight[" cd "] == pytest.approx(1 + np.log(2))  # 1 + ln(count)
    assert "b c" not in weight
    assert {len(gram) for gram in weight} == {2, 3, 4}


def test_majority_equals_scikit_learn():
    dummy = DummyClassifier(strategy="prior").fit(TEXTS, TARGETS)
    assert majority_baseline(TARGETS, 2) == pytest.approx(dummy.predict_proba(["any"])[0])
    results = baselines({"train": (TEXTS, TARGETS), "test": (["new"], [1])}, LABELS)
    assert results[MAJORITY]["train"]["accuracy"] == pytest.approx(dummy.score(TEXTS, TARGETS))
    assert results[MAJORITY]["train"]["roc_auc"] == 0.5
    assert results[MAJORITY]["test"]["accuracy"] == 0.0


def test_a_class_absent_from_training_and_an_empty_part():
    parts = {"train": (TEXTS, [0, 2, 0, 2, 2]), "validation": ([], []), "test": (["a prize"], [1])}
    results = baselines(parts, ["a", "b", "c"])
    assert results[TFIDF]["train"]["accuracy"] == 1.0
    assert results[TFIDF]["validation"]["n"] == 0
    assert results[TFIDF]["test"]["confusion"][1][1] == 0


@pytest.mark.parametrize(
    ("texts", "targets", "reason"),
    [(["?!", "!", "a"], [0, 1, 1], "no word"), (["two words", "more words"], [0, 0], "a single class")],
)
def test_tfidf_is_left_out_aloud(texts, targets, reason, caplog):
    with caplog.at_level(logging.INFO, logger="gptcls"):
        results = baselines({"train": (texts, targets)}, LABELS)
    assert list(results) == [MAJORITY]
    assert reason in caplog.text


def test_bad_input():
    with pytest.raises(InputError, match="'train'"):
        baselines({"test": (TEXTS, TARGETS)}, LABELS)
    with pytest.raises(InputError, match="at least one"):
        majority_baseline([], 2)
    with pytest.raises(InputError, match="3 classes"):
        majority_baseline([0, 2], 2)


@pytest.mark.parametrize(
    ("texts", "analyzer"),
    [
        (["房间很干净。", "太脏了。不会再来。"], "char"),
        (["部屋はきれいでした", "とても残念"], "char"),
        (["ห้องสะอาดมาก"], "char"),
        (["wifi 很慢。check-in 等了一小时。服务员态度也不好"], "char"),  # a few English words
        (["See you at noon", "我 said no, and she said no as well"], "word"),
        (["방이 깨끗했어요", "다시는 안 갑니다"], "word"),  # Korean has spaces
        (["12345", "!!!"], "word"),
        ([], "word"),
    ],
)
def test_words_or_characters_depend_on_the_script(texts, analyzer):
    assert tfidf_vectorizer(texts).analyzer == analyzer


def test_texts_without_spaces_are_judged_by_characters(caplog):
    """Of words, each clause would be one of its own, and nothing could be learnt from it."""
    good, bad = "房间很好", "房间太脏"
    texts = [f"{word}。{end}" for word in (good, bad) for end in ("第一天", "到了晚上", "我们想", "老板说")]
    train = (texts[:3] + texts[4:7], [0, 0, 0, 1, 1, 1])
    caplog.set_level(logging.INFO, "gptcls")
    results = baselines({"train": train, "test": (["真的很好", "实在太脏"], [0, 1])}, ["praise", "complaint"])
    assert results[TFIDF]["test"]["accuracy"] == 1.0
    assert "characters" in caplog.text
