"""A step without padding: its batch goes through the network in parts of similar length."""

import torch

from gptcls.core.batches import Batch


def by_length(batch: Batch, worth: int) -> list[Batch]:
    """A batch in parts of similar length, each as wide as its longest row, so that short rows do not carry a
    long one's padding. It is cut where that saves more than ``worth`` positions, what another call of the
    network costs.

    >>> from gptcls.core.batches import pad
    >>> rows = [[1, 2], [3, 4, 5], list(range(90)), list(range(99))]
    >>> [tuple(ids.shape) for ids, _, _ in by_length((*pad(rows), torch.zeros(4)), worth=32)]
    [(2, 3), (2, 99)]
    """
    ids, lengths, targets = batch
    order = lengths.argsort(stable=True)
    widths = lengths[order].clamp(max=ids.shape[1])

    def cut(start: int, end: int) -> list[Batch]:
        saved = torch.arange(1, end - start) * (widths[end - 1] - widths[start : end - 1])
        if end - start > 1 and saved.max() > worth:
            middle = start + 1 + int(saved.argmax())
            return cut(start, middle) + cut(middle, end)
        rows = order[start:end]
        return [(ids[rows, : widths[end - 1]], lengths[rows], targets[rows])]

    return cut(0, len(order))
