"""How answers are shown: the fields of a printed line and the columns of a table, by the kind of task."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gptcls.core.task import SingleLabel, Task
from gptcls.core.tasks import MultiLabel, Regression

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClassAnswers:
    """One class per text, with its probability."""

    task: Task

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that hold the answers."""
        return ("label",)

    @property
    def details(self) -> tuple[str, ...]:
        """The columns behind them, one per output."""
        return tuple(f"probability_{label}" for label in self.task.labels)

    def fields(self, outputs: np.ndarray) -> list[str]:
        """One text's outputs (K,) as the fields of a line; empty ones for a text that was not read (NaN)."""
        if np.isnan(outputs).any():
            return ["", ""]
        given = self.given(outputs)
        return [",".join(self.task.labels[i] for i in given), ",".join(f"{outputs[i]:.4f}" for i in given)]

    def values(self, outputs: np.ndarray) -> "list[Sequence | pd.Series]":
        """The values of :attr:`columns` from outputs (N, K); none for texts not read."""
        import pandas as pd

        cells = [None if np.isnan(row).any() else self.cell(row) for row in outputs]
        # Text as such: the first chunk's types are those of a Parquet file, and all its texts may be blank.
        return [pd.array(cells, dtype="string")]

    def given(self, outputs: np.ndarray) -> Sequence[int]:
        """The classes that outputs (K,) stand for."""
        return [int(outputs.argmax())]

    def cell(self, outputs: np.ndarray) -> str:
        """Their names as the value of a table."""
        return self.task.labels[outputs.argmax()]


class ListAnswers(ClassAnswers):
    """Any number of labels per text: joined with commas in a line, a JSON list in a table."""

    def given(self, outputs: np.ndarray) -> Sequence[int]:
        """The labels whose probability reaches their threshold."""
        return np.flatnonzero(outputs >= np.array(self.task.thresholds))

    def cell(self, outputs: np.ndarray) -> str:
        """A JSON list, as gptcls reads labels."""
        return json.dumps([self.task.labels[i] for i in self.given(outputs)], ensure_ascii=False)


class NumberAnswers(ClassAnswers):
    """One or more numbers per text: a field and a column each."""

    @property
    def columns(self) -> tuple[str, ...]:
        """A column per number."""
        return self.task.labels

    @property
    def details(self) -> tuple[str, ...]:
        """None."""
        return ()

    def fields(self, outputs: np.ndarray) -> list[str]:
        """The numbers."""
        return ["" if np.isnan(value) else f"{value:.6g}" for value in outputs.tolist()]

    def values(self, outputs: np.ndarray) -> list[np.ndarray]:
        """The numbers to float32's seven digits, column by column; NaN for a text not read."""
        return [np.array([float(f"{value:.7g}") for value in column]) for column in outputs.T]


ANSWERS = {SingleLabel.kind: ClassAnswers, MultiLabel.kind: ListAnswers, Regression.kind: NumberAnswers}


def answers_of(task: Task) -> ClassAnswers:
    """How the answers of a classifier with this task are shown."""
    return ANSWERS[task.kind](task)
