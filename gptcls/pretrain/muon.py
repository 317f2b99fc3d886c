"""Muon: momentum whose update is made orthogonal, for the matrices inside the blocks (Jordan et al. 2024).

Gradients of a weight matrix are nearly of low rank: a few directions take most of every step. Muon replaces
the momentum M = U S Vᵀ by U Vᵀ, so that every direction moves as far. It is meant for matrices that map
hidden vectors to hidden vectors; tables, norms and biases stay with AdamW.

``torch.optim.Muon`` computes the same, always in bf16, which a processor without bf16 instructions multiplies
ten times slower than fp32. It also takes query, key and value, which lie in one matrix, for one, and takes no
parameters but matrices.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from gptcls.common.processes import processes, summed

# The quintic x -> a x + b x³ + c x⁵ of Jordan et al.: steepest at 0, so that small singular values grow fast.
# It brings them into about [0.7, 1.2] and not to 1, which does no harm.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95  # share of the old direction that is kept
SIZE = 0.2  # of an update, as root mean square, at a rate of 1: what AdamW's usually is


def orthogonalize(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration: U S Vᵀ -> nearly U Vᵀ, for a matrix or a stack (…, m, n), in its own dtype.

    >>> m = torch.diag(torch.tensor([1.0, 0.5, 0.1]))
    >>> [round(value, 1) for value in orthogonalize(m).diagonal().tolist()]
    [0.7, 1.1, 0.7]
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)  # no singular value is now above 1
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (…, m, m), the smaller side
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for some matrices, AdamW for everything else, with one learning rate:
    an update of either has a root mean square of about 0.2 * ``lr``, whatever the shape (Liu et al. 2025,
    "Muon is Scalable for LLM Training", section 2.2). Weight decay is decoupled in both.

    Several processes that train one network (``torch.distributed``) each make their share of the matrices
    orthogonal and exchange the results; all must hold the same gradients.

    Args:
        groups: of parameters. One that says ``parts`` has matrices (m, n) for Muon, each of that many equal
            blocks of rows, made orthogonal one by one: 3 of query, key and value in one, else 1.
        dtype: of the products that make them orthogonal.
    """

    def __init__(
        self, groups: Iterable[dict], lr: float = 1e-3, weight_decay: float = 0.1,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.dtype = dtype
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "parts": 0})
        others = [group for group in self.param_groups if not group["parts"]]
        self.adamw = torch.optim.AdamW(others or [{"params": []}], lr=lr, betas=(0.9, 0.95), fused=True)

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        # AdamW works on our groups, whose rates a trainer sets, and in our state, which checkpoints keep.
        self.adamw.param_groups = [group for group in self.param_groups if not group["parts"]]
        self.adamw.state = self.state
        self.adamw.step()
        rank, world = processes()
        theirs = [(group, p) for group in self.param_groups if group["parts"] for p in group["params"]]
        matrices = [(group, p) for group, p in theirs if p.grad is not None]
        updates = []
        for i, (group, p) in enumerate(matrices):
            if "momentum" not in (state := self.state[p]):
                state["momentum"] = torch.zeros_like(p)
            momentum = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
            if i % world == rank:
                direction = p.grad.lerp(momentum, MOMENTUM)  # Nesterov's: one step further on
                parts = direction.view(group["parts"], -1, p.shape[1]).to(self.dtype)  # (parts, m, n)
                updates.append(orthogonalize(parts).to(p.dtype).view_as(p))
            else:
                updates.append(torch.zeros_like(p))
        if world > 1:
            updates = summed(updates)
        for (group, p), update in zip(matrices, updates, strict=True):
            longest = max(len(p) // group["parts"], p.shape[1])
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update, alpha=-SIZE * group["lr"] * math.sqrt(longest))
