"""The loss of next-token prediction: exact, or over a sample of the tokens.

With a vocabulary of 50,257 the output layer is the largest part of a small GPT by far: of every 10
multiplications of gpt2-nano, 8 are there, and the logits of 8,192 tokens fill 1.6 GB in fp32. So

- the tokens go through in chunks, and each chunk's logits become its gradient at once;
- the softmax may run over *candidates*: a random sample that stands for all tokens, and the target (Jean et
  al. 2015, "On Using Very Large Target Vocabulary for NMT"). The more common are drawn more often, the most
  common always (powers of counts: Mikolov et al. 2013, section 2.2): were all rare ones drawn alike, a
  rare token would be pushed up wherever it stands and hardly ever down, and AdamW, whose steps are as long
  for a small gradient as for a large one, would not make up for it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptcls.core.gpt2 import GPT2

CHUNK = 512  # tokens at a time: with 8,192 candidates in bf16 their logits fit a processor's cache
POWER = 0.75  # of the counts, in the chance to be drawn
UNSEEN = 0.1  # what a token counts for at least, in a million


@dataclass(frozen=True)
class Candidates:
    """The tokens that one step's softmax runs over, and what each counts there: one with a chance of 1/3
    three times; a target that was not drawn, in its own rows alone. So the sum below the fraction has the
    right expectation."""

    ids: Tensor  # (V',) distinct token ids
    log_weight: Tensor  # (V',) what is added to the logits
    slots: Tensor  # (N,) where in ids each target is

    @classmethod
    def draw(cls, targets: Tensor, chances: Tensor) -> "Candidates":
        """For ``targets`` (N,), by torch's global generator, each token with its own of ``chances`` (V,)."""
        weight = (torch.rand(len(chances), dtype=chances.dtype) < chances) / chances  # 0 if not drawn
        taken = weight > 0
        taken[targets] = True
        ids = taken.nonzero()[:, 0]
        slots = torch.empty(len(chances), dtype=torch.long)
        slots[ids] = torch.arange(len(ids))
        return cls(ids, weight[ids].log().float(), slots[targets])


def chances_of(counts: Tensor, number: int) -> Tensor:
    """Each token's chance (V,) to be one of the candidates: they grow with ``counts`` (V,), expected in a
    million tokens, are 1 at most, and add up to ``number``.

    >>> chances_of(torch.tensor([1e6, 16.0, 16.0, 1.0]), 2).tolist()
    [1.0, 0.470..., 0.470..., 0.058...]
    """
    if number >= len(counts):
        return torch.ones_like(counts)
    share, order = (counts.clamp(min=UNSEEN) ** POWER).sort(descending=True)
    rest = share.flip(0).cumsum(0).flip(0)  # of each and of those behind it
    factor = (number - torch.arange(len(share))) / rest  # if all before it are certain
    first = int((factor * share <= 1).nonzero()[0])
    return torch.empty_like(counts).index_copy_(0, order, (factor[first] * share).clamp(max=1.0))


def next_token_loss(
    hidden: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype, candidates: Candidates | None = None
) -> Tensor:
    """Mean cross entropy in nats of ``targets`` (N,) after ``hidden`` (N, C), differentiable in ``hidden``
    and ``table`` (V, C), the language-model head's: over ``candidates``, or exact. ``dtype`` is that of the
    matrix products; sums are kept in fp32."""
    if candidates is None:
        return _ChunkedCrossEntropy.apply(hidden, table, targets, None, dtype)
    drawn = (candidates.ids, candidates.slots, candidates.log_weight)
    ids, slots, log_weight = (tensor.to(table.device) for tensor in drawn)
    return _ChunkedCrossEntropy.apply(hidden, table.index_select(0, ids), slots, log_weight, dtype)


class NextToken:
    """The task of pretraining, as the :class:`gptcls.core.loop.Trainer` knows tasks; ``chances`` (V,) are
    those of the tokens to be candidates, and None takes all."""

    def __init__(self, model: GPT2, chances: Tensor | None, dtype: torch.dtype) -> None:
        self.model, self.chances, self.dtype = model, chances, dtype

    def loss_weight(self, targets: Tensor) -> float:
        """How many tokens the loss is a mean over."""
        return float(targets.numel())

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:  # (B, T, C), (B, T) -> ()
        """See :func:`next_token_loss`."""
        targets, candidates = targets.flatten(), None
        if self.chances is not None:
            candidates = Candidates.draw(targets.cpu(), self.chances)
        table = (self.model.wte if self.model.lm_head is None else self.model.lm_head).weight
        return next_token_loss(hidden.flatten(0, 1).float(), table, targets, self.dtype, candidates)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross entropy of ``hidden @ table.T + log_weight``; the gradients are computed on the way forward."""

    @staticmethod
    def forward(ctx, hidden, table, targets, log_weight, dtype):
        matrix = table.to(dtype)
        d_hidden = torch.empty_like(hidden)
        d_table = torch.zeros_like(table) if ctx.needs_input_grad[1] else None  # not of a frozen table
        total = 0.0
        for start in range(0, len(hidden), CHUNK):
            h = hidden[start : start + CHUNK].to(dtype)  # (n, C)
            target = targets[start : start + CHUNK, None]  # (n, 1)
            logits = h @ matrix.T  # (n, V)
            if log_weight is not None:  # the target itself always counts once
                own = logits.gather(1, target)
                logits.add_(log_weight.to(dtype)).scatter_(1, target, own)
            p = logits.softmax(dim=-1)
            p_target = p.gather(1, target)
            total -= p_target.float().log().sum()
            d_logits = p.scatter_(1, target, p_target - 1)
            d_hidden[start : start + CHUNK] = d_logits @ matrix
            if d_table is not None:
                d_table += d_logits.T @ h
        ctx.save_for_backward(d_hidden / len(hidden), None if d_table is None else d_table / len(hidden))
        return total / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_loss):
        d_hidden, d_table = ctx.saved_tensors
        return d_loss * d_hidden, None if d_table is None else d_loss * d_table, None, None, None


@torch.inference_mode()
def perplexity(model: torch.nn.Module, windows: Tensor, batch_size: int = 16) -> float:
    """exp of the mean cross entropy over windows (n, T + 1), on the device of ``model``, which is in eval
    mode: exact, in fp32; inf where that is too large for a float."""
    total, count = 0.0, 0
    for batch in windows.split(batch_size):
        hidden = model(batch[:, :-1]).flatten(0, 1)
        targets = batch[:, 1:].flatten()
        for h, t in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            total += torch.nn.functional.cross_entropy(model.lm_logits(h), t, reduction="sum").item()
        count += len(targets)
    mean = total / count
    return math.exp(mean) if mean < 709 else math.inf
