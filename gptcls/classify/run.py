"""python -m gptcls.classify: label texts given, lines of standard input, or a file of any size."""

import io
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, TypeVar

import numpy as np
import tyro
from tqdm import tqdm

from gptcls.classify.answers import added_columns, answers_of, require_free, with_answers
from gptcls.classify.predict import DEFAULT_CLASSIFIER, AnswerOptions, TextClassifier
from gptcls.classify.ray_engine import RayOptions, label_with_ray
from gptcls.classify.store import BUNDLED
from gptcls.common.console import escaped, say
from gptcls.common.files import require_writable
from gptcls.common.lazy import pd
from gptcls.common.lock import locked_output
from gptcls.common.log import log
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.data.columns import columns_of, find_text_columns, text_values
from gptcls.data.encodings import LONGEST_LINE, guess_encoding
from gptcls.data.fields import without_boundary
from gptcls.data.options import TEXTS_HELP, TableOptions
from gptcls.data.readers import FORMATS, PLAIN, read_chunks, suffix_of
from gptcls.data.writer import ChunkWriter

LINES_AT_ONCE = 256
PLAIN_TABLE = TableOptions()
DATA_HELP = f"{TEXTS_HELP} With --engine ray also a folder, a pattern such as 'folder/*.parquet', or a URI."
URI = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="FILE",
    instance_from_str=lambda words: words[0] if "://" in words[0] else Path(words[0]),
    is_instance=lambda value: isinstance(value, str | Path),
    str_from_instance=lambda value: [str(value)],
)
Place = Annotated[Path | str, URI]  # on the command line a path here, or what a URI names elsewhere
AnyTexts = TypeVar("AnyTexts", bound=Any)  # a config with texts and a model
Answered = tuple["pd.DataFrame", list[str | None], np.ndarray]  # rows, their texts, their outputs (N, K)


@own_first
@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(TableOptions, AnswerOptions):
    """Label texts: the given ones, else those of --data, else the lines of standard input (UTF-8).

    Prints one line per text: its label, a tab, and the label's probability; for a blank text only the tab. Of
    several labels, both are joined with commas; of a regression, the line is its numbers with tabs between. A
    classifier that abstains prints unsure, a tab, and the probability that its answer would have been right.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts to label."""
    model: str = DEFAULT_CLASSIFIER
    data: Annotated[Place | None, tyro.conf.arg(aliases=["--input"], metavar="FILE", help=DATA_HELP)] = None
    out: Annotated[Place | None, tyro.conf.arg(aliases=["--output"], metavar="FILE")] = None
    """File for the rows of --data with a label column and a probability column for each label; of a
    regression, with a column for each number. A pipe or /dev/stdout is written 4,096 rows at a time. With
    --engine ray a folder of parts, new or empty, or a URI."""
    engine: Literal["local", "ray"] = "local"
    """What labels the rows of --data: this process, or actors of Ray, on the cores here or on a cluster."""
    escape_formulas: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """In a .csv or .tsv --out, write ' before what a spreadsheet would take for a formula (it begins with =,
    +, - or @)."""
    ray: RayOptions = field(default_factory=RayOptions)

    GROUPS: ClassVar[dict[str, str]] = {"ray": "with --engine ray"}


def classify(config: ClassifyConfig) -> None:
    """Label what ``config`` names and print the labels, or write them to ``config.out``; InputError for
    options that exclude each other and for what cannot be read, leaving no output file."""
    config, dialect = model_first(config, "--out FILE to label its rows"), config.dialect
    if config.data is not None and config.texts:
        raise InputError("give texts or --data, not both")
    if config.data is not None and config.out is None:
        raise InputError(f"--data {config.data} needs --out, the file for the labels")
    if config.data is None and config.out is not None:
        raise InputError(f"--out {config.out} goes with --data; without it the labels are printed")
    if config.data is None and (config.text_column or dialect != PLAIN):
        raise InputError("--text-column, --separator, --encoding and --columns go with --data")
    if config.out is None and config.escape_formulas:
        raise InputError("--escape-formulas goes with --data and --out")
    if config.engine == "ray":
        if config.data is None:
            raise InputError("--engine ray goes with --data and --out")
        how = config.ray, config.escape_formulas
        n = label_with_ray(config, config, config.data, config.out, *how)
        log.info(f"{n:,} rows labelled: {config.out}")
        return
    if config.ray != RayOptions():
        raise InputError("--actors, --piece, --parts and --cluster go with --engine ray")
    if uri := next((place for place in (config.data, config.out) if "://" in str(place)), None):
        raise InputError(f"{uri} is a URI, and the local engine reads files: add --engine ray")
    if config.out is not None:
        require_writable(Path(config.out), "--out")
    classifier = config.load()
    if config.data is not None:
        files = Path(config.data), Path(config.out)
        n = classify_file(classifier, *files, config, config.escape_formulas)
        log.info(f"{n:,} rows labelled: {config.out}")
        return
    answers, n_truncated = answers_of(classifier.saved.task, classifier.saved.decision), 0
    for texts in [list(config.texts)] if config.texts else arriving_lines(_standard_input()):
        outputs, n_longer = classifier.scored(list(map(without_boundary, texts)))
        for row in outputs:
            say("\t".join(map(escaped, answers.fields(row))), flush=True)
        n_truncated += n_longer
    classifier.log_truncated(n_truncated)


def model_first(config: AnyTexts, way_out: str) -> AnyTexts:
    """``classify runs/x "a text"``: a folder in front is the classifier's, where no other was named.
    InputError with a way out for a table in front: its name is hardly the text."""
    if not config.texts or config.model != DEFAULT_CLASSIFIER:
        return config
    first = config.texts[0]
    if first in BUNDLED or os.path.isdir(first):
        log.info(f"{first} is taken for --model")
        return replace(config, model=first, texts=config.texts[1:])
    if os.path.isfile(first) and suffix_of(Path(first)) in FORMATS:
        raise InputError(f"{first} is a file: give --data {first} {way_out}")
    return config


def classify_file(
    classifier: TextClassifier, source: Path, target: Path, table=PLAIN_TABLE, escape_formulas: bool = False
) -> int:
    """Label every row of a table and return how many there were; memory holds a few thousand at a time.

    The target has the source's columns and, after them, ``label`` and ``probability_<label>`` for each label
    (``predicted_label`` where the source has a ``label``). Several labels are a JSON list, a regression's
    numbers a column each. A row without text gets empty values. ``escape_formulas`` is
    :class:`gptcls.data.writer.ChunkWriter`'s. Raises InputError, leaving no target, when a value is not text,
    a column of a needed name exists, or another process writes the target.
    """
    answers, n = answers_of(classifier.saved.task, classifier.saved.decision), 0
    writer = ChunkWriter(target, source, escape_formulas)
    with locked_output(target), writer:
        for chunk, _, outputs in answered_chunks(classifier, source, table):
            if n == 0:
                added = added_columns(answers, chunk.columns)
            require_free(chunk, added, source)
            writer.write(with_answers(chunk, answers, added, outputs))
            n += len(chunk)
    return n


def answered_chunks(classifier: TextClassifier, source: Path, table: TableOptions) -> Iterator[Answered]:
    """A table piece by piece, with None and NaN where there is no text. At the end the log says how many of
    these there were, and how many texts were too long."""
    names, n_blank, n_truncated = None, 0, 0
    with tqdm(unit=" rows", delay=1, disable=None) as bar:
        for chunk in read_chunks(source, dialect=table.dialect):
            if names is None:
                asked, trained_on = table.text_column, classifier.saved.text_columns
                names = find_text_columns(chunk.columns, asked, chunk, source, trained_on)
            texts = text_values(columns_of(chunk, names, source))
            outputs, n_longer = classifier.scored(texts)
            yield chunk, texts, outputs
            n_blank += sum(text is None for text in texts)
            n_truncated += n_longer
            bar.update(len(chunk))
    if n_blank:
        log.info(f"{source}: {n_blank:,} rows have no text and get no label")
    classifier.log_truncated(n_truncated)


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("standard input is closed; give texts or --data")
    # A buffer of its own: Python aborts at its end where a thread waits in sys.stdin's.
    return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))


def arriving_lines(file: BinaryIO) -> Iterator[list[str]]:
    """The lines of UTF-8 text in ``file`` in lists: what has arrived, at most :data:`LINES_AT_ONCE`. So a
    slow source is answered line by line, and a fast one in batches. InputError at the first line that is not
    UTF-8, whatever the locale says, after the lines before it."""
    lines: Queue[str | Exception | None] = Queue(maxsize=4 * LINES_AT_ONCE)

    def read() -> None:
        try:
            for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE + 1), b""), 1):
                if len(line) > LONGEST_LINE:
                    way_out = "put a line break behind each text"
                    said = f"it has more than {LONGEST_LINE:,} bytes; {way_out}"
                    raise InputError(f"standard input, line {number}: {said}")
                lines.put(_decoded(line, f"standard input, line {number}", number == 1))
            lines.put(None)
        except Exception as error:  # it belongs to the thread that waits for lines
            lines.put(error)

    threading.Thread(target=read, daemon=True).start()
    last: str | Exception | None = ""
    while isinstance(last, str):
        arrived = [lines.get()]
        while len(arrived) < LINES_AT_ONCE and not lines.empty():
            arrived.append(lines.get())
        last = arrived[-1]
        if texts := [line for line in arrived if isinstance(line, str)]:
            yield texts
    if last is not None:
        raise last


def _decoded(line: bytes, where: str, first: bool) -> str:
    try:
        text = line.decode("utf-8-sig" if first else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        encoding = guess_encoding(line)
        way_out = f"convert it: iconv -f {encoding} -t UTF-8 texts.txt | python -m gptcls.classify …"
        raise InputError(f"{where}: not UTF-8; it looks like {encoding}; {way_out}") from None
    if "\0" in text:
        raise InputError(f"{where}: a NUL byte, so this is damaged or not UTF-8 text")
    return text
