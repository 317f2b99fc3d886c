"""python -m benchmarks.nano: what pretraining is worth, and the bundled classifier next to classical ones.

Two tables over several seeds. Each seed has a split of its own; behind every mean stands its 95 % interval.

- The book's balanced split: gpt2-nano with pretrained and with random weights, the last block alone or all
  layers trained, and TF-IDF with logistic regression.
- The honest split (every row, duplicates dropped, natural balance), with the settings of sms-spam-nano,
  and TF-IDF: the F1 of spam.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gptcls.common import cli
from gptcls.common.files import write_json
from gptcls.evaluation.baselines import class_probabilities, tfidf_baseline, tfidf_char_baseline
from gptcls.evaluation.intervals import mean_interval
from gptcls.evaluation.metrics import classification_scores
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split
from gptcls.train.run import fit
from gptcls.train.setup import make_task

SMS = Path(__file__).parents[2] / "shared" / "data" / "sms" / "SMSSpamCollection"
# The book's rows, but trained as suits a network of this width.
NARROW = {"schedule": "cosine", "warmup": 0.1, "clip": 1.0, "epochs": 10, "lr": 1e-3}
BOOK = {"recipe": "book", "pooling": "max", **NARROW}
SPAM_NANO: dict[str, Any] = {
    "train": "last_6",
    "pooling": "max",
    "balance": "weights",
    "batch_size": 16,
    "epochs": 5,
    "lr": 5e-4,
    "patience": 0,
}
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "book": {
        "pretrained, last block": BOOK | {"train": "last_block"},
        "random, last block": BOOK | {"train": "last_block", "init": "random"},
        "pretrained, all layers": BOOK | {"train": "all", "lr": 5e-4},
        "random, all layers": BOOK | {"train": "all", "init": "random"},
    },
    "honest": {"sms-spam-nano": SPAM_NANO},
}
CLASSICAL = {
    "TF-IDF words": tfidf_baseline,
    "TF-IDF characters": tfidf_char_baseline,
    "TF-IDF characters, balanced weights": lambda seed: tfidf_char_baseline(seed, "balanced"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train gpt2-nano under several seeds, and TF-IDF on the same splits."""

    data: str = str(SMS)
    """UCI's SMSSpamCollection."""
    tables: tuple[Literal["book", "honest"], ...] = ("book", "honest")
    """Which tables."""
    model: str = "gpt2-nano"
    """Pretrained weights: the bundled ones, or a folder."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the split, the head, random weights and the order."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for every single score."""


def scores_of(config: TrainConfig) -> dict:
    """Test scores of one run in memory."""
    config = resolve(config)
    return fit(read_split(config), settings=config).scores["test"]


def classical(config: TrainConfig) -> Iterator[tuple[str, dict]]:
    """The classical classifiers on the split of ``config``."""
    config = resolve(config)
    split = read_split(config)
    task = make_task(split, config)
    train_targets, targets = (
        task.targets(part["label"].tolist()).numpy() for part in (split.train, split.test)
    )
    for name, build in CLASSICAL.items():
        model = build(config.run.seed).fit(split.train["text"].tolist(), train_targets)
        probabilities = class_probabilities(model, split.test["text"].tolist(), len(task.labels))
        yield name, classification_scores(targets, probabilities, task.labels)


def run(options: Options) -> None:
    """Measure and print."""
    results: dict[str, dict[str, list[dict]]] = {}
    for table in options.tables:
        rows = results.setdefault(table, {})
        for seed in options.seeds:
            for name, settings in TABLES[table].items():
                model = options.model if settings.get("init") != "random" else "gpt2-nano"
                config = TrainConfig.of(data=options.data, model=model, seed=seed, **settings)
                rows.setdefault(name, []).append(scores_of(config))
            for name, scores in classical(config):
                rows.setdefault(name, []).append(scores)
            if options.json:
                write_json(options.json, results)
        print(f"\n{table} split, seeds {' '.join(map(str, options.seeds))}\n")
        print("| | accuracy % | F1 of spam |\n|---|---|---|")
        for name, scores in rows.items():
            accuracy = interval([100 * s["accuracy"] for s in scores], 2)
            print(f"| {name} | {accuracy} | {interval([s['f1'] for s in scores], 3)} |")
        if table == "book":
            for layers in ("last block", "all layers"):
                pairs = zip(rows[f"pretrained, {layers}"], rows[f"random, {layers}"], strict=True)
                gain = interval([100 * (a["accuracy"] - b["accuracy"]) for a, b in pairs], 2)
                print(f"| gain by pretraining, {layers} | {gain} | |")


def interval(values: list[float], digits: int) -> str:
    """Mean and 95 % interval for a table's cell."""
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*mean_interval(values), d=digits)


def main() -> None:
    """The command line."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    cli.run(Options, run)


if __name__ == "__main__":
    main()
