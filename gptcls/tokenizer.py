"""Text to token ids and back: each network reads the ids of the tokenizer that it was trained with.

- :data:`GPT2`: GPT-2's byte-pair encoding, from ranks that ship with the package. They are those of OpenAI's
  ``r50k_base``/``gpt2`` vocabulary; the file lies gzipped in ``gptcls/assets`` with its licence beside it, so
  nothing is ever downloaded. It is the default wherever a tokenizer can be given.
- :class:`FileTokenizer`: any other, from the ``tokenizer.json`` beside a model's weights.
"""

import gzip
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

import tiktoken

from gptcls.errors import InputError

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
    """What datasets, commands and the store ask of a tokenizer.

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
        """Token ids of one text, at most ``max_length`` of them. Raises TypeError for what is no text."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of some token ids; those outside the vocabulary, as padded tables have, give nothing."""

    def encode_rows(self, texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
        """:meth:`encode` for many texts; a value that is no text raises TypeError naming its row (from 0)."""
        rows = []
        for row, text in enumerate(texts):
            try:
                rows.append(self.encode(text, max_length))
            except TypeError as error:
                raise TypeError(f"row {row}: {error}") from None
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
    """GPT-2's byte-pair encoding. ``<|endoftext|>`` in a text is ordinary text, never the special token."""

    vocab_size = VOCAB_SIZE
    pad_id = PAD_ID
    eos_ids = (PAD_ID,)

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        _require_text(text)
        encoding = gpt2_encoding()
        if max_length is not None or len(text) <= MAX_CHARS:
            return encoding.encode(text[:MAX_CHARS], disallowed_special=())[:max_length]
        return [i for piece in _pieces(text) for i in encoding.encode(piece, disallowed_special=())]

    def decode(self, ids: Iterable[int]) -> str:
        return gpt2_encoding().decode([i for i in ids if i < VOCAB_SIZE])


GPT2 = GPT2Tokenizer()


class FileTokenizer(Tokenizer):
    """The tokenizer in a ``tokenizer.json``, through the ``tokenizers`` library, as ``transformers`` has it.

    What its post-processor adds (a begin-of-text token, [CLS] and [SEP]) is added, and nothing else. The name
    of a special token inside a text is that token.

    Args:
        path: the file.
        pad_id: see :class:`Tokenizer`; None takes the first of ``eos_ids``, else 0: no network looks at it.
        eos_ids: see :class:`Tokenizer`; ``tokenizer.json`` does not say.

    Raises:
        InputError: there is no such file, or it is no tokenizer.
    """

    def __init__(self, path: Path, pad_id: int | None = None, eos_ids: Sequence[int] = ()) -> None:
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: copy it from where the weights are from; if there are only older files "
                "(vocab.json, tokenizer.model), transformers' AutoTokenizer reads those and saves this one"
            ) from None
        except Exception as error:  # the library raises plain ones
            raise InputError(f"{path} is no tokenizer ({error!s:.100}): download it again") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocab_size = max(self._tokenizer.get_vocab().values(), default=-1) + 1  # ids may have gaps
        self.eos_ids = tuple(self._known(eos_ids))
        self.pad_id = [*self._known([pad_id]), *self.eos_ids, 0][0]
        probe = self._tokenizer.encode("a")
        n_before = len(list(takewhile(bool, probe.special_tokens_mask)))
        n_behind = len(list(takewhile(bool, reversed(probe.special_tokens_mask))))
        if n_behind < len(probe.ids):
            self.prefix = tuple(probe.ids[:n_before])
            self.suffix = tuple(probe.ids[len(probe.ids) - n_behind :])

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        return self.encode_rows([text], max_length)[0]

    def encode_rows(self, texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
        """As in the base class, on all cores."""
        texts = list(texts)
        for row, text in enumerate(texts):
            try:
                _require_text(text)
            except TypeError as error:
                raise TypeError(f"row {row}: {error}") from None
        rows = []
        for start in range(0, len(texts), 1024):  # the library's results are far larger than their ids
            batch = [_without_surrogates(text) for text in texts[start : start + 1024]]
            encodings = self._tokenizer.encode_batch_fast(batch)
            rows += [self.cut(encoding.ids, max_length) for encoding in encodings]
        return rows

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _known(self, ids: Sequence[Any]) -> list[int]:
        """Those of some entries of a config.json that are ids of this tokenizer; others write -1 or null."""
        return [i for i in ids if type(i) is int and 0 <= i < self.vocab_size]

    def to_json(self) -> str:
        return self._tokenizer.to_str()


@cache
def gpt2_encoding() -> tiktoken.Encoding:
    """GPT-2's tiktoken ``Encoding``, built once from the bundled ranks; it never touches the network.

    >>> gpt2_encoding().encode("Hello, I am")
    [15496, 11, 314, 716]
    """
    lines = gzip.decompress((files("gptcls") / "assets" / "gpt2.tiktoken.gz").read_bytes()).splitlines()
    ranks = {b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return tiktoken.Encoding(
        "gpt2",
        pat_str=_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={ENDOFTEXT: PAD_ID},
        explicit_n_vocab=VOCAB_SIZE,
    )


def encode(text: str, max_length: int | None = None) -> list[int]:
    """GPT-2's token ids of one text, at most ``max_length`` of them.

    ``<|endoftext|>`` inside the text is ordinary text (seven tokens, never the special one), and lone
    surrogates become U+FFFD. Past :data:`MAX_CHARS` characters nothing is read or, where ``max_length`` is
    None, all of it in pieces that are cut between lines if they can be.

    >>> encode("Hello, I am", max_length=2)
    [15496, 11]
    """
    return GPT2.encode(text, max_length)


def encode_rows(texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
    """:func:`encode` for many texts; a value that is not text raises TypeError naming its row (from 0)."""
    return GPT2.encode_rows(texts, max_length)


def decode(ids: Iterable[int]) -> str:
    """The text of some of GPT-2's token ids; bytes that are no valid UTF-8 become U+FFFD."""
    return GPT2.decode(ids)


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most :data:`MAX_CHARS` characters."""
    start = 0
    while start < len(text):
        end = min(start + MAX_CHARS, len(text))
        if end < len(text):
            end = text.rfind("\n", start + 1, end) + 1 or end
        yield text[start:end]
        start = end


def _require_text(text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"expected text, got {type(text).__name__}: {text!r:.60}")


def _without_surrogates(text: str) -> str:
    """Half a UTF-16 pair is no character: it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
