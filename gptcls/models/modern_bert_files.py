"""Hugging Face's folders of ModernBERT turned into ours (``modeling_modernbert.py``)."""

from typing import Any

from gptcls.core.errors import InputError
from gptcls.core.weights import NameMap, State
from gptcls.models.config_json import ConfigReader
from gptcls.models.modern_bert import ModernBertConfig

NAMES = NameMap(
    what="a ModernBERT",
    table={
        "embeddings.tok_embeddings": "wte",
        "embeddings.norm": "embed_norm",
        "layers.{}.attn_norm": "blocks.{}.norm1",
        "layers.{}.attn.Wqkv": "blocks.{}.attn.qkv",
        "layers.{}.attn.Wo": "blocks.{}.attn.proj",
        "layers.{}.mlp_norm": "blocks.{}.norm2",
        "layers.{}.mlp.Wi": "blocks.{}.mlp.fc",
        "layers.{}.mlp.Wo": "blocks.{}.mlp.proj",
        "final_norm": "norm.norm",
        "head.dense": "norm.dense",
        "head.norm": "norm.after",
    },
    prefix="model.",
    bare=("head.dense", "head.norm"),
    heads=("decoder", "classifier"),
)
FULL, NEAR = "full_attention", "sliding_attention"


def read_modern_bert(tensors: State, declared: dict[str, Any], source: str) -> tuple[ModernBertConfig, State]:
    """The configuration in config.json (``declared``, read from ``source``), and the tensors under our names.
    InputError for what this network does not compute or does not have."""
    reader, state = ConfigReader(declared, source), NAMES.to_ours(tensors)
    for key in ("hidden_activation", "classifier_activation"):
        reader.require(key, "gelu", "gelu")
    every, n_layer = reader.whole("global_attn_every_n_layers", 3), reader.whole("num_hidden_layers")
    if "layer_types" in reader.values:
        every = _whole_every(reader, n_layer)
    config = reader.build(
        ModernBertConfig,
        **reader.sizes(),
        window=reader.whole("local_attention", 128, least=2) // 2,
        whole_every=every,
        whole_theta=_theta(reader, FULL, "global_rope_theta", 160_000.0),
        near_theta=_theta(reader, NEAR, "local_rope_theta", 10_000.0),
        norm_eps=reader.number("norm_eps", 1e-5),
        norm_bias=reader.flag("norm_bias"),
        attn_bias=reader.flag("attention_bias"),
        mlp_bias=reader.flag("mlp_bias"),
        pooler_bias=reader.flag("classifier_bias"),
        dropout=reader.share("embedding_dropout", 0.0),
        attn_dropout=reader.share("attention_dropout", 0.0),
        mlp_dropout=reader.share("mlp_dropout", 0.0),
        pooler="norm.dense.weight" in state,
    )
    return config, state


def _whole_every(reader: ConfigReader, n_layer: int) -> int:
    """The distance of the blocks that see the whole text; every block does where it is 1."""
    kinds = reader.values["layer_types"]
    second = kinds.index(FULL, 1) if isinstance(kinds, list) and FULL in kinds[1:] else n_layer
    if kinds != [NEAR if i % second else FULL for i in range(n_layer)]:
        wanted = f"{FULL} at a fixed distance and {NEAR} between, all that is computed here"
        raise InputError(f"{reader.source} says layer_types {kinds!r:.80}, which is not {wanted}")
    return second


def _theta(reader: ConfigReader, kind: str, older: str, default: float) -> float:
    """Of the rotary positions: in ``rope_parameters`` or, in older files, in an entry of its own."""
    parameters = reader.values.get("rope_parameters", {})
    said = parameters.get(kind, {}) if isinstance(parameters, dict) else None
    if not isinstance(said, dict):
        raise InputError(f"{reader.source} says rope_parameters {parameters!r:.80}, not an object of two")
    rope = ConfigReader({"rope_theta": reader.values.get(older), **said}, reader.source)
    rope.require("rope_type", "default", "default")
    reader.require("rope_scaling", {}, {})
    return rope.number("rope_theta", default)
