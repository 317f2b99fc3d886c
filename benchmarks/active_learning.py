"""python -m benchmarks.active_learning: what it is worth which rows are labelled first.

Each order of gptcls.label answers its own questions with the labels that the data has; the classifier is the
loop's, a logistic regression over frozen vectors. The table has random order's score on the test rows, and
what each other order adds, with 95 % intervals of the paired difference over the seeds.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score

from benchmarks.datasets import DATA, SETS, split_by
from benchmarks.over_seeds import gain, markdown, over_seeds, shown
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.data.next_rows import next_rows
from gptcls.evaluation.baselines import regression
from gptcls.fast.features import FeatureCache
from gptcls.label import STRENGTH, Learner
from gptcls.models.pretrained import load_pretrained, load_tokenizer

ORDERS = ("random", "uncertain", "diverse", "both")
# Nearly what gptcls.label asks by default: there, once labels can be guessed, the row that is drawn comes
# before a chosen one; here, from the start, in place of it.
CHECKED = "both, every fifth at random"
SPAM = {"f1": "spam"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Answer the questions of gptcls.label, in every order."""

    sets: tuple[str, ...] = ("sms", "trec6", "rt_polarity")
    """Data sets, of benchmarks.datasets."""
    data: Path = DATA
    """Folder that they lie in."""
    labels: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Numbers of answers after which the test rows are scored."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the split, and of what is drawn."""
    model: str = "gpt2-nano"
    """Network whose frozen vectors are learned from."""
    batch: int = 8
    """Answers between two choices, as in gptcls.label."""
    cache: Path | None = None
    """Folder for the vectors."""


@dataclass(frozen=True)
class Rows:
    """A part's vectors (N, C) and labels."""

    vectors: np.ndarray
    labels: np.ndarray


def curve(order: str, pool: Rows, test: Rows, score: str, options: Options, seed: int) -> dict[int, float]:
    """The score on the test rows by number of answers."""
    checked = order == CHECKED
    learner, known, found = Learner(pool.vectors, "both" if checked else order, seed), {}, {}
    seen = learner.scaler.transform(test.vectors)
    while len(known) < max(options.labels):
        learner.fit(known)
        for row in learner.choose([*known], options.batch):
            if checked and len(known) % 5 == 4:
                (row,) = next_rows("random", pool.vectors, [*known], None, 1, learner.random)
            known[row] = pool.labels[row]
            if len(known) in options.labels:
                found[len(known)] = scored(learner, known, seen, test.labels, score)
    return found


def scored(
    learner: Learner, known: dict[int, str], seen: np.ndarray, labels: np.ndarray, score: str
) -> float:
    """Accuracy, or F1 of spam, of what the rows known so far teach."""
    own = [*known.values()]
    if len({*own}) > 1:
        answers = regression(STRENGTH).fit(learner.vectors[[*known]], own).predict(seen)
    else:
        answers = np.full(len(labels), own[0])
    if score in SPAM:
        return float(f1_score(labels == SPAM[score], answers == SPAM[score], zero_division=0))
    return float((answers == labels).mean())


def measure(options: Options) -> None:
    """Print a table for each set."""
    torch.set_num_threads(1)
    tokenizer, backbone = load_tokenizer(options.model), load_pretrained(options.model)
    cache, cpu, most = FeatureCache(options.cache), torch.device("cpu"), backbone.config.n_positions
    for name in options.sets:
        found = {order: [] for order in (*ORDERS, CHECKED)}
        score = SETS[name].score
        for seed in options.seeds:
            split, parts = split_by(name, options.data, seed), []
            for frame in (split.train, split.test):
                vectors = cache.mean_vectors(backbone, frame["text"].tolist(), most, tokenizer, cpu)
                parts.append(Rows(vectors, frame["label"].to_numpy(object)))
            for order, curves in found.items():
                curves.append(curve(order, *parts, score, options, seed))
        said = f"{score} %, and in points what an order adds to random, {len(options.seeds)} seeds"
        say(f"{SETS[name].what}: {said}")
        say(markdown([["labels", *found], *lines(found, options)]) + "\n", flush=True)


def lines(found: dict[str, list[dict[int, float]]], options: Options) -> list[list[str]]:
    """A line of the table for each number of labels."""
    table = []
    for n in options.labels:
        scores = {order: [{"score": curve[n]} for curve in curves] for order, curves in found.items()}
        cells = [shown(over_seeds(scores["random"], "score"))]
        cells += [shown(gain(scores[order], scores["random"], "score"), sign="+") for order in [*found][1:]]
        table.append([str(n), *cells])
    return table


def main() -> None:
    """Parse, measure, print."""
    cli.run(Options, measure)


if __name__ == "__main__":
    main()
