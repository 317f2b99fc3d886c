"""GPT-2 in pure PyTorch (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

One shape alphabet, used in every file of this package:

    B  batch      T  tokens      C  channels (the model's width)
    H  heads      D  = C / H, the width of one head
    V  vocabulary K  outputs of a classification head (its classes)
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.core.errors import InputError


@dataclass(frozen=True)
class GPT2Config:
    """The sizes of one GPT-2. The defaults are those of gpt2-small (124M)."""

    n_layer: int = 12
    n_embd: int = 768  # C
    n_head: int = 12  # H
    n_positions: int = 1024  # the longest sequence the position table knows
    vocab_size: int = 50257  # V
    dropout: float = 0.0  # after the embeddings, in attention and on both residual branches
    norm_eps: float = 1e-5
    tied: bool = True  # the language-model head is the token table, transposed
    causal: bool = True  # a token sees nothing behind it; see GPT2.drop_causal_mask

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head {self.n_head} does not divide n_embd {self.n_embd}")


PRESETS = {
    "gpt2-nano": GPT2Config(n_layer=3, n_embd=256, n_head=4, n_positions=256),  # ours, in this package
    "gpt2-small": GPT2Config(n_layer=12, n_embd=768, n_head=12),
    "gpt2-medium": GPT2Config(n_layer=24, n_embd=1024, n_head=16),
    "gpt2-large": GPT2Config(n_layer=36, n_embd=1280, n_head=20),
    "gpt2-xl": GPT2Config(n_layer=48, n_embd=1600, n_head=25),
}


class Attention(nn.Module):
    """Self-attention with H heads: every token looks at itself and at what stands before it; without the
    causal mask, at every real token of its text."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.causal = config.causal
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)  # query, key, value side by side
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T, C), (B,) -> (B, T, C)
        B, T, C = x.shape
        heads = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)  # (B, T, 3, H, D)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        real = None  # under the causal mask nobody sees the padding, which stands behind
        if not self.causal and lengths is not None:
            real = (torch.arange(T, device=x.device) < lengths[:, None])[:, None, None]  # (B, 1, 1, T)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=real, is_causal=self.causal, dropout_p=dropout
        )  # (B, H, T, D)
        return self.proj(mixed.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """The feed-forward half of a block: four times as wide inside."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        # GPT-2 was trained with the tanh approximation; the exact GELU differs by up to 5e-4 per call.
        return self.proj(F.gelu(self.fc(x), approximate="tanh"))


class Block(nn.Module):
    """One transformer block: attention, then the MLP, each on a normalised copy of the stream."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T, C), (B,) -> (B, T, C)
        x = x + self.drop(self.attn(self.norm1(x), lengths))
        return x + self.drop(self.mlp(self.norm2(x)))


class GPT2(nn.Module):
    """The network without a purpose: ids in, one hidden vector per token out.

    ``forward(ids (B, T), lengths (B,)) -> hidden (B, T, C)`` is ``norm(blocks(embed(ids)))``. How many of a
    row's tokens are real, the rest being padding, matters only to networks without a causal mask: here no
    token sees what follows, unless :meth:`drop_causal_mask` was called. What is done with the hidden vectors
    is decided elsewhere: :meth:`lm_logits` turns them into next-token logits, a
    :class:`gptcls.core.classifier.Classifier` pools them and puts its own head on top.

    The weights start as GPT-2's did: normal(0, 0.02), the two projections that write to the residual
    stream scaled down by sqrt(2 * n_layer), biases zero.
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # token table
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)  # position table
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd, eps=config.norm_eps)
        self.lm_head = None if config.tied else nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Attention | MLP):
            # 2 * n_layer branches add to one stream: without this its variance grows with the depth.
            nn.init.normal_(module.proj.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    def drop_causal_mask(self) -> "GPT2":
        """Let every token see all real tokens of its text, for good: the network can no longer write.

        The weights stay as they are; what they learnt under the mask may serve without it (LLM2Vec,
        BehnamGhader et al. 2024) once they are trained further.
        """
        self.config = replace(self.config, causal=False)
        for block in self.blocks:
            block.attn.causal = False
        return self

    def embed(self, ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        """Token vectors plus position vectors, the input of the first block."""
        T = ids.shape[1]
        if (n := self.config.n_positions) < T:
            raise ValueError(f"{T} tokens do not fit the {n} positions; truncate to config.n_positions first")
        return self.drop(self.wte(ids) + self.wpe.weight[:T])

    def forward(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:  # (B, T), (B,) -> (B, T, C)
        """Hidden vectors after the last block and the final norm."""
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, lengths)
        return self.norm(x)

    def lm_logits(self, hidden: Tensor) -> Tensor:  # (B, T, C) -> (B, T, V)
        """Next-token logits; tied to the token table unless the config says otherwise.

        Raises InputError without the causal mask.
        """
        if not self.config.causal:
            raise InputError(
                "without the causal mask a token sees what follows it before it could predict it: such a "
                "network can classify, not generate"
            )
        return F.linear(hidden, self.wte.weight if self.lm_head is None else self.lm_head.weight)
