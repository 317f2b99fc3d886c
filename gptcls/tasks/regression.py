"""One or more numbers a text; with one, the classifier serves as a reward model."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.data.kinds import NUMBERS, numbers
from gptcls.errors import InputError
from gptcls.tasks.base import Parts, Task, label_rule, numbers_rule


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
        from gptcls.evaluation.task_baselines import regression_baselines

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
        from gptcls.evaluation.label_plots import plot_predictions

        return {"predictions.png": plot_predictions(targets, outputs, self.labels)}

    @classmethod
    def rules(cls, spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
        """One or more numbers, with a mean and a scale each."""
        yield label_rule(spec, least=1)
        yield numbers_rule(spec, "means", ())
        yield numbers_rule(spec, "scales", (), above=0.0)
