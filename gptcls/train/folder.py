"""The folder of a run: a new one, or one whose run was interrupted."""

import json
import logging
import os
from collections.abc import Collection
from pathlib import Path

import torch

from gptcls.common.files import write_json
from gptcls.common.options import AnyOptions, Options, flag
from gptcls.core.errors import InputError

log = logging.getLogger("gptcls")
FORMAT = "gptcls run"


def new_folder(out: Path | None, name: str, result: str) -> Path:
    """The folder for a new run: ``out``, unless it holds anything worth keeping, or a new one in ``runs``
    that begins with ``name``; ``result`` is what a finished run leaves in it."""
    if out is None:
        numbered = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
        return next(path for path in numbered if not path.exists())
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; choose a folder")
    if (out / "checkpoint").exists():
        raise InputError(f"--out {out} holds an interrupted run; add --resume, or choose another folder")
    if (out / result).exists():
        raise InputError(f"--out {out} holds a finished run; choose another folder, or delete this one")
    if out.exists() and os.listdir(out) and not _is_run(out):
        raise InputError(f"--out {out} is not empty and holds no run; choose another folder")
    return out


def claim(folder: Path, out: Path | None, name: str, result: str) -> Path:
    """Create the folder; where a run next to this one took its name meanwhile, the next free one."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=out is not None)
            return folder
        except FileExistsError:
            folder = new_folder(out, name, result)


def environment(device: torch.device, dtype: torch.dtype) -> dict:
    """What the last digits of a result depend on apart from the options."""
    return {"threads": torch.get_num_threads(), "device": str(device), "precision": str(dtype)}


def write_config(folder: Path, config: Options, base: dict | None, here: dict) -> None:
    """``config.json``: the options, the weights the run starts from (name, sha256), its environment."""
    description = {"format": FORMAT, "base": base, "environment": here, "options": config.to_json()}
    write_json(folder / "config.json", description)


def resumed(config: AnyOptions, explicit: Collection[str] = ()) -> tuple[AnyOptions, dict | None, dict]:
    """The configuration that the run in ``--out`` was started with, its base weights, and its environment.

    InputError when there is no interrupted run, its description is damaged, or an option differs: one that is
    not at its default, or that ``explicit`` names since the user wrote it.
    """
    out = config.flat()["out"]
    if out is None:
        raise InputError("--resume needs --out, the folder of the interrupted run")
    if not (out / "checkpoint").exists():
        raise InputError(f"--out {out} holds no interrupted run; start a new one without --resume")
    try:
        description = json.loads((out / "config.json").read_text(encoding="utf-8"))
        saved, base = type(config).of(**description["options"]), description["base"]
        there = dict(description["environment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out}/config.json is damaged ({error!r:.80}); start in another --out") from None
    defaults, were = config.defaults(), saved.flat() | {"out": out, "resume": True}
    differ = {name: value for name, value in config.flat().items() if value != were[name]}
    changed = [flag(name) for name, value in differ.items() if name in explicit or value != defaults[name]]
    if changed:
        raise InputError(f"{', '.join(changed)} cannot change on --resume; leave out or start a new run")
    return saved.changed(resume=True, out=out), base, there


def warn_of_changes(there: dict, here: dict) -> None:
    """Log what differs between the :func:`environment` that a run was started in and this one."""
    changed = [f"{name} {there.get(name)}, now {new}" for name, new in here.items() if there.get(name) != new]
    if changed:
        log.info(f"the run was started with {'; '.join(changed)}: the last digits of its result will differ")


def _is_run(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False
