"""A GPT-2 -> a folder in Hugging Face's format: ``config.json`` and ``model.safetensors``."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from gptcls.atomic import atomic_folder
from gptcls.errors import InputError
from gptcls.models.convert import to_huggingface
from gptcls.models.gpt2 import GPT2
from gptcls.tokenizer import PAD_ID

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def save_pretrained(model: GPT2, folder: Path, dtype: str = "fp32") -> None:
    """Write what ``transformers``' ``GPT2LMHeadModel.from_pretrained`` and our ``load_pretrained`` read.

    Raises InputError when the folder cannot be written, the disk is full, or a weight is too large for fp16;
    and for a network without its causal mask, which the format cannot say.
    """
    if not model.config.causal:
        raise InputError("a GPT-2 without its causal mask has no place in Hugging Face's format")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in to_huggingface(state).items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds a value that {dtype} cannot hold; save it as fp32")
    try:
        with atomic_folder(folder) as temporary:
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
            text = json.dumps(_config_json(model, dtype), indent=2) + "\n"
            (temporary / "config.json").write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot save the weights to {folder}: {error}; free space") from error


def _config_json(model: GPT2, dtype: str) -> dict:
    config = model.config
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layer,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_positions": config.n_positions,
        "vocab_size": config.vocab_size,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": config.tied,
        "bos_token_id": PAD_ID,
        "eos_token_id": PAD_ID,
        "torch_dtype": {"fp32": "float32", "fp16": "float16"}[dtype],
    }
