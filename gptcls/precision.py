"""In which number format the fixed part of a network runs. What is trained always stays in fp32."""

import torch

from gptcls.errors import InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"`` on a device.

    ``"auto"`` takes bf16 where the hardware multiplies it at full speed (CPUs with AVX512-BF16 or AMX, NVIDIA
    GPUs since Ampere), fp16 on older NVIDIA GPUs, else fp32. Raises InputError for fp16 on a CPU, which is
    slower there than fp32.
    """
    if precision == "auto":
        return _fastest(device)
    if precision == "int8":
        raise InputError("--precision int8 is for using a classifier; train with auto, fp32 or bf16")
    if precision not in DTYPES:
        raise InputError(f"--precision {precision!r} is unknown; use auto, {', '.join(DTYPES)}")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 is for GPUs; on a CPU use auto, bf16 or fp32")
    return DTYPES[precision]


def _fastest(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and _cpu_multiplies_bf16():
        return torch.bfloat16
    return torch.float32


def _cpu_multiplies_bf16() -> bool:
    """Whether the processor has bf16 dot products (torch's own emulation is slower than fp32)."""
    supported = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
    return any(is_supported() for is_supported in supported)
