"""Duplicates, balance, weights and splits: never a row of train in validation or test."""

import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from gptcls.core.errors import InputError
from gptcls.core.task import class_weights
from gptcls.data.resample import oversample, undersample
from gptcls.data.sources import load_data
from gptcls.data.split import Split, drop_duplicates, load_split, make_split, save_split
from gptcls.evaluation.baselines import tfidf_baseline


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


def table(*rows: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"text": [text for text, _ in rows], "label": [label for _, label in rows]}, dtype=str
    )


def distinct(**counts: int) -> pd.DataFrame:
    """That many different texts of each label, labels mixed."""
    rows = [(f"{label} text {i}", label) for label, n in counts.items() for i in range(n)]
    return table(*[rows[i] for i in np.random.RandomState(0).permutation(len(rows))])


def as_rows(frame: pd.DataFrame) -> list[tuple[str, str]]:
    assert list(frame.index) == list(range(len(frame)))
    return list(zip(frame.text, frame.label, strict=True))


def test_drop_duplicates_keeps_the_first_and_no_tie(log):
    frame = table(
        ("a", "x"), ("b", "y"), ('"A"', "x"), ("a\n", "x"), ("c", "x"), ("C!", "y"), ("Ａ", "x"), ("d", "y")  # noqa: RUF001
    )  # fmt: skip
    assert as_rows(drop_duplicates(frame)) == [("a", "x"), ("b", "y"), ("d", "y")]
    assert "1 texts (e.g. 'c') stand under several labels" in log.text
    assert "1 have none (e.g. 'c'), their 2 rows are dropped" in log.text
    assert "dropped 3 repeated texts, 3 rows left" in log.text
    log.clear()
    drop_duplicates(distinct(x=3, y=3))
    assert log.text == ""


def test_undersample_cuts_to_the_smallest_class_in_file_order():
    frame = distinct(x=20, y=5, z=9)
    small = undersample(frame, seed=1)
    assert small.label.value_counts().to_dict() == {"x": 5, "y": 5, "z": 5}
    positions = [as_rows(frame).index(row) for row in as_rows(small)]
    assert positions == sorted(positions)
    assert as_rows(undersample(frame, seed=1)) == as_rows(small)
    assert as_rows(undersample(frame, seed=2)) != as_rows(small)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 99))
def test_oversample_repeats_each_row_about_as_often(counts, seed):
    frame = distinct(**{f"class{i}": n for i, n in enumerate(counts)})
    large = oversample(frame, seed)
    rows = as_rows(large)
    assert set(rows) == set(as_rows(frame)), "none is lost, none is new"
    assert large.label.value_counts().to_dict() == {f"class{i}": max(counts) for i in range(len(counts))}
    for i, n in enumerate(counts):
        times = large.text[large.label == f"class{i}"].value_counts()
        assert set(times) <= {max(counts) // n, -(-max(counts) // n)}
    positions = [as_rows(frame).index(row) for row in rows]
    assert positions == sorted(positions)
    pd.testing.assert_frame_equal(oversample(frame, seed), large)


def test_oversample_is_said(log):
    oversample(distinct(x=20, y=5), seed=1)
    assert "oversampled: 20 rows of each class, 15 of them repeats" in log.text
    log.clear()
    oversample(distinct(x=5, y=5), seed=1)
    assert log.text == ""


@pytest.mark.parametrize("seed", [0, 1])
def test_balancing_raises_recall_on_the_natural_spam_rate(sms_file, seed):
    """At 13 % spam a classifier learns to say ham; each way of balancing moves it towards spam."""
    split = make_split(drop_duplicates(load_data(sms_file)), seed=seed)
    truth = split.test.label == "spam"

    def spam_called(train, weights=None):
        model = tfidf_baseline()
        model.set_params(logisticregression__C=1, logisticregression__class_weight=weights)
        return model.fit(train.text, train.label).predict(split.test.text) == "spam"

    plain = spam_called(split.train)
    names = ["ham", "spam"]
    weights = dict(zip(names, class_weights(split.train.label, names), strict=True))
    for balanced in (
        spam_called(split.train, weights),
        spam_called(oversample(split.train, seed)),
        spam_called(undersample(split.train, seed)),
    ):
        assert balanced[truth].mean() > plain[truth].mean() + 0.05, "recall of spam"
        assert balanced[~truth].sum() >= plain[~truth].sum(), "and no fewer false alarms"


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1).filter(lambda labels: len(set(labels)) == 3))
def test_class_weights_are_scikit_learns(labels):
    names = ["c", "a", "b"]
    expected = compute_class_weight("balanced", classes=np.array(names), y=np.array(labels))
    np.testing.assert_allclose(class_weights(labels, names), expected)


def test_class_weight_of_an_absent_class():
    with pytest.raises(InputError, match="'b' has no rows"):
        class_weights(["a", "a"], ["a", "b"])


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(3, 60), min_size=2, max_size=4),
    fractions=st.tuples(st.floats(0.01, 0.49), st.floats(0.01, 0.49)),
    seed=st.integers(0, 2**32 - 1),
)
def test_split_is_stratified_disjoint_and_complete(counts, fractions, seed):
    frame = distinct(**{f"class{i}": n for i, n in enumerate(counts)})
    options = {"validation_fraction": fractions[0], "test_fraction": fractions[1], "seed": seed}
    split = make_split(frame, **options)
    parts = dict(split.items())
    assert list(parts) == ["train", "validation", "test"]
    assert sorted(row for part in parts.values() for row in as_rows(part)) == sorted(as_rows(frame))
    for i, n in enumerate(counts):
        sizes = {name: int((part.label == f"class{i}").sum()) for name, part in parts.items()}
        assert min(sizes.values()) >= 1
        for name, fraction in zip(("validation", "test"), fractions, strict=True):
            assert (
                abs(sizes[name] - fraction * n) <= 1.5
            )  # rounding, and a row for each part of a small class
    for name, part in make_split(frame, **options).items():
        pd.testing.assert_frame_equal(part, parts[name])


def test_a_small_class_keeps_a_row_in_each_part():
    split = make_split(distinct(x=3, y=40), validation_fraction=0.05, test_fraction=0.9)
    assert [int((part.label == "x").sum()) for _, part in split.items()] == [1, 1, 1]
    assert [int((part.label == "y").sum()) for _, part in split.items()] == [2, 2, 36]


def test_split_does_not_move_between_releases():
    """The rows themselves, so that a saved seed keeps its meaning."""
    split = make_split(distinct(x=10, y=10), seed=123)
    assert sorted(split.test.text) == ["x text 1", "x text 7", "y text 3", "y text 4"]
    assert sorted(split.validation.text) == ["x text 2", "y text 7"]


def test_seeds_differ():
    frame = distinct(x=50, y=50)
    assert as_rows(make_split(frame, seed=1).test) != as_rows(make_split(frame, seed=2).test)


def test_repeated_texts_never_stand_on_both_sides():
    frame = pd.concat([distinct(x=30, y=30)] * 3, ignore_index=True)
    split = make_split(frame)
    texts = {name: set(part.text) for name, part in split.items()}
    assert not texts["train"] & (texts["validation"] | texts["test"])
    assert not texts["validation"] & texts["test"]


def test_given_parts_are_used_and_their_texts_leave_train(log):
    frame = distinct(x=20, y=20)
    test = pd.concat([frame[:4], table(("new", "x"))], ignore_index=True)
    validation = pd.concat([frame[2:6], table(("newer", "y"))], ignore_index=True)
    split = make_split(frame, validation, test)
    assert as_rows(split.test) == as_rows(test)
    assert as_rows(split.validation) == as_rows(validation[2:].reset_index(drop=True))
    assert as_rows(split.train) == as_rows(frame[6:].reset_index(drop=True))
    assert "removed 2 rows from validation: their texts also stand in test" in log.text
    assert "removed 4 rows from train" in log.text


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_the_part_not_given_is_drawn_from_train_alone(missing):
    frame = distinct(x=40, y=40)
    other = {"validation": "test", "test": "validation"}[missing]
    given_part = pd.concat([frame[:10], table(("new", "x"))], ignore_index=True)
    split = make_split(frame, **{other: given_part}, validation_fraction=0.2, test_fraction=0.2)
    assert as_rows(getattr(split, other)) == as_rows(given_part)
    drawn = getattr(split, missing)
    assert len(drawn) == 14
    assert sorted(as_rows(drawn) + as_rows(split.train)) == sorted(as_rows(frame[10:].reset_index(drop=True)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rows": distinct(x=9)}, "only 'x'"),
        ({"rows": distinct(x=9)[:0]}, "none"),
        ({"rows": distinct(x=9, rare=2)}, "class 'rare' has too few texts \\(2\\): 3 are needed"),
        ({"rows": distinct(x=9, rare=1), "test": table(("new", "x"))}, "'rare' has too few texts \\(1\\): 2"),
        ({"rows": distinct(x=9, y=9), "test_fraction": 0.0}, "test fraction 0.0"),
        ({"rows": distinct(x=9, y=9), "validation_fraction": 1.5}, "validation fraction 1.5"),
        ({"rows": distinct(x=9, y=9), "validation_fraction": 0.5, "test_fraction": 0.5}, "leave nothing"),
        (
            {"rows": distinct(x=9, y=9), "test": table(("n", "z"))},
            "test rows have labels that train lacks: 'z'",
        ),
        (
            {"rows": distinct(x=9, y=9), "validation": table(("n", "X"))},
            "validation rows .* 'X'; train has 'x', 'y'",
        ),
        (
            {"rows": distinct(x=9, y=9), "validation": table(("n", "x")), "test": table(("n", "x"))},
            "no rows are left for validation",
        ),
        ({"rows": distinct(x=3, y=3), "test": distinct(x=3, y=3)}, "none"),
    ],
)
def test_splits_that_cannot_be_made(arguments, said):
    with pytest.raises(InputError, match=said) as error:
        make_split(**arguments)
    assert "\n" not in str(error.value)


# --- on disk ---

any_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
awkward = st.sampled_from(
    ["NA", "null", "", " ", "\r", "\r\n", "\n", '"', '""', ",", " lead", "\ufeff", "a\rb", "1.0"]
)


@settings(deadline=None)
@given(st.lists(st.tuples(any_text | awkward, any_text | awkward), min_size=3))
def test_saved_split_comes_back_exactly(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("split")
    split = Split(table(*rows[:-2]), table(rows[-2]), table(rows[-1]))
    save_split(split, folder)
    for (name, loaded), (_, part) in zip(load_split(folder).items(), split.items(), strict=True):
        assert as_rows(loaded) == as_rows(part), name


def test_saved_split_is_what_pandas_reads(tmp_path):
    rows = [('say "hi"', "a"), ("two\nlines", "b"), ("x, y", "c")]
    save_split(Split(table(*rows), table(*rows), table(*rows)), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "test.csv",
        "train.csv",
        "validation.csv",
    ]
    assert as_rows(pd.read_csv(tmp_path / "new" / "test.csv", dtype=str, keep_default_na=False)) == rows


def test_failed_save_changes_nothing(tmp_path):
    good, bad = table(("a", "x")), table(("a\0", "x"))
    save_split(Split(good, good, good), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = table(("other", "x"))
    with pytest.raises(InputError, match="test, row 0"):
        save_split(Split(other, other, bad), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folders_without_a_split(tmp_path):
    with pytest.raises(InputError, match=r"train\.csv: no such file"):
        load_split(tmp_path)
    save_split(Split(*[table(("a", "x"))] * 3), tmp_path)
    (tmp_path / "test.csv").write_text("text,class\na,x\n")
    with pytest.raises(InputError, match="text, class instead of text, label"):
        load_split(tmp_path)
