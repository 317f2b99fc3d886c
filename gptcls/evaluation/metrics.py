"""Scores of answers to labelled texts, as plain numbers that go straight into JSON.

For one class per text, for lists of labels, and for numbers. scikit-learn and scipy compute what is more than
a count; this file decides what is reported, and that a score which is undefined (0/0) is ``None`` and never
NaN, a quiet zero, or a warning. The ends of the 95 % interval of ``accuracy`` are ``accuracy_low`` and
``accuracy_high``. InputError for shapes that do not fit together, and for a value that is not finite.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np

from gptcls.core.errors import InputError
from gptcls.evaluation.intervals import bootstrap_interval, f1_interval, spearman_interval, wilson_interval

MEASURES = ("precision", "recall", "f1")


def classification_scores(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], predicted: np.ndarray | None = None
) -> dict:
    """Scores of one-of-K classification: targets (N,), integer class indices, and probabilities (N, K).

    The predicted class is the row's largest entry, the first of them in a tie, unless ``predicted`` (N,) says
    otherwise, as where errors differ in cost. Returns JSON values, shares between 0 and 1:

    - ``n``; ``accuracy`` with its Wilson interval.
    - ``precision``, ``recall``, ``f1``, ``roc_auc``: with K = 2 those of ``labels[1]``, the positive class.
      With K > 2 macro averages as scikit-learn's defaults form them: over the classes that occur among
      targets or predictions, 0/0 counted as 0; ``f1`` with an interval (:func:`f1_interval`). The
      macro ROC AUC (one against the rest) is over the classes that have texts both inside and outside them.
    - ``mcc``: Matthews correlation coefficient; undefined where all targets or all predictions are one class.
    - ``support``: texts of each label. ``confusion``: (K, K) counts, rows true, columns predicted.
    - ``averages``: precision, recall and f1, each ``micro``, ``macro`` and ``weighted`` by the classes'
      texts. ``per_class``: precision, recall, f1 and support of each label.

    InputError also for a repeated label and a target outside 0 to K - 1.
    """
    from sklearn.metrics import matthews_corrcoef

    n_classes = len(labels)
    if n_classes < 2 or len(set(labels)) < n_classes:
        raise InputError(f"labels {list(labels)}: give at least two, each name once")
    targets, probabilities = _fitting(targets, probabilities, labels, one_class=True)
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    one_hot = np.eye(n_classes, dtype=bool)
    counts = counts_per_text(one_hot[targets], one_hot[predicted])
    averages, per_class = averages_of(counts, "seen"), _per_class(counts, labels)
    # Where 0/0 scikit-learn says 0.0, which reads as "no better than chance" even where all is right.
    mcc = float(matthews_corrcoef(targets, predicted)) if _vary(targets, predicted) else None
    average = averages["macro"] if n_classes > 2 else per_class[labels[1]]
    pairs = np.bincount(targets * n_classes + predicted, minlength=n_classes**2)
    return {
        "n": len(targets),
        **_share_right("accuracy", targets == predicted),
        **{name: average[name] for name in MEASURES},
        "mcc": mcc,
        "roc_auc": _roc_auc(targets, probabilities),
        "support": {label: row["support"] for label, row in per_class.items()},
        "confusion": pairs.reshape(n_classes, n_classes).tolist(),
        "averages": averages,
        "per_class": per_class,
    } | (_f1("f1", average["f1"], counts, "seen") if n_classes > 2 else {})


def multilabel_scores(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], thresholds: Sequence[float]
) -> dict:
    """Scores of any-of-K classification: targets (N, K) of 0 and 1, and probabilities (N, K).

    A label is predicted where its probability is at least its threshold. Returns JSON values, over all K
    labels, 0/0 counted as 0 in the averages, as scikit-learn averages:

    - ``n``; ``subset_accuracy``, the share of texts whose labels are all right and none too many, with its
      Wilson interval; ``hamming_loss``, the share of the N K decisions that are wrong.
    - ``micro_f1`` and ``macro_f1`` with their intervals (:func:`f1_interval`).
    - ``average_precision``: free of thresholds, the mean over the labels that have texts.
    - ``support``, ``averages`` and ``per_class`` (with the threshold) as :func:`classification_scores`.
    """
    from sklearn.metrics import average_precision_score

    if len(thresholds) != len(labels):
        raise InputError(f"{len(thresholds)} thresholds for {len(labels)} labels: give one per label")
    targets, probabilities = _fitting(targets, probabilities, labels)
    targets, probabilities = targets.astype(bool), probabilities.astype(float)
    predicted = probabilities >= np.asarray(thresholds, dtype=float)
    counts = counts_per_text(targets, predicted)
    averages, per_class = averages_of(counts, "all"), _per_class(counts, labels)
    for label, threshold in zip(labels, thresholds, strict=True):
        per_class[label]["threshold"] = float(threshold)
    some = targets.any(axis=0)
    found = average_precision_score(targets[:, some], probabilities[:, some]) if some.any() else None
    return {
        "n": len(targets),
        **_share_right("subset_accuracy", (targets == predicted).all(axis=1)),
        "hamming_loss": _ratio(int((targets != predicted).sum()), targets.size),
        **_f1("micro_f1", averages["micro"]["f1"], counts, "micro"),
        **_f1("macro_f1", averages["macro"]["f1"], counts, "macro"),
        "average_precision": found if found is None else float(found),
        "averages": averages,
        "support": {label: row["support"] for label, row in per_class.items()},
        "per_class": per_class,
    }


def best_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """For each of K labels the threshold with the largest F1 over (N, K); 0.5 for a label that no text has.

    Only a probability that occurs can change the F1. A threshold lies half-way between the lowest that is let
    in and the next one below it, or, where none is below, at 0.5 at most; among equals the one nearest to 0.5
    is taken.
    """
    from sklearn.metrics import precision_recall_curve

    thresholds = []
    for target, probability in zip(targets.T, probabilities.T.astype(float), strict=True):
        if not target.any():
            thresholds.append(0.5)
            continue
        precision, recall, cuts = precision_recall_curve(target, probability)
        precision, recall = precision[: len(cuts)], recall[: len(cuts)]
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        cuts = np.concatenate([[min(cuts[0], 0.5)], (cuts[1:] + cuts[:-1]) / 2])
        best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=0, atol=1e-12))
        thresholds.append(float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]]))
    return thresholds


def regression_scores(targets: np.ndarray, predictions: np.ndarray, labels: Sequence[str]) -> dict:
    """Scores of K numbers per text: targets and predictions (N, K) in the same units.

    Returns JSON values: ``n``; ``mae``, the mean absolute error, and ``rmse``, the root of the mean squared
    one, in the targets' units, with the interval of the bootstrap over texts; ``spearman``, the rank
    correlation, with :func:`spearman_interval`. With K > 1 these are the means over the numbers, without
    intervals, and ``per_number`` has the scores of each.
    """
    targets, predictions = (x.astype(float) for x in _fitting(targets, predictions, labels))
    columns = zip(labels, targets.T, predictions.T, strict=True)
    each = {label: _scores_of_one(target, predicted) for label, target, predicted in columns}
    if len(labels) == 1:
        return each[labels[0]]
    means = {}
    for name in ("mae", "rmse", "spearman"):
        known = [scores[name] for scores in each.values() if scores[name] is not None]
        means[name] = _ratio(sum(known), len(known))
    return {"n": len(targets), **means, "per_number": each}


# --- what these are made of ---


def _fitting(
    targets: np.ndarray, outputs: np.ndarray, labels: Sequence[str], one_class: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N, K), or with ``one_class`` indices (N,), and outputs (N, K), checked."""
    targets, outputs, count = np.asarray(targets), np.asarray(outputs), len(labels)
    outer = (len(targets), count)
    if targets.shape != outer[: 2 - one_class] or outputs.shape != outer:
        wanted = f"{outer[: 2 - one_class]} and {outer}, a column per label"
        raise InputError(f"targets {targets.shape} and outputs {outputs.shape} do not fit: give {wanted}")
    for what, values in (("targets", targets), ("outputs", outputs))[one_class:]:
        for row in np.flatnonzero(~np.isfinite(values).all(axis=1)):
            raise InputError(f"{what} {values[row].tolist()} in row {row}: not finite, so not scored")
    if one_class:
        if len(targets) and targets.dtype.kind not in "iub":  # an empty list arrives as an array of floats
            raise InputError(f"targets of type {targets.dtype}: give integer class indices")
        targets = targets.astype(np.int64)
        for row in np.flatnonzero((targets < 0) | (targets >= count)):
            raise InputError(f"target {targets[row]} in row {row}: {count} labels allow 0 to {count - 1}")
    return targets, outputs


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def with_ends(name: str, value: float | None, interval: tuple[float, float] | None) -> dict:
    """A score and the ends of its interval, as they stand in JSON."""
    low, high = interval or (None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _share_right(name: str, right: np.ndarray) -> dict:
    """The share of the texts (N,) that are right, with Wilson's interval."""
    n, hits = len(right), int(right.sum())
    return with_ends(name, _ratio(hits, n), wilson_interval(hits, n) if n else None)


def _f1(name: str, value: float | None, counts: np.ndarray, over: str) -> dict:
    return with_ends(name, value, None if value is None else f1_interval(counts, over, value))


def averages_of(
    counts: np.ndarray, over: str, weights: np.ndarray | None = None
) -> dict[str, dict[str, float | None]]:
    """Micro, macro and weighted precision, recall and F1 of :func:`counts_per_text` (N, 3 K), text i counted
    ``weights[i]`` times, 0/0 counted as 0: over the ``"seen"`` classes, with a text or a prediction, or over
    ``"all"`` K labels. Of no text they are None."""
    if not len(counts):
        return {average: dict.fromkeys(MEASURES) for average in ("micro", "macro", "weighted")}
    sums = counts.sum(axis=0) if weights is None else weights @ counts
    sums = np.asarray(sums, dtype=float).reshape(3, -1)
    if over == "seen":
        sums = sums[:, (sums > 0).any(axis=0)]

    def measures(hits: np.ndarray, given: np.ndarray, true: np.ndarray) -> np.ndarray:
        parts, wholes = np.array([hits, hits, 2 * hits]), np.array([given, true, given + true])
        return np.divide(parts, wholes, out=np.zeros_like(wholes), where=wholes > 0)

    of_each, texts = measures(*sums), sums[2]  # (3, K), (K,)
    values = {
        "micro": measures(*sums.sum(axis=1)),
        "macro": of_each.mean(axis=1),
        "weighted": of_each @ texts / max(texts.sum(), 1e-300),
    }
    return {name: dict(zip(MEASURES, found.tolist(), strict=True)) for name, found in values.items()}


def _per_class(counts: np.ndarray, labels: Sequence[str]) -> dict[str, dict]:
    """Precision, recall, f1 (None where 0/0) and support of each label, of :func:`counts_per_text`."""
    sums = counts.sum(axis=0).reshape(3, len(labels)).T.tolist()
    table = {}
    for label, (hits, given, true) in zip(labels, sums, strict=True):
        values = _ratio(hits, given), _ratio(hits, true), _ratio(2 * hits, given + true)
        table[label] = dict(zip(MEASURES, values, strict=True)) | {"support": true}
    return table


def counts_per_text(targets: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(N, 3 K) for two (N, K) arrays of 0 and 1: hits, predictions and targets of each label."""
    return np.concatenate([targets & predicted, predicted, targets], axis=1)


def f1_of_sums(sums: np.ndarray, over: str) -> np.ndarray:
    """F1 (R,) of R sums (R, 3 K) of :func:`counts_per_text`; 0/0 counts as 0.

    ``over="micro"``: of all labels' counts together. ``"macro"``: the mean over all K labels, as scikit-learn
    averages where a text has several. ``"seen"``: the mean over the labels with a text or a prediction, as
    scikit-learn averages where a text has one class.
    """
    hits, predictions, targets = np.split(np.asarray(sums, dtype=float), 3, axis=1)
    both = predictions + targets
    if over == "micro":
        hits, both = hits.sum(axis=1, keepdims=True), both.sum(axis=1, keepdims=True)
    seen = both > 0
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=seen)
    return f1.sum(axis=1) / (np.maximum(seen.sum(axis=1), 1) if over == "seen" else f1.shape[1])


def _vary(targets: np.ndarray, predicted: np.ndarray) -> bool:
    """Whether both hold two values or more, without which no correlation is defined."""
    return len(np.unique(targets)) > 1 and len(np.unique(predicted)) > 1


def _roc_auc(targets: np.ndarray, probabilities: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    n_classes = probabilities.shape[1]
    true = {k: targets == k for k in ([1] if n_classes == 2 else range(n_classes))}
    # One class at a time: roc_auc_score(multi_class="ovr") refuses a set in which any class is absent.
    areas = [roc_auc_score(of, probabilities[:, k]) for k, of in true.items() if 0 < of.sum() < len(of)]
    return float(np.mean(areas)) if areas else None


def _scores_of_one(targets: np.ndarray, predicted: np.ndarray) -> dict:
    """MAE, RMSE and Spearman's correlation of (N,) numbers, with their intervals."""
    n, errors = len(targets), np.abs(targets - predicted)
    correlation = _spearman(targets, predicted)
    squares = np.stack([errors, errors**2], axis=1)
    mae, rmse = (errors.mean().item(), math.sqrt((errors**2).mean())) if n else (None, None)
    ends = None if correlation is None else spearman_interval(correlation, n)
    return {
        "n": n,
        **with_ends("mae", mae, bootstrap_interval(squares, lambda sums: sums[:, 0] / n)),
        **with_ends("rmse", rmse, bootstrap_interval(squares, lambda sums: np.sqrt(sums[:, 1] / n))),
        **with_ends("spearman", correlation, ends),
    }


def _spearman(targets: np.ndarray, predicted: np.ndarray) -> float | None:
    from scipy.stats import spearmanr

    if not _vary(targets, predicted):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that are equal up to rounding
        correlation = float(spearmanr(targets, predicted).statistic)
    return None if math.isnan(correlation) else correlation
