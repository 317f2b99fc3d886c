"""Near duplicates by MinHash against every pair compared exactly."""

import re
import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.data import near
from gptcls.data.near import near_pairs
from gptcls.data.same_text import text_key

WORDS = re.findall(r"\w+", "the cat sat on a mat while dogs ran home and birds sang to her under old trees")


def brute_force(texts, least):
    """Pair -> Jaccard similarity of all pairs, by Python's sets."""
    sets = []
    for key in map(text_key, texts):
        runs = range(max(1, len(key) - near.RUN + 1)) if key else ()
        sets.append({key[i : i + near.RUN] for i in runs})
    found = {}
    for (i, a), (j, b) in combinations(enumerate(sets), 2):
        if a and b and (share := len(a & b) / len(a | b)) >= least:
            found[i, j] = share
    return found


def ours(texts, least):
    pairs = near_pairs(texts, least)
    return dict(zip(map(tuple, pairs.texts.tolist()), pairs.similarity.tolist(), strict=True))


def variants(n, seed=0):
    """Sentences of random words next to copies with some words changed."""
    random = np.random.default_rng(seed)
    texts = []
    for i in range(n):
        words = [*random.choice(WORDS, 20), str(i)]
        texts.append(" ".join(words))
        for place in random.choice(20, random.integers(0, 4), replace=False):
            words[place] = random.choice(WORDS)
        texts.append(" ".join(words))
    return texts


@pytest.mark.parametrize("least", [0.5, 0.8, 0.95])
def test_the_pairs_and_similarities_of_brute_force(least):
    texts = variants(150)
    exact = brute_force(texts, least)
    assert len(exact) > 20
    assert ours(texts, least) == pytest.approx(exact)


def test_any_script_and_short_texts():
    texts = [
        "今天天气很好我们去公园玩吧",
        "今天天气很好我们去公园玩吗",
        "до встречи",
        "До встречи!",
        "ok",
        "OK",
        "",
        "?!",
        "👍",
    ]
    assert ours(texts, 0.6) == pytest.approx(brute_force(texts, 0.6))
    assert {(0, 1), (2, 3), (4, 5)} == set(ours(texts, 0.6))


@settings(max_examples=25)
@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_texts(texts):
    found, exact = ours(texts, 0.9), brute_force(texts, 0.9)
    assert found == pytest.approx({pair: exact[pair] for pair in found}), "none that is not there"
    assert {pair for pair, share in exact.items() if share == 1} <= set(found)


def test_signatures_agree_as_often_as_the_sets_overlap():
    """The estimate is unbiased: over many pairs its mean error is within three standard errors of none."""
    texts = variants(200, seed=1)
    runs, starts = near._runs([text_key(text) for text in texts])
    signatures = near._signatures(runs, starts[:-1])
    pairs = np.array([(2 * i, 2 * i + 1) for i in range(200)])
    exact = near._jaccard(runs, starts, pairs)
    errors = (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1) - exact
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(len(errors))
    expected = np.sqrt(exact * (1 - exact) / near.HASHES).mean()
    assert errors.std() == pytest.approx(expected, rel=0.3)


def test_a_pair_at_the_limit_is_missed_as_seldom_as_we_say():
    for least in (0.3, 0.5, 0.8, 0.9, 1.0):
        width = near._band_width(least)
        assert (1 - least**width) ** (near.HASHES // width) <= near.MISSED
    assert near._band_width(0.8) == 5
    assert near._band_width(0.01) == 1


def test_a_thousand_texts_from_one_template_take_a_second():
    text = "Dear customer {}, your parcel waits at the counter in the high street until Friday at noon".format
    texts = [text(i) for i in range(1000)]
    began = time.process_time()
    pairs = near_pairs(texts)
    assert time.process_time() - began < 10
    assert len(set(pairs.texts.ravel().tolist())) > 900, "each with some of the others"


@pytest.mark.parametrize("least", [0, -1, 1.1, float("nan")])
def test_what_is_no_share(least):
    with pytest.raises(ValueError, match="similarity"):
        near_pairs(["a", "b"], least)


def test_nothing_to_compare():
    assert ours([], 0.8) == ours(["one text"], 0.8) == ours(["", "  "], 0.8) == {}
