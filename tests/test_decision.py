"""Thresholds, costs and abstaining, in a run and afterwards, against Bayes' rule and scikit-learn."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.tiny import ROWS
from scipy.special import softmax
from sklearn.metrics import f1_score

from gptcls import classify_review, fit, load_classifier, train
from gptcls.classify import run as classify_run
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.evaluate import evaluate
from gptcls.evaluation.baselines import MAJORITY, TFIDF
from gptcls.evaluation.decision import (
    Decision,
    abstaining,
    best_threshold,
    read_costs,
    read_label_costs,
)
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.report import scores_table
from gptcls.train import run as train_run

QUICK = {"epochs": 2, "max_length": 16, "device": "cpu", "lr": 3e-3, "precision": "fp32"}
KINDS, PAIR = SingleLabel(("a", "b", "c")), SingleLabel(("ham", "spam"))


def outputs_of(n: int, k: int) -> np.ndarray:
    return softmax(np.random.RandomState(0).normal(size=(n, k)), axis=1).astype(np.float32)


# --- the rule ---


def test_the_answer_has_the_least_expected_cost():
    costs, p = ((0, 1, 5), (2, 0, 1), (9, 3, 1)), outputs_of(200, 3)
    given = Decision(costs).given(KINDS, p)
    for row, answer in zip(p, given, strict=True):
        expected = [sum(row[i] * costs[i][j] for i in range(3)) for j in range(3)]
        assert answer == int(np.argmin(expected))
    assert (given != p.argmax(axis=1)).any()


def test_equal_costs_are_the_likeliest_class_and_two_costs_are_a_threshold():
    p = outputs_of(300, 3)
    same = Decision(tuple(tuple(float(i != j) for j in range(3)) for i in range(3)))
    np.testing.assert_array_equal(same.given(KINDS, p), p.argmax(axis=1))
    dear = Decision(((0, 9), (1, 0)))  # a lost message is nine times as bad as spam let in
    two = outputs_of(300, 2)
    np.testing.assert_array_equal(dear.given(PAIR, two), two[:, 1] > 0.9)
    assert dear.second_above == pytest.approx(0.9)


def test_the_threshold_is_scikit_learns_best():
    p = outputs_of(60, 2)
    targets = (np.random.RandomState(1).uniform(size=60) < 0.4 * p[:, 1]).astype(int)
    best = max(f1_score(targets, p[:, 1] > cut) for cut in np.unique(p[:, 1])[:-1])
    decision = Decision(threshold=best_threshold(targets, p))
    assert f1_score(targets, decision.given(PAIR, p)) == pytest.approx(best)
    scores = judge_of(PAIR, decision).scores(targets, p)
    assert scores["f1"] == pytest.approx(best)


def test_confidence_is_that_of_the_answer_or_of_the_least_sure_label():
    p = np.array([[0.3, 0.7], [0.6, 0.4]])
    assert Decision(threshold=0.2).confidence(PAIR, p).tolist() == [0.7, 0.4]
    lists = MultiLabel(("x", "y", "z"), thresholds=(0.5, 0.3, 0.5))
    assert Decision().confidence(lists, np.array([[0.9, 0.35, 0.2]])).tolist() == [0.35]
    assert Decision().confidence(lists, np.array([[0.1, 0.2, 0.4]])).tolist() == [0.6]
    assert Decision(abstain=0.5).answers(lists, np.array([[0.9, 0.35, 0.2], [0.1, 0.2, 0.4]])) == [
        "unsure",
        [],
    ]


def test_coverage_counts_what_is_answered():
    p = outputs_of(400, 3)
    targets = np.random.RandomState(1).randint(3, size=400)
    found = Decision(abstain=0.6).coverage(KINDS, targets, p)
    sure = p.max(axis=1) >= 0.6
    assert found["answered"] == sure.sum()
    assert found["coverage"] == pytest.approx(sure.mean())
    assert found["accuracy"] == pytest.approx((p.argmax(axis=1) == targets)[sure].mean())
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert [row["confidence"] for row in found["levels"]] == [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]
    none = Decision(abstain=1.0).coverage(KINDS, targets, p)
    assert (none["answered"], none["accuracy"]) == (0, None)


# --- the files of costs ---


def test_costs_are_read_in_the_labels_order(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("true,spam,ham\nham, 10,0\n\nspam,0,1\n")
    assert read_costs(path, ("ham", "spam")) == ((0, 10), (1, 0))
    path.write_text("label,missed,false\nx,3,1\ny,1,1\n")
    assert read_label_costs(path, ("y", "x")) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("true,ham,spam\nham,0,1\n", "its lines are ham; give ham, spam, each once"),
        ("true,ham,spam,eggs\nham,0,1,1\nspam,1,0,1\n", "its answers are ham, spam, eggs; give ham, spam"),
        ("true,ham,spam\nham,0,dear\nspam,1,0\n", "the cost of 'spam' for a true 'ham' is 'dear'"),
        ("true,ham,spam\nham,0,-1\nspam,1,0\n", "is '-1'; give a number of 0 or more"),
        ("true,ham,spam\nham,0,nan\nspam,1,0\n", "is 'nan'"),
        ("true,ham,spam\nham,0\nspam,1,0\n", "is ''; give"),
        ("true,ham,spam\nham,0,1,7\nspam,1,0\n", "the line of 'ham' has 4 cells, the first line 3"),
        ("true,ham,spam\nham,2,1\nspam,1,0\n", "for a true 'ham', 'spam' costs less than 'ham'"),
        ("", "empty"),
    ],
)
def test_wrong_costs_are_one_line(tmp_path, text, said):
    path = tmp_path / "costs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        read_costs(path, ("ham", "spam"))
    assert "\n" not in str(error.value)


def test_what_cannot_abstain():
    with pytest.raises(InputError, match=r"--abstain 1\.5 is not a probability"):
        abstaining(Decision(), PAIR, 1.5)
    with pytest.raises(InputError, match="numbers have no confidence"):
        abstaining(Decision(), Regression(("x",)), 0.9)
    with pytest.raises(InputError, match="rename the label"):
        abstaining(Decision(), SingleLabel(("sure", "unsure")), 0.9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--threshold", "cost"), "needs --costs FILE"),
        (("--threshold", "auto", "--costs", "x.csv"), "exclude each other"),
        (("--abstain", "90"), "not a probability"),
        (("--costs", "absent.csv"), "absent.csv: no such file"),
        (("--task", "regression", "--abstain", "0.9"), "numbers"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_trained(run_main, options, said):
    status, out, error = run_main(train_run, *options)
    assert (status, out) == (2, "")
    assert said in error
    assert "epoch 1" not in error


# --- a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of tiny random weights, too sure and often wrong."""
    from conftest import base

    folder = tmp_path_factory.mktemp("decision")
    (folder / "costs.csv").write_text("true,ham,spam\nham,0,9\nspam,1,0\n")
    random = np.random.RandomState(0)
    frame = pd.DataFrame(ROWS * 3, columns=["text", "label"])
    frame["text"] = [f"{text} {random.randint(10**6)}" for text in frame["text"]]
    wrong = random.uniform(size=len(frame)) < 0.25
    frame.loc[wrong, "label"] = frame["label"].map({"ham": "spam", "spam": "ham"})
    return train(
        data=frame, model=str(base.__wrapped__(folder)), costs=folder / "costs.csv", abstain=0.6,
        validation_fraction=0.3, save="full", out=folder / "run", train="all", **QUICK | {"epochs": 12},
    )  # fmt: skip


def test_it_is_saved_and_used_again(run, tmp_path):
    spec = json.loads((run.folder / "classifier/classifier.json").read_text())
    assert spec["decision"] == {"costs": [[0, 9], [1, 0]], "threshold": None, "abstain": 0.6}
    assert spec["calibration"]["temperatures"][0] > 1
    texts = run.split.test["text"].tolist()
    p = load_classifier(run.folder, "cpu", "fp32").predict_proba(texts)
    np.testing.assert_allclose(p, run.outputs["test"], atol=1e-5)
    answer = np.where(p[:, 1] > 0.9, "spam", "ham").astype("U6")
    sure = np.where(p[:, 1] > 0.9, p[:, 1], p[:, 0])
    answer[sure < 0.6] = "unsure"
    assert set(answer) > {"unsure"}
    assert run.predict(texts) == answer.tolist()
    assert run.predictions("test")["answer"].tolist() == answer.tolist()
    assert classify_review(texts, run.predictor) == ["not spam" if x == "ham" else x for x in answer]


def test_calibration_leaves_the_likeliest_class(run):
    before = run.classifier.calibration.temperatures[0]
    plain = softmax(before * np.log(run.outputs["test"].astype(float)), axis=1)
    assert calibration_error(run, plain) > 0
    np.testing.assert_array_equal(plain.argmax(axis=1), run.outputs["test"].argmax(axis=1))


def calibration_error(run, p):
    return judge_of(run.classifier.task).scores(run.targets["test"], p)["calibration"]["ece"]


def test_the_scores_the_pictures_and_the_table(run, capsys):
    scores = json.loads((run.folder / "metrics.json").read_text())["scores"]["test"]
    p, targets = run.outputs["test"], run.targets["test"]
    given = (p[:, 1] > 0.9).astype(int)
    assert scores["accuracy"] == pytest.approx((given == targets).mean())
    expected = np.where(given == targets, 0, np.where(given == 1, 9, 1)).mean()
    assert scores["coverage"]["cost"] == pytest.approx(expected)
    rivals = json.loads((run.folder / "metrics.json").read_text())["baselines"]
    majority = run.classifier.task.targets(run.split.train["label"].tolist()).mode().values.item()
    missed = {0: (targets == 1).mean(), 1: 9 * (targets == 0).mean()}[majority]
    assert rivals[MAJORITY]["test"]["cost"] == pytest.approx(missed)
    assert 0 <= rivals[TFIDF]["test"]["cost"] <= 9
    assert scores["calibration"]["ece_low"] <= scores["calibration"]["ece"]
    for name in ("reliability.png", "coverage.png"):
        assert (run.folder / name).stat().st_size > 1000
    again = evaluate(model=run.folder, device="cpu", show=True)
    assert again["coverage"]["answered"] == scores["coverage"]["answered"]
    out = capsys.readouterr().out
    assert "unsure below 0.6" in out
    assert "calibration error (ECE) on test" in out
    assert "a text" in out
    shown = scores_table(run.classifier.task, run.scores, run.baselines)
    assert f"cost on test: {expected:.4g} a text; {MAJORITY} {missed:.4g}; {TFIDF} " in shown
    always = evaluate(model=run.folder, device="cpu", abstain=0.0)
    assert always["coverage"]["coverage"] == 1


def test_the_command_lines_use_it_and_may_say_otherwise(run, run_main, tmp_path):
    text = run.split.test["text"].tolist()[run.predict(run.split.test["text"].tolist()).index("unsure")]
    status, out, _ = run_main(classify_run, "--model", run.folder, "--device", "cpu", text)
    assert (status, out.split("\t")[0]) == (0, "unsure")
    assert float(out.split("\t")[1]) < 0.6
    status, out, _ = run_main(classify_run, "--model", run.folder, "--abstain", 0, "--device", "cpu", text)
    assert out.split("\t")[0] in ("ham", "spam")
    status, _, said = run_main(classify_run, "--model", run.folder, "--abstain", 9, text)
    assert (status, "--abstain 9.0 is not a probability" in said) == (2, True)
    run.split.test.to_csv(tmp_path / "in.csv", index=False)
    config = classify_run.ClassifyConfig(
        model=str(run.folder), data=tmp_path / "in.csv", out=tmp_path / "out.csv", device="cpu"
    )
    classify_run.classify(config)
    assert pd.read_csv(tmp_path / "out.csv")["predicted_label"].tolist() == run.predict(
        run.split.test["text"].tolist()
    )


def test_auto_is_for_two_classes(base):
    rows = pd.DataFrame([(f"{w} {i}", w) for i in range(12) for w in "abc"], columns=["text", "label"])
    with pytest.raises(InputError, match="--threshold auto is for two classes, these rows have 3"):
        fit(rows, base, threshold="auto", **QUICK)


def test_labels_by_cost(base, tmp_path):
    (tmp_path / "costs.csv").write_text("label,missed,false\na,1,3\nb,1,1\nc,4,1\n")
    texts = [f"{'abc'[i % 3]} {'abc'[i % 2]} {i}" for i in range(60)]
    labels = [sorted({"abc"[i % 3], "abc"[i % 2]}) for i in range(60)]
    run = fit(texts, base, labels=labels, task="multi", costs=tmp_path / "costs.csv", **QUICK)
    assert run.classifier.task.thresholds == (0.75, 0.5, 0.2)
