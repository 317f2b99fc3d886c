"""Named data sets and files -> a frame with the columns text and label."""

import difflib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from gptcls.core.errors import InputError
from gptcls.data.columns import text_values, these_rows, values_of
from gptcls.data.download import sms_spam_file
from gptcls.data.labels import Layout
from gptcls.data.readers import FORMATS, PLAIN, Dialect, read_chunks

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("gptcls")


ONE_CLASS_LAYOUT = Layout()


NAMES = ("sms-spam", "sms-sample")  # UCI's collection, downloaded once; the sample inside this package


def load_data(
    name_or_path: str | Path,
    text_column: str | None = None,
    label_column: str | None = None,
    layout: Layout = ONE_CLASS_LAYOUT,
    dialect: Dialect = PLAIN,
) -> "pd.DataFrame":
    """Labelled texts: a frame with exactly the columns ``text`` and ``label``, both str, index 0 to N - 1.

    What a label's string holds, for lists and numbers too, is told in :mod:`gptcls.data.labels`.

    Args:
        name_or_path: a name in ``NAMES``, or a file: .csv, .tsv, .jsonl or .parquet (.gz may follow the first
            three), or UCI's SMS format, which is known by its content.
        text_column: column of the texts; guessed where that is unambiguous, see
            :func:`gptcls.data.columns.find_text_column`.
        label_column: column of the labels, likewise.
        layout: where the labels stand and how they are written.
        dialect: separator, encoding and columns of a file that is not written as its suffix says.

    Rows without text are dropped, and the log says which. Raises InputError for everything else that cannot
    be used, naming file, line and column.
    """
    return load_numbered(name_or_path, text_column, label_column, layout, dialect).reset_index(drop=True)


def load_numbered(
    name_or_path: str | Path,
    text_column: str | None = None,
    label_column: str | None = None,
    layout: Layout = ONE_CLASS_LAYOUT,
    dialect: Dialect = PLAIN,
) -> "pd.DataFrame":
    """:func:`load_data`, but the index is that of :func:`gptcls.data.readers.read_chunks`, for messages."""
    import pandas as pd

    if dialect != PLAIN and str(name_or_path) in NAMES:
        raise InputError(
            f"--separator, --encoding and --columns go with a file; {name_or_path} needs none of them"
        )
    texts, values, rows = [], {}, []
    with local_file(name_or_path) as path:
        for chunk in read_chunks(path, dialect=dialect):
            if not rows:
                text, label_columns = layout.find(text_column, label_column, chunk, path)
                values = {column: [] for column in label_columns}
            texts += values_of(chunk, text)
            for column in label_columns:
                values[column] += values_of(chunk, column)
            rows += chunk.index.tolist()
    index = pd.Index(rows, name=chunk.index.name)
    texts = text_values(texts, index, text, path)
    there = [i for i, value in enumerate(texts) if value is not None]
    if not there:
        raise InputError(f"{path}: no row has text in column {text!r}; choose another --text-column")
    if len(there) < len(texts):
        blank = [n for n, value in zip(rows, texts, strict=True) if value is None]
        log.info(f"{path}: no text in column {text!r} in {these_rows(blank, index.name)}: dropped")
        texts, index = [texts[i] for i in there], index[there]
        values = {column: [cells[i] for i in there] for column, cells in values.items()}
    return labelled_frame(texts, layout.read(values, index, path)).set_index(index)


def labelled_frame(texts: list[str], labels: list[str]) -> "pd.DataFrame":
    """The frame that every function of this package passes on."""
    import pandas as pd

    return pd.DataFrame({"text": texts, "label": labels}, dtype=str)


@contextmanager
def local_file(name_or_path: str | Path) -> Iterator[Path]:
    """The file behind a data set's name or a path; "sms-spam" is downloaded if it has not been yet."""
    if str(name_or_path) == "sms-spam":
        yield sms_spam_file()
    elif str(name_or_path) == "sms-sample":
        with as_file(files("gptcls") / "assets" / "sms_sample.tsv") as path:
            yield path
    else:
        path = Path(name_or_path)
        if not path.exists():
            raise _absent(path)
        yield path


def _absent(path: Path) -> InputError:
    folder = path.parent
    if not folder.is_dir():
        return InputError(f"{path}: no such file, and no folder {folder}")
    around = [file.name for file in folder.iterdir() if file.suffix.lower() in FORMATS]
    names = around + (list(NAMES) if str(folder) == "." else [])
    near = difflib.get_close_matches(path.name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; give a file, or one of {', '.join(NAMES)}"
    return InputError(f"{path}: no such file or data set{hint}")
