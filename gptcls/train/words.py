"""Fitting a classifier of n-grams: the loss that a network is trained by, and a penalty, to its minimum."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gptcls.classify.words import Words, counted
from gptcls.common.log import log
from gptcls.core.task import Task
from gptcls.evaluation.baselines import are_unspaced
from gptcls.train.soft import SoftTargets

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # C, as scikit-learn's logistic regression has it
# Characters in a run: as the n-gram baseline of long texts, and of scripts without spaces between words.
RUNS, UNSPACED_RUNS = (4, 4), (1, 2)


def fit_words(
    texts: Sequence[str], targets: Tensor, task: Task | SoftTargets, held: tuple[Sequence[str], Tensor]
) -> Words:
    """The linear layer with the smallest ``task.loss(logits, targets) + |coefficients|² / (2 C N)`` of N
    texts; C is the one of :data:`STRENGTHS` with the smallest loss of the ``held`` texts and their targets.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    runs = UNSPACED_RUNS if are_unspaced(texts) else RUNS
    counts = counted(texts, runs)
    filled = counts.getnnz(axis=0) > 0
    tfidf = TfidfTransformer(sublinear_tf=True).fit(counts)
    # What no training text has would else count in the length that a text's TF-IDF is divided by.
    tfidf.idf_ = idf = np.where(filled, tfidf.idf_, 0).astype(np.float32)
    inputs = tfidf.transform(counts)[:, filled].astype(np.float64)
    held_inputs = tfidf.transform(counted(held[0], runs))[:, filled]
    targets, held_targets = (x.double() if x.is_floating_point() else x for x in (targets, held[1]))
    found = np.zeros((1 + inputs.shape[1], task.n_outputs))
    best, chosen, strength = np.inf, found, 0.0
    for c in STRENGTHS:
        found = _minimum(inputs, targets, task, 1 / (c * len(texts)), found)
        loss = task.loss(torch.from_numpy(held_inputs @ found[1:] + found[0]), held_targets).item()
        if loss < best:
            best, chosen, strength = loss, found, c
    said = f"{filled.sum():,} of {len(filled):,} buckets filled, C={strength:g}"
    log.info(f"n-grams: {said}; the best loss of {len(STRENGTHS)} on {len(held_targets):,} validation rows")
    coefficients = np.zeros((len(filled), task.n_outputs), dtype=np.float32)
    coefficients[filled] = chosen[1:]
    return Words(runs, idf, coefficients, chosen[0].astype(np.float32))


def _minimum(inputs, targets: Tensor, task: Task | SoftTargets, penalty: float, start: np.ndarray):
    """Intercept and, below it, coefficients (1 + F, K) for inputs (N, F), by L-BFGS."""
    from scipy.optimize import minimize

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        layer = flat.reshape(start.shape)
        logits = torch.from_numpy(inputs @ layer[1:] + layer[0]).requires_grad_()
        loss = task.loss(logits, targets)
        loss.backward()
        slope = logits.grad.numpy()
        slopes = np.concatenate([slope.sum(axis=0)[None], inputs.T @ slope + penalty * layer[1:]])
        return loss.item() + penalty / 2 * (layer[1:] ** 2).sum(), slopes.ravel()

    options = {"maxiter": 300, "maxcor": 5}
    return minimize(value, start.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(start.shape)
