"""Columns that hold more than the name of one class: lists of labels, flags of 0 and 1, ids, numbers.

Every function takes the values of a column (or of several, by name), the index of its rows and the name of
their source, and raises InputError naming the rows whose value cannot be meant.
"""

import json
import logging
import math
from pathlib import Path

from gptcls.common.lazy import pd
from gptcls.core.errors import InputError
from gptcls.data.columns import NO_LABEL, bad_rows
from gptcls.data.encodings import open_text, require_file, require_text

log = logging.getLogger("gptcls")
FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
LARGEST = 3e38  # beyond it a float32 is infinite


# --- several labels ---


def read_lists(
    values: list, rows: "pd.Index", column: str, source: object, separator: str | None
) -> list[list[str]]:
    """The label names of each row, in any order.

    A value is a list (of a .jsonl or Parquet file), a JSON array written as a string, or a string in which
    ``separator`` stands between the names; without a separator a string is one name. An empty value is a row
    with none of the labels, and the log says how many there are. Malformed are missing values, too, and lists
    in some rows next to plain strings in others.
    """
    where = f"in column {column!r}"
    found = [_names(value, separator) for value in values]
    if bad := [i for i, names in enumerate(found) if names is None]:
        what = f"malformed list of labels {values[bad[0]]!r:.60} {where}"
        way_out = 'give names or ids: ["a", "b"], or "a,b" with --label-separator ","'
        raise bad_rows(rows[bad], rows.name, what, source, way_out)
    if bad := [i for i, names in enumerate(found) if NO_LABEL & set(names)]:
        way_out = "delete these rows, or write [] where a text has none of the labels"
        raise bad_rows(rows[bad], rows.name, f"missing label {where}", source, way_out)
    plain = [i for i, value in enumerate(values) if value != "" and not _is_list(value)]
    if plain and any(map(_is_list, values)):
        what = f"a plain value, {values[plain[0]]!r:.60}, among lists {where}"
        raise bad_rows(rows[plain], rows.name, what, source, "write all of them as lists")
    _log_empty(found, source)
    return found


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


def read_flags(columns: dict[str, list], rows: "pd.Index", source: object) -> list[list[str]]:
    """The names of the columns that hold 1 (or true) in each row, not 0."""
    found: list[list[str]] = [[] for _ in rows]
    for name, values in columns.items():
        flags = [FLAGS.get(str(value).strip().lower()) for value in values]
        if bad := [i for i, flag in enumerate(flags) if flag is None]:
            what = f"{values[bad[0]]!r:.60} in column {name!r}, neither 0 nor 1,"
            raise bad_rows(rows[bad], rows.name, what, source, "correct it, or leave the column out")
        for names, flag in zip(found, flags, strict=True):
            if flag:
                names.append(name)
    _log_empty(found, source)
    return found


def _log_empty(lists: list[list[str]], source: object) -> None:
    if empty := sum(not names for names in lists):
        log.info("%s: %d rows have none of the labels", source, empty)


# --- ids ---


def to_names(
    lists: list[list[str]], rows: "pd.Index", column: str, source: object, path: Path
) -> list[list[str]]:
    """Ids as the names in the lines of ``path``, counted from 0; every id needs a line."""
    names = read_names(path)
    known = {str(number): name for number, name in enumerate(names)}
    if bad := [i for i, ids in enumerate(lists) if not known.keys() >= set(ids)]:
        label = next(each for each in lists[bad[0]] if each not in known)
        what = f"label {label!r} in column {column!r}, which is not an id from 0 to {len(names) - 1},"
        raise bad_rows(rows[bad], rows.name, what, source, f"{path} names {len(names)} labels")
    return [[known[each] for each in ids] for ids in lists]


def read_names(path: Path) -> list[str]:
    """The lines of a file with one label's name per line; InputError for one that is missing or repeated."""
    require_file(path)
    require_text(path)
    with open_text(path, newline="") as file:
        names = [line.strip() for line in file.read().splitlines()]
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            what = f"repeats the name {name!r}" if name else "holds no name"
            raise InputError(f"{path}, line {number}: it {what}; give each id a name of its own")
    return names


# --- numbers ---


def read_numbers(columns: dict[str, list], rows: "pd.Index", source: object) -> list[str]:
    """The numbers of each row as JSON: of one column the number alone, else an object with their names.

    One column may also hold such objects. A number must be finite as a float32.
    """
    if len(columns) == 1:
        ((name, values),) = columns.items()
        objects = [_object(value) for value in values]
        if not any(objects):
            return [json.dumps(value) for value in _floats(name, values, rows, source)]
        columns = _by_name(objects, values, rows, name, source)
    found = {name: _floats(name, values, rows, source) for name, values in columns.items()}
    return [
        json.dumps(dict(zip(found, row, strict=True)), ensure_ascii=False)
        for row in zip(*found.values(), strict=True)
    ]


def _by_name(
    objects: list[dict | None], values: list, rows: "pd.Index", column: str, source: object
) -> dict[str, list]:
    """Rows of named numbers as columns."""
    way_out = "give every row the same numbers"
    if bad := [i for i, each in enumerate(objects) if not each]:
        what = f"{values[bad[0]]!r:.60} in column {column!r}, without names as in other rows,"
        raise bad_rows(rows[bad], rows.name, what, source, way_out)
    keys = sorted(objects[0])
    if bad := [i for i, each in enumerate(objects) if sorted(each) != keys]:
        what = f"numbers named {', '.join(objects[bad[0]])} in column {column!r}, not {', '.join(keys)},"
        raise bad_rows(rows[bad], rows.name, what, source, way_out)
    return {key: [each[key] for each in objects] for key in keys}


def _object(value: object) -> dict | None:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def _floats(column: str, values: list, rows: "pd.Index", source: object) -> list[float]:
    found = [_float(value) for value in values]
    if bad := [i for i, x in enumerate(found) if not abs(x) <= LARGEST]:
        what = f"{values[bad[0]]!r:.60} in column {column!r}, not a finite number,"
        raise bad_rows(rows[bad], rows.name, what, source, "correct or delete it, or choose other columns")
    return found


def _float(value: object) -> float:
    """NaN for what is not a number; True is not one either."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
