"""Training with ``--repeats weight``: one row of each text, drawn as often as the data repeats it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from gptcls.core.batches import BucketSampler


class WeightedBucketSampler(Sampler[list[int]]):
    """Batches of a :class:`BucketSampler` over as many draws as there are rows, each row in proportion to its
    weight: whole numbers, (N,); ``classes`` are as there.

    The weights are in the draw, not in the loss. There a text that weighs thousands would fill its batch
    alone, or make one huge step that clipping and Adam cut down to a usual one; drawn, it counts in as many
    steps as its rows would. In the mean over the epochs this trains what all rows would (``--repeats keep``),
    in epochs of N draws instead of as many as there are rows; many a text of one row is left out of an epoch.

    The draw is systematic (Madow 1949): a row that is due w times an epoch is drawn w times, rounded down or
    up by chance, which varies less than independent draws would.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, weights: Sequence[int], classes: Tensor | None = None
    ) -> None:
        self.lengths, self.batch_size, self.classes = list(lengths), batch_size, classes
        self.weights = torch.tensor(weights, dtype=torch.float64)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.lengths))
        ends = self.weights[order].cumsum(0)  # whole numbers: the last is the exact sum
        due = ends * len(order) / ends[-1] + torch.rand((), dtype=torch.float64)
        marks = due.long().clamp(max=len(order))
        rows = order.repeat_interleave(marks.diff(prepend=marks.new_zeros(1))).tolist()
        classes = None if self.classes is None else self.classes[rows]
        for batch in BucketSampler([self.lengths[row] for row in rows], self.batch_size, classes):
            yield [rows[i] for i in batch]
