"""What the targets mean: their dtype, the loss, how logits become answers, and the scores.

One class a text, any number of labels, or numbers. The training loop calls a :class:`Task`'s methods and has
no ``if`` about its kind.
"""

from collections.abc import Iterator
from typing import Any

from gptcls.errors import InputError
from gptcls.tasks.base import Task
from gptcls.tasks.multi import MultiLabel
from gptcls.tasks.regression import Regression
from gptcls.tasks.single import SingleLabel

__all__ = ["TASKS", "MultiLabel", "Regression", "SingleLabel", "Task", "task_from_json", "task_rules"]

TASKS: dict[str, type[Task]] = {  # by --task
    task.label_kind.task: task for task in (SingleLabel, MultiLabel, Regression)
}


def task_from_json(spec: dict) -> Task:
    """The task a saved classifier was trained for; raises InputError for a kind unknown here."""
    return _class_of(spec).from_json(spec)


def task_rules(spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
    """(field, value, whether it fits, what would) for the task in a saved classifier's description."""
    return _class_of(spec).rules(spec)


def _class_of(spec: dict) -> type[Task]:
    for task in TASKS.values():
        if task.kind == spec["kind"]:
            return task
    raise InputError(f"task kind {spec['kind']!r} is unknown to this version of gptcls; update gptcls")
