"""Who learns from labelled texts in ``python -m benchmarks.nano``, and the settings each may choose from.

Every contestant has four settings to choose from, is judged by the same scores, and sees the same rows.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.probe import TABLE, cross_validated, mean_vectors, on_words
from gptcls.core.answer import dataset_logits
from gptcls.core.gpt2 import GPT2
from gptcls.core.loop import Trainer
from gptcls.data.split import Split
from gptcls.evaluation.baselines import regression_on_vectors, tfidf_char_baseline
from gptcls.evaluation.metrics import classification_scores
from gptcls.models.pretrained import load_pretrained
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.setup import make_loaders, prepare, stage

if TYPE_CHECKING:
    from pandas import DataFrame

PRETRAINED, RANDOM, PROBE = "pretrained, fine-tuned", "random weights, fine-tuned", "probe on frozen vectors"
WORDS, CHARACTERS = "TF-IDF words", "TF-IDF characters"
BATCH, MAX_LENGTH = 16, 64
MOST_FOLDED = 1000  # rows at most by which a probe chooses its depth
KEPT = ("n", "accuracy", "accuracy_low", "accuracy_high", "f1")

RATES, PROBE_C, TFIDF_C = (5e-4, 1.5e-3), (0.001, 0.01, 0.1, 1.0), (3, 30)
_NETWORK = [{"pooling": pooling, "lr": lr} for pooling in ("mean", "max") for lr in RATES]
GRIDS: dict[str, list[dict[str, Any]]] = {
    PRETRAINED: _NETWORK,
    RANDOM: _NETWORK,
    PROBE: [{"C": c} for c in PROBE_C],
    WORDS: [{"C": c, "ngrams": n} for c in TFIDF_C for n in (1, 2)],
    CHARACTERS: [{"C": c, "class_weight": weight} for c in TFIDF_C for weight in (None, "balanced")],
}


def caption() -> str:
    """What everybody had to choose from, in words."""
    rates, probe_c, tfidf_c = (" or ".join(f"{x:g}" for x in grid) for grid in (RATES, PROBE_C, TFIDF_C))
    return (
        "Every contestant chose among four settings on the same validation rows, with a seed that is no test "
        f"seed: the networks mean or max pooling and a learning rate of {rates} (pretrained: all blocks "
        f"trained, the token table frozen; random weights: all layers), the probe C of {probe_c} (its depth "
        f"by cross-validation), TF-IDF C of {tfidf_c} and words or words and pairs, or characters (2 to 5) "
        "with plain or balanced classes."
    )


def backbone_of(model: str, seed: int | None = None) -> GPT2:
    """The pretrained network; with a seed one of its sizes with random weights."""
    network = load_pretrained(model)
    if seed is None:
        return network
    torch.manual_seed(seed)
    return GPT2(network.config)


def scores_of(targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """What is kept of a contestant's scores. F1: of the second label of two, else the macro average."""
    scores = classification_scores(targets, probabilities, labels)
    return {name: scores[name] for name in KEPT}


def fine_tuned(
    backbone: GPT2, rows: "DataFrame", judged: "DataFrame", steps: int, seed: int, device: str = "auto",
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Scores on ``judged`` of a network trained for about ``steps`` batches, whole passes in any case.

    The parts of :func:`gptcls.train.run.fit`, without its looks at other rows and its baselines.
    """
    batches = math.ceil(len(rows) / BATCH)
    settings = {"epochs": max(1, round(steps / batches)), "batch_size": BATCH}
    settings |= {"max_length": MAX_LENGTH, "device": device, "seed": seed, "model": type(backbone).__name__}
    config = resolve(TrainConfig.of(**settings | options))
    setup = prepare(Split(rows, judged[:2], judged), config, own=backbone)
    config = setup.config
    network, datasets = stage(setup.saved.model, setup.datasets, config, setup.device)
    torch.manual_seed(seed)
    trainer = Trainer(
        network, setup.saved.task, make_loaders(datasets, config)["train"], config.fit.settings, setup.device
    )
    trainer.fit()
    logits = dataset_logits(network, datasets["test"], setup.device)
    task = setup.saved.task
    return scores_of(datasets["test"].targets.numpy(), task.outputs(logits).numpy(), task.labels)


def all_blocks(backbone: GPT2) -> str:
    """``--train`` for all blocks and the final norm, the tables frozen."""
    return f"last_{backbone.config.n_layer}"


@cache
def _known_vectors(model: str, seed: int | None) -> dict[str, dict[str, np.ndarray]]:
    return {}


def vectors_of(model: str, seed: int | None, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """:func:`benchmarks.probe.mean_vectors` of :func:`backbone_of` with that seed; none computed twice."""
    known = _known_vectors(model, seed)
    if new := list(dict.fromkeys(text for text in texts if text not in known)):
        found = mean_vectors(backbone_of(model, seed), new, MAX_LENGTH)
        for row, text in enumerate(new):
            known[text] = {depth: x[row] for depth, x in found.items()}
    return {depth: np.stack([known[text][depth] for text in texts]) for depth in known[texts[0]]}


def forget_vectors() -> None:
    """Those of another network or data set take memory."""
    _known_vectors.cache_clear()


def probed(
    model: str, random_seed: int | None, train: "DataFrame", judged: "DataFrame", strength: float
) -> dict[str, Any]:
    """Scores of a logistic regression on mean vectors of the depth that is best by cross-validation."""
    texts, y = train["text"].tolist(), train["label"].to_numpy()
    x, x_judged = (vectors_of(model, random_seed, t) for t in (texts, judged["text"].tolist()))
    some = np.random.RandomState(0).permutation(len(y))[:MOST_FOLDED]
    by_depth = {
        depth: cross_validated(regression_on_vectors(strength), x[depth][some], y[some]) for depth in x
    }
    depth = max(by_depth, key=by_depth.__getitem__)
    fitted = regression_on_vectors(strength).fit(x[depth], y)
    return _judged(fitted, x_judged[depth], judged) | {"depth": depth, "is_table": depth == TABLE}


def tfidf(
    train: "DataFrame", judged: "DataFrame", strength: float, ngrams: int = 0, class_weight: str | None = None
) -> dict[str, Any]:
    """Scores of TF-IDF with logistic regression: of words and ``ngrams`` of them, or else of characters."""
    model = on_words(strength, ngrams) if ngrams else tfidf_char_baseline(class_weight=class_weight)
    model.set_params(logisticregression__C=strength)
    return _judged(model.fit(train["text"], train["label"]), judged["text"], judged)


def _judged(fitted: Any, x: Any, judged: "DataFrame") -> dict[str, Any]:
    labels = list(fitted.classes_)
    targets = np.array([labels.index(label) for label in judged["label"]])
    return scores_of(targets, fitted.predict_proba(x), labels)


def learner(
    contestant: str, model: str, steps: int, device: str
) -> Callable[["DataFrame", "DataFrame", dict[str, Any], int], dict[str, Any]]:
    """A function of training rows, rows to judge by, one of the contestant's settings, and a seed."""

    def network(train, judged, setting, seed):
        backbone = backbone_of(model, seed if contestant == RANDOM else None)
        what = "all" if contestant == RANDOM else all_blocks(backbone)
        return fine_tuned(backbone, train, judged, steps, seed, device, train=what, **setting)

    def regression(train, judged, setting, seed):
        setting = dict(setting)
        strength = setting.pop("C")
        if contestant == PROBE:
            return probed(model, None, train, judged, strength)
        return tfidf(train, judged, strength, **setting)

    return network if contestant in (PRETRAINED, RANDOM) else regression
