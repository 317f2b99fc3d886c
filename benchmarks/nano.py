"""python -m benchmarks.nano: what pretraining is worth, and the bundled classifier next to classical ones.

Five tables over several seeds; behind every mean stands its 95 % interval.

- ``sample``: what ``python -m gptcls.train`` gives, and TF-IDF, on the bundled messages.
- ``book``: the book's balanced split: gpt2-nano with pretrained and with random weights, the last block alone
  or all layers trained, and TF-IDF with logistic regression.
- ``honest``: every row, duplicates dropped, natural balance, with the settings of sms-spam-nano, and TF-IDF:
  the F1 of spam.
- ``tokens``: accuracy against the tokens of pretraining, fine-tuned and of a probe on frozen vectors.
- ``labels``: scores against the number of labels, pretrained, random, probe and TF-IDF, all with the same
  search for settings.

With ``--json FILE`` every single score is kept as it comes; the same command goes on where it stopped.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import tyro

from benchmarks import nano_plots
from benchmarks.baseline import class_probabilities
from benchmarks.cells import Cells
from benchmarks.contestants import backbone_of, scores_of
from benchmarks.datasets import DATA, SMS
from benchmarks.nano_labels import Labels
from benchmarks.nano_tokens import Tokens
from benchmarks.over_seeds import gain, markdown, over_seeds, shown
from gptcls.common import cli
from gptcls.common.files import atomic_file
from gptcls.evaluation.baselines import tfidf_baseline, tfidf_char_baseline
from gptcls.models.pretrained import weights_sha256
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split
from gptcls.train.run import fit
from gptcls.train.setup import make_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The book's rows, but trained as suits a network of this width.
NARROW = {"schedule": "cosine", "warmup": 0.1, "clip": 1.0, "epochs": 10, "lr": 1e-3}
BOOK = {"recipe": "book", "pooling": "last", **NARROW}
SPAM_NANO: dict[str, Any] = {
    "train": "last_block",
    "pooling": "max",
    "balance": "weights",
    "batch_size": 16,
    "epochs": 5,
    "lr": 1e-3,
}
SPLITS: dict[str, dict[str, dict[str, Any]]] = {
    "book": {
        "pretrained, last block": BOOK | {"train": "last_block"},
        "random, last block": BOOK | {"train": "last_block", "init": "random"},
        "pretrained, all layers": BOOK | {"train": "all", "lr": 5e-4},
        "random, all layers": BOOK | {"train": "all", "init": "random"},
    },
    "honest": {"sms-spam-nano": SPAM_NANO},
    "sample": {"gpt2-nano, defaults": {"data": "sms-sample"}},
}
# What the classical ones need to know of a split.
OF_SPLIT = {"book": {"recipe": "book"}, "honest": {}, "sample": {"data": "sms-sample"}}
CLASSICAL = {
    "TF-IDF words": tfidf_baseline,
    "TF-IDF characters": tfidf_char_baseline,
    "TF-IDF characters, balanced weights": lambda seed: tfidf_char_baseline(seed, "balanced"),
}
OVERLAP = 0.2 / 0.7  # test rows per training row: each seed draws its own split of the messages
TableName = Literal["sample", "book", "honest", "tokens", "labels"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train gpt2-nano under several seeds, and classical classifiers on the same rows."""

    tables: tuple[TableName, ...] = ("book", "honest")
    """Which tables."""
    data: Path = DATA
    """Folder of the data sets' folders: sms, trec6, rt_polarity."""
    model: str = "gpt2-nano"
    """Pretrained weights: the bundled ones, or a folder. Random ones have the same sizes."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the split, the labels drawn, the head, random weights and the order."""
    sets: tuple[Literal["rt_polarity", "trec6", "sms"], ...] = ("rt_polarity", "trec6", "sms")
    """Data sets of labels and, without sms, of tokens."""
    labels: tuple[int, ...] = (16, 50, 200, 1000, 0)
    """Numbers of labels; 0 takes all."""
    steps: float = 6.0
    """Optimizer steps are so many times the root of the number of labels, at least 40."""
    passes: int = 2
    """Passes over the labels at least."""
    checkpoints: tuple[Path, ...] = ()
    """Of tokens: folders of weights, step-000100 and so on, or a run's model."""
    tokens_per_step: int | None = None
    """Of tokens: what a step of pretraining saw; otherwise as the run's history.csv says."""
    tokens_labels: int = 1000
    """Of tokens: labels to fine-tune on; 0 takes all."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of every single score; what it holds is not measured again."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder for the pictures."""


class Table(Protocol):
    """What is measured cell by cell, and then said and drawn."""

    def settings(self) -> dict[str, Any]: ...
    def measure(self) -> None: ...
    def table(self) -> str: ...
    def pictures(self) -> "dict[str, Figure]": ...


class Messages:
    """The SMS Spam Collection in one of two splits: contestants by row."""

    def __init__(self, name: str, cells: Cells, options: Options) -> None:
        self.name, self.cells, self.options = name, cells, options
        self.found: dict[str, list[dict]] = {}  # row -> seeds

    def settings(self) -> dict[str, Any]:
        """What the cells depend on besides their names."""
        return {"settings": SPLITS[self.name], "weights": weights_sha256(self.options.model)}

    def measure(self) -> None:
        """All cells, those that are there left out."""
        rows = SPLITS[self.name]
        for seed in self.options.seeds:
            for row, settings in rows.items():
                self._add(row, seed, network_scores, self.options, settings, seed)
            for row in CLASSICAL:
                self._add(row, seed, classical_scores, self.options, OF_SPLIT[self.name], row, seed)

    def _add(self, row: str, seed: int, *measure: Any) -> None:
        cell = f"{self.name}/{row}/seed {seed}"
        self.found.setdefault(row, []).append(self.cells.measured(cell, *measure))
        print(f"{cell}: {100 * self.found[row][-1]['accuracy']:.2f} %", flush=True)

    def table(self) -> str:
        """Accuracy and F1 of spam, and differences on the same splits, seed by seed."""
        lines = [["", "accuracy %", "F1 of spam"]]
        for name, runs in self.found.items():
            f1 = shown(over_seeds(runs, "f1", 1, OVERLAP), 3)
            lines.append([name, shown(over_seeds(runs, "accuracy", overlap=OVERLAP), 2), f1])
        for layers in ("last block", "all layers") if self.name == "book" else ():
            pair = (self.found[f"{weights}, {layers}"] for weights in ("pretrained", "random"))
            lines.append(
                [f"gain by pretraining, {layers}", shown(gain(*pair, "accuracy", overlap=OVERLAP), 2), ""]
            )
        for other in CLASSICAL if self.name != "book" else ():
            pair = self.found[next(iter(SPLITS[self.name]))], self.found[other]
            accuracy, f1 = gain(*pair, "accuracy", overlap=OVERLAP), gain(*pair, "f1", 1, OVERLAP)
            lines.append([f"more than {other}", shown(accuracy, 2), shown(f1, 3)])
        return f"{self.name}, seeds {' '.join(map(str, self.options.seeds))}\n\n{markdown(lines)}"

    def pictures(self) -> "dict[str, Figure]":
        """One dot a row."""
        score, what = ("accuracy", "test accuracy (%)") if self.name == "book" else ("f1", "F1 of spam (%)")
        rows = {name: over_seeds(runs, score, overlap=OVERLAP) for name, runs in self.found.items()}
        return {f"{self.name}.png": nano_plots.in_rows(rows, f"{what}, bars: 95 % intervals over seeds")}


def config_for(options: Options, settings: dict[str, Any], seed: int) -> TrainConfig:
    """The options of a run on messages."""
    own = {"data": str(options.data / SMS), "model": options.model, "seed": seed, "device": options.device}
    return TrainConfig.of(**own | {name: value for name, value in settings.items() if name != "init"})


def network_scores(options: Options, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Test scores of one run in memory."""
    random = settings.get("init") == "random"
    config = resolve(config_for(options, settings, seed))
    run = fit(read_split(config), backbone_of(options.model, seed) if random else None, config)
    return scores_of(run.targets["test"], run.outputs["test"], run.classifier.task.labels)


def classical_scores(options: Options, recipe: dict[str, Any], name: str, seed: int) -> dict[str, Any]:
    """Test scores of a classical classifier on the same split."""
    config = resolve(config_for(options, recipe, seed))
    split = read_split(config)
    task = make_task(split, config)
    train, test = (task.targets(part["label"].tolist()).numpy() for part in (split.train, split.test))
    model = CLASSICAL[name](seed).fit(split.train["text"].tolist(), train)
    probabilities = class_probabilities(model, split.test["text"].tolist(), len(task.labels))
    return scores_of(test, probabilities, task.labels)


TABLES: dict[str, Callable[[Cells, Options], Table]] = {
    "sample": partial(Messages, "sample"),
    "book": partial(Messages, "book"),
    "honest": partial(Messages, "honest"),
    "tokens": Tokens,
    "labels": Labels,
}


def run(options: Options) -> None:
    """Measure, print and draw."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    cells = Cells(options.json)
    for name in options.tables:
        table = TABLES[name](cells, options)
        cells.under(table.settings(), name)
        table.measure()
        print(f"\n{table.table()}\n", flush=True)
        if options.plot is not None:
            write_pictures(options.plot, table.pictures())


def write_pictures(folder: Path, figures: "dict[str, Figure]") -> None:
    """Each under its name."""
    for name, figure in figures.items():
        with atomic_file(folder / name) as temporary:
            figure.savefig(temporary, dpi=150, metadata={"Software": None})


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
