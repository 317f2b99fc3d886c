"""Which rows to label next: those that a model is unsure of, those that are unlike the others, or both."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

Order = Literal["random", "uncertain", "diverse", "both"]
AT_ONCE = 64  # known rows that distances are computed from
CANDIDATES = 10  # for each row wanted, of which --order both takes those that differ


def next_rows(
    order: Order, vectors: np.ndarray, known: Sequence[int], outputs: np.ndarray | None, n: int,
    random: np.random.RandomState, left_out: Sequence[int] = (),
) -> list[int]:  # fmt: skip
    """``n`` rows, in the order in which they should be labelled, or all where there are fewer.

    ``vectors`` (N, C) say how alike rows are, ``known`` which have labels, ``outputs`` (N, K) what a model
    trained on these gives as probabilities. Without them nobody knows what is uncertain, and rows are drawn
    at random: the most different ones are odd ones first (benchmarks.active_learning). ``left_out`` rows are
    never chosen. ``"both"``: of the :data:`CANDIDATES` times n least certain rows those that differ most
    (Citovsky et al. 2021, "Batch Active Learning at Scale", in spirit).
    """
    free = np.setdiff1d(np.arange(len(vectors)), [*known, *left_out])
    n = min(n, len(free))
    if order == "diverse":
        return spread_out(vectors, free, known, n, random)
    if order == "random" or outputs is None:
        return random.permutation(free)[:n].tolist()
    unsure = free[np.argsort(margins(outputs[free]), kind="stable")]
    if order == "uncertain":
        return unsure[:n].tolist()
    return spread_out(vectors, unsure[: CANDIDATES * n], known, n, random)


def margins(outputs: np.ndarray) -> np.ndarray:
    """How far the most probable class is ahead of the second: outputs (N, K) -> (N,).

    >>> margins(np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])).tolist()
    [0.25, 0.0]
    """
    second, first = np.sort(outputs, axis=1)[:, -2:].T
    return first - second


def spread_out(
    vectors: np.ndarray, rows: np.ndarray, known: Sequence[int], n: int, random: np.random.RandomState
) -> list[int]:
    """``n`` of the ``rows``, each drawn in proportion to its squared distance from the nearest that is known
    or drawn: the seeds of k-means++ (Arthur and Vassilvitskii 2007), which, unlike the row farthest from all,
    are rarely freaks."""
    points = vectors[rows].astype(np.float64)
    nearest = np.full(len(rows), np.inf)
    for start in range(0, len(known), AT_ONCE):
        some = vectors[known[start : start + AT_ONCE]].astype(np.float64)
        nearest = np.minimum(nearest, _squares(points, some).min(axis=1))
    drawn: list[int] = []
    while len(drawn) < n:
        weights = np.ones(len(rows)) if np.isinf(nearest).all() else nearest
        if not weights.sum():  # what is left repeats what there is
            others = np.setdiff1d(np.arange(len(rows)), drawn)
            return rows[[*drawn, *others[: n - len(drawn)]]].tolist()
        sums = np.cumsum(weights)
        drawn.append(int(np.searchsorted(sums, random.uniform() * sums[-1], side="right")))
        nearest = np.minimum(nearest, _squares(points, points[drawn[-1:]])[:, 0])
        nearest[drawn[-1]] = 0
    return rows[drawn].tolist()


def _squares(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances (N, M) of points (N, C) from others (M, C); 0 of what differs by rounding alone."""
    sizes = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    squares = sizes - 2 * points @ others.T
    return np.where(squares > 1e-9 * sizes, squares, 0)
