"""python -m gptcls.evaluate: which rows are scored, and that nothing is scored or lost in silence."""

import json
import logging
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.tiny import ROWS, tiny_saved, write_csv
from sklearn.metrics import accuracy_score, f1_score

from gptcls.classify.predict import load_classifier
from gptcls.classify.store import save_classifier
from gptcls.core.errors import InputError
from gptcls.data.book import book_split
from gptcls.data.sources import labelled_frame
from gptcls.data.split import Split, save_split
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.train.run import fit

TRAIN, VALIDATION, TEST = ROWS[:40], ROWS[40:48], ROWS[48:]
NEW = [("entirely new", "ham"), ("win new cash", "spam"), ("see you then", "ham")]


def frame(rows):
    return labelled_frame(*map(list, zip(*rows, strict=True)))


@pytest.fixture
def run_folder(tmp_path, caplog):
    """What a run leaves, as far as evaluation reads it."""
    caplog.set_level(logging.INFO, "gptcls")
    folder = tmp_path / "runs" / "x"
    save_classifier(folder / "classifier", tiny_saved())
    save_split(Split(frame(TRAIN), frame(VALIDATION), frame(TEST)), folder / "split")
    return folder


def scores(model, data=None, **options):
    data = None if data is None else str(data)
    return evaluate(EvaluateConfig(model=Path(model), data=data, device="cpu", precision="fp32", **options))


@pytest.mark.draws
def test_scores_are_sklearns(run_folder, tmp_path):
    found = scores(run_folder, write_csv(tmp_path / "new.csv", NEW), out=tmp_path / "report")
    texts, labels = zip(*NEW, strict=True)
    predicted = load_classifier(run_folder, "cpu", "fp32").predict(texts)
    assert found["n"] == len(NEW)
    assert found["accuracy"] == accuracy_score(labels, predicted)
    assert found["f1"] == f1_score(labels, predicted, pos_label="spam", zero_division=0)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["scores"]["data"] == found
    assert (tmp_path / "report" / "confusion.png").stat().st_size > 1000


# --- which rows ---


def test_training_rows_are_left_out(run_folder, tmp_path, caplog):
    rows = [*NEW, *TRAIN[:5]]
    assert scores(run_folder, write_csv(tmp_path / "new.csv", rows))["n"] == 3
    assert "left out: 5 of 8 rows" in caplog.text


def test_validation_rows_are_left_out(run_folder, tmp_path, caplog):
    """The epoch and the thresholds were chosen by them; the log counts them on a line of their own."""
    rows = [*NEW, *TRAIN[:5], *VALIDATION[:2], (f"{VALIDATION[3][0].upper()}!!", VALIDATION[3][1])]
    assert scores(run_folder, write_csv(tmp_path / "new.csv", rows))["n"] == 3
    assert "left out: 5 of 11 rows" in caplog.text
    assert "left out: 3 of 11 rows" in caplog.text
    assert "validated" in caplog.text


def test_training_rows_are_found_from_anywhere(run_folder, tmp_path, monkeypatch):
    data = write_csv(tmp_path / "new.csv", [*NEW, *TRAIN])
    os.symlink(run_folder / "classifier", tmp_path / "best")
    assert scores(run_folder / "classifier", data)["n"] == 3
    assert scores(tmp_path / "best", data)["n"] == 3
    assert scores(run_folder / "split" / "..", data)["n"] == 3
    monkeypatch.chdir(run_folder / "classifier")
    assert scores(".", data)["n"] == 3
    monkeypatch.chdir(run_folder)
    assert scores(".", data)["n"] == 3
    assert scores("classifier", data)["n"] == 3


def test_training_rows_that_changed_in_quotes_spaces_case_or_commas(run_folder, tmp_path):
    rows = [(f' "{text.upper()}", \xa0', label) for text, label in TRAIN] + NEW
    data = tmp_path / "new.csv"
    frame(rows).to_csv(data, index=False)
    assert scores(run_folder, data)["n"] == 3


def test_training_rows_of_the_book_on_all_the_messages(run_folder, sms_file, caplog):
    """Its reader loses quotes; the recipe's 1,045 training rows stand for 1,209 of the file's 5,574."""
    split = book_split(sms_file)
    save_split(split, run_folder / "split")
    data = pd.read_csv(sms_file, sep="\t", header=None, quoting=3, keep_default_na=False)
    exact = data[1].isin(split.train.text).sum()
    assert scores(run_folder, sms_file)["n"] == 5574 - 1209 - 148
    assert exact < 1209
    assert "left out: 1,209 of 5,574 rows" in caplog.text
    assert "left out: 148 of 5,574 rows" in caplog.text, "those that training does not have as well"


def test_rows_left_out_move_no_other_rows_answer(run_folder, tmp_path):
    rows = [NEW[0], *TRAIN[:3], NEW[1], *TRAIN[3:9], NEW[2]]
    mixed = scores(run_folder, write_csv(tmp_path / "mixed.csv", rows))
    assert mixed == scores(run_folder, write_csv(tmp_path / "alone.csv", NEW))


def test_a_classifier_without_its_run(run_folder, tmp_path, caplog):
    shutil.copytree(run_folder / "classifier", tmp_path / "copy" / "mine")
    data = write_csv(tmp_path / "new.csv", [*NEW, *TRAIN])
    assert scores(tmp_path / "copy" / "mine", data)["n"] == 43
    assert f"({tmp_path / 'copy' / 'split'})" in caplog.text
    caplog.clear()
    scores(run_folder, data)
    assert "split" not in caplog.text


def test_the_runs_own_test_rows(run_folder, tmp_path, caplog):
    found = scores(run_folder)
    assert found == scores(run_folder, write_csv(tmp_path / "test.csv", TEST))
    assert f"scored on the run's own {len(TEST)} test rows" in caplog.text
    (run_folder / "split").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"--model {run_folder} .*--data"):
        scores(run_folder)
    with pytest.raises(InputError, match=r"--text-column.* go with --data"):
        scores(run_folder, text_column="text")


def test_all_rows_trained_on(run_folder, tmp_path):
    with pytest.raises(InputError, match=r"every text of .*new\.csv"):
        scores(run_folder, write_csv(tmp_path / "new.csv", [*TRAIN, *VALIDATION]))


def test_texts_that_are_cut_are_counted(run_folder, tmp_path, caplog):
    scores(run_folder, write_csv(tmp_path / "new.csv", [*NEW, ("win " * 100, "spam")]))
    assert "1 texts are longer than 64 tokens" in caplog.text


# --- refusals ---


def test_an_unseen_label_is_named_with_its_line(run_folder, tmp_path):
    data = write_csv(tmp_path / "new.csv", [*NEW, ("a", "eggs"), ("b", "bacon"), ("c", "ham")])
    with pytest.raises(InputError, match=r"new\.csv: .*'eggs', 'bacon'.*\(lines 5, 6\).* ham, spam"):
        scores(run_folder, data)


@pytest.mark.parametrize("out", ["runs/x", "runs/x/classifier", "started"])
def test_an_out_that_holds_a_run(run_folder, tmp_path, out):
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "config.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=f"--out .*{out} "):
        scores(run_folder, out=tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_with_its_separator_and_encoding(run_folder, tmp_path, caplog):
    file = tmp_path / "excel.csv"
    file.write_bytes("text;label\ncafé now;ham\n;\nwin new cash;spam\n".encode("cp1252"))
    assert scores(run_folder, file, separator=";", encoding="cp1252")["n"] == 2
    assert f"{file}: no text in column 'text' in line 3" in caplog.text
    with pytest.raises(InputError, match=r"--separator .*--data"):
        scores(run_folder, separator=";")


def test_other_mistakes(run_folder, tmp_path):
    file = write_csv(tmp_path / "new.csv", NEW)
    with pytest.raises(InputError, match=f"--out {file} "):
        scores(run_folder, file, out=file)
    with pytest.raises(InputError, match="holds no classifier"):
        scores(tmp_path, file)
    with pytest.raises(InputError, match="--precision fp16"):
        evaluate(EvaluateConfig(model=run_folder, device="cpu", precision="fp16"))


def test_rows_that_only_the_n_grams_were_fitted_on_are_left_out(caplog):
    """Those that --balance undersample takes out of training are in the baseline's, and so in a mixture's."""
    caplog.set_level("INFO", "gptcls")
    rows = pd.DataFrame(ROWS, columns=["text", "label"])
    few = rows[(rows["label"] == "ham") | (rows.index % 3 == 0)]
    how = {"epochs": 1, "max_length": 16, "balance": "undersample", "stack": "ngrams", "device": "cpu"}
    run = fit(few, **how)
    plain = run.split.plain
    assert len(plain) > len(run.split.train)
    with pytest.raises(InputError, match="every text"):
        evaluate(model=run, data=plain)
    assert f"left out: {len(plain)} of {len(plain)} rows, whose texts were trained on" in caplog.text


def test_a_run_in_memory_knows_its_test_rows():
    run = fit(pd.DataFrame(ROWS, columns=["text", "label"]), epochs=1, max_length=16, device="cpu")
    assert evaluate(model=run)["accuracy"] == run.scores["test"]["accuracy"]
    with pytest.raises(InputError, match="a classifier in memory has no run"):
        evaluate(model=run.predictor)
