"""The loss of next-token prediction: exact, or with the rare part of the softmax sampled.

With a vocabulary of 50,257 the output layer is the largest part of a small GPT by far: of every 10
multiplications of gpt2-nano, 8 are there, and the logits of 8,192 tokens fill 1.6 GB in fp32. So

- the tokens go through in chunks, and each chunk's logits become its gradient at once;
- the softmax may run over *candidates*: the most common tokens, a random sample of the others that stands
  for all of them, and the target (Jean et al. 2015, "On Using Very Large Target Vocabulary for NMT").
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gptcls.core.gpt2 import GPT2

CHUNK = 512  # tokens at a time: with 8,192 candidates in bf16 their logits fit a processor's cache
COMMON = 0.75  # share of the candidates that are always the same


@dataclass(frozen=True)
class Candidates:
    """The tokens that one step's softmax runs over, and what each counts there: a sampled one for as many as
    the sample leaves out; a target that was neither common nor sampled, in its own rows alone. So the sum
    below the fraction has the right expectation."""

    ids: Tensor  # (V',) distinct token ids
    log_weight: Tensor  # (V',) what is added to the logits
    slots: Tensor  # (N,) where in ids each target is

    @classmethod
    def draw(cls, targets: Tensor, by_count: Tensor, number: int) -> "Candidates":
        """``number`` of them for ``targets`` (N,), by torch's global generator; ``by_count`` (V,) holds all
        token ids, the most common first."""
        n_common = round(COMMON * number)
        common, rare = by_count[:n_common], by_count[n_common:]
        sampled = rare[torch.randperm(len(rare))[: number - n_common]]
        weight = torch.zeros(len(by_count))
        weight[common] = 1.0
        weight[sampled] = len(rare) / (number - n_common)
        taken = weight > 0
        taken[targets] = True
        ids = taken.nonzero()[:, 0]
        slots = torch.empty(len(by_count), dtype=torch.long)
        slots[ids] = torch.arange(len(ids))
        return cls(ids, weight[ids].log(), slots[targets])


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
    """The task of pretraining, as the :class:`gptcls.core.loop.Trainer` knows tasks; ``by_count`` (V,) holds
    all token ids, the most common first, and 0 for ``n_candidates`` takes all."""

    def __init__(self, model: GPT2, by_count: Tensor, n_candidates: int, dtype: torch.dtype) -> None:
        self.model, self.by_count, self.n_candidates, self.dtype = model, by_count, n_candidates, dtype

    def loss_weight(self, targets: Tensor) -> float:
        """How many tokens the loss is a mean over."""
        return float(targets.numel())

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:  # (B, T, C), (B, T) -> ()
        """See :func:`next_token_loss`."""
        targets, candidates = targets.flatten(), None
        if self.n_candidates:
            candidates = Candidates.draw(targets.cpu(), self.by_count, self.n_candidates)
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
