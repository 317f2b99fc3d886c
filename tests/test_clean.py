"""Cleaning: what it takes away, and that a classifier cleans what it is given as it was trained."""

import json
import logging
import unicodedata
from dataclasses import replace

import pandas as pd
import pytest
from helpers.tiny import tiny_saved
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.classify.predict import classify_review, load_classifier
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.classify.store import read_classifier, save_classifier
from gptcls.core.errors import InputError
from gptcls.data.clean import CLEANERS, basic, cleaned
from gptcls.data.sources import labelled_frame
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import train

DIRTY = "WIN\x00 a \t\n prize!!! \u200bnow"
CLEAN = "WIN a prize! now"


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


# Half of what is drawn is what cleaning is about.
@settings(deadline=None)
@given(st.text(st.one_of(st.characters(), st.sampled_from(" \t\n\r\x00\x1f\x85\xa0\u200b\u3000!!?..-。。/"))))
def test_cleaning_twice_is_cleaning_once(text):
    once = basic(text)
    assert basic(once) == once
    assert once == once.strip()
    assert not [char for char in once if unicodedata.category(char) == "Cc"]
    assert not [char for char in once if char.isspace() and char != " "]
    assert "  " not in once
    assert "!!" not in once
    kept = [char for char in text if char.isalnum()]
    assert [char for char in once if char.isalnum()] == kept, "no letter and no digit goes"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (DIRTY, CLEAN),
        ("Really?!?! Yes...", "Really?!?! Yes."),
        ("太好了！！！\u3000真的。。", "太好了！ 真的。"),  # noqa: RUF001
        ("see http://a.org/x $$$ 10,000 -- ok", "see http://a.org/x $$$ 10,000 - ok"),
        ("family: 👨\u200d👩\u200d👧 क्\u200dष", "family: 👨\u200d👩\u200d👧 क्\u200dष"),
        ("line\r\nbreak\u2028and\x0bmore", "line break and more"),
        ("!\x00! a \x00 b", "! a b"),
    ],
)
def test_examples(text, expected):
    assert basic(text) == expected


def test_frame(log):
    frame = labelled_frame([DIRTY, "fine", "\x01 \u200b"], ["a", "b", "a"])
    assert cleaned(frame, "none") is frame
    assert log.text == ""
    found = cleaned(frame, "basic")
    assert found.values.tolist() == [[CLEAN, "a"], ["fine", "b"]]
    assert list(found.index) == [0, 1]
    assert "cleaned: 2 of 3 texts changed" in log.text
    assert "dropped 1 rows of whose texts cleaning left nothing" in log.text
    with pytest.raises(InputError, match="leave out --clean"):
        cleaned(frame[2:], "basic")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.csv"
    words = {"ham": "see  you\tat home {}!!", "spam": "win   a prize {} now!!!"}
    rows = [(text.format(i), label) for i in range(30) for label, text in words.items()]
    rows += [(text.replace("  ", " "), label) for text, label in rows[:6]]  # the same, once cleaned
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)
    return path


def test_a_run(base, data, tmp_path, log):
    options = {"model": str(base), "data": str(data), "epochs": 1, "device": "cpu", "precision": "fp32"}
    train(TrainConfig.of(**options, out=tmp_path / "raw"))
    assert "cleaned" not in log.text
    assert read_classifier(tmp_path / "raw").cleaning == "none"
    run = train(TrainConfig.of(**options, clean=True, out=tmp_path / "x"))
    assert "cleaned: 66 of 66 texts changed" in log.text
    assert "dropped 6 repeated texts" in log.text
    assert json.loads((tmp_path / "x" / "classifier" / "classifier.json").read_text())["cleaning"] == "basic"
    parts = [pd.read_csv(tmp_path / "x" / "split" / f"{part}.csv") for part in ("train", "test")]
    assert all(text == basic(text) for part in parts for text in part.text)
    assert sum(run.scores[part]["n"] for part in ("train", "validation", "test")) == 60
    log.clear()
    own = {"model": tmp_path / "x", "device": "cpu", "precision": "fp32"}
    assert evaluate(EvaluateConfig(**own)) == run.scores["test"]
    # The raw file: the run's rows are known under their cleaned texts, and those of its test part are left.
    found = evaluate(EvaluateConfig(**own, data=str(data)))
    assert found["n"] == sum(basic(text) in set(parts[1].text) for text in pd.read_csv(data).text)


def test_texts_are_cleaned_in_use(tmp_path, capsys):
    save_classifier(tmp_path / "raw", tiny_saved())
    save_classifier(tmp_path / "x", replace(tiny_saved(), cleaning="basic"))
    raw, cleans = (load_classifier(tmp_path / name, "cpu", "fp32") for name in ("raw", "x"))
    expected = raw.predict_proba([CLEAN, CLEAN])
    assert (cleans.predict_proba([CLEAN, DIRTY]) == expected).all()
    assert (raw.predict_proba([CLEAN, DIRTY]) != expected).any()
    assert classify_review(DIRTY, cleans) == classify_review(CLEAN, raw)
    printed = []
    for name, text in (("raw", CLEAN), ("x", DIRTY)):
        classify(ClassifyConfig(model=tmp_path / name, texts=(text,), device="cpu", precision="fp32"))
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_names_are_what_a_file_may_say():
    assert list(CLEANERS) == ["none", "basic"], "the first is what a file without the field means"


def test_not_with_the_books_reading():
    with pytest.raises(InputError, match="leave out --clean"):
        resolve(TrainConfig.of(recipe="book", clean=True))
