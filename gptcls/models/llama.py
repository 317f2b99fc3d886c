"""The Llama family in pure PyTorch: Llama 2 and 3, Mistral, Qwen2 and 3, SmolLM3 and Phi-3, which differ in a
few sizes and switches.

What changed since GPT-2: RMSNorm (Zhang & Sennrich 2019) instead of LayerNorm, rotary positions (Su et al.
2021) instead of a trained table, keys and values shared by groups of heads (Ainslie et al. 2023), SwiGLU
(Shazeer 2020) instead of GELU, hardly any biases, in Mistral a window of attention (Jiang et al. 2023), in
Qwen3 queries and keys of one length each (Henry et al. 2020), and in SmolLM3 blocks that know no positions
(Yang et al. 2025).

The shape alphabet is that of ``core/gpt2.py``; G is the number of heads that keys and values have.

Each block computes in the number format of its weights: frozen ones stay in bf16, trained ones in fp32. Every
norm hands on what the layers behind it need.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.core.errors import InputError
from gptcls.models.rotary import Angles, Rotation, angles_of, rotate, traced


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The sizes and switches of one network of the family."""

    n_layer: int
    n_embd: int  # C
    n_head: int  # H, heads of the queries
    n_kv_head: int  # G, heads of the keys and values
    head_dim: int  # D, which need not be C / H
    n_inner: int  # width inside the MLP
    n_positions: int  # the longest sequence the network was made for
    vocab_size: int  # V
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    # See :class:`gptcls.models.rotary.Rotation`.
    rope_type: str = "llama3"
    rope_factor: float = 1.0
    rope_low_freq: float = 1.0
    rope_high_freq: float = 4.0
    rope_old_positions: int = 8192
    rope_whole_pairs: bool = True
    rope_scale: float = 1.0
    rope_left_out: int | None = None  # every so many blocks one knows no positions; None: all do
    window: int | None = None  # tokens that a token sees, itself included; None: all before it
    window_from: int | None = None  # the first block that has the window; None: all have it
    qk_norm: bool = False  # each head's queries and keys are normalised before they are turned
    qkv_bias: bool = False
    proj_bias: bool = False
    mlp_bias: bool = False
    tied: bool = True  # the language-model head is the token table, transposed

    def __post_init__(self) -> None:
        if self.n_kv_head > self.n_head or self.n_head % self.n_kv_head:
            raise ValueError(f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}")
        self.rotation()  # refuses what it cannot be

    def rotation(self) -> Rotation:
        """How positions turn queries and keys."""
        return Rotation(
            self.head_dim, self.rope_theta, self.rope_type, self.rope_factor, self.rope_low_freq,
            self.rope_high_freq, self.rope_old_positions, self.rope_whole_pairs, self.rope_scale,
        )  # fmt: skip


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in fp32; the result has the weight's number format unless ``wide``."""

    def __init__(self, width: int, eps: float, wide: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.wide = eps, wide

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., C)
        x = x.float()
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight.float()
        return x if self.wide else x.to(self.weight.dtype)


class Attention(nn.Module):
    """Causal self-attention with rotary positions; H / G heads of queries share one of keys and values."""

    def __init__(self, config: LlamaConfig, window: int | None, rotary: bool = True) -> None:
        super().__init__()
        self.config, self.window, self.rotary = config, window, rotary
        C, H, G, D = config.n_embd, config.n_head, config.n_kv_head, config.head_dim
        self.q = nn.Linear(C, H * D, bias=config.qkv_bias)
        self.k = nn.Linear(C, G * D, bias=config.qkv_bias)
        self.v = nn.Linear(C, G * D, bias=config.qkv_bias)
        self.proj = nn.Linear(H * D, C, bias=config.proj_bias)
        self.q_norm, self.k_norm = (
            RMSNorm(D, config.norm_eps) if config.qk_norm else nn.Identity() for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        T, angles = x.shape[1], self._angles(x)
        q, (k, v) = self._turned(self._queries(x), angles), self._keys_and_values(x, angles)
        causal = self.window is None or (not traced() and self.window >= T)
        seen = None if causal else self._seen(torch.arange(T, device=x.device), T)  # (T, T)
        out = F.scaled_dot_product_attention(q, k, v, seen, is_causal=causal, enable_gqa=True)  # (B, H, T, D)
        return self.proj(out.transpose(1, 2).flatten(2))

    def at(self, x: Tensor, positions: Tensor) -> Tensor:  # (B, T, C), (B,) -> (B, C)
        """``self(x)`` at one position of each row: keys and values of all, which are few, but one query."""
        tokens = x[torch.arange(x.shape[0], device=x.device), positions][:, None]  # (B, 1, C)
        angles = self._angles(x)
        k, v = self._keys_and_values(x, angles)  # (B, G, T, D)
        own = angles and tuple(table[positions][:, None, None] for table in angles)  # (B, 1, 1, D)
        q = self._turned(self._queries(tokens), own)  # (B, H, 1, D)
        seen = self._seen(positions, x.shape[1])[:, None, None]  # (B, 1, 1, T)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)  # (B, H, 1, D)
        return self.proj(mixed.flatten(1))

    def _heads(self, x: Tensor) -> Tensor:  # (B, T, heads * D) -> (B, heads, T, D)
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    def _queries(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, H, T, D)
        return self.q_norm(self._heads(self.q(x)))

    def _keys_and_values(self, x: Tensor, angles: Angles | None) -> tuple[Tensor, Tensor]:  # (B, G, T, D)
        return self._turned(self.k_norm(self._heads(self.k(x))), angles), self._heads(self.v(x))

    def _turned(self, x: Tensor, angles: Angles | None) -> Tensor:
        return rotate(x, *angles) if angles else x

    def _angles(self, x: Tensor) -> Angles | None:  # (B, T, C) -> (T, D), (T, D)
        return angles_of(self.config.rotation(), x, self.config.n_positions) if self.rotary else None

    def _seen(self, positions: Tensor, n: int) -> Tensor:  # (N,) -> (N, n): which tokens a position sees
        distance = positions[:, None] - torch.arange(n, device=positions.device)
        return (distance >= 0) & (distance < (self.window or n))


class MLP(nn.Module):
    """SwiGLU: one linear layer opens and shuts another's channels."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        C, inner, bias = config.n_embd, config.n_inner, config.mlp_bias
        self.gate, self.up = nn.Linear(C, inner, bias), nn.Linear(C, inner, bias)
        self.down = nn.Linear(inner, C, bias)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """One transformer block: attention, then the MLP, each on a normalised copy of the stream."""

    def __init__(self, config: LlamaConfig, window: int | None, rotary: bool = True) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.n_embd, config.norm_eps)
        self.attn = Attention(config, window, rotary)
        self.norm2 = RMSNorm(config.n_embd, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T, C), (B,) -> (B, T, C)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def at(self, x: Tensor, positions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``self(x)`` at one position (B,) of each row: (B, C)."""
        pooled = x[torch.arange(x.shape[0], device=x.device), positions]
        pooled = pooled + self.attn.at(self.norm1(x), positions)
        return pooled + self.mlp(self.norm2(pooled))


class Llama(nn.Module):
    """The network without a purpose, as :class:`gptcls.core.gpt2.GPT2`: ids in, hidden vectors (B, T, C) out,
    in fp32 whatever the blocks compute in. Random weights are normal(0, 0.02), biases zero."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # token table
        windows = [config.window if i >= (config.window_from or 0) else None for i in range(config.n_layer)]
        every = config.rope_left_out or config.n_layer + 1
        self.blocks = nn.ModuleList(Block(config, w, i % every > 0) for i, w in enumerate(windows, start=1))
        self.norm = RMSNorm(config.n_embd, config.norm_eps, wide=True)
        self.lm_head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def embed(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        T = ids.shape[1]
        if (n := self.config.n_positions) < T:
            raise ValueError(f"{T} tokens do not fit the {n} positions; truncate to config.n_positions first")
        return self.wte(ids)

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T), (B,) -> (B, T, C)
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, lengths)
        return self.norm(x)

    def lm_logits(self, hidden: Tensor) -> Tensor:  # (B, T, C) -> (B, T, V)
        """Next-token logits; InputError where the weights have no language-model head."""
        if self.lm_head is None and not self.config.tied:
            raise InputError("these weights have no language-model head: they can classify, not generate")
        weight = self.wte.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(hidden.to(weight.dtype), weight)
