"""Rows of several texts (:mod:`gptcls.data.fields`) as token ids: between two fields stands what the network
saw there when it was pretrained.

That is what its own ``tokenizer.json`` puts between two texts (BERT's ``[SEP]``, RoBERTa's ``</s></s>``, the
begin-of-text token of a Llama that says so), as ``transformers``' ``tokenizer(text, text_pair)`` does; where
it puts nothing there, as those of GPT-2 and Qwen, what it puts behind every text, else the token that ended
each document: ``<|endoftext|>``.
"""

from collections.abc import Iterable

from torch import nn

from gptcls.core.tokenizer import Tokenizer, require_text
from gptcls.data.fields import fields_of, in_lines
from gptcls.data.long_texts import fields_read


class FieldsTokenizer(Tokenizer):
    """A tokenizer for rows of several texts: each field is encoded ``alone``, and ``between`` two of them
    stand these ids. Where there are none, as a tokenizer knows no such token, the fields
    are one text with line breaks between them.

    >>> from gptcls.core.tokenizer import GPT2
    >>> from gptcls.data.fields import join_fields
    >>> FieldsTokenizer(GPT2).encode(join_fields(["A man sleeps.", "He is awake."]))
    [32, 582, 44263, 13, 50256, 1544, 318, 21693, 13]
    """

    def __init__(self, alone: Tokenizer) -> None:
        self.alone = alone
        self.vocab_size, self.pad_id, self.eos_ids = alone.vocab_size, alone.pad_id, alone.eos_ids
        self.prefix, self.suffix = alone.prefix, alone.suffix
        found = getattr(alone, "separator", ()) or alone.suffix or alone.eos_ids[:1] or alone.prefix
        self.between: tuple[int, ...] = found

    @property
    def second_segment(self) -> int | None:
        """The id behind which a network with a segment table finds its second one; None without."""
        return self.between[0] if getattr(self.alone, "two_segments", False) else None

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        return self.encode_rows([text], max_length)[0]

    def encode_rows(self, texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
        """Token ids of each row; a longer one is shortened as :meth:`cut` does."""
        texts = list(texts)
        for row, text in enumerate(texts):
            require_text(text, f"row {row}: ")
        if not self.between:
            return self.alone.encode_rows(map(in_lines, texts), max_length)
        rows = list(map(fields_of, texts))
        encoded = map(self._bare, self.alone.encode_rows(field for row in rows for field in row))
        found = []
        for row in rows:
            ids = [*self.prefix, *next(encoded)]
            for _ in row[1:]:
                ids += [*self.between, *next(encoded)]
            found.append(self.cut([*ids, *self.suffix], max_length))
        return found

    def decode(self, ids: Iterable[int]) -> str:
        return self.alone.decode(ids)

    def cut(self, row: list[int], max_length: int | None) -> list[int]:
        """The longest field is shortened first, at its end, as ``truncation=True`` does in transformers."""
        if max_length is None or len(row) <= max_length:
            return row
        room = max_length - len(self.prefix) - len(self.suffix)
        if not self.between or room < 1:
            return self.alone.cut(row, max_length)
        ids = self._bare(row)
        (kept,) = fields_read(ids, room, "head", self.between)
        return [*self.prefix, *(ids[i] for i in kept), *self.suffix]

    def to_json(self) -> str | None:
        return self.alone.to_json()

    def _bare(self, ids: list[int]) -> list[int]:
        """Without what is put around a text."""
        return ids[len(self.prefix) : len(ids) - len(self.suffix)]


def for_fields(tokenizer: Tokenizer, n_fields: int, network: nn.Module | None = None) -> Tokenizer:
    """``tokenizer`` for rows of that many texts, and a ``network`` with segments told where the second one
    begins."""
    found = tokenizer if n_fields == 1 else FieldsTokenizer(tokenizer)
    if network is not None and hasattr(network, "mark_segments"):
        network.mark_segments(getattr(found, "second_segment", None))
    return found
