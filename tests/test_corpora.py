"""Public data sets in their authors' files: the real ones where they are at hand, and small imitations."""

import json
import logging
import zipfile
from pathlib import Path

import pytest

from gptcls.core.errors import InputError
from gptcls.data.corpora import CORPORA, corpus_of, load_parts
from gptcls.data.labels import LISTS, ONE_CLASS, Layout
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


def parts_of(name, folder):
    return load_parts(f"{name}:{folder}", layout=Layout(CORPORA[name].kind))


@pytest.mark.parametrize(
    ("name", "folder", "rows", "classes", "first"),
    [
        ("trec6", "trec6", {"train": 5452, "test": 500}, 6, "NUM"),
        ("goemotions", "goemotions", {"train": 43410, "validation": 5426, "test": 5427}, 28, '["sadness"]'),
        ("thucnews", "thucnews", {"train": 10000, "test": 10000}, 10, "education"),
        ("chnsenticorp", "chnsenticorp", {"train": 7765}, 2, "1"),
        ("movie-reviews", "movie_reviews", {"train": 2000}, 2, "neg"),
    ],
)
def test_the_real_files(name, folder, rows, classes, first):
    if not (SHARED / folder).exists():
        pytest.skip(f"{name} is not at {SHARED / folder}")
    parts = parts_of(name, SHARED / folder)
    assert {part: len(frame) for part, frame in parts.items()} == rows
    last = list(parts.values())[-1]
    assert last["label"].iloc[0] == first
    kind = CORPORA[name].kind
    assert len({each for label in parts["train"]["label"] for each in kind.names(label)}) == classes
    assert all(text.strip() for text in last["text"])


def test_questions(tmp_path):
    (tmp_path / "train_5500.label").write_bytes(b"DESC:def What is a caf\xe9 ?\nNUM:count How many ?\n")
    (tmp_path / "TREC_10.label").write_bytes(b"HUM:ind Who was Galileo ?\n")
    parts = parts_of("trec6", tmp_path)
    assert parts["train"]["text"].tolist() == ["What is a café ?", "How many ?"]
    assert parts["test"]["label"].tolist() == ["HUM"]
    (tmp_path / "TREC_10.label").write_text("HUM:ind Who was Galileo ?\nWho was that ?\n")
    with pytest.raises(InputError, match=r"TREC_10\.label, line 2: 'Who was that \?'"):
        parts_of("trec6", tmp_path)


def test_comments(tmp_path):
    (tmp_path / "labels.txt").write_text("anger\njoy\n")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text(f'"{name}" she said\t0,1\tx1\nplain\t1\tx2\n')
    parts = parts_of("goemotions", tmp_path)
    assert list(map(json.loads, parts["validation"]["label"])) == [["anger", "joy"], ["joy"]]
    assert parts["validation"]["text"].tolist() == ['"dev" she said', "plain"]


def test_titles_train_on_what_is_there(tmp_path, log):
    (tmp_path / "class.txt").write_text("finance\ngame\n")
    for name in ("dev", "test"):
        (tmp_path / f"{name}.txt").write_text(f"标题 {name}\t1\n另一个\t0\n", encoding="utf-8")
    assert list(parts_of("thucnews", tmp_path)) == ["train", "test"]
    assert "no train.txt, so dev.txt is trained on" in log.text
    (tmp_path / "train.txt").write_text("新的\t0\n", encoding="utf-8")
    parts = parts_of("thucnews", tmp_path)
    assert parts["train"]["label"].tolist() == ["finance"]
    assert parts["validation"]["text"].tolist()[0] == "标题 dev"


def test_reviews_in_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "movie_reviews.zip", "w") as archive:
        for name in ("neg/a.txt", "pos/b.txt", "README.txt"):
            archive.writestr(f"movie_reviews/{name}", f"text of {name}")
    frame = parts_of("movie-reviews", tmp_path)["train"]
    assert frame["label"].tolist() == ["neg", "pos"]
    with zipfile.ZipFile(tmp_path / "movie_reviews.zip", "w") as archive:
        archive.writestr("movie_reviews/README.txt", "text")
    with pytest.raises(InputError, match=r"movie_reviews\.zip holds no neg/.*fetch it again"):
        parts_of("movie-reviews", tmp_path)
    (tmp_path / "movie_reviews.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"movie_reviews\.zip .*fetch it again"):
        parts_of("movie-reviews", tmp_path)


def test_what_cannot_be_meant(tmp_path):
    with pytest.raises(InputError, match="goemotions is for --task multi, not --task single"):
        load_parts(f"goemotions:{tmp_path}")
    with pytest.raises(InputError, match="knows its own columns and labels"):
        load_parts(f"trec6:{tmp_path}", text_column="question")
    with pytest.raises(InputError, match="knows its own columns and labels"):
        load_parts(f"goemotions:{tmp_path}", layout=Layout(LISTS, label_separator=","))
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        load_parts(f"trec6:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match=r"holds no train.txt or train_5500\.label"):
        load_parts(f"trec6:{tmp_path}")
    with pytest.raises(InputError, match="no such file"):
        load_parts("other:folder", layout=Layout(ONE_CLASS))


def test_a_part_of_its_own_is_not_drawn(tmp_path):
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text(
            "NUM:dist How far is it ?\nHUM:ind Who was it ?\n" * 9, encoding="latin-1"
        )
    with pytest.raises(InputError, match=r"has a test part of its own; leave out --test-fraction"):
        read_split(resolve(TrainConfig.of(data=f"trec6:{tmp_path}", test_fraction=0.3)))


def test_names_of_runs():
    assert corpus_of("trec6:x/y") == ("trec6", Path("x/y"))
    assert corpus_of("rows.csv") is corpus_of("C:rows.csv") is None
    config = resolve(TrainConfig.of(data="trec6:../shared/data/trec"))
    assert config.run_name == "gpt2-nano-trec6"
