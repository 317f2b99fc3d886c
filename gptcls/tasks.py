"""What the targets mean: their dtype, the loss, how logits become answers, and the scores.

The training loop calls these methods and has no ``if`` about the kind of task.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.errors import InputError
from gptcls.evaluation.metrics import classification_scores


@dataclass(frozen=True)
class SingleLabel:
    """Exactly one of K classes a text. ``labels[1]`` is the positive class where K is 2.

    ``class_weights`` weigh the classes in the loss (balanced: n / (K * count)).
    """

    labels: tuple[str, ...]
    class_weights: tuple[float, ...] | None = None

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

    @property
    def n_outputs(self) -> int:
        """K, the width of the head."""
        return len(self.labels)

    def targets(self, names: Sequence[str]) -> Tensor:
        """Label names as class indices (N,), int64; InputError naming the row of a name that is no class."""
        index = {label: i for i, label in enumerate(self.labels)}
        for row, name in enumerate(names):
            if name not in index:
                raise InputError(
                    f"row {row}: label {name!r} was not seen in training; "
                    f"this classifier knows {', '.join(self.labels)}"
                )
        return torch.tensor([index[name] for name in names], dtype=torch.int64)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits (B, K) and targets (B,), mean over the batch."""
        weight = None
        if self.class_weights is not None:
            weight = torch.tensor(self.class_weights, dtype=logits.dtype, device=logits.device)
        return F.cross_entropy(logits, targets, weight=weight)

    def loss_mass(self, targets: Tensor) -> float:
        """What the loss is a mean over: the number of targets, or the sum of their classes' weights."""
        if self.class_weights is None:
            return float(len(targets))
        return torch.tensor(self.class_weights)[targets].sum().item()

    def accuracy(self, logits: Tensor, targets: Tensor) -> float:
        """Share of the rows whose largest logit is the target's."""
        return (logits.argmax(dim=-1) == targets).float().mean().item()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Class probabilities (B, K); each row sums to 1."""
        return logits.softmax(dim=-1)

    def decode(self, probabilities: Tensor) -> list[str]:
        """The name of the most probable class of each row."""
        return [self.labels[i] for i in probabilities.argmax(dim=-1).tolist()]

    def scores(self, targets: np.ndarray, probabilities: np.ndarray) -> dict:
        """Every score of targets (N,) and probabilities (N, K), ready for JSON."""
        return classification_scores(targets, probabilities, self.labels)

    def to_json(self) -> dict:
        """What :meth:`from_json` needs to rebuild the task."""
        return {"kind": "single_label", "labels": list(self.labels), "class_weights": self.class_weights}

    @classmethod
    def from_json(cls, spec: dict) -> "SingleLabel":
        """The task a saved classifier was trained for; raises InputError for a kind unknown here."""
        if spec["kind"] != "single_label":
            raise InputError(
                f"task kind {spec['kind']!r} is unknown to this version of gptcls; update gptcls"
            )
        weights = spec["class_weights"]
        return cls(tuple(spec["labels"]), None if weights is None else tuple(weights))
