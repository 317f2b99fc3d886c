"""What is read of a text that has more tokens than the model takes at once.

Each way takes the token ids of such a text and the room for them, and gives rows of at most ``room`` ids.
The ids are those of the text alone: what the tokenizer puts around a text is put around each of its rows, and
the room is what that leaves. Nothing marks a cut or the seam between two parts of a row.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from gptcls.core.tokenizer import Tokenizer

Long = Literal["head", "tail", "head-tail", "windows"]
Cut = Callable[[list[int], int], list[list[int]]]


def head(ids: list[int], room: int) -> list[list[int]]:
    """The first ids."""
    return [ids[:room]]


def tail(ids: list[int], room: int) -> list[list[int]]:
    """The last ids."""
    return [ids[-room:]]


def head_tail(ids: list[int], room: int) -> list[list[int]]:
    """The first ids and the last, 128 to 382, the best of the ways in Sun et al. 2019, "How to Fine-Tune BERT
    for Text Classification", whose model read 510.

    >>> head_tail(list(range(9)), 4)
    [[0, 6, 7, 8]]
    """
    n_first = round(room * 128 / 510)
    return [ids[:n_first] + ids[n_first - room :]]


def windows(ids: list[int], room: int) -> list[list[int]]:
    """Windows of ``room`` ids, evenly spread from the first id to the last.

    As few as overlap their neighbours by a quarter of their length or more, so that what one window cuts
    apart another one holds whole.

    >>> windows(list(range(9)), 4)
    [[0, 1, 2, 3], [2, 3, 4, 5], [5, 6, 7, 8]]
    """
    last = len(ids) - room  # where the last window starts
    step = max(1, room - -(-room // 4))
    n = -(-last // step) + 1
    starts = [i * last // (n - 1) for i in range(n)]
    return [ids[start : start + room] for start in starts]


CUTS: dict[str, Cut] = {"head": head, "tail": tail, "head-tail": head_tail, "windows": windows}
LOST = {
    "head": "the rest was not read",
    "tail": "only their end was read",
    "head-tail": "their middle was not read",
    "windows": "they were read in overlapping windows",
}


def cut_rows(
    texts: Sequence[list[int]], max_length: int, long: Long, tokenizer: Tokenizer
) -> tuple[list[list[int]], list[int]]:
    """The rows that are read of texts, given as token ids, and for each row the number of its text.

    What the tokenizer puts before and behind a text stands around each of its rows.
    """
    before, behind = tokenizer.prefix, tokenizer.suffix
    room = max_length - len(before) - len(behind)

    def rows_of(ids: list[int]) -> list[list[int]]:
        if len(ids) <= max_length:
            return [ids]
        if room < 1:
            return [tokenizer.cut(ids, max_length)]
        text = ids[len(before) : len(ids) - len(behind)]
        return [[*before, *part, *behind] for part in CUTS[long](text, room)]

    parts = [rows_of(ids) for ids in texts]
    rows = [row for part in parts for row in part]
    return rows, [text for text, part in enumerate(parts) for _ in part]


def describe_cut(n: int, max_length: int, long: Long) -> str:
    """The line of the log about ``n`` texts of more than ``max_length`` tokens."""
    return f"{n:,} texts are longer than {max_length} tokens; {LOST[long]}"
