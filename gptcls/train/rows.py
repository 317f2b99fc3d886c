"""The rows of a run: from files or from memory to a :class:`gptcls.data.split.Split`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gptcls.common.options import flag
from gptcls.core.errors import InputError
from gptcls.data import book
from gptcls.data.clean import cleaned
from gptcls.data.corpora import load_parts
from gptcls.data.labels import KINDS, Layout
from gptcls.data.resample import oversample, undersample
from gptcls.data.sources import from_frame, load_data
from gptcls.data.split import PARTS, Split, drop_duplicates, make_split, with_extra
from gptcls.train.config import DataOptions, TrainConfig

if TYPE_CHECKING:
    import pandas as pd

RESAMPLERS = {"undersample": undersample, "oversample": oversample}


def read_split(config: TrainConfig) -> Split:
    """The rows to train, validate and test on, from the files that the options name."""
    data = config.data
    columns, layout = (data.text_column, data.label_column), data.label_layout
    if config.run.recipe == "book":
        return _book_split(config)
    parts = load_parts(data.data, *columns, layout, data.dialect)
    for part, path in (("validation", data.validation), ("test", data.test)):
        fraction = f"{part}_fraction"
        if part in parts and getattr(data, fraction) != getattr(DataOptions, fraction):
            raise InputError(f"--data {data.data} has a {part} part of its own; leave out {flag(fraction)}")
        if path is not None:
            parts[part] = load_data(str(path), *columns, layout, data.dialect)
    return _training_rows(_drawn(parts, config), config)


def split_of(rows: Any, config: TrainConfig) -> Split:
    """The same from what :func:`fit` is given."""
    import pandas as pd

    if isinstance(rows, Split):
        return rows if config.run.recipe == "book" else _training_rows(rows, config)
    parts = {"train": rows} if isinstance(rows, pd.DataFrame) else rows
    if not isinstance(parts, Mapping) or not all(isinstance(part, pd.DataFrame) for part in parts.values()):
        raise TypeError(
            f"rows are a Split, a DataFrame or a mapping of parts to them, not {type(rows).__name__}"
        )
    if "train" not in parts or not parts.keys() <= set(PARTS):
        raise InputError(f"parts {', '.join(map(str, parts))}: give train and, perhaps, validation and test")
    data = config.data
    columns = (data.text_column, data.label_column)
    parts = {part: from_frame(frame, *columns, data.label_layout) for part, frame in parts.items()}
    return _training_rows(_drawn(parts, config), config)


def _drawn(parts: "dict[str, pd.DataFrame]", config: TrainConfig) -> Split:
    """Cleaned, without repeats, and with the parts that are missing drawn from the training rows."""
    data, kind = config.data, KINDS[config.data.task]
    parts = {part: cleaned(frame, data.cleaning) for part, frame in parts.items()}
    return make_split(
        drop_duplicates(parts.pop("train"), kind),
        **parts,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=config.run.seed,
        kind=kind,
    )


def _training_rows(split: Split, config: TrainConfig) -> Split:
    """What is for training alone: extra rows, balance, augmentation; the other parts stay as they are."""
    data, seed, plain = config.data, config.run.seed, split.train
    if data.extra is not None:
        kind = KINDS[data.task]
        split = with_extra(
            split, cleaned(load_data(data.extra, layout=Layout(kind)), data.cleaning), data.extra, kind
        )
    resample = RESAMPLERS.get(data.balance)
    rows = split.train if resample is None else resample(split.train, seed)
    rows = data.augmentation.of(rows, (*split.validation["text"], *split.test["text"]), seed)
    return (
        split
        if rows is plain
        else replace(split, train=rows, plain=split.plain if split.plain is not None else plain)
    )


def _book_split(config: TrainConfig) -> Split:
    data, balance, seed = config.data, config.data.balance, config.run.seed
    columns = (data.text_column, data.label_column)
    split = book.book_split(data.data, *columns, balanced=balance == "undersample", seed=seed)
    if balance == "oversample":
        split = replace(split, train=oversample(split.train, seed), plain=split.train)
    if len(split.train) < config.fit.batch_size:  # its loader drops the incomplete batch
        raise InputError(
            f"--batch-size {config.fit.batch_size} is larger than the {len(split.train)} training rows"
        )
    return split
