"""The config.json of published models, entry by entry but for sizes: what they say is read as transformers
reads it, and none of it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.random_bert import ragged, told
from helpers.random_llama import save
from safetensors.torch import load_file
from torch import Tensor

from gptcls.core.errors import InputError
from gptcls.models.pretrained import load_pretrained

SIZES = {
    "hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 80,
    "vocab_size": 97, "max_position_embeddings": 66, "initializer_range": 0.02,
}  # fmt: skip
DROPOUT = {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "hidden_act": "gelu"}
DECODER = {"attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "rope_scaling": None}
# The task of transformers' model that the file holds, and the file's entries beside SIZES.
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen/Qwen3-0.6B": ("CausalLM", DECODER | {
        "model_type": "qwen3", "bos_token_id": 93, "eos_token_id": 95, "head_dim": 16,
        "max_window_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1_000_000,
        "sliding_window": None, "tie_word_embeddings": True, "use_cache": True, "use_sliding_window": False}),
    "HuggingFaceTB/SmolLM3-3B": ("CausalLM", DECODER | {
        "model_type": "smollm3", "bos_token_id": 90, "eos_token_id": 92, "pad_token_id": 94,
        "layer_types": ["full_attention"] * 4, "max_window_layers": 28, "mlp_bias": False,
        "no_rope_layer_interval": 4, "no_rope_layers": [1, 1, 1, 0], "num_key_value_heads": 2,
        "pretraining_tp": 2, "rms_norm_eps": 1e-6, "rope_theta": 5e6, "sliding_window": None,
        "use_cache": False, "use_sliding_window": False}),
    "microsoft/Phi-3-mini-4k-instruct": ("CausalLM", DECODER | {
        "model_type": "phi3", "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 1,
        "eos_token_id": 90, "pad_token_id": 90, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        "num_key_value_heads": 4, "original_max_position_embeddings": 66, "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0, "sliding_window": 33, "tie_word_embeddings": False, "use_cache": True}),
    "distilbert-base-uncased": ("MaskedLM", {
        "model_type": "distilbert", "activation": "gelu", "attention_dropout": 0.1, "dim": 48, "dropout": 0.1,
        "hidden_dim": 80, "n_heads": 4, "n_layers": 4, "pad_token_id": 0, "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True}),
    "google/electra-small-discriminator": ("PreTraining", DROPOUT | {
        "model_type": "electra", "embedding_size": 24, "layer_norm_eps": 1e-12, "pad_token_id": 0,
        "position_embedding_type": "absolute", "summary_activation": "gelu", "summary_last_dropout": 0.1,
        "summary_type": "first", "summary_use_proj": True, "type_vocab_size": 2}),
    "nghuyong/ernie-3.0-base-zh": ("MaskedLM", DROPOUT | {
        "model_type": "ernie", "layer_norm_eps": 1e-5, "pad_token_id": 0, "task_type_vocab_size": 3,
        "type_vocab_size": 4, "use_task_id": True}),
    "camembert-base": ("MaskedLM", DROPOUT | {
        "model_type": "camembert", "bos_token_id": 5, "eos_token_id": 6, "layer_norm_eps": 1e-5,
        "output_past": True, "pad_token_id": 1, "type_vocab_size": 1}),
    "answerdotai/ModernBERT-base": ("MaskedLM", {
        "model_type": "modernbert", "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 81,
        "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0,
        "classifier_pooling": "mean", "cls_token_id": 81, "decoder_bias": True,
        "deterministic_flash_attn": False, "embedding_dropout": 0.0, "eos_token_id": 82,
        "global_attn_every_n_layers": 3, "global_rope_theta": 160_000.0, "gradient_checkpointing": False,
        "hidden_activation": "gelu", "initializer_cutoff_factor": 2.0, "layer_norm_eps": 1e-5,
        "local_attention": 14, "local_rope_theta": 10_000.0, "mlp_bias": False, "mlp_dropout": 0.0,
        "norm_bias": False, "norm_eps": 1e-5, "pad_token_id": 83, "position_embedding_type": "absolute",
        "reference_compile": None, "sep_token_id": 82, "tie_word_embeddings": True}),
    "microsoft/deberta-v3-base": ("MaskedLM", DROPOUT | {
        "model_type": "deberta-v2", "relative_attention": True, "position_buckets": 8,
        "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p", "pad_token_id": 0,
        "layer_norm_eps": 1e-7, "max_relative_positions": -1, "position_biased_input": False,
        "type_vocab_size": 0, "pooler_dropout": 0, "pooler_hidden_act": "gelu", "pooler_hidden_size": 48}),
}  # fmt: skip


def published(name: str, folder: Path) -> torch.nn.Module:
    """What transformers makes of the entries, with random weights, saved in ``folder`` beside them."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForPreTraining

    task, entries = PUBLISHED[name]
    folder.mkdir(exist_ok=True)
    if entries["model_type"] == "distilbert":
        sizes = {key: SIZES[key] for key in ("vocab_size", "max_position_embeddings", "initializer_range")}
    else:
        sizes = SIZES
    text = json.dumps(sizes | entries)
    (folder / "config.json").write_text(text)
    kinds = {
        "CausalLM": AutoModelForCausalLM,
        "MaskedLM": AutoModelForMaskedLM,
        "PreTraining": AutoModelForPreTraining,
    }
    config = AutoConfig.from_pretrained(folder)
    if config.pad_token_id is None:
        config.pad_token_id = 0
    torch.manual_seed(0)
    model = kinds[task].from_config(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in parameter_name.lower() else 0.0, 0.2)
    save(model.eval(), folder)
    (folder / "config.json").write_text(text)  # not as this transformers writes it today
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_published_config_says(name: str, tmp_path: Path) -> None:
    oracle = published(name, tmp_path)
    model = load_pretrained(tmp_path)
    if hasattr(model, "drop_pooler"):
        model.drop_pooler()
    _, ids, lengths = ragged()
    with torch.inference_mode():
        wanted = oracle.base_model(**told(oracle, lengths, ids)).last_hidden_state
        for found, expected, length in zip(model(ids, lengths), wanted, lengths, strict=True):
            torch.testing.assert_close(found[:length], expected[:length], rtol=0, atol=1e-4)


def test_debertas_pytorch_file(tmp_path: Path) -> None:
    """Its heads have names of their own, and beside its tables stands what pretraining needed."""
    published("microsoft/deberta-v3-base", tmp_path)
    plain = load_pretrained(tmp_path)
    tensors: dict[str, Tensor] = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    heads = [f"lm_predictions.lm_head.{x}" for x in ("bias", "dense.weight", "LayerNorm.weight")]
    heads += [f"mask_predictions.{x}" for x in ("dense.weight", "LayerNorm.bias", "classifier.weight")]
    tables = [f"deberta.embeddings.{x}_embeddings._weight" for x in ("word", "position")]
    tables.append("deberta.embeddings.position_embeddings.weight")
    body = {key: tensor for key, tensor in tensors.items() if key.startswith("deberta.")}
    torch.save(body | {key: torch.ones(66, 48) for key in heads + tables}, tmp_path / "pytorch_model.bin")
    found = load_pretrained(tmp_path)
    assert found.config == plain.config
    for key, value in plain.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)


@pytest.mark.parametrize("value", [5, True, 2.5, [[1]], "c2p", ["c2p", "p2c", "p2p"]])
def test_a_deberta_whose_kinds_of_position_are_nothing(value: Any, tmp_path: Path) -> None:
    published("microsoft/deberta-v3-base", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pos_att_type": value}))
    with pytest.raises(InputError, match=r"says pos_att_type .*, which is not c2p and p2c"):
        load_pretrained(tmp_path)
