"""LoRA adapters in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors`` in a folder.

The format is that of ``huggingface/peft`` (``peft/utils/save_and_load.py``, ``peft/tuners/lora/config.py``).
The tensors are called ``base_model.model.<module>.lora_A.weight`` (r, in) and ``….lora_B.weight`` (out, r),
where ``<module>`` is the layer's name in ``transformers``' network with a head on top; of a token table
``….lora_embedding_A`` (r, V) and ``….lora_embedding_B`` (C, r), and where DoRA trains the lengths of the rows
``….lora_magnitude_vector`` (out,). What PEFT trained in full with them, the head, is
``base_model.model.score.weight``, of a BERT ``….classifier.weight``.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gptcls.core.errors import InputError
from gptcls.core.weights import State
from gptcls.models.config_json import ConfigReader
from gptcls.models.families import FAMILIES, family_name
from gptcls.models.lora import TABLE, LoRAConfig, LoRAEmbedding, LoRALinear, linear_layers, lora_layers
from gptcls.models.pretrained import RELEASES, check_tensor
from gptcls.models.weight_files import read_object, read_state

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"

# Entries of adapter_config.json that do not change what an adapter computes.
HARMLESS = (
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "layers_pattern", "layers_to_transform", "loftq_config", "megatron_core", "modules_to_save",
    "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type",
)  # fmt: skip
READ = (
    "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
)  # fmt: skip

# What may be trained in full: a head's layers, and a final norm.
HEADS = r"score|(?:pre_)?classifier|classifier\.(?:dense|out_proj)|transformer\.ln_f"

# The ends of an adapter's tensors. PEFT saves an adapted token table, as it was, beside the adapter.
BASE = "base_layer.weight"
ENDS = rf"lora_[AB]\.weight|lora_embedding_[AB]|lora_magnitude_vector|{re.escape(BASE)}"

# What LoRA has in others; the ways to begin that are left out here (pissa, olora, …) change the base.
PLAIN = {"peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, False, "gaussian")}


def save_adapter(folder: Path, backbone: nn.Module, base: str, head: State | None = None) -> None:
    """Write the adapters of ``backbone``, over the weights called ``base``. They carry the names that PEFT
    looks for in ``transformers``' network with a head (``GPT2LMHeadModel``, …); ``head`` is what
    :func:`gptcls.models.heads.published_head` gives."""
    layers = {_their_name(backbone, name): layer for name, layer in lora_layers(backbone).items()}
    tensors = {
        f"base_model.model.{name}.{end}": layer.get_parameter(own).detach().cpu().contiguous()
        for name, layer in layers.items()
        for end, own in _parameters(layer).items()
    }
    tensors |= {f"base_model.model.{name}": tensor.contiguous() for name, tensor in (head or {}).items()}
    usual = Counter(layer.config for layer in layers.values()).most_common(1)[0][0]
    others = {name: layer.config for name, layer in layers.items() if layer.config != usual}
    release, names = RELEASES.get(base), FAMILIES[family_name(backbone)].names
    biases = [name for name in head or () if name.endswith("bias")]
    normed = [name.split(".")[-2] for name in biases if "classifier" not in name]
    description = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head else None,
        "base_model_name_or_path": release.repo if release else base,
        "revision": release.revision if release else None,
        "r": usual.rank,
        "lora_alpha": usual.alpha,
        "lora_dropout": usual.dropout,
        "use_rslora": usual.rslora,
        "use_dora": usual.dora,
        "rank_pattern": {name: config.rank for name, config in others.items()},
        "alpha_pattern": {name: config.alpha for name, config in others.items()},
        "bias": "none",
        "fan_in_fan_out": bool(names and names.transposed),  # PEFT's word for it
        "target_modules": list(layers),
        "modules_to_save": normed or None,  # the final norm, where it took up the head's bias
        "inference_mode": True,
    }
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_adapter(backbone: nn.Module, folder: Path | str) -> dict[str, Tensor]:
    """Put the adapters in ``folder``, which :func:`save_adapter` or PEFT wrote, on a backbone's layers.

    Returns the head, ``score.weight`` (K, C), where PEFT trained one, else nothing; a BERT's is called
    ``classifier`` and has a bias, a RoBERTa's has two layers, ``classifier.dense`` and ``.out_proj``, and our
    GPT-2's a final norm. InputError for damaged files, and for an adapter that is neither LoRA
    (rank-stabilised or of other ranks by layer, it is) nor DoRA, of linear layers and the token table, or is
    for another network.
    """
    path, reader = Path(folder, TENSORS), _read_description(Path(folder, CONFIG))
    (rest, parts), bases = _sorted_out(read_state(path), path), linear_layers(backbone)
    for name, tensor in rest.items():
        check_tensor(f"{name} in {path}", tensor, tuple(tensor.shape))
    if isinstance(table := getattr(backbone, TABLE, None), nn.Embedding):
        bases[TABLE] = table
    theirs = {ours: _their_name(backbone, ours) for ours in bases}
    names = {name: ours for ours, name in theirs.items()}
    names |= {name.partition(".")[2]: ours for name, ours in names.items()}  # in a network without a head
    if unknown := [name for name in parts if name not in names]:
        raise InputError(f"{path} adapts {unknown[0]}, which is not in this network: it is for another one")
    if twice := [name for name in parts if name != theirs[names[name]] and theirs[names[name]] in parts]:
        raise InputError(f"{path} adapts {twice[0]} twice, with and without the name of the network")
    _check_targets(reader, {theirs[names[name]] for name in parts}, theirs.values())
    layers = {}
    for name, found in parts.items():
        base, config = bases[names[name]], _config_of(reader, name)
        kind = LoRAEmbedding if isinstance(base, nn.Embedding) else LoRALinear
        layers[names[name]] = layer = kind(base, config, device="meta")
        own = _parameters(layer)
        if (copy := found.pop(BASE, None)) is not None and not _same(copy, base.weight):
            theirs = f"{path} holds {name}.{BASE}, which is not this network's"
            raise InputError(f"{theirs}: it is for another one")
        for end in (*own, *found):
            if end not in own:
                raise InputError(f"{path} holds {name}.{end}, of which {CONFIG} says nothing")
            check_tensor(f"{name}.{end} in {path}", found.get(end), layer.get_parameter(own[end]).shape)
        tensors = {own[end]: tensor.to(base.weight.device) for end, tensor in found.items()}
        layer.load_state_dict(tensors, strict=False, assign=True)
    for name, layer in layers.items():  # all of them or none
        backbone.set_submodule(name, layer)
    return rest


def _parameters(layer: LoRALinear) -> dict[str, str]:
    """How the ends of their tensors' names become those of the layer's parameters."""
    form = "lora_embedding_{}" if isinstance(layer, LoRAEmbedding) else "lora_{}.weight"
    names = {form.format(part): f"lora_{part}.weight" for part in "AB"}
    return names if layer.magnitude is None else names | {"lora_magnitude_vector": "magnitude"}


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, of which one may be held in a narrower format."""
    narrower = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(one.to(narrower), other.to(narrower))


def _their_name(backbone: nn.Module, ours: str) -> str:  # blocks.3.mlp.fc -> transformer.h.3.mlp.c_fc
    names = FAMILIES[family_name(backbone)].names
    return names.theirs(f"{ours}.weight").removesuffix(".weight") if names else ours


def _read_description(path: Path) -> ConfigReader:
    """What adapter_config.json says, once it is known to be LoRA or DoRA."""
    if not path.is_file():
        raise InputError(f"{path} is missing: an adapter is {CONFIG} and {TENSORS}")
    description = {"peft_type": None} | read_object(path)
    for key, value in description.items():
        plain = value in PLAIN[key] if key in PLAIN else key in (*HARMLESS, *READ) or not value
        if not plain:
            raise InputError(f"{path} says {key} {value!r}: only LoRA and DoRA can be read")
    return ConfigReader(description, str(path))


def _config_of(reader: ConfigReader, name: str) -> LoRAConfig:
    """The rank and scale of one layer, called ``name`` there: the first entry of a pattern that ends it."""
    own = {"r": reader.values.get("r"), "lora_alpha": reader.values.get("lora_alpha")}
    for key, said in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        pattern = reader.values.get(said) or {}
        if not isinstance(pattern, dict):
            raise InputError(f"{reader.source} says {said} {pattern!r:.80}, which is not an object")
        for end in pattern:
            if not re.fullmatch(r"\^?[\w.]+", end):  # any expression might never end
                raise InputError(f"{reader.source} says {said} {end!r:.80}, which is not a layer's name")
            if re.match(rf"(.*\.)?({end})$", name):
                own[key] = pattern[end]
                break
    layer = ConfigReader({**reader.values, **own}, reader.source)
    dropout, rslora, dora = layer.share("lora_dropout", 0.0), layer.flag("use_rslora"), layer.flag("use_dora")
    return LoRAConfig(layer.whole("r"), layer.number("lora_alpha"), dropout, rslora, dora)


def _sorted_out(state: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, dict]]:
    """The head's tensors, and of each adapted layer (their name) its own, by the ends of their names."""
    rest, parts = {}, {}
    for key, tensor in state.items():
        if found := re.fullmatch(rf"base_model\.model\.(.+)\.({ENDS})", key):
            parts.setdefault(found[1], {})[found[2]] = tensor
        elif found := re.fullmatch(rf"base_model\.model\.((?:{HEADS})\.(?:weight|bias))", key):
            rest[found[1]] = tensor
        else:
            raise InputError(f"{path} holds {key}, no layer's adapter and no head")
    if not parts:
        raise InputError(f"{path} holds no adapter")
    return rest, parts


def _check_targets(reader: ConfigReader, adapted: set[str], names: Iterable[str]) -> None:
    """Where the targets are a plain list of names (or their ends), they are those of the adapted layers."""
    targets = reader.values.get("target_modules")
    exceptions = reader.values.get("layers_to_transform") or reader.values.get("exclude_modules")
    if not isinstance(targets, list) or exceptions:
        return
    meant = {name for name in names if f".{name}".endswith(tuple(f".{target}" for target in targets))}
    if odd := sorted(meant ^ adapted):
        only = f"{odd[0]} is in {'target_modules' if odd[0] in meant else TENSORS} alone"
        raise InputError(f"{reader.source}: target_modules and {TENSORS} disagree: {only}")
