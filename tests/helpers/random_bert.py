"""Oracles of the encoders: tiny BERTs and RoBERTas with random weights, made by ``transformers``, and
tokenizers trained by ``tokenizers``."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptcls.core.batches import pad

SIZES = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "vocab_size": 97, "max_position_embeddings": 66, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
MODERN = dict.fromkeys(("pad_token_id", "cls_token_id", "bos_token_id"), 0) | dict.fromkeys(
    ("sep_token_id", "eos_token_id"), 1
)
V3 = {
    "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": "p2c|c2p", "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
# Architecture, options, and how many rows of the position table belong to no token.
KINDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "bert": ("Bert", {}, 0),
    "bert one segment": ("Bert", {"type_vocab_size": 1, "layer_norm_eps": 0.1}, 0),
    "roberta": ("Roberta", {"type_vocab_size": 1}, 2),
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1, "pad_token_id": 4}, 5),
    "camembert": ("Camembert", {"type_vocab_size": 1}, 2),
    "distilbert": ("DistilBert", {
        "dim": 48, "hidden_dim": 80, "n_layers": 3, "n_heads": 6, "dropout": 0.0, "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0}, 0),
    "electra": ("Electra", {"embedding_size": 20}, 0),
    "electra as wide": ("Electra", {"embedding_size": 48, "layer_norm_eps": 0.1}, 0),
    "deberta": ("DebertaV2", V3, 0),
    "deberta far": ("DebertaV2", V3 | {
        "position_buckets": 12, "max_relative_positions": 40, "pooler_hidden_act": "tanh"}, 0),
    "modernbert": ("ModernBert", MODERN | {"local_attention": 14, "max_position_embeddings": 66}, 0),
    "modernbert biases": ("ModernBert", MODERN | {
        "local_attention": 8, "global_attn_every_n_layers": 2, "norm_bias": True, "attention_bias": True,
        "mlp_bias": True, "classifier_bias": True}, 0),
    "modernbert whole": ("ModernBert", MODERN | {"layer_types": ["full_attention"] * 3}, 0),
    "ernie": ("Ernie", {}, 0),
    "ernie with tasks": ("Ernie", {"use_task_id": True, "task_type_vocab_size": 4, "type_vocab_size": 3}, 0),
}  # fmt: skip
LENGTHS = [41, 1, 7, 30, 12]


def oracle_of(kind: str, head: str = "ForSequenceClassification", **options: Any) -> nn.Module:
    """A ``transformers`` model in eval mode in which no bias is 0 and no norm is 1."""
    import transformers

    name, more, _ = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **more, **options})
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}{head}")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name.lower() else 0.0, 0.2)
    return model.eval()


def ragged() -> tuple[list[list[int]], Tensor, Tensor]:
    """Rows without the ids that an oracle takes for padding, and the same as a padded batch."""
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(5, 97, (length,), generator=generator).tolist() for length in LENGTHS]
    return rows, *pad(rows, pad_id=0)


def told(oracle: nn.Module, lengths: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """The same batch for the oracle: its own padding id, which RoBERTa counts positions by, and a mask."""
    real = torch.arange(ids.shape[1]) < lengths[:, None]
    return {"input_ids": torch.where(real, ids, oracle.config.pad_token_id), "attention_mask": real.long()}


def wordpiece(texts: list[str], folder: Path, size: int = 120) -> Any:
    """BERT's tokenizer, saved in ``folder``."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def roberta_bpe(texts: list[str], folder: Path, size: int = 300) -> Any:
    """RoBERTa's tokenizer, saved in ``folder``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer
