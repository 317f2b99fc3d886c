"""python -m benchmarks.steps: a training step of all layers or with LoRA, beside transformers and PEFT.

Batches of 8 real messages, theirs at random and padded to the longest of each, ours as a run draws them. Both
sides have one set of random weights, fused AdamW and as many threads. A turn is some steps of each
contestant, on batches that are spread over the sizes of an epoch's. With ``--parts scores`` gpt2-nano is
trained on the messages with products in bf16 and in fp32: what the narrow format does to loss and scores.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

from benchmarks import setup
from benchmarks.huggingface import HuggingFace
from benchmarks.measure import DTYPES, Row, compare, gemm_peak, peak_mib, report, run_alone, spread
from benchmarks.over_seeds import gain, markdown, over_seeds, shown
from gptcls.common import cli
from gptcls.common.log import unlogged
from gptcls.core.loop import Hook, Trainer
from gptcls.core.tokenizer import encode_rows
from gptcls.data.book import book_split
from gptcls.data.sources import load_data
from gptcls.data.split import Split
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import fit, trainer_of
from gptcls.train.setup import prepare

CPU = torch.device("cpu")
SEEDS = (0, 1, 2)
WINDOWS = 6  # of a loss curve
Contestant = Literal["ours", "ours-fp32", "theirs"]


@dataclass(frozen=True, kw_only=True)
class Options(setup.Options):
    """Time training steps side by side with transformers and PEFT."""

    models: tuple[str, ...] = ("gpt2-small", "gpt2-nano")
    """Presets whose sizes the random weights have."""
    train: tuple[str, ...] = ("all", "lora")
    """What is trained."""
    parts: tuple[Literal["time", "memory", "scores"], ...] = ("time", "memory")
    """Which tables to print."""
    repeats: int = 3
    """Turns that each has; the table shows medians."""
    steps: int = 6
    """Steps in a turn."""
    batch_size: int = 8
    """Texts in a step."""
    cpu_time: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Count CPU seconds instead of the clock's: for one thread on a machine that others use as well."""
    only: Contestant | None = None
    """Take the steps of one contestant alone and print its peak memory as a line of JSON."""


class Ours:
    """A run of gptcls up to its loop, whose steps are taken one by one."""

    def __init__(self, weights: Path, split: Split, train: str, batch_size: int, precision: str) -> None:
        options = {"model": str(weights), "train": train, "pooling": "last", "precision": precision}
        ready = prepare(split, resolve(TrainConfig.of(**options, batch_size=batch_size, device="cpu")))
        self.trainer = trainer_of(ready)
        self.rows = self.trainer.train_loader
        self.trainer.model.train()

    def step_seconds(self, steps: int, clock: Callable[[], float], widest: bool = False) -> float:
        """As :meth:`benchmarks.huggingface.HuggingFace.step_seconds`, of real tokens in place of widths."""
        batches = list(self.rows)
        sizes = [int(lengths.sum()) for _, lengths, _ in batches]
        if widest:
            self.trainer._step([batches[sizes.index(max(sizes))]])
        start = clock()
        for i in spread(sizes, steps):
            self.trainer._step([batches[i]])
        return (clock() - start) / min(steps, len(batches))


def contestant(name: Contestant, weights: Path, train: str, options: Options) -> Ours | HuggingFace:
    """One side, ready to step."""
    split = book_split(options.data)
    if name != "theirs":
        with unlogged():
            precision = "fp32" if name == "ours-fp32" else "auto"
            return Ours(weights, split, train, options.batch_size, precision)
    targets = torch.tensor((split.train["label"] == "spam").tolist(), dtype=torch.long)
    parts = [(encode_rows(split.train["text"]), targets)]
    return HuggingFace(weights, parts, options.batch_size, train=train)


def in_turn(model: str, train: str, weights: Path, options: Options) -> list[Row]:
    """Rows of the steps of all three."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    everyone = {name: contestant(name, weights, train, options) for name in Contestant.__args__}
    seconds: dict[str, list[float]] = defaultdict(list)
    for each in everyone.values():
        each.step_seconds(2, clock)
    for _ in range(options.repeats):
        for name, each in everyone.items():
            seconds[name].append(each.step_seconds(options.steps, clock))
    theirs = "transformers" + (" and PEFT" if train == "lora" else "")
    names = (("ours", "the default"), ("ours-fp32", "fp32"))
    said = f"{model}, {train}: {theirs} / ours"
    return [compare(f"{said}, {what}", seconds[name], seconds["theirs"]) for name, what in names]


def memory(model: str, train: str, weights: Path, options: Options) -> Row:
    """Peak memory of each alone in a process."""
    shared = [f"--model={model}", f"--weights={weights.resolve()}", f"--data={options.data.resolve()}"]
    shared += [f"--train={train}", f"--steps={options.steps}", f"--batch-size={options.batch_size}"]
    peaks = {
        name: run_alone("benchmarks.steps", "--only", name, *shared)["peak_mib"]
        for name in ("ours", "theirs")
    }
    share = peaks["ours"] / peaks["theirs"]
    note = f"theirs: {peaks['theirs']:,.0f} MiB, ours {share:.2f} of it"
    return Row(f"{model}, {train}: peak memory", ratio=1 / share, peak_mib=peaks["ours"], note=note)


class Losses(Hook):
    """The training loss of every step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_step(self, trainer: Trainer) -> None:
        self.found.append(trainer.loss)

    def windows(self) -> list[float]:
        """Its mean over each of :data:`WINDOWS` equal parts of the run."""
        return [float(part.mean()) for part in np.array_split(np.array(self.found), WINDOWS)]


def scores(options: Options) -> str:
    """Training losses and test accuracy of gpt2-nano over :data:`SEEDS`, in both formats."""
    split = book_split(options.data)
    heads = ["gpt2-nano, three epochs", *(f"loss, part {i + 1}" for i in range(WINDOWS)), "test accuracy %"]
    lines = [[*heads, "answers that differ"]]
    for train in options.train:
        curves, found, said = defaultdict(list), defaultdict(list), defaultdict(list)
        for seed, precision in product(SEEDS, ("bf16", "fp32")):
            shared = {"model": "gpt2-nano", "train": train, "pooling": "last", "device": "cpu", "seed": seed}
            losses = Losses()
            with unlogged():
                config = resolve(TrainConfig.of(**shared, epochs=3, precision=precision))
                run = fit(split, settings=config, hooks=[losses])
            curves[precision].append(losses.windows())
            found[precision].append(run.scores["test"])
            said[precision].append(run.outputs["test"].argmax(axis=1))
        for precision, scored in found.items():
            curve = [f"{loss:.4f}" for loss in np.mean(curves[precision], axis=0)]
            lines.append([f"{train}, {precision}", *curve, shown(over_seeds(scored, "accuracy"), 2), ""])
        apart = np.mean(curves["bf16"], axis=0) - np.mean(curves["fp32"], axis=0)
        differ = [int((a != b).sum()) for a, b in zip(said["bf16"], said["fp32"], strict=True)]
        of = f"{', '.join(map(str, differ))} of {len(split.test)}"
        difference = shown(gain(found["bf16"], found["fp32"], "accuracy"), 2, "+")
        lines.append([f"{train}, difference", *(f"{x:+.4f}" for x in apart), difference, of])
    seeds = ", ".join(map(str, SEEDS))
    return f"{markdown(lines)}\n\nSeeds {seeds}; [95 % intervals over the seeds]."


def run(options: Options) -> None:
    """The benchmark, or one contestant of it."""
    load_data(options.data)  # a wrong path is said at once
    if options.only:
        each = contestant(options.only, options.weights, options.train[0], options)
        each.step_seconds(options.steps, time.perf_counter, widest=True)
        print(json.dumps({"peak_mib": peak_mib()}))
        return
    rows, peaks = [], {}
    for model in options.models if {"time", "memory"} & {*options.parts} else ():
        with setup.workspace(replace(options, model=model)) as (_, weights):
            for train in options.train:
                if "time" in options.parts:
                    rows += in_turn(model, train, weights, options)
                    peaks = {name: max(peaks.get(name, 0), gemm_peak(DTYPES[name])) for name in DTYPES}
                if "memory" in options.parts:
                    rows.append(memory(model, train, weights, options))
    if rows:
        kind = "CPU seconds" if options.cpu_time else "seconds"
        title = f"A training step, {kind}, batches of {options.batch_size} messages"
        report(title, rows, peaks, asdict(options), options.json)
    if "scores" in options.parts:
        print(scores(options))


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
