"""Fuzzing: numbered damaged inputs, read in a few processes, each watched by a clock.

A worker that a case ends (a signal from inside a library) or stops (a hang) is started anew at the next case.
"""

import json
import os
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fault_commands import SCRATCH, server

LIMIT = 30.0  # seconds that a file of a kilobyte may take on a busy machine
MEMORY = 3 << 30  # bytes more than a worker has when it starts; a file of a kilobyte needs none of them


@dataclass
class Found:
    """What fuzzing found: how many inputs of each kind were read, and what should not have happened."""

    read: Counter = field(default_factory=Counter)  # kind -> inputs
    uncaught: list[dict] = field(default_factory=list)  # case, kind, error, where
    hangs: list[dict] = field(default_factory=list)
    left: list[dict] = field(default_factory=list)  # files
    left_behind: int = 0  # bytes
    seconds: float = 0.0

    @property
    def by_place(self) -> Counter:
        """How often each (error, kind, place) was met."""
        return Counter((each["error"], each["where"]) for each in self.uncaught)


def fuzz(count: int, seed: int, jobs: int, seconds: float = float("inf")) -> Found:
    """Read the cases 0 to ``count`` - 1, or as many as ``seconds`` allow."""
    found, began = Found(), time.perf_counter()
    home = Path(tempfile.mkdtemp(prefix="faults-", dir=SCRATCH))
    workers = [_Worker(home / str(rank), rank, jobs, count, seed) for rank in range(jobs)]
    try:
        while running := [worker for worker in workers if worker.alive(found)]:
            time.sleep(0.05)
            if time.perf_counter() - began > seconds:
                for worker in running:
                    worker.stop()
    finally:
        for worker in workers:
            worker.stop()
    for worker in workers:
        worker.gather(found)
    shutil.rmtree(home)
    found.seconds = time.perf_counter() - began
    return found


def repeat(number: int, seed: int) -> str:
    """Read one case in this process; its traceback, or what was said. The files stay where that says."""
    from benchmarks.fault_inputs import Kinds

    kinds = Kinds(Path(tempfile.mkdtemp(prefix="faults-")))
    kind, folder = kinds.write(number, seed)
    try:
        kind.use(folder)
    except BaseException as error:
        said = "".join(traceback.format_exception(error))
    else:
        said = "it was read"
    return f"fuzz-{number}: {kind.name}, {folder / kind.file}\n{said}"


class _Worker:
    """A process that reads every ``jobs``-th case, begun again where it dies."""

    def __init__(self, folder: Path, rank: int, jobs: int, count: int, seed: int) -> None:
        folder.mkdir()
        self.folder, self.rank, self.jobs, self.count, self.seed = folder, rank, jobs, count, seed
        self.lost: list[tuple[int, str]] = []
        self.stopped = False
        self._start(rank)

    def _start(self, first: int) -> None:
        arguments = (self.folder, first, self.jobs, self.count, self.seed)
        self.process, self.since = server().Process(target=_work, args=arguments), time.monotonic()
        self.process.start()

    def alive(self, found: Found) -> bool:
        """Whether there is work left; what hangs is killed, what died goes on after the case it died of."""
        if self.stopped:
            return False
        number, began = self._at()
        code = self.process.exitcode
        if code is None:
            if number >= 0 and time.monotonic() - max(began, self.since) > LIMIT:
                self.process.kill()
                self.process.join()
                found.hangs.append(self._case(number, "hang", f"more than {LIMIT:.0f} s"))
                self._start(number + self.jobs)
            return True
        if code == 0:
            return False
        if number < 0 or began < self.since:
            raise RuntimeError(f"a worker could not begin (exit {code}): {_end_of(self.folder / 'err')}")
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        found.uncaught.append(self._case(number, name, _end_of(self.folder / "err")))
        self._start(number + self.jobs)
        return True

    def _at(self) -> tuple[int, float]:
        """The case under way, and since when (of the monotonic clock)."""
        path = self.folder / "now"
        data = path.read_bytes() if path.exists() else b""
        return struct.unpack("<qd", data) if len(data) == 16 else (-1, 0.0)

    def _case(self, number: int, error: str, where: str) -> dict:
        return {"case": f"fuzz-{number}", "kind": "", "error": error, "where": where, "number": number}

    def stop(self) -> None:
        if not self.stopped and self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.stopped = True

    def gather(self, found: Found) -> None:
        """Add what it wrote."""
        file = self.folder / "found"
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            entry = json.loads(line)
            if "left" in entry:
                found.left_behind += entry["left"]
                found.left.append(entry)
            else:
                found.uncaught.append(entry)
        reads = self.folder / "read"
        kinds = json.loads((self.folder / "kinds").read_text()) if (self.folder / "kinds").exists() else []
        counts = reads.read_bytes() if reads.exists() else b""
        for i, kind in enumerate(kinds):
            if len(part := counts[8 * i : 8 * i + 8]) == 8 and (n := struct.unpack("<q", part)[0]):
                found.read[kind] += n


def _work(folder: Path, first: int, step: int, count: int, seed: int) -> None:
    """In the worker: the cases ``first``, ``first`` + ``step``, …"""
    err = os.open(folder / "err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(err, 2)
    os.dup2(err, 1)
    from benchmarks.fault_inputs import Kinds
    from gptcls.common.memory import ran_out
    from gptcls.core.errors import InputError

    shutil.rmtree(folder / "files", ignore_errors=True)
    kinds = Kinds(folder / "files")
    names = list(kinds.kinds)
    (folder / "kinds").write_text(json.dumps(names))
    now = os.open(folder / "now", os.O_WRONLY | os.O_CREAT)
    reads = os.open(folder / "read", os.O_RDWR | os.O_CREAT)
    tally = [struct.unpack("<q", os.pread(reads, 8, 8 * i) or bytes(8))[0] for i in range(len(names))]
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    with (folder / "found").open("a", encoding="utf-8", buffering=1) as out:
        for number in range(first, count, step):
            # Before it is made, so that what cannot be made is not tried for ever.
            os.pwrite(now, struct.pack("<qd", number, time.monotonic()), 0)
            kind, case = kinds.write(number, seed)
            index = names.index(kind.name)
            tally[index] += 1
            os.pwrite(reads, struct.pack("<q", tally[index]), 8 * index)
            try:
                kind.use(case)
            except (InputError, OSError):
                pass
            except BaseException as error:  # a panic in Rust is no Exception
                if not ran_out(error):  # which a command shows as a line, too
                    about = {"case": f"fuzz-{number}", "kind": kind.name, "error": type(error).__name__}
                    about |= {"where": _place(error), "said": f"{error!s:.160}"}
                    out.write(json.dumps(about) + "\n")
            expected = {*kind.files, *kind.made}
            for path in sorted(case.rglob("*")):
                name = path.relative_to(case)
                if path.is_file() and name.as_posix() not in expected and name.parts[0] not in kind.made:
                    left = {"left": path.stat().st_size, "case": f"fuzz-{number}", "file": str(name)}
                    out.write(json.dumps(left | {"kind": kind.name}) + "\n")
            shutil.rmtree(case)


def _place(error: BaseException) -> str:
    """The deepest line of gptcls that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}gptcls{os.sep}" in frame.filename] or frames[-1:]
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"


def _end_of(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines() if file.exists() else []
    return lines[-1][:200] if lines else ""
