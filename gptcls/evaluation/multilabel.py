"""Scores where a text has any number of K labels, and the thresholds that decide which."""

from collections.abc import Sequence

import numpy as np

from gptcls.core.errors import InputError
from gptcls.evaluation.intervals import (
    bootstrap_interval,
    counts_per_text,
    macro_f1_of_all,
    micro_f1,
    wilson_interval,
)
from gptcls.evaluation.metrics import averaged


def best_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> list[float | None]:
    """For each label the threshold with the largest F1; None for a label that no text has.

    Args:
        targets: (N, K) of 0 and 1.
        probabilities: (N, K); a label is given where its probability is at least its threshold.

    Only a probability that occurs can change the F1. A threshold lies half-way between the lowest that is let
    in and the next one below it, or, where none is below, at 0.5 at most; among equals the one nearest to 0.5
    is taken.
    """
    from sklearn.metrics import precision_recall_curve

    thresholds: list[float | None] = []
    for target, probability in zip(targets.T, probabilities.T.astype(float), strict=True):
        if not target.any():
            thresholds.append(None)
            continue
        precision, recall, cuts = precision_recall_curve(target, probability)
        precision, recall = precision[: len(cuts)], recall[: len(cuts)]
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        cuts = np.concatenate([[min(cuts[0], 0.5)], (cuts[1:] + cuts[:-1]) / 2])
        best = np.flatnonzero(np.isclose(f1, f1.max(), rtol=0, atol=1e-12))
        thresholds.append(float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]]))
    return thresholds


def multilabel_scores(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], thresholds: Sequence[float]
) -> dict:
    """Scores of any-of-K classification.

    Args:
        targets: (N, K) of 0 and 1.
        probabilities: (N, K), each on its own between 0 and 1.
        labels: K names in the order of the columns.
        thresholds: K numbers; a label is predicted where its probability is at least its threshold.

    Returns a dict of JSON values, ``None`` where a score is undefined:

    - ``n``; ``subset_accuracy``, the share of texts whose labels are all right and none too many, with
      ``subset_accuracy_low`` and ``_high``, its 95 % Wilson interval.
    - ``hamming_loss``: the share of the N K decisions that are wrong.
    - ``micro_f1`` and ``macro_f1`` with ``_low`` and ``_high``, the 95 % interval of the bootstrap over
      texts.
    - ``average_precision``: free of thresholds, the mean over the labels that have texts.
    - ``averages``: precision, recall and f1, each ``micro``, ``macro`` and ``weighted`` by the labels' texts.
    - ``support``: texts of each label. ``per_class``: precision, recall, f1, support and threshold of each.

    Over all K labels, 0/0 counted as 0 in the averages, as scikit-learn averages.

    Raises:
        InputError: shapes that do not fit, or a probability that is not finite.
    """
    targets, probabilities = np.asarray(targets), np.asarray(probabilities, dtype=float)
    wanted = (len(targets), len(labels))
    if targets.shape != wanted or probabilities.shape != wanted or len(thresholds) != len(labels):
        raise InputError(
            f"targets {targets.shape}, probabilities {probabilities.shape} and {len(thresholds)} thresholds "
            f"do not fit together: give (N, {len(labels)}) twice, a column a label, and a threshold a label"
        )
    if not np.isfinite(probabilities).all():
        row = int((~np.isfinite(probabilities)).any(axis=1).argmax())
        raise InputError(f"probabilities in row {row}: not finite, so not scored")
    n, targets = len(targets), targets.astype(bool)
    predicted = probabilities >= np.asarray(thresholds, dtype=float)
    right = int((targets == predicted).all(axis=1).sum())
    low, high = wilson_interval(right, n)
    per_class = _per_class(targets, predicted, labels)
    for label, threshold in zip(labels, thresholds, strict=True):
        per_class[label]["threshold"] = float(threshold)
    averages = averaged(targets, predicted)
    counts = counts_per_text(targets, predicted)
    scores = {
        "n": n,
        "subset_accuracy": right / n if n else None,
        "subset_accuracy_low": low if n else None,
        "subset_accuracy_high": high if n else None,
        "hamming_loss": float((targets != predicted).mean()) if n else None,
    }
    for average, statistic in (("micro", micro_f1), ("macro", macro_f1_of_all)):
        low, high = bootstrap_interval(counts, statistic) or (None, None)
        scores[f"{average}_f1"] = averages[average]["f1"]
        scores |= {f"{average}_f1_low": low, f"{average}_f1_high": high}
    return scores | {
        "average_precision": _average_precision(targets, probabilities),
        "averages": averages,
        "support": {label: int(count) for label, count in zip(labels, targets.sum(axis=0), strict=True)},
        "per_class": per_class,
    }


def _per_class(targets: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> dict[str, dict]:
    """Precision, recall and f1 (None where 0/0) and support of each label."""
    table = {}
    for label, target, guess in zip(labels, targets.T, predicted.T, strict=True):
        hits, found, there = int((target & guess).sum()), int(guess.sum()), int(target.sum())
        table[label] = {
            "precision": hits / found if found else None,
            "recall": hits / there if there else None,
            "f1": 2 * hits / (found + there) if found + there else None,
            "support": there,
        }
    return table


def _average_precision(targets: np.ndarray, probabilities: np.ndarray) -> float | None:
    from sklearn.metrics import average_precision_score

    there = targets.any(axis=0)
    if not there.any():
        return None
    return float(average_precision_score(targets[:, there], probabilities[:, there], average="macro"))
