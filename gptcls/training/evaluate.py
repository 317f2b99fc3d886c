"""Loss and the task's measure of a model over a loader, without training it."""

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor, nn

from gptcls.data.batches import Batch
from gptcls.tasks import Task


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
