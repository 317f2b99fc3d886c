"""python -m benchmarks.finetune: five epochs on the book's split, against the book and transformers.

Every contestant trains the last block, the final norm and a 2-way head of one GPT-2 in batches of 8. "In
process" runs from model and rows in memory to the trained model, every evaluation included; "whole command"
from starting Python to its exit. A peer is timed on some of its steps and evaluation batches in each turn,
and scaled to all of them; ``--full`` lets it do them all.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from benchmarks import ours, setup
from benchmarks.book import Book
from benchmarks.huggingface import HuggingFace
from benchmarks.measure import DTYPES, Row, compare, gemm_peak, peak_mib, report, run_alone, run_command
from gptcls.common import cli
from gptcls.core.tokenizer import encode_rows
from gptcls.data.book import book_split
from gptcls.data.sources import load_data
from gptcls.data.split import Split, save_split

Contestant = Literal["ours", "ours-fp32", "book", "hf"]
Part = Literal["in-process", "commands", "memory"]


@dataclass(frozen=True, kw_only=True)
class Options(setup.PeerOptions):
    """Fine-tune gpt2-small side by side with the book's code and with transformers."""

    epochs: int = 5
    """Passes over the training rows."""
    batch_size: int = 8
    """Texts a training batch."""
    parts: tuple[Part, ...] = ("in-process", "commands", "memory")
    """Which parts of the table to measure."""
    only: Contestant | None = None
    """Run one contestant alone and print its seconds and peak memory as a line of JSON."""

    def peer_arguments(self) -> tuple[int, int, int, bool]:
        """What both peers' ``seconds`` takes."""
        return self.epochs, self.peer_steps, self.peer_batches, self.full


class Race:
    """The contestants in one process, on one split."""

    def __init__(self, options: Options, weights: Path, folder: Path) -> None:
        self.options, self.weights, self.folder = options, weights.resolve(), folder
        self.split = book_split(options.data)

    def ours(self, precision: str) -> ours.Result:
        """gptcls with its default recipe."""
        options = self.options
        config = ours.config_for(self.weights, options.epochs, options.batch_size, precision)
        return ours.finetune(config, self.split)

    def book(self) -> Book:
        """The book's package, ready to train."""
        return Book(self.weights, setup.book_frames(self.split), self.folder, self.options.batch_size)

    def huggingface(self) -> HuggingFace:
        """transformers, ready to train."""
        parts = [
            (encode_rows(frame["text"]), torch.tensor((frame["label"] == "spam").tolist(), dtype=torch.long))
            for _, frame in self.split.items()
        ]
        return HuggingFace(self.weights, parts, self.options.batch_size)

    def alone(self, contestant: Contestant) -> float:
        """Seconds of one contestant."""
        if contestant in ("ours", "ours-fp32"):
            return self.ours("fp32" if contestant == "ours-fp32" else "auto").seconds
        peer = self.book() if contestant == "book" else self.huggingface()
        return peer.seconds(*self.options.peer_arguments())


def in_process(race: Race) -> tuple[list[Row], dict[str, float]]:
    """Rows of the interleaved runs, and the GEMM peaks."""
    options, default = race.options, ours.dtype_name(ours.default_dtype())
    precisions = [default] if default == "fp32" else [default, "fp32"]
    book, huggingface = race.book(), race.huggingface()
    peaks: dict[str, float] = dict.fromkeys(precisions, 0.0)
    results: dict[str, list[ours.Result]] = defaultdict(list)
    peers: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeats):
        for precision in precisions:
            results[precision].append(race.ours(precision))
            peaks[precision] = max(peaks[precision], gemm_peak(DTYPES[precision]))
            if precision == default:
                peers["book"].append(book.seconds(*options.peer_arguments()))
        peers["hf"].append(huggingface.seconds(*options.peer_arguments()))
    seconds = {name: [result.seconds for result in done] for name, done in results.items()}
    rows = [compare(f"in process: the book / ours ({default}, default)", seconds[default], peers["book"])]
    if default != "fp32":
        rows.append(compare("in process: the book / ours (fp32)", seconds["fp32"], peers["book"]))
    what = f"in process: transformers / ours ({default}, default)"
    rows.append(compare(what, seconds[default], peers["hf"]))
    rows += [frozen_row(precision, results[precision], peaks[precision]) for precision in precisions]
    if default != "fp32":
        rows.append(accuracy_row(results[default][-1], results["fp32"][-1], race.split, default))
    return rows, peaks


def frozen_row(precision: str, results: Sequence[ours.Result], peak: float) -> Row:
    """The frozen blocks alone."""
    seconds = median(result.frozen_seconds for result in results)
    tokens, flops = results[0].tokens, results[0].frozen_flops
    return Row(
        f"of which the frozen pass ({precision})",
        seconds,
        tokens_per_second=tokens / seconds,
        gemm_share=flops / seconds / peak,
        note=f"{tokens:,} real tokens, {flops / seconds / 1e9:,.0f} GFLOP/s",
    )


def accuracy_row(narrow: ours.Result, fp32: ours.Result, split: Split, name: str) -> Row:
    """What the narrow format costs in accuracy, on the real messages."""
    parts = []
    for part, frame in split.items():
        agree = int((narrow.predictions[part] == fp32.predictions[part]).sum())
        accuracies = f"{narrow.accuracy[part]:.2%} / {fp32.accuracy[part]:.2%}"
        parts.append(f"{part} {accuracies}, {agree:,} of {len(frame):,} predictions equal")
    return Row(f"accuracy {name} / fp32 (random weights, unless --weights)", note="; ".join(parts))


def commands(race: Race) -> Row:
    """Whole commands: imports, loading, baselines and pictures included."""
    options, folder = race.options, race.folder
    save_split(setup.numbered_repeats(race.split), folder / "rows")
    seconds: dict[str, list[float]] = defaultdict(list)
    for turn in range(options.repeats):
        rows = {"data": "train", "validation": "validation", "test": "test"}
        arguments = [f"--{flag}={folder / 'rows' / name}.csv" for flag, name in rows.items()]
        arguments += [f"--model={race.weights}", f"--out={folder / f'run-{turn}'}", "--save=trained"]
        arguments += [f"--epochs={options.epochs}", f"--batch-size={options.batch_size}", "--device=cpu"]
        arguments += ["--recipe=default", "--train=last_block", "--pooling=last"]
        seconds["ours"].append(run_command("-m", "gptcls.train", *arguments))
        arguments = [f"--data={options.data.resolve()}", f"--weights={race.weights}"]
        arguments += [f"--folder={folder / 'book-command'}", f"--epochs={options.epochs}"]
        arguments += [f"--batch-size={options.batch_size}", f"--steps={options.peer_steps}"]
        arguments += [f"--eval-batches={options.peer_batches}", *(["--full"] if options.full else [])]
        done = run_alone("benchmarks.book_command", *arguments)
        seconds["book"].append(done["wall"] - done["measured"] + done["scaled"])
    default = ours.dtype_name(ours.default_dtype())
    return compare(f"whole command: the book / ours ({default}, default)", seconds["ours"], seconds["book"])


def memory(race: Race) -> list[Row]:
    """Peak memory of each contestant in a process of its own."""
    options = race.options
    shared = [*options.arguments(race.weights), f"--epochs={options.epochs}"]
    shared += [f"--batch-size={options.batch_size}"]
    peaks = {
        name: run_alone("benchmarks.finetune", "--only", name, *shared)["peak_mib"]
        for name in ("ours", "ours-fp32", "book", "hf")
    }
    pairs = (("the book", "book", "ours"), ("the book", "book", "ours-fp32"), ("transformers", "hf", "ours"))
    return [
        Row(
            f"peak memory: {who} / {mine}",
            ratio=peaks[peer] / peaks[mine],
            peak_mib=peaks[mine],
            note=f"{who}: {peaks[peer]:,.0f} MiB",
        )
        for who, peer, mine in pairs
    ]


def run(options: Options) -> None:
    """The benchmark, or one contestant of it."""
    load_data(options.data)  # a wrong path is said at once, not after minutes
    with setup.workspace(options) as (folder, weights):
        race = Race(options, weights, folder)
        if options.only:
            seconds = race.alone(options.only)
            print(json.dumps({"seconds": seconds, "peak_mib": peak_mib()}))
            return
        rows, peaks = in_process(race) if "in-process" in options.parts else ([], {})
        if "commands" in options.parts:
            rows.append(commands(race))
        if "memory" in options.parts:
            rows += memory(race)
        title = (
            f"Fine-tuning {options.model}, {options.epochs} epochs, last block, batch {options.batch_size}"
        )
        report(title, rows, peaks, asdict(options), options.json)


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
