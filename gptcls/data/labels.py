"""The labels of a text: one class, several, or numbers; how they are compared and split, where they stand.

In a frame a label is always a string, so that a split is a plain file that a person can read:

- one class: its name, ``spam``;
- several: a JSON array of their names in sorted order, ``["anger", "joy"]``; none of them: ``[]``;
- a number: ``3.5``; several numbers: a JSON object, ``{"arousal": 1.0, "valence": 3.5}``.

:class:`Layout` says where the labels of a table stand; :mod:`gptcls.data.label_columns` reads them there.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.tasks import numbers
from gptcls.data.columns import (
    Column,
    find_columns,
    find_text_columns,
    known_columns,
    label_values,
    require_column,
)
from gptcls.data.label_columns import from_json, read_flags, read_lists, read_numbers, to_float, to_names
from gptcls.data.readers import refuse_repeats

STRATA = 10  # parts of equal size that numbers are cut into


@dataclass(frozen=True)
class LabelKind:
    """What reading and splitting must know about the labels of a task."""

    task: str  # as in --task
    names: Callable[[str], list[str]]  # the classes (or the names of the numbers) in a label
    strata: Callable[[Sequence[str]], list[str]]  # groups to draw from in proportion
    vote: Callable[[Sequence[str]], str | None]  # the label of a text from those of its rows; None: a tie
    every_class: bool = False  # whether each part must hold every class
    differ: str = "labels"  # of which a text has several, where its rows contradict each other


def most_frequent(labels: Sequence[str]) -> str | None:
    """The label of more rows than any other; None where two share the lead.

    >>> most_frequent(["b", "a", "b", "c"]), most_frequent(["a", "b"])
    ('b', None)
    """
    (first, most), *rest = Counter(labels).most_common(2)
    return None if rest and rest[0][1] == most else first


def majority_of_each(labels: Sequence[str]) -> str | None:
    """The names that more than half of the lists hold. Each is voted on alone, as the task decides on each
    alone, so that lists which differ in one name still agree on the others. None where no name wins, unless
    more than half of the lists are empty.

    >>> majority_of_each(['["a"]', '["a", "b"]', '["c"]']), majority_of_each(['["a"]', '["b"]'])
    ('["a"]', None)
    """
    lists = [json.loads(label) for label in labels]
    counts = Counter(chain.from_iterable(lists))
    winners = sorted(name for name, n in counts.items() if 2 * n > len(lists))
    if not winners and 2 * lists.count([]) <= len(lists):
        return None
    return json.dumps(winners, ensure_ascii=False)


def rarest_labels(labels: Sequence[str]) -> list[str]:
    """For each label list its rarest name over all rows; drawn by these, rare names reach all parts.

    >>> rarest_labels(['["a", "b"]', '["a"]', "[]"])
    ['b', 'a', '']
    """
    lists = [json.loads(label) for label in labels]
    counts = Counter(chain.from_iterable(lists))
    return [min(names, key=lambda name: (counts[name], name), default="") for names in lists]


def number_strata(labels: Sequence[str]) -> list[str]:
    """Up to :data:`STRATA` groups of equal size, from the lowest to the highest first number of each row."""
    values = [next(iter(numbers(label).values())) for label in labels]
    count = max(1, min(STRATA, len(values) // STRATA))
    groups = [""] * len(values)
    for rank, row in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        groups[row] = str(rank * count // len(values))
    return groups


def mean_numbers(labels: Sequence[str]) -> str:
    """The mean of several numbers, or of several objects of named ones."""
    rows = [numbers(label) for label in labels]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return json.dumps(means if labels[0].startswith("{") else means["label"], ensure_ascii=False)


ONE_CLASS = LabelKind("single", lambda label: [label], list, most_frequent, every_class=True)
LISTS = LabelKind("multi", json.loads, rarest_labels, majority_of_each, differ="lists of labels")
NUMBERS = LabelKind(
    "regression", lambda label: list(numbers(label)), number_strata, mean_numbers, differ="numbers"
)
KINDS = {kind.task: kind for kind in (ONE_CLASS, LISTS, NUMBERS)}


@dataclass(frozen=True)
class Layout:
    """Where the labels of a table stand and how they are written. InputError for what excludes itself."""

    kind: LabelKind = ONE_CLASS
    label_columns: tuple[str, ...] = ()  # of 0 and 1, each named like its label; for numbers a column each
    label_separator: str | None = None  # what stands between the labels of a row, such as ","
    label_names: Path | None = None  # file whose lines name the ids 0, 1, 2, … in the label column

    def __post_init__(self) -> None:
        task, given = self.kind.task, "--label-columns " + " ".join(self.label_columns)
        if self.label_columns and task == "single":
            way_out = "use --label-column, --task multi or --task regression"
            raise InputError(f"{given}: one class per text stands in one column; {way_out}")
        if self.label_columns and (self.label_separator is not None or self.label_names):
            raise InputError(f"{given} excludes --label-separator and --label-names: a column is one label")
        if self.label_separator is not None and task != "multi":
            raise InputError(f"--label-separator goes with --task multi, not --task {task}; leave it out")
        if self.label_separator == "":
            raise InputError('--label-separator "" separates nothing; give what stands between labels')
        if self.label_names and task == "regression":
            raise InputError(f"--label-names {self.label_names} is for classes; --task regression has none")
        refuse_repeats(self.label_columns, option="--label-columns")

    def find(
        self, text_column: str | Sequence[str] | None, label_column: str | None, sample: "pd.DataFrame",
        source: object, trained_on: Sequence[str] = (),
    ) -> tuple[tuple[str, ...], list[str]]:  # fmt: skip
        """The text columns and the columns with the labels, by the first rows of a table; as to
        ``trained_on``, see :func:`gptcls.data.columns.find_text_columns`."""
        text_column = known_columns(sample.columns, text_column, trained_on)
        if not self.label_columns:
            several = "" if self.kind is ONE_CLASS else ", or several with --label-columns"
            option = f"--label-column{several}"
            texts, label = find_columns(sample.columns, text_column, label_column, sample, source, option)
            return texts, [label]
        if label_column is not None:
            raise InputError(f"--label-column {label_column} and --label-columns exclude each other")
        for name in self.label_columns:
            require_column(list(sample.columns), name, "--label-columns", source)
        texts = [text_column] if isinstance(text_column, str) else text_column or ()
        if both := [name for name in texts if name in self.label_columns]:
            raise InputError(f"{source}: column {both[0]!r} is the text; it cannot be a label as well")
        others = [name for name in sample.columns if name not in self.label_columns]
        return find_text_columns(others, texts, sample, source), list(self.label_columns)

    def read(self, columns: list[Column]) -> list[str]:
        """The labels of the rows; InputError naming those whose value cannot be meant."""
        if self.kind is NUMBERS:
            return read_numbers(columns)
        column = columns[0]
        if self.label_columns:
            lists = read_flags(columns)
        elif self.kind is LISTS:
            lists = read_lists(column, self.label_separator)
        else:
            lists = [[name] for name in label_values(column)]
            if arrays := [name for (name,) in lists if isinstance(from_json(name, "["), list)]:
                said = f"labels in column {column.name!r} are lists, such as {arrays[0]:.60}"
                raise InputError(f"{column.source}: {said}; add --task multi")
        if self.label_names is not None:
            lists = to_names(lists, column, self.label_names)
        elif not self.label_columns and self.label_separator is None:
            _log_unlikely_names(set(chain.from_iterable(lists)), self.kind, column)
        if self.kind is ONE_CLASS:
            return [name for (name,) in lists]
        return [json.dumps(sorted(set(names)), ensure_ascii=False) for names in lists]


def _log_unlikely_names(names: set[str], kind: LabelKind, column: Column) -> None:
    """Log where names look like something other than a class each: several in one, or fractions."""
    for mark in (",", ";", "|", " "):
        parts = {part.strip() for name in names for part in name.split(mark)}
        if len(parts) < len(names):  # "a", "b" and "a,b": not so in "Sports, Outdoors" and "Music"
            example = next(name for name in sorted(names) if mark in name)
            options = "--label-separator" if kind is LISTS else "--task multi --label-separator"
            said = "%s: each value of column %r is read as one class, also %r; for several add %s '%s'"
            log.info(said, column.source, column.name, example, options, mark)
            return
    fractions = [name for name in sorted(names) if (x := to_float(name)) == x and x % 1]  # NaN: no number
    if fractions and len(fractions) > len(names) / 2:
        said = "%s: each number in column %r, such as %s, is read as a class; else add --task regression"
        log.info(said, column.source, column.name, fractions[0])
