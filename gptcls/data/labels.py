"""Where the labels of a file stand, how they are written, and how they become strings of :mod:`kinds`."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptcls.data.columns import find_columns, find_text_column, label_values, require_column
from gptcls.data.files import refuse_repeats
from gptcls.data.kinds import LISTS, NUMBERS, ONE_CLASS, LabelKind
from gptcls.data.read_labels import read_flags, read_lists, read_numbers, to_names
from gptcls.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

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
