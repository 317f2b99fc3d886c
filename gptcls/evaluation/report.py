"""What a run says about its result: the table, ``history.csv`` and the pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gptcls.common.files import atomic_file
from gptcls.core.task import Task
from gptcls.evaluation.decision import PLAIN, Decision
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.plots import plot_history
from gptcls.evaluation.trust import format_trust

OTHER_COUNTS = {"raw_rows": "as raw rows", "distinct": "each text once"}


def scores_table(task: Task, scores: dict[str, dict], baselines: dict[str, dict[str, dict]]) -> str:
    """The classifier's scores on each part, where texts repeat also with these counted the other way; below
    them the baselines' on the test part. Then, where the task has more to say, the scores of each class or
    number on the last part."""
    judge, last = judge_of(task), list(scores)[-1]
    rows = []
    for part, found in scores.items():
        others = [(f"{part}, {said}", found[name]) for name, said in OTHER_COUNTS.items() if name in found]
        rows += [(part, found), *others]
    rows += [(f"test, {name}", parts["test"]) for name, parts in baselines.items()]
    details = judge.details(scores[last])
    said = judge.table(rows) + (f"\n\n{last}:\n{details}" if details else "")
    others = {name: parts["test"]["cost"] for name, parts in baselines.items() if "cost" in parts["test"]}
    return said + (f"\n\n{trust}" if (trust := format_trust(last, scores[last], others)) else "")


def write_history(path: Path, history: list[dict], columns: Sequence[str]) -> None:
    """What a run measured on its way as CSV; what a row did not measure is left empty."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)


def write_pictures(
    folder: Path, task: Task, targets: np.ndarray, outputs: np.ndarray, scores: dict,
    history: Sequence[dict] = (), kept_epoch: int | None = None, decision: Decision = PLAIN,
) -> None:  # fmt: skip
    """The pictures of a part's targets, outputs (N, K) and scores; with a history also those of training."""
    judge = judge_of(task, decision)
    figures = judge.pictures(targets, outputs, scores)
    for measure, unit in judge.units.items() if history else ():
        figures[f"{measure.lower()}.png"] = plot_history(history, measure, kept_epoch, unit)
    for name, figure in figures.items():
        with atomic_file(folder / name) as temporary:
            figure.savefig(temporary, dpi=150)
