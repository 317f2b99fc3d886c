"""What a run says about its result: the table, ``metrics.json`` and the pictures."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gptcls.atomic import atomic_file, write_json
from gptcls.evaluation.plots import plot_confusion, plot_history, plot_precision_recall
from gptcls.evaluation.table import format_scores


def scores_table(scores: dict[str, dict], yardsticks: dict[str, dict[str, dict]]) -> str:
    """The classifier's scores on each part and, below them, the baselines' on the test part."""
    rows = list(scores.items())
    rows += [(f"test, {name}", parts["test"]) for name, parts in yardsticks.items()]
    return format_scores(rows)


def write_history(path: Path, history: list[dict], columns: Sequence[str]) -> None:
    """What a run measured on its way as CSV; what a row did not measure is left empty."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(history)


def write_pictures(
    folder: Path,
    targets: np.ndarray,
    probabilities: np.ndarray,
    labels: Sequence[str],
    scores: dict,
    history: list[dict] | None = None,
    kept_epoch: int | None = None,
) -> None:
    """Confusion matrix and, for two classes, the precision-recall curve of a part's targets (N,),
    probabilities (N, K) and scores; with a history also the loss and the accuracy during training, and
    where the weights were taken from."""
    figures = {"confusion.png": plot_confusion(scores["confusion"], labels)}
    if len(labels) == 2:
        figures["precision_recall.png"] = plot_precision_recall(targets, probabilities[:, 1], labels[1])
    if history:
        for measure in ("loss", "accuracy"):
            figures[f"{measure}.png"] = plot_history(history, measure, kept_epoch)
    for name, figure in figures.items():
        with atomic_file(folder / name) as temporary:
            figure.savefig(temporary, dpi=150)


def write_metrics(path: Path, scores: dict, yardsticks: dict, **more: object) -> None:
    """``metrics.json``: the scores of every part, the baselines' and whatever else the run measured."""
    write_json(path, {"scores": scores, "baselines": yardsticks, **more})
