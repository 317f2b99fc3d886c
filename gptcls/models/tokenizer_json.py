"""A model's ``tokenizer.json`` as ``transformers`` 5 uses it: corrected by ``tokenizer_config.json``, whose
word counts where both speak of one thing, or made of GPT-2's older ``vocab.json`` and ``merges.txt``."""

import hashlib
import json
from pathlib import Path
from typing import Any

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import VOCAB_SIZE
from gptcls.models.weight_files import read_object

FILE, SETTINGS = "tokenizer.json", "tokenizer_config.json"
OLDER = ("vocab.json", "merges.txt")
# The classes of transformers that take tokenizer.json as it is; a model_type's own class is the usual one.
PLAIN = ("PreTrainedTokenizer", "TokenizersBackend")
# model_type -> (entry of tokenizer_config.json, type of the part of tokenizer.json, its entry, what each of
# the two values is there), as in transformers' tokenization_bert.py and its like.
LOWER = ("do_lower_case", "BertNormalizer", "lowercase", {True: True, False: False})
CHINESE = ("tokenize_chinese_chars", "BertNormalizer", "handle_chinese_chars", {True: True, False: False})
ACCENTS = ("strip_accents", "BertNormalizer", "strip_accents", {True: True, False: False})
SPACE = ("add_prefix_space", "ByteLevel", "add_prefix_space", {True: True, False: False})
PREPEND = ("add_prefix_space", "Metaspace", "prepend_scheme", {True: "always", False: "never"})
SMALL = ("do_lower_case", "Lowercase", "", {})
RULES = {
    **dict.fromkeys(("bert", "distilbert", "electra", "ernie"), (LOWER, ACCENTS, CHINESE)),
    **dict.fromkeys(("gpt2", "roberta", "qwen2", "qwen3"), (SPACE,)),
    **dict.fromkeys(("xlm-roberta", "camembert"), (PREPEND,)),
    "deberta-v2": (
        SMALL,
        ("add_prefix_space", "Metaspace", "prepend_scheme", {True: "always", False: "first"}),
    ),
}
# The sha256 of the 50,257 entries of OpenAI's encoder.json in the order of their ids, one a line.
OPENAI = "e35a33a0b2250c932ffdafc4c3a3552aef0cc7af7a11e9ebfddf1d2a6517371f"


def read_tokenizer_json(folder: Path, model_type: str) -> str | None:
    """The content of the ``tokenizer.json`` in ``folder``, or one made of :data:`OLDER`, as a network of that
    kind is given it; None where neither is there. InputError where a file is broken."""
    file = folder / FILE
    if file.is_file():
        try:
            text = file.read_text(encoding="utf-8")
        except ValueError as error:
            raise InputError(f"{file} is not a tokenizer ({error!s:.100}): download it again") from None
    elif model_type == "gpt2" and (folder / OLDER[0]).is_file():
        text = _of_older(folder)
    else:
        return None
    settings = read_object(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    if str(settings.get("tokenizer_class", "")).removesuffix("Fast") in PLAIN:
        return text
    rules = [rule for rule in RULES.get(model_type, ()) if settings.get(rule[0]) is not None]  # null: open
    for said, *_ in rules:
        if type(value := settings[said]) is not bool:
            raise InputError(f"{folder / SETTINGS} says {said} {value!r:.80}, which is not true or false")
    content = json.loads(text) if rules and is_object(text) else {}
    changed = [said for said, *rule in rules if _obey(content, settings[said], *rule)]
    if not changed:
        return text
    said = " and ".join(f"{said} {str(settings[said]).lower()}" for said in changed)
    log.info(f"{folder / SETTINGS} says {said}, unlike {FILE}: its word counts, as in transformers")
    return json.dumps(content, ensure_ascii=False)


def is_openais(text: str) -> bool:
    """Whether this content of a ``tokenizer.json`` is GPT-2's own tokenizer, of which a copy is bundled."""
    given = json.loads(text) if is_object(text) else {}
    model, split = given.get("model"), given.get("pre_tokenizer")
    vocab, merges = (model.get(key) if isinstance(model, dict) else None for key in ("vocab", "merges"))
    plain = isinstance(split, dict) and split.get("type") == "ByteLevel" and not split.get("add_prefix_space")
    if not plain or given.get("normalizer") or not isinstance(vocab, dict) or len(vocab) != VOCAB_SIZE:
        return False
    entries = sorted(vocab, key=vocab.get)
    if hashlib.sha256("\n".join(entries).encode()).hexdigest() != OPENAI or not isinstance(merges, list):
        return False
    pairs = ["".join(pair if isinstance(pair, list) else str(pair).split(" ")) for pair in merges]
    around = given.get("post_processor") or split
    empty = around.get("type") == "TemplateProcessing" and not around.get("special_tokens")
    return pairs == entries[256:-1] and (empty or around.get("type") == "ByteLevel")


def is_object(text: str) -> bool:
    """Whether a text is a JSON object; where it is not, the tokenizers library says what is wrong."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _of_older(folder: Path) -> str:
    """GPT-2's byte-level BPE over other merges, as its first files had it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab, merges = (folder / name for name in OLDER)
    if not merges.is_file():
        raise InputError(f"{merges} is missing: {vocab} needs it; copy it from where the weights are from")
    try:
        tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:  # the library raises plain ones
        said = f"{vocab} and {merges.name} are not a tokenizer ({error!s:.100})"
        raise InputError(f"{said}: download them again") from None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def _obey(content: dict[str, Any], value: bool, kind: str, key: str, values: dict[bool, Any]) -> bool:
    """Put what a setting says into the parts of that kind; whether it was otherwise there."""
    if kind == "Lowercase":
        return _lowercase_first(content.get("normalizer"), value)
    changed = False
    for place in ("normalizer", "pre_tokenizer", "decoder"):
        part = content.get(place)
        for each in (part, *_inner(part)):
            if isinstance(each, dict) and each.get("type") == kind and each.get(key) != values[value]:
                each[key] = values[value]
                changed = True
    return changed


def _lowercase_first(normalizer: Any, value: bool) -> bool:
    """The same of normalizers in a sequence, of which one in front may make letters small."""
    parts = _inner(normalizer)
    others = [part for part in parts if part != {"type": "Lowercase"}]
    if not others or (len(others) < len(parts)) == value:
        return False
    parts[:] = [{"type": "Lowercase"}] * value + others
    return True


def _inner(part: Any) -> list:
    """The parts of a sequence."""
    found = part if isinstance(part, dict) else {}
    lists = (found.get(key) for key in ("normalizers", "pretokenizers", "decoders"))
    return next((each for each in lists if isinstance(each, list)), [])
