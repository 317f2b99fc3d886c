"""LoRA and its variants: what is trained beside a network whose own matrices stay as they are.

Next to the matrix W of a linear layer two thin ones learn what should be added to it:

    LoRA     y = x Wᵀ + b + s · x Aᵀ Bᵀ       W (out, in), A (r, in), B (out, r), s = alpha / r
    rsLoRA   the same with s = alpha / sqrt(r)
    DoRA     y = (m / ‖V‖) ⊙ (x Vᵀ) + b       V = W + s B A; ‖V‖ (out,): how long each of its rows is
    LoRA+    any of them, where B learns at a higher rate than A

B starts at zero and m at ‖W‖, so training starts at the pretrained network, which is any that is made of
``nn.Linear``. A token table can be adapted too: it is a linear layer of one-hot rows. With dropout, what is
added to x Wᵀ + b reads dropout(x).

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"; Kalajdzievski 2023, "A Rank
Stabilization Scaling Factor for Fine-Tuning with LoRA"; Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank
Adaptation", which learns apart how long a row is and where it points; Hayou et al. 2024, "LoRA+: Efficient
Low Rank Adaptation of Large Models".
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError

TABLE = "wte"  # what every family calls its token table


@dataclass(frozen=True)
class LoRAConfig:
    """One adapter's, in our runs every adapter's. The defaults are those of the book's appendix E."""

    rank: int = 16  # r
    alpha: float = 16.0  # what is added is scaled by alpha / rank
    dropout: float = 0.0  # on the input of what is added, while training
    rslora: bool = False  # scaled by alpha / sqrt(rank)
    dora: bool = False  # the lengths of the rows are trained apart

    @property
    def scale(self) -> float:  # so that another rank needs no other learning rate
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class LoRALinear(nn.Module):
    """``base``, frozen, and an adapter next to it, in fp32 whatever the base's format.

    ``weight`` and ``bias`` are those of the one linear layer that both make together: code that computes with
    a layer's matrix (``fast/one_position.py``, ``fast/fused.py``) sees and trains the adapter too.
    """

    def __init__(
        self, base: nn.Linear | nn.Embedding, config: LoRAConfig, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.base = base.requires_grad_(False)
        self.dropout = nn.Dropout(config.dropout)
        n_out, n_in = self.matrix.shape
        options = {"bias": False, "device": device or base.weight.device, "dtype": torch.float32}
        # nn.Linear's own start, Kaiming uniform with a = sqrt(5), is that of A in loralib, PEFT and the book.
        self.lora_A = nn.Linear(n_in, config.rank, **options)
        self.lora_B = nn.Linear(config.rank, n_out, **options)
        nn.init.zeros_(self.lora_B.weight)
        lengths = _lengths(self.matrix.float()) if config.dora else None
        self.magnitude = nn.Parameter(lengths.to(options["device"])) if config.dora else None  # m (out,)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:  # (…, in) -> (…, out)
        y, dropped = self.base(x), self.dropout(x)
        update = self.config.scale * self.lora_B(self.lora_A(dropped.to(self.lora_A.weight.dtype)))
        if self.magnitude is not None:
            if self.training and self.config.dropout:
                plain = F.linear(dropped, self.base.weight)
            else:
                plain = y if self.bias is None else y - self.bias
            update = self.stretch * (plain + update) - plain
        return y + update.to(y.dtype)

    @property
    def matrix(self) -> Tensor:
        """W (out, in), the base's."""
        return self.base.weight

    @property
    def weight(self) -> Tensor:
        """The matrix (out, in) that base and adapter make together, in the base's format, without the
        dropout, which acts on inputs."""
        together = self.direction if self.magnitude is None else self.stretch[:, None] * self.direction
        return together.to(self.base.weight.dtype)  # computed in fp32 and rounded once

    @property
    def direction(self) -> Tensor:
        """W + scale · B A (out, in), DoRA's V."""
        return self.matrix + self.config.scale * (self.lora_B.weight @ self.lora_A.weight)

    @property
    def stretch(self) -> Tensor:
        """DoRA's m / ‖V‖ (out,). Section 4.3 takes ‖V‖ for a constant: no gradient goes through it."""
        with torch.no_grad():
            lengths = _lengths(self.direction)
        return self.magnitude / lengths

    @property
    def bias(self) -> Tensor | None:  # LoRA adds none
        return self.base.bias

    def adapter(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for name, p in self.named_parameters() if not name.startswith("base.")]


class LoRAEmbedding(LoRALinear):
    """The same for a table of vectors, ``nn.Embedding`` (V, C), whose transpose is the matrix of a linear
    layer of one-hot inputs: ids stand for these, and A x is a column of A (r, V). As in loralib and PEFT it
    is A that starts at zero here, and nothing is dropped."""

    bias = None

    def __init__(
        self, base: nn.Embedding, config: LoRAConfig, device: torch.device | str | None = None
    ) -> None:
        super().__init__(base, config, device)
        nn.init.zeros_(self.lora_A.weight)
        nn.init.normal_(self.lora_B.weight)

    def forward(self, ids: Tensor) -> Tensor:  # (…) -> (…, C)
        y = self.base(ids)
        update = self.config.scale * self.lora_B(F.embedding(ids, self.lora_A.weight.T))
        return (y + update if self.magnitude is None else self.stretch * (y + update)).to(y.dtype)

    @property
    def matrix(self) -> Tensor:
        return self.base.weight.T

    @property
    def weight(self) -> Tensor:
        """The table (V, C) that base and adapter make together."""
        return super().weight.T


def _lengths(matrix: Tensor) -> Tensor:  # (out, in) -> (out,)
    return matrix.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)  # a row of zeros stays one


def adapt(backbone: nn.Module, config: LoRAConfig, targets: Sequence[str] = ("*",)) -> dict[str, LoRALinear]:
    """:func:`add_lora` on the blocks of ``backbone`` and, where ``wte`` itself is one of the targets, on its
    token table; ``*`` does not mean that, as PEFT's ``all-linear`` does not."""
    inside, table = [target for target in targets if target != TABLE], getattr(backbone, TABLE, None)
    if TABLE in targets:
        if not isinstance(table, nn.Embedding):
            raise InputError(f"--lora-targets {TABLE}: this network has no token table of that name")
        _require_low(config.rank, [table])
    layers = add_lora(backbone.blocks, config, inside, prefix="blocks") if inside or not targets else {}
    if TABLE in targets:
        layers[TABLE] = LoRAEmbedding(table, config)
        backbone.set_submodule(TABLE, layers[TABLE])
    return layers


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
            there = f"there are {kinds}, and the token table as {TABLE}"
            raise InputError(f"--lora-targets {pattern!r} matches no linear layer; {there}")
        chosen |= matching
    _require_low(config.rank, [linears[name] for name in chosen])
    layers = {name: LoRALinear(linear, config) for name, linear in linears.items() if name in chosen}
    for name, layer in layers.items():
        module.set_submodule(name.removeprefix(f"{prefix}."), layer)
    return layers


def _require_low(rank: int, layers: Iterable[nn.Linear | nn.Embedding]) -> None:
    if rank > (most := max(min(layer.weight.shape) for layer in layers)):
        raise InputError(f"--lora-rank {rank} is not a low rank: these layers have at most {most}")


def freeze(classifier: Classifier, policy: str) -> None:
    """``classifier.freeze``, and ``"lora"``: :func:`learn_adapters`."""
    learn_adapters(classifier) if policy == "lora" else classifier.freeze(policy)


def learn_adapters(classifier: Classifier) -> None:
    """Train the head and the adapters that :func:`adapt` put on the backbone, no norm, as in PEFT."""
    backbone = classifier.backbone
    layers = lora_layers(backbone)
    if not layers:
        raise ValueError("there are no adapters to train; call add_lora first")
    adapted = [layers[TABLE]] if TABLE in layers else []
    adapted += [block for block in backbone.blocks if lora_layers(block)]
    classifier.learn(adapted, "lora", [p for layer in layers.values() for p in layer.adapter()])


def plus_groups(groups: Iterable[dict], backbone: nn.Module, factor: float) -> list[dict]:
    """LoRA+: an optimizer's parameter groups, in which every B learns ``factor`` times as fast as the rest
    (:class:`gptcls.core.loop.Trainer` reads ``lr_scale``). The paper's default is 16, with a lower rate for
    the rest. A token table's B, which does not start at zero, stays with the rest."""
    layers = lora_layers(backbone).values()
    fast = {id(layer.lora_B.weight) for layer in layers if not isinstance(layer, LoRAEmbedding)}
    split = []
    for group in groups:
        for scale, quick in ((1.0, False), (factor, True)):
            if chosen := [p for p in group["params"] if (id(p) in fast) is quick]:
                split.append(group | {"params": chosen, "lr_scale": scale})
    return split


def linear_layers(module: nn.Module, prefix: str = "") -> dict[str, nn.Linear]:
    """The ``nn.Linear`` layers of ``module`` by name; ValueError where some are adapted already."""
    if lora_layers(module):
        raise ValueError("the network has adapters already; merge them first")
    return {name: x for name, x in module.named_modules(prefix=prefix) if isinstance(x, nn.Linear)}


def lora_layers(module: nn.Module) -> dict[str, LoRALinear]:
    return {name: x for name, x in module.named_modules() if isinstance(x, LoRALinear)}


@torch.no_grad()
def merge(module: nn.Module) -> dict[str, LoRALinear]:
    """Put a plain layer with the same effect in the place of every adapted one. Returns the layers that were
    taken out, for :func:`unmerge`; drop them, and their memory is free."""
    layers = lora_layers(module)
    for name, layer in layers.items():
        weight = nn.Parameter(layer.weight.contiguous(), requires_grad=False)
        replaced = {id(layer.base.weight): weight, id(layer.bias): layer.bias}  # what is not to be copied
        module.set_submodule(name, deepcopy(layer.base, replaced).train(layer.training))
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
