"""python -m gptcls.compare: which of several runs is better, on the same test rows.

python -m gptcls.compare runs/a runs/b runs/c
"""

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro

from gptcls.classify.store import find_classifier
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import atomic_file
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import task_from_json
from gptcls.data.fields import of_each_field, out_of_columns
from gptcls.data.readers import read_chunks
from gptcls.data.split import load_split
from gptcls.data.writer import as_text
from gptcls.evaluation.decision import Decision
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.paired import HEADLINES, decisions, differences, holm
from gptcls.evaluation.plots import plot_differences
from gptcls.evaluation.table import format_differences

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare finished runs on the test rows that they share, pair by pair."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of gptcls.train, two or more."""
    picture: Path = Path("comparison.png")
    """File of the picture; its ending is the format."""


@dataclass(frozen=True)
class Finished:
    """What a run answered to its test rows."""

    name: str
    task: Task
    rows: "pd.DataFrame"  # text and label
    decided: np.ndarray  # see :func:`gptcls.evaluation.paired.differences`
    scores: dict


@dataclass(frozen=True)
class Comparison:
    """The scores of each run, and the differences of each pair, the first run's less the second's."""

    scores: dict[str, dict]
    pairs: dict[tuple[str, str], dict]
    task: Task

    def table(self) -> str:
        """Both as tables for the terminal."""
        return f"{judge_of(self.task).table(list(self.scores.items()))}\n\n{format_differences(self.pairs)}"

    def picture(self) -> "Figure":
        """The differences of the first measure with their intervals."""
        return plot_differences(self.pairs, HEADLINES[self.task.kind])


def compare(*runs: str | Path) -> Comparison:
    """Compare the runs in these folders. InputError for fewer than two, a folder that holds no finished run,
    and runs of other test rows, labels or tasks, which no test of pairs can compare."""
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run{'s' * (len(runs) != 1)} given: name two or more folders of runs")
    places = [Path(run).resolve() for run in runs]
    if twice := [run for run, place in zip(runs, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"{twice[0]} is given twice: compare different runs")
    found = [_finished(Path(run)) for run in runs]
    first, *others = found
    for other in others:
        _require_same(first, other)
    target = first.task.targets(first.rows["label"].tolist()).numpy()
    pairs = {
        (one.name, other.name): differences(first.task, target, one.decided, other.decided)
        for one, other in combinations(found, 2)
    }
    shares = [name for name in pairs if "p" in pairs[name]]
    for name, p in zip(shares, holm([pairs[name]["p"] for name in shares]), strict=True):
        pairs[name]["p_holm"] = p
    return Comparison({run.name: run.scores for run in found}, pairs, first.task)


def _finished(folder: Path) -> Finished:
    answers = folder / "predictions.csv"
    if not answers.is_file():
        what = "holds no finished run (no predictions.csv)" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; give folders that python -m gptcls.train left")
    try:
        described = (find_classifier(folder) / "classifier.json").read_text(encoding="utf-8")
        description = json.loads(described)
        task = task_from_json(description["task"])
        decision = Decision.from_json(description.get("decision"))
        scores = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["scores"]["test"]
        table = pd.concat(read_chunks(answers))
        table = out_of_columns(table[table["part"] == "test"].reset_index(drop=True))
        written = as_text if description["training"].get("escape_formulas") else str
        if task.has_probabilities:
            table["answer"] = table["answer"].replace({written(name): name for name in task.labels})
        decided = _decided(task, decision, table)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} is damaged ({error!r:.80}); train it again") from None
    rows = load_split(folder / "split").test[["text", "label"]].reset_index(drop=True)
    if [of_each_field(written)(text) for text in rows["text"]] != table["text"].tolist():
        raise InputError(f"{answers} does not answer the test rows of split/: train the run again")
    return Finished(str(folder), task, rows, decided, scores)


def _decided(task: Task, decision: Decision, table: "pd.DataFrame") -> np.ndarray:
    """The answers of predictions.csv as targets are; of a run that abstains also those it is unsure of, as in
    its scores."""
    if task.kind == "regression":
        columns = ["answer"] if task.n_outputs == 1 else [f"answer_{name}" for name in task.labels]
        return table[columns].to_numpy(dtype=float)
    if decision.abstain:
        outputs = table[[f"probability_{label}" for label in task.labels]].to_numpy(dtype=float)
        return decisions(task, outputs, decision)
    return task.targets(table["answer"].tolist()).numpy()


def _require_same(first: Finished, other: Finished) -> None:
    if (first.task.kind, first.task.labels) != (other.task.kind, other.task.labels):
        both = f"{first.name} and {other.name}"
        raise InputError(f"{both} answer other questions: their tasks or labels differ")
    pairs = ([*zip(run.rows["text"], run.rows["label"], strict=True)] for run in (first, other))
    one, two = pairs
    if one != two:
        known = set(one)
        shared = sum(row in known for row in two)
        said = f"{len(one):,} and {len(two):,} rows, {shared:,} of them shared"
        way_out = "train them on the same split (the same --data, --seed, or --test FILE)"
        raise InputError(f"{first.name} and {other.name} have different test rows ({said}): {way_out}")


def _compare_and_print(config: CompareConfig) -> None:
    found = compare(*config.runs)
    say(found.table())
    with atomic_file(config.picture) as temporary:
        found.picture().savefig(temporary, dpi=150, format=config.picture.suffix.lstrip(".").lower() or "png")
    log.info(f"drawn: {config.picture}")


def main() -> None:
    cli.run(CompareConfig, _compare_and_print)


if __name__ == "__main__":
    main()
