"""The classical yardstick for lists of labels and for numbers: one trivial rule, and TF-IDF.

TF-IDF is of words, or of characters where no spaces stand between them (:func:`tfidf_vectorizer`).
"""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gptcls.errors import InputError
from gptcls.evaluation.baseline import tfidf_vectorizer
from gptcls.evaluation.multilabel import best_thresholds, multilabel_scores
from gptcls.evaluation.regression import regression_scores

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

logger = logging.getLogger("gptcls")

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
