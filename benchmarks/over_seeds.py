"""Scores of several seeds as one figure with its interval, in a table's cell or a picture."""

import math
from collections.abc import Sequence

from gptcls.evaluation.intervals import mean_interval

Interval = tuple[float, float, float]  # mean, low, high


def over_seeds(scores: Sequence[dict], name: str, unit: float = 100, overlap: float = 0.0) -> Interval:
    """Mean of a score that is 1 at most, and its 95 % interval over the seeds, which ends at ``unit`` for 1.

    The interval is Student's where the seeds share their test rows. Where each draws its own split,
    ``overlap`` is the number of test rows per training row, and it is Nadeau and Bengio's
    (:func:`gptcls.evaluation.intervals.mean_interval`). Where all seeds agree, as those of a regression on an
    official split do, it is the first one's own: Wilson's of an accuracy over the test texts, none of an F1.
    """
    values = [unit * each[name] for each in scores]
    if len(set(values)) > 1:
        mean, low, high = mean_interval(values, overlap=overlap)
        return mean, low if min(values) < 0 else max(low, 0.0), min(high, unit)
    ends = (scores[0].get(f"{name}{end}") for end in ("_low", "_high"))
    low, high = (math.nan if end is None else unit * end for end in ends)
    return values[0], low, high


def gain(
    ours: Sequence[dict], theirs: Sequence[dict], name: str, unit: float = 100, overlap: float = 0.0
) -> Interval:
    """Mean difference seed by seed and its 95 % interval, unknown for one seed; ``overlap`` as above."""
    pairs = zip(ours, theirs, strict=True)
    mean, low, high = mean_interval([unit * (a[name] - b[name]) for a, b in pairs], overlap=overlap)
    return (mean, max(low, -unit), min(high, unit)) if math.isfinite(low) else (mean, low, high)


def shown(interval: Interval, digits: int = 1, sign: str = "") -> str:
    """
    >>> shown((81.25, 79.0, 83.5)), shown((2.0, -math.inf, math.inf), sign="+")
    ('81.2 [79.0, 83.5]', '+2.0')
    """
    mean, *ends = (f"{value:{sign}.{digits}f}" for value in interval)
    return f"{mean} [{', '.join(ends)}]" if all(map(math.isfinite, interval)) else mean


def markdown(lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """Lines of cells, the heads first; numbers to the right, behind ``words`` columns of words."""
    rule = [*["---"] * words, *["---:"] * (len(lines[0]) - words)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))
