"""python -m benchmarks.scale: what a billion rows and a 7B LoRA would take, by arithmetic, and where a path
of readers, actors and writers would stall, by simulation. The page it prints is benchmarks/scale.md.

Nothing here was run at that size. The rate of a core is measured (docs/speed.md, ``python -m
benchmarks.inference``); how fast rows are read and written is measured on the spot; prices, and what no run
of ours has shown, are options.
"""

import heapq
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from gptcls.common import cli
from gptcls.common.console import say
from gptcls.core.gpt2 import PRESETS
from gptcls.data.writer import ChunkWriter

STAGES = ("readers", "actors", "writers")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is assumed. Prices are what you pay; these are round numbers."""

    rows: float = 1e9
    """Rows to classify."""
    texts: int = 5574
    """Messages behind the measured rate of gpt2-small, of docs/speed.md."""
    seconds: float = 59.0
    """What they took there, in bf16."""
    cores: int = 2
    """On so many cores."""
    core_price: float = 0.04
    """Dollars for an hour of a core."""
    gpu_price: float = 3.0
    """Dollars for an hour of a GPU."""
    gpu_flops: float = 989e12
    """What a GPU multiplies a second in bf16: NVIDIA's data sheet of the H100, without sparsity."""
    gpu_memory: float = 80.0
    """GB of a GPU."""
    share: float = 0.4
    """Of that, what training reaches. No run of ours has measured it."""
    parameters: float = 6.7e9
    """Of the network that LoRA adapts."""
    tokens: float = 1e8
    """That it is trained on, epochs multiplied in."""
    block: int = 10_000
    """Rows that are read, classified and written together."""
    actors: int = 64
    """Of one core each."""
    queue: int = 8
    """Blocks that may wait between two stages."""
    spread: float = 0.3
    """How much the seconds of a block vary, as a share of their mean."""
    seed: int = 123
    """Of the simulation."""


def path_seconds(n: int = 20_000) -> dict[str, float]:
    """Seconds that a row takes to be read from a Parquet file and to be written as CSV, on one core here."""
    frame = pd.DataFrame(
        {"text": [f"see you at {i}, running late as usual, sorry about that" for i in range(n)]}
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.parquet")
        frame.to_parquet(file)
        started = time.perf_counter()
        read = pd.read_parquet(file)
        middle = time.perf_counter()
        with ChunkWriter(Path(folder, "rows.csv")) as writer:
            writer.write(read.assign(label="ham", probability=0.9731))
        end = time.perf_counter()
    return {"readers": (middle - started) / n, "writers": (end - middle) / n}


@dataclass(frozen=True)
class Flow:
    """What a simulated data path did."""

    seconds: float
    busy: dict[str, float]  # share of the time that the workers of each stage worked
    blocked: dict[str, float]  # share of it in which they had a block and nowhere to put it
    waiting: int  # blocks in the queues, at most

    @property
    def narrowest(self) -> str:
        """The stage that all others wait for."""
        return max(self.busy, key=self.busy.__getitem__)


def simulate(
    blocks: int, workers: dict[str, int], seconds: dict[str, float], queue: int, spread: float = 0.0,
    seed: int = 0,
) -> Flow:  # fmt: skip
    """``blocks`` through stages in a row, each of some ``workers`` that take so many ``seconds`` for one,
    with room for ``queue`` blocks before each stage but the first; a worker whose next queue is full keeps
    its block and does nothing. Times are gamma distributed with the given spread.

    >>> flow = simulate(100, {"readers": 1, "actors": 2}, {"readers": 1.0, "actors": 4.0}, queue=3)
    >>> flow.narrowest, flow.seconds  # the second actor begins at 2 s and has 50 blocks of 4 s
    ('actors', 202.0)
    """
    rng, names = np.random.default_rng(seed), list(workers)
    waiting = [deque(range(blocks)), *(deque() for _ in names[1:])]
    idle, stuck = [workers[name] for name in names], [deque() for _ in names]
    busy, blocked, most = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), 0
    events: list[tuple[float, int, int]] = []  # when, stage, block
    now, done = 0.0, 0

    def move() -> None:
        """Start and hand on whatever can be, from the last stage to the first, so that room is seen."""
        nonlocal most
        changed = True
        while changed:
            changed = False
            for i in reversed(range(len(names))):
                while stuck[i] and len(waiting[i + 1]) < queue:
                    since, block = stuck[i].popleft()
                    blocked[names[i]] += now - since
                    waiting[i + 1].append(block)
                    idle[i] += 1
                    changed = True
                while idle[i] and waiting[i]:
                    block, mean = waiting[i].popleft(), seconds[names[i]]
                    takes = rng.gamma(spread**-2, mean * spread**2) if spread else mean
                    busy[names[i]] += takes
                    idle[i] -= 1
                    heapq.heappush(events, (now + takes, i, block))
                    changed = True
            most = max(most, sum(map(len, waiting[1:])))

    move()
    while events:
        now, i, block = heapq.heappop(events)
        if i + 1 == len(names):
            done += 1
            idle[i] += 1
        else:
            stuck[i].append((now, block))
        move()
    assert done == blocks
    whole = {name: now * workers[name] for name in names}
    share = [{name: spent[name] / whole[name] for name in names} for spent in (busy, blocked)]
    return Flow(now, *share, most)


def classifying(options: Options) -> list[list[str]]:
    """A billion rows on cores: the measured network, and others by the parameters of their blocks."""
    rate = options.texts / options.seconds / options.cores
    size = blocks_of("gpt2-small")
    lines = []
    for name in ("gpt2-nano", "gpt2-small", "gpt2-medium", "gpt2-large"):
        own = rate * size / blocks_of(name)
        hours = options.rows / own / 3600
        what = "measured" if name == "gpt2-small" else "scaled by its blocks"
        lines.append([name, what, f"{own:,.0f}", f"{hours:,.0f}", f"{hours * options.core_price:,.0f}"])
    return lines


def blocks_of(name: str) -> int:
    """Parameters of a preset's matrices: 12 C² a block."""
    return 12 * PRESETS[name].n_layer * PRESETS[name].n_embd ** 2


def lora(options: Options) -> list[list[str]]:
    """A LoRA of a large network: 4 operations for each parameter and token (2 forward, 2 for the gradient of
    the activations; none for frozen weights), and what a GPU has to hold."""
    seconds = 4 * options.parameters * options.tokens / (options.gpu_flops * options.share)
    weights = 2 * options.parameters / 1e9
    lines = []
    for n in (1, 2, 4, 8):
        part = weights / n
        fits = "yes" if part < 0.7 * options.gpu_memory else "no"
        hours, cost = seconds / n / 3600, seconds / 3600 * options.gpu_price
        lines.append([str(n), f"{part:.1f}", fits, f"{hours:.2f}", f"{cost:.2f}"])
    return lines


def data_path(options: Options, own: dict[str, float], blocks: int = 2000) -> list[list[str]]:
    """The simulation, for more and more actors behind one reader and one writer, and behind several."""
    row = options.seconds * options.cores / options.texts
    seconds = {"readers": own["readers"], "actors": row, "writers": own["writers"]}
    seconds = {name: options.block * seconds[name] for name in STAGES}
    lines = []
    for n, others in ((1, 1), (options.actors, 1), (16 * options.actors, 1), (256 * options.actors, 1),
                      (256 * options.actors, 64)):  # fmt: skip
        workers = {"readers": others, "actors": n, "writers": others}
        flow = simulate(max(blocks, 8 * n), workers, seconds, options.queue, options.spread, options.seed)
        rate = max(blocks, 8 * n) * options.block / flow.seconds
        most = min(workers[name] / seconds[name] for name in STAGES) * options.block
        cells = [f"{others} / {n:,} / {others}", f"{rate:,.0f}", f"{most:,.0f}"]
        cells += [f"{100 * flow.busy[name]:.0f}" for name in STAGES]
        lines.append([*cells, f"{100 * flow.blocked['actors']:.0f}", flow.narrowest])
    return lines


def table(heads: list[str], lines: list[list[str]]) -> str:
    """Markdown."""
    ruled = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def page(options: Options, own: dict[str, float]) -> str:
    """benchmarks/scale.md."""
    rate = options.texts / options.seconds / options.cores
    read, write = 1 / own["readers"], 1 / own["writers"]
    return f"""# A billion rows, and a 7B LoRA: arithmetic

`python -m benchmarks.scale > benchmarks/scale.md` prints this page. Nothing in it was run at this size: it multiplies
measured rates out. Every assumption is an option of the command, prices too.

## {options.rows:,.0f} rows on CPUs

gpt2-small classified {options.texts:,} messages in {options.seconds:g} s on {options.cores} cores in bf16 ([speed](../docs/speed.md)):
{rate:.0f} a second on a core. Assumed: rows as long as those messages, cores as fast as those, ${options.core_price:g} an hour for a core,
other networks in proportion to the matrices of their blocks, and nothing lost between cores (the last part asks when).

{table(["network", "rate", "rows a second and core", "core hours", "$"], classifying(options))}

## LoRA on {options.parameters / 1e9:g}B parameters, {options.tokens / 1e6:,.0f} million tokens

Four operations for each parameter and token: two forward, two for the gradient of the activations, none for weights that are
frozen. Assumed: a GPU of {options.gpu_flops / 1e12:,.0f} TFLOP/s in bf16 (NVIDIA's figure for the H100) of which training reaches {100 * options.share:.0f} %,
{options.gpu_memory:g} GB, ${options.gpu_price:g} an hour; weights in bf16, shared out with `--shard`, 30 % of the memory left for activations; what GPUs
send each other hidden behind the arithmetic. None of this was measured with gptcls on such GPUs.

{table(["GPUs", "GB of weights on each", "fits", "hours", "$"], lora(options))}

## Where the data path would stall

Simulated: readers, actors and writers in a row, blocks of {options.block:,} rows, room for {options.queue} blocks between two stages, the seconds
of a block spread by {100 * options.spread:.0f} %. One core read {read:,.0f} rows a second from Parquet and wrote {write:,.0f} as CSV on the machine that
printed this page; a network or a disk may be slower. Each run is at least 2,000 blocks, and 8 for each actor, its slow start and
end included. The bound is that of the narrowest stage, were it never to wait. An actor that is stuck has an answered block and
nowhere to put it.

`gptcls classify --engine ray` is laid out for what this shows: an actor writes the part that it answered, so that there are as many
writers as actors, and there is a reader for every eight of them. [Speed](../docs/speed.md#many-rows-with-ray) has what was
measured on one machine.

{table(["readers / actors / writers", "rows a second", "bound", "readers busy, %", "actors busy, %", "writers busy, %", "actors stuck, %", "all wait for"], data_path(options, own))}
"""  # noqa: E501


def main() -> None:
    """Parse, compute, print."""
    cli.run(Options, lambda options: say(page(options, path_seconds()), end=""))


if __name__ == "__main__":
    main()
