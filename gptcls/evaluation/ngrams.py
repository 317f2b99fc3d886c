"""Linear models of n-grams, to be kept: TF-IDF of words and characters -> outputs, and the files they are in.

``ngrams.json`` has the n-grams, which people can read, ``ngrams.safetensors`` what each of them weighs, in
float32. N-grams without a coefficient stay: they count in the length that a text's TF-IDF is divided by.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from gptcls.data.fields import in_lines
from gptcls.models.weight_files import read_object

RARE = 1_000  # training texts from which on an n-gram has to occur in two of them
LONG = 500  # characters in the mean text beyond which 4 characters stand for runs of 1 to 5
NGRAMS, WEIGHTS = "ngrams.json", "ngrams.safetensors"
AT_ONCE = 4_096  # n-grams whose coefficients are asked for at a time


class Tfidf:
    """Texts as TF-IDF (N, F), sparse: words and pairs of them next to runs of 1 to 5 characters, across
    words. In texts of more than :data:`LONG` characters runs of 4 say as much, measured on film reviews, in a
    fifth of the time. Runs of characters need no words: in Chinese these stand without spaces between them.

    >>> tfidf = Tfidf()
    >>> tfidf.fit_transform(["free prize", "free lunch"]).shape == tfidf.transform(["a", "b"]).shape
    True
    """

    def __init__(self, vectorizers: Sequence[Any] = ()) -> None:
        """``vectorizers`` are scikit-learn's, fitted; without any, :meth:`fit_transform` comes first."""
        self.vectorizers = list(vectorizers)

    def fit_transform(self, texts: Sequence[str]) -> Any:
        """The texts' own TF-IDF, or None where they hold nothing."""
        from scipy import sparse
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = list(map(in_lines, texts))
        runs = (4, 4) if sum(map(len, texts)) > LONG * len(texts) else (1, 5)
        shared = {"sublinear_tf": True, "min_df": 2 if len(texts) >= RARE else 1}
        self.vectorizers, blocks = [], []
        for kind in ({"ngram_range": (1, 2)}, {"analyzer": "char", "ngram_range": runs}):
            vectorizer = TfidfVectorizer(**shared, **kind)
            try:
                blocks.append(vectorizer.fit_transform(texts))
            except ValueError as error:
                if not re.search("empty vocabulary|no terms remain", str(error)):
                    raise
                continue
            self.vectorizers.append(vectorizer)
        return sparse.hstack(blocks, format="csr") if blocks else None

    def transform(self, texts: Sequence[str]) -> Any:
        """TF-IDF (N, F) of any texts, over the n-grams of those that it was fitted on."""
        from scipy import sparse

        if not len(texts):  # scikit-learn refuses an empty list
            return sparse.csr_matrix((0, sum(len(each.vocabulary_) for each in self.vectorizers)))
        texts = list(map(in_lines, texts))
        return sparse.hstack([each.transform(texts) for each in self.vectorizers], format="csr")


def activation_of(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """From decision values (N, K) to outputs: "softmax" of classes, "sigmoid" of labels, "identity"."""
    from scipy.special import expit, softmax

    return {"softmax": lambda z: softmax(z, axis=1), "sigmoid": expit, "identity": lambda z: z}[name]


@dataclass(frozen=True)
class Block:
    """The n-grams of one analyzer, "word" or "char", in the order of their columns; ValueError for others."""

    analyzer: str
    ngram_range: tuple[int, int]  # words or characters
    ngrams: tuple[str, ...]

    def __post_init__(self) -> None:
        least, most = self.ngram_range
        if self.analyzer not in ("word", "char") or not 1 <= least <= most:
            raise ValueError(f"{NGRAMS} has {self.analyzer!r} from {least} to {most}, no kind of n-grams")
        if other := [each for each in self.ngrams if not isinstance(each, str)]:
            raise ValueError(f"{NGRAMS} has {other[0]!r}, which is no n-gram")


@dataclass(frozen=True, eq=False)
class NgramModel:
    """``outputs(texts)`` are the activation of ``TF-IDF @ coefficients + intercept``; all is float32."""

    activation: str
    blocks: tuple[Block, ...]
    idf: np.ndarray  # (F,)
    coefficients: np.ndarray  # (F, K)
    intercept: np.ndarray  # (K,); infinite for an output that training left no choice about

    @classmethod
    def of(cls, tfidf: Tfidf, decide: Callable[[Any], np.ndarray], activation: str) -> "NgramModel":
        """From decision values (N, K) of TF-IDF (N, F). These are affine, so known from their values at 0
        and at each n-gram alone."""
        from scipy import sparse

        each, idf = tfidf.vectorizers, np.concatenate([v.idf_ for v in tfidf.vectorizers])
        blocks = tuple(
            Block(v.analyzer, tuple(v.ngram_range), tuple(v.get_feature_names_out().tolist())) for v in each
        )
        n = len(idf)
        (intercept,) = decide(sparse.csr_matrix((1, n)))
        coefficients = np.zeros((n, len(intercept)), dtype=np.float32)
        finite, units = np.isfinite(intercept), sparse.eye(n, format="csr")
        for first in range(0, n, AT_ONCE):
            values = decide(units[first : first + AT_ONCE])
            coefficients[first : first + AT_ONCE, finite] = values[:, finite] - intercept[finite]
        return cls(activation, blocks, idf.astype(np.float32), coefficients, intercept.astype(np.float32))

    @cached_property
    def tfidf(self) -> Tfidf:
        """What reads the texts; ValueError where an n-gram stands twice."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        ends, vectorizers = np.cumsum([len(block.ngrams) for block in self.blocks]), []
        for block, idf in zip(self.blocks, np.split(self.idf, ends[:-1]), strict=True):
            kind = {"analyzer": block.analyzer, "ngram_range": block.ngram_range}
            vectorizer = TfidfVectorizer(**kind, sublinear_tf=True, vocabulary=block.ngrams)
            vectorizer.idf_ = idf
            vectorizers.append(vectorizer)
        return Tfidf(vectorizers)

    def outputs(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities or numbers (N, K) of the texts."""
        features = self.tfidf.transform(texts).astype(np.float32)
        return activation_of(self.activation)(features @ self.coefficients + self.intercept)

    def save(self, folder: Path) -> None:
        """Write both files."""
        blocks = [vars(block) for block in self.blocks]
        text = json.dumps({"activation": self.activation, "blocks": blocks}, ensure_ascii=False)
        (folder / NGRAMS).write_text(text, encoding="utf-8")
        tensors = {"idf": self.idf, "coefficients": self.coefficients, "intercept": self.intercept}
        save_file(tensors, folder / WEIGHTS)

    @classmethod
    def read(cls, folder: Path, activation: str, n_outputs: int) -> "NgramModel":
        """What :meth:`save` wrote of a model with this activation and ``n_outputs`` (K). ValueError,
        KeyError, TypeError, OSError, SafetensorError and InputError for files that are damaged or of another
        model."""
        spec, tensors = read_object(folder / NGRAMS), load_file(folder / WEIGHTS)
        if spec["activation"] != activation:
            found = f"{NGRAMS} says activation {spec['activation']!r}"
            raise ValueError(f"{found}, the task needs {activation!r}")
        blocks = tuple(
            Block(block["analyzer"], tuple(block["ngram_range"]), tuple(block["ngrams"]))
            for block in spec["blocks"]
        )
        n = sum(len(block.ngrams) for block in blocks)
        shapes = {"idf": (n,), "coefficients": (n, n_outputs), "intercept": (n_outputs,)}
        for name, shape in shapes.items():
            if (found := tensors[name]).shape != shape or found.dtype != np.float32:
                wanted = f"float32 {shape} for the {n:,} n-grams of {NGRAMS}"
                raise ValueError(f"{name} in {WEIGHTS} is {found.dtype} {found.shape}, not {wanted}")
            if np.isnan(found).any() or (name != "intercept" and np.isinf(found).any()):
                raise ValueError(f"{name} in {WEIGHTS} holds what is not a number")
        model = cls(activation, blocks, **{name: tensors[name] for name in shapes})
        model.outputs(["a text"])  # now, since what is left to find wrong is found when it is used
        return model
