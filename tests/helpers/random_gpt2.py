"""Oracles with random weights: networks that other people wrote, in which no bias is 0 and no norm is 1.

GPT-2's own initialisation would hide mistakes: with zero biases and unit norms, a bias that is left out and
two norms that are swapped change nothing.
"""

from typing import Any

import torch
from torch import nn

TINY = {"n_layer": 2, "n_embd": 48, "n_head": 3, "n_positions": 32, "vocab_size": 97}


def stir(model: nn.Module, std: float = 0.2) -> nn.Module:
    """Random values in every parameter; eval mode."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = name.endswith(("scale", "ln_1.weight", "ln_2.weight", "ln_f.weight"))
            parameter.normal_(1.0 if is_scale else 0.0, std)
    return model.eval()


def transformers_gpt2(seed: int = 0, std: float = 0.2, **options: Any) -> nn.Module:
    """``transformers``' GPT2LMHeadModel; the sizes of :data:`TINY` unless given otherwise."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    no_special = {"bos_token_id": None, "eos_token_id": None}
    with torch.device("meta"):  # its own initialisation would cost seconds in full size
        model = GPT2LMHeadModel(GPT2Config(**{**TINY, **no_special, **options}))
    model = model.to_empty(device="cpu")
    model.tie_weights()
    return stir(model, std)


def book_gpt2(seed: int = 0, qkv_bias: bool = True) -> nn.Module:
    """The book's GPTModel (chapter 4) in the sizes of :data:`TINY`; its output head is its own matrix."""
    from llms_from_scratch.ch04 import GPTModel

    torch.manual_seed(seed)
    return stir(
        GPTModel(
            {
                "n_layers": TINY["n_layer"],
                "emb_dim": TINY["n_embd"],
                "n_heads": TINY["n_head"],
                "context_length": TINY["n_positions"],
                "vocab_size": TINY["vocab_size"],
                "drop_rate": 0.0,
                "qkv_bias": qkv_bias,
            }
        )
    )


def openai_variables(model: nn.Module) -> dict[str, Any]:
    """The weights of a ``transformers`` GPT-2, named and shaped as in OpenAI's code (src/model.py)."""
    plain = {name: value.detach().numpy() for name, value in model.transformer.state_dict().items()}
    variables = {"model/wte": plain["wte.weight"], "model/wpe": plain["wpe.weight"]}
    variables |= {"model/ln_f/g": plain["ln_f.weight"], "model/ln_f/b": plain["ln_f.bias"]}
    for block in range(model.config.n_layer):
        here, there = f"h.{block}.", f"model/h{block}/"
        for norm in ("ln_1", "ln_2"):
            variables[f"{there}{norm}/g"] = plain[f"{here}{norm}.weight"]
            variables[f"{there}{norm}/b"] = plain[f"{here}{norm}.bias"]
        for linear in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            path = there + linear.replace(".", "/")
            variables[f"{path}/w"] = plain[f"{here}{linear}.weight"][None]  # a 1 x 1 convolution
            variables[f"{path}/b"] = plain[f"{here}{linear}.bias"]
    return variables


def random_ids(rows: int = 3, length: int = 20, vocab_size: int = TINY["vocab_size"]) -> torch.Tensor:
    """Token ids (rows, length)."""
    return torch.randint(vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))
