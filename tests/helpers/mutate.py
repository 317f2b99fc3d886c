"""Valid files made invalid: bytes and JSON values with something changed, the same for the same seed."""

import copy
import json
import random
from typing import Any

STRANGE = (
    None, True, "", "x", "\0", "\ud800", "../x", "a" * 1000, [], {}, [None], {"": {}}, [[[[]]]],
    0, -1, 1, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"),
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, a piece cut out, doubled or put elsewhere, or the end lost."""
    changed = bytearray(data)
    at, size = rng.randrange(len(data)), rng.randint(1, 64)
    piece = changed[at : at + size]
    match rng.randrange(6):
        case 0 | 1:
            for _ in range(rng.randint(1, 8)):
                changed[rng.randrange(len(changed))] = rng.choice((rng.randrange(256), 0, 255, 127, 128))
        case 2:
            del changed[at : at + size]
        case 3:
            changed[at:at] = piece
        case 4:
            elsewhere = rng.randrange(len(data))
            changed[elsewhere : elsewhere + len(piece)] = piece
        case 5:
            del changed[at:]
    return bytes(changed)


def mutated_json(value: Any, rng: random.Random) -> str:
    """One to three places of a JSON value with something strange in them, or gone; else its bytes mutated."""
    if rng.random() < 0.2:
        return mutated(json.dumps(value).encode(), rng).decode("utf-8", "replace")
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        if not places:
            break
        holder, key = rng.choice(places)
        if rng.random() < 0.15:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(STRANGE))
    text = json.dumps(value)
    return "[" * 200_000 if rng.random() < 0.01 else text


def _places(value: Any) -> Any:
    """Each holder (a list or an object) and key or index inside a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])
