"""Any number of K labels a text, none included.

One or more numbers a text; with one, the classifier serves as a reward model.

What the targets mean: their dtype, the loss, how logits become answers, and the scores.

One class a text, any number of labels, or numbers. The training loop calls a :class:`Task`'s methods and has
no ``if`` about its kind.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.core.errors import InputError
from gptcls.core.task import Parts, SingleLabel, Task, label_rule, numbers_rule
from gptcls.data.labels import LISTS, NUMBERS, numbers

log = logging.getLogger("gptcls")


HALF = 0.5


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of K labels a text, each decided on its own.

    A label is given where its probability is at least its threshold; ``thresholds`` are 0.5 until
    :meth:`tuned` has chosen them on validation rows. ``positive_weights`` weigh the texts that have a label
    against those that lack it in the loss (balanced: their numbers' inverse ratio).
    """

    thresholds: tuple[float, ...] = ()
    positive_weights: tuple[float, ...] | None = None

    kind = "multi_label"
    label_kind = LISTS
    measure_name = "micro-F1"
    measure_format = "{:.3f}"
    units: ClassVar = {"loss": "nats", "micro-F1": ""}

    def __post_init__(self) -> None:
        if not self.thresholds:
            object.__setattr__(self, "thresholds", (HALF,) * len(self.labels))

    @classmethod
    def for_training(cls, labels: Sequence[str], balance: str = "none") -> "MultiLabel":
        """The task over all labels of the training rows; ``balance="weights"`` sets positive weights."""
        counts = Counter(chain.from_iterable(map(json.loads, labels)))
        if not counts:
            raise InputError("no training row has a label: a classifier needs one or more")
        names = tuple(sorted(counts))
        if balance == "weights":
            # A label that every row has needs no weight, and has no ratio but zero.
            weights = tuple((len(labels) - counts[name]) / counts[name] or 1.0 for name in names)
            return cls(names, positive_weights=weights)
        return cls(names)

    def targets(self, labels: Sequence[str]) -> Tensor:
        """Label lists as 0 and 1 (N, K), float32; InputError naming the row of an unknown label."""
        index = {label: i for i, label in enumerate(self.labels)}
        targets = torch.zeros(len(labels), len(index))
        for row, names in enumerate(map(json.loads, labels)):
            for name in names:
                if name not in index:
                    raise InputError(
                        f"row {row}: label {name!r} was not seen in training; "
                        f"this classifier knows {', '.join(self.labels)}"
                    )
                targets[row, index[name]] = 1.0
        return targets

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross entropy of logits and targets (B, K), mean over both."""
        weight = None
        if self.positive_weights is not None:
            weight = torch.tensor(self.positive_weights, dtype=logits.dtype, device=logits.device)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """Micro-F1 of the decisions at the thresholds; 0 where nothing is found and nothing is there."""
        predicted, there = self._predicted(self.outputs(logits)), targets.bool()
        either = (predicted.sum() + there.sum()).item()
        return 2 * (predicted & there).sum().item() / either if either else 0.0

    def tuned(self, targets: np.ndarray, outputs: np.ndarray) -> "MultiLabel":
        """The same with the thresholds of the largest F1 on these rows.

        A label that no row has keeps 0.5, and the log says so.
        """
        from gptcls.evaluation.multilabel import best_thresholds

        found = best_thresholds(targets, outputs)
        if absent := [label for label, cut in zip(self.labels, found, strict=True) if cut is None]:
            named = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
            log.info(f"no validation row has {named}: the threshold stays at {HALF}")
        thresholds = tuple(HALF if cut is None else cut for cut in found)
        log.info(f"thresholds tuned on {len(targets):,} validation rows: {_range(thresholds)}")
        return replace(self, thresholds=thresholds)

    def summary(self, labels: Sequence[str]) -> str:
        """Labels a text, and how many texts each label has."""
        lists = list(map(json.loads, labels))
        counts = Counter(chain.from_iterable(lists))
        mean = counts.total() / max(1, len(lists))
        return f"{mean:.2f} labels each, " + ", ".join(f"{counts[label]:,} {label}" for label in self.labels)

    def outputs(self, logits: Tensor) -> Tensor:
        """The probability of each label on its own (N, K); rows do not sum to 1."""
        return logits.sigmoid()

    def decode(self, outputs: Tensor) -> list[list[str]]:
        """The labels of each row, in their order; possibly none."""
        rows = self._predicted(outputs).tolist()
        return [[label for label, given in zip(self.labels, row, strict=True) if given] for row in rows]

    def _predicted(self, outputs: Tensor) -> Tensor:
        # In double precision, as the scores compare: a float32 threshold may lie on the other side.
        thresholds = torch.tensor(self.thresholds, dtype=torch.float64)
        return outputs.double().cpu() >= thresholds

    def printed(self, outputs: np.ndarray) -> list[str]:
        """The labels and their probabilities, each joined with commas; twice nothing for a text not read."""
        if np.isnan(outputs).any():
            return ["", ""]
        given = np.flatnonzero(outputs >= np.array(self.thresholds))
        return [",".join(self.labels[i] for i in given), ",".join(f"{outputs[i]:.4f}" for i in given)]

    def answers(self, outputs: np.ndarray) -> list[Sequence]:
        """The labels of each text as a JSON array, as they are read; None where it was not read."""
        lists = self.decode(torch.from_numpy(outputs))
        unread = np.isnan(outputs).any(axis=1)
        return [
            [
                None if gone else json.dumps(names, ensure_ascii=False)
                for names, gone in zip(lists, unread, strict=True)
            ]
        ]

    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """:func:`multilabel_scores` of targets and probabilities (N, K) at the thresholds."""
        from gptcls.evaluation.multilabel import multilabel_scores

        return multilabel_scores(targets, outputs, self.labels, self.thresholds)

    def baselines(self, parts: Parts) -> dict[str, dict[str, dict]]:
        """The commonest label, and TF-IDF with a logistic regression for each label."""
        from gptcls.evaluation.baselines import multilabel_baselines

        return multilabel_baselines(parts, self.labels)

    def table(self, rows: Sequence[tuple[str, dict]]) -> str:
        """Exact hits (subset accuracy), Hamming loss, F1s and average precision."""
        from gptcls.evaluation.table import LISTS as COLUMNS
        from gptcls.evaluation.table import format_scores

        return format_scores(rows, COLUMNS)

    def details(self, scores: dict) -> str:
        """Each label's scores and threshold, and the averages."""
        from gptcls.evaluation.table import format_per_class

        return format_per_class(scores)

    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> dict:
        """F1, precision and recall of each label."""
        from gptcls.evaluation.plots import plot_label_scores

        return {"labels.png": plot_label_scores(scores["per_class"])}

    @classmethod
    def rules(cls, spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
        """One or more labels, a threshold for each and, perhaps, a weight."""
        yield label_rule(spec, least=1)
        yield numbers_rule(spec, "thresholds", ())
        yield numbers_rule(spec, "positive_weights", None, above=0.0)


def _range(thresholds: Sequence[float]) -> str:
    return f"{min(thresholds):.3f} to {max(thresholds):.3f}"


@dataclass(frozen=True)
class Regression(Task):
    """K numbers a text, each named by its label; a lone number from a column is called "label".

    The logits stand for the numbers in standard deviations from their mean: ``(number - means) / scales``. So
    one learning rate serves ratings from 1 to 5 and prices in thousands, several numbers weigh alike in the
    loss, and a fresh head begins near the mean. With the default means and scales of 0 and 1 the loss is that
    of the numbers themselves, as in transformers.
    """

    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()

    kind = "regression"
    label_kind = NUMBERS
    measure_name = "MAE"
    measure_format = "{:.4g}"
    units: ClassVar = {"loss": "", "MAE": ""}
    has_probabilities = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", self.means or (0.0,) * len(self.labels))
        object.__setattr__(self, "scales", self.scales or (1.0,) * len(self.labels))

    @classmethod
    def for_training(cls, labels: Sequence[str], raw_targets: bool = False) -> "Regression":
        """The task over the numbers of the training rows, standardised unless ``raw_targets``.

        Raises InputError when one of the numbers is the same in every row.
        """
        task = cls(tuple(numbers(labels[0])))
        values = task.targets(labels).double()
        means, scales = values.mean(dim=0).tolist(), values.std(dim=0, correction=0).tolist()
        for name, mean, scale in zip(task.labels, means, scales, strict=True):
            if not scale > 1e-7 * abs(mean):
                raise InputError(f"number {name!r} is {mean:g} in every training row: nothing can be learnt")
        return task if raw_targets else cls(task.labels, tuple(means), tuple(scales))

    def targets(self, labels: Sequence[str]) -> Tensor:
        """The numbers (N, K), float32, in their own units; InputError naming the row of other numbers."""
        rows = [numbers(label) for label in labels]
        for i, row in enumerate(rows):
            if row.keys() != set(self.labels):
                raise InputError(
                    f"row {i}: numbers {', '.join(row)}, but training had {', '.join(self.labels)}"
                )
        return torch.tensor([[row[name] for name in self.labels] for row in rows]).reshape(len(rows), -1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of logits (B, K) and the standardised targets, mean over both."""
        return F.mse_loss(logits, (targets - self._means(logits)) / self._scales(logits))

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """The mean absolute error in the targets' units."""
        return (self.outputs(logits) - targets).abs().mean().item()

    def summary(self, labels: Sequence[str]) -> str:
        """Mean, standard deviation and range of each number."""
        values = self.targets(labels).double()
        return "; ".join(
            f"{name} {column.mean():.4g} ± {column.std(correction=0):.4g}, "
            f"from {column.min():.4g} to {column.max():.4g}"
            for name, column in zip(self.labels, values.T, strict=True)
        )

    def outputs(self, logits: Tensor) -> Tensor:
        """The numbers (N, K) in the targets' units."""
        return logits * self._scales(logits) + self._means(logits)

    def _means(self, logits: Tensor) -> Tensor:
        return torch.tensor(self.means, dtype=logits.dtype, device=logits.device)

    def _scales(self, logits: Tensor) -> Tensor:
        return torch.tensor(self.scales, dtype=logits.dtype, device=logits.device)

    def decode(self, outputs: Tensor) -> list[float] | list[list[float]]:
        """A number a row, or a list of K numbers."""
        return outputs[:, 0].tolist() if self.n_outputs == 1 else outputs.tolist()

    def printed(self, outputs: np.ndarray) -> list[str]:
        """The numbers; nothing in their place for a text that was not read."""
        return ["" if math.isnan(value) else f"{value:.6g}" for value in outputs.tolist()]

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """A column a number."""
        return self.labels

    @property
    def detail_columns(self) -> tuple[str, ...]:
        """None."""
        return ()

    def answers(self, outputs: np.ndarray) -> list[Sequence]:
        """The numbers to float32's seven digits, column by column; NaN where a text was not read."""
        return [np.array([float(f"{value:.7g}") for value in column]) for column in outputs.T]

    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """:func:`regression_scores` of targets and numbers (N, K)."""
        from gptcls.evaluation.regression import regression_scores

        return regression_scores(targets, outputs, self.labels)

    def baselines(self, parts: Parts) -> dict[str, dict[str, dict]]:
        """The mean of the training rows, and TF-IDF with ridge regression."""
        from gptcls.evaluation.baselines import regression_baselines

        return regression_baselines(parts, self.labels)

    def table(self, rows: Sequence[tuple[str, dict]]) -> str:
        """MAE, RMSE and Spearman's correlation with their intervals."""
        from gptcls.evaluation.table import NUMBERS as COLUMNS
        from gptcls.evaluation.table import format_scores

        return format_scores(rows, COLUMNS)

    def details(self, scores: dict) -> str:
        """With several numbers, the scores of each."""
        from gptcls.evaluation.table import format_per_number

        return format_per_number(scores)

    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> dict:
        """Predicted against true numbers."""
        from gptcls.evaluation.plots import plot_predictions

        return {"predictions.png": plot_predictions(targets, outputs, self.labels)}

    @classmethod
    def rules(cls, spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
        """One or more numbers, with a mean and a scale each."""
        yield label_rule(spec, least=1)
        yield numbers_rule(spec, "means", ())
        yield numbers_rule(spec, "scales", (), above=0.0)


TASKS: dict[str, type[Task]] = {  # by --task
    task.label_kind.task: task for task in (SingleLabel, MultiLabel, Regression)
}


def task_from_json(spec: dict) -> Task:
    """The task a saved classifier was trained for; raises InputError for a kind unknown here."""
    return _class_of(spec).from_json(spec)


def task_rules(spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
    """(field, value, whether it fits, what would) for the task in a saved classifier's description."""
    return _class_of(spec).rules(spec)


def _class_of(spec: dict) -> type[Task]:
    for task in TASKS.values():
        if task.kind == spec["kind"]:
            return task
    raise InputError(f"task kind {spec['kind']!r} is unknown to this version of gptcls; update gptcls")
