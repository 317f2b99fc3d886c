"""What is read of a text that has more tokens than the model takes at once.

Each way takes the token ids of such a text and the room for them, and gives rows of at most ``room`` ids:
those of the text alone, since what the tokenizer puts around a text is put around each of its rows, and the
room is what that leaves. Nothing marks a cut or the seam between two parts of a row.

Of a row of several texts (:mod:`gptcls.data.fields`) each keeps its place: they share the room, the longest
is cut first, and what is read of one is found as of a text alone.
"""

from collections.abc import Sequence
from typing import Any, Literal

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


def cut_of(long: Long, tokenizer: Any) -> Cut:
    """The way of that name for what this tokenizer gives: of rows of several texts their fields are cut."""
    between = getattr(tokenizer, "between", ())
    if not between:
        return CUTS[long]

    def of_rows(ids: list[int], room: int) -> list[list[int]]:
        return [[ids[place] for place in row] for row in fields_read(ids, room, long, between)]

    return of_rows


def fields_read(ids: Sequence[int], room: int, long: Long, between: Sequence[int] = ()) -> list[list[int]]:
    """Which ids are read, by their places, where fields with the ids ``between`` them are too long: rows of
    at most ``room``. The rows of a field in windows stand beside those of another, spread over as many.

    >>> fields_read([7, 7, 7, 7, 7, 0, 8, 8], 5, "tail", [0])
    [[3, 4, 5, 6, 7]]
    """
    if not between:
        return CUTS[long](list(range(len(ids))), room)
    fields, seams = _fields(ids, between)
    left = room - len(between) * len(seams)
    if left < 0:
        return [head(list(range(len(ids))), room)]
    rooms = shares(list(map(len, fields)), left)
    parts = [
        [field] if len(field) <= own else CUTS[long](field, own) if own else [[]]
        for field, own in zip(fields, rooms, strict=True)
    ]
    rows, n = [], max(map(len, parts))
    for number in range(n):
        each = [part[number * (len(part) - 1) // max(1, n - 1)] for part in parts]
        row = list(each[0])
        for seam, field in zip(seams, each[1:], strict=True):
            row += [*seam, *field]
        rows.append(row)
    return rows


def shares(lengths: Sequence[int], room: int) -> list[int]:
    """How many ids of each field are read: the longest loses the most. Of two fields as
    ``longest_first`` of the tokenizers library has it, where one id too many for halves goes to the longer.

    >>> shares([9, 2], 8), shares([9, 8], 9), shares([2, 3], 9)
    ([6, 2], [5, 4], [2, 3])
    """
    found, left = [0] * len(lengths), room
    order = sorted(range(len(lengths)), key=lambda field: (lengths[field], field))
    for rank, field in enumerate(order):  # the shortest first: what it leaves is for the others
        found[field] = min(lengths[field], left // (len(order) - rank))
        left -= found[field]
    return found


def _fields(ids: Sequence[int], between: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """The places of the ids of each field, and those between each two."""
    fields, seams, place, wanted = [[]], [], 0, list(between)
    while place < len(ids):
        if list(ids[place : place + len(wanted)]) == wanted:
            seams.append(list(range(place, place + len(wanted))))
            fields.append([])
            place += len(wanted)
        else:
            fields[-1].append(place)
            place += 1
    return fields, seams


LOST = {
    "head": "the rest was not read",
    "tail": "only their end was read",
    "head-tail": "their middle was not read",
    "windows": "they were read in overlapping windows",
}


def describe_cut(n: int, max_length: int, long: Long) -> str:
    """The line of the log about ``n`` texts of more than ``max_length`` tokens."""
    return f"{n:,} texts are longer than {max_length} tokens; {LOST[long]}"
