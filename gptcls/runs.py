"""The folder of a run: a new one, or one whose run was interrupted."""

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import torch

from gptcls.atomic import write_json
from gptcls.config import TrainConfig
from gptcls.errors import InputError

log = logging.getLogger("gptcls")
FORMAT = "gptcls run"


def new_folder(config: TrainConfig) -> Path:
    """The folder for a new run; one that holds anything of worth is refused."""
    if config.out is None:
        name = f"{Path(config.model).name}-{Path(config.data).stem}"
        if config.recipe != "default":
            name += f"-{config.recipe}"
        numbered = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
        return next(path for path in numbered if not path.exists())
    out = config.out
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; choose a folder")
    if (out / "checkpoint").exists():
        raise InputError(f"--out {out} holds an interrupted run; add --resume, or choose another folder")
    if (out / "classifier").exists():
        raise InputError(f"--out {out} holds a finished run; choose another folder, or delete this one")
    if out.exists() and os.listdir(out) and not _is_run(out):
        raise InputError(f"--out {out} is not empty and holds no run; choose another folder")
    return out


def write_config(folder: Path, config: TrainConfig, base: dict | None) -> None:
    """``config.json``: the options, the weights that the run starts from (name and sha256), and the threads
    it computes with, since another number of them adds in another order."""
    description = {"format": FORMAT, "base": base, "threads": torch.get_num_threads()}
    write_json(folder / "config.json", description | {"options": config.to_json()})


def resumed(config: TrainConfig) -> tuple[TrainConfig, dict | None]:
    """The configuration that the run in ``config.out`` was started with, and its base weights.

    Raises InputError when there is no interrupted run, its description is damaged, or an option differs.
    """
    out = config.out
    if out is None:
        raise InputError("--resume needs --out, the folder of the interrupted run")
    if not (out / "checkpoint").exists():
        raise InputError(f"--out {out} holds no interrupted run; leave out --resume to start one")
    try:
        description = json.loads((out / "config.json").read_text(encoding="utf-8"))
        saved, base = TrainConfig.from_json(description["options"]), description["base"]
        threads = description["threads"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{out / 'config.json'} is damaged ({error!r:.80}); start again in another --out"
        ) from None
    if changed := replace(config, resume=False, out=None).differences(saved):
        raise InputError(
            f"{', '.join(changed)} cannot change when a run resumes; leave out or start a new run"
        )
    if threads != torch.get_num_threads():
        log.info(
            f"{out} was started with {threads} threads, not {torch.get_num_threads()}: the result will "
            f"differ in its last digits (OMP_NUM_THREADS={threads} repeats it exactly)"
        )
    return replace(saved, resume=True, out=out), base


def _is_run(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False
