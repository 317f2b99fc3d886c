"""Text files before they are tables: is there one, and is it text in the encoding that it should have."""

import codecs
import gzip
import io
import lzma
import shlex
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from gptcls.core.errors import InputError

BLOCK = 1 << 20  # bytes read at once
LONGEST_LINE = 100_000_000  # characters of a table's line; one takes a few times its length in memory
MOST_UNPACKED = 500  # times its size, which no text reaches: bombs do (gzip can do 1,000)
SMALL = 100 << 20  # bytes that any archive may unpack to
# What Python calls encodings, and no text file is written in.
NOT_OF_FILES = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
COMPRESSED = {".gz": gzip.open, ".xz": lzma.open}  # what may follow a text format's suffix
MAGIC = {  # first bytes of what people rename to .csv by mistake
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or name it .xlsx",
    b"\x1f\x8b": "gzip data: add .gz to its name",
    b"\xfd7zXZ": "xz data: add .xz to its name",
    b"PAR1": "Parquet: name it .parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file: save it as CSV UTF-8",
}


def require_file(path: Path) -> None:
    """Raise InputError unless ``path`` is a regular, non-empty file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file in it")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if not path.is_file():
        raise InputError(f"{path} is a pipe or device and is read more than once: save it to a file first")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: give a file with a header and rows")


@contextmanager
def open_text(path: Path, newline: str, encoding: str | None = None) -> Iterator[TextIO]:
    """Open a file that passed :func:`require_text`, past its byte order mark; ``newline`` as in ``open``."""
    with io.TextIOWrapper(_open_bytes(path), encoding=encoding or "utf-8-sig", newline=newline) as text:
        if encoding and text.read(1) != "\ufeff":
            text.seek(0)
        yield text


def read_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Non-blank lines and their numbers, without their ends. Only a line feed ends a line here."""
    with open_text(path, "\n", encoding) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.removesuffix("\n").removesuffix("\r")


def check_encoding(encoding: str) -> None:
    """Raise InputError for a name that Python does not know, or that is no encoding of text files."""
    way_out = "use utf-8, cp1252, gb18030, utf-16, …"
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise InputError(f"--encoding {encoding!r} is not one that Python knows; {way_out}") from None
    if codecs.lookup(encoding).name.replace("_", "-") in NOT_OF_FILES:
        raise InputError(f"--encoding {encoding!r} is not one that files of text have; {way_out}")


def require_text(path: Path, encoding: str | None = None, longest: int | None = None) -> None:
    """:func:`require_file`; InputError at its first line that is not text in ``encoding`` (None: UTF-8), or
    of more than ``longest`` characters. A pass of its own, so that a long job fails in its first seconds and
    not at its ten-millionth row; it holds a piece of the file at a time, however long a line is."""
    require_file(path)
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
    line, block, unpacked, length = 1, b"-", 0, 0
    with _open_bytes(path) as file:
        while block:
            with _reading(path):
                block = file.read(BLOCK)
            unpacked += len(block)
            refuse_bomb(path, unpacked, f"unpack it first, and give what {path.stem} holds")
            if encoding is None and line == 1:
                _refuse_binary(path, block)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeError as error:  # UTF-16 without its mark raises one that has no position
                data, end = (error.object, error.start) if isinstance(error, UnicodeDecodeError) else (b"", 0)
                line += data[:end].count(b"\n")
                if encoding is None and block:
                    raise _wrong_encoding(path, line, guess_encoding(data)) from None
                cut = "the file ends inside a character; fetch it again"
                said = f"not {encoding}; name another --encoding" if encoding else cut
                raise InputError(f"{path}, line {line}: {said}") from None
            if "\0" in text:
                line += text[: text.index("\0")].count("\n")
                said = f"a NUL character, so the file is damaged or not {encoding or 'text'}"
                tr = f"tr -d '\\000' < {shlex.quote(str(path))} > clean{path.suffix}"
                way_out = "name another --encoding" if encoding else f"remove such bytes with: {tr}"
                raise InputError(f"{path}, line {line}: {said}; {way_out}")
            line += text.count("\n")
            length = len(text) - 1 - end if (end := text.rfind("\n")) >= 0 else length + len(text)
            if longest is not None and length > longest:
                way_out = "put a line break behind each row, or split long texts"
                raise InputError(f"{path}, line {line}: it has more than {longest:,} characters; {way_out}")


def refuse_bomb(path: Path, unpacked: int, way_out: str) -> None:
    """Raise InputError where an archive of text unpacks to so much that it was made to fill the memory."""
    if unpacked > SMALL and path.suffix.lower() in (*COMPRESSED, ".zip", ".xlsx"):
        size = path.stat().st_size
        if unpacked > MOST_UNPACKED * size:
            said = f"{size:,} bytes unpack to more than {MOST_UNPACKED} times as much, as no text does"
            raise InputError(f"{path}: {said}; {way_out}")


def check_zip(archive: zipfile.ZipFile, path: Path, way_out: str) -> None:
    """Raise InputError for an archive with a password, or that is a bomb."""
    members = archive.infolist()
    if locked := [member.filename for member in members if member.flag_bits & 1]:
        raise InputError(f"{path}: {locked[0]!r} in it is locked with a password; save it without one")
    refuse_bomb(path, sum(member.file_size for member in members), way_out)


def guess_encoding(data: bytes) -> str:
    """A name that iconv knows: Chinese text is mostly high bytes, Western text mostly ASCII."""
    high = sum(byte >= 0x80 for byte in data[:4096]) / min(len(data), 4096)
    for encoding in ("GB18030", "CP1252") if high > 0.3 else ("CP1252",):
        try:
            codecs.getincrementaldecoder(encoding)().decode(data)  # the block may end inside a character
        except UnicodeDecodeError:
            continue
        return encoding
    return "ISO-8859-1"  # gives every byte a meaning


def _open_bytes(path: Path) -> BinaryIO:
    with _reading(path):
        return COMPRESSED.get(path.suffix.lower(), open)(path, "rb")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        kind = "xz" if path.suffix.lower() == ".xz" else "gzip"
        raise InputError(f"{path} is a damaged {kind} file ({error}): fetch it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _refuse_binary(path: Path, block: bytes) -> None:
    for magic, what in MAGIC.items():
        if block.startswith(magic):
            raise InputError(f"{path} is {what}")
    head = block[:4096]
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _wrong_encoding(path, 1, "UTF-16")
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) / 5 and min(even, odd) < len(head) / 50:  # every second byte of ASCII is 0
        raise _wrong_encoding(path, 1, "UTF-16BE" if even > odd else "UTF-16LE")


def _wrong_encoding(path: Path, line: int, encoding: str) -> InputError:
    source, target = shlex.quote(str(path)), shlex.quote(str(path.with_suffix(f".utf8{path.suffix}")))
    way_out = f"iconv -f {encoding} -t UTF-8 {source} > {target}, or give --encoding {encoding}"
    return InputError(f"{path}, line {line}: not UTF-8; it looks like {encoding}. Convert it: {way_out}")
