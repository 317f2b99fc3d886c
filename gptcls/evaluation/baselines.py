"""Classical baselines: what a result is worth shows only next to these.

They go with every run, fitted on its own training rows: one trivial answer to every text (the majority class,
the most frequent label, the mean), a linear model of TF-IDF that nobody need call weak, and, where a run
computes frozen blocks, a linear model of what these say before any training (Alain and Bengio 2017,
"Understanding Intermediate Layers Using Linear Classifier Probes").

A linear model is the best of several, a linear SVM or a logistic regression, of several strengths with plain
or balanced classes (of numbers ridge regressions). It is the one with the best headline measure on the
validation rows or, where these are fewer than :data:`FEWEST`, by cross-validation on training and validation
rows. It is then fitted on the training rows alone, as the network is, or of more than :data:`MOST_FITTED` on
so many, drawn at random, for neither its memory nor its time to grow further. All of this is logged.

A linear SVM has no probabilities. Its decision values become shares by the sigmoid or softmax of a multiple,
as those of the logistic regressions do: a temperature (Guo et al. 2017), fitted on rows that the model was
not. So every answer remains the model's own.
"""

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.evaluation import metrics
from gptcls.evaluation.ngrams import NgramModel, Tfidf, activation_of

MAJORITY, MOST_FREQUENT, MEAN = "majority class", "most frequent label", "mean of the training rows"
TFIDF, PROBE = "TF-IDF of words and characters", "probe of the frozen blocks"
FEWEST = 200  # validation rows that a choice may rest on
FOLDS = 5
PROBE_C = (0.001, 0.01, 0.1, 1.0)
MOST_FITTED = 100_000  # rows that a linear model is fitted on, and chosen by
SCORED_AT_ONCE = 4_096  # rows
MOST_COMPARED = 10_000  # rows that the candidates are fitted on, where there are no more than 20 outputs
LETTERS = re.compile(r"[^\W\d_]")
# Thai, Lao, Burmese, Khmer, kana, and the Chinese characters of the first two planes.
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0002fa1f]"
)
Parts = Mapping[str, tuple[Any, np.ndarray]]  # part -> (N texts or vectors (N, C), targets (N,) or (N, K))
Scores = dict[str, dict[str, dict]]  # baseline name -> part name -> scores
Model = Any  # scikit-learn's; it is imported where it is used, since that takes a second
Decide = Callable[[Any], np.ndarray]  # inputs (N, F) -> decision values (N, K)


class Baselines(ABC):
    """The baselines of one kind of task, with outputs named ``labels``."""

    trivial: ClassVar[str]  # the name of the answer that is always the same
    measure_name: ClassVar[str]  # by which a model is chosen
    activation: ClassVar[str]  # by which decision values become outputs

    def __init__(self, labels: Sequence[str], most: int | None = MOST_FITTED) -> None:
        """``most`` rows are fitted on, None for all."""
        self.labels, self.most, self.thresholds = labels, most, [0.5] * len(labels)
        self.outputs: dict[str, dict[str, np.ndarray]] = {}  # baseline -> part -> (N, K)
        self.decided: dict[str, dict[str, np.ndarray]] = {}  # baseline -> part -> what :meth:`decide` says
        self._of_ngrams: tuple[Tfidf, Decide] | None = None

    def scores(self, parts: Parts, vectors: Parts | None = None) -> Scores:
        """Every part of ``parts`` scored as :mod:`gptcls.evaluation.metrics` does, by baselines that are
        fitted on ``parts["train"]``; ``vectors``, parts of frozen vectors, are what the probe reads.

        What cannot be fitted is left out, and that is logged. InputError where there is no part "train", or
        an empty one, and for a target beyond K - 1.
        """
        row = self.constant(_training(parts)[1])
        results = {self.trivial: self._scored(self.trivial, parts, lambda x: np.tile(row, (len(x), 1)))}
        fitted_on = self._drawn_from(parts)
        if (n := len(parts["train"][1])) > (n_fitted := len(fitted_on["train"][1])):
            log.info(f"the baselines are fitted on {n_fitted:,} of {n:,} training rows")
        if reason := self.unfit(fitted_on["train"][1]):
            log.info(f"{TFIDF} left out: {reason}")
            return results
        tfidf = Tfidf()
        if (ngrams := ngram_parts(tfidf, fitted_on)) is None:
            log.info(f"{TFIDF} left out: its training texts are blank")
        else:
            uncut = {part: rows for part, rows in ngrams.items() if len(rows[1]) == len(parts[part][1])}
            scored = {**parts, **uncut}  # in this order
            results[TFIDF], decide = self._linear(TFIDF, ngrams, scored, self.on_ngrams(), tfidf)
            self._of_ngrams = tfidf, decide
        if vectors is not None:
            fitted_on = self._drawn_from(vectors)
            if not self.unfit(fitted_on["train"][1]):
                results[PROBE], _ = self._linear(PROBE, fitted_on, vectors, self.on_vectors())
        return results

    def _drawn_from(self, parts: Parts) -> Parts:
        """The rows that models are fitted on and chosen by."""
        _training(parts)
        found = {}
        for part in (part for part in ("train", "validation") if part in parts):
            inputs, targets = parts[part]
            rows = _drawn(len(targets), self.most)
            found[part] = _taken(inputs, rows), np.asarray(targets)[rows]
        return found

    def ngram_model(self) -> NgramModel | None:
        """The model of n-grams that :meth:`scores` fitted, to be kept; None where it was left out."""
        return None if self._of_ngrams is None else NgramModel.of(*self._of_ngrams, self.activation)

    def _linear(
        self, name: str, parts: Parts, scored: Parts, models: dict[str, Model], tfidf: Tfidf | None = None
    ) -> tuple[dict[str, dict], Decide]:
        """The scores on ``scored``, whose texts ``tfidf`` reads, of the model that is best for ``parts``, and
        its decision values, scaled."""
        inputs, targets = parts["train"]
        by_validation = "validation" in parts and len(parts["validation"][1]) >= FEWEST
        candidates = self._by_validation if by_validation else self._by_folds
        found = {said: candidates(model, parts) for said, model in models.items()}
        measured = {said: self.measure(*held) for said, held in found.items()}
        best = max(measured, key=measured.__getitem__)
        where = f"{len(found[best][0]):,} validation rows"
        if not by_validation:
            where = f"{len(found[best][0]):,} training and validation rows, by cross-validation"
        log.info(f"{name}: {best}; the best {self.measure_name} of {len(models)} on {where}")
        decide = self.fitted(models[best], inputs, targets)
        if by_validation:  # of the model that is fitted on all training rows
            inputs, targets = parts["validation"]
            found[best] = targets, decide(inputs)
        scale, outputs = self.scale(*found[best]), activation_of(self.activation)

        def answer(x: Any) -> np.ndarray:
            return outputs(scale * decide(tfidf.transform(x) if isinstance(x, list) else x))

        return self._scored(name, scored, answer), lambda x: scale * decide(x)

    def _by_validation(self, model: Model, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
        """Targets and decision values of the validation rows, of ``model`` fitted on training rows."""
        (inputs, targets), (held, held_targets) = parts["train"], parts["validation"]
        rows = self._compared(len(targets))
        return held_targets, self.fitted(model, inputs[rows], targets[rows])(held)

    def _by_folds(self, model: Model, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
        """Targets and decision values of training and validation rows, each of a model without them."""
        both = [parts[part] for part in ("train", "validation") if part in parts and len(parts[part][1])]
        inputs, targets = _stacked([x for x, _ in both]), np.concatenate([y for _, y in both])
        rows = self._compared(len(targets))
        inputs, targets = inputs[rows], targets[rows]
        found = np.zeros((len(targets), len(self.labels)))
        first, owners = _distinct(inputs)  # what is in several rows is on one side of a fold
        for parts_of_first in self.folds(targets[first]):
            rest, fold = (np.flatnonzero(np.isin(owners, part)) for part in parts_of_first)
            found[fold] = self.fitted(model, inputs[rest], targets[rest])(inputs[fold])
        return targets, found

    def _compared(self, n: int) -> np.ndarray:
        """The rows of ``n`` that the candidates are fitted on."""
        return _drawn(n, max(2_000, MOST_COMPARED * 20 // max(20, len(self.labels))))

    def _scored(self, name: str, parts: Parts, answer: Callable[[Any], np.ndarray]) -> dict[str, dict]:
        def answered(inputs: Any) -> np.ndarray:
            starts = range(0, _n_rows(inputs), SCORED_AT_ONCE)
            ends = (min(start + SCORED_AT_ONCE, _n_rows(inputs)) for start in starts)
            pieces = (_taken(inputs, np.arange(*ends)) for ends in zip(starts, ends, strict=True))
            return np.concatenate([np.zeros((0, len(self.labels))), *map(answer, pieces)])

        outputs = self.outputs[name] = {part: answered(inputs) for part, (inputs, _) in parts.items()}
        self.decided[name] = {part: self.decide(values) for part, values in outputs.items()}
        return {part: self.score(targets, outputs[part]) for part, (_, targets) in parts.items()}

    def folds(self, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row numbers to fit on and to judge by; a single row is both."""
        from sklearn.model_selection import KFold

        if len(targets) < 2:
            return iter([(np.arange(len(targets)),) * 2])
        return KFold(min(FOLDS, len(targets)), shuffle=True, random_state=0).split(targets)

    def unfit(self, targets: np.ndarray) -> str:
        """Why no model can be fitted on these, or ""."""
        return ""

    @abstractmethod
    def constant(self, targets: np.ndarray) -> np.ndarray:
        """The outputs (K,) that the trivial answer gives to every text."""

    @abstractmethod
    def on_ngrams(self) -> dict[str, Model]:
        """The models of TF-IDF to choose from."""

    def on_vectors(self) -> dict[str, Model]:
        """The models of frozen vectors to choose from."""
        return {f"logistic regression, C={c:g}": regression_on_vectors(c) for c in PROBE_C}

    @abstractmethod
    def fitted(self, model: Model, inputs: Any, targets: np.ndarray) -> Decide:
        """A copy of ``model``, fitted."""

    @abstractmethod
    def measure(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        """How good decision values (N, K) are; more is better."""

    @abstractmethod
    def scale(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        """What decision values are multiplied by before the activation makes outputs of them, by what these
        rows, which the model had not, show."""

    @abstractmethod
    def score(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """The scores of outputs (N, K)."""

    @abstractmethod
    def decide(self, outputs: np.ndarray) -> np.ndarray:
        """What outputs (N, K) decide, as :func:`gptcls.evaluation.paired.differences` takes it."""


class ClassBaselines(Baselines):
    """One class per text: the majority class, and linear SVMs and logistic regressions."""

    trivial, measure_name, activation = MAJORITY, "accuracy", "softmax"

    def unfit(self, targets: np.ndarray) -> str:
        return "its training texts hold a single class" if len(np.unique(targets)) < 2 else ""

    def constant(self, targets: np.ndarray) -> np.ndarray:
        return majority_baseline(targets, len(self.labels))

    def on_ngrams(self) -> dict[str, Model]:
        from sklearn.multiclass import OneVsRestClassifier

        models = linear_models()
        return {said: OneVsRestClassifier(m) if "logistic" in said else m for said, m in models.items()}

    def fitted(self, model: Model, inputs: Any, targets: np.ndarray) -> Decide:
        n_classes = len(self.labels)
        if len(seen := np.unique(targets)) < 2:  # a fold of few rows
            only = np.full(n_classes, -np.inf)
            only[seen] = 0.0
            return lambda inputs: np.tile(only, (_n_rows(inputs), 1))
        model = _fit(model, inputs, targets)

        def decide(inputs: Any) -> np.ndarray:
            found = model.decision_function(inputs)
            decisions = np.full((len(found), n_classes), -np.inf)  # of a class absent from training
            decisions[:, model.classes_] = np.stack([-found, found], axis=1) / 2 if found.ndim == 1 else found
            return decisions

        return decide

    def folds(self, targets: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        from sklearn.model_selection import StratifiedKFold

        n_folds = min(FOLDS, np.bincount(targets).max())
        if n_folds < 2:
            return super().folds(targets)
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
        with warnings.catch_warnings():  # a class of fewer rows than folds is missing in some
            warnings.filterwarnings("ignore", "The least populated class")
            return iter(list(folds.split(targets, targets)))

    def measure(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        return float((decisions.argmax(axis=1) == targets).mean())

    def scale(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        from scipy.special import log_softmax

        def loss(scale: float) -> float:
            chosen = log_softmax(scale * decisions, axis=1)[np.arange(len(targets)), targets]
            return -np.maximum(chosen, -1e3).mean()  # a class that a fold lacked has a probability of 0

        return best_scale(loss)

    def score(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        return metrics.classification_scores(targets, outputs, self.labels)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.argmax(axis=1)


class LabelBaselines(Baselines):
    """Any number of labels per text: the most frequent label, and one model per label. Its thresholds are
    tuned, as the classifier's are, on the rows that the model is chosen by."""

    trivial, measure_name, activation = MOST_FREQUENT, "micro-F1", "sigmoid"

    def constant(self, targets: np.ndarray) -> np.ndarray:
        return np.eye(len(self.labels))[targets.mean(axis=0).argmax()]

    def on_ngrams(self) -> dict[str, Model]:
        return linear_models()

    def fitted(self, model: Model, inputs: Any, targets: np.ndarray) -> Decide:
        columns = [
            _fit(model, inputs, column) if 0 < column.mean() < 1 else np.inf if column.any() else -np.inf
            for column in targets.T
        ]

        def decide(inputs: Any) -> np.ndarray:
            n = _n_rows(inputs)
            found = [np.full(n, m) if isinstance(m, float) else m.decision_function(inputs) for m in columns]
            return np.stack(found, axis=1)

        return decide

    def measure(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        from scipy.special import expit

        shares = expit(decisions)
        given = shares >= np.array(metrics.best_thresholds(targets, shares))
        sums = metrics.counts_per_text(targets.astype(bool), given).sum(axis=0, keepdims=True)
        return metrics.f1_of_sums(sums, over="micro").item()

    def scale(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        from scipy.special import expit, log_expit

        sign = 2 * targets - 1
        scale = best_scale(lambda scale: -np.maximum(log_expit(scale * sign * decisions), -1e3).mean())
        self.thresholds = metrics.best_thresholds(targets, expit(scale * decisions))
        return scale

    def score(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        return metrics.multilabel_scores(targets, outputs, self.labels, self.thresholds)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return outputs >= np.asarray(self.thresholds)


class NumberBaselines(Baselines):
    """Numbers: the mean of the training rows, and ridge regressions."""

    trivial, measure_name, activation = MEAN, "mean absolute error", "identity"

    def constant(self, targets: np.ndarray) -> np.ndarray:
        return targets.mean(axis=0)

    def on_ngrams(self) -> dict[str, Model]:
        from sklearn.linear_model import Ridge

        return {f"ridge regression, alpha={alpha:g}": Ridge(alpha=alpha) for alpha in (0.1, 0.3, 1, 3, 10)}

    def on_vectors(self) -> dict[str, Model]:
        from sklearn.linear_model import Ridge

        alphas = (1, 10, 100, 1_000, 10_000)
        return {f"ridge regression, alpha={a:g}": _standardised(Ridge(alpha=a)) for a in alphas}

    def fitted(self, model: Model, inputs: Any, targets: np.ndarray) -> Decide:
        model = _fit(model, inputs, targets)
        return lambda inputs: model.predict(inputs).reshape(-1, len(self.labels))

    def measure(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        """In standard deviations, since several numbers may have several units."""
        scales = targets.std(axis=0)
        return -float((abs(decisions - targets) / np.where(scales > 0, scales, 1)).mean())

    def scale(self, targets: np.ndarray, decisions: np.ndarray) -> float:
        return 1.0

    def score(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        return metrics.regression_scores(targets, outputs, self.labels)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return outputs


def _distinct(inputs: Any) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each different input, and of every row the place of its own among these."""
    places: dict[bytes, int] = {}
    if isinstance(inputs, np.ndarray):
        keys = [row.tobytes() for row in inputs]
    else:
        cuts = list(zip(inputs.indptr, inputs.indptr[1:], strict=False))
        keys = [inputs.indices[a:b].tobytes() + inputs.data[a:b].tobytes() for a, b in cuts]
    owners = np.array([places.setdefault(key, len(places)) for key in keys])
    return np.unique(owners, return_index=True)[1], owners


def _drawn(n: int, most: int | None) -> np.ndarray:
    """At most so many of ``n`` rows, in their order."""
    return np.sort(np.random.RandomState(0).permutation(n)[:most])


def _taken(inputs: Any, rows: np.ndarray) -> Any:
    return [inputs[row] for row in rows] if isinstance(inputs, list | tuple) else inputs[rows]


def _training(parts: Parts) -> tuple[Any, np.ndarray]:
    if "train" not in parts or not len(parts["train"][1]):
        raise InputError(f"parts {list(parts)}: the baselines are fitted on a part named 'train' with rows")
    inputs, targets = parts["train"]
    return inputs, np.asarray(targets)


def _n_rows(inputs: Any) -> int:
    return inputs.shape[0] if hasattr(inputs, "shape") else len(inputs)  # a sparse matrix has no length


def _stacked(inputs: Sequence[Any]) -> Any:
    from scipy import sparse

    return sparse.vstack(inputs, format="csr") if sparse.issparse(inputs[0]) else np.concatenate(inputs)


def _fit(model: Model, inputs: Any, targets: np.ndarray) -> Model:
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # close to the optimum is enough, and quick
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clone(model).fit(inputs, targets)


def best_scale(loss: Callable[[float], float]) -> float:
    """The positive factor with the smallest loss; its inverse is a temperature."""
    from scipy.optimize import minimize_scalar

    return float(np.exp(minimize_scalar(lambda x: loss(np.exp(x)), bounds=(-5, 5), method="bounded").x))


# --- what they read, and the models, not fitted yet ---


def ngram_parts(tfidf: Tfidf, parts: Parts) -> Parts | None:
    """Parts of texts as TF-IDF (N, F), sparse; ``tfidf`` is fitted on those of "train". None where these hold
    nothing."""
    if (train := tfidf.fit_transform(list(parts["train"][0]))) is None:
        return None
    inputs = {part: tfidf.transform(list(texts)) for part, (texts, _) in parts.items() if part != "train"}
    inputs["train"] = train
    return {part: (inputs[part], np.asarray(targets)) for part, (_, targets) in parts.items()}


def linear_models() -> dict[str, Model]:
    """Linear SVMs and logistic regressions of several strengths, each with plain and balanced classes.

    All by dual coordinate descent (Hsieh et al. 2008), which takes a fraction of the other solvers' time
    where there are more n-grams than texts.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    quick = {"dual": True, "tol": 1e-2, "max_iter": 200, "random_state": 0}
    models: dict[str, Model] = {}
    for weight, classes in ((None, ""), ("balanced", ", balanced classes")):
        own = quick | {"class_weight": weight}
        for c in (1.0, 0.3, 0.1):
            models[f"linear SVM, C={c:g}{classes}"] = LinearSVC(C=c, **own)
        for c in (10.0, 100.0, 1.0):
            regression = LogisticRegression(C=c, solver="liblinear", **own)
            models[f"logistic regression, C={c:g}{classes}"] = regression
    return models


def regression_on_vectors(strength: float) -> Model:
    """Vectors, standardised by those it is fitted on, into :func:`regression`."""
    return _standardised(regression(strength))


def regression(strength: float) -> Model:
    """A logistic regression with that C, for standardised vectors."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=300, tol=1e-3)


def _standardised(model: Model) -> Model:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), model)


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


def are_unspaced(texts: Sequence[str]) -> bool:
    """Whether most letters belong to a script without spaces between words."""
    letters, unspaced = (sum(len(sign.findall(text)) for text in texts) for sign in (LETTERS, UNSPACED))
    return 2 * unspaced > letters


def tfidf_vectorizer(texts: Sequence[str] = ()) -> Model:
    """TF-IDF of the words in ``texts``, or of single characters and pairs of them, as the log then says:
    where most letters belong to a script without spaces between words, such as Chinese, scikit-learn takes
    each clause for a word, and hardly any occurs twice."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not are_unspaced(texts):
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
