"""What a real run does around the steps: the best weights kept, Ctrl-C obeyed between steps, a bar shown."""

import logging
import signal
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from gptcls.core.loop import Hook, NonFiniteLossError, Trainer

log = logging.getLogger("gptcls")


class StoppedError(KeyboardInterrupt):
    """Ctrl-C, obeyed after a whole step: the state is fit to be saved and resumed."""


class StopOnSignal(Hook):
    """Ctrl-C (SIGINT) or SIGTERM ends the run after the step under way, with :class:`StoppedError`; a second
    signal raises KeyboardInterrupt at once. It comes behind the hooks that look at the step."""

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[int, Any] = {}

    def on_start(self, trainer: Trainer) -> None:
        with suppress(ValueError):  # Python allows handlers in the main thread alone
            for signum in (signal.SIGINT, signal.SIGTERM):
                self.previous[signum] = signal.signal(signum, self._request)

    def _request(self, signum: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.info("stopping after this step; once more to stop at once")

    def on_step(self, trainer: Trainer) -> None:
        if self.requested:
            raise StoppedError

    on_epoch = on_step

    def on_end(self, trainer: Trainer) -> None:
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)


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
        for name, value in self.kept.items():
            trainer.parameters[name].copy_(value)

    def after_divergence(self, trainer: Trainer, error: NonFiniteLossError) -> NonFiniteLossError:
        """Go back to the kept weights; the error to raise, which says so."""
        self.go_back(trainer)
        n = self.kept_step
        kept = f"the weights after {n} steps are kept" if n else "nothing worth keeping was trained"
        return NonFiniteLossError(f"{error}: {kept}; try a smaller --lr")

    def state(self) -> dict[str, Any]:
        values = ("best_loss", "best_epoch", "kept_step", "epochs_without_better")
        return {name: getattr(self, name) for name in values} | {f"kept.{k}": v for k, v in self.kept.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name.startswith("kept."):
                self.kept[name.removeprefix("kept.")] = value
            else:
                setattr(self, name, value)

    def _keep(self, trainer: Trainer) -> None:
        self.kept_step = trainer.progress.step
        self.kept = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}


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
