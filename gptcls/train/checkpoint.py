"""An unfinished run on disk: ``progress.json`` and ``state.safetensors``, no pickle.

Everything that the rest of the run depends on is in it: trained weights, the optimizer's moments and step
counts, torch's generators, the loop's counters and its hooks' state. So a run that continues ends with the
same bits as one that was never interrupted.
"""

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptcls.common.files import atomic_folder
from gptcls.core.errors import InputError
from gptcls.core.loop import Hook, Progress, Trainer, rng_state, set_rng_state

log = logging.getLogger("gptcls")
CHECKPOINT_SECONDS = 60  # what a crash may cost; a checkpoint is four times the size of what is trained


class Checkpoints(Hook):
    """A checkpoint in ``folder`` whenever :data:`CHECKPOINT_SECONDS` have passed since the last one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_start(self, trainer: Trainer) -> None:
        self.saved_at = time.perf_counter()

    def on_step(self, trainer: Trainer) -> None:
        if time.perf_counter() - self.saved_at <= CHECKPOINT_SECONDS:
            return
        try:
            save_checkpoint(self.folder, trainer)
        except InputError as error:  # a full disk does not end a healthy run
            log.info(f"{error}; training goes on")
        self.saved_at = time.perf_counter()


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write the trainer's state to ``folder``, in place of an earlier one once it is complete; InputError
    where it cannot be written."""
    tensors = {f"model.{name}": p.detach() for name, p in trainer.parameters.items()}
    tensors |= {f"rng.{name}": value for name, value in rng_state().items()}
    tensors |= {f"epoch_rng.{name}": value for name, value in trainer.epoch_rng.items()}
    for name, p in trainer.parameters.items():
        tensors |= {f"optimizer.{key}.{name}": v for key, v in trainer.optimizer.state[p].items()}
    values: dict[str, dict] = {}
    for hook in trainer.hooks:
        kind = type(hook).__name__
        for key, value in hook.state().items():
            if isinstance(value, Tensor):
                tensors[f"hook.{kind}.{key}"] = value
            else:
                values.setdefault(kind, {})[key] = value
    description = {"progress": asdict(trainer.progress), "hooks": values}
    try:
        with atomic_folder(folder) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / "state.safetensors")
            text = json.dumps(description, indent=2, allow_nan=False) + "\n"
            (temporary / "progress.json").write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot save the checkpoint to {folder}: {error}; free space") from error


def load_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Put ``trainer``, built from the same settings and data, where :func:`save_checkpoint` found it;
    InputError when the folder holds no checkpoint, a damaged one, or one of another model."""
    try:
        description = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        progress, values = Progress(**description["progress"]), dict(description["hooks"])
        tensors = load_file(folder / "state.safetensors")
    except FileNotFoundError:
        raise InputError(f"{folder} holds no interrupted run; start again without --resume") from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged ({error!s:.80}); start again in another --out") from None
    weights = _part(tensors, "model.")
    if _shapes(weights) != _shapes(trainer.parameters):
        raise InputError(f"{folder} is of a run that trained other parameters; start again without --resume")
    with torch.no_grad():
        for name, value in weights.items():
            trainer.parameters[name].copy_(value)
    trainer.progress = progress
    for full, value in _part(tensors, "optimizer.").items():
        key, _, name = full.partition(".")
        trainer.optimizer.state[trainer.parameters[name]][key] = value.to(trainer.device)
    trainer.epoch_rng = _part(tensors, "epoch_rng.")
    for hook in trainer.hooks:
        kind = type(hook).__name__
        moved = {k: v.to(trainer.device) for k, v in _part(tensors, f"hook.{kind}.").items()}
        hook.restore(values.get(kind, {}) | moved)
    set_rng_state(_part(tensors, "rng."))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
