"""python -m gptcls.evaluate: how good a saved classifier is on labelled data."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gptcls.classify.predict import ClassifierOptions
from gptcls.classify.store import find_classifier
from gptcls.common import cli
from gptcls.common.files import write_json
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.data.clean import cleaned
from gptcls.data.columns import bad_rows
from gptcls.data.corpora import load_parts
from gptcls.data.labels import KINDS, NUMBERS, LabelKind, Layout
from gptcls.data.options import LabelOptions
from gptcls.data.readers import PLAIN
from gptcls.data.same_text import text_key
from gptcls.data.split import load_split
from gptcls.evaluation import report
from gptcls.evaluation.judge import judge_of


@own_first
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(LabelOptions, ClassifierOptions):
    """Score a trained classifier on labelled data."""

    model: str  # again, to stand first in --help
    data: str | None = None
    """Data set (sms-sample, sms-spam), file (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection) or
    NAME:FOLDER of a public data set, of which the test part is taken; otherwise the run's own test rows."""
    out: Path | None = None
    """Folder for metrics.json and the pictures; nothing is written without it."""


def evaluate(config: EvaluateConfig, show: bool = False) -> dict:
    """The scores of a classifier on a data set, as in ``metrics.json``; ``show`` prints them as a table.

    Texts are cleaned as they were for training, and rows without text are dropped. Rows are left out whose
    text (:func:`gptcls.data.same_text.text_key`) the classifier was trained on, or on which its epoch and
    thresholds were chosen, and the log says how many. Where no split of a run lies next to the classifier,
    nothing can be left out, and the log says so. The run's own test rows are all scored, as training did.
    Every row counts, also of a text that stands in several: ``distinct`` has the scores with each text once.
    """
    if (out := config.out) is not None:
        if out.is_file():
            raise InputError(f"--out {out} is a file; choose a folder")
        if any((out / name).exists() for name in ("config.json", "classifier", "classifier.json")):
            raise InputError(f"--out {out} holds a run, whose scores would be lost; choose another folder")
    split = find_classifier(config.model).resolve().parent / "split"
    classifier = config.load()
    task = classifier.saved.task
    # The rows, cleaned as those of the split were.
    layout = config.layout(KINDS[task.name])
    if config.data is None:
        rows = _own_test_rows(config, layout, split)
    else:
        parts = load_parts(config.data, config.text_column, config.label_column, layout, config.dialect)
        rows = parts.get("test", parts["train"])
    _require_known(rows, task.labels, layout.kind, config.data)
    rows = cleaned(rows, classifier.saved.cleaning)
    if config.data is not None:
        rows = _unseen(rows, split, config.data)
    # Their scores.
    targets, outputs = task.targets(rows["label"].tolist()).numpy(), classifier.outputs(rows["text"])
    scores = judge_of(task).scores_of(rows, targets, outputs)
    if out is not None:
        write_json(out / "metrics.json", {"scores": {"data": scores}, "baselines": {}})
        report.write_pictures(out, task, targets, outputs, scores)
    if show:
        print(report.scores_table(task, {config.data or "test": scores}, {}))
    return scores


def _own_test_rows(config: EvaluateConfig, layout: Layout, split: Path) -> "pd.DataFrame":
    """The test rows of the run that the classifier belongs to."""
    if config.text_column or config.label_column or layout != Layout(layout.kind) or config.dialect != PLAIN:
        raise InputError("--text-column, --label-column, --separator and the like go with --data")
    if not split.exists():
        raise InputError(f"--model {config.model} has no run's split next to it; name rows with --data")
    rows = load_split(split).test
    log.info(f"scored on the run's own {len(rows):,} test rows: {split / 'test.csv'}")
    return rows


def _unseen(rows: "pd.DataFrame", split: Path, source: str) -> "pd.DataFrame":
    """The rows whose text is in neither the training nor the validation part of ``split``."""
    if not split.exists():
        log.info(f"no split lies next to the classifier ({split}): rows of its training flatter the scores")
        return rows
    run, keys = load_split(split), rows["text"].map(text_key)
    trained, chosen = (keys.isin(set(part["text"].map(text_key))) for part in (run.train, run.validation))
    for seen, use in ((trained, "trained on"), (chosen & ~trained, "validated on, to choose the epoch")):
        if seen.any():
            log.info(f"left out: {seen.sum():,} of {len(rows):,} rows, whose texts were {use}")
    rows = rows[~(trained | chosen)]
    if rows.empty:
        raise InputError(f"every text of {source} was in training or validation; take data new to the run")
    return rows


def _require_known(rows: "pd.DataFrame", labels: tuple, kind: LabelKind, source: str | None) -> None:
    names = [(n, name) for n, label in rows["label"].items() for name in kind.names(label)]
    if bad := [(n, name) for n, name in names if name not in labels]:
        unseen, known = ", ".join(map(repr, dict.fromkeys(name for _, name in bad[:3]))), ", ".join(labels)
        what, way_out = "label", f"it knows {known}: correct or delete these rows"
        if kind is NUMBERS:
            what, way_out = "number", f"it predicts {known}: name their columns with --label-columns"
        said = f"{what} {unseen}, unseen in training,"
        raise bad_rows([n for n, _ in bad], rows.index.name, said, source, way_out)


def main() -> None:
    cli.run(EvaluateConfig, partial(evaluate, show=True))


if __name__ == "__main__":
    main()
