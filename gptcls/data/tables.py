"""The rows of a file, one at a time, with the line each begins on.

Every value stays what the file says: no type is guessed, ``NA`` is two letters, leading zeros stay.

Quotes in a .tsv: some files quote as spreadsheets do, some hold bare quotes. Which one a file is, is decided
by looking at all of it (``_tabs_are_quoted``):

- Some line has more or fewer tabs than the header. A text has a tab or a line break in it, and only quoting
  can write that: quoted.
- All lines agree, and every field with a quote in it is wrapped in quotes, inner quotes doubled: quoted.
- All lines agree, and some field has a quote elsewhere (``"Hi" she said``). No writer of quoted files leaves
  that: quotes are ordinary characters. Where a field starts with one, this is logged.

A .tsv of a single column is read as quoted, as .csv always is.
"""

import csv
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gptcls.data.files import PLAIN, Dialect, open_text
from gptcls.errors import InputError

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
