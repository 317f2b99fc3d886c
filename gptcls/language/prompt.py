"""A pattern as token ids around a text, by a tokenizer that puts them there: whoever encodes, cuts or pads
texts need not know of it, and a long text loses its own end, never the pattern's.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from gptcls.core.errors import InputError
from gptcls.core.tokenizer import Tokenizer
from gptcls.language.pattern import Pattern
from gptcls.language.trie import Trie, ended
from gptcls.models.tokenizer_file import FileTokenizer

BETWEEN_SHOTS = "\n\n"
TEXT, ANSWER = "\ue000", "\ue001"  # stand for what a chat template puts its words around
NO_END = "\n"  # what tells "good" from "good one" where nothing stands behind the label
FEWEST = 8  # token ids of a text that have room beside the pattern


@dataclass(frozen=True)
class Prompt:
    """What stands around a text, in token ids, and the labels that may follow.

    ``lead`` is put before every text's own characters; ``content_free`` (K,) are the logarithms of the
    labels' probabilities behind texts without content, which are subtracted (:func:`gptcls.language.head.
    content_free`).
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    lead: str = ""
    pattern: str = ""  # for people
    content_free: tuple[float, ...] | None = None

    @cached_property
    def trie(self) -> Trie:
        return Trie.of(self.labels)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, spec: dict[str, Any]) -> "Prompt":
        """What :meth:`to_json` described."""
        values = {name: tuple(x) if isinstance(x, list) else x for name, x in spec.items()}
        return cls(**values | {"labels": tuple(map(tuple, spec["labels"]))})

    @classmethod
    def of(
        cls, pattern: Pattern, labels: Sequence[str], tokenizer: Tokenizer,
        shots: Sequence[tuple[str, str]] = (), longest_shot: int | None = None,
    ) -> "Prompt":  # fmt: skip
        """The pattern for the labels (K,), below ``shots``: texts with their labels, of each text at most
        ``longest_shot`` token ids. Of several lines before the text all but the last stand once."""
        before, between, end = pattern.around(labels)
        once, newline, own = before.rpartition("\n")
        answers = dict(zip(labels, pattern.answers(labels), strict=True))
        lead = " " if own.endswith(" ") and not _adds_space(tokenizer) else ""
        own = own.removesuffix(" ")
        opening, own_ids = within(tokenizer, once + newline), within(tokenizer, own, "\n")
        suffix = within(tokenizer, between, "a")
        spelled = {label: within(tokenizer, words, between or "a") for label, words in answers.items()}
        closing = within(tokenizer, end + BETWEEN_SHOTS, "a")
        prefix = [*tokenizer.prefix, *opening]
        for text, label in shots:
            ids = alone(tokenizer, lead + text)[:longest_shot]
            prefix += [*own_ids, *ids, *suffix, *spelled[label], *closing]
        ends = within(tokenizer, end or NO_END, "a")
        return cls(
            (*prefix, *own_ids), tuple(suffix), ended(list(spelled.values()), ends), lead, pattern.pattern
        )

    @classmethod
    def of_chat(
        cls, pattern: Pattern, labels: Sequence[str], tokenizer: FileTokenizer,
        shots: Sequence[tuple[str, str]] = (), longest_shot: int | None = None,
    ) -> "Prompt":  # fmt: skip
        """The same as a conversation in the words of the tokenizer's chat template: the user says the pattern
        up to the label, the assistant answers with it; shots are earlier turns. InputError where the template
        does not repeat what is said."""
        before, between, _ = pattern.around(labels)
        spelled = {
            label: within(tokenizer, words.strip(), "\n")
            for label, words in zip(labels, pattern.answers(labels), strict=True)
        }
        asked = {"role": "user", "content": before + TEXT + between.rstrip()}
        answered = {"role": "assistant", "content": ANSWER}
        turns = [turn for _ in shots for turn in (asked, answered)]
        parts = re.split(f"[{TEXT}{ANSWER}]", tokenizer.chat.render([*turns, asked], True))
        behind = tokenizer.chat.render([asked, answered]).partition(ANSWER)[2]
        if len(parts) != 2 * len(shots) + 2 or not behind:
            raise InputError("the model's chat template leaves out what is said; add --chat none")
        said = [
            ids for text, label in shots for ids in (alone(tokenizer, text)[:longest_shot], spelled[label])
        ]
        prefix, *rest = map(tokenizer.encode_template, parts)
        for ids, part in zip(said, rest, strict=False):
            prefix += [*ids, *part]
        ends = ended(list(spelled.values()), tokenizer.encode_template(behind))
        return cls(tuple(prefix), tuple(rest[-1]), ends, "", pattern.pattern)


def alone(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text without what the tokenizer puts around each."""
    ids = tokenizer.encode(text)
    return ids[len(tokenizer.prefix) : len(ids) - len(tokenizer.suffix)]


def within(tokenizer: Tokenizer, text: str, before: str = "") -> list[int]:
    """The ids of a text behind another one, where these are its own; else as it is encoded alone. Some
    tokenizers begin every text with a space.

    >>> from gptcls.core.tokenizer import GPT2
    >>> GPT2.decode(within(GPT2, " spam", "This is"))
    ' spam'
    """
    ids = alone(tokenizer, before)
    both = alone(tokenizer, before + text)
    return both[len(ids) :] if both[: len(ids)] == ids else alone(tokenizer, text)


def _adds_space(tokenizer: Tokenizer) -> bool:
    """Whether the first word of a text is encoded as a later one."""
    return alone(tokenizer, "a") == within(tokenizer, " a", "a")


class Prompted(Tokenizer):
    """``base`` with a prompt around each text, and behind it the nodes of the labels' trie.

    >>> from gptcls.core.tokenizer import GPT2
    >>> prompt = Prompt.of(Pattern("{text}\\nThis is {label}."), ("good", "bad"), GPT2)
    >>> reader = Prompted(GPT2, prompt)
    >>> reader.decode(reader.encode("A long and tedious film", max_length=6))
    'A long and\\nThis is'
    """

    def __init__(self, base: Tokenizer, prompt: Prompt) -> None:
        self.base, self.prompt = base, prompt
        self.vocab_size, self.pad_id, self.eos_ids = base.vocab_size, base.pad_id, base.eos_ids
        self.prefix, self.suffix = prompt.prefix, (*prompt.suffix, *prompt.trie.tokens)

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        return self.encode_rows([text], max_length)[0]

    def encode_rows(self, texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
        before, behind = len(self.base.prefix), len(self.base.suffix)
        room = None if max_length is None else max_length + before + behind
        texts = list(texts)
        led = [self.prompt.lead + text if isinstance(text, str) else text for text in texts]
        rows = self.base.encode_rows(led, room)
        return [self.cut(self.around(row[before : len(row) - behind]), max_length) for row in rows]

    def around(self, ids: Sequence[int]) -> list[int]:
        """The ids of a text within the prompt."""
        return [*self.prefix, *ids, *self.suffix]

    def decode(self, ids: Iterable[int]) -> str:
        return self.base.decode(ids)

    def to_json(self) -> str | None:
        """The base's: the prompt stands elsewhere."""
        return self.base.to_json()

    def require_room(self, positions: int) -> None:
        """InputError unless the prompt leaves room for a text in so many positions."""
        taken = len(self.prefix) + len(self.suffix)
        if taken + FEWEST > positions:
            said = f"the pattern and its labels take {taken} of {positions} tokens"
            raise InputError(f"{said}, and a text needs some: shorten it, or lower --shots")
