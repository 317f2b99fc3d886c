"""Text to token ids and back: each network reads the ids of the tokenizer that it was trained with.

:data:`GPT2` is GPT-2's byte-pair encoding, the default wherever a tokenizer can be given, and what the bare
functions :func:`encode`, :func:`encode_rows` and :func:`decode` use. Its ranks are those of OpenAI's
``r50k_base``/``gpt2`` vocabulary; they ship in ``gptcls/assets``, so nothing is ever downloaded.
"""

import gzip
from abc import ABC, abstractmethod
from binascii import a2b_base64
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files

import tiktoken

from gptcls.core.errors import InputError

VOCAB_SIZE = 50257
ENDOFTEXT = "<|endoftext|>"
PAD_ID = 50256  # GPT-2 has no padding token; its end-of-text token stands in, as in the book
# GPT-2's own split of a text into pieces that merges never cross (Radford et al. 2019, encoder.py).
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
# The longest entry of the vocabulary has 128 characters, so a text past this length is certain to have
# more than the 1,024 tokens that any GPT-2 can read. Without a cap, a text of about a million
# white-space characters makes tiktoken's Rust core panic.
MAX_CHARS = 128 * 1024


class Tokenizer(ABC):
    """What datasets, commands and saved classifiers ask of a tokenizer.

    Attributes:
        vocab_size: every id is below it.
        pad_id: fills the shorter rows of a batch, and stands for a text without a single token.
        eos_ids: the tokens that end a text, the usual one first; none where the model has none.
        prefix: what :meth:`encode` puts before every text (BERT's [CLS]), and every part of one keeps.
        suffix: likewise behind it ([SEP]).
    """

    vocab_size: int
    pad_id: int
    eos_ids: tuple[int, ...]
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @abstractmethod
    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        """Token ids of one text, at most ``max_length`` of them. Raises TypeError for what is not text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of some token ids; those outside the vocabulary, as padded tables have, give nothing."""

    def encode_rows(self, texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
        """:meth:`encode` for many texts; what is not text raises TypeError naming its row (from 0)."""
        rows = []
        for row, text in enumerate(texts):
            require_text(text, f"row {row}: ")
            rows.append(self.encode(text, max_length))
        return rows

    def cut(self, row: list[int], max_length: int | None) -> list[int]:
        """An encoded row shortened to ``max_length`` ids: the start of the text and the suffix."""
        if max_length is None or len(row) <= max_length:
            return row
        if not self.suffix:
            return row[:max_length]
        return [*row[: max(0, max_length - len(self.suffix))], *self.suffix[:max_length]]

    def require_fit(self, model: str, vocab_size: int) -> None:
        """Raise InputError unless the network called ``model``, of that vocabulary, knows every id.

        It may know more: tables are rounded up to sizes that hardware likes.
        """
        if vocab_size < self.vocab_size:
            raise InputError(
                f"{model} has a vocabulary of {vocab_size} tokens, its tokenizer {self.vocab_size}; "
                "take the tokenizer of these weights (a GPT-2 is read with GPT-2's own)"
            )

    def to_json(self) -> str | None:
        """The content of a ``tokenizer.json`` that gives this tokenizer again; None for the bundled one."""
        return None


class GPT2Tokenizer(Tokenizer):
    """GPT-2's byte-pair encoding."""

    vocab_size = VOCAB_SIZE
    pad_id = PAD_ID
    eos_ids = (PAD_ID,)

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        """GPT-2's token ids of one text, at most ``max_length`` of them.

        ``<|endoftext|>`` inside the text is ordinary text (seven tokens, never the special one), and lone
        surrogates become U+FFFD. Past :data:`MAX_CHARS` characters nothing is read or, where ``max_length``
        is None, all of it in pieces that are cut between lines if they can be.

        >>> GPT2.encode("Hello, I am", max_length=2)
        [15496, 11]
        """
        require_text(text)
        encoding = gpt2_encoding()
        if max_length is not None or len(text) <= MAX_CHARS:
            return encoding.encode(text[:MAX_CHARS], disallowed_special=())[:max_length]
        return [i for piece in _pieces(text) for i in encoding.encode(piece, disallowed_special=())]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some of GPT-2's token ids; bytes that are not valid UTF-8 become U+FFFD."""
        return gpt2_encoding().decode([i for i in ids if i < VOCAB_SIZE])


GPT2 = GPT2Tokenizer()
encode, encode_rows, decode = GPT2.encode, GPT2.encode_rows, GPT2.decode


@cache
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's tiktoken ``Encoding``, built once from the bundled ranks; it never touches the network.

    >>> gpt2_encoding().encode("Hello, I am")
    [15496, 11, 314, 716]
    """
    words = gzip.decompress((files("gptcls") / "assets" / "gpt2.tiktoken.gz").read_bytes()).split()
    ranks = dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
    return tiktoken.Encoding(
        "gpt2",
        pat_str=_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={ENDOFTEXT: PAD_ID},
        explicit_n_vocab=VOCAB_SIZE,
    )


def require_text(value: object, where: str = "") -> None:
    """Raise TypeError, which begins with ``where``, unless the value is a str."""
    if not isinstance(value, str):
        raise TypeError(f"{where}expected text, got {type(value).__name__}: {value!r:.60}")


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most :data:`MAX_CHARS` characters."""
    start = 0
    while start < len(text):
        end = min(start + MAX_CHARS, len(text))
        if end < len(text):
            end = text.rfind("\n", start + 1, end) + 1 or end
        yield text[start:end]
        start = end
