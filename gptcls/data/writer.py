"""Tables to files, of any size: frames one after another, and nothing half-written stays."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

from gptcls.common.files import atomic_file, is_stream, open_number
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.columns import values_of
from gptcls.data.encodings import COMPRESSED
from gptcls.data.readers import pyarrow_for, suffix_of

Write = Callable[["pd.DataFrame"], None]
# What Excel and LibreOffice take for a formula (https://owasp.org/www-community/attacks/CSV_Injection).
FORMULA = re.compile("[=+@\t\r\n\uff1d\uff0b\uff0d\uff20-]")
NUMBER = re.compile(r"[+-]?(\d[\d.,]*|\.\d+)(e[+-]?\d+)?%?", re.IGNORECASE)


class ChunkWriter:
    """Write frames one after another to one file, whose suffix gives the format: :data:`WRITERS`.

        with ChunkWriter("labelled.csv", source="texts.csv") as writer:
            for chunk in read_chunks("texts.csv"):
                writer.write(chunk.assign(label=…))

    After an error what stood there before stays. The index is not written. A pipe or ``/dev/stdout`` without
    a suffix has the source's format, or CSV. With ``escape_formulas`` the cells and column names of a CSV or
    TSV file that a spreadsheet would take for formulas begin with ``'``; with False the log says at the end
    how many there are; with None, of files that programs read, nothing is looked at.

    Raises InputError when the target is a folder, of an unknown format, or the ``source`` itself, and when a
    frame has other columns than the first (JSON lines may vary); OSError when the disk refuses.
    """

    write: Write  # appends the rows of a frame

    def __init__(
        self, path: str | Path, source: str | Path | None = None, escape_formulas: bool | None = None
    ) -> None:
        self.path, self.suffix, self.n_formulas = Path(path), suffix_of(Path(path)), 0
        streams = is_stream(self.path)
        if streams and self.suffix not in WRITERS:
            theirs = suffix_of(Path(source)) if source is not None else ""
            self.suffix = theirs if theirs in WRITERS else ".csv"
        if self.suffix not in WRITERS:
            said = f"{self.path}: unknown format {self.path.suffix!r} to write"
            raise InputError(f"{said}; give {', '.join(WRITERS)}")
        if streams and self.suffix == ".parquet":
            raise InputError(f"{self.path}: a Parquet file cannot be streamed; give .csv or .jsonl")
        self.escape_formulas = escape_formulas if self.suffix in DELIMITED else None
        if escape_formulas and self.escape_formulas is None:
            raise InputError(f"--escape-formulas goes with {', '.join(DELIMITED)}, and {self.path} has none")
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder: give the name of a file to write")
        if source is not None and self.path.exists() and self.path.samefile(source):
            raise InputError(f"{self.path} is the input itself: give the output another name")

    def __enter__(self) -> "ChunkWriter":
        with ExitStack() as stack:
            part = stack.enter_context(atomic_file(self.path))
            write = stack.enter_context(WRITERS[self.suffix](part, self.path))
            self.write = write
            if self.escape_formulas is not None:
                self.write = lambda frame: write(self._without_formulas(frame))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> bool | None:
        handled = self._stack.__exit__(*error)
        if self.n_formulas and not self.escape_formulas and error[0] is None:
            said = f"cells that a spreadsheet would take for formulas: {self.n_formulas:,}"
            log.info(f"{self.path}: {said}; --escape-formulas makes them text")
        return handled

    def _without_formulas(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Count them; with :attr:`escape_formulas`, a copy in which they are text."""
        result = frame.copy(deep=False)
        for name in frame.columns:
            found = [is_formula(value) for value in frame[name]]
            self.n_formulas += sum(found)
            if self.escape_formulas and any(found):
                result[name] = pd.Series(map(as_text, frame[name]), frame.index, object)
        if self.escape_formulas:
            result.columns = map(as_text, frame.columns)
        return result


def is_formula(value: object) -> bool:
    """Whether a spreadsheet would compute a cell instead of showing it.

    >>> [is_formula(value) for value in ("=1+1", "-5", "- 5", "@you", "x=1", -5.0)]
    [True, False, True, True, False, False]
    """
    return isinstance(value, str) and bool(FORMULA.match(value)) and not NUMBER.fullmatch(value)


def as_text(value: Any) -> Any:
    """A cell with ``'`` in front where it :func:`is_formula`."""
    return f"'{value}" if is_formula(value) else value


@contextmanager
def delimited_writer(part: Path, path: Path, separator: str) -> Iterator[Write]:
    """Fields in quotes where they need them (RFC 4180), so that reading gives the same strings."""
    columns = None

    def write(frame: "pd.DataFrame") -> None:
        nonlocal columns
        if columns is None:
            rows.writerow(frame.columns)
        columns = _same_columns(frame, columns, path)
        rows.writerows(zip(*(values_of(frame, name) for name in columns), strict=True))

    with _open_to_write(part) as file:
        # Rows end with a line feed, but csv quotes a lone carriage return only if its row end has one.
        target = SimpleNamespace(write=lambda row: file.write(row[:-2] + "\n"))
        rows = csv.writer(target, delimiter=separator, lineterminator="\r\n")
        yield write


@contextmanager
def json_lines_writer(part: Path, path: Path) -> Iterator[Write]:
    """One JSON object per row."""

    def write(frame: "pd.DataFrame") -> None:
        for row in zip(*(values_of(frame, name) for name in frame.columns), strict=True):
            record = dict(zip(frame.columns, row, strict=True))
            file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    with _open_to_write(part) as file:
        yield write


@contextmanager
def parquet_writer(part: Path, path: Path) -> Iterator[Write]:
    """Parquet, through pyarrow; the first frame's types are those of the file."""
    pa, pq = pyarrow_for(path)
    columns = file = None

    def write(frame: "pd.DataFrame") -> None:
        nonlocal columns, file
        columns = _same_columns(frame, columns, path)
        try:
            schema = None if file is None else file.schema
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            if file is None:  # strings where all is missing so far: Arrow's null would refuse later values
                schema = table.schema
                for i, field in enumerate(schema):
                    if pa.types.is_null(field.type) and frame[field.name].dtype == object:
                        schema = schema.set(i, field.with_type(pa.string()))
                table = table.cast(schema)
        except (pa.ArrowException, TypeError, ValueError) as error:
            said = f"a column mixes types ({str(error).splitlines()[0]})"
            raise InputError(f"{path}: {said}; write .jsonl instead") from None
        if file is None:
            file = stack.enter_context(pq.ParquetWriter(part, table.schema))
        file.write_table(table)

    with ExitStack() as stack:
        yield write


DELIMITED = (".csv", ".tsv", ".tab")
WRITERS: dict[str, Callable[[Path, Path], AbstractContextManager[Write]]] = {  # by suffix
    ".csv": partial(delimited_writer, separator=","),
    **dict.fromkeys((".tsv", ".tab"), partial(delimited_writer, separator="\t")),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), json_lines_writer),
    ".parquet": parquet_writer,
}


def _same_columns(frame: "pd.DataFrame", columns: list | None, path: Path) -> list:
    found = list(frame.columns)
    if columns is not None and found != columns:
        changed = sorted(set(found) ^ set(columns)) or ["another order"]
        raise InputError(f"{path}: the columns change midway ({changed[0]!r}); write .jsonl instead")
    return found


def _open_to_write(path: Path) -> TextIO:
    how = {"mode": "wt", "encoding": "utf-8", "newline": ""}
    if (number := open_number(path)) is not None:
        return open(os.dup(number), **how)
    return COMPRESSED.get(path.suffix.lower(), open)(path, **how)
