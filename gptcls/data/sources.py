"""Labelled texts from named data sets, files and frames: a frame with the columns text and label."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import as_file, files
from itertools import chain
from pathlib import Path

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.columns import columns_of, text_values, these_rows, values_of
from gptcls.data.download import sms_spam_file
from gptcls.data.labels import Layout
from gptcls.data.readers import FORMATS, PLAIN, Dialect, read_chunks, refuse_repeats

ONE_CLASS_LAYOUT = Layout()
NAMES = ("sms-spam", "sms-sample")  # UCI's collection, downloaded once; the sample inside this package
FRAME = "the frame"  # what messages call rows in memory
SAMPLE = 4096  # rows that a guess at columns looks at


def load_data(
    name_or_path: str | Path, text_column: str | Sequence[str] | None = None, label_column: str | None = None,
    layout: Layout = ONE_CLASS_LAYOUT, dialect: Dialect = PLAIN, *,
    trained_on: Sequence[str] = (), numbered: bool = False,
) -> "pd.DataFrame":  # fmt: skip
    """Labelled texts: a frame with exactly the columns ``text`` and ``label``, both str, index 0 to N - 1.

    They come from a name in ``NAMES`` or a file: one of :data:`gptcls.data.readers.SUFFIXES`, or UCI's SMS
    format, which is known by its content. What a label's string holds is told in :mod:`gptcls.data.labels`;
    how columns are guessed in :func:`gptcls.data.columns.find_columns`. Several text columns are joined.
    ``trained_on``: the text columns of a classifier, which come before a guess.
    ``numbered``: the index is that of :func:`gptcls.data.readers.read_chunks` instead, for messages.

    Rows without text are dropped, and the log says which. Raises InputError for everything else that cannot
    be used, naming file, line and column.
    """
    if dialect != PLAIN and str(name_or_path) in NAMES:
        raise InputError(f"{name_or_path} needs none of them: leave out --separator, --encoding, --columns")
    with local_file(name_or_path) as path:
        chunks = read_chunks(path, SAMPLE, dialect)
        first = next(chunks)
        texts, labels = layout.find(text_column, label_column, first, path, trained_on)
        # Objects: what a chunk of JSON lacks stays missing, and no chunk's types change another's values.
        frame = pd.concat([_objects(chunk, [*texts, *labels]) for chunk in chain([first], chunks)])
    rows = _labelled(frame, texts, labels, layout, path)
    return rows if numbered else rows.reset_index(drop=True)


def from_frame(
    frame, text_column: str | Sequence[str] | None = None, label_column: str | None = None,
    layout: Layout = ONE_CLASS_LAYOUT, trained_on: Sequence[str] = (), *, numbered: bool = False,
) -> "pd.DataFrame":  # fmt: skip
    """:func:`load_data` for a frame in memory, with the same guesses, checks and messages.

    A label is a string or whole number; with ``Layout(LISTS)`` a list of names, or any of what a file may
    hold; with ``Layout(NUMBERS)`` a number or a dict of them. NaN and None are missing values. Messages name
    rows by the frame's own index.

    >>> import pandas as pd
    >>> from_frame(pd.DataFrame({"message": ["see you", "win a prize"], "class": [0, 1]}))
              text label
    0      see you     0
    1  win a prize     1
    """
    require_names(frame)
    if frame.empty:
        raise InputError(f"{FRAME} has no rows: at least one is needed")
    sample = _objects(frame[:SAMPLE], list(frame.columns))
    texts, labels = layout.find(text_column, label_column, sample, FRAME, trained_on)
    rows = _objects(frame, [*texts, *labels])
    rows.index = frame.index.to_flat_index().rename("row")
    rows = _labelled(rows, texts, labels, layout, FRAME)
    return rows if numbered else rows.reset_index(drop=True)


def require_names(frame: "pd.DataFrame") -> None:
    """Raise InputError for columns that a file could not have: not named by strings, or one name twice."""
    if other := [name for name in frame.columns if not isinstance(name, str)]:
        raise InputError(f"{FRAME}: column {other[0]!r} is not named by a string; rename it")
    refuse_repeats(list(frame.columns), FRAME)


def labelled_frame(texts: list[str], labels: list[str]) -> "pd.DataFrame":
    """The frame that every function of this package passes on."""
    return pd.DataFrame({"text": texts, "label": labels}, dtype=str)


def _objects(frame: "pd.DataFrame", columns: list[str]) -> "pd.DataFrame":
    """These columns as plain Python values, None where one is missing."""
    values = {name: list(map(_plain, values_of(frame, name))) for name in columns}
    return pd.DataFrame(values, frame.index, dtype=object)


def _plain(value: object) -> object:
    """NumPy's arrays and numbers, tuples and sets as Python's lists and numbers; all else as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(map(_plain, value)) if isinstance(value, list | tuple | set) else value


def _labelled(frame, names: Sequence[str], labels: list[str], layout: Layout, source) -> "pd.DataFrame":
    """The rows that have text, as :func:`labelled_frame`, under their own index."""
    texts = text_values(columns_of(frame, names, source))
    has_text = [value is not None for value in texts]
    where = f"column{'s' * (len(names) > 1)} {' and '.join(map(repr, names))}"
    if not any(has_text):
        raise InputError(f"{source}: no row has text in {where}; choose another --text-column")
    if not all(has_text):
        blank = frame.index[[not has for has in has_text]]
        log.info(f"{source}: no text in {where} in {these_rows(blank, blank.name)}: dropped")
        frame = frame[has_text]
    found = layout.read(columns_of(frame, labels, source))
    return labelled_frame(list(filter(None, texts)), found).set_index(frame.index)


@contextmanager
def local_file(name_or_path: str | Path) -> Iterator[Path]:
    """The file behind a data set's name or a path; "sms-spam" is downloaded if it has not been yet."""
    path = sms_spam_file() if str(name_or_path) == "sms-spam" else Path(name_or_path)
    if str(name_or_path) == "sms-sample":
        with as_file(files("gptcls") / "assets" / "sms_sample.tsv") as path:
            yield path
    elif path.exists():
        yield path
    else:
        raise InputError(f"{path}: no such file{_hint(path.parent, path.name)}")


def _hint(folder: Path, name: str) -> str:
    if not folder.is_dir():
        return f", and no folder {folder}"
    around = [file.name for file in folder.iterdir() if file.suffix.lower() in FORMATS]
    near = difflib.get_close_matches(name, around + (list(NAMES) if str(folder) == "." else []), n=1)
    way_out = f"did you mean {near[0]!r}?" if near else f"give a file, or one of {', '.join(NAMES)}"
    return f" or data set; {way_out}"
