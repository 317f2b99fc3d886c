"""Tables in files, of any size: each format's rows as frames of a few thousand, values as the file has them.

No type is guessed, ``NA`` is two letters, leading zeros stay. A new format is a function that yields frames
and a line in :data:`FORMATS` below; to be written as well, one in :data:`gptcls.data.writer.WRITERS`.
"""

import codecs
import csv
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from itertools import chain, islice
from pathlib import Path

from gptcls.common.extras import needed
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.encodings import (
    COMPRESSED,
    LONGEST_LINE,
    check_encoding,
    check_zip,
    open_text,
    read_lines,
    require_file,
    require_text,
)

FIELD_LIMIT = 10_000_000  # characters of a quoted or separated field
QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"')
UNNAMED = "Unnamed: "  # pandas' name for a column whose header cell is empty
Row = tuple[int, list[str]]  # the line it begins on, 1-based; its fields


def refuse_repeats(names: Sequence[str], source: object = None, option: str = "--columns") -> None:
    """Raise InputError for a column that an option, or the header of a source, names twice."""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        many = f"{source}: more than one column is named {repeated[0]!r}; rename all but one"
        raise InputError(many if source else f"{option} names {repeated[0]!r} twice; give each column once")


@dataclass(frozen=True)
class Dialect:
    """How a text file was written, where it is not in UTF-8, as its suffix says, and with a header line.
    InputError for a separator or an encoding that no file can have, and for a column named twice."""

    separator: str | None = None  # one character or "tab", whatever the suffix; quotes are as in .csv
    encoding: str | None = None  # a name that Python knows, such as "cp1252" or "utf-16"
    columns: tuple[str, ...] = ()  # where no header line names them; also of a tab-separated .txt

    def __post_init__(self) -> None:
        if self.separator in ("tab", r"\t"):
            object.__setattr__(self, "separator", "\t")
        separator, encoding = self.separator, self.encoding
        refuse_repeats(self.columns)
        if separator is not None and (len(separator) != 1 or separator.isalnum() or separator in '"\r\n\0'):
            way_out = "use one character such as ';', or tab"
            raise InputError(f"--separator {separator!r} cannot separate fields; {way_out}")
        if encoding is None:
            return
        check_encoding(encoding)
        if codecs.lookup(encoding).name == "utf-8":
            object.__setattr__(self, "encoding", None)


PLAIN = Dialect()
WHY_NOT = {
    "separator": "has no separator between fields",
    "columns": "names its own columns",
    "encoding": "has an encoding of its own",
}


def read_chunks(path: str | Path, rows: int = 4096, dialect: Dialect = PLAIN) -> Iterator["pd.DataFrame"]:
    """Read a table in frames of at most ``rows`` rows, all columns, values as they stand in the file.

    The index is the line each row begins on (Parquet, Excel: the row), 1-based, for messages. Values of .csv,
    .tsv and .xlsx are strings (an empty field is ""); JSON values keep their types, in columns of Python
    objects; Parquet columns keep their Arrow types. Raises InputError at the first line that cannot be read,
    and for a file without rows; encoding, format and the first frame are checked before it returns.
    """
    path = Path(path)
    chunks = format_of(path, dialect).read(path, dialect, rows)
    if (first := next(chunks, None)) is None:
        raise InputError(f"{path} has no rows: at least one below the header is needed")
    return chain([first], chunks)


@dataclass(frozen=True)
class Format:
    """How files of a suffix are read; one that ``takes`` an encoding is checked to be text first."""

    read: Callable[[Path, Dialect, int], Iterator["pd.DataFrame"]]  # (path, dialect, rows): as read_chunks
    takes: tuple[str, ...] = ("encoding", "separator", "columns")  # the fields of Dialect that it may need


def format_of(path: Path, dialect: Dialect = PLAIN) -> Format:
    """How to read a file, by its suffix and dialect, after the checks that every reader needs (InputError).
    UCI's SMS format is known by its content, whatever the suffix; with columns named .txt has tabs."""
    require_file(path)
    suffix = suffix_of(path)
    found = FORMATS.get(suffix)
    for option, why_not in WHY_NOT.items():
        if found is not None and option not in found.takes and getattr(dialect, option):
            raise InputError(f"{path} {why_not}; leave out --{option}")
    if found is None or "encoding" in found.takes:
        require_text(path, dialect.encoding, LONGEST_LINE)
        if dialect.separator is not None:
            return FORMATS[".csv"]
        if not dialect.columns and is_uci(path, dialect.encoding):
            return UCI
        if dialect.columns and suffix == ".txt":
            return FORMATS[".tsv"]
    if found is None:
        raise InputError(f"{path}: unknown format {path.suffix or '(no suffix)'!r}; give {SUFFIXES}")
    return found


def suffix_of(path: Path) -> str:
    """The suffix that names the format, in lower case: ``.gz`` or ``.xz`` may follow it.

    >>> suffix_of(Path("rows.CSV.gz"))
    '.csv'
    """
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).suffix.lower()


# --- delimited text ---


def read_csv(path: Path, dialect: Dialect, rows: int) -> Iterator["pd.DataFrame"]:
    """Fields that a comma, or the dialect's separator, separates; quotes as in RFC 4180."""
    return _delimited(_quoted_rows(path, dialect.separator or ",", dialect.encoding), path, dialect, rows)


def read_tsv(path: Path, dialect: Dialect, rows: int) -> Iterator["pd.DataFrame"]:
    """Fields that a tab separates; its quotes are explained in :func:`_tabs_are_quoted`."""
    if _tabs_are_quoted(path, dialect.encoding):
        found = _quoted_rows(path, "\t", dialect.encoding)
    else:
        found = ((number, line.split("\t")) for number, line in read_lines(path, dialect.encoding))
    return _delimited(found, path, dialect, rows)


def read_uci(path: Path, dialect: Dialect, rows: int) -> Iterator["pd.DataFrame"]:
    """UCI's SMS Spam Collection: label, tab, text, without a header and without quoting."""
    found = ((number, line.split("\t", 1)) for number, line in read_lines(path, dialect.encoding))
    return _frames(found, rows, ["label", "text"])


def is_uci(path: Path, encoding: str | None = None) -> bool:
    """Whether every non-empty line starts with ``ham<TAB>`` or ``spam<TAB>``, as in UCI's file."""
    line = None
    for _, line in read_lines(path, encoding):
        if not line.startswith(("ham\t", "spam\t")):
            return False
    return line is not None


def _delimited(rows: Iterator[Row], path: Path, dialect: Dialect, size: int) -> Iterator["pd.DataFrame"]:
    """Header and rows as frames; InputError at a row whose fields do not fit the header."""
    number, header = (0, list(dialect.columns)) if dialect.columns else next(rows, (0, []))
    if not header:
        raise InputError(f"{path} is empty: give a file with a header and rows")
    header = [name if name.strip() else f"{UNNAMED}{i}" for i, name in enumerate(header)]
    refuse_repeats(header, f"{path}, line {number}")
    if len(header) == 1 and ";" in header[0]:  # how spreadsheets save CSV where the comma is the decimal mark
        said = "fields are separated by ';'; give --separator ';', or save with commas"
        raise InputError(f"{path}, line {number}: {said}")

    def fitting() -> Iterator[Row]:
        for number, row in rows:
            if len(row) != len(header):
                names = "--columns" if dialect.columns else "the header"
                said = f"{names} has {len(header)} fields, this row {len(row)}"
                way_out = "a text with a separator, quote or line break in it must be quoted"
                raise InputError(f"{path}, line {number}: {said}; {way_out}")
            yield number, row

    yield from _frames(fitting(), size, header)


def _frames(rows: Iterator[tuple], size: int, columns: list[str] | None = None) -> Iterator["pd.DataFrame"]:
    while chunk := list(islice(rows, size)):
        lines, records = zip(*chunk, strict=True)
        # JSON as objects: pandas would turn the whole numbers of a column with gaps into floats
        dtype = object if columns is None else None
        yield pd.DataFrame(list(records), pd.Index(lines, name="line"), columns, dtype)


def _quoted_rows(path: Path, separator: str, encoding: str | None) -> Iterator[Row]:
    csv.field_size_limit(max(FIELD_LIMIT, csv.field_size_limit()))  # a setting of the process: raised only
    with open_text(path, "", encoding) as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        start, width = 1, 0
        try:
            for row in reader:
                if len(row) > 1 or (row and (width == 1 or row[0].strip())):  # is not blank
                    width = width or len(row)
                    yield start, row
                start = reader.line_num + 1
        except csv.Error as error:
            said = f"{error}; save the file as CSV UTF-8 again"
            if "field larger" in said:
                limit = csv.field_size_limit()
                said = f"a field of more than {limit:,} characters; cut it into several texts"
                if (end := reader.line_num) > start:
                    said += f", or close the quote: it runs to line {end} at least"
            elif "unexpected end of data" in said:
                said = "a quote opens here and is never closed; close it, or double quotes in the text"
            elif "expected after" in said:
                said = "text follows a closing quote; quotes inside a quoted text must be doubled"
            raise InputError(f"{path}, line {start}: {said}") from None


def _tabs_are_quoted(path: Path, encoding: str | None) -> bool:
    """Whether a .tsv is quoted as spreadsheets do, or its quotes are ordinary characters.

    All of it decides. Quoted: lines differ in their tabs (a text has a tab or a line break in it, and only
    quoting can write that); there is a single column; or every field with a quote in it is wrapped in quotes,
    inner ones doubled. Ordinary: some field has a quote elsewhere (``"Hi" she said``), as no writer of quoted
    files leaves it; where a field starts with one, this is logged.
    """
    width, wrapped, opened = None, True, False
    for _, line in read_lines(path, encoding):
        tabs = line.count("\t")
        width = tabs if width is None else width
        if tabs != width or width == 0:
            return True
        for field in line.split("\t") if '"' in line else ():
            wrapped = wrapped and ('"' not in field or bool(QUOTED_FIELD.fullmatch(field)))
            opened = opened or field.startswith('"')
    if opened and not wrapped:
        log.info("%s: its quotes are read as ordinary characters", path)
    return wrapped


# --- JSON lines and Parquet ---


def read_json_lines(path: Path, dialect: Dialect, rows: int) -> Iterator["pd.DataFrame"]:
    """One JSON object per line."""
    return _frames(_json_rows(path, dialect.encoding), rows)


def _json_rows(path: Path, encoding: str | None) -> Iterator[tuple[int, dict]]:
    for number, line in read_lines(path, encoding):
        try:
            row = json.loads(line, object_pairs_hook=_unique)
            row = _without_lone_surrogates(row) if "\\ud" in line.lower() else row
        except (ValueError, RecursionError) as error:
            hint = "one object per line is expected"
            if line.lstrip().startswith("["):
                hint += f"; an array becomes that with: jq -c '.[]' {path.name}"
            elif number == 1 and line.strip() == "{":
                hint += f"; objects over several lines become that with: jq -c . {path.name}"
            raise InputError(f"{path}, line {number}: not valid JSON ({error}); {hint}") from None
        if not isinstance(row, dict):
            kind = {list: "array", str: "string"}.get(type(row), "value")
            hint = f"; if it holds objects: jq -c '.[]' {path.name}" if kind == "array" else ""
            raise InputError(f'{path}, line {number}: a JSON {kind}, not an object like {{"text": …}}{hint}')
        yield number, row


def _unique(pairs: list[tuple[str, object]]) -> dict:
    row = dict(pairs)
    if len(row) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} stands twice in one object")
    return row


def _without_lone_surrogates(row: object) -> object:
    r"""Half of an escaped pair (``"\ud83d"``, an emoji cut in two) is not a character: it becomes U+FFFD."""
    text = json.dumps(row, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def pyarrow_for(path: Path) -> tuple:
    """pyarrow and pyarrow.parquet, needed only where there is Parquet to read or write."""
    with needed("parquet", f"{path}: a Parquet file"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet


def read_parquet(path: Path, dialect: Dialect, rows: int) -> Iterator["pd.DataFrame"]:
    """Parquet, through pyarrow."""
    pa, pq = pyarrow_for(path)
    start = 1
    try:
        with pq.ParquetFile(path) as file:
            refuse_repeats(file.schema_arrow.names, path)
            for batch in filter(len, file.iter_batches(batch_size=rows)):
                batch.validate(full=True)  # else a string that is not UTF-8 fails when it is used
                frame = batch.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
                frame.index = pd.RangeIndex(start, start + len(frame), name="row")
                start += len(frame)
                yield frame
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        where = f" from row {start} on" if start > 1 else ""
        reason, way_out = " ".join(str(error).split()), "write or fetch it again"
        raise InputError(f"{path} is not a readable Parquet file{where}: {reason:.200}; {way_out}") from None


# --- spreadsheets ---


def read_workbook(path: Path, dialect: Dialect, rows: int) -> Iterator["pd.DataFrame"]:
    """The first sheet of an Excel workbook, through pandas and openpyxl, cells as text (:func:`_cell`)."""
    way_out = "save it as .xlsx or CSV UTF-8 again"
    with path.open("rb") as file:
        if file.read(4) == b"\xd0\xcf\x11\xe0":
            raise InputError(f"{path} is an old .xls, or has a password; {way_out}, without it")
    with needed("xlsx", f"{path}: an Excel workbook"):
        import openpyxl  # noqa: F401  # pandas does
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, path, way_out)
        with pd.ExcelFile(path, engine="openpyxl") as book:
            first, *others = book.sheet_names
            # As objects, without a header: pandas would rename repeated columns and round numbers to text.
            sheet = pd.read_excel(book, header=None, dtype=object, na_filter=False)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a zip archive's, an XML parser's, openpyxl's own
        reason = f"{type(error).__name__}: {' '.join(str(error).split()):.80}"
        raise InputError(f"{path} is not a readable Excel workbook ({reason}); {way_out}") from None
    if others:
        log.info(f"{path}: its first sheet, {first!r}, is read, of {len(others) + 1}")
    cells = (list(map(_cell, row)) for row in sheet.itertuples(index=False, name=None))
    filled = ((number, row) for number, row in enumerate(cells, 1) if any(map(str.strip, row)))
    for frame in _delimited(filled, path, dialect, rows):
        yield frame.rename_axis("row")


def _cell(value: object) -> str:
    """A cell as Excel shows it without formatting: 7 for 7.0, TRUE, 2024-05-01, nothing for an error."""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return value.isoformat(" ") if value.time() != time() else value.date().isoformat()
    return "" if value != value else str(value)  # an error cell is NaN


UCI = Format(read_uci)
FORMATS = {  # by suffix
    ".csv": Format(read_csv),
    **dict.fromkeys((".tsv", ".tab"), Format(read_tsv)),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), Format(read_json_lines, takes=("encoding",))),
    ".parquet": Format(read_parquet, takes=()),
    ".xlsx": Format(read_workbook, takes=("columns",)),
}
# For help and messages: those that people should use.
SUFFIXES = ".csv, .tsv, .jsonl (also .csv.gz, .jsonl.xz, …), .parquet or .xlsx"
