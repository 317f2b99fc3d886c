"""Other labelled files among the training rows of ``--head lm`` (``--mix``): each is a task of its own, with
its own labels and pattern, and all are learnt by one network, which so learns to answer from what labels are
called (Raffel et al. 2020, T5; Wei et al. 2022, FLAN).

The blocks that read a row hold the tree of its labels. So each task has a classifier of its own, and all of
these have the same parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from gptcls.core.batches import Batch, classes_of
from gptcls.train.sampler import WeightedBucketSampler


@dataclass
class OtherTask:
    """A file of ``--mix``."""

    share: float  # of the rows of an epoch
    model: nn.Module  # of its labels, with the parameters of the run's; then what of it is trained
    dataset: Any  # texts; where blocks are frozen, their features once there are any


class MixedNetwork(nn.Module):
    """The network of a run and those of ``others``, all with the same parameters.

    Lengths (B,): rows of the run, logits (B, K). Lengths (B, 2), behind each the number of its row's network,
    0 for the run's: logits (B, L), L the most labels that one has, and -inf where a row's has fewer. So the
    cross entropy of each row is over its own labels.
    """

    minds_padding = False  # each network reads its rows alone, as wide as the longest of them

    def __init__(self, network: nn.Module, others: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network, self.others, self.n_outputs = network, nn.ModuleList(others), network.n_outputs

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        if lengths.ndim == 1:
            return self.network(inputs, lengths)
        networks, (lengths, numbers) = (self.network, *self.others), lengths.unbind(dim=1)
        most = max(network.n_outputs for network in networks)
        logits = torch.full((len(lengths), most), -torch.inf, device=inputs.device)
        for number in numbers.unique().tolist():
            rows = (numbers == number).nonzero()[:, 0]
            found = networks[number](inputs[rows, : lengths[rows].max()], lengths[rows])
            logits[rows, : found.shape[1]] = found
        return logits


def mixed_loader(own: Dataset, others: Sequence[OtherTask], batch_size: int) -> DataLoader:
    """Batches of an epoch for a :class:`MixedNetwork`: all rows of ``own`` and, drawn anew each time, as many
    of the others as make up their shares of all. A batch has every class of every task in its share."""
    datasets = [own, *(other.dataset for other in others)]
    whole = len(own) / (1 - sum(other.share for other in others))
    drawn = [len(own), *(max(1, round(other.share * whole)) for other in others)]
    places, lengths, weights, classes = [], [], [], []
    for number, (dataset, n) in enumerate(zip(datasets, drawn, strict=True)):
        places += [(number, row) for row in range(len(dataset))]
        lengths += dataset.lengths
        weights += [n / len(dataset)] * len(dataset)
        classes.append(classes_of(dataset) + (number << 32))  # no two tasks have one in common
    sampler = WeightedBucketSampler(lengths, batch_size, weights, torch.cat(classes), sum(drawn))
    return DataLoader(places, batch_sampler=sampler, collate_fn=partial(_collate, datasets))


def _collate(datasets: Sequence[Dataset], places: Sequence[tuple[int, int]]) -> Batch:
    """The rows at these places, each the number of a dataset and a row of it, with lengths (B, 2)."""
    inputs, lengths, targets = datasets[0].collate([datasets[number][row] for number, row in places])
    return inputs, torch.stack([lengths, torch.tensor([number for number, _ in places])], dim=1), targets
