"""Hugging Face's folders of BERT and RoBERTa turned into ours (``modeling_bert.py``, ``modeling_roberta.py``,
and ``modeling_xlm_roberta.py``, a RoBERTa with another vocabulary)."""

from typing import Any

from gptcls.core.errors import InputError
from gptcls.core.weights import NameMap, State
from gptcls.models.bert import BertConfig, RobertaConfig
from gptcls.models.config_json import ConfigReader

TABLE = {
    "embeddings.word_embeddings": "wte",
    "embeddings.position_embeddings": "wpe",
    "embeddings.token_type_embeddings": "wse",
    "embeddings.LayerNorm": "embed_norm",
    "encoder.layer.{}.attention.self.query": "blocks.{}.attn.q",
    "encoder.layer.{}.attention.self.key": "blocks.{}.attn.k",
    "encoder.layer.{}.attention.self.value": "blocks.{}.attn.v",
    "encoder.layer.{}.attention.output.dense": "blocks.{}.attn.proj",
    "encoder.layer.{}.attention.output.LayerNorm": "blocks.{}.norm1",
    "encoder.layer.{}.intermediate.dense": "blocks.{}.mlp.fc",
    "encoder.layer.{}.output.dense": "blocks.{}.mlp.proj",
    "encoder.layer.{}.output.LayerNorm": "blocks.{}.norm2",
}
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
KINDS = {"gamma": "weight", "beta": "bias"}  # of a LayerNorm, in files that came from TensorFlow
BERT = NameMap(
    what="a BERT",
    table=TABLE | {"pooler.dense": "norm.dense"},
    prefix="bert.",
    skipped=BUFFERS,
    heads=(
        "cls.predictions", "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder", "cls.seq_relationship", "classifier", "qa_outputs",
    ),
    kinds=KINDS,
)  # fmt: skip
ROBERTA = NameMap(
    what="a RoBERTa",
    # The first layer of a classifier's head is what BERT calls the pooler, and learned with the rest.
    table=TABLE | {"classifier.dense": "norm.dense"},
    prefix="roberta.",
    bare=("classifier.dense",),
    skipped=BUFFERS,
    heads=(
        "lm_head", "lm_head.dense", "lm_head.layer_norm", "lm_head.decoder",
        "classifier", "classifier.out_proj", "qa_outputs",
        "pooler.dense",  # RoBERTa was trained without: what files call so is random
    ),
    kinds=KINDS,
)  # fmt: skip


def read_bert(tensors: State, declared: dict[str, Any], source: str) -> tuple[BertConfig, State]:
    """The configuration in config.json (``declared``, read from ``source``), and the tensors under our names,
    the pooler's with them. InputError for what this network does not compute or does not have."""
    return _read(BertConfig, BERT, tensors, ConfigReader(declared, source), unused=0)


def read_roberta(tensors: State, declared: dict[str, Any], source: str) -> tuple[RobertaConfig, State]:
    """The same for RoBERTa. The first rows of its position table belong to no token (fairseq numbers tokens
    from its padding id plus 1, so they are 2): they are left out."""
    reader = ConfigReader(declared, source)
    return _read(RobertaConfig, ROBERTA, tensors, reader, reader.whole("pad_token_id", 1, least=0) + 1)


def _read(kind: type, names: NameMap, tensors: State, reader: ConfigReader, unused: int) -> tuple[Any, State]:
    """``unused`` is the number of rows at the start of the position table that belong to no token."""
    reader.require("hidden_act", "gelu", "gelu")
    reader.require("position_embedding_type", "absolute", "absolute")
    for key in ("is_decoder", "add_cross_attention"):
        reader.require(key, False, False)
    sizes, state = reader.sizes(), names.to_ours(tensors)
    reader.check_blocks("num_hidden_layers", sizes["n_layer"], state)
    rows, table = sizes["n_positions"], state.get("wpe.weight")
    if unused >= rows:
        said = f"{reader.source} says pad_token_id {unused - 1}"
        raise InputError(f"{said}, which leaves none of {rows} positions")
    if unused and table is not None:
        if not table.ndim or len(table) != rows:
            found = f"{names.both('wpe.weight')} has the shape {list(table.shape)}"
            raise InputError(f"{found}, and {reader.source} says max_position_embeddings {rows}")
        state["wpe.weight"] = table[unused:]
    config = reader.build(
        kind,
        **sizes | {"n_positions": rows - unused},
        n_segments=reader.whole("type_vocab_size"),
        norm_eps=reader.number("layer_norm_eps", 1e-12),
        dropout=reader.share("hidden_dropout_prob", 0.1),
        attn_dropout=reader.share("attention_probs_dropout_prob", 0.1),
        pooler="norm.dense.weight" in state,
    )
    return config, state
