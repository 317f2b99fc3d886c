"""Scores of predicted numbers."""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from gptcls.core.errors import InputError
from gptcls.evaluation.intervals import bootstrap_interval, spearman_interval

MEASURES = ("mae", "rmse", "spearman")


def regression_scores(targets: np.ndarray, predictions: np.ndarray, labels: Sequence[str]) -> dict:
    """Scores of D numbers a text.

    Args:
        targets: (N, D).
        predictions: (N, D), in the same units.
        labels: D names in the order of the columns.

    Returns a dict of JSON values, ``None`` where a score is undefined: ``n``; ``mae``, the mean absolute
    error, and ``rmse``, the root of the mean squared one, in the targets' units, with the 95 % interval of
    the bootstrap over texts; ``spearman``, the rank correlation, with :func:`spearman_interval`. The ends are
    ``mae_low``, ``mae_high``, …. With D > 1 these are the means over the numbers, without intervals, and
    ``per_number`` has the scores of each.

    Raises:
        InputError: shapes that do not fit, or a value that is not finite.
    """
    targets, predictions = np.asarray(targets, dtype=float), np.asarray(predictions, dtype=float)
    wanted = (len(targets), len(labels))
    if targets.shape != wanted or predictions.shape != wanted:
        raise InputError(
            f"targets {targets.shape} and predictions {predictions.shape} do not fit together: "
            f"give (N, {len(labels)}) twice, a column a number"
        )
    broken = ~np.isfinite(targets + predictions).all(axis=1)
    if broken.any():
        row = int(broken.argmax())
        raise InputError(f"row {row}: a target or prediction is not finite, so not scored")
    each = {
        label: _scores_of_one(target, predicted)
        for label, target, predicted in zip(labels, targets.T, predictions.T, strict=True)
    }
    if len(labels) == 1:
        return each[labels[0]]
    means = {measure: _mean([scores[measure] for scores in each.values()]) for measure in MEASURES}
    return {"n": len(targets), **means, "per_number": each}


def _scores_of_one(targets: np.ndarray, predicted: np.ndarray) -> dict:
    n, errors = len(targets), np.abs(targets - predicted)
    if n == 0:
        return {"n": 0} | {name + end: None for name in MEASURES for end in ("", "_low", "_high")}
    rows = np.stack([errors, errors**2], axis=1)
    correlation = _spearman(targets, predicted)
    intervals = {
        "mae": bootstrap_interval(rows, lambda sums: sums[:, 0] / n),
        "rmse": bootstrap_interval(rows, lambda sums: np.sqrt(sums[:, 1] / n)),
        "spearman": None if correlation is None else spearman_interval(correlation, n),
    }
    scores = {"mae": errors.mean().item(), "rmse": math.sqrt((errors**2).mean()), "spearman": correlation}
    result: dict[str, float | int | None] = {"n": n}
    for name, score in scores.items():
        low, high = intervals[name] or (None, None)
        result |= {name: score, f"{name}_low": low, f"{name}_high": high}
    return result


def _spearman(targets: np.ndarray, predicted: np.ndarray) -> float | None:
    """Undefined where all targets or all predictions are equal."""
    from scipy.stats import spearmanr

    if len(np.unique(targets)) < 2 or len(np.unique(predicted)) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that are equal but for rounding
        correlation = float(spearmanr(targets, predicted).statistic)
    return None if math.isnan(correlation) else correlation


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
