"""python -m gptcls.label: which rows come next, and a conversation that loses no answer."""

import io
import json
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import kmeans_plusplus

from gptcls import label as verb
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import GPT2
from gptcls.data.fields import BOUNDARY, fields_of
from gptcls.data.next_rows import margins, next_rows, spread_out
from gptcls.data.sources import load_data
from gptcls.fast.features import FeatureCache
from gptcls.label import AnswersFile, LabelConfig, Learner, label

rng = np.random.RandomState(0)
VECTORS = rng.normal(size=(60, 3))
TEXTS = [f"{'win a prize' if i % 3 else 'see you at home'} {i}" for i in range(30)]


# --- which rows come next ---


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_differ_are_the_seeds_of_scikit_learns_kmeans(seed):
    _, expected = kmeans_plusplus(VECTORS, 8, random_state=seed, n_local_trials=1)
    found = spread_out(VECTORS, np.arange(60), [], 8, np.random.RandomState(seed))
    assert found == expected.tolist()


def test_rows_that_differ_are_far_from_those_that_are_known():
    points = np.array([[0.0], [0.1], [10.0], [10.1], [20.0]])
    for seed in range(20):
        found = spread_out(points, np.arange(5), [0], 2, np.random.RandomState(seed))
        assert {round(float(points[row, 0]), -1) for row in found} == {10.0, 20.0}
    repeated = np.zeros((4, 2))
    assert sorted(spread_out(repeated, np.arange(4), [1], 3, np.random.RandomState(0))) == [0, 1, 2]


def test_the_least_certain_rows_are_those_of_the_smallest_margin():
    outputs = rng.dirichlet(np.ones(4), size=60)
    by_hand = sorted(range(60), key=lambda row: sorted(outputs[row])[-1] - sorted(outputs[row])[-2])
    known, left_out = by_hand[:5], by_hand[5:7]
    found = next_rows("uncertain", VECTORS, known, outputs, 6, np.random.RandomState(0), left_out)
    assert found == by_hand[7:13]
    both = next_rows("both", VECTORS, known, outputs, 4, np.random.RandomState(0), left_out)
    assert {*both} <= {*by_hand[7:47]}
    assert both != by_hand[7:11]
    assert margins(outputs)[by_hand].tolist() == sorted(margins(outputs).tolist())


@pytest.mark.parametrize("order", ["random", "uncertain", "diverse", "both"])
def test_every_row_comes_once_and_the_same_seed_gives_the_same_rows(order):
    runs = []
    for _ in range(2):
        learner, known = Learner(VECTORS, order, seed=5), {}
        while chosen := learner.choose([*known], 7):
            known |= {row: "ab"[int(VECTORS[row, 0] > 0)] for row in chosen}
            learner.fit(known)
        runs.append([*known])
    assert runs[0] == runs[1]
    assert sorted(runs[0]) == [*range(60)]


# --- the answers ---


def test_answers_are_kept_taken_back_and_taken_up(tmp_path):
    path = tmp_path / "labels.jsonl"
    answers = AnswersFile(path, TEXTS)
    for row, name in ((3, "spam"), (4, "hämlich"), (7, "spam")):
        answers.add(verb.Answer(row, name, "ham" if row == 4 else None))
    assert answers.take_back() == verb.Answer(7, "spam")
    with path.open("ab") as file:
        file.write(b'{"text": "torn')
    again = AnswersFile(path, TEXTS)
    assert again.known == answers.known == {3: "spam", 4: "hämlich"}
    assert again.answers[1].guess == "ham"
    again.take_back()
    again.take_back()
    assert path.read_bytes() == b""
    path.write_text('{"text": "see you"}\n')
    with pytest.raises(InputError, match="line 1: no answer of gptcls"):
        AnswersFile(path, TEXTS)


@pytest.fixture
def talk(tmp_path, monkeypatch, capsys):
    """Label with these lines typed: what was said, and the answers."""
    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(TEXTS) + "\n")
    vectors = np.array([[i % 3 > 0, i / 30] for i in range(30)], dtype=float)
    monkeypatch.setattr(verb, "_vectors", lambda *_: vectors)

    def talk(*lines, **options):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
        out = tmp_path / "labels.jsonl"
        found = label(LabelConfig(data=tmp_path / "rows.csv", out=out, **options))
        records = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return capsys.readouterr().out, records, found

    return talk


def test_a_conversation(talk):
    said, records, found = talk("?", "spam", "7", "ham", "s", "u", "ham", "1", "=3", "=", "q", check=0)
    assert [record["label"] for record in records] == ["spam", "ham", "spam", "3"]
    assert "there is no label 7; there are 1 to 1" in said
    assert "a label has at least one character" in said
    assert "the label with this number" in said
    assert said.count("1 spam  2 ham") >= 3
    assert [*found.values()] == ["spam", "ham", "spam", "3"]
    assert "label at least three rows of each" in said
    again, records, _ = talk("1", "u", "u", "q", check=0)
    assert "4 labelled (spam 2, ham 1, 3 1)" in again
    assert [record["label"] for record in records] == ["spam", "ham", "spam"], "undo reaches the last start"


def test_taking_back_asks_the_same_row_again(talk):
    said, records, _ = talk("spam", "oops", "u", "ham", "q", check=0)
    assert [record["label"] for record in records] == ["spam", "ham"]
    shown = [line for line in said.splitlines() if line in TEXTS]
    assert shown[1] == shown[3] == records[1]["text"] != shown[2]
    assert "2 oops" in said
    assert "2 oops" not in said[said.rindex(records[1]["text"]) :], "a label that nothing has is not offered"


def test_some_rows_are_drawn_at_random_and_their_labels_guessed(talk, tmp_path, monkeypatch):
    """The person reads what is shown; the vectors say as much as the text, so guesses soon are right."""
    written = io.StringIO()

    def readline():
        shown = [line for line in written.getvalue().splitlines() if line in TEXTS]
        return ("spam" if "prize" in shown[-1] else "ham") + "\n"

    monkeypatch.setattr(verb, "say", lambda text, end="\n", **_: written.write(text + end))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(readline=readline))
    found = label(LabelConfig(data=tmp_path / "rows.csv", out=tmp_path / "l.jsonl", batch=3, check=3))
    assert sorted(found) == [*range(30)], "every row was asked, and none twice"
    records = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    guesses = [record["guess"] == record["label"] for record in records if "guess" in record]
    assert len(guesses) >= 8
    assert all(guesses[2:])
    last = written.getvalue().splitlines()[-2:]
    assert last[0].startswith("30 labelled (")
    assert f"guesses right in {sum(guesses)} of {len(guesses)} random rows" in last[0]
    assert last[1].startswith("train on them: ")
    assert load_data(tmp_path / "l.jsonl")["label"].value_counts().to_dict() == {"spam": 20, "ham": 10}


def test_rows_of_two_texts_are_written_in_columns_and_read_back(tmp_path, monkeypatch, capsys):
    pairs = [(f"it rains {i}", f"take an umbrella {i}" if i % 2 else f"we go home {i}") for i in range(8)]
    frame = pd.DataFrame(pairs, columns=["premise", "hypothesis"])
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    out, seen, real = tmp_path / "labels.jsonl", [], FeatureCache.mean_vectors

    def mean_vectors(cache, backbone, texts, max_length, tokenizer, device):
        seen.append(tokenizer.encode(texts[0]))
        return real(cache, backbone, texts, max_length, tokenizer, device)

    monkeypatch.setattr(FeatureCache, "mean_vectors", mean_vectors)
    config = LabelConfig(data=tmp_path / "pairs.csv", text_column=tuple(frame), out=out)
    for start in (["yes", "no"], ["1", "2", "1", "2", "q"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(start) + "\n"))
        found = label(config)
    said = capsys.readouterr().out
    assert "2 labelled (yes 1, no 1)" in said
    assert BOUNDARY not in said + out.read_text()
    assert any(f"\n{' ‖ '.join(pair)}\n" in said for pair in pairs)
    assert f"--data {out} --text-column text text_2 --model gpt2-nano" in said
    read = load_data(out, ["text", "text_2"])
    assert read["label"].tolist() == ["yes", "no"] * 3
    assert [tuple(fields_of(text)) for text in read["text"]] == [pairs[row] for row in found]
    assert seen[0] == [*GPT2.encode(pairs[0][0]), 50256, *GPT2.encode(pairs[0][1])], "<|endoftext|> between"
    (tmp_path / "texts.csv").write_text("text\nsee you\n")
    with pytest.raises(InputError, match=r"line 1: no answer .*texts in it: 2, in a row of --data: 1"):
        label(LabelConfig(data=tmp_path / "texts.csv", out=out))


@pytest.mark.slow
def test_at_a_terminal_a_kill_loses_no_answer(tmp_path):
    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(TEXTS) + "\n")
    out, files = (
        tmp_path / "labels.jsonl",
        ["--data", tmp_path / "rows.csv", "--out", tmp_path / "labels.jsonl"],
    )
    for typed, ends in ((["spam", "ham"], None), (["1", "2", "1", "2", "q"], 0)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "gptcls.label", *files, "--cache", tmp_path / "cache"]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        said = _until_prompt(ours)
        for word in typed:
            os.write(ours, f"{word}\n".encode())
            said += _until_prompt(ours)
        if ends is None:
            process.kill()
        assert process.wait(60) == (-9 if ends is None else 0)
        os.close(ours)
    assert "2 labelled (spam 1, ham 1)" in said
    assert "6 labelled (spam 3, ham 3)" in said
    assert f"--data {out} --model gpt2-nano" in said.replace("\r\n", "")
    assert [json.loads(line)["label"] for line in out.read_text().splitlines()] == ["spam", "ham"] * 3
    assert len(load_data(out)) == 6


def _until_prompt(terminal: int) -> str:
    """What it shows up to the next prompt, or its end."""
    said = b""
    while not said.endswith(b"> "):
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # EIO: the other side is gone
            piece = b""
        if not piece:
            break
        said += piece
    return said.decode()


def test_what_cannot_be_done_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("text\nsee you\n")
    (tmp_path / "empty.csv").write_text('text\n""\n')
    for options, said in (
        ({"batch": 0}, "--batch 0"),
        ({"check": -1}, "--check -1"),
        ({"out": tmp_path / "labels.csv"}, "ends with .jsonl"),
        ({"labels": (" ",)}, "without a character"),
        ({"seed": -1}, "--seed"),
        ({"data": tmp_path / "none.csv"}, "no such file"),
        ({"data": tmp_path / "empty.csv"}, "no row has a text"),
        ({"max_length": 10**6}, "--max-length"),
        ({"text_column": ("body",)}, "names 'body'"),
    ):
        with pytest.raises(InputError, match=said):
            label(LabelConfig(**{"data": tmp_path / "rows.csv", "out": tmp_path / "x.jsonl"} | options))
    assert not (tmp_path / "x.jsonl").exists()
