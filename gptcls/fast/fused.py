"""A GPT-2 block for inference on a CPU in fewer passes over memory, through oneDNN's fused linear layers.

The same formula as :class:`gptcls.core.gpt2.Block`. Bias, GELU and residual addition happen inside the
matrix product that feeds them, while its output is still in the cache; but for GELU where a tanh is slow.
The operators are those that ``torch.compile`` emits for a CPU; where a version of torch lacks one, blocks
stay as they are.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.core.gpt2 import Block

PACKED_FOR = 1024  # rows of a batch that the packed weights are laid out for; others work as well
EVEN = 32  # rows of large batches are a multiple of it: oneDNN keeps MiB of programs for each
SHORT = 128  # tokens
GELU = math.sqrt(8 / math.pi)  # twice the factor in its tanh approximation


def can_fuse(block: nn.Module, dtype: torch.dtype) -> bool:
    """Whether ``block`` is a causal GPT-2 block on a CPU with fused operators in ``dtype`` (oneDNN's)."""
    if type(block) is not Block or not block.attn.causal or block.norm1.weight.device.type != "cpu":
        return False
    mkldnn = torch.ops.mkldnn
    linear = getattr(mkldnn, "_linear_pointwise", None)
    if not torch.backends.mkldnn.is_available() or not hasattr(linear, "binary"):
        return False
    if dtype == torch.bfloat16 and hasattr(mkldnn, "_reorder_linear_weight"):
        return getattr(mkldnn, "_is_mkldnn_bf16_supported", lambda: False)()
    return dtype == torch.float32


class FusedBlock(nn.Module):
    """``block`` as a fixed function (B, T, C) -> (B, T, C) in ``dtype``: in fp32 with its weights, copied
    where they are transposed views (of Hugging Face's files); in bf16 with copies in oneDNN's own layout."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        super().__init__()
        self.n_head = block.attn.n_head
        self.norms = [self._norm(norm, dtype) for norm in (block.norm1, block.norm2)]
        layers = (block.attn.qkv, block.attn.proj, block.mlp.fc, block.mlp.proj)
        self.qkv, self.attn_proj, self.fc, self.mlp_proj = (self._linear(layer, dtype) for layer in layers)
        # Without AVX-512 a tanh takes four times as long as an exp, and twice that inside oneDNN's product.
        self.tanh_is_slow = dtype == torch.float32 and "AVX512" not in torch.backends.cpu.get_cpu_capability()

    @staticmethod
    def _norm(norm: nn.LayerNorm, dtype: torch.dtype) -> tuple:  # the arguments of F.layer_norm
        return norm.normalized_shape, norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps

    @staticmethod
    def _linear(linear: nn.Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        weight, bias = linear.weight.detach().to(dtype).contiguous(), linear.bias.detach().to(dtype)
        if dtype != torch.float32:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)
        return weight, bias

    @torch.no_grad()
    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T, C), (B,) -> (B, T, C)
        linear = torch.ops.mkldnn._linear_pointwise
        B, T, C = x.shape
        more = -B * T % EVEN if B * T > PACKED_FOR // 4 else 0  # positions, that are computed for nothing
        x = _longer(x.reshape(B * T, C), more)
        heads = linear(F.layer_norm(x, *self.norms[0]), *self.qkv, "none", [], "")[: B * T]
        q, k, v = heads.view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        mixed = _longer(attention(q, k, v).transpose(1, 2).reshape(B * T, C), more)
        x = linear.binary(mixed, x, *self.attn_proj, "add")
        normed = F.layer_norm(x, *self.norms[1])
        if self.tanh_is_slow:
            inner = _gelu(F.linear(normed, *self.fc))  # (B * T + more, 4C)
        else:
            inner = linear(normed, *self.fc, "gelu", [], "tanh")
        return linear.binary(inner, x, *self.mlp_proj, "add")[: B * T].view(B, T, C)


def _longer(x: Tensor, more: int) -> Tensor:  # (N, C) -> (N + more, C)
    return F.pad(x, (0, 0, 0, more)) if more else x


def _gelu(x: Tensor) -> Tensor:
    """GELU's tanh approximation without a tanh: (1 + tanh u) / 2 is the sigmoid of 2u."""
    return (x * x).mul_(GELU * 0.044715).add_(GELU).mul_(x).sigmoid_().mul_(x)


def attention(q: Tensor, k: Tensor, v: Tensor, short: int = SHORT) -> Tensor:  # each (B, H, T, D)
    """Causal attention. For texts of at most ``short`` tokens its three steps written out take a third less
    time than torch's flash kernel, which is made for long ones."""
    B, H, T, D = q.shape
    if short < T:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    extra = -B * H % EVEN if B * H > EVEN else 0  # matrices that nobody reads
    q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
    if extra:
        q, k, v = (F.pad(x, (0, 0, 0, 0, 0, extra)) for x in (q, k, v))
    unseen = _unseen(T, q.dtype).expand(B * H + extra, T, T)
    scores = torch.baddbmm(unseen, q, k.transpose(1, 2), alpha=1 / math.sqrt(D))
    return torch.bmm(scores.softmax(dim=-1), v)[: B * H].view(B, H, T, D)


@cache
def _unseen(width: int, dtype: torch.dtype) -> Tensor:  # (T, T)
    """What the causal mask adds to the scores of texts of so many tokens."""
    return torch.full((width, width), -math.inf, dtype=dtype).triu(1)
