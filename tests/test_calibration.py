"""Calibration and the calibration error, against scikit-learn, scipy and formulas written out."""

import logging

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from gptcls.evaluation.calibration import (
    Calibration,
    calibration_scores,
    claims_of,
    expected_calibration_error,
    fit_calibration,
)
from gptcls.evaluation.plots import plot_coverage, plot_reliability


def rows(n: int, k: int, sure: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, k) that are ``sure`` times too large, and classes drawn from the true ones."""
    random = np.random.RandomState(seed)
    logits = 1.5 * random.normal(size=(n, k))
    targets = (softmax(logits, axis=1).cumsum(axis=1) < random.uniform(size=(n, 1))).sum(axis=1)
    return sure * logits, targets


def lists(n: int, k: int, sure: float, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    logits = random.normal(size=(n, k)) - 1
    return sure * logits + shift, (random.uniform(size=(n, k)) < expit(logits)).astype(np.float32)


# --- the error ---


def test_bins_are_scikit_learns():
    logits, targets = rows(500, 2, 2.0)
    p = softmax(logits, axis=1)
    share, mean = calibration_curve(targets, p[:, 1], n_bins=10)
    bins = calibration_scores(targets, p)["bins"]
    np.testing.assert_allclose([row["share"] for row in bins], share)
    np.testing.assert_allclose([row["probability"] for row in bins], mean)
    assert sum(row["n"] for row in bins) == 500


@pytest.mark.parametrize("k", [2, 5])
def test_the_error_is_the_formula(k):
    logits, targets = rows(300, k, 2.0)
    p = softmax(logits, axis=1)
    sure, true = (p[:, 1], targets == 1) if k == 2 else (p.max(axis=1), p.argmax(axis=1) == targets)
    by_hand = 0.0
    for low in range(10):
        inside = [i for i in range(300) if low <= 10 * sure[i] < low + 1]
        if inside:
            accuracy, confidence = np.mean([true[i] for i in inside]), np.mean([sure[i] for i in inside])
            by_hand += len(inside) / 300 * abs(accuracy - confidence)
    scores = calibration_scores(targets, p)
    assert scores["ece"] == pytest.approx(by_hand)
    assert scores["log_loss"] == pytest.approx(log_loss(targets, p, labels=range(k)))


def test_every_label_of_a_list_is_a_claim():
    logits, targets = lists(200, 3, 1.0, 0.0)
    p = expit(logits)
    claims = claims_of(targets, p)
    assert claims.probabilities.shape == claims.true.shape == (200, 3)
    alone = calibration_scores(targets.reshape(-1, 1), p.reshape(-1, 1))
    assert calibration_scores(targets, p)["ece"] == pytest.approx(alone["ece"])


def test_the_interval_holds_the_value_and_covers_the_truth():
    """The truth of an over-sure classifier is known here; a calibrated one's error is 0."""
    held = {1.0: 0, 2.0: 0}
    for sure in held:
        many, _ = rows(100_000, 2, sure, seed=1)
        p, q = softmax(many, axis=1)[:, 1:], softmax(many / sure, axis=1)[:, 1:]
        truth = expected_calibration_error(p, q)
        for seed in range(60):
            logits, targets = rows(300, 2, sure, seed=seed + 2)
            scores = calibration_scores(targets, softmax(logits, axis=1))
            assert 0 <= scores["ece_low"] <= scores["ece"] <= scores["ece_high"] <= 1
            held[sure] += scores["ece_low"] - 1e-12 <= truth <= scores["ece_high"] + 1e-12
    assert truth > 0.05
    assert min(held.values()) >= 53, held


def test_all_right_and_nothing_at_all():
    scores = calibration_scores(np.array([0, 1, 1]), np.array([[1.0, 0], [0, 1], [0, 1]]))
    assert (scores["ece"], scores["ece_low"], scores["log_loss"]) == (0, 0, 0)
    none = calibration_scores(np.zeros(0, int), np.zeros((0, 2)))
    assert (none["ece"], none["bins"]) == (None, [])
    plot_reliability(none)
    plot_coverage(np.zeros(0), np.zeros(0, bool))


# --- the temperature ---


@pytest.mark.parametrize("k", [2, 4])
def test_the_temperature_is_scipys(k):
    logits, targets = rows(400, k, 3.0)
    calibration = fit_calibration(targets, softmax(logits, axis=1))

    def loss(x):
        return -log_softmax(logits / np.exp(x[0]), axis=1)[np.arange(400), targets].mean()

    theirs = np.exp(minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14}).x[0])
    assert calibration.temperatures[0] == pytest.approx(theirs, rel=1e-3)
    assert 2 < theirs < 4.5
    before, after = softmax(logits, axis=1), calibration.outputs(softmax(logits, axis=1), several=False)
    np.testing.assert_allclose(after, softmax(logits / theirs, axis=1), atol=1e-3)
    assert calibration_scores(targets, after)["ece"] < calibration_scores(targets, before)["ece"] / 2


def test_no_temperature_below_one(caplog):
    caplog.set_level(logging.INFO, "gptcls")
    logits, targets = rows(400, 3, 0.4)
    assert fit_calibration(targets, softmax(logits, axis=1)) is None
    assert "not too sure on 400 validation rows" in caplog.text
    sure = np.where(np.eye(3)[targets] > 0, 8.0, 0.0)
    sure[:3] = sure[:3, ::-1]
    lucky = fit_calibration(targets[3:], softmax(sure[3:], axis=1))
    assert lucky is None, "where nothing is wrong nothing is fitted"


@pytest.mark.parametrize("temperature", [1.0001, 3.0, 20.0])
def test_no_answer_changes(temperature):
    random = np.random.RandomState(0)
    close = np.array([[0.5, 0.5 + 3e-8], [0.5 + 3e-8, 0.5], [1, 1e-30], [0.5, 0.5]])
    p = np.concatenate([close, random.dirichlet([0.1, 0.1], 2000)])
    after = Calibration((temperature,)).outputs(p, several=False)
    np.testing.assert_array_equal(after.argmax(axis=1), p.argmax(axis=1))
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)


def test_a_label_has_a_line_of_its_own_as_logistic_regression_fits_it():
    logits, targets = lists(3000, 3, 3.0, 1.0)
    targets[:, 2] = 0
    targets[:4, 2] = 1  # too few for a line
    calibration = fit_calibration(targets, expit(logits))
    for k in (0, 1):
        theirs = LogisticRegression(C=np.inf, tol=1e-8).fit(logits[:, [k]], targets[:, k])
        assert 1 / calibration.temperatures[k] == pytest.approx(theirs.coef_[0, 0], rel=0.02)
        assert calibration.shifts[k] == pytest.approx(theirs.intercept_[0], abs=0.03)
    assert calibration.shifts[2] == 0


def test_thresholds_move_along_so_that_labels_stay():
    logits, targets = lists(800, 4, 2.5, 0.5)
    p, thresholds = expit(logits), (0.5, 0.2, 0.83, 0.999)
    calibration = fit_calibration(targets, p)
    after, moved = calibration.outputs(p, several=True), calibration.moved(thresholds)
    assert moved != thresholds
    np.testing.assert_array_equal(p >= thresholds, after.astype(np.float32) >= np.array(moved))
