"""python -m benchmarks.processes: what several processes of ``torchrun`` gain on one machine.

The same rows go through the frozen blocks and one epoch in one process, in two, …, each with one thread, in
turns. A machine gives no more than it has free cores: the ratio says as much about it as about gptcls.
"""

import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from subprocess import run

import torch

from benchmarks.measure import ROOT
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.processes import join_processes
from gptcls.core.loop import Curves
from gptcls.data.sources import labelled_frame, load_data
from gptcls.data.split import Split
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import trainer_of
from gptcls.train.setup import prepare, stage


@dataclass(frozen=True, kw_only=True)
class Options:
    """The frozen pass and one epoch, in one process and in more."""

    rows: int = 2000
    """Training texts."""
    model: str = "gpt2-nano"
    """Whose last block is trained."""
    processes: tuple[int, ...] = (1, 2)
    """How many there are in each column; the first is what the others are compared with."""
    repeats: int = 3
    """Turns."""
    alone: bool = False
    """Do the work once, as torchrun starts it, and print the seconds as a line of JSON."""


def once(options: Options) -> dict[str, float]:
    """Seconds of the frozen pass and of the steps of an epoch, in this process and those beside it."""
    join_processes()
    frame = load_data("sms-sample")
    picked = frame.iloc[[i % len(frame) for i in range(options.rows + 100)]]
    texts = [f"{text} {i}" for i, text in enumerate(picked["text"])]  # no two are equal
    rows = labelled_frame(texts, picked["label"].tolist())
    few = rows[options.rows :]
    config = resolve(TrainConfig.of(model=options.model, train="last_block", epochs=1, device="cpu"))
    setup = prepare(Split(rows[: options.rows], few, few), config)
    started = time.perf_counter()
    setup.network, setup.datasets = stage(setup.saved.model, setup.datasets, setup.config, setup.device)
    frozen = time.perf_counter() - started
    trainer = trainer_of(setup)
    trainer.hooks = [hook for hook in trainer.hooks if not isinstance(hook, Curves)]
    started = time.perf_counter()
    trainer.fit()
    return {"frozen pass": frozen, "steps of an epoch": time.perf_counter() - started}


def beside(options: Options, n: int) -> dict[str, float]:
    """:func:`once` by ``n`` processes of one thread each."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    own = ["--alone", "--rows", str(options.rows), "--model", options.model]
    done = run(
        [*torchrun, "-m", "benchmarks.processes", *own], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def table(found: dict[int, list[dict[str, float]]]) -> str:
    """Median seconds by number of processes, and how often faster than the first of them: the median of the
    turns' ratios.

    >>> print(table({1: [{"pass": 2.0}, {"pass": 3.0}], 2: [{"pass": 1.0}, {"pass": 2.0}]}))
    | work | 1, s | 2, s | 2: times as fast |
    | --- | ---: | ---: | ---: |
    | pass | 2.5 | 1.5 | 1.75 (1.50 to 2.00) |
    """
    first, *others = found
    heads = ["work", *(f"{n}, s" for n in found), *(f"{n}: times as fast" for n in others)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for what in found[first][0]:
        cells = [f"{statistics.median(turn[what] for turn in turns):.1f}" for turns in found.values()]
        for n in others:
            ratios = [a[what] / b[what] for a, b in zip(found[first], found[n], strict=True)]
            median = statistics.median(ratios)
            cells.append(f"{median:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append([what, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Parse, measure, print."""
    cli.run(Options, measured)


def measured(options: Options) -> None:
    """The table, or with ``--alone`` a line of it."""
    if options.alone:
        torch.set_num_threads(1)
        rank, _ = join_processes()
        seconds = once(options)
        if rank == 0:
            say(json.dumps(seconds))
        return
    found: dict[int, list[dict[str, float]]] = {n: [] for n in options.processes}
    for _ in range(options.repeats):
        for n in options.processes:
            found[n].append(beside(options, n))
    say(table(found))


if __name__ == "__main__":
    main()
