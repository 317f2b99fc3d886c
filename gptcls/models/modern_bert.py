"""ModernBERT (Warner et al. 2024) in pure PyTorch: an encoder with what the decoders learnt since BERT.

What differs from BERT: rotary positions; blocks that read a normalised copy of the stream, as GPT-2's; a
gated MLP; no biases; and most blocks look no further than a window, every third at the whole text. The shape
alphabet is that of ``core/gpt2.py``; Q is the number of tokens whose output is wanted, T or 1.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.models.bert import Encoder, EncoderConfig
from gptcls.models.rotary import Rotation, angles_of, rotate


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig(EncoderConfig):
    """The sizes of one ModernBERT."""

    window: int = 64  # how far a token sees to either side, where it does not see all
    whole_every: int = 3  # the first and every third block after it see the whole text
    whole_theta: float = 160_000.0  # of the rotary positions there
    near_theta: float = 10_000.0  # and in the other blocks
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attn_bias: bool = False
    mlp_bias: bool = False
    pooler_bias: bool = False
    dropout: float = 0.0  # after the embeddings
    attn_dropout: float = 0.0  # on the attention's weights, and behind it
    mlp_dropout: float = 0.0
    pooler: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rotation(0)  # refuses an odd number of channels

    def rotation(self, block: int) -> Rotation:
        """How positions turn queries and keys there."""
        theta = self.near_theta if block % self.whole_every else self.whole_theta
        return Rotation(self.n_embd // self.n_head, theta)

    def norm(self) -> nn.LayerNorm:
        """One of its norms."""
        return nn.LayerNorm(self.n_embd, eps=self.norm_eps, bias=self.norm_bias)


class Attention(nn.Module):
    """Self-attention with H heads: a token looks at the real tokens of its text, or those in the window."""

    def __init__(self, config: ModernBertConfig, block: int) -> None:
        super().__init__()
        C, self.config, self.rotation = config.n_embd, config, config.rotation(block)
        self.window = config.window if block % config.whole_every else None
        self.qkv = nn.Linear(C, 3 * C, bias=config.attn_bias)
        self.proj = nn.Linear(C, C, bias=config.attn_bias)
        self.drop = nn.Dropout(config.attn_dropout)

    def forward(self, x: Tensor, lengths: Tensor | None, positions: Tensor | None = None) -> Tensor:
        """What the tokens of x (B, T, C), or those at ``positions`` (B,), read of its first ``lengths`` (B,):
        (B, Q, C)."""
        angles = angles_of(self.rotation, x, self.config.n_positions)  # (T, D)
        at = torch.arange(x.shape[1], device=x.device)  # (T,)
        q, k, v = (self._heads(part) for part in self.qkv(x).chunk(3, dim=-1))  # (B, H, T, D)
        k, asked, own = rotate(k, *angles), at[None], angles
        if positions is not None:
            q = q.gather(2, positions[:, None, None, None].expand(-1, q.shape[1], 1, q.shape[3]))
            asked = positions[:, None]  # (B, 1)
            own = tuple(table[positions][:, None, None] for table in angles)  # (B, 1, 1, D)
        seen = self._seen(asked, at, lengths)
        dropout = self.config.attn_dropout if self.training else 0.0
        q = rotate(q, *own)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)  # (B, H, Q, D)
        return self.drop(self.proj(mixed.transpose(1, 2).flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, H, T, D)
        return x.unflatten(-1, (self.config.n_head, -1)).transpose(1, 2)

    def _seen(self, asked: Tensor, at: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Which tokens (T,) those at ``asked`` (1 or B, Q) see: (1 or B, 1, Q, T)."""
        real = None if lengths is None else (at < lengths[:, None])[:, None, None]  # (B, 1, 1, T)
        if self.window is None:
            return real
        near = (asked[:, :, None] - at).abs()[:, None] <= self.window
        if real is None:
            return near
        # Padding far behind its text would see nothing, and its NaN reach the gradients: it sees itself.
        return near & (real | (asked[:, None, :, None] == at))


class MLP(nn.Module):
    """GeGLU (Shazeer 2020): one half of a linear layer's channels opens and shuts the other."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.n_embd, 2 * config.n_inner, bias=config.mlp_bias)
        self.proj = nn.Linear(config.n_inner, config.n_embd, bias=config.mlp_bias)
        self.drop = nn.Dropout(config.mlp_dropout)

    def forward(self, x: Tensor) -> Tensor:  # (B, Q, C) -> (B, Q, C)
        opened, gate = self.fc(x).chunk(2, dim=-1)
        return self.proj(self.drop(F.gelu(opened) * gate))


class Block(nn.Module):
    """One transformer block: attention, then the MLP, each on a normalised copy of the stream."""

    def __init__(self, config: ModernBertConfig, block: int) -> None:
        super().__init__()
        self.norm1 = config.norm() if block else nn.Identity()  # the embeddings are normalised already
        self.attn = Attention(config, block)
        self.norm2 = config.norm()
        self.mlp = MLP(config)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T, C), (B,) -> (B, T, C)
        x = x + self.attn(self.norm1(x), lengths)
        return x + self.mlp(self.norm2(x))

    def at(self, x: Tensor, positions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``self(x, lengths)`` at one position (B,) of each row (B, T, C): (B, C)."""
        tokens = x[torch.arange(x.shape[0], device=x.device), positions]
        tokens = tokens + self.attn(self.norm1(x), lengths, positions)[:, 0]
        return tokens + self.mlp(self.norm2(tokens))


class Final(nn.Module):
    """The final norm and, if there is one, what the head for masked words put before it, which serves a
    classifier too: a linear layer, GELU, another norm. Token by token, so the first may be taken before."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.norm = config.norm()
        self.dense = nn.Linear(config.n_embd, config.n_embd, config.pooler_bias) if config.pooler else None
        self.after = config.norm() if config.pooler else None

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., C)
        x = self.norm(x)
        return x if self.dense is None else self.after(F.gelu(self.dense(x)))


class ModernBert(Encoder):
    """ModernBERT: no table of positions, and a final norm."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # token table
        self.embed_norm = config.norm()
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.n_layer))
        self.norm = Final(config)
        self.apply(self._init_weights)

    def embed(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        self.require_fit(ids)
        return self.drop(self.embed_norm(self.wte(ids)))

    def drop_pooler(self) -> None:
        """Hand on the final norm alone, where what is read of it is not the first token."""
        self.norm.dense = self.norm.after = None
        self.config = replace(self.config, pooler=False)
