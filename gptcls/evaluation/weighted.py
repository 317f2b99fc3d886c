"""The main scores where a row counts several times or in part, named as in :mod:`gptcls.evaluation.metrics`.

Weights (N,) are scikit-learn's ``sample_weight``. There are no intervals: they would need independent rows,
and repeats are not.
"""

from collections.abc import Sequence

import numpy as np

from gptcls.evaluation.metrics import MEASURES


def classification_scores(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, predicted: np.ndarray | None = None
) -> dict:
    """``accuracy``; ``precision``, ``recall`` and ``f1``, of the second of two classes, of more their means;
    ``macro_f1``. Targets (N,) are class indices, probabilities (N, K), whose largest entry is the prediction
    where ``predicted`` (N,) says no other."""
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    macro = _average(targets, predicted, weights, average="macro", zero_division=0)
    shown = macro
    if probabilities.shape[1] == 2:
        shown = _average(targets, predicted, weights, average="binary", pos_label=1, zero_division=np.nan)
    accuracy = float(np.average(targets == predicted, weights=weights))
    return {"accuracy": accuracy, **shown, "macro_f1": macro["f1"]}


def multilabel_scores(
    targets: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[float], weights: np.ndarray
) -> dict:
    """``subset_accuracy``, ``hamming_loss``, ``micro_f1`` and ``macro_f1`` of targets (N, K) of 0 and 1."""
    targets, predicted = targets.astype(bool), probabilities.astype(float) >= np.asarray(thresholds)
    right, options = targets == predicted, {"zero_division": 0}
    shares = right.all(axis=1), 1 - right.mean(axis=1)
    exact, hamming = (float(np.average(share, weights=weights)) for share in shares)
    if targets.shape[1] == 1:  # scikit-learn takes a lone column of 0 and 1 for two classes
        targets, predicted, options["labels"] = targets[:, 0], predicted[:, 0], [True]
    micro, macro = (
        _average(targets, predicted, weights, average=average, **options)["f1"]
        for average in ("micro", "macro")
    )
    return {"subset_accuracy": exact, "hamming_loss": hamming, "micro_f1": micro, "macro_f1": macro}


def regression_scores(targets: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> dict:
    """``mae`` and ``rmse`` of targets and predictions (N, K), means over the K numbers."""
    errors = targets.astype(float) - predictions.astype(float)
    mae = np.average(np.abs(errors), axis=0, weights=weights)
    rmse = np.sqrt(np.average(errors**2, axis=0, weights=weights))
    return {"mae": float(mae.mean()), "rmse": float(rmse.mean())}


def _average(targets, predicted, weights, **options) -> dict[str, float | None]:
    """Precision, recall and F1; None where undefined."""
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(targets, predicted, sample_weight=weights, **options)[:3]
    return {name: None if np.isnan(x) else float(x) for name, x in zip(MEASURES, found, strict=True)}
