"""The labels of a row: one class, several, or numbers; how each is compared and split.

In a frame a label is always a string, so that a split is a plain file that a person can read:

- one class: its name, ``spam``;
- several: a JSON array of their names in sorted order, ``["anger", "joy"]``; none of them: ``[]``;
- a number: ``3.5``; several numbers: a JSON object, ``{"arousal": 1.0, "valence": 3.5}``.

Where the labels of a file stand, how they are written, and how they become strings of :mod:`kinds`.

Label columns that hold more than one class's name: lists, 0 and 1, ids, numbers.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from gptcls.core.errors import InputError
from gptcls.core.tasks import numbers
from gptcls.data.columns import (
    NO_LABEL,
    bad_rows,
    find_columns,
    find_text_column,
    label_values,
    require_column,
)
from gptcls.data.readers import open_text, refuse_repeats, require_file, require_utf8

if TYPE_CHECKING:
    import pandas as pd

STRATA = 10  # parts of equal size that numbers are cut into


@dataclass(frozen=True)
class LabelKind:
    """What reading and splitting must know about the labels of a task."""

    task: str  # as in --task
    names: Callable[[str], list[str]]  # the classes (or the names of the numbers) in a label
    strata: Callable[[Sequence[str]], list[str]]  # groups to draw from in proportion
    every_class: bool  # whether each part must hold every class
    differ: str = "labels"  # of which a text has several, where its rows contradict each other
    merge: Callable[[Sequence[str]], str] | None = None  # settles such rows; without it they are dropped


def rarest_labels(labels: Sequence[str]) -> list[str]:
    """For each label list its name that is the rarest over all rows; "" for an empty list.

    Drawn in proportion to these, rare names are spread over the parts; common ones follow by their number.
    """
    lists = [json.loads(label) for label in labels]
    counts = Counter(chain.from_iterable(lists))
    return [min(names, key=lambda name: (counts[name], name), default="") for names in lists]


def number_strata(labels: Sequence[str]) -> list[str]:
    """Up to :data:`STRATA` groups of equal size, from the lowest to the highest first number of each row."""
    values = [next(iter(numbers(label).values())) for label in labels]
    count = max(1, min(STRATA, len(values) // STRATA))
    order = sorted(range(len(values)), key=values.__getitem__)
    groups = [""] * len(values)
    for rank, row in enumerate(order):
        groups[row] = str(rank * count // len(values))
    return groups


def mean_numbers(labels: Sequence[str]) -> str:
    """The mean of several numbers, or of several rows of named ones."""
    rows = [numbers(label) for label in labels]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return json.dumps(means if labels[0].startswith("{") else means["label"], ensure_ascii=False)


ONE_CLASS = LabelKind("single", lambda label: [label], list, every_class=True)


LISTS = LabelKind("multi", json.loads, rarest_labels, every_class=False, differ="lists of labels")


NUMBERS = LabelKind(
    "regression", lambda label: list(numbers(label)), number_strata, every_class=False, merge=mean_numbers
)


KINDS = {kind.task: kind for kind in (ONE_CLASS, LISTS, NUMBERS)}


log = logging.getLogger("gptcls")


@dataclass(frozen=True)
class Layout:
    """Where the labels of a file stand and how they are written. Raises InputError for what excludes itself.

    Args:
        kind: what a label is, of :data:`KINDS`.
        label_columns: columns of 0 and 1, each named like its label; for numbers a column each.
        label_separator: what stands between the labels of a row, such as ",".
        label_names: file whose lines name the ids 0, 1, 2, … that stand in the label column.
    """

    kind: LabelKind = ONE_CLASS
    label_columns: tuple[str, ...] = ()
    label_separator: str | None = None
    label_names: Path | None = None

    def __post_init__(self) -> None:
        task, given = self.kind.task, "--label-columns " + " ".join(self.label_columns)
        if self.label_columns and task == "single":
            raise InputError(
                f"{given}: one class a text stands in one column; use --label-column, --task multi or "
                "--task regression"
            )
        if self.label_columns and (self.label_separator is not None or self.label_names):
            raise InputError(f"{given} excludes --label-separator and --label-names: a column is one label")
        if self.label_separator is not None and task != "multi":
            raise InputError(f"--label-separator goes with --task multi, not --task {task}; leave it out")
        if self.label_separator == "":
            raise InputError('--label-separator "" separates nothing; give what stands between labels')
        if self.label_names and task == "regression":
            raise InputError(f"--label-names {self.label_names} is for classes; --task regression has none")
        refuse_repeats("--label-columns", self.label_columns)

    def find(
        self, text_column: str | None, label_column: str | None, sample: "pd.DataFrame", source: object
    ) -> tuple[str, list[str]]:
        """The text column and the columns with the labels, of the first rows of a table."""
        if not self.label_columns:
            several = "" if self.kind is ONE_CLASS else ", or several with --label-columns"
            option = f"--label-column{several}"
            text, label = find_columns(sample.columns, text_column, label_column, sample, source, option)
            return text, [label]
        if label_column is not None:
            raise InputError(f"--label-column {label_column} and --label-columns exclude each other")
        for name in self.label_columns:
            require_column(list(sample.columns), name, "--label-columns", source)
        if text_column in self.label_columns:
            raise InputError(f"{source}: column {text_column!r} is the text; it cannot be a label as well")
        others = [name for name in sample.columns if name not in self.label_columns]
        return find_text_column(others, text_column, sample, source), list(self.label_columns)

    def read(self, values: dict[str, list], rows: "pd.Index", source: object) -> list[str]:
        """The labels of N rows from their label columns; ``rows`` as in :func:`columns.text_values`.

        Raises InputError naming the rows whose value cannot be meant.
        """
        if self.kind is NUMBERS:
            return read_numbers(values, rows, source)
        if self.label_columns:
            return [_array(names) for names in read_flags(values, rows, source)]
        ((column, cells),) = values.items()
        if self.kind is LISTS:
            lists = read_lists(cells, rows, column, source, self.label_separator)
        else:
            lists = [[name] for name in label_values(cells, rows, column, source)]
            _refuse_arrays(lists, column, source)
        if self.label_names is not None:
            lists = to_names(lists, rows, column, source, self.label_names)
        elif self.label_separator is None:
            _say_what_it_looks_like([name for names in lists for name in names], self.kind, column, source)
        if self.kind is LISTS:
            return [_array(names) for names in lists]
        return [name for (name,) in lists]


def _array(names: list[str]) -> str:
    return json.dumps(sorted(set(names)), ensure_ascii=False)


def _refuse_arrays(lists: list[list[str]], column: str, source: object) -> None:
    """A JSON array is no name of a class."""
    for (name,) in lists:
        if name.startswith("[") and name.endswith("]") and _is_array(name):
            raise InputError(
                f"{source}: labels in column {column!r} are lists, such as {name:.60}; add --task multi"
            )


def _is_array(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _say_what_it_looks_like(names: list[str], kind: LabelKind, column: str, source: object) -> None:
    """Log where names look like something else than a class each: several in one, or fractions."""
    distinct = set(names)
    for mark in (",", ";", "|", " "):
        parts = {part.strip() for name in distinct for part in name.split(mark)}
        if len(parts) < len(distinct):  # "a", "b" and "a,b": not so in "Sports, Outdoors" and "Music"
            example = next(name for name in sorted(distinct) if mark in name)
            options = "--label-separator" if kind is LISTS else "--task multi --label-separator"
            said = "%s: each value of column %r is read as one class, also %r; for several add %s '%s'"
            log.info(said, source, column, example, options, mark)
            return
    fractions = [name for name in sorted(distinct) if _is_fraction(name)]
    if fractions and len(fractions) > len(distinct) / 2:
        said = "%s: each number in column %r, such as %s, is read as a class; else add --task regression"
        log.info(said, source, column, fractions[0])


def _is_fraction(name: str) -> bool:
    try:
        return not float(name).is_integer()
    except (ValueError, OverflowError):
        return False


FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


LARGEST = 3e38  # beyond it a float32 is infinite


def read_lists(
    values: list, rows: "pd.Index", column: str, source: object, separator: str | None
) -> list[list[str]]:
    """The label names of each row, in any order.

    A value is a list (of a .jsonl or Parquet file), a JSON array written as a string, or a string in which
    ``separator`` stands between the names; without a separator a string is one name. An empty value is a row
    with none of the labels, and the log says how many there are. Raises InputError for a malformed list, a
    missing value, and for lists in some rows beside plain strings in others.
    """
    where = f"in column {column!r}"
    found: list[list[str] | None] = [_names(value, separator) for value in values]
    if bad := [(n, value) for n, value, names in zip(rows, values, found, strict=True) if names is None]:
        what = f"malformed list of labels {bad[0][1]!r:.60} {where}"
        way_out = 'give names or ids: ["a", "b"], or "a,b" with --label-separator ","'
        raise bad_rows(bad, rows.name, what, source, way_out)
    if bad := [(n, names) for n, names in zip(rows, found, strict=True) if NO_LABEL & set(names)]:
        way_out = "delete these rows, or write [] where a text has none of the labels"
        raise bad_rows(bad, rows.name, f"missing label {where}", source, way_out)
    arrays = [_is_list(value) for value in values]
    plain = [(n, value) for n, value, a in zip(rows, values, arrays, strict=True) if not a and value != ""]
    if any(arrays) and plain:
        what = f"a plain value, {plain[0][1]!r:.60}, among lists {where}"
        raise bad_rows(plain, rows.name, what, source, "write all of them as lists")
    if empty := sum(not names for names in found):
        log.info("%s: %d rows have none of the labels", source, empty)
    return found


def read_flags(columns: dict[str, list], rows: "pd.Index", source: object) -> list[list[str]]:
    """The names of the columns that hold 1 (or true) in each row; InputError for neither 0 nor 1."""
    found: list[list[str]] = [[] for _ in rows]
    for name, values in columns.items():
        flags = [FLAGS.get(str(value).strip().lower()) for value in values]
        if bad := [(n, v) for n, v, flag in zip(rows, values, flags, strict=True) if flag is None]:
            what = f"{bad[0][1]!r:.60} in column {name!r}, neither 0 nor 1,"
            raise bad_rows(bad, rows.name, what, source, "correct it, or leave the column out")
        for names, flag in zip(found, flags, strict=True):
            if flag:
                names.append(name)
    if empty := sum(not names for names in found):
        log.info("%s: %d rows have none of the labels", source, empty)
    return found


def read_numbers(columns: dict[str, list], rows: "pd.Index", source: object) -> list[str]:
    """The numbers of each row as JSON: of one column the number alone, else an object with their names.

    One column may also hold such objects. Raises InputError for what is no finite number.
    """
    if len(columns) == 1:
        ((name, values),) = columns.items()
        objects = [_object(value) for value in values]
        if any(objects):
            if bad := [(n, v) for n, v, each in zip(rows, values, objects, strict=True) if not each]:
                what = f"{bad[0][1]!r:.60} in column {name!r}, without names as in other rows,"
                raise bad_rows(bad, rows.name, what, source, "give every row the same numbers")
            keys = list(objects[0])
            if bad := [(n, o) for n, o in zip(rows, objects, strict=True) if o.keys() != set(keys)]:
                what = f"numbers named {', '.join(bad[0][1])} in column {name!r}, not {', '.join(keys)},"
                raise bad_rows(bad, rows.name, what, source, "give every row the same numbers")
            columns = {key: [each[key] for each in objects] for key in sorted(keys)}
            return _objects(columns, rows, source)
        return [json.dumps(value) for value in _floats(name, values, rows, source)]
    return _objects(columns, rows, source)


def to_names(
    lists: list[list[str]], rows: "pd.Index", column: str, source: object, path: Path
) -> list[list[str]]:
    """Ids as the names in the lines of ``path``, counted from 0; InputError for an id without a line."""
    names = read_names(path)
    known = {str(number): name for number, name in enumerate(names)}
    if bad := [(n, ids) for n, ids in zip(rows, lists, strict=True) if not known.keys() >= set(ids)]:
        unknown = next(each for each in bad[0][1] if each not in known)
        what = f"label {unknown!r} in column {column!r}, which is no id from 0 to {len(names) - 1},"
        raise bad_rows(bad, rows.name, what, source, f"{path} names {len(names)} labels")
    return [[known[each] for each in ids] for ids in lists]


def read_names(path: Path) -> list[str]:
    """The lines of a file with a label's name each; InputError for a name that is missing or repeated."""
    require_file(path)
    require_utf8(path)
    with open_text(path, newline="") as file:
        names = [line.strip() for line in file.read().splitlines()]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            what = f"repeats the name {name!r}" if name else "holds no name"
            raise InputError(f"{path}, line {number}: it {what}; give each id a name of its own")
    return names


def _is_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _names(value: object, separator: str | None) -> list[str] | None:
    """The names in a value; None where it is malformed."""
    if isinstance(value, str) and _is_list(value):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, str):
        if not value.strip():
            return []
        names = value.split(separator) if separator is not None else [value]
    elif isinstance(value, list):
        if any(isinstance(name, bool) or not isinstance(name, str | int) for name in value):
            return None
        names = list(map(str, value))
    elif isinstance(value, int) and not isinstance(value, bool):
        names = [str(value)]
    elif value is None:
        return ["nan"]  # a missing value, and reported as one
    else:
        return None
    names = [name.strip() for name in names]
    return names if all(names) else None


def _object(value: object) -> dict | None:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _objects(columns: dict[str, list], rows: "pd.Index", source: object) -> list[str]:
    numbers = {name: _floats(name, values, rows, source) for name, values in columns.items()}
    return [
        json.dumps(dict(zip(numbers, row, strict=True)), ensure_ascii=False)
        for row in zip(*numbers.values(), strict=True)
    ]


def _floats(column: str, values: list, rows: "pd.Index", source: object) -> list[float]:
    found = [_float(value) for value in values]
    if bad := [(n, v) for n, v, x in zip(rows, values, found, strict=True) if not abs(x) <= LARGEST]:
        what = f"{bad[0][1]!r:.60} in column {column!r}, no finite number,"
        raise bad_rows(bad, rows.name, what, source, "correct or delete it, or choose other columns")
    return found


def _float(value: object) -> float:
    """NaN for what is no number; True is none either."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
