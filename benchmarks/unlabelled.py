"""python -m benchmarks.unlabelled: what texts without labels add to a few with, gpt2-nano.

Rows are ways to use them, columns data sets and numbers of labels, cells the mean difference in accuracy to
the same run without them, over the seeds, with its 95 % interval; of a lone seed that of its paired answers.
A set has one split; a seed draws which rows have labels, the head and the order. With ``--json FILE`` every
score is kept as it comes, and the same command goes on where it stopped.

- ``one round``: gptcls.pseudo_label at its default confidence, and then training on both.
- ``three rounds``: the same with ``--rounds 3``, and training on what the last one took.
- ``two seeds agree``: one round, ``--agree``, of an ensemble of two; then one network trains on both.
- ``--adapt``: the network reads on in all training texts before it is trained on the labels.
"""

import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from benchmarks.cells import Cells
from benchmarks.datasets import DATA, few_labels, split_by
from benchmarks.over_seeds import Interval, gain, markdown, over_seeds, shown
from gptcls.classify.predict import TextClassifier
from gptcls.classify.store import SavedClassifier
from gptcls.common import cli
from gptcls.common.hardware import pick_device
from gptcls.common.lazy import pd
from gptcls.data.same_text import text_key
from gptcls.data.split import Split
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.paired import decisions, differences
from gptcls.fast.features import FeatureCache
from gptcls.pretrain.adapt import AdaptOptions, reading, window_for
from gptcls.pretrain.run import RESULT, pretrain
from gptcls.pseudo_label import PseudoLabelConfig, Sure, trained_again
from gptcls.train.config import TrainConfig
from gptcls.train.folder import state_of
from gptcls.train.presets import Preset
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_of
from gptcls.train.run import fit_classifier

PLAIN, ONE, THREE, AGREE = "plain", "one round", "three rounds", "two seeds agree"
ADAPT = "--adapt"
WAYS = (ONE, THREE, AGREE, ADAPT)
SPLIT_SEED = 0  # of the one split of a set
CONFIDENCE = PseudoLabelConfig.__dataclass_fields__["confidence"].default
Outputs = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train gpt2-nano on a few labels, with and without the other texts."""

    data: Path = DATA
    """Folder of the data sets' folders: sms, trec6, rt_polarity."""
    sets: tuple[str, ...] = ("sms", "trec6", "rt_polarity")
    """Data sets, of benchmarks.datasets."""
    labels: tuple[int, ...] = (32, 128)
    """Numbers of labels, all of which train."""
    rest: int = 2000
    """Training texts without labels at most that are pseudo-labelled."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the labels drawn, the head and the order."""
    preset: Preset = "balanced"
    """What is trained, and for how long."""
    adapt_steps: int | None = None
    """Steps of reading on; otherwise as --adapt chooses."""
    ways: tuple[Literal[WAYS], ...] = WAYS
    """Ways to use the texts."""
    adapted: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder that keeps the networks that read on, one a set; otherwise they are trained again."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of every single score; what it holds is not measured again."""


class Measured:
    """One set's split, and the features that its runs share."""

    def __init__(self, name: str, options: Options, scratch: Path) -> None:
        self.split, self.scratch, self.options = split_by(name, options.data, SPLIT_SEED), scratch, options
        self.adapted = (options.adapted or scratch.parent / "adapted") / name
        self.features = FeatureCache(scratch / "features")

    def cell(self, n: int, seed: int, ways: Sequence[str] = WAYS) -> dict[str, dict]:
        """The test scores of plain and of each way, with what the way's are more, paired, and what the rounds
        took."""
        rows = few_labels(self.split.train, n, seed)
        labelled = set(map(text_key, rows["text"]))
        rest = self.split.train[~self.split.train["text"].map(text_key).isin(labelled)]
        rest = rest.sample(min(self.options.rest, len(rest)), random_state=SPLIT_SEED)
        none = rows[:0]
        few = Split(rows, none, none)
        settings = TrainConfig.of(seed=seed, validation_fraction=0.0, preset=self.options.preset)
        plain = self._fitted(few, settings)
        found = {PLAIN: self._scores(plain)}
        for way in ways:
            took: list[dict] = []
            if way == ADAPT:
                saved = self._fitted(few, settings.changed(model=str(self._weights(settings))))
            elif way == AGREE:
                two = self._fitted(few, settings.changed(seeds=(seed, seed + 1000)))
                saved = self._round(two, few, settings, rest, took, agree=True) or plain
            else:
                saved = plain
                for _ in range(1 if way == ONE else 3):
                    saved = self._round(saved, few, settings, rest, took) or saved
            found[way] = self._scores(saved, plain) | {"rounds": took}
        return found

    def _fitted(self, split: Split, settings: TrainConfig) -> SavedClassifier:
        config = resolve(settings.changed(cache=self.features.folder))
        return fit_classifier(split_of(split, config), config)

    def _round(
        self, saved: SavedClassifier, few: Split, settings: TrainConfig, rest: "pd.DataFrame",
        took: list[dict], agree: bool = False,
    ) -> SavedClassifier | None:  # fmt: skip
        """Label, count, train on both; None where nothing was sure."""
        classifier = self._ready(saved)
        sure = Sure.of(classifier, CONFIDENCE, agree, cache=self.features)
        texts = rest["text"].tolist()
        rows = sure.of_rows(sure.best(texts, sure.networks[0].scored(texts)[0]))
        truth = rest["label"].to_numpy()[rows.index]
        took.append({"taken": len(rows), "wrong": int((truth != rows["label"].to_numpy()).sum())})
        if rows.empty:
            return None
        file = self.scratch / "taken.jsonl"
        rows.to_json(file, orient="records", lines=True)
        return trained_again(few, settings, file, self.features.folder, saved)

    def _weights(self, settings: TrainConfig) -> Path:
        """The network that read on in the training texts."""
        if state_of(self.adapted, RESULT) != "finished":
            texts = self.adapted.with_name(f"{self.adapted.name}.jsonl")
            texts.parent.mkdir(parents=True, exist_ok=True)
            documents = self.split.train["text"].tolist()
            texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
            window, n_tokens = window_for(documents, texts)
            given = AdaptOptions(adapt_steps=self.options.adapt_steps)
            config = reading(texts, window, n_tokens, settings.changed(seed=SPLIT_SEED), given)
            resume = state_of(self.adapted, RESULT) is not None
            pretrain(config.changed(out=self.adapted, resume=resume))
        return self.adapted / RESULT

    def _ready(self, saved: SavedClassifier) -> TextClassifier:
        return TextClassifier(saved, pick_device("auto"), cache=self.features)

    def _outputs(self, saved: SavedClassifier) -> np.ndarray:
        return self._ready(saved).outputs(self.split.test["text"].tolist())

    def _scores(self, saved: SavedClassifier, plain: SavedClassifier | None = None) -> dict:
        task, outputs = saved.task, self._outputs(saved)
        targets = task.targets(self.split.test["label"].tolist()).numpy()
        scores = judge_of(task, saved.decision).scores(targets, outputs)
        kept = {name: scores[name] for name in ("n", "accuracy", "accuracy_low", "accuracy_high", "f1")}
        if plain is not None:
            both = decisions(task, outputs), decisions(task, self._outputs(plain))
            kept["difference"] = differences(task, targets, *both)
        return kept


def table(found: dict[str, dict[int, list[dict]]], score: str, ways: Sequence[str]) -> str:
    """``found``: set -> number of labels -> the cells of its seeds."""
    columns = [(name, n) for name, by_n in found.items() for n in by_n]
    lines = [["", *(f"{name}, {n} labels" for name, n in columns)]]
    runs = {column: found[column[0]][column[1]] for column in columns}
    plain = {column: [cell[PLAIN] for cell in cells] for column, cells in runs.items()}
    lines.append(["plain", *(shown(over_seeds(plain[column], score)) for column in columns)])
    for way in ways:
        gains = (_gain([cell[way] for cell in runs[column]], plain[column], score) for column in columns)
        lines.append([way, *(shown(each, sign="+") for each in gains)])
    return markdown(lines)


def _gain(ours: list[dict], plain: list[dict], score: str) -> Interval:
    """Over the seeds; of one seed over its test texts, paired."""
    if len(ours) > 1:
        return gain(ours, plain, score)
    mean, low, high = (100 * ours[0]["difference"][f"{score}{end}"] for end in ("", "_low", "_high"))
    return mean, low, high


def taken(found: dict[str, dict[int, list[dict]]], ways: Sequence[str]) -> str:
    """Rows that the last round took, and how many of their labels are wrong, over all seeds."""
    columns = [(name, n) for name, by_n in found.items() for n in by_n]
    lines = [["taken, and wrong", *(f"{name}, {n} labels" for name, n in columns)]]
    for way in (each for each in ways if each != ADAPT):
        cells = []
        for name, n in columns:
            last = [cell[way]["rounds"][-1] for cell in found[name][n]]
            n_taken, n_wrong = (sum(each[key] for each in last) for key in ("taken", "wrong"))
            share = f", {100 * n_wrong / n_taken:.1f} %" if n_taken else ""
            cells.append(f"{n_taken / len(last):,.0f}{share}")
        lines.append([way, *cells])
    return markdown(lines)


def measure(options: Options) -> None:
    """Fill the cells, seed by seed, and print the tables after each."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    cells = Cells(options.json)
    same = {name: getattr(options, name) for name in ("rest", "preset", "adapt_steps", "ways")}
    cells.under(same | {"split": SPLIT_SEED}, "unlabelled")
    with tempfile.TemporaryDirectory() as folder:
        sets = {name: Measured(name, options, Path(folder, name)) for name in options.sets}
        found: dict[str, dict[int, list[dict]]] = {name: {n: [] for n in options.labels} for name in sets}
        for seed in options.seeds:
            for name, each in sets.items():
                for n in options.labels:
                    cell = partial(each.cell, n, seed, options.ways)
                    found[name][n].append(cells.measured(f"unlabelled/{name}/{n}/seed {seed}", cell))
                there = {name: {n: x for n, x in by_n.items() if x} for name, by_n in found.items()}
                print(f"\naccuracy, points, up to seed {seed} of {name}\n", flush=True)
                print(table(there, "accuracy", options.ways), flush=True)
                if any(way != ADAPT for way in options.ways):
                    print(f"\n{taken(there, options.ways)}", flush=True)


def main() -> None:
    cli.run(Options, measure)


if __name__ == "__main__":
    main()
