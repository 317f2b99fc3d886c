"""A classifier without a network: hashed n-grams, weighed as TF-IDF, into a linear layer (as fastText hashes
its n-grams: Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification").

Hashing needs no vocabulary: what is kept is a number and K weights of each bucket, and any text is read,
in a fraction of the time of a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptcls.data.fields import in_lines

WEIGHTS = "words.safetensors"
BUCKETS = 2**17  # for words and pairs of them, and as many for runs of characters


@dataclass(frozen=True, eq=False)
class Words:
    """``logits = tfidf @ coefficients + intercept``, over F = 2 * :data:`BUCKETS` hashed n-grams; an ``idf``
    is 0 where no training text fell into the bucket. ``runs``: how many characters a run has, at least and
    at most."""

    runs: tuple[int, int]
    idf: np.ndarray  # (F,)
    coefficients: np.ndarray  # (F, K)
    intercept: np.ndarray  # (K,)

    @cached_property
    def tfidf(self) -> Any:
        """scikit-learn's, fitted."""
        from sklearn.feature_extraction.text import TfidfTransformer

        transformer = TfidfTransformer(sublinear_tf=True)
        transformer.idf_ = self.idf
        return transformer

    def logits(self, texts: Sequence[str]) -> Tensor:
        """(N, K), of any texts."""
        if not len(texts):  # scikit-learn refuses an empty list
            return torch.zeros(0, len(self.intercept))
        found = self.tfidf.transform(counted(texts, self.runs), copy=False) @ self.coefficients
        return torch.from_numpy(found + self.intercept)


def counted(texts: Sequence[str], runs: tuple[int, int]) -> Any:
    """How often each n-gram stands in the texts, by bucket: (N, F), sparse, float32."""
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer

    kinds: tuple[dict, ...] = ({"ngram_range": (1, 2)}, {"analyzer": "char", "ngram_range": runs})
    shared = {"n_features": BUCKETS, "alternate_sign": False, "norm": None, "dtype": np.float32}
    texts = list(map(in_lines, texts))
    blocks = [HashingVectorizer(**shared, **kind).transform(texts) for kind in kinds]
    return sparse.hstack(blocks, format="csr")


def holds_words(folder: Path) -> bool:
    """Whether the classifier in a folder is one of n-grams."""
    return (folder / WEIGHTS).is_file()
