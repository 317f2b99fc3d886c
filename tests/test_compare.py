"""Differences of pairs against simulation and scikit-learn; gptcls.compare on runs, good and bad."""

import json
import shutil

import numpy as np
import pytest
from helpers.tiny import write_csv
from sklearn import metrics

from gptcls.common import cli
from gptcls.compare import compare
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.evaluation.intervals import mean_interval, share_difference_interval
from gptcls.evaluation.paired import differences
from gptcls.evaluation.table import DIFFERENCE
from gptcls.train.config import TrainConfig
from gptcls.train.run import train

ROWS = [
    (f"{word} {i}", label) for i in range(30) for word, label in (("win cash", "spam"), ("see you", "ham"))
]


def test_the_interval_of_a_difference_covers_and_holds_it():
    random, held = np.random.default_rng(0), 0
    for _ in range(600):
        first, second, _ = random.multinomial(60, [0.08, 0.03, 0.89])
        low, high = share_difference_interval(first, second, 60)
        assert low <= (first - second) / 60 <= high
        held += low <= 0.05 <= high
    assert 0.93 <= held / 600 <= 0.99
    low, high = share_difference_interval(0, 0, 50)
    assert low < 0 < high, "no difference seen is not certainty"


@pytest.mark.parametrize("n_classes", [2, 4])
def test_differences_of_classes_are_those_of_the_scores(n_classes):
    random = np.random.default_rng(1)
    true, other = random.integers(0, n_classes, (2, 200))
    good, bad = (np.where(random.random(200) < share, true, other) for share in (0.9, 0.6))
    task = SingleLabel(tuple("abcd"[:n_classes]))
    found = differences(task, true, good, bad)
    average = {"average": "macro"} if n_classes > 2 else {"pos_label": 1}
    f1 = [metrics.f1_score(true, each, **average) for each in (good, bad)]
    assert found["f1"] == pytest.approx(f1[0] - f1[1])
    assert found["accuracy"] == pytest.approx((good == true).mean() - (bad == true).mean())
    assert 0 < found["f1_low"] < found["f1"] < found["f1_high"]
    assert found["p"] < 0.001
    back = differences(task, true, bad, good)
    assert back["accuracy_low"] == pytest.approx(-found["accuracy_high"])
    alike = differences(task, true, good, good)
    assert (alike["accuracy"], alike["f1"], alike["p"]) == (0, 0, 1)
    assert alike["f1_low"] < 0 < alike["f1_high"]


def test_differences_of_lists_and_numbers():
    random = np.random.default_rng(2)
    true = random.random((150, 3)) < 0.3
    good, bad = (true ^ (random.random((150, 3)) < share) for share in (0.05, 0.2))
    found = differences(MultiLabel(("a", "b", "c")), true.astype(float), good, bad)
    for average in ("micro", "macro"):
        f1 = [metrics.f1_score(true, each, average=average) for each in (good, bad)]
        assert found[f"{average}_f1"] == pytest.approx(f1[0] - f1[1])
        assert found[f"{average}_f1_low"] > 0
    numbers = random.normal(size=(80, 1))
    near, far = (numbers + random.normal(size=(80, 1)) * spread for spread in (0.1, 1.0))
    found = differences(Regression(("x",)), numbers, near, far)
    error = [metrics.mean_absolute_error(numbers, each) for each in (near, far)]
    assert found["mae"] == pytest.approx(error[0] - error[1])
    assert found["mae_low"] < found["mae"] < found["mae_high"] < 0
    pairs = np.abs(near - numbers) - np.abs(far - numbers)
    assert (found["mae_low"], found["mae_high"]) == pytest.approx(mean_interval(pairs[:, 0])[1:], abs=0.05)
    assert differences(Regression(("x",)), numbers[:0], near[:0], far[:0]) == {}


# --- runs ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = str(write_csv(folder / "rows.csv", ROWS))
    quick = {"data": data, "epochs": 1, "max_length": 8, "train": "head", "device": "cpu"}
    for name, options in (("a", {}), ("b", {"lr": 1e-5}), ("other", {"seed": 7})):
        train(TrainConfig.of(out=folder / name, **quick | options))
    return folder


def test_runs_on_the_same_test_rows(runs):
    found = compare(runs / "a", runs / "b")
    (pair,) = found.pairs.values()
    accuracies = [json.loads((runs / name / "metrics.json").read_text())["scores"]["test"]["accuracy"]
                  for name in "ab"]  # fmt: skip
    assert pair["accuracy"] == pytest.approx(accuracies[0] - accuracies[1])
    assert pair["p"] == pair["p_holm"]
    assert "right alone" in found.table()


def test_a_run_that_abstains_is_compared_as_it_is_scored(runs):
    quick = {"data": str(runs / "rows.csv"), "max_length": 8, "train": "head", "device": "cpu"}
    train(TrainConfig.of(out=runs / "unsure", epochs=1, abstain=0.999, **quick))
    assert "unsure" in (runs / "unsure" / "predictions.csv").read_text()
    (pair,) = compare(runs / "unsure", runs / "a").pairs.values()
    assert pair["accuracy"] == 0 == pair["only_first"]  # the same answers, had they been given


def test_the_difference_to_each_baseline_is_in_metrics_json_and_in_the_table(runs):
    baselines = json.loads((runs / "a" / "metrics.json").read_text())["baselines"]
    ours = json.loads((runs / "a" / "metrics.json").read_text())["scores"]["test"]["accuracy"]
    for parts in baselines.values():
        test = parts["test"]
        assert test[DIFFERENCE]["accuracy"] == pytest.approx(ours - test["accuracy"])


def test_the_command_draws_and_refuses(runs, tmp_path, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["gptcls", "compare", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as done:
            return done.code, capsys.readouterr()
        return 0, capsys.readouterr()

    status, said = command(runs / "a", runs / "b", "--picture", tmp_path / "both.png")
    assert status == 0, said.err
    assert (tmp_path / "both.png").exists()
    shutil.copytree(runs / "b", tmp_path / "broken")
    (tmp_path / "broken" / "metrics.json").write_text("{")
    for wrong, words in (
        ([runs / "a"], "1 run given"),
        ([runs / "a", runs / "other"], "different test rows"),
        ([runs / "a", runs / "a"], "given twice"),
        ([runs / "a", tmp_path / "none"], "does not exist"),
        ([runs / "a", tmp_path / "broken"], "is damaged"),
    ):
        status, said = command(*wrong, "--picture", tmp_path / "no.png")
        assert (status, said.err.count("\n")) == (2, 1), said.err
        assert words in said.err
    assert not (tmp_path / "no.png").exists()


def test_other_labels_are_refused(runs, tmp_path):
    shutil.copytree(runs / "b", tmp_path / "c")
    path = tmp_path / "c" / "classifier" / "classifier.json"
    described = json.loads(path.read_text())
    described["task"]["labels"] = ["ham", "junk"]
    path.write_text(json.dumps(described))
    with pytest.raises(InputError, match=r"spam|labels differ"):
        compare(runs / "a", tmp_path / "c")
