"""python -m benchmarks.drift: how often gptcls evaluate --reference calls drift, with some and without.

Reference rows and new ones are drawn from one data set, without a text that stands on both sides; labels and
the answers of a logistic regression over frozen vectors, which was taught on still other rows, go with them.
The first columns are false alarms: the share of draws with an adjusted p-value below 0.001, which is what is
called drift, and below 0.05, which should be 5 % at most. In the others some of the new rows give way: to
another set's of the same script, where labels are not compared, to their own first halves, or to rows of
other classes than the largest; there every alarm is right. Intervals are Wilson's, of draws from one pool of
rows with one classifier a set.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.datasets import DATA, SETS
from benchmarks.over_seeds import markdown, shown
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.split import drop_duplicates
from gptcls.evaluation.drift import ALPHA, Sample, drift, labels_of
from gptcls.evaluation.intervals import wilson_interval
from gptcls.fast.features import FeatureCache
from gptcls.models.pretrained import load_pretrained, load_tokenizer

TAUGHT = 500  # rows that the classifier learns from
OTHER = {"rt_polarity": "trec6", "thucnews": "chnsenticorp", "chnsenticorp": "thucnews"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Draw rows of one source, or nearly, and ask whether they differ."""

    sets: tuple[str, ...] = ("sms", "trec6", "rt_polarity", "thucnews", "chnsenticorp")
    """Data sets, of benchmarks.datasets."""
    data: Path = DATA
    """Folder that they lie in."""
    reference: int = 1000
    """Reference rows of a draw."""
    new: int = 200
    """New rows of a draw."""
    draws: int = 40
    """Draws for each cell."""
    cache: Path | None = None
    """Folder for the vectors."""


@dataclass(frozen=True)
class Rows:
    """N rows of a set, and what is known of them."""

    texts: np.ndarray  # (N,)
    labels: np.ndarray  # (N,)
    ids: list[list[int]]
    vectors: np.ndarray  # (N, C)

    def take(self, rows: np.ndarray) -> "Rows":
        return Rows(self.texts[rows], self.labels[rows], [self.ids[row] for row in rows], self.vectors[rows])

    def beside(self, other: "Rows") -> "Rows":
        """These and the others."""
        labels = np.concatenate([self.labels, other.labels])
        texts = np.concatenate([self.texts, other.texts])
        return Rows(texts, labels, self.ids + other.ids, np.concatenate([self.vectors, other.vectors]))


@dataclass
class Reader:
    """What reads texts: gpt2-nano."""

    cache: FeatureCache
    backbone: torch.nn.Module = field(default_factory=lambda: load_pretrained("gpt2-nano"))

    def __call__(self, texts: list[str], labels: np.ndarray) -> Rows:
        tokenizer, most = load_tokenizer("gpt2-nano"), self.backbone.config.n_positions
        vectors = self.cache.mean_vectors(self.backbone, texts, most, tokenizer, torch.device("cpu"))
        return Rows(np.array(texts, dtype=object), labels, tokenizer.encode_rows(texts), vectors)


@dataclass(frozen=True)
class Draw:
    """New rows, and what may take the place of some."""

    new: Rows
    halves: Rows  # the same texts, cut to their first half
    spare: Rows  # rows of the same set on neither side
    others: Rows  # of another set, in random order; its labels mean nothing here

    def with_others(self, share: float) -> Rows:
        """So many of the new rows are another set's."""
        n = round(share * len(self.new.texts))
        return self.new.take(np.arange(n, len(self.new.texts))).beside(self.others.take(np.arange(n)))

    def with_halves(self) -> Rows:
        """A third of the new rows are cut to their first half."""
        n = len(self.new.texts) // 3
        return self.new.take(np.arange(n, len(self.new.texts))).beside(self.halves.take(np.arange(n)))

    def with_fewer(self) -> Rows:
        """Half of the rows of the most frequent class give way to rows of the others."""
        names, counts = np.unique(self.new.labels, return_counts=True)
        often = names[counts.argmax()]
        gone = np.flatnonzero(self.new.labels == often)[: counts.max() // 2]
        more = np.flatnonzero(self.spare.labels != often)[: len(gone)]
        if len(more) < len(gone):
            raise InputError(f"--new {len(self.new.texts)}: too few rows of other classes are left; use less")
        kept = self.new.take(np.setdiff1d(np.arange(len(self.new.texts)), gone))
        return kept.beside(self.spare.take(more))


CHANGES: dict[str, Callable[[Draw], Rows]] = {
    "of one source": lambda draw: draw.new,
    "a tenth from another set": lambda draw: draw.with_others(0.1),
    "a third from another set": lambda draw: draw.with_others(1 / 3),
    "a third cut to its half": Draw.with_halves,
    "the largest class at half its share": Draw.with_fewer,
}


def least_p(name: str, options: Options, reader: Reader, others: Rows) -> dict[str, list[float]]:
    """By change, the smallest adjusted p-value of each draw."""
    frame = drop_duplicates(SETS[name].read(options.data)["train"])
    most = TAUGHT + 2 * (options.reference + options.new)
    frame = frame.sample(min(most, len(frame)), random_state=0)
    if len(frame) < (least := TAUGHT + options.reference + 2 * options.new):
        raise InputError(f"--reference and --new need {least:,} rows; {name} has {len(frame):,}")
    texts = frame["text"].tolist()
    rows = reader(texts, frame["label"].to_numpy(object))
    halves = reader([half_of(text) for text in texts], rows.labels)
    task = SingleLabel(tuple(sorted({*rows.labels})))
    model = LogisticRegression(max_iter=1000).fit(rows.vectors[:TAUGHT], rows.labels[:TAUGHT])

    def sample(part: Rows) -> Sample:
        answers = labels_of(task, model.predict(part.vectors).tolist())
        known = {*part.labels} <= {*task.labels}
        labels = labels_of(task, part.labels.tolist()) if known else None
        return Sample(part.texts.tolist(), part.ids, part.vectors, answers, labels)

    found = {change: [] for change in CHANGES}
    for draw in range(options.draws):
        random = np.random.RandomState(draw)
        order = TAUGHT + random.permutation(len(texts) - TAUGHT)
        first, second, rest = np.split(order, np.cumsum([options.reference, options.new]))
        reference, order_of_others = sample(rows.take(first)), random.permutation(len(others.texts))
        each = Draw(rows.take(second), halves.take(second), rows.take(rest), others.take(order_of_others))
        for change, made in CHANGES.items():
            changes = drift(reference, sample(made(each)), task)["changes"].values()
            found[change].append(min(one["p"] for one in changes))
    return found


def half_of(text: str) -> str:
    """Its first half, by characters: Chinese has no spaces."""
    return text[: max(1, len(text) // 2)]


def share(hits: int, of: int) -> str:
    """In per cent with Wilson's interval."""
    return shown(tuple(100 * each for each in (hits / of, *wilson_interval(hits, of))))


def measure(options: Options) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    reader, total = Reader(FeatureCache(options.cache)), {change: [] for change in CHANGES}
    heads = ["", "called, of one source", "p below 0.05", *list(CHANGES)[1:]]
    table = [heads]
    for name in options.sets:
        strange = drop_duplicates(SETS[OTHER.get(name, "rt_polarity")].read(options.data)["train"])
        strange = strange.sample(options.new, random_state=1)
        others = reader(strange["text"].tolist(), strange["label"].to_numpy(object))
        found = least_p(name, options, reader, others)
        for change, values in found.items():
            total[change] += values
        table.append(line(SETS[name].what, found))
        say(f"{name}: done", flush=True)
    say(
        f"\nper cent of {options.draws} draws each, {options.reference:,} reference rows, {options.new} new\n"
    )
    say(markdown([*table, line("all", total)]))


def line(what: str, found: dict[str, list[float]]) -> list[str]:
    """A line of the table."""
    alike, *changed = found.values()
    counts = [sum(p < ALPHA for p in alike), sum(p < 0.05 for p in alike)]
    counts += [sum(p < ALPHA for p in values) for values in changed]
    return [what, *(share(hits, len(alike)) for hits in counts)]


def main() -> None:
    """Parse, measure, print."""
    cli.run(Options, measure)


if __name__ == "__main__":
    main()
