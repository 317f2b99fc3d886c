"""Text to token ids and back: GPT-2's byte-pair encoding, from ranks that ship with the package.

The merge ranks are those of OpenAI's ``r50k_base``/``gpt2`` vocabulary; the file lies gzipped in
``gptcls/assets`` with its licence beside it, so nothing is ever downloaded.
"""

import gzip
from base64 import b64decode
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import tiktoken

VOCAB_SIZE = 50257
ENDOFTEXT = "<|endoftext|>"
PAD_ID = 50256  # GPT-2 has no padding token; its end-of-text token stands in, as in the book

# GPT-2's own split of a text into pieces that merges never cross (Radford et al. 2019, encoder.py).
_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

# The longest entry of the vocabulary has 128 characters, so a text past this length is certain to have
# more than the 1,024 tokens that any GPT-2 can read. Without a cap, a text of about a million
# white-space characters makes tiktoken's Rust core panic.
MAX_CHARS = 128 * 1024


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
    """Token ids of one text, at most ``max_length`` of them.

    ``<|endoftext|>`` inside the text is ordinary text (seven tokens, never the special one), lone
    surrogates become U+FFFD, and what lies past :data:`MAX_CHARS` characters is not read.

    >>> encode("Hello, I am", max_length=2)
    [15496, 11]
    """
    if not isinstance(text, str):
        raise TypeError(f"expected text, got {type(text).__name__}: {text!r:.60}")
    return gpt2_encoding().encode(text[:MAX_CHARS], disallowed_special=())[:max_length]


def encode_rows(texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
    """:func:`encode` for many texts; a value that is not text raises TypeError naming its row (from 0)."""
    rows = []
    for row, text in enumerate(texts):
        try:
            rows.append(encode(text, max_length))
        except TypeError as error:
            raise TypeError(f"row {row}: {error}") from None
    return rows


def decode(ids: Iterable[int]) -> str:
    """The text of some token ids; bytes that are no valid UTF-8 become U+FFFD."""
    return gpt2_encoding().decode(list(ids))
