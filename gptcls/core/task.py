"""The contract between a task and the rooms that use it: training, prediction, reports, the saved folder.

Exactly one of K classes a text.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.core.errors import InputError
from gptcls.data.labels import ONE_CLASS, LabelKind
from gptcls.evaluation.metrics import classification_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parts = Mapping[str, tuple[Sequence[str], np.ndarray]]  # part name -> (texts, targets)


@dataclass(frozen=True)
class Task(ABC):
    """What the K outputs of the head are trained to say. ``labels`` names them, in their order.

    The *outputs* of a task, (N, K), are what it makes of the logits: probabilities, or numbers.
    """

    labels: tuple[str, ...]

    kind: ClassVar[str]  # in classifier.json
    label_kind: ClassVar[LabelKind]  # how its labels are read and split
    measure_name: ClassVar[str]  # what is logged beside the loss after each epoch
    measure_format: ClassVar[str]
    units: ClassVar[Mapping[str, str]]  # of the pictures of training, by measure
    has_probabilities: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def for_training(cls, labels: Sequence[str], **options) -> "Task":
        """The task over the label strings of the training rows, with the options that are its own."""

    @property
    def n_outputs(self) -> int:
        """K, the width of the head."""
        return len(self.labels)

    # --- training ---

    @abstractmethod
    def targets(self, labels: Sequence[str]) -> Tensor:
        """Label strings as targets, (N,) or (N, K); InputError naming the row of one that does not fit."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K), mean over the batch."""

    def loss_mass(self, targets: Tensor) -> float:
        """What the loss is a mean over, so that batches can be weighed against each other."""
        return float(len(targets))

    @abstractmethod
    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """The figure called :attr:`measure_name` of logits (N, K)."""

    def tuned(self, targets: np.ndarray, outputs: np.ndarray) -> "Task":
        """The task after what is chosen on the validation rows; most choose nothing."""
        return self

    @abstractmethod
    def summary(self, labels: Sequence[str]) -> str:
        """The label strings of a part in a few words."""

    # --- answers ---

    @abstractmethod
    def outputs(self, logits: Tensor) -> Tensor:
        """What the logits (N, K) say: probabilities or numbers (N, K)."""

    @abstractmethod
    def decode(self, outputs: Tensor) -> list:
        """The answer to each of N texts, from its outputs (N, K)."""

    @abstractmethod
    def printed(self, outputs: np.ndarray) -> list[str]:
        """One text's outputs (K,) as the fields of a printed line, always as many."""

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """The columns that hold the answers in a table."""
        return ("label",)

    @property
    def detail_columns(self) -> tuple[str, ...]:
        """The columns behind them, one an output."""
        return tuple(f"probability_{label}" for label in self.labels)

    @abstractmethod
    def answers(self, outputs: np.ndarray) -> list[Sequence]:
        """The values of :attr:`answer_columns`, from the outputs (N, K); none where these are NaN."""

    # --- judgement ---

    @abstractmethod
    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """Every score of targets and outputs (N, K), ready for JSON."""

    @abstractmethod
    def baselines(self, parts: Parts) -> dict[str, dict[str, dict]]:
        """Baseline name -> part name -> scores, fitted on ``parts["train"]``."""

    @abstractmethod
    def table(self, rows: Sequence[tuple[str, dict]]) -> str:
        """The table of (name, scores) for the terminal."""

    @abstractmethod
    def details(self, scores: dict) -> str:
        """What the terminal shows of one part's scores below the table; "" for nothing more."""

    @abstractmethod
    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> dict[str, "Figure"]:
        """Pictures of one part by file name."""

    # --- on disk ---

    def to_json(self) -> dict:
        """What :meth:`from_json` needs to rebuild the task."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, spec: dict) -> "Task":
        """The task that :meth:`to_json` described; what an older version did not write has its default."""
        values = {field.name: spec[field.name] for field in fields(cls) if field.name in spec}
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    @classmethod
    @abstractmethod
    def rules(cls, spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
        """(field, value, whether it fits, what would) for each field of a description."""


def label_rule(spec: dict, least: int) -> tuple[str, Any, bool, str]:
    """The rule that every task has: its outputs have names of their own."""
    labels = spec["labels"]
    names = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    wanted = "two or more different names" if least == 2 else "one or more different names"
    return "labels", labels, names and least <= len(set(labels)) == len(labels), wanted


def numbers_rule(
    spec: dict, field: str, default: Any, above: float = -float("inf")
) -> tuple[str, Any, bool, str]:
    """The rule for one number a label, larger than ``above``, or the ``default``."""
    value = spec.get(field, default)
    fits = isinstance(value, list | tuple) and len(value) == len(spec["labels"])
    fits = fits and all(isinstance(x, int | float) and above < x < float("inf") for x in value)
    return field, value, fits or value == default, "one number a label"


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
        from gptcls.evaluation.baselines import baselines

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


def class_weights(labels: Sequence[str], names: Sequence[str]) -> list[float]:
    """One weight a class, in the order of ``names``: N / (K * rows of that class).

    scikit-learn's "balanced" weights; their mean over the rows is 1. InputError for a class without rows.
    """
    counts = Counter(labels)
    if absent := [name for name in names if counts[name] == 0]:
        raise InputError(f"class {absent[0]!r} has no rows, so it has no weight: add some or leave it out")
    return [counts.total() / (len(names) * counts[name]) for name in names]
