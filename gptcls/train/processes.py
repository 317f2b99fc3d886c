"""Training shared by several processes, as ``torchrun`` starts them: all take the same steps, each computes
its share of every one.

Each process holds the network and draws the same batches in the same order. It takes its rows of a batch; the
gradients, each row's with its weight in the mean over the whole batch, are summed over all processes before
the step. So the weights are those of one process up to rounding, whatever the number: with class weights, in
an incomplete batch, and in one with fewer rows than processes. That is what PyTorch's
``DistributedDataParallel`` does too, but there every process has to have rows, as many as the others, and one
backward pass a step. Here a process may have none, or cut its rows into parts of similar length.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptcls.common.log import log
from gptcls.common.processes import exchange, processes, summed
from gptcls.core.batches import Batch
from gptcls.core.loop import Hook, Trainer, rng_state, set_rng_state
from gptcls.train.hooks import Checkpoints, StopOnSignal, StoppedError


class SharedTrainer(Trainer):
    """A :class:`Trainer` whose steps are those of one process, of which each of several computes its share;
    ``network`` and what follows are as there.

    With ``evenly`` all run the network equally often, see :mod:`gptcls.train.shards`: of no rows too.

    Only what a step draws at random, for dropout, is each process's own: of ``seed``, the step and the rank.
    The order of the rows comes from the global generator, which all of them leave as they found it.
    """

    def __init__(
        self, network: nn.Module, *arguments: Any, seed: int, evenly: bool = False,
        parts: Callable[[Batch], list[Batch]] = lambda batch: [batch], **options: Any,
    ) -> None:  # fmt: skip
        def parts_of_share(batch: Batch) -> list[Batch]:
            """This process's rows, which may be none: dealt out by length, so that all have as much to do."""
            rank, world = processes()
            rows = batch[1].argsort(stable=True)[rank::world]
            return parts(tuple(part[rows] for part in batch)) if len(rows) or evenly else []

        super().__init__(network, *arguments, parts=parts_of_share, **options)
        self.model, self.seed = SharedAnswers(network), seed

    def _step(self, group: list[Batch]) -> float:
        of_all = rng_state()
        own = np.random.SeedSequence([self.seed, self.progress.step, processes()[0]])
        torch.manual_seed(int(own.generate_state(1, np.uint64)[0]))
        loss = super()._step(group)
        set_rng_state(of_all)
        return loss


class SharedAnswers(nn.Module):
    """A network of which, in eval mode, each process computes its share of a batch's rows and gets the
    outputs (B, K) of all; all have to ask for the same batches. In training mode it is the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.n_outputs = network, network.n_outputs

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:  # (B, T) or (B, T, C), (B,) -> (B, K)
        if self.training:
            return self._of(inputs, lengths)
        rank, world = processes()
        own = self._of(inputs[rank::world], lengths[rank::world])
        sent = own.new_zeros(-(-len(lengths) // world), self.n_outputs)
        sent[: len(own)] = own
        found = [torch.empty_like(sent) for _ in range(world)]
        exchange(dist.all_gather, found, sent)
        return torch.stack(found, dim=1).flatten(0, 1)[: len(lengths)]

    def _of(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        if len(lengths):
            return self.network(inputs, lengths)
        return self.network(inputs.new_zeros(1, *inputs.shape[1:]), lengths.new_ones(1))[:0]


class SumGradients(Hook):
    """All start with the weights of the first process and take their steps with the sum of the gradients,
    divided by ``n``: 1 where each has its share of one batch, their number where each has a batch."""

    def __init__(self, n: int = 1) -> None:
        self.n = n

    def on_start(self, trainer: Trainer) -> None:
        with torch.no_grad():
            for p in trainer.model.parameters():  # frozen ones too
                exchange(dist.broadcast, p, src=0)

    @torch.no_grad()
    def on_gradients(self, trainer: Trainer) -> None:
        parameters = list(trainer.parameters.values())
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        # What no process used has no gradient, as in one process: weight decay leaves it alone.
        said = own[0].new_tensor([trainer.loss, *(p.grad is not None for p in parameters)])
        *totals, said = summed([*own, said])
        trainer.loss, *used = said.tolist()
        trainer.loss /= self.n
        for p, total, n_used in zip(parameters, totals, used, strict=True):
            p.grad = total.div_(self.n) if n_used else None


class CheckpointsTogether(Checkpoints):
    """Those that all processes have to make, whenever the first one would."""

    def _save(self, trainer: Trainer, seconds: float) -> None:
        due = torch.tensor(int(time.perf_counter() - self.saved_at > seconds))
        exchange(dist.broadcast, due, src=0)
        super()._save(trainer, -1 if due else math.inf)


class StopTogether(StopOnSignal):
    """A signal to any of them ends the run of all after the same step. More signals change nothing: torchrun
    sends one to the first process when another ended, and the first still has to save."""

    def _request(self, signum: int, frame: object) -> None:
        if not self.requested:
            self.requested = signum
            log.info("stopping after this step")

    def on_step(self, trainer: Trainer) -> None:
        asked = torch.tensor(self.requested)  # one that is asked later says so after the next step
        exchange(dist.all_reduce, asked, dist.ReduceOp.MAX)
        if asked:
            self.requested = int(asked)
            raise StoppedError(self.requested)

    on_epoch = Hook.on_epoch

    def on_end(self, trainer: Trainer) -> None:
        if trainer.progress.finished:  # it may have come behind the last step
            self.on_step(trainer)
        if not self.requested:
            super().on_end(trainer)
