"""A config.json of Hugging Face's, read entry by entry."""

from collections.abc import Callable, Mapping
from typing import Any

from gptcls.core.errors import InputError

SIZES = {  # our names of those that all families but GPT-2 spell alike
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
LARGEST = 2**20  # of any size: no network comes near, and the products of three of them fit 64 bits


class ConfigReader:
    """The entries of a config.json, each checked as it is read (InputError); null counts as absent.

    >>> ConfigReader({"hidden_size": 48}, "config.json").whole("hidden_size")
    48
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = {key: value for key, value in values.items() if value is not None}
        self.nulls = values.keys() - self.values.keys()
        self.source = source

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        wanted = f"a whole number from {least} to {LARGEST:,}"
        return self._checked(key, default, lambda v: type(v) is int and least <= v <= LARGEST, wanted)

    def sizes(self) -> dict[str, int]:
        return {ours: self.whole(theirs) for ours, theirs in SIZES.items()}

    def number(self, key: str, default: float | None = None) -> float:
        return float(self._checked(key, default, lambda v: _is_number(v) and v > 0, "a number above 0"))

    def share(self, key: str, default: float) -> float:
        wanted = "a number from 0 to below 1"
        return float(self._checked(key, default, lambda v: _is_number(v) and 0 <= v < 1, wanted))

    def flag(self, key: str, default: bool = False) -> bool:
        return self._checked(key, default, lambda v: type(v) is bool, "true or false")

    def build(self, kind: type, **values: Any) -> Any:
        """``kind(**values)``, whose ValueError becomes an InputError that names the file."""
        try:
            return kind(**values)
        except ValueError as error:
            raise InputError(f"{self.source}: {error}") from None

    def require(self, key: str, default: Any, *allowed: Any) -> None:
        """The entry must be one of ``allowed``, or absent and its ``default`` one."""
        wanted = f"{' or '.join(map(repr, allowed))}, all that is computed here"
        self._checked(key, default, lambda v: v in allowed, wanted)

    def _checked(self, key: str, default: Any, fits: Callable[[Any], bool], wanted: str) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise InputError(f"{self.source} has no {key}: take the file from where the weights are from")
        if not fits(value):
            raise InputError(f"{self.source} says {key} {value!r:.80}, which is not {wanted}")
        return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # not NaN, nor whole and too large for a float
