"""Where techniques are tried: a data set, a seed's rows of it, and what the techniques share there.

A seed draws the training rows, the validation rows and those without labels, the head, and the order; the
test rows are the same for all seeds. What is frozen is computed once a text for all of a place's runs.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import datasets
from benchmarks.datasets import DataSet, few_labels
from gptcls.classify.mixture import Mixture, fit_mixture, mean_outputs
from gptcls.classify.predict import ready
from gptcls.core.answer import dataset_logits
from gptcls.core.classifier import Classifier
from gptcls.core.loop import Hook, Trainer
from gptcls.core.task import Task
from gptcls.core.tasks import TASKS
from gptcls.core.weights import State
from gptcls.data.corpora import load_parts
from gptcls.data.labels import LISTS, ONE_CLASS, LabelKind, Layout
from gptcls.data.split import Split, drop_duplicates, without
from gptcls.evaluation.baselines import Baselines
from gptcls.evaluation.calibration import fit_calibration
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.paired import decisions
from gptcls.fast.features import FeatureDataset
from gptcls.fast.parts import by_length
from gptcls.train.config import TrainConfig
from gptcls.train.ensemble import put
from gptcls.train.language import loss_of
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_of
from gptcls.train.run import CALL
from gptcls.train.setup import Setup, make_loaders, prepare, stage

if TYPE_CHECKING:
    from pandas import DataFrame

TEST_SEED = 2000  # of the test rows, where a data set has more than are asked for; no seed of a run
JUDGED = ("validation", "test")
UNFROZEN = ("blocks", "all", "lora")  # what is trained in these leaves nothing to keep
Outputs = dict[str, np.ndarray]  # of "validation" and "test" (N, K), probabilities


def _goemotions(folder: Path) -> "dict[str, DataFrame]":
    return load_parts(f"goemotions:{folder / 'goemotions'}", layout=Layout(LISTS))


SETS = {
    "sms": datasets.SETS["sms"],
    "trec6": datasets.SETS["trec6"],
    "rt_polarity": datasets.SETS["rt_polarity"],
    "goemotions": DataSet("comments, any of 28 emotions (GoEmotions)", _goemotions, "micro_f1"),
    "chnsenticorp": datasets.SETS["chnsenticorp"],
    "thucnews": datasets.SETS["thucnews"],
}
KINDS: dict[str, LabelKind] = dict.fromkeys(SETS, ONE_CLASS) | {"goemotions": LISTS}


@dataclass(frozen=True)
class Sizes:
    """Rows of each part at most, and tokens of each text."""

    train: int
    validation: int
    test: int
    unlabelled: int
    length: int


@dataclass
class Loop:
    """What a training loop is made of, for a technique to change before it trains, and its end."""

    setup: Setup
    network: nn.Module
    datasets: dict[str, Any]  # part -> texts, or what is frozen of them
    loss: Any  # a task, or what has its ``loss`` and ``loss_weight``
    hooks: list[Hook] = field(default_factory=list)
    optimizer: torch.optim.Optimizer | None = None

    @property
    def model(self) -> Classifier:
        return self.setup.saved.model

    @property
    def task(self) -> Task:
        return self.setup.saved.task

    def logits(self) -> dict[str, Tensor]:
        """Of the rows that are judged, (N, K)."""
        return {p: dataset_logits(self.network, self.datasets[p], self.setup.device) for p in JUDGED}

    def vectors(self) -> dict[str, np.ndarray]:
        """What the head reads of each text (N, C)."""
        head, self.model.head = self.model.head, nn.Identity()
        try:
            found = {p: dataset_logits(self.network, d, self.setup.device) for p, d in self.datasets.items()}
        finally:
            self.model.head = head
        return {part: x.numpy() for part, x in found.items()}


Change = Callable[[Loop], None]


@dataclass
class Place:
    """One seed's rows of a data set, and what is learnt there."""

    name: str
    seed: int
    split: Split
    unlabelled: list[str]
    settings: dict[str, Any]  # options of gptcls.train that all techniques share
    folder: Path  # for what the frozen blocks say

    def learn(
        self, change: Change | None = None, seed: int | None = None, rows: "DataFrame | None" = None,
        **options: Any,
    ) -> Loop:  # fmt: skip
        """Train as :func:`gptcls.train.run.fit` does, without its looks at other rows and its baselines."""
        seed = self.seed if seed is None else seed
        values = self.settings | {"seed": seed} | options
        if values.get("train") not in UNFROZEN:
            values["cache"] = self.folder
        config = resolve(TrainConfig.of(**values))
        split = self.split if rows is None else replace(self.split, train=rows)
        setup = prepare(split_of(split, config), config)
        network, parts = stage(setup.saved.model, setup.datasets, setup.config, setup.device)
        loop = Loop(setup, network, parts, loss_of(setup.config, setup.saved.task))
        if change is not None:
            change(loop)
        torch.manual_seed(seed)
        loader, settings = make_loaders(loop.datasets, setup.config)["train"], setup.config.fit.settings
        cut = getattr(loop.network, "minds_padding", True)
        parts = {"parts": partial(by_length, worth=CALL)} if cut else {}
        how = (loop.network, loop.loss, loader, settings, setup.device, loop.hooks, loop.optimizer)
        Trainer(*how, **parts).fit()
        return loop

    @cached_property
    def task(self) -> Task:
        """What the plain run learns."""
        return TASKS[self.settings["task"]].for_training(self.split.train["label"].tolist())

    @cached_property
    def targets(self) -> dict[str, np.ndarray]:
        """Of each part (N,) or (N, K)."""
        rows = self.split.items()
        return {part: self.task.targets(frame["label"].tolist()).numpy() for part, frame in rows}

    @cached_property
    def plain(self) -> Loop:
        """What all are compared with: ``gptcls.train`` as it is. Its averages come with it."""
        return self.learn(lambda loop: loop.hooks.extend([EpochMean(), MovingMean()]))

    @cached_property
    def plain_logits(self) -> dict[str, Tensor]:
        return self.plain.logits()

    @cached_property
    def others(self) -> list[dict[str, Tensor]]:
        """The logits of two more networks, of other seeds but on the same rows."""
        return [self.learn(seed=self.seed + more).logits() for more in (1000, 2000)]

    @cached_property
    def rivals(self) -> Baselines:
        """The baselines that every run has, fitted."""
        parts = [part for part, frame in self.split.items() if len(frame)]
        texts = {part: (getattr(self.split, part)["text"].tolist(), self.targets[part]) for part in parts}
        frozen = {part: self.plain.datasets[part] for part in parts}
        vectors = {
            part: (x.means().numpy(), self.targets[part])
            for part, x in frozen.items()
            if isinstance(x, FeatureDataset)
        }
        found = judge_of(self.task).rivals(self.task.labels)
        found.scores(texts, vectors or None)
        return found

    def baseline(self, name: str) -> Outputs:
        """The outputs of :data:`TFIDF` or :data:`PROBE`."""
        found = self.rivals.outputs[name]
        return {part: found.get(part, np.zeros((0, self.task.n_outputs))) for part in JUDGED}

    def outputs(self, logits: dict[str, Tensor]) -> Outputs:
        """Probabilities of logits (N, K), or of those of several networks (M, N, K) the mean."""
        return {part: mean_outputs(self.task, values) for part, values in logits.items()}

    def mixed(self, logits: dict[str, Tensor], rival: Any) -> Outputs:
        """The network's answers mixed with those of a rival that has ``outputs(texts)``, as ``--stack`` does:
        by a weight that is fitted on the validation rows; half and half without any."""
        task, held = self.task, self.split.validation["text"].tolist()
        mixture = Mixture(0.5, 1.0, rival)
        if held:
            mixture = fit_mixture(task, rival, logits["validation"], self.targets["validation"], held)
        return {p: mixture.outputs(task, logits[p], getattr(self.split, p)["text"].tolist()) for p in JUDGED}

    def unlabelled_outputs(self) -> np.ndarray:
        """The plain run's probabilities (N, K) of the texts without labels, calibrated."""
        saved, held = self.plain.setup.saved, self.targets["validation"]
        if len(held):
            saved.calibration = fit_calibration(held, self.outputs(self.plain_logits)["validation"])
        return ready(saved, self.plain.setup.device).predict_proba(self.unlabelled)

    def answers(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """What probabilities decide, true or false (N, K): the likeliest class; of several labels those above
        the thresholds that are best on the validation rows."""
        task, held = self.task, self.targets["validation"]
        if len(held):
            task = judge_of(task).tuned(held, outputs["validation"])
        return {part: as_flags(decisions(task, x), task.n_outputs) for part, x in outputs.items()}

    def truth(self) -> dict[str, np.ndarray]:
        """What is true, likewise."""
        return {part: as_flags(self.targets[part], self.task.n_outputs) for part in JUDGED}


def as_flags(answers: np.ndarray, n_outputs: int) -> np.ndarray:
    """Class indices (N,) or flags (N, K) as flags."""
    return np.eye(n_outputs, dtype=bool)[answers] if answers.ndim == 1 else answers.astype(bool)


# --- rows ---


def drawn(rows: "DataFrame", n: int, seed: int, kind: LabelKind) -> "tuple[DataFrame, DataFrame]":
    """``n`` of the rows, each class (of lists the rarest name) by its share but once at least; the others.

    >>> from gptcls.common.lazy import pd
    >>> rows = pd.DataFrame({"text": list("abcd"), "label": ['["x"]', '["x", "y"]', "[]", '["x"]']})
    >>> [part["text"].tolist() for part in drawn(rows, 3, 0, LISTS)]
    [['b', 'c', 'd'], ['a']]
    """
    strata = rows.assign(label=kind.strata(rows["label"].tolist()), place=range(len(rows)))
    taken = np.isin(np.arange(len(rows)), few_labels(strata, n, seed)["place"])
    return rows[taken].reset_index(drop=True), rows[~taken].reset_index(drop=True)


@cache
def _pool(name: str, data: Path, n_test: int) -> "tuple[DataFrame, DataFrame]":
    """All rows that are not tested on, and the test rows, the same for all seeds."""
    kind, parts = KINDS[name], SETS[name].read(data)
    rows = drop_duplicates(parts["train"], kind)
    if (test := parts.get("test")) is None:
        test, rows = drawn(rows, n_test, TEST_SEED, kind)
    else:
        test, _ = drawn(test, n_test, TEST_SEED, kind)
    return without(rows, test, "train", "test"), test


def place_of(name: str, data: Path, seed: int, sizes: Sizes, folder: Path, model: str, device: str) -> Place:
    """The place of a data set and a seed."""
    kind = KINDS[name]
    rows, test = _pool(name, data, sizes.test)
    held = rows[:0]
    if sizes.validation:
        held, rows = drawn(rows, sizes.validation, seed, kind)
    train, rest = drawn(rows, sizes.train, seed, kind)
    unlabelled = drawn(rest, sizes.unlabelled, seed, kind)[0] if sizes.unlabelled else rest[:0]
    settings = {"model": model, "task": kind.task, "max_length": sizes.length, "device": device}
    return Place(name, seed, Split(train, held, test), unlabelled["text"].tolist(), settings, folder)


# --- means of the weights, taken along the plain run ---


class EpochMean(Hook):
    """The mean of the weights at the ends of the epochs of a run's second half."""

    def __init__(self) -> None:
        self.mean: State = {}
        self.count = 0

    def on_epoch(self, trainer: Trainer) -> None:
        if 2 * trainer.progress.epoch > trainer.settings.epochs:
            self.count += 1
            _move(self.mean, trainer.parameters, 1 / self.count)


class MovingMean(Hook):
    """The exponential moving average of the weights, after each step; by default over about a tenth of the
    run's steps."""

    def __init__(self, decay: float | None = None) -> None:
        self.mean: State = {}
        self.decay = decay

    def on_step(self, trainer: Trainer) -> None:
        share = min(1.0, 10 / trainer.total_steps) if self.decay is None else 1 - self.decay
        _move(self.mean, trainer.parameters, share)


@torch.no_grad()
def _move(mean: State, parameters: State, share: float) -> None:
    """``mean`` by that share of the way towards the parameters; an empty one to where they are."""
    if not mean:
        mean.update({name: p.detach().clone() for name, p in parameters.items()})
    torch._foreach_lerp_(list(mean.values()), [parameters[name] for name in mean], share)


@contextmanager
def weights(loop: Loop, state: State) -> Any:
    """The loop's network with these weights for what is trained."""
    own = {name: p.detach().clone() for name, p in loop.model.trained_parameters().items()}
    # A trainer knows parameters by their names in the network, the classifier by its own.
    by_end = {name.removeprefix("classifier."): tensor for name, tensor in state.items()}
    put(loop.model, by_end)
    try:
        yield
    finally:
        put(loop.model, own)
