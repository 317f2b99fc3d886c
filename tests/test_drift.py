"""Two-sample tests against simulation, scipy and scikit-learn, and what evaluate --reference says."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.tiny import ROWS, tiny_saved, write_csv
from sklearn.metrics import roc_auc_score

import gptcls.evaluate
from gptcls.classify.store import save_classifier
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.data.split import Split, save_split
from gptcls.evaluate import evaluate
from gptcls.evaluation.decision import Decision
from gptcls.evaluation.drift import Sample, answers_of, auc_interval, drift, in_words, labels_of
from gptcls.evaluation.paired import holm

TASK = SingleLabel(("ham", "spam"))
WORDS = [f"word{i}" for i in range(60)]


def sample(n, seed, shift=0.0, longer=0, spam=0.3, new_words=(), labels=False):
    """Rows of one source; each argument changes one thing."""
    random = np.random.default_rng(seed)
    words = WORDS + list(new_words)
    ids = [random.integers(0, len(words), random.integers(4, 12) + longer).tolist() for _ in range(n)]
    texts = [" ".join(words[i] for i in row) for row in ids]
    answers = np.eye(2, dtype=int)[(random.random(n) < spam).astype(int)]
    vectors = random.normal(size=(n, 6)) + shift * np.eye(6)[0]
    return Sample(texts, ids, vectors, answers, answers if labels else None)


def changed(found):
    return {what for what, each in found["changes"].items() if each["drift"]}


# --- what is called drift ---


@pytest.mark.slow
def test_random_halves_are_not_called_drift():
    """200 times two draws of one source: with a level of 0.001 two or more calls have a chance of 2 %."""
    calls = [
        drift(sample(80, seed, labels=True), sample(60, 1000 + seed, labels=True), TASK)
        for seed in range(200)
    ]
    assert sum(found["drift"] for found in calls) <= 1
    for what in calls[0]["changes"]:
        p = np.array([found["changes"][what]["p"] for found in calls])
        assert (p < 0.05).mean() < 0.1, what


def test_a_few_random_halves_are_not_called_drift():
    for seed in range(8):
        assert drift(sample(80, seed), sample(60, 1000 + seed), TASK)["drift"] is False


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("length", {"longer": 4}),
        ("unseen tokens", {"new_words": [f"new{i}" for i in range(40)]}),
        ("predictions", {"spam": 0.8}),
        ("content", {"shift": 2.0}),
    ],
)
def test_each_change_is_found_by_its_name(what, change):
    found = drift(sample(200, 0), sample(200, 1, **change), TASK)
    assert found["drift"] is True
    assert what in changed(found)
    if what in ("predictions", "content"):
        assert changed(found) == {what}
    said = in_words(found, "the old rows")
    assert f"drift: {', '.join(each for each in found['changes'] if each in changed(found))} changed" in said
    assert "200 texts against 200 (the old rows)" in said


def test_labels_are_compared_where_both_sides_have_them():
    found = drift(sample(200, 0, labels=True), sample(200, 1, spam=0.9, labels=True), TASK)
    assert {"labels", "predictions"} <= changed(found)
    assert "labels" not in drift(sample(50, 0, labels=True), sample(50, 1), TASK)["changes"]


def test_words_that_are_new_are_named():
    found = drift(sample(200, 0), sample(200, 1, new_words=["crypto"] * 30), TASK)
    assert "now more often: crypto" in found["changes"]["content"]["said"]


def test_numbers():
    task, random = Regression(("label",)), np.random.default_rng(0)

    def of(seed, mean):
        each = sample(100, seed)
        return Sample(each.texts, each.ids, each.vectors, random.normal(mean, 1, size=(100, 1)))

    assert changed(drift(of(0, 0), of(1, 3), task)) == {"predictions"}
    assert drift(of(0, 0), of(1, 0), task)["drift"] is False


def test_too_few_rows_are_no_verdict():
    found = drift(sample(100, 0), sample(19, 1, spam=1.0), TASK)
    assert (found["drift"], found["changes"]) == (None, {})
    assert "too few to tell" in in_words(found, "x")


def test_predictions_of_few_texts_are_not_compared_and_that_is_said():
    old, new = sample(200, 0), sample(200, 1)
    found = drift(replace(old, answers=old.answers[:19]), new, TASK)
    assert "predictions" not in found["changes"]
    assert found["n_answers"] == 19
    assert "predictions    unknown    on one side only 19 texts are new to the classifier" in in_words(
        found, "x"
    )


def test_rows_that_are_all_alike():
    side = Sample(["same"] * 30, [[1, 2]] * 30, np.ones((30, 3)), np.tile([1, 0], (30, 1)))
    found = drift(side, side, TASK)
    assert found["drift"] is False
    assert {each["p"] for each in found["changes"].values()} == {1.0}


# --- formulas ---


def test_holm_by_its_definition():
    p = [0.001, 0.04, 0.03, 0.005, 0.9]
    order = np.argsort(p)
    expected = np.empty(5)
    expected[order] = np.maximum.accumulate([min(1, (5 - i) * p[k]) for i, k in enumerate(order)])
    assert holm(p) == pytest.approx(expected.tolist())


def test_auc_is_scikit_learns_and_its_interval_covers():
    random, covered, true = np.random.default_rng(0), 0, 0.7602  # of a shift of one standard deviation
    for _ in range(300):
        before, after = random.normal(size=40).round(1), random.normal(1, 1, size=60).round(1)
        auc, low, high = auc_interval(before, after)
        expected = roc_auc_score([0] * 40 + [1] * 60, np.concatenate([before, after]))
        assert auc == pytest.approx(expected)
        assert 0 < low < auc < high < 1
        covered += low <= true <= high
    assert 0.91 < covered / 300 < 0.985
    assert auc_interval(np.zeros(3), np.ones(3)) == (1, 1, 1)


def test_answers_and_labels_take_one_form():
    assert answers_of(TASK, np.array([[0.9, 0.1], [0.2, 0.8]])).tolist() == [[1, 0], [0, 1]]
    assert labels_of(TASK, ["spam", "ham"]).tolist() == [[0, 1], [1, 0]]
    assert answers_of(TASK, np.array([[0.3, 0.7]]), Decision(threshold=0.9, abstain=0.8)).tolist() == [[1, 0]]
    lists = MultiLabel(("a", "b"), thresholds=(0.5, 0.2))
    assert answers_of(lists, np.array([[0.4, 0.3]])).tolist() == [[0, 1]]
    assert labels_of(lists, ['["a", "b"]', "[]"]).tolist() == [[1, 1], [0, 0]]
    assert answers_of(Regression(("label",)), np.array([[2.5]])).tolist() == [[2.5]]


# --- the verb ---


@pytest.fixture
def run_folder(tmp_path):
    """A run on two thirds of the rows."""
    save_classifier(tmp_path / "run" / "classifier", tiny_saved())
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    save_split(Split(frame[:36], frame[36:48], frame[48:]), tmp_path / "run" / "split")
    return tmp_path / "run"


OTHER = [
    (f"quarterly turnover of the subsidiary rose by {i} per cent against the forecast", "spam")
    for i in range(40)
]


def test_new_rows_against_the_runs_own(run_folder, tmp_path, run_main):
    data = write_csv(tmp_path / "new.csv", OTHER)
    arguments = ["--model", run_folder, "--data", data, "--reference", "train", "--out", tmp_path / "out"]
    status, out, err = run_main(gptcls.evaluate, *arguments)
    assert status == 0, err
    assert "accuracy" in out
    assert "40 texts against 36 (the run's training rows)" in out
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["drift"]
    assert {"length", "unseen tokens", "labels", "content"} <= changed(found)


def test_texts_without_labels(run_folder, tmp_path, run_main):
    data = tmp_path / "new.csv"
    pd.DataFrame({"id": range(40), "text": [text for text, _ in OTHER]}).to_csv(data, index=False)
    arguments = ["--model", run_folder, "--data", data, "--out", tmp_path / "out"]
    assert run_main(gptcls.evaluate, *arguments)[0] == 2, "without a reference they are of no use"
    status, out, err = run_main(gptcls.evaluate, *arguments, "--reference", "train")
    assert status == 0, err
    assert "accuracy" not in out
    assert "drift: " in out
    assert "no column of labels" in err
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (written["scores"], list(written)) == ({}, ["scores", "baselines", "drift"])
    status, _, err = run_main(gptcls.evaluate, *arguments, "--reference", "train", "--label-column", "lable")
    assert (status, err.count("\n")) == (2, 1), "a column that is named has to be there"


def test_rows_in_memory_and_a_named_file(run_folder, tmp_path):
    reference = write_csv(tmp_path / "old.csv", ROWS)
    same = evaluate(model=str(run_folder), data=[text for text, _ in ROWS], reference=str(reference))
    assert list(same) == ["drift"]
    assert (same["drift"]["drift"], same["drift"]["n_reference"]) == (False, 60)
    frame = pd.DataFrame(OTHER, columns=["text", "label"])
    other = evaluate(model=str(run_folder), data=frame, reference=str(reference))
    assert other["drift"]["drift"] is True
    assert "labels" in other["drift"]["changes"]
    assert other["n"] == 40
    pd.DataFrame({"text": [text for text, _ in ROWS]}).to_csv(tmp_path / "texts.csv", index=False)
    plain = evaluate(model=str(run_folder), data=frame, reference=str(tmp_path / "texts.csv"))
    assert "labels" not in plain["drift"]["changes"]


def test_a_reference_that_is_not_there(run_folder, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        evaluate(
            model=str(run_folder), data=str(write_csv(tmp_path / "new.csv", OTHER)), reference="gone.csv"
        )
    with pytest.raises(InputError, match="no run's split"):
        evaluate(model="sms-spam-nano", data=str(write_csv(tmp_path / "new.csv", OTHER)), reference="train")
