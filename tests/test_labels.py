"""How labels stand in files: lists, ids, 0 and 1, numbers; and every way in which they can be wrong."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from gptcls.core.errors import InputError
from gptcls.data.in_memory import labelled_rows
from gptcls.data.labels import LISTS, NUMBERS, ONE_CLASS, Layout, number_strata, rarest_labels
from gptcls.data.readers import Dialect
from gptcls.data.sources import from_frame, labelled_frame, load_data
from gptcls.data.split import Split, drop_duplicates, load_split, make_split, save_split


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    return caplog


@pytest.fixture
def labels(tmp_path):
    """The labels that a file's lines give under a layout."""

    def read(lines, layout=None, name="rows.csv", **columns):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return load_data(path, layout=layout or Layout(LISTS), **columns)["label"].tolist()

    return read


def json_lines(*values):
    return [json.dumps({"text": f"text {i}", "label": value}) for i, value in enumerate(values)]


# --- several labels ---


def test_lists_of_json_lines(labels):
    rows = json_lines(["joy", "anger"], ["joy"], [], [3], ["喜", "joy", "joy"])
    assert labels(rows, name="rows.jsonl") == ['["anger", "joy"]', '["joy"]', "[]", '["3"]', '["joy", "喜"]']


def test_lists_of_parquet(tmp_path, log):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"text": ["a b", "c d"], "label": [["y", "x"], []]}).to_parquet(path)
    assert load_data(path, layout=Layout(LISTS))["label"].tolist() == ['["x", "y"]', "[]"]
    assert "1 rows have none of the labels" in log.text


def test_separated_strings(labels, log):
    lines = ["text,label", 'one,"joy, anger"', "two,joy", "three,"]
    layout = Layout(LISTS, label_separator=",")
    assert labels(lines, layout) == ['["anger", "joy"]', '["joy"]', "[]"]
    assert "1 rows have none of the labels" in log.text


def test_a_string_is_one_label_where_no_separator_is_named(labels, log):
    lines = ["text,label", 'one,"joy,anger"', "two,joy", "three,anger", 'four,"news,joy"', "five,news"]
    assert labels(lines)[0] == '["joy,anger"]'
    assert "is read as one class, also 'joy,anger'; for several add --label-separator ','" in log.text
    log.clear()
    labels(["text,label", 'one,"Sports, Outdoors"', "two,Music"])
    assert "separator" not in log.text, "names may hold commas"


def test_arrays_in_a_csv_as_a_saved_split_has_them(labels, tmp_path):
    assert labels(["text,label", 'one,"[""b"", ""a""]"', "two,[]"]) == ['["a", "b"]', "[]"]
    frame = labelled_frame(["one", "two, 2"], ['["a", "b"]', "[]"])
    save_split(Split(frame, frame, frame), tmp_path / "split")
    assert load_split(tmp_path / "split").validation["label"].tolist() == ['["a", "b"]', "[]"]
    assert load_data(tmp_path / "split" / "test.csv", layout=Layout(LISTS)).equals(frame)


def test_ids_become_names(labels, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("anger\njoy\nneutral\n\n")
    lines = ["text,label", 'one,"2,0"', "two,1"]
    layout = Layout(LISTS, label_separator=",", label_names=names)
    assert labels(lines, layout) == ['["anger", "neutral"]', '["joy"]']
    layout = Layout(ONE_CLASS, label_names=names)
    assert labels(["text,label", "one,2", "two,0"], layout) == ["neutral", "anger"]
    with pytest.raises(InputError, match=r"label '3' in column 'label'.* 0 to 2, in line 3"):
        labels(["text,label", "one,2", "two,3"], layout)
    names.write_text("anger\n\njoy\n")
    with pytest.raises(InputError, match="line 2: it holds no name"):
        labels(lines, layout)
    names.write_text("anger\njoy\nanger\n")
    with pytest.raises(InputError, match="line 3: it repeats the name 'anger'"):
        labels(lines, layout)
    with pytest.raises(InputError, match=r"nowhere\.txt: no such file"):
        labels(lines, Layout(ONE_CLASS, label_names=tmp_path / "nowhere.txt"))


def test_columns_of_0_and_1(labels, log):
    lines = ["text,joy,anger,fun", "one,1,0,1", "two,0,0,0", "three,true,1.0,FALSE"]
    layout = Layout(LISTS, label_columns=("joy", "anger", "fun"))
    assert labels(lines, layout) == ['["fun", "joy"]', "[]", '["anger", "joy"]']
    assert "1 rows have none of the labels" in log.text
    assert labels(lines, Layout(LISTS, label_columns=("anger",)), text_column="text")[2] == '["anger"]'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a"], "b"], r"a plain value, 'b', among lists in column 'label' in line 2"),
        ([["a"], [["b"]]], r"malformed list of labels \[\['b'\]\] in column 'label' in line 2"),
        ([["a"], [None]], r"malformed list of labels \[None\]"),
        ([["a"], [""]], "malformed list"),
        ([["a"], '["b"'], r"malformed list of labels '\[\"b\"'"),
        ([["a"], {"b": 1}], "malformed list"),
        ([["a"], 1.5], "malformed list"),
        ([["a"], None], r"missing label in column 'label' in line 2; .*write \[\]"),
    ],
)
def test_malformed_lists(labels, rows, message):
    with pytest.raises(InputError, match=message) as error:
        labels(json_lines(*rows), name="rows.jsonl")
    assert "\n" not in str(error.value)


def test_malformed_separated_strings_and_flags(labels):
    with pytest.raises(InputError, match="malformed list of labels 'a,,b'"):
        labels(["text,label", 'one,"a,,b"'], Layout(LISTS, label_separator=","))
    with pytest.raises(InputError, match=r"'maybe' in column 'joy', neither 0 nor 1, in line 3"):
        labels(["text,joy,fun", "one,1,0", "two,maybe,1"], Layout(LISTS, label_columns=("joy", "fun")))
    with pytest.raises(InputError, match=r"--label-columns names 'jyo'.*did you mean 'joy'"):
        labels(["text,joy,fun", "one,1,0"], Layout(LISTS, label_columns=("jyo", "fun")))
    with pytest.raises(InputError, match="'text' is the text"):
        labels(["text,joy", "one,1"], Layout(LISTS, label_columns=("joy", "text")), text_column="text")


# --- numbers ---


def test_numbers(labels):
    lines = ["text,stars,price", "one,4.5,1e3", "two,-1, 20 "]
    assert labels(lines, Layout(NUMBERS), label_column="stars") == ["4.5", "-1.0"]
    layout = Layout(NUMBERS, label_columns=("stars", "price"))
    assert labels(lines, layout) == ['{"stars": 4.5, "price": 1000.0}', '{"stars": -1.0, "price": 20.0}']
    assert labels(json_lines(1, 2.5), Layout(NUMBERS), name="rows.jsonl") == ["1.0", "2.5"]
    found = labels(json_lines({"y": 1, "x": 2}, {"x": 0, "y": 3}), Layout(NUMBERS), name="rows.jsonl")
    assert list(map(json.loads, found)) == [{"x": 2, "y": 1}, {"x": 0, "y": 3}]


@pytest.mark.parametrize("value", ["nan", "inf", "good", None, True, [1.0], "1e39", "", 10**400])
def test_what_is_no_number(labels, value):
    with pytest.raises(InputError, match=r"in column 'label'.* in line 2;"):
        labels(json_lines(1.5, value, 2), Layout(NUMBERS), name="rows.jsonl")


def test_numbers_of_other_names(labels):
    with pytest.raises(InputError, match="numbers named x in column 'label', not x, y, in line 2"):
        labels(json_lines({"x": 1, "y": 2}, {"x": 1}), Layout(NUMBERS), name="rows.jsonl")
    with pytest.raises(InputError, match="2 in column 'label', without names as in other rows, in line 2"):
        labels(json_lines({"x": 1}, 2), Layout(NUMBERS), name="rows.jsonl")


# --- one class: what looks like something else ---


def test_one_class_says_or_refuses_what_is_not_meant(labels, log):
    one = Layout()
    with pytest.raises(InputError, match=r"are lists, such as .*; add --task multi"):
        labels(["text,label", 'one,"[""a"", ""b""]"', "two,a"], one)
    with pytest.raises(InputError, match=r"a list or object .*--task multi"):
        labels(json_lines(["a"], ["b"]), one, name="rows.jsonl")
    assert labels(["text,label", "one,3.5", "two,1.25", "three,2"], one) == ["3.5", "1.25", "2"]
    assert "each number in column 'label', such as 1.25, is read as a class; else add --task reg" in log.text
    assert labels(["text,label", 'one,"a,b"', "two,a", "three,b"], one) == ["a,b", "a", "b"]
    assert "for several add --task multi --label-separator ','" in log.text
    log.clear()
    labels(["text,label", "one,1", "two,0", "three,2"], one)
    labels(["text,label", "one,not spam", "two,spam"], one)
    assert "is read as" not in log.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE_CLASS, ("a", "b")), "--label-columns a b: .*--label-column, --task multi or"),
        ((LISTS, ("a",), ","), "--label-columns a excludes --label-separator"),
        ((ONE_CLASS, (), ","), "--label-separator goes with --task multi, not --task single"),
        ((LISTS, (), ""), '--label-separator "" separates nothing'),
        ((NUMBERS, (), None, "x.txt"), "--label-names x.txt is for classes"),
        ((LISTS, ("a", "a")), "--label-columns names 'a' twice"),
    ],
)
def test_layouts_that_exclude_themselves(arguments, message):
    with pytest.raises(InputError, match=message):
        Layout(*arguments)


# --- no header ---


def test_columns_of_a_file_without_a_header(labels):
    options = {"layout": Layout(), "dialect": Dialect(columns=("text", "label", "id"))}
    assert labels(['say "hi"\tx\t1', "two\ty\t2"], **options, name="rows.tsv") == ["x", "y"]
    assert labels(["one\tx\t1", "two\ty\t2"], **options, name="rows.txt") == ["x", "y"]
    assert labels(['"one, 1",x,1', "two,y,2"], **options, name="rows.csv") == ["x", "y"]
    assert labels(["ham\tx\t1", "spam\ty\t2"], **options, name="rows.tsv") == ["x", "y"], "not UCI's format"
    semicolons = Dialect(";", "cp1252", ("text", "label", "id"))
    lines = ["one, 1;x;1", "two;y;2"]
    assert labels(lines, Layout(), name="rows.txt", dialect=semicolons) == ["x", "y"]
    with pytest.raises(InputError, match="line 1: --columns has 3 fields, this row 2"):
        labels(["one\tx", "two\ty"], **options, name="rows.tsv")
    with pytest.raises(InputError, match="names its own columns; leave out --columns"):
        labels(json_lines("a"), **options, name="rows.jsonl")
    with pytest.raises(InputError, match="--columns names 'text' twice"):
        Dialect(columns=("text", "text"))
    with pytest.raises(InputError, match=r"unknown format '\.txt'"):
        labels(["text\tlabel", "one\tx"], Layout(), name="rows.txt")
    with pytest.raises(InputError, match="put a header above it or name the columns with --columns"):
        labels(["hello there\t3", "see you\t4"], Layout(), name="rows.tsv")


# --- duplicates and splits ---


def test_duplicates_of_each_kind(log):
    texts = ["a", "a", "b", "b", "c"]
    lists = labelled_frame(texts, ['["x"]', '["x"]', '["x"]', '["y"]', "[]"])
    assert drop_duplicates(lists, LISTS)["text"].tolist() == ["a", "c"]
    assert "1 texts (e.g. 'b') stand under several lists of labels" in log.text
    assert "1 have none (e.g. 'b'), their 2 rows are dropped" in log.text
    numbers = labelled_frame(texts, ["1.0", "1.0", "2.0", "5.0", "4.0"])
    kept = drop_duplicates(numbers, NUMBERS)
    assert dict(zip(kept.text, map(float, kept.label), strict=True)) == {"a": 1.0, "b": 3.5, "c": 4.0}
    assert "1 texts (e.g. 'b') stand under several numbers: each gets the mean" in log.text
    named = labelled_frame(["a", "a"], ['{"x": 1.0, "y": 0.0}', '{"x": 2.0, "y": 4.0}'])
    assert json.loads(drop_duplicates(named, NUMBERS)["label"][0]) == {"x": 1.5, "y": 2.0}


def test_the_rarest_label_of_each_row():
    assert rarest_labels(['["a", "b"]', '["a"]', "[]", '["a", "c"]', '["a", "c"]']) == [
        "b",
        "a",
        "",
        "c",
        "c",
    ]


def test_label_lists_are_drawn_in_proportion():
    random = np.random.RandomState(0)
    shares = {"common": 0.6, "some": 0.2, "rare": 0.02}
    rows = [sorted(name for name, share in shares.items() if random.rand() < share) for _ in range(1000)]
    frame = labelled_frame([f"text {i}" for i in range(1000)], list(map(json.dumps, rows)))
    split = make_split(frame, kind=LISTS)
    assert sum(len(part) for _, part in split.items()) == 1000
    for name in shares:
        counts = [sum(name in json.loads(label) for label in part.label) for _, part in split.items()]
        assert [count / sum(counts) for count in counts] == pytest.approx([0.7, 0.1, 0.2], abs=0.04)
        assert min(counts) >= 1


def test_a_label_of_few_rows_stays_in_train():
    rows = [["common"]] * 20 + [["once"], ["twice"], ["twice", "common"]]
    frame = labelled_frame([f"text {i}" for i in range(23)], list(map(json.dumps, rows)))
    for seed in range(20):
        split = make_split(frame, kind=LISTS, seed=seed)
        assert {"once", "twice"} <= {name for label in split.train.label for name in json.loads(label)}
        assert len(split.validation)
        assert len(split.test)


def test_labels_that_only_meet_rarer_ones_are_given_back():
    """Each row of "shared" is drawn with a label that is as rare: train may be left without it."""
    rows = [["shared", f"a {i}"] for i in range(3)] + [[f"a {i}"] for i in range(3) for _ in range(2)]
    frame = labelled_frame([f"text {i}" for i in range(len(rows))], [json.dumps(sorted(row)) for row in rows])
    for seed in range(30):
        split = make_split(frame, validation_fraction=0.3, test_fraction=0.3, kind=LISTS, seed=seed)
        known = {name for label in split.train.label for name in json.loads(label)}
        assert known == {"shared", "a 0", "a 1", "a 2"}


def test_an_unknown_label_in_a_given_part():
    train = labelled_frame(["a", "b"], ['["x"]', '["y"]'])
    known, unknown = labelled_frame(["c"], ['["x"]']), labelled_frame(["d"], ['["x", "z"]'])
    with pytest.raises(InputError, match="the test rows have labels that train lacks: 'z'"):
        make_split(train, validation=known, test=unknown, kind=LISTS)


def test_numbers_are_drawn_from_low_to_high():
    values = np.random.RandomState(0).exponential(size=500)
    frame = labelled_frame([f"text {i}" for i in range(500)], [json.dumps(value) for value in values])
    split = make_split(frame, kind=NUMBERS)
    assert [len(part) for _, part in split.items()] == [350, 50, 100]
    deciles = np.quantile(values, np.arange(1, 10) / 10)
    for _, part in split.items():
        found = np.bincount(np.searchsorted(deciles, part.label.astype(float)), minlength=10)
        assert found.min() == found.max() == len(part) / 10
    assert set(number_strata(["1.0", "2.0", "3.0"])) == {"0"}, "too few to be cut"


def test_columns_that_nobody_named():
    sample = pd.DataFrame({"text": ["a b", "c d"], "joy": ["0", "1"], "fear": ["1", "0"]})
    with pytest.raises(InputError, match=r"which column is the label .* with --label-column$"):
        Layout().find(None, None, sample, "x.csv")
    for kind in (LISTS, NUMBERS):
        with pytest.raises(InputError, match=r"name it with --label-column, or several with --label-columns"):
            Layout(kind).find(None, None, sample, "x.csv")


# --- one column, several types ---


def as_json_lines(values, path):
    path = path.with_suffix(".jsonl")
    path.write_text("\n".join(json_lines(*values)), encoding="utf-8")
    return load_data(path)


def as_parquet(values, path):
    """Whose columns have one type each: here that of strings, numbers or truth values."""
    path = path.with_suffix(".parquet")
    pd.DataFrame({"text": [f"text {i}" for i in range(len(values))], "label": list(values)}).to_parquet(path)
    return load_data(path)


def as_frame(values, path):
    return from_frame(pd.DataFrame({"text": [f"text {i}" for i in range(len(values))], "label": [*values]}))


def as_lists(values, path):
    return from_frame(labelled_rows([f"text {i}" for i in range(len(values))], [*values]), "text", "label")


UNTYPED = [as_json_lines, as_frame, as_lists]


@pytest.mark.parametrize("read", UNTYPED)
def test_a_number_however_it_is_written_is_one_class(read, tmp_path, log):
    assert read([1, "1", 1.0, 0, "0"], tmp_path / "x").label.tolist() == ["1", "1", "1", "0", "0"]
    assert "\"0\" and 0 in column 'label' are one class; likewise 1 others" in log.text
    log.clear()
    assert read([1, "1.0", "other"], tmp_path / "x").label.tolist() == ["1", "1", "other"]
    assert "\"1.0\" and 1 in column 'label' are one class\n" in log.text
    log.clear()
    assert read([10**16, 1e16, "x"], tmp_path / "x").label.tolist() == [str(10**16)] * 2 + ["x"]
    assert read([1, "01", "1 st"], tmp_path / "x").label.tolist() == ["1", "01", "1 st"]
    assert read([1, 2.5, "x"], tmp_path / "x").label.tolist() == ["1", "2.5", "x"]


@pytest.mark.parametrize("read", UNTYPED)
@pytest.mark.parametrize("other", [1, "1", 1.0, "true", "True", "spam"])
def test_truth_values_beside_other_labels_are_a_question(read, other, tmp_path):
    said = f"truth value True beside labels such as {other!r} in column 'label' in .*; write all of them as"
    with pytest.raises(InputError, match=said):
        read([other, True, other, "0"], tmp_path / "x")


@pytest.mark.parametrize("read", [*UNTYPED, as_parquet])
@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((True, False), ["True", "False"]),
        ((1, 0), ["1", "0"]),
        ((1.0, 0.0), ["1", "0"]),
        (("1", "0"), ["1", "0"]),
        ((0.5, 1.0), ["0.5", "1.0"]),
    ],
)
def test_a_column_of_one_type_needs_no_word(read, values, names, tmp_path, log):
    assert read(values, tmp_path / "x").label.tolist() == names
    assert "one class" not in log.text


def test_lists_of_labels_of_several_types(labels):
    rows = json_lines(["a", 1], ["1"], [])
    assert labels(rows, name="rows.jsonl") == ['["1", "a"]', '["1"]', "[]"]
    for other in (True, 1.0, None, ["a"]):
        with pytest.raises(InputError, match="malformed list of labels"):
            labels(json_lines(["1"], ["a", other]), name="rows.jsonl")
