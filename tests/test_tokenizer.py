"""The bundled tokenizer against the published hash and an independent byte-level BPE."""

import gzip
import hashlib
import itertools
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.core.tokenizer import MAX_CHARS, PAD_ID, VOCAB_SIZE, decode, encode, encode_rows, gpt2_encoding

RANKS = files("gptcls") / "assets" / "gpt2.tiktoken.gz"


@pytest.fixture(scope="module")
def oracle():
    """The tokenizers library's byte-level BPE and pattern, over merges recovered from the ranks."""
    tokenizers = pytest.importorskip("tokenizers", reason="comes with transformers")
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spell = bytes_to_unicode()
    ranks = gpt2_encoding()._mergeable_ranks
    vocab = {"".join(spell[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:  # the pair it was merged from: what BPE leaves of it with the earlier ranks alone
            parts = [token[i : i + 1] for i in range(len(token))]
            while len(parts) > 2:
                pairs = [ranks.get(a + b, VOCAB_SIZE) for a, b in itertools.pairwise(parts)]
                i = min(range(len(pairs)), key=pairs.__getitem__)
                assert pairs[i] < rank
                parts[i : i + 2] = [parts[i] + parts[i + 1]]
            merges.append(tuple("".join(spell[byte] for byte in part) for part in parts))
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def test_ranks_are_the_published_ones():
    raw = gzip.decompress(RANKS.read_bytes())
    assert len(raw) == 835_554
    assert (
        hashlib.sha256(raw).hexdigest() == "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
    )


def test_published_ids():
    assert encode("Hello, I am") == [15496, 11, 314, 716]
    assert encode("Do you have time") == [5211, 345, 423, 640]
    assert gpt2_encoding().n_vocab == VOCAB_SIZE


@given(st.text(max_size=80))
@settings(deadline=None, max_examples=300)
def test_equal_to_an_independent_bpe(oracle, text):
    assert encode(text) == oracle.encode(text).ids


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(deadline=None)
def test_round_trip(text):
    assert decode(encode(text)) == text


def test_equal_to_an_independent_bpe_on_real_messages(oracle, sms_file):
    for line in sms_file.read_text(encoding="utf-8").splitlines()[:1500]:
        assert encode(line) == oracle.encode(line).ids


def test_end_of_text_in_a_text_is_ordinary():
    ids = encode("a<|endoftext|>b")
    assert PAD_ID not in ids
    assert decode(ids) == "a<|endoftext|>b"


@pytest.mark.parametrize("text", [" " * 2_000_000, "\n" * 2_000_000, "a" * 2_000_000, "中" * 1_000_000])
def test_over_long_text_is_capped_not_fatal(text):
    ids = encode(text, max_length=1024)
    assert len(ids) == 1024
    assert ids == encode(text[:MAX_CHARS])[:1024]


def test_no_text_of_1024_tokens_is_cut_by_the_cap():
    longest = max(gpt2_encoding()._mergeable_ranks, key=len)
    assert len(longest) * 1024 <= MAX_CHARS


def test_lone_surrogate_does_not_fail():
    assert "\N{REPLACEMENT CHARACTER}" in decode(encode("x \ud800 y"))


@pytest.mark.parametrize("value", [None, 3, 2.5, b"bytes", ["a"]])
def test_what_is_not_text_is_a_type_error_naming_its_row(value):
    with pytest.raises(TypeError, match=r"row 1: expected text, got " + type(value).__name__):
        encode_rows(["fine", value])
