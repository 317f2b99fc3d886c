"""A config.json of Hugging Face's, read entry by entry."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from gptcls.core.errors import InputError


class Entries:
    """config.json's entries, each checked as it is read; null counts as absent.

    Raises InputError, as each of its methods, where the weights are quantized.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = {key: value for key, value in values.items() if value is not None}
        self.nulls = values.keys() - self.values.keys()
        self.source = source
        if "quantization_config" in self.values:
            raise InputError(f"{source} describes quantized weights: take the checkpoint in bf16 or fp32")

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        wanted = f"a whole number above {least - 1}"
        return self._checked(key, default, lambda v: type(v) is int and v >= least, wanted)

    def number(self, key: str, default: float | None = None) -> float:
        return float(
            self._checked(
                key, default, lambda v: type(v) in (int, float) and 0 < v < math.inf, "a number above 0"
            )
        )

    def share(self, key: str, default: float) -> float:
        return float(
            self._checked(
                key, default, lambda v: type(v) in (int, float) and 0 <= v < 1, "a number from 0 to below 1"
            )
        )

    def flag(self, key: str) -> bool:
        return self._checked(key, False, lambda v: type(v) is bool, "true or false")

    def require(self, key: str, default: Any, *allowed: Any) -> Any:
        wanted = " or ".join(map(repr, allowed))
        return self._checked(key, default, lambda v: v in allowed, f"{wanted}, all that is computed here")

    def _checked(self, key: str, default: Any, fits: Callable[[Any], bool], wanted: str) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise InputError(f"{self.source} has no {key}: take the config.json of the checkpoint")
        if not fits(value):
            raise InputError(f"{self.source} says {key} {value!r}, which is not {wanted}")
        return value
