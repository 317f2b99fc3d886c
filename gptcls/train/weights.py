"""Training rows that weigh differently in the loss, as scikit-learn's ``sample_weight`` says.

The loop knows batches ``(ids, lengths, targets)`` and a task. So a row's weight travels in the last column of
its targets, and :class:`Weighted` takes it off there: loop and tasks need not know.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from gptcls.core.task import SingleLabel, Task
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.train.stand_in import StandIn


class WeightedRows(Dataset):
    """A dataset whose targets (N,) or (N, K) have become (N, 1 + 1) or (N, K + 1), float32: behind them stand
    the ``weights`` (N,) of the texts."""

    def __init__(self, source: Dataset, weights: Tensor) -> None:
        columns = source.targets.float().reshape(len(weights), -1)
        self.targets = torch.cat([columns, weights.float()[:, None]], dim=1)
        self.source, self.owners, self.collate = source, source.owners, source.collate

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple:
        return *self.source[index][:-1], self.targets[self.owners[index]]


def weighted(loader: DataLoader, weights: Tensor) -> DataLoader:
    """The loader's batches with weights, in its order."""
    rows = WeightedRows(loader.dataset, weights)
    return DataLoader(rows, batch_sampler=loader.batch_sampler, collate_fn=rows.collate)


class Weighted(StandIn):
    """``task`` for targets of :class:`WeightedRows`; ``like`` are targets of its own. Its loss is the mean
    over the batch by the weights: a row of weight 2 is two rows.

    >>> from gptcls.core.task import SingleLabel
    >>> task, logits = SingleLabel(("ham", "spam")), torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    >>> once = Weighted(task, task.targets(["ham"])).loss(logits, torch.tensor([[0.0, 2.0], [1.0, 1.0]]))
    >>> torch.allclose(once, task.loss(logits[[0, 0, 1]], task.targets(["ham", "ham", "spam"])))
    True
    """

    def __init__(self, task: Task, like: Tensor) -> None:
        self.task, self.shape, self.dtype = task, like.shape[1:], like.dtype

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The task's loss of each of B rows, in their mean by :meth:`_shares`."""
        plain = self._plain(targets)
        pairs = zip(logits.split(1), plain.split(1), strict=True)
        losses, shares = torch.stack([self.task.loss(*pair) for pair in pairs]), self._shares(targets)
        return losses @ (shares / shares.sum()).to(losses)

    def loss_weight(self, targets: Tensor) -> float:
        """What that is a mean over."""
        return self._shares(targets).sum().item()

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """The task's, in which all rows weigh alike."""
        return self.task.measure(logits, self._plain(targets))

    def _plain(self, targets: Tensor) -> Tensor:
        return targets[:, :-1].reshape(-1, *self.shape).to(self.dtype)

    def _shares(self, targets: Tensor) -> Tensor:
        """(B,): the weights of the rows, times those of their classes where the task has any."""
        targets = targets.cpu()
        own = [self.task.loss_weight(row) for row in self._plain(targets).split(1)]
        return targets[:, -1].double() * torch.tensor(own, dtype=torch.float64)


def counted(task: Task, targets: Tensor, weights: Tensor) -> Task:
    """``task`` with what it took from the training rows' targets, (N,) or (N, K), taken as if each row stood
    there as often as its weight (N,) says: the weights of classes and labels, means and scales of numbers.

    >>> task = SingleLabel.for_training(["ham", "spam"], balance="weights")
    >>> counted(task, torch.tensor([0, 1]), torch.tensor([3.0, 1.0])).class_weights
    (0.6666666666666666, 2.0)
    """
    weights, whole = weights.double(), weights.double().sum()
    if isinstance(task, SingleLabel) and task.class_weights:
        rows = torch.bincount(targets, weights, task.n_outputs)
        return replace(task, class_weights=tuple((whole / (task.n_outputs * rows)).tolist()))
    if isinstance(task, MultiLabel) and task.positive_weights:
        rows = weights @ targets.double()
        ratios = ((whole - rows) / rows).tolist()
        return replace(task, positive_weights=tuple(ratio or 1.0 for ratio in ratios))
    if isinstance(task, Regression) and task != Regression(task.labels):
        means = weights @ targets.double() / whole
        scales = (weights @ (targets.double() - means) ** 2 / whole).sqrt()
        return replace(task, means=tuple(means.tolist()), scales=tuple(scales.tolist()))
    return task
