"""Commands of gptcls in processes of their own, to be killed, stopped or starved.

A warm one is forked from a server that has imported torch and every verb, so that it starts in milliseconds
and a thousand kills take minutes. A cold one is ``python -m gptcls.VERB``, for what is decided while Python
starts: the encoding of the terminal, the hub's cache, a limit on memory.
"""

import importlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VERBS = {name: f"gptcls.{name}.__main__" for name in ("train", "pretrain", "classify")}
VERBS |= {name: f"gptcls.{name}" for name in ("evaluate", "pseudo_label", "generate")}
# Events of sys.audit after which a disk is no longer as it was: a process may be stopped before each.
CHANGES = {
    f"os.{name}" for name in ["rename", "mkdir", "remove", "rmdir", "link", "symlink", "truncate", "chmod"]
}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Where files are written and removed by the thousand: in memory, where the system has such a place.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
LIMIT = 120  # seconds after which a command counts as hanging


@dataclass(frozen=True)
class Done:
    """A command that ended: ``code`` as a shell shows it, 143 for SIGTERM; None where it hung."""

    code: int | None
    out: str
    err: str
    seconds: float
    changes: int = 0  # of the disk, where a :class:`Trap` counted them

    @property
    def last(self) -> str:
        """The last line of stderr, or of stdout where there is none."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1][:300] if lines else ""

    @property
    def uncaught(self) -> bool:
        return "Traceback (most recent call last)" in self.err + self.out


@dataclass(frozen=True)
class Trap:
    """What happens in a warm command just before its ``at``-th change of the disk below its folder, counted
    from 0: a signal, or an OSError of that ``errno`` from then on; never where ``at`` is below 0. With
    ``path`` or ``event`` only changes count whose path has that in it, or that are of that audit event."""

    at: int = -1
    signum: int = signal.SIGKILL
    errno: int = 0
    path: str = ""
    event: str = ""


class Running:
    """A warm command: ``verb`` with ``arguments``, in ``folder``, whose ``tmp`` is its TMPDIR.

    ``before``, a function of a module and its arguments, is called in it first.
    """

    def __init__(
        self, verb: str, arguments: Sequence[Any], folder: Path, trap: Trap | None = None,
        before: Callable | None = None, *values: Any,
    ) -> None:  # fmt: skip
        (folder / "tmp").mkdir(exist_ok=True)
        self.log = Path(tempfile.mkdtemp(prefix="fault-log-"))
        called = (verb, list(map(str, arguments)), folder, self.log, trap, before, values)
        self.process = server().Process(target=_carry_out, args=called)
        self.started = time.perf_counter()
        with _STARTING:
            self.process.start()

    @property
    def code(self) -> int | None:
        """Its exit status, None while it runs. Asked by one thread at a time: of two that read the end of a
        process the second is told 255, and whoever starts one looks at all others."""
        with _STARTING:
            return self.process.exitcode

    def send(self, signum: int) -> None:
        """A signal, if it still runs."""
        if self.code is None:
            os.kill(self.process.pid, signum)

    def text(self) -> str:
        """What it has said on stderr so far."""
        return _text(self.log / "err")

    def says(self, text: str, limit: float = LIMIT) -> bool:
        """Wait until its stderr has ``text``; False where it ends without."""
        end = time.perf_counter() + limit
        while time.perf_counter() < end:
            alive = self.code is None
            if text in self.text():
                return True
            if not alive:
                return False
            time.sleep(0.005)
        return False

    def wait(self, limit: float = LIMIT) -> Done:
        """Its end, or after ``limit`` seconds SIGKILL."""
        end = time.perf_counter() + limit
        while (code := self.code) is None and time.perf_counter() < end:
            time.sleep(0.002)
        if hung := code is None:
            self.process.kill()
            while self.code is None:
                time.sleep(0.002)
        seconds = time.perf_counter() - self.started
        self.process.close()
        count = _text(self.log / "changes")
        done = Done(
            None if hung else code if code >= 0 else 128 - code,
            _text(self.log / "out"), _text(self.log / "err"), seconds, int(count or 0),
        )  # fmt: skip
        for file in self.log.iterdir():
            file.unlink()
        self.log.rmdir()
        return done


def warm(verb: str, arguments: Sequence[Any], folder: Path, *more: Any, limit: float = LIMIT) -> Done:
    """A warm command, from its start to its end."""
    return Running(verb, arguments, folder, *more).wait(limit)


def cold(
    verb: str, arguments: Sequence[Any], folder: Path, *, limit: float = LIMIT, memory: int | None = None,
    environment: dict[str, str | None] | None = None, wrapper: Sequence[str] = (), **how: Any,
) -> Done:  # fmt: skip
    """``python -m gptcls.verb`` in a fresh interpreter; ``memory`` limits its address space, in bytes."""
    started = time.perf_counter()
    process = start_cold(verb, arguments, folder, memory, environment, wrapper, **how)
    try:
        out, err = process.communicate(timeout=limit)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    except subprocess.TimeoutExpired:
        process.kill()
        (out, err), code = process.communicate(), None
    text = [(part or b"").decode("utf-8", "replace") for part in (out, err)]
    return Done(code, *text, time.perf_counter() - started)


def start_cold(
    verb: str, arguments: Sequence[Any], folder: Path, memory: int | None = None,
    environment: dict[str, str | None] | None = None, wrapper: Sequence[str] = (), **how: Any,
) -> subprocess.Popen:  # fmt: skip
    """The same, not waited for."""
    (folder / "tmp").mkdir(exist_ok=True)
    changed = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    changed |= environment or {}
    kept = {name: value for name, value in os.environ.items() if name not in changed}
    kept |= {name: value for name, value in changed.items() if value is not None}
    module = verb if "." in verb else f"gptcls.{verb}"
    command = [*wrapper, sys.executable, "-m", module, *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    limited = None if memory is None else _LimitMemory(memory)
    return subprocess.Popen(command, cwd=folder, env=kept, preexec_fn=limited, **pipes)


@dataclass(frozen=True)
class _LimitMemory:
    size: int

    def __call__(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (self.size, self.size))


# --- the server, and what a warm command does first ---

_STARTING = threading.Lock()


def server() -> Any:
    """The context whose processes are forked from a server with everything imported."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if str(ROOT) not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.fault_warm"])
    return context


def _carry_out(
    verb: str, arguments: list[str], folder: Path, log: Path, trap: Trap | None, before: Callable | None,
    values: tuple,
) -> None:  # fmt: skip
    os.chdir(folder)
    os.environ["TMPDIR"], tempfile.tempdir = str(folder / "tmp"), None
    for fd, name in ((1, "out"), (2, "err")):
        opened = os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, fd)
        os.close(opened)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    sys.argv = [f"gptcls {verb}", *arguments]
    if before is not None:
        before(*values)
    if trap is not None:
        _set(trap, str(folder), log / "changes")
    try:
        importlib.import_module(VERBS[verb]).main()
    finally:
        sys.stdout.flush()


def changed_path(event: str, arguments: tuple) -> str | None:
    """What an event of sys.audit ("Audit events table" in Python's library reference) says is about to change
    on the disk: a path, "" for one relative to an open folder, as rmtree removes, or None for no change. What
    safetensors writes shows by what comes next: its file is flushed and renamed."""
    if event == "ctypes.dlsym":
        return "" if arguments[1] == "renameat2" else None  # which has no event of its own
    if event == "open":
        changes = isinstance(arguments[0], str | bytes) and arguments[2] & WRITES
    else:
        changes = event in CHANGES
    if not changes:
        return None
    if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
        return ""
    return os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else ""


def _set(trap: Trap, folder: str, count: Path) -> None:
    """Count the changes of the disk, one byte each, and spring at the one that was chosen."""
    seen, tally = 0, os.open(count, os.O_WRONLY | os.O_CREAT, 0o600)

    def look(event: str, arguments: tuple) -> None:
        nonlocal seen
        path = changed_path(event, arguments)
        if path is None:
            return
        path = os.path.join(folder, path)
        if not path.startswith(folder) or trap.path not in path or trap.event not in ("", event):
            return
        seen += 1
        os.pwrite(tally, str(seen).encode(), 0)
        if not 0 <= trap.at < seen:
            return
        if trap.errno:
            raise OSError(trap.errno, os.strerror(trap.errno), path)
        os.kill(os.getpid(), trap.signum)

    sys.addaudithook(look)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
