"""Hugging Face's folders of BERT and its kin turned into ours: a table of names for each, and what their
config.json say. XLM-RoBERTa and CamemBERT are RoBERTas with other vocabularies."""

from dataclasses import replace
from typing import Any

from gptcls.core.errors import InputError
from gptcls.core.weights import NameMap, State
from gptcls.models.bert import BertConfig, DistilBertConfig, ElectraConfig, ErnieConfig, RobertaConfig
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
DISTILBERT_ENTRIES = {
    "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "dim": "hidden_size",
    "hidden_dim": "intermediate_size", "activation": "hidden_act", "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}  # fmt: skip
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
DISTILBERT = NameMap(
    what="a DistilBERT",
    table={
        "embeddings.word_embeddings": "wte",
        "embeddings.position_embeddings": "wpe",
        "embeddings.LayerNorm": "embed_norm",
        "transformer.layer.{}.attention.q_lin": "blocks.{}.attn.q",
        "transformer.layer.{}.attention.k_lin": "blocks.{}.attn.k",
        "transformer.layer.{}.attention.v_lin": "blocks.{}.attn.v",
        "transformer.layer.{}.attention.out_lin": "blocks.{}.attn.proj",
        "transformer.layer.{}.sa_layer_norm": "blocks.{}.norm1",
        "transformer.layer.{}.ffn.lin1": "blocks.{}.mlp.fc",
        "transformer.layer.{}.ffn.lin2": "blocks.{}.mlp.proj",
        "transformer.layer.{}.output_layer_norm": "blocks.{}.norm2",
        "pre_classifier": "norm.dense",
    },
    prefix="distilbert.",
    bare=("pre_classifier",),
    skipped=BUFFERS,
    heads=("vocab_transform", "vocab_layer_norm", "vocab_projector", "classifier", "qa_outputs"),
)
ELECTRA = NameMap(
    what="an ELECTRA",
    table=TABLE | {"embeddings_project": "widen", "classifier.dense": "norm.dense"},
    prefix="electra.",
    bare=("classifier.dense",),
    skipped=BUFFERS,
    heads=(
        "discriminator_predictions.dense", "discriminator_predictions.dense_prediction",
        "generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head",
        "classifier", "classifier.out_proj", "qa_outputs",
    ),
    kinds=KINDS,
)  # fmt: skip
TASKS = "embeddings.task_type_embeddings.weight"  # ERNIE's vectors of the kinds of task
ERNIE = replace(BERT, what="an ERNIE", prefix="ernie.")


def read_bert(tensors: State, declared: dict[str, Any], source: str) -> tuple[BertConfig, State]:
    """The configuration in config.json (``declared``, read from ``source``), and the tensors under our names,
    the pooler's with them. InputError for what this network does not compute or does not have."""
    return _read(BertConfig, BERT.to_ours(tensors), ConfigReader(declared, source))


def read_roberta(tensors: State, declared: dict[str, Any], source: str) -> tuple[RobertaConfig, State]:
    """The same for RoBERTa. The first rows of its position table belong to no token (fairseq numbers tokens
    from its padding id plus 1, so they are 2): they are left out."""
    reader, state = ConfigReader(declared, source), ROBERTA.to_ours(tensors)
    unused = reader.whole("pad_token_id", 1, least=0) + 1
    rows, table = reader.whole("max_position_embeddings"), state.get("wpe.weight")
    if unused >= rows:
        raise InputError(f"{source} says pad_token_id {unused - 1}, which leaves none of {rows} positions")
    if table is not None:
        if not table.ndim or len(table) != rows:
            found = f"{ROBERTA.both('wpe.weight')} has the shape {list(table.shape)}"
            raise InputError(f"{found}, and {source} says max_position_embeddings {rows}")
        state["wpe.weight"] = table[unused:]
    return _read(RobertaConfig, state, reader, n_positions=rows - unused)


def read_distilbert(tensors: State, declared: dict[str, Any], source: str) -> tuple[DistilBertConfig, State]:
    """The same for DistilBERT, whose config.json has names of its own; a classifier's first layer is what
    BERT calls the pooler."""
    said = {theirs: declared.get(own) for own, theirs in DISTILBERT_ENTRIES.items()}
    reader = ConfigReader({**declared, **said, "type_vocab_size": None}, source)
    return _read(DistilBertConfig, DISTILBERT.to_ours(tensors), reader, n_segments=None, pooler_act="relu")


def read_electra(tensors: State, declared: dict[str, Any], source: str) -> tuple[ElectraConfig, State]:
    """The same for ELECTRA, whose tables may be narrower than its blocks."""
    reader = ConfigReader(declared, source)
    width, table = reader.whole("hidden_size"), reader.whole("embedding_size", 128)
    own = {"n_table": None if table == width else table, "pooler_act": "gelu"}
    return _read(ElectraConfig, ELECTRA.to_ours(tensors), reader, **own)


def read_ernie(tensors: State, declared: dict[str, Any], source: str) -> tuple[ErnieConfig, State]:
    """The same for ERNIE. The vector of its task 0, which is every text's here, is added to the segments'."""
    reader = ConfigReader(declared, source)
    tasks = {name: tensor for name, tensor in tensors.items() if name.removeprefix("ernie.") == TASKS}
    state = ERNIE.to_ours({name: tensor for name, tensor in tensors.items() if name not in tasks})
    if reader.flag("use_task_id"):
        segments, table = state.get("wse.weight"), next(iter(tasks.values()), None)
        if table is None or segments is None or table.ndim != 2 or table[0].shape != segments[0].shape:
            raise InputError(f"{source} says use_task_id True, and {TASKS} is missing or of another width")
        state["wse.weight"] = segments + table[0]
    return _read(ErnieConfig, state, reader)


def _read(kind: type, state: State, reader: ConfigReader, **own: Any) -> tuple[Any, State]:
    """What config.json says, but for ``own`` entries of the family."""
    reader.require("hidden_act", "gelu", "gelu")
    reader.require("position_embedding_type", "absolute", "absolute")
    for key in ("is_decoder", "add_cross_attention"):
        reader.require(key, False, False)
    common = {
        "norm_eps": reader.number("layer_norm_eps", 1e-12),
        "dropout": reader.share("hidden_dropout_prob", 0.1),
        "attn_dropout": reader.share("attention_probs_dropout_prob", 0.1),
        "pooler": "norm.dense.weight" in state,
    }
    if "n_segments" not in own:
        common["n_segments"] = reader.whole("type_vocab_size")
    return reader.build(kind, **reader.sizes() | common | own), state
