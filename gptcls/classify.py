"""python -m gptcls.classify: label texts given, lines of standard input, or a file of any size."""

import io
import logging
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import numpy as np
import tyro
from tqdm import tqdm

from gptcls import cli
from gptcls.data.columns import find_text_column, text_values, values_of
from gptcls.data.files import PLAIN, Dialect, guess_encoding
from gptcls.data.stream import ChunkWriter, read_chunks
from gptcls.errors import InputError
from gptcls.predict import DEFAULT_CLASSIFIER, TextClassifier, load_classifier

log = logging.getLogger("gptcls")
LINES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Label texts: the given ones, else those of --data, else the lines of standard input (UTF-8).

    Prints one line a text: its label, a tab, and the label's probability; for a blank text only the tab.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts to label."""
    model: str = DEFAULT_CLASSIFIER
    """Folder that gptcls.train left: a run, or the classifier inside it; or sms-spam-nano, which ships with
    this package."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--input"], metavar="FILE")] = None
    """File of texts (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection); read piece by piece."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["--output"], metavar="FILE")] = None
    """File for the rows of --data with a label column and a probability column for each label."""
    text_column: str | None = None
    """Column with the text; guessed where only one can be meant."""
    separator: str | None = None
    """Character between the fields of --data, such as ';', or tab; otherwise by its suffix. --out is written
    by its own suffix."""
    encoding: str | None = None
    """Encoding of --data, such as cp1252 or gb18030; otherwise UTF-8. --out is UTF-8."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of all blocks but the last; auto takes the fastest that the processor has."""


def classify(config: ClassifyConfig) -> None:
    """Label what ``config`` names and print the labels, or write them to ``config.out``.

    Raises InputError for options that exclude each other, a folder without a classifier, a file or column
    that cannot be read, and a line that is not UTF-8; an unfinished output file is removed.
    """
    if config.data is not None:
        if config.texts:
            raise InputError("give texts or --data, not both")
        if config.out is None:
            raise InputError(f"--data {config.data} needs --out, the file for the labels")
    elif config.out is not None:
        raise InputError(f"--out {config.out} goes with --data; without it the labels are printed")
    dialect = Dialect(config.separator, config.encoding)
    if config.data is None and dialect != PLAIN:
        raise InputError("--separator and --encoding go with --data")
    classifier = load_classifier(config.model, config.device, config.precision)
    if config.data is not None:
        n = classify_file(classifier, config.data, config.out, config.text_column, dialect)
        log.info(f"{n:,} rows labelled: {config.out}")
        return
    n_cut = 0
    for texts in [list(config.texts)] if config.texts else arriving_lines(_standard_input()):
        labels, probabilities, n_longer = _label(classifier, texts)
        for label, row in zip(labels, probabilities, strict=True):
            print("\t" if label is None else f"{label}\t{row.max():.4f}", flush=True)
        n_cut += n_longer
    classifier.say_longer(n_cut)


def classify_file(
    classifier: TextClassifier,
    source: Path,
    target: Path,
    text_column: str | None = None,
    dialect: Dialect = PLAIN,
) -> int:
    """Label every row of a table and return how many there were; memory holds a few thousand at a time.

    The target has the source's columns and, after them, ``label`` and ``probability_<label>`` for each label
    (``predicted_label`` where the source has a ``label`` already). A row without text gets empty values, and
    the log says how many did. Raises InputError, leaving no target, when a value is no text or a column of a
    needed name exists.
    """
    import pandas as pd

    n = n_blank = n_cut = 0
    with (
        ChunkWriter(target, source=source) as writer,
        tqdm(unit=" rows", delay=1, disable=None) as bar,
    ):
        for chunk in read_chunks(source, dialect=dialect):
            if n == 0:
                column = find_text_column(chunk.columns, text_column, chunk, source)
                label_column = "label" if "label" not in chunk.columns else "predicted_label"
                added = [label_column, *(f"probability_{label}" for label in classifier.labels)]
            if taken := [name for name in added if name in chunk.columns]:
                rows = f"{chunk.index.name}s {chunk.index[0]} to {chunk.index[-1]}"
                raise InputError(f"{source} has a column {taken[0]!r} already (in {rows}); rename it first")
            texts = text_values(values_of(chunk, column), chunk.index, column, source)
            labels, probabilities, n_longer = _label(classifier, texts)
            # The first chunk's types are those of a Parquet file, and all of its texts may be blank.
            columns = [pd.array(labels, dtype="string"), *probabilities.round(6).T]
            writer.write(chunk.assign(**dict(zip(added, columns, strict=True))))
            n += len(chunk)
            n_blank += labels.count(None)
            n_cut += n_longer
            bar.update(len(chunk))
    if n_blank:
        log.info(f"{source}: {n_blank:,} rows have no text; their labels are left empty")
    classifier.say_longer(n_cut)
    return n


def _label(classifier: TextClassifier, texts: list[str | None]) -> tuple[list[str | None], np.ndarray, int]:
    """Labels (N) and probabilities (N, K) of N texts, None and NaN for those that are blank or None; and how
    many texts are longer than what is read of one."""
    there = [i for i, text in enumerate(texts) if text and text.strip()]
    labels: list[str | None] = [None] * len(texts)
    probabilities = np.full((len(texts), len(classifier.labels)), np.nan)
    probabilities[there], n_longer = classifier.scored([texts[i] for i in there])
    for i in there:
        labels[i] = classifier.labels[probabilities[i].argmax()]
    return labels, probabilities, n_longer


def _standard_input() -> BinaryIO:
    """Its bytes, with a buffer of their own: Python aborts at its end where a thread waits in sys.stdin's."""
    if sys.stdin is None:
        raise InputError("standard input is closed; give texts or --data")
    return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))


def arriving_lines(file: BinaryIO) -> Iterator[list[str]]:
    """The lines of UTF-8 text in ``file`` in lists: what has arrived, at most :data:`LINES_AT_ONCE`.

    So a slow source is answered line by line, and a fast one in batches. Raises InputError at the first line
    that is not UTF-8, whatever the locale says, after the lines before it.
    """
    lines: queue.Queue[str | Exception | None] = queue.Queue(maxsize=4 * LINES_AT_ONCE)

    def read() -> None:
        try:
            for number, line in enumerate(file, 1):
                lines.put(_decoded(line, number))
        except Exception as error:  # it belongs to the thread that waits for lines
            lines.put(error)
        else:
            lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    end = False
    while not end:
        arrived = [lines.get()]
        while len(arrived) < LINES_AT_ONCE and not lines.empty():
            arrived.append(lines.get())
        if end := not isinstance(arrived[-1], str):
            error = arrived.pop()
        if arrived:
            yield arrived
    if error is not None:
        raise error


def _decoded(line: bytes, number: int) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        encoding = guess_encoding(line)
        raise InputError(
            f"standard input, line {number}: not UTF-8; it looks like {encoding}. "
            f"Convert it: iconv -f {encoding} -t UTF-8 texts.txt | python -m gptcls.classify …"
        ) from None
    if "\0" in text:
        raise InputError(f"standard input, line {number}: a NUL byte, so this is damaged or not UTF-8 text")
    return text


def main() -> None:
    """The command line."""
    cli.run(ClassifyConfig, classify)


if __name__ == "__main__":
    main()
