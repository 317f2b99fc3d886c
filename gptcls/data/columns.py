"""Which column is the text and which the label, and whether their values are usable."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.fields import BOUNDARY, join_fields, without_boundary
from gptcls.data.readers import UNNAMED, refuse_repeats

TEXT_NAMES = {
    "text", "texts", "message", "messages", "sms", "content", "review", "reviews", "sentence", "comment",
    "tweet", "body", "document", "question", "utterance", "post", "description",
}  # fmt: skip
LABEL_NAMES = {"label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "y"}
NO_LABEL = {"", "nan", "NaN", "<NA>"}  # what a missing label becomes in a saved table; "NA" may be a class
FREE_TEXT = 15  # characters: labels are mostly shorter, messages mostly longer


def find_text_columns(
    columns: Sequence[str], text_column: str | Sequence[str] | None = None, sample=None,
    source: object = "the data", trained_on: Sequence[str] = (),
) -> tuple[str, ...]:  # fmt: skip
    """:func:`find_columns` of a table without labels: the text columns alone. Those that a classifier was
    ``trained_on`` come before a guess; of several, all must be there (InputError)."""
    text_column = known_columns(columns, text_column, trained_on)
    return find_columns(columns, text_column, None, sample, source, None)[0]


def known_columns(
    columns: Sequence[str], asked: str | Sequence[str] | None, trained_on: Sequence[str]
) -> str | Sequence[str] | None:
    """What was asked for, else what a classifier was trained on: several columns in any case, one if it is
    there."""
    return asked or (trained_on if len(trained_on) > 1 or {*trained_on} <= {*columns} else None)


def find_columns(
    columns: Sequence[str], text_column: str | Sequence[str] | None = None, label_column: str | None = None,
    sample=None, source: object = "the data", label_option: str | None = "--label-column",
) -> tuple[tuple[str, ...], str | None]:  # fmt: skip
    """The text columns, one where it is guessed, and, unless ``label_option`` is None, the label column: as
    given, else guessed, and logged where a guess is not "text" or "label". InputError where none can be told.

    A guess is made only where it is unambiguous: exactly one column has a usual name (``TEXT_NAMES``, in any
    case), or there are exactly two columns, their header cells look like names, and by the values in
    ``sample`` (the first rows) one holds free text and the other does not. The other is the label if its
    values repeat.
    """
    columns = list(columns)
    texts = (text_column,) if isinstance(text_column, str) else tuple(text_column or ())
    refuse_repeats(texts, option="--text-column")
    for name in texts:
        require_column(columns, name, "--text-column", source)
    require_column(columns, label_column, "--label-column", source)
    if label_column in texts:
        raise InputError(f"{source}: column {label_column!r} cannot be both --text-column and --label-column")
    pair = _pair(columns, sample)
    free = [name for name, values in pair.items() if _is_free_text(values)]
    given_text = texts[0] if texts else None
    text = given_text or _guess(columns, TEXT_NAMES, label_column, free)
    asked = [("text", "--text-column", given_text, text)]
    if label_option is not None:
        classes = [name for name in pair if text in pair and name != text and _repeats(pair[name])]
        others = [name for name in columns if name not in texts]
        label = label_column or _guess(others, LABEL_NAMES, text, classes)
        asked.append(("label", label_option, label_column, label))
    if unknown := [(f"the {what}", option) for what, option, _, found in asked if found is None]:
        what, options = zip(*unknown, strict=True)
        raise _cannot_tell(columns, " and which ".join(what), " and ".join(options), source)
    if any(given is None and found != what for what, _, given, found in asked):
        said = ", ".join(f"{what} column {found!r}" for what, _, _, found in asked)
        options = "/".join(f"--{what}-column" for what, *_ in asked)
        log.info(f"{source}: {said} (guessed; set {options})")
    if not texts and f"{text}_2" in columns:
        both = f"--text-column {text} {text}_2"
        log.info(f"{source}: {text!r} alone is read; for both texts of a row set {both}")
    return texts or (text,), None if label_option is None else label


def require_column(columns: list[str], wanted: str | None, option: str, source: object) -> None:
    """Raise InputError, with the nearest name, for a wanted column that is not there."""
    if wanted is None or wanted in columns:
        return
    lower = {name.strip().lower(): name for name in columns}
    near = difflib.get_close_matches(wanted.strip().lower(), lower, n=1)
    hint = f"; did you mean {lower[near[0]]!r}?" if near else ""
    raise InputError(f"{source}: {option} names {wanted!r}, but the columns are {_listed(columns)}{hint}")


# --- guesses ---


def _guess(columns: list[str], usual: set[str], besides: str | None, by_values: list[str]) -> str | None:
    """The only column with a usual name; where there is none, the only one that the values speak for."""
    named = [name for name in _named(columns) if name != besides and name.strip().lower() in usual]
    found = named or by_values
    return found[0] if len(found) == 1 and found[0] != besides else None


def _named(columns: list[str]) -> list[str]:
    """Without the nameless: row numbers in front, the empty columns that spreadsheets leave behind."""
    return [name for name in columns if not name.startswith(UNNAMED)]


def _pair(columns: list[str], sample) -> dict[str, list]:
    """Both columns' values in a two-column table whose header is not a row of data; else nothing."""
    if sample is None or len(named := _named(columns)) != 2:
        return {}
    pair = {name: values_of(sample, name) for name in named}
    return {} if any(map(_is_data, pair, pair.values())) else pair


def _is_data(name: str, values: list) -> bool:
    number = re.fullmatch(r"[-+\d.,]+", name.strip())
    return bool(number) or len(name) > 30 or len(name.split()) > 3 or name in values


def _is_free_text(values: list) -> bool:
    texts = [value for value in values if isinstance(value, str)]
    return bool(texts) and sum(map(len, texts)) >= FREE_TEXT * len(texts) and not _repeats(texts)


def _repeats(values: list) -> bool:
    return 2 * len(set(map(str, values))) <= len(values)


def _cannot_tell(columns: list[str], what: str, options: str, source: object) -> InputError:
    hint = f"name it with {options}"
    if len(columns) == 1 and ("," in columns[0] or "\t" in columns[0]):
        mark = "a comma (.csv)" if "," in columns[0] else "a tab (.tsv)"
        hint = f"the fields seem to be separated by {mark}"
    elif any(_is_data(name, []) for name in columns):
        hint += "; if the first line is data, put a header above it or name the columns with --columns"
    return InputError(f"{source}: cannot tell which column is {what} among {_listed(columns)}; {hint}")


def _listed(columns: list[str], most: int = 12) -> str:
    short = [repr(name if len(name) <= 30 else name[:29] + "…") for name in columns[:most]]
    return ", ".join(short) + (f" and {len(columns) - most} more" if len(columns) > most else "")


# --- values ---


def values_of(frame: "pd.DataFrame", column: str) -> list:
    """One column as Python values, None where a value (or, in JSON lines, the whole column) is missing."""
    if column not in frame.columns:
        return [None] * len(frame)
    values = frame[column]
    return [None if missing else value for missing, value in zip(values.isna(), values.tolist(), strict=True)]


@dataclass(frozen=True)
class Column:
    """A column's values, the index of its rows (what it counts is its name), and where they come from."""

    name: str
    values: list
    rows: "pd.Index"
    source: object

    def refuse(self, wrong: Iterable[object], what: str, way_out: str, **more: object) -> None:
        """InputError for ``wrong`` rows; ``what`` may hold {value}, the first such, {here}, and ``more``."""
        if bad := [i for i, each in enumerate(wrong) if each]:
            said = what.format(value=self.values[bad[0]], here=f"in column {self.name!r}", **more)
            raise bad_rows(self.rows[bad], self.rows.name, said, self.source, way_out)


def column_of(frame: "pd.DataFrame", name: str, source: object) -> Column:
    return Column(name, values_of(frame, name), frame.index, source)


def columns_of(frame: "pd.DataFrame", names: Iterable[str], source: object) -> list[Column]:
    return [column_of(frame, name, source) for name in names]


def text_values(columns: Sequence[Column]) -> list[str | None]:
    """The texts of the rows: the values of a column, unchanged; of several, rows of that many fields
    (:mod:`gptcls.data.fields`). None where there is nothing to read. InputError for a value that is not text,
    or has a NUL character."""
    parts = list(map(_text_values, columns))
    return parts[0] if len(parts) == 1 else list(map(join_fields, zip(*parts, strict=True)))


def is_blank(text: str | None) -> bool:
    """Whether there is nothing to read: a missing value, no characters, or white space alone. Everywhere such
    a text gets no answer, and a row with it is neither trained nor evaluated on."""
    return text is None or not text.replace(BOUNDARY, "").strip()


def _text_values(column: Column) -> list[str | None]:
    values = column.values
    other = (value is not None and not isinstance(value, str) for value in values)
    said = "a value of type {value.__class__.__name__} {here}, not text"
    column.refuse(other, said, "choose another --text-column")
    column.refuse((value and "\0" in value for value in values), "a NUL character {here}", "remove it")
    return [None if is_blank(value) else without_boundary(value) for value in values]


def label_values(column: Column) -> list[str]:
    """The values of a label column as strings: 1 -> "1", True -> "True", 1.0 -> "1" if all are whole numbers
    or some are written as 1. What is the same to a reader is one class: of 1, 1.0 and "1" in one column this
    is logged, as is the removal of spaces around labels. InputError naming rows without a label, and where
    true or false stands next to labels of other types."""
    way_out = "give one label per row, or add --task multi for lists"
    column.refuse((isinstance(v, list | dict) for v in column.values), "a list or object {here}", way_out)
    _refuse_truth_values_among_others(column)
    names = ["" if value is None else _name(value) for value in column.values]
    labels = [name.strip() for name in names]
    column.refuse((label in NO_LABEL for label in labels), "missing label {here}", "fill or delete the rows")
    if spaces := sum(label != name for label, name in zip(labels, names, strict=True)):
        log.info("%s: removed spaces around %d labels", column.source, spaces)
    found = set(labels)
    whole = {label for label in found if re.fullmatch(r"-?\d+(\.0)?", label)}
    short = {x: x.removesuffix(".0") for x in whole if whole == found or x.removesuffix(".0") in found}
    joined = [short.get(label, label) for label in labels]
    _log_joined(column, labels, joined)
    return joined


def _refuse_truth_values_among_others(column: Column) -> None:
    """Whether true is meant as 1, as "true" or as a class of its own, nobody but the user can say."""
    kinds = [isinstance(value, bool) for value in column.values if value is not None]
    if not any(kinds) or all(kinds):
        return
    other = next(value for value in column.values if value is not None and not isinstance(value, bool))
    said = "the truth value {value} beside labels such as {other!r:.40} {here}"
    wrong = (isinstance(value, bool) for value in column.values)
    column.refuse(wrong, said, "write all of them as one type", other=other)


def _name(value: object) -> str:
    """A float without a fraction in digits alone: 1e16 is the number that 10000000000000000 is."""
    whole = isinstance(value, float) and value.is_integer()
    return f"{value:.1f}" if whole else str(value)


def _log_joined(column: Column, written: list[str], joined: list[str]) -> None:
    """Log where one class stands in a column in several ways: as 1 and "1", as "1" and "1.0"."""
    ways: dict[str, set[str]] = {}
    are_text = (isinstance(value, str) for value in column.values)
    for is_text, name, label in set(zip(are_text, written, joined, strict=True)):
        ways.setdefault(label, set()).add(f'"{name}"' if is_text else name)
    if several := [sorted(shown) for shown in ways.values() if len(shown) > 1]:
        more = f"; likewise {len(several) - 1} others" if several[1:] else ""
        ways_of_one = " and ".join(min(several))
        log.info("%s: %s in column %r are one class%s", column.source, ways_of_one, column.name, more)


def bad_rows(numbers: Sequence[int], row: str, what: str, source: object, way_out: str) -> InputError:
    return InputError(f"{source}: {what} in {these_rows(numbers, row)}; {way_out}")


def these_rows(numbers: Sequence[int], row: str) -> str:
    """``row`` is what the numbers count: "line 2" or "4 rows (lines 3, 4, 6, …)"."""
    listed = ", ".join(map(str, numbers[:3])) + (", …" if len(numbers) > 3 else "")
    return f"{len(numbers)} rows ({row}s {listed})" if len(numbers) > 1 else f"{row} {listed}"
