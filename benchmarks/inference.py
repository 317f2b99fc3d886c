"""python -m benchmarks.inference: one text, 64 texts and a collection, beside what an engineer would pick.

Everybody answers the same texts with the same weights, in turn, with the same number of threads: texts go in
and probabilities come out, tokenizing is inside every clock. The peers too get batches of similar length, of
as many positions as ours: ONNX Runtime on what ``gptcls export --to onnx`` writes, in fp32 and in 8 bits,
``torch.compile`` on the plain network, and, of a GPT-2 with random weights, transformers and for one text the
book's ``classify_review``, which pads to the longest training text. The last rows are whole processes.
"""

import gc
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks import ours, setup
from benchmarks.book import Book, book_sizes
from benchmarks.huggingface import HuggingFace
from benchmarks.measure import DTYPES, Row, compare, gemm_peak, report, run_command, spread
from gptcls import load_classifier
from gptcls.classify.store import SavedClassifier, find_classifier, read_classifier, save_classifier
from gptcls.common import cli
from gptcls.core.answer import token_budget
from gptcls.core.batches import pad, token_budget_batches
from gptcls.core.classifier import Classifier
from gptcls.core.gpt2 import PRESETS
from gptcls.core.task import SingleLabel
from gptcls.core.tokenizer import PAD_ID, encode_rows
from gptcls.data.book import book_split
from gptcls.data.sources import load_data
from gptcls.export.to_onnx import to_onnx
from gptcls.export.to_transformers import to_transformers
from gptcls.models.pretrained import load_pretrained

MESSAGE_TOKENS = 30
FEW = 64  # texts
COMMAND = "from gptcls.common.cli import main; main()"  # what the console script gptcls is
Part = Literal["one", "few", "many", "start"]
Peer = Literal["fp32", "ort", "ort-int8", "compile", "transformers", "book"]
Answering = Callable[[list[str]], np.ndarray]  # texts to probabilities (N, K)


@dataclass(frozen=True, kw_only=True)
class Options(setup.Options):
    """Classify messages side by side with ONNX Runtime, torch.compile, transformers and the book's code."""

    repeats: int = 3
    """Turns that each has; the table shows medians."""
    messages: int = 20
    """Single messages, of about 30 tokens, in each turn."""
    rows: int | None = None
    """As many messages in place of all, at evenly spaced ranks of length."""
    parts: tuple[Part, ...] = ("one", "few", "many", "start")
    """Which parts of the table to measure."""
    peers: tuple[Peer, ...] = ("fp32", "ort", "ort-int8", "compile", "transformers", "book")
    """Beside whom: fp32 is our own path in it."""
    cpu_time: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Count CPU seconds instead of the clock's: for one thread on a machine that others use as well."""


def save_ours(weights: Path, folder: Path) -> None:
    """A classifier over the weights, with a head as it is before training."""
    torch.manual_seed(setup.SEED)
    model = Classifier(load_pretrained(weights), 2).eval()
    task = SingleLabel(("ham", "spam"))
    n_positions = model.backbone.config.n_positions
    save_classifier(folder, SavedClassifier(model, task, n_positions, None, None, {}, {}))


def save_book(book: Book, weights: Path, folder: Path) -> None:
    """The book's state dict, and what its reader has to remember besides."""
    torch.save(book.model.state_dict(), folder / "review_classifier.pth")
    known = {"sizes": book_sizes(weights), "max_length": book.max_length}
    (folder / "sizes.json").write_text(json.dumps(known), encoding="utf-8")


# --- who answers ---


def batched(
    encode: Callable[[list[str]], list[list[int]]], answer: Callable[[Tensor, Tensor], np.ndarray]
) -> Answering:
    """Answers (N, K) by way of batches of similar length, ``answer(ids (B, T), lengths (B,))`` of each."""

    def probabilities(texts: list[str]) -> np.ndarray:
        rows = encode(texts)
        batches = token_budget_batches([len(row) for row in rows], token_budget(ours.CPU))
        parts = [answer(*pad([rows[i] for i in batch], pad_id=PAD_ID)) for batch in batches]
        return np.concatenate(parts)[np.argsort(np.concatenate(batches))]

    return probabilities


def onnx_runtime(folder: Path) -> Answering:
    """The folder that ``gptcls export --to onnx`` writes, tokenizer included."""
    import onnxruntime
    import tokenizers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path, providers = folder / "model.onnx", ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()

    def answer(ids: Tensor, lengths: Tensor) -> np.ndarray:
        return session.run(["probabilities"], {"ids": ids.numpy(), "lengths": lengths.numpy()})[0]

    return batched(lambda texts: [row.ids for row in tokenizer.encode_batch(texts)], answer)


def compiled(saved: SavedClassifier, dtype: torch.dtype) -> Answering:
    """``torch.compile`` of the plain network, weights laid out in advance, in the number format of ours."""
    from torch._inductor import config

    config.freezing = True
    model = torch.compile(saved.model.eval(), dynamic=True)
    narrow = partial(torch.autocast, "cpu", dtype) if dtype != torch.float32 else nullcontext

    @torch.no_grad()
    def answer(ids: Tensor, lengths: Tensor) -> np.ndarray:
        with narrow():
            logits = model(ids, lengths).float()
        return saved.outputs(logits, [""] * len(ids))

    return batched(lambda texts: saved.tokenizer.encode_rows(texts, saved.max_length), answer)


def contestants(folder: Path, at: Path, options: Options) -> dict[str, Answering]:
    """All that answer many texts; what they need is written to ``at``."""
    saved, default = read_classifier(folder), ours.default_dtype()
    everyone = {"gptcls": load_classifier(folder, "cpu").predict_proba}
    if "fp32" in options.peers and default != torch.float32:
        everyone["gptcls in fp32"] = load_classifier(folder, "cpu", precision="fp32").predict_proba
    for peer, name in (("ort", "ONNX Runtime fp32"), ("ort-int8", "ONNX Runtime int8")):
        if peer in options.peers:
            to_onnx(saved, at / peer, peer == "ort-int8")
            everyone[name] = onnx_runtime(at / peer)
    if "compile" in options.peers:
        everyone[f"torch.compile {ours.dtype_name(default)}"] = compiled(saved, default)
    if "transformers" in options.peers and options.model in PRESETS:
        to_transformers(saved, at / "transformers")
        network = HuggingFace(at / "transformers")
        everyone["transformers"] = batched(
            encode_rows, lambda ids, lengths: network.logits(ids, lengths).softmax(dim=-1).numpy()
        )
    return everyone


# --- what is measured ---


def clock_of(options: Options) -> Callable[[], float]:
    """What counts the seconds."""
    return time.process_time if options.cpu_time else time.perf_counter


def in_turn(
    everyone: dict[str, Callable], work: list, options: Options
) -> tuple[dict[str, list[float]], dict[str, list]]:
    """Seconds of each for each piece of work, and what it said, after one that does not count."""
    clock = clock_of(options)
    seconds, said = defaultdict(list), defaultdict(list)
    for answer in everyone.values():
        answer(work[0])
    for texts in work * options.repeats:
        for name, answer in everyone.items():
            gc.collect()
            start = clock()
            said[name].append(answer(texts))
            seconds[name].append(clock() - start)
    return seconds, said


def of_texts(what: str, everyone: dict[str, Answering], work: list, options: Options) -> list[Row]:
    """A row for each peer. Labels are compared with those of our own path in fp32 or, without it, of ours."""
    seconds, said = in_turn(everyone, work, options)
    exact = np.concatenate(said.get("gptcls in fp32", said["gptcls"]))
    notes = {}
    for name, found in said.items():
        if name != "book":
            joined = np.concatenate(found)
            other = int((joined.argmax(axis=1) != exact.argmax(axis=1)).sum())
            apart = f"probabilities by {abs(joined - exact).max():.1g}"
            notes[name] = f"{other} of {len(exact):,} labels differ, {apart}"
    rows = [Row(f"{what}: gptcls", float(np.median(seconds["gptcls"])), note=notes["gptcls"])]
    for name in seconds.keys() - {"gptcls"}:
        rows.append(compare(f"{what}: {name}", seconds["gptcls"], seconds[name], notes.get(name, "")))
    return sorted(rows, key=lambda row: row.peer_seconds or 0)


def starts(folder: Path, book: Path | None, text: str, options: Options) -> list[Row]:
    """Whole processes: imports, loading, one answer; beside them importing torch alone."""
    commands = {
        "gptcls": ("-c", COMMAND, "classify", "--model", str(folder), text),
        "torch": ("-c", "import torch"),
    }
    if book is not None:
        commands["book"] = ("-m", "benchmarks.first_answer", "book", str(book), text)
    # With its modules compiled, as an installed package has them.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds = defaultdict(list)
    for turn in range(1 + options.repeats):
        for name, arguments in commands.items():
            took = run_command(*arguments, env=env, cpu_time=options.cpu_time)
            if turn:  # the first one compiles modules
                seconds[name].append(took)
    named = {"torch": "import torch alone", "book": "the book"}
    return [
        compare(f"gptcls classify, from start to exit: {named[name]}", seconds["gptcls"], seconds[name])
        for name in commands.keys() - {"gptcls"}
    ]


def run(options: Options) -> None:
    """The benchmark."""
    texts = load_data(options.data)["text"].tolist()
    lengths = [len(row) for row in encode_rows(texts)]
    near = sorted(range(len(texts)), key=lambda i: abs(lengths[i] - MESSAGE_TOKENS))
    some = texts if options.rows is None else [texts[i] for i in spread(lengths, options.rows)]
    work = {
        "one": ("one text", [[texts[i]] for i in near[: options.messages]]),
        "few": (f"{FEW} texts", [[texts[i] for i in spread(lengths, FEW)]]),
        "many": (f"{len(some):,} texts", [some]),
    }
    default, book, rows = ours.dtype_name(ours.default_dtype()), None, []
    with TemporaryDirectory() as name:
        place = Path(name)
        folder = find_classifier(options.model) if options.model not in PRESETS else place / "ours"
        if options.model in PRESETS:
            weights = options.weights or setup.random_weights(options.model, place / "weights")
            save_ours(weights, folder)
            if "book" in options.peers:
                book = Book(weights, setup.book_frames(book_split(options.data)), place)
                save_book(book, weights, place)
        everyone = contestants(folder, place, options)
        for part, (what, pieces) in work.items():
            if part in options.parts:
                alone = {"book": lambda text: book.review(text[0])} if book and part == "one" else {}
                rows += of_texts(what, everyone | alone, pieces, options)
        if "start" in options.parts:
            rows += starts(folder, book and place, texts[0], options)
    peaks = {
        each: gemm_peak(DTYPES[each], clock=clock_of(options)) for each in dict.fromkeys((default, "fp32"))
    }
    report(f"Classifying with {options.model}", rows, peaks, asdict(options), options.json)


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
