"""The folder of a run: a new one, or one whose run was interrupted."""

import json
import os
from dataclasses import replace
from pathlib import Path

from gptcls.config import TrainConfig
from gptcls.errors import InputError


def new_folder(config: TrainConfig) -> Path:
    """The folder for a new run; one that holds something else, or an unfinished run, is refused."""
    if config.out is None:
        name = f"{Path(config.model).name}-{Path(config.data).stem}"
        if config.recipe != "default":
            name += f"-{config.recipe}"
        numbered = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
        return next(path for path in numbered if not path.exists())
    if (config.out / "checkpoint").exists():
        raise InputError(
            f"--out {config.out} holds an interrupted run; add --resume, or choose another folder"
        )
    if config.out.exists() and os.listdir(config.out) and not (config.out / "config.json").exists():
        raise InputError(f"--out {config.out} is not empty and holds no run; choose another folder")
    return config.out


def resumed(config: TrainConfig) -> TrainConfig:
    """The configuration that the run in ``config.out`` was started with."""
    if config.out is None:
        raise InputError("--resume needs --out, the folder of the interrupted run")
    if not (config.out / "checkpoint").exists():
        raise InputError(f"--out {config.out} holds no interrupted run; leave out --resume to start one")
    saved = TrainConfig.from_json(json.loads((config.out / "config.json").read_text(encoding="utf-8")))
    if changed := replace(config, resume=False, out=None).differences(saved):
        raise InputError(
            f"{', '.join(changed)} cannot change when a run resumes; leave out or start a new run"
        )
    return replace(saved, resume=True, out=config.out)
