"""The name maps, held against networks that other people wrote: same weights, same logits."""

import logging

import pytest
import torch
from helpers.random_gpt2 import TINY, book_gpt2, openai_variables, random_ids, transformers_gpt2

from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.core.weights import GPT2_NAMES
from gptcls.models import gpt2_files as maps

NO_BOOK = "needs llms-from-scratch, installed with --no-deps (it asks for TensorFlow)"


@pytest.fixture(scope="module")
def oracle():
    return transformers_gpt2()


def logits(state: dict, n_head: int = TINY["n_head"]) -> torch.Tensor:
    """What our network computes with converted weights."""
    model = GPT2(maps.infer_config(state, n_head)).eval()
    model.load_state_dict(state, strict=True)
    with torch.inference_mode():
        return model.lm_logits(model(random_ids()))


def expected(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found = model(random_ids())
    return getattr(found, "logits", found)


def test_huggingface_with_prefix(oracle) -> None:
    state = maps.convert(oracle.state_dict())
    assert "lm_head.weight" not in state  # equal to the token table
    torch.testing.assert_close(logits(state), expected(oracle), rtol=0, atol=1e-4)


def test_huggingface_without_prefix_and_with_mask_buffers(oracle) -> None:
    state = dict(oracle.transformer.state_dict())
    for block in range(TINY["n_layer"]):  # as in the files of openai-community/gpt2
        state[f"h.{block}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
        state[f"h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.testing.assert_close(logits(maps.convert(state)), expected(oracle), rtol=0, atol=1e-4)


def test_an_untied_head_is_kept() -> None:
    oracle = transformers_gpt2(tie_word_embeddings=False)
    state = maps.convert(oracle.state_dict())
    assert not maps.infer_config(state, 3).tied
    torch.testing.assert_close(logits(state), expected(oracle), rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_to_huggingface_undoes_from_huggingface(tied: bool, tmp_path) -> None:
    from safetensors.torch import save_file
    from transformers import GPT2LMHeadModel

    oracle = transformers_gpt2(tie_word_embeddings=tied)
    oracle.config.save_pretrained(tmp_path)
    back = GPT2_NAMES.to_theirs(maps.convert(oracle.state_dict()))
    save_file(back, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, report = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensor in oracle.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_every_one_of_our_names_has_its_huggingface_name(oracle) -> None:
    names = {
        GPT2_NAMES.theirs(name)
        for name in GPT2(maps.infer_config(maps.convert(oracle.state_dict()), 3)).state_dict()
    }
    assert names == set(oracle.state_dict()) - {"lm_head.weight"}
    with pytest.raises(InputError, match="bogus"):
        GPT2_NAMES.theirs("bogus.weight")


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_book(qkv_bias: bool, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("llms_from_scratch", reason=NO_BOOK)
    oracle = book_gpt2(qkv_bias=qkv_bias)
    masks = {f"trf_blocks.{block}.att.mask": torch.ones(32, 32).triu(1) for block in range(TINY["n_layer"])}
    with caplog.at_level(logging.INFO, "gptcls"):
        state = maps.convert(oracle.state_dict() | masks)
    assert ("qkv_bias=False" in caplog.text) is not qkv_bias
    torch.testing.assert_close(logits(state), expected(oracle), rtol=0, atol=1e-4)


def test_book_with_a_head_equal_to_the_token_table() -> None:
    pytest.importorskip("llms_from_scratch", reason=NO_BOOK)
    oracle = book_gpt2()
    oracle.out_head.weight = oracle.tok_emb.weight
    assert "lm_head.weight" not in maps.convert(oracle.state_dict())


def test_book_with_a_query_alone_is_refused() -> None:
    pytest.importorskip("llms_from_scratch", reason=NO_BOOK)
    state = dict(book_gpt2().state_dict())
    del state["trf_blocks.1.att.W_key.bias"]
    with pytest.raises(InputError, match=r"trf_blocks\.1\.att .* bias"):
        maps.convert(state)


def test_openai(oracle) -> None:
    state = maps.convert(openai_variables(oracle))
    torch.testing.assert_close(logits(state), expected(oracle), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("h.0.attn.c_attn.lora_A", "h.0.attn.c_attn.lora_A"),
        ("h.0.attn.rotary.weight", "h.0.attn.rotary.weight"),
        ("transformer.wte.weight", "wte.weight is there twice"),
    ],
)
def test_an_unknown_name_is_named(oracle, extra: str, named: str) -> None:
    state = {**oracle.transformer.state_dict(), extra: torch.zeros(2, 48)}
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        maps.convert(state)


@pytest.mark.parametrize("family", ["book", "openai"])
def test_an_unknown_name_is_named_in_every_family(oracle, family: str) -> None:
    if family == "book":
        state, name = {"tok_emb.weight": torch.zeros(9, 4)}, "trf_blocks.0.att.W_quary.weight"
    else:
        state, name = openai_variables(oracle), "model/h0/attn/c_gate/w"
    with pytest.raises(InputError, match="not part of a GPT-2"):
        maps.convert({**state, name: torch.zeros(4, 4)})


def test_names_of_no_family() -> None:
    with pytest.raises(InputError, match=r"model\.layers\.0\.q_proj\.weight"):
        maps.convert({"model.layers.0.q_proj.weight": torch.zeros(2, 2)})
    with pytest.raises(InputError):
        maps.convert({})


def test_infer_config(oracle, caplog: pytest.LogCaptureFixture) -> None:
    state = maps.convert(oracle.state_dict())
    config = maps.infer_config(state, n_head=3)
    assert {key: getattr(config, key) for key in TINY} == TINY
    with pytest.raises(InputError, match=r"width 48 .* config\.json"):
        maps.infer_config(state)
    with pytest.raises(InputError, match="n_head 5 does not divide the width 48"):
        maps.infer_config(state, n_head=5)
    with caplog.at_level(logging.INFO, "gptcls"):
        wide = {"wte.weight": torch.zeros(9, 1600), "wpe.weight": torch.zeros(8, 1600)}
        assert maps.infer_config(wide).n_head == 25
    assert "25 heads" in caplog.text
