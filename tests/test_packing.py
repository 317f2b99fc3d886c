"""Text files to streams, windows and held-out text."""

import gzip
import json
import lzma

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptcls.core.errors import InputError
from gptcls.core.tokenizer import MAX_CHARS, PAD_ID, encode, gpt2_encoding
from gptcls.pretrain.text import Stream, WindowLoader, hold_out, read_documents


def test_documents_are_joined_with_end_of_text():
    stream = Stream.of("x", ["Hello, I am", "ok"])
    assert stream.tokens.tolist() == [15496, 11, 314, 716, PAD_ID, 482, PAD_ID]
    assert stream.starts.tolist() == [0, 5]


def test_no_documents_are_an_empty_stream():
    """As where every held-out document also stands among the others."""
    train, held = hold_out(["the same"] * 3, 0.1)
    assert len(train) == 2
    stream = Stream.of("x", held)
    assert (len(stream.tokens), len(stream.starts)) == (0, 0)


def test_a_text_longer_than_the_tokenizer_takes_loses_nothing():
    text = "".join(f"line {i} of a long novel\n" for i in range(MAX_CHARS // 10))
    assert len(text) > 2 * MAX_CHARS
    ids = encode(text)
    assert gpt2_encoding().decode(ids) == text
    assert ids == gpt2_encoding().encode_ordinary(text), "cut between lines, the tokens are the same"
    assert gpt2_encoding().decode(encode("x" * (MAX_CHARS + 5))) == "x" * (MAX_CHARS + 5)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=20), st.integers(0, 10_000), st.integers(2, 12))
def test_a_window_starts_at_its_document_if_that_is_in_reach(lengths, offset, length):
    ends = np.cumsum(lengths)
    stream = Stream("x", np.arange(ends[-1], dtype=np.int32), np.concatenate([[0], ends[:-1]]))
    if len(stream.tokens) < length:
        return
    offset %= len(stream.tokens)
    window = stream.window(offset, length).tolist()
    assert window == list(range(window[0], window[0] + length)), "contiguous, and whole"
    document = max(start for start in stream.starts if start <= offset)
    if offset - document < length and document + length <= len(stream.tokens):
        assert window[0] == document
    assert window[0] <= offset


def test_judging_windows_predict_every_token_once():
    stream = Stream("x", np.arange(23, dtype=np.int32), np.array([0]))
    windows = stream.windows(6)
    assert windows[:, 1:].flatten().tolist() == list(range(1, 21))
    assert windows[:, 0].tolist() == [0, 5, 10, 15]


def test_batches_are_a_function_of_the_step_and_follow_the_shares():
    streams = [Stream(name, np.full(500, i, np.int32), np.array([0])) for i, name in enumerate("ab")]
    loader = WindowLoader(streams, (3, 1), 7, 400, steps=5, seed=5)
    assert loader.windows(3).equal(loader.windows(3))
    assert not loader.windows(3).equal(loader.windows(4))
    assert loader.windows(0).shape == (400, 8)
    assert loader.windows(0)[:, 0].float().mean().item() == pytest.approx(0.25, abs=0.08)
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    ids, lengths, targets = batches[3]
    assert torch.equal(torch.cat([ids, targets[:, -1:]], dim=1), loader.windows(3))
    assert torch.equal(ids[:, 1:], targets[:, :-1])
    assert lengths.tolist() == [7] * 400
    counts = loader.counts(10)
    assert counts[:2].tolist() == [750_000, 250_000]


def test_hold_out_keeps_what_was_seen_out_of_the_judging():
    documents = [f"message number {i}" for i in range(90)] + ["Ok!", "ok", "OK ..."] * 10
    train, held = hold_out(documents, 0.2)
    assert sum(map(len, train)) < 0.81 * sum(map(len, documents))
    assert set(train) | set(held) <= set(documents)
    assert not {t.casefold().strip("! .") for t in train} & {t.casefold().strip("! .") for t in held}
    assert held == [text for text in documents if text in set(held)], "in the order of the file"


@given(st.randoms(), st.sets(st.text("abc", min_size=1, max_size=9), min_size=2, max_size=30))
def test_what_is_held_out_depends_on_the_texts_alone(random, texts):
    documents = sorted(texts)
    _, held = hold_out(documents, 0.3)
    assert sum(map(len, held)) >= 0.3 * sum(map(len, documents)) or len(held) == len(documents) - 1
    random.shuffle(documents)
    assert set(hold_out(documents, 0.3)[1]) == set(held)
    assert set(hold_out([f"{text.upper()}!" for text in documents], 0.01)[1]) <= {
        f"{text.upper()}!" for text in held
    }
    train, more = hold_out(documents, 0.6)
    assert set(held) <= set(more), "a larger share holds out the same and others"
    assert sorted(train + more) == sorted(texts)


def test_of_a_single_document_the_end_is_held_out():
    assert hold_out(["abcdefghij"], 0.2) == (["abcdefgh"], ["ij"])


def test_at_least_one_document_is_left_to_train_on():
    train, held = hold_out(["a" * 10, "b" * 1000], 0.9)
    assert len(train) == len(held) == 1


def test_files(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert read_documents(tmp_path / "a.txt") == ["one\n\ntwo\n"]
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": text, "title": "x"}) + "\n" for text in ("first", " ", "second"))
    assert read_documents(tmp_path / "b.jsonl.gz") == ["first", "second"]
    assert read_documents(tmp_path / "b.jsonl.gz", "title") == ["x", "x", "x"]
    for name, opened in (("d.txt.gz", gzip.open), ("d.txt.xz", lzma.open)):
        with opened(tmp_path / name, "wt") as file:
            file.write("one\n\ntwo\n")
        assert read_documents(tmp_path / name) == ["one\n\ntwo\n"]
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"no column 'text'.*choose --text-column from a, b"):
        read_documents(tmp_path / "c.csv")
    with pytest.raises(InputError, match=r"empty\.txt"):
        read_documents(tmp_path / "empty.txt")
    with pytest.raises(InputError, match="holds no text"):
        read_documents(tmp_path / "blank.txt")
