"""Other people's names for a network's tensors, as one table: applied to a state dict, and back."""

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
    """Hugging Face's names of a family of networks.

    Args:
        what: the family, for messages ("a Llama").
        table: a module's name there -> its name here; ``{}`` is the number of the block.
        prefix: stands before the table's names in a model with a head on top; may be absent in a file.
        bare: names of the table that never have the prefix.
        skipped: names of modules or buffers there that this network has no use for, such as masks.
        heads: names of modules there that are heads for another purpose: left out, and the log says so.
        kinds: other names of weight and bias.
    """

    what: str
    table: Mapping[str, str]
    prefix: str
    bare: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)

    def to_ours(self, state: Mapping[str, Tensor]) -> State:
        """``state`` with our names. Raises InputError for a name that is unknown or stands there twice."""
        result: State = {}
        unknown, heads = [], []
        for name, tensor in state.items():
            module, block, kind = parse(name.removeprefix(self.prefix))
            if module in self.skipped or f"{module}.{kind}" in self.skipped:
                continue
            if module in self.heads:
                heads.append(name)
                continue
            if module not in self.table:
                unknown.append(name)
                continue
            ours = f"{self.table[module].format(block)}.{self.kinds.get(kind, kind)}"
            if ours in result:
                raise InputError(f"{name} is there twice, once under another name")
            result[ours] = tensor
        if unknown:
            raise InputError(f"not part of {self.what}: {some(unknown)}")
        if heads:
            log.info(f"left out, as heads for another purpose: {some(heads)}")
        return result

    def to_theirs(self, state: Mapping[str, Tensor]) -> State:
        """Undoes :meth:`to_ours`, with the prefix: what ``save_pretrained`` of a model with a head writes."""
        return {self.theirs(name): tensor for name, tensor in state.items()}

    def theirs(self, name: str) -> str:
        """One of our names in Hugging Face's spelling. Raises InputError for a name that is none of ours."""
        module, block, kind = parse(name)
        back = {ours: theirs for theirs, ours in self.table.items()}
        if module not in back:
            raise InputError(f"{name} is no tensor of {self.what}")
        prefix = "" if back[module] in self.bare else self.prefix
        return f"{prefix}{back[module].format(block)}.{kind}"

    def both(self, name: str) -> str:
        """One of our names for a message, with the spelling that the file has."""
        return f"{name} ({self.theirs(name)} in Hugging Face's names)"


def parse(name: str) -> tuple[str, str, str]:
    """A tensor's name as its module's, the number of its block, and its kind.

    >>> parse("h.3.attn.c_attn.weight")
    ('h.{}.attn.c_attn', '3', 'weight')
    """
    module, _, kind = name.rpartition(".")
    found = re.search(r"\.(\d+)\.", module + ".")
    if not found:
        return module, "", kind
    return (module[: found.start()] + ".{}." + module[found.end() :]).rstrip("."), found[1], kind


def some(names: list[str]) -> str:
    """The first three of several names, and how many there are besides."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
