"""Rows to batches: token ids, a dataset, and loaders that pad as little as they can.

A batch is ``(ids (B, T), lengths (B,), targets (B,) or (B, K))``. The network is told how long each text
is; nothing downstream ever searches for a padding id.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gptcls.core.tokenizer import GPT2, PAD_ID, Tokenizer

Batch = tuple[Tensor, Tensor, Tensor]
# The ids of a text that is too long, without what the tokenizer puts around it, and the room there is for
# them -> one or more rows of at most that many ids.
Cut = Callable[[list[int], int], list[list[int]]]


def head(ids: list[int], room: int) -> list[list[int]]:
    """One row with the first ``room`` ids."""
    return [ids[:room]]


def _rows_of(ids: list[int], max_length: int, tokenizer: Tokenizer, cut: Cut) -> list[list[int]]:
    """The rows that are read of a text that is too long."""
    before, behind = tokenizer.prefix, tokenizer.suffix
    room = max_length - len(before) - len(behind)
    if room < 1 or cut is head:  # encoded only as far as needed, such a text may lack its end
        return [tokenizer.cut(ids, max_length)]
    text = ids[len(before) : len(ids) - len(behind)]
    return [[*before, *part, *behind] for part in cut(text, room)]


class TextDataset(Dataset):
    """Texts as token ids with their targets: one row per text or, where a cut gives several, more.

    Args:
        texts: N texts; a value that is not text raises TypeError naming its row.
        targets: (N,) or (N, K).
        max_length: tokens in a row at most.
        pad_to: positions that every row takes at least in a batch; None pads to the longest of the batch.
        tokenizer: the network's.
        cut: what is read of a longer text; what the tokenizer puts around a text stands around each row.

    ``truncated`` counts the texts that were longer; ``owners`` has the number of each row's text. A text
    without tokens becomes one padding token, so that there is always a last token to read.
    """

    def __init__(
        self, texts: Sequence[str], targets: Tensor, max_length: int, pad_to: int | None = None,
        tokenizer: Tokenizer = GPT2, cut: Cut = head,
    ) -> None:  # fmt: skip
        self.targets, self.pad_to, self.pad_id = targets, pad_to, tokenizer.pad_id
        self.truncated, self.rows, self.owners = 0, [], []
        # One token more than needed tells a text that fits exactly from one that is cut.
        encoded = tokenizer.encode_rows(texts, max_length + 1 if cut is head else None)
        for text, ids in enumerate(encoded):
            rows = [ids or [tokenizer.pad_id]]
            if len(ids) > max_length:
                self.truncated += 1
                rows = _rows_of(ids, max_length, tokenizer, cut)
            self.rows += rows
            self.owners += [text] * len(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[list[int], Tensor]:
        return self.rows[index], self.targets[self.owners[index]]

    @property
    def lengths(self) -> list[int]:
        """Tokens in each row."""
        return [len(row) for row in self.rows]

    @property
    def widths(self) -> list[int]:
        """Positions that each row takes in a batch of its own."""
        return [max(length, self.pad_to or 0) for length in self.lengths]

    def collate(self, items: Sequence[tuple[list[int], Tensor]]) -> Batch:
        """Items as one batch ``(ids (B, T), lengths (B,), targets)``, see :func:`pad`."""
        rows, targets = zip(*items, strict=True)
        return *pad(rows, self.pad_to, self.pad_id), torch.stack(targets)


def pad(rows: Sequence[list[int]], pad_to: int | None = None, pad_id: int = PAD_ID) -> tuple[Tensor, Tensor]:
    """Rows of ids padded on the right, ``(ids (B, T), lengths (B,))``; T is at least ``pad_to``."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), max(int(lengths.max()), pad_to or 0)), pad_id)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return ids, lengths


class BucketSampler(Sampler[list[int]]):
    """Shuffled batches of rows of similar length, in an order drawn anew from torch's generator each epoch.

    The rows are shuffled, cut into windows of ``window`` batches, sorted by length inside each window, and
    the batches shuffled: padding shrinks. Where length tells the class, as in spam, such batches hold one
    class far more often than by chance; so with ``classes`` (N,) rows are sorted by their place among their
    own class, from its shortest (0) to its longest (1), and each batch holds every class in its share.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, classes: Tensor | None = None, window: int = 32
    ) -> None:
        self.lengths, self.batch_size, self.window = torch.tensor(lengths), batch_size, window * batch_size
        self.classes = torch.zeros(len(lengths), dtype=torch.long) if classes is None else classes

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        size, missing = self.batch_size, -len(self.lengths) % self.batch_size
        windows = torch.randperm(len(self.lengths)).split(self.window)
        # Chance first: a window is sorted when a batch of it is due, so that a few batches cost little.
        shifts = [torch.rand(len(self.classes[rows].unique())) for rows in windows]
        sorted_window = cache(lambda number: self._sorted(windows[number], shifts[number]).tolist())
        # The incomplete batch is any of the last window's, else it would always hold the longest rows.
        short = int(torch.randint((len(windows) - 1) * self.window // size, len(self), ()))
        for index in torch.randperm(len(self)).tolist():
            number, start = divmod(index * size - missing * (index > short), self.window)
            yield sorted_window(number)[start : start + size - missing * (index == short)]

    def _sorted(self, rows: Tensor, shifts: Tensor) -> Tensor:
        rows = rows[self.lengths[rows].argsort(stable=True)]
        places = torch.empty(len(rows))
        for one, shift in zip(self.classes[rows].unique(), shifts, strict=True):
            own = self.classes[rows] == one
            places[own] = (torch.arange(int(own.sum())) + shift) / own.sum()
        return rows[places.argsort(stable=True)]


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Row numbers sorted by length and cut so that a padded batch holds at most ``max_tokens`` positions.

    A single row longer than that is a batch of its own.

    >>> token_budget_batches([5, 1, 2, 9], max_tokens=6)
    [[1, 2], [0], [3]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[row] <= max_tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def classes_of(dataset: Dataset) -> Tensor | None:
    """The class of each row (N,), or None where a row has several labels or numbers."""
    one_class = dataset.targets.dtype == torch.int64 and dataset.targets.ndim == 1
    return dataset.targets[torch.tensor(dataset.owners)] if one_class else None


def bucket_loader(dataset: Dataset, batch_size: int) -> DataLoader:
    """Training batches of a dataset with ``lengths`` and ``collate``: shuffled, of similar length, and where
    a row has one class with the classes in their shares."""
    sampler = BucketSampler(dataset.lengths, batch_size, classes_of(dataset))
    return DataLoader(dataset, batch_sampler=sampler, collate_fn=dataset.collate)


def plain_loader(dataset: Dataset, batch_size: int, shuffle: bool = False) -> DataLoader:
    """The loader of the book's chapter 6: file order, or shuffled with the last, incomplete batch dropped."""
    return DataLoader(dataset, batch_size, shuffle=shuffle, drop_last=shuffle, collate_fn=dataset.collate)
