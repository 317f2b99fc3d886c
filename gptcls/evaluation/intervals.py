"""How sure a score is: confidence intervals of shares, rank correlations, means and any other score."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 1000
AT_ONCE = 50  # resamples in memory: so many times the number of texts


def bootstrap_interval(
    rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], confidence: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile interval of a score over N texts drawn anew with replacement (Efron 1979).

    ``rows`` (N, M) are what each text adds to the sums that the score is made of; ``statistic`` turns such
    sums (R, M) into the scores of R resamples (R,), NaN where undefined. ``confidence`` is the share of
    resamples between the two ends. None for fewer than two texts, or a score undefined in every resample.
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
    if not len(scores := scores[np.isfinite(scores)]):
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and confidence interval of the mean (Student 1908, Biometrika 6:1-25): ``(mean, low, high)``.

    For differences pass the differences seed by seed: where both sides share a seed's split, most of what
    the splits do to the scores cancels. The interval of fewer than two values is (-inf, inf).

    >>> [round(x, 3) for x in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, -math.inf, math.inf
    half = float(t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a proportion, both ends between 0 and 1 (Wilson 1927, JASA 22:209-212).

    The proportions ``p`` that a two-sided score test does not reject, the roots of
    ``(successes / n - p)**2 == z**2 * p * (1 - p) / n``. Unlike the normal approximation it stays
    inside 0 to 1 and keeps a width where every text is right, the usual case with small test sets.
    With ``n == 0`` nothing is known: ``(0.0, 1.0)``. ValueError unless ``0 <= successes <= n`` and
    ``0 < confidence < 1``.

    >>> low, high = wilson_interval(81, 263)
    >>> print(f"{low:.4f} to {high:.4f}")
    0.2553 to 0.3662
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: successes must lie between 0 and n")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence}: must lie between 0 and 1, such as 0.95")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = successes / n, z * z / n
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    # Exactly 0 and 1 where the share is; rounding would leave 1e-17 instead.
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half


def spearman_interval(correlation: float, n: int, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of a rank correlation over n pairs (Bonett and Wright 2000, Psychometrika 65:23-28).

    Fisher's transformation with the variance (1 + r² / 2) / (n - 3); None for fewer than four pairs.

    >>> low, high = spearman_interval(0.5, 100)
    >>> print(f"{low:.3f} to {high:.3f}")
    0.326 to 0.641
    """
    if n < 4:
        return None
    if abs(correlation) >= 1:
        return correlation, correlation
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    half = z * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    centre = math.atanh(correlation)
    return math.tanh(centre - half), math.tanh(centre + half)
