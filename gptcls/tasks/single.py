"""Exactly one of K classes a text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.data.kinds import ONE_CLASS
from gptcls.errors import InputError
from gptcls.evaluation.metrics import classification_scores
from gptcls.tasks.base import Parts, Task, label_rule, numbers_rule


@dataclass(frozen=True)
class SingleLabel(Task):
    """Exactly one of K classes a text. ``labels[1]`` is the positive class where K is 2.

    ``class_weights`` weigh the classes in the loss (balanced: n / (K * count)). ``label_smoothing`` is the
    share of each target that goes to all K classes alike (Szegedy et al. 2016).
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    kind = "single_label"
    label_kind = ONE_CLASS
    measure_name = "accuracy"
    measure_format = "{:.2%}"
    units: ClassVar = {"loss": "nats", "accuracy": "%"}

    @classmethod
    def of(cls, names: Iterable[str], positive: str | None = None) -> "SingleLabel":
        """The task whose classes are the distinct ``names``, sorted; ``positive``, if given, comes last.

        Raises InputError when there is only one class or ``positive`` is none of them.
        """
        labels = sorted(set(names))
        if len(labels) < 2:
            raise InputError(f"the labels hold one class only, {labels[0]!r}: a classifier needs two or more")
        if positive is not None:
            if len(labels) > 2:
                raise InputError(f"--positive {positive!r} is for two classes; these are {len(labels)}")
            if positive not in labels:
                raise InputError(f"positive label {positive!r} is not among the labels {', '.join(labels)}")
            labels.sort(key=lambda label: label == positive)
        return cls(tuple(labels))

    @classmethod
    def for_training(
        cls,
        labels: Sequence[str],
        positive: str | None = None,
        label_smoothing: float = 0.0,
        balance: str = "none",
    ) -> "SingleLabel":
        """The task over the training rows' classes; ``balance="weights"`` weighs them in the loss."""
        from gptcls.data.prepare import class_weights

        task = replace(cls.of(labels, positive), label_smoothing=label_smoothing)
        if balance == "weights":
            task = replace(task, class_weights=tuple(class_weights(labels, task.labels)))
        return task

    def targets(self, labels: Sequence[str]) -> Tensor:
        """Label names as class indices (N,), int64; InputError naming the row of a name that is no class."""
        index = {label: i for i, label in enumerate(self.labels)}
        for row, name in enumerate(labels):
            if name not in index:
                raise InputError(
                    f"row {row}: label {name!r} was not seen in training; "
                    f"this classifier knows {', '.join(self.labels)}"
                )
        return torch.tensor([index[name] for name in labels], dtype=torch.int64)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits (B, K) and targets (B,), mean over the batch."""
        weight = None
        if self.class_weights is not None:
            weight = torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)
        return F.cross_entropy(logits, targets, weight=weight, label_smoothing=self.label_smoothing)

    def loss_mass(self, targets: Tensor) -> float:
        """What the loss is a mean over: the number of targets, or the sum of their classes' weights."""
        if self.class_weights is None:
            return float(len(targets))
        return torch.tensor(self.class_weights)[targets].sum().item()

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """Accuracy: the share of the rows whose largest logit is the target's."""
        return (logits.argmax(dim=-1) == targets).float().mean().item()

    def summary(self, labels: Sequence[str]) -> str:
        """How many texts each class has."""
        counts = Counter(labels)
        return ", ".join(f"{counts[label]:,} {label}" for label in self.labels)

    def outputs(self, logits: Tensor) -> Tensor:
        """Class probabilities (N, K); each row sums to 1."""
        return logits.softmax(dim=-1)

    def decode(self, outputs: Tensor) -> list[str]:
        """The name of the most probable class of each row."""
        return [self.labels[i] for i in outputs.argmax(dim=-1).tolist()]

    def printed(self, outputs: np.ndarray) -> list[str]:
        """The class and its probability; twice nothing for a text that was not read."""
        if np.isnan(outputs).any():
            return ["", ""]
        return [self.labels[outputs.argmax()], f"{outputs.max():.4f}"]

    def answers(self, outputs: np.ndarray) -> list[Sequence]:
        """The class of each text, None where it was not read."""
        return [[None if np.isnan(row).any() else self.labels[row.argmax()] for row in outputs]]

    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """:func:`classification_scores` of targets (N,) and probabilities (N, K)."""
        return classification_scores(targets, outputs, self.labels)

    def baselines(self, parts: Parts) -> dict[str, dict[str, dict]]:
        """The majority class, and TF-IDF with logistic regression."""
        from gptcls.evaluation.baseline import baselines

        return baselines(parts, self.labels)

    def table(self, rows: Sequence[tuple[str, dict]]) -> str:
        """Accuracy with its interval and what else a table holds."""
        from gptcls.evaluation.table import format_scores

        return format_scores(rows)

    def details(self, scores: dict) -> str:
        """With more than two classes, each one's scores and their averages; of two the table says enough."""
        from gptcls.evaluation.table import format_per_class

        return format_per_class(scores) if len(self.labels) > 2 else ""

    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> dict:
        """The confusion matrix and, for two classes, the precision-recall curve."""
        from gptcls.evaluation.plots import plot_confusion, plot_precision_recall

        figures = {"confusion.png": plot_confusion(scores["confusion"], self.labels)}
        if len(self.labels) == 2:
            curve = plot_precision_recall(targets, outputs[:, 1], self.labels[1])
            figures["precision_recall.png"] = curve
        return figures

    @classmethod
    def rules(cls, spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
        """Two or more classes, a weight for each, and a share that is smoothed."""
        yield label_rule(spec, least=2)
        yield numbers_rule(spec, "class_weights", None, above=0.0)
        smoothing = spec.get("label_smoothing", 0.0)
        fits = isinstance(smoothing, int | float) and 0 <= smoothing < 1
        yield "label_smoothing", smoothing, fits, "a number from 0 to below 1"
