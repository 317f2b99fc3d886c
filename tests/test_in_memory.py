"""What people have in Python: every kind of it gives the answers of the same list, else a TypeError."""

import json
import logging
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.tiny import CPU, ROWS, tiny_classifier, tiny_saved
from sklearn.metrics import accuracy_score

import gptcls
from gptcls import InputError, TextClassifier, classify_review, fit, load_classifier, train
from gptcls.classify.run import ClassifyConfig, classify, classify_file
from gptcls.classify.store import save_classifier
from gptcls.core.tokenizer import gpt2_encoding
from gptcls.data.fields import fields_of, in_lines, join_fields
from gptcls.data.in_memory import texts_of
from gptcls.data.options import TableOptions
from gptcls.data.sources import labelled_frame
from gptcls.data.split import Split, save_split

TEXTS = ["win a prize now", "see you at home", "claim your cash"]
FRAME = pd.DataFrame(ROWS, columns=["text", "label"])
QUICK = {"epochs": 1, "max_length": 16, "device": "cpu"}
BLANK = ["", " \t\n", None, float("nan"), pd.NA]


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier(tiny_saved(), CPU, "fp32")


# --- texts ---


@pytest.mark.parametrize(
    "given",
    [
        tuple(TEXTS),
        iter(TEXTS),
        pd.Series(TEXTS, index=[7, 7, 3]),
        pd.Series(TEXTS, dtype="string"),
        pd.Series(TEXTS, dtype="category"),
        pd.Series(TEXTS, dtype="string[pyarrow]"),
        pd.Index(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.DataFrame({"text": TEXTS}),
        pd.DataFrame({"id": range(3), "Review": TEXTS, "stars": [1, 2, 3]}, index=[2, 2, 1]),
        pd.DataFrame({"key": ["a", "b", "c"], "long": TEXTS}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_any_kind_of_texts_gives_what_a_list_gives(classifier, given):
    assert texts_of(given) == TEXTS
    if not hasattr(given, "__next__"):
        assert classifier.predict(given) == classifier.predict(TEXTS)
        assert np.array_equal(classifier.predict_proba(given), classifier.predict_proba(TEXTS))


def test_a_frame_is_never_read_by_its_column_names(classifier):
    """Iterated, a DataFrame gives these, and a dict its keys."""
    frame = pd.DataFrame({"text": TEXTS * 3, "label": "ham", "other": "x"})
    assert classifier.predict_proba(frame).shape == (9, 2)
    named = pd.DataFrame({"a": TEXTS, "b": ["other"] * 3})
    assert classifier.predict(named, text_column="a") == classifier.predict(TEXTS)
    with pytest.raises(InputError, match=r"cannot tell which column is the text among 'a', 'b', 'c'"):
        classifier.predict(named.assign(c="x"))
    with pytest.raises(InputError, match=r"--text-column names 'tex'.*did you mean 'text'"):
        classifier.predict(frame, text_column="tex")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "got NoneType"),
        (3, "got int"),
        (b"text", "got bytes"),
        ({"text": TEXTS}, "got dict"),
        (set(TEXTS), "got set"),
        (np.array([TEXTS]), "got ndarray of 2 dimensions"),
        (np.array("text"), "got ndarray of 0 dimensions"),
        (["fine", 3], "row 1: expected text, got int: 3"),
        (pd.Series([1.5, 2.5]), "row 0: expected text, got float: 1.5"),
        ([["a", "b"]], "row 0: expected text, got list"),
    ],
)
def test_anything_else_is_a_type_error_that_says_what(classifier, given, said):
    for ask in (classifier.predict, classifier.predict_proba, classify_review):
        with pytest.raises(TypeError, match=said):
            ask(given)


# --- a blank text: no answer, anywhere ---


@pytest.mark.parametrize("blank", BLANK, ids=repr)
def test_a_blank_text_has_no_answer(classifier, blank):
    texts = [TEXTS[0], blank, TEXTS[1]]
    expected = classifier.predict([TEXTS[0], TEXTS[1]])
    for given in (texts, pd.Series(texts, dtype=object), pd.DataFrame({"text": texts}, dtype=object)):
        assert classifier.predict(given) == [expected[0], None, expected[1]]
        probabilities = classifier.predict_proba(given)
        assert np.isnan(probabilities[1]).all()
        assert np.array_equal(probabilities[[0, 2]], classifier.predict_proba([TEXTS[0], TEXTS[1]]))
    assert classify_review(texts, classifier)[1] is None
    network = tiny_classifier().eval()
    assert classify_review(texts, network, gpt2_encoding(), CPU)[1] is None
    if isinstance(blank, str):
        assert classifier.predict(blank) is None
        assert np.isnan(classifier.predict_proba(blank)).all()
    assert classifier.predict([blank]) == [None]


def test_a_blank_text_has_no_answer_in_files_lines_and_arguments(classifier, tmp_path, capsys):
    save_classifier(tmp_path / "classifier", tiny_saved())
    pd.DataFrame({"text": ["", " ", TEXTS[0]]}).to_csv(tmp_path / "in.csv", index=False)
    classify_file(classifier, tmp_path / "in.csv", tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert found["label"].tolist() == ["", "", classifier.predict(TEXTS[0])]
    classify(ClassifyConfig(model=tmp_path, texts=("", TEXTS[0]), device="cpu"))
    assert capsys.readouterr().out.splitlines()[0] == "\t"


def test_blank_rows_are_neither_trained_nor_evaluated_on(base, classifier, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    blank = pd.DataFrame({"text": BLANK, "label": "ham"}, dtype=object)
    run = fit(pd.concat([FRAME, blank]), base, **QUICK)
    assert sum(len(part) for _, part in run.split.items()) == len(FRAME)
    assert f"no text in column 'text' in {len(BLANK)} rows" in caplog.text
    scored = gptcls.evaluate(model=classifier, data=pd.concat([FRAME[:7], blank]))
    assert scored["n"] == 7


# --- rows with labels ---


@pytest.mark.parametrize("kind", [list, tuple, pd.Series, np.array], ids=lambda kind: kind.__name__)
def test_texts_and_labels_train_as_their_frame_does(base, kind):
    expected = fit(FRAME, base, **QUICK)
    run = fit(kind(FRAME["text"].tolist()), base, labels=kind(FRAME["label"].tolist()), **QUICK)
    assert run.scores == expected.scores
    one = fit(FRAME[["text"]], base, labels=FRAME["label"], **QUICK)
    assert one.scores == expected.scores


def test_lists_of_labels_beside_their_texts(base):
    labels = [["short"] if i % 3 else ["short", "late"] for i in range(len(FRAME))]
    run = fit(FRAME["text"], base, labels=labels, task="multi", **QUICK)
    assert run.classifier.task.labels == ("late", "short")
    numbers = fit(FRAME["text"], base, labels=np.linspace(0, 1, len(FRAME)), task="regression", **QUICK)
    assert isinstance(numbers.predict(TEXTS)[0], float)


def test_what_cannot_be_trained_on(base):
    with pytest.raises(TypeError, match=r"texts and labels=, got list"):
        fit(TEXTS, base)
    with pytest.raises(TypeError, match="got str"):
        fit({"train": "rows.csv"}, base)
    with pytest.raises(TypeError, match="labels go in labels="):
        fit(FRAME["text"], FRAME["label"])
    with pytest.raises(InputError, match="60 texts have 59 labels"):
        fit(FRAME["text"], base, labels=FRAME["label"][1:])
    with pytest.raises(TypeError, match="not a single string"):
        fit("text", base, labels=["a"])
    with pytest.raises(TypeError, match="of a file give label_column="):
        train(model=base, data="rows.csv", labels=["a"])


def test_a_frame_trains_in_a_folder_that_can_be_used_without_it(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(data=FRAME, model=str(base), **QUICK)
    assert run.folder.name == "base-frame"
    assert run.scores == fit(FRAME, base, **QUICK).scores
    assert json.loads((run.folder / "config.json").read_text())["options"]["data"] == "frame"
    assert load_classifier(run.folder, "cpu").predict(TEXTS) == run.predict(TEXTS)
    with pytest.raises(TypeError, match="got NoneType"):
        train(data=None, model=str(base), **QUICK)
    texts = train(data=FRAME["text"].to_numpy(), labels=FRAME["label"], model=str(base), out="x", **QUICK)
    assert texts.scores == run.scores


# --- evaluate ---


def test_a_frame_scores_as_its_predictions_do(classifier):
    new = pd.DataFrame({"Message": TEXTS, "class": ["spam", "ham", "ham"]})
    expected = accuracy_score(new["class"], classifier.predict(new))
    assert gptcls.evaluate(model=classifier, data=new)["accuracy"] == expected
    assert gptcls.evaluate(model=classifier, data=TEXTS, labels=new["class"])["accuracy"] == expected
    assert gptcls.evaluate(model=classifier, data=new[["Message"]], labels=new["class"])["n"] == 3
    with pytest.raises(InputError, match=r"the frame: label 'x', unseen in training, in row 5"):
        gptcls.evaluate(model=classifier, data=pd.DataFrame({"text": ["a"], "label": ["x"]}, index=[5]))
    with pytest.raises(TypeError, match="got list"):
        gptcls.evaluate(model=classifier, data=TEXTS)


def test_a_run_in_memory_is_evaluated_as_its_predictions_are(base):
    run, new = fit(FRAME, base, **QUICK), pd.DataFrame({"text": TEXTS, "label": ["spam", "ham", "ham"]})
    assert gptcls.evaluate(model=run, data=new)["accuracy"] == accuracy_score(new["label"], run.predict(new))


def test_trained_rows_are_left_out_of_a_frame_too(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    save_classifier(tmp_path / "classifier", tiny_saved())
    part = labelled_frame(*map(list, zip(*ROWS[:20], strict=True)))
    save_split(Split(part, part[:1], part[:1]), tmp_path / "split")
    assert gptcls.evaluate(model=tmp_path, data=FRAME, device="cpu")["n"] == len(FRAME) - 20
    assert f"left out: 20 of {len(FRAME)} rows" in caplog.text


def test_the_module_and_the_function_are_one_name():
    code = "import gptcls; from gptcls.evaluate import evaluate; print(callable(gptcls.evaluate), evaluate)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("True <function evaluate")
    assert "evaluate" in gptcls.__all__


# --- several text columns ---

TITLES = pd.DataFrame(
    {"title": [text.split()[0] for text, _ in ROWS], "body": [text for text, _ in ROWS],
     "label": [label for _, label in ROWS]}
)  # fmt: skip


@pytest.fixture
def titled(base, tmp_path):
    TITLES.to_csv(tmp_path / "rows.csv", index=False)
    options = {"text_column": ("title", "body"), "model": str(base), "out": tmp_path / "run"}
    return train(data=str(tmp_path / "rows.csv"), **options, **QUICK)


def test_several_text_columns_are_joined_and_remembered(titled, tmp_path):
    joined = list(zip(TITLES["title"], TITLES["body"], strict=True))
    assert set(titled.split.train["text"]) <= set(map(join_fields, joined))
    classifier = load_classifier(titled.folder, "cpu", "fp32")
    assert classifier.saved.text_columns == ("title", "body")
    expected = classifier.predict_proba(joined)
    assert np.array_equal(classifier.predict_proba(TITLES[["body", "label", "title"]]), expected)
    classify_file(classifier, tmp_path / "rows.csv", tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    np.testing.assert_allclose(found["probability_spam"], expected[:, 1], atol=1e-6)
    assert gptcls.evaluate(model=classifier, data=tmp_path / "rows.csv")["n"] == len(TITLES)
    with pytest.raises(InputError, match="names 'title'"):
        classifier.predict(TITLES[["body"]])
    with pytest.raises(InputError, match="reads 2 texts together"):
        classifier.predict(TITLES[["body"]], text_column="body")


def test_a_named_column_comes_before_a_guess_in_use(base):
    rows = FRAME.rename(columns={"text": "note"}).assign(text="see you")
    run = fit(rows, base, text_column="note", **QUICK)
    assert np.array_equal(run.predict_proba(rows), run.predict_proba(rows["note"]))
    only = rows[["text"]]
    assert np.array_equal(run.predict_proba(only), run.predict_proba(only["text"]))


def test_a_blank_field_keeps_its_place(classifier):
    frame = pd.DataFrame({"a": ["one", "", None, "x"], "b": ["two", "three", " ", None]})
    found = [text and fields_of(text) for text in texts_of(frame, ("a", "b"))]
    assert found == [["one", "two"], ["", "three"], None, ["x", ""]]
    assert [text and in_lines(text) for text in texts_of(frame, ("a", "b"))][:2] == ["one\ntwo", "three"]
    with pytest.raises(InputError, match=r"'a' twice"):
        texts_of(frame, ("a", "a"))
    with pytest.raises(TypeError, match="text_column is for a DataFrame"):
        classifier.predict(TEXTS, text_column="a")


def test_several_text_columns_on_the_command_line(titled, tmp_path):
    out = tmp_path / "labelled.csv"
    command = ["classify", "--model", titled.folder, "--data", tmp_path / "rows.csv", "--out", out]
    start = [sys.executable, "-c", "from gptcls.common.cli import main; main()"]
    for columns in ([], ["--text-column", "title", "body"]):
        done = subprocess.run([*start, *command, *columns], capture_output=True, text=True, check=False)
        assert (done.returncode, "guessed" in done.stderr) == (0, False), done.stderr
        assert len(pd.read_csv(out)) == len(TITLES)
        os.unlink(out)


def test_tables_take_a_single_name_in_python(classifier, tmp_path):
    TITLES.to_csv(tmp_path / "rows.csv", index=False)
    for named in ("body", ("body",), ["body"]):
        options = TableOptions(text_column=named)
        assert classify_file(classifier, tmp_path / "rows.csv", tmp_path / "out.csv", options) == len(TITLES)
