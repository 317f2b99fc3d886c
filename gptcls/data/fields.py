"""Rows of several texts, such as a premise and a hypothesis: each row is one string with a boundary between
its fields, so that all that works on texts works on rows, and whoever must know the fields can tell them.

The boundary is a character that Unicode keeps for what stays inside a program (a noncharacter, U+FDD0): no
text has a use for it, and in one that holds it all the same it becomes U+FFFD where the text comes in. It
stays in memory: what is shown has :data:`SIGN` in its place, what is written a column for each field.
"""

import re
from collections.abc import Callable, Iterable

from gptcls.common.lazy import pd
from gptcls.core.errors import InputError

BOUNDARY = "\ufdd0"
SIGN = "\N{DOUBLE VERTICAL LINE}"  # the boundary to a reader
COLUMN = re.compile(r"text_([2-9]|[1-9][0-9]+)")  # of a field after the first, in files of this package


def join_fields(fields: Iterable[str | None]) -> str | None:
    """One string of the fields of a row, a missing one empty; None where all of them are blank.

    >>> fields_of(join_fields(["A man sleeps.", "He is awake."]))
    ['A man sleeps.', 'He is awake.']
    """
    found = [without_boundary(field or "") for field in fields]
    return BOUNDARY.join(found) if any(field.strip() for field in found) else None


def fields_of(text: str) -> list[str]:
    """The fields of a row; of a text alone itself."""
    return text.split(BOUNDARY)


def n_fields(texts: Iterable[str]) -> int:
    """How many fields each row has; InputError where not all have as many."""
    found = {text.count(BOUNDARY) + 1 for text in texts}
    if len(found) > 1:
        raise InputError(f"rows have {' and '.join(map(str, sorted(found)))} texts; give each as many")
    return next(iter(found), 1)


def without_boundary(text: str) -> str:
    """A text that comes in, which no boundary may stand in."""
    return text.replace(BOUNDARY, "\N{REPLACEMENT CHARACTER}") if BOUNDARY in text else text


def in_lines(text: str) -> str:
    """The fields as one text, with line breaks between them, which no tokenizer takes for part of a word,
    without those that are blank.

    >>> in_lines(join_fields(["Title", None, "Body"]))
    'Title\\nBody'
    """
    if BOUNDARY not in text:
        return text
    return "\n".join(field for field in fields_of(text) if field.strip())


def on_one_line(text: str) -> str:
    """The fields with a sign between them, to be shown."""
    return text.replace(BOUNDARY, f" {SIGN} ")


def of_each_field(change: Callable[[str], str]) -> Callable[[str], str]:
    """A change of texts that leaves the boundaries where they are."""

    def changed(text: str) -> str:
        return BOUNDARY.join(map(change, fields_of(text)))

    return changed


def in_columns(frame: "pd.DataFrame", n: int | None = None) -> "pd.DataFrame":
    """A frame to be written: its column ``text`` as the columns text, text_2, … of the ``n`` fields, by
    default as many as its texts have; :func:`out_of_columns` undoes it."""
    counts = (text.count(BOUNDARY) + 1 for text in frame["text"] if isinstance(text, str))
    n = max(counts, default=1) if n is None else n
    if n == 1:
        return frame
    fields = [fields_of(text) if isinstance(text, str) else [None] * n for text in frame["text"]]
    frame, place = frame.assign(text=[row[0] for row in fields]), frame.columns.get_loc("text")
    for number, name in enumerate(column_names(n)[1:], 1):
        frame.insert(place + number, name, [row[number] for row in fields])
    return frame


def out_of_columns(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame that :func:`in_columns` was given, out of a file."""
    names = ["text", *filter(COLUMN.fullmatch, frame.columns)]
    if len(names) == 1 or "text" not in frame:
        return frame
    rows = zip(*(frame[name].fillna("") for name in names), strict=True)
    return frame.drop(columns=names[1:]).assign(text=[BOUNDARY.join(row) for row in rows])


def column_names(n: int) -> tuple[str, ...]:
    """The columns that rows of ``n`` fields have in files of this package.

    >>> column_names(3)
    ('text', 'text_2', 'text_3')
    """
    return ("text", *(f"text_{number}" for number in range(2, n + 1)))


def fields_named(columns: Iterable[str]) -> tuple[str, ...]:
    """The columns of :func:`in_columns` among these."""
    return ("text", *filter(COLUMN.fullmatch, columns))
