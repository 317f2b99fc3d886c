"""What a checkpoint is that no family here reads, in a few plain words: by its config.json, its files' names
and its tensors' names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Entries of a config.json that networks of a kind have, whatever their model_type; the first that fits.
KINDS = {
    "an encoder-decoder": ("is_encoder_decoder", "decoder_layers", "num_decoder_layers"),
    "a network of images": ("vision_config", "image_size", "patch_size", "num_channels", "vision_tower"),
    "a network of sound": ("audio_config", "num_mel_bins", "feat_extract_norm", "sampling_rate"),
    "a mixture of experts": (
        "num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size",
    ),
    "a recurrent network": ("state_size", "ssm_cfg", "mamba_d_state", "attention_hidden_size", "lru_width"),
    "a network with code of its own, which is never run": ("auto_map",),
}  # fmt: skip
# Ends of tensors' names that only quantized weights have: GPTQ's and AWQ's, bitsandbytes', FP8's.
QUANTIZED = (
    ".qweight", ".qzeros", ".g_idx", ".SCB", ".absmax", ".quant_map", ".weight_scale", ".weight_scale_inv",
    ".weight_packed",
)  # fmt: skip
FORMATS = {
    ".gguf": "quantized weights for llama.cpp", ".h5": "TensorFlow's weights", ".onnx": "an ONNX graph",
    ".msgpack": "Flax' weights", ".tflite": "TensorFlow Lite's weights", ".mlpackage": "Core ML's weights",
    ".ot": "weights for rust-bert",
}  # fmt: skip
IN_FULL = "take the checkpoint in bf16 or fp32"


def kind_of(declared: Mapping[str, Any]) -> str:
    """ ", an encoder-decoder" and the like, where the config.json of an unknown model_type says so; else "".

    >>> kind_of({"model_type": "t5", "is_encoder_decoder": True})
    ', an encoder-decoder'
    """
    return next((f", {kind}" for kind, entries in KINDS.items() if any(map(declared.get, entries))), "")


def quantized(declared: Mapping[str, Any]) -> str | None:
    """By what the weights of a config.json are quantized; None where they are not."""
    found = declared.get("quantization_config", declared.get("quantization"))  # the latter is MLX's
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, dict) else None
    return str(method or "an unknown method")


def quantized_tensor(names: Iterable[str]) -> str | None:
    """The first name that only quantized weights have."""
    return next((name for name in names if name.endswith(QUANTIZED)), None)


def what_is_there(folder: Path) -> str | None:
    """What a folder without weights that can be read holds instead, and the way out; None: nothing known."""
    if (folder / "adapter_config.json").is_file():
        return "an adapter, not a network: lay it over its base and save that (peft's merge_and_unload)"
    found = next((file for file in sorted(folder.iterdir()) if file.suffix in FORMATS), None)
    return None if found is None else f"{FORMATS[found.suffix]} ({found.name}): {IN_FULL}, as safetensors"
