"""The folder of a run: a new one, or one whose run was interrupted."""

import json
import os
import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gptcls.common.files import write_json
from gptcls.common.log import log
from gptcls.common.options import Options, flag
from gptcls.core.errors import InputError
from gptcls.core.loop import Trainer
from gptcls.train.hooks import StoppedError, load_checkpoint, save_checkpoint

FORMAT = "gptcls run"


class RunFolder:
    """``path``, where a run leaves all, its ``result`` at last, and ``config``, what it does: as ``check``
    fills it in or, with ``--resume``, as the run in ``--out`` was started. Options may not differ from that
    run's where they are not at their default, or ``explicit`` names them since the user wrote them. Of
    several processes of one run only the first ``writes``.
    """

    def __init__(
        self, config: Options, result: str, check: Callable, explicit: Collection[str] = (),
        writes: bool = True,
    ) -> None:  # fmt: skip
        options, self.writes = config.flat(), writes
        self.result, self.out, self.resume = result, options["out"], options["resume"]
        if self.resume:
            self._read(config, explicit)
        else:
            self.config = check(config)
            self.path = self._new_path()

    def begin(self, origin: dict | None, device: torch.device, dtype: torch.dtype, changed: str) -> Path:
        """Create the folder with ``config.json``: the options, what the run starts from (weights with their
        sha256), and what else the last digits of its result depend on. When resumed these must be the same:
        InputError, ``changed``, for another ``origin``, a log line for the rest."""
        here = {"threads": torch.get_num_threads(), "device": str(device), "precision": str(dtype)}
        if self.resume:
            then = self.there
            if moved := [f"{k} {then.get(k)}, now {new}" for k, new in here.items() if then.get(k) != new]:
                was = "; ".join(moved)
                log.info(f"the run was started with {was}: the last digits of its result will differ")
            if origin != self.origin:
                raise InputError(f"{changed}; put them back")
            return self.path
        if not self.writes:
            return self.path
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=self.out is not None)
                break
            except FileExistsError:  # a run next to this one took the name meanwhile
                self.path = self._new_path()
        description = {"format": FORMAT, "base": origin, "environment": here}
        write_json(self.path / "config.json", description | {"options": self.config.to_json()})
        return self.path

    @contextmanager
    def running(self, trainer: Trainer, save: Callable[[], None], saved: str) -> Iterator[None]:
        """Around the training: from the checkpoint on if there is one; Ctrl-C leaves one, and what ``save``
        does, in the log's words ``saved``."""
        checkpoint = self.path / "checkpoint"
        if self.resume:
            load_checkpoint(checkpoint, trainer)
        try:
            yield
        except StoppedError:
            if self.writes:
                save_checkpoint(checkpoint, trainer)  # first: from it all else can be had again
                save()
                log.info(f"interrupted; {saved} (continue with --out {shlex.quote(str(self.path))} --resume)")
            raise

    def _new_path(self) -> Path:
        """``--out``, unless it holds anything worth keeping, or a new folder in ``runs``."""
        out, name = self.out, self.config.run_name
        if out is None:
            numbered = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
            return next(path for path in numbered if not path.exists())
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file; choose a folder")
        if (out / "checkpoint").exists():
            raise InputError(f"--out {out} holds an interrupted run; add --resume, or choose another folder")
        if (out / self.result).exists():
            raise InputError(f"--out {out} holds a finished run; choose another folder, or delete this one")
        if out.exists() and os.listdir(out) and not _is_run(out):
            raise InputError(f"--out {out} is not empty and holds no run; choose another folder")
        return out

    def _read(self, config: Options, explicit: Collection[str]) -> None:
        """What the run in ``--out`` was started with."""
        out = self.path = self.out
        if out is None:
            raise InputError("--resume needs --out, the folder of the interrupted run")
        if not (out / "checkpoint").exists():
            raise InputError(f"--out {out} holds no interrupted run; start a new one without --resume")
        try:
            description = json.loads((out / "config.json").read_text(encoding="utf-8"))
            saved, self.origin = type(config).of(**description["options"]), description["base"]
            self.there = dict(description["environment"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{out}/config.json is damaged ({error!r:.80}); start in another --out"
            ) from None
        self.config = saved.changed(resume=True, out=out)
        defaults, were = config.defaults(), self.config.flat()
        differ = {name: value for name, value in config.flat().items() if value != were[name]}
        changed = [
            flag(name) for name, value in differ.items() if name in explicit or value != defaults[name]
        ]
        if changed:
            raise InputError(f"{', '.join(changed)} cannot change on --resume; leave out or start a new run")


def _is_run(folder: Path) -> bool:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False
