"""Losses in the place of a task's own."""

from torch import Tensor

from gptcls.core.task import Task


class StandIn:
    """What the training loop takes in the place of ``task``: a subclass has another ``loss``, and of all else
    what it does not define is the task's."""

    task: Task

    @property
    def measure_name(self) -> str:
        return self.task.measure_name

    @property
    def measure_format(self) -> str:
        return self.task.measure_format

    def loss_weight(self, targets: Tensor) -> float:
        """What the loss is a mean over."""
        return self.task.loss_weight(targets)

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """See :meth:`gptcls.core.task.Task.measure`."""
        return self.task.measure(logits, targets)
