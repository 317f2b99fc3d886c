"""python -m gptcls.evaluate: how good a saved classifier is on labelled data."""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from gptcls.classify.predict import ClassifierOptions, TextClassifier
from gptcls.classify.store import find_classifier
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import require_writable, write_json
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.data.clean import cleaned
from gptcls.data.columns import bad_rows
from gptcls.data.corpora import load_parts
from gptcls.data.in_memory import labelled_rows
from gptcls.data.labels import KINDS, NUMBERS, LabelKind, Layout
from gptcls.data.options import LabelOptions, data_help
from gptcls.data.readers import PLAIN
from gptcls.data.same_text import text_key
from gptcls.data.sources import FRAME, from_frame
from gptcls.data.split import Split, load_split
from gptcls.evaluation import report
from gptcls.evaluation.judge import judge_of

OF_CORPORA = "as for training, of which the test part is taken; otherwise the run's own test rows"


@own_first
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(LabelOptions, ClassifierOptions):
    """Score a trained classifier on labelled data."""

    model: str  # again, to stand first in --help
    data: Annotated[str | None, data_help(OF_CORPORA)] = None
    out: Path | None = None
    """Folder for metrics.json and the pictures; nothing is written without it."""


def evaluate(
    config: EvaluateConfig | None = None, show: bool = False, *, labels: Any = None, **options: Any
) -> dict:
    """The scores of a classifier on a data set, as in ``metrics.json``; ``show`` prints them as a table.

    Options come in ``config``, one by one (``evaluate(model="runs/x", data="new.csv")``), or both. ``data``
    may also be rows in memory: a DataFrame, or texts and their ``labels``
    (:func:`gptcls.data.in_memory.labelled_rows`); ``model`` may also be a classifier in memory, or what
    :func:`gptcls.train.run.fit` returns.

    Texts are cleaned as they were for training, and rows without text are dropped. Rows are left out whose
    text (:func:`gptcls.data.same_text.text_key`) the classifier was trained on, or on which its epoch,
    thresholds or mixture were chosen, and the log says how many. Where no split of a run lies next to the
    classifier, nothing can be left out, and the log says so. The run's own test rows are all scored.
    Every row counts, also of a text that stands in several: ``distinct`` has the scores with each text once.
    """
    config = EvaluateConfig(**options) if config is None else replace(config, **options)
    split = getattr(config.model, "split", None)  # of a run in memory
    config = replace(config, model=getattr(config.model, "predictor", config.model))
    if (out := None if config.out is None else Path(config.out)) is not None:
        if out.is_file():
            raise InputError(f"--out {out} is a file; choose a folder")
        if any((out / name).exists() for name in ("config.json", "classifier", "classifier.json")):
            raise InputError(f"--out {out} holds a run, whose scores would be lost; choose another folder")
        require_writable(out, "--out")
    classifier, where = config.load(), "in memory"
    if not isinstance(config.model, TextClassifier):
        where = find_classifier(config.model).resolve().parent / "split"
        split = load_split(where) if where.exists() else None
    task = classifier.saved.task
    # The rows, cleaned as those of the split were.
    layout, source = config.layout(KINDS[task.name]), config.data
    if source is None:
        rows = _own_test_rows(config, layout, split, where)
    elif isinstance(source, str | Path) and labels is None:
        columns = config.text_columns, config.label_column
        parts = load_parts(source, *columns, layout, config.dialect, classifier.saved.text_columns)
        rows = parts.get("test", parts["train"])
    else:
        rows = labelled_rows(source, labels, config.text_columns)
        columns = (config.text_columns, config.label_column) if labels is None else ("text", "label")
        trained_on = classifier.saved.text_columns if labels is None else ()
        rows, source = from_frame(rows, *columns, layout, trained_on, numbered=True), FRAME
    _require_known(rows, task.labels, layout.kind, source)
    rows = cleaned(rows, classifier.saved.cleaning)
    if source is not None:
        rows = _unseen(rows, classifier, split, where, source)
    # Their scores.
    targets, outputs = task.targets(rows["label"].tolist()).numpy(), classifier.outputs(rows["text"])
    scores = judge_of(task).scores_of(rows, targets, outputs)
    if out is not None:
        write_json(out / "metrics.json", {"scores": {"data": scores}, "baselines": {}})
        report.write_pictures(out, task, targets, outputs, scores)
    if show:
        say(report.scores_table(task, {str(source or "test"): scores}, {}))
    return scores


def _own_test_rows(
    config: EvaluateConfig, layout: Layout, split: Split | None, where: str | Path
) -> "pd.DataFrame":
    """The test rows of the run that the classifier belongs to."""
    if config.text_column or config.label_column or layout != Layout(layout.kind) or config.dialect != PLAIN:
        raise InputError("--text-column, --label-column, --separator and the like go with --data")
    if split is None:
        named = "a classifier in memory" if isinstance(config.model, TextClassifier) else config.model
        raise InputError(f"--model {named} has no run's split next to it; name rows with --data")
    log.info(f"scored on the run's own {len(split.test):,} test rows ({where})")
    return split.test


def _unseen(
    rows: "pd.DataFrame", classifier: TextClassifier, split: Split | None, where: str | Path, source: str
) -> "pd.DataFrame":
    """The rows whose text is in neither the training nor the validation part of ``split``."""
    if split is None:
        log.info(f"no split lies next to the classifier ({where}): rows of its training flatter the scores")
        return rows
    parts, keys = [split.train, split.validation], rows["text"].map(text_key)
    if classifier.saved.mixture is not None and split.plain is not None:  # which its n-grams are fitted on
        parts[0] = pd.concat([split.train, split.plain])
    trained, chosen = (keys.isin(set(part["text"].map(text_key))) for part in parts)
    for seen, use in ((trained, "trained on"), (chosen & ~trained, "validated on")):
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


class _Verb(ModuleType):
    """The module can be called, as ``gptcls.train`` can: ``gptcls.evaluate(model="runs/x", data=frame)``."""

    def __call__(self, *args: Any, **options: Any) -> dict:
        """:func:`evaluate`."""
        return evaluate(*args, **options)


sys.modules[__name__].__class__ = _Verb


def main() -> None:
    cli.run(EvaluateConfig, partial(evaluate, show=True))


if __name__ == "__main__":
    main()
