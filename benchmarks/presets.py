"""python -m benchmarks.presets: which settings of a fine-tuning serve many data sets, on validation rows.

For each data set and number of training rows every setting of one grid of 24: what is trained, what the head
reads, the learning rate, the number of steps. A setting's lag is by how many points it stays behind the best
one there, and the table is in the order of the mean lag. The first seed tries all of them, the others the
best few of these. ``--preset`` was chosen by it.

With ``--json FILE`` every single score is kept as it comes; the same command goes on where it stopped.
"""

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import tyro

from benchmarks.cells import Cells
from benchmarks.contestants import all_blocks, backbone_of, fine_tuned
from benchmarks.datasets import DATA, SETS, SETTINGS_SEED, few_labels, split_by
from benchmarks.over_seeds import markdown
from gptcls.common import cli
from gptcls.models.pretrained import weights_sha256

TRAIN, POOLING, RATES, STEPS = ("last_block", "blocks"), ("last", "mean", "max"), (5e-4, 1e-3), (8, 24)
GRID = list(itertools.product(TRAIN, POOLING, RATES, STEPS))
LENGTHS = {"movie-reviews": 128}  # tokens; of the others 64 are nearly all of a text
NAMED = tuple(name for name in SETS if name != "sms-sample")  # its 52 validation rows tell nothing
Scores = dict[tuple[str, int], dict[int, list[float]]]  # data set and rows -> number of setting -> seeds


@dataclass(frozen=True, kw_only=True)
class Options:
    """Try a grid of 24 settings on several data sets."""

    sets: tuple[str, ...] = NAMED
    """Which data sets."""
    rows: tuple[int, ...] = (400,)
    """Numbers of training rows."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the rows drawn, the head and the order; the validation rows are the same for all."""
    finalists: int = 6
    """Settings, the best with the first seed, that the other seeds try."""
    data: Path = DATA
    """Folder of the data sets' folders."""
    model: str = "gpt2-nano"
    """Pretrained weights."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of every single score; what it holds is not measured again."""


def validation_scores(options: Options, name: str, n: int, seed: int, setting: tuple) -> dict[str, Any]:
    """Of a network trained with this setting on ``n`` rows."""
    train, pooling, lr, per_root = setting
    split = split_by(name, options.data, SETTINGS_SEED)
    rows, backbone = few_labels(split.train, n, seed), backbone_of(options.model)
    return fine_tuned(
        backbone, rows, split.validation, per_root * math.sqrt(len(rows)), seed, options.device,
        train=all_blocks(backbone) if train == "blocks" else train, pooling=pooling, lr=lr,
        max_length=LENGTHS.get(name, 64),
    )  # fmt: skip


def lag(scores: Scores, settings: Sequence[int]) -> dict[int, list[float]]:
    """By how many points the mean score of each of these settings stays behind their best, place by place."""
    means = [{number: 100 * fmean(found[number]) for number in settings} for found in scores.values()]
    return {number: [max(found.values()) - found[number] for found in means] for number in settings}


def ranked(scores: Scores, settings: Sequence[int]) -> list[int]:
    """The settings, the one with the smallest mean lag first."""
    behind = lag(scores, settings)
    return sorted(settings, key=lambda number: fmean(behind[number]))


def table(scores: Scores, settings: Sequence[int], seeds: Sequence[int]) -> str:
    """These settings, the one that stays behind least first, and the best score of each place."""
    behind = lag(scores, settings)
    heads = ["trained", "reads", "rate", "steps / √rows", "mean lag", "largest"]
    lines = [[*heads, *(f"{name} {n:,}" for name, n in scores)]]
    best = [f"{100 * max(fmean(found[number]) for number in settings):.1f}" for found in scores.values()]
    lines.append(["the best of each", *[""] * 5, *best])
    for number in ranked(scores, settings):
        own = behind[number]
        words = [f"{value:g}" if isinstance(value, float) else str(value) for value in GRID[number]]
        lines.append([*words, *(f"{x:.1f}" for x in (fmean(own), max(own), *own))])
    return f"seeds {' '.join(map(str, seeds))}\n\n{markdown(lines, words=4)}"


def run(options: Options) -> None:
    """Measure what is missing, and print a table of all settings and one of the finalists."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    cells = Cells(options.json)
    cells.under({"grid": GRID, "weights": weights_sha256(options.model)}, "presets")
    scores: Scores = {place: {} for place in itertools.product(options.sets, options.rows)}
    settings: Sequence[int] = range(len(GRID))
    for seed in options.seeds:
        for (name, n), found in scores.items():
            for number in settings:
                cell = f"presets/{name}/{n}/{number}/seed {seed}"
                setting = GRID[number]
                measured = cells.measured(cell, validation_scores, options, name, n, seed, setting)
                found.setdefault(number, []).append(measured[SETS[name].score])
            print(f"{name}, {n:,} rows, seed {seed}: done", flush=True)
        if seed == options.seeds[0]:
            print(f"\n{table(scores, settings, options.seeds[:1])}\n", flush=True)
            settings = ranked(scores, settings)[: options.finalists]
    print(f"\n{table(scores, settings, options.seeds)}")


if __name__ == "__main__":
    cli.run(Options, run)
