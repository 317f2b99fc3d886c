"""The folder of a run: whose it is, and in which state.

``config.json`` says the state, is there before anything else, and is replaced in one step:

    new ─▶ running ─▶ scoring ─▶ finished          running ─Ctrl-C─▶ interrupted ─--resume─▶ running

Before all that a run may be adapting (:mod:`gptcls.pretrain.adapt`), in a folder of its own inside. A new
run's rows are not whole yet, a running one's are. A checkpoint lies there from its first moment to the last
of scoring. So a process may be killed at any instant: what then stands there is one of these states, and
``--resume`` goes on from the checkpoint, or where there is none begins again, with the run's own options.
"""

import errno
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import torch

from gptcls.common.files import atomic_folder, tidy, write_json
from gptcls.common.lock import LOCK, BusyError, locked
from gptcls.common.log import log
from gptcls.common.options import Options, flag
from gptcls.common.processes import processes
from gptcls.core.errors import InputError
from gptcls.core.loop import Trainer
from gptcls.models.weight_files import file_sha256
from gptcls.train.hooks import StoppedError, load_checkpoint, save_checkpoint

FORMAT = "gptcls run"
CONFIG, ROWS, CHECKPOINT = "config.json", "split", "checkpoint"
ADAPTED, ADAPTING = "adapted", "adapting"  # where a run reads on before it is fine-tuned; its state meanwhile
NOTHING = re.compile(r"\.gptcls\.lock|\..*partial.*")  # all that one killed at its start leaves


class RunFolder:
    """``path``, where a run leaves all, its ``result`` at last, and ``config``, what it does: as ``check``
    fills it in or, with ``--resume``, as the run in ``--out`` was started. Options may not differ from that
    run's where they are not at their default, or ``explicit`` names them since the user wrote them. Of
    several processes of one run only the first ``writes``.

    To be used in a ``with`` block, at whose end other processes may have the folder.
    """

    def __init__(
        self, config: Options, result: str, check: Callable, explicit: Collection[str] = (),
        writes: bool = True,
    ) -> None:  # fmt: skip
        options, self.writes = config.flat(), writes
        self.result, self.out, self.resume = result, options["out"], options["resume"]
        self.description: dict = {}
        with ExitStack() as stack:
            self._stack = stack
            if self.resume:
                self._read(config, explicit)
            else:
                self.config = check(config)
                self.path = self._new_path()
            self._stack = stack.pop_all()
        self.continues = self.resume and checkpoint_in(self.path)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        interrupted = isinstance(error, KeyboardInterrupt) and not isinstance(error, StoppedError)
        if interrupted and self.writes and self.description:
            log.info(f"{self.path} is left in state {self.state!r} ({self._way_on})")
        self._stack.close()

    @property
    def state(self) -> str:
        return self.description["state"]

    @property
    def has_rows(self) -> bool:
        """Whether the rows of the run that is resumed stand in its folder."""
        return self.resume and self.state not in ("new", ADAPTING)

    def claim(self, reads: Iterable[Path]) -> None:
        """Make the folder this run's for work that comes before :meth:`begin`, in state ``"adapting"``; of a
        run that is resumed it is."""
        if self.writes and not self.description:
            self._claim(self._described(ADAPTING, None, {}, reads))

    def _described(self, state: str, origin: dict | None, here: dict, reads: Iterable[Path]) -> dict:
        return {
            "format": FORMAT, "state": state, "base": origin, "environment": here,
            "sha256": {str(path.resolve()): file_sha256(path) for path in reads},
            "options": self.config.to_json(),
        }  # fmt: skip

    def begin(
        self, origin: dict | None, device: torch.device, dtype: torch.dtype, changed: str,
        reads: Iterable[Path] = (), write_rows: Callable[[Path], None] | None = None,
    ) -> Path:  # fmt: skip
        """Create the folder with ``config.json``: the options, what the run starts from (weights with their
        sha256), the sha256 of each file that it ``reads``, and what else the last digits of its result depend
        on; then ``write_rows`` into a folder in it. When resumed these must be the same: InputError,
        ``changed``, for another ``origin``, a log line for threads, processes, device and precision."""
        here = {"threads": torch.get_num_threads(), "device": str(device), "precision": str(dtype)}
        here["processes"] = processes()[1]
        begun = self.resume and self.state != ADAPTING
        if begun:
            then = {"processes": 1} | self.description["environment"]
            if moved := [f"{k} {then.get(k)}, now {new}" for k, new in here.items() if then.get(k) != new]:
                was = "; ".join(moved)
                log.info(f"the run was started with {was}: the last digits of its result will differ")
            if origin != self.description["base"]:
                raise InputError(f"{changed}; put them back")
        if not self.writes:
            return self.path
        if not begun:
            description = self._described("new", origin, here, reads)
            if self.description:  # claimed before
                description["sha256"] |= self.description["sha256"]
                self._advance(**description)
            else:
                self._claim(description)
        files = dict(self.description.get("sha256", {}))
        if self.state == "new" and write_rows is not None:
            write_rows(self.path / ROWS)
            rows = sorted((self.path / ROWS).glob("[!.]*"))
            files |= {f"{ROWS}/{file.name}": file_sha256(file) for file in rows}
        self._advance("running", sha256=files)
        return self.path

    @contextmanager
    def running(self, trainer: Trainer, save: Callable[[], None], saved: str) -> Iterator[None]:
        """Around the training: from the checkpoint on if there is one; Ctrl-C leaves one, and what ``save``
        does, in every process, in the log's words ``saved``."""
        checkpoint = self.path / CHECKPOINT
        if self.continues:
            load_checkpoint(checkpoint, trainer)
            log.info(f"{self.path} goes on after {trainer.progress.step:,} of {trainer.total_steps:,} steps")
        elif self.resume:
            log.info(f"{self.path} was ended before its first checkpoint: it begins again")
        try:
            yield
        except StoppedError:
            save_checkpoint(checkpoint, trainer)  # first: from it all else can be had again
            save()
            self._advance("interrupted")
            if self.writes:
                log.info(f"{saved} ({self._way_on})")
            raise

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Around all that is done once the result is there; behind it the run is finished."""
        self._advance("scoring")
        yield
        self.finish()

    def finish(self) -> None:
        """Say that nothing can be gone on with: all is done, or what diverged would diverge again."""
        self._advance("finished")
        if self.writes:
            shutil.rmtree(self.path / CHECKPOINT, ignore_errors=True)

    def move(self, path: Path) -> None:
        """Go on in another folder, which then is this run's alone; so is the first one until the end."""
        self._stack.enter_context(self._lock(path))
        self.path = path

    @property
    def _way_on(self) -> str:
        return f"continue with --out {shlex.quote(str(self.path))} --resume"

    def _advance(self, state: str, **more: object) -> None:
        self.description |= {"state": state, **more}
        if self.writes:
            write_json(self.path / CONFIG, self.description)

    # --- a new run ---

    def _new_path(self) -> Path:
        """``--out``, unless it holds anything worth keeping, or a new folder in ``runs``."""
        out, name = self.out, self.config.run_name
        numbered = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in range(1, 10_000))
        if not self.writes:
            return out or next(numbered)
        if out is None:
            return next(path for path in numbered if not path.exists())
        if (out / LOCK).exists():
            with self._lock(out):  # refused now instead of after everything is loaded
                pass
        self._require_free(out)
        if state_of(out, self.result):
            log.info(f"--out {out} holds a run that was ended before its first checkpoint: it is replaced")
        return out

    def _require_free(self, out: Path) -> None:
        """InputError where ``out`` holds anything worth keeping."""
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file; choose a folder")
        state = state_of(out, self.result)
        if state == "finished":
            raise InputError(f"--out {out} holds a finished run; choose another folder, or delete this one")
        adapting = state == ADAPTING and (out / ADAPTED).exists()
        if checkpoint_in(out) or adapting or (out / self.result).exists():
            raise InputError(f"--out {out} holds an interrupted run; add --resume, or choose another folder")
        if state is None and out.exists() and not all(map(NOTHING.fullmatch, os.listdir(out))):
            raise InputError(f"--out {out} is not empty and holds no run; choose another folder")

    def _claim(self, description: dict) -> None:
        """Make the folder this run's, with ``config.json`` in it from its first instant on."""
        while True:
            try:
                if not self.path.exists():
                    with atomic_folder(self.path, replace=False) as temporary:
                        write_json(temporary / CONFIG, description)
                self._stack.enter_context(self._lock(self.path))
                break
            except (OSError, BusyError) as error:  # a run next to this one took the name meanwhile
                faster = getattr(error, "errno", None) in (errno.EEXIST, errno.ENOTEMPTY)
                if not faster and (self.out is not None or not isinstance(error, BusyError)):
                    raise
                if self.out is None:
                    self.path = self._new_path()
        self._require_free(self.path)
        self.description = description
        write_json(self.path / CONFIG, description)

    def _lock(self, path: Path) -> AbstractContextManager[None]:
        busy = f"--out {path} is in use by another process; wait until it ends, or choose another folder"
        return locked(path / LOCK, busy)

    # --- a run that goes on ---

    def _read(self, config: Options, explicit: Collection[str]) -> None:
        """What the run in ``--out`` was started with."""
        out = self.path = self.out
        if out is None:
            raise InputError("--resume needs --out, the folder of the interrupted run")
        if not (out / CONFIG).exists():
            raise InputError(f"--out {out} holds no interrupted run; start a new one without --resume")
        if self.writes:
            self._stack.enter_context(self._lock(out))
            tidy(out.absolute().parent)  # where the folder itself was made
        try:
            description = json.loads((out / CONFIG).read_text(encoding="utf-8"))
            saved = type(config).of(**description["options"])
            description |= {
                "base": description["base"], "environment": dict(description["environment"]),
                "state": state_of(out, self.result), "sha256": dict(description.get("sha256", {})),
            }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            said = f"{out}/config.json is damaged ({error!r:.80})"
            raise InputError(f"{said}; start in another --out") from None
        if description["state"] == "finished":
            if self.writes:  # what a process killed at its last step left
                shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
                tidy(out)
            raise InputError(f"--out {out} holds a finished run: there is nothing left to resume")
        self.config, self.description = saved.changed(resume=True, out=out), description
        defaults, were = config.defaults(), self.config.flat()
        differ = {name: value for name, value in config.flat().items() if value != were[name]}
        changed = [name for name, value in differ.items() if name in explicit or value != defaults[name]]
        if changed:
            named = ", ".join(map(flag, changed))
            raise InputError(f"{named} cannot change on --resume; leave out or start a new run")
        for name, sha256 in description["sha256"].items():
            file = out / name  # the files that were read have absolute names
            if not file.exists() and Path(name).is_absolute():
                continue  # its rows are the run's already; who still needs it says that it is gone
            if not file.exists() or file_sha256(file) != sha256:
                fate = "changed" if file.exists() else "is gone"
                raise InputError(f"{file} {fate} since {out} was started; put it back, or start a new run")


def checkpoint_in(folder: Path) -> bool:
    """Whether a run's folder holds a checkpoint."""
    return (folder / CHECKPOINT / "progress.json").exists()


def state_of(folder: Path, result: str) -> str | None:
    """What ``config.json`` says; of runs that did not say it yet, what else lies there; None of no run."""
    try:
        description = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    finished = (folder / result).exists() and (folder / "metrics.json").exists()
    return description.get("state", "finished" if finished else "running")
