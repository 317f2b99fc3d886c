"""Training that several processes share ends where one process ends."""

import json
import signal
from functools import partial

import matplotlib.figure  # noqa: F401
import pandas as pd
import pytest
import sklearn.linear_model
import sklearn.svm  # noqa: F401
import torch
import torch.distributed.fsdp  # these take seconds: once, instead of in every process
from helpers.tiny import CPU, ROWS, tiny_classifier, tiny_task, tiny_trainer, write_csv
from helpers.together import together
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gptcls.common.processes
import gptcls.core.answer
from benchmarks.processes import Options, once
from gptcls import load_classifier
from gptcls.common.console import SaidElsewhereError
from gptcls.common.processes import all_or_none, join_processes, send_rows, summed
from gptcls.core.batches import TextDataset
from gptcls.core.errors import InputError
from gptcls.core.loop import FitSettings, Hook, Trainer
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen
from gptcls.train.config import TrainConfig
from gptcls.train.hooks import StoppedError
from gptcls.train.processes import SharedTrainer, SumGradients
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_of
from gptcls.train.run import _look, _trainers, carry_out, train
from gptcls.train.setup import prepare

FRAME = pd.DataFrame(ROWS[:49], columns=["text", "label"])
# 35 training rows in batches of 2: the last one has a row less than there are processes.
QUICK = {"epochs": 2, "batch_size": 2, "lr": 0.01, "max_length": 16, "device": "cpu", "precision": "fp32"}
QUICK |= {"eval_freq": 5, "repeats": "keep", "seed": 3}

LORA = {"lora_kind": "dora", "lora_targets": ("*", "wte"), "lora_plus": 4.0}


def trained(base, hooks=(), **options):
    """Weights, history and logits of a run, without its scores."""
    join_processes()
    config = resolve(TrainConfig.of(model=str(base), **QUICK | options))
    setup = prepare(split_of(FRAME, config), config)
    assert len(setup.datasets["train"]) % config.fit.batch_size == 1
    for trainer in _trainers(setup, hooks):
        carry_out(trainer)
    setup.gather()
    logits, _ = _look(setup, trainer)
    weights = {name: p.detach() for name, p in setup.saved.model.trained_parameters().items()}
    return weights, trainer.progress.history, logits


def assert_same_weights(one, other):
    for name, value in one.items():
        values = value, other[name]
        if name.endswith("qkv.bias"):  # softmax does not see that of keys: Adam steps along rounding errors
            values = (torch.cat([v.chunk(3)[0], v.chunk(3)[2]]) for v in values)
        torch.testing.assert_close(*values, rtol=0, atol=1e-5)


def assert_same_run(one, other):
    assert_same_weights(one[0], other[0])
    for mine, its in zip(one[1], other[1], strict=True):
        assert {k: v for k, v in its.items() if v is None} == {k: v for k, v in mine.items() if v is None}
        assert its == pytest.approx(mine, abs=1e-4)
    for part, logits in one[2].items():
        torch.testing.assert_close(other[2][part], logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"train": "head", "pooling": "mean"},
        {"train": "last_block", "balance": "weights", "patience": 1},
        {"train": "all", "accumulate": 3, "clip": 0.1},
        {"train": "lora", "lora_rank": 4, "lr": 0.003, **LORA},
        {"train": "last_block", "seeds": (1, 2), "batch_size": 17},
    ],
    ids=lambda options: options["train"],
)
def test_two_processes_end_where_one_does(base, options):
    one = trained(base, **options)
    two = together(2, partial(trained, base, **options))
    assert_same_run(one, two[0])
    assert all(torch.equal(value, two[1][0][name]) for name, value in two[0][0].items())
    assert two[0][1] == two[1][1], "both know how it went"


@pytest.mark.parametrize(
    "options",
    [
        {"train": "all", "balance": "weights", "epochs": 1, "lr": 0.003},
        {"train": "lora", "lora_rank": 4, "lr": 0.003, "epochs": 1, **LORA},
        pytest.param(
            {"train": "last_block", "accumulate": 3, "clip": 0.1, "patience": 1, "epochs": 5},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda options: options["train"],
)
def test_a_network_in_parts_ends_where_a_whole_one_does(base, options):
    one = trained(base, no_cache=True, **options)
    two = together(2, partial(trained, base, shard=True, **options))
    assert_same_run(one, two[0])
    assert two[0][1] == two[1][1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "several processes: torchrun"),
        ({"cache": "kept"}, "--cache kept is not for a network in parts"),
        ({"seeds": (1, 2)}, "--seeds"),
        ({"recipe": "book"}, "leave out --shard"),
    ],
)
def test_what_excludes_parts(base, options, words):
    with pytest.raises(InputError, match=words):
        trained(base, shard=True, **options)


def test_three_processes_and_three_batches_a_step(base):
    options = {"train": "all", "accumulate": 3, "batch_size": 2}
    assert_same_run(trained(base, **options), together(3, partial(trained, base, **options))[2])


def steps_of(kind):
    """The weights after some steps on batches of four, of a trainer or of PyTorch's own data parallelism."""
    rank, world = join_processes()
    model, task = tiny_classifier("last_2"), tiny_task()
    texts, labels = zip(*ROWS[:16], strict=True)
    data = TextDataset(texts, task.targets(labels), 16)
    batches = [data.collate([data[i] for i in range(start, start + 4)]) for start in range(0, 16, 4)]
    if kind == "ours":
        settings = FitSettings(epochs=1, lr=0.01, schedule="constant")
        SharedTrainer(model, task, batches, settings, CPU, [SumGradients()], seed=0).fit()
    else:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.01)
        optimizer.param_groups[:] = Trainer(
            model, task, batches, FitSettings(epochs=1, lr=0.01), CPU
        ).optimizer.param_groups
        parallel = DistributedDataParallel(model.train())
        for ids, lengths, targets in batches:
            optimizer.zero_grad()
            rows = slice(rank, None, world)
            nn.functional.cross_entropy(parallel(ids[rows], lengths[rows]), targets[rows]).backward()
            optimizer.step()
    return model.trained_parameters()


def test_the_steps_are_those_of_pytorch(monkeypatch):
    ours, theirs = (together(2, steps_of, kind)[0] for kind in ("ours", "theirs"))
    assert_same_weights(theirs, ours)


class Dropped(Hook):
    """What dropout does to ones in each step, and what the generator gives after it."""

    def on_start(self, trainer):
        self.seen, self.after = [], []

    def on_gradients(self, trainer):
        self.seen.append(nn.functional.dropout(torch.ones(64), 0.5))

    def on_step(self, trainer):
        self.after.append(torch.get_rng_state())


def dropped():
    join_processes()
    trainer, hook = tiny_trainer(), Dropped()
    shared = SharedTrainer(
        trainer.model, trainer.task, trainer.train_loader, trainer.settings, CPU, [hook], seed=5
    )
    shared.fit()
    return torch.stack(hook.seen), torch.stack(hook.after)


def test_dropout_is_each_processs_own_and_the_order_of_rows_is_not():
    (first, order), (second, same) = together(2, dropped)
    assert torch.equal(order, same)
    masks = torch.cat([first, second])
    assert len(masks.unique(dim=0)) == len(masks) > 8


def features(folder, budget):
    """Every feature of the texts, and how many of them this process computed."""
    join_processes()
    model, task = tiny_classifier("last_block"), tiny_task()
    texts, labels = zip(*ROWS, strict=True)
    data = TextDataset(texts, task.targets(labels), 16)
    frozen, computed = Frozen(model, 2), []
    frozen.register_forward_hook(lambda _, inputs, __: computed.append(len(inputs[0])))
    found = FeatureCache(folder, budget).datasets(frozen, {"train": data}, CPU)["train"]
    return [row.clone() for row in found.features], sum(computed)


@pytest.mark.parametrize("budget", [2**31, 0])
def test_the_frozen_pass_is_shared_out(tmp_path, monkeypatch, budget):
    monkeypatch.setitem(gptcls.core.answer.TOKEN_BUDGETS, "cpu", 32)
    one, n = features(None, budget)
    two = together(2, features, tmp_path / "cache", budget)
    for found, computed in two:
        assert 0.3 * n < computed < 0.7 * n
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(one, found, strict=True))
    assert sum(computed for _, computed in two) == n
    assert len(list((tmp_path / "cache").rglob("*.bin"))) == 1, "the first one writes"
    again = together(2, features, tmp_path / "cache", budget)
    assert [computed for _, computed in again] == [0, 0]


def test_the_benchmark_runs_in_processes(base):
    for seconds in together(2, once, Options(rows=20, model=str(base))):
        assert seconds.keys() == {"frozen pass", "steps of an epoch"}
        assert min(seconds.values()) > 0


def test_sums_and_rows_larger_than_one_exchange(monkeypatch):
    monkeypatch.setattr(gptcls.common.processes, "AT_ONCE", 40)

    def exchanged():
        rank, _ = join_processes()
        tensors = [torch.full((n,), rank + 1.0) for n in (3, 20, 1, 2)] + [torch.tensor([rank])]
        rows = torch.arange(24).view(6, 4).bfloat16() * (1 - rank)
        send_rows(rows, 0)
        return summed(tensors), rows

    for totals, rows in together(2, exchanged):
        assert [total.tolist() for total in totals] == [[3.0] * n for n in (3, 20, 1, 2)] + [[1]]
        assert torch.equal(rows, torch.arange(24).view(6, 4).bfloat16())


def test_what_one_cannot_use_ends_all_and_one_says_it():
    def tried(fails, same):
        rank, _ = join_processes()
        try:
            with all_or_none(lambda: rank if not same else 0):
                if rank in fails:
                    raise InputError(f"no file on {rank}")
        except InputError as error:
            return type(error), str(error)
        return None

    assert together(2, tried, (), True) == [None, None]
    assert together(2, tried, (0, 1), True) == [
        (InputError, "no file on 0"),
        (SaidElsewhereError, "process 0 cannot go on"),
    ]
    first, second = together(2, tried, (1,), True)
    assert first[0] is SaidElsewhereError
    assert second == (InputError, "no file on 1")
    first, second = together(2, tried, (), False)
    assert first == (
        InputError,
        "process 1 of 2 found other rows or weights than the first one; give all machines the same files",
    )
    assert second[0] is SaidElsewhereError


def test_a_process_whose_fellow_has_gone_says_so():
    def alone():
        rank, _ = join_processes()
        if rank:
            torch.distributed.destroy_process_group()
            return None
        try:
            summed([torch.zeros(2)])
        except InputError as error:
            torch.distributed.destroy_process_group()
            return str(error)

    assert together(2, alone)[0].startswith("another process of this run has ended")


def run(data, base, out, stop=0, **options):
    """A run in a folder, or None of one that a signal to the last process stops."""
    rank, world = join_processes()
    step = SharedTrainer._step

    def stopping(self, group):
        loss = step(self, group)
        if self.progress.step == stop and rank == world - 1:
            signal.raise_signal(signal.SIGTERM)
        return loss

    SharedTrainer._step = stopping  # the process is the test's own
    given = (
        {}
        if options.get("resume")
        else {"data": str(data), "model": str(base), "train": "last_block", **QUICK}
    )
    try:
        done = train(out=out, **given | options)
    except StoppedError:
        return None
    return done.folder, done.scores, done.classifier.model.trained_parameters()


@pytest.mark.parametrize(
    ("n", "shard"), [(1, False), pytest.param(3, False, marks=pytest.mark.slow), (3, True)]
)
def test_a_run_that_was_stopped_goes_on_in_any_number_of_processes(base, tmp_path, n, shard):
    data, out = write_csv(tmp_path / "rows.csv", ROWS[:49]), tmp_path / "cut"
    assert together(2, partial(run, data, base, out, 20, patience=1, shard=shard)) == [None, None]
    assert json.loads((out / "config.json").read_text())["state"] == "interrupted"
    assert load_classifier(out / "classifier").predict("free prize") in ("ham", "spam")
    (folder, scores, weights), *others = together(n, partial(run, None, None, out, resume=True))
    assert folder == out
    assert scores
    assert (out / "classifier").exists()
    assert not (out / "checkpoint").exists()
    for its_folder, its_scores, its_weights in others:
        assert (its_folder, its_scores) == (None, {})
        assert all(torch.equal(value, its_weights[name]) for name, value in weights.items())
    assert_same_weights(trained(base, train="last_block", patience=1)[0], weights)
    saved = load_classifier(out / "classifier").saved.model.trained_parameters()
    assert all(torch.equal(saved[name], value) for name, value in weights.items())


def test_the_first_process_alone_refuses_a_folder(base, tmp_path):
    (tmp_path / "mine.txt").touch()

    def refused():
        with pytest.raises(InputError) as error:
            run(tmp_path / "nothing.csv", base, tmp_path)
        return type(error.value), str(error.value)

    first, second = together(2, refused)
    assert first[0] is InputError
    assert "is not empty and holds no run" in first[1]
    assert second[0] is SaidElsewhereError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "mine.txt"]
