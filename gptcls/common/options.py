"""What the options of all commands have in common: groups, config.json, checks, names for messages."""

import difflib
import sys
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from gptcls.core.errors import InputError

AnyOptions = TypeVar("AnyOptions", bound="Options")


class Options:
    """Base of the frozen dataclasses that describe a run and can be read back from its folder. A field may be
    a group, a dataclass of options; the command line, config.json and :meth:`of` name the options alone."""

    @classmethod
    def _groups(cls) -> dict[str, type]:
        hints = get_type_hints(cls)
        return {field.name: hints[field.name] for field in fields(cls) if is_dataclass(hints[field.name])}

    @classmethod
    def _homes(cls) -> dict[str, tuple[str, Field, Any]]:
        """Each option by name: its group, "" outside of any, its field and its type."""
        groups, homes = cls._groups(), {}
        for group, kind in {"": cls, **groups}.items():
            hints = get_type_hints(kind)
            own = (field for field in fields(kind) if group or field.name not in groups)
            homes |= {field.name: (group, field, hints[field.name]) for field in own}
        return homes

    @classmethod
    def of(cls: type[AnyOptions], **options: Any) -> AnyOptions:
        """From options by name, whichever group they belong to; paths may be given as text, tuples as lists;
        TypeError for an unknown one."""
        groups, homes = cls._groups(), cls._homes()
        given: dict[str, dict[str, Any]] = {group: {} for group in ("", *groups)}
        for name, value in options.items():
            if name not in homes:
                near = difflib.get_close_matches(name, homes, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"there is no option {name!r}{hint}")
            group, _, kind = homes[name]
            if isinstance(value, str) and value and (kind is Path or Path in get_args(kind)):
                value = Path(value)
            given[group][name] = tuple(value) if isinstance(value, list) else value
        return cls(**given.pop(""), **{name: groups[name](**values) for name, values in given.items()})

    def flat(self) -> dict[str, Any]:
        """All options by name, those of groups among them."""
        homes = self._homes().items()
        return {name: getattr(getattr(self, group) if group else self, name) for name, (group, *_) in homes}

    def changed(self: AnyOptions, **options: Any) -> AnyOptions:
        """The same with other values for some options."""
        return self.of(**self.flat() | options)

    def to_json(self) -> dict:
        """Plain values for config.json; :meth:`of` reads them back."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in self.flat().items()}

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Each option's default."""
        return {name: field.default for name, (_, field, _) in cls._homes().items()}


def check_finite(values: Mapping[str, Any]) -> None:
    """Raise InputError for the first option that holds NaN or infinity, or a number too large for a float."""
    for name, value in values.items():
        for x in value if isinstance(value, tuple | list) else [value]:
            if isinstance(x, int | float) and not abs(x) <= sys.float_info.max:
                raise InputError(f"{flag(name)} {x!r:.40} is not a finite number; choose one that is")


def check_at_least(values: Mapping[str, Any], least: Mapping[str, float]) -> None:
    """Raise InputError for the first option below its bound, or not finite; lr and lora_alpha must be above
    it."""
    check_finite({name: values[name] for name in least})
    for name, bound in least.items():
        value, above = values[name], name in ("lr", "lora_alpha")
        if value is not None and (value < bound or (above and not value)):
            wanted = f"more than {bound}" if above else f"{bound} or more"
            raise InputError(f"{flag(name)} {value} is too small; use {wanted}")


def check_choices(options: Options) -> None:
    """Raise InputError for the first option that is none of the values its type names: from Python, or an
    edited file, it may be anything."""
    for name, (group, _, kind) in options._homes().items():
        value = getattr(getattr(options, group) if group else options, name)
        known = _choices(kind)
        for each in value if isinstance(value, tuple | list) else [value]:
            if known and each is not None and each not in known:
                raise InputError(f"{flag(name)} {each!r:.40} is unknown; use {', '.join(known)}")


def _choices(kind: Any) -> tuple:
    """The values of a Literal, also where it is optional or of a tuple; none for other types."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next(filter(None, map(_choices, get_args(kind))), ())


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that one of the generators does not take."""
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed} is out of range; use a whole number from 0 to 2**32 - 1")


def own_first(config: type) -> type:
    """Class decorator: a dataclass's own options come before inherited ones in --help and config.json."""
    own, every = list(config.__annotations__), config.__dataclass_fields__
    order = {name: own.index(name) if name in own else len(own) for name in every}
    config.__dataclass_fields__ = dict(sorted(every.items(), key=lambda item: order[item[0]]))
    return config


def flag(name: str) -> str:
    """An option's name on the command line."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class HardwareOptions:
    """Where and in which number format a classifier runs; other verbs declare a precision of their own."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; auto takes the first of cuda, mps and cpu that is there."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of the blocks, but for a last one that is read at one position, and with int8 any last
    one; auto takes the fastest that the processor has."""
