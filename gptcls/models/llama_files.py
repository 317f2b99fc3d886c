"""Hugging Face's folders of the Llama family turned into ours: one table of names for ``modeling_llama.py``
and its like (Mistral, Qwen2 and 3, SmolLM3, Phi-3), and each ``model_type``'s entries of config.json."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.weights import NameMap, State
from gptcls.models.config_json import ConfigReader
from gptcls.models.gpt2_files import drop_tied_head
from gptcls.models.llama import LlamaConfig
from gptcls.models.rotary import ROPE_TYPES

NAMES = NameMap(
    what="a network of the Llama family",
    table={
        "embed_tokens": "wte",
        "layers.{}.input_layernorm": "blocks.{}.norm1",
        "layers.{}.self_attn.q_proj": "blocks.{}.attn.q",
        "layers.{}.self_attn.k_proj": "blocks.{}.attn.k",
        "layers.{}.self_attn.v_proj": "blocks.{}.attn.v",
        "layers.{}.self_attn.o_proj": "blocks.{}.attn.proj",
        "layers.{}.self_attn.q_norm": "blocks.{}.attn.q_norm",
        "layers.{}.self_attn.k_norm": "blocks.{}.attn.k_norm",
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
    config = read_llama_config(declared, source)
    if declared.get("model_type") == "phi3":
        tensors = _separate(tensors, config)
    state = NAMES.to_ours(tensors)
    if config.tied and "lm_head.weight" in drop_tied_head(state):
        log.info(f"{source} ties the head to the token table, but the file has another one")
        config = replace(config, tied=False)
    return config, state


def read_llama_config(declared: dict[str, Any], source: str) -> LlamaConfig:
    """The entries of a config.json as our configuration; see :func:`read_llama` for what is refused."""
    reader = ConfigReader(declared, source)
    reader.require("hidden_act", "silu", "silu")
    reader.require("is_causal", True, True)
    if reader.values.get("attention_dropout"):
        log.info(f"{source}: attention_dropout {reader.values['attention_dropout']} is not applied")
    sizes, own = reader.sizes(), MODEL_TYPES[reader.values["model_type"]](reader)
    common = {
        "n_kv_head": reader.whole("num_key_value_heads", sizes["n_head"]),
        "head_dim": reader.whole("head_dim", sizes["n_embd"] // sizes["n_head"]),
        "norm_eps": reader.number("rms_norm_eps", 1e-6),
        "tied": reader.flag("tie_word_embeddings"),
    }
    return reader.build(LlamaConfig, **sizes | common | _rotary(reader) | own)


def _separate(tensors: State, config: LlamaConfig) -> State:
    """Phi-3 keeps queries, keys and values in one matrix, and the two that go into the MLP in another."""
    queries, others = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    joint = {
        "self_attn.qkv_proj": (["q_proj", "k_proj", "v_proj"], [queries, others, others]),
        "mlp.gate_up_proj": (["gate_proj", "up_proj"], [config.n_inner] * 2),
    }
    state = {}
    for name, tensor in tensors.items():
        module = ".".join(name.split(".")[-3:-1])
        if module not in joint:
            state[name] = tensor
            continue
        parts, rows = joint[module]
        if not tensor.ndim or len(tensor) != sum(rows):
            wanted = f"{' + '.join(map(str, rows))} rows for {', '.join(parts)}"
            raise InputError(f"{name} has the shape {list(tensor.shape)}, not {wanted}")
        for part, values in zip(parts, tensor.split(rows), strict=True):
            state[name.replace(module.split(".")[1], part)] = values
    return state


def _rotary(reader: ConfigReader) -> dict[str, Any]:
    """Rotary positions: ``rope_theta`` and ``rope_scaling``, or in newer files ``rope_parameters``."""
    values, source = reader.values, reader.source
    scaling = values.get("rope_parameters", values.get("rope_scaling", {}))
    if not isinstance(scaling, dict):
        raise InputError(f"{source} says rope_scaling {scaling!r}, which is not an object")
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    said = {key: value for key, value in scaling.items() if value is not None}  # null hides no outer entry
    rope = ConfigReader({"rope_theta": values.get("rope_theta"), **said, "rope_type": kind}, source)
    types = () if values["model_type"] == "phi3" else ROPE_TYPES  # its "yarn" is another, with learnt factors
    rope.require("rope_type", "default", "default", *types)
    rope.require("partial_rotary_factor", values.get("partial_rotary_factor", 1.0), 1.0)
    theta = 2_000_000.0 if values["model_type"] == "smollm3" else 10_000.0
    found = {"rope_theta": rope.number("rope_theta", theta)}
    if kind == "default":
        return found
    found |= {"rope_type": kind, "rope_factor": rope.number("factor")}
    if kind == "linear":
        return found
    longest = values.get("max_position_embeddings")
    found["rope_old_positions"] = rope.whole("original_max_position_embeddings", longest)
    if kind == "llama3":
        low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
        return found | {"rope_low_freq": low, "rope_high_freq": high}
    return found | {
        "rope_low_freq": rope.number("beta_slow", 1.0),
        "rope_high_freq": rope.number("beta_fast", 32.0),
        "rope_whole_pairs": rope.flag("truncate", True),
        "rope_scale": rope.number("attention_factor", _yarn_scale(rope)),
    }


def _yarn_scale(rope: ConfigReader) -> float:
    """YaRN's own temperature: 0.1 ln(factor) + 1, or DeepSeek's quotient of two such."""

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(max(rope.number("factor"), 1.0)) + 1

    weights = [rope.values.get(key) for key in ("mscale", "mscale_all_dim")]
    return scale(rope.number("mscale")) / scale(rope.number("mscale_all_dim")) if all(weights) else scale(1.0)


def _llama(reader: ConfigReader) -> dict[str, Any]:
    bias = reader.flag("attention_bias")
    return {"qkv_bias": bias, "proj_bias": bias, "mlp_bias": reader.flag("mlp_bias")}


def _mistral(reader: ConfigReader) -> dict[str, Any]:
    # Left out it means 4096 to transformers, and null means none.
    return {"window": None if "sliding_window" in reader.nulls else reader.whole("sliding_window", 4096)}


def _qwen2(reader: ConfigReader) -> dict[str, Any]:
    return {"qkv_bias": True} | _window_above(reader)


def _qwen3(reader: ConfigReader) -> dict[str, Any]:
    bias = reader.flag("attention_bias")
    own = {"qk_norm": True, "qkv_bias": bias, "proj_bias": bias, "head_dim": reader.whole("head_dim", 128)}
    return own | _window_above(reader)


def _window_above(reader: ConfigReader) -> dict[str, Any]:
    """Of Qwen2 and Qwen3: the upper blocks may have a window."""
    if not reader.flag("use_sliding_window") or "sliding_window" in reader.nulls:
        return {}
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
        return {}
    return {"window": reader.whole("sliding_window", 4096), "window_from": first or None}


def _smollm3(reader: ConfigReader) -> dict[str, Any]:
    reader.require("use_sliding_window", False, False)
    every, n_layer = reader.whole("no_rope_layer_interval", 4), reader.whole("num_hidden_layers")
    turned = [int(i % every > 0) for i in range(1, n_layer + 1)]
    if (said := reader.values.get("no_rope_layers", turned)) != turned:
        if said != [1] * n_layer:  # else all are turned
            wanted = f"each block of no_rope_layer_interval {every}: {turned!r:.80}"
            raise InputError(f"{reader.source} says no_rope_layers {said!r:.80}, which is not {wanted}")
        every = None
    return _llama(reader) | {"rope_left_out": every, "tied": reader.flag("tie_word_embeddings", True)}


def _phi3(reader: ConfigReader) -> dict[str, Any]:
    window = reader.values.get("sliding_window")
    return {"window": window if window is None else reader.whole("sliding_window")}


# What each model_type says in its own way.
MODEL_TYPES: dict[str, Callable] = {
    "llama": _llama, "mistral": _mistral, "phi3": _phi3, "qwen2": _qwen2, "qwen3": _qwen3,
    "smollm3": _smollm3,
}  # fmt: skip
