"""python -m gptcls.classify: label texts given, lines of standard input, or a file of any size."""

import logging
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import tyro

from gptcls import cli
from gptcls.data.columns import find_text_column, text_values, values_of
from gptcls.data.stream import ChunkWriter, read_chunks
from gptcls.errors import InputError
from gptcls.predict import TextClassifier, load_classifier

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("gptcls")
LINES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Label texts: the given ones, else those of --input, else the lines of standard input.

    Prints one line a text: its label, a tab, and the label's probability.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts to label."""
    model: Path
    """Folder that gptcls.train left: a run, or the classifier inside it."""
    input: Path | None = None
    """File of texts (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection); read piece by piece."""
    output: Path | None = None
    """File for the rows of --input with a label column and a probability column for each label."""
    text_column: str | None = None
    """Column with the text; guessed where only one can be meant."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


def classify(config: ClassifyConfig) -> None:
    """Label what ``config`` names and print the labels, or write them to ``config.output``.

    Raises InputError for options that exclude each other, a folder without a classifier, and a file or
    column that cannot be read; an unfinished output file is removed.
    """
    if config.input is not None:
        if config.texts:
            raise InputError("give texts or --input, not both")
        if config.output is None:
            raise InputError(f"--input {config.input} needs --output, the file for the labels")
    elif config.output is not None:
        raise InputError(f"--output {config.output} goes with --input; without it the labels are printed")
    classifier = load_classifier(config.model, config.device)
    if config.input is not None:
        n = classify_file(classifier, config.input, config.output, config.text_column)
        log.info(f"{n:,} rows labelled: {config.output}")
    elif config.texts:
        _print_labels(classifier, list(config.texts))
    else:
        for lines in arriving_lines(sys.stdin):
            _print_labels(classifier, lines)


def classify_file(
    classifier: TextClassifier, source: Path, target: Path, text_column: str | None = None
) -> int:
    """Label every row of a table and return how many there were; memory holds a few thousand at a time.

    The target has the source's columns and, after them, ``label`` and ``probability_<label>`` for each label
    (``predicted_label`` where the source has a ``label`` already). A row without text gets empty values, and
    the log says how many did. Raises InputError, leaving no target, when a value is no text or a column of a
    needed name exists.
    """
    n = n_blank = 0
    with ChunkWriter(target, source=source) as writer:
        for chunk in read_chunks(source):
            if n == 0:
                column = find_text_column(chunk.columns, text_column, chunk, source)
                label_column = "label" if "label" not in chunk.columns else "predicted_label"
                added = [label_column, *(f"probability_{label}" for label in classifier.labels)]
                if taken := [name for name in added if name in chunk.columns]:
                    raise InputError(f"{source} has a column {taken[0]!r} already; rename it first")
            labels, probabilities = _label_chunk(classifier, chunk, column, source)
            columns = [labels, *probabilities.round(6).T]
            writer.write(chunk.assign(**dict(zip(added, columns, strict=True))))
            n += len(chunk)
            n_blank += labels.count(None)
    if n_blank:
        log.info(f"{source}: {n_blank:,} rows have no text; their labels are left empty")
    return n


def _label_chunk(
    classifier: TextClassifier, chunk: "pd.DataFrame", column: str, source: Path
) -> tuple[list[str | None], np.ndarray]:
    """Labels (N) and probabilities (N, K) of a frame's rows; None and NaN for those without text."""
    values = values_of(chunk, column)
    there = [
        i
        for i, value in enumerate(values)
        if not (value is None or (isinstance(value, str) and not value.strip()))
    ]
    texts = text_values([values[i] for i in there], chunk.index[there], column, source)
    labels: list[str | None] = [None] * len(values)
    probabilities = np.full((len(values), len(classifier.labels)), np.nan)
    if texts:
        probabilities[there] = classifier.predict_proba(texts)
        for i in there:
            labels[i] = classifier.labels[probabilities[i].argmax()]
    return labels, probabilities


def arriving_lines(file: TextIO) -> Iterator[list[str]]:
    """The non-empty lines of ``file`` in lists: what has arrived, at most :data:`LINES_AT_ONCE`.

    So a slow source is answered line by line, and a fast one in batches.
    """
    lines: queue.Queue[str | None] = queue.Queue(maxsize=4 * LINES_AT_ONCE)

    def read() -> None:
        for line in file:
            if line.strip():
                lines.put(line.rstrip("\r\n"))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get()) is not None:
        batch = [line]
        while len(batch) < LINES_AT_ONCE and not lines.empty():
            if (line := lines.get()) is None:
                yield batch
                return
            batch.append(line)
        yield batch


def _print_labels(classifier: TextClassifier, texts: list[str]) -> None:
    for row in classifier.predict_proba(texts):
        print(f"{classifier.labels[row.argmax()]}\t{row.max():.4f}", flush=True)


def main() -> None:
    """The command line."""
    cli.run(ClassifyConfig, classify)


if __name__ == "__main__":
    main()
