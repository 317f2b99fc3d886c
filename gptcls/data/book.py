"""The data of chapter 6 of the book, row for row (Raschka, "Build a Large Language Model From Scratch").

The book's numbers depend on its way of reading: pandas takes quotes as quoting and so swallows two of the
5,574 messages, repeated messages stay, and the split comes from this seed. 37 of its 300 test messages also
stand in train, to the letter; for results that generalise, use :mod:`gptcls.data.split`.
"""

from collections.abc import Sequence
from pathlib import Path

from gptcls.common.lazy import pd
from gptcls.core.errors import InputError
from gptcls.data.readers import UCI, format_of
from gptcls.data.sources import load_data, local_file
from gptcls.data.split import Split

SEED = 123
TRAIN, VALIDATION = 0.7, 0.1  # the rest is test


def read_as_book(path: str | Path) -> "pd.DataFrame":
    """UCI's file as the book reads it: 5,572 rows, columns ``text`` and ``label`` ("ham" or "spam")."""
    return pd.read_csv(path, sep="\t", names=["label", "text"], encoding="utf-8")[["text", "label"]]


def balance_as_book(frame: "pd.DataFrame", seed: int = SEED) -> "pd.DataFrame":
    """As many ham as spam: a random draw of ham, then all spam. The index stays, as in the book."""
    ham, spam = frame[frame.label == "ham"], frame[frame.label == "spam"]
    if not 0 < len(spam) <= len(ham):
        found = f"found {len(spam)} spam and {len(ham)} ham rows"
        raise InputError(f"the book's recipe needs spam and at least as much ham, but {found}")
    return pd.concat([ham.sample(len(spam), random_state=seed), spam])


def split_as_book(frame: "pd.DataFrame", seed: int = SEED) -> Split:
    """Shuffle, then cut at 70 and 80 percent."""
    frame = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    train_end = int(len(frame) * TRAIN)
    validation_end = train_end + int(len(frame) * VALIDATION)
    parts = frame[:train_end], frame[train_end:validation_end], frame[validation_end:]
    return Split(*(part.reset_index(drop=True) for part in parts))


def book_split(
    data, text_column: str | Sequence[str] | None = None, label_column: str | None = None, *,
    balanced: bool = True, seed=SEED,
) -> Split:  # fmt: skip
    """The book's split of UCI's file, or of any data with the labels ham and spam, such as "sms-sample".
    Another seed, or leaving the classes unbalanced, departs from the book. InputError for other labels."""
    with local_file(data) as path:
        uci = format_of(path) is UCI
        frame = read_as_book(path) if uci else load_data(path, text_column, label_column)
    if other := sorted(set(frame.label) - {"ham", "spam"}):
        said = "but the book's recipe reads the SMS Spam Collection's, ham and spam"
        raise InputError(f"{data}: label {other[0]!r}, {said}; leave out --recipe book")
    return split_as_book(balance_as_book(frame, seed) if balanced else frame, seed)
