"""Plain text -> long streams of tokens -> packed windows for next-token training.

Documents are joined end to end with the end-of-text token between them, so no place in a batch is spent
on padding (Brown et al. 2020, appendix B).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gptcls.common.files import atomic_file, tidy
from gptcls.common.log import log
from gptcls.core.batches import Batch
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import PAD_ID, VOCAB_SIZE, encode
from gptcls.data.columns import column_of, text_values
from gptcls.data.encodings import open_text, require_file, require_text
from gptcls.data.readers import read_chunks, suffix_of
from gptcls.data.same_text import text_key
from gptcls.models.weight_files import file_sha256


@dataclass(frozen=True)
class Stream:
    """The documents of one file, joined: each one's tokens, then the end-of-text token."""

    name: str
    tokens: np.ndarray  # (N,) uint16, which GPT-2's 50,257 tokens fit
    starts: np.ndarray  # (documents,) where each begins, ascending

    @classmethod
    def of(cls, name: str, documents: Iterable[str]) -> "Stream":
        """Tokenize and join."""
        pieces = [np.array([*encode(text), PAD_ID], dtype=np.uint16) for text in documents]
        return cls.joined(name, np.concatenate([np.empty(0, np.uint16), *pieces]))

    @classmethod
    def joined(cls, name: str, tokens: np.ndarray) -> "Stream":
        """Of documents that were joined before; no text encodes to the end-of-text token."""
        ends = np.flatnonzero(tokens == PAD_ID) + 1
        return cls(name, tokens, np.append(0, ends)[:-1])

    def window(self, offset: int, length: int) -> np.ndarray:
        """``length`` tokens around ``offset``, from the beginning of its document if that is in reach:
        so short documents begin where a text to classify will, at the position table's first rows."""
        start = self.starts[np.searchsorted(self.starts, offset, side="right") - 1]
        if offset - start >= length:
            start = offset
        return self.tokens[min(start, len(self.tokens) - length) :][:length]

    def windows(self, length: int) -> np.ndarray:
        """The whole stream, cut into windows (n, length) for judging; what does not fill one is left out.
        Each one's last token is the next one's first, so that every token but one is predicted once."""
        return np.lib.stride_tricks.sliding_window_view(self.tokens, length)[:: length - 1]


def read_documents(path: str | Path, text_column: str | None = None) -> list[str]:
    """The texts of a file: the whole of a ``.txt``, or of a table's rows that are not blank (``.gz`` and
    ``.xz`` too); InputError for what cannot be read."""
    path = Path(path)
    if suffix_of(path) == ".txt":
        require_text(path)
        with open_text(path, newline="\n") as file:
            documents = [file.read()]
    else:
        column, documents = text_column or "text", []
        for chunk in read_chunks(path):
            if column not in chunk.columns:
                found = ", ".join(map(str, chunk.columns))
                raise InputError(f"{path} has no column {column!r}: choose --text-column from {found}")
            documents += filter(None, text_values([column_of(chunk, column, path)]))
    if not any(text.strip() for text in documents):
        raise InputError(f"{path} holds no text: give a file with some")
    return documents


def read_streams(
    name: str, text_column: str | None, held_out: float, cache: Path | None = None
) -> tuple[Stream, Stream]:
    """What of a file is trained on, and what is held out; errors are those of :func:`read_documents`.

    Tokenizing takes about a second per million tokens. The folder ``cache`` keeps the ids, to be mapped into
    memory by later runs, in files named after all that they depend on, the file's bytes among them.
    """
    path = Path(name)
    if cache:
        require_file(path)
        depends_on = f"{file_sha256(path)} {text_column} {held_out}"
        key = blake2b(depends_on.encode(), digest_size=12).hexdigest()
        files = [cache / f"{path.name}.{key}.{part}.npy" for part in ("train", "held")]
        tidy(cache)  # of what a killed process left where nothing may be written now
        if all(file.exists() for file in files):
            try:
                return tuple(Stream.joined(name, _kept_tokens(file)) for file in files)
            except Exception as error:  # NumPy reads the header as Python
                log.info(f"{cache} holds damaged tokens of {path} ({error!s:.60}): they are made again")
    streams = tuple(Stream.of(name, part) for part in hold_out(read_documents(path, text_column), held_out))
    if cache:
        for file, stream in zip(files, streams, strict=True):
            with atomic_file(file) as temporary:
                np.save(temporary, stream.tokens)
    return streams


def _kept_tokens(file: Path) -> np.ndarray:
    """Tokens that an earlier run kept, mapped into memory; any error where they are damaged."""
    tokens = np.load(file, mmap_mode="r")
    if tokens.dtype != np.uint16 or tokens.ndim != 1:
        raise ValueError(f"{tokens.dtype} {tokens.shape}")
    if len(tokens) and (tokens[-1] != PAD_ID or tokens.max() >= VOCAB_SIZE):
        raise ValueError("not tokens")
    return tokens


def hold_out(documents: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Documents to train on, and others to judge by: at least ``share`` of all characters.

    Whole documents are held out, of a single one its end: those with the lowest hashes of their
    :func:`gptcls.data.same_text.text_key`, so that a later run over the same texts trains on none that an
    earlier one was judged by. One that also stands among the others is left out: it would measure memory.
    """
    if len(documents) == 1:
        text = documents[0]
        cut = len(text) - round(share * len(text))
        return [text[:cut]], [text[cut:]]
    keys = (text_key(text).encode("utf-8", "surrogatepass") for text in documents)
    hashes = [blake2b(key, digest_size=16).digest() for key in keys]
    order = sorted(range(len(documents)), key=hashes.__getitem__)
    reached = np.cumsum([len(documents[i]) for i in order])  # characters up to and with each
    n_held = min(int(np.searchsorted(reached, share * reached[-1])) + 1, len(documents) - 1)
    held, rest = sorted(order[:n_held]), sorted(order[n_held:])
    seen = {hashes[i] for i in rest}
    return [documents[i] for i in rest], [documents[i] for i in held if hashes[i] not in seen]


class WindowLoader:
    """One batch per step, ``(ids (B, T), lengths (B,), targets (B, T))``, of windows of several streams, each
    with its share of them; T is ``window``, B ``batch_size``.

    The target of a token is the one that follows it. A batch is a pure function of the seed and the number of
    its step, and so is what the step draws from torch's global generator, which is seeded before each batch.
    Of ``world`` processes each has its ``rank``, and batches of its own.
    """

    def __init__(
        self, streams: Sequence[Stream], shares: Sequence[float], window: int, batch_size: int, steps: int,
        seed: int, rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.streams, self.window, self.batch_size = streams, window, batch_size
        self.steps, self.seed, self.rank, self.world = steps, seed, rank, world
        self.shares = np.array(shares) / sum(shares)

    @property
    def tokens_per_step(self) -> int:
        """Of all processes."""
        return self.batch_size * self.window * self.world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for draw in range(self.rank, self.steps * self.world, self.world):
            windows = self.windows(draw)
            torch.manual_seed((self.seed << 32) + draw)  # of dropout, and of the candidates of the softmax
            yield windows[:, :-1], torch.full((self.batch_size,), self.window), windows[:, 1:]

    def windows(self, draw: int) -> Tensor:
        """The windows (B, T + 1) of one batch, int64; the last token is only ever a target."""
        rng = np.random.default_rng([self.seed, draw])
        streams = [self.streams[i] for i in rng.choice(len(self.streams), self.batch_size, p=self.shares)]
        windows = [s.window(int(rng.integers(len(s.tokens))), self.window + 1) for s in streams]
        return torch.from_numpy(np.stack(windows).astype(np.int64))

    def counts(self, vocab_size: int) -> Tensor:
        """How often each token (V,) is expected in a million trained on, float64."""
        expected = np.zeros(vocab_size)
        for stream, share in zip(self.streams, self.shares, strict=True):
            expected += 1e6 * share * np.bincount(stream.tokens, minlength=vocab_size) / len(stream.tokens)
        return torch.from_numpy(expected)
