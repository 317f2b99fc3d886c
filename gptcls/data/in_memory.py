"""Texts and labels as people have them in Python: a text, a list, a Series, an array, a DataFrame."""

import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from gptcls.common.lazy import pd
from gptcls.core.errors import InputError
from gptcls.data.columns import columns_of, find_text_columns, text_values
from gptcls.data.sources import FRAME, SAMPLE, require_names

LISTS = "a list, a Series, a one-dimensional array or a DataFrame"


def texts_of(
    given: Any, text_column: str | Sequence[str] | None = None, trained_on: Sequence[str] = ()
) -> list[str | None]:
    """The texts that ``given`` holds, unchanged, None for a missing value (None, NaN, NA).

    A string is one text. Of a DataFrame they stand in ``text_column``, else in the columns that a classifier
    was ``trained_on``, else where :func:`gptcls.data.columns.find_columns` guesses; several are joined. Else
    a list, tuple, Series, Index, one-dimensional array or iterator of strings. TypeError says what it is
    instead, or which row is not text.

    >>> texts_of("see you"), texts_of(["see you", None])
    (['see you'], ['see you', None])
    """
    if isinstance(given, str):
        return [given]
    if is_frame(given):
        require_names(given)
        names = find_text_columns(given.columns, text_column, given[:SAMPLE], FRAME, trained_on)
        rows = given.set_axis(given.index.to_flat_index().rename("row"))
        return text_values(columns_of(rows, names, FRAME))
    if text_column:
        raise TypeError(f"text_column is for a DataFrame, and this is {_kind(given)}; leave it out")
    texts = _list(given, f"expected a text, {LISTS} of texts")
    for row, text in enumerate(texts):
        if not isinstance(text, str) and text is not None:
            raise TypeError(f"row {row}: expected text, got {type(text).__name__}: {text!r:.60}")
    return texts


def labelled_rows(
    given: Any, labels: Any = None, text_column: str | Sequence[str] | None = None
) -> "pd.DataFrame":
    """Rows with labels as one frame: a DataFrame as it is or, with ``labels``, the texts of :func:`texts_of`
    and their labels in the same order, in the columns text and label. TypeError for what is neither,
    InputError where the numbers of texts and labels differ."""
    if labels is None:
        if is_frame(given):
            return given
        raise TypeError(f"expected a DataFrame with labels, or texts and labels=, got {_kind(given)}")
    if isinstance(given, str):
        raise TypeError(f"labels= goes with texts: {LISTS} of them, not a single string")
    texts, labels = texts_of(given, text_column), _list(labels, "labels= are a list, a Series or an array")
    if len(texts) != len(labels):
        raise InputError(f"{len(texts)} texts have {len(labels)} labels; give each text one")
    index = given.index if isinstance(given, pd.Series | pd.DataFrame) else None
    return pd.DataFrame({"text": texts, "label": labels}, index, dtype=object)


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
