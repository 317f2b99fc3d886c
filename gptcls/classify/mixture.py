"""A network's answers mixed with those of the run's n-gram baseline: stacking (Wolpert 1992) by one weight.

The two err on different texts, so their mean is often better than either. A network is surer than it is
right, which would make it the only voice: its logits are divided by a temperature first (Guo et al. 2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from gptcls.common.log import log
from gptcls.core.task import Task
from gptcls.evaluation.baselines import FEWEST, TFIDF, best_scale
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.ngrams import NgramModel

NETWORK = "network alone"  # as the table calls what is mixed with the n-grams


@dataclass(frozen=True)
class Mixture:
    """``(1 - weight) * network + weight * n-grams``, the network's logits divided by ``temperature``."""

    weight: float
    temperature: float
    ngrams: NgramModel

    def outputs(self, task: Task, logits: Tensor, texts: Sequence[str]) -> np.ndarray:
        """Probabilities or numbers (N, K), from the network's logits of N texts, as :func:`mean_outputs`
        takes them."""
        network = mean_outputs(task, logits / self.temperature)
        return (1 - self.weight) * network + self.weight * self.ngrams.outputs(texts)

    def to_json(self) -> dict:
        """What of it stands in ``classifier.json``."""
        return {"weight": self.weight, "temperature": self.temperature}

    @classmethod
    def read(cls, spec: dict, folder: Path, task: Task) -> "Mixture":
        """From :meth:`to_json` and the files of the n-grams; errors as :meth:`NgramModel.read` has them."""
        ngrams = NgramModel.read(folder, judge_of(task).rivals.activation, task.n_outputs)
        return cls(spec["weight"], spec["temperature"], ngrams)


def mean_outputs(task: Task, logits: Tensor) -> np.ndarray:
    """The outputs (N, K) for logits (N, K), or for those of the M networks of an ensemble (M, N, K), whose
    mean they are (Lakshminarayanan et al. 2017)."""
    outputs = task.outputs(logits)
    return (outputs.mean(dim=0) if outputs.dim() == 3 else outputs).numpy()


def fit_mixture(
    task: Task, ngrams: NgramModel, logits: Tensor, targets: np.ndarray, texts: Sequence[str]
) -> Mixture:
    """The mixture for a network with these logits of N validation texts with targets (N,) or (N, K).

    First the temperature has the smallest :func:`loss` of the network alone, then the weight that of the
    mixture. Numbers have no temperature. Fewer rows than :data:`gptcls.evaluation.baselines.FEWEST` fit no
    weight: it is 1/2.
    """
    from scipy.optimize import minimize_scalar

    def network(temperature: float) -> np.ndarray:
        return mean_outputs(task, logits.double() / temperature)

    temperature, weight, n = 1.0, 0.5, len(targets)
    if task.has_probabilities:
        temperature = 1 / best_scale(lambda scale: loss(task, targets, network(1 / scale)))
    ours, theirs = network(temperature), ngrams.outputs(texts).astype(float)
    if fitted := n >= FEWEST:
        found = minimize_scalar(
            lambda w: loss(task, targets, (1 - w) * ours + w * theirs), bounds=(0, 1), method="bounded"
        )
        weight = float(found.x)
    said = f"{weight:.2f} of {TFIDF}, {1 - weight:.2f} of the network"
    said += f" at temperature {temperature:.2f}" if task.has_probabilities else ""
    how = f"fitted on {n:,} validation rows"
    if not fitted:
        how = f"{n:,} validation rows are too few to fit the weights"
    log.info(f"answers: {said}; {how}")
    return Mixture(weight, temperature, ngrams)


def loss(task: Task, targets: np.ndarray, outputs: np.ndarray) -> float:
    """The log loss of probabilities (N, K), each label of a list a choice of two; of numbers the squared
    error in standard deviations.

    By Laplace's rule of succession an answer is right with a probability of (N + 1) / (N + 2) at most
    (Platt 1999 has the same targets): of a few validation rows all may be right.
    """
    if not task.has_probabilities:
        scales = targets.std(axis=0)
        return float((((outputs - targets) / np.where(scales > 0, scales, 1)) ** 2).mean())
    if targets.ndim == 2:
        outputs = np.stack([1 - outputs, outputs], axis=-1).reshape(-1, 2)
        targets = targets.astype(int).ravel()
    n, n_ways = outputs.shape
    with np.errstate(divide="ignore"):  # a class that training lacked has a probability of 0
        logs = np.maximum(np.log(outputs), -1e3)
    right = logs[np.arange(n), targets]
    wrong = (logs.sum(axis=1) - right) / (n_ways - 1)
    unsure = 1 / (n + 2)
    return -float(((1 - unsure) * right + unsure * wrong).mean())
