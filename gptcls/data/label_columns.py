"""Columns that hold more than the name of one class: lists of labels, flags of 0 and 1, ids, numbers.

Every function raises InputError naming the rows whose value cannot be meant.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.columns import NO_LABEL, Column
from gptcls.data.encodings import open_text, require_text

FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
LARGEST = 3e38  # beyond it a float32 is infinite


# --- several labels ---


def read_lists(column: Column, separator: str | None) -> list[list[str]]:
    """The label names of each row, in any order.

    A value is a list (of a .jsonl or Parquet file), a JSON array written as a string, or a string in which
    ``separator`` stands between the names; without a separator a string is one name. An empty value is a row
    with none of the labels, and the log counts them. Malformed are missing values, too, and lists in some
    rows next to plain strings in others.
    """
    found = [_names(value, separator) for value in column.values]
    said = "malformed list of labels {value!r:.60} {here}"
    way_out = 'give names or ids: ["a", "b"], or "a,b" with --label-separator ","'
    column.refuse((names is None for names in found), said, way_out)
    way_out = "delete these rows, or write [] where a text has none of the labels"
    column.refuse((NO_LABEL & set(names) for names in found), "missing label {here}", way_out)
    if any(map(_is_list, column.values)):
        plain = (value != "" and not _is_list(value) for value in column.values)
        column.refuse(plain, "a plain value, {value!r:.60}, among lists {here}", "write all of them as lists")
    _log_empty(found, column.source)
    return found


def from_json(value: object, mark: str) -> object:
    """What a string that starts with the mark says, as JSON (None where it is none); else the value."""
    if not isinstance(value, str) or not value.lstrip().startswith(mark):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _is_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


def _names(value: object, separator: str | None) -> list[str] | None:
    """The names in a value; None where it is malformed."""
    if value is None:
        return ["nan"]  # a missing value, and reported as one
    value = from_json(value, "[")
    if isinstance(value, str):
        names = value.split(separator) if separator is not None else [value]
        names = names if value.strip() else []
    else:
        names = value if isinstance(value, list) else [value]
        if any(isinstance(name, bool) or not isinstance(name, str | int) for name in names):
            return None
    names = [str(name).strip() for name in names]
    return names if all(names) else None


def read_flags(columns: list[Column]) -> list[list[str]]:
    """The names of the columns that hold 1 (or true) in each row, not 0."""
    flags = [[FLAGS.get(str(value).strip().lower()) for value in column.values] for column in columns]
    for column, found in zip(columns, flags, strict=True):
        said = "{value!r:.60} {here}, neither 0 nor 1,"
        column.refuse((flag is None for flag in found), said, "correct it, or leave the column out")
    rows = zip(*flags, strict=True)
    lists = [[column.name for column, flag in zip(columns, row, strict=True) if flag] for row in rows]
    _log_empty(lists, columns[0].source)
    return lists


def _log_empty(lists: list[list[str]], source: object) -> None:
    if empty := sum(not names for names in lists):
        log.info("%s: %d rows have none of the labels", source, empty)


# --- ids ---


def to_names(lists: list[list[str]], column: Column, path: Path) -> list[list[str]]:
    """Ids as the names in the lines of ``path``, counted from 0; every id needs a line."""
    names = read_names(path)
    known = {str(number): name for number, name in enumerate(names)}
    unknown = [next((each for each in ids if each not in known), None) for ids in lists]
    said = f"label {{value!r}} {{here}}, which is not an id from 0 to {len(names) - 1},"
    wrong = (label is not None for label in unknown)
    replace(column, values=unknown).refuse(wrong, said, f"{path} names {len(names)} labels")
    return [[known[each] for each in ids] for ids in lists]


def read_names(path: Path) -> list[str]:
    """The lines of a file with one label's name per line; InputError for one that is missing or repeated."""
    require_text(path)
    with open_text(path, newline="") as file:
        names = [line.strip() for line in file.read().rstrip().splitlines()]
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            what = f"repeats the name {name!r}" if name else "holds no name"
            raise InputError(f"{path}, line {number}: it {what}; give each id a name of its own")
    return names


# --- numbers ---


def read_numbers(columns: list[Column]) -> list[str]:
    """The numbers of each row as JSON: of one column the number alone, else an object with their names. One
    column may also hold such objects. A number must be finite as a float32."""
    if len(columns) == 1:
        objects = [from_json(value, "{") for value in columns[0].values]
        objects = [value if isinstance(value, dict) else None for value in objects]
        if not any(objects):
            return list(map(json.dumps, _floats(columns[0])))
        columns = _by_name(objects, columns[0])
    names = [column.name for column in columns]
    rows = zip(*map(_floats, columns), strict=True)
    return [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]


def _by_name(objects: list[dict | None], column: Column) -> list[Column]:
    """Rows of named numbers as columns."""
    way_out = "give every row the same numbers"
    said = "{value!r:.60} {here}, without names as in other rows,"
    column.refuse((not each for each in objects), said, way_out)
    keys = sorted(objects[0])
    found = replace(column, values=[", ".join(each) for each in objects])
    other = (sorted(each) != keys for each in objects)
    found.refuse(other, "numbers named {value} {here}, not {keys},", way_out, keys=", ".join(keys))
    return [replace(column, name=key, values=[each[key] for each in objects]) for key in keys]


def _floats(column: Column) -> list[float]:
    found = list(map(to_float, column.values))
    way_out = "correct or delete it, or choose other columns"
    infinite = (not abs(x) <= LARGEST for x in found)
    column.refuse(infinite, "{value!r:.60} {here}, not a finite number,", way_out)
    return found


def to_float(value: object) -> float:
    """NaN for what is not a number; True is not one either."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
