"""Training rows drawn by weights: with ``--repeats weight`` one of each text, as often as the data repeats
it; with ``--mix`` those of other files."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

from gptcls.core.batches import BucketSampler


class WeightedBucketSampler(Sampler[list[int]]):
    """Batches of a :class:`BucketSampler` over ``draws``, by default as many as there are rows, each row in
    proportion to its weight, (N,); ``classes`` are as there.

    The weights are in the draw, not in the loss. There a text that weighs thousands would fill its batch
    alone, or make one huge step that clipping and Adam cut down to a usual one; drawn, it counts in as many
    steps as its rows would. In the mean over the epochs this trains what all rows would (``--repeats keep``),
    in epochs of N draws instead of as many as there are rows; many a text of one row is left out of an epoch.

    The draw is systematic (Madow 1949): a row that is due w times an epoch is drawn w times, rounded down or
    up by chance, which varies less than independent draws would.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, weights: Sequence[float],
        classes: Tensor | None = None, draws: int | None = None,
    ) -> None:  # fmt: skip
        self.lengths, self.batch_size, self.classes = list(lengths), batch_size, classes
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.draws = len(self.lengths) if draws is None else draws

    def __len__(self) -> int:
        return -(-self.draws // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.lengths))
        ends = self.weights[order].cumsum(0)
        due = ends * self.draws / ends[-1] + torch.rand((), dtype=torch.float64)
        marks = due.long().clamp(max=self.draws)
        marks[-1] = self.draws  # exactly
        rows = order.repeat_interleave(marks.diff(prepend=marks.new_zeros(1))).tolist()
        classes = None if self.classes is None else self.classes[rows]
        for batch in BucketSampler([self.lengths[row] for row in rows], self.batch_size, classes):
            yield [rows[i] for i in batch]
