"""What a run says about its result: the table, ``metrics.json`` and the pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gptcls.common.files import atomic_file, write_json
from gptcls.core.task import Task
from gptcls.evaluation.plots import plot_history


def scores_table(task: Task, scores: dict[str, dict], yardsticks: dict[str, dict[str, dict]]) -> str:
    """The classifier's scores on each part and, below them, the baselines' on the test part.

    Then, where the task has more to say, the scores of each class or number on the last part.
    """
    rows = list(scores.items())
    rows += [(f"test, {name}", parts["test"]) for name, parts in yardsticks.items()]
    last = list(scores)[-1]
    details = task.details(scores[last])
    return task.table(rows) + (f"\n\n{last}:\n{details}" if details else "")


def write_history(path: Path, history: list[dict], columns: Sequence[str]) -> None:
    """What a run measured on its way as CSV; what a row did not measure is left empty."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)


def write_pictures(
    folder: Path,
    task: Task,
    targets: np.ndarray,
    outputs: np.ndarray,
    scores: dict,
    history: list[dict] | None = None,
    kept_epoch: int | None = None,
) -> None:
    """The task's pictures of a part's targets, outputs (N, K) and scores; with a history also the loss and
    the task's measure during training, and where the weights were taken from."""
    figures = task.pictures(targets, outputs, scores)
    if history:
        for measure, unit in task.units.items():
            figures[f"{measure.lower()}.png"] = plot_history(history, measure, kept_epoch, unit)
    for name, figure in figures.items():
        with atomic_file(folder / name) as temporary:
            figure.savefig(temporary, dpi=150)


def write_metrics(path: Path, scores: dict, yardsticks: dict, **more: object) -> None:
    """``metrics.json``: the scores of every part, the baselines' and whatever else the run measured."""
    write_json(path, {"scores": scores, "baselines": yardsticks, **more})
