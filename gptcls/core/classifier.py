"""A backbone, a pooler and a new head: how a pretrained network becomes a classifier."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gptcls.core.errors import InputError


def last_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The last real token's vector: under a causal mask the only one that has seen the whole text."""
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]


def first_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The first token's vector; under a causal mask it has seen nothing but itself."""
    return hidden[:, 0]


def mean_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The mean over the real tokens."""
    real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]  # (B, T)
    return (hidden * real[..., None]).sum(dim=1) / lengths[:, None]


def max_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Each channel's largest value over the real tokens: one telling word is enough, wherever it stands."""
    real = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]  # (B, T)
    return hidden.masked_fill(~real[..., None], -torch.inf).amax(dim=1)


def position_minus_one(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The last position, padding or not: what the book reads. Pad to a fixed length with it."""
    return hidden[:, -1]


# Each is (hidden (B, T, C), lengths (B,)) -> (B, C).
POOLERS = {
    "last": last_token,
    "first": first_token,
    "mean": mean_token,
    "max": max_token,
    "position-1": position_minus_one,
}


def pooled_positions(pooling: str, lengths: Tensor, width: int) -> Tensor | None:
    """The position (B,) that a pooler reads of each row in a batch ``width`` positions wide.

    None for the mean and the maximum, which read them all.
    """
    if pooling == "last":
        return lengths - 1
    if pooling == "first":
        return torch.zeros_like(lengths)
    if pooling == "position-1":
        return torch.full_like(lengths, width - 1)
    return None


def seen_lengths(pooling: str, lengths: Tensor, width: int) -> Tensor:
    """How many positions (B,) of each row the blocks may look at where no causal mask decides.

    The real tokens; for position-1, which takes the padding for a part of the text, all ``width``.
    """
    return torch.full_like(lengths, width) if pooling == "position-1" else lengths


class Classifier(nn.Module):
    """``head(pool(backbone(ids, lengths), lengths))``: logits (B, K) for a batch of texts.

    Args:
        backbone: any network with ``forward(ids (B, T), lengths (B,)) -> hidden (B, T, C)``, made of
            ``embed``, ``blocks`` and ``norm``, with ``config.n_embd`` (C) and ``config.n_positions``. Its
            real tokens' vectors hang on no padding. An untied language-model head is taken off it. Where
            blocks are in bf16, its norm gives fp32.
        n_outputs: K. The head is a fresh ``Linear(C, K)`` with torch's default initialisation.
        pooling: a key of :data:`POOLERS`.
    """

    def __init__(self, backbone: nn.Module, n_outputs: int, pooling: str = "last") -> None:
        super().__init__()
        self.backbone = backbone
        backbone.lm_head = None  # a head of its own, where the backbone has one, gives way to ours
        self.pooling = pooling
        self.head = nn.Linear(backbone.config.n_embd, n_outputs)
        self.policy, self.trained = "all", list(backbone.blocks)
        self.requires_grad_(True)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:  # (B, T), (B,) -> (B, K)
        hidden = self.backbone(ids, seen_lengths(self.pooling, lengths, ids.shape[1]))
        return self.head(POOLERS[self.pooling](hidden, lengths))

    def freeze(self, policy: str) -> None:
        """Decide which parameters train.

        ``"head"``: the head alone. ``"last_block"``: also the last block and the final norm, as in the
        book. ``"last_2"``, ``"last_3"``, …: as many last blocks. ``"all"``: everything. What does
        not train is a fixed function and stays in eval mode; what does is held in fp32 from here on.
        """
        blocks = list(self.backbone.blocks)
        n_trained = trained_blocks(policy, len(blocks))
        if policy == "all":
            self.learn([self.backbone], policy)
        else:
            self.learn([*blocks[len(blocks) - n_trained :], self.backbone.norm] if n_trained else [], policy)

    def learn(self, modules: Iterable[nn.Module], policy: str) -> None:
        """Train these modules and the head alone, under the name ``policy``."""
        self.policy = policy
        self.requires_grad_(False)
        for module in (self.head, *modules):
            module.requires_grad_(True)
        self.trained = [b for b in self.backbone.blocks if any(p.requires_grad for p in b.parameters())]
        for parameter in self.trained_parameters().values():
            parameter.data = parameter.data.float()  # the steps of training are too small for bf16
        self.train(self.training)

    @property
    def frozen_blocks(self) -> int:
        """How many of the first blocks, and the embeddings below them, are a fixed function of the text."""
        trains = [any(p.requires_grad for p in block.parameters()) for block in self.backbone.blocks]
        return trains.index(True) if True in trains else len(trains)

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode for what is trained; frozen parts stay in eval mode (no dropout)."""
        super().train(mode)
        if self.policy != "all":
            self.backbone.eval()
            for block in self.trained:
                block.train(mode)
        return self

    @property
    def n_outputs(self) -> int:
        """K, the width of the head."""
        return self.head.out_features

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def trained_blocks(policy: str, n_layer: int) -> int:
    """How many of the last blocks a ``--train`` policy trains; raises InputError for an unknown policy."""
    if policy == "all":
        return n_layer
    if policy == "head":
        return 0
    if policy == "last_block":
        return 1
    match = re.fullmatch(r"last_([1-9]\d*)", policy)
    if match is None:
        raise InputError(f"--train {policy!r} is unknown; use head, last_block, last_2, …, all or lora")
    if int(match[1]) > n_layer:
        raise InputError(f"--train {policy!r}: the model has only {n_layer} blocks; use all")
    return int(match[1])
