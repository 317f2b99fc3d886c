"""Texts and labels as people have them in Python: a text, a list, a Series, an array, a DataFrame."""

import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from gptcls.common.lazy import pd
from gptcls.core.errors import InputError
from gptcls.data.columns import columns_of, find_text_columns, text_values
from gptcls.data.fields import in_columns, join_fields, without_boundary
from gptcls.data.sources import FRAME, SAMPLE, require_names

LISTS = "a list, a Series, a one-dimensional array or a DataFrame"


def texts_of(
    given: Any, text_column: str | Sequence[str] | None = None, trained_on: Sequence[str] = (),
    n_fields: int | None = 1,
) -> list[str | None]:  # fmt: skip
    """The texts that ``given`` holds, unchanged, None for a missing value (None, NaN, NA).

    A string is one text. Of a DataFrame they stand in ``text_column``, else in the columns that a classifier
    was ``trained_on``, else where :func:`gptcls.data.columns.find_columns` guesses; several are the fields of
    a row (:mod:`gptcls.data.fields`). Else a list, tuple, Series, Index, one-dimensional array or iterator of
    strings, or of tuples or lists of ``n_fields`` strings each, None: any number. TypeError says what it is
    instead, or which row is not text.

    >>> texts_of("see you"), texts_of(["see you", None])
    (['see you'], ['see you', None])
    """
    if isinstance(given, str):
        return [without_boundary(given)]
    if is_frame(given):
        require_names(given)
        names = find_text_columns(given.columns, text_column, given[:SAMPLE], FRAME, trained_on)
        rows = given.set_axis(given.index.to_flat_index().rename("row"))
        return text_values(columns_of(rows, names, FRAME))
    if text_column:
        raise TypeError(f"text_column is for a DataFrame, and this is {_kind(given)}; leave it out")
    texts = _list(given, f"expected a text, {LISTS} of texts")
    if n_fields is None:  # as many as the first row has
        first = next((text for text in texts if text is not None), "")
        n_fields = len(first) if isinstance(first, list | tuple) else 1
    if n_fields > 1:
        return [None if text is None else _row(number, text, n_fields) for number, text in enumerate(texts)]
    for row, text in enumerate(texts):
        if not isinstance(text, str) and text is not None:
            raise TypeError(f"row {row}: expected text, got {type(text).__name__}: {text!r:.60}")
    return [text and without_boundary(text) for text in texts]


def _row(number: int, given: Any, n_fields: int) -> str | None:
    """The fields of a row as one string."""
    if not isinstance(given, list | tuple) or len(given) != n_fields:
        said = f"row {number}: expected {n_fields} texts in a tuple"
        raise TypeError(f"{said}, got {type(given).__name__}: {given!r:.60}")
    fields = _list(given, f"row {number}: expected texts")
    for field in fields:
        if not isinstance(field, str | None):
            raise TypeError(f"row {number}: expected text, got {type(field).__name__}: {field!r:.60}")
    return join_fields(fields)


def labelled_rows(
    given: Any, labels: Any = None, text_column: str | Sequence[str] | None = None
) -> "pd.DataFrame":
    """Rows with labels as one frame: a DataFrame as it is or, with ``labels``, the texts of :func:`texts_of`
    and their labels in the same order, in the columns text (of rows of several texts also text_2, …) and
    label. TypeError for what is neither, InputError where the numbers of texts and labels differ."""
    if labels is None:
        if is_frame(given):
            return given
        raise TypeError(f"expected a DataFrame with labels, or texts and labels=, got {_kind(given)}")
    if isinstance(given, str):
        raise TypeError(f"labels= goes with texts: {LISTS} of them, not a single string")
    texts = texts_of(given, text_column, n_fields=None)
    labels = _list(labels, "labels= are a list, a Series or an array")
    if len(texts) != len(labels):
        raise InputError(f"{len(texts)} texts have {len(labels)} labels; give each text one")
    index = given.index if isinstance(given, pd.Series | pd.DataFrame) else None
    return in_columns(pd.DataFrame({"text": texts, "label": labels}, index, dtype=object))


def is_frame(given: Any) -> bool:
    """Whether it is a DataFrame; pandas is not imported to find out."""
    return "pandas" in sys.modules and isinstance(given, pd.DataFrame)


def _list(given: Any, expected: str) -> list:
    """Python values, None where one is missing; TypeError, which begins with ``expected``, for what has no
    order or more than one dimension."""
    refused = str | bytes | bytearray | Mapping | Set
    if isinstance(given, refused) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) != 1:
        raise TypeError(f"{expected}, got {_kind(given)}")
    values = given.tolist() if hasattr(given, "tolist") else list(given)
    if all(isinstance(value, str) for value in values):
        return values
    missing = pd.Series(values, dtype=object).isna()
    return [None if is_missing else value for is_missing, value in zip(missing, values, strict=True)]


def _kind(given: Any) -> str:
    dimensions = getattr(given, "ndim", 1)
    return f"{type(given).__name__}{f' of {dimensions} dimensions' if dimensions != 1 else ''}"
