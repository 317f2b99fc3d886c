"""The tokenizer in a ``tokenizer.json``, as published next to the weights of most models."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gptcls.common.memory import ran_out
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import Tokenizer, require_text
from gptcls.models.chat import ChatTemplate


class FileTokenizer(Tokenizer):
    """The tokenizer in a ``tokenizer.json``, through the ``tokenizers`` library.

    What its post-processor adds (a begin-of-text token, [CLS] and [SEP]) is added, and nothing else. The name
    of a special token inside a text is ordinary text: who writes "[SEP]" or "</s>" controls nothing, as with
    ``transformers``' ``split_special_tokens=True``. ``pad_id``, which no network looks at, is by default
    the first of ``eos_ids``, else 0. ``content`` stands in for the file's where it is given.

    ``separator`` is what the post-processor puts between two texts, if anything, and ``two_segments`` says
    whether the second is of another segment then. ``chat`` is the template of a model that was tuned on
    conversations."""

    chat: ChatTemplate | None = None

    def __init__(
        self, path: Path, pad_id: int | None = None, eos_ids: Sequence[int] = (), content: str | None = None
    ) -> None:
        import tokenizers

        try:
            text = path.read_text(encoding="utf-8") if content is None else content
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except FileNotFoundError:
            older = "vocab.txt, vocab.json, tokenizer.model or spm.model"
            way_out = f"if there is only {older}, transformers' AutoTokenizer builds it"
            why = f"copy it from where the weights are from; {way_out}"
            raise InputError(f"{path} is missing: {why}") from None
        except BaseException as error:  # the library raises plain ones; a panic in it is no Exception
            panic = type(error).__name__ == "PanicException"
            if ran_out(error) or not (panic or isinstance(error, Exception)):
                raise
            raise InputError(f"{path} is not a tokenizer ({error!s:.100}): download it again") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # their names as text
        self.vocab_size = max(self._tokenizer.get_vocab().values(), default=-1) + 1  # ids may have gaps
        self.eos_ids = tuple(self._known(eos_ids))
        self.pad_id = [*self._known([pad_id]), *self.eos_ids, 0][0]
        probe = self._tokenizer.encode("a")
        mask, ids = probe.special_tokens_mask, tuple(probe.ids)
        if not all(mask):
            self.prefix = ids[: mask.index(0)]
            self.suffix = ids[len(ids) - mask[::-1].index(0) :]
        both = self._tokenizer.encode("a", "a")
        of_text = both.sequence_ids
        inside = (
            range(of_text.index(0), len(of_text) - of_text[::-1].index(1)) if {0, 1} <= {*of_text} else ()
        )
        self.separator = tuple(both.ids[i] for i in inside if of_text[i] is None)
        self.two_segments = any(both.type_ids[i] for i in inside if of_text[i] == 1)

    def encode(self, text: str, max_length: int | None = None) -> list[int]:
        require_text(text)
        return self.encode_rows([text], max_length)[0]

    def encode_rows(self, texts: Iterable[str], max_length: int | None = None) -> list[list[int]]:
        """As in the base class, on all cores."""
        texts = list(texts)
        for row, text in enumerate(texts):
            require_text(text, f"row {row}: ")
        rows = []
        for start in range(0, len(texts), 1024):  # the library's results are far larger than their ids
            batch = [_without_surrogates(text) for text in texts[start : start + 1024]]
            rows += [self.cut(found.ids, max_length) for found in self._tokenizer.encode_batch_fast(batch)]
        return rows

    def encode_template(self, text: str) -> list[int]:
        """The ids of a text in which the names of special tokens are these, and nothing is put around it."""
        self._tokenizer.encode_special_tokens = False
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = True

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of :meth:`encode` and, of each, from which character of the text to which it stands for;
        (0, 0) for what is put around the text."""
        found = self._tokenizer.encode(_without_surrogates(text))
        return found.ids, found.offsets

    def decode(self, ids: Iterable[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def _known(self, ids: Sequence[Any]) -> list[int]:
        """Those of some entries of a config.json that are ids of this tokenizer; others write -1 or null."""
        return [i for i in ids if type(i) is int and 0 <= i < self.vocab_size]

    def to_json(self) -> str:
        return self._tokenizer.to_str()


def _without_surrogates(text: str) -> str:
    """Half a UTF-16 pair is not a character: it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
