"""Scores against scipy, scikit-learn and published intervals; the tables that show them."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics

from gptcls.core.errors import InputError
from gptcls.evaluation.intervals import wilson_interval
from gptcls.evaluation.metrics import classification_scores
from gptcls.evaluation.table import format_scores

SHARES = ("accuracy", "precision", "recall", "f1", "mcc", "roc_auc")


# Newcombe 1998, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17:857,
# Table I, method 3.
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_equals_the_published_ones(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_interval_equals_scipy(n, share, confidence):
    successes = round(share * n)
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    low, high = wilson_interval(successes, n, confidence)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= low <= successes / n <= high <= 1


def test_wilson_interval_at_the_ends_and_beyond():
    assert wilson_interval(0, 20)[0] == 0.0
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)
    for successes, n, confidence in [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 95)]:
        with pytest.raises(ValueError, match="must lie between"):
            wilson_interval(successes, n, confidence)


def random_case(n_classes: int, n: int, seed: int):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, n_classes, n)
    logits = generator.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[targets]
    return targets, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_equal_scikit_learn(seed):
    targets, probabilities = random_case(2, 150, seed)
    predicted = probabilities.argmax(axis=1)
    scores = classification_scores(targets, probabilities, ["ham", "spam"])
    expected = {
        "accuracy": metrics.accuracy_score(targets, predicted),
        "precision": metrics.precision_score(targets, predicted),
        "recall": metrics.recall_score(targets, predicted),
        "f1": metrics.f1_score(targets, predicted),
        "mcc": metrics.matthews_corrcoef(targets, predicted),
        "roc_auc": metrics.roc_auc_score(targets, probabilities[:, 1]),
    }
    assert {name: scores[name] for name in SHARES} == pytest.approx(expected)
    assert scores["confusion"] == metrics.confusion_matrix(targets, predicted).tolist()
    assert scores["support"] == {"ham": int((targets == 0).sum()), "spam": int((targets == 1).sum())}
    report = metrics.classification_report(
        targets, predicted, target_names=["ham", "spam"], output_dict=True, zero_division=0
    )
    for label in ("ham", "spam"):
        theirs = {name.replace("f1-score", "f1"): value for name, value in report[label].items()}
        assert scores["per_class"][label] == pytest.approx(theirs)
    assert scores["averages"]["weighted"]["f1"] == pytest.approx(report["weighted avg"]["f1-score"])
    assert scores["averages"]["macro"]["recall"] == pytest.approx(report["macro avg"]["recall"])


@pytest.mark.parametrize("seed", range(3))
def test_many_classes_equal_scikit_learn(seed):
    targets, probabilities = random_case(5, 200, seed)
    predicted, labels = probabilities.argmax(axis=1), list("abcde")
    scores = classification_scores(targets, probabilities, labels)
    report = metrics.classification_report(targets, predicted, target_names=labels, output_dict=True)
    expected = {
        "accuracy": report["accuracy"],
        "precision": report["macro avg"]["precision"],
        "recall": report["macro avg"]["recall"],
        "f1": report["macro avg"]["f1-score"],
        "mcc": metrics.matthews_corrcoef(targets, predicted),
        "roc_auc": metrics.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro"),
    }
    assert {name: scores[name] for name in SHARES} == pytest.approx(expected)
    for label in labels:
        row = {("f1" if name == "f1-score" else name): value for name, value in report[label].items()}
        assert scores["per_class"][label] == pytest.approx(row)
    assert scores["confusion"] == metrics.confusion_matrix(targets, predicted).tolist()


def test_confusion_by_hand():
    probabilities = np.eye(3)[[0, 1, 1, 2, 0]]
    scores = classification_scores(np.array([0, 0, 1, 2, 2]), probabilities, ["a", "b", "c"])
    assert scores["confusion"] == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert (scores["accuracy_low"], scores["accuracy_high"]) == wilson_interval(3, 5)


def strict_json(scores: dict) -> dict:
    return json.loads(json.dumps(scores, allow_nan=False))


def test_undefined_scores_are_none_without_a_warning():
    nothing = classification_scores(np.array([], dtype=int), np.zeros((0, 2)), ["ham", "spam"])
    ham_only = classification_scores(np.zeros(4, dtype=int), np.full((4, 2), [0.9, 0.1]), ["ham", "spam"])
    majority = classification_scores(np.array([0, 0, 1]), np.full((3, 2), [0.9, 0.1]), ["ham", "spam"])
    absent = classification_scores(np.array([0, 1, 1]), np.eye(3)[[0, 1, 1]], ["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scores in (nothing, ham_only, majority, absent):
            assert strict_json(scores) == scores
    assert nothing["n"] == 0
    assert [nothing[name] for name in SHARES] == [None] * 6
    assert [ham_only[name] for name in SHARES] == [1.0, None, None, None, None, None]
    assert [majority[name] for name in SHARES] == [pytest.approx(2 / 3), None, 0.0, 0.0, None, 0.5]
    assert [absent[name] for name in SHARES] == [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert absent["per_class"]["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}


@settings(deadline=None)  # the first call imports scikit-learn
@given(st.integers(2, 5), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_any_input_gives_finite_json_and_no_warning(n_classes, pairs):
    targets = np.array([target % n_classes for target, _ in pairs], dtype=int)
    probabilities = np.eye(n_classes)[[predicted % n_classes for _, predicted in pairs]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = classification_scores(targets, probabilities, [f"label {k}" for k in range(n_classes)])
    assert strict_json(scores) == scores
    assert np.sum(scores["confusion"]) == scores["n"] == len(pairs)


@pytest.mark.parametrize(
    ("targets", "probabilities", "labels", "message"),
    [
        ([0, 2], [[1, 0], [0, 1]], ["a", "b"], "target 2 in row 1"),
        ([0, -1], [[1, 0], [0, 1]], ["a", "b"], "target -1 in row 1"),
        ([0, 1], [[1, 0], [np.nan, 1]], ["a", "b"], "in row 1"),
        ([0, 1], [[1, 0, 0], [0, 1, 0]], ["a", "b"], r"\(2, 3\)"),
        ([0.5, 1], [[1, 0], [0, 1]], ["a", "b"], "float64"),
        ([0, 1], [[1, 0], [0, 1]], ["a", "a"], "each name once"),
    ],
)
def test_bad_input_is_named_in_one_line(targets, probabilities, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        classification_scores(np.array(targets), np.array(probabilities), labels)
    assert "\n" not in str(caught.value)


def example_rows() -> list[tuple[str, dict]]:
    targets, probabilities = random_case(2, 1034, 0)
    labels = ["ham", "spam"]
    sure = np.eye(2)[targets]
    return [
        ("train", classification_scores(np.tile(targets, 4), np.tile(sure, (4, 1)), labels)),
        ("validation", classification_scores(targets[:0], sure[:0], labels)),
        ("test", classification_scores(targets, probabilities, labels)),
        ("test, majority class", classification_scores(targets, np.full((1034, 2), [0.9, 0.1]), labels)),
        ("test, TF-IDF of words and characters", classification_scores(targets, 1 - probabilities, labels)),
    ]


def test_terminal_table_is_aligned_and_fits():
    rows = example_rows()
    lines = format_scores(rows).splitlines()
    assert max(map(len, lines)) <= 100
    table = lines[: 2 + len(rows)]
    assert len({len(line) for line in table}) == 1
    scores = rows[2][1]
    interval = f"[{100 * scores['accuracy_low']:.2f}, {100 * scores['accuracy_high']:.2f}]"
    cells = lines[4].split()
    assert cells[:3] == ["test", "1034", f"{100 * scores['accuracy']:.2f}"]
    assert " ".join(cells[3:5]) == interval
    assert cells[5:] == [f"{scores[name]:.3f}" for name in SHARES[1:]]
    assert lines[3].split() == ["validation", "0", *["\N{EN DASH}"] * 6]
    assert '"spam"' in lines[-1]


def test_terminal_table_wraps_what_does_not_fit():
    scores = example_rows()[2][1] | {"n": 12_345_678}
    text = format_scores(
        [("a part with a name that is far too long to stand in one line of a table", scores)]
    )
    assert max(map(len, text.splitlines())) <= 100
    assert "far too long" in " ".join(line[:30].strip() for line in text.splitlines())
    assert "12345678" in text
    assert format_scores([])


def test_note_tells_macro_averages():
    targets, probabilities = random_case(4, 50, 0)
    scores = classification_scores(targets, probabilities, list("abcd"))
    assert "macro averages over 4 classes" in format_scores([("test", scores)])
