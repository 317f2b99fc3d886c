"""The other tasks: any number of labels per text, or numbers; with a single one, a reward model."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel, Task


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of K labels per text, each decided on its own. A label string is a JSON array of names.

    A label is given where its probability reaches its threshold, 0.5 until others are chosen on validation
    rows. ``positive_weights`` weigh the texts that have a label against those that lack it in the loss.

    >>> MultiLabel(("anger", "joy")).targets(['["joy"]', "[]"])
    tensor([[0., 1.],
            [0., 0.]])
    """

    thresholds: tuple[float, ...] = ()
    positive_weights: tuple[float, ...] | None = None

    kind, name, measure_name, measure_format = "multi_label", "multi", "micro-F1", "{:.3f}"

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", self.thresholds or (0.5,) * len(self.labels))

    @classmethod
    def for_training(cls, labels: Sequence[str], balance: str = "none") -> "MultiLabel":
        """The task over all labels of the rows; ``balance="weights"`` weighs each by rows without / with."""
        counts = Counter(chain.from_iterable(map(json.loads, labels)))
        if not counts:
            raise InputError("no training row has a label: a classifier needs one or more")
        names = tuple(sorted(counts))
        # A label that every row has needs no weight, and its ratio is zero.
        weights = tuple((len(labels) - counts[name]) / counts[name] or 1.0 for name in names)
        return cls(names, positive_weights=weights if balance == "weights" else None)

    def targets(self, labels: Sequence[str]) -> Tensor:
        """Label lists as 0 and 1 (N, K), float32."""
        targets = torch.zeros(len(labels), self.n_outputs)
        for row, columns in enumerate(self.positions(map(json.loads, labels))):
            targets[row, columns] = 1.0
        return targets

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross entropy of logits and targets (B, K), mean over both."""
        weight = None if self.positive_weights is None else logits.new_tensor(self.positive_weights)
        return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """Micro-F1 of the decisions at the thresholds; 0 where no label is given and none is true."""
        given, true = self._given(self.outputs(logits)), targets.bool()
        either = (given.sum() + true.sum()).item()
        return 2 * (given & true).sum().item() / either if either else 0.0

    def outputs(self, logits: Tensor) -> Tensor:
        """The probability of each label on its own (N, K); rows do not sum to 1."""
        return logits.sigmoid()

    def decode(self, outputs: Tensor) -> list[list[str]]:
        rows = self._given(outputs).tolist()
        return [[label for label, given in zip(self.labels, row, strict=True) if given] for row in rows]

    def _given(self, outputs: Tensor) -> Tensor:
        # In double precision, as the scores compare: a float32 threshold may lie on the other side.
        return outputs.double().cpu() >= torch.tensor(self.thresholds, dtype=torch.float64)


@dataclass(frozen=True)
class Regression(Task):
    """K numbers per text, each named by its label; a lone number from a column is called "label".

    The logits stand for ``(number - means) / scales``, standard deviations from the mean. So one learning
    rate serves ratings from 1 to 5 and prices in thousands, several numbers weigh alike in the loss, and a
    fresh head begins near the mean. By default, 0 and 1, the loss is that of the numbers, as in transformers.
    """

    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()

    kind, name, measure_name, measure_format = "regression", "regression", "MAE", "{:.4g}"
    has_probabilities = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "means", self.means or (0.0,) * len(self.labels))
        object.__setattr__(self, "scales", self.scales or (1.0,) * len(self.labels))

    @classmethod
    def for_training(cls, labels: Sequence[str], raw_targets: bool = False) -> "Regression":
        """The task over the rows' numbers, each of which must vary; standardised unless ``raw_targets``."""
        task = cls(tuple(numbers(labels[0])))
        values = task.targets(labels).double()
        means, scales = values.mean(dim=0).tolist(), values.std(dim=0, correction=0).tolist()
        for name, mean, scale in zip(task.labels, means, scales, strict=True):
            if not scale > 1e-7 * abs(mean):
                raise InputError(f"number {name!r} is {mean:g} in every training row: nothing can be learnt")
        return task if raw_targets else cls(task.labels, tuple(means), tuple(scales))

    def targets(self, labels: Sequence[str]) -> Tensor:
        """The numbers (N, K), float32, in their own units; InputError naming the row of other numbers."""
        values = []
        for i, row in enumerate(map(numbers, labels)):
            if row.keys() != set(self.labels):
                raise InputError(f"row {i}: numbers {', '.join(row)}, training had {', '.join(self.labels)}")
            values.append([row[name] for name in self.labels])
        return torch.tensor(values, dtype=torch.float32).reshape(len(values), self.n_outputs)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of logits (B, K) and the standardised targets, mean over both."""
        standardised = (targets - logits.new_tensor(self.means)) / logits.new_tensor(self.scales)
        return F.mse_loss(logits, standardised)

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        return (self.outputs(logits) - targets).abs().mean().item()

    def outputs(self, logits: Tensor) -> Tensor:
        """The numbers (N, K) in the targets' units."""
        return logits * logits.new_tensor(self.scales) + logits.new_tensor(self.means)

    def decode(self, outputs: Tensor) -> list[float] | list[list[float]]:
        return outputs[:, 0].tolist() if self.n_outputs == 1 else outputs.tolist()


def numbers(label: str) -> dict[str, float]:
    """The numbers of a label string, such as ``3.5`` or ``{"joy": 1.0}``, by name; a lone one is "label"."""
    value = json.loads(label)
    return value if isinstance(value, dict) else {"label": value}


TASKS: dict[str, type[Task]] = {task.name: task for task in (SingleLabel, MultiLabel, Regression)}


def task_from_json(spec: dict) -> Task:
    """The task a saved classifier was trained for; raises InputError for a kind unknown here."""
    for task in TASKS.values():
        if task.kind == spec["kind"]:
            return task.from_json(spec)
    raise InputError(f"task kind {spec['kind']!r} is unknown to this version of gptcls; update gptcls")
