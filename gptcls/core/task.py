"""What the K outputs of the head are trained to say: the contract of a task, and one class per text.

A task is chosen once. The training loop and whoever reads a classifier's answers call its methods and have no
``if`` about its kind; lists of labels and numbers are in :mod:`gptcls.core.tasks`.

>>> task = SingleLabel.of(["spam", "ham", "ham"])
>>> task.targets(["spam", "ham"])
tensor([1, 0])
>>> outputs = task.outputs(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))  # logits -> probabilities
>>> task.decode(outputs)
['spam', 'ham']
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.core.errors import InputError


@dataclass(frozen=True)
class Task(ABC):
    """``labels`` names the K outputs, in their order. A label of a row is always one string."""

    labels: tuple[str, ...]
    kind: ClassVar[str]  # in classifier.json
    name: ClassVar[str]  # as in --task
    measure_name: ClassVar[str]  # what is logged next to the loss after each epoch
    measure_format: ClassVar[str]
    has_probabilities: ClassVar[bool] = True  # whether the outputs are probabilities, or numbers

    @classmethod
    @abstractmethod
    def for_training(cls, labels: Sequence[str], **options) -> "Task":
        """The task over the label strings of the training rows, with the options that are its own."""

    @property
    def n_outputs(self) -> int:
        """K, the width of the head."""
        return len(self.labels)

    @abstractmethod
    def targets(self, labels: Sequence[str]) -> Tensor:
        """Label strings as targets, (N,) or (N, K); InputError naming the row of one that does not fit."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K), mean over the batch."""

    def loss_weight(self, targets: Tensor) -> float:
        """What the loss is a mean over: so weighted, the losses of a batch's parts add up to its own."""
        return float(len(targets))

    @abstractmethod
    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """The figure called :attr:`measure_name`, of logits (N, K)."""

    @abstractmethod
    def outputs(self, logits: Tensor) -> Tensor:
        """What the logits (N, K) say: probabilities or numbers (N, K)."""

    @abstractmethod
    def decode(self, outputs: Tensor) -> list:
        """The answer to each of N texts, from its outputs (N, K)."""

    def to_json(self) -> dict:
        """What :meth:`from_json` needs to rebuild the task."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, spec: dict) -> "Task":
        """The task that :meth:`to_json` described; what an older version did not write has its default."""
        values = {field.name: spec[field.name] for field in fields(cls) if field.name in spec}
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    def positions(self, rows: Iterable[Sequence[str]]) -> Iterator[list[int]]:
        """Where each row's label names stand in :attr:`labels`; InputError for one that training had not."""
        index, known = {label: i for i, label in enumerate(self.labels)}, ", ".join(self.labels)
        for row, names in enumerate(rows):
            if new := [name for name in names if name not in index]:
                raise InputError(f"row {row}: label {new[0]!r} was not seen in training, which had {known}")
            yield [index[name] for name in names]


@dataclass(frozen=True)
class SingleLabel(Task):
    """Exactly one of K classes per text. ``labels[1]`` is the positive class where K is 2."""

    class_weights: tuple[float, ...] | None = None  # in the loss
    label_smoothing: float = 0.0  # share of a target spread evenly over all K classes (Szegedy et al. 2016)

    kind, name, measure_name, measure_format = "single_label", "single", "accuracy", "{:.2%}"

    @classmethod
    def of(cls, names: Iterable[str], positive: str | None = None) -> "SingleLabel":
        """The distinct ``names`` as classes, sorted, ``positive`` last; InputError where that cannot be."""
        labels = sorted(set(names))
        if len(labels) < 2:
            raise InputError(f"the labels hold {labels or 'no class'}: two classes or more are needed")
        if positive is not None and len(labels) > 2:
            raise InputError(f"--positive {positive!r} is for two classes; these are {len(labels)}")
        if positive is not None and positive not in labels:
            raise InputError(f"positive label {positive!r} is not among the labels {', '.join(labels)}")
        return cls(tuple(sorted(labels, key=lambda label: label == positive)))

    @classmethod
    def for_training(
        cls, labels: Sequence[str], positive: str | None = None, label_smoothing: float = 0.0,
        balance: str = "none",
    ) -> "SingleLabel":  # fmt: skip
        """The task over the training rows' classes; ``balance="weights"`` weighs them in the loss."""
        names = cls.of(labels, positive).labels
        weights = tuple(class_weights(labels, names)) if balance == "weights" else None
        return cls(names, weights, label_smoothing)

    def targets(self, labels: Sequence[str]) -> Tensor:
        """Class names as indices (N,), int64."""
        return torch.tensor([i for (i,) in self.positions([name] for name in labels)], dtype=torch.int64)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits (B, K) and targets (B,), mean over the batch."""
        weight = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        return F.cross_entropy(logits, targets, weight=weight, label_smoothing=self.label_smoothing)

    def loss_weight(self, targets: Tensor) -> float:
        """The number of targets, or the sum of their classes' weights."""
        weights = self.class_weights
        return torch.tensor(weights)[targets].sum().item() if weights else super().loss_weight(targets)

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        return (logits.argmax(dim=-1) == targets).float().mean().item()

    def outputs(self, logits: Tensor) -> Tensor:
        """Class probabilities (N, K); each row sums to 1."""
        return logits.softmax(dim=-1)

    def decode(self, outputs: Tensor) -> list[str]:
        return [self.labels[i] for i in outputs.argmax(dim=-1).tolist()]


def class_weights(labels: Sequence[str], names: Sequence[str]) -> list[float]:
    """N / (K * rows of the class) of each: scikit-learn's "balanced" weights, 1 in the mean over the rows."""
    counts = Counter(labels)
    if absent := [name for name in names if counts[name] == 0]:
        raise InputError(f"class {absent[0]!r} has no rows, so it has no weight: add some or leave it out")
    return [counts.total() / (len(names) * counts[name]) for name in names]
