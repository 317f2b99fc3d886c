"""What a training run is told, and where it stands.

The learning rate as a pure function of the step, so that a resumed run needs no state for it.

torch's global random generators, saved and restored.

Loss and the task's measure of a model over a loader, without training it.

The training loop: the shape of the book's ``train_classifier_simple``, with what a real run needs.

It knows nothing of GPT: a model maps ``(ids, lengths)`` to logits and has ``trained_parameters()``; a
task has a loss and a measure; loaders give ``(ids, lengths, targets)``.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from gptcls.common.interrupt import stop_requested
from gptcls.core.batches import Batch
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.train.checkpoint import part


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How :class:`gptcls.core.loop.Trainer` trains. A step is one of the optimizer, counted from 0."""

    epochs: int
    lr: float
    weight_decay: float
    schedule: str  # "cosine" or "constant", after the warm-up
    warmup: float  # share of all steps in which the learning rate rises
    clip: float  # largest gradient norm; 0 does not clip
    accumulate: int  # batches a step
    patience: int  # epochs without a better validation loss before the run stops; 0 never stops early
    eval_freq: int  # steps between two entries of the loss curve
    eval_iter: int  # batches of train and validation that such an entry looks at


@dataclass
class Progress:
    """Where a run stands: everything about it that is no tensor."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    examples_seen: int = 0
    best_val_loss: float = math.inf
    best_epoch: int = 0  # from 1; 0 while no epoch was judged
    kept_step: int = 0  # steps behind the weights to go back to
    epochs_without_better: int = 0
    finished: bool = False
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)


def lr_factor(schedule: str, step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """What the peak learning rate is multiplied by at ``step`` (from 0).

    It rises linearly over ``warmup_steps``; then ``"constant"`` stays at 1 and ``"cosine"`` falls to 0 at
    ``total_steps`` along half a cosine (Loshchilov & Hutter 2017, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


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


@torch.inference_mode()
def loader_logits(
    model: nn.Module, loader: Iterable[Batch], device: torch.device, num_batches: int | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and targets of the first ``num_batches`` batches (all by default), on the CPU.

    The model is left in the mode it was in.
    """
    was_training = model.training
    model.eval()
    pairs = [
        (model(ids.to(device), lengths.to(device)).float().cpu(), targets)
        for ids, lengths, targets in islice(loader, num_batches)
    ]
    model.train(was_training)
    logits, targets = zip(*pairs, strict=True)
    return torch.cat(logits), torch.cat(targets)


def evaluate_loader(
    model: nn.Module,
    task: Task,
    loader: Iterable[Batch],
    device: torch.device,
    num_batches: int | None = None,
) -> tuple[float, float]:
    """Mean loss and the task's measure over the first ``num_batches`` batches of a loader (default all)."""
    logits, targets = loader_logits(model, loader, device, num_batches)
    return task.loss(logits, targets).item(), task.measure(logits, targets)


log = logging.getLogger("gptcls")


CHECKPOINT_SECONDS = 60  # what a crash may cost; a checkpoint is four times the size of what is trained


class StoppedError(KeyboardInterrupt):
    """Ctrl-C, obeyed after a whole step: the state is fit to be saved and resumed."""


class NonFiniteLossError(InputError):
    """Training diverged; the model holds the last good weights."""


class Trainer:
    """One fine-tuning run of ``model`` that can stop and go on, bit for bit, on a CPU.

    Args:
        model: maps ids (B, T) and lengths (B,) to logits; ``trained_parameters()`` names what to update.
        task: the loss, and the measure that is logged beside it.
        train_loader: batches for training. Its order must come from torch's global generator.
        val_loader: batches for validation.
        settings: see :class:`FitSettings`.
        device: where the model is.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        train_loader: DataLoader,
        val_loader: DataLoader,
        settings: FitSettings,
        device: torch.device,
    ) -> None:
        self.model, self.task, self.settings, self.device = model, task, settings, device
        self.train_loader, self.val_loader = train_loader, val_loader
        self.parameters = model.trained_parameters()
        for parameter in self.parameters.values():  # a loaded one may be a transposed view of a file
            parameter.data = parameter.data.contiguous()
        # fused: one pass over the memory instead of a dozen, ten times as fast on a CPU.
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.steps_per_epoch = math.ceil(len(train_loader) / settings.accumulate)
        self.total_steps = settings.epochs * self.steps_per_epoch
        self.progress = Progress()
        self.kept: dict[str, Tensor] = {}  # the weights to go back to: best so far, or last good
        self.epoch_rng = rng_state()  # the generators as this epoch's shuffling found them

    def fit(self, on_checkpoint: Callable[[], None] | None = None) -> Progress:
        """Train to the end, or to the first Ctrl-C.

        ``on_checkpoint`` is called whenever :data:`CHECKPOINT_SECONDS` have passed since the last time.
        The first Ctrl-C raises StoppedError once the step is done, the second KeyboardInterrupt at once.

        With ``patience`` the model ends with the weights of the best epoch. Raises NonFiniteLossError, with
        the last good weights restored, when the loss or a gradient is no longer a number.
        """
        progress, settings = self.progress, self.settings
        save = on_checkpoint or (lambda: None)
        if not self.kept:
            self._keep()
        saved_at = time.perf_counter()
        started = saved_at - progress.seconds
        bar = tqdm(total=self.total_steps, initial=progress.step, desc="training", unit="step", disable=None)
        with stop_requested() as stop, logging_redirect_tqdm([log]), bar:
            while progress.epoch < settings.epochs and not progress.finished:
                for group in self._batches_of_epoch():
                    loss = self._step(group)
                    bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                    bar.update()
                    if (progress.step - 1) % settings.eval_freq == 0:
                        self._log_losses()
                    now = time.perf_counter()
                    progress.seconds = now - started
                    if stop():
                        raise StoppedError
                    if now - saved_at > CHECKPOINT_SECONDS:
                        save()
                        saved_at = time.perf_counter()
                self._end_epoch()
                progress.seconds = time.perf_counter() - started
                if stop():
                    raise StoppedError
        if progress.best_epoch:
            self._restore_kept()
            best = progress.best_val_loss
            log.info(f"kept the weights of epoch {progress.best_epoch}, validation loss {best:.4f}")
        progress.finished = True
        return progress

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside weights and optimizer: the weights to go back to, and torch's
        generators, now and as the epoch's shuffling found them."""
        parts = {"kept": self.kept, "rng": rng_state(), "epoch_rng": self.epoch_rng}
        return {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state` returned."""
        self.kept = {name: value.to(self.device) for name, value in part(state, "kept.").items()}
        self.epoch_rng = part(state, "epoch_rng.")
        set_rng_state(part(state, "rng."))

    def _batches_of_epoch(self) -> Iterator[list[Batch]]:
        """The batches of each step still to do in this epoch, in the order that the generators dictate."""
        self.model.train()
        resumed_at = rng_state()
        if self.progress.step_in_epoch:  # draw the interrupted epoch's order again, then skip what is done
            set_rng_state(self.epoch_rng)
        else:
            self.epoch_rng = resumed_at
        batches = iter(self.train_loader)
        for _ in islice(batches, self.progress.step_in_epoch * self.settings.accumulate):
            pass
        if self.progress.step_in_epoch:
            set_rng_state(resumed_at)
        while group := list(islice(batches, self.settings.accumulate)):
            yield group

    def _step(self, group: list[Batch]) -> float:
        """One update from the batches of ``group``; returns their mean loss."""
        settings, progress = self.settings, self.progress
        lr = self._lr(progress.step)
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = lr
        self.optimizer.zero_grad()
        n_examples = sum(len(targets) for _, _, targets in group)
        mass = sum(self.task.loss_weight(targets) for _, _, targets in group)
        total = 0.0
        for ids, lengths, targets in group:
            logits = self.model(ids.to(self.device), lengths.to(self.device))
            # Each batch has the share that it would have in one large batch.
            loss = self.task.loss(logits, targets.to(self.device)) * (self.task.loss_weight(targets) / mass)
            loss.backward()
            total += loss.item()
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters.values()])
        if not (math.isfinite(total) and math.isfinite(norm)):
            self._diverged(total, lr)
        if settings.clip and norm > settings.clip:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), settings.clip, norm)
        self.optimizer.step()
        progress.step += 1
        progress.step_in_epoch += 1
        progress.examples_seen += n_examples
        return total

    def _lr(self, step: int) -> float:
        settings = self.settings
        warmup_steps = round(settings.warmup * self.total_steps)
        return settings.lr * lr_factor(settings.schedule, step, self.total_steps, warmup_steps)

    def _log_losses(self) -> None:
        """An entry of the loss curve: a few batches of train and of validation, as in the book."""
        n = self.settings.eval_iter
        train_loss, _ = evaluate_loader(self.model, self.task, self.train_loader, self.device, n)
        val_loss, _ = evaluate_loader(self.model, self.task, self.val_loader, self.device, n)
        self._record(train_loss=train_loss, val_loss=val_loss)
        log.info(
            f"epoch {self.progress.epoch + 1} step {self.progress.step - 1:04d}: "
            f"train loss {train_loss:.3f}, validation loss {val_loss:.3f}"
        )
        # Until an epoch has been judged on the whole validation set, this is the best there is to go back to.
        if not self.progress.best_epoch and math.isfinite(train_loss + val_loss):
            self._keep()

    def _end_epoch(self) -> None:
        """The task's measure and, with patience, the loss over the whole validation set."""
        n, progress, task = self.settings.eval_iter, self.progress, self.task
        _, train_measure = evaluate_loader(self.model, self.task, self.train_loader, self.device, n)
        if self.settings.patience:
            val_loss, val_measure = evaluate_loader(self.model, self.task, self.val_loader, self.device)
            self._judge(val_loss)
        else:
            val_loss, val_measure = (
                None,
                evaluate_loader(self.model, self.task, self.val_loader, self.device, n)[1],
            )
        name, show = task.measure_name, task.measure_format.format
        self._record(
            **{f"train_{name}": train_measure, f"val_{name}": val_measure, "full_val_loss": val_loss}
        )
        sampled = f" ({n} batches)"
        log.info(
            f"epoch {progress.epoch + 1}: train {name} {show(train_measure)}{sampled}, "
            f"validation {name} {show(val_measure)}"
            + (sampled if val_loss is None else f", validation loss {val_loss:.4f} (all rows)")
        )
        progress.epoch += 1
        progress.step_in_epoch = 0

    def _judge(self, val_loss: float) -> None:
        """Keep the weights of the best epoch; finish when ``patience`` epochs brought nothing better."""
        progress = self.progress
        if val_loss < progress.best_val_loss:
            progress.best_val_loss, progress.best_epoch = val_loss, progress.epoch + 1
            progress.epochs_without_better = 0
            self._keep()
            return
        progress.epochs_without_better += 1
        if progress.epochs_without_better >= self.settings.patience:
            progress.finished = True
            log.info(f"no better validation loss for {self.settings.patience} epochs: stopping early")

    def _record(self, **values: float | None) -> None:
        progress = self.progress
        where = {
            "step": progress.step - 1,
            "epoch": progress.step / self.steps_per_epoch,
            "examples_seen": progress.examples_seen,
            "lr": self._lr(progress.step - 1),
        }
        progress.history.append(where | values)

    def _keep(self) -> None:
        self.progress.kept_step = self.progress.step
        self.kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def _restore_kept(self) -> None:
        for name, value in self.kept.items():
            self.parameters[name].copy_(value)

    def _diverged(self, loss: float, lr: float) -> None:
        self._restore_kept()
        what = "loss" if not math.isfinite(loss) else "gradient norm"
        step = self.progress.kept_step
        kept = f"the weights after {step} steps are kept" if step else "nothing worth keeping was trained"
        raise NonFiniteLossError(
            f"the {what} is no longer finite at step {self.progress.step} (lr {lr:.3g}): {kept}; "
            "try a smaller --lr"
        )
