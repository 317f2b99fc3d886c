"""predictions.csv and mistakes.md: whatever the texts hold, a reader of CSV or Markdown gets them back."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from helpers.tiny import ROWS
from markdown_it import MarkdownIt

from gptcls import fit, load_classifier, train
from gptcls.classify.answers import answered
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.mistakes import LONGEST_TEXT, MOST, write_mistakes

NASTY = [
    'He said "no", twice\nand left;\r\na,b',
    "# not a heading\n| a | b |\n|---|---|\n<script>alert(1)</script> &amp; <!-- @someone #1",
    "```python\nprint()\n```\n~~~\n````",
    "  * [x](http://x.test) ![y](z) **b** \\`\t\x07\x1b[31m\u2028end",
    "=cmd|' /C calc'!A0",
    "",
]
MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})


def shown(text: str) -> str:
    """Line ends as they are everywhere, and a sign in place of what would control a terminal."""
    return re.sub("[\x07\x1b]", "\ufffd", text.replace("\r\n", "\n"))


def blocks(path) -> tuple[list[str], list[str]]:
    """The content of the code blocks of a Markdown file, and of the headings."""
    tokens = MARKDOWN.parse(path.read_text(encoding="utf-8"))
    assert not [token for token in tokens if token.type == "html_block"]
    heads = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return [token.content for token in tokens if token.type == "fence"], heads


def cells(path) -> list[list[str]]:
    """The rows of all tables, as they are shown."""
    rows, tokens = [], MARKDOWN.parse(path.read_text(encoding="utf-8"))
    for i, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append("".join(child.content for child in tokens[i + 1].children))
    return rows


def test_any_text_stays_what_it_is(tmp_path):
    labels = ("plain", "a|`b`\n*c*")
    judge, n = judge_of(SingleLabel(labels)), len(NASTY)
    shares = np.linspace(0.6, 0.9, n)
    outputs = np.stack([1 - shares, shares], axis=1)
    found = judge.mistakes(np.zeros(n, dtype=int), outputs)
    write_mistakes(tmp_path / "mistakes.md", {"test": (NASTY, found)}, "Where.")
    codes, heads = blocks(tmp_path / "mistakes.md")
    assert heads == ["Mistakes", f"Test: {n} of {n} texts are wrong"]
    expected = [shown(text) for text in NASTY]
    assert codes == [text + "\n" for text in reversed(expected)], "the surest first"
    assert cells(tmp_path / "mistakes.md") == [
        ["label", "answer", "texts of the label"],
        ["plain", "a|`b` *c*", f"{n} of {n}"],
    ]


def test_long_texts_and_many_mistakes_are_cut(tmp_path):
    n = MOST + 7
    texts = [f"{i} " + "long " * 10_000 for i in range(n)]
    found = judge_of(SingleLabel(("a", "b"))).mistakes(np.zeros(n, dtype=int), np.tile([0.1, 0.9], (n, 1)))
    write_mistakes(tmp_path / "mistakes.md", {"test": (texts, found)}, "Where.")
    codes, heads = blocks(tmp_path / "mistakes.md")
    assert len(codes) == MOST
    assert max(map(len, codes)) <= LONGEST_TEXT + 1
    assert heads[1] == f"Test: {n} of {n} texts are wrong"


def test_pairs_are_counted_as_in_the_confusion_matrix():
    random = np.random.RandomState(0)
    targets, outputs = random.randint(4, size=200), random.dirichlet(np.ones(4), size=200)
    judge = judge_of(SingleLabel(tuple("abcd")))
    confusion, found = judge.scores(targets, outputs)["confusion"], judge.mistakes(targets, outputs)
    assert len(found.each) == 200 - np.trace(confusion)
    for true, answer, n in found.counted[1:]:
        i, j = ("abcd".index(name.strip("`")) for name in (true, answer))
        assert n == f"{confusion[i][j]} of {sum(confusion[i])}"
    sizes = [int(n.split()[0]) for *_, n in found.counted[1:]]
    assert sizes == sorted(sizes, reverse=True)
    for row, size, said in found.each:
        assert size == outputs[row].max()
        assert said.startswith(
            f"{size:.1%} sure of `{'abcd'[outputs[row].argmax()]}`; it is `{'abcd'[targets[row]]}`"
        )


def test_lists_and_numbers():
    judge = judge_of(MultiLabel(("joy", "fear"), (0.5, 0.2)))
    targets = np.array([[1, 0], [0, 0], [1, 1], [1, 0]])
    outputs = np.array([[0.9, 0.1], [0.6, 0.1], [0.1, 0.1], [0.9, 0.9]])
    found = judge.mistakes(targets, outputs)
    assert {row: said for row, _, said in found.each} == {
        1: "given, and wrong: `joy` (0.600)",
        2: "missed: `joy` (0.100), `fear` (0.100)",
        3: "given, and wrong: `fear` (0.900)",
    }
    assert [mistake.size for mistake in found.each] == pytest.approx([0.2, 0.8, 0.875])
    assert found.counted[1:] == [["`joy`", "1", "1 of 3"], ["`fear`", "1", "1 of 1"]]
    judge = judge_of(Regression(("price", "stars")))
    found = judge.mistakes(np.array([[1000.0, 1.0], [2000.0, 5.0]]), np.array([[1100.0, 1.0], [2000.0, 1.0]]))
    assert [mistake.size for mistake in found.each] == pytest.approx(
        [0.2, 2.0]
    )  # standard deviations: 500, 2
    assert found.each[1].said == "`price` 2000; it is 2000 (+0), `stars` 1; it is 5 (-4)"


def test_answers_as_a_table():
    outputs = np.array([[0.25, 0.75], [0.9, 0.1]], dtype=np.float32)
    table = answered(SingleLabel(("ham", "spam")), outputs)
    assert list(table.columns) == ["answer", "probability_ham", "probability_spam"]
    assert table["answer"].tolist() == ["spam", "ham"]
    assert table["probability_ham"].tolist() == [0.25, 0.9]
    assert answered(MultiLabel(("a", "b")), outputs)["answer"].map(json.loads).tolist() == [["b"], ["a"]]
    assert list(answered(Regression(("x", "y")), outputs).columns) == ["answer_x", "answer_y"]
    assert list(answered(Regression(("x",)), outputs[:, :1]).columns) == ["answer"]


def test_a_run_writes_both_and_they_are_the_classifiers(base, tmp_path):
    texts = [(f"{NASTY[i % 5]} {text}", label) for i, (text, label) in enumerate(ROWS)]
    frame = pd.DataFrame(texts, columns=["text", "label"])
    frame.to_csv(tmp_path / "rows.csv", index=False)
    options = {"epochs": 1, "max_length": 16, "device": "cpu", "test_fraction": 0.4}
    run = train(model=str(base), data=str(tmp_path / "rows.csv"), out=tmp_path / "run", **options)
    table = pd.read_csv(tmp_path / "run" / "predictions.csv", keep_default_na=False)
    assert list(table.columns) == ["part", "text", "label", "answer", "probability_ham", "probability_spam"]
    classifier = load_classifier(tmp_path / "run", device="cpu")
    for part, rows in table.groupby("part"):
        own = pd.read_csv(tmp_path / "run" / "split" / f"{part}.csv", keep_default_na=False)
        assert rows["text"].tolist() == own["text"].tolist()
        assert rows["label"].tolist() == own["label"].tolist()
        assert rows["answer"].tolist() == classifier.predict(own["text"])
        found = rows[["probability_ham", "probability_spam"]].to_numpy()
        np.testing.assert_allclose(found, classifier.predict_proba(own["text"]), atol=2e-6)
    wrong = table[(table["part"] == "test") & (table["answer"] != table["label"])]
    codes, heads = blocks(tmp_path / "run" / "mistakes.md")
    n_test = len(run.split.test)
    assert f"Test: {len(wrong)} of {n_test} texts are wrong" in heads
    assert run.scores["test"]["accuracy"] == pytest.approx(1 - len(wrong) / n_test)
    assert {shown(text) + "\n" for text in wrong["text"]} <= set(codes)
    same = fit(frame, base, **options)
    assert same.predictions("test")["answer"].tolist() == table[table["part"] == "test"]["answer"].tolist()
