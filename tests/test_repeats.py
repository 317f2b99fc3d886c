"""Texts in several rows: votes, --repeats, the draw by texts, and scores counted the other way."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS, stopped_before, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from gptcls import fit, train
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.data.labels import LISTS, NUMBERS, majority_of_each, most_frequent
from gptcls.data.repeats import expanded, one_of_each, raw_rows, settle
from gptcls.data.same_text import text_key
from gptcls.data.sources import labelled_frame
from gptcls.data.split import Split, load_split, make_split, save_split, with_extra
from gptcls.evaluate import EvaluateConfig, evaluate
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.report import scores_table
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.sampler import WeightedBucketSampler

# ok 3 : 1, lol a tie, yes and the rest alone
CHAT = [*[("ok", "ham"), ("OK!", "ham"), ("ok", "spam"), (" ok", "ham")], ("lol", "ham"), ("lol", "spam")]
CHAT += [("yes", "spam"), ("Yes", "spam"), ("maybe", "ham")]
# Every third text stands in two rows, the first of each class in seven.
REPEATED = [
    row for i, row in enumerate(ROWS) for _ in range(7 if i % 12 in (0, 6) else 2 if i % 3 == 0 else 1)
]
QUICK = {"epochs": 1, "max_length": 8, "batch_size": 16, "train": "head", "device": "cpu"}


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


def table(rows):
    return labelled_frame(*map(list, zip(*rows, strict=True)))


def pairs(frame):
    return list(zip(frame.text, frame.label, strict=True))


# --- votes ---


@given(st.lists(st.sampled_from("abc"), min_size=1))
def test_the_most_frequent_label_is_pandas_mode(labels):
    modes = pd.Series(labels).mode().tolist()
    assert most_frequent(labels) == (modes[0] if len(modes) == 1 else None)


@given(st.lists(st.sets(st.sampled_from("abc")), min_size=1))
def test_a_list_holds_the_labels_of_more_than_half_the_rows(sets):
    flags = MultiLabelBinarizer(classes=list("abc")).fit_transform(sets)
    winners = [name for name, share in zip("abc", flags.mean(axis=0), strict=True) if share > 0.5]
    found = majority_of_each([json.dumps(sorted(names)) for names in sets])
    undecided = not winners and (flags.sum(axis=1) == 0).mean() <= 0.5
    assert found == (None if undecided else json.dumps(winners))


# --- rows to use ---


def test_drop_takes_one_row_of_each_text(log):
    found, report = settle(table(CHAT), repeats="drop")
    assert pairs(found) == [("ok", "ham"), ("yes", "spam"), ("maybe", "ham")]
    assert found["rows"].tolist() == [4, 2, 1]
    assert {name: report[name] for name in list(report)[:8]} == {
        "repeats": "drop", "rows": 9, "texts": 4, "texts_in_conflict": 2, "rows_relabelled": 1,
        "rows_without_majority": 2, "rows_repeated": 4, "rows_left": 3,
    }  # fmt: skip
    settled = "2 texts (e.g. 'ok') stand under several labels: the majority settles 1, which changes 1 rows"
    assert f"{settled}; 1 have none (e.g. 'lol'), their 2 rows are dropped" in log.text
    assert "dropped 4 repeated texts, 3 rows left" in log.text
    assert "share of rows, as read → as used: ham 55.6% → 66.7%, spam 44.4% → 33.3%" in log.text


def test_keep_keeps_every_row_under_the_majoritys_label(log):
    found, report = settle(table(CHAT), repeats="keep")
    rows = [("ok", "ham"), ("OK!", "ham"), ("ok", "ham"), (" ok", "ham")]
    assert pairs(found) == [*rows, ("yes", "spam"), ("Yes", "spam"), ("maybe", "ham")]
    assert list(found.columns) == ["text", "label"]
    assert report["rows_left"] == 7
    assert "kept 4 repeated texts, 7 rows left" in log.text


@pytest.mark.parametrize("repeats", ["drop", "keep", "weight"])
def test_the_report_has_the_shares_that_pandas_counts(repeats):
    frame = table(REPEATED + CHAT)
    found, report = settle(frame, repeats=repeats)
    used = expanded(found) if repeats == "weight" else found
    for name, rows in (("read", frame), ("used", used)):
        shares = rows["label"].value_counts(normalize=True)
        for label, both in report["classes"].items():
            assert both[name] == pytest.approx(shares[label])


def test_lists_and_numbers_are_reported_too(log):
    lists = table([("a", '["x", "y"]'), ("a", '["x"]'), ("b", "[]"), ("c", '["y"]')])
    found, report = settle(lists, LISTS)
    assert found["label"].tolist() == ['["x"]', "[]", '["y"]']
    assert report["classes"] == {"x": {"read": 0.5, "used": 1 / 3}, "y": {"read": 0.5, "used": 1 / 3}}
    numbers = table([("a", "1.0"), ("a", "2.0"), ("b", "6.0")])
    for repeats, mean in (("drop", 3.75), ("keep", 3.0), ("weight", 3.0)):
        assert settle(numbers, NUMBERS, repeats)[1]["means"] == {"label": {"read": 3.0, "used": mean}}
    assert "mean, as read → as used: label 3 → 3.75" in log.text


def test_nothing_is_said_or_added_where_no_text_repeats(log):
    found, _ = settle(table(ROWS))
    assert list(found.columns) == ["text", "label"]
    assert log.text == ""


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.just("x")), min_size=1))
def test_one_of_each_and_expanded_are_inverse(rows):
    frame = table(rows)
    once = one_of_each(frame)
    assert once["text"].is_unique
    assert sorted(pairs(expanded(once))) == sorted(pairs(frame))


# --- the split ---


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=40, max_size=40), st.integers(0, 99))
def test_the_same_texts_are_drawn_whatever_becomes_of_repeats(counts, seed):
    rows = [row for row, n in zip(ROWS, counts, strict=False) for _ in range(n)]
    frame = table([rows[i] for i in np.random.RandomState(seed).permutation(len(rows))])
    splits = {how: make_split(settle(frame, repeats=how)[0], seed=seed) for how in ("drop", "keep", "weight")}
    keys = {how: [set(map(text_key, part.text)) for _, part in s.items()] for how, s in splits.items()}
    assert keys["drop"] == keys["keep"] == keys["weight"]
    train, validation, test = keys["keep"]
    assert not train & validation
    assert not (train | validation) & test
    kept = splits["keep"]
    assert sum(len(part) for _, part in kept.items()) == len(frame), "no row is lost"
    for name, part in splits["drop"].items():
        assert raw_rows(part).sum() == len(getattr(kept, name))


@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_a_text_that_would_decide_a_score_stays_in_train(repeats):
    frame = settle(table([*ROWS, *[("k", "ham")] * 50]), repeats=repeats)[0]
    for seed in range(30):
        assert "k" in set(make_split(frame, seed=seed).train.text)


def test_a_class_of_one_text_is_too_small_however_often_it_stands():
    frame = settle(table([*ROWS, *[("what", "rare")] * 5]), repeats="keep")[0]
    with pytest.raises(InputError, match=r"'rare' has too few texts \(1\)"):
        make_split(frame)


def test_counts_and_report_are_saved_with_the_split(tmp_path):
    frame, report = settle(table(REPEATED))
    split = Split(frame, table(ROWS), table(ROWS), frame, report)
    save_split(split, tmp_path)
    found = load_split(tmp_path)
    pd.testing.assert_frame_equal(found.train, frame)
    pd.testing.assert_frame_equal(found.plain, frame)
    assert list(found.test.columns) == ["text", "label"]
    assert found.report == report
    save_split(Split(frame, frame, frame), tmp_path)
    assert load_split(tmp_path).report is None, "that of another split"
    (tmp_path / "test.csv").write_text("text,label,rows\na,x,0\n")
    with pytest.raises(InputError, match=r"test\.csv: '0' in column rows"):
        load_split(tmp_path)


# --- training ---


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 8))
def test_a_row_is_drawn_as_often_as_it_is_due(weights, batch_size):
    sampler = WeightedBucketSampler([1] * len(weights), batch_size, weights)
    due = np.array(weights) * len(weights) / sum(weights)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)
    times = np.bincount([row for batch in batches for row in batch], minlength=len(weights))
    assert times.sum() == len(weights)
    assert (times >= np.floor(due - 1e-9)).all()
    assert (times <= np.ceil(due + 1e-9)).all()


def test_the_draws_are_due_in_the_mean_and_repeat_with_the_seed():
    weights = [1, 1, 1, 2, 5, 30]
    sampler = WeightedBucketSampler([3, 1, 2, 9, 4, 4], 2, weights)
    torch.manual_seed(0)
    epochs = [list(sampler) for _ in range(4000)]
    times = np.bincount([row for batches in epochs for batch in batches for row in batch]) / 4000
    np.testing.assert_allclose(times, np.array(weights) * 6 / 40, atol=0.03)
    torch.manual_seed(0)
    assert list(sampler) == epochs[0]


def run(folder: Path, base: Path, out: str = "run", rows=REPEATED, **options):
    data = write_csv(folder / "rows.csv", rows)
    return train(TrainConfig.of(model=str(base), data=str(data), out=folder / out, **QUICK | options))


@pytest.mark.parametrize("change", [{}, {"balance": "oversample"}, {"balance": "undersample"}])
def test_weights_stand_for_the_rows_that_keep_has(base, tmp_path, change):
    uneven = [row for row in REPEATED if row[1] == "ham" or row[0].endswith(("1", "2"))]
    kept = run(tmp_path, base, "keep", uneven, repeats="keep", **change).split
    weighed = run(tmp_path, base, "weight", uneven, repeats="weight", **change).split
    assert weighed.train["text"].is_unique
    assert (
        expanded(weighed.train)["label"].value_counts().to_dict()
        == kept.train["label"].value_counts().to_dict()
    )
    assert sorted(pairs(weighed.plain)) == sorted(pairs(kept.plain if change else kept.train))
    if change != {"balance": "undersample"}:
        texts = expanded(weighed.train)["text"].value_counts()
        assert set(texts.index) == set(kept.train["text"])


def test_class_weights_count_as_often_as_rows_are_drawn(base, tmp_path):
    tasks = [
        run(tmp_path, base, how, repeats=how, balance="weights").classifier.task for how in ("keep", "weight")
    ]
    assert tasks[0] == tasks[1]


def test_windows_new_texts_and_extra_rows_are_drawn_by_their_weights(base, tmp_path, monkeypatch):
    """A window weighs as its text, a new text as the one that it was made from."""
    extra = write_csv(tmp_path / "extra.csv", [*[("more cash to win", "spam")] * 3, ("mum at home", "ham")])
    long = [(" ".join([text] * 4), label) for text, label in REPEATED]
    drawn: list = []
    monkeypatch.setattr(
        WeightedBucketSampler, "__iter__", lambda self: drawn.append(self) or iter([[0, 1], [2, 3]])
    )
    options = {"augment": ("swap",), "extra": extra, "long": "windows", "repeats": "weight"}
    done = run(tmp_path, base, rows=long, **options)
    frame = done.split.train
    weights = dict(zip(frame["text"], raw_rows(frame), strict=True))
    assert weights["more cash to win"] == 3
    assert weights["mum at home"] == 1
    originals = {tuple(sorted(text.split())): weights[text] for text in done.split.plain["text"]}
    new = frame["text"][len(set(done.split.plain["text"])) + 2 :]
    assert len(new) > 10
    known = [text for text in new if tuple(sorted(text.split())) in originals]
    assert len(known) > 10
    assert all(weights[text] == originals[tuple(sorted(text.split()))] for text in known)
    sampler = drawn[0]
    assert len(sampler.lengths) > len(frame), "windows"
    assert sampler.weights.sum() > raw_rows(frame).sum()
    assert set(sampler.weights.tolist()) == set(raw_rows(frame).tolist())


def test_extra_rows_go_by_the_same_option(base):
    split = Split(table(ROWS), table([("v", "ham")]), table([("t", "ham")]))
    extra = table(
        [("new", "ham"), ("New!", "ham"), ("t", "ham"), ("v", "ham"), ("both", "ham"), ("both", "spam")]
    )
    added = {
        how: with_extra(split, extra, "x", repeats=how).train[len(ROWS) :]
        for how in ("drop", "keep", "weight")
    }
    assert added["keep"]["text"].tolist() == ["new", "New!"]
    for how in ("drop", "weight"):
        assert added[how][["text", "rows"]].values.tolist() == [["new", 2]]
        whole = with_extra(split, extra, "x", repeats=how).train
        assert raw_rows(whole).tolist() == [1] * len(ROWS) + [2], "those of before have no such column"


def test_a_resumed_run_draws_the_same_and_scores_the_same(base, tmp_path):
    options = {"repeats": "weight", "balance": "oversample", "epochs": 3}
    whole = run(tmp_path, base, **options)
    with stopped_before(5):
        run(tmp_path, base, "stopped", **options)
    resumed = train(TrainConfig.of(out=tmp_path / "stopped", resume=True))
    assert resumed.scores == whole.scores
    assert "raw_rows" in resumed.scores["test"]
    assert resumed.history == whole.history
    assert resumed.split.report == whole.split.report


def test_fit_in_memory_obeys_too(base, tmp_path):
    frame = pd.DataFrame(REPEATED, columns=["text", "label"])
    for how in ("drop", "keep", "weight"):
        done, same = fit(frame, base, repeats=how, **QUICK), run(tmp_path, base, how, repeats=how)
        assert done.scores == same.scores
        assert done.split.report == same.split.report
        assert done.split.report["repeats"] == how


def test_given_parts_stay_row_for_row(base):
    test = pd.DataFrame([*CHAT, ("see you", "ham"), ("win", "spam")], columns=["text", "label"])
    done = fit({"train": pd.DataFrame(ROWS, columns=["text", "label"]), "test": test}, base, **QUICK)
    assert pairs(done.split.test) == list(test.itertuples(index=False, name=None))
    assert done.scores["test"]["n"] == 11
    assert done.scores["test"]["distinct"]["n"] == 6


def test_the_book_keeps_its_rows():
    with pytest.raises(InputError, match="leave out --repeats"):
        resolve(TrainConfig.of(recipe="book", repeats="keep"))
    assert resolve(TrainConfig.of(recipe="book")).data.repeats == "drop"


# --- scores counted the other way ---


def outputs_of(rng, n, k):
    outputs = rng.random((n, k))
    return outputs / outputs.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_raw_rows_are_what_repeating_the_rows_gives(k):
    rng = np.random.default_rng(k)
    task = SingleLabel(tuple("abcde"[:k]))
    targets, outputs, rows = rng.integers(0, k, 30), outputs_of(rng, 30, k), rng.integers(1, 9, 30)
    frame = labelled_frame([f"t{i}" for i in range(30)], [task.labels[i] for i in targets]).assign(rows=rows)
    judge = judge_of(task)
    found = judge.scores_of(frame, targets, outputs)
    raw, whole = found["raw_rows"], judge.scores(targets.repeat(rows), outputs.repeat(rows, axis=0))
    for name in ("n", "accuracy", "precision", "recall", "f1"):
        assert raw[name] == pytest.approx(whole[name]), name
    predicted = outputs.argmax(axis=1)
    assert raw["accuracy"] == accuracy_score(targets, predicted, sample_weight=rows)
    assert raw["macro_f1"] == f1_score(targets, predicted, average="macro", sample_weight=rows)
    assert found["n"] == 30
    assert found["accuracy"] == accuracy_score(targets, predicted)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_raw_rows_of_lists_and_of_numbers(k):
    rng = np.random.default_rng(k)
    names, rows = tuple("abcd"[:k]), rng.integers(1, 9, 40)
    frame = labelled_frame([f"t{i}" for i in range(40)], ["[]"] * 40).assign(rows=rows)
    flags, shares = rng.integers(0, 2, (40, k)), rng.random((40, k))
    numbers, guesses = rng.normal(size=(40, k)), rng.normal(size=(40, k))
    tasks = MultiLabel(names, thresholds=(0.4,) * k), Regression(names)
    for task, targets, outputs in zip(tasks, (flags, numbers), (shares, guesses), strict=True):
        judge = judge_of(task)
        raw = judge.scores_of(frame, targets, outputs)["raw_rows"]
        whole = judge.scores(targets.repeat(rows, axis=0), outputs.repeat(rows, axis=0))
        assert len(raw) > 2
        assert raw == pytest.approx({name: whole[name] for name in raw})


def test_a_repeated_text_counts_once_among_the_distinct():
    """Rows of a text that disagree count in part: half a text is right."""
    frame = table([("a", "x"), ("A", "x"), ("b", "x"), ("b", "y"), ("c", "y")])
    task = SingleLabel(("x", "y"))
    outputs = np.array([[0.9, 0.1]] * 5)
    found = judge_of(task).scores_of(frame, task.targets(frame.label.tolist()).numpy(), outputs)
    assert found["accuracy"] == 3 / 5
    assert found["distinct"]["accuracy"] == pytest.approx(1.5 / 3)
    assert found["distinct"]["n"] == 3
    shown = scores_table(task, {"test": found}, {})
    assert "test, each text once  3  50.00" in shown


def test_an_undefined_precision_stays_undefined():
    frame = table([("a", "x"), ("b", "y")]).assign(rows=[3, 1])
    found = judge_of(SingleLabel(("x", "y"))).scores_of(frame, np.array([0, 1]), np.array([[0.9, 0.1]] * 2))
    assert found["precision"] is found["raw_rows"]["precision"] is None
    assert found["raw_rows"]["accuracy"] == 0.75


def test_a_run_and_evaluate_agree_and_say_both(base, tmp_path):
    done = run(tmp_path, base)
    parts = dict(done.split.items())
    for part in ("train", "test"):
        assert done.scores[part]["raw_rows"]["n"] == parts[part]["rows"].sum() > len(parts[part])
    assert parts["validation"]["rows"].tolist() == [1] * 6, "with this seed"
    assert "raw_rows" not in done.scores["validation"]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["scores"] == done.scores
    own = evaluate(EvaluateConfig(model=tmp_path / "run", device="cpu"))
    assert own["raw_rows"] == pytest.approx(done.scores["test"]["raw_rows"])
    data = write_csv(tmp_path / "new.csv", [("ok then", "ham"), ("Ok then", "ham"), ("cash", "spam")])
    found = evaluate(EvaluateConfig(model=tmp_path / "run", data=str(data), device="cpu"))
    assert (found["n"], found["distinct"]["n"]) == (3, 2)
    kept = run(tmp_path, base, "kept", repeats="keep")
    assert kept.scores["test"]["n"] == done.scores["test"]["raw_rows"]["n"]
    assert kept.scores["test"]["distinct"]["n"] == done.scores["test"]["n"]


def test_no_second_count_where_no_text_repeats_or_rows_were_made(base, tmp_path):
    plain = run(tmp_path, base, "plain", ROWS)
    assert not any({"raw_rows", "distinct"} & set(found) for found in plain.scores.values())
    made = run(tmp_path, base, "made", balance="oversample")
    assert not {"raw_rows", "distinct"} & set(made.scores["train"])
    assert "raw_rows" in made.scores["test"]
