"""The rows of a run: from files or from memory to a :class:`gptcls.data.split.Split`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.common.options import flag
from gptcls.common.processes import require_one_process
from gptcls.core.errors import InputError
from gptcls.data import book
from gptcls.data.clean import cleaned
from gptcls.data.corpora import corpus_of, load_parts
from gptcls.data.fields import column_names, fields_named, n_fields
from gptcls.data.in_memory import labelled_rows
from gptcls.data.labels import KINDS, Layout
from gptcls.data.readers import read_chunks
from gptcls.data.repeats import WEIGHT, expanded, one_of_each, settle
from gptcls.data.resample import oversample, undersample
from gptcls.data.sources import from_frame, load_data
from gptcls.data.split import PARTS, Split, make_split, with_extra, without
from gptcls.language.pattern import pattern_file
from gptcls.train.config import DataOptions, TrainConfig
from gptcls.train.rewrite import rewrites_of

RESAMPLERS = {"undersample": undersample, "oversample": oversample}


def read_split(config: TrainConfig) -> Split:
    """The rows to train, validate and test on, from the files that the options name."""
    data = config.data
    columns, layout = (data.text_columns, data.label_column), data.label_layout
    if config.run.recipe == "book":
        cut = data.balance == "undersample"  # before it splits
        split = book.book_split(data.data, *columns, balanced=cut, seed=config.run.seed)
        return split if cut else _training_rows(split, config)
    parts = load_parts(data.data, *columns, layout, data.dialect)
    for part, path in (("validation", data.validation), ("test", data.test)):
        fraction = f"{part}_fraction"
        if part in parts and getattr(data, fraction) != getattr(DataOptions, fraction):
            raise InputError(f"--data {data.data} has a {part} part of its own; leave out {flag(fraction)}")
        if path is not None:
            parts[part] = load_data(str(path), *columns, layout, data.dialect)
    return _training_rows(_drawn(parts, config), config)


def files_read(config: TrainConfig) -> list[Path]:
    """The user's files behind rows, words around them and costs; none of a bundled or downloaded data set."""
    named = [x for own in (config.data, config.fit) for x in vars(own).values() if isinstance(x, Path)]
    patterns = (config.language.pattern, *config.language.mix_patterns)
    named += [found[0] for found in map(pattern_file, patterns) if found]
    for source in (config.data.data, *(file for file, _ in config.language.mixed)):
        corpus = corpus_of(source)
        named += sorted(corpus[1].glob("[!.]*")) if corpus else [Path(source)]
    return [path for path in named if path.is_file()]


def mixed_rows(config: TrainConfig, split: Split) -> Iterator["pd.DataFrame"]:
    """The rows of each file of ``--mix``, without the texts that are validated or tested on. InputError for
    one of fewer than two labels, and beside rows that have weights."""
    require_one_process("train --mix")
    if WEIGHT in split.train:
        raise InputError("--mix is not for rows that have weights; leave one of the two out")
    for file, share in config.language.mixed:
        rows, _ = settle(cleaned(load_parts(file)["train"], config.data.cleaning), source=file)
        for name in ("validation", "test"):
            rows = without(rows, getattr(split, name), file, name)
        if (n := rows["label"].nunique()) < 2:
            said = f"--mix {file}: labels in the {len(rows)} rows left are {n}, not two"
            raise InputError(f"{said}; leave it out")
        log.info(f"--mix {file}: {share:.3g} of the training rows, drawn from {len(rows):,}")
        yield rows


def split_of(rows: Any, config: TrainConfig, labels: Any = None) -> Split:
    """The same from what :func:`gptcls.train.run.fit` is given."""
    data = config.data
    if isinstance(rows, Split):  # one of a run has its training rows made already
        return rows if config.run.recipe == "book" or rows.plain is not None else _training_rows(rows, config)
    parts = {"train": rows} if not isinstance(rows, Mapping) or labels is not None else rows
    columns, layout = (data.text_columns, data.label_column), data.label_layout
    parts = {part: labelled_rows(frame, labels, columns[0]) for part, frame in parts.items()}
    refuse_files(data)
    if "train" not in parts or not parts.keys() <= set(PARTS):
        raise InputError(f"parts {', '.join(map(str, parts))}: give train and, perhaps, validation and test")
    if labels is not None:
        columns = fields_named(parts["train"].columns), "label"
    parts = {part: from_frame(frame, *columns, layout) for part, frame in parts.items()}
    return _training_rows(_drawn(parts, config), config)


def _text_columns(extra: Path, names: Sequence[str], n: int) -> Sequence[str] | None:
    """Where the ``n`` texts of a row stand in the file of ``--extra``: in the columns called as those of the
    data, or as this package calls them; None for a guess at one."""
    if n == 1:
        return None
    if {*names} <= {*next(read_chunks(extra, 1)).columns} and names:
        return names
    return column_names(n)


def split_to_fit(rows: "pd.DataFrame", config: TrainConfig) -> Split:
    """Training and validation rows from a frame with the columns text and label and, perhaps, weight; the
    test part is empty, and without a fraction the validation part too.

    A class of one text stays in training. With ``--repeats keep`` every row is taken as it is labelled, also
    where rows of one text disagree: so a row of weight 2 is two rows."""
    data, kind = config.data, replace(KINDS[config.data.task], every_class=False)
    rows, report = cleaned(rows, data.cleaning), None
    if data.repeats != "keep":
        rows, report = settle(rows, kind, data.repeats)
    none = rows[:0]
    held = None if data.validation_fraction else none
    options = {"validation_fraction": data.validation_fraction, "seed": config.run.seed, "kind": kind}
    return _training_rows(replace(make_split(rows, held, none, **options), report=report), config)


def refuse_files(data: DataOptions) -> None:
    """Raise InputError where options name a file for a part while rows come from memory."""
    for part, path in (("validation", data.validation), ("test", data.test)):
        if path is not None:
            raise InputError(f"--{part} {path} is a file, and the rows are in memory; give them as a part")


def _drawn(parts: dict[str, Any], config: TrainConfig) -> Split:
    """Cleaned, each text under one label, and with the parts that are missing drawn from the training rows.
    Parts that are given keep repeats and conflicts, so that scores on a published test part are those that
    others report; what is tested on is validated on no more."""
    data, kind = config.data, KINDS[config.data.task]
    parts = {part: cleaned(frame, data.cleaning) for part, frame in parts.items()}
    shares = {"validation_fraction": data.validation_fraction, "test_fraction": data.test_fraction}
    rows, report = settle(parts.pop("train"), kind, data.repeats)
    split = make_split(rows, **parts, **shares, seed=config.run.seed, kind=kind)
    return replace(split, report=report)


def _training_rows(split: Split, config: TrainConfig) -> Split:
    """What is for training alone: extra rows, balance, augmentation; the other parts stay as they are.

    With ``--repeats weight`` classes are balanced by the rows that texts stand for, and a new text weighs as
    much as the text that it was made from."""
    data, seed, weighted = config.data, config.run.seed, config.data.repeats == "weight"
    plain = expanded(split.train) if weighted else split.train
    if data.extra is not None:
        kind = KINDS[data.task]
        names = _text_columns(data.extra, data.text_columns, n_fields(split.train["text"]))
        extra = cleaned(load_data(data.extra, names, layout=Layout(kind)), data.cleaning)
        split = with_extra(split, extra, data.extra, kind, data.repeats)
    rows = split.train
    if (resample := RESAMPLERS.get(data.balance)) is not None:
        rows = one_of_each(resample(expanded(rows), seed)) if weighted else resample(rows, seed)
    others = (*split.validation["text"], *split.test["text"])
    rows = data.augmentation.of(rows, others, seed, rewrites_of(config))
    return split if rows is plain else replace(split, train=rows, plain=plain)
