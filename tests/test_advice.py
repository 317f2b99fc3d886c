"""What a run says would help next: the first rule that its scores fit."""

from copy import deepcopy
from dataclasses import replace

import pandas as pd
import pytest
from helpers.tiny import ROWS

from gptcls.classify.mixture import NETWORK
from gptcls.evaluation.baselines import MAJORITY, PROBE, TFIDF
from gptcls.train.advice import advice
from gptcls.train.run import Run, fit


@pytest.fixture(scope="module")
def run() -> Run:
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    return fit(frame, train="head", epochs=1, max_length=16, device="cpu")


def with_scores(
    run: Run, train: float, validation: float, baseline: float, recall: float = 0.9, **options
) -> Run:
    scores = deepcopy(run.scores)
    scores["train"]["accuracy"], scores["validation"]["accuracy"] = train, validation
    for values in scores["validation"]["per_class"].values():
        values |= {"recall": recall, "support": 10}
    baselines = {name: {"validation": {"accuracy": 1.0}} for name in (MAJORITY, PROBE)}
    baselines[TFIDF] = {"validation": {"accuracy": baseline}}
    if options.get("stack") == "ngrams":
        baselines[NETWORK] = {"validation": {"accuracy": 0.95}}
    return replace(run, scores=scores, baselines=baselines, config=run.config.changed(**options))


@pytest.mark.parametrize(
    ("scores", "options", "words"),
    [
        ((0.9, 0.9, 0.8, 0.3), {}, ["--balance weights", "'ham'", "3 of 10"]),
        ((0.9, 0.9, 0.8, 0.3), {"balance": "weights"}, ["--preset best"]),
        ((0.9, 0.9, 0.8, 0.3), {"costs": "dataset/spam_costs.csv"}, ["--preset best"]),
        ((0.9, 0.8, 0.85), {}, ["--stack ngrams", TFIDF, "85.0 to 80.0"]),
        ((1.0, 0.8, 0.7), {}, ["more labelled rows", "100.0 %", "80.0 %"]),
        ((0.9, 0.9, 0.8), {}, ["--preset best"]),
        ((0.9, 0.9, 0.95), {"preset": "best", "stack": "ngrams"}, ["--stack none", NETWORK]),
        ((0.9, 0.9, 0.8), {"preset": "best"}, ["--model gpt2-small"]),
        ((0.9, 0.9, 0.8), {"recipe": "book"}, ["--recipe default"]),
    ],
)
def test_the_first_rule_that_fits(run, scores, options, words):
    said = advice(with_scores(run, *scores, **options))
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_nothing_is_said_where_nothing_is_known(run):
    assert advice(with_scores(run, 0.9, 0.9, 0.8, preset="best", model="gpt2-xl")) == ""


def test_test_rows_say_nothing(run):
    before = with_scores(run, 0.9, 0.9, 0.8)
    after = deepcopy(before.scores)
    after["test"]["accuracy"] = 0.0
    assert advice(replace(before, scores=after)) == advice(before)


def test_numbers_have_no_rule():
    rng = pd.Series(range(60), dtype=float)
    frame = pd.DataFrame({"text": [text for text, _ in ROWS], "label": rng})
    run = fit(frame, task="regression", train="head", epochs=1, max_length=16, device="cpu")
    assert advice(run) == ""
