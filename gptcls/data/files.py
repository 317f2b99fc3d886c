"""Files before they are tables: is it one, which format, which encoding."""

import codecs
import gzip
import io
import shlex
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from gptcls.errors import InputError

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
