"""Where the arithmetic happens."""

import torch

from gptcls.errors import InputError


def pick_device(name: str = "auto") -> torch.device:
    """``"auto"``: an NVIDIA GPU, else an Apple GPU, else the CPU; or the device that ``name`` names.

    Raises InputError for a device that torch does not know or this machine does not have.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in has.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not has.get(device.type, False):
        available = ", ".join(kind for kind, there in has.items() if there)
        raise InputError(f"--device {name!r} is not available here; use auto or one of: {available}")
    return device
