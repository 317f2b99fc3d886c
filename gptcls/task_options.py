"""Which options of a training run go with which task."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gptcls.data.labels import Layout
from gptcls.errors import InputError
from gptcls.options import flag

if TYPE_CHECKING:
    from gptcls.config import TrainConfig

TASK_OPTIONS = {  # every other option goes with every task
    "positive": ("single",),
    "label_smoothing": ("single",),
    "balance": ("single", "multi"),
    "raw_targets": ("regression",),
}


def task_options(config: "TrainConfig") -> dict[str, Any]:
    """The options that are the task's own, for :meth:`gptcls.tasks.Task.for_training`."""
    return {name: getattr(config, name) for name, tasks in TASK_OPTIONS.items() if config.task in tasks}


def check_task(config: "TrainConfig") -> None:
    """Raise InputError for an option of another task, and for values that no task can use."""
    if config.recipe == "book" and config.layout != Layout():
        raise InputError(
            "--recipe book reads one class a text, as the book does; leave out --task and the options "
            "about labels and columns"
        )
    unset = {field.name: field.default for field in fields(config)} | {"balance": "none"}
    for name, tasks in TASK_OPTIONS.items():
        value = getattr(config, name)
        if config.task not in tasks and value != unset[name]:
            raise InputError(
                f"{flag(name)}{'' if value is True else f' {value}'} is for --task {' or '.join(tasks)}, "
                f"not {config.task}; leave it out"
            )
    if config.task == "multi" and config.balance not in ("none", "weights"):
        raise InputError(
            f"--balance {config.balance} needs one class a text, and --task multi has several; use weights"
        )
    if not 0 <= config.label_smoothing < 1:
        raise InputError(f"--label-smoothing {config.label_smoothing} is no share; use 0 to below 1")
