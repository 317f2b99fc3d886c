"""scikit-learn's estimators: its own checks, what others do with them, and the same answers as gptcls.fit."""

import io
import pickle
import pickletools
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from helpers.tiny import ROWS
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MultiLabelBinarizer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from gptcls import InputError, TrainConfig, fit, load_classifier
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.data.split import Split
from gptcls.fast.features import FeatureCache
from gptcls.sklearn import GPTClassifier, GPTMultiLabelClassifier, GPTRegressor
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_to_fit

TEXTS, LABELS = map(list, zip(*ROWS, strict=True))
NUMBERS = np.array([len(text) for text in TEXTS], dtype=float)
FLAGS = np.array([[label == "spam", len(text) > 13] for text, label in ROWS], dtype=int)
KINDS = [(GPTClassifier, LABELS), (GPTMultiLabelClassifier, FLAGS), (GPTRegressor, NUMBERS)]
QUICK = {"epochs": 1, "max_length": 16, "device": "cpu", "settings": {"precision": "fp32"}}
LEARNS = QUICK | {"train": "all", "epochs": 8, "lr": 3e-3, "pooling": "mean"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Somewhere empty: what an estimator writes would be seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- scikit-learn's checks ---


class Words:
    """Rows of numbers as texts with a word for each: scikit-learn's checks know no other X."""

    def _texts(self, X, fitting=False):  # noqa: N803
        rows = validate_data(self, X, reset=fitting, dtype="numeric")
        return [" ".join(f"{chr(97 + i % 26)}{round(3 * x)}" for i, x in enumerate(row)) for row in rows]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inputs = tags.input_tags
        inputs.one_d_array, inputs.two_d_array, inputs.string, inputs.allow_nan = False, True, False, False
        return tags


class ClassesOfNumbers(Words, GPTClassifier):
    pass


class LabelsOfNumbers(Words, GPTMultiLabelClassifier):
    """Some checks give a single column of classes; the second and later ones are the label there."""

    def fit(self, X, y, sample_weight=None):  # noqa: N803
        if y is not None and not scipy.sparse.issparse(y) and np.asarray(y).size == len(np.asarray(y)):
            y = np.asarray(y).reshape(-1, 1)
            y = (y > y.min()).astype(int) if y.dtype.kind == "i" else y
        return super().fit(X, y, sample_weight)


class NumbersOfNumbers(Words, GPTRegressor):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # of three steps
        return tags


ROUNDING = {
    "check_sample_weight_equivalence_on_dense_data": "rtol is 1e-7; see test_a_weight_is_so_many_rows",
    "check_estimators_pickle": "rtol is 1e-7; weights that lie elsewhere in memory may change a last bit",
    "check_methods_subset_invariance": "atol is 1e-7; the other rows of a batch may change a last bit",
    "check_methods_sample_order_invariance": "atol is 1e-7; the other rows of a batch may change a last bit",
}
CLASSES = "its y are classes in one column, and no indicator matrix"
ONE_COLUMN = dict.fromkeys(
    (
        "check_classifiers_one_label", "check_classifiers_one_label_sample_weights",
        "check_classifiers_classes", "check_classifiers_train",
    ), CLASSES,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "epochs", "expected"),
    [
        (ClassesOfNumbers, 6, ROUNDING),
        (LabelsOfNumbers, 2, ROUNDING | ONE_COLUMN),
        (NumbersOfNumbers, 1, ROUNDING),
    ],
)
def test_the_checks_of_scikit_learn(kind, epochs, expected, base):
    options = {"train": "last_block", "pooling": "max", "lr": 0.03, "batch_size": 64, "max_length": 16}
    estimator = kind(str(base), epochs=epochs, validation_fraction=0.0, **options)
    estimator.set_params(device="cpu", settings={"precision": "fp32"})
    found = check_estimator(estimator, expected_failed_checks=expected, on_skip=None)
    assert sum(each["status"] == "passed" for each in found) > 50


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_the_tags_say_that_x_are_texts(kind):
    inputs = get_tags(kind()).input_tags
    assert (inputs.string, inputs.one_d_array, inputs.two_d_array, inputs.sparse) == (
        True,
        True,
        False,
        False,
    )
    with pytest.warns(SkipTestWarning, match="Can't test estimator"):  # as of CountVectorizer
        check_estimator(kind())


# --- the same answers ---


def test_it_is_the_classifier_that_fit_gives(base):
    options = {"balance": "weights", "epochs": 2, "precision": "fp32", "repeats": "keep"}
    model = GPTClassifier(str(base), settings=options).fit(TEXTS, LABELS)
    config = resolve(TrainConfig.of(model=str(base), test_fraction=0.0, **options))
    split = split_to_fit(pd.DataFrame({"text": TEXTS, "label": LABELS}), config)
    assert len(split.test) == 0
    assert len(split.validation) == 6
    run = fit(Split(split.train, split.validation, split.validation), settings=config)
    assert np.abs(model.predict_proba(TEXTS) - run.predict_proba(TEXTS)).max() < 1e-6
    assert model.predict(TEXTS).tolist() == run.predict(TEXTS)


@pytest.mark.parametrize(("kind", "y"), KINDS)
def test_a_saved_estimator_is_a_classifier_of_gptcls(kind, y, base, folder):
    model = kind(str(base), **QUICK).fit(TEXTS, y)
    model.save(folder / "mine")
    theirs = load_classifier(folder / "mine", "cpu", "fp32")
    own = model.predict(TEXTS) if kind is GPTRegressor else model.predict_proba(TEXTS)
    assert np.allclose(own, np.squeeze(theirs.outputs(TEXTS)), atol=1e-6)


@pytest.mark.parametrize(
    "classes",
    [
        ["b", "a"], [2, 10], [-1.0, 2.0], [True, False], [np.int8(1), np.int8(0)], ["", " x"], ["x", " x"],
        pd.Series(["no", "yes"], dtype="category"),
    ],
    ids=repr,
)  # fmt: skip
def test_classes_come_back_as_they_were_given(classes, base):
    y = pd.Series(classes).repeat(30).to_numpy()[np.argsort(LABELS, kind="stable").argsort()]
    model = GPTClassifier(str(base), **LEARNS, validation_fraction=0).fit(TEXTS, y)
    assert list(model.classes_) == sorted(classes)
    answers = model.predict(TEXTS)
    assert answers.dtype == model.classes_.dtype == np.unique(y).dtype
    assert (answers == y).mean() > 0.9
    assert (model.classes_[model.predict_proba(TEXTS).argmax(axis=1)] == answers).all()


def test_columns_are_in_the_order_of_classes(base):
    """As numbers: 2 comes before 10 and 100, whatever strings say."""
    y = np.array([100 if "you" in text else 2 if label == "spam" else 10 for text, label in ROWS])
    model = GPTClassifier(str(base), **LEARNS).fit(TEXTS, y)
    assert model.classes_.tolist() == [2, 10, 100]
    share = model.predict_proba(TEXTS)
    assert np.allclose(share.sum(axis=1), 1, rtol=1e-12)
    for k, name in enumerate(model.classes_):
        assert share[y == name, k].mean() > share[y != name, k].mean() + 0.2
    assert model.score(TEXTS, y) == (model.predict(TEXTS) == y).mean()


def test_thresholds_and_costs_decide(base, folder):
    """predict is not argmax where the library's decision is another one."""
    (folder / "costs.csv").write_text("answer,0,1\n0,0,100\n1,1,0\n")
    y = [int(label == "spam") for label in LABELS]
    settings = {"costs": folder / "costs.csv", "precision": "fp32"}
    model = GPTClassifier(str(base), **QUICK | {"settings": settings}).fit(TEXTS, y)
    assert (model.predict_proba(TEXTS)[:, 1] > 0.3).any()
    assert set(model.predict(TEXTS)) == {0}


# --- weights ---


@pytest.mark.parametrize(("kind", "y"), KINDS)
@pytest.mark.parametrize("settings", [{}, {"balance": "weights"}])
def test_a_weight_is_so_many_rows(kind, y, settings, base):
    """Exactly, up to rounding, where a batch holds all rows."""
    if settings and kind is GPTRegressor:
        pytest.skip("numbers have no classes")
    weights, y = np.arange(len(TEXTS)) % 4, np.asarray(y)
    options = LEARNS | {"epochs": 4, "batch_size": 200, "validation_fraction": 0, "lr": 1e-3}
    model = kind(str(base), **options | {"settings": QUICK["settings"] | settings})
    outputs = "predict" if kind is GPTRegressor else "predict_proba"
    repeated = clone(model).fit(np.repeat(TEXTS, weights), np.repeat(y, weights, axis=0))
    weighted = clone(model).fit(TEXTS, y, sample_weight=7.5 * weights)
    plain = clone(model).fit(TEXTS, y)
    one, two, three = (getattr(each, outputs)(TEXTS) for each in (repeated, weighted, plain))
    assert np.allclose(one, two, atol=2e-5, rtol=1e-5)
    assert np.abs(one - three).max() > 1e-3


def test_weights_go_with_rows_that_are_left_of_several(base):
    texts, y = TEXTS + TEXTS[:10], LABELS + LABELS[:10]
    weights = np.linspace(0.5, 2, len(texts))
    options = QUICK | {"validation_fraction": 0, "batch_size": 100}
    settings = QUICK["settings"] | {"repeats": "drop"}
    dropped = GPTClassifier(str(base), **options | {"settings": settings}).fit(texts, y, weights)
    weights[:10] = (weights[:10] + weights[-10:]) / 2
    same = GPTClassifier(str(base), **options).fit(TEXTS, LABELS, weights[:-10])
    assert np.allclose(dropped.predict_proba(TEXTS), same.predict_proba(TEXTS), atol=1e-6)


def test_weights_with_a_validation_part_and_minibatches(base):
    """Rows of little weight are hardly learnt."""
    wrong = ["spam" if label == "ham" else "ham" for label in LABELS]
    model = GPTClassifier(str(base), **LEARNS | {"settings": {"patience": 3}})
    model.fit(TEXTS + TEXTS, wrong + LABELS, sample_weight=[1e-3] * 60 + [1.0] * 60)
    assert model.score(TEXTS, LABELS) > 0.9


# --- in scikit-learn's hands ---


def test_texts_in_every_shape(base):
    model = GPTClassifier(str(base), **QUICK).fit(TEXTS, LABELS)
    expected = model.predict_proba(TEXTS)
    column = np.array(TEXTS, dtype=object)[:, None]
    frame = pd.DataFrame({"said": TEXTS, "n": range(len(TEXTS))})
    for X in (tuple(TEXTS), pd.Series(TEXTS), np.array(TEXTS), column[:, 0], column, column.tolist()):  # noqa: N806
        assert (model.predict_proba(X) == expected).all()
    assert (clone(model).fit(column, LABELS).predict_proba(TEXTS) == expected).all()
    settings = QUICK["settings"] | {"text_column": "said"}
    named = clone(model).set_params(settings=settings).fit(frame, pd.Series(LABELS))
    assert (named.predict_proba(frame[["n", "said"]]) == expected).all()
    assert named.feature_names_in_.tolist() == ["said", "n"]
    with pytest.raises(ValueError, match="2 features, but GPTClassifier is expecting 1"):
        clone(model).fit(column, LABELS).predict(np.hstack([column, column]))
    both = np.hstack([column, column])
    joined = clone(model).fit(both, LABELS)
    pairs = list(zip(TEXTS, TEXTS, strict=True))
    assert (joined.predict_proba(both) == clone(model).fit(pairs, LABELS).predict_proba(pairs)).all()


def test_pipeline_and_column_transformer(base):
    frame = pd.DataFrame({"text": [text.upper() for text in TEXTS], "n": 1})
    pick = ColumnTransformer([("text", "passthrough", ["text"])])
    lower = FunctionTransformer(np.vectorize(str.lower, otypes=[object]))
    pipe = make_pipeline(pick, lower, GPTClassifier(str(base), **QUICK)).fit(frame, LABELS)
    alone = GPTClassifier(str(base), **QUICK).fit(TEXTS, LABELS)
    assert (pipe.predict_proba(frame) == alone.predict_proba(TEXTS)).all()
    weighted = Pipeline([("gpt", alone)]).fit(TEXTS, LABELS, gpt__sample_weight=np.ones(60))
    assert weighted.score(TEXTS, LABELS) >= 0


def test_a_search_computes_frozen_features_once(base, folder, monkeypatch):
    computed = []
    compute = FeatureCache._compute

    def counting(self, frozen, rows, *rest):
        computed.append(len(rows))
        return compute(self, frozen, rows, *rest)

    monkeypatch.setattr(FeatureCache, "_compute", counting)
    model = GPTClassifier(str(base), **QUICK, train="last_block", cache=folder / "features")
    grid = {"lr": [1e-4, 1e-2]}
    search = GridSearchCV(model, grid, cv=3, refit=False).fit(TEXTS, LABELS)
    assert sum(computed) == 60 + 20, "the first fold's test rows are answered before others train on them"
    files = sorted((folder / "features").rglob("*"))
    plain = GridSearchCV(clone(model).set_params(cache=None), grid, cv=3, refit=False).fit(TEXTS, LABELS)
    assert (search.cv_results_["mean_test_score"] == plain.cv_results_["mean_test_score"]).all()
    model.fit(TEXTS, LABELS).predict(["something else", "see you at home 0"])
    assert computed[-1] == 1
    assert sorted((folder / "features").rglob("*")) == files, "predict adds nothing"


@pytest.mark.slow
def test_processes_train_beside_each_other(base):
    model = GPTClassifier(str(base), **QUICK)
    alone = cross_val_score(model, TEXTS, LABELS, cv=2)
    assert (cross_val_score(model, TEXTS, LABELS, cv=2, n_jobs=2) == alone).all()


def test_calibration_by_scikit_learn(base):
    model = CalibratedClassifierCV(GPTClassifier(str(base), **QUICK), cv=2, ensemble=False).fit(TEXTS, LABELS)
    assert model.predict_proba(TEXTS).shape == (60, 2)


def test_cleanlab_finds_wrong_labels(base):
    cleaner = pytest.importorskip("cleanlab.classification", reason="needs pip install cleanlab")
    find_label_issues = pytest.importorskip("cleanlab.filter").find_label_issues
    flipped = [3, 20, 33, 50]
    y = np.array([label == "spam" for label in LABELS]).astype(int)
    y[flipped] = 1 - y[flipped]
    model = GPTClassifier(str(base), **LEARNS, validation_fraction=0)
    share = cross_val_predict(clone(model).set_params(epochs=5), TEXTS, y, cv=2, method="predict_proba")
    here = {"n_jobs": 1}  # its forked workers, of a process with threads, may never end
    assert find_label_issues(y, share, **here).shape == (60,)
    cleaning = cleaner.CleanLearning(clone(model), cv_n_folds=3, find_label_issues_kwargs=here)
    cleaning.fit(np.array(TEXTS), y)
    assert set(flipped) <= set(np.flatnonzero(cleaning.get_label_issues()["is_label_issue"]))
    assert (cleaning.predict(np.array(TEXTS))[flipped] != y[flipped]).all()


def test_optuna_searches(base):
    optuna = pytest.importorskip("optuna", reason="needs pip install optuna")

    def objective(trial):
        lr = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        pooling = trial.suggest_categorical("pooling", ["last", "mean"])
        model = GPTClassifier(str(base), **QUICK | {"lr": lr, "pooling": pooling})
        return cross_val_score(model, TEXTS, LABELS, cv=2).mean()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=2)
    assert 0 <= study.best_value <= 1
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 2


# --- pickles ---


@pytest.mark.parametrize(("kind", "y"), KINDS)
@pytest.mark.parametrize("options", [{}, {"train": "lora", "settings": {"save": "full"}}])
def test_a_pickle_holds_the_files_of_the_folder_and_no_tensor(kind, y, options, base):
    import joblib

    model = kind(str(base), **QUICK | options).fit(TEXTS, y)
    pickled = pickle.dumps(model)
    named = {value for _, value, _ in pickletools.genops(pickled) if isinstance(value, str)}
    assert {"model.safetensors", "classifier.json"} <= named
    assert not any(name.startswith(("torch", "gptcls.core")) for name in named)
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for again in (
        pickle.loads(pickled),
        joblib.load(file),
        pickle.loads(pickle.dumps(pickle.loads(pickled))),
    ):
        assert np.array_equal(again.predict(TEXTS), model.predict(TEXTS)) or kind is GPTRegressor
        assert np.allclose(again._outputs(TEXTS), model._outputs(TEXTS), atol=1e-5)
        assert again.get_params().keys() == model.get_params().keys()
    assert not hasattr(clone(model), "classifier_")


def test_a_pickle_is_read_elsewhere(base, folder):
    """In another process, without the base weights: all tensors are in it. Nor is another library needed."""
    model = GPTClassifier(str(base), **QUICK).fit(TEXTS, LABELS)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    base.rename(folder / "gone")
    code = "import pickle, sys; model = pickle.load(open('model.pkl', 'rb')); print(*sys.modules)\n"
    code += "print(*model.predict(['win a prize', 'ok thanks']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules, answers = map(str.split, done.stdout.splitlines())
    assert answers == model.predict(["win a prize", "ok thanks"]).tolist()
    assert not {"transformers", "peft", "matplotlib", "sklearn.linear_model"} & {*modules}


# --- several labels, numbers ---


def test_several_labels(base):
    names = [{"spam"} & {label} | ({"long"} if len(text) > 13 else set()) for text, label in ROWS]
    matrix = MultiLabelBinarizer().fit_transform(names)
    model = GPTMultiLabelClassifier(str(base), **LEARNS).fit(TEXTS, matrix)
    given, share = model.predict(TEXTS), model.predict_proba(TEXTS)
    assert given.shape == share.shape == (60, 2)
    assert set(np.unique(given)) <= {0, 1}
    assert f1_score(matrix, given, average="micro") > 0.8
    sparse = clone(model).fit(TEXTS, scipy.sparse.csr_matrix(matrix))
    assert (sparse.predict_proba(TEXTS) == share).all()
    named = clone(model).fit(TEXTS, pd.DataFrame(matrix[:, ::-1], columns=["spam", "long"]))
    assert named.classes_.tolist() == ["spam", "long"]
    assert np.abs(named.predict_proba(TEXTS).mean(axis=0) - matrix.mean(axis=0)[::-1]).max() < 0.2
    assert cross_val_predict(clone(model).set_params(epochs=1), TEXTS, matrix, cv=2).shape == (60, 2)


def test_a_label_that_no_row_has_is_never_given(base):
    y = np.insert(FLAGS, 1, 0, axis=1)
    model = GPTMultiLabelClassifier(str(base), **QUICK).fit(TEXTS, y)
    assert (model.predict_proba(TEXTS)[:, 1] == 0).all()
    assert (model.predict(TEXTS)[:, 1] == 0).all()
    assert (model.predict_proba(TEXTS)[:, [0, 2]] > 0).all()


def test_numbers(base):
    model = GPTRegressor(str(base), **LEARNS).fit(TEXTS, NUMBERS)
    assert model.predict(TEXTS).shape == (60,)
    assert model.score(TEXTS, NUMBERS) > 0.5
    both = clone(model).fit(TEXTS, np.stack([NUMBERS, -100 * NUMBERS], axis=1)).predict(TEXTS)
    assert both.shape == (60, 2)
    assert np.corrcoef(both.T)[0, 1] < -0.9
    assert clone(model).set_params(epochs=1).fit(TEXTS, NUMBERS[:, None]).predict(TEXTS).shape == (60, 1)


# --- what is asked of the rows, and said of mistakes ---


def test_held_out_rows_calibrate(base):
    """Without them probabilities are the softmax of the logits, and a class of one row stays in training."""
    for fraction, n_held in ((None, 6), (0.5, 30), (0, 0)):
        model = GPTClassifier(str(base), **QUICK, validation_fraction=fraction).fit(TEXTS, LABELS)
        assert model.get_params()["validation_fraction"] == fraction
        split = split_to_fit(pd.DataFrame({"text": TEXTS, "label": LABELS}), model._config())
        assert len(split.validation) == n_held
    assert model.classifier_.saved.calibration is None
    rare = ["once", *LABELS[1:]]
    assert GPTClassifier(str(base), **QUICK).fit(TEXTS, rare).classes_.tolist() == ["ham", "once", "spam"]


def test_blank_texts_are_answered_by_the_mean_of_the_rows(base):
    texts, weights = [*TEXTS, "", "  ", None], [1.0] * 60 + [9.0] * 3
    weights[:30] = [3.0] * 30
    model = GPTClassifier(str(base), **QUICK).fit(texts, [*LABELS, "ham", "ham", "ham"], weights)
    ham = np.average(np.array(LABELS) == "ham", weights=weights[:60])
    assert np.allclose(model.predict_proba(["", None, " \n", np.nan]), [[ham, 1 - ham]] * 4)
    assert model.predict([""]).tolist() == [model.classes_[int(ham < 0.5)]]
    assert (model.predict_proba(["", TEXTS[0]])[1] == model.predict_proba(TEXTS)[0]).all()
    number = GPTRegressor(str(base), **QUICK).fit(TEXTS, NUMBERS)
    assert number.predict([" "])[0] == pytest.approx(NUMBERS.mean())


def test_seeds(base):
    def share(**options):
        return GPTClassifier(str(base), **QUICK, **options).fit(TEXTS, LABELS).predict_proba(TEXTS)

    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert (share() == share(random_state=123)).all()
    assert (
        share(random_state=np.random.RandomState(5)) == share(random_state=np.random.RandomState(5))
    ).all()
    assert (share(random_state=1) != share(random_state=2)).any()
    assert (torch.get_rng_state() == before).all(), "the caller's generator is not touched"


def test_settings(base):
    model = GPTClassifier(settings=TrainConfig.of(model=str(base), train="head", epochs=1), epochs=2)
    saved = model.fit(TEXTS, LABELS).classifier_.saved
    assert (saved.training["train"], saved.training["epochs"], saved.training["repeats"]) == (
        "head",
        2,
        "drop",
    )
    own = GPT2(GPT2Config(n_layer=1, n_embd=16, n_head=2, n_positions=32))
    before = own.wte.weight.clone()
    model = GPTClassifier(own, **QUICK | {"train": "all"}).fit(TEXTS, LABELS)
    assert torch.equal(own.wte.weight, before), "a copy is trained"
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(TEXTS).tolist() == model.predict(TEXTS).tolist()


@pytest.mark.parametrize(
    ("options", "X", "y", "error", "words"),
    [
        ({}, "a text", ["a"], ValueError, "single text"),
        ({}, [], [], ValueError, "0 samples"),
        ({}, [1, 2], ["a", "b"], TypeError, "row 0: expected text, got int"),
        ({}, scipy.sparse.eye(2), ["a", "b"], TypeError, "sparse"),
        ({}, ["x", "y"], ["a"], ValueError, r"inconsistent numbers of samples: \[2, 1\]"),
        ({}, ["x", "y"], None, ValueError, "y to be passed"),
        ({}, ["x", "y"], ["a", None], ValueError, "contains NaN"),
        ({}, ["x", "y"], [0.5, 1.5], ValueError, "Unknown label type: continuous"),
        ({}, ["x", "y"], ["a", "a"], ValueError, "one class, 'a'"),
        ({}, ["x", " "], ["a", "b"], ValueError, "n_samples = 1"),
        ({}, ["", " "], ["a", "b"], ValueError, "nothing to train on"),
        ({}, ["x", "y"], ["a", "b"], InputError, "2 texts are too few to draw validation rows.*fraction"),
        ({"validation_fraction": 1.0}, TEXTS, LABELS, InputError, "--validation-fraction 1.0"),
        ({"settings": {"epoch": 1}}, TEXTS, LABELS, TypeError, "did you mean 'epochs'"),
        ({"settings": 3}, TEXTS, LABELS, TypeError, "not int"),
        ({"settings": {"abstain": 0.9}}, TEXTS, LABELS, InputError, "abstain 0.9"),
        ({"settings": {"test": "t.csv"}}, TEXTS, LABELS, InputError, "--test t.csv"),
        ({"settings": {"recipe": "book"}}, TEXTS, LABELS, InputError, "recipe book.*gptcls.train"),
        ({"preset": "fast"}, TEXTS, LABELS, InputError, "--preset 'fast' is unknown; use quick, balanced"),
        ({"settings": {"balance": "even"}}, TEXTS, LABELS, InputError, "--balance 'even' is unknown"),
        ({"lr": 0}, TEXTS, LABELS, InputError, "--lr 0"),
        (
            {"validation_fraction": 0, "preset": "best"},
            TEXTS,
            LABELS,
            InputError,
            "--stack ngrams.*validation",
        ),
        (
            {"validation_fraction": 0, "settings": {"patience": 2}},
            TEXTS,
            LABELS,
            InputError,
            "--patience 2.*validation",
        ),
    ],
)
def test_mistakes(options, X, y, error, words, base):  # noqa: N803
    with pytest.raises(error, match=words):
        GPTClassifier(str(base), **QUICK | options).fit(X, y)


@pytest.mark.parametrize(
    ("weights", "words"),
    [([1, 2], "shape"), ([-1] + [1] * 59, "negative"), ([0] * 60, "zero"), ([np.nan] * 60, "NaN")],
)
def test_weights_that_cannot_be(weights, words, base):
    with pytest.raises(ValueError, match=words):
        GPTClassifier(str(base), **QUICK).fit(TEXTS, LABELS, sample_weight=weights)


def test_labels_and_numbers_that_cannot_be(base):
    with pytest.raises(ValueError, match="MultiLabelBinarizer"):
        GPTMultiLabelClassifier(str(base), **QUICK).fit(TEXTS[:3], [["a"], ["a", "b"], []])
    with pytest.raises(ValueError, match="matrix"):
        GPTMultiLabelClassifier(str(base), **QUICK).fit(TEXTS, LABELS)
    with pytest.raises(ValueError, match="infinity"):
        GPTRegressor(str(base), **QUICK).fit(TEXTS[:2], [1.0, np.inf])
    with pytest.raises(InputError, match="nothing can be learnt"):
        GPTRegressor(str(base), **QUICK).fit(TEXTS[:2], [1.0, 1.0])


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS])
def test_before_fit(kind):
    with pytest.raises(NotFittedError):
        kind().predict(["x"])
    with pytest.raises(NotFittedError):
        kind().save("folder")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(pickle.loads(pickle.dumps(kind(lr=0.1)))) == f"{kind.__name__}(lr=0.1)"
