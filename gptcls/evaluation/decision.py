"""From probabilities to answers: the likeliest class, or the one that costs least, or "unsure".

>>> from gptcls.core.task import SingleLabel
>>> task, p = SingleLabel(("ham", "spam")), np.array([[0.3, 0.7], [0.05, 0.95]])
>>> Decision().answers(task, p), Decision(threshold=0.9).answers(task, p)
(['spam', 'spam'], ['ham', 'spam'])
>>> Decision(abstain=0.8).answers(task, p)
['unsure', 'spam']
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import MultiLabel
from gptcls.data.encodings import open_text, require_text
from gptcls.evaluation.intervals import wilson_interval
from gptcls.evaluation.metrics import best_thresholds

UNSURE = "unsure"
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # of confidence, in the table
Costs = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Decision:
    """Of K classes ``costs`` (K, K) are what it costs to answer column j where row i is true; without them
    every error costs the same. Of two classes the second is the answer above ``threshold``, where there is
    one. Labels of a list are given by the task's own thresholds. A text has no answer but :data:`UNSURE`
    where its confidence is below ``abstain``."""

    costs: Costs | None = None
    threshold: float | None = None
    abstain: float = 0.0

    def given(self, task: Task, outputs: np.ndarray) -> np.ndarray:
        """What is answered to outputs (N, K), sure or not: classes (N,), or the labels of each text (N, K).

        The class with the least expected cost (Bayes' rule; Elkan 2001, "The foundations of cost-sensitive
        learning"), the first of several."""
        if isinstance(task, MultiLabel):
            return outputs >= np.array(task.thresholds)
        if self.threshold is not None:
            return (outputs[:, 1].astype(float) > self.threshold).astype(int)
        if self.costs is None:
            return outputs.argmax(axis=1)
        return (outputs @ np.array(self.costs)).argmin(axis=1)

    def confidence(self, task: Task, outputs: np.ndarray) -> np.ndarray:
        """The probability (N,) that an answer is right; of a list of labels that of the least sure of its K
        decisions, each of which gives a label or leaves it out."""
        given = self.given(task, outputs)
        if given.ndim == 2:
            return np.where(given, outputs, 1 - outputs).min(axis=1)
        return np.take_along_axis(outputs, given[:, None], axis=1)[:, 0]

    def sure(self, task: Task, outputs: np.ndarray) -> np.ndarray:
        """Which texts (N,) have an answer."""
        return self.confidence(task, outputs) >= self.abstain

    def answers(self, task: Task, outputs: np.ndarray) -> list:
        """The answer to each text: a class, a list of labels, or "unsure"; a number, or several."""
        if not task.has_probabilities:
            return task.decode(torch.from_numpy(outputs))
        names, sure = [], self.sure(task, outputs)
        for row, is_sure in zip(self.given(task, outputs), sure, strict=True):
            name = [task.labels[k] for k in np.flatnonzero(row)] if np.ndim(row) else task.labels[row]
            names.append(name if is_sure else UNSURE)
        return names

    def right(self, task: Task, targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Which answers (N,) are right, sure or not; a list is where all its labels are."""
        given = self.given(task, outputs)
        return (given == targets) if given.ndim == 1 else (given == targets.astype(bool)).all(axis=1)

    def coverage(self, task: Task, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """How many of N texts are answered and how many of these answers are right, as JSON values: at
        ``abstain``, and in ``levels`` at other least confidences. ``cost`` is the mean cost of a text, where
        errors have one, all answered."""
        confidence, right = self.confidence(task, outputs), self.right(task, targets, outputs)
        found = {"abstain": self.abstain, **_answered(right[confidence >= self.abstain], len(right))}
        if self.costs is not None and len(right):
            found["cost"] = self.cost(task, targets, outputs)
        at = {level: right[confidence >= level] for level in sorted({*LEVELS, self.abstain} - {0.0})}
        found["levels"] = [{"confidence": x, **_answered(sure, len(right))} for x, sure in at.items()]
        return found

    def cost(self, task: Task, targets: np.ndarray, outputs: np.ndarray) -> float:
        """The mean of ``costs`` over N >= 1 texts, all answered."""
        return float(np.array(self.costs)[targets, self.given(task, outputs)].mean())

    @property
    def second_above(self) -> float:
        """Of two classes: the probability of the second above which it is the answer."""
        if self.costs is None:
            return 0.5 if self.threshold is None else self.threshold
        (right, false), (missed, found) = self.costs
        both = false - right + missed - found
        return (false - right) / both if both else 1.0

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, spec: dict | None) -> "Decision":
        """What :meth:`to_json` gave; None is the plain one."""
        if spec is None:
            return PLAIN
        costs = spec["costs"] and tuple(tuple(map(float, row)) for row in spec["costs"])
        return cls(costs, spec["threshold"], spec["abstain"])


PLAIN = Decision()


def abstaining(decision: Decision, task: Task, abstain: float) -> Decision:
    """``decision``, unsure below a confidence; InputError for what is none, and for a task without any."""
    if not 0 <= abstain <= 1:
        raise InputError(f"--abstain {abstain} is not a probability; use 0 to 1, such as 0.9")
    if not task.has_probabilities:
        raise InputError(f"--abstain {abstain}: predicted numbers have no confidence; leave it out")
    if abstain and UNSURE in task.labels:
        raise InputError(f"--abstain answers {UNSURE!r}, which is a label of these rows; rename the label")
    return replace(decision, abstain=float(abstain))


def _answered(right: np.ndarray, n_all: int) -> dict:
    n, hits = len(right), int(right.sum())
    low, high = wilson_interval(hits, n) if n else (None, None)
    shares = {"accuracy": hits / n if n else None, "accuracy_low": low, "accuracy_high": high}
    return {"answered": n, "coverage": n / n_all if n_all else None, **shares}


def best_threshold(targets: np.ndarray, outputs: np.ndarray) -> float:
    """Of two classes: that with the largest F1 of the second over targets (N,) and probabilities (N, 2)."""
    (threshold,) = best_thresholds((targets == 1)[:, None], outputs[:, 1:])
    return threshold


def read_costs(path: Path, labels: Sequence[str]) -> Costs:
    """The costs (K, K) of a CSV file: a first line of answers, then a line for each true label with its cost
    under each answer. InputError for other labels than the K, for a cost that is no number of at least 0, and
    where a wrong answer costs less than the right one."""
    table = _read_table(path, labels, labels, "answers")
    for name in labels:
        least = min(labels, key=lambda answer: table[name, answer])
        if table[name, least] < table[name, name]:
            said = f"for a true {name!r}, {least!r} costs less than {name!r}"
            raise InputError(f"--costs {path}: {said}; correct it")
    return tuple(tuple(table[name, answer] for answer in labels) for name in labels)


def read_label_costs(path: Path, labels: Sequence[str]) -> tuple[float, ...]:
    """The thresholds of K labels by a CSV file of the columns ``label``, ``missed`` and ``false``: what it
    costs to leave a label out that is true, and to give one that is not. A label is worth giving where its
    probability is at least false / (false + missed). Errors as of :func:`read_costs`."""
    table = _read_table(path, labels, ("missed", "false"), "columns")
    for name in labels:
        if not table[name, "missed"] + table[name, "false"]:
            raise InputError(f"--costs {path}: both errors of {name!r} cost 0; give one of them a cost")
    return tuple(table[x, "false"] / (table[x, "false"] + table[x, "missed"]) for x in labels)


def _read_table(path: Path, names: Sequence[str], columns: Sequence[str], what: str) -> dict:
    require_text(path)
    with open_text(path, newline="") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file) if any(line)]
    head, rows = lines[0][1:], lines[1:]
    found = {what: (head, columns), "lines": ([row[0] for row in rows], names)}
    for kind, (given, wanted) in found.items():
        if sorted(given) != sorted(wanted):
            said = f"its {kind} are {', '.join(given) or 'none'}"
            raise InputError(f"--costs {path}: {said}; give {', '.join(wanted)}, each once")
    for row in rows:
        if len(row) > len(lines[0]):
            said = f"the line of {row[0]!r} has {len(row)} cells, the first line {len(lines[0])}"
            raise InputError(f"--costs {path}: {said}; correct it")
    return {
        (row[0], column): _cost(path, row[0], column, cell)
        for row in rows
        for column, cell in zip_longest(head, row[1:], fillvalue="")
    }


def _cost(path: Path, name: str, answer: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        said = f"the cost of {answer!r} for a true {name!r} is {cell!r}"
        raise InputError(f"--costs {path}: {said}; give a number of 0 or more")
    return value
