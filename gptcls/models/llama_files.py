"""Hugging Face's folders of the Llama family turned into ours: one table of names for ``modeling_llama.py``,
``modeling_mistral.py`` and ``modeling_qwen2.py``, and each ``model_type``'s entries of config.json."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.weights import NameMap, State
from gptcls.models.config_json import ConfigReader
from gptcls.models.gpt2_files import drop_tied_head
from gptcls.models.llama import LlamaConfig

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


def read_llama(tensors: State, declared: dict[str, Any], source: str) -> tuple[LlamaConfig, State]:
    """The configuration in config.json (``declared``, read from ``source``), and the tensors under our names.
    InputError for what this network does not compute or does not have."""
    config, state = read_llama_config(declared, source), NAMES.to_ours(tensors)
    ConfigReader(declared, source).check_blocks("num_hidden_layers", config.n_layer, state)
    if config.tied and "lm_head.weight" in drop_tied_head(state):
        log.info(f"{source} ties the head to the token table, but the file has another one")
        config = replace(config, tied=False)
    return config, state


def read_llama_config(declared: dict[str, Any], source: str) -> LlamaConfig:
    """The entries of a config.json as our configuration; see :func:`read_llama` for what is refused."""
    reader = ConfigReader(declared, source)
    reader.require("hidden_act", "silu", "silu")
    if reader.values.get("attention_dropout"):
        log.info(f"{source}: attention_dropout {reader.values['attention_dropout']} is not applied")
    sizes = reader.sizes()
    return reader.build(
        LlamaConfig,
        **sizes,
        n_kv_head=reader.whole("num_key_value_heads", sizes["n_head"]),
        head_dim=reader.whole("head_dim", sizes["n_embd"] // sizes["n_head"]),
        norm_eps=reader.number("rms_norm_eps", 1e-6),
        tied=reader.flag("tie_word_embeddings"),
        **_rotary(reader),
        **MODEL_TYPES[reader.values["model_type"]](reader),
    )


def _rotary(reader: ConfigReader) -> dict[str, float]:
    """Rotary positions: ``rope_theta`` and ``rope_scaling``, or in newer files ``rope_parameters``."""
    values, source = reader.values, reader.source
    scaling = values.get("rope_parameters", values.get("rope_scaling", {}))
    if not isinstance(scaling, dict):
        raise InputError(f"{source} says rope_scaling {scaling!r}, which is not an object")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    said = {key: value for key, value in scaling.items() if value is not None}  # null hides no outer entry
    rope = ConfigReader({"rope_theta": values.get("rope_theta"), **said, "rope_type": kind}, source)
    rope.require("rope_type", "default", "default", "llama3")
    rope.require("partial_rotary_factor", values.get("partial_rotary_factor", 1.0), 1.0)
    theta, longest = rope.number("rope_theta", 10_000.0), values.get("max_position_embeddings")
    if kind == "default":
        return {"rope_theta": theta}
    return {
        "rope_theta": theta,
        "rope_factor": rope.number("factor"),
        "rope_low_freq": rope.number("low_freq_factor"),
        "rope_high_freq": rope.number("high_freq_factor"),
        "rope_old_positions": rope.whole("original_max_position_embeddings", longest),
    }


def _llama(reader: ConfigReader) -> dict[str, Any]:
    bias = reader.flag("attention_bias")
    return {"qkv_bias": bias, "proj_bias": bias, "mlp_bias": reader.flag("mlp_bias")}


def _mistral(reader: ConfigReader) -> dict[str, Any]:
    # Left out it means 4096 to transformers, and null means none.
    return {"window": None if "sliding_window" in reader.nulls else reader.whole("sliding_window", 4096)}


def _qwen2(reader: ConfigReader) -> dict[str, Any]:
    if not reader.flag("use_sliding_window") or "sliding_window" in reader.nulls:
        return {"qkv_bias": True}
    n_layer, kinds = reader.whole("num_hidden_layers"), reader.values.get("layer_types")
    if kinds is None:
        first = min(reader.whole("max_window_layers", 28, least=0), n_layer)
    else:
        first = kinds.count("full_attention") if isinstance(kinds, list) else 0
        if kinds != ["full_attention"] * first + ["sliding_attention"] * (n_layer - first):
            said = f"{reader.source} says layer_types {kinds!r:.80}"
            wanted = "first full_attention, then sliding_attention, all that is computed here"
            raise InputError(f"{said}, which is not {n_layer} entries, {wanted}")
    if first == n_layer:
        return {"qkv_bias": True}
    return {"qkv_bias": True, "window": reader.whole("sliding_window", 4096), "window_from": first or None}


# What each model_type says in its own way.
MODEL_TYPES: dict[str, Callable] = {"llama": _llama, "mistral": _mistral, "qwen2": _qwen2}
