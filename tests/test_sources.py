"""Reading labelled data: named sets, files, guesses, and one clear line for whatever cannot be used."""

import contextlib
import csv
import gzip
import hashlib
import http.server
import io
import logging
import lzma
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gptcls.core.errors import InputError
from gptcls.data import download
from gptcls.data.labels import LISTS, NUMBERS, Layout
from gptcls.data.readers import Dialect
from gptcls.data.sources import from_frame, load_data

UCI = Path(__file__).parents[2] / "shared" / "data" / "sms" / "SMSSpamCollection"
needs_uci = pytest.mark.skipif(not UCI.exists(), reason="the SMS Spam Collection is not beside this checkout")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(frame: pd.DataFrame) -> list[tuple[str, str]]:
    assert list(frame.columns) == ["text", "label"]
    assert list(frame.index) == list(range(len(frame)))
    assert all(type(value) is str for column in frame for value in frame[column])
    return list(zip(frame.text, frame.label, strict=True))


def refusal(path: Path | str, **options: str) -> str:
    """The error line, which names the file."""
    with pytest.raises(InputError) as error:
        load_data(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert Path(path).name in message
    return message


# --- named data sets ---


def test_sample_is_half_spam_and_keeps_its_quotes():
    frame = load_data("sms-sample")
    assert len(rows(frame)) >= 400
    assert frame.label.value_counts(normalize=True).to_dict() == {"ham": 0.5, "spam": 0.5}
    raw = (Path(download.__file__).parents[1] / "assets" / "sms_sample.tsv").read_text(encoding="utf-8")
    assert rows(frame) == [tuple(line.split("\t"))[::-1] for line in raw.splitlines()[1:]]


@needs_uci
@pytest.mark.parametrize("name", ["SMSSpamCollection", "sms.tsv", "sms.csv", "sms.txt"])
def test_uci_file_whatever_its_name(tmp_path, name):
    path = write(tmp_path / name, UCI.read_bytes())
    frame = load_data(path)
    assert len(rows(frame)) == 5574
    assert frame.label.value_counts().to_dict() == {"ham": 4827, "spam": 747}
    expected = pd.read_csv(UCI, sep="\t", header=None, quoting=csv.QUOTE_NONE, keep_default_na=False)
    assert frame.label.tolist() == expected[0].tolist()
    assert frame.text.tolist() == expected[1].tolist()


# --- the download, from a server of our own ---


class Server:
    """Answers /name with a status and a body; a body of None never comes."""

    def __init__(self, answers: dict[str, tuple[int, bytes | None]]) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, body = answers[self.path]
                if body is None:
                    outer.release.wait(10)
                    return
                if self.path == "/endless":
                    self.send_response(status)
                    self.end_headers()
                    with contextlib.suppress(OSError):
                        while not outer.release.is_set():
                            self.wfile.write(body)
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + (500 if self.path == "/cut" else 0)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{name}"

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


TEXT = b"ham\tsee you at 6\nspam\tyou have won\n"


@pytest.fixture
def served(monkeypatch):
    """A server with a small zip in UCI's layout, and the module's checksums set to that zip's."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", "not wanted")
        archive.writestr("../outside", "must never be extracted")
        archive.writestr(download.MEMBER, TEXT)
    content = buffer.getvalue()
    monkeypatch.setattr(download, "ZIP_BYTES", len(content))
    monkeypatch.setattr(download, "ZIP_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(download, "MEMBER_SHA256", hashlib.sha256(TEXT).hexdigest())
    server = Server(
        {
            "/good": (200, content),
            "/cut": (200, content[:-40]),
            "/html": (200, b"<html>please log in</html>"),
            "/other": (200, content[:-1] + b"!"),
            "/endless": (200, content),
            "/absent": (404, b"no"),
            "/stall": (200, None),
        }
    )
    yield server
    server.close()


def test_download_once_then_no_network(served, tmp_path):
    folder = tmp_path / "new" / "dataset"
    path = download.sms_spam_file(folder, [served.url("/good")])
    assert path == folder / "SMSSpamCollection"
    assert path.read_bytes() == TEXT
    assert download.sms_spam_file(folder, [served.url("/good")]) == path
    assert served.asked == ["/good"]
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["SMSSpamCollection"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("/cut", "bytes"),
        ("/html", "web page"),
        ("/other", "wrong checksum"),
        ("/endless", "wrong checksum"),
        ("/absent", "404"),
        ("/stall", "timed out"),
    ],
)
def test_bad_download_is_named_and_the_next_address_tried(served, tmp_path, bad, said):
    with pytest.raises(InputError, match=said) as error:
        download.sms_spam_file(tmp_path, [served.url(bad)], timeout=0.3, deadline=3)
    assert served.url(bad) in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert list(tmp_path.iterdir()) == []
    path = download.sms_spam_file(tmp_path, [served.url(bad), served.url("/good")], timeout=0.3)
    assert path.read_bytes() == TEXT


def test_zip_with_another_member(served, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MEMBER_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"SMSSpamCollection in .* wrong checksum"):
        download.sms_spam_file(tmp_path, [served.url("/good")])
    assert list(tmp_path.iterdir()) == []


def test_download_without_a_network_or_in_drips(served, tmp_path):
    nobody = "http://127.0.0.1:9/x.zip"
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*put sms\+spam\+collection.zip"):
        download.sms_spam_file(tmp_path, [nobody])
    with pytest.raises(InputError, match="not finished after 0 s"):
        download.sms_spam_file(tmp_path, [served.url("/good")], deadline=0)


def test_files_already_there(served, tmp_path):
    archive = tmp_path / download.ZIP_NAME
    archive.write_bytes(b"not the zip")
    with pytest.raises(InputError, match="is not UCI's zip"):
        download.sms_spam_file(tmp_path, [served.url("/good")])
    path = write(tmp_path / "SMSSpamCollection", b"ham\tmy own edits\n")
    with pytest.raises(InputError, match="delete it to download it again"):
        download.sms_spam_file(tmp_path, [served.url("/good")])
    assert path.read_bytes() == b"ham\tmy own edits\n"
    path.unlink()
    archive.unlink()
    zipped = download.urlopen(served.url("/good")).read()
    archive.write_bytes(zipped)
    assert download.sms_spam_file(tmp_path, [served.url("/absent")]).read_bytes() == TEXT


def test_name_reads_from_the_folder_of_the_environment(served, tmp_path, monkeypatch):
    write(tmp_path / "SMSSpamCollection", TEXT)
    monkeypatch.setenv("GPTCLS_DATA", str(tmp_path))
    assert rows(load_data("sms-spam")) == [("see you at 6", "ham"), ("you have won", "spam")]


# --- formats ---

MESSAGES = [
    'He said "hi", twice',
    "a\ttab",
    "two\nlines",
    " leading space",
    "NA",
    "null",
    "007",
    "ünï 你好 🎉",
]
EXPECTED = [(text, "ab"[i % 2]) for i, text in enumerate(MESSAGES)]


@pytest.mark.parametrize(
    "name",
    ["x.csv", "x.tsv", "x.csv.gz", "x.jsonl", "x.json", "x.ndjson", "x.jsonl.gz", "x.csv.xz", "x.parquet"],
)
def test_what_pandas_writes_is_read_exactly(tmp_path, name):
    frame = pd.DataFrame(EXPECTED, columns=["text", "label"])
    path = tmp_path / name
    if "json" in name:
        frame.to_json(path, orient="records", lines=True)
    elif name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    assert rows(load_data(path)) == EXPECTED


def test_tsv_without_quoting_keeps_bare_quotes(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    text = 'label\ttext\nham\t"Hi" she said\nspam\t"unclosed\nham\t5" screen\nspam\tlast "word"\n'
    expected = [
        ('"Hi" she said', "ham"),
        ('"unclosed', "spam"),
        ('5" screen', "ham"),
        ('last "word"', "spam"),
    ]
    assert rows(load_data(write(tmp_path / "x.tsv", text))) == expected
    assert "quotes are read as ordinary characters" in caplog.text


def test_tsv_with_quoting_only_around_quotes(tmp_path):
    text = 'label\ttext\nham\t"say ""hi"" to her"\nspam\tno quotes\n'
    expected = [('say "hi" to her', "ham"), ("no quotes", "spam")]
    assert rows(load_data(write(tmp_path / "x.tsv", text))) == expected


def test_book_csv_files(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    path = write(tmp_path / "train.csv", 'Label,Text\n0,see you\n1,"win, now"\n')
    assert rows(load_data(path)) == [("see you", "0"), ("win, now", "1")]
    assert (
        "text column 'Text', label column 'Label' (guessed; set --text-column/--label-column)" in caplog.text
    )


def test_labels_become_strings(tmp_path):
    def labels(*values: str) -> list[str]:
        lines = "".join(f'{{"text": "t{i}", "label": {value}}}\n' for i, value in enumerate(values))
        return load_data(write(tmp_path / "x.jsonl", lines)).label.tolist()

    assert labels("1", "0") == ["1", "0"]
    assert labels("1.0", "0.0", "2") == ["1", "0", "2"]  # an integer column that had gaps
    assert labels("1.5", "1.0") == ["1.5", "1.0"]
    assert labels("true", "false") == ["True", "False"]
    assert labels('"NA"', '" ham "') == ["NA", "ham"]


def test_words_for_nothing_are_texts_but_no_labels(tmp_path):
    words = ["nan", "NaN", "NA", "null", "None", "<NA>", "n/a"]
    for name, mark in (("x.csv", ","), ("x.tsv", "\t")):
        path = write(tmp_path / name, f"text{mark}label\n" + "".join(f"{word}{mark}NA\n" for word in words))
        assert rows(load_data(path)) == [(word, "NA") for word in words]
    for label in ("nan", "NaN", "<NA>"):
        path = write(tmp_path / "x.csv", f"text,label\nfine,a\nhello,{label}\n")
        assert "missing label in column 'label' in line 3" in refusal(path)


def test_numbered_rows_keep_their_lines(tmp_path):
    path = write(tmp_path / "x.csv", 'text,label\n"two\nlines",a\n\nlast,b\n')
    frame = load_data(path, numbered=True)
    assert frame.index.tolist() == [2, 5]
    assert frame.index.name == "line"
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), load_data(path))
    assert load_data(path).index.name is None


def test_byte_order_mark_crlf_and_blank_lines(tmp_path):
    path = write(tmp_path / "x.csv", b"\xef\xbb\xbftext,label\r\na b,x\r\n\r\nc d,y\r\n   \r\n")
    assert rows(load_data(path)) == [("a b", "x"), ("c d", "y")]


def test_lone_surrogate_in_json_becomes_a_replacement_character(tmp_path):
    path = write(tmp_path / "x.jsonl", r'{"text": "cut \ud83d", "label": "\ud83d\ude00"}')
    assert rows(load_data(path)) == [("cut \ufffd", "\U0001f600")]


def test_kaggle_spam_csv_with_trailing_commas(tmp_path):
    lines = (
        ["v1,v2,,,"]
        + [f"ham,message number {i} of them all,,," for i in range(3)]
        + ["spam,you have won a big prize,,,"]
    )
    frame = load_data(write(tmp_path / "spam.csv", "\n".join(lines)))
    assert rows(frame)[0] == ("message number 0 of them all", "ham")
    assert len(frame) == 4


# --- columns ---


def test_named_columns_win_over_guesses(tmp_path):
    path = write(tmp_path / "x.csv", "text,label,other,kind\na,b,c,d\n")
    assert rows(load_data(path, text_column="other", label_column="kind")) == [("c", "d")]


@pytest.mark.parametrize(
    "header", ["text,message,label", "text,label,class", "title,score,label", "a,b", "text,b,c"]
)
def test_ambiguous_columns_are_not_guessed(tmp_path, header):
    width = header.count(",") + 1
    path = write(
        tmp_path / "x.csv",
        header + "\n" + "\n".join(",".join(f"v{i}{j}" for j in range(width)) for i in range(6)),
    )
    message = refusal(path)
    assert "cannot tell which column" in message
    assert all(repr(name) in message for name in header.split(","))


def test_first_row_of_data_is_not_taken_for_a_header(tmp_path):
    lines = [f"this is a rather long message {i}\t{i % 2}" for i in range(8)]
    assert "put a header" in refusal(write(tmp_path / "x.tsv", "\n".join(lines)))
    lines = [f"{('no', 'yes')[i % 2]},short but many words {i}" for i in range(8)]
    assert "cannot tell" in refusal(write(tmp_path / "x.csv", "\n".join(lines)))


def test_absent_column_names_the_nearest(tmp_path):
    path = write(tmp_path / "x.csv", "Message,Category\na,b\n")
    message = refusal(path, text_column="mesage")
    assert "'mesage'" in message
    assert "did you mean 'Message'?" in message
    assert "'Category'" in message
    assert "--label-column" in refusal(path, label_column="zzz")
    assert "cannot be both" in refusal(path, text_column="Message", label_column="Message")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "x.csv",
            "text,label\na,x\n,y\n  ,y\nb,z\n,\n,w\n",
            "no text in column 'text' in 4 rows (lines 3, 4, 6, …): dropped",
        ),
        (
            "x.jsonl",
            '{"text": "a", "label": "x"}\n{"label": "x"}\n{"text": "b", "label": "z"}\n',
            "no text in column 'text' in line 2: dropped",
        ),
    ],
)
def test_rows_without_text_are_dropped_and_counted(tmp_path, caplog, name, content, said):
    caplog.set_level(logging.INFO, "gptcls")
    path = write(tmp_path / name, content)
    assert rows(load_data(path)) == [("a", "x"), ("b", "z")]
    assert f"{path}: {said}" in caplog.text
    assert load_data(path, numbered=True).index.tolist() == ([2, 5] if name == "x.csv" else [1, 3])


# --- what cannot be used ---

GOOD = "text,label\nhello,a\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("e.csv", "", "is empty"),
        ("e.csv", "\n\n", "is empty"),
        ("e.jsonl", "\n", "no rows"),
        ("h.csv", "text,label\n", "no rows"),
        ("h.tsv", "text\tlabel\n", "no rows"),
        ("d.csv", "text,label,text\na,b,c\n", "line 1: more than one column is named 'text'"),
        ("x.csv", "text,label\n,x\n  ,y\n", "no row has text in column 'text'; choose another"),
        ("x.csv", "text,label\na,x\nb,\nc,nan\n", "missing label in column 'label' in 2 rows (lines 3, 4)"),
        ("x.csv", 'text,label\n"two\nlines",x\na,\n', "in line 4"),
        (
            "x.csv",
            'text,label\na,x\n"never closed,x\nb,y\n',
            "line 3: a quote opens here and is never closed",
        ),
        ("x.csv", 'text,label\n"closed" early,x\n', "line 2: text follows a closing quote"),
        ("x.csv", "text,label\na,x\nb,c,d,y\n", "line 3: the header has 2 fields, this row 4"),
        ("x.csv", "text,label\na,x\nb\n", "line 3: the header has 2 fields, this row 1"),
        ("x.tsv", "text\tlabel\na\tx\nb\tc\tx\n", "line 3: the header has 2 fields, this row 3"),
        ("x.csv", "text,label\nnul \0 byte,x\n", "line 2: a NUL"),
        ("x.csv", "text;label\na;b\n", "separated by ';'"),
        ("x.csv", "text\tlabel\na\tb\n", "separated by a tab (.tsv)"),
        ("x.jsonl", '{"text": "a", "label": "x"}\n{"text": "b",\n', "line 2: not valid JSON"),
        ("x.jsonl", '{"text": "a", "label": "x"}\n\n["b", "y"]\n', "line 3: a JSON array, not an object"),
        ("x.json", '[\n{"text": "a", "label": "x"}]', "jq -c '.[]' x.json"),
        ("x.json", '[{"text": "a", "label": "x"}]', "jq -c '.[]' x.json"),
        ("x.json", '{\n"text": "a", "label": "x"}', "jq -c . x.json"),
        (
            "x.jsonl",
            '{"text": "a", "label": "x", "text": "b"}',
            "line 1: not valid JSON ('text' stands twice",
        ),
        (
            "x.jsonl",
            '{"text": "a", "label": "x"}\n{"text": 5, "label": "x"}',
            "type int in column 'text', not text in line 2",
        ),
        (
            "x.jsonl",
            '{"text": "a", "label": "x"}\n{"text": "b", "label": null}\n',
            "missing label in column 'label' in line 2",
        ),
        ("x.jsonl", '{"text": "a", "label": ["x", "y"]}\n', "a list or object in column 'label'"),
        ("x.jsonl", '{"text": "a\\u0000", "label": "x"}\n', "a NUL character in column 'text'"),
        ("x.csv", GOOD.encode("utf-16"), "looks like UTF-16. Convert it: iconv -f UTF-16 -t UTF-8"),
        ("x.csv", GOOD.encode("utf-16-le"), "looks like UTF-16LE"),
        (
            "x.csv",
            (GOOD + "caf\u00e9 \u20ac5,b\n").encode("cp1252"),
            "line 3: not UTF-8; it looks like CP1252. Convert it: iconv -f CP1252",
        ),
        ("x.jsonl", '{"text": "caf\u00e9", "label": "x"}'.encode("cp1252"), "looks like CP1252"),
        ("x.csv", "text,label\n你好世界你好世界你好世界,好\n".encode("gb18030"), "looks like GB18030"),
        ("x.csv", GOOD.encode() + "你".encode()[:2], "ends inside a character"),
        ("x.csv", b"PK\x03\x04 excel", "Excel workbook"),
        ("x.csv", gzip.compress(GOOD.encode(), mtime=0), "add .gz"),
        ("x.csv.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "damaged gzip"),
        ("x.csv.gz", GOOD, "damaged gzip"),
        ("x.csv", lzma.compress(GOOD.encode()), "add .xz"),
        ("x.csv.xz", lzma.compress(GOOD.encode())[:-9], "damaged xz"),
        ("x.csv.xz", GOOD, "damaged xz"),
        ("x.txt", GOOD, "unknown format '.txt'"),
        ("noformat", GOOD, "unknown format"),
        ("x.parquet", GOOD, "x.parquet"),
    ],
)
def test_one_line_for_bad_files(tmp_path, name, content, said):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    assert said in refusal(write(tmp_path / name, content))


def test_line_of_a_bad_byte_far_into_the_file(tmp_path):
    content = GOOD.encode() + b"some text,a\n" * 200_000 + b"caf\xe9,a\n"
    assert "line 200003: not UTF-8" in refusal(write(tmp_path / "x.csv", content))


def test_multibyte_characters_across_block_ends_are_fine(tmp_path, monkeypatch):
    monkeypatch.setattr("gptcls.data.encodings.BLOCK", 7)
    path = write(tmp_path / "x.csv", "text,label\n" + "你好🎉,ü\n" * 20)
    assert rows(load_data(path)) == [("你好🎉", "ü")] * 20


def test_missing_files_and_unknown_names(tmp_path, monkeypatch):
    write(tmp_path / "reviews.csv", GOOD)
    assert "did you mean 'reviews.csv'?" in refusal(tmp_path / "review.csv")
    assert "no folder" in refusal(tmp_path / "nowhere" / "x.csv")
    assert "is a folder" in refusal(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'sms-spam'?" in refusal("sms-spm")
    assert "sms-sample" in refusal("imdb")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'gptcls[parquet]'" in refusal(write(tmp_path / "x.parquet", b"PAR1"))


def test_parquet_columns(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    path = tmp_path / "x.parquet"
    pd.DataFrame({"text": ["a", None, "c"], "label": [1, 2, 3]}).to_parquet(path)
    assert rows(load_data(path)) == [("a", "1"), ("c", "3")]
    pd.DataFrame({"text": ["a", "b", "c"], "label": [1.0, None, 3.0]}).to_parquet(path)
    assert "missing label in column 'label' in row 2" in refusal(path)
    pd.DataFrame({"text": [1, 2], "label": ["a", "b"]}).to_parquet(path)
    assert "type int in column 'text', not text in 2 rows (rows 1, 2)" in refusal(path)
    labels = pd.Categorical(["x", "y", "x"])
    pd.DataFrame({"text": list("abc"), "label": labels}, index=[7, 8, 9]).to_parquet(path)
    assert rows(load_data(path)) == [("a", "x"), ("b", "y"), ("c", "x")]


def test_a_long_field_is_read_and_an_endless_one_refused(tmp_path, monkeypatch):
    long = "word " * 100_000
    assert load_data(write(tmp_path / "x.csv", f"text,label\n{long},a\n")).text[0] == long
    csv.field_size_limit(1000)
    monkeypatch.setattr("gptcls.data.readers.FIELD_LIMIT", 1000)
    too_long = "line 2: a field of more than 1,000 characters; cut it into several texts"
    assert refusal(write(tmp_path / "x.csv", f"text,label\n{long},a\n")).endswith(too_long)
    endless = refusal(write(tmp_path / "x.csv", 'text,label\n"a,b\n' + "a text,b\n" * 1000))
    assert f"{too_long}, or close the quote: it runs to line" in endless


def test_semicolons_are_named(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_text('Text;Label\n"Gut, schnell";gut\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"excel.csv, line 1: .*separated by ';'; give --separator ';'"):
        load_data(path)


# --- separators and encodings that are named ---

EXCEL = 'Text;Label\r\n"Gut; schnell, café";gut\r\nnö;schlecht\r\n'
EXCEL_ROWS = [("Gut; schnell, café", "gut"), ("nö", "schlecht")]


@pytest.mark.parametrize(
    "encoding", [None, "utf-8", "utf-8-sig", "cp1252", "latin-1", "gb18030", "utf-16", "UTF_16_LE"]
)
@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x.tsv", "x.csv.gz"])
def test_separator_and_encoding(tmp_path, name, encoding):
    content = EXCEL.encode(encoding or "utf-8")
    path = write(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    assert rows(load_data(path, dialect=Dialect(";", encoding))) == EXCEL_ROWS
    assert load_data(path, dialect=Dialect(";", encoding), numbered=True).index.tolist() == [2, 3]


@pytest.mark.parametrize("mark", ["utf-16-le", "utf-8", "gb18030"])
def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path, mark):
    path = write(tmp_path / "x.csv", ("\ufeff" + EXCEL).encode(mark))
    assert rows(load_data(path, "Text", dialect=Dialect(";", mark))) == EXCEL_ROWS


def test_encoding_of_other_formats(tmp_path):
    dialect = Dialect(encoding="cp1252")
    path = write(tmp_path / "x.tsv", 'text\tlabel\n"Hi" café\tx\n'.encode("cp1252"))
    assert rows(load_data(path, dialect=dialect)) == [('"Hi" café', "x")]
    path = write(tmp_path / "x.jsonl", '{"text": "café", "label": 1}\n'.encode("cp1252"))
    assert rows(load_data(path, dialect=dialect)) == [("café", "1")]
    path = write(tmp_path / "uci", "ham\tcafé\nspam\twin\n".encode("cp1252"))
    assert rows(load_data(path, dialect=dialect)) == [("café", "ham"), ("win", "spam")]


@pytest.mark.parametrize("separator", ["|", "tab", "\\t", "\t", " "])
def test_other_separators(tmp_path, separator):
    mark = {"tab": "\t", "\\t": "\t"}.get(separator, separator)
    path = write(tmp_path / "x.dat", f'text{mark}label\n"a{mark}b"{mark}x\n')
    assert rows(load_data(path, dialect=Dialect(separator))) == [(f"a{mark}b", "x")]


@pytest.mark.parametrize("separator", ["", ";;", '"', "\n", "a", "7", "\0"])
def test_separators_that_are_none(separator):
    with pytest.raises(InputError, match="cannot separate fields; use one character"):
        Dialect(separator)


@pytest.mark.parametrize("encoding", ["", "utf-9", "base64", "rot13", "a\0b"])
def test_encodings_that_are_none(encoding):
    with pytest.raises(InputError, match=r"--encoding .* is not one that Python knows"):
        Dialect(encoding=encoding)


@pytest.mark.parametrize(
    ("name", "content", "dialect", "said"),
    [
        ("x.csv", EXCEL.encode("gb18030"), {"encoding": "utf-16"}, "line 1: not utf-16"),
        ("x.csv", b"text,label\nfine,x\n\x81bad,y\n", {"encoding": "cp1252"}, "line 3: not cp1252"),
        ("x.csv", EXCEL.encode("utf-16-le"), {"encoding": "latin-1"}, "line 1: a NUL character"),
        ("x.csv", EXCEL.encode("utf-16-le")[:-1], {"encoding": "utf-16-le"}, "not utf-16-le"),
        ("x.jsonl", '{"text": "a", "label": "b"}', {"separator": ";"}, "leave out --separator"),
        ("x.parquet", "PAR1", {"separator": ";"}, "leave out --separator"),
        ("x.parquet", "PAR1", {"encoding": "cp1252"}, "leave out --encoding"),
        ("x.csv", EXCEL, {"separator": "|"}, "separated by ';'; give --separator"),
        ("x.csv", "a;b\n1;2;3\n", {"separator": ";"}, "line 2: the header has 2 fields, this row 3"),
    ],
)
def test_named_wrongly(tmp_path, name, content, dialect, said):
    path = write(tmp_path / name, content)
    assert said in refusal(path, dialect=Dialect(**dialect))


def test_a_long_file_is_decoded_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr("gptcls.data.encodings.BLOCK", 7)
    content = ("text;label\n" + "你好🎉;ü\n" * 20).encode("utf-16")
    path = write(tmp_path / "x.csv", content)
    assert rows(load_data(path, dialect=Dialect(";", "utf-16"))) == [("你好🎉", "ü")] * 20
    bad = write(tmp_path / "bad.csv", ("text;label\n" + "a;b\n" * 20).encode() + b"\x81;c\n")
    assert "line 22: not cp1252" in refusal(bad, dialect=Dialect(";", "cp1252"))


def test_a_named_set_has_its_own():
    assert "sms-sample needs none of them" in refusal("sms-sample", dialect=Dialect(";"))


# --- frames in memory ---


def frame_refusal(frame: pd.DataFrame, **options) -> str:
    with pytest.raises(InputError) as error:
        from_frame(frame, **options)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("the frame")
    return str(error.value)


def test_a_frame_gives_what_its_file_gives(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    frame = pd.DataFrame({"n": range(8), "Message": MESSAGES, "Category": [1.0, 0.0] * 4}, index=range(5, 13))
    path = tmp_path / "x.csv"
    frame.to_csv(path, index=False)
    found = from_frame(frame)
    assert rows(found) == rows(load_data(path)) == [(text, "10"[i % 2]) for i, text in enumerate(MESSAGES)]
    guess = "text column 'Message', label column 'Category' (guessed"
    assert f"the frame: {guess}" in caplog.text
    assert f"{path}: {guess}" in caplog.text
    assert rows(from_frame(frame, "Message", "n"))[2] == (MESSAGES[2], "2")
    assert list(frame.columns) == ["n", "Message", "Category"], "the caller's frame stays as it is"


def test_free_text_is_guessed_in_a_frame_as_in_a_file():
    texts = [f"a message that is number {i} of some" for i in range(6)]
    assert rows(from_frame(pd.DataFrame({"v1": ["x", "y"] * 3, "v2": texts})))[1] == (texts[1], "y")
    lists = pd.DataFrame({"v1": [np.array(["x", "y"])] * 6, "v2": texts})
    assert from_frame(lists, layout=Layout(LISTS)).label[0] == '["x", "y"]'


def test_rows_of_a_frame_without_text_are_dropped(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    frame = pd.DataFrame({"text": ["a", None, "b", float("nan"), " "], "label": ["x", "x", "y", None, "y"]})
    assert rows(from_frame(frame)) == [("a", "x"), ("b", "y")]
    assert "the frame: no text in column 'text' in 3 rows (rows 1, 3, 4): dropped" in caplog.text


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([["b", "a"], ("a",), [], {"c"}], ['["a", "b"]', '["a"]', "[]", '["c"]']),
        ([np.array(["b", "a"]), np.array([]), ["a"], []], ['["a", "b"]', "[]", '["a"]', "[]"]),
        ([[np.int64(3)], [2], [], []], ['["3"]', '["2"]', "[]", "[]"]),
        (["a", "b", "a", ""], ['["a"]', '["b"]', '["a"]', "[]"]),
    ],
)
def test_lists_of_labels_in_a_frame(labels, expected):
    frame = pd.DataFrame({"text": list("abcd"), "label": pd.Series(labels, dtype=object)})
    assert from_frame(frame, layout=Layout(LISTS)).label.tolist() == expected


def test_columns_of_0_and_1_in_a_frame():
    frame = pd.DataFrame({"text": ["one", "two"], "joy": [1, 0], "fear": [True, False]})
    layout = Layout(LISTS, label_columns=("joy", "fear"))
    assert from_frame(frame, layout=layout).label.tolist() == ['["fear", "joy"]', "[]"]


def test_numbers_in_a_frame():
    frame = pd.DataFrame({"text": ["one", "two"], "stars": [4, 5], "price": np.array([0.5, 2], np.float32)})
    assert from_frame(frame, label_column="stars", layout=Layout(NUMBERS)).label.tolist() == ["4.0", "5.0"]
    layout = Layout(NUMBERS, label_columns=("stars", "price"))
    assert from_frame(frame, layout=layout).label[1] == '{"stars": 5.0, "price": 2.0}'
    named = pd.DataFrame({"text": ["one", "two"], "label": [{"y": 1, "x": 2}, {"x": 0.5, "y": 3}]})
    assert from_frame(named, layout=Layout(NUMBERS)).label[0] == '{"x": 2.0, "y": 1.0}'


def test_any_types_and_any_index():
    labels = pd.Categorical(["x", "y", "x"])
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)])
    frame = pd.DataFrame({"text": pd.array(["a", "b", None], "string"), "label": labels}, index)
    assert rows(from_frame(frame)) == [("a", "x"), ("b", "y")]
    assert rows(from_frame(frame[:2].set_axis([7, 7]))) == [("a", "x"), ("b", "y")]
    flags = pd.DataFrame({"text": ["a", "b"], "label": [True, False]})
    assert from_frame(flags).label.tolist() == ["True", "False"]


def test_frames_that_cannot_be_used():
    good = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}, index=[10, 20])
    assert "no rows" in frame_refusal(good[:0])
    assert "column 0 " in frame_refusal(pd.DataFrame([["a", "x"]]))
    assert "named 'text'" in frame_refusal(pd.concat([good, good], axis=1))
    assert "'lable'" in frame_refusal(good, label_column="lable")
    assert "cannot tell which column" in frame_refusal(good.assign(message="m"))
    assert "type int in column 'text'" in frame_refusal(good.assign(text=[1, 2]))
    assert "no row has text" in frame_refusal(good.assign(text=["", None]))
    assert "missing label in column 'label' in row 20" in frame_refusal(good.assign(label=["x", None]))
    assert "--task multi" in frame_refusal(good.assign(label=[["x"], ["y"]]))
    numbers = good.assign(label=[1.0, float("nan")])
    assert "in row 20" in frame_refusal(numbers, layout=Layout(NUMBERS))
    assert "lists" in frame_refusal(good.assign(label=[["x"], "y"]), layout=Layout(LISTS))
