"""--seeds: several networks over one set of frozen blocks, whose mean answers (Lakshminarayanan et al. 2017,
"deep ensembles")."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from gptcls.classify.store import SavedClassifier
from gptcls.common.log import log
from gptcls.core.batches import Batch
from gptcls.core.loop import Hook, Trainer
from gptcls.core.task import Task
from gptcls.core.weights import State
from gptcls.train.hooks import EpochLines

MEASURES = {"single_label": "accuracy", "multi_label": "micro_f1", "regression": "mae"}


class Members(Hook):
    """The networks trained so far, as what was trained of each; a checkpoint holds them, and while the next
    one trains they stand beside it in ``saved``."""

    def __init__(self, saved: SavedClassifier) -> None:
        self.saved = saved
        self.done: list[State] = []

    def on_start(self, trainer: Trainer) -> None:
        self.saved.members = tuple(self.done)

    def state(self) -> dict[str, Any]:
        return {f"{i}.{name}": p for i, member in enumerate(self.done) for name, p in member.items()}

    def restore(self, state: dict[str, Any]) -> None:
        count = 1 + max((int(key.partition(".")[0]) for key in state), default=-1)
        self.done = [
            {key.partition(".")[2]: tensor for key, tensor in state.items() if key.startswith(f"{i}.")}
            for i in range(count)
        ]

    def add(self, model: nn.Module) -> None:
        """What is trained of a network, as it is now."""
        self.done.append({name: p.detach().clone() for name, p in model.trained_parameters().items()})


class Glances(EpochLines):
    """:class:`EpochLines` of ``n`` networks, one after the other, of which the last one's curves are kept:
    the others look at the validation rows at the end of an epoch, and at one batch of them in between.
    Torch's generator gives what it would give to all looks: each network is that of a run of its own."""

    def __init__(self, members: Members, n: int, *how: Any) -> None:
        super().__init__(*how)
        self.members, self.n = members, n

    def _is_last(self) -> bool:
        return len(self.members.done) == self.n - 1

    def _look(self, trainer: Trainer, loader: Iterable[Batch], n: int | None) -> tuple[float, float, int]:
        if self._is_last():
            return super()._look(trainer, loader, n)
        if loader is self.val_loader:
            return super()._look(trainer, loader, n if trainer.progress.step_in_epoch == 0 else 1)
        next(iter(loader))
        # A run that goes on between epochs has none yet.
        return getattr(trainer, "loss", math.nan), math.nan, 0

    def say(self, trainer: Trainer, where: str, measured: str) -> None:
        if not self._is_last():
            at_end = trainer.progress.step_in_epoch == 0
            measured = measured[measured.index("validation") :] if at_end else f"loss {trainer.loss:.3f}"
        super().say(trainer, where, measured)


@torch.no_grad()
def put(model: nn.Module, trained: State) -> None:
    """Trained tensors in place of the network's own."""
    for name, parameter in model.trained_parameters().items():
        parameter.copy_(trained[name])


def spread(task: Task, seeds: tuple[int, ...], alone: list[dict], together: dict) -> list[dict]:
    """The main score of each network on each part, for metrics.json, and a log line about it."""
    name, shown = MEASURES[task.kind], task.measure_format.format
    members = [
        {"seed": seed} | {part: found[part][name] for part in found}
        for seed, found in zip(seeds, alone, strict=True)
    ]
    scores = [member["test"] for member in members]
    if None not in scores:
        said = f"{shown(min(scores))} to {shown(max(scores))}, together {shown(together['test'][name])}"
        log.info(f"{len(seeds)} networks: test {task.measure_name} {said}")
    return members
