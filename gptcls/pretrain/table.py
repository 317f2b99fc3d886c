"""A token table from counts alone: which tokens stand near which, factorised.

Two tokens are alike if they keep the same company. Count how often token a stands within 4 places of token b,
compare with chance, and keep what is above it: the positive pointwise mutual information

    PPMI(a, b) = max(0, log(#(a, b) * N / (#(a) * #(b))))

A truncated SVD of that matrix, U S Vᵀ, gives each token the row U Sᵖ. Word2vec's skip-gram factorises nearly
the same matrix by gradient descent (Levy & Goldberg 2014); distance weights, smoothed contexts and p = 1/2
are from Levy, Goldberg & Dagan 2015, "Improving Distributional Similarity with Lessons Learned from Word
Embeddings". It takes minutes where next-token training needs hours to bring its token table as far: the row
of a rare token moves only when the token occurs.
"""

import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from scipy import sparse

from gptcls.common.log import log
from gptcls.core.gpt2 import GPT2
from gptcls.core.tokenizer import PAD_ID
from gptcls.pretrain.text import Stream

REACH = 4  # places in which two tokens are neighbours
SMOOTHING = 0.75  # power of the contexts' counts; below 1 it dampens what rare contexts say
POWER = 0.5  # p in U Sᵖ
STD = 0.06  # of the table's values
CHUNK = 1 << 22  # tokens counted at a time: about 1 GB of pairs


def start_from_counts(
    model: GPT2, streams: Sequence[Stream], weights: Sequence[float], counts: np.ndarray
) -> None:
    """Give ``model`` the table of what stands together in ``streams``, counted ``weights`` times (none: once
    each); ``counts`` (V,) is how often each token is to be read."""
    started, (vocab_size, width) = time.perf_counter(), model.wte.weight.shape
    weights = weights or [1.0] * len(streams)
    pairs = co_occurrences([stream.tokens for stream in streams], weights, vocab_size)
    put_table(model, token_table(ppmi(pairs), width), counts)
    seconds = time.perf_counter() - started
    log.info(f"token table from {pairs.nnz:,} pairs of neighbours, in {seconds:,.0f} s")


def co_occurrences(
    streams: Iterable[np.ndarray], weights: Iterable[float], vocab_size: int, separator: int = PAD_ID
) -> sparse.csr_matrix:
    """How often two tokens stand at most :data:`REACH` places apart, a pair d apart counting 1 / d: (V, V),
    symmetric. Each stream (N,) counts as often as its weight; no pair spans its ``separator``.

    >>> co_occurrences([np.array([0, 1, 2, 9, 0])], [1.0], 10, separator=9)[0].toarray()
    array([[0. , 1. , 0.5, 0. , 0. , 0. , 0. , 0. , 0. , 0. ]], dtype=float32)
    """
    total = sparse.csr_matrix((vocab_size, vocab_size), dtype=np.float32)
    for tokens, weight in zip(streams, weights, strict=True):
        for start in range(0, len(tokens), CHUNK):
            part = np.asarray(tokens[start : start + CHUNK + REACH]).astype(np.int32)
            document = np.cumsum(part == separator)
            document[part == separator] = -1
            lefts, rights, amounts = [], [], []
            for distance in range(1, REACH + 1):
                own = document[:-distance][:CHUNK]  # what the next chunk begins with, it counts
                near = np.flatnonzero((own >= 0) & (own == document[distance:][:CHUNK]))
                lefts.append(part[near])
                rights.append(part[near + distance])
                amounts.append(np.full(len(near), weight / distance, dtype=np.float32))
            pairs = np.concatenate(amounts), (np.concatenate(lefts), np.concatenate(rights))
            total = total + sparse.coo_matrix(pairs, shape=total.shape).tocsr()
    total.eliminate_zeros()  # of a stream that counts 0 times
    return (total + total.T).tocsr()


def ppmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Positive pointwise mutual information of co-occurrence counts (V, V), contexts smoothed.

    >>> each_others_only_neighbour = sparse.csr_matrix(np.array([[0.0, 3.0], [3.0, 0.0]]))
    >>> ppmi(each_others_only_neighbour).toarray().round(3)  # log 2
    array([[0.   , 0.693],
           [0.693, 0.   ]])
    """
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()  # of rows and of columns
    contexts = totals**SMOOTHING / (totals**SMOOTHING).sum()
    result = counts.tocoo().astype(np.float64)
    result.data = np.log(result.data / (totals[result.row] * contexts[result.col])).clip(min=0)
    result = result.tocsr()
    result.eliminate_zeros()
    return result


def token_table(matrix: sparse.csr_matrix, width: int) -> np.ndarray:
    """U Sᵖ (V, C) of the truncated SVD of ``matrix`` (V, V), float32, of no particular scale. The SVD is the
    randomised one of Halko, Martinsson & Tropp 2011, always with the same seed."""
    from sklearn.utils.extmath import randomized_svd

    u, s, _ = randomized_svd(matrix.astype(np.float32), width, n_oversamples=16, n_iter=4, random_state=0)
    return (u * s**POWER).astype(np.float32)


def scaled(table: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The rows of a table (V, C) less their mean, all of one length, their values' deviation :data:`STD`.

    How long a row of U Sᵖ is says how often and in how few ways the token occurs, not what it means. A token
    that the text never shows (``counts`` (V,)) has no company to be known by: its row is 0.
    """
    known = (counts > 0) & (np.linalg.norm(table, axis=1) > 1e-6)
    rows = table - table[known].mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-6)
    rows[~known] = 0
    return rows * np.float32(STD * np.sqrt(table.shape[1]))


@torch.no_grad()
def put_table(model: GPT2, table: np.ndarray, counts: np.ndarray) -> None:
    """Start ``model`` with a token table (V, C), and so that its first guess is how often each token occurs
    (``counts`` (V,)).

    The last, least telling column becomes log frequency, standardised, times :data:`STD`; the final norm's
    shift there makes it the logit. Training would learn as much in its first few hundred steps.
    """
    log_count = np.log(np.maximum(counts, counts[counts > 0].min() / 2))
    rows = scaled(table, counts)
    rows[:, -1] = STD * (log_count - log_count.mean()) / log_count.std()
    model.wte.weight.copy_(torch.from_numpy(rows))
    model.norm.bias[-1] = log_count.std() / STD
