"""Scores of several seeds as one figure with its interval, in a table's cell or a picture."""

import math
from collections.abc import Sequence

from gptcls.evaluation.intervals import mean_interval

Interval = tuple[float, float, float]  # mean, low, high


def over_seeds(scores: Sequence[dict], name: str, unit: float = 100) -> Interval:
    """Mean of a score and its 95 % interval: Student's over the seeds.

    Where all seeds agree, as those of a regression on an official split do, it is the first one's own:
    Wilson's of an accuracy over the test texts, none of an F1.
    """
    values = [unit * each[name] for each in scores]
    if len(set(values)) > 1:
        return mean_interval(values)
    ends = (scores[0].get(f"{name}{end}") for end in ("_low", "_high"))
    low, high = (math.nan if end is None else unit * end for end in ends)
    return values[0], low, high


def gain(ours: Sequence[dict], theirs: Sequence[dict], name: str, unit: float = 100) -> Interval:
    """Mean difference seed by seed and its 95 % interval, unknown for one seed."""
    pairs = zip(ours, theirs, strict=True)
    return mean_interval([unit * (a[name] - b[name]) for a, b in pairs])


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
