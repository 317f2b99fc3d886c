"""What a real run does around the steps: the best weights kept, Ctrl-C obeyed between steps, a bar shown, and
the unfinished run on disk: ``progress.json`` and the safetensors that it names, no pickle.

Everything that the rest of a run depends on is in such a checkpoint: trained weights, the optimizer's moments
and step counts, torch's generators, the loop's counters and its hooks' state. So a run that continues ends
with the same bits as one that was never interrupted.
"""

import json
import re
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from gptcls.common import signals
from gptcls.common.files import atomic_file
from gptcls.common.log import log
from gptcls.common.processes import in_parts, processes, whole
from gptcls.common.signals import Interrupted
from gptcls.core.errors import InputError
from gptcls.core.loop import Curves, Hook, Progress, Trainer, rng_state, set_rng_state
from gptcls.fast.adamw import TableAdamW, with_all_rows
from gptcls.models.weight_files import saving

SILENT_SECONDS = 30  # longer without a line, and a log looks dead
CHECKPOINT_SECONDS = 60  # what a crash may cost; a checkpoint is four times the size of what is trained
WORTH = 50
STATES = ("state.safetensors", "state-2.safetensors")  # of which a checkpoint has one


class StoppedError(Interrupted):
    """A signal, obeyed after a whole step: the state is fit to be saved and resumed."""


class StopOnSignal(Hook):
    """Ctrl-C (SIGINT), SIGTERM or SIGHUP ends the run after the step under way, with :class:`StoppedError`; a
    second Ctrl-C ends it at once. It comes behind the hooks that look at the step."""

    def __init__(self) -> None:
        self.requested = 0  # the signal
        self.previous: dict[int, Any] = {}

    def on_start(self, trainer: Trainer) -> None:
        self.previous = signals.install(self._request)

    def _request(self, signum: int, frame: object) -> None:
        if self.requested:
            raise Interrupted(signum)
        self.requested = signum
        more = "; once more to stop at once" if signum == signal.SIGINT else ""
        log.info(f"stopping after this step{more}")

    def on_step(self, trainer: Trainer) -> None:
        if self.requested:
            raise StoppedError(self.requested)

    on_epoch = on_step

    def on_end(self, trainer: Trainer) -> None:
        signals.restore(self.previous)
        if self.requested and trainer.progress.finished:  # it came behind the last look
            raise StoppedError(self.requested)


class BestWeights(Hook):
    """The weights of the epoch with the best loss over all validation rows; without patience the last ones.

    It reads what :class:`gptcls.core.loop.Curves` recorded, so it comes right behind it. After ``patience``
    epochs without a better loss the run ends; 0 never judges. ``best_epoch`` counts from 1 and is 0 while no
    epoch was judged; ``kept_step`` counts the steps behind the weights to go back to: the best so far or,
    until an epoch was judged, the last ones seen to be good.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best_loss: float | None = None
        self.best_epoch = self.kept_step = self.epochs_without_better = 0
        self.kept: dict[str, Tensor] = {}

    def on_start(self, trainer: Trainer) -> None:
        if not self.kept:
            self._keep(trainer)

    def on_step(self, trainer: Trainer) -> None:
        last = trainer.progress.history[-1] if trainer.progress.history else {}
        # What is not finite was recorded as None; a hook of the user's may record other things.
        good = None not in (last.get("train_loss"), last.get("val_loss"))
        if good and not self.best_epoch and last.get("step") == trainer.progress.step - 1:
            self._keep(trainer)

    def on_epoch(self, trainer: Trainer) -> None:
        if not self.patience:
            return
        progress = trainer.progress
        loss = progress.history[-1]["full_val_loss"]
        if loss is not None and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.best_epoch, self.epochs_without_better = loss, progress.epoch, 0
            self._keep(trainer)
            return
        self.epochs_without_better += 1
        if self.epochs_without_better >= self.patience:
            progress.finished = True
            log.info(f"no better validation loss for {self.patience} epochs: stopping early")

    def on_end(self, trainer: Trainer) -> None:
        if trainer.progress.finished and self.best_epoch:
            self.go_back(trainer)
            log.info(f"kept the weights of epoch {self.best_epoch}, validation loss {self.best_loss:.4f}")

    @torch.no_grad()
    def go_back(self, trainer: Trainer) -> None:
        """Put the kept weights into the network."""
        for name, parameter in trainer.parameters.items():
            if (value := self.kept.get(_bare(name))) is not None:
                parameter.copy_(in_parts(value, parameter))

    def state(self) -> dict[str, Any]:
        values = ("best_loss", "best_epoch", "kept_step", "epochs_without_better")
        return {name: getattr(self, name) for name in values} | {f"kept.{k}": v for k, v in self.kept.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name.startswith("kept."):
                self.kept[_bare(name.removeprefix("kept."))] = value
            else:
                setattr(self, name, value)

    def _keep(self, trainer: Trainer) -> None:
        self.kept_step = trainer.progress.step
        self.kept = {_bare(name): p.detach().clone() for name, p in trainer.parameters.items()}


class EpochLines(Curves):
    """:class:`Curves` whose log reads well without a terminal: a line an epoch, with the mean loss of its
    steps, the time so far and about the time left; in between one only after :data:`SILENT_SECONDS`."""

    def on_start(self, trainer: Trainer) -> None:
        self.losses: list[float] = []
        self.said_at = time.perf_counter()

    def on_step(self, trainer: Trainer) -> None:
        self.losses.append(trainer.loss)
        super().on_step(trainer)

    def say(self, trainer: Trainer, where: str, measured: str) -> None:
        progress, now = trainer.progress, time.perf_counter()
        if progress.step_in_epoch == 0:
            where += f" of {trainer.settings.epochs}"
            measured = f"loss {sum(self.losses) / max(1, len(self.losses)):.3f}, {measured}"
            self.losses.clear()
        elif now - self.said_at < SILENT_SECONDS:
            return
        self.said_at = now
        log.info(f"{where}: {measured}; {time_left(progress, trainer.total_steps)}")


def time_left(progress: Progress, total_steps: int) -> str:
    """The time of training so far and, unless this was the last step, about what is left.

    >>> time_left(Progress(step=50, seconds=20.0), total_steps=200)
    '20 s, about 1 min 0 s left'
    """
    so_far, left = duration(progress.seconds), total_steps - progress.step
    if not (progress.step and left):
        return so_far
    return f"{so_far}, about {duration(progress.seconds / progress.step * left)} left"


def duration(seconds: float) -> str:
    """
    >>> duration(7.2), duration(200), duration(7500)
    ('7 s', '3 min 20 s', '2 h 5 min')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


class ProgressBar(Hook):
    """A bar of steps on the terminal, log lines above it; ``per_step`` units of ``unit`` each."""

    def __init__(self, name: str, unit: str = "step", per_step: int = 1) -> None:
        self.name, self.unit, self.per_step = name, unit, per_step

    def on_start(self, trainer: Trainer) -> None:
        self.stack = ExitStack()
        self.stack.enter_context(logging_redirect_tqdm([log]))
        total, done = (n * self.per_step for n in (trainer.total_steps, trainer.progress.step))
        how = {"desc": self.name, "unit": self.unit, "unit_scale": self.per_step > 1, "disable": None}
        self.bar = self.stack.enter_context(tqdm(total=total, initial=done, **how))

    def on_step(self, trainer: Trainer) -> None:
        self.bar.set_postfix(loss=f"{trainer.loss:.3f}", refresh=False)
        self.bar.update(self.per_step)

    def on_end(self, trainer: Trainer) -> None:
        self.stack.close()


class Checkpoints(Hook):
    """A checkpoint in ``folder`` whenever :data:`CHECKPOINT_SECONDS` have passed since the last one, and at
    the end of an epoch, once :data:`WORTH` times what one takes have passed: of the time of many short epochs
    they take no more than a fiftieth."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.takes = 0.1  # seconds; a guess, until one is written

    def on_start(self, trainer: Trainer) -> None:
        self.saved_at = time.perf_counter()

    def on_step(self, trainer: Trainer) -> None:
        self._save(trainer, CHECKPOINT_SECONDS)

    def on_epoch(self, trainer: Trainer) -> None:
        self._save(trainer, min(CHECKPOINT_SECONDS, WORTH * self.takes))

    def _save(self, trainer: Trainer, seconds: float) -> None:
        if (began := time.perf_counter()) - self.saved_at <= seconds:
            return
        try:
            save_checkpoint(self.folder, trainer)
        except InputError as error:  # a full disk does not end a healthy run
            log.info(f"{error}; training goes on")
        self.saved_at = time.perf_counter()
        self.takes = self.saved_at - began


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write the trainer's state to ``folder``, in place of an earlier one once it is complete: by the one
    step in which a new ``progress.json`` names new tensors. InputError where it cannot be written.

    Of several processes the first one writes; where the network is in parts, all of them have to call it."""
    tensors = {f"model.{name}": p.detach() for name, p in trainer.parameters.items()}
    tensors |= {f"rng.{name}": value for name, value in rng_state().items()}
    tensors |= {f"epoch_rng.{name}": value for name, value in trainer.epoch_rng.items()}
    for name, p in trainer.parameters.items():
        tensors |= {f"optimizer.{key}.{name}": v for key, v in trainer.optimizer.state[p].items()}
    values: dict[str, dict] = {}
    for hook in trainer.hooks:
        kind = type(hook).__name__
        for key, value in hook.state().items():
            if isinstance(value, Tensor):
                tensors[f"hook.{kind}.{key}"] = value
            else:
                values.setdefault(kind, {})[key] = value
    tensors = {name: whole(tensor).contiguous() for name, tensor in tensors.items()}
    if processes()[0]:
        return
    state = folder / STATES[_tensors_of(folder) == STATES[0]]  # never the one that the earlier one needs
    description = {"progress": asdict(trainer.progress), "hooks": values, "tensors": state.name}
    with saving("the checkpoint", folder):
        with atomic_file(state) as temporary:
            save_file(tensors, temporary)
        with atomic_file(folder / "progress.json") as temporary:
            temporary.write_text(json.dumps(description, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        for name in {*STATES} - {state.name}:
            (folder / name).unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> tuple[Progress, dict[str, dict], dict[str, Tensor]]:
    """How far a run was, what its hooks remember, and all tensors; InputError when the folder holds no
    checkpoint or a damaged one. It takes no network, so that a run is refused before it computes anything."""
    try:
        description = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        progress, values = Progress(**description["progress"]), dict(description["hooks"])
        if (name := description.get("tensors", STATES[0])) not in STATES:
            raise ValueError(f"its tensors are in {name!r:.40}")
        tensors = load_file(folder / name)
        counts = (progress.step, progress.epoch, progress.step_in_epoch)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError(f"it stands at step {progress.step!r:.20}, epoch {progress.epoch!r:.20}")
        if not all(isinstance(value, dict) for value in values.values()):
            raise TypeError("what a hook remembers is no object")
        if "rng.cpu" not in tensors or not (weights := _part(tensors, "model.")):
            raise ValueError("tensors are missing")
        if any(name.partition(".")[2] not in weights for name in _part(tensors, "optimizer.")):
            raise ValueError("the optimizer remembers what is not trained")
        if any(tensor.is_floating_point() and tensor.isnan().any() for tensor in tensors.values()):
            raise ValueError("a tensor holds what is not a number")
    except FileNotFoundError:
        raise InputError(f"{folder} holds no interrupted run; start again without --resume") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged ({error!s:.80}); start again in another --out") from None
    return progress, values, tensors


def load_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Put ``trainer``, built from the same settings and data, where :func:`save_checkpoint` found it;
    InputError when the folder holds no checkpoint, a damaged one, or one of another model."""
    progress, values, tensors = read_checkpoint(folder)
    weights = {_bare(name): value for name, value in _part(tensors, "model.").items()}
    parameters = {_bare(name): p for name, p in trainer.parameters.items()}
    if {k: v.shape for k, v in weights.items()} != {k: p.shape for k, p in parameters.items()}:
        raise InputError(f"{folder} is of a run that trained other parameters; start again without --resume")
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(in_parts(value, parameters[name]))
    trainer.progress = progress
    for full, value in _part(tensors, "optimizer.").items():
        key, _, name = full.partition(".")
        p, value = parameters[_bare(name)], value.to(trainer.device)
        trainer.optimizer.state[p][key] = in_parts(value, p) if value.shape == p.shape else value
    trainer.epoch_rng = _part(tensors, "epoch_rng.")
    try:
        for p, state in trainer.optimizer.state.items():
            rows = state.get("rows")
            shape = p.shape if rows is None else p.detach().index_select(0, rows).shape
            # A fused step does not look, and would read what is not its own.
            if any(value.shape not in (shape, ()) for name, value in state.items() if name != "rows"):
                raise ValueError("the optimizer remembers parameters of another shape")
            if rows is not None and not isinstance(trainer.optimizer, TableAdamW):
                with_all_rows(state, p.detach())  # the run began on a processor with bf16
        for hook in trainer.hooks:
            kind = type(hook).__name__
            moved = {k: v.to(trainer.device) for k, v in _part(tensors, f"hook.{kind}.").items()}
            hook.restore(values.get(kind, {}) | moved)
        set_rng_state(_part(tensors, "rng."))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{folder} is damaged ({error!s:.80}); start again in another --out") from None


def _tensors_of(folder: Path) -> str | None:
    """The name of the tensors of the checkpoint in ``folder``, if there is a whole one."""
    with suppress(OSError, ValueError, AttributeError):
        text = (folder / "progress.json").read_text(encoding="utf-8")
        return json.loads(text).get("tensors", STATES[0])
    return None


def _bare(name: str) -> str:
    """A parameter's name in the classifier: what trains it may hold it, on another processor, whole."""
    return re.sub(r"^(network\.)*(classifier\.)?", "", name)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
