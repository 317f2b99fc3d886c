"""python -m benchmarks.language_rows: labels as language beside a new head, at few labels.

A row is a function of a split and a seed that returns the probabilities (N, K) of the test rows. All labels
are trained on, none is left to validate; the seed draws them, the test rows are the same for all.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets import DATA, SETS, few_labels, split_by
from benchmarks.over_seeds import markdown, over_seeds, shown
from gptcls.classify.predict import ready
from gptcls.common import cli
from gptcls.common.hardware import pick_device
from gptcls.core.task import SingleLabel
from gptcls.data.split import Split
from gptcls.evaluation.judge import judge_of
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import fit_classifier

# The words of each data set, written down before anything was measured.
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
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("a new head", {}),
    "asked": ("zero-shot", {"head": "lm", "epochs": 0}),
    "asked-plain": ("zero-shot, not calibrated", {"head": "lm", "epochs": 0, "content_free": "none"}),
    "shown": ("4 shots", {"head": "lm", "shots": 4, "max_length": 256}),
    "labels": ("trained, labels", {"head": "lm"}),
    "tokens": ("trained, tokens", {"head": "lm", "objective": "tokens"}),
}
SAME_FOR_ALL_LABELS = ("asked", "asked-plain", "shown")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Scores by the number of labels."""

    sets: tuple[str, ...] = ("sms", "trec6", "rt_polarity")
    """Which data sets."""
    labels: tuple[int, ...] = (8, 32, 128, 512)
    """Numbers of labelled texts."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which ways."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the labels, the head and the order."""
    test: int = 800
    """Test rows at most."""
    length: int = 64
    """Tokens of a text and its pattern at most."""
    model: str = "gpt2-nano"
    """Pretrained weights."""
    data: Path = DATA
    """Folder of the data sets' folders."""


def answers(name: str, row: str, options: Options) -> Callable[[Split, int], np.ndarray]:
    """The function of that row, on a data set."""
    own = ROWS[row][1]
    words = WORDS.get(name, {}) if own else {}

    def outputs(split: Split, seed: int) -> np.ndarray:
        given = {"model": options.model, "max_length": options.length, "calibrate": "none", "seed": seed}
        config = resolve(TrainConfig.of(**given | words | own))
        saved = fit_classifier(split, config)
        return ready(saved, pick_device("auto"), "fp32").outputs(split.test["text"].tolist())

    return outputs


def run(options: Options) -> None:
    """Measure, and print a table a data set."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    for name in options.sets:
        whole = split_by(name, options.data, seed=0)
        test = few_labels(whole.test, options.test, seed=0)
        found: dict[tuple[str, int], list[dict]] = {}
        for seed in options.seeds:
            for n in options.labels:
                train = few_labels(whole.train, n, seed)
                split = Split(train, whole.validation[:0], test)
                for row in options.rows:
                    if row in SAME_FOR_ALL_LABELS and n != options.labels[0]:
                        continue
                    started = time.process_time()
                    p = answers(name, row, options)(split, seed)
                    task = SingleLabel.of(train["label"])
                    scores = judge_of(task).scores(task.targets(test["label"].tolist()).numpy(), p)
                    found.setdefault((row, n), []).append(scores)
                    took = time.process_time() - started
                    value = 100 * scores[SETS[name].score]
                    print(f"{name} {n} {row} seed {seed}: {value:.1f} ({took:.0f} s)", flush=True)
        lines = [[f"{SETS[name].score} %, {SETS[name].what}", *(f"{n:,} labels" for n in options.labels)]]
        for row in options.rows:
            scores = [found.get((row, n)) for n in options.labels]
            cells = ["" if x is None else shown(over_seeds(x, SETS[name].score)) for x in scores]
            lines.append([ROWS[row][0], *cells])
        print(f"\n{markdown(lines)}\n", flush=True)


if __name__ == "__main__":
    cli.run(Options, run)
