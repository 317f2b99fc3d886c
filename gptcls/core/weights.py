"""Published weights: other people's names for a network's tensors, turned into ours by one table. A name that
is not in it raises :class:`InputError`: what is not understood is never dropped."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from gptcls.core.errors import InputError

State = dict[str, Tensor]
log = logging.getLogger("gptcls")


@dataclass(frozen=True)
class NameMap:
    """The names that a kind of file has for the tensors of a network.

    Args:
        what: the network, for messages ("a Llama").
        table: a module's name there -> its name here; ``{}`` is the number of the block.
        prefix: stands before the table's names in a model with a head on top; may be absent in a file.
        bare: names of the table that never have the prefix.
        transposed: ends of our names whose matrices are stored (in, out) there; ``nn.Linear`` has (out, in).
        skipped: names of modules or buffers there that this network has no use for, such as masks.
        heads: names of modules there that are heads for another purpose: left out, and the log says so.
        kinds: other names of weight and bias.
    """

    what: str
    table: Mapping[str, str]
    prefix: str = ""
    bare: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)

    def to_ours(self, state: Mapping[str, Tensor]) -> State:
        """``state`` with our names and shapes.

        Raises InputError for a name that is unknown or there twice, and for a matrix that is not one.

        >>> import torch
        >>> file = {"transformer.h.3.mlp.c_fc.weight": torch.zeros(768, 3072)}
        >>> {name: tuple(tensor.shape) for name, tensor in GPT2_NAMES.to_ours(file).items()}
        {'blocks.3.mlp.fc.weight': (3072, 768)}
        """
        result, unknown, heads = {}, [], []
        for name, tensor in state.items():
            module, block, kind = parse(name.removeprefix(self.prefix))
            if module in self.skipped or f"{module}.{kind}" in self.skipped:
                continue
            kind = self.kinds.get(kind, kind)
            if module in self.heads:
                heads.append(name)
            elif module not in self.table or kind not in ("weight", "bias"):
                unknown.append(name)
            else:
                ours = f"{self.table[module].format(block)}.{kind}"
                if ours in result:
                    raise InputError(f"{name} is there twice, once under another name")
                result[ours] = self._turned(ours, tensor)
        if unknown:
            raise InputError(f"not part of {self.what}: {some(unknown)}")
        if heads:
            log.info(f"left out, as heads for another purpose: {some(heads)}")
        return result

    def to_theirs(self, state: Mapping[str, Tensor]) -> State:
        """Undoes :meth:`to_ours`, with the prefix: what ``save_pretrained`` of a model with a head writes."""
        return {self.theirs(name): self._turned(name, tensor).contiguous() for name, tensor in state.items()}

    def theirs(self, name: str) -> str:
        """One of our names in the file's spelling. Raises InputError for a name that is not ours.

        >>> GPT2_NAMES.theirs("blocks.3.mlp.fc.weight")
        'transformer.h.3.mlp.c_fc.weight'
        """
        module, block, kind = parse(name)
        back = {ours: theirs for theirs, ours in self.table.items()}
        if module not in back:
            raise InputError(f"{name} is not a tensor of {self.what}")
        prefix = "" if back[module] in self.bare else self.prefix
        return f"{prefix}{back[module].format(block)}.{kind}"

    def both(self, name: str) -> str:
        """One of our names for a message, with the spelling that the file has."""
        return f"{name} ({self.theirs(name)} in Hugging Face's names)"

    def _turned(self, name: str, tensor: Tensor) -> Tensor:
        if not name.endswith(self.transposed):
            return tensor
        if tensor.ndim != 2:
            raise InputError(f"{self.both(name)} has the shape {list(tensor.shape)}, not a matrix's")
        return tensor.t()  # a view: of a mapped file, it costs no memory until somebody copies it


# Hugging Face's names (transformers, modeling_gpt2.py). GPT-2's authors wrote linear layers as convolutions
# of width one, which store (in, out), and Hugging Face kept that (Conv1D).
GPT2_NAMES = NameMap(
    what="a GPT-2",
    table={
        "wte": "wte",
        "wpe": "wpe",
        "h.{}.ln_1": "blocks.{}.norm1",
        "h.{}.attn.c_attn": "blocks.{}.attn.qkv",
        "h.{}.attn.c_proj": "blocks.{}.attn.proj",
        "h.{}.ln_2": "blocks.{}.norm2",
        "h.{}.mlp.c_fc": "blocks.{}.mlp.fc",
        "h.{}.mlp.c_proj": "blocks.{}.mlp.proj",
        "ln_f": "norm",
        "lm_head": "lm_head",
    },
    prefix="transformer.",
    bare=("lm_head",),
    transposed=("attn.qkv.weight", "attn.proj.weight", "mlp.fc.weight", "mlp.proj.weight"),
    skipped=("h.{}.attn.bias", "h.{}.attn.masked_bias"),  # buffers with the causal mask, not weights
)


def parse(name: str) -> tuple[str, str, str]:
    """A tensor's name as its module's, the number of its block, and its kind.

    >>> parse("h.3.attn.c_attn.weight")
    ('h.{}.attn.c_attn', '3', 'weight')
    """
    module, _, kind = name.rpartition(".")
    found = re.search(r"\.(\d+)(?=\.|$)", module)
    if not found:
        return module, "", kind
    return f"{module[: found.start()]}.{{}}{module[found.end() :]}", found[1], kind


def some(names: list[str]) -> str:
    """The first three of several names, and how many there are besides."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
