"""Train, validation and test: drawn from one frame, kept apart by their texts, and stored as three files.

Every function takes frames with the columns ``text`` and ``label`` and returns new ones, index 0 to N - 1.
Texts are the same where :func:`gptcls.data.same_text.text_key` says so.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.labels import ONE_CLASS, LabelKind
from gptcls.data.readers import read_chunks
from gptcls.data.same_text import text_key
from gptcls.data.sources import labelled_frame
from gptcls.data.writer import ChunkWriter

PARTS = ("train", "validation", "test")
UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")  # in UTF-8, or by the csv module


@dataclass(frozen=True)
class Split:
    """The three parts; no text stands in two of them, except in the book's own split. ``plain`` has the
    training rows as the labelled data gives them, where ``train`` differs from them: rows were added
    (``--extra``, ``--augment``), repeated or left out (``--balance``)."""

    train: "pd.DataFrame"
    validation: "pd.DataFrame"
    test: "pd.DataFrame"
    plain: "pd.DataFrame | None" = None

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
    the lowest to the highest. The same seed draws the same rows with every version of numpy. Rows of train
    whose text stands in validation or test are removed, and rows of validation whose text stands in test.

    Raises InputError for fractions that leave nothing, fewer than two classes, a class too small to be drawn
    from, a label in validation or test that train lacks, and a part that is left empty.
    """
    for part in (validation, test):
        if part is not None:  # before drawing: else a drawn validation could take texts of the given test
            rows = without(rows, part, "train", "the validation or test file")
    asked = {"validation": (validation, validation_fraction), "test": (test, test_fraction)}
    fractions = {name: fraction for name, (part, fraction) in asked.items() if part is None}
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
        if part.empty:
            raise InputError(f"no rows are left for {name}: all of its texts stand in another part")
        if unseen := sorted(names_in(part, kind) - known):
            named = ", ".join(map(repr, unseen[:5])) + (", …" if len(unseen) > 5 else "")
            trained = ", ".join(map(repr, sorted(known)[:5]))
            said = f"the {name} rows have labels that train lacks: {named}; train has {trained}"
            raise InputError(f"{said}: correct them, or add such rows to train")
    return split


def _draw(frame: "pd.DataFrame", fractions: dict[str, float], seed: int, kind: LabelKind) -> tuple:
    """What is left of ``frame``, and the parts by the names of their fractions."""
    if bad := [f"{name} fraction {share}" for name, share in fractions.items() if not 0 < share < 1]:
        raise InputError(f"{bad[0]} is not between 0 and 1")
    if sum(fractions.values()) >= 1:
        raise InputError(f"fractions {fractions} leave nothing to train on: their sum must be below 1")
    _require_classes(frame, kind)
    needed = 1 + len(fractions)
    random = np.random.RandomState(seed)  # its stream is frozen for good (NEP 19), unlike default_rng's
    parts: list[list[np.ndarray]] = [[] for _ in range(needed)]
    for name, rows in rows_by_group(kind.strata(frame.label.tolist())).items():
        if len(rows) < needed:
            if kind.every_class:
                said = f"class {name!r} has too few rows ({len(rows)}): {needed} are needed, one for each of"
                raise InputError(f"{said} train, {' and '.join(fractions)}: add rows or leave it out")
            parts[0].append(rows)
            continue
        rows = random.permutation(rows)
        sizes = [max(1, round(len(rows) * fraction)) for fraction in fractions.values()]
        while sum(sizes) >= len(rows):  # a small class: train keeps one row at least
            sizes[sizes.index(max(sizes))] -= 1
        *drawn, rest = np.split(rows, np.cumsum(sizes))
        for part, taken in zip(parts, [rest, *drawn], strict=True):
            part.append(taken)
    if not kind.every_class:
        _give_back_unseen(parts, [set(kind.names(label)) for label in frame.label])
    # In the order of the file: readers find rows again, and the loader shuffles anyway.
    rest, *drawn = (frame.iloc[np.sort(np.concatenate([[], *part]).astype(int))] for part in parts)
    return rest, dict(zip(fractions, drawn, strict=True))


def _give_back_unseen(parts: list[list[np.ndarray]], names: list[set[str]]) -> None:
    """Move rows back to train (the first part), one after another, while a name in them is unknown there."""
    known = set().union(*(names[row] for rows in parts[0] for row in rows))
    for part in parts[1:]:
        for i, rows in enumerate(part):
            unseen = np.zeros(len(rows), dtype=bool)
            for j, row in enumerate(rows):
                unseen[j] = not names[row] <= known
                known |= names[row]
            parts[0].append(rows[unseen])
            part[i] = rows[~unseen]


def _require_classes(frame: "pd.DataFrame", kind: LabelKind) -> None:
    classes = frame.label.unique()
    if kind.every_class and len(classes) < 2:
        found = f"only {classes[0]!r}" if len(classes) else "none"
        raise InputError(f"training needs two classes, but the labels hold {found}: add rows of another")


def drop_duplicates(frame: "pd.DataFrame", kind: LabelKind = ONE_CLASS) -> "pd.DataFrame":
    """Keep the first row of each text; drop every row of a text that stands under several labels. A text
    under several numbers keeps their mean. The log counts both."""
    keys = frame["text"].map(text_key)
    by_text = frame["label"].groupby(keys.to_numpy(), sort=False)
    contradictory = by_text.transform("nunique") > 1
    if contradictory.any():
        n, example = keys[contradictory].nunique(), frame["text"][contradictory].iloc[0]
        example = example if len(example) <= 40 else example[:39] + "…"
        if kind.merge is None:
            said = f"texts under several {kind.differ} ({n}, e.g. {example!r})"
            log.info(f"dropped {int(contradictory.sum())} rows: {said}")
            frame, keys = frame[~contradictory], keys[~contradictory]
        else:
            frame = frame.assign(label=keys.map(by_text.agg(lambda labels: kind.merge(labels.tolist()))))
            log.info("%d texts (e.g. %r) stand under several numbers: each gets the mean", n, example)
    kept = frame[~keys.duplicated()]
    if repeats := len(frame) - len(kept):
        log.info(f"dropped {repeats} repeated texts, {len(kept)} rows left (letters and digits compared)")
    return kept.reset_index(drop=True)


def with_extra(split: Split, extra: "pd.DataFrame", source: object, kind: LabelKind = ONE_CLASS) -> Split:
    """The split with the rows of ``extra`` behind its training rows; those that repeat a text are left out.
    The log counts them, and the labels taken. InputError for a label that train lacks, and for no new row."""
    known = sorted(names_in(split.train, kind))
    if unseen := sorted(names_in(extra, kind) - set(known)):
        said = f"label {unseen[0]!r} is not among the labels of the training rows, {', '.join(known)}"
        raise InputError(f"{source}: {said}: correct or delete these rows")
    extra = drop_duplicates(extra, kind)
    for name, part in reversed(list(split.items())):
        extra = without(extra, part, str(source), name)
    if extra.empty:
        raise InputError(f"{source}: every text stands in the data already; leave out --extra")
    counts = Counter(chain.from_iterable(map(kind.names, extra.label)))
    taken = ", ".join(f"{counts[name]:,} {name}" for name in known)
    log.info(f"{source}: {len(extra):,} rows added to train ({taken})")
    return replace(split, train=pd.concat([split.train, extra], ignore_index=True))


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
    """Write train.csv, validation.csv, test.csv and, where the split has them, plain.csv: all or none.
    :func:`load_split` gives back every text exactly. InputError for a text that no file in UTF-8 can hold:
    one with a NUL character or half of a surrogate pair."""
    folder = Path(folder)
    parts = dict(split.items()) | ({} if split.plain is None else {"plain": split.plain})
    with ExitStack() as stack:
        for name, frame in parts.items():
            if bad := [row for row, text in enumerate(frame.text) if UNWRITABLE.search(text)]:
                raise InputError(f"{name}, row {bad[0]}: remove the NUL character or lone surrogate")
            stack.enter_context(ChunkWriter(folder / f"{name}.csv")).write(frame[["text", "label"]])
    if split.plain is None:
        (folder / "plain.csv").unlink(missing_ok=True)  # of another split that stood here


def load_split(folder: str | Path) -> Split:
    """What :func:`save_split` has written. InputError if a file is missing or is not such a file."""
    frames = {}
    for name in (*PARTS, "plain"):
        if (path := Path(folder, f"{name}.csv")).exists():
            frame = pd.concat(read_chunks(path))
            if list(frame.columns) != ["text", "label"]:
                raise InputError(f"{path}: its columns are {', '.join(frame.columns)} instead of text, label")
            frames[name] = labelled_frame(frame["text"].tolist(), frame["label"].tolist())
        elif name in PARTS:
            raise InputError(f"{path}: no such file; a saved split is train.csv, validation.csv and test.csv")
    return Split(**frames)
