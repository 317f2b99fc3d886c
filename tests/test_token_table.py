"""Counting and factorising; that a network starts with the table and the tokens' frequencies."""

import re

import numpy as np
import pytest
import torch
from scipy import sparse

from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.pretrain import table
from gptcls.pretrain.table import co_occurrences, ppmi, put_table, scaled, start_from_counts, token_table
from gptcls.pretrain.text import Stream


@pytest.mark.parametrize("chunk", [7, 1000])
def test_co_occurrences_are_those_of_a_double_loop(monkeypatch, chunk):
    monkeypatch.setattr(table, "CHUNK", chunk)
    monkeypatch.setattr(table, "REACH", 3)
    rng = np.random.default_rng(0)
    streams = [rng.integers(0, 6, n).astype(np.uint16) for n in (40, 30, 9)]
    weights = [1.0, 2.5, 0.0]
    wanted = np.zeros((6, 6))
    for tokens, weight in zip(streams, weights, strict=True):
        for i in range(len(tokens)):
            for j in range(i + 1, min(i + 4, len(tokens))):
                if 5 not in tokens[i : j + 1]:
                    wanted[tokens[i], tokens[j]] += weight / (j - i)
                    wanted[tokens[j], tokens[i]] += weight / (j - i)
    found = co_occurrences(streams, weights, 6, separator=5)
    np.testing.assert_allclose(found.toarray(), wanted, rtol=1e-6)
    assert found.nnz == np.count_nonzero(wanted)


def test_ppmi_is_that_of_its_formula():
    counts = np.array([[0, 5, 1], [5, 2, 1], [1, 1, 0]], float)
    contexts = counts.sum(axis=0) ** 0.75
    with np.errstate(divide="ignore"):
        expected = np.log(counts * contexts.sum() / np.outer(counts.sum(axis=1), contexts))
    np.testing.assert_allclose(ppmi(sparse.csr_matrix(counts)).toarray(), expected.clip(min=0), rtol=1e-9)


def test_the_tables_products_are_the_best_of_their_rank():
    """U Sᵖ and V Sᵖ multiply to what the SVD leaves of the matrix, if p is 1/2."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(30, 30))
    matrix = half @ half.T  # symmetric, no eigenvalue below 0: U is V
    u, s, _ = np.linalg.svd(matrix)
    found = token_table(sparse.csr_matrix(matrix), 5)
    np.testing.assert_allclose(found @ found.T, (u[:, :5] * s[:5]) @ u[:, :5].T, atol=1e-2)


def test_tokens_of_the_same_company_get_the_same_row():
    counts = sparse.csr_matrix(np.array([[0, 0, 4, 1], [0, 0, 4, 1], [4, 4, 0, 3], [1, 1, 3, 0]], float))
    found = token_table(ppmi(counts), 2)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    assert np.linalg.norm(found[0] - found[2]) > 0.1


def test_seen_rows_are_alike_in_length_and_unseen_ones_zero():
    rows = scaled(np.random.default_rng(0).normal(size=(5, 4)), np.array([9, 1, 0, 2, 3]))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1) / 2, [0.06, 0.06, 0, 0.06, 0.06], rtol=1e-5)


def test_a_network_without_a_word_before_it_guesses_by_frequency():
    model = GPT2(GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=4, vocab_size=20))
    counts = np.arange(1.0, 21.0)
    put_table(model, np.random.default_rng(0).normal(size=(20, 8)), counts)
    with torch.no_grad():
        model.norm.weight.zero_()  # leaves the shift alone
        guess = model.lm_logits(model(torch.tensor([[3]])))[0, 0].softmax(-1)
    np.testing.assert_allclose(guess.numpy(), counts / counts.sum(), rtol=1e-4)


def test_words_of_one_kind_get_near_each_other(caplog):
    caplog.set_level("INFO", "gptcls")
    texts = [
        f"{who} {does} the {what}"
        for who in ("he", "she")
        for does in ("saw", "ate")
        for what in ("cat", "dog")
    ]
    stream = Stream.of("x", texts * 3)
    torch.manual_seed(0)
    model = GPT2(GPT2Config(n_layer=1, n_embd=4, n_head=2, n_positions=4))
    start_from_counts(model, [stream], (), np.bincount(stream.tokens, minlength=50257))
    cat, dog, saw = [Stream.of("x", [f" {word}"]).tokens[0] for word in ("cat", "dog", "saw")]
    rows = model.wte.weight[:, :-1]  # the last column is the frequency

    def alike(a, b):
        return torch.cosine_similarity(rows[int(a)], rows[int(b)], dim=0).item()

    assert alike(cat, dog) > 0.99 > alike(cat, saw) + 0.2
    assert re.search(r"token table from \d+ pairs of neighbours, in \d+ s", caplog.text)
