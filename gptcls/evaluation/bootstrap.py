"""Intervals of scores for which no formula is at hand: the percentile bootstrap over texts."""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000
AT_ONCE = 50  # resamples in memory: so many times the number of texts


def bootstrap_interval(
    rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile interval of a score over N texts drawn anew with replacement (Efron 1979).

    Args:
        rows: (N, M), what each text adds to the sums that the score is made of.
        statistic: such sums (R, M) -> the score of each of R resamples (R,), NaN where it is undefined.
        confidence: the share of resamples between the two ends.
        seed: of the draws; the same seed gives the same interval.

    Returns None for fewer than two texts, and where the score is undefined in every resample.
    """
    n = len(rows)
    if n < 2:
        return None
    random = np.random.RandomState(seed)  # its stream is frozen for good (NEP 19)
    rows = np.asarray(rows, dtype=float)
    scores, offsets = [], n * np.arange(AT_ONCE)[:, None]
    for _ in range(0, RESAMPLES, AT_ONCE):
        drawn = random.randint(n, size=(AT_ONCE, n)) + offsets
        counts = np.bincount(drawn.ravel(), minlength=AT_ONCE * n).reshape(AT_ONCE, n)
        scores.append(statistic(counts @ rows))
    scores = np.concatenate(scores)
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def counts_per_text(targets: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(N, 3 K) for two (N, K) arrays of 0 and 1: hits, predictions and targets of each label, for the F1s."""
    return np.concatenate([targets & predicted, predicted, targets], axis=1)


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """F1 averaged over the labels, of sums (R, 3 K) of :func:`counts_per_text`; 0/0 counts as 0.

    Labels without a text and without a prediction are left out, as scikit-learn leaves them out by default
    where a text has one class.
    """
    hits, both = _hits_and_both(sums)
    seen = both > 0
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=seen)
    return np.divide(f1.sum(axis=1), seen.sum(axis=1), out=np.full(len(sums), np.nan), where=seen.any(axis=1))


def macro_f1_of_all(sums: np.ndarray) -> np.ndarray:
    """The same over all K labels, as scikit-learn averages where a text has several."""
    hits, both = _hits_and_both(sums)
    return np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0).mean(axis=1)


def micro_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of all labels' counts together; 0/0 counts as 0."""
    hits, both = (each.sum(axis=1) for each in _hits_and_both(sums))
    return np.divide(2 * hits, both, out=np.zeros_like(both), where=both > 0)


def _hits_and_both(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits, and predictions plus targets, of each label: F1 is twice the first over the second."""
    hits, predictions, targets = np.split(np.asarray(sums, dtype=float), 3, axis=1)
    return hits, predictions + targets
