"""scikit-learn's estimators: what :func:`gptcls.fit` trains, for pipelines, cross-validation and searches.

>>> texts = [f"{word} {i}" for i in range(20) for word in ("free prize, call now", "see you at lunch")]
>>> model = GPTClassifier(epochs=3).fit(texts, [True, False] * 20)
>>> model.predict(["free prize, call now", "see you at lunch"])
array([ True, False])
>>> model.classes_, model.predict_proba(["see you at lunch"]).shape
(array([False,  True]), (1, 2))
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted
from torch import nn

from gptcls.classify.predict import TextClassifier
from gptcls.classify.store import SavedClassifier, read_classifier, save_classifier
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.columns import columns_of, find_text_columns, is_blank, text_values
from gptcls.data.in_memory import is_frame, texts_of
from gptcls.data.repeats import WEIGHT
from gptcls.data.sources import FRAME, SAMPLE, labelled_frame, require_names
from gptcls.fast.features import FeatureCache
from gptcls.train.config import RunOptions, TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import refuse_files, split_to_fit
from gptcls.train.run import fit_classifier, store_everything

OPTIONS = (  # of TrainConfig, which are parameters here
    "preset", "train", "pooling", "epochs", "batch_size", "lr", "max_length", "cache", "device",
)  # fmt: skip


class TextEstimator(BaseEstimator):
    """What the three have in common: parameters, texts, training, pickling.

    Parameters named like an option of :class:`gptcls.TrainConfig` are that option; None leaves it as
    ``settings`` have it, and where these do not, to the library's default. ``settings`` are all other
    options: a dict, to which ``repeats="keep"`` belongs unless it says otherwise, or a TrainConfig.
    ``model`` may also be a network (see :func:`gptcls.fit`), of which a copy is trained.

    ``validation_fraction`` of the rows are held out of training, and what is chosen is chosen on them:
    calibration, thresholds, ``patience``, ``stack``. None is 0.1, of a regression 0. With 0 there are none:
    probabilities are then as the network gives them.

    ``cache`` is a folder for what the frozen blocks say of a text, so that the folds and candidates of a
    search compute it once; ``predict`` reads it and adds nothing. ``random_state`` is the option ``seed``, or
    a RandomState that draws one.

    X are texts: a list, array, Series, or a table with one column of texts, or several that are read together
    (:mod:`gptcls.data.fields`), or a list of tuples of these. A blank or missing text is not trained on, and
    is answered by the mean of the training rows. A fitted estimator has ``classifier_``, its
    :class:`gptcls.classify.predict.TextClassifier`.
    """

    _task: str  # as in --task
    _held_out = 0.1

    def __init__(
        self, model: str | nn.Module | None = None, *, preset: str | None = None, train: str | None = None,
        pooling: str | None = None, epochs: int | None = None, batch_size: int | None = None,
        lr: float | None = None, max_length: int | None = None, validation_fraction: float | None = None,
        cache: str | Path | None = None, device: str | None = None, random_state: Any = None,
        settings: TrainConfig | Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.preset = preset
        self.train = train
        self.pooling = pooling
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.max_length = max_length
        self.validation_fraction = validation_fraction
        self.cache = cache
        self.device = device
        self.random_state = random_state
        self.settings = settings

    def save(self, folder: str | Path) -> None:
        """Write the classifier to a folder as gptcls's own commands use one; labels are strings there."""
        check_is_fitted(self, "classifier_")
        config = TrainConfig.of(**self._saved.training)
        save_classifier(Path(folder), self._saved, store_everything(config, self._saved.base))

    def __getstate__(self) -> dict[str, Any]:
        """With the files of :meth:`save` in place of the network, so that no tensor is pickled."""
        state = dict(super().__getstate__())
        if "classifier_" in state:
            del state["classifier_"], state["_saved"]
            with TemporaryDirectory() as folder:
                self.save(folder)
                state["_files"] = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        files = state.get("_files")
        super().__setstate__({name: value for name, value in state.items() if name != "_files"})
        if files is None:
            return
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows keeps files that are mapped
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            run = _run_options(json.loads(files["classifier.json"])["training"])
            dtype = pick_dtype(run.precision, pick_device(run.device))
            # Whoever unpickles trusts the file, so also what it asks of the hub.
            self._use(read_classifier(folder, dtype, allow_download=True))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = tags.input_tags.string = tags.input_tags.allow_nan = True
        tags.input_tags.two_d_array = False  # of numbers, as scikit-learn's own text estimators have it
        return tags

    def _config(self, **options: Any) -> TrainConfig:
        settings = self.settings
        if not isinstance(settings, TrainConfig | Mapping | None):
            raise TypeError(f"settings are a TrainConfig or a dict of options, not {type(settings).__name__}")
        if not isinstance(settings, TrainConfig):
            settings = TrainConfig.of(**{"repeats": "keep", **(settings or {})})
        refuse_files(settings.data)
        if settings.run.recipe == "book":
            said = "recipe book splits its rows in its own way"
            raise InputError(f"{said}; run it with gptcls.train or gptcls.fit")
        options |= {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}
        if self.model is not None:
            own = isinstance(self.model, nn.Module)
            options["model"] = type(self.model).__name__ if own else str(self.model)
        if isinstance(self.random_state, int | np.integer):
            options["seed"] = int(self.random_state)
        elif self.random_state is not None:
            options["seed"] = check_random_state(self.random_state).randint(2**31)
        share = self._held_out if self.validation_fraction is None else self.validation_fraction
        options |= {"task": self._task, "validation_fraction": share, "test_fraction": 0.0}
        config = resolve(settings.changed(**options))
        if config.fit.abstain:
            said = f"abstain {config.fit.abstain}: in scikit-learn every text has an answer"
            raise InputError(f"{said}; leave it out, and look at predict_proba")
        return config

    def _train(
        self, texts: list[str | None], labels: list[str], values: np.ndarray, weights: Any, **options: Any
    ) -> None:
        """Fit texts (N,) with label strings (N,), which are also the numbers ``values`` (N, K)."""
        config = self._config(**options)
        read = np.array([not is_blank(text) for text in texts])
        if weights is not None:
            weights = _checked_weights(weights, len(texts))
            read &= weights > 0
        if not read.any():
            raise ValueError("there is nothing to train on: every text is blank or has a weight of zero")
        if n_left_out := int((~read).sum()):
            left_out = f"{n_left_out:,} of {len(texts):,} texts are blank or have a weight of zero"
            log.info(f"{left_out}: not trained on")
        rows = np.flatnonzero(read)
        if len(rows) == 1:
            raise ValueError("n_samples = 1: there is nothing to tell apart; give two texts or more")
        frame = labelled_frame([texts[row] for row in rows], [labels[row] for row in rows])
        if weights is not None:
            frame[WEIGHT] = weights[rows] / weights[rows].mean()
        self._mean = np.average(values[rows], axis=0, weights=None if weights is None else weights[rows])
        with torch.random.fork_rng():  # the caller's random numbers are the caller's
            split = split_to_fit(frame, config)
            own = deepcopy(self.model) if isinstance(self.model, nn.Module) else None
            self._use(fit_classifier(split, config, own))

    def _use(self, saved: SavedClassifier) -> None:
        run = _run_options(saved.training)
        cache = FeatureCache(run.cache, run.cache_budget * 2**30, read_only=True) if run.cache else None
        self._saved = saved
        self.classifier_ = TextClassifier(saved, pick_device(run.device), run.precision or "auto", cache)

    def _given(self, outputs: np.ndarray) -> np.ndarray:
        """The task's answers to them: classes (N,), or whether each label is given (N, K)."""
        saved = self._saved
        return saved.decision.given(saved.task, outputs)

    def _outputs(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities or numbers (N, K), in the order of the task's labels; of a blank text the mean of the
        training rows."""
        check_is_fitted(self, "classifier_")
        texts = self._texts(X)
        outputs, n_longer = self.classifier_.scored(texts)
        self.classifier_.log_truncated(n_longer)
        blank = np.isnan(outputs).any(axis=1)
        if blank.any():
            said = f"{blank.sum():,} of {len(texts):,} texts are blank"
            log.info(f"{said}: answered by the training rows' mean")
            outputs[blank] = self._mean[self._columns]
        return outputs

    @property
    def _columns(self) -> np.ndarray:
        """Where the outputs of the task (K,) stand among the columns of the estimator."""
        return np.array([self._names.index(label) for label in self.classifier_.labels])

    def _spread(self, outputs: np.ndarray) -> np.ndarray:
        """The columns in the estimator's order; a class that training had not has nothing but zeros."""
        found = np.zeros((len(outputs), len(self._names)), dtype=outputs.dtype)
        found[:, self._columns] = outputs
        return found

    def _pairs(self, X: Any, y: Any) -> tuple[list[str | None], np.ndarray]:  # noqa: N803
        """What fit is given; ValueError where a target is missing."""
        texts = self._texts(X, fitting=True)
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        try:
            y = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
        except ValueError:  # NumPy's says nothing of labels
            said = "y has rows of several lengths"
            raise ValueError(f"{said}; MultiLabelBinarizer makes a matrix of lists") from None
        if pd.isna(y).any():
            raise ValueError("Input y contains NaN.")
        check_consistent_length(texts, y)
        return texts, y

    def _texts(self, X: Any, fitting: bool = False) -> list[str | None]:  # noqa: N803
        """The texts of N rows, None where one is missing."""
        if isinstance(X, str):
            raise ValueError(f"X is a single text, {X!r:.40}; give a list of texts")
        if hasattr(X, "tocsr"):
            raise TypeError("X is a sparse matrix of numbers; give texts")
        nested = isinstance(X, list | tuple) and X and isinstance(X[0], list | tuple)
        if nested or (hasattr(X, "__array__") and not hasattr(X, "ndim")):
            X = np.asarray(X, dtype=object)  # noqa: N806
        if fitting:
            self._text_columns: tuple[str, ...] = ()
        texts = self._of_table(X, fitting) if getattr(X, "ndim", 1) == 2 else texts_of(X)
        if not texts:
            raise ValueError("X has 0 samples; give at least one text")
        return texts

    def _of_table(self, table: Any, fitting: bool) -> list[str | None]:
        width = table.shape[1]
        if fitting:
            self.n_features_in_ = width
        elif (expected := getattr(self, "n_features_in_", width)) != width:
            name = type(self).__name__
            raise ValueError(f"X has {width} features, but {name} is expecting {expected} features as input")
        if not is_frame(table):
            frame = pd.DataFrame(np.asarray(table, dtype=object)).rename(columns=str).rename_axis("row")
            return text_values(columns_of(frame, frame.columns, "X"))
        require_names(table)
        asked = self._config().data.text_columns if fitting else None
        names = find_text_columns(table.columns, asked, table[:SAMPLE], FRAME, self._text_columns)
        if fitting:
            self._text_columns, self.feature_names_in_ = names, np.array(table.columns, dtype=object)
        return text_values(columns_of(table, names, FRAME))


class GPTClassifier(ClassifierMixin, TextEstimator):
    """One class of two or more for each text. Parameters are those of :class:`TextEstimator`. Classes may be
    of any type; ``classes_`` has them sorted, as the columns of :meth:`predict_proba` are."""

    _task = "single"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "GPTClassifier":  # noqa: N803
        """Train on texts X and their classes y (N,). ``sample_weight`` (N,) weighs rows in the loss: one of
        weight 2 is two rows, one of weight 0 is none. ValueError or TypeError for what cannot be used."""
        texts, y = self._pairs(X, y)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self._names = list(map(str, self.classes_.tolist()))
        if len(self._names) < 2:
            raise ValueError(f"y holds one class, {self._names[0]!r}; training needs two classes or more")
        # The second of two is the positive one, as elsewhere in scikit-learn.
        options = {"positive": self._names[1]} if len(self._names) == 2 else {}
        labels, one_hot = [self._names[number] for number in numbers], np.eye(len(self._names))[numbers]
        self._train(texts, labels, one_hot, sample_weight, **options)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The class of each text, (N,)."""
        given = self._given(self._outputs(X))
        return self.classes_[self._columns[given]]

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """The probability of each class, (N, K), in the order of ``classes_``; rows sum to 1."""
        found = self._spread(self._outputs(X).astype(float))
        return found / found.sum(axis=1, keepdims=True)


class GPTMultiLabelClassifier(ClassifierMixin, TextEstimator):
    """Any number of K labels for each text. Parameters are those of :class:`TextEstimator`. ``classes_`` are
    the names of y's columns where it is a DataFrame, else their numbers."""

    _task = "multi"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.two_d_labels = tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "GPTMultiLabelClassifier":  # noqa: N803
        """Train on texts X and an indicator matrix y (N, K) of 0 and 1, dense or sparse; of lists of names
        scikit-learn's MultiLabelBinarizer makes one. Otherwise as :meth:`GPTClassifier.fit`."""
        names = y.columns.tolist() if is_frame(y) else None
        texts, y = self._pairs(X, y)
        if y.ndim != 2 or not np.isin(y, (0, 1)).all():
            kind = type_of_target(y)
            wanted = "y is a matrix (N, K) of 0 and 1, a column per label"
            raise ValueError(f"Unknown label type: {kind}; {wanted}")
        self.classes_ = np.arange(y.shape[1]) if names is None else np.array(names)
        self._names = list(map(str, self.classes_.tolist()))
        flags = y.astype(bool)
        labels = [json.dumps(sorted(np.array(self._names)[row].tolist())) for row in flags]
        self._train(texts, labels, flags.astype(float), sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Which labels each text has, (N, K) of 0 and 1; one that no training row had is never given."""
        return self._spread(self._given(self._outputs(X)).astype(int))

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """The probability of each label, (N, K), each on its own."""
        return self._spread(self._outputs(X).astype(float))


class GPTRegressor(RegressorMixin, TextEstimator):
    """A number, or several, for each text. Parameters are those of :class:`TextEstimator`."""

    _task, _held_out = "regression", 0.0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "GPTRegressor":  # noqa: N803
        """Train on texts X and numbers y, (N,) or (N, K). Otherwise as :meth:`GPTClassifier.fit`."""
        texts, y = self._pairs(X, y)
        y = check_array(y, ensure_2d=False, dtype=float, input_name="y")
        self._one = y.ndim == 1
        columns = y.reshape(len(y), -1)
        self._names = ["label"] if columns.shape[1] == 1 else list(map(str, range(columns.shape[1])))
        labels = [json.dumps(dict(zip(self._names, row, strict=True))) for row in columns.tolist()]
        if len(self._names) == 1:
            labels = list(map(repr, columns[:, 0].tolist()))
        self._train(texts, labels, columns, sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The numbers, of y's shape: (N,) or (N, K)."""
        found = self._outputs(X).astype(float)
        return found[:, 0] if self._one else found


def _run_options(training: dict) -> RunOptions:
    """Of the settings that stand in ``classifier.json``."""
    return TrainConfig.of(**training).run


def _checked_weights(weights: Any, n: int) -> np.ndarray:
    """Weights (n,) in double precision."""
    weights = np.full(n, weights, dtype=float) if np.isscalar(weights) else weights
    weights = check_array(weights, ensure_2d=False, dtype=float, input_name="sample_weight")
    if weights.shape != (n,):
        raise ValueError(f"sample_weight has the shape {weights.shape}, expected {(n,)}, one for each text")
    if (weights < 0).any():
        raise ValueError(f"sample_weight {weights.min():g} is negative; use 0 for rows to leave out")
    return weights
