"""Texts that are nearly the same: MinHash and locality-sensitive hashing over runs of characters.

Two texts are as near as the Jaccard similarity of the sets of all runs of :data:`RUN` characters in their
keys (:func:`gptcls.data.same_text.text_key`): what both have, as a share of what either has. Two MinHash
signatures agree in about that share of their places (Broder 1997, "On the Resemblance and Containment of
Documents"), so texts whose signatures agree in a whole band of places are worth a look (Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", section 3.4). Each such pair is then compared exactly: a pair may be
missed, with a chance of :data:`MISSED` at most, but none is reported that is not there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gptcls.data.same_text import text_key

RUN = 4  # characters: scripts without spaces between words have no others
HASHES = 128  # places of a signature
MISSED = 1e-4  # of the pairs that are just near enough
NEIGHBOURS = 50  # texts of one band that a text is compared with
AT_ONCE = 2_000_000  # runs hashed, and pairs compared, at a time


class Pairs(NamedTuple):
    """Pairs of near texts: their numbers (M, 2), the smaller first and rising, and similarities (M,)."""

    texts: np.ndarray
    similarity: np.ndarray


def near_pairs(texts: Sequence[str], least: float = 0.8) -> Pairs:
    """The pairs of texts with a similarity of ``least`` or more, 0 < least <= 1.

    Time grows with the texts, not with their pairs, as each is compared with at most :data:`NEIGHBOURS` of a
    band: of more texts that are all alike not every pair is reported, but each with some of the others.

    >>> near_pairs(["Win a FREE prize, call 0800 1", "see you", "Win a free prize! call 0800 12"]).texts
    array([[0, 2]])
    """
    if not 0 < least <= 1:
        raise ValueError(f"similarity {least} is not a share above 0, at most 1")
    runs, starts = _runs([text_key(text) for text in texts])
    filled = np.flatnonzero(np.diff(starts))  # a blank text is near to none
    if len(filled) < 2:
        return Pairs(np.zeros((0, 2), dtype=np.int64), np.zeros(0))
    signatures = _signatures(runs, starts[filled])
    found = [np.zeros((0, 2), dtype=np.int64)]
    # Four standard deviations below what a pair that is just near enough agrees in.
    agree = least - 4 * np.sqrt(least * (1 - least) / HASHES)
    pairs = _candidates(signatures, _band_width(least))
    for part in np.array_split(pairs, 1 + len(pairs) * HASHES // AT_ONCE):
        same = signatures[part[:, 0]] == signatures[part[:, 1]]
        found.append(part[same.mean(axis=1) >= agree])
    pairs = filled[np.concatenate(found)]
    similarity = _jaccard(runs, starts, pairs)
    return Pairs(pairs[similarity >= least], similarity[similarity >= least])


def _runs(keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of the different runs of each key, one key after the other, and where each one's begin
    (N + 1,). A key that is shorter than a run is one itself."""
    padded = [key.ljust(RUN, "\0") if key else "" for key in keys]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    codes = codes.astype(np.uint64)
    counts = np.array([max(0, len(key) - RUN + 1) for key in padded], dtype=np.int64)
    lengths = np.array([len(key) for key in padded], dtype=np.int64)
    owners = np.repeat(np.arange(len(keys)), counts)
    begins = np.cumsum(counts) - counts
    where = np.arange(counts.sum()) + np.repeat(np.cumsum(lengths) - lengths - begins, counts)
    hashes = np.zeros(len(where), dtype=np.uint64)
    for place in range(RUN):
        hashes = _mixed(hashes + codes[where + place])
    order = np.lexsort((hashes, owners))
    hashes, owners = hashes[order], owners[order]
    first = np.ones(len(hashes), dtype=bool)
    first[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])
    starts = np.concatenate([[0], np.cumsum(np.bincount(owners[first], minlength=len(keys)))])
    return hashes[first], starts


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers (uint64) as others that look random: SplitMix64's step (Steele, Lea and Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _signatures(runs: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """MinHash signatures (N, HASHES) of the sets of runs that begin at ``starts``, none of them empty."""
    random = np.random.RandomState(0)  # its stream is frozen for good (NEP 19)
    factors = random.randint(0, 2**63, HASHES).astype(np.uint64) * np.uint64(2) + np.uint64(1)
    found = np.empty((len(starts), HASHES), dtype=np.uint32)
    ends = np.append(starts[1:], len(runs))
    first = 0
    while first < len(starts):  # as many whole texts as make up a part
        last = max(first + 1, int(np.searchsorted(ends, starts[first] + AT_ONCE, side="right")))
        part, cuts = runs[starts[first] : ends[last - 1]], starts[first:last] - starts[first]
        for place, factor in enumerate(factors):
            # Of a product the upper half is the random one.
            found[first:last, place] = np.minimum.reduceat(part * factor, cuts) >> np.uint64(32)
        first = last
    return found


def _band_width(least: float) -> int:
    """The most places of a band with which a pair of that similarity is missed as seldom as we say."""
    widths = range(HASHES, 0, -1)
    return next((w for w in widths if (1 - least**w) ** (HASHES // w) <= MISSED), 1)


def _candidates(signatures: np.ndarray, width: int) -> np.ndarray:
    """Pairs (M, 2) of texts that agree in a whole band, in rising order."""
    n = len(signatures)
    found = np.zeros(0, dtype=np.int64)  # pairs as single numbers
    for start in range(0, HASHES - width + 1, width):
        band = np.zeros(n, dtype=np.uint64)
        for place in range(start, start + width):
            band = _mixed(band + signatures[:, place])
        order = np.argsort(band, kind="stable")
        band, own = band[order], []
        for step in range(1, min(NEIGHBOURS, n - 1) + 1):
            same = np.flatnonzero(band[:-step] == band[step:])
            if not len(same):
                break
            own.append(order[same] * n + order[same + step])  # the smaller first: the order is stable
        found = np.sort(np.concatenate([found, *own]))
        # np.unique hashes, which takes it minutes for numbers as regular as these.
        found = found[np.diff(found, prepend=-1) > 0]
    return np.stack([found // n, found % n], axis=1)


def _jaccard(runs: np.ndarray, starts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The similarity (M,) of pairs (M, 2) of texts."""
    from scipy import sparse

    _, columns = np.unique(runs, return_inverse=True)
    sizes = np.diff(starts)
    ones = np.ones(len(runs), dtype=np.int32)
    sets: Any = sparse.csr_matrix((ones, columns, starts), shape=(len(sizes), len(runs)))
    both = np.zeros(len(pairs))
    for first in range(0, len(pairs), 10_000):
        left, right = pairs[first : first + 10_000].T
        both[first : first + 10_000] = sets[left].multiply(sets[right]).sum(axis=1).A1
    return both / np.maximum(1, sizes[pairs].sum(axis=1) - both)
