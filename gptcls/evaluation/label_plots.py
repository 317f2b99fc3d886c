"""Pictures of tasks other than one class a text: F1 of each label, predicted against true numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gptcls.evaluation.canvas import BLUE, GREY, VERMILION, drawable, new_figure, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 60  # in one picture
MOST_NUMBERS = 6


def plot_label_scores(per_class: Mapping[str, Mapping]) -> "Figure":
    """F1 of each label as a bar, its precision and recall as marks, best label on top.

    With more than 60 labels the 60 with the most texts are drawn. A label without an F1 (no text and no
    prediction) stands below the others without a bar.

    Args:
        per_class: label -> ``precision``, ``recall``, ``f1`` (None where 0/0) and ``support``,
            ``multilabel_scores(...)["per_class"]``.
    """
    shown = sorted(per_class, key=lambda label: -per_class[label]["support"])[:MOST_LABELS]
    shown.sort(key=lambda label: _or_nan(per_class[label]["f1"], -1.0))
    names, families = drawable(shown)
    rows = np.arange(len(shown))
    figure, axes = new_figure(7.0, 1.5 + 0.26 * len(shown))
    values = {
        measure: np.array([_or_nan(per_class[label][measure]) for label in shown])
        for measure in ("precision", "recall", "f1")
    }
    axes.barh(rows, np.nan_to_num(values["f1"]), color=BLUE, alpha=0.55, height=0.7, label="F1")
    marks = (("precision", ">", VERMILION, VERMILION), ("recall", "o", "white", "black"))
    for measure, marker, face, edge in marks:
        known = np.isfinite(values[measure])
        style = {"mfc": face, "mec": edge, "ms": 5, "ls": "", "label": measure.capitalize()}
        axes.plot(values[measure][known], rows[known], marker, **style)
    supports = [per_class[label]["support"] for label in shown]
    ticks = [f"{name} ({n:,})" for name, n in zip(names, supports, strict=True)]
    axes.set_yticks(rows, ticks, parse_math=False, fontfamily=families, size=8)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(shown) - 0.3))
    omitted = len(per_class) - len(shown)
    more = f"; the {len(shown)} most frequent of {len(per_class)}" if omitted else ""
    axes.set_xlabel(f"F1, precision and recall of each label (number of its texts{more})")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_predictions(targets: np.ndarray, predictions: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Predicted against true numbers (N, D), a panel a number (six at most); on the line both are equal."""
    names, families = drawable(labels[:MOST_NUMBERS])
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure, first = new_figure(1.0 + 4.0 * columns, 0.6 + 4.0 * rows)
    first.remove()
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        _scatter(axes, np.asarray(targets)[:, i], np.asarray(predictions)[:, i])
        if len(names) > 1:
            axes.set_title(name, parse_math=False, fontfamily=families, size=10)
    return figure


def _scatter(axes: "Axes", targets: np.ndarray, predictions: np.ndarray) -> None:
    if not len(targets):
        say(axes, "no texts")
        return
    ends = [float(min(targets.min(), predictions.min())), float(max(targets.max(), predictions.max()))]
    axes.plot(ends, ends, color=GREY, ls="--", label="predicted = true", zorder=3)
    alpha = min(0.8, max(0.12, 400 / len(targets)))  # so that many points still show where they are dense
    dots = axes.plot(targets, predictions, "o", color=BLUE, ms=4, mew=0, alpha=alpha, rasterized=True)
    dots[0].set_label(f"a text ({len(targets):,})")
    axes.set_xlabel("True value")
    axes.set_ylabel("Predicted value")
    axes.grid(alpha=0.3)
    for handle in axes.legend(loc="best").legend_handles:
        handle.set_alpha(1)


def _or_nan(value: float | None, otherwise: float = math.nan) -> float:
    return otherwise if value is None else value
