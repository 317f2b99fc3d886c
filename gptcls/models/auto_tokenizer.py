"""A tokenizer as the files that ``transformers``' ``AutoTokenizer`` reads: ``tokenizer.json``, and
``tokenizer_config.json`` beside it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from gptcls.core.errors import InputError
from gptcls.core.tokenizer import ENDOFTEXT, PAD_ID, Tokenizer, gpt2_encoding
from gptcls.data.fields import join_fields

PADDING = "<|padding|>"  # of a tokenizer without a token for it


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The content of a ``tokenizer.json`` that encodes as ``tokenizer`` does, GPT-2's own too; InputError for
    another that cannot say it."""
    if (text := tokenizer.to_json()) is not None:
        return text
    if tokenizer.eos_ids == (PAD_ID,):
        return _gpt2_json()
    raise InputError(f"{type(tokenizer).__name__} has no to_json(), which a tokenizer.json is made of")


@cache
def _gpt2_json() -> str:
    """GPT-2's bundled ranks as vocabulary and merges, in the spelling of its ``vocab.json``: a sign for each
    byte (``bytes_to_unicode`` in OpenAI's ``encoder.py``)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    signs = {byte: chr(byte) for byte in kept} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    encoding = gpt2_encoding()
    tokens = [encoding.decode_single_token_bytes(i) for i in range(PAD_ID)]
    ranks = {token: rank for rank, token in enumerate(tokens)}

    def spelled(token: bytes) -> str:
        return "".join(signs[byte] for byte in token)

    def merged_from(token: bytes) -> tuple[str, ...]:
        """The two parts that byte-pair encoding merges last: what the earlier ranks leave."""
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            found = [ranks.get(parts[i] + parts[i + 1], PAD_ID) for i in range(len(parts) - 1)]
            i = found.index(min(found))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return tuple(map(spelled, parts))

    vocabulary = {spelled(token): rank for token, rank in ranks.items()} | {ENDOFTEXT: PAD_ID}
    merges = [merged_from(token) for token in tokens if len(token) > 1]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([ENDOFTEXT])
    return tokenizer.to_str()


def with_padding(text: str, tokenizer: Tokenizer) -> tuple[str, str, int]:
    """A ``tokenizer.json`` with a token that pads and ends no text; its name and id. The decoders of
    ``transformers`` look for the last token that is another.

    It is the tokenizer's own where that is a special token, which no text contains, and neither put behind
    every text nor between two; otherwise a new one. InputError where there is no room for it.
    """
    import tokenizers

    added = json.loads(text)["added_tokens"]
    special = {token["id"]: token["content"] for token in added if token["special"]}
    own = tokenizer.pad_id
    if own in special and own not in (*tokenizer.suffix[-1:], *getattr(tokenizer, "between", ())):
        return text, special[own], own
    extended = tokenizers.Tokenizer.from_str(text)
    extended.add_special_tokens([PADDING])
    new = extended.token_to_id(PADDING)
    if new < tokenizer.vocab_size:
        raise InputError(f"its tokenizer has gaps or {PADDING} already: there is no id for a padding token")
    return extended.to_str(), PADDING, new


def for_pairs(text: str, tokenizer: Tokenizer) -> str:
    """A ``tokenizer.json`` that puts between two texts what :class:`~gptcls.models.fields_tokenizer.
    FieldsTokenizer` does; InputError where no template can say that."""
    import tokenizers

    found = tokenizers.Tokenizer.from_str(text)
    token = found.id_to_token(tokenizer.between[0]) if len(tokenizer.between) == 1 else None
    probe = found.encode("a", "a")
    if probe.ids == tokenizer.encode(join_fields(["a", "a"])):
        return text
    if token is None or tokenizer.prefix or tokenizer.suffix:
        raise InputError("what stands between two texts is nothing that a tokenizer.json can say here")
    pair = f"$A {token} $B"
    special = [(token, tokenizer.between[0])]
    between = tokenizers.processors.TemplateProcessing(single="$A", pair=pair, special_tokens=special)
    found.post_processor = between
    return found.to_str()


def save_tokenizer(folder: Path, text: str, max_length: int, pad: str, **more: Any) -> None:
    """Write the ``tokenizer.json`` that is ``text``, and what ``AutoTokenizer`` must know besides: how many
    tokens the network reads, what pads, and ``more`` entries of ``tokenizer_config.json``."""
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "pad_token": pad,
        "padding_side": "right",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **more,
    }
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    content = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(content, encoding="utf-8")
