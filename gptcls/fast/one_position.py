"""A block's output at one position of each row, all that pooling reads of the last block.

The MLP runs on one token per row, and so does attention's query. For GPT-2 the formula is here; a block of
another family may have a method ``at``; any other block is computed in full.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.core.gpt2 import Attention, Block


def is_cheap(block: nn.Module) -> bool:
    """Whether :func:`at` computes less than the whole block: then padding costs next to nothing."""
    return (type(block) is Block and not drops(block)) or hasattr(block, "at")


def drops(block: nn.Module) -> bool:
    """Whether it has dropout, which training then needs."""
    return any(isinstance(module, nn.Dropout) and module.p for module in block.modules())


def at(block: nn.Module, x: Tensor, positions: Tensor, lengths: Tensor | None = None) -> Tensor:
    """``block(x, lengths)`` at one position (B,) of each row: (B, T, C) -> (B, C)."""
    rows = torch.arange(x.shape[0], device=x.device)
    if type(block) is Block:
        # Dropout needs the weights, keys and values themselves.
        if not (block.training and drops(block)):
            pooled = x[rows, positions] + _attention_at(block.attn, x, positions, block.norm1, lengths)
            return pooled + block.mlp(block.norm2(pooled))
    elif hasattr(block, "at"):
        return block.at(x, positions, lengths)
    return block(x, lengths)[rows, positions]


def _attention_at(
    attention: Attention, x: Tensor, positions: Tensor, norm: nn.LayerNorm, lengths: Tensor | None
) -> Tensor:  # (B, T, C), (B,) -> (B, C)
    """``attention(norm(x), lengths)`` at one position of each row, without forming a single key or value.

    With one query q the scores are q · (W_k n + b_k) = (W_kᵀ q) · n + a constant that softmax ignores, and
    the mix of values is W_v (Σ w n) + b_v: both matrices meet B vectors instead of B * T. The scale and shift
    of ``norm`` move out of the sums in the same way.
    """
    B, T, C = x.shape
    H, D = attention.n_head, C // attention.n_head
    rows = torch.arange(B, device=x.device)
    x_hat = F.layer_norm(x, (C,), eps=norm.eps)  # (B, T, C); constant while the blocks below are frozen
    w_q, w_k, w_v = attention.qkv.weight.view(3, C, C).unbind()
    b_q, _, b_v = attention.qkv.bias.view(3, C).unbind()
    q = F.linear(x_hat[rows, positions] * norm.weight + norm.bias, w_q, b_q)  # (B, C)
    absorbed = torch.einsum("bhd,hdc->bhc", q.view(B, H, D), w_k.view(H, D, C)) * norm.weight
    scores = absorbed @ x_hat.transpose(1, 2) / math.sqrt(D)  # (B, H, T)
    last_seen = positions  # under the causal mask; without it the last real token
    if not attention.causal:
        last_seen = torch.full_like(positions, T - 1) if lengths is None else lengths - 1
    unseen = torch.arange(T, device=x.device) > last_seen[:, None]  # (B, T)
    weights = scores.masked_fill(unseen[:, None], -math.inf).softmax(dim=-1)
    mean = weights @ x_hat * norm.weight + norm.bias  # (B, H, C)
    mixed = torch.einsum("bhc,hdc->bhd", mean, w_v.view(H, D, C)).reshape(B, C) + b_v
    return attention.proj(mixed)
