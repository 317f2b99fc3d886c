"""--stack ngrams: the network's answers mixed with those of the n-gram baseline, against scikit-learn."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import ROWS
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.svm import LinearSVC

from gptcls import fit, load_classifier, train
from gptcls.classify.mixture import NETWORK
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.classify.store import read_classifier, save_classifier
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset
from gptcls.core.errors import InputError
from gptcls.evaluate import evaluate
from gptcls.evaluation.baselines import TFIDF, ClassBaselines, linear_models
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.ngrams import NgramModel
from gptcls.pseudo_label import PseudoLabelConfig, pseudo_label
from gptcls.train import run as train_run

TASKS = ("single", "multi", "regression")
QUICK = {
    "epochs": 8, "max_length": 16, "device": "cpu", "lr": 3e-3, "train": "all", "pooling": "mean",
    "precision": "fp32", "calibrate": "none",
}  # fmt: skip
WORDS = "time year people way day man thing woman life child world school".split()  # noqa: SIM905
WORDS += "state family student group country problem hand part place case week company".split()  # noqa: SIM905
SIZES = {"train": 150, "validation": 220, "test": 60}
NEW = ["time year week week", "people never seen", "?!"]


def rows_of(task: str, n: int, random: np.random.RandomState) -> pd.DataFrame:
    """Texts of ten words, of which each of three topics prefers some, and not by much."""
    topics = random.randint(3, size=n)
    words = np.array(WORDS)
    weights = [np.where(np.arange(24) // 8 == k, 2.5, 1.0) for k in range(3)]
    texts = [" ".join(random.choice(words, 10, p=weights[k] / weights[k].sum())) for k in topics]
    labels = [f"t{k}" for k in topics]
    if task == "multi":
        labels = [
            [f"t{k}"] + (["long"] if "time" in text.split() else [])
            for k, text in zip(topics, texts, strict=True)
        ]
    if task == "regression":
        labels = [50.0 + 10 * k + random.normal() for k in topics]
    return pd.DataFrame({"text": texts, "label": labels})


@pytest.fixture(scope="module")
def module_base(tmp_path_factory):
    """Tiny random weights, as the fixture ``base`` makes them."""
    from conftest import base

    return base.__wrapped__(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=TASKS)
def run(request, module_base, tmp_path_factory):
    random = np.random.RandomState(0)
    parts = {part: rows_of(request.param, n, random) for part, n in SIZES.items()}
    out = tmp_path_factory.mktemp("stack") / "run"
    return train(
        data=parts, task=request.param, model=str(module_base), stack="ngrams", clean=True, out=out, **QUICK
    )


# --- the formula ---


def logits_of(run, texts) -> np.ndarray:
    saved = run.classifier
    rows = TextDataset(list(texts), torch.zeros(len(texts)), saved.max_length)
    return dataset_logits(saved.model, rows, torch.device("cpu")).double().numpy()


def network_of(run, logits, temperature):
    """By hand."""
    task = run.classifier.task
    if task.name == "regression":
        return logits * np.array(task.scales) + np.array(task.means)
    return softmax(logits / temperature, axis=1) if task.name == "single" else expit(logits / temperature)


def decisions_of(run, model_name, texts) -> np.ndarray:
    """The chosen model's, of a pipeline fitted here on the training rows."""
    task, train_texts = run.classifier.task, run.split.train["text"].tolist()
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    ngrams = make_union(words, TfidfVectorizer(analyzer="char", ngram_range=(1, 5), sublinear_tf=True))
    targets = run.targets["train"]
    if task.name == "regression":
        alpha = float(model_name.split("=")[1])
        return make_pipeline(ngrams, Ridge(alpha=alpha)).fit(train_texts, targets).predict(texts)
    model = linear_models()[model_name]
    if task.name == "multi" or not isinstance(model, LinearSVC):
        model = OneVsRestClassifier(model)
    return make_pipeline(ngrams, model).fit(train_texts, targets.astype(int)).decision_function(texts)


def log_losses(task, logits, targets) -> np.ndarray:
    if task.name == "single":
        return -log_softmax(logits, axis=1)[np.arange(len(targets)), targets]
    return -log_expit((2 * targets - 1) * logits)


def ngrams_of(run, caplog_text, texts) -> np.ndarray:
    task = run.classifier.task
    held, said = run.split.validation["text"].tolist(), re.search(f"{TFIDF}: (.*?);", caplog_text)[1]
    scale = 1.0
    if task.has_probabilities:
        decisions = decisions_of(run, said, held)
        losses = lambda x: log_losses(task, np.exp(x[0]) * decisions, run.targets["validation"]).mean()  # noqa: E731
        scale = np.exp(
            minimize(losses, [0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x[0]
        )
    found = scale * decisions_of(run, said, texts)
    activation = {"single": lambda z: softmax(z, axis=1), "multi": expit, "regression": lambda z: z}
    return activation[task.name](found).reshape(len(texts), -1)


@pytest.fixture(scope="module")
def by_hand(run):
    """The chosen model's name is in the log alone: the choice again."""
    import logging

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("gptcls")
    level = log.level
    log.addHandler(handler)
    log.setLevel("INFO")
    texts = {part: (f["text"].tolist(), run.targets[part]) for part, f in run.split.items()}
    task = run.classifier.task
    train_run.judge_of(task).rivals(task.labels).scores(texts)
    log.removeHandler(handler)
    log.setLevel(level)
    return "\n".join(lines)


def test_outputs_are_the_weighted_mean_of_network_and_pipeline(run, by_hand):
    mixture, texts = run.classifier.mixture, run.split.test["text"].tolist() + NEW
    w, temperature = mixture.weight, mixture.temperature
    network, ngrams = network_of(run, logits_of(run, texts), temperature), ngrams_of(run, by_hand, texts)
    assert 0.02 < w < 0.98, "else one of them says nothing"
    scale = 1 if run.classifier.task.has_probabilities else 50
    found = run.predictor.outputs(texts)
    np.testing.assert_allclose(found, (1 - w) * network + w * ngrams, atol=2e-5 * scale)
    np.testing.assert_allclose(run.outputs["test"], found[:-3], atol=1e-5 * scale)


def by_formula(task, targets, outputs) -> float:
    """Log loss with targets as Platt has them; squared error."""
    if task.name == "regression":
        return (((outputs - targets) / targets.std(axis=0)) ** 2).mean()
    if task.name == "multi":
        unsure = 1 / (targets.size + 2)
        soft = np.where(targets == 1, 1 - unsure, unsure)
        return -(soft * np.log(outputs) + (1 - soft) * np.log(1 - outputs)).mean()
    n, k = outputs.shape
    soft = np.full((n, k), 1 / (n + 2) / (k - 1))
    soft[np.arange(n), targets] = 1 - 1 / (n + 2)
    return -(soft * np.log(outputs)).sum(axis=1).mean()


def test_temperature_and_weight_have_the_smallest_loss(run):
    mixture, task, targets = run.classifier.mixture, run.classifier.task, run.targets["validation"]
    texts = run.split.validation["text"].tolist()
    logits, theirs = logits_of(run, texts), mixture.ngrams.outputs(texts).astype(float)
    assert (mixture.temperature == 1.0) == (task.name == "regression")

    def lost(w, temperature):
        network = network_of(run, logits, temperature)
        return by_formula(task, targets, (1 - w) * network + w * theirs)

    w, temperature = mixture.weight, mixture.temperature
    for step in (-0.02, 0.02):
        assert lost(w + step, temperature) > lost(w, temperature)
        if task.has_probabilities:
            assert lost(0, temperature * (1 + step)) > lost(0, temperature)


def test_thresholds_are_those_of_the_mixture(run):
    if run.classifier.task.name != "multi":
        pytest.skip("only lists of labels have thresholds")
    from gptcls.evaluation.metrics import best_thresholds

    tuned = best_thresholds(run.targets["validation"], run.outputs["validation"])
    assert run.classifier.task.thresholds == tuple(tuned)


# --- few rows ---


def test_few_validation_rows_fit_no_weight(base, caplog):
    caplog.set_level("INFO", "gptcls")
    run = fit(pd.DataFrame(ROWS, columns=["text", "label"]), base, stack="ngrams", **QUICK)
    n, mixture = len(run.split.validation), run.classifier.mixture
    assert (mixture.weight, n) == (0.5, 6)
    (line,) = (line for line in caplog.messages if line.startswith("answers:"))
    assert f"0.50 of {TFIDF}, 0.50 of the network at temperature {mixture.temperature:.2f}" in line
    assert f"{n} validation rows are too few" in line
    logits, targets = logits_of(run, run.split.validation["text"]), run.targets["validation"]
    losses = [
        by_formula(run.classifier.task, targets, softmax(logits / t, axis=1))
        for t in mixture.temperature * np.array([1, 0.97, 1.03])
    ]
    assert losses[0] == min(losses)


def test_a_network_that_is_right_on_few_rows_is_not_made_certain(base):
    run = fit(pd.DataFrame(ROWS, columns=["text", "label"]), base, stack="ngrams", **QUICK | {"epochs": 12})
    shares = softmax(
        logits_of(run, run.split.validation["text"]) / run.classifier.mixture.temperature, axis=1
    )
    assert shares.argmax(axis=1).tolist() == run.targets["validation"].tolist(), "as the test assumes"
    assert shares.max(axis=1).mean() == pytest.approx(7 / 8, abs=0.02), "Laplace: 7 of 8"


# --- what is reported ---


def test_both_parts_are_reported(run):
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["scores"] == run.scores
    assert next(iter(metrics["baselines"])) == NETWORK
    assert TFIDF in metrics["baselines"]
    measure = {"single": "accuracy", "multi": "micro_f1", "regression": "mae"}[run.classifier.task.name]
    alone, ngrams = (metrics["baselines"][name]["test"][measure] for name in (NETWORK, TFIDF))
    assert alone != ngrams
    if run.classifier.task.name == "single":
        right = logits_of(run, run.split.test["text"]).argmax(axis=1) == run.targets["test"]
        assert alone == pytest.approx(right.mean())
    answers = pd.read_csv(run.folder / "predictions.csv")
    assert len(answers) == SIZES["validation"] + SIZES["test"]


# --- in a folder ---


def test_a_saved_classifier_answers_as_in_the_run(run, tmp_path):
    loaded = load_classifier(run.folder, "cpu", "fp32")
    texts = [*run.split.test["text"], *NEW, " ", None]
    found, expected = loaded.outputs(texts), run.predictor.outputs(texts)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.isnan(found[-2:]).all()
    assert loaded.predict(texts) == run.predict(texts)
    assert loaded.predict(texts)[-2:] == [None, None]
    np.testing.assert_array_equal(loaded.outputs("time\x07  year!!!!!"), loaded.outputs("time year!!!"))
    spec = json.loads((run.folder / "classifier" / "classifier.json").read_text())
    assert spec["mixture"] == run.classifier.mixture.to_json()
    assert {"ngrams.json", "ngrams.safetensors"} < {p.name for p in (run.folder / "classifier").iterdir()}


def test_evaluate_and_classify_use_it(run, tmp_path):
    scores = evaluate(model=str(run.folder), device="cpu", precision="fp32")
    measure = {"single": "accuracy", "multi": "micro_f1", "regression": "mae"}[run.classifier.task.name]
    assert scores[measure] == pytest.approx(run.scores["test"][measure], rel=1e-5)
    run.split.test[["text"]].to_csv(tmp_path / "in.csv", index=False)
    options = {"data": tmp_path / "in.csv", "out": tmp_path / "out.csv", "precision": "fp32"}
    classify(ClassifyConfig(model=str(run.folder), device="cpu", **options))
    table = pd.read_csv(tmp_path / "out.csv")
    if run.classifier.task.has_probabilities:
        probabilities = table[[name for name in table if name.startswith("probability_")]]
        np.testing.assert_allclose(probabilities, run.outputs["test"], atol=2e-6)
    if run.classifier.task.name == "single":
        np.testing.assert_allclose(run.outputs["test"].sum(axis=1), 1, atol=1e-5)
        out = tmp_path / "sure.csv"
        config = PseudoLabelConfig(
            model=str(run.folder), data=tmp_path / "in.csv", out=out, confidence=0.4, device="cpu"
        )
        assert sum(pseudo_label(config)[-1].taken.values()) == (run.outputs["test"].max(axis=1) >= 0.4).sum()


def test_the_mixture_is_what_is_calibrated(run, tmp_path):
    task, texts = run.classifier.task, run.split.test["text"].tolist()
    if not task.has_probabilities:
        return
    p, k = run.predict_proba(texts).astype(float), task.n_outputs
    calibration = Calibration((1.7,)) if task.name == "single" else Calibration((1.7,) * k, (0.3,) * k)
    save_classifier(tmp_path / "x", replace(run.classifier, calibration=calibration))
    found = load_classifier(tmp_path / "x", "cpu", "fp32").predict_proba(texts)
    if task.name == "single":
        np.testing.assert_array_equal(found.argmax(axis=1), p.argmax(axis=1))
        np.testing.assert_allclose(found, softmax(np.log(p) / 1.7, axis=1), atol=1e-5)
    else:
        np.testing.assert_allclose(found, expit(np.log(p / (1 - p)) / 1.7 + 0.3), atol=1e-5)


def _rewritten(change):
    def damage(folder):
        tensors = dict(load_file(folder / "ngrams.safetensors"))
        change(tensors)
        save_file(tensors, folder / "ngrams.safetensors")

    return damage


def _edited(file, change):
    def damage(folder):
        spec = json.loads((folder / file).read_text())
        change(spec)
        (folder / file).write_text(json.dumps(spec))

    return damage


def _twice(spec):
    ngrams = spec["blocks"][0]["ngrams"]
    ngrams[0] = ngrams[1]


@pytest.fixture(scope="module")
def small(module_base, tmp_path_factory):
    out = tmp_path_factory.mktemp("small") / "run"
    rows = pd.DataFrame(ROWS, columns=["text", "label"])
    train(data=rows, model=str(module_base), preset="best", out=out, save="full", **QUICK | {"epochs": 1})
    return out / "classifier"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "ngrams.json").unlink(), "ngrams.json"),
        (lambda f: (f / "ngrams.safetensors").unlink(), "damaged .*ngrams.safetensors"),
        (lambda f: (f / "ngrams.json").write_text("{"), "ngrams.json is not JSON"),
        (lambda f: (f / "ngrams.json").write_bytes(b'"\xff'), "ngrams.json is not JSON"),
        (lambda f: (f / "ngrams.safetensors").write_bytes(b"1234567890"), "damaged"),
        (_edited("ngrams.json", lambda s: s.update(activation="sigmoid")), "'sigmoid', .* 'softmax'"),
        (_edited("ngrams.json", lambda s: s["blocks"][0]["ngrams"].pop()), "float32 .* n-grams of"),
        (_edited("ngrams.json", lambda s: s["blocks"][0].update(ngram_range=[5, 2])), "damaged"),
        (_edited("ngrams.json", lambda s: s["blocks"][0].update(analyzer="words")), "damaged"),
        (_edited("ngrams.json", lambda s: s["blocks"][0]["ngrams"].__setitem__(0, 7)), "damaged"),
        (_edited("ngrams.json", lambda s: s["blocks"].clear()), "damaged"),
        (_edited("ngrams.json", _twice), "damaged .*[Dd]uplicate"),
        (_rewritten(lambda t: t.pop("idf")), "damaged .*idf"),
        (_rewritten(lambda t: t["idf"].__setitem__(0, np.nan)), "idf in ngrams.safetensors"),
        (_rewritten(lambda t: t["coefficients"].__setitem__((0, 0), np.inf)), "coefficients in ngrams"),
        (_edited("classifier.json", lambda s: s["mixture"].update(weight=1.5)), "weight and a temperature"),
        (_edited("classifier.json", lambda s: s["mixture"].update(temperature=0)), "weight and a temp"),
        (_edited("classifier.json", lambda s: s.update(mixture=[])), "weight and a temperature"),
    ],
)  # fmt: skip
def test_damage_is_one_line(small, tmp_path, damage, message):
    import shutil

    shutil.copytree(small, tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(InputError, match=message) as error:
        read_classifier(tmp_path / "x")
    assert "\n" not in str(error.value)


# --- the option ---


def test_best_stacks_and_says_so(small):
    spec = json.loads((small / "classifier.json").read_text())
    assert spec["training"]["stack"] == "ngrams"
    assert spec["mixture"]["weight"] == 0.5


def test_it_can_be_left_out_of_best_and_is_not_in_balanced(base):
    rows = pd.DataFrame(ROWS, columns=["text", "label"])
    for options in ({"preset": "best", "stack": "none"}, {"preset": "balanced"}):
        run = fit(rows, base, **QUICK | {"epochs": 1}, **options)
        assert run.classifier.mixture is None
        assert NETWORK not in run.baselines


def test_not_with_the_book(run_main):
    status, out, said = run_main(train_run, "--recipe", "book", "--stack", "ngrams")
    assert (status, out) == (2, "")
    assert "--stack ngrams" in said
    status, _, said = run_main(train_run, "--stack", "svm")
    assert status == 2
    assert "ngrams" in said


def test_texts_without_words_have_characters(base):
    rows = pd.DataFrame([("!" * i, "ab"[i % 2]) for i in range(1, 41)], columns=["text", "label"])
    run = fit(rows, base, stack="ngrams", **QUICK | {"epochs": 1})
    assert run.classifier.mixture is not None
    assert np.isfinite(run.predict_proba(["!", "word"])).all()


def test_without_ngrams_the_network_answers_alone_and_the_log_says_so(base, monkeypatch, caplog):
    caplog.set_level("INFO", "gptcls")
    # As where --extra alone brings the second class: the baselines do without its rows.
    monkeypatch.setattr(ClassBaselines, "unfit", lambda self, targets: "its training texts hold one class")
    run = fit(pd.DataFrame(ROWS, columns=["text", "label"]), base, stack="ngrams", **QUICK | {"epochs": 1})
    assert run.classifier.mixture is None
    assert "--stack ngrams: there are none, so the network answers alone" in caplog.messages


def test_a_class_without_training_rows_has_no_share(tmp_path):
    baselines = ClassBaselines(["a", "b", "c"])
    baselines.scores({"train": (["one", "two", "one two", "three"], np.array([0, 2, 0, 2]))})
    baselines.ngram_model().save(tmp_path)
    shares = NgramModel.read(tmp_path, "softmax", 3).outputs(["one", "four"])
    assert not shares[:, 1].any()
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
