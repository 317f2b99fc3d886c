"""How answers are shown: the fields of a printed line and the columns of a table, by the kind of task."""

import json
from collections.abc import Sequence

import numpy as np

from gptcls.common.lazy import pd
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import Regression
from gptcls.evaluation.decision import PLAIN, UNSURE, Decision


class NameAnswers:
    """One class per text, or any number of labels, or "unsure", as ``decision`` has it: their names, and the
    probability of each. The ``columns`` of a table hold the answers, its ``details`` one output each. A text
    that was not read has NaN."""

    def __init__(self, task: Task, decision: Decision = PLAIN) -> None:
        self.task, self.decision, self.columns = task, decision, ("label",)
        self.details = tuple(f"probability_{label}" for label in task.labels)

    def fields(self, outputs: np.ndarray) -> list[str]:
        """One text's outputs (K,) as the fields of a line, several names and probabilities with commas; an
        unsure one with the probability that the answer would have been right."""
        if np.isnan(outputs).any():
            return ["", ""]
        (given,) = self.decision.given(self.task, outputs[None])
        (confidence,) = self.decision.confidence(self.task, outputs[None])
        if confidence < self.decision.abstain:
            return [UNSURE, f"{confidence:.4f}"]
        places = np.flatnonzero(given) if np.ndim(given) else [given]
        return [",".join(self.task.labels[i] for i in places), ",".join(f"{outputs[i]:.4f}" for i in places)]

    def values(self, outputs: np.ndarray) -> list[Sequence]:
        """Outputs (N, K) as the values of ``columns``: the class, or a JSON list as gptcls reads labels."""
        unread = np.isnan(outputs).any(axis=1)
        answers = self.decision.answers(self.task, outputs)
        cells = [json.dumps(each, ensure_ascii=False) if isinstance(each, list) else each for each in answers]
        # Text as such: the first chunk's types are those of a Parquet file, and all its texts may be blank.
        return [pd.array(np.where(unread, None, np.array(cells, dtype=object)), dtype="string")]


class NumberAnswers:
    """One or more numbers per text: a field and a column each."""

    def __init__(self, task: Task) -> None:
        self.columns, self.details = task.labels, ()

    def fields(self, outputs: np.ndarray) -> list[str]:
        """One text's numbers (K,); nothing in their place where it was not read (NaN)."""
        return ["" if np.isnan(value) else f"{value:.6g}" for value in outputs.tolist()]

    def values(self, outputs: np.ndarray) -> list[Sequence]:
        """The numbers (N, K) to float32's seven digits, column by column."""
        return [np.array([float(f"{value:.7g}") for value in column]) for column in outputs.T]


def answered(task: Task, outputs: np.ndarray, decision: Decision = PLAIN) -> "pd.DataFrame":
    """The answers to N texts and their probabilities, from their outputs (N, K): the columns ``answer`` (of
    several numbers ``answer_<name>``) and ``probability_<label>``."""
    answers = answers_of(task, decision)
    alone = len(answers.columns) == 1
    names = ["answer"] if alone else [f"answer_{name}" for name in answers.columns]
    values = [*answers.values(outputs), *(outputs.astype(float).round(6).T if answers.details else ())]
    return pd.DataFrame(dict(zip([*names, *answers.details], values, strict=True)))


def answers_of(task: Task, decision: Decision = PLAIN) -> NameAnswers | NumberAnswers:
    """How the answers of a classifier with this task are shown."""
    return NumberAnswers(task) if isinstance(task, Regression) else NameAnswers(task, decision)


def added_columns(answers: NameAnswers | NumberAnswers, columns: Sequence[str]) -> list[str]:
    """The names of the columns that a table gets: ``predicted_label`` where it has a ``label``."""
    names = [f"predicted_{name}" if name in columns else name for name in answers.columns]
    return [*names, *answers.details]


def require_free(rows: "pd.DataFrame", names: Sequence[str], source: object) -> None:
    """InputError where rows have a column of one of these names already: a later one of JSON lines may."""
    if taken := [name for name in names if name in rows.columns]:
        where = f"{rows.index.name}s {rows.index[0]} to {rows.index[-1]}"
        raise InputError(f"{source} has a column {taken[0]!r} already (in {where}); rename it first")


def with_answers(
    rows: "pd.DataFrame", answers: NameAnswers | NumberAnswers, added: Sequence[str], outputs: np.ndarray
) -> "pd.DataFrame":
    """N rows with the columns ``added``, from the outputs (N, K) of their texts."""
    details = outputs.astype(float).round(6).T if answers.details else ()
    values = [*answers.values(outputs), *details]
    return rows.assign(**dict(zip(added, values, strict=True)))
