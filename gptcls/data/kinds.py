"""The labels of a row: one class, several, or numbers; how each is compared and split.

In a frame a label is always a string, so that a split is a plain file that a person can read:

- one class: its name, ``spam``;
- several: a JSON array of their names in sorted order, ``["anger", "joy"]``; none of them: ``[]``;
- a number: ``3.5``; several numbers: a JSON object, ``{"arousal": 1.0, "valence": 3.5}``.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

STRATA = 10  # parts of equal size that numbers are cut into


@dataclass(frozen=True)
class LabelKind:
    """What reading and splitting must know about the labels of a task."""

    task: str  # as in --task
    names: Callable[[str], list[str]]  # the classes (or the names of the numbers) in a label
    strata: Callable[[Sequence[str]], list[str]]  # groups to draw from in proportion
    every_class: bool  # whether each part must hold every class
    differ: str = "labels"  # of which a text has several, where its rows contradict each other
    merge: Callable[[Sequence[str]], str] | None = None  # settles such rows; without it they are dropped


def rarest_labels(labels: Sequence[str]) -> list[str]:
    """For each label list its name that is the rarest over all rows; "" for an empty list.

    Drawn in proportion to these, rare names are spread over the parts; common ones follow by their number.
    """
    lists = [json.loads(label) for label in labels]
    counts = Counter(chain.from_iterable(lists))
    return [min(names, key=lambda name: (counts[name], name), default="") for names in lists]


def number_strata(labels: Sequence[str]) -> list[str]:
    """Up to :data:`STRATA` groups of equal size, from the lowest to the highest first number of each row."""
    values = [next(iter(numbers(label).values())) for label in labels]
    count = max(1, min(STRATA, len(values) // STRATA))
    order = sorted(range(len(values)), key=values.__getitem__)
    groups = [""] * len(values)
    for rank, row in enumerate(order):
        groups[row] = str(rank * count // len(values))
    return groups


def numbers(label: str) -> dict[str, float]:
    """The numbers of a label by name; a lone number is called "label"."""
    value = json.loads(label)
    return value if isinstance(value, dict) else {"label": value}


def mean_numbers(labels: Sequence[str]) -> str:
    """The mean of several numbers, or of several rows of named ones."""
    rows = [numbers(label) for label in labels]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return json.dumps(means if labels[0].startswith("{") else means["label"], ensure_ascii=False)


ONE_CLASS = LabelKind("single", lambda label: [label], list, every_class=True)
LISTS = LabelKind("multi", json.loads, rarest_labels, every_class=False, differ="lists of labels")
NUMBERS = LabelKind(
    "regression", lambda label: list(numbers(label)), number_strata, every_class=False, merge=mean_numbers
)
KINDS = {kind.task: kind for kind in (ONE_CLASS, LISTS, NUMBERS)}
