"""What is read of a text that has more tokens than the model takes at once.

Each way takes the token ids of such a text and the room for them, and gives rows of at most ``room`` ids:
those of the text alone, since what the tokenizer puts around a text is put around each of its rows, and the
room is what that leaves. Nothing marks a cut or the seam between two parts of a row.
"""

from typing import Literal

from gptcls.core.batches import Cut, head

Long = Literal["head", "tail", "head-tail", "windows"]


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
    return [ids[i * last // (n - 1) :][:room] for i in range(n)]


CUTS: dict[str, Cut] = {"head": head, "tail": tail, "head-tail": head_tail, "windows": windows}
LOST = {
    "head": "the rest was not read",
    "tail": "only their end was read",
    "head-tail": "their middle was not read",
    "windows": "they were read in overlapping windows",
}


def describe_cut(n: int, max_length: int, long: Long) -> str:
    """The line of the log about ``n`` texts of more than ``max_length`` tokens."""
    return f"{n:,} texts are longer than {max_length} tokens; {LOST[long]}"
