"""Classical baselines: what a result is worth shows only next to these.

Two go with every run, fitted on its own training rows: one trivial answer to every text (the majority class,
the most frequent label, the mean), and TF-IDF with a linear model. On short, misspelt texts TF-IDF of
characters is stronger than that of words (:func:`tfidf_char_baseline`).
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.evaluation import metrics

MAJORITY, TFIDF = "majority class", "TF-IDF + logistic regression"
MOST_FREQUENT, ONE_VS_REST = "most frequent label", "TF-IDF + logistic regression, one vs rest"
MEAN, RIDGE = "mean of the training rows", "TF-IDF + ridge regression"
LETTERS = re.compile(r"[^\W\d_]")
# Thai, Lao, Burmese, Khmer, kana, and the Chinese characters of the first two planes.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0002fa1f]"
)
Parts = Mapping[str, tuple[Sequence[str], np.ndarray]]  # part name -> (texts, targets (N,) or (N, K))
Scores = dict[str, dict[str, dict]]  # baseline name -> part name -> scores
Predict = Callable[[Sequence[str]], np.ndarray]  # N texts -> (N, K)
Model = Any  # scikit-learn's; it is imported where it is used, since that takes a second


# --- scored on every part ---
#
# Each function fits on parts["train"] and scores every part as gptcls.evaluation.metrics does. TF-IDF is left
# out, and that is logged, where the training texts hold no word of two letters. InputError where there is no
# part "train", or an empty one.


def baselines(parts: Parts, labels: Sequence[str], seed: int = 0) -> Scores:
    """The majority class, and TF-IDF with logistic regression, which is left out too where all training texts
    are of one class. InputError for a target beyond K - 1."""
    score = partial(metrics.classification_scores, labels=labels)
    texts, targets = _training(parts)
    shares = majority_baseline(targets, len(labels))
    results = {MAJORITY: _scored(parts, _always(shares), score)}
    if (shares > 0).sum() < 2:
        log.info(f"{TFIDF} left out: its training texts hold a single class")
    elif model := _fitted(TFIDF, tfidf_baseline(seed, texts), texts, targets):
        results[TFIDF] = _scored(parts, partial(class_probabilities, model, n_classes=len(labels)), score)
    return results


def multilabel_baselines(parts: Parts, labels: Sequence[str]) -> Scores:
    """The most frequent label, and TF-IDF with one logistic regression (C=10) per label, its thresholds tuned
    on ``parts["validation"]`` where there is one, as the classifier's are."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    count, thresholds = len(labels), [0.5] * len(labels)
    score = partial(metrics.multilabel_scores, labels=labels)
    texts, targets = _training(parts)
    most_frequent = np.eye(count)[targets.mean(axis=0).argmax()]
    results = {MOST_FREQUENT: _scored(parts, _always(most_frequent), partial(score, thresholds=thresholds))}
    if count == 1:  # scikit-learn takes a lone column of 0 and 1 for two classes
        targets = np.hstack([targets, 1 - targets])
    # liblinear: for one label at a time it takes a fraction of lbfgs's time to the same optimum.
    regression = OneVsRestClassifier(LogisticRegression(C=10, solver="liblinear"))
    if model := _fitted(ONE_VS_REST, make_pipeline(tfidf_vectorizer(texts), regression), texts, targets):
        predict = partial(_columns, model.predict_proba, count)
        if "validation" in parts:
            texts, targets = parts["validation"]
            thresholds = metrics.best_thresholds(targets, predict(texts))
        results[ONE_VS_REST] = _scored(parts, predict, partial(score, thresholds=thresholds))
    return results


def regression_baselines(parts: Parts, labels: Sequence[str]) -> Scores:
    """The mean of the training rows, and TF-IDF with ridge regression."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    score = partial(metrics.regression_scores, labels=labels)
    texts, targets = _training(parts)
    results = {MEAN: _scored(parts, _always(targets.mean(axis=0)), score)}
    if model := _fitted(RIDGE, make_pipeline(tfidf_vectorizer(texts), Ridge(alpha=1.0)), texts, targets):
        results[RIDGE] = _scored(parts, partial(_columns, model.predict, len(labels)), score)
    return results


def _training(parts: Parts) -> tuple[Sequence[str], np.ndarray]:
    if "train" not in parts or not len(parts["train"][0]):
        raise InputError(f"parts {list(parts)}: the baselines are fitted on a part named 'train' with rows")
    texts, targets = parts["train"]
    return texts, np.asarray(targets)


def _fitted(name: str, model: Model, texts: Sequence[str], targets: np.ndarray) -> Model | None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Label .* is present in all training examples")
            return model.fit(list(texts), targets)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        log.info(f"{name} left out: its training texts hold no word of two letters or more")
        return None


def _scored(parts: Parts, predict: Predict, score: Callable[[np.ndarray, np.ndarray], dict]) -> dict:
    return {part: score(targets, predict(texts)) for part, (texts, targets) in parts.items()}


def _always(row: np.ndarray) -> Predict:
    return lambda texts: np.tile(row, (len(texts), 1))


def _columns(predict: Predict, count: int, texts: Sequence[str]) -> np.ndarray:
    """The first ``count`` columns that scikit-learn predicts; it refuses an empty list."""
    return predict(list(texts)).reshape(len(texts), -1)[:, :count] if len(texts) else np.zeros((0, count))


# --- the models, not fitted yet ---


def majority_baseline(train_targets: Sequence[int], n_classes: int) -> np.ndarray:
    """The share of each class among the training texts, shape (K,); the first of the largest is the majority.

    As scikit-learn's ``DummyClassifier(strategy="prior")``, and 0 for the classes absent from training.

    >>> majority_baseline([0, 0, 0, 2], n_classes=3).tolist()
    [0.75, 0.0, 0.25]
    """
    counts = np.bincount(np.asarray(train_targets, dtype=np.int64), minlength=n_classes)
    if counts.sum() == 0 or len(counts) > n_classes:
        found = f"{counts.sum()} training targets with {len(counts)} classes"
        raise InputError(f"{found}: give at least one, each below {n_classes}")
    return counts / counts.sum()


def tfidf_vectorizer(texts: Sequence[str] = ()) -> Model:
    """TF-IDF of the words in ``texts``, or of single characters and pairs of them, as the log then says:
    where most letters belong to a script without spaces between words, such as Chinese, scikit-learn takes
    each clause for a word, and hardly any occurs twice."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    letters, unspaced = (sum(len(sign.findall(text)) for text in texts) for sign in (LETTERS, UNSPACED))
    if 2 * unspaced <= letters:
        return TfidfVectorizer()
    log.info("no spaces between the words of these texts: TF-IDF takes characters")
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 2))


def tfidf_baseline(seed: int = 0, texts: Sequence[str] = ()) -> Model:
    """TF-IDF of such texts and logistic regression (C=10): 96.67 % on the book's test split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(tfidf_vectorizer(texts), LogisticRegression(C=10, max_iter=1000, random_state=seed))


def tfidf_char_baseline(seed: int = 0, class_weight: str | dict | None = None) -> Model:
    """TF-IDF of 2 to 5 characters inside words and logistic regression (C=10): 97.67 % on the book's split.
    With ``class_weight="balanced"`` the strongest of these on spam at its natural rate."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    regression = LogisticRegression(C=10, max_iter=1000, class_weight=class_weight, random_state=seed)
    return make_pipeline(vectorizer, regression)


def class_probabilities(model: Model, texts: Sequence[str], n_classes: int) -> np.ndarray:
    """``model.predict_proba`` as (N, K), with zeros for the classes that its training texts lacked."""
    probabilities = np.zeros((len(texts), n_classes))
    if len(texts):  # scikit-learn refuses an empty list
        probabilities[:, model.classes_] = model.predict_proba(list(texts))
    return probabilities
