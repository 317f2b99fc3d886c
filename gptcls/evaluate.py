"""python -m gptcls.evaluate: how good a saved classifier is on labelled data."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gptcls.classify.predict import load_classifier
from gptcls.classify.store import find_classifier
from gptcls.common import cli
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.data.clean import cleaned
from gptcls.data.columns import bad_rows
from gptcls.data.corpora import load_parts
from gptcls.data.labels import KINDS, NUMBERS, Layout
from gptcls.data.readers import PLAIN, Dialect
from gptcls.data.split import load_split
from gptcls.evaluation import report
from gptcls.evaluation.judge import judge_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("gptcls")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score a trained classifier on labelled data."""

    model: str
    """Folder that gptcls.train left: a run, or the classifier inside it; or sms-spam-nano, which ships with
    this package."""
    data: str | None = None
    """Data set (sms-sample, sms-spam), file (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection) or
    NAME:FOLDER of a public data set, of which the test part is taken; otherwise the run's own test rows."""
    text_column: str | None = None
    """Column with the text; guessed where only one can be meant."""
    label_column: str | None = None
    """Column with the label; guessed where only one can be meant."""
    label_columns: tuple[str, ...] = ()
    """Several columns of 0 and 1, each named like its label; of a regression, a column for each number."""
    label_separator: str | None = None
    """What stands between the labels of a row, such as ","."""
    label_names: Path | None = None
    """File whose lines name the ids 0, 1, 2, … that stand in the label column."""
    separator: str | None = None
    """Character between the fields of --data, such as ';', or tab; otherwise by its suffix."""
    encoding: str | None = None
    """Encoding of --data, such as cp1252 or gb18030; otherwise UTF-8."""
    columns: tuple[str, ...] = ()
    """Names of its columns, for a .csv, .tsv or tab-separated .txt file without a header line."""
    out: Path | None = None
    """Folder for metrics.json and the pictures; nothing is written without it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of all blocks but the last; auto takes the fastest that the processor has."""


def evaluate(config: EvaluateConfig) -> dict:
    """The scores of a classifier on a data set, as in ``metrics.json``.

    Texts are cleaned as they were for training, and rows without text are dropped.
    Rows whose text the classifier was trained on are left out, and the log says how many; texts that differ
    in quotes and white space only count as the same. Where no split of a run lies beside the classifier,
    nothing can be left out, and the log says so. The run's own test rows are all scored, as training did.

    Raises InputError for data that cannot be read, a label unseen in training, a folder without a
    classifier, and an ``out`` that holds a run.
    """
    return _task_and_scores(config)[1]


def _task_and_scores(config: EvaluateConfig) -> tuple[Task, dict]:
    if config.out is not None:
        _require_no_run(config.out)
    split = find_classifier(config.model).resolve().parent / "split"
    classifier = load_classifier(config.model, config.device, config.precision)
    task = classifier.saved.task
    layout = Layout(KINDS[task.name], config.label_columns, config.label_separator, config.label_names)
    dialect = Dialect(config.separator, config.encoding, config.columns)
    if config.data is None:
        rows = _own_test_rows(config, layout, dialect, split)
    else:
        parts = load_parts(config.data, config.text_column, config.label_column, layout, dialect)
        rows = parts.get("test", parts["train"])
    _require_known(rows, task, config.data)
    rows = cleaned(rows, classifier.saved.cleaning)  # as the rows of the split were
    if config.data is not None:
        rows = _without_trained(rows, split, config.data)
    texts, targets = rows["text"].tolist(), task.targets(rows["label"].tolist()).numpy()
    outputs = classifier.outputs(texts)
    scores = judge_of(task).scores(targets, outputs)
    if config.out is not None:
        report.write_metrics(config.out / "metrics.json", {"data": scores}, {})
        report.write_pictures(config.out, task, targets, outputs, scores)
    return task, scores


def _own_test_rows(config: EvaluateConfig, layout: Layout, dialect: Dialect, split: Path) -> "pd.DataFrame":
    """The test rows of the run that the classifier belongs to."""
    if config.text_column or config.label_column or layout != Layout(layout.kind) or dialect != PLAIN:
        raise InputError("--text-column, --label-column, --separator and the like go with --data")
    if not split.exists():
        raise InputError(
            f"--model {config.model} has no run's split beside it; name what to score with --data"
        )
    rows = load_split(split).test
    log.info(f"scored on the run's own {len(rows):,} test rows: {split / 'test.csv'}")
    return rows


def _without_trained(rows: "pd.DataFrame", split: Path, source: str) -> "pd.DataFrame":
    """The rows whose text is not in the ``split``'s training part."""
    if not split.exists():
        log.info(
            f"no split lies beside the classifier ({split}): rows that it was trained on cannot be left out, "
            "and flatter the scores"
        )
        return rows
    trained = set(load_split(split).train["text"].map(_essence))
    new = rows[~rows["text"].map(_essence).isin(trained)]
    if n_left_out := len(rows) - len(new):
        log.info(f"left out: {n_left_out:,} of {len(rows):,} rows, whose texts the classifier was trained on")
    if new.empty:
        raise InputError(f"every text of {source} was trained on; evaluate on data the run has not seen")
    return new


def _essence(text: str) -> str:
    """A text without what readers and spreadsheets change: quotes (the book's reader eats some), spaces."""
    return re.sub(r'["\s]+', "", text)


def _require_known(rows: "pd.DataFrame", task: Task, source: str | None) -> None:
    kind = KINDS[task.name]
    names = [(n, name) for n, label in rows["label"].items() for name in kind.names(label)]
    if bad := [(n, name) for n, name in names if name not in task.labels]:
        unseen = ", ".join(map(repr, dict.fromkeys(name for _, name in bad[:3])))
        known = ", ".join(task.labels)
        if kind is NUMBERS:
            what, way_out = "number", f"it predicts {known}: name their columns with --label-columns"
        else:
            what, way_out = "label", f"it knows {known}: correct or delete these rows"
        raise bad_rows(
            [n for n, _ in bad], rows.index.name, f"{what} {unseen}, unseen in training,", source, way_out
        )


def _require_no_run(out: Path) -> None:
    if out.is_file():
        raise InputError(f"--out {out} is a file; choose a folder")
    if any((out / name).exists() for name in ("config.json", "classifier", "classifier.json")):
        raise InputError(f"--out {out} holds a run, whose scores would be lost; choose another folder")


def main() -> None:
    """The command line."""
    cli.run(EvaluateConfig, _evaluate_and_print)


def _evaluate_and_print(config: EvaluateConfig) -> None:
    task, scores = _task_and_scores(config)
    print(report.scores_table(task, {config.data or "test": scores}, {}))


if __name__ == "__main__":
    main()
