"""Each task's loss, answers and choices, against transformers, formulas written out, and brute force."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, mean_absolute_error
from sklearn.utils.class_weight import compute_class_weight

from gptcls.classify.answers import answers_of
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression, task_from_json
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.metrics import best_thresholds

LISTS = ['["a", "b"]', '["b"]', "[]", '["c"]', '["b", "c"]']


@pytest.fixture
def logits():
    return 2 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def transformers_loss(problem, labels, logits):
    from transformers import PretrainedConfig
    from transformers.loss.loss_utils import ForSequenceClassificationLoss

    config = PretrainedConfig(num_labels=logits.shape[1], problem_type=problem)
    return ForSequenceClassificationLoss(labels, logits, config)


# --- losses ---


def test_losses_are_those_of_transformers(logits):
    single = SingleLabel(("a", "b", "c"))
    targets = single.targets(["a", "c", "b", "b", "a"])
    expected = transformers_loss("single_label_classification", targets, logits)
    torch.testing.assert_close(single.loss(logits, targets), expected)

    multi = MultiLabel(("a", "b", "c"))
    targets = multi.targets(LISTS)
    expected = transformers_loss("multi_label_classification", targets, logits)
    torch.testing.assert_close(multi.loss(logits, targets), expected)

    one = Regression.for_training(["1.5", "-2.0", "0.25", "7.0", "3.0"], raw_targets=True)
    targets = one.targets(["1.5", "-2.0", "0.25", "7.0", "3.0"])
    assert targets.shape == (5, 1)
    expected = transformers_loss("regression", targets, logits[:, :1])
    torch.testing.assert_close(one.loss(logits[:, :1], targets), expected)

    rows = [json.dumps({"x": float(i), "y": -2.0 * i, "z": 0.5 + i * i}) for i in range(5)]
    several = Regression.for_training(rows, raw_targets=True)
    targets = several.targets(rows)
    expected = transformers_loss("regression", targets, logits)
    torch.testing.assert_close(several.loss(logits, targets), expected)


def test_class_weights_and_label_smoothing_by_their_formulas(logits):
    """1 - e of the target's log-probability, e / K of every class's, weighted, over the targets' weights."""
    names = ["a", "c", "b", "b", "a"]
    task = SingleLabel.for_training(names, balance="weights", label_smoothing=0.1)
    weights = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(names))
    np.testing.assert_allclose(task.class_weights, weights)
    targets, w = task.targets(names), torch.tensor(weights, dtype=torch.float32)
    log_p = logits.log_softmax(dim=1)
    right = (w[targets] * log_p[torch.arange(5), targets]).sum()
    every = (w * log_p).sum() / 3
    expected = -(0.9 * right + 0.1 * every) / w[targets].sum()
    torch.testing.assert_close(task.loss(logits, targets), expected)
    assert task.loss_weight(targets) == pytest.approx(w[targets].sum().item())
    assert SingleLabel.for_training(names).class_weights is None


def test_positive_weights_by_their_formula(logits):
    task = MultiLabel.for_training(LISTS, balance="weights")
    assert task.positive_weights == (4.0, 2 / 3, 1.5)  # without / with, of 1, 3 and 2 rows of 5
    targets, w = task.targets(LISTS), torch.tensor(task.positive_weights)
    p = logits.sigmoid()
    expected = -(w * targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    torch.testing.assert_close(task.loss(logits, targets), expected)
    assert MultiLabel.for_training(['["a"]', '["a", "b"]'], balance="weights").positive_weights == (1.0, 1.0)


@pytest.mark.parametrize("make", [
    lambda: (SingleLabel(("a", "b", "c"), (0.2, 1.0, 3.0), 0.1), ["a", "c", "b", "b", "a"]),
    lambda: (MultiLabel(("a", "b", "c"), positive_weights=(2.0, 0.5, 1.0)), LISTS),
    lambda: (Regression(("label",), (1.0,), (2.0,)), ["1.0", "2.0", "3.5", "0.0", "9.0"]),
])  # fmt: skip
def test_parts_of_a_batch_add_up_to_its_loss(make, logits):
    """What gradient accumulation relies on."""
    task, labels = make()
    logits, targets = logits[:, : task.n_outputs], task.targets(labels)
    whole, weight = task.loss(logits, targets), task.loss_weight(targets)
    parts = [slice(0, 2), slice(2, 5)]
    summed = sum(task.loss(logits[s], targets[s]) * task.loss_weight(targets[s]) / weight for s in parts)
    torch.testing.assert_close(summed, whole)


def test_standardised_targets():
    labels = ["1000.0", "3000.0", "2000.0", "6000.0"]
    task = Regression.for_training(labels)
    targets = task.targets(labels)
    assert (task.means, task.scales) == ((3000.0,), pytest.approx((np.std([1000, 3000, 2000, 6000]),)))
    mean_logits = torch.zeros(4, 1)
    assert task.loss(mean_logits, targets).item() == pytest.approx(1.0)  # the variance, in its own units
    assert task.outputs(mean_logits).flatten().tolist() == [3000.0] * 4
    perfect = (targets - 3000) / task.scales[0]
    assert task.loss(perfect, targets).item() == pytest.approx(0.0, abs=1e-12)
    assert task.decode(task.outputs(perfect)) == pytest.approx([1000, 3000, 2000, 6000])
    off = task.measure(mean_logits, targets)
    assert off == pytest.approx(mean_absolute_error(targets, np.full((4, 1), 3000.0)))


# --- answers ---


def test_answers_of_several_labels():
    task = MultiLabel(("a", "b"), thresholds=(0.3, 0.8))
    outputs = torch.tensor([[0.3, 0.79], [0.1, 0.8], [0.9, 0.9], [0.0, 0.0]])
    assert task.decode(outputs) == [["a"], ["b"], ["a", "b"], []]
    rows = np.vstack([outputs.numpy(), np.full((1, 2), np.nan)])
    shown = answers_of(task)
    (column,) = shown.values(rows)
    assert column[1:4].tolist() == ['["b"]', '["a", "b"]', "[]"]
    assert column.isna().tolist() == [False] * 4 + [True]
    assert shown.fields(rows[2]) == ["a,b", "0.9000,0.9000"]
    assert shown.fields(rows[3]) == ["", ""] == shown.fields(rows[4])


def test_answers_of_numbers():
    one, two = Regression(("label",)), Regression(("x", "y"))
    outputs = torch.tensor([[1.5, 2.0], [-3.0, 0.25]])
    assert one.decode(outputs[:, :1]) == [1.5, -3.0]
    assert two.decode(outputs) == [[1.5, 2.0], [-3.0, 0.25]]
    shown = answers_of(two)
    assert (answers_of(one).columns, shown.columns, shown.details) == (("label",), ("x", "y"), ())
    assert shown.fields(outputs[1].numpy()) == ["-3", "0.25"]
    assert shown.fields(np.array([np.nan, np.nan])) == ["", ""]


def test_micro_f1_is_scikit_learns(logits):
    task = MultiLabel(("a", "b", "c"))
    targets = task.targets(LISTS)
    predicted = (logits.sigmoid() >= 0.5).numpy()
    assert task.measure(logits, targets) == pytest.approx(f1_score(targets, predicted, average="micro"))
    assert task.measure(torch.full((5, 3), -9.0), torch.zeros(5, 3)) == 0.0


def test_summaries():
    assert judge_of(SingleLabel(("x", "y"))).summary(["x", "y", "x"]) == "2 x, 1 y"
    assert judge_of(MultiLabel.for_training(LISTS)).summary(LISTS) == "1.20 labels each, 1 a, 3 b, 2 c"
    said = judge_of(Regression(("label",))).summary(["1.0", "3.0"])
    assert said == "label 2 ± 1, from 1 to 3"


@pytest.mark.parametrize(("names", "said"), [([], "no class"), (["ham", "ham"], "'ham'")])
def test_one_class_or_none_is_refused(names, said):
    with pytest.raises(InputError, match=said):
        SingleLabel.of(names)


# --- thresholds ---


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=12))
def test_thresholds_reach_the_best_f1_there_is(rows):
    """Against every cut that a brute search can make."""
    probabilities = np.array([[p / 8] for p, _ in rows], dtype=np.float32)
    targets = np.array([[y] for _, y in rows])
    (found,) = best_thresholds(targets, probabilities)
    if not targets.any():
        assert found == 0.5
        return

    def f1(threshold):
        given = probabilities >= threshold
        return 2 * (given & targets).sum() / (given.sum() + targets.sum())

    cuts = np.linspace(0, 1, 33)  # some lie between any two of the probabilities
    best = max(map(f1, cuts))
    assert f1(found) == pytest.approx(best)


def test_the_threshold_among_equals_is_near_a_half():
    def found(*rows):
        probabilities, targets = (np.array(column)[:, None] for column in zip(*rows, strict=True))
        return best_thresholds(targets, probabilities)[0]

    assert found((0.6, 1)) == 0.5
    assert found((0.2, 1)) == 0.2
    assert found((0.9, 1), (0.5, 0)) == pytest.approx(0.7)
    assert found((0.9, 1), (0.8, 0), (0.7, 0), (0.4, 1)) == 0.4, "0.85 has an F1 of 2 / 3 too"


def test_tuning_keeps_half_where_validation_lacks_a_label(caplog):
    task = MultiLabel(("a", "b", "c"))
    targets = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1]])
    outputs = np.array([[0.2, 0.9, 0.1], [0.1, 0.8, 0.3], [0.3, 0.1, 0.6]], dtype=np.float32)
    with caplog.at_level(logging.INFO, "gptcls"):
        tuned = judge_of(task).tuned(targets, outputs)
    assert tuned.thresholds == pytest.approx((0.15, 0.5, 0.45))
    assert any("b" in line and "0.5" in line for line in caplog.messages)
    assert task.thresholds == (0.5, 0.5, 0.5)
    single = SingleLabel(("a", "b"))
    assert judge_of(single).tuned(targets, outputs) is single


# --- on disk ---


@pytest.mark.parametrize("task", [
    SingleLabel(("a", "b")), SingleLabel(("a", "b"), (0.5, 2.0), 0.1), MultiLabel(("a",)),
    MultiLabel(("a", "b"), (0.25, 0.75), (3.0, 1.0)), Regression(("x", "y"), (1.0, -2.0), (0.5, 3.0)),
])  # fmt: skip
def test_round_trip_through_json(task):
    spec = json.loads(json.dumps(task.to_json()))
    assert task_from_json(spec) == task


def test_a_description_from_before_label_smoothing():
    old = {"kind": "single_label", "labels": ["ham", "spam"], "class_weights": None}
    assert task_from_json(old) == SingleLabel(("ham", "spam"))


# --- what does not fit ---


def test_labels_that_training_had_not():
    with pytest.raises(InputError, match=r"row 1: label 'z'.* a, b"):
        MultiLabel(("a", "b")).targets(['["a"]', '["a", "z"]'])
    with pytest.raises(InputError, match=r"row 0: numbers z,.* x, y"):
        Regression(("x", "y")).targets(['{"z": 1.0}'])
    assert Regression(("x", "y")).targets([]).shape == (0, 2)
    with pytest.raises(InputError, match="no training row has a label"):
        MultiLabel.for_training(["[]", "[]"])
    with pytest.raises(InputError, match="'label' is 2 in every training row"):
        Regression.for_training(["2.0", "2.0"])


def test_weights_do_not_change_what_is_predicted():
    task = SingleLabel(("a", "b", "c"))
    outputs = torch.tensor([[0.2, 0.5, 0.3]])
    assert replace(task, class_weights=(9.0, 1.0, 1.0)).decode(outputs) == task.decode(outputs) == ["b"]
