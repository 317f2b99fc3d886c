"""What the options of the verbs have in common: from and to config.json, checks, names for messages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from gptcls.core.errors import InputError

AnyOptions = TypeVar("AnyOptions", bound="Options")


class Options:
    """Base of the frozen dataclasses that describe a run and can be read back from its folder."""

    PATHS: ClassVar[tuple[str, ...]] = ()  # the options that hold a path

    def to_json(self) -> dict:
        """Plain values for config.json; :meth:`from_json` reads them back."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls: type[AnyOptions], values: Mapping[str, Any]) -> AnyOptions:
        """Options that :meth:`to_json` wrote."""
        read = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        paths = {k: Path(values[k]) for k in cls.PATHS if values.get(k)}
        return cls(**read | paths)

    def differences(self: AnyOptions, other: AnyOptions) -> list[str]:
        """The flags of the options that were set here, not left at their default, and differ there."""
        return [
            flag(f.name)
            for f in fields(self)
            if getattr(self, f.name) not in (f.default, getattr(other, f.name))
        ]

    def check_at_least(self, least: Mapping[str, float]) -> None:
        """Raise InputError for the first number that is below its bound, or is not a number.

        lr and lora_alpha must exceed 0, which would have no effect.
        """
        for name, bound in least.items():
            value = getattr(self, name)
            above = name in ("lr", "lora_alpha")
            if value is not None and (not value >= bound or (above and not value)):  # NaN is not >= 0
                wanted = f"more than {bound}" if above else f"{bound} or more"
                raise InputError(f"{flag(name)} {value} is too small; use {wanted}")

    def check_seed(self) -> None:
        """Raise InputError for a seed that one of the generators does not take."""
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--seed {self.seed} is out of range; use a whole number from 0 to 2**32 - 1")


@dataclass(frozen=True, kw_only=True)
class HardwareOptions:
    """Where and in which number format a classifier runs; other verbs declare a precision of their own."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; auto takes the first of cuda, mps and cpu that is there."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of all blocks but the last; auto takes the fastest that the processor has."""


def own_first(config: type) -> type:
    """Class decorator: the options that a dataclass declares itself come before those that it inherits, in
    --help and in config.json."""
    own, every = config.__annotations__, config.__dataclass_fields__
    config.__dataclass_fields__ = dict(sorted(every.items(), key=lambda item: item[0] not in own))
    return config


def flag(name: str) -> str:
    """An option's name on the command line."""
    return "--" + name.replace("_", "-")
