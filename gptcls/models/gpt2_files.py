"""GPT-2's config.json held against its tensors: which show almost everything, but not the number of heads.

Other people's names for GPT-2's tensors, turned into ours: state dict in, state dict out.

Three families of files hold the same numbers:

- Hugging Face's (``transformers``, ``modeling_gpt2.py``): ``h.0.attn.c_attn.weight``, with or without the
  prefix ``transformer.``, matrices stored (in, out);
- the book's (Raschka, "Build a Large Language Model From Scratch", chapter 4 and the files of
  ``rasbt/gpt2-from-scratch-pytorch``): ``trf_blocks.0.att.W_query.weight``, query, key and value apart;
- OpenAI's TensorFlow checkpoints (``openai/gpt-2``, ``src/model.py``): ``model/h0/attn/c_attn/w``.

Each is one table from a module's name there to its name here; ``{}`` is the number of the block. A name
that is in no table raises :class:`InputError`: what is not understood is never dropped.

A GPT-2 -> a folder in Hugging Face's format: ``config.json`` and ``model.safetensors``.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gptcls.common.files import atomic_folder
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS, GPT2Config
from gptcls.core.tokenizer import PAD_ID
from gptcls.core.weights import State, parse, some

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


def read_gpt2(
    tensors: Mapping[str, Tensor], declared: Mapping[str, Any], source: str
) -> tuple[GPT2Config, State]:
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


log = logging.getLogger("gptcls")


HUGGINGFACE = {
    "wte": "wte",
    "wpe": "wpe",
    "h.{}.ln_1": "blocks.{}.norm1",
    "h.{}.attn.c_attn": "blocks.{}.attn.qkv",
    "h.{}.attn.c_proj": "blocks.{}.attn.proj",
    "h.{}.ln_2": "blocks.{}.norm2",
    "h.{}.mlp.c_fc": "blocks.{}.mlp.fc",
    "h.{}.mlp.c_proj": "blocks.{}.mlp.proj",
    "ln_f": "norm",
    "lm_head": "lm_head",
}


BOOK = {
    "tok_emb": "wte",
    "pos_emb": "wpe",
    "trf_blocks.{}.norm1": "blocks.{}.norm1",
    "trf_blocks.{}.att.W_query": "blocks.{}.attn.query",
    "trf_blocks.{}.att.W_key": "blocks.{}.attn.key",
    "trf_blocks.{}.att.W_value": "blocks.{}.attn.value",
    "trf_blocks.{}.att.out_proj": "blocks.{}.attn.proj",
    "trf_blocks.{}.norm2": "blocks.{}.norm2",
    "trf_blocks.{}.ff.layers.0": "blocks.{}.mlp.fc",
    "trf_blocks.{}.ff.layers.2": "blocks.{}.mlp.proj",
    "final_norm": "norm",
    "out_head": "lm_head",
}


# Buffers with the causal mask, not weights.
MASKS = ("h.{}.attn.bias", "h.{}.attn.masked_bias", "trf_blocks.{}.att.mask")


# Hugging Face and OpenAI store these (in, out), as Conv1D; nn.Linear holds (out, in).
TRANSPOSED = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc.weight", "mlp.proj.weight")


def convert(state: Mapping[str, Tensor]) -> State:
    """Our names for the tensors of ``state``, whichever family its names belong to.

    Raises:
        InputError: the names belong to no family, or one of them is unknown to its family.
    """
    for pattern, family in (
        (r"model/", from_openai),
        (r"(tok_emb|pos_emb|trf_blocks)\.", from_book),
        (r"(transformer\.)?(wte|wpe|h\.\d+|ln_f)\.", from_huggingface),
    ):
        if any(re.match(pattern, name) for name in state):
            return family(state)
    raise InputError(
        f"no GPT-2 weights here: unknown tensor names {some(list(state))}; another model "
        "needs its config.json beside it"
    )


def from_huggingface(state: Mapping[str, Tensor]) -> State:
    """Names of ``transformers``' GPT2Model or GPT2LMHeadModel -> ours."""
    plain = {}
    for name, tensor in state.items():
        short = name.removeprefix("transformer.")
        if short in plain:
            raise InputError(f"{short} is there twice, with and without the prefix transformer.")
        plain[short] = tensor
    result = _rename(plain, HUGGINGFACE, {"weight": "weight", "bias": "bias"})
    return _drop_tied_head(_transpose(result))


def to_huggingface(state: Mapping[str, Tensor]) -> State:
    """Our names -> those ``GPT2LMHeadModel.save_pretrained`` writes; undoes :func:`from_huggingface`.

    The tensors are contiguous, ready for safetensors.
    """
    return {huggingface_name(name): tensor.contiguous() for name, tensor in _transpose(state).items()}


def huggingface_name(name: str) -> str:
    """One of our names in Hugging Face's spelling.

    >>> huggingface_name("blocks.3.mlp.fc.weight")
    'transformer.h.3.mlp.c_fc.weight'
    """
    module, block, kind = parse(name)
    back = {ours: theirs for theirs, ours in HUGGINGFACE.items()}
    if module not in back:
        raise InputError(f"{name} is no tensor of a GPT-2")
    prefix = "" if module == "lm_head" else "transformer."
    return f"{prefix}{back[module].format(block)}.{kind}"


def both_names(name: str) -> str:
    """One of our names for a message, with the spelling that most files have."""
    return f"{name} ({huggingface_name(name)} in Hugging Face's names)"


def from_book(state: Mapping[str, Tensor]) -> State:
    """Names of the book's GPTModel -> ours; its separate query, key and value become one matrix."""
    kinds = {"weight": "weight", "bias": "bias", "scale": "weight", "shift": "bias"}
    result = _rename(state, BOOK, kinds)
    filled = False
    for block in sorted({parse(name)[1] for name in result} - {""}):
        attn = f"blocks.{block}.attn"
        for kind in ("weight", "bias"):
            parts = [f"{attn}.{part}.{kind}" for part in ("query", "key", "value")]
            found = [result.pop(part) for part in parts if part in result]
            if found:
                shapes = {tuple(part.shape) for part in found}
                if len(found) < 3 or len(shapes) > 1 or () in shapes:
                    raise InputError(f"query, key and value of trf_blocks.{block}.att differ in their {kind}")
                result[f"{attn}.qkv.{kind}"] = torch.cat(found)
        weight = result.get(f"{attn}.qkv.weight")
        if weight is not None and f"{attn}.qkv.bias" not in result:
            result[f"{attn}.qkv.bias"] = weight.new_zeros(len(weight))
            filled = True
    if filled:
        log.info("query, key and value have no bias in this file (qkv_bias=False): zeros take its place")
    return _drop_tied_head(result)


def from_openai(variables: Mapping[str, Tensor]) -> State:
    """Variables of OpenAI's TensorFlow checkpoints -> ours: ``model/h0/mlp/c_fc/w`` (1, in, out)."""
    kinds = {"w": "weight", "b": "bias", "g": "weight"}
    renamed = {}
    for name, value in variables.items():
        parts = name.removeprefix("model/").split("/")
        if parts[-1] in ("wte", "wpe"):
            parts.append("w")
        theirs = re.sub(r"^h(\d+)\.", r"h.\1.", ".".join([*parts[:-1], kinds.get(parts[-1], parts[-1])]))
        tensor = torch.as_tensor(value)
        renamed[theirs] = tensor[0] if tensor.ndim == 3 and len(tensor) == 1 else tensor
    return from_huggingface(renamed)


def infer_config(
    state: Mapping[str, Tensor], n_head: int | None = None, norm_eps: float = 1e-5
) -> GPT2Config:
    """The sizes of the network whose tensors (our names) are in ``state``.

    ``n_head`` cannot be seen in the tensors: every number of heads has the same shapes. Without it, the
    preset of the same width lends its own.

    Raises:
        InputError: a table is missing or no matrix; the number of heads is unknown or does not divide the
            width.
    """
    for name in ("wte.weight", "wpe.weight"):
        if name not in state:
            raise InputError(f"{both_names(name)} is missing")
        if state[name].ndim != 2 or 0 in state[name].shape:
            raise InputError(f"{both_names(name)} has the shape {list(state[name].shape)}, not a table's")
    vocab_size, n_embd = state["wte.weight"].shape
    if n_head is None:
        n_head = next((preset.n_head for preset in PRESETS.values() if preset.n_embd == n_embd), None)
        if n_head is None:
            raise InputError(
                f"the number of heads of a GPT-2 of width {n_embd} is unknown: "
                "put its config.json beside the file"
            )
        log.info("no config.json: %d heads, as the GPT-2 of width %d has", n_head, n_embd)
    if n_head < 1 or n_embd % n_head:
        raise InputError(f"n_head {n_head} does not divide the width {n_embd}")
    return GPT2Config(
        # The distinct numbers are counted, so that a gap is found later as a tensor that is missing.
        n_layer=len({parse(name)[1] for name in state} - {""}),
        n_embd=n_embd,
        n_head=n_head,
        n_positions=len(state["wpe.weight"]),
        vocab_size=vocab_size,
        norm_eps=norm_eps,
        tied="lm_head.weight" not in state,
    )


def _rename(state: Mapping[str, Tensor], table: dict[str, str], kinds: dict[str, str]) -> State:
    result, unknown = {}, []
    for name, tensor in state.items():
        module, block, kind = parse(name)
        if f"{module}.{kind}" in MASKS:
            continue
        if module in table and kind in kinds:
            result[f"{table[module].format(block)}.{kinds[kind]}"] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise InputError(f"not part of a GPT-2: {some(unknown)}")
    return result


def _transpose(state: Mapping[str, Tensor]) -> State:
    result = {}
    for name, tensor in state.items():
        if name.endswith(TRANSPOSED):
            if tensor.ndim != 2:
                raise InputError(f"{both_names(name)} has the shape {list(tensor.shape)}, not a matrix's")
            tensor = tensor.t()  # a view: of a mapped file, it costs no memory until somebody copies it
        result[name] = tensor
    return result


def _drop_tied_head(state: State) -> State:
    """A language-model head equal to the token table is that table, written twice."""
    head, table = state.get("lm_head.weight"), state.get("wte.weight")
    if head is not None and table is not None and head.dtype == table.dtype and torch.equal(head, table):
        del state["lm_head.weight"]
    return state


SAVED_AS = {"fp32": torch.float32, "fp16": torch.float16}


def save_pretrained(model: GPT2, folder: Path, dtype: str = "fp32") -> None:
    """Write what ``transformers``' ``GPT2LMHeadModel.from_pretrained`` and our ``load_pretrained`` read.

    Raises InputError when the folder cannot be written, the disk is full, or a weight is too large for fp16;
    and for a network without its causal mask, which the format cannot say.
    """
    if not model.config.causal:
        raise InputError("a GPT-2 without its causal mask has no place in Hugging Face's format")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = {name: tensor.to(SAVED_AS[dtype]) for name, tensor in to_huggingface(state).items()}
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
