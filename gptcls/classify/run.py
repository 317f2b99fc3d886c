"""python -m gptcls.classify: label texts given, lines of standard input, or a file of any size."""

import io
import logging
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import numpy as np
import tyro
from tqdm import tqdm

from gptcls.classify.predict import DEFAULT_CLASSIFIER, TextClassifier, load_classifier
from gptcls.core.errors import InputError
from gptcls.data.columns import find_text_column, text_values, values_of
from gptcls.data.encodings import guess_encoding
from gptcls.data.readers import PLAIN, Dialect, read_chunks
from gptcls.data.writer import ChunkWriter

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("gptcls")
LINES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Label texts: the given ones, else those of --data, else the lines of standard input (UTF-8).

    Prints one line a text: its label, a tab, and the label's probability; for a blank text only the tab. Of
    several labels, both are joined with commas; of a regression, the line is its numbers with tabs between.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts to label."""
    model: str = DEFAULT_CLASSIFIER
    """Folder that gptcls.train left: a run, or the classifier inside it; or sms-spam-nano, which ships with
    this package."""
    data: Annotated[Path | None, tyro.conf.arg(aliases=["--input"], metavar="FILE")] = None
    """File of texts (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection); read piece by piece."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["--output"], metavar="FILE")] = None
    """File for the rows of --data with a label column and a probability column for each label; of a
    regression, with a column for each number."""
    text_column: str | None = None
    """Column with the text; guessed where only one can be meant."""
    separator: str | None = None
    """Character between the fields of --data, such as ';', or tab; otherwise by its suffix. --out is written
    by its own suffix."""
    encoding: str | None = None
    """Encoding of --data, such as cp1252 or gb18030; otherwise UTF-8. --out is UTF-8."""
    columns: tuple[str, ...] = ()
    """Names of its columns, for a .csv, .tsv or tab-separated .txt file without a header line."""
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
    dialect = Dialect(config.separator, config.encoding, config.columns)
    if config.data is None and dialect != PLAIN:
        raise InputError("--separator, --encoding and --columns go with --data")
    classifier = load_classifier(config.model, config.device, config.precision)
    if config.data is not None:
        n = classify_file(classifier, config.data, config.out, config.text_column, dialect)
        log.info(f"{n:,} rows labelled: {config.out}")
        return
    n_cut = 0
    for texts in [list(config.texts)] if config.texts else arriving_lines(_standard_input()):
        outputs, n_longer = _outputs(classifier, texts)
        for row in outputs:
            print("\t".join(classifier.saved.task.printed(row)), flush=True)
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
    (``predicted_label`` where the source has a ``label`` already). Several labels are a JSON array, and the
    numbers of a regression a column each, named likewise. A row without text gets empty values, and the log
    says how many did. The ``dialect`` says how the source is written. Raises InputError, leaving no target,
    when a value is no text or a column of a needed name exists.
    """
    task = classifier.saved.task
    n = n_blank = n_cut = 0
    with (
        ChunkWriter(target, source=source) as writer,
        tqdm(unit=" rows", delay=1, disable=None) as bar,
    ):
        for chunk in read_chunks(source, dialect=dialect):
            if n == 0:
                column = find_text_column(chunk.columns, text_column, chunk, source)
                names = set(chunk.columns)
                answers = [f"predicted_{name}" if name in names else name for name in task.answer_columns]
                added = [*answers, *task.detail_columns]
            if taken := [name for name in added if name in chunk.columns]:
                rows = f"{chunk.index.name}s {chunk.index[0]} to {chunk.index[-1]}"
                raise InputError(f"{source} has a column {taken[0]!r} already (in {rows}); rename it first")
            texts = text_values(values_of(chunk, column), chunk.index, column, source)
            outputs, n_longer = _outputs(classifier, texts)
            details = outputs.round(6).T if task.detail_columns else ()
            values = [*map(_column, task.answers(outputs)), *details]
            writer.write(chunk.assign(**dict(zip(added, values, strict=True))))
            n += len(chunk)
            n_blank += int(np.isnan(outputs).any(axis=1).sum())
            n_cut += n_longer
            bar.update(len(chunk))
    if n_blank:
        log.info(f"{source}: {n_blank:,} rows have no text; their labels are left empty")
    classifier.say_longer(n_cut)
    return n


def _outputs(classifier: TextClassifier, texts: list[str | None]) -> tuple[np.ndarray, int]:
    """The outputs (N, K) of N texts, NaN for those that are blank or None; and how many texts are longer than
    what is read of one."""
    there = [i for i, text in enumerate(texts) if text and text.strip()]
    outputs = np.full((len(texts), len(classifier.labels)), np.nan)
    outputs[there], n_longer = classifier.scored([texts[i] for i in there])
    return outputs, n_longer


def _column(answers: Sequence) -> "pd.Series | Sequence":
    """Answers that are text as such: the first chunk's types are those of a Parquet file, and all of its
    texts may be blank."""
    import pandas as pd

    return answers if isinstance(answers, np.ndarray) else pd.array(answers, dtype="string")


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
