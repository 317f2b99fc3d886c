"""The words around a text and its label (Schick & Schütze 2021, "Exploiting Cloze Questions for Few Shot Text
Classification and Natural Language Inference": a pattern, and verbalisers for its labels).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptcls.core.errors import InputError

DEFAULT = "{text}\nThis message is {label}."
KEYS = ("pattern", "patterns", "verbalizers", "descriptions")
_FIELD = re.compile(r"\{(text|label|labels|descriptions)\}")
_BRACED = re.compile(r"\{(\w+)\}")
_END = re.compile(r"[^\w{}]*")


@dataclass(frozen=True)
class Pattern:
    """A text with the fields ``{text}`` and, behind it, ``{label}``; what follows the label is punctuation.

    ``{labels}`` stands for the names of all labels, ``{descriptions}`` for a line on each that has one.
    ``verbalizers`` are the words for a label where these are not its name.

    >>> pattern = Pattern("One of {labels}.\\n{text}\\nThis is {label}.", {"pos": "good news"})
    >>> pattern.around(("neg", "pos"))
    ('One of neg, good news.\\n', '\\nThis is', '.')
    >>> pattern.answers(("neg", "pos"))
    (' neg', ' good news')
    """

    pattern: str = DEFAULT
    verbalizers: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = _FIELD.findall(self.pattern)
        if unknown := [name for name in _BRACED.findall(self.pattern) if name not in found]:
            known = "{text}, {label}, {labels} and {descriptions}"
            raise InputError(f"--pattern {self.pattern!r} has {{{unknown[0]}}}; there are {known}")
        for name in ("text", "label"):
            if (n := found.count(name)) != 1:
                times = "lacks" if not n else f"has {n} times"
                raise InputError(
                    f"--pattern {self.pattern!r} {times} {{{name}}}; it must hold it exactly once"
                )
        if found.index("label") < found.index("text"):
            raise InputError(f"--pattern {self.pattern!r}: {{label}} must stand behind {{text}}")
        if not _END.fullmatch(end := self.pattern.partition("{label}")[2]):
            said = f"--pattern {self.pattern!r}: {end!r} stands behind {{label}}, where nothing is read"
            raise InputError(f"{said}; end with the label, or with punctuation")

    def words(self, label: str) -> str:
        """What a label is called: its own name with spaces for underscores, or as ``verbalizers`` say."""
        return self.verbalizers.get(label, label.replace("_", " ")).strip()

    def around(self, labels: Sequence[str]) -> tuple[str, str, str]:
        """What stands before the text, between text and label, and behind the label. A space before the label
        is the label's."""
        known = [label for label in labels if label in self.descriptions]
        values = {
            "labels": ", ".join(map(self.words, labels)),
            "descriptions": "\n".join(f"{self.words(x)}: {self.descriptions[x]}" for x in known),
        }
        whole = re.sub(r"\{(labels|descriptions)\}", lambda found: values[found[1]], self.pattern)
        before, _, rest = whole.partition("{text}")
        between, _, end = rest.partition("{label}")
        return before, between.removesuffix(" "), end

    def answers(self, labels: Sequence[str]) -> tuple[str, ...]:
        """What follows the words between text and label, for each label. InputError for a label without
        words, two labels of the same words, and words or descriptions of a label that is not there."""
        for what, given in (("--verbalizers", self.verbalizers), ("a description", self.descriptions)):
            if unknown := [name for name in given if name not in labels]:
                raise InputError(f"{what} names {unknown[0]!r}; the labels are {', '.join(labels)}")
        found: dict[str, str] = {}
        for label in labels:
            if not (words := self.words(label)):
                raise InputError(f"label {label!r} has no words; give some, as in --verbalizers LABEL=WORDS")
            if words in found:
                both = f"labels {found[words]!r} and {label!r} are both called {words!r}"
                raise InputError(f"{both}; give them different --verbalizers")
            found[words] = label
        spaced = self.pattern.partition("{label}")[0].endswith(" ")
        return tuple(" " * spaced + words for words in found)


def read_pattern(given: str | None, verbalizers: Sequence[str] = ()) -> Pattern:
    """The pattern that ``--pattern`` says, a text or a file, with words given as ``label=words``. A file is
    TOML or JSON with ``pattern``, or ``patterns``, of which ``file.toml:2`` is the second, and perhaps the
    tables ``verbalizers`` and ``descriptions``. In a text ``\\n`` is a new line. InputError for others."""
    values: dict[str, Any] = {"pattern": DEFAULT if given is None else given.replace("\\n", "\n")}
    if named := pattern_file(given):
        values = _read_file(*named)
    elif given and "{" not in given and Path(given).suffix and Path(given).is_file():
        raise InputError(f"--pattern {given} is a file; its name must end in .toml or .json")
    words = dict(values.get("verbalizers", {}))
    for each in verbalizers:
        label, equals, spelled = each.rpartition("=")
        if not equals:
            raise InputError(f"--verbalizers {each!r} has no =; write LABEL=WORDS")
        words[label] = spelled
    return Pattern(values["pattern"], words, values.get("descriptions", {}))


def pattern_file(given: str | None) -> tuple[Path, int | None] | None:
    """The file that ``--pattern`` names, and which of its patterns; None of a pattern that is a text."""
    named = re.fullmatch(r"(.+\.(?:toml|json))(?::(\d+))?", given or "")
    return (Path(named[1]).expanduser(), None if named[2] is None else int(named[2])) if named else None


def _read_file(path: Path, number: int | None) -> dict[str, Any]:
    """The entries of a pattern file; of several patterns the one of that number, from 1."""
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else _toml(text)
    except (OSError, ValueError) as error:
        raise InputError(f"--pattern {path} cannot be read: {error!s:.150}") from None
    if not isinstance(values, dict) or (unknown := [name for name in values if name not in KEYS]):
        what = unknown[0] if isinstance(values, dict) else type(values).__name__
        raise InputError(f"--pattern {path} holds {what}; it may hold {', '.join(KEYS)}")
    for name in KEYS[2:]:
        table = values.get(name, {})
        if not isinstance(table, dict) or not all(isinstance(x, str) for x in table.values()):
            raise InputError(f'--pattern {path}: {name} is no table of texts, such as spam = "advert"')
    if {"pattern", "patterns"} <= values.keys():
        raise InputError(f"--pattern {path} has pattern and patterns; keep one of the two")
    patterns = values.pop("patterns", [values.get("pattern", DEFAULT)])
    if not isinstance(patterns, list) or not patterns or not all(isinstance(each, str) for each in patterns):
        raise InputError(f"--pattern {path}: pattern is a text, patterns are a list of at least one text")
    if number is None and len(patterns) > 1:
        raise InputError(f"--pattern {path} has {len(patterns)} patterns; name one, such as {path}:1")
    number = 1 if number is None else number
    if not 1 <= number <= len(patterns):
        raise InputError(f"--pattern {path}:{number} is not there; it has {len(patterns)}, from 1")
    return values | {"pattern": patterns[number - 1]}


def _toml(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # before Python 3.11
        raise InputError("a TOML file needs Python 3.11; write the pattern as JSON") from None
    return tomllib.loads(text)
