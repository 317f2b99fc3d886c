"""Soft targets: what a teacher's outputs say of a text, learnt next to its label or in its place (Hinton,
Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network"), perhaps with what its head reads of it
(Dasgupta and Cohn 2025, "Improving Language Model Distillation through Hidden State Matching").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from gptcls.core.batches import BucketSampler, TextDataset
from gptcls.core.task import SingleLabel, Task
from gptcls.core.tasks import MultiLabel
from gptcls.core.tokenizer import Tokenizer
from gptcls.data.long_texts import cut_of
from gptcls.train.stand_in import StandIn

LEAST = 1e-7  # a probability, as the nearest that float32 has to 1


def alignment(x: Tensor, y: Tensor) -> Tensor:
    """Linear centred kernel alignment of N pairs of vectors (N, C) and (N, D), 0 to 1: how alike both arrange
    the texts, however either is turned or scaled (Kornblith et al. 2019, "Similarity of Neural Network
    Representations Revisited"). With fewer texts than dimensions even unrelated vectors are near 1, and two
    pairs always are."""
    x, y = ((each - each.mean(dim=0)) @ (each - each.mean(dim=0)).T for each in (x, y))
    return (x * y).sum() / (x.norm() * y.norm()).clamp(min=1e-12)


@dataclass(frozen=True)
class SoftTargets(StandIn):
    """The loss of a task with a teacher, in the place of the task in the training loop.

    A target is a row of the label's target, NaN where there is none, and behind it the teacher's K outputs:
    (N, 1 + K) of one class a text, else (N, 2 K). A row with a label has the loss ``(1 - share) * task's +
    share * soft``, one without a label the soft part alone. Where the student's vectors stand behind its
    logits (:func:`gptcls.classify.predict.vectors_shown`), the teacher's stand behind the target, and
    ``hidden * (1 - alignment)`` of the two is added.

    The soft part is the Kullback-Leibler divergence of the student's outputs from the teacher's, both at
    ``temperature`` T (``softmax(logits / T)``, of labels ``sigmoid``), times T², so that its gradient does
    not shrink with T. Where T is large it is that of matching logits. Of labels it is the mean over K; of
    numbers the task's own loss of the teacher's numbers. Plain targets have the task's loss: those of
    validation rows.

    >>> soft = SoftTargets(SingleLabel(("ham", "spam")), temperature=2.0, share=1.0)
    >>> targets = soft.targets(["spam"], np.array([[0.5, 0.5], [0.2, 0.8]]))  # of the second the teacher's
    >>> tuple(targets.shape), targets[1, 0].isnan().item()
    ((2, 3), True)
    >>> logits = torch.tensor([[1.0, 1.0], [0.2, 0.8]], dtype=torch.float64).log()
    >>> round(soft.loss(logits, targets).item(), 6)  # the student says the same
    0.0
    """

    task: Task
    temperature: float
    share: float
    hidden: float = 0.0

    def targets(self, labels: Sequence[str], outputs: np.ndarray) -> Tensor:
        """The targets of texts with these labels and, behind them, of texts without: ``outputs`` (N, K) are
        the teacher's probabilities or numbers of all of them, perhaps with its vectors beside them."""
        exact = np.float64 if outputs.shape[1] == self.task.n_outputs else np.float32  # vectors are large
        taught = torch.from_numpy(np.asarray(outputs, dtype=exact))
        hard = self.task.targets(labels).to(taught).reshape(len(labels), self._width)
        absent = hard.new_full((len(outputs) - len(labels), hard.shape[1]), torch.nan)
        return torch.cat([torch.cat([hard, absent]), taught], dim=1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, K), mean over the batch."""
        if self._plain(targets):
            return self.task.loss(logits, targets)
        n = self.task.n_outputs
        logits, read = logits[:, :n], logits[:, n:]
        hard, taught, vectors = self._parts(targets)
        labelled = ~hard[:, 0].isnan()
        share = torch.where(labelled, self.share, 1.0).to(logits)
        loss = (share * self._soft(logits, taught.to(logits.dtype))).mean()
        if self.share < 1 and labelled.any():
            of_labels = self.task.loss(logits[labelled], self._hard(hard[labelled], logits))
            loss = loss + (1 - self.share) * of_labels * (labelled.sum() / len(labelled))
        if read.shape[1]:
            loss = loss + self.hidden * (1 - alignment(read, vectors.to(read)))
        return loss

    def loss_weight(self, targets: Tensor) -> float:
        """The number of targets, see :meth:`gptcls.core.task.Task.loss_weight`."""
        return float(len(targets))

    def measure(self, logits: Tensor, targets: Tensor) -> float:
        """The task's, of the rows that have a label."""
        if self._plain(targets):
            return self.task.measure(logits, targets)
        hard, *_ = self._parts(targets)
        labelled = ~hard[:, 0].isnan()
        return self.task.measure(logits[labelled], self._hard(hard[labelled], logits))

    def _plain(self, targets: Tensor) -> bool:
        return targets.ndim == 1 or targets.shape[1] == self.task.n_outputs

    def _parts(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return targets.tensor_split((self._width, self._width + self.task.n_outputs), dim=1)

    @property
    def _width(self) -> int:
        """Of a label's target."""
        return 1 if isinstance(self.task, SingleLabel) else self.task.n_outputs

    def _hard(self, hard: Tensor, logits: Tensor) -> Tensor:
        return hard[:, 0].long() if isinstance(self.task, SingleLabel) else hard.to(logits.dtype)

    def _soft(self, logits: Tensor, taught: Tensor) -> Tensor:
        """The soft part of each row (B,)."""
        t = self.temperature
        if isinstance(self.task, SingleLabel):
            theirs = (taught.clamp(min=torch.finfo(taught.dtype).tiny).log() / t).log_softmax(dim=-1)
            ours = (logits / t).log_softmax(dim=-1)
            return t**2 * F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)
        if isinstance(self.task, MultiLabel):
            theirs = (taught.clamp(LEAST, 1 - LEAST).logit() / t).sigmoid()
            cross = F.binary_cross_entropy_with_logits(logits / t, theirs, reduction="none")
            own = F.binary_cross_entropy(theirs, theirs, reduction="none")
            return t**2 * (cross - own).mean(dim=-1)
        theirs = (taught - logits.new_tensor(self.task.means)) / logits.new_tensor(self.task.scales)
        return F.mse_loss(logits, theirs, reduction="none").mean(dim=-1)


@dataclass
class Lesson:
    """What the loop learns in place of the training rows and their labels."""

    task: SoftTargets
    dataset: Any  # the labelled texts and those without, under the targets of ``task``
    classes: Tensor | None  # (N,) of each text, or of the teacher's answer to it, by which batches are mixed

    @classmethod
    def of(
        cls, task: SoftTargets, texts: Sequence[str], labels: Sequence[str], outputs: np.ndarray,
        max_length: int, pad_to: int | None, tokenizer: Tokenizer, long: str,
    ) -> "Lesson":  # fmt: skip
        """For a network that reads so: the first texts are those with ``labels``, the teacher's ``outputs``
        (N, K) are of all."""
        targets = task.targets(labels, outputs)
        classes = None
        if isinstance(task.task, SingleLabel):
            classes = torch.from_numpy(outputs[:, : task.n_outputs].argmax(axis=1))
            classes[: len(labels)] = targets[: len(labels), 0].long()
        # Not in double precision, which not every device has.
        dataset = TextDataset(texts, targets.float(), max_length, pad_to, tokenizer, cut_of(long, tokenizer))
        return cls(task, dataset, classes)

    def loader(self, batch_size: int) -> DataLoader:
        """Shuffled batches, as :func:`gptcls.core.batches.bucket_loader` makes them."""
        dataset = self.dataset
        classes = None if self.classes is None else self.classes[torch.tensor(dataset.owners)]
        sampler = BucketSampler(dataset.lengths, batch_size, classes)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=dataset.collate)
