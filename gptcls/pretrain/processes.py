"""Several processes that train one network, each on windows of its own: started by ``torchrun``, or whatever
else sets ``RANK`` and ``WORLD_SIZE``. The first one, of rank 0, writes, looks and speaks for all."""

import logging
import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from gptcls.common.log import log
from gptcls.core.loop import Hook, Trainer
from gptcls.train.hooks import StopOnSignal, StoppedError


def join_processes() -> tuple[int, int]:
    """This process's rank and how many there are, once all of them are there; (0, 1) of one alone."""
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return 0, 1
        dist.init_process_group("gloo")
    if rank := dist.get_rank():
        log.setLevel(logging.WARNING)
    return rank, dist.get_world_size()


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each over all processes, in one exchange for all of them."""
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    parts = together.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


class AverageGradients(Hook):
    """They start with the weights of the first one, and use the mean of their gradients in each step."""

    def on_start(self, trainer: Trainer) -> None:
        with torch.no_grad():
            for p in trainer.model.parameters():  # frozen ones too
                dist.broadcast(p, src=0)

    def on_gradients(self, trainer: Trainer) -> None:
        gradients = [p.grad for p in trainer.parameters.values() if p.grad is not None]
        for gradient, total in zip(gradients, summed(gradients), strict=True):
            gradient.copy_(total / dist.get_world_size())


class StopTogether(StopOnSignal):
    """A signal to any of them ends the run of all after the same step. More signals change nothing: torchrun
    sends one to the first process when another ended, and the first still has to save."""

    def _request(self, signum: int, frame: object) -> None:
        if not self.requested:
            self.requested = signum
            log.info("stopping after this step")

    def on_step(self, trainer: Trainer) -> None:
        asked = torch.tensor(self.requested)  # one that is asked later says so after the next step
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        if asked:
            self.requested = int(asked)
            raise StoppedError(self.requested)

    on_epoch = Hook.on_epoch  # after the last step there is nothing to stop

    def on_end(self, trainer: Trainer) -> None:
        if not self.requested:
            super().on_end(trainer)
