"""python -m gptcls.audit: what is wrong with labelled data, row by row.

Nothing is trained but small linear models, and no row is changed: it says which rows to look at, and why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.lazy import pd
from gptcls.common.log import log, unlogged
from gptcls.common.options import check_seed, own_first
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import TASKS
from gptcls.data.corpora import CORPORA, corpus_of, load_parts
from gptcls.data.fields import fields_named, n_fields
from gptcls.data.in_memory import labelled_rows
from gptcls.data.labels import KINDS, LabelKind
from gptcls.data.near import near_pairs
from gptcls.data.options import LabelOptions, data_help
from gptcls.data.repeats import settle
from gptcls.data.same_text import text_key
from gptcls.data.sources import from_frame, load_data
from gptcls.data.split import PARTS, make_split
from gptcls.evaluation.audit_report import Audit, in_words, meanings_of, write_report
from gptcls.evaluation.confident import FEWEST, held_out, suspects_of
from gptcls.evaluation.findings import (
    as_frame,
    conflicts,
    confused_classes,
    cut_texts,
    leaks,
    lengths_by_part,
    of_suspects,
    repeats,
    scripts_by_part,
    uncovered,
)
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.ngrams import Tfidf
from gptcls.fast.features import FeatureCache
from gptcls.models.fields_tokenizer import for_fields
from gptcls.models.pretrained import load_pretrained, load_tokenizer


@own_first
@dataclass(frozen=True, kw_only=True)
class AuditConfig(LabelOptions):
    """Look for what is wrong with labelled data: leaks, repeats, wrong labels, confused classes, texts that
    are cut, and texts unlike the training rows. It changes nothing, and to find something is no error."""

    data: Annotated[str, data_help(f"of {', '.join(CORPORA)}")]
    validation: Path | None = None
    """File to validate on; otherwise the part of --data that gptcls.train would split off."""
    test: Path | None = None
    """File to test on; otherwise the part of --data that gptcls.train would split off."""
    task: Literal["single", "multi", "regression"] = "single"
    """What a label is: one class, any number of labels, or one or more numbers."""
    near: float = 0.8
    """Share of their runs of 4 letters or digits, of all that either has, from which on two texts are near
    duplicates; more than 0, at most 1."""
    model: str = "gpt2-nano"
    """Pretrained network whose tokens are counted and whose frozen vectors labels are judged by."""
    max_length: int | None = None
    """Tokens kept of each text; otherwise what the model can read."""
    seed: int = 123
    """Of the parts that are split off, as in gptcls.train."""
    cache: Path | None = None
    """Folder that keeps the frozen vectors between runs, as in gptcls.train."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    out: Path | None = None
    """Folder for audit.html and audit.csv; otherwise runs/audit-<data>."""


def audit(
    config: AuditConfig | None = None, show: bool = False, *, labels: Any = None, **options: Any
) -> Audit:
    """Look at every row; ``show`` prints the table, and with ``out`` the report is written.

    Options come in ``config``, one by one (``audit(data="labels.csv")``), or both. ``data`` may also be rows
    in memory: a DataFrame, texts and their ``labels``, or a mapping of "train" and, perhaps, "validation" and
    "test" to frames. Parts that the data does not have are split off as :func:`gptcls.train.run.train` does
    it with that seed, so that what is found between parts is what a run would meet. InputError for what
    cannot be read.

    >>> found = audit(data="sms-sample")
    >>> found.of("suspect label")[["label", "suggested"]].value_counts().index[0]
    ('ham', 'spam')
    """
    config = AuditConfig(**options) if config is None else replace(config, **options)
    check_seed(config.seed)
    if not 0 < config.near <= 1:
        raise InputError(f"--near {config.near} is no share of two texts; use more than 0, at most 1")
    if config.out is not None and Path(config.out).is_file():
        raise InputError(f"--out {config.out} is a file; choose a folder")
    kind, notes = KINDS[config.task], []
    rows, unit, name = _read(config, labels)
    rows["part"] = _parts(rows, config, kind, notes)
    tokenizer, device = load_tokenizer(config.model), pick_device(config.device)
    backbone = load_pretrained(config.model, pick_dtype("auto", device))
    tokenizer.require_fit(config.model, backbone.config.vocab_size)
    max_length = _max_length(config, backbone)
    # What the rows say of each other.
    text, first = _distinct(rows["text"])
    pairs = near_pairs(rows["text"].iloc[first].tolist(), config.near)
    found = [*leaks(rows, text, pairs), *conflicts(rows, text, kind), *repeats(rows, text, pairs)]
    # What the network's tokens and vectors say.
    tokenizer = for_fields(tokenizer, n_fields(rows["text"]), backbone)
    n_tokens = np.array([len(ids) for ids in tokenizer.encode_rows(rows["text"])])
    confused = pd.DataFrame()
    try:
        task = _task(config, rows, first)
    except InputError as error:
        notes.append(f"Labels were not judged: {error}.")
    else:
        texts = rows["text"].iloc[first].tolist()
        vectors = FeatureCache(config.cache).mean_vectors(backbone, texts, max_length, tokenizer, device)
        outputs = _held_out(task, rows, text, first, kind, vectors)[text]
        written = rows["label"].tolist()
        suspects = suspects_of(task, written, task.targets(written).numpy(), outputs)
        rows["own"] = suspects.own
        found += of_suspects(rows, suspects)
        confused = confused_classes(task, rows, outputs)
    found += [*cut_texts(n_tokens, max_length), *uncovered(rows, n_tokens)]
    findings = as_frame(found, rows, unit)
    lengths, scripts = lengths_by_part(rows, n_tokens), scripts_by_part(rows)
    meanings = meanings_of(config.near, max_length)
    result = Audit(name, unit, rows, findings, confused, lengths, scripts, meanings, notes)
    if config.out is not None:
        write_report(result, Path(config.out))
    if show:
        say(in_words(result))
        if config.out is not None:
            log.info(f"the report: {config.out}/audit.html; each row found: {config.out}/audit.csv")
    return result


# --- rows ---


def _read(config: AuditConfig, labels: Any) -> tuple["pd.DataFrame", str, str]:
    """Every row of the parts that are given: part, row, text, label; what numbers them; the data's name."""
    columns, layout = (config.text_columns, config.label_column), config.layout(KINDS[config.task])
    data, name = config.data, "rows in memory"
    if isinstance(data, str | Path) and labels is None:
        parts, name = load_parts(data, *columns, layout, config.dialect), str(data)
    else:
        given = data if isinstance(data, Mapping) and labels is None else {"train": data}
        if "train" not in given or not given.keys() <= set(PARTS):
            parts = ", ".join(map(str, given))
            raise InputError(f"parts {parts}: give train and, perhaps, validation and test")
        frames = {part: labelled_rows(frame, labels, config.text_columns) for part, frame in given.items()}
        how = columns if labels is None else (fields_named(frames["train"].columns), "label")
        parts = {part: from_frame(frame, *how, layout, numbered=True) for part, frame in frames.items()}
    for part, path in (("validation", config.validation), ("test", config.test)):
        if path is not None:
            parts[part] = load_data(str(path), *columns, layout, config.dialect, numbered=True)
    unit = parts["train"].index.name or "row"
    frames = [
        pd.DataFrame({"part": part, "row": list(frame.index), "text": frame["text"], "label": frame["label"]})
        for part, frame in ((part, parts[part]) for part in PARTS if part in parts)
    ]
    return pd.concat(frames, ignore_index=True), unit, name


def _parts(rows: "pd.DataFrame", config: AuditConfig, kind: LabelKind, notes: list[str]) -> list[str]:
    """The part of each row: the one it is given in, or that training would draw it for. Where training would
    refuse the rows, they stay together, and a note says why."""
    parts = {part: own.assign(at=own.index) for part, own in rows.groupby("part")}
    found = rows["part"].tolist()
    try:
        with unlogged():  # training will say it
            settled, _ = settle(parts.pop("train").drop(columns="part"), kind, "keep")
            given = parts.get("validation"), parts.get("test")
            split = make_split(settled, *given, seed=config.seed, kind=kind)
    except InputError as error:
        notes.append(f"gptcls.train would refuse these rows: {error}.")
        return found
    if drawn := [part for part in PARTS[1:] if part not in parts]:
        said = f"{' and '.join(drawn).capitalize()}: split off as gptcls.train does"
        notes.append(f"{said} with seed {config.seed}.")
    for part in drawn:
        for at in getattr(split, part)["at"]:
            found[at] = part
    return found


def _distinct(texts: "pd.Series") -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's text (N,), and of each text its first row (D,)."""
    text = pd.factorize(texts.map(text_key))[0]
    return text, np.unique(text, return_index=True)[1]


def _max_length(config: AuditConfig, backbone: torch.nn.Module) -> int:
    n_positions = backbone.config.n_positions
    asked = n_positions if config.max_length is None else config.max_length
    if not 1 <= asked <= n_positions:
        raise InputError(f"--max-length {asked}: {config.model} reads 1 to {n_positions} tokens")
    return asked


# --- labels ---


def _task(config: AuditConfig, rows: "pd.DataFrame", first: np.ndarray) -> Task:
    """The task over all labels; InputError where there is nothing to judge them by."""
    if len(first) < FEWEST:
        raise InputError(f"{len(first)} different texts are fewer than {FEWEST}")
    task = TASKS[config.task].for_training(rows["label"].tolist())
    targets = task.targets(rows["label"].iloc[first].tolist()).numpy()
    if reason := judge_of(task).rivals(task.labels).unfit(targets):
        raise InputError(reason)
    return task


def _held_out(
    task: Task, rows: "pd.DataFrame", text: np.ndarray, first: np.ndarray, kind: LabelKind,
    vectors: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Outputs (D, K) for each text, by models fitted on others, each under the label of most of its rows."""
    own_labels = rows["label"].groupby(text)
    votes = own_labels.agg(lambda own: kind.vote(own.tolist()) if own.nunique() > 1 else own.iat[0])
    known = votes.notna().to_numpy()
    labels = [vote if is_known else other for vote, is_known, other in
              zip(votes, known, rows["label"].iloc[first], strict=True)]  # fmt: skip
    targets = task.targets(labels).numpy()
    ngrams = Tfidf().fit_transform(rows["text"].iloc[first].tolist())
    return held_out(judge_of(task).rivals(task.labels), vectors, ngrams, targets, known)


def main() -> None:
    def run(config: AuditConfig) -> None:
        found = corpus_of(config.data)
        name = found[0] if found else Path(config.data).stem
        audit(replace(config, out=config.out or Path("runs", f"audit-{name}")), show=True)

    cli.run(AuditConfig, run)


if __name__ == "__main__":
    main()
