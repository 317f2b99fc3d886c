"""python -m benchmarks.ablations: what each row changes, what is written, and going on where it stopped."""

import logging
import os
import re
import signal
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from benchmarks import ablations
from benchmarks.ablation_report import COLUMNS, MISSING, NANO, plot, read_results, summarise, table
from benchmarks.ablation_rows import ABLATIONS, chosen, config_of
from benchmarks.ablations import AblationConfig, plan, run_ablations
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.fast.features import FeatureCache
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split
from gptcls.train.run import fit

# Typed once more, from the published table: accuracy on train, validation and test in percent, minutes.
PUBLISHED = """
1 96.63 99.33 95.00 .28    2 78.46 80.54 75.00 .28    3 78.65 79.87 72.00 .25    4 98.85 98.66 98.33 .33
5 99.62 96.64 96.67 .69    6 87.50 91.28 84.67 .75    7 99.52 98.66 96.67 1.50   8 99.81 99.33 98.33 2.83
9 100 98.66 98.67 8.12     10 100 96.64 93.67 .69     11 100 97.32 96.67 .75     12 100 98.66 98.33 5.79
13 83.08 87.92 78.33 2.46  14 100 98.66 98.00 1.75    15 99.33 98.66 98.33 1.70  16 99.42 98.66 98.33 .30
17 99.23 98.66 95.33 .29   18 96.63 99.33 95.00 .28   19 97.79 99.33 96.33 .32
"""


@pytest.fixture
def config(base, tmp_path):
    """One epoch of a tiny GPT-2 on the bundled sample."""
    return AblationConfig(
        model=str(base), data="sms-sample", epochs=1, lr=1e-3, out=tmp_path / "out", device="cpu"
    )


@pytest.fixture
def trained(monkeypatch):
    """The options of what is trained, by name."""
    seen = []

    def fitting(split, settings):
        seen.append(SimpleNamespace(**settings.flat()))
        return fit(split, settings=settings)

    monkeypatch.setattr(ablations, "fit", fitting)
    return seen


@pytest.fixture
def pretended(monkeypatch):
    """The options of what would be trained; the scores are made up, as training is not the question."""
    seen = []

    def fitting(split, settings):
        seen.append(SimpleNamespace(**settings.flat()))
        scores = {
            part: {"accuracy": (len(seen) + i) / 100, "n": 4}
            for i, part in enumerate(("train", "validation", "test"))
        }
        return SimpleNamespace(scores=scores, seconds=float(len(seen)))

    monkeypatch.setattr(ablations, "fit", fitting)
    return seen


@pytest.fixture
def command(run_main):
    """Run the program with these arguments: (exit status, standard output, standard error)."""
    return partial(run_main, ablations)


def made_up(rows=(1, 2, 4, 16), seeds=(0, 1, 2, 3)):
    """A results.csv as from many runs."""
    rng = np.random.default_rng(0)
    same = {"model": "gpt2-nano", "data": "x", "epochs": 5, "lr": 1e-3, "n_test": 300}
    return pd.DataFrame(
        [
            {"row": row, "seed": seed, **same, "seconds": 10.0 * row + seed}
            | dict(zip(("train", "validation", "test"), rng.uniform(80, 100, 3).round(4), strict=True))
            for row in rows
            for seed in seeds
        ],
        columns=list(COLUMNS),
    ).astype(COLUMNS)


def cells(text):
    """Row number -> the cells of its line."""
    lines = [line.strip("| \n").split(" | ") for line in text.splitlines() if re.match(r"\| \d", line)]
    return {int(line[0]): line for line in lines}


def test_every_row_stands_beside_its_published_figures():
    published = re.findall(r"(\d+) ([\d.]+) ([\d.]+) ([\d.]+) ([\d.]+)", PUBLISHED)
    assert [int(number) for number, *_ in published] == list(ABLATIONS) == list(range(1, 20))
    lines = cells(table(summarise(made_up(), chosen(()))))
    for number, *figures, minutes in published:
        row = ABLATIONS[int(number)]
        assert row.published == tuple(map(float, figures))
        assert row.minutes == float(minutes)
        assert lines[row.number][1] == row.name
        assert lines[row.number][2] == " / ".join(f"{float(figure):.2f}" for figure in figures)


def test_the_table_holds_what_scipy_and_pandas_compute():
    results = made_up()
    text = table(summarise(results))
    lines = cells(text)
    assert list(lines) == [1, 2, 4, 16]
    default = results[results["row"] == 1].set_index("seed")["test"]
    for number, line in lines.items():
        runs = results[results["row"] == number].set_index("seed")
        columns = [runs["train"], runs["validation"], runs["test"], runs["test"] - default]
        for cell, values in zip(line[5:9], columns, strict=True):
            if cell == MISSING:
                assert number == 1
                continue
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
            assert [float(x) for x in re.findall(r"[-+]?[\d.]+", cell)] == pytest.approx(
                [values.mean(), low, high], abs=0.0051
            )
        assert line[4] == "4"
        assert float(line[9]) == pytest.approx(runs["seconds"].median(), abs=0.51)
        assert ABLATIONS[number].note in text


def test_one_seed_has_no_interval_and_what_was_not_run_a_dash():
    lines = cells(table(summarise(made_up(seeds=(5,)), chosen((1, 5, 6)))))
    assert list(lines) == [1, 2, 4, 5, 6, 16]
    assert all(re.fullmatch(r"\d+\.\d\d", cell) for cell in lines[2][5:8])
    assert re.fullmatch(r"[-+]\d+\.\d\d", lines[2][8])
    assert lines[5][4:] == lines[6][4:] == [MISSING] * 6
    assert "rows 6: other sizes of GPT-2" in table(summarise(made_up(), chosen((1, 5, 6))))


def test_differences_are_taken_on_the_seeds_that_both_have():
    results = made_up()
    results = results[~((results["row"] == 1) & (results["seed"] == 3))]
    by = results.set_index(["row", "seed"])["test"]
    gain = next(summary.gain for summary in summarise(results) if summary.row.number == 4)
    assert gain[0] == pytest.approx(np.mean([by[4, seed] - by[1, seed] for seed in (0, 1, 2)]))


def test_the_picture_shows_means_intervals_and_published_figures():
    results = made_up()
    figure = plot(summarise(results, chosen(())))
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"{row.number}  {row.name}" for row in ABLATIONS.values()]
    published, means = axes.lines[0], axes.containers[0].lines[0]
    assert list(published.get_xdata()) == [row.published[2] for row in ABLATIONS.values()]
    assert [labels[y].split()[0] for y in means.get_ydata()] == ["1", "2", "4", "16", "18"]
    expected = results.groupby("row")["test"].mean()
    assert list(means.get_xdata()) == pytest.approx([*expected, expected[1]])
    plot(summarise(made_up(rows=()), chosen((6,))))  # nothing measured


def test_what_each_row_changes():
    shared = {"model": "gpt2-small", "data": "sms-sample", "seed": 7}
    default = config_of(ABLATIONS[1], 1024, **shared)
    assert default == resolve(TrainConfig.of(recipe="book", **shared))
    books = {
        "epochs": 5, "lr": 5e-5, "pooling": "position-1", "train": "last_block", "pad_to": None,
        "batch_size": 8, "accumulate": 1,
    }  # fmt: skip
    assert default == default.changed(**books)
    lora = {
        "train": "lora", "lora_kind": "lora", "lora_rank": 16, "lora_dropout": 0.0, "lora_targets": ("*",),
        "lora_plus": 1.0, "lr": 8e-4,
    }  # fmt: skip
    changes = {
        1: {}, 2: {"pooling": "first"}, 3: {"train": "head"}, 4: {"train": "last_2"}, 5: {"train": "all"},
        6: {"model": "gpt2-medium"}, 7: {"model": "gpt2-large"}, 8: {"model": "gpt2-xl"},
        9: {"model": "gpt2-xl", "train": "all"}, 10: {"train": "all", "init": "random"},
        11: {**lora, "lora_alpha": 16.0}, 12: {**lora, "lora_alpha": 8.0, "model": "gpt2-xl"},
        13: {"pad_to": 1024}, 14: {"pooling": "last", "batch_size": 1},
        15: {"pooling": "last", "batch_size": 1, "accumulate": 8}, 16: {"pooling": "last"},
        17: {"no_causal_mask": True}, 18: {}, 19: {"pooling": "mean"},
    }  # fmt: skip
    for number, change in changes.items():
        assert config_of(ABLATIONS[number], 1024, **shared) == default.changed(**change), number
    shorter = default.changed(**lora | {"lora_alpha": 16.0, "lr": 1e-4, "epochs": 2})
    assert config_of(ABLATIONS[11], 1024, **shared, lr=1e-4, epochs=2) == shorter
    nano = config_of(ABLATIONS[13], 256, **shared | {"model": "gpt2-nano"})
    assert nano == nano.changed(pad_to=256, lr=1e-3, schedule="cosine", epochs=5)


def test_other_sizes_run_beside_a_gpt2_only():
    def models(model):
        return {row.number: run.model.model for row, run in plan(AblationConfig(model=model))[1]}

    assert set(range(1, 20)) - models("gpt2-nano").keys() == {6, 7, 8, 9, 12, 18}
    small = models("gpt2-small")
    assert set(range(1, 20)) - small.keys() == {18}
    assert {n: m for n, m in small.items() if m != "gpt2-small"} == {
        6: "gpt2-medium", 7: "gpt2-large", 8: "gpt2-xl", 9: "gpt2-xl", 12: "gpt2-xl",
    }  # fmt: skip


def test_row_18_is_row_1_to_the_last_bit(config, monkeypatch):
    """Training with the loss that the row is about gives the very numbers of row 1."""
    losses, runs = [], []

    def kept(split, settings):
        runs.append((settings, fit(split, settings=settings)))
        return runs[-1][1]

    monkeypatch.setattr(ablations, "fit", kept)

    def loss(self, logits, targets):
        losses.append(F.cross_entropy(logits, targets, ignore_index=50256))
        return losses[-1]

    results = run_ablations(replace(config, rows=(18,)))
    assert results["row"].tolist() == [1]
    line = cells(table(summarise(results, chosen((18,)))))[18]
    assert [float(cell) for cell in line[5:8]] == pytest.approx(
        results.loc[0, ["train", "validation", "test"]].tolist(), abs=0.0051
    )
    ((same, run),) = runs
    monkeypatch.setattr(SingleLabel, "loss", loss)
    other = fit(run.split, settings=same.changed(cache=None))
    assert losses
    one, two = (each.classifier.model.state_dict() for each in (run, other))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_a_seed_draws_the_split_anew_and_123_is_the_books(config):
    texts = {}
    for row, run in plan(replace(config, rows=(1, 16), seeds=(123, 0)))[1]:
        texts[row.number, run.run.seed] = read_split(run).test["text"].tolist()
    assert texts[1, 123] == texts[16, 123] != texts[1, 0] == texts[16, 0]
    book = read_split(resolve(TrainConfig.of(recipe="book", data="sms-sample")))
    assert book.test["text"].tolist() == texts[1, 123]


def test_finished_runs_are_skipped(config, pretended, command):
    first = run_ablations(replace(config, rows=(1, 16), seeds=(0,)))
    assert [(run.pooling, run.seed) for run in pretended] == [("position-1", 0), ("last", 0)]
    pretended.clear()
    whole = run_ablations(replace(config, rows=(1, 3, 16), seeds=(0, 1)))
    assert [(run.train, run.seed) for run in pretended] == [
        ("head", 0), ("last_block", 1), ("head", 1), ("last_block", 1),
    ]  # fmt: skip
    assert list(zip(whole["row"], whole["seed"], strict=True)) == [
        (1, 0), (1, 1), (3, 0), (3, 1), (16, 0), (16, 1),
    ]  # fmt: skip
    pd.testing.assert_frame_equal(
        whole[whole["row"].isin([1, 16]) & (whole["seed"] == 0)].reset_index(drop=True), first
    )
    pd.testing.assert_frame_equal(read_results(config.out / "results.csv"), whole)
    pretended.clear()
    (config.out / "table.md").unlink()
    options = ("--model", config.model, "--data", config.data, "--epochs", 1, "--lr", 1e-3, "--device", "cpu")
    status, out, err = command("--rows", 1, 3, 16, "--seeds", 0, 1, *options, "--out", config.out)
    assert status == 0
    assert pretended == []
    assert "6 runs, 6 of them finished before" in err
    assert (config.out / "table.md").read_text(encoding="utf-8") in out + "\n"
    assert {path.name for path in config.out.iterdir()} == {"results.csv", "table.md", "ablations.png"}
    for path in (config.out / "results.csv", config.out / "table.md"):
        assert str(config.out.parent) not in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(config, trained, monkeypatch):
    from gptcls.core.loop import Trainer

    step = Trainer._step

    def stopping(self, group):
        if len(trained) == 2 and self.progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    config = replace(config, rows=(1, 3), seeds=(0,))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_ablations(config)
    assert read_results(config.out / "results.csv")["row"].tolist() == [1]
    assert logging.getLogger("gptcls").level != logging.WARNING
    trained.clear()
    assert run_ablations(config)["row"].tolist() == [1, 3]
    assert [run.train for run in trained] == ["head"]


@pytest.mark.slow
def test_rows_and_seeds_share_what_the_frozen_blocks_computed(config, monkeypatch):
    """Two poolings read the same blocks and unpadded texts; every seed splits the same balanced sample."""
    computed = []
    compute = FeatureCache._compute
    monkeypatch.setattr(FeatureCache, "_compute", lambda *a: computed.append(len(a[2])) or compute(*a))
    run_ablations(replace(config, rows=(2, 16), seeds=(0, 1)))
    assert len(computed) == 1


def test_features_are_kept_where_they_are_worth_it(config, pretended, monkeypatch):
    """Not of rows that freeze no block, nor of the one whose features are mostly padding."""
    monkeypatch.setattr(ablations, "write_report", lambda *_: None)
    config = replace(config, model="gpt2-nano", cache=config.out / "features")
    numbers = [row.number for row, _ in plan(config)[1]]
    assert run_ablations(config)["row"].tolist() == numbers
    cached = {number: run.cache for number, run in zip(numbers, pretended, strict=True)}
    kept = {number for number, cache in cached.items() if cache == config.cache}
    assert kept == {1, 2, 3, 4, 14, 15, 16, 17, 19}
    assert set(cached.values()) == {None, config.cache}


def test_results_of_other_options_are_not_mixed(config, pretended):
    run_ablations(replace(config, rows=(3,), seeds=(0,)))
    for change, words in (
        ({"lr": 2e-3}, "row 3 was measured with lr 0.001, and would now have 0.002"),
        ({"epochs": 2}, "epochs 1, and would now have 2"),
        ({"model": "gpt2-nano"}, "model base, and would now have gpt2-nano"),
    ):
        with pytest.raises(InputError, match=words):
            run_ablations(replace(config, rows=(3,), seeds=(1,), **change))
        with pytest.raises(InputError, match=words):  # nor beside another row, which is compared with it
            run_ablations(replace(config, rows=(16,), seeds=(0,), **change))
    (config.out / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is not a file of benchmarks"):
        run_ablations(replace(config, rows=(3,)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rows", "1", "20"), ("--rows 20", "1 to 19")),
        (("--rows", "0"), ("--rows 0",)),
        (("--rows", "x"), ("--rows",)),
        (("--data", "nowhere.csv"), ("nowhere.csv",)),
        (("--model", "no/such/folder/at/all"), ("no/such/folder/at/all",)),
        (("--seeds", "1", "1"), ("--seeds 1 1",)),
        (("--seeds", "-1"), ("-1",)),
        (("--lr", "0"), ("--lr 0",)),
        (("--device", "toaster"), ("toaster",)),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(command, tmp_path, arguments, words):
    if "--data" not in arguments:
        arguments = (*arguments, "--data", "sms-sample")
    status, out, err = command(*arguments, "--out", tmp_path / "out")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(errors) == 1
    assert "Traceback" not in out + err
    for word in words:
        assert word in errors[0]
    assert not (tmp_path / "out").exists()


def test_rows_that_do_not_apply_are_said_so(command, tmp_path):
    status, out, _ = command("--rows", 6, 12, "--data", "sms-sample", "--out", tmp_path / "out")
    assert status == 0
    assert list(cells(out)) == [6, 12]
    assert "rows 6, 12: other sizes of GPT-2, to be run with --model gpt2-small" in out
    assert not (tmp_path / "out").exists()


def test_the_results_of_gpt2_nano_are_whole_and_their_table_is_up_to_date():
    results = read_results(NANO / "results.csv")
    rows = {row.number for row in ABLATIONS.values() if row.applies_to("gpt2-nano") and not row.same_as}
    assert set(results["row"]) == rows
    assert not results.duplicated(["row", "seed"]).any()
    assert results.groupby("row").size().min() >= 2
    assert (results["model"] == "gpt2-nano").all()
    assert (results["n_test"] == 300).all()
    assert (NANO / "table.md").read_text(encoding="utf-8") == table(summarise(results, chosen(()))) + "\n"
    assert (NANO / "ablations.png").stat().st_size < 200_000
    for row, run in plan(AblationConfig(data="SMSSpamCollection"))[1]:
        lines = results[results["row"] == row.number]
        assert (lines["lr"] == run.fit.lr).all()
        assert (lines["epochs"] == run.fit.epochs).all()
