"""python -m benchmarks.sweeps: what ten seeds cost where one command shares rows, tokens and frozen features.

Whole commands, in CPU seconds of one thread, in turns: a run with one seed, and one with all of them. Trained
apart, n seeds cost n times the first.
"""

import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks import setup
from benchmarks.measure import run_command
from benchmarks.over_seeds import markdown
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.data.sources import load_data

Case = Literal["sample-quick", "sample-balanced", "sms-quick", "small-quick", "small-book"]
# What the table calls it, whether it is about the collection's messages and gpt2-small's size, its options.
CASES: dict[str, tuple[str, bool, bool, tuple[str, ...]]] = {
    "sample-quick": ("gpt2-nano, sms-sample, `--preset quick`", False, False, ("--preset=quick",)),
    "sample-balanced": ("gpt2-nano, sms-sample, `--preset balanced`", False, False, ()),
    "sms-quick": ("gpt2-nano, messages, `--preset quick`", True, False, ("--preset=quick",)),
    "small-quick": ("gpt2-small's size, messages, `--preset quick`", True, True, ("--preset=quick",)),
    "small-book": (
        "gpt2-small's size, messages, five epochs in batches of 8", True, True,
        ("--train=last_block", "--pooling=last", "--epochs=5", "--batch-size=8"),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options(setup.Options):
    """Ten seeds against one."""

    cases: tuple[Case, ...] = tuple(CASES)
    """Which lines of the table."""
    rows: int = 1000
    """Messages, where those of the collection are trained on."""
    seeds: int = 10
    """How many there are."""
    repeats: int = 1
    """Turns; the table has their medians."""


def cpu_seconds(*arguments: str) -> float:
    """Of ``gptcls.train`` with these arguments from its start to its exit, by one thread."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return run_command("-m", "gptcls.train", "--device=cpu", *arguments, env=env, cpu_time=True)


def table(found: dict[str, list[tuple[float, float]]], seeds: int) -> str:
    """Median seconds of one seed and of all, by case, and the median of the turns' ratios.

    >>> print(table({"sample-quick": [(8.0, 16.0), (9.0, 27.0)]}, seeds=10))
    | run | one seed, s | 10 seeds, s | ratio | apart |
    | --- | ---: | ---: | ---: | ---: |
    | gpt2-nano, sms-sample, `--preset quick` | 8.5 | 21.5 | 2.5 (2.0 to 3.0) | 10 |
    """
    lines = [["run", "one seed, s", f"{seeds} seeds, s", "ratio", "apart"]]
    for case, turns in found.items():
        ratios = [every / one for one, every in turns]
        one, every = (statistics.median(column) for column in zip(*turns, strict=True))
        spread = f" ({min(ratios):.1f} to {max(ratios):.1f})" if len(turns) > 1 else ""
        ratio = f"{statistics.median(ratios):.1f}{spread}"
        lines.append([CASES[case][0], f"{one:.1f}", f"{every:.1f}", ratio, str(seeds)])
    return markdown(lines)


def arguments_of(case: Case, rows: Path, weights: Path) -> list[str]:
    """The options of a case's command, without its seeds."""
    _, of_collection, is_small, own = CASES[case]
    arguments = [f"--data={rows}" if of_collection else "--data=sms-sample", *own]
    return arguments + ([f"--model={weights}", "--save=trained"] if is_small else [])


def measured(options: Options) -> None:
    """Measure and print."""
    seeds = [str(seed) for seed in range(options.seeds)]
    found: dict[str, list[tuple[float, float]]] = {case: [] for case in options.cases}
    with setup.workspace(options) as (folder, weights):
        frame, rows = load_data(options.data).drop_duplicates("text")[: options.rows], folder / "rows.csv"
        frame.to_csv(rows, index=False)
        for turn in range(options.repeats):
            for case in options.cases:
                arguments, out = arguments_of(case, rows, weights), folder / f"{case}-{turn}"
                one = cpu_seconds(*arguments, "--seed=0", f"--out={out}-one")
                every = cpu_seconds(*arguments, f"--out={out}-all", "--seeds", *seeds)
                found[case].append((one, every))
                say(f"{case}: {one:.1f}, {every:.1f}", flush=True)
    say(f"\n{table(found, options.seeds)}")


def main() -> None:
    """The command line."""
    cli.run(Options, measured)


if __name__ == "__main__":
    main()
