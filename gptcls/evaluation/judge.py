"""What is made of a task's answers: scores, baselines, table and pictures. One class per kind of task.

>>> from gptcls.core.task import SingleLabel
>>> judge = judge_of(SingleLabel(("ham", "spam")))
>>> judge.summary(["spam", "ham", "ham"])
'2 ham, 1 spam'
>>> judge.scores(np.array([0, 1]), np.array([[0.9, 0.1], [0.6, 0.4]]))["accuracy"]
0.5
"""

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import ClassVar

import numpy as np

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import MultiLabel
from gptcls.data.repeats import other_count
from gptcls.evaluation import baselines, metrics, mistakes, plots, table, weighted
from gptcls.evaluation.calibration import calibration_scores
from gptcls.evaluation.decision import PLAIN, Decision

Pictures = dict[str, "plots.Figure"]  # by file name


class Judge(ABC):
    """The judge of one task, by whose ``decision`` outputs become answers. *Outputs* (N, K) are probabilities
    or numbers, as ``task.outputs`` makes them of the logits."""

    columns: ClassVar[table.Columns]  # of the table
    rivals: ClassVar[type[baselines.Baselines]]
    units: ClassVar[Mapping[str, str]]  # measure -> unit, for the pictures of training

    def __init__(self, task: Task, decision: Decision = PLAIN) -> None:
        self.task, self.decision = task, decision

    @abstractmethod
    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """Every score of targets (N,) or (N, K) and outputs (N, K), ready for JSON."""

    def trust(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        """What the probabilities are worth: ``calibration`` and ``coverage``."""
        return {
            "calibration": calibration_scores(targets, outputs),
            "coverage": self.decision.coverage(self.task, targets, outputs),
        }

    def scores_of(self, rows: "pd.DataFrame", targets: np.ndarray, outputs: np.ndarray) -> dict:
        """:meth:`scores` row by row. Where texts repeat, also the main ones counted the other way, under the
        name that :func:`gptcls.data.repeats.other_count` gives to it."""
        scores = self.scores(targets, outputs)
        if (other := other_count(rows)) is not None:
            name, weights = other
            scores[name] = {"n": round(weights.sum())} | self.weighted(targets, outputs, weights)
        return scores

    @abstractmethod
    def weighted(self, targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict:
        """The main scores, without intervals, where row i counts ``weights[i]`` times."""

    def trust_pictures(
        self, targets: np.ndarray, outputs: np.ndarray, scores: dict, positive: str
    ) -> Pictures:
        """The same drawn; ``positive`` is the second of two classes."""
        confidence = self.decision.confidence(self.task, outputs)
        right = self.decision.right(self.task, targets, outputs)
        return {
            "reliability.png": plots.plot_reliability(scores["calibration"], positive),
            "coverage.png": plots.plot_coverage(confidence, right, self.decision.abstain),
        }

    def table(self, rows: table.Rows) -> str:
        """The table of (name, scores) for the terminal."""
        return table.format_scores(rows, self.columns)

    def details(self, scores: dict) -> str:
        """What the terminal shows below the table: one part's scores of each label or number, or ""."""
        return table.format_each(scores)

    @abstractmethod
    def mistakes(self, targets: np.ndarray, outputs: np.ndarray) -> mistakes.Mistakes:
        """What is wrong among the outputs (N, K), for ``mistakes.md``."""

    @abstractmethod
    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> Pictures:
        """Pictures of one part."""

    def tuned(self, targets: np.ndarray, outputs: np.ndarray) -> Task:
        """The task after what is chosen on the validation rows; most choose nothing."""
        return self.task

    @abstractmethod
    def summary(self, labels: Sequence[str]) -> str:
        """The label strings of a part in a few words."""

    def _counted(self, names: Iterable[str]) -> str:
        counts = Counter(names)
        return ", ".join(f"{counts[label]:,} {label}" for label in self.task.labels)


class SingleLabelJudge(Judge):
    columns = table.CLASSES
    rivals = baselines.ClassBaselines
    units = plots.UNITS

    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        given = self.decision.given(self.task, outputs)
        found = metrics.classification_scores(targets, outputs, self.task.labels, given)
        return found | self.trust(targets, outputs)

    def weighted(self, targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict:
        given = self.decision.given(self.task, outputs)
        return weighted.classification_scores(targets, outputs, weights, given)

    def details(self, scores: dict) -> str:
        """With more than two classes, the scores of each and their averages; of two the table says enough."""
        return table.format_each(scores) if self.task.n_outputs > 2 else ""

    def mistakes(self, targets: np.ndarray, outputs: np.ndarray) -> mistakes.Mistakes:
        given = self.decision.given(self.task, outputs)
        return mistakes.class_mistakes(targets, outputs, self.task.labels, given)

    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> Pictures:
        labels = self.task.labels
        figures = {"confusion.png": plots.plot_confusion(scores["confusion"], labels)}
        if len(labels) == 2:
            positive, threshold = outputs[:, 1], self.decision.second_above
            curve = plots.plot_precision_recall(targets, positive, labels[1], threshold)
            figures["precision_recall.png"] = curve
        return figures | self.trust_pictures(targets, outputs, scores, labels[1] if len(labels) == 2 else "")

    def summary(self, labels: Sequence[str]) -> str:
        return self._counted(labels)


class MultiLabelJudge(Judge):
    columns = table.LISTS
    rivals = baselines.LabelBaselines
    units: ClassVar = {"loss": "nats", "micro-F1": ""}

    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        found = metrics.multilabel_scores(targets, outputs, self.task.labels, self.task.thresholds)
        return found | self.trust(targets, outputs)

    def mistakes(self, targets: np.ndarray, outputs: np.ndarray) -> mistakes.Mistakes:
        return mistakes.label_mistakes(targets, outputs, self.task.labels, self.task.thresholds)

    def weighted(self, targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict:
        return weighted.multilabel_scores(targets, outputs, self.task.thresholds, weights)

    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> Pictures:
        labels = {"labels.png": plots.plot_label_scores(scores["per_class"])}
        return labels | self.trust_pictures(targets, outputs, scores, "")

    def tuned(self, targets: np.ndarray, outputs: np.ndarray) -> MultiLabel:
        """With the thresholds of the largest F1; a label that no row has keeps 0.5, and the log says so."""
        if absent := [label for label, n in zip(self.task.labels, targets.sum(axis=0), strict=True) if not n]:
            named = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
            log.info(f"no validation row has {named}: the threshold stays at 0.5")
        chosen = tuple(metrics.best_thresholds(targets, outputs))
        low, high, n = min(chosen), max(chosen), len(targets)
        log.info(f"thresholds tuned on {n:,} validation rows: {low:.3f} to {high:.3f}")
        return replace(self.task, thresholds=chosen)

    def summary(self, labels: Sequence[str]) -> str:
        names = list(chain.from_iterable(map(json.loads, labels)))
        return f"{len(names) / max(1, len(labels)):.2f} labels each, {self._counted(names)}"


class RegressionJudge(Judge):
    columns = table.NUMBERS
    rivals = baselines.NumberBaselines
    units: ClassVar = {"loss": "", "MAE": ""}

    def scores(self, targets: np.ndarray, outputs: np.ndarray) -> dict:
        return metrics.regression_scores(targets, outputs, self.task.labels)

    def mistakes(self, targets: np.ndarray, outputs: np.ndarray) -> mistakes.Mistakes:
        return mistakes.number_errors(targets, outputs, self.task.labels)

    def weighted(self, targets: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> dict:
        return weighted.regression_scores(targets, outputs, weights)

    def pictures(self, targets: np.ndarray, outputs: np.ndarray, scores: dict) -> Pictures:
        return {"predictions.png": plots.plot_predictions(targets, outputs, self.task.labels)}

    def summary(self, labels: Sequence[str]) -> str:
        """Mean, standard deviation and range of each number."""
        columns = zip(self.task.labels, self.task.targets(labels).double().T, strict=True)
        said = "{} {:.4g} ± {:.4g}, from {:.4g} to {:.4g}".format
        return "; ".join(said(name, x.mean(), x.std(correction=0), x.min(), x.max()) for name, x in columns)


JUDGES = {"single_label": SingleLabelJudge, "multi_label": MultiLabelJudge, "regression": RegressionJudge}


def judge_of(task: Task, decision: Decision = PLAIN) -> Judge:
    """The judge of a task, by its kind; InputError for one that :data:`JUDGES` lacks."""
    if task.kind not in JUDGES:
        raise InputError(f"task kind {task.kind!r} has no judge; add one to gptcls.evaluation.judge.JUDGES")
    return JUDGES[task.kind](task, decision)
