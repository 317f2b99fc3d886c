"""Files before they are tables: is it one, which format, which encoding.

The rows of a file, one at a time, with the line each begins on.

Every value stays what the file says: no type is guessed, ``NA`` is two letters, leading zeros stay.

Quotes in a .tsv: some files quote as spreadsheets do, some hold bare quotes. Which one a file is, is decided
by looking at all of it (``_tabs_are_quoted``):

- Some line has more or fewer tabs than the header. A text has a tab or a line break in it, and only quoting
  can write that: quoted.
- All lines agree, and every field with a quote in it is wrapped in quotes, inner quotes doubled: quoted.
- All lines agree, and some field has a quote elsewhere (``"Hi" she said``). No writer of quoted files leaves
  that: quotes are ordinary characters. Where a field starts with one, this is logged.

A .tsv of a single column is read as quoted, as .csv always is.

Files larger than memory: read a table in chunks, write one chunk by chunk.
"""

import codecs
import csv
import gzip
import io
import json
import logging
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from gptcls.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",  # JSON lines under their other common name
    ".parquet": "parquet",
}


SUFFIXES = ".csv, .tsv, .jsonl or .parquet"


MAGIC = {  # first bytes of what people rename to .csv by mistake
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV UTF-8",
    b"\x1f\x8b": "gzip data: add .gz to its name",
    b"PAR1": "Parquet: name it .parquet",
}


BLOCK = 1 << 20


@dataclass(frozen=True)
class Dialect:
    """How a text file was written, where it is not in UTF-8, as its suffix says, and with a header line.

    Args:
        separator: between the fields of a delimited file, whatever its suffix, with quotes as in .csv: one
            character, or ``"tab"``.
        encoding: a name that Python knows, such as ``"cp1252"`` or ``"utf-16"``.
        columns: the names of the columns of a delimited file (also a tab-separated .txt) without a header
            line.

    Raises InputError for a separator or an encoding that no file can have, and for a column named twice.
    """

    separator: str | None = None
    encoding: str | None = None
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.separator in ("tab", r"\t"):
            object.__setattr__(self, "separator", "\t")
        separator, encoding = self.separator, self.encoding
        refuse_repeats("--columns", self.columns)
        if separator is not None and (len(separator) != 1 or separator.isalnum() or separator in '"\r\n\0'):
            raise InputError(
                f"--separator {separator!r} cannot separate fields; use one character such as ';', or tab"
            )
        if encoding is None:
            return
        try:
            "".encode(encoding)
        except (LookupError, ValueError):
            raise InputError(
                f"--encoding {encoding!r} is none that Python knows; use utf-8, cp1252, gb18030, utf-16, …"
            ) from None
        if codecs.lookup(encoding).name == "utf-8":
            object.__setattr__(self, "encoding", None)


def refuse_repeats(option: str, names: Sequence[str]) -> None:
    """Raise InputError for a column that an option names twice."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{option} names {repeated[0]!r} twice; give each column once")


PLAIN = Dialect()


def format_of(path: Path) -> str | None:
    """``"csv"``, ``"tsv"``, ``"jsonl"`` or ``"parquet"`` by suffix (``.gz`` may follow); None if unknown."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return FORMATS.get(name.suffix.lower())


def require_file(path: Path) -> None:
    """Raise InputError unless ``path`` is a regular, non-empty file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file in it ({SUFFIXES})")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path} is a pipe or device and is read more than once: save it to a file first")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: give a file with a header and rows")


def open_bytes(path: Path) -> BinaryIO:
    """Open for reading, unpacking ``.gz``."""
    try:
        return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def open_text(path: Path, newline: str, encoding: str | None = None) -> Iterator[TextIO]:
    """Open a file that :func:`require_text` has passed; a byte order mark at its start is skipped.

    ``newline`` as in ``open``: ``""`` for the csv module, ``"\\n"`` where only a line feed ends a line.
    """
    with io.TextIOWrapper(open_bytes(path), encoding=encoding or "utf-8-sig", newline=newline) as text:
        if encoding and text.read(1) != "\ufeff":
            text.seek(0)
        yield text


def require_text(path: Path, encoding: str | None = None) -> None:
    """Read the file once, in blocks, and raise InputError at its first byte that is no text in ``encoding``.

    A pass of its own, so that a long job fails in its first seconds and not at its ten-millionth row.
    """
    if encoding is None:
        require_utf8(path)
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    line, block = 1, b"-"
    with open_bytes(path) as file:
        while block:
            block = _read_block(file, path)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeError as error:  # without UTF-16's mark it is not the kind that has a position
                before = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
                number = line + before.count(b"\n")
                raise InputError(f"{path}, line {number}: not {encoding}; name another --encoding") from None
            if "\0" in text:
                number = line + text[: text.index("\0")].count("\n")
                raise InputError(
                    f"{path}, line {number}: a NUL character, so the file is damaged or not {encoding}; "
                    "name another --encoding"
                )
            line += text.count("\n")


def require_utf8(path: Path) -> None:
    """:func:`require_text` for UTF-8, which also says what a file that is none looks like."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with open_bytes(path) as file:
        while block := _read_block(file, path):
            if line == 1:
                _refuse_binary(path, block)
            if b"\0" in block:
                number = line + block[: block.index(b"\0")].count(b"\n")
                raise InputError(
                    f"{path}, line {number}: a NUL byte, so the file is damaged or not text; "
                    f"remove such bytes with: tr -d '\\000' < {shlex.quote(str(path))} > clean{path.suffix}"
                )
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                number = line + error.object[: error.start].count(b"\n")
                raise _wrong_encoding(path, error.object, f"line {number}") from None
            line += block.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise InputError(f"{path}, line {line}: the file ends inside a character; fetch it again") from None


def _read_block(file: BinaryIO, path: Path) -> bytes:
    try:
        return file.read(BLOCK)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a damaged gzip file ({error}): fetch it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _refuse_binary(path: Path, block: bytes) -> None:
    for magic, what in MAGIC.items():
        if block.startswith(magic):
            raise InputError(f"{path} is {what}")
    head = block[:4096]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _wrong_encoding(path, block, "line 1", "UTF-16")
    even, odd = head[::2].count(0), head[1::2].count(0)  # without a mark: every second byte of ASCII is 0
    if max(even, odd) > len(head) / 5 and min(even, odd) < len(head) / 50:
        raise _wrong_encoding(path, block, "line 1", "UTF-16BE" if even > odd else "UTF-16LE")


def _wrong_encoding(path: Path, data: bytes, where: str, encoding: str | None = None) -> InputError:
    encoding = encoding or guess_encoding(data)
    source, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix(f".utf8{path.suffix}")))
    return InputError(
        f"{path}, {where}: not UTF-8; it looks like {encoding}. "
        f"Convert it: iconv -f {encoding} -t UTF-8 {source} > {target}, or give --encoding {encoding}"
    )


def guess_encoding(data: bytes) -> str:
    """A name that iconv knows: Chinese text is mostly high bytes, Western text mostly ASCII."""
    high = sum(byte >= 0x80 for byte in data[:4096]) / min(len(data), 4096)
    guesses = ["GB18030", "CP1252"] if high > 0.3 else ["CP1252"]
    for encoding in guesses:
        try:
            codecs.getincrementaldecoder(encoding)().decode(data)  # the block may end inside a character
        except UnicodeDecodeError:
            continue
        return encoding
    return "ISO-8859-1"  # gives every byte a meaning


log = logging.getLogger("gptcls")


FIELD_LIMIT = 10_000_000  # characters; a longer field is taken for an unclosed quote


QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"')


UCI_LINE = ("ham\t", "spam\t")


NEEDS_PYARROW = "Parquet files need pyarrow: pip install 'gptcls[parquet]'"


UNNAMED = "Unnamed: "  # pandas' name for a column whose header cell is empty


Row = tuple[int, list[str]]  # the line it begins on, 1-based; its fields


def is_uci(path: Path, encoding: str | None = None) -> bool:
    """Whether every non-empty line starts with ``ham<TAB>`` or ``spam<TAB>``, as in UCI's file."""
    found = False
    with open_text(path, "\n", encoding) as file:
        for line in file:
            if line.strip():
                if not line.startswith(UCI_LINE):
                    return False
                found = True
    return found


def uci_rows(path: Path, dialect: Dialect = PLAIN) -> Iterator[Row]:
    """Header (label, text) and rows of UCI's format, which has no header and no quoting."""
    yield 0, ["label", "text"]
    for number, line in _lines(path, dialect.encoding):
        yield number, line.split("\t", 1)


def csv_rows(path: Path, dialect: Dialect = PLAIN) -> Iterator[Row]:
    """Header and rows of a file whose fields a comma, or the dialect's separator, separates (RFC 4180)."""
    separator = dialect.separator or ","
    return _same_width(_quoted_rows(path, separator, dialect.encoding), path, dialect.columns)


def tsv_rows(path: Path, dialect: Dialect = PLAIN) -> Iterator[Row]:
    """Header and rows of a tab-separated file; see the top of this file for its quotes."""
    encoding, columns = dialect.encoding, dialect.columns
    if _tabs_are_quoted(path, encoding):
        return _same_width(_quoted_rows(path, "\t", encoding), path, columns)
    return _same_width(((n, line.split("\t")) for n, line in _lines(path, encoding)), path, columns)


def json_rows(path: Path, dialect: Dialect = PLAIN) -> Iterator[tuple[int, dict]]:
    """The objects of a JSON lines file."""
    for number, line in _lines(path, dialect.encoding):
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            hint = "one object a line is expected"
            if line.lstrip().startswith("["):
                hint += f"; an array becomes that with: jq -c '.[]' {path.name}"
            elif number == 1 and line.strip() == "{":
                hint += f"; objects over several lines become that with: jq -c . {path.name}"
            raise InputError(f"{path}, line {number}: not valid JSON ({error}); {hint}") from None
        if not isinstance(row, dict):
            kind, hint = {list: "array", str: "string"}.get(type(row), "value"), ""
            if kind == "array":
                hint = f"; if it holds objects: jq -c '.[]' {path.name}"
            raise InputError(f'{path}, line {number}: a JSON {kind}, not an object like {{"text": …}}{hint}')
        yield number, _without_lone_surrogates(row) if "\\ud" in line.lower() else row


def parquet_file(path: Path):
    """An open ``pyarrow.parquet.ParquetFile``."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"{path}: {NEEDS_PYARROW}") from None
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no readable Parquet file: {str(error).splitlines()[0]}") from None
    _refuse_repeats(file.schema_arrow.names, f"{path}")
    return file


def _lines(path: Path, encoding: str | None) -> Iterator[tuple[int, str]]:
    """Non-blank lines and their numbers, without their ends. Only a line feed ends a line here."""
    with open_text(path, "\n", encoding) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.removesuffix("\n").removesuffix("\r")


def _quoted_rows(path: Path, delimiter: str, encoding: str | None) -> Iterator[Row]:
    csv.field_size_limit(max(FIELD_LIMIT, csv.field_size_limit()))  # a setting of the process: raised only
    with open_text(path, "", encoding) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        width = 0
        while True:
            start = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(f"{path}, line {start}: {_explain(error)}") from None
            blank = not row or (len(row) == 1 and width != 1 and not row[0].strip())
            if not blank:
                width = width or len(row)
                yield start, row


def _explain(error: csv.Error) -> str:
    reason = str(error)
    if "unexpected end of data" in reason or "field larger" in reason:
        return "a quote opens here and is never closed; close it, or double quotes that are part of the text"
    if "expected after" in reason:
        return "text follows a closing quote; quotes inside a quoted text must be doubled"
    return f"{reason}; save the file as CSV UTF-8 again"


def _same_width(rows: Iterator[Row], path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Pass on header and rows; raise InputError at a row whose fields do not fit the header."""
    number, header = (0, list(columns)) if columns else next(rows, (0, []))
    if not header:
        raise InputError(f"{path} is empty: give a file with a header and rows")
    header = [name if name.strip() else f"{UNNAMED}{i}" for i, name in enumerate(header)]
    _refuse_repeats(header, f"{path}, line {number}")
    if len(header) == 1 and ";" in header[0]:  # how spreadsheets save CSV where the comma is the decimal mark
        raise InputError(
            f"{path}, line {number}: fields are separated by ';'; give --separator ';', or save with commas"
        )
    yield number, header
    for number, row in rows:
        if len(row) != len(header):
            names = "--columns" if columns else "the header"
            raise InputError(
                f"{path}, line {number}: {names} has {len(header)} fields, this row {len(row)}; "
                "a text with a separator, quote or line break in it must be quoted"
            )
        yield number, row


def _tabs_are_quoted(path: Path, encoding: str | None) -> bool:
    width, wrapped, opened = None, True, False
    for _, line in _lines(path, encoding):
        tabs = line.count("\t")
        width = tabs if width is None else width
        if tabs != width or width == 0:
            return True
        if '"' in line:
            fields = [field for field in line.split("\t") if '"' in field]
            wrapped = wrapped and all(QUOTED_FIELD.fullmatch(field) for field in fields)
            opened = opened or any(field.startswith('"') for field in fields)
    if opened and not wrapped:
        log.info("%s: its quotes are read as ordinary characters", path)
    return wrapped


def _refuse_repeats(names: list[str], where: str) -> None:
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise InputError(f"{where}: more than one column is named {repeated[0]!r}; rename all but one")


def _unique(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} stands twice in one object")
    return row


def _without_lone_surrogates(row: dict) -> dict:
    r"""Half of an escaped pair (``"\ud83d"``, an emoji cut in two) is no character: it becomes U+FFFD."""
    text = json.dumps(row, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def table_format(path: Path, dialect: Dialect = PLAIN) -> str:
    """``"csv"``, ``"tsv"``, ``"jsonl"``, ``"parquet"`` or ``"uci"``, after the checks every reader needs.

    Raises InputError for a missing or empty file, a folder, an unknown suffix, text that is not UTF-8 or in
    the dialect's encoding, and a dialect that the format cannot have.
    UCI's SMS format is known by its content, whatever the suffix; with columns named a .txt is tab-separated.
    """
    require_file(path)
    kind = format_of(path)
    if kind in ("jsonl", "parquet"):
        if dialect.separator is not None:
            raise InputError(f"{path} has no separator between fields; leave out --separator")
        if dialect.columns:
            raise InputError(f"{path} names its own columns; leave out --columns")
    if kind == "parquet":
        if dialect.encoding is not None:
            raise InputError(f"{path} has an encoding of its own; leave out --encoding")
        return kind
    require_text(path, dialect.encoding)
    if dialect.separator is not None:
        return "csv"
    if dialect.columns:
        kind = "tsv" if kind is None and path.suffix.lower() == ".txt" else kind
    elif is_uci(path, dialect.encoding):
        return "uci"
    if kind is None:
        raise InputError(f"{path}: unknown format {path.suffix or '(no suffix)'!r}; give {SUFFIXES}")
    return kind


def read_chunks(path: str | Path, rows: int = 4096, dialect: Dialect = PLAIN) -> Iterator["pd.DataFrame"]:
    """Read a table in frames of at most ``rows`` rows, all columns, values as they stand in the file.

    The ``dialect`` says how the file is written, where its suffix does not. The index is the line each row
    begins on (Parquet: the row number), 1-based, for messages. Values of .csv and .tsv are strings ("NA" and
    "007" too; an empty field is ""); JSON values keep their types, in columns of Python objects; Parquet
    columns keep their Arrow types. Raises InputError at the first line that cannot be read, and for a file
    without rows; encoding and format are checked before this function returns.
    """
    path = Path(path)
    kind = table_format(path, dialect)
    chunks = _parquet_chunks if kind == "parquet" else _json_chunks if kind == "jsonl" else _text_chunks
    return _some(chunks(path, kind, rows, dialect), path)


def _some(chunks: Iterator["pd.DataFrame"], path: Path) -> Iterator["pd.DataFrame"]:
    first = next(chunks, None)
    if first is None:
        raise InputError(f"{path} has no rows: at least one below the header is needed")
    yield first
    yield from chunks


def _text_chunks(path: Path, kind: str, rows: int, dialect: Dialect) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    numbered = {"csv": csv_rows, "tsv": tsv_rows, "uci": uci_rows}[kind](path, dialect)
    _, header = next(numbered)
    while chunk := list(islice(numbered, rows)):
        lines, records = zip(*chunk, strict=True)
        yield pd.DataFrame(list(records), columns=header, index=pd.Index(lines, name="line"))


def _json_chunks(path: Path, kind: str, rows: int, dialect: Dialect) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    numbered = json_rows(path, dialect)
    while chunk := list(islice(numbered, rows)):
        lines, records = zip(*chunk, strict=True)
        # dtype=object: pandas would turn the whole numbers of a column with gaps into floats
        yield pd.DataFrame(list(records), index=pd.Index(lines, name="line"), dtype=object)


def _parquet_chunks(path: Path, kind: str, rows: int, dialect: Dialect) -> Iterator["pd.DataFrame"]:
    import pandas as pd

    start = 1
    with parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=rows):
            frame = batch.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
            if len(frame):
                frame.index = pd.RangeIndex(start, start + len(frame), name="row")
                yield frame
            start += len(frame)
