"""LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models").

A linear layer stays as it is; next to it two thin matrices learn what should be added to it:

    y = x Wᵀ + b + scale · dropout(x) Aᵀ Bᵀ        W (out, in), A (r, in), B (out, r)

B starts at zero, so training starts at the pretrained network, which is any that is made of ``nn.Linear``.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError


@dataclass(frozen=True)
class LoRAConfig:
    """One adapter's, in our runs every adapter's. The defaults are those of the book's appendix E."""

    rank: int = 16  # r
    alpha: float = 16.0  # what is added is scaled by alpha / rank
    dropout: float = 0.0  # on the input of A, while training
    rslora: bool = (
        False  # scaled by alpha / sqrt(rank) (Kalajdzievski 2023, "A Rank Stabilization Scaling Factor")
    )

    @property
    def scale(self) -> float:  # so that another rank needs no other learning rate
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoRALinear(nn.Module):
    """``base``, frozen, and an adapter next to it, in fp32 whatever the base's format.

    ``weight`` and ``bias`` are those of the one linear layer that both make together: code that computes with
    a layer's matrix (``fast/one_position.py``, ``fast/fused.py``) sees and trains the adapter too.
    """

    def __init__(self, base: nn.Linear, config: LoRAConfig, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.config = config
        self.base = base.requires_grad_(False)
        self.dropout = nn.Dropout(config.dropout)
        options = {"bias": False, "device": device or base.weight.device, "dtype": torch.float32}
        # nn.Linear's own start, Kaiming uniform with a = sqrt(5), is that of A in loralib, PEFT and the book.
        self.lora_A = nn.Linear(base.in_features, config.rank, **options)
        self.lora_B = nn.Linear(config.rank, base.out_features, **options)
        nn.init.zeros_(self.lora_B.weight)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:  # (…, in) -> (…, out)
        y = self.base(x)
        update = self.lora_B(self.lora_A(self.dropout(x).to(self.lora_A.weight.dtype)))
        return y + (self.config.scale * update).to(y.dtype)

    @property
    def weight(self) -> Tensor:
        """W + scale · B A (out, in), in the base's format, without the dropout, which acts on inputs."""
        base = self.base.weight
        update = self.config.scale * (self.lora_B.weight @ self.lora_A.weight)
        return (base + update).to(base.dtype)  # added in fp32 and rounded once

    @property
    def bias(self) -> Tensor | None:  # LoRA adds none
        return self.base.bias


def add_lora(
    module: nn.Module, config: LoRAConfig, targets: Sequence[str] = ("*",), prefix: str = ""
) -> dict[str, LoRALinear]:
    """Wrap in place the linear layers of ``module`` whose names, or their ends, match one of ``targets``
    (``qkv``, ``attn.*``, ``blocks.11.*``); returns them by name. What trains is for the caller to decide.
    ``prefix`` stands before the names, where ``module`` is a part of a network. InputError where a pattern
    matches no layer, or no matrix could have that rank."""
    if not targets:
        raise InputError("--lora-targets names no layer to adapt; leave it out for all of them")
    linears, chosen = linear_layers(module, prefix), set()
    for pattern in targets:
        matching = {name for name in linears if fnmatchcase(f".{name}", f"*.{pattern}")}
        if not matching:
            kinds = ", ".join(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in linears))
            raise InputError(f"--lora-targets {pattern!r} matches no linear layer; there are {kinds}")
        chosen |= matching
    if config.rank > (most := max(min(linears[name].weight.shape) for name in chosen)):
        raise InputError(f"--lora-rank {config.rank} is not a low rank: these layers have at most {most}")
    layers = {name: LoRALinear(linear, config) for name, linear in linears.items() if name in chosen}
    for name, layer in layers.items():
        module.set_submodule(name.removeprefix(f"{prefix}."), layer)
    return layers


def freeze(classifier: Classifier, policy: str) -> None:
    """``classifier.freeze``, and ``"lora"``: :func:`learn_adapters`."""
    learn_adapters(classifier) if policy == "lora" else classifier.freeze(policy)


def learn_adapters(classifier: Classifier) -> None:
    """Train the head and the adapters that :func:`add_lora` put on the blocks, no norm, as in PEFT."""
    layers = lora_layers(classifier.backbone).values()
    if not layers:
        raise ValueError("there are no adapters to train; call add_lora first")
    adapted = [block for block in classifier.backbone.blocks if lora_layers(block)]
    classifier.learn(adapted, "lora", [part.weight for x in layers for part in (x.lora_A, x.lora_B)])


def linear_layers(module: nn.Module, prefix: str = "") -> dict[str, nn.Linear]:
    """The ``nn.Linear`` layers of ``module`` by name; ValueError where some are adapted already."""
    if lora_layers(module):
        raise ValueError("the network has adapters already; merge them first")
    return {name: x for name, x in module.named_modules(prefix=prefix) if isinstance(x, nn.Linear)}


def lora_layers(module: nn.Module) -> dict[str, LoRALinear]:
    return {name: x for name, x in module.named_modules() if isinstance(x, LoRALinear)}


@torch.no_grad()
def merge(module: nn.Module) -> dict[str, LoRALinear]:
    """Put a plain ``nn.Linear`` with the same effect in the place of every adapted layer. Returns the layers
    that were taken out, for :func:`unmerge`; drop them, and their memory is free."""
    layers = lora_layers(module)
    for name, layer in layers.items():
        linear = nn.Linear(layer.base.in_features, layer.base.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(layer.weight.contiguous(), requires_grad=False)
        linear.bias = layer.bias
        module.set_submodule(name, linear.train(layer.training))
    return layers


def unmerge(module: nn.Module, layers: dict[str, LoRALinear]) -> None:
    """Undo :func:`merge`, bit for bit: the layers that it took out, which nobody wrote to, come back."""
    for name, layer in layers.items():
        module.set_submodule(name, layer)


@contextmanager
def merged(module: nn.Module) -> Iterator[None]:
    """Inside, the adapters of ``module`` are merged; afterwards it is as before, bit for bit."""
    layers = merge(module)
    try:
        yield
    finally:
        unmerge(module, layers)
