"""What ``--help`` and ``--help-all`` show of a verb: the options of its dataclass, in groups.

A config class may say two things about its pages, as class variables. ``FIRST_PAGE`` names the options that
matter on the first day: ``--help`` shows these alone. ``GROUPS`` gives an option, or all of a nested
dataclass, the title of its group; ``advanced`` comes last.
"""

import ast
import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

ADVANCED = "advanced"
WIDEST = 100  # characters; longer lines are hard to read
COLUMN = 26  # where the texts begin
METAVARS = {str: "TEXT", int: "INT", float: "FLOAT", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """One option as help and messages name it."""

    name: str
    flags: tuple[str, ...]  # none: positional
    metavar: str  # what stands behind the flag
    text: str
    group: str
    kind: Any  # the type of one value
    choices: tuple[str, ...] = ()


def options_of(config: type, home: str = "", top: type | None = None) -> Iterator[Option]:
    """The options of a config class and of the dataclasses nested in it, in their order."""
    top, texts = top or config, _docstrings(config)
    plain, full = get_type_hints(config), get_type_hints(config, include_extras=True)
    groups = getattr(top, "GROUPS", {})
    for field in fields(config):
        kind, name = plain[field.name], field.name
        if is_dataclass(kind):
            yield from options_of(kind, name, top)
            continue
        extras = get_args(full[name])[1:] if hasattr(full[name], "__metadata__") else ()
        said = next((extra for extra in extras if hasattr(extra, "help_behavior_hint")), None)
        one, several = _one_value(kind)
        choices = tuple(map(str, get_args(one))) if get_origin(one) is Literal else ()
        metavar = f"{{{','.join(choices)}}}" if choices else METAVARS.get(one, "" if one is bool else "TEXT")
        metavar = (said and said.metavar) or metavar + (" …" if several else "")
        text = " ".join(((said and said.help) or texts.get(name, "")).split())
        hint = (said and said.help_behavior_hint) or _default(field)
        flags = () if tyro.conf.Positional in extras else ("--" + name.replace("_", "-"),)
        flags += tuple((said and said.aliases) or ())
        group = groups.get(name, groups.get(home, "options"))
        yield Option(name, flags, metavar, f"{text} {hint}".strip(), group, one, choices)


def page(config: type, prog: str, everything: bool) -> str:
    """The text that ``--help``, or with ``everything`` ``--help-all``, prints."""
    options = list(options_of(config))
    first = getattr(config, "FIRST_PAGE", ())
    shown = sorted(options, key=lambda option: bool(option.flags))  # positional ones stand first
    if first and not everything:
        shown = sorted((o for o in options if o.name in first), key=lambda option: first.index(option.name))
    given = " ".join(f"[{option.metavar}]" for option in options if not option.flags)
    parts = [f"usage: {prog} [-h] [OPTIONS] {given}".rstrip()]
    parts += [_wrapped(" ".join(text.split())) for text in inspect.cleandoc(config.__doc__).split("\n\n")]
    titles = sorted(dict.fromkeys(option.group for option in shown), key=ADVANCED.__eq__)
    for title in titles:
        lines = [_entry(option) for option in shown if option.group == title]
        parts.append("\n".join([f"{title}:", *lines]))
    if first and not everything:
        n = len(options) - len(shown)
        parts.append(f"These are the options that matter first; {prog} --help-all shows {n} more.")
    return "\n\n".join(parts)


def _entry(option: Option) -> str:
    """The option and what it says, beside it or, where that is long, below it."""
    head = "  " + (f"{', '.join(option.flags)} {option.metavar}" if option.flags else option.metavar).rstrip()
    text = _wrapped(option.text, " " * COLUMN)
    return f"{head:<{COLUMN - 1}} {text.lstrip()}" if len(head) < COLUMN else f"{head}\n{text}"


def _wrapped(text: str, indent: str = "") -> str:
    """Broken between words alone: names and paths can be copied."""
    width = max(40, min(WIDEST, shutil.get_terminal_size().columns - 1))
    marks = {"initial_indent": indent, "subsequent_indent": indent}
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False, **marks)


def _default(field: Any) -> str:
    if field.default is MISSING and field.default_factory is MISSING:
        return "(required)"
    unset = field.default is None or field.default is False or field.default in ((), "")
    return "" if unset else f"(default: {field.default})"


def _one_value(kind: Any) -> tuple[Any, bool]:
    """The type of one value of an option, without None; and whether it takes several."""
    kinds = [each for each in get_args(kind) if each is not NoneType]
    if NoneType in get_args(kind):
        return _one_value(kinds[0])
    return (kinds[0], True) if get_origin(kind) is tuple else (kind, False)


def _docstrings(config: type) -> dict[str, str]:
    """The strings below the fields of a dataclass and of those it inherits from."""
    found = {}
    for each in reversed(config.__mro__):
        if not is_dataclass(each):
            continue
        module = ast.parse(inspect.getsource(sys.modules[each.__module__]))
        body = next(n.body for n in module.body if isinstance(n, ast.ClassDef) and n.name == each.__name__)
        for statement, after in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(after, ast.Expr):
                found[statement.target.id] = str(getattr(after.value, "value", ""))
    return found
