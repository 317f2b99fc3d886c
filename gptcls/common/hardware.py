"""Where the arithmetic happens, and in which number format all of a network but what is trained (fp32)."""

import math
import os
from contextlib import suppress
from pathlib import Path

import torch

from gptcls.common.log import log
from gptcls.common.processes import processes
from gptcls.core.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """``"auto"``: an NVIDIA GPU, else an Apple GPU, else the CPU. Of several processes of one run each has an
    NVIDIA GPU of its own. In a container torch's threads are no more than the processors it may use.
    InputError for what is not here."""
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > (quota := cpu_quota()):
        torch.set_num_threads(int(quota))
        log.info(f"torch has {int(quota)} threads, as many processors as this process may use")
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


def cpu_quota(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """How many processors' time Linux gives this process: the least quota of its control group and those
    above it, as ``docker run --cpus`` and Kubernetes set it, rounded up; infinity without one. torch counts
    all that it sees, and threads that wait for each other within a quota of fewer hardly get on."""
    least = math.inf
    with suppress(OSError, ValueError):  # not Linux, or nothing that is known here
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):  # version 2 has one group for all of them
                mount = groups / "cpu" if controllers else groups
                group = mount / path.lstrip("/")
                least = min(least, *map(_quota_of, [group, *group.parents]))
    return least if least == math.inf else max(1, math.ceil(least))


def _quota_of(group: Path) -> float:
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # version 2 and 1
        with suppress(OSError, ValueError):  # "max 100000" and -1 are no quota
            quota, period = map(int, " ".join((group / name).read_text() for name in names).split())
            return quota / period if quota > 0 else math.inf
    return math.inf


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
