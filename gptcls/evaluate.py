"""python -m gptcls.evaluate: how good a saved classifier is on labelled data."""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from gptcls.classify.predict import AnswerOptions, TextClassifier
from gptcls.classify.store import find_classifier
from gptcls.classify.words import Words
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import require_writable, write_json
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.common.options import own_first
from gptcls.core.batches import TextDataset
from gptcls.core.errors import InputError
from gptcls.data.clean import cleaned
from gptcls.data.columns import bad_rows, columns_of, find_text_columns, is_blank, text_values
from gptcls.data.corpora import corpus_of, load_parts
from gptcls.data.fields import fields_named
from gptcls.data.in_memory import is_frame, labelled_rows, texts_of
from gptcls.data.labels import KINDS, NUMBERS, LabelKind, Layout
from gptcls.data.long_texts import cut_of
from gptcls.data.options import LabelOptions, data_help
from gptcls.data.readers import PLAIN, read_chunks
from gptcls.data.repeats import expanded
from gptcls.data.same_text import text_key
from gptcls.data.sources import FRAME, SAMPLE, from_frame, local_file
from gptcls.data.split import Split, load_split
from gptcls.evaluation import report
from gptcls.evaluation.drift import Sample, answers_of, drift, in_words, labels_of
from gptcls.evaluation.judge import judge_of
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen

TRAIN = "train"  # as a reference: the run's training rows
MOST = 10_000  # rows of either side that are compared
OF_CORPORA = "as for training (its test part, where it has one); without it the run's own test rows"


@own_first
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(LabelOptions, AnswerOptions):
    """Score a trained classifier on labelled data."""

    model: str  # again, to stand first in --help
    data: Annotated[str | None, data_help(OF_CORPORA)] = None
    reference: Annotated[str | None, tyro.conf.arg(metavar="DATA")] = None
    """Also say whether the texts, labelled or not, are like these rows: train, those that the run was trained
    on; or a file or data set, as for --data (of public data the training part)."""
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

    With ``reference`` the result has ``drift`` as well (:func:`gptcls.evaluation.drift.drift`), also of rows
    of training, as often as they stand in the data (at most 10,000, drawn at random). Texts may then be
    without labels: ``drift`` is all there is.
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
    if config.reference is not None and isinstance(classifier.saved.model, Words):
        said = "what is compared are a network's vectors, and this classifier has n-grams"
        raise InputError(f"--reference {config.reference}: {said}; leave it out")
    # The rows, cleaned as those of the split were.
    layout, source = config.layout(KINDS[task.name]), config.data
    columns = config.text_columns, config.label_column
    alone = labels is None and source is not None and config.reference is not None
    if alone and _unlabelled(config, layout, classifier, source):
        rows = _without_labels(config, classifier, source)
    elif source is None:
        rows = _own_test_rows(config, layout, split, where)
    elif isinstance(source, str | Path) and labels is None:
        parts = load_parts(source, *columns, layout, config.dialect, classifier.saved.text_columns)
        rows = parts.get("test", parts["train"])
    else:
        rows = labelled_rows(source, labels, config.text_columns)
        if labels is not None:
            columns = fields_named(rows.columns), "label"
        trained_on = classifier.saved.text_columns if labels is None else ()
        rows, source = from_frame(rows, *columns, layout, trained_on, numbered=True), FRAME
    labelled = "label" in rows
    if labelled:
        _require_known(rows, task.labels, layout.kind, source)
    every = rows = cleaned(rows, classifier.saved.cleaning)
    if labelled and source is not None:
        rows = _unseen(rows, classifier, split, where, source)
    # Their scores, and how far they are from what was trained on.
    scores, found, decision = {}, {}, classifier.saved.decision
    if labelled:
        targets = task.targets(rows["label"].tolist()).numpy()
        outputs = classifier.outputs_of(rows["text"].tolist())
        scores = judge_of(task, decision).scores_of(rows, targets, outputs)
    if config.reference is not None:
        found = {"drift": _drift(config, layout, classifier, split, every, source is None)}
    if out is not None:
        measured = {"data": scores} if labelled else {}
        write_json(out / "metrics.json", {"scores": measured, "baselines": {}} | found)
        if labelled:
            report.write_pictures(out, task, targets, outputs, scores, decision=decision)
    if show and labelled:
        say(report.scores_table(task, {str(source or "test"): scores}, {}))
    if show and found:
        reference = "the run's training rows" if config.reference == TRAIN else str(config.reference)
        say(("\n" if labelled else "") + in_words(found["drift"], reference))
    return scores | found


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


# --- drift ---


def _unlabelled(config: EvaluateConfig, layout: Layout, classifier: TextClassifier, source: Any) -> bool:
    """Whether the rows of ``source`` are texts alone: no column of labels is named, and none can be told."""
    if config.label_column or config.label_columns:
        return False
    if is_frame(source):
        first, name = source[:SAMPLE], FRAME
    elif not isinstance(source, str | Path):
        return True
    elif corpus_of(source):
        return False
    else:
        with local_file(source) as name:
            first = next(read_chunks(name, SAMPLE, config.dialect))
    try:
        layout.find(config.text_columns, None, first, name, classifier.saved.text_columns)
    except InputError:
        log.info(f"{name}: no column of labels can be told, so none are read; name one with --label-column")
        return True
    return False


def _without_labels(config: EvaluateConfig, classifier: TextClassifier, source: Any) -> "pd.DataFrame":
    """The texts of ``source``, those that are blank left out."""
    trained_on = classifier.saved.text_columns
    if isinstance(source, str | Path):
        with local_file(source) as path:
            frame = pd.concat(read_chunks(path, SAMPLE, config.dialect))
            names = find_text_columns(frame.columns, config.text_columns, frame[:SAMPLE], path, trained_on)
            texts = text_values(columns_of(frame, names, path))
    else:
        texts = texts_of(source, config.text_columns, trained_on, classifier.saved.fields)
    texts = [text for text in texts if not is_blank(text)]
    if not texts:
        raise InputError(f"{source}: no row has text; choose another --text-column")
    return pd.DataFrame({"text": texts}, dtype=str)


def _drift(
    config: EvaluateConfig, layout: Layout, classifier: TextClassifier, split: Split | None,
    new: "pd.DataFrame", own: bool,
) -> dict:  # fmt: skip
    """What changed from the reference's rows to ``new``, or to the run's ``own`` test rows."""
    saved, held = classifier.saved, None
    if config.reference != TRAIN:
        if _unlabelled(config, layout, classifier, config.reference):
            rows = _without_labels(config, classifier, config.reference)
        else:
            columns = config.text_columns, config.label_column
            parts = load_parts(config.reference, *columns, layout, config.dialect, saved.text_columns)
            rows = parts["train"]
            _require_known(rows, saved.task.labels, layout.kind, config.reference)
        rows = cleaned(rows, saved.cleaning)
    elif split is None:
        raise InputError(f"--reference {TRAIN}: no run's split lies next to the classifier; name a file")
    else:
        rows = dict(split.plain_items())["train"]
        # Of what it was trained on a classifier knows too much.
        held = split.validation if own else pd.concat([split.validation, split.test])
        if not own:  # as often as in the data; the run's own parts were drawn text by text
            rows, held = expanded(rows), expanded(held)
            seen = set(split.train["text"].map(text_key)) | set(rows["text"].map(text_key))
            new = new.assign(held=~new["text"].map(text_key).isin(seen))
    return drift(_sample(classifier, rows, held), _sample(classifier, new, None), saved.task)


def _sample(classifier: TextClassifier, rows: "pd.DataFrame", held: "pd.DataFrame | None") -> Sample:
    """At most :data:`MOST` of the rows, drawn, as the tests read them; the answers are to ``held`` rows."""
    saved, task = classifier.saved, classifier.saved.task
    rows = rows.sample(min(MOST, len(rows)), random_state=0)
    texts, cut = rows["text"].map(saved.as_read).tolist(), cut_of(saved.long, saved.tokenizer)
    how = saved.max_length, saved.pad_to, saved.tokenizer, cut
    dataset = TextDataset(texts, torch.zeros(len(texts)), *how)
    frozen = Frozen(saved.model, len(saved.model.backbone.blocks), classifier.model.frozen.dtype)
    vectors = FeatureCache().datasets(frozen, {"rows": dataset}, classifier.device)["rows"].means().numpy()
    judged = rows[rows["held"]] if "held" in rows else rows if held is None else held
    judged = judged.sample(min(MOST, len(judged)), random_state=0)["text"].tolist()
    outputs = np.zeros((0, len(task.labels)), dtype=np.float32)
    if judged:
        outputs = classifier.outputs_of(judged)
    answered = answers_of(task, outputs, saved.decision)
    labels = labels_of(task, rows["label"].tolist()) if "label" in rows else None
    return Sample(texts, saved.tokenizer.encode_rows(texts), vectors, answered, labels)


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
