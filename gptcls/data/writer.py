"""Write tables of any size, chunk by chunk."""

import csv
import gzip
import io
import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gptcls.common.files import atomic_file
from gptcls.core.errors import InputError
from gptcls.data.columns import values_of
from gptcls.data.readers import (
    NEEDS_PYARROW,
    SUFFIXES,
    format_of,
)

if TYPE_CHECKING:
    import pandas as pd


class ChunkWriter:
    """Write frames one after another to one file; its suffix gives the format, as in :func:`read_chunks`.

        with ChunkWriter("labelled.csv", source="texts.csv") as writer:
            for chunk in read_chunks("texts.csv"):
                writer.write(chunk.assign(label=…))

    Everything goes to a temporary file beside the target, which takes the target's place when the block ends
    without an error. On an error it is deleted, and what stood there before stays. The index is not written.
    Raises InputError when the target is a folder, of an unknown format, or the ``source`` itself, and when a
    frame has other columns than the first (JSON lines may vary); OSError when the disk refuses.
    """

    def __init__(self, path: str | Path, source: str | Path | None = None) -> None:
        self.path = Path(path)
        self.kind = format_of(self.path)
        if self.kind is None:
            raise InputError(f"{self.path}: unknown format {self.path.suffix!r} to write; give {SUFFIXES}")
        if self.path.is_dir():
            raise InputError(f"{self.path} is a folder: give the name of a file to write")
        if source is not None and self.path.exists() and self.path.samefile(source):
            raise InputError(f"{self.path} is the input itself: give the output another name")
        self.columns: list[str] | None = None

    def __enter__(self) -> "ChunkWriter":
        self._stack = ExitStack()
        self._part = self._stack.enter_context(atomic_file(self.path))
        self._part.touch()
        if self.kind != "parquet":
            self._file = self._stack.enter_context(_open_to_write(self._part))
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)

    def write(self, frame: "pd.DataFrame") -> None:
        """Append the rows of `frame`."""
        first = self.columns is None
        if first:
            self.columns = list(frame.columns)
        elif self.kind != "jsonl" and list(frame.columns) != self.columns:
            changed = sorted(set(frame.columns) ^ set(self.columns)) or ["another order"]
            raise InputError(f"{self.path}: the columns change midway ({changed[0]!r}); write .jsonl instead")
        if self.kind == "parquet":
            self._write_parquet(frame, first)
        elif self.kind == "jsonl":
            self._write_json(frame)
        else:
            write_delimited(self._file, frame, "," if self.kind == "csv" else "\t", header=first)

    def _write_json(self, frame: "pd.DataFrame") -> None:
        columns = [values_of(frame, name) for name in frame.columns]
        for row in zip(*columns, strict=True):
            record = dict(zip(frame.columns, row, strict=True))
            self._file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    def _write_parquet(self, frame: "pd.DataFrame", first: bool) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise InputError(f"{self.path}: {NEEDS_PYARROW}") from None
        try:
            schema = None if first else self._parquet.schema
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            if first:
                table = table.cast(_with_strings_for_nothing(table.schema, frame))
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self.path}: a column mixes types ({reason}); write .jsonl instead") from None
        if first:
            self._parquet = self._stack.enter_context(pq.ParquetWriter(self._part, table.schema))
        self._parquet.write_table(table)


def _with_strings_for_nothing(schema, frame: "pd.DataFrame"):
    """The Arrow schema with strings for a column of Python objects that are all missing so far.

    Arrow would take null for its type, and refuse the values of a later chunk.
    """
    import pyarrow as pa

    for i, field in enumerate(schema):
        if pa.types.is_null(field.type) and frame[field.name].dtype == object:
            schema = schema.set(i, field.with_type(pa.string()))
    return schema


def _open_to_write(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return io.TextIOWrapper(gzip.open(path, "wb"), encoding="utf-8", newline="")
    return path.open("w", encoding="utf-8", newline="")


def write_delimited(file: TextIO, frame: "pd.DataFrame", delimiter: str = ",", header: bool = True) -> None:
    """Write ``frame`` so that :func:`read_chunks` gives the same strings; open ``file`` with newline=""."""
    writer = csv.writer(_LineFeeds(file), delimiter=delimiter, lineterminator="\r\n")
    if header:
        writer.writerow(frame.columns)
    writer.writerows(zip(*(values_of(frame, name) for name in frame.columns), strict=True))


class _LineFeeds:
    """End rows with a line feed. The csv module quotes a lone carriage return only if its row end has one."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row[:-2] + "\n")
