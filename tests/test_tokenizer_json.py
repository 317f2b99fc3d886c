"""A tokenizer's files as transformers 5 reads them: GPT-2s with their own, and settings that contradict."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers import random_bert, random_llama
from helpers.tiny import ROWS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from gptcls.core.errors import InputError
from gptcls.core.tokenizer import GPT2, gpt2_encoding
from gptcls.models.pretrained import load_tokenizer
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.run import pretrain

RUSSIAN = ["привет, как дела", "выиграй приз сейчас", "перезвони мне", "срочно: счёт закрыт"] * 3
TEXTS = [
    *(text for text, _ in ROWS[:12]), "WIN a Prize", "É Ünïcode ß ﬁ", " leading", "你好 world", "",
    "İstanbul", "\n", *RUSSIAN[:2],
]  # fmt: skip


def model_folder(folder: Path, tokenizer: Tokenizer, model_type: str, settings: dict | None = None) -> Path:
    """A tokenizer and what names its family; weights are not looked at."""
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "model.safetensors").touch()
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def assert_reads_as_transformers(folder: Path, **options: Any) -> None:
    theirs = AutoTokenizer.from_pretrained(folder, split_special_tokens=True, **options)
    ours = load_tokenizer(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"], text


@cache
def gpt2s_own() -> str:
    """OpenAI's vocabulary and merges as transformers keeps them in a tokenizer.json."""
    encoding, letters = gpt2_encoding(), bytes_to_unicode()
    words = [encoding.decode_single_token_bytes(i) for i in range(50256)]
    entries = ["".join(letters[byte] for byte in word) for word in words]
    ranks, merges = {entry: i for i, entry in enumerate(entries)}, []
    for entry in entries[256:]:
        cuts = ((entry[:n], entry[n:]) for n in range(1, len(entry)))
        merges.append(min(cuts, key=lambda pair: max(ranks.get(part, 10**6) for part in pair)))
    tokenizer = Tokenizer(models.BPE(ranks | {"<|endoftext|>": 50256}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer.to_str()


def edited(tokenizer: Tokenizer | str, **changes: Any) -> Tokenizer:
    """With other entries in its parts: place__entry=value, all of a kind in a sequence."""
    content = json.loads(tokenizer if isinstance(tokenizer, str) else tokenizer.to_str())
    for path, value in changes.items():
        place, entry = path.split("__")
        part = content[place]
        for each in (part, *part.get("pretokenizers", ())):
            if entry in each:
                each[entry] = value
    return Tokenizer.from_str(json.dumps(content))


@pytest.mark.slow
def test_openais_is_the_bundled_one(tmp_path: Path) -> None:
    own = Tokenizer.from_str(gpt2s_own())
    folder = model_folder(tmp_path, own, "gpt2", {"tokenizer_class": "GPT2Tokenizer"})
    assert load_tokenizer(folder) is GPT2
    model = json.loads(own.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    saved = transformers.GPT2Tokenizer(vocab=model["vocab"], merges=merges)
    saved.save_pretrained(folder)
    assert load_tokenizer(folder) is GPT2
    saved.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 50256)]
    )
    model_folder(folder, saved.backend_tokenizer, "gpt2")
    assert load_tokenizer(folder).prefix == (50256,)
    model_folder(folder, own, "gpt2")
    (folder / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert load_tokenizer(folder).encode("win") == GPT2.encode(" win")
    own.normalizer = normalizers.Lowercase()
    model_folder(tmp_path, own, "gpt2", {})
    assert load_tokenizer(folder) is not GPT2
    assert load_tokenizer(folder).encode("WIN") == GPT2.encode("win")


@pytest.mark.parametrize("settings", [None, {"tokenizer_class": "GPT2TokenizerFast"}])
def test_a_gpt2_of_another_language_has_its_own(settings: dict | None, tmp_path: Path) -> None:
    folder = model_folder(tmp_path, random_llama.byte_level(RUSSIAN, 500), "gpt2", settings)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": None}))  # as all GPT-2s
    assert_reads_as_transformers(folder)
    assert load_tokenizer(folder).vocab_size == len(tokenizer["model"]["vocab"])
    model = tokenizer["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "tokenizer.json").unlink()  # as they were published at first
    assert_reads_as_transformers(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"merges\.txt is missing: .*vocab\.json needs it"):
        load_tokenizer(folder)
    (folder / "merges.txt").write_text("#version: 0.2\nnot merges of it\n")
    with pytest.raises(InputError, match="are not a tokenizer"):
        load_tokenizer(folder)


def test_a_gpt2_with_none_is_read_with_the_bundled_one(tmp_path: Path, caplog) -> None:
    folder = model_folder(tmp_path, random_llama.byte_level(TEXTS), "gpt2")
    (folder / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 50304}')
    (folder / "tokenizer.json").rename(folder / "other.json")
    with caplog.at_level("INFO", "gptcls"):
        assert load_tokenizer(folder) is GPT2
    assert "has a vocabulary of 50304 tokens and no tokenizer.json: it is read with GPT-2's" in caplog.text
    (folder / "other.json").rename(folder / "tokenizer.json")
    (folder / "config.json").unlink()
    (folder / "tokenizer.json").write_text("of another model")
    assert load_tokenizer(folder / "model.safetensors") is GPT2, "what lies around a lone file is not its own"


BERT = {
    "do_lower_case": (True, False),
    "strip_accents": (True, False),
    "tokenize_chinese_chars": (True, False),
}


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra", "ernie", "modernbert"])
@pytest.mark.parametrize("said", BERT)
@pytest.mark.parametrize("value", [True, False])
def test_small_letters(model_type: str, said: str, value: bool, tmp_path: Path, caplog) -> None:
    """ModernBERT's tokenizer is of no class of its own, so its file stands as it is."""
    tokenizer = random_bert.wordpiece([*TEXTS, "É Ü win"], tmp_path)
    own = {"lowercase": not value, "strip_accents": not value, "handle_chinese_chars": not value}
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, **own)
    settings = {"do_lower_case": not value, "strip_accents": not value, "tokenize_chinese_chars": not value}
    model_folder(tmp_path, tokenizer, model_type, settings | {said: value})
    with caplog.at_level("INFO", "gptcls"):
        assert_reads_as_transformers(tmp_path)
    line = f"says {said} {str(value).lower()}, unlike tokenizer.json: its word counts"
    assert (line in caplog.text) == (model_type != "modernbert")


CLASSES = {
    "gpt2": ("GPT2Tokenizer", "add_prefix_space"), "roberta": ("RobertaTokenizer", "add_prefix_space"),
    "qwen2": ("Qwen2Tokenizer", "add_prefix_space"), "qwen3": ("Qwen2Tokenizer", "add_prefix_space"),
    "llama": ("PreTrainedTokenizerFast", "add_prefix_space"),
    "xlm-roberta": ("XLMRobertaTokenizer", "prepend_scheme"),
    "camembert": ("CamembertTokenizer", "prepend_scheme"),
    "deberta-v2": ("DebertaV2Tokenizer", "prepend_scheme"),
}  # fmt: skip


def of_class(model_type: str) -> Tokenizer:
    """A tokenizer as transformers' class builds it from a vocabulary."""
    name, entry = CLASSES[model_type]
    if model_type == "llama":
        return random_llama.byte_level(TEXTS)
    if entry == "add_prefix_space":
        ends = ("<s>", "</s>", "<unk>", "<pad>", "<mask>") if model_type == "roberta" else ()
        model = json.loads(random_llama.byte_level(TEXTS, 450, ends).to_str())["model"]
        how = {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}
    else:
        specials = ["<s>", "<pad>", "</s>", "<unk>", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "<mask>"]
        letters = sorted({letter for text in TEXTS for letter in text if letter.strip()} | {"▁"})
        words = [f"▁{word}" for word in ("win", "prize", "see", "you", "leading")]
        how = {"vocab": [(piece, 0.0) for piece in specials] + [(p, -2.0 * len(p)) for p in letters]}
        how["vocab"] += [(word, -1.0) for word in words]
    return getattr(transformers, name)(**how).backend_tokenizer


@pytest.mark.parametrize("model_type", CLASSES)
@pytest.mark.parametrize("value", [True, False])
def test_a_space_in_front(model_type: str, value: bool, tmp_path: Path, caplog) -> None:
    name, entry = CLASSES[model_type]
    schemes = {True: "always", False: "first" if model_type == "deberta-v2" else "never"}
    other = not value if entry == "add_prefix_space" else schemes[not value]
    tokenizer = edited(of_class(model_type), **{f"pre_tokenizer__{entry}": other})
    model_folder(tmp_path, tokenizer, model_type, {"tokenizer_class": name, "add_prefix_space": value})
    with caplog.at_level("INFO", "gptcls"):
        assert_reads_as_transformers(tmp_path)
    said = f"says add_prefix_space {str(value).lower()}, unlike tokenizer.json"
    assert (said in caplog.text) == (model_type != "llama"), "whose class takes the file as it is"


@pytest.mark.parametrize("value", [True, False])
def test_small_letters_of_a_deberta(value: bool, tmp_path: Path) -> None:
    tokenizer = of_class("deberta-v2")
    if not value:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *tokenizer.normalizer])
    settings = {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": value}
    model_folder(tmp_path, tokenizer, "deberta-v2", settings)
    assert load_tokenizer(tmp_path).encode("WIN") != tokenizer.encode("WIN").ids
    assert_reads_as_transformers(tmp_path)


@pytest.mark.parametrize("plain", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_class_that_takes_the_file_as_it_is(plain: str, tmp_path: Path) -> None:
    settings = {"tokenizer_class": plain, "do_lower_case": False}
    model_folder(tmp_path, random_bert.wordpiece(TEXTS, tmp_path), "bert", settings)
    assert_reads_as_transformers(tmp_path)


def test_a_setting_that_is_none(tmp_path: Path) -> None:
    tokenizer = random_bert.wordpiece(TEXTS, tmp_path)
    model_folder(tmp_path, tokenizer, "bert", {"do_lower_case": None})
    assert load_tokenizer(tmp_path).encode("WIN") == tokenizer.encode("win").ids
    model_folder(tmp_path, tokenizer, "bert", {"do_lower_case": "yes"})
    with pytest.raises(InputError, match="do_lower_case 'yes', which is not true or false"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(InputError, match=r"tokenizer_config\.json is not a JSON object"):
        load_tokenizer(tmp_path)


def test_pretraining_reads_texts_with_the_bundled_one(base: Path) -> None:
    random_llama.byte_level(RUSSIAN, 500).save(str(base / "tokenizer.json"))
    texts = base / "t.jsonl"
    texts.write_text('{"text": "a b c d e"}\n' * 9)
    config = PretrainConfig(
        data=(str(texts),), model=str(base), init="pretrained", out=base / "x", device="cpu"
    )
    with pytest.raises(
        InputError, match="has a tokenizer of its own, and pretraining reads texts with GPT-2's"
    ):
        pretrain(config)
