"""The classical yardstick: what a result is worth is seen only beside these.

Two of them stand beside every run on its own split: always naming the commonest class, and TF-IDF
of words with logistic regression. The character version is stronger on short, misspelt texts, and the only
fair one where words are not set apart by spaces: there it takes the place of words by itself.

The classical yardstick for lists of labels and for numbers: one trivial rule, and TF-IDF.

TF-IDF is of words, or of characters where no spaces stand between them (:func:`tfidf_vectorizer`).
"""

import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gptcls.core.errors import InputError
from gptcls.evaluation.metrics import classification_scores
from gptcls.evaluation.multilabel import best_thresholds, multilabel_scores
from gptcls.evaluation.regression import regression_scores

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import Pipeline

logger = logging.getLogger("gptcls")


MAJORITY = "majority class"


TFIDF = "TF-IDF + logistic regression"


LETTERS = re.compile(r"[^\W\d_]")


# Thai, Lao, Burmese, Khmer, kana, and the Chinese characters of the first two planes.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0002fa1f]"
)


def majority_baseline(train_targets: Sequence[int], n_classes: int) -> np.ndarray:
    """The share of each class among the training texts, shape (K,), whatever the text.

    Its largest entry, the first in a tie, is the majority class. scikit-learn's
    ``DummyClassifier(strategy="prior")`` gives the same, without the classes absent from training.

    >>> majority_baseline([0, 0, 0, 2], n_classes=3).tolist()
    [0.75, 0.0, 0.25]
    """
    counts = np.bincount(np.asarray(train_targets, dtype=np.int64), minlength=n_classes)
    if counts.sum() == 0 or len(counts) > n_classes:
        raise InputError(
            f"{counts.sum()} training targets with {len(counts)} classes: "
            f"give at least one, each below {n_classes}"
        )
    return counts / counts.sum()


def tfidf_vectorizer(texts: Sequence[str] = ()) -> "TfidfVectorizer":
    """TF-IDF of the words in ``texts``, or of single characters and pairs of them, not fitted yet.

    Characters where most letters belong to a script without spaces between words, such as Chinese: there
    scikit-learn takes each clause for a word, and hardly any occurs twice. The log says so.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    letters = unspaced = 0
    for text in texts:
        letters += len(LETTERS.findall(text))
        unspaced += len(UNSPACED.findall(text))
    if 2 * unspaced <= letters:
        return TfidfVectorizer()
    logger.info("no spaces between the words of these texts: TF-IDF takes characters")
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 2))


def tfidf_baseline(seed: int = 0, texts: Sequence[str] = ()) -> "Pipeline":
    """TF-IDF and logistic regression (C=10), not fitted yet: 96.67 % on the book's test split.

    Of words, unless :func:`tfidf_vectorizer` finds that ``texts`` have no spaces between them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(tfidf_vectorizer(texts), LogisticRegression(C=10, max_iter=1000, random_state=seed))


def tfidf_char_baseline(seed: int = 0, class_weight: str | dict | None = None) -> "Pipeline":
    """TF-IDF of 2 to 5 characters inside words and logistic regression (C=10), not fitted yet.

    97.67 % on the book's test split. ``class_weight="balanced"`` weighs each class by the inverse of
    its frequency: the strongest of these on spam at its natural rate.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    regression = LogisticRegression(C=10, max_iter=1000, class_weight=class_weight, random_state=seed)
    return make_pipeline(vectorizer, regression)


def baselines(
    parts: Mapping[str, tuple[Sequence[str], Sequence[int]]], labels: Sequence[str], seed: int = 0
) -> dict[str, dict[str, dict]]:
    """Fit the majority class and TF-IDF with logistic regression on ``parts["train"]``, score every part.

    Args:
        parts: part name ("train", "validation", "test") -> (texts, integer targets), the classifier's own
            split, its training rows as labelled (:meth:`gptcls.data.split.Split.plain_items`).
        labels: the K class names in order.

    Returns baseline name -> part name -> ``classification_scores``. TF-IDF is left out, and that is
    logged, where the training texts hold a single class or no word of two letters.

    Raises:
        InputError: no "train" part or an empty one, or targets outside 0 to K - 1.
    """
    if "train" not in parts:
        raise InputError(f"parts {list(parts)}: the baselines are fitted on a part named 'train'")
    train_texts, train_targets = parts["train"]
    shares = majority_baseline(train_targets, len(labels))
    results = {
        MAJORITY: {
            name: classification_scores(targets, np.tile(shares, (len(targets), 1)), labels)
            for name, (_, targets) in parts.items()
        }
    }
    if (shares > 0).sum() < 2:
        logger.info("%s left out: its training texts hold a single class", TFIDF)
        return results
    model = tfidf_baseline(seed, train_texts)
    try:
        model.fit(list(train_texts), np.asarray(train_targets))
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        logger.info("%s left out: its training texts hold no word of two letters or more", TFIDF)
        return results
    results[TFIDF] = {
        name: classification_scores(targets, class_probabilities(model, texts, len(labels)), labels)
        for name, (texts, targets) in parts.items()
    }
    return results


def class_probabilities(model: "Pipeline", texts: Sequence[str], n_classes: int) -> np.ndarray:
    """``model.predict_proba`` as (N, K), with zeros for the classes that its training texts lacked."""
    probabilities = np.zeros((len(texts), n_classes))
    if len(texts):  # scikit-learn refuses an empty list
        probabilities[:, model.classes_] = model.predict_proba(list(texts))
    return probabilities


COMMONEST = "commonest label"


ONE_VS_REST = "TF-IDF + logistic regression, one vs rest"


MEAN = "mean of the training rows"


RIDGE = "TF-IDF + ridge regression"


Parts = Mapping[str, tuple[Sequence[str], np.ndarray]]  # part name -> (texts, targets (N, K))


def multilabel_baselines(parts: Parts, labels: Sequence[str]) -> dict[str, dict[str, dict]]:
    """The commonest label for every text, and TF-IDF with a logistic regression (C=10) for each label.

    Both are fitted on ``parts["train"]``. The thresholds of the second are tuned on ``parts["validation"]``
    where there is one, as the classifier's own are.

    Returns baseline name -> part name -> ``multilabel_scores``. TF-IDF is left out, and that is logged,
    where the training texts hold no word of two letters.

    Raises:
        InputError: no "train" part or an empty one.
    """
    texts, targets = _train(parts)
    shares = targets.mean(axis=0)
    commonest = np.eye(len(labels))[shares.argmax()]
    halves = [0.5] * len(labels)
    results = {
        COMMONEST: {
            name: multilabel_scores(targets, np.tile(commonest, (len(targets), 1)), labels, halves)
            for name, (_, targets) in parts.items()
        }
    }
    if len(labels) == 1:  # scikit-learn takes a lone column of 0 and 1 for two classes
        targets = np.hstack([targets, 1 - targets])
    model = _fitted(texts, targets, one_vs_rest_baseline, ONE_VS_REST)
    if model is not None:
        probabilities = {
            name: _label_probabilities(model, texts, len(labels)) for name, (texts, _) in parts.items()
        }
        thresholds = halves
        if "validation" in parts:
            tuned = best_thresholds(parts["validation"][1], probabilities["validation"])
            thresholds = [0.5 if threshold is None else threshold for threshold in tuned]
        results[ONE_VS_REST] = {
            name: multilabel_scores(targets, probabilities[name], labels, thresholds)
            for name, (_, targets) in parts.items()
        }
    return results


def regression_baselines(parts: Parts, labels: Sequence[str]) -> dict[str, dict[str, dict]]:
    """The mean of the training rows for every text, and TF-IDF with ridge regression (alpha=1).

    Both are fitted on ``parts["train"]``. Returns baseline name -> part name -> ``regression_scores``; what
    is left out and raised is as in :func:`multilabel_baselines`.
    """
    texts, targets = _train(parts)
    mean = targets.mean(axis=0)
    results = {
        MEAN: {
            name: regression_scores(targets, np.tile(mean, (len(targets), 1)), labels)
            for name, (_, targets) in parts.items()
        }
    }
    model = _fitted(texts, targets, ridge_baseline, RIDGE)
    if model is not None:
        results[RIDGE] = {
            name: regression_scores(targets, _numbers(model, texts, len(labels)), labels)
            for name, (texts, targets) in parts.items()
        }
    return results


def one_vs_rest_baseline(texts: Sequence[str] = ()) -> "Pipeline":
    """TF-IDF of such texts and a logistic regression (C=10) for each label, not fitted yet."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    # liblinear: for one label at a time it takes a fraction of lbfgs's time to the same optimum.
    regression = LogisticRegression(C=10, solver="liblinear")
    return make_pipeline(tfidf_vectorizer(texts), OneVsRestClassifier(regression))


def ridge_baseline(texts: Sequence[str] = ()) -> "Pipeline":
    """TF-IDF of such texts and ridge regression (alpha=1), not fitted yet."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    return make_pipeline(tfidf_vectorizer(texts), Ridge(alpha=1.0))


def _train(parts: Parts) -> tuple[Sequence[str], np.ndarray]:
    if "train" not in parts or not len(parts["train"][0]):
        raise InputError(f"parts {list(parts)}: the baselines are fitted on a part named 'train' with rows")
    return parts["train"]


def _fitted(
    texts: Sequence[str], targets: np.ndarray, pipeline: Callable[[Sequence[str]], "Pipeline"], name: str
) -> "Pipeline | None":
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Label .* is present in all training examples")
            warnings.filterwarnings("ignore", "Label not .* is present in all training examples")
            return pipeline(texts).fit(list(texts), targets)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        logger.info("%s left out: its training texts hold no word of two letters or more", name)
        return None


def _label_probabilities(model: "Pipeline", texts: Sequence[str], count: int) -> np.ndarray:
    return model.predict_proba(list(texts))[:, :count] if len(texts) else np.zeros((0, count))


def _numbers(model: "Pipeline", texts: Sequence[str], count: int) -> np.ndarray:
    return model.predict(list(texts)).reshape(len(texts), count) if len(texts) else np.zeros((0, count))
