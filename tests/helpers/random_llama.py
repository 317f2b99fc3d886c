"""Oracles of the Llama family: tiny checkpoints with random weights, made and saved by ``transformers``, and
tokenizers trained by ``tokenizers``."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

SIZES = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 97, "max_position_embeddings": 128, "pad_token_id": 0,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 500_000.0,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10_000.0}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
# Architecture and options. The windows are shorter than the sequences of the tests.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", {"rope_theta": 1e6}),
    "qwen2 tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2 window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "llama": ("Llama", {}),
    "llama biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 10}),
    "llama all keys": ("Llama", {"num_key_value_heads": 6, "rms_norm_eps": 0.1}),
    "llama3": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama linear": ("Llama", {"rope_parameters": LINEAR}),
    "llama yarn": ("Llama", {"rope_parameters": YARN | {"beta_fast": 4.0, "beta_slow": 0.5}, "head_dim": 16}),
    "qwen2 yarn": ("Qwen2", {"rope_parameters": YARN | {"truncate": False, "attention_factor": 1.3}}),
    "qwen3": ("Qwen3", {"head_dim": 10, "rope_theta": 1e6}),
    "qwen3 biases": ("Qwen3", {"head_dim": 12, "attention_bias": True, "tie_word_embeddings": True}),
    "qwen3 window": (
        "Qwen3", {"head_dim": 8, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3 yarn": ("Qwen3", {"head_dim": 32, "rope_parameters": YARN}),
    "smollm3": ("SmolLM3", {"no_rope_layer_interval": 2}),
    "smollm3 all rotary": ("SmolLM3", {"no_rope_layers": [1, 1, 1]}),
    "phi3": ("Phi3", {}),
    "phi3 window": ("Phi3", {"sliding_window": 9, "tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": 9}),
    "mistral no window": ("Mistral", {"sliding_window": None}),
}  # fmt: skip


def oracle_of(kind: str, head: str = "ForCausalLM", seed: int = 0, **options: Any) -> nn.Module:
    """A ``transformers`` model in eval mode in which no bias is 0 and no norm is 1."""
    import transformers

    name, more = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **more, **options})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}{head}")(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.2)
    return model.eval()


def save(model: nn.Module, folder: Path, **options: Any) -> Path:
    """``model`` as ``save_pretrained`` writes it; returns the folder."""
    model.save_pretrained(folder, **options)
    return folder


def byte_level(texts: list[str], size: int = 400, ends: tuple[str, ...] = ()) -> Any:
    """A byte-level BPE, as Llama 3's and Qwen's; ``ends`` go before and, a second one, behind each text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|end|>", *ends],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if ends:
        template = " ".join([ends[0], "$A", *ends[1:]])
        ids = [(end, tokenizer.token_to_id(end)) for end in ends]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return tokenizer


def sentencepiece_like(texts: list[str], size: int = 400) -> Any:
    """A BPE with spaces as ▁ and bytes for unknown characters, as Llama 2's and Mistral's; adds <s>."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials[:3], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(specials[3:])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer
