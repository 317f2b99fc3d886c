"""Damage to files, by their kind, each a pure function of a generator and the bytes: what a bad disk,
a broken download, another program or a stranger leaves."""

import csv
import gzip
import io
import json
import lzma
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutator = Callable[[random.Random, bytes], bytes]
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "cp1252", "gb18030", "shift_jis", "utf-7", "cp037", "utf-8-sig")
PIECES = (  # of text
    '"', '""', "'", ",", ";", "\t", "\r", "\n", "\r\n", "\0", "\x1b[31m", "\x85", "\u2028", "\ufeff",
    "\u200f", "\ud800", "😀", "é", "中文", "=1+1", "@SUM(A1)", "-", "1", "1.0", "true", "null", "NaN", "inf",
    "1e999", "-1",
    "2147483648", "18446744073709551616", "{", "}", "[", "]", "\\", "\\u0000", "\\ud83d", "/../..",
    "%s", "<|endoftext|>", "[SEP]", " ", "a" * 5000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (  # of JSON
    None, True, False, 0, -1, 1, 2, 2**20, 2**31, 2**63, 10**30, 0.5, -0.5, 1e-320, 1e308, float("nan"),
    float("inf"), "", "a", "NaN", "1", "../../etc/passwd", "/dev/zero", "\0", "\ud800", "all", [], {}, [1],
    ["a", "a"], [[]], {"a": 1}, [None], "x" * 5000,
)  # fmt: skip


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """One to eight of: a bit, a byte, a number, a piece lost, doubled, moved, zeroed, cut off."""
    buffer = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        size = len(buffer)
        at, length = rng.randrange(size + 1), rng.choice((1, 2, 4, 16, 256, size))
        if rng.random() < 0.5:
            at = min(at, rng.randrange(1, 129))  # headers are at the beginning
        match rng.randrange(8):
            case 0 if at < size:
                buffer[at] ^= 1 << rng.randrange(8)
            case 1 if at < size:
                buffer[at] = rng.choice((0, 1, 9, 10, 13, 34, 44, 127, 128, 255))
            case 2:
                number = rng.choice((0, 1, 2**15, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1))
                buffer[at : at + 8] = struct.pack("<Q", number)[: rng.choice((4, 8))]
            case 3:
                del buffer[at : at + length]
            case 4:
                buffer[at:at] = buffer[at : at + length]
            case 5:
                buffer[at:at] = rng.randbytes(min(length, 64))
            case 6:
                buffer[at : at + length] = bytes(len(buffer[at : at + length]))
            case _:
                del buffer[at:]
    return bytes(buffer)


def damaged_text(rng: random.Random, data: bytes) -> bytes:
    """Pieces that mean something to somebody put in; now and then in another encoding."""
    text = data.decode("utf-8", "replace")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        end = at + rng.choice((0, 0, 1, 5, 50))
        text = text[:at] + rng.choice(PIECES) * rng.choice((1, 1, 1, 2, 100)) + text[end:]
    encoding = rng.choice(ENCODINGS) if rng.random() < 0.15 else "utf-8"
    return text.encode(encoding, "surrogatepass" if encoding == "utf-8" else "replace")


def damaged_table(rng: random.Random, data: bytes) -> bytes:
    """Cells, rows and columns of a table of commas changed; the file itself stays well-formed."""
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    for _ in range(rng.choice((1, 2, 5, 20))):
        row = rng.choice(rows)
        match rng.randrange(6):
            case 0 | 1 if row:
                row[rng.randrange(len(row))] = rng.choice(PIECES)
            case 2 if row:
                row.pop(rng.randrange(len(row)))
            case 3:
                row.insert(rng.randrange(len(row) + 1), rng.choice(PIECES))
            case 4:
                rows.remove(row)
                rows = rows or [[]]
            case _:
                rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
    if rng.random() < 0.2:
        column = rng.randrange(3)
        value = rng.choice(PIECES)
        rows = [[value if i == column else cell for i, cell in enumerate(row)] for row in rows]
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=rng.choice(",,,,;\t|")).writerows(rows)
    return file.getvalue().encode("utf-8", "surrogatepass")


def damaged_value(rng: random.Random, value: Any, depth: int = 0) -> Any:
    """A JSON value with one place in it replaced, left out, doubled or renamed."""
    if isinstance(value, dict) and value and (rng.random() < 0.9 or depth == 0):
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {(rng.choice(PIECES) if k == key else k): v for k, v in value.items()}
            case 2:
                return value | {rng.choice(PIECES): rng.choice(VALUES)}
        return value | {key: damaged_value(rng, value[key], depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        match rng.randrange(5):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value, value[at]]
        return [*value[:at], damaged_value(rng, value[at], depth + 1), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((-value, value + 1, value - 1, value * 2, value * 2**20, value / 3, str(value)))
    return rng.choice(VALUES)


def damaged_json(rng: random.Random, data: bytes) -> bytes:
    """A JSON file: mostly its values, else its bytes or its nesting."""
    if (choice := rng.random()) < 0.15:
        return damaged_text(rng, data)
    if choice < 0.18:
        depth = rng.choice((500, 5_000, 200_000))
        opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
        return (opened * depth + "1" + closed * depth).encode()
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = damaged_value(rng, value)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def damaged_json_lines(rng: random.Random, data: bytes) -> bytes:
    """A line or several of JSON lines, all lines, or the text."""
    if rng.random() < 0.2:
        return damaged_text(rng, data)
    lines = data.decode("utf-8").splitlines()
    every, value = rng.random() < 0.3, rng.choice(VALUES)
    for at in range(len(lines)) if every else rng.sample(range(len(lines)), min(3, len(lines))):
        row = json.loads(lines[at])
        if every and rng.random() < 0.9:
            row[rng.choice(("label", "label", "text"))] = rng.choice((value, rng.choice(VALUES)))
        else:
            row = damaged_value(rng, row)
        lines[at] = json.dumps(row)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def damaged_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Its bytes, its header's values under a length that fits, or tensors of another type or shape."""
    if rng.random() < 0.3:
        return damaged_bytes(rng, data)
    size = struct.unpack("<Q", data[:8])[0]
    header, tensors = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    for _ in range(rng.choice((1, 1, 2))):
        if not isinstance(header, dict):
            break
        entry = header.get(name := rng.choice(names))
        entry = entry if isinstance(entry, dict) else {}
        match rng.randrange(6):
            case 0 if isinstance(shape := entry.get("shape"), list):
                entry["shape"] = rng.choice((shape[::-1], [*shape, 1], [2**31], [-1], [0], []))
            case 1:
                entry["dtype"] = rng.choice(
                    ["F16", "BF16", "F64", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X"]
                )
            case 2:
                entry["data_offsets"] = rng.choice(([0, 0], [0, 2**40], [4, 0], [-4, 4]))
            case 3:
                header.pop(name, None)
            case 4:
                header[rng.choice(PIECES)] = header.pop(name, {})
            case _:
                header = damaged_value(rng, header)
    if rng.random() < 0.3:  # the numbers: NaN, infinity, others
        at = rng.randrange(max(1, len(tensors) // 4)) * 4
        value = struct.pack("<f", rng.choice((float("nan"), float("inf"), 1e38, -1e-40)))
        tensors = tensors[:at] + value + tensors[at + 4 :]
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + tensors


def damaged_zip(rng: random.Random, data: bytes) -> bytes:
    """A member's bytes, name, size or flags; a member twice, none, or a gigabyte of zeros."""
    if rng.random() < 0.3:
        return damaged_bytes(rng, data)
    members = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [[info.filename, archive.read(info)] for info in archive.infolist()]
    chosen = rng.choice(members)
    match what := rng.randrange(7):
        case 0 | 1:
            text = chosen[0].endswith((".xml", ".rels"))
            chosen[1] = (damaged_text if text and rng.random() < 0.7 else damaged_bytes)(rng, chosen[1])
        case 2:
            members.remove(chosen)
        case 3:
            chosen[0] = rng.choice(("../up", "/root", "", "a" * 300, chosen[0].upper()))
        case 4:
            members.append(list(chosen))
        case 5:
            chosen[1] = bytes(rng.choice((0, 1 << 20, 1 << 26)))
    file, packed = io.BytesIO(), what == 5 or rng.random() < 0.5
    with zipfile.ZipFile(file, "w") as to:
        for name, content in members:
            info = zipfile.ZipInfo(name or "x")
            info.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            to.writestr(info, content, compresslevel=1)
    written = bytearray(file.getvalue())
    if what == 6:  # marked as encrypted, in the local header and the directory
        for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = written.find(mark)
            written[at + offset] |= 1
    return bytes(written)


def damaged_gzip(rng: random.Random, data: bytes) -> bytes:
    """The compressed bytes, what is inside them, or a bomb."""
    return _damaged_stream(rng, data, lambda raw: gzip.compress(raw, 1, mtime=0), gzip.decompress)


def damaged_xz(rng: random.Random, data: bytes) -> bytes:
    return _damaged_stream(rng, data, lambda raw: lzma.compress(raw, preset=0), lzma.decompress)


def _damaged_stream(rng: random.Random, data: bytes, pack: Callable, unpack: Callable) -> bytes:
    match rng.randrange(6):
        case 0:
            return pack(damaged_text(rng, unpack(data)))
        case 1:
            return data + rng.choice((data, b"\0" * 9, b"rest"))
        case 2 if rng.random() < 0.05:
            return pack(unpack(data) + rng.choice((b"a", b"\0", b"\n")) * (1 << 22))
        case 3:
            return pack(b"")
    return damaged_bytes(rng, data)


def damaged_parquet(rng: random.Random, data: bytes) -> bytes:
    """Its bytes, mostly those of the footer; or a table of columns that hold no text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.6:
        if rng.random() < 0.6:
            footer = struct.unpack("<I", data[-8:-4])[0] + 8
            return data[:-footer] + damaged_bytes(rng, data[-footer:])
        return damaged_bytes(rng, data)
    n = rng.choice((0, 1, 24))
    columns: list[Callable[[], Any]] = [
        lambda: pa.array([rng.choice(PIECES).encode("utf-8", "replace").decode() for _ in range(n)]),
        lambda: pa.array([rng.randbytes(4) for _ in range(n)], pa.binary()),
        lambda: pa.array([rng.choice((None, 1, 2)) for _ in range(n)], pa.int64()),
        lambda: pa.array([rng.choice((1.0, float("nan"), None)) for _ in range(n)]),
        lambda: pa.array([[rng.choice(PIECES[:3])] for _ in range(n)], pa.list_(pa.string())),
        lambda: pa.array([{"a": 1} for _ in range(n)], pa.struct([("a", pa.int8())])),
        lambda: pa.nulls(n),
        lambda: pa.array([rng.choice("ab") for _ in range(n)]).dictionary_encode(),
        lambda: pa.array([rng.choice((True, False, None)) for _ in range(n)], pa.bool_()),
        lambda: pa.array(list(range(n)), pa.timestamp("ns", rng.choice((None, "UTC")))),
        lambda: pa.array([f"text {i}" for i in range(n)], pa.large_string()),
        lambda: pa.array([i % 2 for i in range(n)], pa.uint8()),
        lambda: pa.array([[("k", 1)] for _ in range(n)], pa.map_(pa.string(), pa.int8())),
        lambda: pa.array([None if i % 3 else "ham" for i in range(n)]),
    ]
    names = rng.choice(("text label", "text label label", "label", "x text", "text label x")).split()
    arrays = [rng.choice(columns)() for _ in names]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, names), file, compression=rng.choice(("none", "snappy", "zstd")))
    return file.getvalue()


def damaged_arguments(rng: random.Random, flags: list[str]) -> list[str]:
    """A command line: options with values of no sense, unknown ones, none."""
    values = [
        *PIECES,
        *map(str, VALUES),
        *["rows.csv", "0", "3", "1e-3", "auto", "cpu", "--", "-1", "--out"],
        "12" * 400,
    ]
    found = []
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        flag = rng.choice(flags)
        if rng.random() < 0.1:
            at = rng.randrange(len(flag))
            flag = flag[:at] + rng.choice(PIECES) + flag[at + 1 :]
        chosen = [rng.choice(values) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        found += [f"{flag}={chosen[0]}"] if chosen and rng.random() < 0.3 else [flag, *chosen]
    # What no shell can pass: NUL ends an argument, surrogates come from bytes alone.
    return [each.replace("\0", "").replace("\ud800", "\udcff") for each in found if each.replace("\0", "")]
