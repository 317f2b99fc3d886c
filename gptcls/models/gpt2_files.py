"""GPT-2's files: whoever wrote them, a configuration and our names come out; saving is in Hugging Face's.

- Hugging Face's, with or without the prefix ``transformer.``, and with any head: :data:`NAMES`;
- the book's (Raschka, "Build a Large Language Model From Scratch", chapter 4 and the files of
  ``rasbt/gpt2-from-scratch-pytorch``), with query, key and value apart: :data:`BOOK_NAMES`;
- OpenAI's TensorFlow checkpoints (``openai/gpt-2``, ``src/model.py``): :func:`_from_openai`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gptcls.common.files import atomic_folder
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS, GPT2Config
from gptcls.core.tokenizer import ENDOFTEXT, PAD_ID, Tokenizer
from gptcls.core.weights import GPT2_NAMES, NameMap, State, parse, some
from gptcls.models.auto_tokenizer import save_tokenizer, tokenizer_json
from gptcls.models.config_json import ConfigReader
from gptcls.models.weight_files import saving

BOOK_NAMES = NameMap(
    what="a GPT-2",
    table={
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
    },
    skipped=("trf_blocks.{}.att.mask",),
    kinds={"scale": "weight", "shift": "bias"},
)

# Those of the lesson, and the heads that transformers puts on a GPT-2.
NAMES = replace(
    GPT2_NAMES, heads=("score", "classifier", "qa_outputs", "multiple_choice_head.summary"))  # fmt: skip
# Sizes that GPT2Config, config.json and OpenAI's hparams.json have, and their other names in the last two.
SIZES = {"n_layer": [], "n_embd": [], "n_head": [], "n_positions": ["n_ctx"], "vocab_size": ["n_vocab"]}


def read_gpt2(tensors: State, declared: dict[str, Any], source: str) -> tuple[GPT2Config, State]:
    """The configuration, which the tensors show but for the number of heads, and the tensors under our names.
    InputError for tensors of another network, and for a ``declared`` entry that contradicts them."""
    state, reader = convert(tensors), ConfigReader(declared, source)
    reader.require("activation_function", "gelu_new", "gelu_new", "gelu_pytorch_tanh")
    for key in ("scale_attn_weights", "is_causal"):
        reader.require(key, True, True)
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        reader.require(key, False, False)
    n_head = reader.whole("n_head") if "n_head" in reader.values else None
    config = infer_config(state, n_head, reader.number("layer_norm_epsilon", 1e-5))
    shown = {spelling: getattr(config, size) for size, names in SIZES.items() for spelling in (size, *names)}
    for key, value in {**shown, "n_inner": 4 * config.n_embd}.items():
        if reader.values.get(key, value) != value:
            raise InputError(f"{source} says {key} {reader.values[key]!r:.80}, the tensors {value}")
    return config, state


def convert(state: Mapping[str, Tensor]) -> State:
    """Our names for the tensors of ``state``, whoever named them; InputError for an unknown name."""
    for pattern, read in (
        (r"model/", _from_openai),
        (r"(tok_emb|pos_emb|trf_blocks)\.", _from_book),
        (r"(transformer\.)?(wte|wpe|h\.\d+|ln_f)\.", NAMES.to_ours),
    ):
        if any(re.match(pattern, name) for name in state):
            return drop_tied_head(read(state))
    unknown = f"unknown tensor names {some(list(state))}"
    raise InputError(f"no GPT-2 weights here: {unknown}; another model needs its config.json next to it")


def drop_tied_head(state: State) -> State:
    """``state`` itself; a language-model head equal to the token table is that table, written twice."""
    head, table = state.get("lm_head.weight"), state.get("wte.weight")
    if head is not None and table is not None and head.dtype == table.dtype and torch.equal(head, table):
        del state["lm_head.weight"]
    return state


def _from_book(state: Mapping[str, Tensor]) -> State:
    """The book's separate query, key and value become one matrix, and zeros the biases that it may lack."""
    result = BOOK_NAMES.to_ours(state)
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
    biases = {name.replace("qkv.weight", "qkv.bias"): weight for name, weight in result.items()}
    filled = {bias: weight.new_zeros(len(weight)) for bias, weight in biases.items() if bias not in result}
    if filled:
        log.info("query, key and value have no bias in this file (qkv_bias=False): zeros take its place")
    return result | filled


def _from_openai(variables: Mapping[str, Tensor]) -> State:
    """OpenAI's ``model/h0/mlp/c_fc/w`` (1, in, out) is Hugging Face's ``h.0.mlp.c_fc.weight``."""
    kinds, renamed = {"w": "weight", "b": "bias", "g": "weight"}, {}
    for name, value in variables.items():
        parts = name.removeprefix("model/").split("/")
        if parts[-1] in ("wte", "wpe"):
            parts.append("w")
        theirs = re.sub(r"^h(\d+)\.", r"h.\1.", ".".join([*parts[:-1], kinds.get(parts[-1], parts[-1])]))
        tensor = torch.as_tensor(value)
        renamed[theirs] = tensor[0] if tensor.ndim == 3 and len(tensor) == 1 else tensor
    return GPT2_NAMES.to_ours(renamed)


def infer_config(state: State, n_head: int | None = None, norm_eps: float = 1e-5) -> GPT2Config:
    """The sizes of the network whose tensors (our names) are in ``state``. Every number of heads has the same
    shapes: without ``n_head``, the preset of the same width lends its own."""
    for name in ("wte.weight", "wpe.weight"):
        if name not in state:
            raise InputError(f"{GPT2_NAMES.both(name)} is missing")
        shape = list(state[name].shape)
        if len(shape) != 2 or 0 in shape:
            raise InputError(f"{GPT2_NAMES.both(name)} has the shape {shape}, not a table's")
    vocab_size, n_embd = state["wte.weight"].shape
    if n_head is None:
        n_head = {preset.n_embd: preset.n_head for preset in PRESETS.values()}.get(n_embd)
        if n_head is None:
            what = f"the number of heads of a GPT-2 of width {n_embd}"
            raise InputError(f"{what} is unknown: put its config.json next to the file")
        log.info(f"no config.json: {n_head} heads, as the GPT-2 of width {n_embd} has")
    if n_head < 1 or n_embd % n_head:
        raise InputError(f"n_head {n_head} does not divide the width {n_embd}")
    # The distinct numbers are counted, so that a gap is found later as a tensor that is missing.
    n_layer = len({parse(name)[1] for name in state} - {""})
    n_positions, tied = len(state["wpe.weight"]), "lm_head.weight" not in state
    return GPT2Config(n_layer, n_embd, n_head, n_positions, vocab_size, norm_eps=norm_eps, tied=tied)


def save_pretrained(
    model: GPT2, folder: Path, dtype: str = "fp32", tokenizer: Tokenizer | None = None
) -> None:
    """Write what ``transformers``' ``GPT2LMHeadModel.from_pretrained`` and our ``load_pretrained`` read, in
    ``dtype`` fp32 or fp16, and the files of its ``tokenizer``, which ``AutoTokenizer`` reads. InputError
    where the folder or the format cannot hold it."""
    if not model.config.causal:
        raise InputError("a GPT-2 without its causal mask has no place in Hugging Face's format")
    config, torch_dtype = model.config, {"fp32": "float32", "fp16": "float16"}[dtype]
    state = GPT2_NAMES.to_theirs(model.state_dict())
    tensors = {name: tensor.cpu().to(getattr(torch, torch_dtype)) for name, tensor in state.items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name} holds a value that {dtype} cannot hold; save it as fp32")
    described = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{size: getattr(config, size) for size in SIZES},
        "activation_function": "gelu_new",
        "layer_norm_epsilon": config.norm_eps,
        **dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), config.dropout),
        "tie_word_embeddings": config.tied,
        **dict.fromkeys(("bos_token_id", "eos_token_id"), PAD_ID),
        "torch_dtype": torch_dtype,
    }
    with saving("the weights", folder), atomic_folder(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), ENDOFTEXT)
            text = tokenizer_json(tokenizer)
            save_tokenizer(temporary, text, config.n_positions, ENDOFTEXT, **ends)
