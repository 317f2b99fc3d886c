"""Hugging Face's folders of the Llama family turned into ours: one table of names for ``modeling_llama.py``,
``modeling_mistral.py`` and ``modeling_qwen2.py``, and each ``model_type``'s entries of config.json.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gptcls.core.errors import InputError
from gptcls.core.weights import NameMap, State
from gptcls.models.config_json import Entries
from gptcls.models.llama import LlamaConfig

log = logging.getLogger("gptcls")


NAMES = NameMap(
    what="a Llama, Mistral or Qwen2",
    table={
        "embed_tokens": "wte",
        "layers.{}.input_layernorm": "blocks.{}.norm1",
        "layers.{}.self_attn.q_proj": "blocks.{}.attn.q",
        "layers.{}.self_attn.k_proj": "blocks.{}.attn.k",
        "layers.{}.self_attn.v_proj": "blocks.{}.attn.v",
        "layers.{}.self_attn.o_proj": "blocks.{}.attn.proj",
        "layers.{}.post_attention_layernorm": "blocks.{}.norm2",
        "layers.{}.mlp.gate_proj": "blocks.{}.mlp.gate",
        "layers.{}.mlp.up_proj": "blocks.{}.mlp.up",
        "layers.{}.mlp.down_proj": "blocks.{}.mlp.down",
        "norm": "norm",
        "lm_head": "lm_head",
    },
    prefix="model.",
    bare=("lm_head",),
    skipped=("layers.{}.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"),  # computed, not learnt
    heads=("score",),  # of Hugging Face's …ForSequenceClassification
)


SIZES = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
    "vocab_size": "vocab_size",
}


def read_llama(
    tensors: Mapping[str, Tensor], declared: Mapping[str, Any], source: str
) -> tuple[LlamaConfig, State]:
    """The configuration in config.json (``declared``, read from ``source``), and the tensors under our names.

    Heads for another purpose are left out, and the log says so. Raises InputError for an entry that
    chooses what this network does not compute, and for a tensor that is none of its own.
    """
    config = read_llama_config(declared, source)
    state = NAMES.to_ours(tensors)
    head, table = state.get("lm_head.weight"), state.get("wte.weight")
    if config.tied and head is not None:
        if table is not None and head.shape == table.shape and torch.equal(head, table):
            del state["lm_head.weight"]  # the same table, written twice
        else:
            log.info(
                f"{source} ties the language-model head to the token table, but the file has another one"
            )
            config = replace(config, tied=False)
    return config, state


def read_llama_config(declared: Mapping[str, Any], source: str) -> LlamaConfig:
    """The entries of a config.json as our configuration; see :func:`read` for what is refused."""
    declared = Entries(declared, source)
    declared.require("hidden_act", "silu", "silu")
    if declared.values.get("attention_dropout"):
        log.info(f"{source}: attention_dropout {declared.values['attention_dropout']} is not applied")
    sizes = {ours: declared.whole(theirs) for ours, theirs in SIZES.items()}
    n_head = sizes["n_head"]
    values = {
        "n_kv_head": declared.whole("num_key_value_heads", n_head),
        "head_dim": declared.whole("head_dim", sizes["n_embd"] // n_head),
        "norm_eps": declared.number("rms_norm_eps", 1e-6),
        "tied": declared.flag("tie_word_embeddings"),
        **_rotary(declared),
        **MODEL_TYPES[declared.values["model_type"]](declared),
    }
    try:
        return LlamaConfig(**sizes, **values)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None


def _rotary(declared: Entries) -> dict[str, float]:
    """Rotary positions: ``rope_theta`` and ``rope_scaling``, or in newer files ``rope_parameters``."""
    values, source = declared.values, declared.source
    scaling = values.get("rope_parameters", values.get("rope_scaling", {}))
    if not isinstance(scaling, dict):
        raise InputError(f"{source} says rope_scaling {scaling!r}, which is no object")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    rope = Entries({"rope_theta": values.get("rope_theta"), **scaling, "rope_type": kind}, source)
    rope.require("rope_type", "default", "default", "llama3")
    rope.require("partial_rotary_factor", values.get("partial_rotary_factor", 1.0), 1.0)
    result: dict[str, float] = {"rope_theta": rope.number("rope_theta", 10_000.0)}
    if kind == "llama3":
        result |= {
            "rope_factor": rope.number("factor"),
            "rope_low_freq": rope.number("low_freq_factor"),
            "rope_high_freq": rope.number("high_freq_factor"),
            "rope_old_positions": rope.whole(
                "original_max_position_embeddings", values.get("max_position_embeddings")
            ),
        }
    return result


def _llama(declared: Entries) -> dict[str, Any]:
    bias = declared.flag("attention_bias")
    return {"qkv_bias": bias, "proj_bias": bias, "mlp_bias": declared.flag("mlp_bias")}


def _mistral(declared: Entries) -> dict[str, Any]:
    # Left out it means 4096 to transformers, and null means none.
    return {"window": None if "sliding_window" in declared.nulls else declared.whole("sliding_window", 4096)}


def _qwen2(declared: Entries) -> dict[str, Any]:
    if not declared.flag("use_sliding_window") or "sliding_window" in declared.nulls:
        return {"qkv_bias": True}
    n_layer = declared.whole("num_hidden_layers")
    kinds = declared.values.get("layer_types")
    if kinds is None:
        first = min(declared.whole("max_window_layers", 28, least=0), n_layer)
    else:
        first = kinds.count("full_attention") if isinstance(kinds, list) else 0
        if kinds != ["full_attention"] * first + ["sliding_attention"] * (n_layer - first):
            raise InputError(
                f"{declared.source} says layer_types {kinds!r:.80}, which is not {n_layer} entries, first "
                "full_attention, then sliding_attention, all that is computed here"
            )
    if first == n_layer:
        return {"qkv_bias": True}
    return {
        "qkv_bias": True,
        "window": declared.whole("sliding_window", 4096),
        "window_from": first or None,
    }


# What each model_type says in its own way.
MODEL_TYPES: dict[str, Callable[[Entries], dict[str, Any]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
}
