"""The same experiment under several seeds: its mean, and how sure that is."""

import math
from collections.abc import Sequence

import numpy as np


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
