"""benchmarks.drift: what it changes in the new rows, and that it does so on real ones."""

import numpy as np
import pytest

from benchmarks import datasets, drift
from gptcls.data.sources import labelled_frame

WORDS = {"a": ["see", "you", "home", "late"], "b": ["win", "a", "prize", "now"]}


def rows(labels, mark):
    texts = np.array([f"{mark}{i} of {label}" for i, label in enumerate(labels)], dtype=object)
    vectors = np.eye(len(labels), 30)
    return drift.Rows(texts, np.array(labels, dtype=object), [[i] for i in range(len(labels))], vectors)


@pytest.fixture
def draw():
    labels = ["a"] * 20 + ["b"] * 7 + ["c"] * 3
    spare = rows(["b", "a", "c"] * 10, "spare ")
    return drift.Draw(rows(labels, "new "), rows(labels, "half "), spare, rows(["x"] * 30, "other "))


def of(part, mark):
    return sum(text.startswith(mark) for text in part.texts)


def test_what_takes_the_place_of_some_rows(draw):
    some = draw.with_others(0.1)
    assert (of(some, "new"), of(some, "other")) == (27, 3)
    cut = draw.with_halves()
    assert (of(cut, "new"), of(cut, "half")) == (20, 10)
    for text, label in zip(cut.texts, cut.labels, strict=True):
        assert text.endswith(f"of {label}")
    fewer = draw.with_fewer()
    assert (of(fewer, "new"), of(fewer, "spare")) == (20, 10)
    assert (fewer.labels == "a").sum() == 10
    for part in (some, cut, fewer):
        assert len(part.texts) == len(part.labels) == len(part.ids) == len(part.vectors) == 30


def test_it_tells_rows_of_one_source_from_others(monkeypatch, tmp_path, capsys):
    """With the bundled network, on two sets of made-up sentences."""

    def made(words, seed):
        random = np.random.RandomState(seed)
        texts = [" ".join(random.choice(words, 9)) + f" {i}" for i in range(900)]
        return {"train": labelled_frame(texts, random.choice(["a", "b"], 900).tolist())}

    one, other = (datasets.DataSet("", lambda _, i=i: made([*WORDS.values()][i], i)) for i in range(2))
    monkeypatch.setattr(drift, "SETS", {"one": one, "rt_polarity": other})
    monkeypatch.setattr(drift, "TAUGHT", 60)
    drift.measure(drift.Options(sets=("one",), data=tmp_path, reference=300, new=120, draws=3))
    last = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert last[0] == "| all"
    assert last[1].startswith("0.0 ")
    assert last[4].startswith("100.0 ")
