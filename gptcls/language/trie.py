"""Labels as token ids in a trie: each distinct beginning of a label is one node, read once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gptcls.core.errors import InputError


@dataclass(frozen=True)
class Trie:
    """The token ids of K labels, none of which begins another.

    A node is a beginning that goes on: 0 is the empty one, the others, depth first, have the id
    ``tokens[node - 1]`` behind the node ``parents[node - 1]``. An edge leads from a node to an id:
    ``edges[i]`` is ``(node, id)``; ``paths[k]`` are the numbers of the edges of label k.

    >>> trie = Trie.of([(5, 6), (5, 7, 8), (9,)])
    >>> trie.tokens, trie.parents, trie.depths
    ((5, 7), (0, 1), (1, 2))
    >>> trie.edges
    ((0, 5), (1, 6), (1, 7), (2, 8), (0, 9))
    >>> trie.paths
    ((0, 1), (0, 2, 3), (4,))
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, labels: Sequence[Sequence[int]]) -> "Trie":
        """The trie of some labels' ids. ValueError where one is empty, or begins another."""
        if any(not ids for ids in labels) or begins_another(labels):
            raise ValueError("a label begins another, or has no tokens")
        inner = {tuple(ids[:n]) for ids in labels for n in range(1, len(ids))}
        beginnings = sorted(inner, key=_first(labels))
        nodes = {(): 0} | {beginning: i for i, beginning in enumerate(beginnings, start=1)}
        steps = [(nodes[tuple(ids[:n])], ids[n]) for ids in labels for n in range(len(ids))]
        edges = {edge: i for i, edge in enumerate(dict.fromkeys(steps))}
        paths = tuple(tuple(edges[nodes[tuple(ids[:n])], ids[n]] for n in range(len(ids))) for ids in labels)
        return cls(
            tuple(beginning[-1] for beginning in beginnings),
            tuple(nodes[beginning[:-1]] for beginning in beginnings), tuple(edges), paths,
        )  # fmt: skip

    @property
    def depths(self) -> tuple[int, ...]:
        """How many ids lead to each node but the first."""
        depths = [0]
        for parent in self.parents:
            depths.append(depths[parent] + 1)
        return tuple(depths[1:])

    @property
    def ancestors(self) -> list[list[bool]]:
        """(M, M) of all nodes but the first: whether the second is the first one itself or lies above it."""
        found: list[list[bool]] = []
        for node, parent in enumerate(self.parents):
            above = list(found[parent - 1]) if parent else [False] * len(self.parents)
            above[node] = True
            found.append(above)
        return found


def _first(labels: Sequence[Sequence[int]]) -> Callable[[tuple[int, ...]], list[int]]:
    """Sorts beginnings depth first, in the order of the labels."""
    order: dict[tuple[int, ...], int] = {}
    for ids in labels:
        for n in range(1, len(ids) + 1):
            order.setdefault(tuple(ids[:n]), len(order))
    return lambda beginning: [order[beginning[:n]] for n in range(1, len(beginning) + 1)]


def begins_another(labels: Sequence[Sequence[int]]) -> bool:
    """Whether a label is another's beginning, or the same: then only what follows them tells them apart."""
    spelled = sorted(tuple(ids) for ids in labels)
    return any(b[: len(a)] == a for a, b in pairwise(spelled))


def ended(labels: Sequence[Sequence[int]], end: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The labels, all followed by ``end`` where one of them begins another. InputError where that does not
    tell them apart."""
    found = tuple(tuple(ids) for ids in labels)
    if begins_another(found):
        found = tuple((*ids, *end) for ids in found)
        if begins_another(found):
            raise InputError("two labels have the same tokens; give them other --verbalizers")
    return found
