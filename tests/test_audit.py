"""gptcls.audit: what it finds in rows with known faults, and what it leaves behind."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from helpers.tiny import ROWS, write_csv

import gptcls.audit
from gptcls.audit import AuditConfig, audit
from gptcls.core.errors import InputError
from gptcls.data.same_text import text_key
from gptcls.evaluation import page
from gptcls.evaluation.audit_report import as_page
from gptcls.evaluation.findings import CONFLICT, CUT, LEAK, LENGTH, NEAR, REPEAT, SCRIPT, SUSPECT
from gptcls.train.config import TrainConfig
from gptcls.train.rows import read_split

LONG = "please call this number before noon today to claim the prize that waits for you at our office"


UNLIKE = [(f"{a} {b} {c}", label) for a, b, c, label in zip(
    ["river", "stone", "candle", "window", "garden", "thunder", "pepper", "violin", "ladder", "harbour"] * 3,
    ["quickly", "sings", "beyond", "eleven", "mountains", "while", "purple"] * 5,
    ["under", "morning", "glass", "orders", "fifty", "yellow", "kitchens", "before", "another", "winter"] * 4,
    ["ham", "spam"] * 15, strict=False)]  # fmt: skip


@pytest.fixture
def quick(base, tmp_path):
    """Of a tiny network, quiet."""

    def run(data, **options):
        return audit(data=data, model=str(base), **options)

    return run


def frame(rows):
    return pd.DataFrame(rows, columns=["text", "label"])


def where(found, finding):
    each = found.of(finding)
    return list(zip(each["part"], each["row"], strict=True))


# --- texts that stand twice ---


def test_the_same_and_nearly_the_same_text_in_two_parts(quick):
    train = [*ROWS, (LONG, "spam"), ("How are you?", "ham")]
    test = [
        (f"{LONG}!", "spam"),
        (LONG.replace("noon", "ten"), "spam"),
        ("HOW ARE YOU", "spam"),
        ("new", "ham"),
    ]
    found = quick({"train": frame(train), "validation": frame(ROWS[:12]), "test": frame(test)})
    leaks = found.of(LEAK)
    assert where(found, LEAK) == [("validation", i) for i in range(12)] + [("test", i) for i in range(3)]
    assert leaks["score"].tolist()[-3:] == [1.0, pytest.approx(0.9, abs=0.06), 1.0]
    assert leaks["like_row"].tolist()[-3:] == [60, 60, 61]
    assert set(leaks["like_part"]) == {"train"}
    assert leaks["said"].iloc[-1].endswith("which is ham"), "the labels differ"
    assert where(found, CONFLICT) == [("train", 61), ("test", 2)], "one row each: no majority"


def test_repeats_conflicts_and_near_duplicates_within_a_part(quick):
    rows = [
        ("ok", "ham"),
        ("OK!", "ham"),
        ("ok", "spam"),
        (LONG, "spam"),
        (LONG.replace("noon", "ten"), "spam"),
    ]
    found = quick({"train": frame([*UNLIKE, *rows]), "validation": frame([("a", "ham"), ("b", "spam")]),
                   "test": frame([("c", "ham"), ("d", "spam")])})  # fmt: skip
    assert where(found, REPEAT) == [("train", 31), ("train", 32)]
    assert found.of(REPEAT)["like_row"].tolist() == [30, 30]
    assert where(found, CONFLICT) == [("train", 32)], "two of three say ham"
    assert found.of(CONFLICT)["suggested"].tolist() == ["ham"]
    assert where(found, NEAR) == [("train", 34)]


def test_near_says_how_much(quick):
    rows = {"train": frame([*UNLIKE, (LONG, "spam")]), "test": frame([(LONG.replace("noon", "ten"), "spam")])}
    assert len(quick(rows, near=0.8).of(LEAK)) == 1
    assert len(quick(rows, near=1.0).of(LEAK)) == 0


def test_the_parts_are_those_that_training_draws():
    found, split = audit(data="sms-sample", seed=7), read_split(TrainConfig.of(data="sms-sample", seed=7))
    for part, rows in split.items():
        drawn = found.rows[found.rows["part"] == part]
        assert set(drawn["text"].map(text_key)) == set(rows["text"].map(text_key)), part
    assert found.unit == "line"
    assert found.rows["row"].tolist() == list(range(2, 2 + len(found.rows)))


# --- labels ---


def test_flipped_labels_come_first(quick):
    rows = frame(ROWS)
    flipped = [3, 20, 41]
    rows.loc[flipped, "label"] = ["spam" if label == "ham" else "ham" for label in rows["label"][flipped]]
    found = quick(rows)
    assert set(np.argsort(found.rows["own"])[:3]) == set(flipped)
    suspects = found.of(SUSPECT)
    assert 0 < len(suspects) <= len(set(suspects["row"]) & set(flipped))
    assert suspects["score"].is_monotonic_increasing
    assert (suspects["suggested"] != suspects["label"]).all()
    assert {*found.confused["label"]} == {"ham", "spam"}
    assert found.confused["rows"].sum() >= 3


def test_lists_of_labels_and_numbers(quick):
    words = {"joy": "what a lovely day", "anger": "how dare you do that"}
    lists = [([name], f"{words[name]} {i}") for i in range(30) for name in words]
    lists[7] = (["anger", "joy"], lists[7][1])
    lists[8] = ([], lists[8][1])
    rows = pd.DataFrame(lists, columns=["labels", "text"])
    found = quick(rows, task="multi", label_column="labels")
    assert {7, 8} <= set(found.of(SUSPECT)["row"])
    assert found.confused["not given"].sum() >= 1
    values = [(text, 1.0 if "lovely" in text else 5.0) for _, text in lists]
    values[11] = (values[11][0], 60.0)
    found = quick(frame(values), task="regression")
    assert found.of(SUSPECT)["row"].iloc[0] == 11
    assert float(found.of(SUSPECT)["suggested"].iloc[0]) < 20
    assert found.confused.empty


def test_rows_that_training_would_refuse_are_no_error(quick, run_main, tmp_path):
    one_class = quick(frame([(text, "ham") for text, _ in ROWS]))
    assert "gptcls.train would refuse these rows" in one_class.notes[0]
    assert "Labels were not judged" in one_class.notes[1]
    few = quick(frame([*ROWS[:6], ("a single spam", "spam")]))
    assert "'spam' has too few texts" in few.notes[0]
    assert set(few.rows["part"]) == {"train"}
    assert "fewer than 20" in few.notes[1]
    assert "too few texts" in as_page(few)


# --- what the network reads ---


def test_texts_that_are_cut_and_what_training_rows_do_not_cover(quick):
    test = [("see you " * 50, "ham"), ("до встречи дома", "ham"), ("see you soon at home", "ham")]
    found = quick(
        {"train": frame(ROWS * 2), "validation": frame([ROWS[0]]), "test": frame(test)}, max_length=60
    )
    assert where(found, CUT) == [("test", 0)]
    assert where(found, SCRIPT) == [("test", 1)]
    assert set(where(found, LENGTH)) == {("test", 0), ("test", 1)}, "Cyrillic takes many tokens"
    assert found.lengths["part"].tolist() == ["train", "validation", "test"]
    assert found.scripts.set_index("script").loc["CYRILLIC", "test"] == 1


# --- the command ---


def test_the_command_and_its_report(base, tmp_path, run_main):
    rows = [*ROWS, ("<script>alert(1)</script> \x1b[31m & more of it", "ham"), ("ok", "ham"), ("ok", "spam")]
    data = write_csv(tmp_path / "labels.csv", rows)
    before = data.read_bytes()
    status, out, err = run_main(gptcls.audit, "--data", data, "--model", base, "--out", tmp_path / "report")
    assert status == 0, err
    assert re.search(r"^conflict +\d", out, re.MULTILINE)
    assert "\x1b" not in out
    assert data.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["audit.csv", "audit.html"]
    table = pd.read_csv(tmp_path / "report" / "audit.csv", keep_default_na=False)
    assert {*table["finding"]} >= {CONFLICT, REPEAT}
    html = (tmp_path / "report" / "audit.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "default-src 'none'" in html, "nothing is loaded from elsewhere"
    assert not re.search("https?:", html)
    assert "prefers-color-scheme: dark" in html


def test_a_report_goes_to_runs_unless_told_otherwise(base, tmp_path, run_main, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_csv(tmp_path / "labels.csv")
    assert run_main(gptcls.audit, "--data", data, "--model", base)[0] == 0
    assert (tmp_path / "runs" / "audit-labels" / "audit.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--near", "0"], "--near 0.0"),
        (["--near", "nan"], "--near nan"),
        (["--max-length", "0"], "--max-length 0"),
        (["--max-length", "99"], "reads 1 to 64"),
        (["--label-column", "lable"], "'lable'"),
        (["--seed", "-1"], "--seed -1"),
        (["--test", "gone.csv"], "gone.csv"),
    ],
)
def test_wrong_options_are_one_line(options, said, base, tmp_path, run_main):
    data = write_csv(tmp_path / "labels.csv")
    arguments = ["--data", data, "--model", base, "--out", tmp_path / "report", *options]
    status, out, err = run_main(gptcls.audit, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (tmp_path / "report").exists()


def test_a_file_in_the_place_of_the_report_is_refused_before_the_work(tmp_path, base):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        audit(AuditConfig(data="sms-sample", model=str(base), out=tmp_path / "taken"))


def test_a_page_is_whole_html():
    class Tags(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.seen = [], []

        def handle_starttag(self, tag, attrs):
            self.seen.append(tag)
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    tags = Tags()
    parts = [page.section("a < b", page.paragraph("x & y"), page.table(["n", "text"], [[1, "</table>"]]))]
    tags.feed(page.page("<title>", parts))
    assert tags.open == []
    assert tags.seen.count("table") == 1
    assert 'class="number">1<' in parts[0]
