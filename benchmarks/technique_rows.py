"""The rows of ``python -m benchmarks.techniques``: what each changes of a plain run.

A technique is an entry of :data:`TECHNIQUES`: options of ``gptcls.train`` (:func:`options`), a change of the
loop before it trains (:func:`changed`), or any function of a place that returns its outputs. A file that has
techniques of its own adds them: ``TECHNIQUES["name"] = Technique(...)``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.technique_places import (
    JUDGED,
    Change,
    EpochMean,
    Loop,
    MovingMean,
    Outputs,
    Place,
    as_flags,
    weights,
)
from gptcls.classify.predict import ready
from gptcls.common.hardware import pick_device
from gptcls.common.lazy import pd
from gptcls.core.classifier import Classifier
from gptcls.core.gpt2 import Attention
from gptcls.core.loop import Hook, decay_groups
from gptcls.core.task import SingleLabel, Task
from gptcls.data.sources import labelled_frame
from gptcls.evaluation.baselines import PROBE, TFIDF
from gptcls.fast.features import FeatureCache, FeatureDataset
from gptcls.fast.frozen import Frozen
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import fit_classifier
from gptcls.train.stand_in import StandIn

ENGLISH = ("sms", "trec6", "rt_polarity", "goemotions")
UNEVEN = ("sms", "trec6", "goemotions", "chnsenticorp")
ONE_CLASS = ("sms", "trec6", "rt_polarity", "chnsenticorp", "thucnews")
DEAR = 3  # seeds of what trains every block
SURE = 0.9  # the least probability of a pseudo-label
DROPOUT = 0.1
KL_SHARE = 1.0  # R-Drop's alpha
NEIGHBOURS = 16
RATE_PER_BLOCK = 0.5  # of a block, to that of the one above it
MIX_RATE = 50.0  # learning rate of the weights of layers, to that of all others
AROUND = 16  # tokens of a pattern and its label, besides the text's
# What --head lm is told of each data set, written down before anything was measured.
WORDS: dict[str, dict[str, Any]] = {
    "sms": {
        "pattern": "{text}\nThis message is from {label}.",
        "verbalizers": ("ham=a friend", "spam=a company"),
    },
    "trec6": {
        "pattern": "{text}\nThe answer is {label}.",
        "verbalizers": (
            "ABBR=an abbreviation", "DESC=a description", "ENTY=a thing", "HUM=a person", "LOC=a place",
            "NUM=a number",
        ),
    },
    "rt_polarity": {"pattern": "{text}\nIt was {label}.", "verbalizers": ("neg=terrible", "pos=great")},
}  # fmt: skip


@dataclass(frozen=True)
class Technique:
    """One row."""

    title: str
    outputs: Callable[[Place], Outputs]
    flags: str = ""  # how gptcls does it; "" where it does not
    after: tuple[str, ...] = ()  # the rows that it builds on, whose time it takes as well
    sets: tuple[str, ...] = ()  # the only ones where it means anything or was affordable; () all
    most_seeds: int = 100  # what is dear is tried with fewer


def options(**given: Any) -> Callable[[Place], Outputs]:
    """A run with these options."""
    return lambda place: place.outputs(place.learn(**given).logits())


def changed(change: Change, **given: Any) -> Callable[[Place], Outputs]:
    """A run whose loop is changed before it trains."""
    return lambda place: place.outputs(place.learn(change, **given).logits())


def in_words(**given: Any) -> Callable[[Place], Outputs]:
    """``--head lm``: the labels as words behind the text, trained."""
    return lambda place: options(**_words(place) | given)(place)


def asked(**given: Any) -> Callable[[Place], Outputs]:
    """``--head lm`` without training."""

    def outputs(place: Place) -> Outputs:
        own = {"seed": place.seed, "calibrate": "none", "epochs": 0} | _words(place) | given
        saved = fit_classifier(place.split, resolve(TrainConfig.of(**place.settings | own)))
        classifier = ready(saved, pick_device(place.settings["device"]))
        return {part: classifier.outputs(getattr(place.split, part)["text"].tolist()) for part in JUDGED}

    return outputs


def _words(place: Place) -> dict[str, Any]:
    return {"head": "lm", "max_length": place.settings["max_length"] + AROUND} | WORDS[place.name]


def baseline(name: str) -> Callable[[Place], Outputs]:
    """What every run compares itself with."""
    return lambda place: place.baseline(name)


# --- on top of the plain run ---


def plain(place: Place) -> Outputs:
    return place.outputs(place.plain_logits)


def stacked(place: Place) -> Outputs:
    return place.mixed(place.plain_logits, place.rivals.ngram_model())


def _three(place: Place) -> dict[str, Tensor]:
    networks = [place.plain_logits, *place.others]
    return {part: torch.stack([logits[part] for logits in networks]) for part in networks[0]}


def ensemble(place: Place) -> Outputs:
    return place.outputs(_three(place))


def stacked_ensemble(place: Place) -> Outputs:
    return place.mixed(_three(place), place.rivals.ngram_model())


def averaged(kind: type[Hook]) -> Callable[[Place], Outputs]:
    """The plain run's weights, averaged along it by that hook."""

    def outputs(place: Place) -> Outputs:
        hook = next(hook for hook in place.plain.hooks if isinstance(hook, kind))
        with weights(place.plain, hook.mean):
            return place.outputs(place.plain.logits())

    return outputs


class Neighbours:
    """The labels of the training texts that are nearest to a text by what the head reads of it (cosine),
    weighed by their nearness: scikit-learn's."""

    def __init__(self, place: Place) -> None:
        from sklearn.neighbors import KNeighborsRegressor

        loop, self.n_outputs = place.plain, place.task.n_outputs
        vectors, targets = loop.vectors(), place.targets["train"]
        count = min(NEIGHBOURS, len(targets))
        # The weighted mean of what is true of the neighbours is their vote.
        regressor = KNeighborsRegressor(count, metric="cosine", weights="distance")
        regressor.fit(vectors["train"], as_flags(targets, self.n_outputs).astype(float))
        self.votes: dict[str, np.ndarray] = {}
        for part, frame in place.split.items():
            if len(frame):
                found = regressor.predict(vectors[part])
                self.votes |= dict(zip(frame["text"], found, strict=True))

    def outputs(self, texts: Iterable[str]) -> np.ndarray:
        """Votes (N, K)."""
        return np.array([self.votes[text] for text in texts]).reshape(-1, self.n_outputs)


def neighbours(place: Place) -> Outputs:
    return place.mixed(place.plain_logits, Neighbours(place))


def pseudo_labelled(place: Place) -> Outputs:
    """A second run, on the labelled rows and those that the plain one is sure of."""
    found = place.unlabelled_outputs()
    sure = np.flatnonzero(found.max(axis=1) >= SURE)
    names = [place.task.labels[i] for i in found[sure].argmax(axis=1)]
    more = labelled_frame([place.unlabelled[row] for row in sure], names)
    train = pd.concat([place.split.train[["text", "label"]], more], ignore_index=True)
    return place.outputs(place.learn(rows=train).logits())


# --- changes of the loop ---


def with_dropout(loop: Loop, p: float = DROPOUT) -> None:
    """Dropout in what is trained, which the pretrained weights have none of."""
    for module in (module for part in loop.model.learning for module in part.modules()):
        if isinstance(module, Attention):
            module.dropout = p
        elif isinstance(module, nn.Dropout):
            module.p = p


class Twice(nn.Module):
    """A network whose training answers to each text are two, of different dropout: (B, 2, K)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.n_outputs = network, network.n_outputs

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        if not self.training:
            return self.network(inputs, lengths)
        return torch.stack([self.network(inputs, lengths) for _ in range(2)], dim=1)


class RDrop(StandIn):
    """The loss of R-Drop (Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", NeurIPS), a
    mean over the two answers: half of the paper's, so that the learning rate means the same.

    ``(loss₁ + loss₂) / 2 + alpha / 4 * (KL(p₁ || p₂) + KL(p₂ || p₁))``, the divergences between classes or,
    of several labels, the mean over the labels of those between yes and no.
    """

    def __init__(self, task: Task, alpha: float = KL_SHARE) -> None:
        self.task, self.alpha = task, alpha

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits (B, 2, K), mean over the batch."""
        first, second = logits.unbind(dim=1)
        both = (self.task.loss(first, targets) + self.task.loss(second, targets)) / 2
        p, q = (self._log_probabilities(x) for x in (first, second))
        # KL(p || q) + KL(q || p) = sum of (p - q) (log p - log q)
        apart = ((p.exp() - q.exp()) * (p - q)).sum(dim=-1).mean()
        return both + self.alpha / 4 * apart

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """(B, K) of classes, (B, K, 2) of labels."""
        if isinstance(self.task, SingleLabel):
            return logits.log_softmax(dim=-1)
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], dim=-1)


def r_drop(loop: Loop) -> None:
    with_dropout(loop)
    loop.network, loop.loss = Twice(loop.network), RDrop(loop.task)


class LayerMix(nn.Module):
    """The head reads a weighted sum of all layers' pooled vectors (Peters et al. 2018, "Deep contextualized
    word representations": ELMo's): the embeddings', those of the frozen blocks and of the trained one.

    Its input has the frozen layers' vectors side by side (B, T, L C). Each is normalised before it is pooled.
    """

    def __init__(self, classifier: Classifier, depth: int) -> None:
        super().__init__()
        self.classifier, self.depth, self.n_outputs = classifier, depth, classifier.n_outputs
        self.mix, self.gain = nn.Parameter(torch.zeros(depth + 2)), nn.Parameter(torch.ones(()))

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:  # (B, T, L C), (B,) -> (B, K)
        model = self.classifier
        width = model.backbone.config.n_embd
        layers = hidden.float().split(width, dim=-1)
        pooled = [model.pool(F.layer_norm(x, (width,)), lengths) for x in layers]
        x = layers[-1]
        for block in model.backbone.blocks[self.depth :]:
            x = block(x, model.seen(lengths, hidden.shape[1]))
        pooled.append(model.pool(model.backbone.norm(x), lengths))
        shares = self.mix.softmax(dim=0)
        return model.head(self.gain * torch.einsum("l,lbc->bc", shares, torch.stack(pooled)))


def layer_mix(loop: Loop) -> None:
    """Features of every frozen depth in place of the last one's."""
    setup, model = loop.setup, loop.model
    depth = model.frozen_blocks
    dtype = loop.datasets["train"].features[0].dtype
    cache = FeatureCache(setup.config.run.cache)
    by_depth = [
        cache.datasets(Frozen(model, d, dtype), setup.datasets, setup.device) for d in range(depth + 1)
    ]
    loop.datasets = {
        part: FeatureDataset(source, [torch.cat(rows, dim=-1) for rows in _rows(by_depth, part)])
        for part, source in setup.datasets.items()
    }
    loop.network = LayerMix(model, depth)
    own, options = [loop.network.mix, loop.network.gain], setup.config.fit
    groups = decay_groups(model.trained_parameters().values(), options.weight_decay, options.decay_on)
    groups.append({"params": own, "weight_decay": 0.0, "lr_scale": MIX_RATE})
    loop.optimizer = torch.optim.AdamW(groups, lr=options.lr, fused=True)


def _rows(by_depth: list[dict[str, FeatureDataset]], part: str) -> Iterable[tuple[Tensor, ...]]:
    return zip(*(datasets[part].features for datasets in by_depth), strict=True)


def layer_wise(loop: Loop, share: float = RATE_PER_BLOCK) -> None:
    """Lower blocks learn more slowly (Howard and Ruder 2018, "Universal Language Model Fine-tuning for Text
    Classification": discriminative fine-tuning)."""
    model, options = loop.model, loop.setup.config.fit
    blocks = model.backbone.blocks
    scale = {id(p): share ** (len(blocks) - 1 - i) for i, b in enumerate(blocks) for p in b.parameters()}
    trained, groups = list(model.trained_parameters().values()), []
    for one in sorted({scale.get(id(p), 1.0) for p in trained}):
        own = [p for p in trained if scale.get(id(p), 1.0) == one]
        groups += [g | {"lr_scale": one} for g in decay_groups(own, options.weight_decay, options.decay_on)]
    loop.optimizer = torch.optim.AdamW(groups, lr=options.lr, fused=True)


# --- the rows, in the order of the table ---

PLAIN, NGRAMS = "plain", "tfidf"
ON_PLAIN, ON_BOTH = (PLAIN,), (PLAIN, NGRAMS)
TECHNIQUES: dict[str, Technique] = {
    PLAIN: Technique("plain run", plain, "`gptcls train`"),
    NGRAMS: Technique("TF-IDF alone", baseline(TFIDF), "in every run's table"),
    "probe": Technique("probe of the frozen blocks", baseline(PROBE), "in every run's table", (NGRAMS,)),
    "stack": Technique("stacked with TF-IDF", stacked, "`--stack ngrams`", ON_BOTH),
    "ensemble": Technique("ensemble of 3 seeds", ensemble, "`--seeds 1 2 3`", ON_PLAIN),
    "stack-ensemble": Technique(
        "ensemble of 3, stacked", stacked_ensemble, "`--seeds 1 2 3 --stack ngrams`",
        (PLAIN, NGRAMS, "ensemble"),
    ),
    "head": Technique("head only", options(train="head"), "`--train head`"),
    "blocks": Technique(
        "all blocks", options(train="blocks"), "`--train blocks`", sets=ENGLISH, most_seeds=DEAR
    ),
    "layer-wise": Technique(
        "all blocks, rates by layer", changed(layer_wise, train="blocks"), sets=ENGLISH, most_seeds=DEAR
    ),
    "lora": Technique("LoRA", options(train="lora"), "`--train lora`", sets=ENGLISH, most_seeds=DEAR),
    "weights": Technique("class weights", options(balance="weights"), "`--balance weights`", sets=UNEVEN),
    "synonym": Technique(
        "words replaced", options(augment=("synonym",)), "`--augment synonym`", sets=ENGLISH
    ),
    "insert": Technique("words inserted", options(augment=("insert",)), "`--augment insert`", sets=ENGLISH),
    "delete": Technique("words deleted", options(augment=("delete",)), "`--augment delete`", sets=ENGLISH),
    "swap": Technique("words swapped", options(augment=("swap",)), "`--augment swap`", sets=ENGLISH),
    "pseudo": Technique(
        "pseudo-labels", pseudo_labelled, "`gptcls pseudo-label`, `--extra`", ON_PLAIN, ONE_CLASS
    ),
    "dropout": Technique("dropout in the trained block", changed(with_dropout)),
    "r-drop": Technique("R-Drop", changed(r_drop)),
    "epoch-mean": Technique("mean weights of the later epochs", averaged(EpochMean), after=ON_PLAIN),
    "moving-mean": Technique("moving average of the weights", averaged(MovingMean), after=ON_PLAIN),
    "layers": Technique("pooled layers mixed", changed(layer_mix)),
    "knn": Technique("nearest neighbours mixed in", neighbours, after=ON_PLAIN),
    "zero-shot": Technique("zero-shot", asked(), "`--head lm --epochs 0`", sets=tuple(WORDS)),
    "shots": Technique(
        "4 shots", asked(shots=4, max_length=256), "`--head lm --shots 4`", sets=tuple(WORDS)
    ),
    "labels": Technique("labels as language", in_words(), "`--head lm`", sets=tuple(WORDS)),
    "tokens": Technique(
        "labels written", in_words(objective="tokens"), "`--head lm --objective tokens`", sets=tuple(WORDS)
    ),
}  # fmt: skip
