"""What each family is in ``transformers``: a class ``…ForSequenceClassification`` and its config.json, the
way back of what ``models/*_files.py`` read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from gptcls.classify.store import SavedClassifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2Config
from gptcls.models.auto_tokenizer import for_pairs, tokenizer_json
from gptcls.models.bert import BertConfig, EncoderConfig
from gptcls.models.bert_files import DISTILBERT_ENTRIES
from gptcls.models.config_json import SIZES
from gptcls.models.deberta import DebertaConfig
from gptcls.models.gpt2_files import SIZES as GPT2_SIZES
from gptcls.models.llama import LlamaConfig
from gptcls.models.modern_bert import ModernBertConfig

Entries = dict[str, Any]  # of config.json
CUT_FROM = {"head": "right", "tail": "left"}  # the side, by what is read of a long text


@dataclass(frozen=True)
class Form:
    """A family there."""

    entries: Callable[[Any], Entries]  # by our config; but for those that every classifier has
    below: str | None = None  # activation of the layer below that, where there is one
    bias: bool = True  # whether the last layer has one
    from_padding: bool = False  # positions are counted from the id of the padding token on


def _gpt2(config: GPT2Config) -> Entries:
    if not config.causal:
        raise InputError("GPT2ForSequenceClassification has a causal mask: train without --no-causal-mask")
    return {
        **_named("gpt2", "GPT2"),
        **{size: getattr(config, size) for size in GPT2_SIZES},
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout),
    }


# transformers 5 splits the texts of every Qwen2 so, whatever its tokenizer.json says, and normalises to NFC.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_of(saved: SavedClassifier) -> str:
    """The content of a ``tokenizer.json`` that gives the rows of a classifier, also of pairs of texts;
    InputError for more texts in a row, which the tokenizers library does not know."""
    text = tokenizer_json(saved.tokenizer)
    if saved.fields == 1:
        return text
    if saved.fields > 2:
        said = f"this classifier reads {saved.fields} texts together"
        raise InputError(f"{said}, and a tokenizer.json knows one or two; train it on two columns")
    return for_pairs(text, saved.tokenizer)


def with_tokenizer(config: LlamaConfig, tokenizer: dict[str, Any]) -> LlamaConfig:
    """The same network, where it is a Qwen2 with another ``tokenizer.json`` than Qwen2's as a Llama: that has
    one bias more in its attention, which is zero."""
    steps = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers", [])
    splits = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    own = splits == [QWEN2_SPLIT] and (tokenizer.get("normalizer") or {}).get("type") == "NFC"
    return config if own or config.qk_norm or not config.qkv_bias else replace(config, proj_bias=True)


def _llama(config: LlamaConfig) -> Entries:
    """The class of its kin that has just these switches."""
    c, biases = config, (config.qkv_bias, config.proj_bias, config.mlp_bias)
    alike = c.qkv_bias == c.proj_bias
    window = {"use_sliding_window": c.window is not None}
    if c.window is not None:
        window |= {"sliding_window": c.window, "max_window_layers": c.window_from or 0}
    if c.qk_norm and alike and not c.mlp_bias and not c.rope_left_out:
        own = {**_named("qwen3", "Qwen3"), "attention_bias": c.qkv_bias, **window}
    elif c.qk_norm or (c.rope_left_out and not (alike and c.window is None)):
        raise InputError("no class of transformers has this network's norms, biases and positions together")
    elif c.rope_left_out:
        own = {**_named("smollm3", "SmolLM3"), "no_rope_layer_interval": c.rope_left_out}
        own |= {"attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias, "use_sliding_window": False}
    elif biases == (True, False, False):
        own = {**_named("qwen2", "Qwen2"), **window}
    elif c.window is not None and not any(biases) and not c.window_from:
        own = {**_named("mistral", "Mistral"), "sliding_window": c.window}
    elif c.window is None and alike:
        own = {**_named("llama", "Llama"), "attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}
    else:
        raise InputError("no class of transformers has this network's window and biases together")
    return {
        **own,
        **_sizes(c),
        "num_key_value_heads": c.n_kv_head,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": _rope_scaling(c),
        "tie_word_embeddings": c.tied,
        "attention_dropout": 0.0,
        "use_cache": False,
    }


def _rope_scaling(c: LlamaConfig) -> Entries | None:
    if c.rope_factor == 1 and c.rope_scale == 1:
        return None
    found = {"rope_type": c.rope_type, "factor": c.rope_factor}
    if c.rope_type != "linear":
        found["original_max_position_embeddings"] = c.rope_old_positions
    if c.rope_type == "llama3":
        found |= {"low_freq_factor": c.rope_low_freq, "high_freq_factor": c.rope_high_freq}
    if c.rope_type == "yarn":
        found |= {"beta_slow": c.rope_low_freq, "beta_fast": c.rope_high_freq}
        found |= {"truncate": c.rope_whole_pairs, "attention_factor": c.rope_scale}
    return found


def _bert(model_type: str, name: str) -> Callable[[BertConfig], Entries]:
    def entries(config: BertConfig) -> Entries:
        return {
            **_named(model_type, name),
            **_sizes(config),
            "type_vocab_size": config.n_segments,
            "embedding_size": config.n_table or config.n_embd,  # ELECTRA's
            **_encoder(config),
            "hidden_act": "gelu",
        }

    return entries


def _distilbert(config: BertConfig) -> Entries:
    theirs = {**_sizes(config), **_encoder(config), "hidden_act": "gelu"}
    renamed = {own: theirs[common] for own, common in DISTILBERT_ENTRIES.items()}
    rest = {key: theirs[key] for key in ("vocab_size", "max_position_embeddings")}
    return {**_named("distilbert", "DistilBert"), **renamed, **rest, "seq_classif_dropout": 0.0}


def _deberta(config: DebertaConfig) -> Entries:
    return {
        **_named("deberta-v2", "DebertaV2"),
        **_sizes(config),
        **_encoder(config),
        "hidden_act": "gelu",
        "relative_attention": True,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
        "position_buckets": config.n_distances,
        "max_relative_positions": config.farthest,
        "pooler_hidden_size": config.n_embd,
        "pooler_hidden_act": config.pooler_act if config.pooler else "gelu",
        "pooler_dropout": 0.0,
    }


def _modern_bert(config: ModernBertConfig) -> Entries:
    if not config.pooler:
        lacks = "this ModernBERT has no layer below the head, which ModernBertForSequenceClassification has"
        raise InputError(f"{lacks}; use --to onnx")
    return {
        **_named("modernbert", "ModernBert"),
        **_sizes(config),
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "classifier_pooling": "cls",
        "classifier_bias": config.pooler_bias,
        "local_attention": 2 * config.window,
        "global_attn_every_n_layers": config.whole_every,
        "global_rope_theta": config.whole_theta,
        "local_rope_theta": config.near_theta,
        "norm_eps": config.norm_eps,
        "norm_bias": config.norm_bias,
        "attention_bias": config.attn_bias,
        "mlp_bias": config.mlp_bias,
        "embedding_dropout": config.dropout,
        "attention_dropout": config.attn_dropout,
        "mlp_dropout": config.mlp_dropout,
    }


def _named(model_type: str, name: str) -> Entries:
    return {"architectures": [f"{name}ForSequenceClassification"], "model_type": model_type}


def _sizes(config: EncoderConfig | LlamaConfig) -> Entries:
    return {theirs: getattr(config, ours) for ours, theirs in SIZES.items()}


def _encoder(config: BertConfig | DebertaConfig) -> Entries:
    return {
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attn_dropout,
    }


FORMS = {
    "gpt2": Form(_gpt2, bias=False),
    "llama": Form(_llama, bias=False),
    "bert": Form(_bert("bert", "Bert"), "tanh"),
    "roberta": Form(_bert("roberta", "Roberta"), "tanh", from_padding=True),
    "distilbert": Form(_distilbert, "relu"),
    "electra": Form(_bert("electra", "Electra"), "gelu"),
    "ernie": Form(_bert("ernie", "Ernie"), "tanh"),
    "deberta": Form(_deberta, "gelu"),
    "modernbert": Form(_modern_bert),
}
