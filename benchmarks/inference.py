"""python -m benchmarks.inference: scoring many messages, one message, and the first answer of a process.

Many: every message of the collection, against transformers in the usual loop (batches of 32 in file order,
padded to the longest of each). One: a message of about 30 tokens, against the book's ``classify_review``,
which pads it to the longest training text. Texts go in, tokenizing is inside every clock.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch

from benchmarks import ours, setup
from benchmarks.book import Book, book_sizes
from benchmarks.huggingface import HuggingFace
from benchmarks.measure import DTYPES, Row, Stopwatch, compare, gemm_peak, report, run_alone, scaled, spread
from gptcls import (
    TextClassifier,
    load_classifier,
)
from gptcls.classify.store import SavedClassifier, save_classifier
from gptcls.common import cli
from gptcls.core.classifier import Classifier
from gptcls.core.task import SingleLabel
from gptcls.core.tokenizer import encode_rows
from gptcls.data.book import book_split
from gptcls.data.sources import load_data
from gptcls.models.pretrained import load_pretrained

MESSAGE_TOKENS = 30
Part = Literal["many", "one", "start"]


@dataclass(frozen=True, kw_only=True)
class Options(setup.PeerOptions):
    """Classify messages side by side with the book's code and with transformers."""

    batch_size: int = 32
    """Texts a batch of transformers."""
    messages: int = 20
    """Single messages, of about 30 tokens, in each turn."""
    precisions: tuple[str, ...] = ()
    """Number formats of ours; otherwise the default of this processor and fp32."""
    parts: tuple[Part, ...] = ("many", "one", "start")
    """Which parts of the table to measure."""


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


def transformers_seconds(peer: HuggingFace, texts: Sequence[str], options: Options) -> float:
    """Seconds for all texts, scaled from some batches unless all are asked for."""
    size = options.batch_size
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    widths = [max(map(len, encode_rows(batch))) for batch in batches]
    picked = range(len(batches)) if options.full else spread(widths, options.peer_batches)
    peer.logits(encode_rows(batches[0]))  # warm
    seconds = []
    for i in picked:
        with Stopwatch() as watch:
            peer.logits(encode_rows(batches[i])).argmax(dim=-1).tolist()
        seconds.append(watch.seconds)
    return scaled(seconds, len(batches))


def many(
    classifiers: dict[str, TextClassifier], peer: HuggingFace, texts: list[str], options: Options
) -> tuple[list[Row], dict[str, float]]:
    """Rows for all texts, and the GEMM peaks."""
    seconds: dict[str, list[float]] = defaultdict(list)
    peaks: dict[str, float] = {}
    probabilities = {}
    for _ in range(options.repeats):
        for name, classifier in classifiers.items():
            with Stopwatch() as watch:
                probabilities[name] = classifier.predict_proba(texts)
            seconds[name].append(watch.seconds)
            if name in DTYPES:
                peaks[name] = max(peaks.get(name, 0.0), gemm_peak(DTYPES[name]))
        seconds["peer"].append(transformers_seconds(peer, texts, options))
    tokens = sum(map(len, encode_rows(texts)))
    n_embd = peer.model.config.n_embd
    # The last block is left out: it runs at one position of each text.
    flops = ours.block_flops(n_embd) * (peer.model.config.n_layer - 1) * tokens
    rows = []
    for name in classifiers:
        row = compare(
            f"{len(texts):,} messages: transformers / ours ({name})", seconds[name], seconds["peer"]
        )
        share = flops / row.seconds / peaks[name] if name in peaks else None
        rows.append(replace(row, tokens_per_second=tokens / row.seconds, gemm_share=share))
    exact = probabilities.pop("fp32", None)
    if exact is not None:
        rows += [agreement(name, values, exact) for name, values in probabilities.items()]
    return rows, peaks


def agreement(name: str, probabilities: np.ndarray, exact: np.ndarray) -> Row:
    """What a narrow format changes in the probabilities (N, 2)."""
    equal = int((probabilities.argmax(1) == exact.argmax(1)).sum())
    largest = abs(probabilities - exact).max()
    note = f"{equal:,} of {len(exact):,} labels equal, probabilities differ by up to {largest:.1g}"
    return Row(f"answers {name} / fp32", note=note)


def one(classifiers: dict[str, TextClassifier], book: Book, texts: list[str], options: Options) -> list[Row]:
    """Rows for one message at a time."""
    by_nearness = sorted(texts, key=lambda text: abs(len(encode_rows([text])[0]) - MESSAGE_TOKENS))
    messages = by_nearness[: options.messages]
    everyone = {name: classifier.predict for name, classifier in classifiers.items()} | {"book": book.review}
    for predict in everyone.values():  # warm
        predict(messages[0])
    seconds: dict[str, list[float]] = defaultdict(list)
    for message in messages * options.repeats:
        for name, predict in everyone.items():
            with Stopwatch() as watch:
                predict(message)
            seconds[name].append(watch.seconds)
    what = f"one message, warm: the book (padded to {book.max_length}) / ours"
    return [compare(f"{what} ({name})", seconds[name], seconds["book"]) for name in classifiers]


def first_answer(folder: Path, text: str, options: Options) -> Row:
    """A whole process: imports, loading, one answer."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeats):
        for who in ("ours", "book"):
            seconds[who].append(run_alone("benchmarks.first_answer", who, str(folder / who), text)["wall"])
    return compare("import, load, first answer: the book / ours", seconds["ours"], seconds["book"])


def import_row(options: Options) -> Row:
    """What ``import gptcls`` adds to importing torch."""
    seconds = [run_alone("benchmarks.first_answer", "import")["seconds"] for _ in range(options.repeats)]
    return Row("import gptcls, beyond importing torch", median(seconds))


def run(options: Options) -> None:
    """The benchmark."""
    texts = load_data(options.data)["text"].tolist()
    default = ours.dtype_name(ours.default_dtype())
    with setup.workspace(options) as (folder, weights):
        for who in ("ours", "book"):
            (folder / who).mkdir()
        save_ours(weights, folder / "ours")
        book = Book(weights, setup.book_frames(book_split(options.data)), folder)
        save_book(book, weights, folder / "book")
        precisions = options.precisions or dict.fromkeys((default, "fp32"))  # distinct, in this order
        classifiers = {name: load_classifier(folder / "ours", "cpu", precision=name) for name in precisions}
        rows, peaks = [], {}
        if "many" in options.parts:
            rows, peaks = many(classifiers, HuggingFace(weights), texts, options)
        if "one" in options.parts:
            rows += one(classifiers, book, texts, options)
        if "start" in options.parts:
            rows += [first_answer(folder, texts[0], options), import_row(options)]
        report(f"Classifying with {options.model}", rows, peaks, asdict(options), options.json)


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
