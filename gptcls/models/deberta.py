"""DeBERTa-v3 (He et al. 2021, 2023) in pure PyTorch: an encoder whose attention keeps what and where apart.

What differs from BERT: no position is added to a token. A score is the sum of three products instead: what
one token asks and what the other says, what it asks and how far the other stands away, how far it stands away
and what the other says. Distances have a table of their own, shared by all blocks, in which far ones share a
row. The shape alphabet is that of ``core/gpt2.py``; Q is the number of tokens whose output is wanted, T or 1,
and S the number of distances to either side.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gptcls.models import bert
from gptcls.models.bert import Block, Encoder, EncoderConfig, Pooler, require_pooler_act


@dataclass(frozen=True, kw_only=True)
class DebertaConfig(EncoderConfig):
    """The sizes of one DeBERTa-v3."""

    n_distances: int  # S
    farthest: int  # tokens away, at which the last row of the table of distances is reached
    norm_eps: float = 1e-7
    dropout: float = 0.1  # after the embeddings, on distances, and on both branches of a block
    attn_dropout: float = 0.1  # on the attention's weights
    pooler: bool = True
    pooler_act: str = "gelu"  # one of bert.POOLER_ACTS

    def __post_init__(self) -> None:
        super().__post_init__()
        require_pooler_act(self.pooler_act)
        if not 4 <= self.n_distances < 2 * (self.farthest - 1):
            said = f"{self.n_distances} distances do not reach {self.farthest} tokens"
            raise ValueError(f"{said} by logarithms")


class Distances(nn.Module):
    """A vector for each distance between two tokens, -S to S - 1, and which row a distance has."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.n, self.farthest = config.n_distances, config.farthest
        self.table = nn.Embedding(2 * config.n_distances, config.n_embd)
        self.norm = nn.LayerNorm(config.n_embd, eps=config.norm_eps)

    def forward(self) -> Tensor:  # -> (2S, C)
        return self.norm(self.table.weight)

    def rows(self, distance: Tensor) -> Tensor:
        """The row of each distance in tokens (...): as they are up to S / 2, farther ones by logarithms."""
        half = self.n // 2
        far = (distance.abs().clamp(min=half) / half).log() / math.log((self.farthest - 1) / half)
        bucket = half + (far * (half - 1)).ceil().long()
        near = distance.abs() <= half
        return (torch.where(near, distance, bucket * distance.sign()) + self.n).clamp(0, 2 * self.n - 1)


class Attention(bert.Attention):
    """Disentangled self-attention with H heads: every token looks at all real tokens of its text."""

    def __init__(self, config: DebertaConfig, distances: Distances) -> None:
        super().__init__(config)
        self.drop, self.attn_drop = nn.Dropout(config.dropout), nn.Dropout(config.attn_dropout)
        self._shared = (distances,)  # in a tuple: it is the network's, not this block's

    def forward(self, x: Tensor, lengths: Tensor | None, positions: Tensor | None = None) -> Tensor:
        """What the tokens of x (B, T, C), or those at ``positions`` (B,), read of its first ``lengths`` (B,):
        (B, Q, C)."""
        (distances,) = self._shared
        T = torch.arange(x.shape[1], device=x.device)
        asking, asked = x, T[None]  # (B, Q, C), (1 or B, Q)
        if positions is not None:
            rows = torch.arange(x.shape[0], device=x.device)
            asking, asked = x[rows, positions][:, None], positions[:, None]
        q, k, v = self._heads(self.q(asking)), self._heads(self.k(x)), self._heads(self.v(x))  # (B, H, ., D)
        where = self.drop(distances().to(x.dtype))[None]  # (1, 2S, C)
        where_q, where_k = self._heads(self.q(where)), self._heads(self.k(where))  # (1, H, 2S, D)
        rows = distances.rows(asked[:, :, None] - T)[:, None]  # (1 or B, 1, Q, T)
        rows = rows.expand(x.shape[0], self.n_head, -1, -1)
        scores = q @ k.mT + (q @ where_k.mT).gather(-1, rows)  # (B, H, Q, T)
        scores = scores + (k @ where_q.mT).gather(-1, rows.mT).mT
        scores = scores / math.sqrt(3 * q.shape[-1])
        if lengths is not None:
            scores = scores.masked_fill(lengths[:, None, None, None] <= T, torch.finfo(scores.dtype).min)
        mixed = self.attn_drop(scores.softmax(dim=-1)) @ v  # (B, H, Q, D)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Deberta(Encoder):
    """DeBERTa-v3, whose last block has normalised its output already: the final ``norm`` is the pooler."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # token table
        self.embed_norm = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)
        self.distances = Distances(config)
        self.blocks = nn.ModuleList(
            Block(config, Attention(config, self.distances)) for _ in range(config.n_layer)
        )
        self.norm = Pooler(config.n_embd, config.pooler_act) if config.pooler else nn.Identity()
        self.apply(self._init_weights)

    def embed(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        self.require_fit(ids)
        return self.drop(self.embed_norm(self.wte(ids)))
