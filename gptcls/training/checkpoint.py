"""An unfinished run on disk: ``progress.json`` and ``state.safetensors``, no pickle.

Everything that the rest of the run depends on is in it: the trained weights and the ones to go back to,
AdamW's moments and step counts, torch's generators now and as the epoch's shuffling found them, and the
counters of the loop. So a run that continues ends with the same bits as one that was never interrupted.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptcls.atomic import atomic_folder
from gptcls.errors import InputError
from gptcls.training.loop import Trainer
from gptcls.training.progress import Progress
from gptcls.training.rng import rng_state, set_rng_state


def save_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Write the trainer's state to ``folder``, replacing an earlier one only when it is complete.

    Raises InputError when the disk is full or the folder cannot be written.
    """
    tensors = {f"model.{name}": p.detach() for name, p in trainer.parameters.items()}
    tensors |= {f"kept.{name}": value for name, value in trainer.kept.items()}
    tensors |= {f"rng.{name}": value for name, value in rng_state().items()}
    tensors |= {f"epoch_rng.{name}": value for name, value in trainer.epoch_rng.items()}
    for name, p in trainer.parameters.items():
        tensors |= {f"optimizer.{key}.{name}": v for key, v in trainer.optimizer.state[p].items()}
    try:
        with atomic_folder(folder) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / "state.safetensors")
            progress = json.dumps(asdict(trainer.progress), indent=2)
            (temporary / "progress.json").write_text(progress + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot save the checkpoint to {folder}: {error}; free space") from error


def load_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Put ``trainer``, built from the same settings and data, where :func:`save_checkpoint` found it.

    Raises InputError when the folder holds no checkpoint, a damaged one, or one of another model.
    """
    try:
        values = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        if values.keys() != {field.name for field in fields(Progress)}:
            raise ValueError("progress.json has other entries")
        tensors = load_file(folder / "state.safetensors")
    except FileNotFoundError:
        raise InputError(f"{folder} holds no interrupted run; start again without --resume") from None
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder} is damaged ({error!s:.80}); start again in another --out") from None

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    weights = part("model.")
    if weights.keys() != trainer.parameters.keys():
        raise InputError(
            f"{folder} belongs to a run that trained other parameters; start again without --resume"
        )
    with torch.no_grad():
        for name, value in weights.items():
            trainer.parameters[name].copy_(value)
    trainer.progress = Progress(**values)
    trainer.kept = {name: value.to(trainer.device) for name, value in part("kept.").items()}
    for key in ("step", "exp_avg", "exp_avg_sq"):
        for name, value in part(f"optimizer.{key}.").items():
            trainer.optimizer.state[trainer.parameters[name]][key] = value.to(trainer.device)
    trainer.epoch_rng = part("epoch_rng.")
    set_rng_state(part("rng."))
