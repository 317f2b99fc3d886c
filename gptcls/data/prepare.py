"""Between a frame of labelled texts and training: duplicates, balance, class weights, extra rows.

Every function takes frames with the columns ``text`` and ``label`` and returns new ones, index 0 to N - 1.
The split itself is in :mod:`gptcls.data.split`.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from gptcls.data.kinds import ONE_CLASS, LabelKind
from gptcls.data.split import Split, load_split, make_split, names_in, rows_by_group, save_split, without
from gptcls.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Split", "class_weights", "drop_duplicates", "load_split", "make_split", "oversample", "save_split",
    "undersample", "with_extra",
]  # fmt: skip

log = logging.getLogger("gptcls")


def drop_duplicates(frame: "pd.DataFrame", kind: LabelKind = ONE_CLASS) -> "pd.DataFrame":
    """Keep the first row of each text; drop every row of a text that stands under several labels.

    A text under several numbers keeps their mean.
    """
    by_text = frame.groupby("text", sort=False)["label"]
    contradictory = by_text.transform("nunique") > 1
    if contradictory.any():
        texts = frame.text[contradictory].drop_duplicates()
        rows, example = int(contradictory.sum()), _short(texts.iloc[0])
        if kind.merge is not None:
            means = by_text.agg(lambda labels: kind.merge(labels.tolist()))
            frame = frame.assign(label=frame.text.map(means))
            contradictory[:] = False
            log.info(
                "%d texts (e.g. %r) stand under several numbers: each gets the mean", len(texts), example
            )
        else:
            said = "dropped %d rows: texts under several %s (%d, e.g. %r)"
            log.info(said, rows, kind.differ, len(texts), example)
    agreed = frame[~contradictory]
    kept = agreed.drop_duplicates("text")
    if repeats := len(agreed) - len(kept):
        log.info("dropped %d repeated texts, %d rows left", repeats, len(kept))
    return kept.reset_index(drop=True)


def undersample(frame: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """Cut each class to the size of the smallest by a random draw; the order of the rows stays."""
    random = np.random.RandomState(seed)
    size = int(frame.label.value_counts().min()) if len(frame) else 0
    kept = [random.permutation(rows)[:size] for rows in rows_by_group(frame.label.tolist()).values()]
    kept = np.sort(np.concatenate(kept)) if kept else []
    if dropped := len(frame) - len(kept):
        log.info("undersampled: %d rows of each class, %d dropped", size, dropped)
    return frame.iloc[kept].reset_index(drop=True)


def oversample(frame: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """Repeat rows until each class is as large as the largest; repeats follow their row.

    Every row of a class stands as often as any other of it or once more; a random draw says which.
    """
    random = np.random.RandomState(seed)
    size = int(frame.label.value_counts().max()) if len(frame) else 0
    classes = rows_by_group(frame.label.tolist()).values()
    kept = [np.resize(random.permutation(rows), size) for rows in classes]
    kept = np.sort(np.concatenate(kept)) if kept else []
    if added := len(kept) - len(frame):
        log.info("oversampled: %d rows of each class, %d of them repeats", size, added)
    return frame.iloc[kept].reset_index(drop=True)


def with_extra(split: Split, extra: "pd.DataFrame", source: object, kind: LabelKind = ONE_CLASS) -> Split:
    """The split with the rows of ``extra`` behind its training rows, and the rest as it was.

    Rows of ``extra`` whose text stands in one of the parts are left out; the log says how many, and how many
    of each label were taken. Raises InputError for a label that train lacks, and when nothing is left.
    """
    import pandas as pd

    known = sorted(names_in(split.train, kind))
    if unseen := sorted(names_in(extra, kind) - set(known)):
        raise InputError(
            f"{source}: label {unseen[0]!r} is not among the labels of the training rows, "
            f"{', '.join(known)}: correct or delete these rows"
        )
    extra = drop_duplicates(extra, kind)
    for name, part in reversed(list(split.items())):
        extra = without(extra, part, str(source), name)
    if extra.empty:
        raise InputError(f"{source}: every text stands in the data already; leave out --extra")
    counts = Counter(chain.from_iterable(map(kind.names, extra.label)))
    taken = ", ".join(f"{counts[name]:,} {name}" for name in known)
    log.info(f"{source}: {len(extra):,} rows added to train ({taken})")
    return replace(split, train=pd.concat([split.train, extra], ignore_index=True))


def class_weights(labels: Sequence[str], names: Sequence[str]) -> list[float]:
    """One weight a class, in the order of ``names``: N / (K * rows of that class).

    scikit-learn's "balanced" weights; their mean over the rows is 1. InputError for a class without rows.
    """
    counts = Counter(labels)
    if absent := [name for name in names if counts[name] == 0]:
        raise InputError(f"class {absent[0]!r} has no rows, so it has no weight: add some or leave it out")
    return [counts.total() / (len(names) * counts[name]) for name in names]


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
