"""Files of data that are damaged, made to do harm, or absurdly large: one line, and nothing is believed."""

import gzip
import io
import json
import lzma
import random
import time
import tracemalloc
import zipfile

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.fault_mutations import damaged_bytes
from gptcls.classify.run import arriving_lines
from gptcls.core.errors import InputError
from gptcls.data import encodings, readers
from gptcls.data.corpora import movie_reviews
from gptcls.data.encodings import LONGEST_LINE
from gptcls.data.labels import LISTS, Layout
from gptcls.data.readers import Dialect, read_chunks
from gptcls.data.sources import load_data

TEXTS = [f"the text of row {i}, é🎉" for i in range(300)]
FRAME = pd.DataFrame({"text": TEXTS, "label": ["a", "b", "c"] * 100})


def refusal(path, **dialect) -> str:
    with pytest.raises(InputError) as caught:
        for _ in read_chunks(path, dialect=Dialect(**dialect)):
            pass
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    assert str(path) in line
    return line


def one_line(error: InputError) -> bool:
    assert "\n" not in str(error)
    return True


# --- too long, too large ---


def test_a_line_of_gigabytes_is_refused_before_it_is_read_whole(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "')
    with path.open("r+b") as file:
        file.seek(10)
        for _ in range(110):
            file.write(b"a" * 1_000_000)
        file.truncate(5_000_000_000)  # of which the disk holds what was written
    tracemalloc.start()
    try:
        assert f"line 1: it has more than {LONGEST_LINE:,} characters" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_the_length_of_each_line_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 50)
    monkeypatch.setattr(encodings, "BLOCK", 16)
    path = tmp_path / "x.tsv"
    path.write_text("text\tlabel\n" + ("w" * 40 + "\tx\n") * 20, encoding="utf-8")
    assert len(load_data(path)) == 20
    path.write_text("text\tlabel\nfirst\tx\n" + "w" * 80 + "\tx\n", encoding="utf-8")
    assert "line 3: it has more than 50 characters; put a line break" in refusal(path)


def test_a_line_of_gigabytes_on_standard_input(monkeypatch):
    monkeypatch.setattr("gptcls.classify.run.LONGEST_LINE", 1000)
    lines = arriving_lines(io.BytesIO(b"short\n" + b"a" * 5000 + b"\nlast\n"))
    assert next(lines) == ["short"]
    with pytest.raises(InputError, match="standard input, line 2: it has more than 1,000 bytes"):
        next(lines)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_bomb_is_refused_with_a_way_out(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(encodings, "SMALL", 1 << 20)
    path = tmp_path / f"x.csv{suffix}"
    rows = b"text,label\n" + b"\n" * (4 << 20)
    path.write_bytes((gzip if suffix == ".gz" else lzma).compress(rows))
    line = refusal(path)
    assert "unpack to more than 500 times as much" in line
    assert "unpack it first, and give what x.csv holds" in line
    rows = b"text,label\n" + b"".join(b"the text of row %d,a\n" % i for i in range(50_000))
    path.write_bytes((gzip if suffix == ".gz" else lzma).compress(rows))  # some 7 times
    assert sum(map(len, read_chunks(path))) == 50_000


def workbook(path, **how):
    FRAME.to_excel(path, index=False)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= how.get("members", {})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def lock(path):
    """Set the flag that a member is encrypted, in the central directory and in front of the bytes."""
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(magic)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(magic, at + 4)
    path.write_bytes(data)
    return path


def test_a_workbook_that_is_a_bomb_or_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "SMALL", 1 << 20)
    path = workbook(tmp_path / "x.xlsx", members={"xl/worksheets/sheet1.xml": b" " * (8 << 20)})
    assert "unpack to more than 500 times" in refusal(path)
    assert "is locked with a password; save it without one" in refusal(lock(workbook(path)))
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000))  # how Excel locks a workbook
    assert "is an old .xls, or has a password; save it as .xlsx" in refusal(path)


def test_an_archive_of_texts_that_is_locked_or_damaged(tmp_path):
    path = tmp_path / "movie_reviews.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("neg/1.txt", "a bad film " * 50)
        archive.writestr("pos/1.txt", "a good film " * 50)
    whole = path.read_bytes()
    assert len(movie_reviews(tmp_path)["train"]) == 2
    with pytest.raises(InputError, match="locked with a password"):
        movie_reviews(lock(path).parent)
    outcomes = set()
    for seed in range(60):
        path.write_bytes(damaged_bytes(random.Random(seed), whole))
        try:
            movie_reviews(tmp_path)
            outcomes.add("read")
        except InputError:
            outcomes.add("refused")
    assert "refused" in outcomes


# --- damaged ---


WRITERS = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    ".csv.xz": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path),
    ".xlsx": lambda frame, path: frame.to_excel(path, index=False),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_whatever_happened_to_a_file_it_is_read_or_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](FRAME[:30], path)
    whole, refused, begun = path.read_bytes(), 0, time.monotonic()
    for seed in range(60):
        path.write_bytes(damaged_bytes(random.Random(seed), whole))
        try:
            load_data(path, "text", "label")
        except InputError as error:
            refused += one_line(error)
        if time.monotonic() - begun > 1:
            break
    assert refused


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_parquet_file_with_damaged_pages_names_the_rows(tmp_path, compression):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.Table.from_pandas(FRAME), path, compression=compression, row_group_size=100)
    data = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    chunks = read_chunks(path, rows=100)
    assert len(next(chunks)) == 100
    with pytest.raises(InputError, match="is not a readable Parquet file from row 101 on: "):
        next(chunks)
    path.write_bytes(data[: len(data) // 2])
    assert "is not a readable Parquet file: " in refusal(path)


def test_a_parquet_file_whose_strings_are_not_utf_8(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"text": ["good text", "bad  text"], "label": ["a", "b"]})
    pq.write_table(table, path, compression="none")
    path.write_bytes(path.read_bytes().replace(b"bad  text", b"bad \xff\xfetext"[:9]))
    assert "UTF8" in refusal(path).replace("-", "").upper()


def test_json_nested_without_end(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": ' + "[" * 200_000 + "\n", encoding="utf-8")
    assert "line 1: not valid JSON" in refusal(path)
    path.write_text('{"text": "a", "label": ' + json.dumps("[" * 200_000) + "}\n", encoding="utf-8")
    assert load_data(path).label[0].startswith("[[[")  # one class has any name
    with pytest.raises(InputError, match="malformed list of labels"):
        load_data(path, layout=Layout(LISTS))


@pytest.mark.parametrize(
    "encoding",
    ["idna", "punycode", "raw_unicode_escape", "unicode-escape", "undefined", "base64", "rot13", "a\0b", ""],
)
def test_what_is_no_encoding_of_files_of_text(encoding):
    with pytest.raises(InputError, match=r"--encoding .*; use utf-8, cp1252"):
        Dialect(encoding=encoding)


@pytest.mark.slow
def test_every_other_encoding_reads_or_refuses(tmp_path):
    from encodings.aliases import aliases

    path = tmp_path / "x.csv"
    FRAME.to_csv(path, index=False)
    for encoding in sorted(set(aliases.values())):
        try:
            load_data(path, dialect=Dialect(encoding=encoding))
        except InputError as error:
            one_line(error)
