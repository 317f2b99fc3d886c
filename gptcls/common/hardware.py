"""Where the arithmetic happens, and in which number format all of a network but what is trained (fp32)."""

import os
from contextlib import suppress

import torch

from gptcls.common.processes import processes
from gptcls.core.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """``"auto"``: an NVIDIA GPU, else an Apple GPU, else the CPU. Of several processes of one run each has an
    NVIDIA GPU of its own. InputError for what is not here."""
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [kind for kind, is_available in has.items() if is_available]
    if name == "auto":
        return _own(torch.device(available[0]))
    with suppress(RuntimeError):
        if (device := torch.device(name)).type in available:
            return _own(device)
    raise InputError(f"--device {name!r} is not available here; use auto or one of: {', '.join(available)}")


def _own(device: torch.device) -> torch.device:
    """The one of this process among several of one run."""
    if processes()[1] == 1 or device.type == "cpu":
        return device
    if str(device) != "cuda":
        raise InputError(f"several processes need --device cpu, or cuda for a GPU each, not {device}")
    number, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if number >= count:
        raise InputError(f"more processes than the {count} GPUs here; start as many, or give --device cpu")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of this name. ``"auto"`` takes bf16 where the hardware multiplies it at full speed (CPUs with
    AVX512-BF16 or AMX, NVIDIA GPUs since Ampere), fp16 on older NVIDIA GPUs, else fp32. InputError for an
    unknown name, and for fp16 on a CPU, which is slower there than fp32."""
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision == "auto":
        return torch.bfloat16 if device.type == "cpu" and _cpu_multiplies_bf16() else torch.float32
    if precision == "int8":
        raise InputError("--precision int8 is for using a classifier; train with auto, fp32 or bf16")
    if precision not in DTYPES:
        raise InputError(f"--precision {precision!r} is unknown; use auto, {', '.join(DTYPES)}")
    if precision == "fp16" and device.type == "cpu":
        raise InputError("--precision fp16 is for GPUs; on a CPU use auto, bf16 or fp32")
    return DTYPES[precision]


def _cpu_multiplies_bf16() -> bool:
    """Whether the processor has bf16 dot products; torch's own emulation is slower than fp32."""
    # No public function says so; where a version of torch has neither of these, the answer is no.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)
