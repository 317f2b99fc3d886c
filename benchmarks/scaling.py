"""python -m benchmarks.scaling: what one epoch costs as the data grows, features in memory and on disk.

Each size runs in a process of its own: the frozen blocks once over every text, one epoch on their output, and
a tenth as many texts to validate on. The texts are those of the collection, repeated, each with its number
behind it, so that no two are equal. Seconds per 1,000 texts should stay flat.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import ours, setup
from benchmarks.measure import Row, Stopwatch, anonymous_mib, peak_mib, report, run_alone
from gptcls.common import cli
from gptcls.core.loop import Curves, Trainer
from gptcls.data.sources import labelled_frame, load_data
from gptcls.data.split import Split
from gptcls.train.setup import make_loaders, prepare, stage


@dataclass(frozen=True, kw_only=True)
class Options(setup.Options):
    """One epoch over more and more texts."""

    sizes: tuple[int, ...] = (1000, 3000, 10_000)
    """Training texts."""
    only: int | None = None
    """Run this size alone and print its figures as a line of JSON."""
    cache_budget: float = 2.0
    """With --only: GiB of features in memory; 0 puts them all into a file."""


def numbered_rows(data: Path, count: int) -> Split:
    """``count`` training rows and a tenth as many for validation and test, all different."""
    frame = load_data(data)
    n_more = max(2, count // 10)
    picked = frame.iloc[[i % len(frame) for i in range(count + n_more)]]
    texts = [f"{text} {i}" for i, text in enumerate(picked["text"])]
    rows = labelled_frame(texts, picked["label"].tolist())
    return Split(rows[:count], rows[count:], rows[count:])


def alone(options: Options, weights: Path) -> dict[str, float | None]:
    """Seconds and memory of one size."""
    cpu = torch.device("cpu")
    split = numbered_rows(options.data, options.only)
    config = ours.config_for(weights, 1, 8, "auto", options.cache_budget)
    setup = prepare(split, config)
    config = setup.config
    task, datasets = setup.saved.task, setup.datasets
    with Stopwatch() as frozen:
        network, features = stage(setup.saved.model, datasets, config, cpu)
    with Stopwatch() as epoch:
        loaders = make_loaders(features, config)
        curves = Curves(loaders["validation"], config.fit.eval_freq, config.fit.eval_iter, full=True)
        Trainer(network, task, loaders["train"], config.fit.settings, cpu, [curves]).fit()
    tokens = sum(datasets["train"].lengths) + sum(datasets["validation"].lengths)
    return {
        "frozen": frozen.seconds,
        "epoch": epoch.seconds,
        "tokens": tokens,
        "peak_mib": peak_mib(),  # with the file's pages that are in memory at the time
        "heap_mib": anonymous_mib(),
    }


def row_for(size: int, where: str, figures: dict[str, float | None]) -> Row:
    """A line of the table."""
    seconds = figures["frozen"] + figures["epoch"]
    note = f"frozen pass {figures['frozen']:.1f} s, epoch {figures['epoch']:.1f} s"
    if figures["heap_mib"] is not None:
        note += f"; {figures['heap_mib']:,.0f} MiB at the end without mapped files"
    return Row(
        f"{size:,} texts, features {where}",
        seconds,
        seconds_per_1k=1000 * seconds / size,
        tokens_per_second=figures["tokens"] / figures["frozen"],
        peak_mib=figures["peak_mib"],
        note=note,
    )


def run(options: Options) -> None:
    """All sizes, or one."""
    load_data(options.data)  # a wrong path is said at once
    with setup.workspace(options) as (_, weights):
        if options.only is not None:
            print(json.dumps(alone(options, weights)))
            return
        shared = options.arguments(weights.resolve())
        rows = []
        for where, budget in (("in memory", 2.0), ("on disk", 0.0)):
            for size in options.sizes:
                arguments = ["--only", str(size), "--cache-budget", str(budget), *shared]
                rows.append(row_for(size, where, run_alone("benchmarks.scaling", *arguments)))
        title = f"One epoch of {options.model}, last block, as the data grows"
        report(title, rows, {}, asdict(options), options.json)


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
