"""Training more than one block on a CPU: no padding, and the blocks' matrix products in bf16.

The rows of a batch lie behind each other, (N, C) with N real tokens, in all that looks at one token: norms,
linear layers, GELU. Attention alone sees rows, padded to the longest. The weights that are trained stay in
fp32, and so do the stream between the blocks, the norms and the gradients; a product reads copies in bf16 of
that step's weights, as under ``torch.autocast``. What is frozen beside an adapter is copied once and has no
gradient. A classifier's last block, where one position is read, is ``fast/one_position.py``'s, in fp32.

Every other network, ``--precision fp32``, ``--no-cache`` and ``--compile`` keep the plain path.
"""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.common.processes import processes
from gptcls.core.classifier import Classifier
from gptcls.core.gpt2 import GPT2, Block
from gptcls.fast.frozen import Trained
from gptcls.fast.fused import attention, can_fuse
from gptcls.fast.one_position import drops
from gptcls.models.lora import LoRALinear

SHORT = 256  # tokens up to which attention written out is faster, forward and backward together


def can_pack(classifier: Classifier, depth: int, dtype: torch.dtype) -> bool:
    """Whether :class:`Packed` computes the classifier above ``depth`` blocks: two or more causal GPT-2 blocks
    on a CPU that multiplies bf16, no dropout, no DoRA, its own head, no padding that counts."""
    blocks = classifier.backbone.blocks[depth:]
    if len(blocks) < 2 or not can_pack_gpt2(classifier.backbone, dtype, depth):
        return False
    if classifier.pool.sees_padding or type(classifier.head) is not nn.Linear:
        return False
    modules = (module for block in blocks for module in block.modules())
    return not any(isinstance(module, LoRALinear) and module.config.dora for module in modules)


class Packed(nn.Module):
    """``classifier`` above its first ``depth`` blocks, for training, with products in ``dtype``: ids (B, T),
    or with a ``depth`` a :class:`gptcls.fast.frozen.Frozen`'s output (B, T, C), and lengths (B,) -> logits
    (B, K)."""

    minds_padding = False  # there is none

    def __init__(self, classifier: Classifier, depth: int = 0, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.classifier, self.depth, self.n_outputs = classifier, depth, classifier.n_outputs
        self._products, self._sparse = Products(dtype), False
        self._last = Trained(classifier, len(classifier.backbone.blocks) - 1)

    def make_table_sparse(self) -> nn.Parameter | None:
        """The token table, whose gradient is sparse from now on, as :class:`gptcls.fast.adamw.TableAdamW`
        takes it; None where it is not trained, or by several processes."""
        wte = self.classifier.backbone.wte
        alone = processes()[1] == 1
        self._sparse = alone and type(wte) is nn.Embedding and wte.weight.requires_grad
        return wte.weight if self._sparse else None

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        model, backbone = self.classifier, self.classifier.backbone
        T = inputs.shape[1]
        real = (torch.arange(T) < lengths[:, None]).flatten().nonzero()[:, 0]  # (N,), of B * T
        flat = inputs.flatten(0, 1).index_select(0, real)
        x = flat.float() if self.depth else self._embed(flat, real % T)  # (N, C)
        at_one = model.pool.positions(lengths, T) is not None
        blocks = backbone.blocks[self.depth :]
        for block in blocks[:-1] if at_one else blocks:
            x = self._products.block(block, x, real, inputs.shape[:2])
        x = _padded(x, real, inputs.shape[:2])
        return self._last(x, lengths) if at_one else model.head(model.pool(backbone.norm(x), lengths))

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:  # (N,), (N,) -> (N, C)
        backbone = self.classifier.backbone
        if (n := backbone.config.n_positions) < (T := int(positions.max()) + 1):
            raise ValueError(f"{T} tokens do not fit the {n} positions; truncate to config.n_positions first")
        x = F.embedding(ids, backbone.wte.weight, sparse=True) if self._sparse else backbone.wte(ids)
        return x + backbone.wpe(positions)


def can_pack_gpt2(model: GPT2, dtype: torch.dtype, depth: int = 0) -> bool:
    """Whether :class:`Products` compute its blocks above ``depth``, and :class:`PackedGPT2` all: a causal
    GPT-2 without dropout on a CPU that multiplies bf16."""
    blocks = model.blocks[depth:]
    if dtype != torch.bfloat16 or not all(can_fuse(block, dtype) for block in blocks):
        return False
    return not any(map(drops, (model.drop, *blocks)))


class PackedGPT2(nn.Module):
    """``model`` for pretraining, with products in ``dtype``: ids (B, T) without padding, and lengths, all T,
    -> hidden (B, T, C)."""

    def __init__(self, model: GPT2, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.network, self._products = model, Products(dtype)  # named as in Autocast, for checkpoints

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self.network.embed(ids).flatten(0, 1)  # (N, C)
        for block in self.network.blocks:
            x = self._products.block(block, x, None, ids.shape)
        return self.network.norm(x).view(*ids.shape, -1)


class Products:
    """Blocks over rows that lie behind each other, their matrix products in ``dtype``."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        # Copies (out, in) and (out,) in dtype of what never changes, by layer.
        self._frozen: WeakKeyDictionary[nn.Linear, tuple[Tensor, Tensor]] = WeakKeyDictionary()
        self._kept = Kept()

    def block(self, block: Block, x: Tensor, real: Tensor | None, shape: torch.Size) -> Tensor:
        """(N, C) -> (N, C) of rows ``shape`` (B, T), whose tokens ``real`` (N,) of B * T are no padding; None
        where none is."""
        (B, T), C, H = shape, x.shape[1], block.attn.n_head
        heads = _padded(self._linear(block.attn.qkv, block.norm1(x)), real, shape)  # (B, T, 3C)
        q, k, v = heads.view(B, T, 3, H, C // H).permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        mixed = attention(q, k, v, SHORT).transpose(1, 2).reshape(B * T, C)
        mixed = mixed if real is None else mixed.index_select(0, real)
        x = x + self._linear(block.attn.proj, mixed)
        inner = self._linear(block.mlp.fc, block.norm2(x))
        return x + self._linear(block.mlp.proj, F.gelu(inner, approximate="tanh"))

    def _linear(self, layer: nn.Linear | LoRALinear, x: Tensor) -> Tensor:  # (N, in) -> (N, out)
        x = x.to(self.dtype)
        if isinstance(layer, LoRALinear):
            a, b = (factor.weight.to(self.dtype) for factor in (layer.lora_A, layer.lora_B))
            return self._linear(layer.base, x) + layer.config.scale * F.linear(F.linear(x, a), b)
        if layer.weight.requires_grad or layer.bias.requires_grad:
            return _Product.apply(x, layer.weight, layer.bias, self._kept)
        if layer not in self._frozen:
            with torch.inference_mode(False):  # else it could not be kept for a backward pass
                self._frozen[layer] = layer.weight.to(self.dtype).contiguous(), layer.bias.to(self.dtype)
        return _Product.apply(x, *self._frozen[layer], self._kept)


class Kept:
    """Where the gradients of large parameters lie, from step to step: memory that the system hands out anew
    each time costs more than what is computed there."""

    def __init__(self) -> None:
        self.places: dict[nn.Parameter, Tensor] = {}

    def add(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        """Add to ``parameter.grad``, or put it there where the step has none yet."""
        if parameter.grad is not None:
            parameter.grad += gradient
            return
        if parameter not in self.places:
            self.places[parameter] = torch.empty_like(parameter, requires_grad=False)
        parameter.grad = self.places[parameter].copy_(gradient)


class _Product(torch.autograd.Function):
    """``x @ weight.T + bias`` (N, out) in the number format of x (N, in); the parameters keep theirs."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, kept: Kept) -> Tensor:
        ctx.x, ctx.weight, ctx.bias, ctx.kept = x, weight, bias, kept
        return torch.ops.mkldnn._linear_pointwise(x, weight.to(x.dtype), bias.to(x.dtype), "none", [], "")

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple:
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        if of_weight:
            ctx.kept.add(ctx.weight, grad.T @ ctx.x)
        # Narrowed anew: all blocks' copies kept since the forward pass would be memory handed out anew.
        of_x = grad @ ctx.weight.to(grad.dtype) if of_x else None
        return of_x, None, grad.sum(dim=0, dtype=ctx.bias.dtype) if of_bias else None, None


def _padded(x: Tensor, real: Tensor | None, shape: torch.Size) -> Tensor:  # (N, C) -> (B, T, C)
    if real is None:
        return x.view(*shape, -1)
    return x.new_zeros(shape.numel(), x.shape[1]).index_copy(0, real, x).view(*shape, -1)
