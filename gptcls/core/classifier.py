"""A backbone, a pooler and a new head: how a pretrained network becomes a classifier."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gptcls.core.errors import InputError


class Pooler(nn.Module):
    """What the head reads of a text: hidden vectors (B, T, C) and lengths (B,) -> (B, C).

    A new one is a class in :data:`POOLERS`. It is built for a width C and may have parameters, which are
    trained and saved with the head.
    """

    sees_padding = False  # whether the padding counts as a part of the text

    def __init__(self, width: int) -> None:
        super().__init__()

    def positions(self, lengths: Tensor, width: int) -> Tensor | None:
        """The one position (B,) that is read of each row in a batch ``width`` positions wide, and thus all
        that is needed of the last block; None: several."""
        return None

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:  # (B, T, C), (B,) -> (B, C)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return hidden[rows, self.positions(lengths, hidden.shape[1])]


class LastToken(Pooler):
    """The last real token's vector: under a causal mask the only one that has seen the whole text."""

    def positions(self, lengths: Tensor, width: int) -> Tensor:
        return lengths - 1


class FirstToken(Pooler):
    """The first token's vector; under a causal mask it has seen nothing but itself."""

    def positions(self, lengths: Tensor, width: int) -> Tensor:
        return torch.zeros_like(lengths)


class PositionMinusOne(Pooler):
    """The last position, padding or not: what the book reads. Pad to a fixed length with it."""

    sees_padding = True

    def positions(self, lengths: Tensor, width: int) -> Tensor:
        return torch.full_like(lengths, width - 1)


class MeanToken(Pooler):
    """The mean over the real tokens."""

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        return (hidden * _real(hidden, lengths)).sum(dim=1) / lengths[:, None]


class MaxToken(Pooler):
    """Each channel's largest value over the real tokens: one telling word is enough, wherever it is."""

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        return hidden.masked_fill(~_real(hidden, lengths), -torch.inf).amax(dim=1)


def _real(hidden: Tensor, lengths: Tensor) -> Tensor:  # (B, T, C), (B,) -> (B, T, 1)
    return (torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None])[..., None]


POOLERS: dict[str, type[Pooler]] = {
    "last": LastToken, "first": FirstToken, "mean": MeanToken, "max": MaxToken,
    "position-1": PositionMinusOne,
}  # fmt: skip


class Classifier(nn.Module):
    """``head(pool(backbone(ids, lengths), lengths))``: logits (B, K) for a batch of texts.

    The backbone is any network with ``forward(ids (B, T), lengths (B,)) -> hidden (B, T, C)``, made of
    ``embed(ids)``, ``blocks``, each called as ``block(x, lengths)``, and ``norm(x)``, with ``config.n_embd``
    (C) and ``config.n_positions``. Padding changes no real token's vector. An untied language-model head is
    taken off it. Where blocks are in bf16, its norm gives fp32. The head is a fresh ``Linear(C, K)``, without
    a bias where ``head_bias`` says so; ``pooling`` is a key of :data:`POOLERS`.
    """

    def __init__(
        self, backbone: nn.Module, n_outputs: int, pooling: str = "last", head_bias: bool = True
    ) -> None:
        super().__init__()
        self.backbone = backbone
        backbone.lm_head = None  # a head of its own, where the backbone has one, gives way to ours
        self.pooling = pooling
        self.pool = POOLERS[pooling](backbone.config.n_embd)
        self.head = nn.Linear(backbone.config.n_embd, n_outputs, head_bias)
        self.policy, self.learning = "all", [backbone]
        self.requires_grad_(True)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:  # (B, T), (B,) -> (B, K)
        hidden = self.backbone(ids, self.seen(lengths, ids.shape[1]))
        return self.head(self.pool(hidden, lengths))

    def seen(self, lengths: Tensor, width: int) -> Tensor:
        """How many positions (B,) of each row the blocks may look at where no causal mask decides."""
        return torch.full_like(lengths, width) if self.pool.sees_padding else lengths

    def freeze(self, policy: str) -> None:
        """Decide what is trained next to the head: for ``"head"`` nothing, ``"last_block"`` the last block
        and the final norm, as in the book, ``"last_2"``, … more blocks, ``"blocks"`` all of them but not
        the tables below, ``"all"`` everything."""
        blocks = list(self.backbone.blocks)
        n_trained = trained_blocks(policy, len(blocks))
        last = blocks[len(blocks) - n_trained :]
        modules = [self.backbone] if policy == "all" else [*last, self.backbone.norm] if last else []
        self.learn(modules, policy)

    def learn(
        self, modules: Iterable[nn.Module], policy: str, parameters: Iterable[nn.Parameter] | None = None
    ) -> None:
        """Train the head, the pooler and these parts of the backbone, by default with all their parameters,
        and nothing else; ``policy`` names that choice in the saved classifier.

        What does not train is a fixed function and stays in eval mode; what does is held in fp32.
        """
        self.policy, self.learning = policy, list(modules)
        everything = (p for module in self.learning for p in module.parameters())
        chosen = everything if parameters is None else parameters
        self.requires_grad_(False)
        for parameter in (*self.head.parameters(), *self.pool.parameters(), *chosen):
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()  # the steps of training are too small for bf16
        self.train(self.training)

    @property
    def frozen_blocks(self) -> int:
        """How many of the first blocks, and the embeddings below them, are a fixed function of the text."""
        learning = (name.split(".") for name, p in self.backbone.named_parameters() if p.requires_grad)
        trained = [int(name[1]) if name[0] == "blocks" else 0 for name in learning if name[0] != "norm"]
        return min(trained, default=len(self.backbone.blocks))

    def train(self, mode: bool = True) -> "Classifier":
        """Training mode for what is trained; frozen parts stay in eval mode (no dropout)."""
        super().train(mode)
        self.backbone.eval()
        for module in self.learning:
            module.train(mode)
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
    named = {"all": n_layer, "blocks": n_layer, "head": 0, "last_block": 1}
    if policy in named:
        return named[policy]
    match = re.fullmatch(r"last_([1-9]\d*)", policy)
    if match is None:
        known = "head, last_block, last_2, …, blocks, all or lora"
        raise InputError(f"--train {policy!r} is unknown; use {known}")
    if int(match[1]) > n_layer:
        raise InputError(f"--train {policy!r}: the model has only {n_layer} blocks; use all")
    return int(match[1])
