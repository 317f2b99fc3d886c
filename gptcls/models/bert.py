"""BERT (Devlin et al. 2019) and its kin in pure PyTorch: RoBERTa (Liu et al. 2019), XLM-RoBERTa, CamemBERT,
DistilBERT (Sanh et al. 2019), ELECTRA (Clark et al. 2020), ERNIE (Sun et al. 2021). Encoders read a text from
both sides at once: they classify and cannot continue it; here they are what a decoder is held against.

What differs from GPT-2: no causal mask, so padding has to be masked; blocks that normalise the stream itself
after each addition, not a copy of it before; token vectors that know their segment; the exact GELU; a pooler.

The shape alphabet is that of ``core/gpt2.py``; Q is the number of tokens whose output is wanted, T or 1.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.core.errors import InputError

POOLER_ACTS = {"tanh": torch.tanh, "gelu": F.gelu, "relu": F.relu}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The sizes that every encoder has."""

    n_layer: int
    n_embd: int  # C
    n_head: int  # H
    n_inner: int  # width inside the MLP
    n_positions: int  # the longest sequence the network was made for
    vocab_size: int  # V

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head {self.n_head} does not divide n_embd {self.n_embd}")


@dataclass(frozen=True, kw_only=True)
class BertConfig(EncoderConfig):
    """The sizes of one BERT."""

    n_segments: int | None  # rows of the segment table, if there is one
    n_table: int | None = None  # width of the tables where it is not C: ELECTRA's are narrower
    norm_eps: float = 1e-12
    dropout: float = 0.1  # after the embeddings and on both branches of a block
    attn_dropout: float = 0.1  # on the attention's weights
    pooler: bool = True
    pooler_act: str = "tanh"  # one of POOLER_ACTS
    sep_id: int | None = None  # what stands behind it is segment 1; None: a text alone

    def __post_init__(self) -> None:
        super().__post_init__()
        require_pooler_act(self.pooler_act)


def require_pooler_act(name: str) -> None:
    """ValueError for none of :data:`POOLER_ACTS`."""
    if name not in POOLER_ACTS:
        raise ValueError(f"pooler_act {name!r} is none of {', '.join(POOLER_ACTS)}")


class RobertaConfig(BertConfig):
    """The sizes of one RoBERTa: the same network, otherwise trained and otherwise stored."""


class DistilBertConfig(BertConfig):
    """The sizes of one DistilBERT: half the blocks, and no segments."""


class ElectraConfig(BertConfig):
    """The sizes of one ELECTRA: trained to find the tokens that another network put in."""


class ErnieConfig(BertConfig):
    """The sizes of one ERNIE: a BERT that also learnt a vector for each kind of task."""


class Attention(nn.Module):
    """Self-attention with H heads: every token looks at all real tokens of its text."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        C, self.n_head, self.dropout = config.n_embd, config.n_head, config.attn_dropout
        self.q, self.k, self.v, self.proj = (nn.Linear(C, C) for _ in range(4))

    def forward(self, x: Tensor, lengths: Tensor | None, positions: Tensor | None = None) -> Tensor:
        """What the tokens of x (B, T, C), or those at ``positions`` (B,), read of its first ``lengths`` (B,):
        (B, Q, C)."""
        tokens = x
        if positions is not None:
            tokens = x[torch.arange(x.shape[0], device=x.device), positions][:, None]
        q, k, v = self._heads(self.q(tokens)), self._heads(self.k(x)), self._heads(self.v(x))
        at = torch.arange(x.shape[1], device=x.device)  # (T,)
        real = None if lengths is None else at < lengths[:, None, None, None]  # (B, 1, 1, T)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=real, dropout_p=dropout)  # (B, H, Q, D)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, H, T, D)
        return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)


class MLP(nn.Module):
    """The feed-forward half of a block."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(config.n_embd, config.n_inner)
        self.proj = nn.Linear(config.n_inner, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:  # (B, Q, C) -> (B, Q, C)
        return self.proj(F.gelu(self.fc(x)))


class Block(nn.Module):
    """One transformer block: attention, then the MLP, each added to the stream, which is normalised then."""

    def __init__(self, config: Any, attn: nn.Module) -> None:
        super().__init__()
        self.attn = attn
        self.norm1 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T, C), (B,) -> (B, T, C)
        return self._add(x, self.attn(x, lengths))

    def at(self, x: Tensor, positions: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``self(x, lengths)`` at one position (B,) of each row (B, T, C): (B, C)."""
        tokens = x[torch.arange(x.shape[0], device=x.device), positions]
        return self._add(tokens, self.attn(x, lengths, positions)[:, 0])

    def _add(self, x: Tensor, read: Tensor) -> Tensor:  # (..., C), (..., C) -> (..., C)
        x = self.norm1(x + self.drop(read))
        return self.norm2(x + self.drop(self.mlp(x)))


class Pooler(nn.Module):
    """A linear layer and its activation: what BERT learned to put between its first token and any head."""

    def __init__(self, width: int, activation: str) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.activation = POOLER_ACTS[activation]

    def forward(self, x: Tensor) -> Tensor:  # (..., C) -> (..., C)
        return self.activation(self.dense(x))


class Encoder(nn.Module):
    """A network without a purpose, as :class:`gptcls.core.gpt2.GPT2`: ids in, hidden vectors (B, T, C) out;
    what stands behind the lengths is masked. It has ``embed``, ``blocks`` and a final ``norm``, which works
    token by token, so that a token may be taken before it. What BERT and its successors share."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def require_fit(self, ids: Tensor) -> None:
        """ValueError for more tokens (B, T) than there are positions."""
        T, n = ids.shape[1], self.config.n_positions
        if n < T:
            raise ValueError(f"{T} tokens do not fit the {n} positions; truncate to config.n_positions first")

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T), (B,) -> (B, T, C)
        """Without ``lengths`` every id is a real one."""
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, lengths)
        return self.norm(x)

    def drop_pooler(self) -> None:
        """Hand on what the last block leaves: the pooler learnt to speak for the first token alone."""
        self.norm = nn.Identity()
        self.config = replace(self.config, pooler=False)

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """InputError: part of the contract, and nothing that an encoder has."""
        raise InputError("an encoder sees what follows: it can classify, not generate; take a decoder")


class Bert(Encoder):
    """BERT, whose last block has normalised its output already: the final ``norm`` is the pooler, if any."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        C, E = config.n_embd, config.n_table or config.n_embd
        self.wte = nn.Embedding(config.vocab_size, E)  # token table
        self.wpe = nn.Embedding(config.n_positions, E)  # position table
        self.wse = nn.Embedding(config.n_segments, E) if config.n_segments else None  # segment table
        self.embed_norm = nn.LayerNorm(E, eps=config.norm_eps)
        self.widen = nn.Linear(E, C) if config.n_table else nn.Identity()
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, Attention(config)) for _ in range(config.n_layer))
        self.norm = Pooler(C, config.pooler_act) if config.pooler else nn.Identity()
        self.apply(self._init_weights)

    def mark_segments(self, sep_id: int | None) -> None:
        """Take what stands behind the first ``sep_id`` of a row for segment 1, where there is a second one;
        a text alone has it at its end at most."""
        two = (self.config.n_segments or 0) > 1
        self.config = replace(self.config, sep_id=sep_id if two else None)

    def embed(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        self.require_fit(ids)
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]  # (B, T, E)
        if self.wse is not None and self.config.sep_id is None:
            x = x + self.wse.weight[0]
        elif self.wse is not None:
            seen = (ids == self.config.sep_id).long()
            x = x + self.wse((seen.cumsum(dim=1) > seen).long())  # of (B, T) zeros and ones
        return self.widen(self.drop(self.embed_norm(x)))
