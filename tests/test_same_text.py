"""One notion of the same text: what it is, and that every part of the data is kept apart by it."""

import logging
import time

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptcls.data.augment import Augmentation
from gptcls.data.labels import NUMBERS
from gptcls.data.same_text import text_key
from gptcls.data.sources import labelled_frame, load_data
from gptcls.data.split import Split, drop_duplicates, make_split, with_extra


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"Free" entry, 1st prize!', "free  ENTRY\n1st prize"),
        ("don't stop", "dont stop"),  # quotes that a reader has eaten
        ("ＦＲＥＥ １２", "free 12"),  # full width  # noqa: RUF001
        ("Straße", "STRASSE"),
        ("cafe\u0301", "café"),
        ("房间很大,服务也好。", "房间很大，服务也好"),  # noqa: RUF001
        ("thanks 😀", "thanks"),
        ("ok_now", "ok now"),
        ("a\u200bb\ufeff", "ab"),
        (": - )", ":-)"),
        ("👍\n👍", "👍 👍"),
    ],
)
def test_the_same(one, other):
    assert text_key(one) == text_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("call me", "called me"),
        ("room 1", "room 2"),
        ("房间很大", "房间不大"),
        ("का", "की"),  # vowel signs are marks, not letters
        (":-)", "???"),
        ("👍", "👎"),
        ("!", "!!"),
        ("cafe", "café"),
    ],
)
def test_not_the_same(one, other):
    assert text_key(one) != text_key(other)


@given(st.text())
def test_a_key_is_never_empty_for_a_text_with_anything_in_it(text):
    assert bool(text_key(text)) == bool(text.strip())
    assert text_key(f" {text}\n") == text_key(text)
    letters = "".join(filter(str.isalnum, text))
    assert not letters or text_key(f'"{text}"!') == text_key(text)


@pytest.mark.slow
def test_many_texts_take_a_moment():
    texts = [f'"Hello" there, number {i}: 酒店的房间很大,服务也不错 …' + " word" * 10 for i in range(100_000)]
    start = time.process_time()
    kept = drop_duplicates(labelled_frame([*texts, *(text.upper() for text in texts)], ["x"] * 200_000))
    assert len(kept) == 100_000
    assert time.process_time() - start < 15


def test_the_real_messages_are_apart(sms_file):
    """By their exact texts 8 of 1,035 test messages stood in train or validation."""
    split = make_split(drop_duplicates(load_data(sms_file)))
    keys = {name: set(map(text_key, part.text)) for name, part in split.items()}
    assert [len(keys[name]) for name in keys] == [len(part) for _, part in split.items()] == [3590, 513, 1025]
    assert [int((part.label == "spam").sum()) for _, part in split.items()] == [438, 63, 125]
    assert not keys["test"] & (keys["train"] | keys["validation"])
    assert not keys["validation"] & keys["train"]


def test_given_parts_extra_rows_and_new_texts_are_apart(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    rows = labelled_frame([f"text number {i}" for i in range(40)], ["a", "b"] * 20)
    test = labelled_frame(['"Text number 3"', "TEXT\tnumber 4!"], ["a", "b"])
    split = make_split(rows, test=test)
    assert not set(map(text_key, split.train.text)) & set(map(text_key, test.text))
    assert "removed 2 rows from train" in caplog.text
    extra = labelled_frame(["Text NUMBER 3", "text, number 7", "new", "New!"], ["a", "b", "a", "a"])
    assert with_extra(split, extra, "x.csv").train.text.tolist()[-1:] == ["new"]
    assert "x.csv: 1 rows added to train" in caplog.text
    part = labelled_frame(["win - now"], ["a"])
    found = Augmentation(("delete",), 30, 0.5).of(part, ["Win!"], 0)
    assert set(map(text_key, found.text[1:])) == {"now", "-"}, "not new: a dash less, the word of a test row"


def test_numbers_of_the_same_text_keep_their_mean():
    frame = labelled_frame(["Good!", "good", "bad"], ["1.0", "4.0", "2.0"])
    assert drop_duplicates(frame, NUMBERS).values.tolist() == [["Good!", "2.5", 2], ["bad", "2.0", 1]]


def test_the_index_of_the_rows_does_not_matter():
    frame = pd.concat([labelled_frame(["a", "A!"], ["x", "y"]), labelled_frame(["b", "c"], ["x", "y"])])
    assert drop_duplicates(frame).text.tolist() == ["b", "c"]
    split = Split(frame, frame[:0], frame[:0])
    assert with_extra(split, labelled_frame(["d"], ["x"]), "x").train.text.tolist()[-1] == "d"
