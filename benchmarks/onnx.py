"""python -m benchmarks.onnx: a classifier in ONNX Runtime beside our own path on the CPU.

One text at a time and a whole collection, texts in and answers out, tokenizing inside every clock. Both sides
have the same number of threads, and for many texts the same batches: rows of similar length, of as many
positions as ours takes.
"""

import gc
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from benchmarks import setup
from benchmarks.inference import MESSAGE_TOKENS
from benchmarks.measure import Row, compare, report
from gptcls.classify.predict import DEFAULT_CLASSIFIER, load_classifier
from gptcls.classify.store import read_classifier
from gptcls.common import cli
from gptcls.core.answer import token_budget
from gptcls.core.batches import token_budget_batches
from gptcls.data.sources import load_data
from gptcls.export.to_onnx import to_onnx


@dataclass(frozen=True, kw_only=True)
class Options:
    """Classify messages with gptcls and with ONNX Runtime, in turn."""

    model: str = DEFAULT_CLASSIFIER
    """A classifier that gptcls.train left, or one of this package."""
    data: Path = setup.Options.data
    """UCI's SMS Spam Collection."""
    repeats: int = 3
    """Turns that each has; the table shows medians."""
    messages: int = 50
    """Single messages, of about 30 tokens, in each turn."""
    rows: int | None = None
    """As many rows of the data alone."""
    cpu_time: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Count CPU seconds instead of the clock's: for one thread on a machine that others use as well."""
    json: Path | None = None
    """Also write the table to this file."""


class Exported:
    """The folder that ``gptcls.export --to onnx`` writes, used in batches of similar length."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        import tokenizers

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        path, providers = folder / "model.onnx", ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_padding()
        self.mib = sum(file.stat().st_size for file in folder.glob("model.onnx*")) / 2**20

    def probabilities(self, texts: list[str]) -> np.ndarray:
        """(N, K)."""
        rows = [row.ids for row in self.tokenizer.encode_batch(texts)]
        batches = token_budget_batches([len(row) for row in rows], token_budget(torch.device("cpu")))
        parts = []
        for batch in batches:
            lengths = np.array([len(rows[i]) for i in batch])
            ids = np.zeros((len(batch), lengths.max()), np.int64)
            for row, i in zip(ids, batch, strict=True):
                row[: len(rows[i])] = rows[i]
            parts.append(self.session.run(["probabilities"], {"ids": ids, "lengths": lengths})[0])
        return np.concatenate(parts)[np.argsort(np.concatenate(batches))]


Answering = dict[str, Callable[[list[str]], np.ndarray]]


def in_turn(
    everyone: Answering, work: list[list[str]], repeats: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, np.ndarray]]:
    """Seconds of each for each piece of work, after one that does not count, and its last answers."""
    seconds: dict[str, list[float]] = defaultdict(list)
    said = {}
    for answer in everyone.values():
        answer(work[0][:64])
    for texts in work * repeats:
        for name, answer in everyone.items():
            gc.collect()
            start = clock()
            said[name] = answer(texts)
            seconds[name].append(clock() - start)
    return seconds, said


def agreement(name: str, found: np.ndarray, ours: np.ndarray, mib: float) -> Row:
    """How far the same probabilities (N, K) are apart."""
    equal = float((found.argmax(axis=1) == ours.argmax(axis=1)).mean())
    largest = abs(found - ours).max()
    note = f"{equal:.2%} of {len(ours):,} labels equal, probabilities differ by up to {largest:.1g}"
    return Row(f"answers of {name}", note=f"{note}; {mib:.1f} MiB")


def run(options: Options) -> None:
    """The benchmark."""
    texts = load_data(options.data)["text"].tolist()[: options.rows]
    ours = load_classifier(options.model, "cpu")
    with tempfile.TemporaryDirectory() as place:
        exported = {}
        for name, int8 in (("ONNX Runtime fp32", False), ("ONNX Runtime int8", True)):
            to_onnx(read_classifier(options.model), Path(place) / name, int8)
            exported[name] = Exported(Path(place) / name)
    everyone: Answering = {"ours": ours.predict_proba}
    everyone |= {name: each.probabilities for name, each in exported.items()}
    lengths = [len(row) for row in ours.saved.tokenizer.encode_rows(texts)]
    by_nearness = sorted(range(len(texts)), key=lambda i: abs(lengths[i] - MESSAGE_TOKENS))
    single = [[texts[i]] for i in by_nearness[: options.messages]]
    clock = time.process_time if options.cpu_time else time.perf_counter
    rows: list[Row] = []
    for what, work in (("one message", single), (f"{len(texts):,} messages", [texts])):
        seconds, said = in_turn(everyone, work, options.repeats, clock)
        rows += [compare(f"{what}: {name}", seconds["ours"], seconds[name]) for name in exported]
    rows += [agreement(name, said[name], said["ours"], each.mib) for name, each in exported.items()]
    described: dict[str, Any] = asdict(options) | {
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
    report(f"Classifying with {options.model}, beside ONNX Runtime", rows, {}, described, options.json)


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
