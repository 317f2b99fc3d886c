"""How answers are shown, and what a task in classifier.json may say."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from gptcls.classify.answers import answers_of
from gptcls.classify.description import task_rules
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression

UNREAD = np.full((1, 2), np.nan)


def test_one_class():
    answers = answers_of(SingleLabel(("a", "b")))
    rows = np.vstack([[[0.25, 0.75], [0.5, 0.5]], UNREAD])
    assert (answers.columns, answers.details) == (("label",), ("probability_a", "probability_b"))
    assert [answers.fields(row) for row in rows] == [["b", "0.7500"], ["a", "0.5000"], ["", ""]]
    (column,) = answers.values(rows)
    assert (column[:2].tolist(), pd.isna(column[2])) == (["b", "a"], True)
    assert answers.values(rows[2:])[0].dtype == "string", "also where no text was read"


def test_several_labels():
    task = MultiLabel(("a", "b"), thresholds=(0.3, 0.8))
    outputs = torch.tensor([[0.3, 0.79], [0.1, 0.8], [0.9, 0.9], [0.0, 0.0]])
    assert task.decode(outputs) == [["a"], ["b"], ["a", "b"], []]
    answers, rows = answers_of(task), np.vstack([outputs.numpy(), UNREAD])
    (column,) = answers.values(rows)
    assert [json.loads(cell) for cell in column[1:4]] == [["b"], ["a", "b"], []]
    assert pd.isna(column[4])
    assert answers.fields(rows[2]) == ["a,b", "0.9000,0.9000"]
    assert answers.fields(rows[3]) == ["", ""] == answers.fields(rows[4])


def test_numbers():
    one, two = (answers_of(Regression(labels)) for labels in (("label",), ("x", "y")))
    assert (one.columns, two.columns, two.details) == (("label",), ("x", "y"), ())
    assert two.fields(np.array([-3.0, 0.25])) == ["-3", "0.25"]
    assert two.fields(UNREAD[0]) == ["", ""]
    x, y = two.values(np.vstack([[[1.5, 0.1]], UNREAD]).astype(np.float32))
    assert (x[0], y[0], np.isnan(x[1]), np.isnan(y[1])) == (1.5, 0.1, True, True)


@pytest.mark.parametrize("task", [
    SingleLabel(("a", "b")), SingleLabel(("a", "b"), (0.5, 2.0), 0.1), MultiLabel(("a",)),
    MultiLabel(("a", "b"), (0.25, 0.75), (3.0, 1.0)), Regression(("x", "y"), (1.0, -2.0), (0.5, 3.0)),
])  # fmt: skip
def test_every_task_fits_the_rules(task):
    assert all(fits for _, _, fits, _ in task_rules(json.loads(json.dumps(task.to_json()))))


def test_a_task_from_before_label_smoothing():
    old = {"kind": "single_label", "labels": ["ham", "spam"], "class_weights": None}
    assert all(fits for _, _, fits, _ in task_rules(old))


@pytest.mark.parametrize(
    ("task", "field", "value"),
    [
        (SingleLabel(("a", "b")), "labels", ["a"]),
        (SingleLabel(("a", "b")), "class_weights", [1.0, "2"]),
        (SingleLabel(("a", "b")), "label_smoothing", 1.5),
        (MultiLabel(("a", "b")), "labels", []),
        (MultiLabel(("a", "b")), "thresholds", [0.5]),
        (MultiLabel(("a", "b")), "positive_weights", [0.0, 1.0]),
        (Regression(("x",)), "scales", [0.0]),
        (Regression(("x",)), "means", [float("nan")]),
        (Regression(("x",)), "labels", ["x", "x"]),
    ],
)
def test_rules_name_the_value_that_does_not_fit(task, field, value):
    spec = json.loads(json.dumps(task.to_json())) | {field: value}
    assert [name for name, _, fits, _ in task_rules(spec) if not fits][:1] == [field]
