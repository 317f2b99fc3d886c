"""The training loop: the shape of the book's ``train_classifier_simple``, with what a real run needs.

It knows nothing of GPT: a model maps ``(ids, lengths)`` to outputs, a task has a loss and a measure, a loader
gives ``(ids, lengths, targets)``. What a run does besides (keep the best weights, save checkpoints, …) are
:class:`Hook` objects, called after every step and every epoch.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from gptcls.core.answer import mean_of_each
from gptcls.core.batches import Batch
from gptcls.core.errors import InputError
from gptcls.core.task import Task

log = logging.getLogger("gptcls")


class NonFiniteLossError(InputError):
    """Training diverged: the loss or a gradient is no longer a number."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a :class:`Trainer` trains. A step is one of the optimizer, counted from 0."""

    epochs: int
    lr: float  # at the peak
    weight_decay: float = 0.1
    decay_on: str = "matrices"  # or "all": norms and biases too
    schedule: str = "cosine"  # or "constant" or "trapezoid", after the warm-up
    warmup: float = 0.0  # share of all steps in which the learning rate rises
    decay: float = 0.0  # share of all steps in which a trapezoid's falls
    clip: float = 0.0  # largest norm of the gradient; 0 does not clip
    accumulate: int = 1  # batches per step


@dataclass
class Progress:
    """Where a run stands: everything about it that is not a tensor."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    examples_seen: int = 0
    seconds: float = 0.0
    finished: bool = False
    history: list[dict] = field(default_factory=list)  # what hooks measured on the way


def lr_factor(
    schedule: str, step: int, total_steps: int, warmup_steps: int = 0, decay_steps: int = 0
) -> float:
    """What the peak learning rate is multiplied by at ``step``, from 0.

    It rises linearly for ``warmup_steps`` and is 1 at the step after them; from there ``"constant"`` stays
    at 1, ``"cosine"`` falls to 0 at ``total_steps`` along half a cosine (Loshchilov & Hutter 2017, without
    restarts), and ``"trapezoid"`` stays at 1 until the last ``decay_steps`` and falls to 0 along a line there
    (Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations").

    >>> [round(lr_factor("trapezoid", step, 6, warmup_steps=2, decay_steps=2), 3) for step in range(6)]
    [0.333, 0.667, 1.0, 1.0, 1.0, 0.5]
    """
    if step < warmup_steps:  # + 1: the first step learns too; the peak, once, is what follows
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "trapezoid":
        return min(1.0, (total_steps - step) / max(1, decay_steps))
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float, on: str = "matrices") -> list[dict]:
    """An optimizer's parameter groups: weight decay on matrices alone, since it would pull norms and biases
    to a meaningless 0; with ``on="all"`` on everything, as the book has it."""
    parameters = list(parameters)
    decayed = [p for p in parameters if p.ndim > 1 or on == "all"]
    others = [p for p in parameters if p.ndim <= 1 and on != "all"]
    groups = ((decayed, weight_decay), (others, 0.0))
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


class Hook:
    """Something that happens around the steps; a hook overrides what it needs."""

    def on_start(self, trainer: "Trainer") -> None:
        """Before the first step, also of a resumed run."""

    def on_gradients(self, trainer: "Trainer") -> None:
        """In each step, before its gradients are clipped and used."""

    def on_step(self, trainer: "Trainer") -> None:
        """After each step."""

    def on_epoch(self, trainer: "Trainer") -> None:
        """After the last step of each epoch; ``trainer.progress.finished = True`` ends the run here."""

    def on_end(self, trainer: "Trainer") -> None:
        """When training ends, in whichever way."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs of this hook: tensors and plain values by name."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned."""


class Trainer:
    """One training run of ``model`` that can stop and go on, bit for bit, on a CPU.

    Args:
        model: maps ids (B, T) and lengths (B,) to outputs; its parameters that require gradients are trained.
        task: has ``loss(outputs, targets)`` and ``loss_weight(targets)``.
        train_loader: batches of an epoch. Their order must come from torch's global generator.
        hooks: called in their order.
        optimizer: over the trained parameters, by default AdamW with :func:`decay_groups`. ``lr_scale`` in
            one of its parameter groups multiplies the learning rate there.
        parts: the smaller batches that go through the network, one by one, in the place of one: all of its
            rows, or of several processes this one's share. The step is the whole's.
    """

    def __init__(
        self, model: nn.Module, task: Task, train_loader: Iterable[Batch], settings: FitSettings,
        device: torch.device, hooks: Sequence[Hook] = (), optimizer: torch.optim.Optimizer | None = None,
        parts: Callable[[Batch], list[Batch]] = lambda batch: [batch],
    ) -> None:  # fmt: skip
        self.model, self.task, self.train_loader = model, task, train_loader
        self.settings, self.device, self.hooks, self.parts = settings, device, hooks, parts
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for parameter in self.parameters.values():  # a loaded one may be a transposed view of a file
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        # fused: one pass over the memory instead of a dozen, ten times as fast on a CPU.
        groups = decay_groups(self.parameters.values(), settings.weight_decay, settings.decay_on)
        self.optimizer = optimizer or torch.optim.AdamW(groups, lr=settings.lr, fused=True)
        self.steps_per_epoch = math.ceil(len(train_loader) / settings.accumulate)
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.progress = Progress()
        self.epoch_rng = rng_state()  # the generators as this epoch's shuffling found them

    def fit(self) -> Progress:
        """Train to the end, or until a hook ends it. Raises NonFiniteLossError; what hooks raise passes."""
        progress = self.progress
        started = time.perf_counter() - progress.seconds
        try:
            self._call("on_start")
            while progress.epoch < self.settings.epochs and not progress.finished:
                for group in self._steps_of_epoch():
                    self.loss = self._step(group)
                    progress.seconds = time.perf_counter() - started
                    self._call("on_step")
                progress.epoch += 1
                progress.step_in_epoch = 0
                self._call("on_epoch")
                progress.seconds = time.perf_counter() - started
            progress.finished = True
        finally:
            self._call("on_end")
        return progress

    def _call(self, event: str) -> None:
        for hook in self.hooks:
            getattr(hook, event)(self)

    def _steps_of_epoch(self) -> Iterator[list[Batch]]:
        """The batches of each step still to do in this epoch, in the order that the generators dictate."""
        self.model.train()
        done, now = self.progress.step_in_epoch, rng_state()
        if done:  # draw the interrupted epoch's order again, then skip what is done
            set_rng_state(self.epoch_rng)
        else:
            self.epoch_rng = now
        batches = iter(self.train_loader)
        for _ in islice(batches, done * self.settings.accumulate):
            pass
        if done:
            set_rng_state(now)
        while group := list(islice(batches, self.settings.accumulate)):
            yield group

    def _step(self, group: list[Batch]) -> float:
        """One update from the batches of ``group``; returns their mean loss."""
        progress, lr = self.progress, self.lr(self.progress.step)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = lr * param_group.get("lr_scale", 1.0)
        self.optimizer.zero_grad()
        whole = sum(self.task.loss_weight(targets) for _, _, targets in group)
        self.loss = 0.0
        for ids, lengths, targets in (part for batch in group for part in self.parts(batch)):
            outputs = self.model(ids.to(self.device), lengths.to(self.device))
            # Each part has the share that it has in the mean over all rows of the step.
            share = self.task.loss_weight(targets) / whole
            part = self.task.loss(outputs, targets.to(self.device)) * share
            part.backward()
            self.loss += part.item()
        self._call("on_gradients")
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]  # not all need be used
        norm = nn.utils.get_total_norm([g.coalesce().values() if g.is_sparse else g for g in gradients])
        if not (math.isfinite(self.loss) and math.isfinite(norm)):
            what = "gradient norm" if math.isfinite(self.loss) else "loss"
            raise NonFiniteLossError(f"the {what} is no longer finite at step {progress.step} (lr {lr:.3g})")
        if self.settings.clip and norm > self.settings.clip:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), self.settings.clip, norm)
        self.optimizer.step()
        progress.step += 1
        progress.step_in_epoch += 1
        progress.examples_seen += sum(len(targets) for _, _, targets in group)
        return self.loss

    def lr(self, step: int) -> float:
        """The learning rate of a step."""
        settings, total = self.settings, self.total_steps
        warmup_steps, decay_steps = round(settings.warmup * total), round(settings.decay * total)
        return settings.lr * lr_factor(settings.schedule, step, total, warmup_steps, decay_steps)


class Curves(Hook):
    """The loss on ``eval_iter`` batches of train and validation every ``eval_freq`` steps, the measure after
    each epoch: with ``full`` on all validation rows, and the loss there as well. ``val_iter``, if given,
    takes the place of ``eval_iter`` for validation, and for train after an epoch.

    How many rows a look took is noted as ``train_rows`` and ``val_rows``. ``val_loader`` keeps the order of
    its dataset.
    """

    def __init__(
        self, val_loader: Iterable[Batch], eval_freq: int, eval_iter: int, full: bool = False,
        val_iter: int | None = None,
    ) -> None:  # fmt: skip
        self.val_loader, self.eval_freq, self.eval_iter, self.full = val_loader, eval_freq, eval_iter, full
        self.val_iter = eval_iter if val_iter is None else val_iter

    def on_step(self, trainer: Trainer) -> None:
        if (trainer.progress.step - 1) % self.eval_freq:
            return
        train_loss, _, train_rows = self._look(trainer, trainer.train_loader, self.eval_iter)
        whole = self.val_iter >= len(self.val_loader)
        val_loss, _, val_rows = self._look(trainer, self.val_loader, None if whole else self.val_iter)
        self._record(trainer, train_rows, val_rows, train_loss=train_loss, val_loss=val_loss)
        where = f"epoch {trainer.progress.epoch + 1} step {trainer.progress.step - 1:04d}"
        self.say(trainer, where, f"train loss {train_loss:.3f}, validation loss {val_loss:.3f}")

    def on_epoch(self, trainer: Trainer) -> None:
        _, train, train_rows = self._look(trainer, trainer.train_loader, self.val_iter)
        n_batches = None if self.full else self.val_iter
        val_loss, val, val_rows = self._look(trainer, self.val_loader, n_batches)
        name, show = trainer.task.measure_name, trainer.task.measure_format.format
        full_loss = val_loss if self.full else None
        values = {f"train_{name}": train, f"val_{name}": val, "full_val_loss": full_loss}
        self._record(trainer, train_rows, val_rows, **values)
        seen = f"all {val_rows:,} rows, loss {val_loss:.4f}" if self.full else f"{val_rows:,} rows"
        measured = f"train {name} {show(train)} ({train_rows:,} rows), validation {name} {show(val)} ({seen})"
        self.say(trainer, f"epoch {trainer.progress.epoch}", measured)

    def say(self, trainer: Trainer, where: str, measured: str) -> None:
        """Log what was measured, after some steps or, with 0 steps in the next one, after an epoch."""
        log.info(f"{where}: {measured}")

    def _look(self, trainer: Trainer, loader: Iterable[Batch], n: int | None) -> tuple[float, float, int]:
        """Loss and measure on ``n`` batches, and how many rows these held."""
        logits, targets = text_logits(trainer.model, loader, trainer.device, n)
        return trainer.task.loss(logits, targets).item(), trainer.task.measure(logits, targets), len(targets)

    def _record(self, trainer: Trainer, train_rows: int, val_rows: int, **values: float | None) -> None:
        progress, step = trainer.progress, trainer.progress.step - 1
        where = {"step": step, "epoch": progress.step / trainer.steps_per_epoch}
        where |= {"examples_seen": progress.examples_seen, "lr": trainer.lr(step)}
        where |= {"train_rows": train_rows, "val_rows": val_rows}
        finite = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
        progress.history.append(where | finite)


@torch.inference_mode()
def text_logits(
    model: nn.Module, loader: Iterable[Batch], device: torch.device, num_batches: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and targets of the first ``num_batches`` batches, on the CPU; of all, the default, one
    row (K,) for each text: of a text that was cut into several rows it is the mean of theirs, and the loader
    has to keep the order of its dataset. The model is left in the mode it was in."""
    was_training = model.training
    model.eval()
    pairs = [
        (model(ids.to(device), lengths.to(device)).float().cpu(), targets)
        for ids, lengths, targets in islice(loader, num_batches)
    ]
    model.train(was_training)
    logits, targets = map(torch.cat, zip(*pairs, strict=True))
    dataset = getattr(loader, "dataset", None)
    if num_batches is None and dataset is not None and len(logits) > len(dataset.targets):
        return mean_of_each(logits, dataset.owners), dataset.targets
    return logits, targets


def evaluate_loader(
    model: nn.Module,
    task: Task,
    loader: Iterable[Batch],
    device: torch.device,
    num_batches: int | None = None,
) -> tuple[float, float]:
    """Mean loss and the task's measure over the first ``num_batches`` batches of a loader, by default over
    all texts, see :func:`text_logits`."""
    logits, targets = text_logits(model, loader, device, num_batches)
    return task.loss(logits, targets).item(), task.measure(logits, targets)


def rng_state() -> dict[str, Tensor]:
    """The state of torch's global generators, by device."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Put the generators back to what :func:`rng_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
