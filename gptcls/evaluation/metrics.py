"""Scores of a classifier on labelled texts, as plain numbers that go straight into JSON.

scikit-learn computes the scores; this file decides what is reported, and that a score which is
undefined (0/0) is ``None`` and never NaN, a quiet zero, or a warning.
"""

import math
from collections.abc import Sequence

import numpy as np

from gptcls.core.errors import InputError
from gptcls.evaluation.intervals import bootstrap_interval, counts_per_text, macro_f1, wilson_interval


def classification_scores(targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> dict:
    """Scores of one-of-K classification.

    Args:
        targets: (N,) integer class indices.
        probabilities: (N, K), one row a text; the predicted class is the row's largest entry, the
            first of them in a tie.
        labels: K names in the order of the columns.

    Returns a dict of JSON values, shares between 0 and 1, ``None`` where a score is undefined:

    - ``n``; ``accuracy`` with ``accuracy_low`` and ``accuracy_high``, its 95 % Wilson interval.
    - ``precision``, ``recall``, ``f1``, ``roc_auc``: with K = 2 those of ``labels[1]``, the positive
      class. With K > 2 macro averages as scikit-learn's defaults form them: over the classes that
      occur among targets or predictions, 0/0 counted as 0. The macro ROC AUC (one against the rest)
      is averaged over the classes that have texts both inside and outside them.
    - ``mcc``: Matthews correlation coefficient; undefined where all targets or all predictions are
      one class.
    - ``support``: texts of each label. ``confusion``: (K, K) counts, rows true, columns predicted.
    - ``averages``: precision, recall and f1, each ``micro``, ``macro`` and ``weighted`` by the classes'
      texts. ``per_class``: precision, recall, f1 and support of each label.
    - Only with K > 2: ``f1_low`` and ``f1_high``, the 95 % interval of the bootstrap over texts.

    Raises:
        InputError: shapes that do not fit, a repeated label, a target outside 0 to K - 1, a
            probability that is not finite.
    """
    targets, probabilities = _checked(targets, probabilities, labels)
    n, n_classes = probabilities.shape
    predicted = probabilities.argmax(axis=1) if n else np.zeros(0, dtype=np.int64)
    correct = int((predicted == targets).sum())
    low, high = wilson_interval(correct, n)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    per_class = _per_class(targets, predicted, labels)
    averages = averaged(targets, predicted)
    average = averages["macro"] if n_classes > 2 else per_class[labels[1]]
    scores = {
        "n": n,
        "accuracy": correct / n if n else None,
        "accuracy_low": low if n else None,
        "accuracy_high": high if n else None,
        "precision": average["precision"],
        "recall": average["recall"],
        "f1": average["f1"],
        "mcc": _mcc(targets, predicted),
        "roc_auc": _roc_auc(targets, probabilities),
        "support": {label: per_class[label]["support"] for label in labels},
        "confusion": confusion.tolist(),
        "averages": averages,
        "per_class": per_class,
    }
    if n_classes > 2:
        one_hot = np.eye(n_classes, dtype=bool)
        counts = counts_per_text(one_hot[targets], one_hot[predicted])
        scores["f1_low"], scores["f1_high"] = bootstrap_interval(counts, macro_f1) or (None, None)
    return scores


def averaged(targets: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Micro, macro and weighted precision, recall and F1; 0/0 counts as 0, and nothing is known of no text.

    Of class indices (N,), over the classes that occur among targets or predictions; or of (N, K) of 0 and 1,
    over all K.
    """
    from sklearn.metrics import precision_recall_fscore_support

    names, results = ("precision", "recall", "f1"), {}
    for average in ("micro", "macro", "weighted"):
        values: tuple = (None, None, None)
        if len(targets):
            values = precision_recall_fscore_support(targets, predicted, average=average, zero_division=0)
            values = tuple(map(float, values[:3]))
        results[average] = dict(zip(names, values, strict=True))
    return results


def _checked(targets, probabilities, labels) -> tuple[np.ndarray, np.ndarray]:
    targets, probabilities = np.asarray(targets), np.asarray(probabilities)
    n_classes = len(labels)
    if n_classes < 2 or len(set(labels)) < n_classes:
        raise InputError(f"labels {list(labels)}: give at least two, each name once")
    if targets.ndim != 1 or probabilities.shape != (len(targets), n_classes):
        raise InputError(
            f"targets {targets.shape} and probabilities {probabilities.shape} do not fit together: "
            f"give (N,) and (N, {n_classes}), a column for each of the {n_classes} labels"
        )
    if len(targets) == 0:  # an empty list arrives as an array of floats
        return targets.astype(np.int64), probabilities.astype(float)
    if targets.dtype.kind not in "iub":
        raise InputError(f"targets of type {targets.dtype}: give integer class indices")
    targets = targets.astype(np.int64)
    outside = (targets < 0) | (targets >= n_classes)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(f"target {targets[row]} in row {row}: {n_classes} labels allow 0 to {n_classes - 1}")
    broken = ~np.isfinite(probabilities).all(axis=1)
    if broken.any():
        row = int(broken.argmax())
        raise InputError(
            f"probabilities {probabilities[row].tolist()} in row {row}: not finite, so not scored"
        )
    return targets, probabilities


def _per_class(targets: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> dict:
    """label -> precision, recall, f1 (None where 0/0) and support."""
    from sklearn.metrics import precision_recall_fscore_support

    if len(targets) == 0:
        return {label: {"precision": None, "recall": None, "f1": None, "support": 0} for label in labels}
    columns = precision_recall_fscore_support(
        targets, predicted, labels=np.arange(len(labels)), zero_division=np.nan
    )
    return {
        label: {
            "precision": _number(precision),
            "recall": _number(recall),
            "f1": _number(f1),
            "support": int(support),
        }
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    }


def _mcc(targets: np.ndarray, predicted: np.ndarray) -> float | None:
    from sklearn.metrics import matthews_corrcoef

    # scikit-learn answers 0.0 to 0/0, which reads as "no better than chance" even where all is right.
    if len(np.unique(targets)) < 2 or len(np.unique(predicted)) < 2:
        return None
    return _number(matthews_corrcoef(targets, predicted))


def _roc_auc(targets: np.ndarray, probabilities: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    n_classes = probabilities.shape[1]
    columns = [1] if n_classes == 2 else range(n_classes)
    # One class at a time: roc_auc_score(multi_class="ovr") refuses a set in which any class is absent.
    areas = [
        roc_auc_score(targets == k, probabilities[:, k])
        for k in columns
        if 0 < (targets == k).sum() < len(targets)
    ]
    return float(np.mean(areas)) if areas else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
