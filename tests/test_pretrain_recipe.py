"""What makes pretraining faster: kept tokens, the table's start, Muon, the trapezoid, kept weights."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_pretrain import TINY, config, text  # noqa: F401
from test_train import command, refused  # noqa: F401

import gptcls.pretrain.run
from gptcls.core.loop import Hook, Trainer
from gptcls.models.pretrained import load_pretrained
from gptcls.pretrain import run as pretrainer
from gptcls.pretrain import text as texts
from gptcls.pretrain.muon import Muon
from gptcls.pretrain.run import pretrain
from gptcls.pretrain.text import Stream, WindowLoader, read_streams

RECIPE = {
    "optimizer": "muon", "table": "counts", "table_rate": 0.0, "schedule": "trapezoid", "decay": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("runs") / "x"
    return pretrain(config(text, folder, **RECIPE, keep=(1, 60), cache=folder.parent / "cache"))


def trainer_of(text, tmp_path, hooks=(), **changes):  # noqa: F811
    """Built as a run builds it; on 100 steps of windows of one text."""
    options = config(text, tmp_path, **changes)
    loader = WindowLoader([Stream.of("x", ["the cat sat on the mat " * 20])], [1], 8, 2, steps=100, seed=0)
    model, _ = pretrainer.build_model(options)
    model.wte.requires_grad_(options.table_rate > 0)
    return pretrainer._trainer(model, loader, options, torch.device("cpu"), torch.float32, hooks)


def test_it_learns_and_keeps_what_it_was_told_to(run, text):  # noqa: F811
    assert run.perplexity[str(text)] < run.history[0][f"perplexity {text}"] / 2
    assert {p.name for p in (run.folder / "kept").iterdir()} == {"step-000001", "step-000060"}
    kept = load_file(run.folder / "kept" / "step-000060" / "model.safetensors")
    last = load_file(run.folder / "model" / "model.safetensors")
    assert all(torch.equal(kept[name], value.half()) for name, value in last.items())
    assert load_pretrained(run.folder / "kept" / "step-000001").config.n_embd == 16


def test_the_first_guess_is_the_tokens_frequency(run, text):  # noqa: F811
    random = pretrain(config(text, run.folder.parent / "random", steps=1)).history[0]
    assert run.history[0][f"perplexity {text}"] < random[f"perplexity {text}"] / 10


def test_an_interrupted_run_with_a_frozen_table_ends_with_the_same_bits(run, text, tmp_path, monkeypatch):  # noqa: F811
    step = Trainer._step

    def ctrl_c_in_step_31(self, group):
        if self.progress.step == 30:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    monkeypatch.setattr(Trainer, "_step", ctrl_c_in_step_31)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config(text, tmp_path / "cut", **RECIPE))
    monkeypatch.undo()
    monkeypatch.setattr(pretrainer, "start_from_counts", lambda *_: pytest.fail("computed again"))
    again = pretrain(config(text, tmp_path / "cut", **RECIPE, resume=True))
    whole, resumed = (load_file(r.folder / "model" / "model.safetensors") for r in (run, again))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_frozen_table_stays_and_the_blocks_gradients_are_the_same(text, tmp_path):  # noqa: F811
    found = []
    for frozen in (False, True):
        trainer = trainer_of(text, tmp_path, table_rate=1.0 - frozen, dropout=0.0, clip=0.0)
        trainer.optimizer.step = lambda: None
        trainer.model.train()
        trainer._step([next(iter(trainer.train_loader))])
        found.append([p.grad for p in trainer.model.blocks.parameters()])
        assert (trainer.model.wte.weight.grad is None) == frozen
        assert ("wte.weight" in trainer.parameters) != frozen
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_trained_parameter_has_one_group(text, tmp_path, optimizer, frozen):  # noqa: F811
    trainer = trainer_of(text, tmp_path, optimizer=optimizer, table_rate=1.0 - frozen)
    groups = trainer.optimizer.param_groups
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(map(id, trainer.parameters.values()))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {id(p) for p in trainer.parameters.values() if p.ndim == 2}
    if optimizer == "muon":
        assert isinstance(trainer.optimizer, Muon)
        muons = [id(p) for group in groups if group["parts"] for p in group["params"]]
        assert sorted(muons) == sorted(id(p) for p in trainer.model.blocks.parameters() if p.ndim == 2)


def test_one_learning_rate_for_all_and_a_trapezoid(text, tmp_path):  # noqa: F811
    rates = []

    class Watch(Hook):
        def on_step(self, trainer):
            rates.append({group["lr"] for group in trainer.optimizer.param_groups})

    trainer = trainer_of(text, tmp_path, [Watch()], lr=0.01, warmup=0.02, **RECIPE)
    trainer.fit()
    expected = [0.01 / 3, 0.02 / 3, *[0.01] * 49, *(0.01 * left / 50 for left in range(49, 0, -1))]
    assert [rate for (rate,) in rates] == pytest.approx(expected)
    constant = trainer_of(text, tmp_path, schedule="trapezoid", decay=0.0, warmup=0.0)
    assert {constant.lr(step) for step in range(100)} == {0.01}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_token_table_has_its_own_rate(text, tmp_path, optimizer):  # noqa: F811
    trainer = trainer_of(text, tmp_path, optimizer=optimizer, lr=0.01, table_rate=0.1, warmup=0.0)
    trainer._step([next(iter(trainer.train_loader))])
    table = trainer.model.wte.weight
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert rates.pop(id(table)) == pytest.approx(0.001)
    assert set(rates.values()) == {0.01}


def test_a_full_disk_does_not_end_a_run(text, tmp_path, caplog):  # noqa: F811
    caplog.set_level("INFO", "gptcls")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text(
        '{"format": "gptcls run"}'
    )  # an earlier run, left before it began
    (tmp_path / "x" / "kept").write_text("no folder can be made here")
    run = pretrain(config(text, tmp_path / "x", steps=2, keep=(1,)))
    assert (run.folder / "model").exists()
    assert "free space; training goes on" in caplog.text


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_tokens_are_kept_and_a_changed_file_is_read_anew(tmp_path, monkeypatch):
    path, cache = tmp_path / "t.jsonl", tmp_path / "cache"
    rows = [{"text": f"document number {i}", "title": f"title {i}"} for i in range(30)]

    def write():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def same(*options):
        kept, new = read_streams(str(path), *options, cache), read_streams(str(path), *options)
        for a, b in zip(kept, new, strict=True):
            assert np.array_equal(a.tokens, b.tokens)
            assert np.array_equal(a.starts, b.starts)
            assert a.tokens.dtype == np.uint16
        return kept

    write()
    first = same(None, 0.1)
    assert len(files(cache)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(texts, "encode", lambda _: pytest.fail("tokenized again"))
        train, held = read_streams(str(path), None, 0.1, cache)
    assert isinstance(train.tokens, np.memmap)
    assert np.array_equal(train.tokens, first[0].tokens)
    assert len(train.starts) + len(held.starts) == 30
    assert train.windows(8).shape[1] == len(train.window(5, 8)) == 8
    for options, n_files in (((None, 0.2), 4), (("title", 0.1), 6)):
        same(*options)
        assert len(files(cache)) == n_files
    rows[0]["text"] = "document number X"  # as long as before
    write()
    same(None, 0.1)
    assert len(files(cache)) == 8
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    same(None, 0.1)
    for file in cache.iterdir():
        file.write_bytes(b"")
    same(None, 0.1)


def test_a_run_from_kept_tokens_ends_with_the_same_bits(run, text, tmp_path):  # noqa: F811
    again = pretrain(config(text, tmp_path / "y", **RECIPE, cache=run.folder.parent / "cache"))
    assert again.perplexity == run.perplexity


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--table", "counts", "--init", "pretrained"), ("--table counts", "--init random")),
        (("--table-mix", "1"), ("--table-mix", "--table counts")),
        (("--table", "counts", "--table-mix", "1", "2"), ("--table-mix 1.0 2.0", "1 files")),
        (("--table", "counts", "--table-mix", "0"), ("--table-mix 0.0", "1 files")),
        (("--schedule", "trapezoid", "--decay", "1.5"), ("--decay 1.5", "not a share")),
        (("--schedule", "trapezoid", "--decay", "-0.1"), ("--decay -0.1",)),
        (("--decay", "0.5"), ("--decay 0.5", "--schedule trapezoid")),
        (("--keep", "1", "11"), ("--keep 11", "--steps 10")),
        (("--keep", "0"), ("--keep 0",)),
        (("--cache", "t.txt"), ("--cache t.txt is a file",)),
        (("--cache", "c", "--data", "absent.txt"), ("absent.txt", "no such file")),
        (("--optimizer", "sgd"), ("--optimizer", "sgd")),
    ],
)  # fmt: skip
def test_what_it_refuses(command, tmp_path, options, words):  # noqa: F811
    (tmp_path / "t.txt").write_text("the cat sat on the mat " * 400)
    sizes = () if "pretrained" in options else TINY
    refused(
        command(
            gptcls.pretrain.run, "--data", "t.txt", "--steps", "10", "--init", "random", *sizes, *options
        ),
        *words,
    )
    assert not (tmp_path / "runs").exists()
