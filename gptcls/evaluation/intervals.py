"""How sure a score is: confidence intervals of shares, rank correlations, means and any other score."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

RESAMPLES = 1000
LIKE_THE_OTHERS = 2.0  # texts that a class's F1 is drawn towards the F1 of all by
AT_ONCE = 50  # resamples in memory: so many times the number of texts
MOST_WEIGHTS = 500_000  # of the texts of some resamples, in memory


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
    return quantiles(scores, confidence)


def f1_draws(counts: Sequence[np.ndarray], over: str, seed: int = 0) -> np.ndarray:
    """What the F1 of several answers to the same N texts may be: (A, R) draws of the posterior, for A arrays
    (N, 3 K) of :func:`gptcls.evaluation.metrics.counts_per_text`. ``over`` is as in ``f1_of_sums``.

    The Bayesian bootstrap (Rubin 1981, Annals of Statistics 9:130-134) weighs the texts at random, for all
    answers alike, which keeps pairs together. Alone it takes an error that was not seen for impossible. So
    each class gets half a hit and half an error, spread over all classes, more (Jeffreys), and the F1 of each
    is drawn towards the F1 of all, as that of two further texts would be, since few texts say little about a
    class. ``benchmarks/coverage.py`` shows how often such intervals hold the truth.
    """
    n, texts, prior = len(counts[0]), np.random.RandomState(seed), np.random.RandomState(seed + 1)
    parts = [np.split(np.asarray(each, dtype=float), 3, axis=1) for each in counts]
    # F1 is a share: of the mean of a class's texts and predictions, those that are hits.
    pairs = [np.concatenate([hits, (given + true) / 2], axis=1) for hits, given, true in parts]
    draws = []
    pieces = np.array_split(np.arange(AT_ONCE), min(AT_ONCE, 1 + AT_ONCE * n // MOST_WEIGHTS))
    for _ in range(0, RESAMPLES, AT_ONCE):
        weighted = [[weights @ each for each in pairs] for weights in
                    (texts.exponential(size=(len(piece), n)) for piece in pieces)]  # fmt: skip
        sums = map(np.concatenate, zip(*weighted, strict=True))
        draws.append(
            [_smoothed_f1(*np.split(own, 2, axis=1), each, over, prior)
             for own, each in zip(sums, pairs, strict=True)]
        )  # fmt: skip
    return np.concatenate(draws, axis=1)


def _smoothed_f1(
    hits: np.ndarray, both: np.ndarray, seen: np.ndarray, over: str, random: np.random.RandomState
) -> np.ndarray:
    """F1 (R,) of weighted hits (R, K) and means of texts and predictions (R, K)."""
    shape, n_classes = hits.shape, hits.shape[1]
    more_hits, more_errors = random.gamma(0.5, size=(2, len(hits)))
    of_all = (hits.sum(axis=1) + more_hits) / (both.sum(axis=1) + more_hits + more_errors)
    if over == "micro":
        return of_all
    share, jeffreys = of_all.clip(1e-9, 1 - 1e-9)[:, None], 0.5 / n_classes
    more_hits = random.gamma(LIKE_THE_OTHERS * share + jeffreys, size=shape)
    more_errors = random.gamma(LIKE_THE_OTHERS * (1 - share) + jeffreys, size=shape)
    f1 = (hits + more_hits) / (both + more_hits + more_errors)
    counted = seen[:, n_classes:].any(axis=0)
    # A label without text or prediction counts as 0, as in the score.
    return f1[:, counted].mean(axis=1) if over == "seen" else (f1 * counted).mean(axis=1)


def f1_interval(
    counts: np.ndarray, over: str, value: float, confidence: float = 0.95
) -> tuple[float, float] | None:
    """The interval of an F1 of N texts that is ``value``, by :func:`f1_draws`; it holds the value. None for
    fewer than two texts, or where nothing is true and nothing was predicted."""
    if len(counts) < 2 or not counts.any():
        return None
    low, high = quantiles(f1_draws([counts], over)[0], confidence)
    return min(low, value), max(high, value)


def quantiles(draws: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The two ends between which that share of the draws lies."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def share_difference_interval(
    only_first: int, only_second: int, n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of the difference of two shares on the same n texts, of which ``only_first`` count for the
    first alone and ``only_second`` for the second (Bonett and Price 2012, Journal of Educational and
    Behavioral Statistics 37:479-488): Wald's after one text more of each kind.

    >>> low, high = share_difference_interval(20, 8, 100)
    >>> print(f"{low:.4f} to {high:.4f}")
    0.0149 to 0.2204
    """
    first, second = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    z, middle = NormalDist().inv_cdf((1 + confidence) / 2), first - second
    half = z * math.sqrt(max(0.0, first + second - middle**2) / (n + 2))
    value = (only_first - only_second) / n
    return max(-1.0, min(middle - half, value)), min(1.0, max(middle + half, value))


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, overlap: float = 0.0
) -> tuple[float, float, float]:
    """Mean and confidence interval of the mean (Student 1908, Biometrika 6:1-25): ``(mean, low, high)``.

    Values of seeds that split the same rows anew are not independent, since their training and test rows
    overlap. ``overlap``, test rows per training row, widens the interval for that: the variance of the mean
    is taken as s² (1 / n + overlap) (Nadeau and Bengio 2003, Machine Learning 52:239-281).

    For differences pass the differences seed by seed: where both sides share a seed's split, most of what
    the splits do to the scores cancels. The interval of fewer than two values is (-inf, inf).

    >>> [round(x, 3) for x in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    >>> [round(x, 3) for x in mean_interval([1.0, 2.0, 3.0], overlap=0.25)]
    [2.0, -1.286, 5.286]
    """
    from scipy.stats import t

    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, -math.inf, math.inf
    error = np.std(values, ddof=1) * math.sqrt(1 / n + overlap)
    half = float(t.ppf((1 + confidence) / 2, n - 1) * error)
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
