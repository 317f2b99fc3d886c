"""The search for settings: what it tries, shares, keeps, tests once, and goes on with."""

import json
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from helpers.tiny import ROWS, write_csv

import gptcls.search
import gptcls.train.run as run_of_training
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.search import SearchConfig, search
from gptcls.train.config import TrainConfig
from gptcls.train.run import train


def options(base, folder, **more) -> dict:
    data = write_csv(folder / "rows.csv", ROWS)
    return {"data": data, "model": str(base), "device": "cpu", "epochs": 2, "batch_size": 16} | more


def lines(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "trials.csv")


def test_the_best_on_validation_is_trained_and_tested_once(base, tmp_path, monkeypatch):
    scored, real = [], run_of_training._score
    monkeypatch.setattr(run_of_training, "_score", lambda setup, *a: scored.append(setup) or real(setup, *a))
    given = options(base, tmp_path, lr=None, train=None)
    found = search(trials=4, out=tmp_path / "x", **given)
    table = lines(tmp_path / "x")
    assert set(table) == {"trial", "state", "accuracy", "seconds", "lr", "train", "pooling"}
    assert len(table) == 4
    # The preset's own settings come first, as a plain run settles them.
    plain = train(out=tmp_path / "plain", **given)
    settled = plain.config.flat()
    assert [table.loc[0, name] for name in ("lr", "train")] == [settled["lr"], settled["train"]]
    assert table.loc[0, "accuracy"] == pytest.approx(plain.scores["validation"]["accuracy"])
    # The best is the largest, the run of its settings has that value, and nothing else was tested.
    best = table.loc[table["accuracy"].idxmax()]
    assert found.folder == tmp_path / "x" / f"trial-{best['trial']}"
    scores = json.loads((found.folder / "metrics.json").read_text())["scores"]
    assert scores["validation"]["accuracy"] == pytest.approx(best["accuracy"])
    tested = [path.name for path in (tmp_path / "x").glob("trial-*")]
    assert set(tested) == {"trial-0", found.folder.name}
    assert len(scored) == len(tested) + 1
    assert (found.comparison is None) == (len(tested) == 1)
    assert (tmp_path / "x" / "search.png").exists()


def test_it_goes_on_and_keeps_what_it_tried(base, tmp_path, monkeypatch):
    given = options(base, tmp_path, tune=("lr", "label_smoothing"), train="head", pooling="last")
    real, tried = gptcls.search.trained, []

    def interrupted(setup, hooks):
        tried.append(setup.config.fit.lr)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return real(setup, hooks)

    monkeypatch.setattr(gptcls.search, "trained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search(trials=4, out=tmp_path / "x", **given)
    before = lines(tmp_path / "x")
    search(trials=5, out=tmp_path / "x", **given)
    after = lines(tmp_path / "x")
    assert (len(before), len(after)) == (2, 5)
    pd.testing.assert_frame_equal(after[:2], before)
    assert after["lr"].nunique() == 5, "the same draws came again"
    assert len(tried) == 3 + 3
    search(trials=5, out=tmp_path / "x", **given)
    assert len(tried) == 6, "nothing was left to do"
    with pytest.raises(InputError, match="holds a search with another --train; choose another folder"):
        search(trials=5, out=tmp_path / "x", **given | {"train": "last_block"})
    write_csv(tmp_path / "rows.csv", ROWS[:-3])
    with pytest.raises(InputError, match="holds a search with other rows"):
        search(trials=6, out=tmp_path / "x", **given)


def test_a_first_trial_cut_short_is_tried_again(base, tmp_path, monkeypatch):
    given = options(base, tmp_path, tune=("lr",), train="head")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gptcls.search, "trained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(trials=2, out=tmp_path / "x", **given)
    search(trials=2, out=tmp_path / "x", **given)
    table = lines(tmp_path / "x")
    assert table["trial"].tolist() == [1, 2]
    del given["tune"]
    assert table.loc[0, "lr"] == train(out=tmp_path / "plain", **given).config.fit.lr


def test_trials_share_the_frozen_blocks_output(base, tmp_path, monkeypatch):
    from gptcls.fast.frozen import Frozen

    calls, real = [], Frozen.forward
    monkeypatch.setattr(Frozen, "forward", lambda self, *a: calls.append(1) or real(self, *a))
    given = options(base, tmp_path, tune=("lr",), train="head", cache=tmp_path / "cache")
    search(trials=1, out=tmp_path / "one", **given)
    once = len(calls)
    search(trials=4, out=tmp_path / "four", **given)
    assert once
    assert len(calls) == once, "frozen blocks ran again"


def test_what_is_behind_the_others_is_given_up():
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(1, 0))
    progress = SimpleNamespace(epoch=2, history=[])
    trainer = SimpleNamespace(settings=SimpleNamespace(epochs=4), progress=progress)

    def look(value: float) -> None:
        trial = study.ask()
        progress.history = [{"val_accuracy": value}]
        gptcls.search._Report(optuna, trial, "accuracy").on_epoch(trainer)
        study.tell(trial, value)

    look(0.9)
    look(0.95)
    with pytest.raises(optuna.TrialPruned):
        look(0.5)


def test_a_rate_that_diverges_is_a_trial_without_a_value(base, tmp_path, monkeypatch):
    from gptcls.core.loop import NonFiniteLossError

    real, calls = gptcls.search.trained, []

    def diverges(setup, hooks):
        calls.append(1)
        if len(calls) == 2:
            raise NonFiniteLossError("loss is nan")
        return real(setup, hooks)

    monkeypatch.setattr(gptcls.search, "trained", diverges)
    search(trials=3, out=tmp_path / "x", **options(base, tmp_path, tune=("lr",), train="head"))
    table = lines(tmp_path / "x")
    assert table["accuracy"].isna().tolist() == [False, True, False]


def test_what_diverges_after_an_epoch_is_neither_the_best_nor_compared(base, tmp_path, monkeypatch, capsys):
    from gptcls.core.loop import NonFiniteLossError

    real, diverging = gptcls.search.trained, {1, 4, 5}
    calls = []

    def diverges(setup, hooks):
        calls.append(1)
        if len(calls) in diverging:
            hooks[0].trial.report(0.99, 5)  # which optuna takes for the value of a trial that was pruned
            raise NonFiniteLossError("loss is nan")
        return real(setup, hooks)

    monkeypatch.setattr(gptcls.search, "trained", diverges)
    given = options(base, tmp_path, tune=("lr",), train="head")
    found = search(trials=3, out=tmp_path / "x", **given)
    assert found.comparison is None
    assert found.folder.name in ("trial-1", "trial-2")
    figure = gptcls.search.plot_search(found.trials, ["lr"], SingleLabel(("ham", "spam")), {})
    marked = {dots.get_label(): len(dots.get_offsets()) for dots in figure.axes[0].collections}
    assert marked["the preset's"] == 0
    assert marked["the best"] == 1
    assert not (tmp_path / "x" / "trial-0").exists()
    gptcls.search._search_and_print(SearchConfig.of(trials=3, out=tmp_path / "x", **given))
    assert "; the preset's diverged" in capsys.readouterr().out
    with pytest.raises(InputError, match="none of 2 trials came to its end"):
        search(trials=2, out=tmp_path / "y", **given)


def test_numbers_are_searched_downwards(base, tmp_path):
    rows = [(f"{text} {i}", i % 7) for i, (text, _) in enumerate(ROWS)]
    data = write_csv(tmp_path / "numbers.csv", rows)
    given = options(base, tmp_path) | {"data": data, "task": "regression", "tune": ("lr",), "train": "head"}
    found = search(trials=3, out=tmp_path / "x", **given)
    table = lines(tmp_path / "x")
    assert found.folder.name == f"trial-{table.loc[table['MAE'].idxmin(), 'trial']}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "0"], "--trials 0 is too small"),
        (["--minutes", "-1"], "--minutes -1.0 is no time"),
        (["--tune", "lr", "--lr", "1e-3"], "--tune names --lr, which is given"),
        (["--tune", "lora_rank"], "--tune lora_rank goes with --train lora"),
        (["--seeds", "1", "2"], "--seeds goes with gptcls.train"),
        (["--resume"], "the same command goes on"),
        (["--recipe", "book"], "leave it out"),
    ],
)
def test_wrong_options_are_one_line(base, tmp_path, run_main, arguments, said):
    data = write_csv(tmp_path / "rows.csv", ROWS)
    status, out, err = run_main(
        gptcls.search, "--data", data, "--model", base, "--out", tmp_path / "x", *arguments
    )
    assert (status, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert not (tmp_path / "x").exists()


def test_the_command_prints_both_runs(base, tmp_path, run_main):
    data = write_csv(tmp_path / "rows.csv", ROWS)
    status, out, err = run_main(
        gptcls.search, "--data", data, "--model", base, "--out", tmp_path / "x", "--trials", 3, "--epochs", 1
    )
    assert status == 0, err
    assert "trial 0: validation accuracy" in err
    assert "saved in" in out


def test_every_option_of_training_stays_one_of_the_search():
    assert set(SearchConfig.defaults()) - set(TrainConfig.defaults()) == {"trials", "minutes", "tune"}
