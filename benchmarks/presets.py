"""python -m benchmarks.presets: which settings of a fine-tuning serve many data sets, on validation rows.

For each data set and number of training rows every setting of one grid of 24: what is trained, what the head
reads, the learning rate, the number of steps. A setting's loss is by how many points it stays behind the best
one there, and the table is in the order of the mean loss. ``--preset balanced`` was chosen by it.

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
Place = tuple[str, int]  # data set, training rows
Setting = tuple[str, str, float, int]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Try a grid of 24 settings on several data sets."""

    sets: tuple[str, ...] = NAMED
    """Which data sets."""
    rows: tuple[int, ...] = (200, 1000)
    """Numbers of training rows."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the rows drawn, the head and the order; the validation rows are the same for all."""
    data: Path = DATA
    """Folder of the data sets' folders."""
    model: str = "gpt2-nano"
    """Pretrained weights."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of every single score; what it holds is not measured again."""


def validation_scores(options: Options, name: str, n: int, seed: int, setting: Setting) -> dict[str, Any]:
    """Of a network trained with this setting on ``n`` rows."""
    train, pooling, lr, per_root = setting
    split = split_by(name, options.data, SETTINGS_SEED)
    rows, backbone = few_labels(split.train, n, seed), backbone_of(options.model)
    return fine_tuned(
        backbone, rows, split.validation, per_root * math.sqrt(len(rows)), seed, options.device,
        train=all_blocks(backbone) if train == "blocks" else train, pooling=pooling, lr=lr,
        max_length=LENGTHS.get(name, 64),
    )  # fmt: skip


def lag(scores: dict[Place, dict[Setting, Sequence[float]]]) -> dict[Setting, dict[Place, float]]:
    """By how many points the mean score of each setting stays behind the best in each place."""
    means = {place: {s: 100 * fmean(x) for s, x in found.items()} for place, found in scores.items()}
    return {
        setting: {place: max(found.values()) - found[setting] for place, found in means.items()}
        for setting in GRID
    }


def table(scores: dict[Place, dict[Setting, Sequence[float]]]) -> str:
    """All settings, the one that stays behind least first, and the best score of each place."""
    places, behind = list(scores), lag(scores)
    heads = ["trained", "reads", "rate", "steps / √rows"]
    lines = [[*heads, "mean lag", "worst", *(f"{name} {n:,}" for name, n in places)]]
    best = [f"{max(100 * fmean(x) for x in scores[place].values()):.1f}" for place in places]
    lines.append(["the best of each", "", "", "", "", "", *best])
    for setting in sorted(GRID, key=lambda s: fmean(behind[s].values())):
        own = [*behind[setting].values()]
        words = [f"{value:g}" if isinstance(value, float) else str(value) for value in setting]
        lines.append([*words, *(f"{x:.1f}" for x in (fmean(own), max(own), *own))])
    return markdown(lines, words=4)


def run(options: Options) -> None:
    """Measure what is missing, and print the table."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    cells = Cells(options.json)
    cells.under({"grid": GRID, "weights": weights_sha256(options.model)}, "presets")
    scores: dict[Place, dict[Setting, list[float]]] = {}
    for name, n, seed in itertools.product(options.sets, options.rows, options.seeds):
        found = scores.setdefault((name, n), {setting: [] for setting in GRID})
        for number, setting in enumerate(GRID):
            cell = f"presets/{name}/{n}/{number}/seed {seed}"
            measured = cells.measured(cell, validation_scores, options, name, n, seed, setting)
            found[setting].append(measured[SETS[name].score])
        print(f"{name}, {n:,} rows, seed {seed}: done", flush=True)
    print(f"\n{table(scores)}")


if __name__ == "__main__":
    cli.run(Options, run)
