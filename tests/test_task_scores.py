"""Scores, intervals, tables, pictures and baselines of lists of labels and of numbers."""

import json
import logging
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, bootstrap, spearmanr
from sklearn import metrics
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_union
from sklearn.svm import LinearSVC

from benchmarks import coverage
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.evaluation.baselines import (
    MEAN,
    MOST_FREQUENT,
    PROBE,
    TFIDF,
    LabelBaselines,
    NumberBaselines,
    linear_models,
)
from gptcls.evaluation.intervals import (
    bootstrap_interval,
    f1_draws,
    f1_interval,
    spearman_interval,
    wilson_interval,
)
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.metrics import (
    classification_scores,
    counts_per_text,
    f1_of_sums,
    multilabel_scores,
    regression_scores,
)
from gptcls.evaluation.plots import plot_label_scores, plot_predictions
from gptcls.evaluation.table import LISTS, NUMBERS, format_each, format_scores
from gptcls.evaluation.weighted import multilabel_scores as weighted_multilabel

LABELS = ["anger", "fear", "joy", "never"]
THRESHOLDS = [0.5, 0.3, 0.6, 0.5]


def label_case(n=200, seed=0):
    """Targets and probabilities; nobody has the last label."""
    random = np.random.default_rng(seed)
    targets = random.random((n, 4)) < [0.5, 0.1, 0.3, 0.0]
    noise = random.normal(size=(n, 4)) + 2.0 * targets - 1
    return targets.astype(float), 1 / (1 + np.exp(-noise))


def number_case(n=150, seed=0):
    random = np.random.default_rng(seed)
    targets = random.normal(3, 2, size=(n, 2))
    return targets, targets + random.normal(size=(n, 2)) * [0.5, 3.0]


def strict_json(scores):
    return json.loads(json.dumps(scores, allow_nan=False))


# --- against scikit-learn and scipy ---


def test_the_f1_of_many_texts_is_drawn_in_pieces_of_the_same_stream(monkeypatch):
    counts = np.random.RandomState(0).randint(2, size=(90, 6))
    whole = f1_draws([counts, 1 - counts], "macro")
    monkeypatch.setattr("gptcls.evaluation.intervals.MOST_WEIGHTS", 1000)
    np.testing.assert_allclose(f1_draws([counts, 1 - counts], "macro"), whole, rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_label_lists_equal_scikit_learn(seed):
    targets, probabilities = label_case(seed=seed)
    predicted = probabilities >= THRESHOLDS
    scores = multilabel_scores(targets, probabilities, LABELS, THRESHOLDS)
    assert scores["subset_accuracy"] == pytest.approx(metrics.accuracy_score(targets, predicted))
    right = round(200 * scores["subset_accuracy"])
    assert (scores["subset_accuracy_low"], scores["subset_accuracy_high"]) == wilson_interval(right, 200)
    assert scores["hamming_loss"] == pytest.approx(metrics.hamming_loss(targets, predicted))
    report = metrics.classification_report(
        targets, predicted, target_names=LABELS, output_dict=True, zero_division=0
    )
    for average in ("micro", "macro", "weighted"):
        expected = {k.replace("f1-score", "f1"): v for k, v in report[f"{average} avg"].items()}
        assert scores["averages"][average] | {"support": expected["support"]} == pytest.approx(expected)
    assert scores["macro_f1"] == scores["averages"]["macro"]["f1"]
    for label, threshold in zip(LABELS[:3], THRESHOLDS, strict=False):
        row = {k.replace("f1-score", "f1"): v for k, v in report[label].items()} | {"threshold": threshold}
        assert scores["per_class"][label] == pytest.approx(row)
    expected = metrics.average_precision_score(targets[:, :3], probabilities[:, :3], average="macro")
    assert scores["average_precision"] == pytest.approx(expected)
    assert scores["support"]["never"] == 0
    assert strict_json(scores) == scores


@pytest.mark.parametrize("seed", range(3))
def test_numbers_equal_scikit_learn_and_scipy(seed):
    targets, predicted = number_case(seed=seed)
    both = regression_scores(targets, predicted, ["x", "y"])
    for i, name in enumerate("xy"):
        scores = both["per_number"][name]
        assert scores == regression_scores(targets[:, [i]], predicted[:, [i]], [name])
        assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(targets[:, i], predicted[:, i]))
        rmse = metrics.root_mean_squared_error(targets[:, i], predicted[:, i])
        assert scores["rmse"] == pytest.approx(rmse)
        assert scores["spearman"] == pytest.approx(spearmanr(targets[:, i], predicted[:, i]).statistic)
        for measure in ("mae", "rmse", "spearman"):
            assert scores[f"{measure}_low"] < scores[measure] < scores[f"{measure}_high"]
    assert both["mae"] == pytest.approx(metrics.mean_absolute_error(targets, predicted))
    assert strict_json(both) == both


def test_a_lone_label_is_not_two_classes():
    """To scikit-learn a lone column of 0 and 1 is two classes."""
    targets, probabilities = (each[:, :1] for each in label_case())
    scores = multilabel_scores(targets, probabilities, ["anger"], [0.5])
    given = probabilities[:, 0] >= 0.5
    for name, theirs in (("precision", metrics.precision_score), ("f1", metrics.f1_score)):
        expected = theirs(targets[:, 0], given)
        for average in scores["averages"].values():
            assert average[name] == pytest.approx(expected) == scores["per_class"]["anger"][name]
    assert scores["macro_f1_low"] < scores["macro_f1"] == scores["micro_f1"] < scores["macro_f1_high"]
    nothing = multilabel_scores(np.zeros((3, 1)), np.zeros((3, 1)), ["a"], [0.5])
    assert nothing["averages"]["macro"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    with pytest.raises(InputError, match="2 thresholds"):
        multilabel_scores(targets, probabilities, ["anger"], [0.5, 0.5])


def tables(draw, st=st):
    """Targets and decisions (N, K) of any kind, nearly perfect and empty ones among them."""
    n, n_labels = draw(st.integers(1, 25)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    targets = random.random((n, n_labels)) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return targets, targets ^ (random.random((n, n_labels)) < draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])))


@settings(deadline=None, max_examples=40)
@given(st.composite(tables)())
def test_every_average_is_scikit_learns_and_lies_in_its_interval(table):
    """Also of a lone label, which scikit-learn must be told is not two classes."""
    targets, given = table
    n, n_labels = targets.shape
    scores = multilabel_scores(
        targets, given.astype(float), [f"{k}" for k in range(n_labels)], [0.5] * n_labels
    )
    assert strict_json(scores) == scores
    for average in ("micro", "macro"):
        each = [targets, given] if average == "micro" else None
        if average == "micro":
            expected = metrics.f1_score(*(x.ravel() for x in each), pos_label=True, zero_division=0)
        else:
            columns = zip(targets.T, given.T, strict=True)
            expected = np.mean([metrics.f1_score(*pair, pos_label=True, zero_division=0) for pair in columns])
        found = [scores[f"{average}_f1{end}"] for end in ("", "_low", "_high")]
        assert found[0] == scores["averages"][average]["f1"] == pytest.approx(expected)
        assert found[1] is None or 0 <= found[1] <= found[0] <= found[2] <= 1
    same = weighted_multilabel(targets.astype(float), given.astype(float), [0.5] * n_labels, np.ones(n))
    assert same == pytest.approx({name: scores[name] for name in same})
    twice = weighted_multilabel(targets.astype(float), given.astype(float), [0.5] * n_labels, np.full(n, 2.0))
    assert twice == pytest.approx(same)


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 6), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25))
def test_the_macro_f1_of_classes_lies_in_its_interval(n_classes, pairs):
    true, predicted = np.array(pairs).T % n_classes
    scores = classification_scores(true, np.eye(n_classes)[predicted], [f"{k}" for k in range(n_classes)])
    expected = metrics.f1_score(true, predicted, average="macro", zero_division=0)
    assert scores["f1"] == pytest.approx(expected)
    if len(pairs) > 1:
        assert 0 <= scores["f1_low"] <= scores["f1"] <= scores["f1_high"] <= 1
        assert scores["f1_low"] < scores["f1_high"], "no table is certain"


def test_perfect_answers_to_four_texts_prove_little():
    scores = classification_scores(np.array([0, 1, 2, 0]), np.eye(3)[[0, 1, 2, 0]], list("abc"))
    assert scores["f1_low"] < 0.75
    assert scores["f1_high"] == 1.0
    alone = f1_interval(counts_per_text(np.ones((4, 1), bool), np.ones((4, 1), bool)), "micro", 1.0)
    assert alone[0] == pytest.approx(beta(4.5, 0.5).ppf(0.025), abs=0.06), "Jeffreys' interval of 4 of 4"


@pytest.mark.parametrize("case", [(3, 20, 0.98, True), (20, 100, 0.9, True)])
def test_macro_f1_covers_as_often_as_it_says(case):
    """60 simulated tables each; the percentile bootstrap holds the truth in 35 % of the first."""
    cells = coverage.of_f1(coverage.Options(draws=60, seed=1), *case)
    before, after = (int(cell.split()[0]) for cell in cells[3:])
    assert after >= max(87, before)


def test_averages_of_classes_equal_scikit_learn():
    random = np.random.default_rng(0)
    targets, guesses = (
        random.integers(0, 4, 120),
        random.integers(0, 3, 120),
    )  # nobody predicts the last class
    scores = classification_scores(targets, np.eye(5)[guesses], list("abcde"))  # nor does "e" occur
    report = metrics.classification_report(targets, guesses, output_dict=True, zero_division=0)
    for average in ("macro", "weighted"):
        expected = {k.replace("f1-score", "f1"): v for k, v in report[f"{average} avg"].items()}
        assert scores["averages"][average] | {"support": 120} == pytest.approx(expected)
    assert scores["averages"]["micro"]["f1"] == pytest.approx(scores["accuracy"])
    assert scores["f1_low"] < scores["f1"] < scores["f1_high"]


def test_bootstrap_equals_scipys():
    """The same statistic drawn by scipy; both have the noise of a thousand draws."""
    targets, probabilities = label_case()
    targets, predicted = targets.astype(bool), probabilities >= THRESHOLDS
    counts = counts_per_text(targets, predicted)
    micro = partial(f1_of_sums, over="micro")
    for average in ("micro", "macro"):
        ours = partial(f1_of_sums, over=average)

        def theirs(index, average=average):
            return metrics.f1_score(targets[index], predicted[index], average=average, zero_division=0)

        draw = bootstrap(
            (np.arange(200),), theirs, vectorized=False, n_resamples=150, method="percentile", random_state=1
        )  # fmt: skip
        expected = draw.confidence_interval
        assert bootstrap_interval(counts, ours) == pytest.approx((expected.low, expected.high), abs=0.03)
        assert ours(counts.sum(axis=0)[None])[0] == pytest.approx(theirs(np.arange(200)))
    one_hot = np.eye(5, dtype=bool)
    some, guess = np.array([0, 1, 1, 3, 3]), np.array([0, 1, 0, 3, 1])
    sums = counts_per_text(one_hot[some], one_hot[guess]).sum(axis=0)[None]
    assert f1_of_sums(sums, "seen")[0] == pytest.approx(metrics.f1_score(some, guess, average="macro"))
    assert bootstrap_interval(counts, micro) == bootstrap_interval(counts, micro), "the same draws"
    assert bootstrap_interval(counts[:1], micro) is None
    errors = np.random.default_rng(0).exponential(size=(400, 1))  # the mean's interval has a formula
    low, high = bootstrap_interval(errors, lambda sums: sums[:, 0] / 400)
    assert (high - low) == pytest.approx(2 * 1.96 * errors.std() / 20, rel=0.1)
    assert low < errors.mean() < high


def test_spearmans_interval_covers_as_often_as_it_says():
    """Normal pairs of a known rank correlation, 6 / pi asin(r / 2): 95 of 100 intervals should hold it."""
    random, r, n = np.random.default_rng(0), 0.9, 60
    truth = 6 / np.pi * np.arcsin(r / 2)
    held = 0
    for _ in range(400):
        x = random.normal(size=n)
        y = r * x + np.sqrt(1 - r * r) * random.normal(size=n)
        low, high = spearman_interval(spearmanr(x, y).statistic, n)
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.98
    assert spearman_interval(1.0, 50) == (1.0, 1.0)
    assert spearman_interval(0.5, 3) is None


# --- undefined and wrong ---


def test_undefined_scores_are_none_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nothing = multilabel_scores(np.zeros((0, 2)), np.zeros((0, 2)), ["a", "b"], [0.5, 0.5])
        none_there = multilabel_scores(np.zeros((3, 2)), np.full((3, 2), 0.1), ["a", "b"], [0.5, 0.5])
        no_numbers = regression_scores(np.zeros((0, 1)), np.zeros((0, 1)), ["x"])
        constant = regression_scores(np.array([[1.0], [2.0]]), np.array([[1.5], [1.5]]), ["x"])
        one = regression_scores(np.array([[1.0]]), np.array([[3.0]]), ["x"])
    for scores in (nothing, none_there, no_numbers, constant, one):
        assert strict_json(scores) == scores
    assert (nothing["subset_accuracy"], nothing["macro_f1"], nothing["average_precision"]) == (None,) * 3
    assert (none_there["subset_accuracy"], none_there["hamming_loss"]) == (1.0, 0.0)
    assert none_there["per_class"]["a"]["f1"] is None
    assert (constant["spearman"], constant["mae"]) == (None, 0.5)
    assert (one["mae"], one["mae_low"], one["spearman"]) == (2.0, None, None)
    assert no_numbers["mae"] is None


def test_what_does_not_fit_together():
    with pytest.raises(InputError, match=r"\(3, 2\).*\(3, 3\)"):
        multilabel_scores(np.zeros((3, 2)), np.zeros((3, 3)), ["a", "b"], [0.5, 0.5])
    with pytest.raises(InputError, match=r"\[nan\] in row 1"):
        multilabel_scores(np.zeros((2, 1)), np.array([[0.5], [np.nan]]), ["a"], [0.5])
    with pytest.raises(InputError, match=r"\(3, 1\).*\(2, 1\)"):
        regression_scores(np.zeros((3, 1)), np.zeros((2, 1)), ["x"])
    with pytest.raises(InputError, match=r"\[inf\] in row 1"):
        regression_scores(np.zeros((2, 1)), np.array([[0.0], [np.inf]]), ["x"])


# --- tables ---


def test_tables_are_aligned_and_fit():
    lists = multilabel_scores(*label_case(), LABELS, THRESHOLDS)
    numbers = regression_scores(*(each[:, :1] for each in number_case()), ["x"])
    empty = multilabel_scores(np.zeros((0, 4)), np.zeros((0, 4)), LABELS, THRESHOLDS)
    names = ["train", "test, TF-IDF of words and characters"]
    for columns, rows in (
        (LISTS, [*((n, lists) for n in names), ("none", empty)]),
        (NUMBERS, [("a", numbers)]),
    ):
        lines = format_scores(rows, columns).splitlines()
        assert max(map(len, lines)) <= 100
        assert len({len(line) for line in lines[:3]}) == 1
    text = format_scores([("test", lists)], LISTS)
    assert f"{lists['macro_f1']:.3f} [{lists['macro_f1_low']:.3f}, {lists['macro_f1_high']:.3f}]" in text
    assert f"{numbers['mae']:.4g} [" in format_scores([("test", numbers)], NUMBERS)


def test_per_class_report():
    scores = multilabel_scores(*label_case(), LABELS, THRESHOLDS)
    lines = format_each(scores).splitlines()
    assert lines[0].split() == ["n", "precision", "recall", "F1", "threshold"]
    fear = scores["per_class"]["fear"]
    assert lines[3].split() == ["fear", str(fear["support"]), *(
        f"{fear[name]:.3f}" for name in ("precision", "recall", "f1", "threshold"))]  # fmt: skip
    assert [line.split()[0] for line in lines[-3:]] == ["micro", "macro", "weighted"]
    assert lines[-2].split()[-1] == f"{scores['macro_f1']:.3f}"
    two = classification_scores(np.array([0, 1]), np.eye(2), ["a", "b"])
    assert judge_of(SingleLabel(("a", "b"))).details(two) == ""  # the table's line says it
    both = regression_scores(*number_case(), ["x", "y"])
    assert [line.split()[0] for line in format_each(both).splitlines()[2:]] == ["x", "y"]
    assert format_each(both["per_number"]["x"]) == ""


# --- pictures ---


def saved(figure, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "figure.png")
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert 0 <= drawn.x0 < drawn.x1 <= width
    assert 0 <= drawn.y0 < drawn.y1 <= height
    return figure


@pytest.mark.draws
def test_bars_of_labels(tmp_path):
    per_class = multilabel_scores(*label_case(), LABELS, THRESHOLDS)["per_class"]
    axes = saved(plot_label_scores(per_class), tmp_path).axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    by_f1 = sorted(LABELS, key=lambda name: per_class[name]["f1"] or 0)
    assert names == [f"{name} ({per_class[name]['support']})" for name in by_f1]
    assert [bar.get_width() for bar in axes.patches] == [per_class[name]["f1"] or 0 for name in by_f1]
    many = {f"label {i}": {"precision": 0.5, "recall": None, "f1": 0.1, "support": i} for i in range(100)}
    axes = saved(plot_label_scores(many), tmp_path).axes[0]
    assert len(axes.patches) == 60
    assert "60 most frequent of 100" in axes.get_xlabel()


@pytest.mark.draws
def test_scatter_of_numbers(tmp_path):
    targets, predicted = number_case()
    figure = saved(plot_predictions(targets, predicted, ["x", "y"]), tmp_path)
    assert [axes.get_title() for axes in figure.axes] == ["x", "y"]
    line, dots = figure.axes[1].lines
    assert list(line.get_xdata()) == list(line.get_ydata())
    assert list(dots.get_ydata()) == list(predicted[:, 1])
    assert len(saved(plot_predictions(np.zeros((0, 9)), np.zeros((0, 9)), "abcdefghi"), tmp_path).axes) == 6


# --- baselines ---

TEXTS = ["win a prize", "see you soon", "win a car", "soon, my dear", "prize for my dear"]
LISTED = np.array([[1, 0], [0, 0], [1, 0], [0, 1], [1, 1]], dtype=np.float32)


def test_label_baselines_are_scikit_learns(monkeypatch):
    parts = {
        "train": (TEXTS, LISTED),
        "validation": (TEXTS[:4], LISTED[:4]),
        "test": (["a dear prize"], LISTED[4:]),
    }
    only = {"linear SVM, C=1": linear_models()["linear SVM, C=1"]}
    monkeypatch.setattr("gptcls.evaluation.baselines.linear_models", lambda: only)
    monkeypatch.setattr("gptcls.evaluation.baselines.FEWEST", 4)
    results = LabelBaselines(["win", "dear"]).scores(parts)
    assert results[MOST_FREQUENT]["test"]["per_class"]["win"]["recall"] == 1.0
    assert results[MOST_FREQUENT]["test"]["per_class"]["dear"]["recall"] == 0.0
    ngrams = union().fit(TEXTS)
    each = [LinearSVC(C=1, random_state=0).fit(ngrams.transform(TEXTS), column) for column in LISTED.T]
    decisions = np.stack([svm.decision_function(ngrams.transform(TEXTS[:4])) for svm in each], axis=1)
    ranked = average_precision_score(LISTED[:4], decisions)
    assert results[TFIDF]["validation"]["average_precision"] == pytest.approx(ranked)
    # The thresholds are those that the validation rows ask for: nothing is better on them.
    assert results[TFIDF]["validation"]["macro_f1"] == 1.0
    assert LabelBaselines(["win", "dear"]).scores({"train": parts["train"]})


def union():
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return make_union(words, TfidfVectorizer(analyzer="char", ngram_range=(1, 5), sublinear_tf=True))


def test_number_baselines_are_scikit_learns(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    random = np.random.RandomState(0)
    names = ["good", "fine", "bad", "poor", "film", "plot", "cast"]
    texts = [" ".join(random.choice(names, 5)) for _ in range(450)]
    targets = np.array([[text.count("good") - 2.0 * text.count("bad")] for text in texts])
    targets += random.normal(size=targets.shape)
    cut = {"train": slice(200), "validation": slice(200, 400), "test": slice(400, None)}
    parts = {part: (texts[rows], targets[rows]) for part, rows in cut.items()}
    results = NumberBaselines(["x"]).scores(parts)
    assert results[MEAN]["test"]["mae"] == pytest.approx(abs(targets[400:] - targets[:200].mean()).mean())
    ngrams = union().fit(texts[:200])
    x = {part: ngrams.transform(each) for part, (each, _) in parts.items()}
    errors = {}
    for alpha in (0.1, 0.3, 1, 3, 10):
        ridge = Ridge(alpha=alpha, solver="lsqr", tol=1e-8).fit(x["train"], targets[:200, 0])
        off = (abs(ridge.predict(x[part]) - parts[part][1][:, 0]).mean() for part in ("validation", "test"))
        errors[alpha] = tuple(off)
    best = min(errors, key=errors.get)
    assert f"ridge regression, alpha={best:g}" in caplog.text
    assert results[TFIDF]["test"]["mae"] == pytest.approx(errors[best][1], rel=1e-3)
    # The probe, on vectors that hold the numbers themselves.
    vectors = {part: (np.hstack([y, -y]), y) for part, (_, y) in parts.items()}
    assert NumberBaselines(["x"]).scores(parts, vectors)[PROBE]["test"]["mae"] < 0.02


def test_baselines_without_texts_or_rows(caplog):
    with caplog.at_level(logging.INFO, "gptcls"):
        blank = {"train": (["", ""], LISTED[:2]), "test": ([], LISTED[:0])}
        results = LabelBaselines(["a", "b"]).scores(blank)
        assert list(NumberBaselines(["x"]).scores({"train": (["", ""], np.eye(2)[:, :1])})) == [MEAN]
    assert list(results) == [MOST_FREQUENT]
    assert caplog.text.count(f"{TFIDF} left out") == 2
    with pytest.raises(InputError, match="train"):
        NumberBaselines(["x"]).scores({"train": ([], np.zeros((0, 1)))})
    constant = {"train": (TEXTS, np.ones((5, 2))), "test": (TEXTS, np.ones((5, 2)))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert LabelBaselines(["a", "b"]).scores(constant)[TFIDF]["test"]["subset_accuracy"] == 1.0
        for ones in (np.ones((5, 1)), np.ones((1, 1))):
            one = {"train": (TEXTS[: len(ones)], ones), "test": (TEXTS, np.ones((5, 1)))}
            assert LabelBaselines(["a"]).scores(one)[TFIDF]["test"]["subset_accuracy"] == 1.0


def test_the_baseline_of_a_lone_label():
    parts = {"train": (TEXTS, LISTED[:, 1:]), "test": (["a dear prize"], LISTED[4:, 1:])}
    (scores,) = LabelBaselines(["dear"]).scores(parts)[TFIDF]["test"]["per_class"].values()
    assert scores["recall"] == 1.0
