"""Tables in chunks: nothing changes on the way, memory stays small, nothing half-written stays."""

import logging
import tracemalloc
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.core.errors import InputError
from gptcls.data.columns import find_text_columns, values_of
from gptcls.data.readers import FORMATS, Dialect, Format, read_chunks, suffix_of
from gptcls.data.writer import WRITERS, ChunkWriter

NAMES = ["x.csv", "x.tsv", "x.csv.gz", "x.jsonl", "x.jsonl.gz", "x.jsonl.xz", "x.parquet"]
COLUMNS = {
    "id": ["007", "NA", "", "1e5"],
    "text": ['say "hi", you', "two\nlines\tand a tab", " lead", "a\rb"],
    "note": ["null", "nan", "2024-01-01", "ünï 🎉"],
}


def needs_pyarrow(name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")


def copy(source, target, rows=4096) -> None:
    with ChunkWriter(target, source=source) as writer:
        for chunk in read_chunks(source, rows):
            writer.write(chunk)


def content(path) -> dict[str, list]:
    chunks = list(read_chunks(path, rows=3))
    return {
        name: [value for chunk in chunks for value in values_of(chunk, name)] for name in chunks[0].columns
    }


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_every_format_to_every_other(tmp_path, source, target):
    needs_pyarrow(source), needs_pyarrow(target)
    first, second = tmp_path / f"a{source}", tmp_path / f"b{target}"
    with ChunkWriter(first) as writer:
        writer.write(pd.DataFrame(COLUMNS))
    copy(first, second, rows=3)
    assert content(first) == COLUMNS
    assert content(second) == COLUMNS
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{source}", f"b{target}"]


def test_what_is_written_can_be_read():
    assert [*WRITERS, ".xlsx"] == list(FORMATS), "workbooks are read alone"
    for suffix, packed in product(FORMATS, (".gz", ".XZ")):
        assert suffix_of(Path(f"x{suffix.upper()}{packed}")) == suffix


def test_a_new_format_is_a_line_in_each_table(tmp_path, monkeypatch):
    def read_lines(path, dialect, rows):
        texts = path.read_text(encoding=dialect.encoding).splitlines()
        for start in range(0, len(texts), rows):
            index = pd.RangeIndex(start + 1, start + 1 + len(texts[start : start + rows]), name="line")
            yield pd.DataFrame({"text": texts[start : start + rows]}, index)

    @contextmanager
    def lines_writer(part, path):
        with part.open("w") as file:
            yield lambda frame: file.writelines(f"{text}\n" for text in frame["text"])

    monkeypatch.setitem(FORMATS, ".lines", Format(read_lines, takes=("encoding",)))
    monkeypatch.setitem(WRITERS, ".lines", lines_writer)
    (tmp_path / "a.lines").write_text("one\ntwo\nthree\n")
    copy(tmp_path / "a.lines", tmp_path / "b.lines", rows=2)
    assert (tmp_path / "b.lines").read_text() == "one\ntwo\nthree\n"
    with pytest.raises(InputError, match=r"a\.lines .*leave out --separator"):
        read_chunks(tmp_path / "a.lines", dialect=Dialect(";"))
    (tmp_path / "a.lines").write_bytes(b"caf\xe9 au lait\n")
    with pytest.raises(InputError, match=r"a\.lines, line 1: not UTF-8"):
        read_chunks(tmp_path / "a.lines")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.just("x"))
    )
)
def test_csv_is_exact_for_any_text(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("any") / "x.csv"
    with ChunkWriter(path) as writer:
        writer.write(pd.DataFrame([*rows, ("last", "x")], columns=["text", "label"]))
    assert content(path)["text"] == [text for text, _ in rows] + ["last"]


def test_one_column_with_blank_texts(tmp_path):
    path = tmp_path / "x.csv"
    texts = ["a", "", "b", " "]
    with ChunkWriter(path) as writer:
        writer.write(pd.DataFrame({"text": texts}))
    assert content(path) == {"text": texts}


def test_tsv_of_one_column_is_quoted_like_csv(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_text('text\n"two\nlines"\n"say ""hi"""\n')
    assert content(path) == {"text": ["two\nlines", 'say "hi"']}


def test_types_of_parquet_and_json_stay(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    table = pa.table(
        {
            "text": ["a", "b", "c"],
            "count": pa.array([1, None, 2**60 + 1], pa.int64()),
            "score": pa.array([0.1, None, 2.0], pa.float32()),
            "day": pa.array([0, 1, None], pa.date32()),
            "tags": [["x"], [], None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    copy(tmp_path / "a.parquet", tmp_path / "b.parquet", rows=2)
    copied = pq.read_table(tmp_path / "b.parquet")
    assert copied.schema.types == table.schema.types
    assert copied.equals(table)

    lines = ['{"text": "a", "n": 1, "deep": {"k": [1, 2]}}', '{"text": "b", "n": null, "deep": null}']
    lines.append(f'{{"text": "c", "n": {2**60 + 1}, "deep": true}}')
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl", rows=2)
    assert (tmp_path / "b.jsonl").read_text().splitlines() == lines


def test_index_is_the_line_in_the_file(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('text,label\n"two\nlines",a\n\nplain,b\nlast,c\n')
    chunks = list(read_chunks(path, rows=2))
    assert [chunk.index.tolist() for chunk in chunks] == [[2, 5], [6]]
    assert chunks[0].index.name == "line"


def test_uci_file_without_a_header(tmp_path):
    path = tmp_path / "messages"
    path.write_text('ham\t"quoted\nspam\twin\n')
    assert content(path) == {"label": ["ham", "spam"], "text": ['"quoted', "win"]}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as file:
            file.write("text,label\n")
            file.writelines(f"a short message {i},x\n" for i in range(rows))
        tracemalloc.start()
        seen = sum(len(chunk) for chunk in read_chunks(path))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seen == rows
        return size

    peak(10)  # what pandas sets up at its first use
    small, large = peak(20_000), peak(150_000)
    assert large < 1.3 * small
    assert large < 12e6


# --- writing ---


def interrupted(path) -> None:
    with ChunkWriter(path) as writer:
        writer.write(pd.DataFrame(COLUMNS))
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", NAMES)
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, name):
    needs_pyarrow(name)
    path = tmp_path / name
    for before in (None, b"old content"):
        if before:
            path.write_bytes(before)
        with pytest.raises(KeyboardInterrupt):
            interrupted(path)
        assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "x.csv"
    path.write_text("old")
    full = Path("/dev/full")  # every write to it fails
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    monkeypatch.setattr("gptcls.data.writer._open_to_write", lambda part: full.open("w", buffering=64))
    with pytest.raises(OSError, match="No space"), ChunkWriter(path) as writer:
        writer.write(pd.DataFrame(COLUMNS))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_outputs_that_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text\na\n")
    for same in (path, tmp_path / "." / "x.csv"):
        with pytest.raises(InputError, match="is the input itself"):
            ChunkWriter(same, source=path)
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    with pytest.raises(InputError, match="is the input itself"):
        ChunkWriter(link, source=path)
    with pytest.raises(InputError, match=r"unknown format '\.txt'"):
        ChunkWriter(tmp_path / "x.txt")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        ChunkWriter(tmp_path / "folder.csv")


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_columns_that_change_midway(tmp_path, name):
    needs_pyarrow(name)
    first, second = pd.DataFrame({"text": ["a"]}), pd.DataFrame({"text": ["a"], "extra": ["b"]})
    with ChunkWriter(tmp_path / name) as writer:
        writer.write(first)
        with pytest.raises(InputError, match=r"'extra'.*write \.jsonl"):
            writer.write(second)


def test_a_parquet_column_of_mixed_types(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    with pytest.raises(InputError, match="mixes types"), ChunkWriter(tmp_path / "x.parquet") as writer:
        writer.write(pd.DataFrame({"text": ["a", 1]}, dtype=object))


def test_a_parquet_column_that_begins_with_nothing(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    lines = ['{"text": "a", "note": null}', '{"text": "b", "note": null}', '{"text": "c", "note": "late"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    copy(tmp_path / "a.jsonl", tmp_path / "a.parquet", rows=2)
    assert content(tmp_path / "a.parquet") == {"text": ["a", "b", "c"], "note": [None, None, "late"]}
    (tmp_path / "b.jsonl").write_text("\n".join(lines).replace('"late"', "5"))
    with pytest.raises(InputError, match=r"a column mixes types .*write \.jsonl"):
        copy(tmp_path / "b.jsonl", tmp_path / "b.parquet", rows=2)
    table = pa.table({"text": ["a"], "never": pa.array([None], pa.null())})
    pq.write_table(table, tmp_path / "c.parquet")
    copy(tmp_path / "c.parquet", tmp_path / "d.parquet")
    assert pq.read_table(tmp_path / "d.parquet").equals(table), "a file's own types stay"


# --- reading what cannot be read ---


def test_errors_come_before_the_first_chunk_or_at_their_line(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"text\n" + b"fine\n" * 9000 + b"caf\xe9\n")
    with pytest.raises(InputError, match="line 9002: not UTF-8"):
        read_chunks(path)
    with pytest.raises(InputError, match="no such file"):
        read_chunks(tmp_path / "absent.csv")
    path.write_text("text,label\n" + "fine,x\n" * 9000 + "bad\n")
    chunks = read_chunks(path)
    assert len(next(chunks)) == 4096
    with pytest.raises(InputError, match="line 9002: the header has 2 fields, this row 1"):
        list(chunks)
    path.write_text("text,label\n")
    with pytest.raises(InputError, match="has no rows"):
        list(read_chunks(path))


# --- the text column of unlabelled data ---


def test_text_column(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    assert find_text_columns(["id", "text", "date"]) == ("text",)
    assert caplog.text == ""
    assert find_text_columns(["id", "Message", "date"], source="x.csv") == ("Message",)
    assert "x.csv: text column 'Message' (guessed; set --text-column)" in caplog.text
    assert find_text_columns(["id", "text", "date"], "date") == ("date",)
    sample = pd.DataFrame({"k": ["7", "7", "8", "8"], "v": [f"rather a long message {i}" for i in range(4)]})
    assert find_text_columns(sample.columns, sample=sample) == ("v",)
    with pytest.raises(InputError, match="cannot tell which column is the text among 'k', 'v'"):
        find_text_columns(["k", "v"])
    with pytest.raises(InputError, match="did you mean 'text'"):
        find_text_columns(["text", "id"], "txt", source="x.csv")
