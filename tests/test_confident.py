"""Suspect labels against cleanlab, and against labels that were flipped."""

import json

import numpy as np
import pytest

from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.evaluation.baselines import ClassBaselines, LabelBaselines, NumberBaselines
from gptcls.evaluation.confident import confident_class, held_out, suspects_of
from gptcls.evaluation.ngrams import Tfidf


def noisy(n=400, n_classes=4, share=0.15, seed=0):
    """Probabilities of a fair model, and labels some of which are wrong: (targets, probabilities, wrong)."""
    random = np.random.default_rng(seed)
    true = random.choice(n_classes, n, p=random.dirichlet(np.ones(n_classes) * 3))
    logits = random.normal(size=(n, n_classes)) + 2.5 * np.eye(n_classes)[true]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = random.choice(n, int(share * n), replace=False)
    targets = true.copy()
    targets[wrong] = (true[wrong] + random.integers(1, n_classes, len(wrong))) % n_classes
    return targets, shares, wrong


@pytest.mark.parametrize(("n_classes", "seed"), [(2, 0), (2, 1), (4, 0), (4, 1), (12, 2)])
def test_the_suspects_and_their_order_are_cleanlabs(n_classes, seed):
    filter_ = pytest.importorskip("cleanlab.filter", reason="needs pip install cleanlab")
    targets, shares, _ = noisy(n_classes=n_classes, seed=seed)
    task = SingleLabel(tuple(f"c{k:02}" for k in range(n_classes)))
    found = suspects_of(task, [task.labels[k] for k in targets], targets, shares)
    how = {"filter_by": "confident_learning", "return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    theirs = filter_.find_label_issues(targets, shares, **how)
    assert len(theirs) > 10
    assert found.rows.tolist() == theirs.tolist()
    others = filter_.find_label_issues(targets, shares, filter_by="predicted_neq_given", n_jobs=1)
    assert {*found.rows, *found.doubtful} == set(np.flatnonzero(others))


@pytest.mark.parametrize("seed", range(3))
def test_the_confident_joint_is_cleanlabs(seed):
    count = pytest.importorskip("cleanlab.count", reason="needs pip install cleanlab")
    targets, shares, _ = noisy(seed=seed)
    guess, joint = confident_class(targets, shares), np.zeros((4, 4), dtype=int)
    np.add.at(joint, (targets[guess >= 0], guess[guess >= 0]), 1)
    # Theirs counts at least one text of each class on the diagonal.
    theirs = count.compute_confident_joint(targets, shares, calibrate=False)
    assert (joint == theirs).all()


def test_each_of_several_labels_is_cleanlabs_judgement_of_it_alone():
    filter_ = pytest.importorskip("cleanlab.filter", reason="needs pip install cleanlab")
    columns = [noisy(300, 2, seed=seed) for seed in (3, 4, 5)]
    targets = np.stack([column[0] for column in columns], axis=1)
    outputs = np.stack([column[1][:, 1] for column in columns], axis=1)
    task = MultiLabel(("a", "b", "c"))
    labels = [json.dumps([task.labels[k] for k in np.flatnonzero(row)]) for row in targets]
    found = suspects_of(task, labels, targets.astype(np.float32), outputs)
    expected = {}
    for k, (column, shares, _) in enumerate(columns):
        for row in filter_.find_label_issues(
            column, shares, filter_by="confident_learning", n_jobs=1
        ).nonzero()[0]:
            expected.setdefault(row, set()).add(task.labels[k])
    assert set(found.rows.tolist()) == expected.keys()
    for row in found.rows.tolist():
        assert set(json.loads(found.suggested[row])) ^ set(json.loads(labels[row])) == expected[row]
    assert (np.diff(found.own[found.rows]) >= 0).all()


def test_a_number_far_from_what_other_rows_say():
    random = np.random.default_rng(0)
    true = random.normal(size=(200, 1))
    outputs, targets = true + 0.1 * random.normal(size=(200, 1)), true.copy()
    targets[17] += 5
    found = suspects_of(Regression(("label",)), [str(value) for (value,) in targets], targets, outputs)
    assert found.rows[0] == found.own.argmin() == 17
    assert float(found.suggested[17]) == pytest.approx(true[17, 0], abs=0.5)
    assert len(found.rows) < 5
    several = suspects_of(
        Regression(("x", "y")), ['{"x": 1, "y": 2}'] * 200, np.tile(targets, 2), np.tile(outputs, 2)
    )
    assert json.loads(several.suggested[17]).keys() == {"x", "y"}


# --- the models ---

TEXTS = [f"{word} number {i}" for i in range(40) for word in ("apple pie", "stone wall", "river bank")]
TRUE = np.arange(120) % 3
VECTORS = np.random.default_rng(0).normal(size=(120, 5)) + 2 * np.eye(5)[TRUE]


def test_flipped_labels_are_the_least_probable():
    rivals, targets = ClassBaselines(["a", "b", "c"]), TRUE.copy()
    flipped = np.arange(7, 120, 16)
    targets[flipped] = (targets[flipped] + 1) % 3
    known = np.ones(120, dtype=bool)
    outputs = held_out(rivals, VECTORS, Tfidf().fit_transform(TEXTS), targets, known)
    assert outputs.sum(axis=1) == pytest.approx(np.ones(120))
    found = suspects_of(SingleLabel(("a", "b", "c")), ["abc"[k] for k in targets], targets, outputs)
    assert set(np.argsort(found.own)[: len(flipped)]) == set(flipped) == set(found.rows)
    assert found.suggested == {row: "abc"[TRUE[row]] for row in found.rows}


def test_no_row_is_judged_by_a_model_that_saw_it():
    """The label of a row changes nothing of its own answer, if the folds are the same."""
    rivals, known = NumberBaselines(["label"]), np.ones(120, dtype=bool)
    targets = VECTORS[:, :1].copy()
    before = held_out(rivals, VECTORS, None, targets, known)
    targets[5] += 1000
    after = held_out(rivals, VECTORS, None, targets, known)
    assert after[5] == pytest.approx(before[5])
    assert abs(after - before).max() > 1


def test_rows_that_are_not_known_are_answered_and_teach_nothing():
    rivals, known = ClassBaselines(["a", "b", "c"]), np.ones(120, dtype=bool)
    known[::10] = False
    one, other = TRUE.copy(), TRUE.copy()
    folds = list(rivals.folds(TRUE))
    rivals.folds = lambda targets: folds
    other[::10] = (other[::10] + 1) % 3
    found = [
        held_out(rivals, VECTORS, Tfidf().fit_transform(TEXTS), targets, known) for targets in (one, other)
    ]
    assert found[0] == pytest.approx(found[1])
    assert (found[0].argmax(axis=1) == TRUE).all()


def test_labels_that_all_or_no_rows_have():
    targets = np.stack([np.ones(120), np.zeros(120), TRUE == 0], axis=1).astype(np.float32)
    known = np.ones(120, dtype=bool)
    outputs = held_out(
        LabelBaselines(["all", "none", "some"]), VECTORS, Tfidf().fit_transform(TEXTS), targets, known
    )
    assert outputs[:, 0] == pytest.approx(1)
    assert outputs[:, 1] == pytest.approx(0)
    task = MultiLabel(("all", "none", "some"))
    labels = [json.dumps(["all", "some"] if k == 0 else ["all"]) for k in TRUE]
    assert len(suspects_of(task, labels, targets, outputs).rows) == 0
