"""Hugging Face's folders of DeBERTa-v3 turned into ours (``modeling_deberta_v2.py``, whose second version has
more switches than are read here)."""

from typing import Any

from gptcls.core.errors import InputError
from gptcls.core.weights import NameMap, State
from gptcls.models.bert import POOLER_ACTS
from gptcls.models.bert_files import BUFFERS, KINDS
from gptcls.models.config_json import ConfigReader
from gptcls.models.deberta import DebertaConfig

# As in transformers: positions, which the head for masked words alone adds, and what pretraining kept beside
# the tables that it shared with the generator.
UNREAD = (
    "embeddings.position_embeddings", "embeddings.position_embeddings._weight",
    "embeddings.word_embeddings._weight",
)  # fmt: skip
NAMES = NameMap(
    what="a DeBERTa-v3",
    table={
        "embeddings.word_embeddings": "wte",
        "embeddings.LayerNorm": "embed_norm",
        "encoder.rel_embeddings": "distances.table",
        "encoder.LayerNorm": "distances.norm",
        "encoder.layer.{}.attention.self.query_proj": "blocks.{}.attn.q",
        "encoder.layer.{}.attention.self.key_proj": "blocks.{}.attn.k",
        "encoder.layer.{}.attention.self.value_proj": "blocks.{}.attn.v",
        "encoder.layer.{}.attention.output.dense": "blocks.{}.attn.proj",
        "encoder.layer.{}.attention.output.LayerNorm": "blocks.{}.norm1",
        "encoder.layer.{}.intermediate.dense": "blocks.{}.mlp.fc",
        "encoder.layer.{}.output.dense": "blocks.{}.mlp.proj",
        "encoder.layer.{}.output.LayerNorm": "blocks.{}.norm2",
        "pooler.dense": "norm.dense",
    },
    prefix="deberta.",
    bare=("pooler.dense",),
    skipped=(*BUFFERS, *UNREAD),
    heads=(
        "cls.predictions", "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder", "lm_predictions.lm_head", "lm_predictions.lm_head.dense",
        "lm_predictions.lm_head.LayerNorm", "mask_predictions.dense", "mask_predictions.LayerNorm",
        "mask_predictions.classifier", "classifier", "qa_outputs",
    ),
    kinds=KINDS,
)  # fmt: skip


def read_deberta(tensors: State, declared: dict[str, Any], source: str) -> tuple[DebertaConfig, State]:
    """The configuration in config.json (``declared``, read from ``source``), and the tensors under our names.
    InputError for what this network does not compute or does not have."""
    reader, state = ConfigReader(declared, source), NAMES.to_ours(tensors)
    reader.require("hidden_act", "gelu", "gelu")
    for key in ("relative_attention", "share_att_key"):
        reader.require(key, False, True)
    reader.require("position_biased_input", True, False)
    reader.require("norm_rel_ebd", "none", "layer_norm")
    reader.require("type_vocab_size", 0, 0)
    reader.require("conv_kernel_size", 0, 0)
    reader.require("pooler_hidden_act", "gelu", *POOLER_ACTS)
    kinds = reader.values.get("pos_att_type", [])
    if (kinds.split("|") if isinstance(kinds, str) else kinds) not in (["c2p", "p2c"], ["p2c", "c2p"]):
        raise InputError(f"{source} says pos_att_type {kinds!r:.80}, which is not c2p and p2c")
    sizes, farthest = reader.sizes(), reader.values.get("max_relative_positions", -1)
    config = reader.build(
        DebertaConfig,
        **sizes,
        n_distances=reader.whole("position_buckets"),
        farthest=farthest if type(farthest) is int and farthest > 0 else sizes["n_positions"],
        norm_eps=reader.number("layer_norm_eps", 1e-7),
        dropout=reader.share("hidden_dropout_prob", 0.1),
        attn_dropout=reader.share("attention_probs_dropout_prob", 0.1),
        pooler="norm.dense.weight" in state,
        pooler_act=reader.values.get("pooler_hidden_act", "gelu"),
    )
    return config, state
