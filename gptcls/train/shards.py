"""--shard: of every tensor of the network, of its gradients and of the optimizer's moments each process has a
part, through PyTorch's ``fully_shard`` (FSDP2). So a network trains that no card holds whole.

A block is put together while it computes, and taken apart behind it. That is an exchange, so all processes
have to run the network equally often: none cuts its share into smaller batches, and one without rows runs a
row of padding that counts for nothing.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptcls.common.processes import exchange, whole
from gptcls.core.classifier import Classifier
from gptcls.core.loop import Hook, Trainer
from gptcls.core.task import Task
from gptcls.train.stand_in import StandIn


class Shards:
    """``model``, whole in the main memory of each process, becomes parts of it on their devices, in place;
    the process's own generators and the network's names stay as they are."""

    def __init__(self, model: Classifier, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard  # takes seconds to import

        self.model = model
        nothing = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in model.parameters()}
        self.empty = deepcopy(model, nothing)  # the same without a number in it
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for parameter in model.parameters():  # a loaded one may be a transposed view of a file
            parameter.data = parameter.data.contiguous()
        for module in (*model.backbone.blocks, model):
            # Else the outermost stays together, and what is written to its parts does not reach it.
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
            module.set_gradient_divide_factor(1.0)  # the sum: rows have their weight in the whole batch
            module.set_force_sum_reduction_for_comms(True)  # Gloo knows no other

    @torch.no_grad()
    def gather(self) -> Classifier:
        """A network like any other, in main memory, put together from the parts; all processes call it."""
        found = {name: whole(p.detach()).cpu() for name, p in self.model.named_parameters()}
        for name, value in found.items():
            module, _, own = name.rpartition(".")
            trains = self.empty.get_parameter(name).requires_grad
            setattr(self.empty.get_submodule(module), own, nn.Parameter(value, trains))
        return self.empty.cpu()


class SumLoss(Hook):
    """The loss of the whole batch; its gradients are summed where they arise."""

    def on_gradients(self, trainer: Trainer) -> None:
        loss = torch.tensor(trainer.loss)
        exchange(dist.all_reduce, loss)
        trainer.loss = loss.item()


@dataclass(frozen=True)
class EvenOfNoRows(StandIn):
    """``task``, whose loss of no rows is 0, with gradients, where a mean would be none."""

    task: Task

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(logits, targets) if len(targets) else logits.sum()
