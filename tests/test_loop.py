"""The training loop: equal to formulas, repeatable, and resumable to the bit."""

import math
import os
import re
import signal
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from helpers.tiny import CPU, TINY, best, tiny_trainer, val_loader

from gptcls.core.batches import pad
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.core.loop import (
    Curves,
    Hook,
    NonFiniteLossError,
    Trainer,
    decay_groups,
    evaluate_loader,
    lr_factor,
)
from gptcls.fast.parts import by_length
from gptcls.train.hooks import Checkpoints, StoppedError, load_checkpoint, save_checkpoint
from gptcls.train.run import carry_out


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def comparable(progress):
    return {k: v for k, v in asdict(progress).items() if k != "seconds"}


def stop_after(monkeypatch, n_steps):
    """Send this process Ctrl-C (SIGINT) after so many steps."""
    step = Trainer._step

    def stepping(self, group):
        loss = step(self, group)
        if self.progress.step == n_steps:
            os.kill(os.getpid(), signal.SIGINT)
        return loss

    monkeypatch.setattr(Trainer, "_step", stepping)


def test_it_learns_and_restores_the_best_epoch():
    trainer = tiny_trainer("all", lr=1e-2, epochs=12)
    progress = trainer.fit()
    losses = [row["full_val_loss"] for row in progress.history if row.get("full_val_loss") is not None]
    assert losses[-1] < losses[0] / 3
    loss, accuracy = evaluate_loader(trainer.model, trainer.task, val_loader(trainer), CPU)
    assert loss == pytest.approx(min(losses), abs=1e-6)
    assert losses[best(trainer).best_epoch - 1] == min(losses)
    assert accuracy == 1.0


def test_early_stopping_after_patience():
    trainer = tiny_trainer("head", lr=1.0, epochs=30, patience=2, schedule="constant")
    progress = trainer.fit()
    assert progress.epoch == best(trainer).best_epoch + 2 < 30
    loss, _ = evaluate_loader(trainer.model, trainer.task, val_loader(trainer), CPU)
    assert loss == pytest.approx(best(trainer).best_loss, abs=1e-6)


def test_frozen_weights_do_not_move():
    trainer = tiny_trainer("last_block")
    before = weights(trainer)
    trainer.fit()
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert moved == set(trainer.parameters)


def test_the_same_seed_gives_the_same_bits():
    runs = [tiny_trainer("all", config=replace(TINY, dropout=0.2)) for _ in range(2)]
    torch.manual_seed(3)
    first = runs[0].fit()
    torch.manual_seed(3)
    second = runs[1].fit()
    assert comparable(first) == comparable(second)
    for name, value in weights(runs[0]).items():
        assert torch.equal(value, weights(runs[1])[name]), name


def test_accumulated_batches_equal_one_large_batch():
    small, large = tiny_trainer(clip=0.0), tiny_trainer(clip=0.0)
    batches = list(large.train_loader)
    group, last = batches[:3], batches[-1]
    small._step([*group, last])
    longest = max(ids.shape[1] for ids, _, _ in (*group, last))
    ids = torch.cat(
        [torch.nn.functional.pad(ids, (0, longest - ids.shape[1])) for ids, _, _ in (*group, last)]
    )
    lengths, targets = (torch.cat([batch[i] for batch in (*group, last)]) for i in (1, 2))
    large._step([(ids, lengths, targets)])
    for name, parameter in small.parameters.items():
        torch.testing.assert_close(parameter.grad, large.parameters[name].grad, atol=1e-6, rtol=1e-4)


def test_one_step_is_adamw_by_its_formula():
    trainer = tiny_trainer("head", clip=0.0, warmup=0.0, schedule="constant", lr=0.01)
    before = trainer.model.head.weight.detach().clone()
    trainer._step([next(iter(trainer.train_loader))])
    grad = trainer.model.head.weight.grad
    # Loshchilov & Hutter 2019, algorithm 2, first step: both moments corrected are the gradient itself.
    expected = before * (1 - 0.01 * 0.1) - 0.01 * grad / (grad.abs() + 1e-8)
    torch.testing.assert_close(trainer.model.head.weight.detach(), expected, atol=1e-6, rtol=1e-5)


def test_accumulated_weighted_batches_equal_one_large_batch():
    small, large = tiny_trainer(clip=0.0), tiny_trainer(clip=0.0)
    for trainer in (small, large):
        trainer.task = replace(trainer.task, class_weights=(1.0, 7.0))
    rows = sorted(range(16), key=lambda row: row % 5)  # the classes fall unevenly into the batches
    data = small.train_loader.dataset
    batches = [data.collate([data[row] for row in part]) for part in (rows[:3], rows[3:16])]
    small._step(batches)
    large._step([data.collate([data[row] for row in rows])])
    for name, parameter in small.parameters.items():
        torch.testing.assert_close(parameter.grad, large.parameters[name].grad, atol=1e-6, rtol=1e-4)


def test_class_weights_are_torchs():
    task = replace(tiny_trainer().task, class_weights=(0.5, 3.0))
    logits, targets = torch.randn(6, 2), torch.tensor([0, 1, 1, 0, 0, 1])
    log_p = logits.log_softmax(-1)[torch.arange(6), targets]
    weights = torch.tensor([0.5, 3.0])[targets]
    torch.testing.assert_close(task.loss(logits, targets), -(weights * log_p).sum() / weights.sum())


def test_checkpoints_of_a_running_run_continue_it_exactly(tmp_path, monkeypatch):
    """As after a crash: whatever the last checkpoint was, the rest of the run is the same."""
    monkeypatch.setattr("gptcls.train.hooks.CHECKPOINT_SECONDS", -1)
    steps = []

    class Until(Checkpoints):
        def on_step(self, trainer):
            steps.append(trainer.progress.step)
            if len(steps) <= 11:
                super().on_step(trainer)

        def on_epoch(self, trainer):
            pass

    whole = tiny_trainer("all")
    whole.hooks.append(Until(tmp_path / "checkpoint"))
    whole.fit()
    assert steps == list(range(1, whole.total_steps + 1))
    resumed = tiny_trainer("all")
    load_checkpoint(tmp_path / "checkpoint", resumed)
    assert resumed.progress.step == 11
    resumed.fit()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_a_checkpoint_holds_no_infinity(tmp_path):
    trainer = tiny_trainer("head")
    save_checkpoint(tmp_path / "checkpoint", trainer)
    text = (tmp_path / "checkpoint" / "progress.json").read_text()
    assert not {"Infinity", "NaN"} & set(re.findall(r"\w+", text))


def test_a_second_ctrl_c_stops_at_once(monkeypatch):
    trainer = tiny_trainer()
    step = Trainer._step

    def interrupted(self, group):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return step(self, group)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer.fit()
    assert not isinstance(caught.value, StoppedError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_stops_cleanly_and_in_the_last_epoch_too():
    class Terminated(Hook):
        def on_epoch(self, trainer):
            if trainer.progress.epoch == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = tiny_trainer()
    trainer.hooks.insert(0, Terminated())
    with pytest.raises(StoppedError):
        trainer.fit()


def damage_truncate(folder):
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def damage_json(folder):
    (folder / "progress.json").write_text("{")


def damage_empty(folder):
    (folder / "progress.json").write_text("{}")


@pytest.mark.parametrize("damage", [damage_truncate, damage_json, damage_empty])
def test_damaged_checkpoint_is_one_line(tmp_path, damage):
    trainer = tiny_trainer("head")
    save_checkpoint(tmp_path / "checkpoint", trainer)
    damage(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="is damaged") as error:
        load_checkpoint(tmp_path / "checkpoint", trainer)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", tiny_trainer("head"))
    other = tiny_trainer("head", config=replace(TINY, n_embd=32))
    with pytest.raises(InputError, match="other parameters"):
        load_checkpoint(tmp_path / "checkpoint", other)


def test_hooks_may_write_to_the_history():
    class Noting(Hook):
        def on_step(self, trainer):
            trainer.progress.history.append({"step": trainer.progress.step, "seen": trainer.loss})

    trainer = tiny_trainer("head")
    trainer.hooks.append(Noting())
    trainer.fit()
    assert best(trainer).best_epoch


def test_clipping_bounds_the_gradient():
    trainer = tiny_trainer("all", clip=1e-3)
    trainer._step([next(iter(trainer.train_loader))])
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in trainer.parameters.values()))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_weight_decay_falls_on_what_transformers_decays():
    transformers = pytest.importorskip("transformers")
    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 100, "n_positions": 32}
    theirs = transformers.GPT2Model(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    names = transformers.Trainer.get_decay_parameter_names(None, theirs)
    ours = list(GPT2(GPT2Config(**sizes)).parameters())
    decayed, spared = decay_groups(ours, 0.1)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert sorted(p.shape.numel() for p in decayed["params"]) == sorted(
        p.numel() for name, p in theirs.named_parameters() if name in names
    )
    (everything,) = decay_groups(ours, 0.1, "all")
    assert everything["params"] == ours


def test_a_step_in_parts_is_the_step_of_the_whole_batch():
    whole, cut = tiny_trainer("all"), tiny_trainer("all")
    cut.model.load_state_dict(whole.model.state_dict())
    cut.parts, calls = partial(by_length, worth=1), []
    cut.model.register_forward_pre_hook(lambda *_: calls.append(1))
    batch = *pad([[7] * length for length in (3, 9, 2, 9)]), torch.tensor([0, 1, 1, 0])
    losses = [trainer._step([batch]) for trainer in (whole, cut)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert len(calls) > 1
    for one, other in zip(whole.parameters.values(), cut.parameters.values(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_schedule_against_torch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        assert lr_factor("cosine", step, 50) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("warmup", [0, 1, 4, 9])
def test_warm_up_against_transformers(warmup):
    """The same curve, begun one step later in it, since theirs wastes the first step on a rate of 0."""
    schedules = pytest.importorskip("transformers.optimization")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    cosine = schedules.get_cosine_schedule_with_warmup(optimizer, warmup + 1, 21).lr_lambdas[0]
    constant = schedules.get_constant_schedule_with_warmup(optimizer, warmup + 1).lr_lambdas[0]
    ours = [lr_factor("cosine", step, 20, warmup) for step in range(20)]
    assert ours == pytest.approx([cosine(step + 1) for step in range(20)])
    assert [lr_factor("constant", step, 20, warmup) for step in range(20)] == pytest.approx(
        [constant(step + 1) for step in range(20)]
    )
    assert ours.count(1.0) == 1, "one peak"


@pytest.mark.parametrize("patience", [0, 2])
def test_diverging_from_the_start_restores_the_start(patience):
    trainer = tiny_trainer("all", patience=patience, lr=1e30, clip=0.0, warmup=0.0, eval_freq=1)
    start = weights(trainer)
    with pytest.raises(NonFiniteLossError, match=r"no longer finite at step 1 .*nothing worth.*smaller --lr"):
        carry_out(trainer)
    assert best(trainer).kept_step == 0
    for name, value in weights(trainer).items():
        assert torch.equal(value, start[name])


@pytest.mark.parametrize("patience", [0, 2])
def test_diverging_later_keeps_the_last_good_weights(patience, monkeypatch):
    trainer = tiny_trainer("all", patience=patience)
    lr = Trainer.lr
    monkeypatch.setattr(Trainer, "lr", lambda self, step: 1e30 if step == 13 else lr(self, step))
    with pytest.raises(NonFiniteLossError, match=r"at step 14 .*weights after (8|13) steps are kept"):
        carry_out(trainer)
    monkeypatch.undo()
    loss, _ = evaluate_loader(trainer.model, trainer.task, val_loader(trainer), CPU)
    good = [row for row in trainer.progress.history if row["step"] == best(trainer).kept_step - 1]
    expected = good[-1]["full_val_loss"] if patience else None
    assert loss == pytest.approx(expected, abs=1e-6) if patience else math.isfinite(loss)


@pytest.mark.parametrize("bucketed", [True, False])
@pytest.mark.parametrize(("accumulate", "n_steps"), [(1, 1), (1, 7), (1, 8), (1, 13), (3, 2), (3, 3)])
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, monkeypatch, bucketed, accumulate, n_steps):
    changes = {
        "bucketed": bucketed,
        "accumulate": accumulate,
        "config": replace(TINY, dropout=0.3),
        "policy": "all",
    }
    whole = tiny_trainer(**changes)
    expected = whole.fit()

    interrupted = tiny_trainer(**changes)
    with monkeypatch.context() as patch:
        stop_after(patch, n_steps)
        with pytest.raises(StoppedError):
            interrupted.fit()
    save_checkpoint(tmp_path / "checkpoint", interrupted)
    assert interrupted.progress.step == n_steps

    torch.manual_seed(999)  # whatever happened in between must not matter
    resumed = tiny_trainer(**changes)
    torch.rand(5)
    load_checkpoint(tmp_path / "checkpoint", resumed)
    assert comparable(resumed.fit()) == comparable(expected)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_resume_keeps_the_early_stopping_state(tmp_path, monkeypatch):
    changes = {"policy": "head", "lr": 1.0, "epochs": 30, "patience": 3, "schedule": "constant"}
    whole = tiny_trainer(**changes)
    expected = whole.fit()
    assert best(whole).best_epoch < expected.epoch < 30
    interrupted = tiny_trainer(**changes)
    stop_after(monkeypatch, interrupted.steps_per_epoch * (expected.epoch - 1) + 2)
    with pytest.raises(StoppedError):
        interrupted.fit()
    save_checkpoint(tmp_path / "checkpoint", interrupted)
    monkeypatch.undo()
    resumed = tiny_trainer(**changes)
    load_checkpoint(tmp_path / "checkpoint", resumed)
    assert comparable(resumed.fit()) == comparable(expected)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_checkpoint_has_no_pickle_and_of_another_run_is_refused(tmp_path):
    trainer = tiny_trainer("head")
    save_checkpoint(tmp_path / "checkpoint", trainer)
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == [
        "progress.json",
        "state.safetensors",
    ]
    with pytest.raises(InputError, match="other parameters"):
        load_checkpoint(tmp_path / "checkpoint", tiny_trainer("last_block"))
    with pytest.raises(InputError, match="no interrupted run"):
        load_checkpoint(tmp_path / "nothing", trainer)


def test_curves_look_at_all_validation_rows_or_say_how_many():
    """60 rows in batches of 8."""
    own = tiny_trainer(epochs=1, patience=0)
    loader = val_loader(own)
    all_rows, some = Curves(loader, 3, 2, full=True, val_iter=8), Curves(loader, 3, 2, val_iter=3)
    own.hooks = [all_rows, some]
    seen = []

    class Look(Hook):
        def on_step(self, trainer):
            if (trainer.progress.step - 1) % 3 == 0:
                seen.append(
                    [evaluate_loader(trainer.model, trainer.task, loader, CPU, n)[0] for n in (None, 3)]
                )

    own.hooks.append(Look())
    history = own.fit().history
    points = [row for row in history if "val_loss" in row]
    assert [row["val_rows"] for row in points] == [60, 24] * (len(points) // 2)
    assert {row["train_rows"] for row in points} <= {12, 16}
    assert [row["val_loss"] for row in points] == pytest.approx([loss for pair in seen for loss in pair])
    full, short = history[-2:]
    assert (full["val_rows"], short["val_rows"]) == (60, 24)
    assert full["full_val_loss"] == evaluate_loader(own.model, own.task, loader, CPU)[0]
    assert short["full_val_loss"] is None
