"""Two answers to the same texts: how much better one is, which two intervals side by side do not say.

Differences are the first answer's score less the second's, with 95 % intervals of pairs: Bonett and Price's
of a share, of an F1 or an error the bootstrap's, which draws both answers to a text together.
"""

from collections.abc import Sequence

import numpy as np

from gptcls.core.task import Task
from gptcls.evaluation.decision import PLAIN, Decision
from gptcls.evaluation.intervals import bootstrap_interval, f1_draws, quantiles, share_difference_interval
from gptcls.evaluation.metrics import counts_per_text, f1_of_sums, with_ends

HEADLINES = {"single_label": "accuracy", "multi_label": "subset_accuracy", "regression": "mae"}


def decisions(task: Task, outputs: np.ndarray, decision: Decision = PLAIN) -> np.ndarray:
    """What outputs (N, K) decide: class indices (N,), the labels given (N, K), or the numbers (N, K)."""
    values = outputs.astype(float)
    return values if task.kind == "regression" else decision.given(task, values)


def differences(task: Task, targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict:
    """The differences of the main scores of two :func:`decisions`, each with ``_low`` and ``_high``, named as
    in :mod:`gptcls.evaluation.metrics`; ``n`` texts; {} for none. For shares also ``only_first`` and
    ``only_second``, how many texts one of them alone has right, and ``p``, McNemar's."""
    if not (n := len(targets)):
        return {}
    if task.kind == "regression":
        return {"n": n} | _of_numbers(targets, first, second)
    if task.kind == "single_label":
        one_hot, n_classes = np.eye(task.n_outputs, dtype=bool), task.n_outputs
        right = [first == targets, second == targets]
        sides = [one_hot[answers] for answers in (targets, first, second)]
        wanted = {"f1": "seen"} if n_classes > 2 else {"f1": "positive"}
    else:
        sides = [each.astype(bool) for each in (targets, first, second)]
        right = [(side == sides[0]).all(axis=1) for side in sides[1:]]
        wanted = {"micro_f1": "micro", "macro_f1": "macro"}
    counts = [counts_per_text(sides[0], side) for side in sides[1:]]
    found = {"n": n, **_of_shares(HEADLINES[task.kind], *right)}
    for name, over in wanted.items():
        of = counts
        if over == "positive":  # of two classes F1 is the second one's
            of, over = [each[:, 1::2] for each in counts], "macro"
        found |= _of_f1(name, of, over)
    return found


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of two answers that are right equally often (McNemar 1947, Psychometrika
    12:153-157): of the texts that one alone has right, either is as likely to have it.

    >>> mcnemar(1, 5)
    0.21875
    """
    from scipy.stats import binomtest

    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p for as many tests as there are, to be compared with the level of all of them together (Holm
    1979, Scandinavian Journal of Statistics 6:65-70).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * float(p_values[place])))
        adjusted[place] = largest
    return adjusted


def _of_shares(name: str, first: np.ndarray, second: np.ndarray) -> dict:
    n, gained, lost = len(first), int((first & ~second).sum()), int((second & ~first).sum())
    ends = share_difference_interval(gained, lost, n)
    found = with_ends(name, (gained - lost) / n, ends)
    return found | {"only_first": gained, "only_second": lost, "p": mcnemar(gained, lost)}


def _of_f1(name: str, counts: Sequence[np.ndarray], over: str) -> dict:
    first, second = (f1_of_sums(each.sum(axis=0)[None], over).item() for each in counts)
    value = first - second
    if len(counts[0]) < 2:
        return with_ends(name, value, None)
    one, other = f1_draws(counts, over)
    low, high = quantiles(one - other)
    return with_ends(name, value, (min(low, value), max(high, value)))


def _of_numbers(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict:
    """Of several numbers the mean difference, without intervals, as the scores have none."""
    n, n_numbers = targets.shape
    errors = [np.abs(answers - targets) for answers in (first, second)]
    rows = np.concatenate([*errors, *(each**2 for each in errors)], axis=1)  # (N, 4 K)
    found = {}
    for name, place, form in (("mae", 0, np.asarray), ("rmse", 2 * n_numbers, np.sqrt)):

        def less(sums: np.ndarray, place: int = place, form=form) -> np.ndarray:
            of_each = form(sums[:, place : place + 2 * n_numbers] / n)
            return (of_each[:, :n_numbers] - of_each[:, n_numbers:]).mean(axis=1)

        ends = bootstrap_interval(rows, less) if n_numbers == 1 else None
        found |= with_ends(name, float(less(rows.sum(axis=0)[None])[0]), ends)
    return found
