"""Train, validation and test: drawn from one frame, kept apart by their texts, and stored as three files.

Every function takes frames with the columns ``text`` and ``label``, perhaps ``rows``, and returns new ones,
index 0 to N - 1. Texts are the same where :func:`gptcls.data.same_text.text_key` says so; ``rows`` is told in
:mod:`gptcls.data.repeats`.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from gptcls.common.files import write_json
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.fields import in_columns, out_of_columns
from gptcls.data.labels import ONE_CLASS, LabelKind
from gptcls.data.readers import read_chunks
from gptcls.data.repeats import ROWS, Repeats, raw_rows, settle, with_rows
from gptcls.data.same_text import text_key
from gptcls.data.sources import labelled_frame
from gptcls.data.writer import ChunkWriter

PARTS = ("train", "validation", "test")
UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")  # in UTF-8, or by the csv module


@dataclass(frozen=True)
class Split:
    """The three parts; no text stands in two of them, except in the book's own split. ``plain`` has the
    training rows as the labelled data gives them, where ``train`` differs from them: rows were added
    (``--extra``, ``--augment``), repeated or left out (``--balance``), or stand for several (``--repeats
    weight``). ``report`` says what became of the rows read: see :func:`gptcls.data.repeats.settle`."""

    train: "pd.DataFrame"
    validation: "pd.DataFrame"
    test: "pd.DataFrame"
    plain: "pd.DataFrame | None" = None
    report: dict | None = None

    def sha256(self) -> str:
        """Of all texts and labels in their order: the same rows, the same hash."""
        rows = hashlib.sha256()
        for _, frame in self.items():
            rows.update(repr(frame[["text", "label"]].to_numpy().tolist()).encode("utf-8", "surrogatepass"))
        return rows.hexdigest()

    def items(self) -> Iterator[tuple[str, "pd.DataFrame"]]:
        return ((name, getattr(self, name)) for name in PARTS)

    def plain_items(self) -> Iterator[tuple[str, "pd.DataFrame"]]:
        """:meth:`items` with the plain training rows: what a baseline is fitted and judged on."""
        return self.items() if self.plain is None else replace(self, train=self.plain).items()


def make_split(
    rows: "pd.DataFrame", validation: "pd.DataFrame | None" = None, test: "pd.DataFrame | None" = None, *,
    validation_fraction: float = 0.1, test_fraction: float = 0.2, seed: int = 123,
    kind: LabelKind = ONE_CLASS,
) -> Split:  # fmt: skip
    """Train, validation and test, with no text in two of them.

    A part that is not given is drawn from ``rows`` in proportion to the classes, at least one row of each
    class to each part; lists of labels in proportion to each row's rarest label, numbers to ten groups from
    the lowest to the highest. Texts are drawn, each with all of its rows: the same seed draws the same texts
    whether their repeats were dropped or kept, and with every version of numpy. A text of more rows than a
    part is due of its class stays in train, where the class has enough others: it alone would decide scores.
    Rows of train whose text stands in a given validation or test part are removed, and rows of validation
    whose text stands in test. A part that is given empty stays so.

    Raises InputError for fractions that leave nothing, fewer than two classes, a class too small to be drawn
    from, a label in validation or test that train lacks, and a part that is left empty.
    """
    for part in (validation, test):
        if part is not None:  # before drawing: else a drawn validation could take texts of the given test
            rows = without(rows, part, "train", "the validation or test file")
    asked = {"validation": (validation, validation_fraction), "test": (test, test_fraction)}
    fractions = {name: fraction for name, (part, fraction) in asked.items() if part is None}
    absent = [name for name, (part, _) in asked.items() if part is not None and part.empty]
    train, drawn = _draw(rows, fractions, seed, kind) if fractions else (rows, {})
    # Apart, in favour of test, then of validation.
    test = drawn.get("test", test).reset_index(drop=True)
    validation = without(drawn.get("validation", validation), test, "validation", "test")
    train = without(without(train, validation, "train", "validation"), test, "train", "test")
    split = Split(train, validation, test)
    # Something in each, and no label that training did not see.
    _require_classes(train, kind)
    known = names_in(train, kind)
    for name, part in split.items():
        if part.empty and name in drawn:
            said = f"{rows['text'].map(text_key).nunique():,} texts are too few to draw {name} rows from"
            raise InputError(f"{said}; add some, or choose another {name} fraction")
        if part.empty and name not in absent:
            raise InputError(f"no rows are left for {name}: all of its texts stand in another part")
        if unseen := sorted(names_in(part, kind) - known):
            named = ", ".join(map(repr, unseen[:5])) + (", …" if len(unseen) > 5 else "")
            trained = ", ".join(map(repr, sorted(known)[:5]))
            said = f"the {name} rows have labels that train lacks: {named}; train has {trained}"
            raise InputError(f"{said}: correct them, or add such rows to train")
    return split


def _draw(frame: "pd.DataFrame", fractions: dict[str, float], seed: int, kind: LabelKind) -> tuple:
    """What is left of ``frame``, and the parts by the names of their fractions: drawn by the first row of
    each text, which the others follow."""
    if bad := [f"{name} fraction {share}" for name, share in fractions.items() if not 0 < share < 1]:
        raise InputError(f"{bad[0]} is not between 0 and 1")
    if sum(fractions.values()) >= 1:
        raise InputError(f"fractions {fractions} leave nothing to train on: their sum must be below 1")
    _require_classes(frame, kind)
    text = pd.factorize(frame["text"].map(text_key))[0]  # (N,), the number of each row's text
    first = frame["label"].to_numpy()[~pd.Series(text).duplicated().to_numpy()].tolist()
    n_rows = np.bincount(text, raw_rows(frame))  # of each text
    needed = 1 + len(fractions)
    random = np.random.RandomState(seed)  # its stream is frozen for good (NEP 19), unlike default_rng's
    parts: list[list[np.ndarray]] = [[] for _ in range(needed)]
    for name, texts in rows_by_group(kind.strata(first)).items():
        if len(texts) < needed:
            if kind.every_class:
                said = f"class {name!r} has too few texts ({len(texts)}): {needed} are needed, one for each"
                raise InputError(f"{said} of train, {' and '.join(fractions)}: add rows or leave it out")
            parts[0].append(texts)
            continue
        texts = random.permutation(texts)
        heavy = n_rows[texts] > min(fractions.values()) * n_rows[texts].sum()
        texts = texts[heavy.argsort(kind="stable")]  # drawn last
        sizes = [max(1, round(len(texts) * fraction)) for fraction in fractions.values()]
        while sum(sizes) >= len(texts):  # a small class: train keeps one text at least
            sizes[sizes.index(max(sizes))] -= 1
        *drawn, rest = np.split(texts, np.cumsum(sizes))
        for part, taken in zip(parts, [rest, *drawn], strict=True):
            part.append(taken)
    if not kind.every_class:
        names: list[set[str]] = [set() for _ in first]
        for number, label in zip(text, frame["label"], strict=True):
            names[number].update(kind.names(label))
        _give_back_unseen(parts, names)
    # In the order of the file: readers find rows again, and the loader shuffles anyway.
    rest, *drawn = (frame[np.isin(text, np.concatenate([[], *part]))] for part in parts)
    return rest, dict(zip(fractions, drawn, strict=True))


def _give_back_unseen(parts: list[list[np.ndarray]], names: list[set[str]]) -> None:
    """Move texts back to train (the first part), one after another, while a name in them is unknown there."""
    known = set().union(*(names[text] for texts in parts[0] for text in texts))
    for part in parts[1:]:
        for i, texts in enumerate(part):
            unseen = np.zeros(len(texts), dtype=bool)
            for j, text in enumerate(texts):
                unseen[j] = not names[text] <= known
                known |= names[text]
            parts[0].append(texts[unseen])
            part[i] = texts[~unseen]


def _require_classes(frame: "pd.DataFrame", kind: LabelKind) -> None:
    classes = frame.label.unique()
    if kind.every_class and len(classes) < 2:
        found = f"only {classes[0]!r}" if len(classes) else "none"
        raise InputError(f"training needs two classes, but the labels hold {found}: add rows of another")


def drop_duplicates(frame: "pd.DataFrame", kind: LabelKind = ONE_CLASS) -> "pd.DataFrame":
    """The first row of each text, under the label of most of its rows (:func:`gptcls.data.repeats.settle`).

    >>> import pandas as pd
    >>> texts, labels = ["Free!", "free", "FREE", "hi", "ok", "OK"], ["yes", "no", "yes", "no", "yes", "no"]
    >>> drop_duplicates(pd.DataFrame({"text": texts, "label": labels}))
        text label  rows
    0  Free!   yes     3
    1     hi    no     1
    """
    return settle(frame, kind)[0]


def with_extra(
    split: Split, extra: "pd.DataFrame", source: object, kind: LabelKind = ONE_CLASS,
    repeats: Repeats = "drop",
) -> Split:  # fmt: skip
    """The split with the rows of ``extra`` behind its training rows. Of a text that stands in the split none
    is taken; what becomes of repeats and conflicts among the others is as in :func:`settle`. The log counts
    them, and the labels taken. InputError for a label that train lacks, and for no new row."""
    known = sorted(names_in(split.train, kind))
    if unseen := sorted(names_in(extra, kind) - set(known)):
        said = f"label {unseen[0]!r} is not among the labels of the training rows, {', '.join(known)}"
        raise InputError(f"{source}: {said}: correct or delete these rows")
    extra, _ = settle(extra, kind, repeats, str(source))
    for name, part in reversed(list(split.items())):
        extra = without(extra, part, str(source), name)
    if extra.empty:
        raise InputError(f"{source}: every text stands in the data already; give others")
    counts = Counter(chain.from_iterable(map(kind.names, extra.label)))
    taken = ", ".join(f"{counts[name]:,} {name}" for name in known)
    log.info(f"{source}: {len(extra):,} rows added to train ({taken})")
    joined = pd.concat([split.train, extra], ignore_index=True)
    counts = np.concatenate([raw_rows(split.train), raw_rows(extra)])  # either may be without the column
    return replace(split, train=with_rows(joined, counts))


def without(frame: "pd.DataFrame", other: "pd.DataFrame", name: str, where: str) -> "pd.DataFrame":
    """The rows of ``frame``, called ``name``, whose text is not in ``other``, called ``where``: logged."""
    shared = frame["text"].map(text_key).isin(set(map(text_key, other["text"])))
    if shared.any():
        log.info("removed %d rows from %s: their texts also stand in %s", int(shared.sum()), name, where)
    return frame[~shared].reset_index(drop=True)


def names_in(frame: "pd.DataFrame", kind: LabelKind) -> set[str]:
    """The classes (or the names of the numbers) in the labels of a frame."""
    return set(chain.from_iterable(map(kind.names, frame.label.unique())))


def rows_by_group(groups: Sequence[str]) -> dict[str, np.ndarray]:
    """The row positions of each group, such as a class; groups in sorted order."""
    groups = np.array(groups, dtype=object)
    return {name: np.flatnonzero(groups == name) for name in sorted(set(groups))}


# --- on disk ---


def save_split(split: Split, folder: str | Path) -> None:
    """Write train.csv, validation.csv, test.csv and, where the split has them, plain.csv and report.json: all
    or none. Of rows of several texts the others stand in the columns text_2, …. :func:`load_split` gives back
    every text exactly. InputError for a text that no file in UTF-8 can hold: one with a NUL character or half
    of a surrogate pair."""
    folder = Path(folder)
    parts = dict(split.items()) | ({} if split.plain is None else {"plain": split.plain})
    with ExitStack() as stack:
        for name, frame in parts.items():
            if bad := [row for row, text in enumerate(frame.text) if UNWRITABLE.search(text)]:
                raise InputError(f"{name}, row {bad[0]}: remove the NUL character or lone surrogate")
            columns = ["text", "label", *([ROWS] if ROWS in frame else [])]
            stack.enter_context(ChunkWriter(folder / f"{name}.csv")).write(in_columns(frame[columns]))
    # What else stands here is of another split.
    if split.plain is None:
        (folder / "plain.csv").unlink(missing_ok=True)
    if split.report is None:
        (folder / "report.json").unlink(missing_ok=True)
    else:
        write_json(folder / "report.json", split.report)


def load_split(folder: str | Path) -> Split:
    """What :func:`save_split` has written. InputError if a file is missing or is not such a file."""
    frames = {}
    for name in (*PARTS, "plain"):
        if (path := Path(folder, f"{name}.csv")).exists():
            frame = out_of_columns(pd.concat(read_chunks(path)))
            if list(frame.columns) not in (["text", "label"], ["text", "label", ROWS]):
                raise InputError(f"{path}: its columns are {', '.join(frame.columns)} instead of text, label")
            frames[name] = labelled_frame(frame["text"].tolist(), frame["label"].tolist())
            if ROWS in frame:
                frames[name][ROWS] = _counts(frame[ROWS].tolist(), path)
        elif name in PARTS:
            raise InputError(f"{path}: no such file; a saved split is train.csv, validation.csv and test.csv")
    report, found = Path(folder, "report.json"), None
    if report.exists():
        try:
            found = json.loads(report.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            said = f"{report} is damaged ({error!s:.80})"
            raise InputError(f"{said}; delete it, or split the data anew") from None
    return Split(**frames, report=found)


def _counts(values: list[str], path: Path) -> list[int]:
    if bad := [value for value in values if not re.fullmatch("[1-9][0-9]{0,17}", value)]:
        raise InputError(f"{path}: {bad[0]!r} in column rows is no count of rows; use a whole number from 1")
    return list(map(int, values))
