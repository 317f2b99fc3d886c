"""An unfinished run on disk: ``progress.json`` and ``state.safetensors``, no pickle.

Everything that the rest of the run depends on is in it: the trained weights, AdamW's moments and step
counts, the counters of the loop, and whatever else the loop says its state is (torch's generators, the
weights to go back to). So a run that continues ends with the same bits as one that was never interrupted.
"""

import json
import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptcls.common.files import atomic_folder
from gptcls.core.errors import InputError

log = logging.getLogger("gptcls")


class Loop(Protocol):
    """What can be checkpointed: :class:`gptcls.core.loop.Trainer` and
    :class:`gptcls.pretrain.run.Pretrainer`."""

    parameters: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    progress: Any  # a dataclass of plain values

    def state(self) -> dict[str, Tensor]:
        """The tensors that the rest of the run depends on, beside weights and optimizer."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Undo the passing of time since :meth:`state`."""


def save_checkpoint(folder: Path, trainer: Loop) -> None:
    """Write the trainer's state to ``folder``, replacing an earlier one only when it is complete.

    Raises InputError when the disk is full or the folder cannot be written.
    """
    tensors = {f"model.{name}": p.detach() for name, p in trainer.parameters.items()}
    tensors |= {f"state.{name}": value for name, value in trainer.state().items()}
    for name, p in trainer.parameters.items():
        tensors |= {f"optimizer.{key}.{name}": v for key, v in trainer.optimizer.state[p].items()}
    try:
        with atomic_folder(folder) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / "state.safetensors")
            progress = json.dumps(asdict(trainer.progress), indent=2)
            (temporary / "progress.json").write_text(progress + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot save the checkpoint to {folder}: {error}; free space") from error


def try_checkpoint(folder: Path, trainer: Loop) -> None:
    """:func:`save_checkpoint`, but a full disk is said and does not end a healthy run."""
    try:
        save_checkpoint(folder, trainer)
    except InputError as error:
        log.info(f"{error}; training goes on")


def load_checkpoint(folder: Path, trainer: Loop) -> None:
    """Put ``trainer``, built from the same settings and data, where :func:`save_checkpoint` found it.

    Raises InputError when the folder holds no checkpoint, a damaged one, or one of another model.
    """
    try:
        values = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        if values.keys() != {field.name for field in fields(trainer.progress)}:
            raise ValueError("progress.json has other entries")
        tensors = load_file(folder / "state.safetensors")
    except FileNotFoundError:
        raise InputError(f"{folder} holds no interrupted run; start again without --resume") from None
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged ({error!s:.80}); start again in another --out") from None
    weights = part(tensors, "model.")
    if weights.keys() != trainer.parameters.keys():
        raise InputError(
            f"{folder} belongs to a run that trained other parameters; start again without --resume"
        )
    with torch.no_grad():
        for name, value in weights.items():
            trainer.parameters[name].copy_(value)
    trainer.progress = type(trainer.progress)(**values)
    for key in ("step", "exp_avg", "exp_avg_sq"):
        for name, value in part(tensors, f"optimizer.{key}.").items():
            parameter = trainer.parameters[name]
            trainer.optimizer.state[parameter][key] = value.to(parameter.device)
    trainer.restore(part(tensors, "state."))


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
