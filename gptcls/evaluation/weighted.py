"""The main scores where a row counts several times or in part, named as in :mod:`gptcls.evaluation.metrics`.

Weights (N,) are scikit-learn's ``sample_weight``. There are no intervals: they would need independent rows,
and repeats are not.
"""

from collections.abc import Sequence

import numpy as np

from gptcls.evaluation.metrics import MEASURES, averages_of, counts_per_text


def classification_scores(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, predicted: np.ndarray | None = None
) -> dict:
    """``accuracy``; ``precision``, ``recall`` and ``f1``, of the second of two classes, of more their means;
    ``macro_f1``. Targets (N,) are class indices, probabilities (N, K), whose largest entry is the prediction
    where ``predicted`` (N,) says no other."""
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    one_hot = np.eye(probabilities.shape[1], dtype=bool)
    counts = counts_per_text(one_hot[targets], one_hot[predicted])
    macro = shown = averages_of(counts, "seen", weights)["macro"]
    if probabilities.shape[1] == 2:
        hits, given, true = (weights @ counts).reshape(3, 2)[:, 1]
        pairs = zip(MEASURES, (hits, hits, 2 * hits), (given, true, given + true), strict=True)
        shown = {name: float(part / whole) if whole else None for name, part, whole in pairs}
    accuracy = float(np.average(targets == predicted, weights=weights))
    return {"accuracy": accuracy, **shown, "macro_f1": macro["f1"]}


def multilabel_scores(
    targets: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[float], weights: np.ndarray
) -> dict:
    """``subset_accuracy``, ``hamming_loss``, ``micro_f1`` and ``macro_f1`` of targets (N, K) of 0 and 1."""
    targets, predicted = targets.astype(bool), probabilities.astype(float) >= np.asarray(thresholds)
    right = targets == predicted
    shares = right.all(axis=1), 1 - right.mean(axis=1)
    exact, hamming = (float(np.average(share, weights=weights)) for share in shares)
    averages = averages_of(counts_per_text(targets, predicted), "all", weights)
    f1 = {f"{name}_f1": averages[name]["f1"] for name in ("micro", "macro")}
    return {"subset_accuracy": exact, "hamming_loss": hamming, **f1}


def regression_scores(targets: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> dict:
    """``mae`` and ``rmse`` of targets and predictions (N, K), means over the K numbers."""
    errors = targets.astype(float) - predictions.astype(float)
    mae = np.average(np.abs(errors), axis=0, weights=weights)
    rmse = np.sqrt(np.average(errors**2, axis=0, weights=weights))
    return {"mae": float(mae.mean()), "rmse": float(rmse.mean())}
