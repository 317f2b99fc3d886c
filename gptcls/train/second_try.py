"""Weights that are trained and cannot be saved stay in memory while somebody can name another folder."""

import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gptcls.common.console import complain
from gptcls.common.log import log
from gptcls.common.processes import processes
from gptcls.core.errors import InputError
from gptcls.core.loop import Trainer
from gptcls.train.folder import ADAPTED, ROWS, RunFolder, checkpoint_in
from gptcls.train.hooks import save_checkpoint


def save_somewhere(home: RunFolder, save: Callable[[Path], None], trainer: Trainer | None) -> Path:
    """``save`` to the run's folder and return it. Where the disk refuses and the terminal is interactive, to
    the folder that is named there instead, which then is the run's; else to a checkpoint, where there is a
    ``trainer`` of which this process alone can write one, and InputError says how to go on from it."""
    folder = home.path
    while True:
        try:
            save(folder)
            break
        except InputError as error:
            try:
                another = _another_folder(error)
            except KeyboardInterrupt:
                log.info(_kept(home.path / "checkpoint", trainer))
                raise
            if another is None:
                raise InputError(f"{error}; {_kept(home.path / 'checkpoint', trainer)}") from None
            folder = another
    if folder != home.path:
        with suppress(OSError):  # without them it is still a classifier
            shutil.copy(home.path / "config.json", folder)
            for name in (ROWS, ADAPTED):
                if (home.path / name).exists():
                    shutil.copytree(home.path / name, folder / name)
        log.info(f"saved in {folder}; what is left of the run in {home.path} may be deleted")
        home.move(folder)
    return folder


def _another_folder(error: InputError) -> Path | None:
    """What somebody at the terminal answers; None if nobody is there, or nothing is answered, or other
    processes would have to wait for it."""
    here = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    if processes()[1] > 1 or not here:
        return None
    complain(f"error: {error}")
    while True:
        print("What was trained is still in memory. Another folder for it (empty: none): ", end="",
              file=sys.stderr, flush=True)  # fmt: skip
        if not (answer := sys.stdin.readline().strip()):
            return None
        folder = Path(answer).expanduser()
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return folder
        complain(f"{folder} is there already")


def _kept(checkpoint: Path, trainer: Trainer | None) -> str:
    """Whether the run can go on from a checkpoint, of its end or before."""
    with suppress(InputError):
        if trainer is not None:
            save_checkpoint(checkpoint, trainer)
    if not checkpoint_in(checkpoint.parent):
        return "no checkpoint could be saved either"
    return f"once there is room, go on with --out {shlex.quote(str(checkpoint.parent))} --resume"
