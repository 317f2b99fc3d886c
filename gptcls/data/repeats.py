"""Texts that stand in several rows: the one label that they get, which rows are used, what this changes.

Texts are the same where :func:`gptcls.data.same_text.text_key` says so. A text whose rows disagree gets one
label, so that there is one right answer to it. Frames have the columns ``text`` and ``label``, and where a
row stands for several of the data also ``rows``, the number of them. Rows in memory may have a ``weight``;
where one row is left of several, it has the mean of theirs.
"""

from collections import Counter
from typing import Literal

import numpy as np

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.tasks import numbers
from gptcls.data.fields import on_one_line
from gptcls.data.labels import NUMBERS, ONE_CLASS, LabelKind
from gptcls.data.same_text import text_key

Repeats = Literal["drop", "keep", "weight"]
ROWS = "rows"
WEIGHT = "weight"  # of a row in the loss, where rows in memory have weights
MOST_SHOWN = 6  # classes whose change the log shows


def settle(
    frame: "pd.DataFrame", kind: LabelKind = ONE_CLASS, repeats: Repeats = "drop", source: str = ""
) -> tuple["pd.DataFrame", dict]:
    """The rows to use, index 0 to N - 1, and a report on them for JSON.

    A text whose rows disagree gets what ``kind.vote`` makes of their labels; where no majority is found, its
    rows are dropped, whatever ``repeats`` says. Of the others ``"keep"`` keeps every row, ``"drop"`` and
    ``"weight"`` the first of each text, counted in ``rows``: the two differ in how often training draws it.

    The report counts rows and texts as read, texts in conflict, rows that got another label, rows dropped
    because their text has no majority, rows whose text stands in an earlier one, and rows left. ``classes``
    has the share of each class in the rows ``read`` and ``used`` (of several labels, of the rows that have
    it), ``means`` the mean of each number; there a row counts once, with ``"weight"`` as often as it will be
    drawn. The log says the same in short, with ``source`` before it.
    """
    said = f"{source}: " if source else ""
    keys = frame["text"].map(text_key).to_numpy()
    differ = (frame["label"].groupby(keys, sort=False).transform("nunique") > 1).to_numpy()
    votes = {
        key: kind.vote(labels.tolist())
        for key, labels in frame["label"][differ].groupby(keys[differ], sort=False)
    }
    voted = [votes.get(key, label) for key, label in zip(keys, frame["label"], strict=True)]
    decided = np.array([label is not None for label in voted], dtype=bool)
    used = frame[decided].assign(label=[label for label in voted if label is not None])
    changed = int((used["label"].to_numpy() != frame["label"].to_numpy()[decided]).sum())
    n_texts, n_left = len(set(keys)), len(set(keys[decided]))
    if votes:
        n_tied = n_texts - n_left
        settled = "each gets the mean" if kind is NUMBERS else f"the majority settles {len(votes) - n_tied:,}"
        tied = f"; {n_tied:,} have none ({_example(frame['text'][~decided])}), their" if n_tied else ""
        tied += f" {(~decided).sum():,} rows are dropped" if n_tied else ""
        conflicts = f"{len(votes):,} texts ({_example(frame['text'][differ])})"
        conflicts += f" stand under several {kind.differ}"
        log.info(f"{said}{conflicts}: {settled}, which changes {changed:,} rows{tied}")
    if n_repeats := len(used) - n_left:
        how = {"drop": "dropped", "keep": "kept", "weight": "weighed by"}[repeats]
        left = len(used) if repeats == "keep" else n_left
        log.info(f"{said}{how} {n_repeats} repeated texts, {left} rows left (letters and digits compared)")
    first = used if repeats == "keep" else one_of_each(used)
    report = {
        "repeats": repeats, "rows": len(frame), "texts": n_texts, "texts_in_conflict": len(votes),
        "rows_relabelled": changed, "rows_without_majority": int((~decided).sum()),
        "rows_repeated": n_repeats, "rows_left": len(first),
    }  # fmt: skip
    before = _profile(frame, kind)
    after = _profile(first if repeats == "weight" else first.drop(columns=ROWS, errors="ignore"), kind)
    both = {name: {"read": value, "used": after.get(name, 0.0)} for name, value in sorted(before.items())}
    report["means" if kind is NUMBERS else "classes"] = both
    _log_changes(both, kind, said)
    return first.reset_index(drop=True), report


def one_of_each(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The first row of each text, index 0 to N - 1, and in ``rows`` how many there were of it."""
    keys = frame["text"].map(text_key).to_numpy()
    counts = pd.Series(raw_rows(frame)).groupby(keys, sort=False).sum().to_numpy()
    first = frame[~pd.Series(keys).duplicated().to_numpy()].reset_index(drop=True)
    if WEIGHT in frame:
        sums = (raw_rows(frame) * frame[WEIGHT]).groupby(keys, sort=False).sum().to_numpy()
        first = first.assign(**{WEIGHT: sums / counts})
    return with_rows(first, counts)


def raw_rows(frame: "pd.DataFrame") -> np.ndarray:
    """How many rows of the data each row stands for, (N,)."""
    return frame[ROWS].to_numpy() if ROWS in frame else np.ones(len(frame), dtype=np.int64)


def weights_of(frame: "pd.DataFrame") -> np.ndarray | None:
    """The weight of each row in the loss, (N,), 1 for one that was added without any; None where none has."""
    return np.array(frame[WEIGHT].fillna(1.0), dtype=float) if WEIGHT in frame else None


def with_rows(frame: "pd.DataFrame", counts: np.ndarray) -> "pd.DataFrame":
    """The frame with ``counts`` as its column ``rows``, or without one if all are 1."""
    return frame.assign(**{ROWS: counts}) if (counts > 1).any() else frame.drop(columns=ROWS, errors="ignore")


def expanded(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Each row as often as it stands for one of the data: the other way round than :func:`one_of_each`."""
    if ROWS not in frame:
        return frame
    order = np.repeat(np.arange(len(frame)), raw_rows(frame))
    return frame.drop(columns=ROWS).iloc[order].reset_index(drop=True)


def other_count(frame: "pd.DataFrame") -> tuple[str, np.ndarray] | None:
    """How else the texts of a part may be counted than row by row, and the weights (N,) of its rows for it.

    ``"raw_rows"``: each text as often as it stood in the data that the part was drawn from. ``"distinct"``,
    where it stands in the part that often: each text once. None where no text has several rows.
    """
    if ROWS in frame:
        return ("raw_rows", raw_rows(frame)) if (frame[ROWS] > 1).any() else None
    keys = frame["text"].map(text_key)
    counts = keys.groupby(keys.to_numpy()).transform("size").to_numpy()
    return ("distinct", 1 / counts) if (counts > 1).any() else None


def _profile(frame: "pd.DataFrame", kind: LabelKind) -> dict[str, float]:
    """The share of each class in the rows, or the mean of each number."""
    sums: Counter = Counter()
    rows = pd.Series(raw_rows(frame)).groupby(frame["label"].to_numpy()).sum()
    for label, count in rows.items():
        values = numbers(label) if kind is NUMBERS else dict.fromkeys(kind.names(label), 1)
        for name, value in values.items():
            sums[name] += value * count
    return {name: float(value / rows.sum()) for name, value in sums.items()}


def _example(texts: "pd.Series") -> str:
    text = on_one_line(next(iter(texts), ""))
    return f"e.g. {text if len(text) <= 40 else text[:39] + '…'!r}"


def _log_changes(values: dict[str, dict[str, float]], kind: LabelKind, said: str) -> None:
    """The classes whose share changed visibly, those that changed most first."""
    form = ".4g" if kind is NUMBERS else ".1%"
    shown = {name: (format(v["read"], form), format(v["used"], form)) for name, v in values.items()}
    order = sorted(values, key=lambda name: -round(abs(values[name]["used"] - values[name]["read"]), 9))
    changed = [f"{name} {old} → {new}" for name in order for old, new in [shown[name]] if old != new]
    if changed:
        what = "mean" if kind is NUMBERS else "share of rows"
        rest = f", … ({len(changed):,} in all)" if len(changed) > MOST_SHOWN else ""
        log.info(f"{said}{what}, as read → as used: {', '.join(changed[:MOST_SHOWN])}{rest}")
