"""The samples in dataset/: balanced, without repeats, and nobody else's."""

import re
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from helpers import SHARED

from gptcls.data.corpora import load_parts
from gptcls.data.labels import KINDS, LISTS, NUMBERS, Layout
from gptcls.data.sources import load_data

DATASET = Path(__file__).parents[1] / "dataset"
COMMAS = Layout(LISTS, label_separator=",")
SAMPLES = {  # name -> the public data set whose task it has
    "questions.tsv": "trec6",
    "emotions.tsv": "goemotions",
    "hotel_reviews_zh.tsv": "chnsenticorp",
}
samples = pytest.mark.parametrize("name", SAMPLES)


def rows(name: str) -> list[list[str]]:
    """The fields of every line, without any reader of tables between."""
    text = (DATASET / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [line.split("\t") for line in text.removesuffix("\n").split("\n")]


def letters(text: str) -> str:
    """What two texts share when they differ in nothing but case, spaces and punctuation."""
    return re.sub(r"\W", "", text.lower())


@samples
def test_a_sample_is_a_plain_table(name):
    head, *lines = rows(name)
    assert 120 <= len(lines) <= 240
    for line in lines:
        assert len(line) == len(head)
        assert all(field == field.strip() and field for field in line)
        assert not any(field.startswith('"') for field in line)  # no reader may take it for quoting


@samples
def test_no_text_stands_there_twice(name):
    texts = [letters(line[-1]) for line in rows(name)]
    assert len(set(texts)) == len(texts)


def test_questions_are_balanced():
    frame = load_data(DATASET / "questions.tsv")
    assert Counter(frame["label"]) == dict.fromkeys(
        ("abbreviation", "description", "entity", "number", "person", "place"), 34
    )
    what = Counter(frame["label"][frame["text"].str.startswith("What")])
    assert len(what) == 6  # the first word does not settle it


def test_emotions_are_many_and_neutral_stands_alone():
    frame = load_data(DATASET / "emotions.tsv", layout=COMMAS)
    lists = list(map(LISTS.names, frame["label"]))
    counts = Counter(chain.from_iterable(lists))
    assert counts.keys() == {"anger", "fear", "gratitude", "joy", "neutral", "sadness", "surprise"}
    assert counts.pop("neutral") == sum(names == ["neutral"] for names in lists) == 22
    assert max(counts.values()) < 2 * min(counts.values())
    assert Counter(map(len, lists)) == {1: 110, 2: 110}


def test_reviews_are_balanced_and_their_stars_agree_with_their_labels():
    path = DATASET / "hotel_reviews_zh.tsv"
    labels = load_data(path, label_column="label")["label"]
    stars = load_data(path, label_column="stars", layout=Layout(NUMBERS))["label"].map(float)
    assert Counter(labels) == {"praise": 120, "complaint": 120}
    assert set(stars) == {1, 2, 4, 5}
    assert ((stars > 3) == (labels == "praise")).all()
    texts = load_data(path, label_column="label")["text"]
    assert texts.str.contains(r"^[\u4e00-\u9fff]").all()


@samples
def test_no_text_is_from_the_public_data_set_of_its_task(name):
    corpus = SAMPLES[name]
    folder = SHARED / corpus
    if not folder.exists():
        pytest.skip(f"{corpus} is not at {folder}")
    layout = Layout(KINDS["multi" if corpus == "goemotions" else "single"])
    public = load_parts(f"{corpus}:{folder}", layout=layout)
    theirs = {letters(text) for frame in public.values() for text in frame["text"]}
    assert len(theirs) > 5000
    assert [line[-1] for line in rows(name) if letters(line[-1]) in theirs] == []
