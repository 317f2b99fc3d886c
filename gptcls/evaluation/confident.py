"""Labels that are probably wrong: confident learning over the answers of models that had not seen the row.

A model that was fitted on other rows gives each text a probability of each class. A class is *confident*
about a text where it is at least as probable as it is, on average, for the texts that bear its name: a class
that the model is seldom sure of needs less. A text whose confident class is another than its label is a
suspect (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"). Of
several labels each is judged alone; numbers are compared with the spread of all errors. What is found is what
other rows do not explain: a wrong label, a text that says too little, a rare way to say a thing.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gptcls.core.task import Task
from gptcls.evaluation.baselines import Baselines, linear_models, regression_on_vectors
from gptcls.evaluation.ngrams import activation_of

# Chosen on flipped labels (benchmarks/LOG.md): the models of vectors and n-grams, the weight of the former.
STRENGTH, SVM, WEIGHT = 0.01, "linear SVM, C=0.3", 0.25
ALPHA, NGRAM_ALPHA = 100, 1  # of ridge regressions
FEWEST = 20  # texts that models may be fitted on
OUTLIER = 4.0  # standard deviations of the errors


class Suspects(NamedTuple):
    """What is said of N labels: ``own`` (N,) is the probability of each (of several labels the least, of a
    number 1 / (1 + its error in standard deviations)), ``rows`` the suspects, the least probable first,
    ``doubtful`` those of which the models say another label as well, but less surely, and ``suggested`` what
    each of both would be labelled."""

    own: np.ndarray
    rows: np.ndarray
    doubtful: np.ndarray
    suggested: dict[int, str]


def held_out(
    rivals: Baselines, vectors: np.ndarray, ngrams: Any | None, targets: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Outputs (N, K) for N different texts, each by models that were fitted on other folds: a linear model of
    frozen ``vectors`` (N, C) and one of ``ngrams`` (N, F), sparse, if there are any, each scaled by what it
    says of rows it had not, and both averaged as log-probabilities. Rows that are not ``known`` are answered,
    but nothing is fitted on them."""
    folds = list(rivals.folds(targets))

    def decisions(model: Any, inputs: Any) -> np.ndarray:
        found = np.zeros((len(targets), len(rivals.labels)))
        for rest, fold in folds:
            rest = rest[known[rest]]
            found[fold] = rivals.fitted(model, inputs[rest], targets[rest])(inputs[fold])
        return rivals.scale(targets[known], found[known]) * found

    on_vectors, on_ngrams = _models(rivals)
    both = decisions(on_vectors, vectors)
    if ngrams is not None:
        both = WEIGHT * both + (1 - WEIGHT) * decisions(on_ngrams, ngrams)
    return activation_of(rivals.activation)(both)


def _models(rivals: Baselines) -> tuple[Any, Any]:
    """Of vectors, and of n-grams."""
    if rivals.activation == "identity":
        ridge = "ridge regression, alpha={}".format
        return rivals.on_vectors()[ridge(ALPHA)], rivals.on_ngrams()[ridge(NGRAM_ALPHA)]
    return regression_on_vectors(STRENGTH), linear_models()[SVM]


def confident_class(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The class that is confident about each of N texts, -1 where none is; of several the most probable.

    >>> shares = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9]])
    >>> confident_class(np.array([0, 1, 1, 0]), shares).tolist()
    [0, 0, 1, 1]
    """
    n_classes = probabilities.shape[1]
    least = np.full(n_classes, np.inf)  # a class that no text bears is confident about none
    for k in np.unique(targets):
        least[k] = probabilities[targets == k, k].mean()
    confident = probabilities >= least - 1e-6
    n_confident = confident.sum(axis=1)
    answer = np.where(n_confident > 1, probabilities.argmax(axis=1), confident.argmax(axis=1))
    return np.where(n_confident > 0, answer, -1)


def suspects_of(task: Task, labels: Sequence[str], targets: np.ndarray, outputs: np.ndarray) -> Suspects:
    """The suspects among N label strings with these targets, by outputs (N, K) that did not see them."""
    return OF_KIND[task.kind](task, labels, targets, outputs)


def _of_classes(task: Task, labels: Sequence[str], targets: np.ndarray, outputs: np.ndarray) -> Suspects:
    own, guess = outputs[np.arange(len(targets)), targets], confident_class(targets, outputs)
    other = own < outputs.max(axis=1)
    wrong = (guess >= 0) & (guess != targets) & other
    answers = np.where(wrong, guess, outputs.argmax(axis=1))
    return _sorted(own, wrong, other, lambda row: task.labels[answers[row]])


def _of_lists(task: Task, labels: Sequence[str], targets: np.ndarray, outputs: np.ndarray) -> Suspects:
    given = targets.astype(int)
    other = (outputs >= 0.5) != given
    wrong = np.zeros_like(other)
    for k, column in enumerate(given.T):
        both = np.stack([1 - outputs[:, k], outputs[:, k]], axis=1)
        guess = confident_class(column, both)
        wrong[:, k] = (guess >= 0) & (guess != column) & other[:, k]
    own = np.where(given == 1, outputs, 1 - outputs).min(axis=1)

    def suggested(row: int) -> str:
        changed = wrong[row] if wrong[row].any() else other[row]
        names = [task.labels[k] for k in np.flatnonzero(given[row] != changed)]
        return json.dumps(sorted(names), ensure_ascii=False)

    return _sorted(own, wrong.any(axis=1), other.any(axis=1), suggested)


def _of_numbers(task: Task, labels: Sequence[str], targets: np.ndarray, outputs: np.ndarray) -> Suspects:
    errors = outputs - targets
    centred = abs(errors - np.median(errors, axis=0))
    spread = 1.4826 * np.median(centred, axis=0)  # a normal distribution's standard deviation
    off = (centred / np.where(spread > 0, spread, 1)).max(axis=1)

    def suggested(row: int) -> str:
        found = dict(zip(task.labels, (float(f"{value:.4g}") for value in outputs[row]), strict=True))
        return json.dumps(found if labels[row].startswith("{") else next(iter(found.values())))

    return _sorted(1 / (1 + off), off > OUTLIER, off > OUTLIER, suggested)


def _sorted(
    own: np.ndarray, wrong: np.ndarray, other: np.ndarray, suggested: Callable[[int], str]
) -> Suspects:
    """From masks (N,) of the suspects, and of all rows whose label is not the models' answer."""
    order = np.argsort(own, kind="stable")
    rows, doubtful = order[wrong[order]], order[(other & ~wrong)[order]]
    others = {row: suggested(row) for row in [*rows.tolist(), *doubtful.tolist()]}
    return Suspects(own, rows, doubtful, others)


OF_KIND = {"single_label": _of_classes, "multi_label": _of_lists, "regression": _of_numbers}
