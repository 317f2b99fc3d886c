"""python -m benchmarks.reviews: real scores of what is pretrained, time and memory alone of what is not."""

import json
import math
from dataclasses import replace

import pytest
from helpers.tiny import ROWS, write_csv
from sklearn.linear_model import LogisticRegression

from benchmarks import reviews
from benchmarks.reviews import BATCH, NO_SCORE, Options, measured, rows_of, table
from gptcls.models.pretrained import load_pretrained, load_tokenizer


@pytest.fixture
def options(tmp_path):
    train = write_csv(tmp_path / "train.csv", ROWS[:48])
    test = write_csv(tmp_path / "test.csv", ROWS[48:])
    return Options(train=train, test=test, max_length=16, steps=2, device="cpu", lr=5e-3, epochs=3)


def alone(options, name, trained, **changes):
    return measured(replace(options, alone=json.dumps([name, trained]), **changes))


def test_logistic_regression_is_scikit_learns(options):
    found, split = alone(options, reviews.WORDS, ""), rows_of(options)
    assert found["rows"] == {"train": 44, "validation": 4, "test": 12}
    model = reviews.tfidf_baseline().fit(split.train["text"], split.train["label"])
    assert isinstance(model[-1], LogisticRegression)
    assert found["right"] == round(12 * model.score(split.test["text"], split.test["label"]))
    assert found["parameters"] == model[-1].coef_.size


@pytest.mark.slow
def test_a_network_of_ones_own_is_trained_and_scored(options, base):
    found = alone(options, str(base), "last_block", epochs=20)
    assert found["right"] >= 10
    assert found["parameters"] == 3 * 16 * 4 * 16 + 13 * 16 + 2 * 16 + 2 * 16 + 2
    assert "[" in table([found])


@pytest.mark.parametrize("trained", ["last_block", "all"])
def test_random_weights_have_no_score(options, base, trained, monkeypatch):
    """Each call of the clock is a second: steps and answers are counted, and scaled to all rows."""
    ticks = iter(range(1000))
    monkeypatch.setattr(reviews.time, "process_time", lambda: float(next(ticks)))
    found = alone(options, "gpt2-small", trained, weights=base)
    assert "right" not in found
    steps = 3 * math.ceil(44 / BATCH)
    frozen = (44 + 4) / 24 if trained == "last_block" else 0  # one tick for 24 texts
    assert found["training"] == pytest.approx(frozen + steps)
    assert found["answers"] == pytest.approx(12 / BATCH)
    line = table([found]).splitlines()[2]
    assert NO_SCORE in line
    assert ("91.88" in line) == (trained == "all")


@pytest.mark.slow
def test_the_random_bert_reads_as_one_of_a_hub_would(options, tmp_path):
    folder = reviews._random_bert(options, tmp_path / "bert")
    network, tokenizer = load_pretrained(folder), load_tokenizer(folder)
    assert sum(p.numel() for p in network.parameters()) == 109_482_240, "bert-base-uncased's"
    ids = tokenizer.encode("See you at HOME")
    assert (ids[0], ids[-1]) == (2, 3)
    assert 1 not in ids, "no word is unknown"


def test_the_command(options, run_main, monkeypatch, tmp_path):
    """The whole, with contestants that cost nothing."""
    asked = []

    def pretended(module, *arguments):
        asked.append(arguments)
        name, trained = json.loads(arguments[1])
        random = {} if "--weights" in arguments else {"right": 9}
        costs = {"training": 1.0, "answers": 2.0, "parameters": 3, "peak_mib": 4.0}
        return {"name": name, "trained": trained, "rows": {"test": 12}} | costs | random

    monkeypatch.setattr(reviews, "run_alone", pretended)
    monkeypatch.setattr(reviews, "random_weights", lambda name, folder: folder)
    monkeypatch.setattr(reviews, "weights_sha256", lambda name: "")
    files = ("--train", options.train, "--test", options.test, "--json", tmp_path / "x.json")
    status, out, _ = run_main(
        reviews, *files, "--sizes", "gpt2-small", "--models", "mine", "--trained", "all"
    )
    assert status == 0
    lines = [line.split(" | ") for line in out.splitlines() if line.startswith("|")][2:]
    assert [line[0].strip("| ") for line in lines] == [
        "logistic regression",
        "gpt2-nano",
        "gpt2-small",
        "mine",
    ]
    assert [line[3] == NO_SCORE for line in lines] == [False, False, True, False]
    assert lines[0][3].startswith("75.0 [")
    assert len(json.loads((tmp_path / "x.json").read_text())) == 4
    assert all(f"--train={options.train}" in arguments for arguments in asked)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--train", "a.csv"), "--train and --test go together"),
        (("--train", "a.csv", "--test", "b.csv"), "a.csv"),
        (("--steps", "0"), "--steps 0 is too small"),
        (("--folder", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(run_main, arguments, words):
    status, out, err = run_main(reviews, *arguments)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (status, out, len(errors)) == (2, "", 1)
    assert words in errors[0]
