"""GPT-2's config.json held against its tensors: which show almost everything, but not the number of heads."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gptcls.errors import InputError
from gptcls.models.convert import State, convert, infer_config
from gptcls.models.gpt2 import GPT2Config

# A size in GPT2Config, and how config.json and OpenAI's hparams.json spell it.
SIZES = {
    "n_layer": ("n_layer",),
    "n_embd": ("n_embd",),
    "n_head": ("n_head",),
    "n_positions": ("n_positions", "n_ctx"),
    "vocab_size": ("vocab_size", "n_vocab"),
}
# Entries of config.json that choose another computation, and what GPT-2 has there, the default first.
ARCHITECTURE = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}


def read(tensors: Mapping[str, Tensor], declared: Mapping[str, Any], source: str) -> tuple[GPT2Config, State]:
    """The configuration and the tensors, under our names, of a GPT-2 in any of the formats of ``convert.py``.

    Raises InputError for tensors of another network and for a ``declared`` value that contradicts them.
    """
    state = convert(tensors)
    given = {key: value for key, value in declared.items() if value is not None}
    return _checked_config(state, given, source), state


def _checked_config(state: State, declared: Mapping[str, Any], source: str) -> GPT2Config:
    """The configuration the tensors show, unless ``declared`` contradicts it or describes another network."""
    for key, allowed in ARCHITECTURE.items():
        if declared.get(key, allowed[0]) not in allowed:
            raise InputError(f"{source} says {key} {declared[key]!r}: a GPT-2 has {allowed[0]!r}")
    n_head, norm_eps = declared.get("n_head"), declared.get("layer_norm_epsilon", 1e-5)
    if not (n_head is None or type(n_head) is int) or type(norm_eps) is not float:
        raise InputError(f"{source} says n_head {n_head!r}, layer_norm_epsilon {norm_eps!r}: no such numbers")
    config = infer_config(state, n_head, norm_eps)
    for key, spellings in SIZES.items():
        for spelling in spellings:
            if declared.get(spelling, getattr(config, key)) != getattr(config, key):
                raise InputError(
                    f"{source} says {spelling} {declared[spelling]!r}, the tensors {getattr(config, key)}"
                )
    if declared.get("n_inner", 4 * config.n_embd) != 4 * config.n_embd:
        raise InputError(f"{source} says n_inner {declared['n_inner']!r}: a GPT-2 has 4 * n_embd there")
    return config
