"""Losses in the place of a task's own."""

from typing import Any

from gptcls.core.task import Task


class StandIn:
    """What the training loop takes in the place of ``task``: a subclass has another ``loss``, and of all else
    what it does not define is the task's."""

    task: Task

    def __getattr__(self, name: str) -> Any:
        if name == "task":  # of one that is being copied, before it has any
            raise AttributeError(name)
        return getattr(self.task, name)
