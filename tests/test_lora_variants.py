"""python -m benchmarks.lora_variants: what each row trains, how it is compared, and going on."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

from benchmarks import lora_variants
from benchmarks.lora_variants import VARIANTS, Options, Table, paired_gain, split_for
from gptcls.core.errors import InputError
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve


@pytest.fixture
def options(base, tmp_path):
    return Options(
        models=(str(base),), data=("sms-sample",), rows=(5,), seeds=(0,), train_rows=24, test_rows=20,
        epochs=1, tries=(1.0,), device="cpu", json=tmp_path / "cells.json",
    )  # fmt: skip


@pytest.fixture
def pretended(monkeypatch):
    """What would be run; the answers are made up."""
    seen = []

    def running(variant, model, source, rate, seed, part, options):
        seen.append((variant.number, rate, seed, part))
        score = 0.5 + 0.01 * variant.number + 0.001 * seed + (0.1 if rate == 2 else 0)
        own = {
            "answers": [0, 1],
            "targets": [0, 0],
            "labels": ["a", "b"],
            "lr": rate,
            "trained": 9,
            "seconds": 2.0,
        }
        return {"accuracy": score} | own

    monkeypatch.setattr(lora_variants, "tuned_run", running)
    return seen


def test_every_row_is_a_run_of_its_own():
    runs = [resolve(TrainConfig.of(lr=row.lr, **row.options)).flat() for row in VARIANTS.values()]
    names = ("train", "lora_kind", "lora_rank", "lora_plus", "lora_targets")
    assert len({tuple(run[name] for name in names) for run in runs}) == len(VARIANTS) == 9
    assert list(VARIANTS) == list(range(1, 10))


def test_a_run_trains_what_the_row_says(options, capsys):
    lora_variants.run(options)
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("|")]
    assert "sms-sample" in lines[0]
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["LoRA, rank 16", "DoRA"]
    parameters = [int(line.split(" | ")[3].replace(",", "")) for line in lines[2:]]
    assert parameters[1] - parameters[0] == 3 * (48 + 16 + 64 + 16), "DoRA trains the length of every row"
    cells = json.loads(options.json.read_text())
    found = cells[f"lora/{options.models[0]}/sms-sample/DoRA/seed 0"]
    rows = split_for("sms-sample", options, 0).test
    assert [found["labels"][target] for target in found["targets"]] == rows["label"].tolist()
    assert found["accuracy"] == np.mean(np.equal(found["answers"], found["targets"]))
    assert found["lr"] == pytest.approx(10 * VARIANTS[5].lr), "of a narrow network"


def test_the_rate_is_chosen_on_validation_rows_and_finished_cells_are_kept(options, pretended):
    options = replace(options, tries=(0.5, 2.0), seeds=(0, 1), rows=())
    table = Table(lora_variants.Cells(options.json), options)
    table.measure()
    assert len(pretended) == 9 * (2 + 2)
    for number in VARIANTS:
        assert [run[1:] for run in pretended if run[0] == number] == [
            (0.5, 1000, "validation"), (2.0, 1000, "validation"), (2.0, 0, "test"), (2.0, 1, "test"),
        ]  # fmt: skip
    pretended.clear()
    more = replace(options, seeds=(0, 1, 2))
    again = Table(lora_variants.Cells(options.json), more)
    again.measure()
    assert [run[1:] for run in pretended] == [(2.0, 2, "test")] * 9
    assert "+4.0 [+4.0, +4.0]" in again.text()
    with pytest.raises(InputError, match="was measured with epochs 1, and would now have 2"):
        Table(lora_variants.Cells(options.json), replace(more, epochs=2)).measure()


def test_a_second_model_is_compared_with_the_first(options, pretended, base, tmp_path):
    (tmp_path / "instruct").symlink_to(base)
    table = Table(lora_variants.Cells(), replace(options, models=(str(base), str(tmp_path / "instruct"))))
    table.measure()
    heads = [line for line in table.text().splitlines() if "accuracy %" in line]
    assert ["minus base" in head for head in heads] == [False, True]


def test_intervals_are_scipys():
    runs = [{"accuracy": x} for x in (0.8, 0.85, 0.9)]
    others = [{"accuracy": x} for x in (0.7, 0.8, 0.75)]
    values = np.array([10.0, 5.0, 15.0])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert paired_gain(runs, others) == pytest.approx((10, low, high))
    one = {"labels": ["a", "b"], "targets": [0] * 40, "answers": [0] * 30 + [1] * 10}
    mean, low, high = paired_gain([one], [one | {"answers": [0] * 20 + [1] * 20}])
    assert mean == pytest.approx(25)
    assert 5 < low < mean < high < 45, "of the texts that one alone has right"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rows", "1", "12"), "--rows 12: there is no such row; take 1 to 9"),
        (("--seeds", "1", "1"), "--seeds 1 1: give one or more different seeds"),
        (("--models",), "--models names nothing"),
        (("--data", "nowhere.csv"), "nowhere.csv"),
        (("--data", "sms-sample", "--models", "no/such/folder/at/all"), "no/such/folder/at/all"),
    ],
)
def test_mistakes_are_one_line(run_main, arguments, words):
    status, out, err = partial(run_main, lora_variants)(*arguments)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (status, out, len(errors)) == (2, "", 1)
    assert words in errors[0]


def test_validation_rows_are_those_of_every_seed(options):
    one, two = (split_for("sms-sample", options, seed) for seed in (0, 1))
    assert one.validation.equals(two.validation)
    assert not {*one.test["text"]} & {*one.validation["text"]}
    assert not one.test.equals(two.test)
