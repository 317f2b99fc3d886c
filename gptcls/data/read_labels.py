"""Label columns that hold more than one class's name: lists, 0 and 1, ids, numbers."""

import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from gptcls.data.columns import NO_LABEL, bad_rows
from gptcls.data.files import open_text, require_file, require_utf8
from gptcls.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("gptcls")
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
