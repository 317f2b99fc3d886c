"""New training texts: labels and rows kept, validation and test untouched, one seed one result."""

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.tiny import ROWS, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.core.errors import InputError
from gptcls.data.augment import (
    OPERATIONS,
    Augmentation,
    delete_words,
    insert_synonyms,
    read_synonyms,
    replace_synonyms,
    swap_words,
)
from gptcls.data.sources import labelled_frame
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import train

TABLE = {"win": ("gain", "earn money"), "prize": ("award",), "see": ("watch",)}
NAMES = tuple(OPERATIONS)


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


def random(seed=0):
    return np.random.RandomState(seed)


# --- the operations ---


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["Win", "(see)", "PRIZE!", "a", "--", "now,"]), min_size=1, max_size=9),
    st.data(),
)
def test_operations(words, data):
    n, seed = data.draw(st.integers(1, len(words))), data.draw(st.integers(0, 2**32 - 1))
    known = sum(word in ("Win", "(see)", "PRIZE!") for word in words)
    before = list(words)
    replaced = replace_synonyms(words, n, TABLE, random(seed))
    assert len(replaced) == len(words)
    changed = [(a, b) for a, b in zip(words, replaced, strict=True) if a != b]
    assert len(changed) == min(n, known), "as many as asked, each once"
    allowed = {"Win": {"Gain", "Earn money"}, "(see)": {"(watch)"}, "PRIZE!": {"AWARD!"}}
    assert all(b in allowed[a] for a, b in changed), "marks and capitals stay"
    inserted = insert_synonyms(words, n, TABLE, random(seed))
    assert len(inserted) == len(words) + (n if known else 0)
    new = Counter(inserted) - Counter(words)
    assert set(new) <= {"gain", "earn money", "watch", "award"}
    rest = iter(inserted)
    assert all(word in rest for word in words), "the words stay in their order"
    deleted = delete_words(words, n, TABLE, random(seed))
    assert deleted
    rest = iter(words)
    assert all(word in rest for word in deleted)
    assert Counter(swap_words(words, n, TABLE, random(seed))) == Counter(words)
    assert words == before, "the input stays"


def test_deletions_and_swaps_by_the_paper():
    """Each word goes with probability alpha; n swaps move at most 2 n words."""
    words = [str(i) for i in range(100)]
    lengths = [len(delete_words(words, 10, {}, random(seed))) for seed in range(200)]
    assert np.mean(lengths) == pytest.approx(90, abs=1)
    assert np.std(lengths) == pytest.approx(np.sqrt(100 * 0.1 * 0.9), rel=0.2)
    moved = [
        sum(a != b for a, b in zip(words, swap_words(words, 3, {}, random(s)), strict=True))
        for s in range(50)
    ]
    assert 0 < min(moved) <= max(moved) == 6


# --- frames ---

frames = st.lists(
    st.tuples(st.text("winse 你pr!", min_size=1, max_size=12).filter(str.strip), st.sampled_from("ab")),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(frames, st.sets(st.sampled_from(NAMES), min_size=1), st.integers(1, 3), st.integers(0, 99))
def test_rows_and_labels_are_kept_and_nothing_leaks(rows, names, copies, seed):
    train_rows = labelled_frame([text for text, _ in rows], [label for _, label in rows])
    others = ["win", "prize see", "w  i"]
    augmentation = Augmentation(tuple(sorted(names)), copies, 0.4)
    try:
        found = augmentation.of(train_rows, others, seed)
    except InputError as error:
        assert "could make no new text" in str(error)  # noqa: PT017
        return
    n = len(train_rows)
    pd.testing.assert_frame_equal(found[:n], train_rows)
    assert list(found.index) == list(range(len(found)))
    new = found[n:]
    assert 0 < len(new) <= n * copies * len(names)
    assert new.text.is_unique
    same = {" ".join(text.split()) for text in (*train_rows.text, *others)}
    assert not set(new.text) & same, "none repeats a text of any part"
    assert set(new.label) <= set(train_rows.label)
    pd.testing.assert_frame_equal(augmentation.of(train_rows, others, seed), found)


def test_a_new_text_that_stands_in_validation_or_test_is_left_out():
    frame = labelled_frame(["win now", "see you"], ["a", "b"])
    halves = {"win", "now", "see", "you"}
    deletes = Augmentation(("delete",), 20, 0.5)
    assert set(deletes.of(frame, [], 0).text[2:]) == halves
    assert set(deletes.of(frame, ["  win", "you\n"], 0).text[2:]) == {"now", "see"}, (
        "whatever the white space"
    )
    with pytest.raises(InputError, match="could make no new text"):
        deletes.of(frame, halves, 0)


def test_each_new_text_has_the_label_of_its_source():
    frame = labelled_frame([f"{word} " * 6 for word in "abcdef"], list("xyzxyz"))
    found = Augmentation(("delete",), 3).of(frame, [], 0)
    label_of = {text[0]: label for text, label in zip(frame.text, frame.label, strict=True)}
    assert len(found) > 6
    assert all(label == label_of[text[0]] for text, label in zip(found.text, found.label, strict=True))


def test_chinese_without_spaces_is_left_alone_and_counted(log):
    frame = labelled_frame(["房间很大,服务也好", "服务 很 好", "酒店不错"], ["1", "1", "0"])
    found = Augmentation(("swap", "delete"), 2, 0.5).of(frame, [], 1)
    assert "2 of 3 texts are one word without white space" in log.text
    assert all(set(text.split()) <= {"服务", "很", "好"} for text in found.text[3:])
    with pytest.raises(
        InputError, match=r"--augment swap could make no new text of 2; it needs words between"
    ):
        Augmentation(("swap",)).of(frame.iloc[[0, 2]], [], 1)


def test_the_table_in_the_package():
    table = read_synonyms()
    assert len(table) > 100
    for word, synonyms in table.items():
        assert word == word.lower()
        assert word not in synonyms
        assert len(set(synonyms)) == len(synonyms) > 0
    assert table["buy"] == ("purchase", "get")


# --- a run ---


def test_a_run(base, tmp_path, log):
    data = write_csv(tmp_path / "rows.csv")
    table = tmp_path / "own.tsv"
    table.write_text("prize\taward, trophy\n\nhome\thouse\n", encoding="utf-8")
    options = {"model": str(base), "data": str(data), "epochs": 1, "device": "cpu"}
    plain = train(TrainConfig.of(**options, out=tmp_path / "plain"))
    more = {"augment": ("synonym", "swap"), "augment_copies": 2, "synonyms": table}
    run = train(TrainConfig.of(**options, **more, out=tmp_path / "x"))
    assert "augmented:" in log.text
    splits = [
        {
            part: pd.read_csv(tmp_path / name / "split" / f"{part}.csv")
            for part in ("train", "validation", "test")
        }
        for name in ("plain", "x")
    ]
    for part in ("validation", "test"):
        pd.testing.assert_frame_equal(splits[0][part], splits[1][part])
    n = len(splits[0]["train"])
    pd.testing.assert_frame_equal(splits[1]["train"][:n], splits[0]["train"])
    new = splits[1]["train"][n:]
    assert run.scores["train"]["n"] == n + len(new) > plain.scores["train"]["n"]
    assert new.text.str.contains("trophy|award|house").any()
    assert not set(new.text) & {text for part in splits[0].values() for text in part.text}
    options = json.loads((tmp_path / "x" / "config.json").read_text())["options"]
    again = TrainConfig.of(**options)
    assert again.data.augmentation == Augmentation(("synonym", "swap"), 2, 0.1, table)
    assert again.flat()["augment"] == ("synonym", "swap"), "a resumed run may name its options again"
    assert len(set(splits[0]["train"].text) & {text for text, _ in ROWS}) == n


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"augment": ("swap", "swap")}, "names one twice"),
        ({"augment": ("swap",), "augment_copies": 0}, "--augment-copies 0 is too small"),
        ({"augment": ("swap",), "augment_share": 0.0}, "--augment-share 0.0"),
        ({"augment": ("swap",), "augment_share": float("nan")}, "--augment-share nan"),
        ({"augment": ("swap",), "synonyms": Path("x.tsv")}, "goes with --augment synonym or insert"),
        ({"augment_copies": 3}, "go with --augment"),
        ({"augment": ("swap",), "recipe": "book"}, "leave out --augment"),
    ],
)
def test_options_that_fit_nothing(options, said):
    with pytest.raises(InputError, match=said):
        resolve(TrainConfig.of(**options))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("good\tfine\nno tab here\n", "line 2: 'no tab here' is not a word, a tab, and its synonyms"),
        ("good\t , \n", "line 1: 'good.* is not a word"),
        ("two words\tfine\n", "line 1: 'two words"),
        ("\tfine\n", "line 1"),
        ("a\tb\tc\n", "line 1"),
        ("good\tfine\nGood\tnice\n", "line 2: 'Good' stands twice"),
        ("", "is empty"),
        ("caf\xe9\tbar\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_bad_tables(tmp_path, content, said):
    path = tmp_path / "own.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=said) as refused:
        read_synonyms(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_synonyms(tmp_path / "none.tsv")
