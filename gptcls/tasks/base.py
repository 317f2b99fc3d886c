"""The contract between a task and the rooms that use it: training, prediction, reports, the saved folder."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from gptcls.data.kinds import LabelKind

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
