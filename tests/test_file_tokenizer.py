"""tokenizer.json: the same ids as ``transformers`` gives from the same folder, cut without losing an end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.random_bert import wordpiece
from helpers.random_llama import byte_level, sentencepiece_like
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptcls.core.batches import TextDataset
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import GPT2
from gptcls.data.long_texts import CUTS
from gptcls.models.pretrained import load_tokenizer
from gptcls.models.tokenizer_file import FileTokenizer

TEXTS = [
    "see you at home", "win a prize now, claim your cash!", "Ünïcödé é 中文 e\u0301 ok",
    "  two  spaces\n\nlines\t x", "", "a<|end|>b <s>c</s> d<|endoftext|>", "I'll've 12345", " x", "😀" * 20,
]  # fmt: skip
KINDS = {
    "byte level": lambda: byte_level(TEXTS * 5),
    "with a begin": lambda: byte_level(TEXTS * 5, ends=("<s>",)),
    "with both ends": lambda: byte_level(TEXTS * 5, ends=("<s>", "</s>")),
    "sentencepiece": lambda: sentencepiece_like([text for text in TEXTS if "<" not in text] * 5, 90),
}


@pytest.fixture(scope="module", params=[*KINDS, "Qwen2Tokenizer", "LlamaTokenizer"])
def pair(request, tmp_path_factory) -> tuple[FileTokenizer, Any]:
    """Ours and ``transformers``' reading of one folder; a class of its own wrote what it reads."""
    import transformers

    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param in KINDS:
        KINDS[request.param]().save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    else:
        trained = KINDS["byte level" if request.param == "Qwen2Tokenizer" else "sentencepiece"]()
        model = json.loads(trained.to_str())["model"]
        merges = [tuple(merge) for merge in model["merges"]]
        getattr(transformers, request.param)(vocab=model["vocab"], merges=merges).save_pretrained(folder)
    oracle = transformers.AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    assert type(oracle).__name__ == (request.param if request.param not in KINDS else "TokenizersBackend")
    return FileTokenizer(folder / "tokenizer.json"), oracle


def test_ids_and_texts(pair) -> None:
    ours, theirs = pair
    assert ours.encode_rows(TEXTS) == theirs(TEXTS)["input_ids"]
    assert [ours.encode(text) for text in TEXTS] == ours.encode_rows(TEXTS)
    assert ours.vocab_size == len(theirs)
    for row in ours.encode_rows(TEXTS):
        assert ours.decode(row) == theirs.decode(row, skip_special_tokens=True)


@pytest.mark.parametrize("max_length", [1, 2, 3, 4, 7])
def test_cut_as_transformers_cuts(pair, max_length: int) -> None:
    ours, theirs = pair
    added = theirs.num_special_tokens_to_add()
    rows = ours.encode_rows(TEXTS, max_length)
    if max_length >= added:  # below that it gives up
        assert rows == theirs(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert max(map(len, rows)) == max_length
    data = TextDataset(TEXTS, torch.zeros(len(TEXTS)), max_length, tokenizer=ours)
    assert data.rows == [row or [ours.pad_id] for row in rows]
    longer = sum(len(row) > max_length for row in theirs(TEXTS)["input_ids"])
    assert data.truncated == longer


@pytest.mark.parametrize("max_length", [3, 4, 7])
def test_the_end_as_transformers_cuts_from_the_left(pair, max_length: int) -> None:
    ours, theirs = pair
    theirs.truncation_side = "left"
    data = TextDataset(TEXTS, torch.zeros(len(TEXTS)), max_length, tokenizer=ours, cut=CUTS["tail"])
    expected = theirs(TEXTS, truncation=True, max_length=max_length)["input_ids"]
    assert data.rows == [row or [ours.pad_id] for row in expected]
    for long in ("head-tail", "windows"):
        data = TextDataset(TEXTS, torch.zeros(len(TEXTS)), max_length, tokenizer=ours, cut=CUTS[long])
        for row, owner in zip(data.rows, data.owners, strict=True):
            whole = theirs(TEXTS[owner])["input_ids"] or [ours.pad_id]
            assert len(row) <= max_length
            assert row[: len(ours.prefix)] == whole[: len(ours.prefix)]
            assert row[len(row) - len(ours.suffix) :] == whole[len(whole) - len(ours.suffix) :]
    theirs.truncation_side = "right"


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text(pair, text: str) -> None:
    ours, theirs = pair
    assert ours.encode(text) == theirs(text)["input_ids"]


NAMES = ["<s>", "</s>", "<|end|>", "<unk>", "<0x41>", "[CLS]", "[SEP]", "[MASK]"]


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_special_token_in_a_text_is_text(pair, name: str) -> None:
    ours, theirs = pair
    control = set(theirs.convert_tokens_to_ids(["<s>", "</s>", "<|end|>"])) - {theirs.unk_token_id}
    for text in (name, f"see {name} you", f"{name}{name}"):
        row = ours.encode(text)
        assert row == theirs(text)["input_ids"]
        inside = row[len(ours.prefix) : len(row) - len(ours.suffix)]
        assert not set(inside) & control


def test_in_an_encoder_too_and_what_goes_around_a_text_stays(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    wordpiece([*TEXTS, "[SEP] [CLS] cls sep"] * 5, tmp_path)
    ours = FileTokenizer(tmp_path / "tokenizer.json")
    theirs = BertTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), split_special_tokens=True)
    for text in ("see [SEP] you", "[CLS]", "[MASK][PAD] x", "x [SEP]"):
        row = ours.encode(text)
        assert row == theirs(text)["input_ids"]
        assert (row[0], row[-1]) == (2, 3) == (*ours.prefix, *ours.suffix)
        assert not {0, 2, 3, 4} & set(row[1:-1]), "padding, begin, end or mask"


def test_saved_and_read_again(pair, tmp_path: Path) -> None:
    ours, _ = pair
    (tmp_path / "tokenizer.json").write_text(ours.to_json(), encoding="utf-8")
    again = FileTokenizer(tmp_path / "tokenizer.json", ours.pad_id, ours.eos_ids)
    assert again.encode_rows(TEXTS) == ours.encode_rows(TEXTS)
    assert (again.vocab_size, again.pad_id, again.eos_ids) == (ours.vocab_size, ours.pad_id, ours.eos_ids)


def test_truncation_and_padding_saved_in_the_file_are_not_applied(tmp_path: Path) -> None:
    tokenizer = byte_level(TEXTS)
    tokenizer.encode_special_tokens = True
    expected = [tokenizer.encode(text).ids for text in TEXTS]
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert FileTokenizer(tmp_path / "tokenizer.json").encode_rows(TEXTS) == expected


def test_many_rows_and_lone_surrogates(tmp_path: Path) -> None:
    byte_level(TEXTS).save(str(tmp_path / "tokenizer.json"))
    tokenizer = FileTokenizer(tmp_path / "tokenizer.json")
    texts = [f"see {i} x \ud800" for i in range(2500)]
    rows = tokenizer.encode_rows(texts)
    assert [tokenizer.decode(row) for row in rows] == [
        f"see {i} x \N{REPLACEMENT CHARACTER}" for i in range(2500)
    ]


@pytest.mark.parametrize("value", [None, 3, b"bytes", ["a"]])
def test_what_is_not_text_is_a_type_error_naming_its_row(value: object, tmp_path: Path) -> None:
    byte_level(TEXTS).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TypeError, match=r"row 1: expected text, got " + type(value).__name__):
        FileTokenizer(tmp_path / "tokenizer.json").encode_rows(["fine", value])


# Beside a model


def model_folder(folder: Path, **config: object) -> Path:
    """A folder with a tokenizer and what names its family; weights are not looked at."""
    byte_level(TEXTS, ends=("<s>", "</s>")).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize(
    ("config", "generation", "pad_id", "eos_ids"),
    [
        ({}, None, 0, ()),
        ({"eos_token_id": 2}, None, 2, (2,)),
        ({"eos_token_id": 0, "pad_token_id": 1}, None, 1, (0,)),
        ({"eos_token_id": "</s>", "pad_token_id": "<s>"}, None, 0, ()),
        ({"eos_token_id": 2, "pad_token_id": 1}, None, 1, (2,)),
        ({"eos_token_id": [2, 0]}, None, 2, (2, 0)),
        ({"eos_token_id": 2}, {"eos_token_id": [1, 2]}, 1, (1, 2)),
        ({"eos_token_id": None, "pad_token_id": -1}, None, 0, ()),  # as in the first Llama's files
        ({"eos_token_id": 128_001, "pad_token_id": 128_004}, None, 0, ()),  # no ids of this tokenizer
    ],
)
def test_ends_and_padding(config, generation, pad_id: int, eos_ids: tuple, tmp_path: Path) -> None:
    model_folder(tmp_path, **config)
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.pad_id, tokenizer.eos_ids) == (pad_id, eos_ids)


def test_the_bundled_one_is_gpt2s(base: Path) -> None:
    assert load_tokenizer("gpt2-small") is load_tokenizer("gpt2-nano") is GPT2
    assert load_tokenizer(base) is GPT2
    (base / "tokenizer.json").write_text("not one")
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(base)


def test_missing_or_broken(tmp_path: Path) -> None:
    file = model_folder(tmp_path) / "tokenizer.json"
    file.write_text('{"version": "1.0"}')
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer .*download it again") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)
    file.unlink()
    (tmp_path / "tokenizer.model").touch()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing.*tokenizer\.model.*AutoTokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(InputError, match="model_type 'mamba'; supported are bert, "):
        load_tokenizer(tmp_path)
