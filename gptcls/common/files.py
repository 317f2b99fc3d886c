"""Writing files so that a reader sees the old content or the new, never half of it.

What is being written lies in a folder beside its target, ``.NAME.TOKEN.partial``. TOKEN is random and the
folder made exclusively: so it follows no link that somebody planted, and meets no other process's, in
whichever container that has the same number. The file ``lock`` in it is locked while its writer lives. The
system takes the lock from a process that is killed: so whoever writes there next knows what to remove
(:func:`tidy`), and never removes what a living process writes.
"""

import ctypes
import errno
import json
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gptcls.core.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PARTIAL = re.compile(r"\..*\.[0-9a-f]{16}\.partial")
DAY = 86_400  # seconds
TRIES = 100  # a millisecond each
PROBE = bytes(1 << 16)  # what a disk must take to count as one that can be written
FULL = (errno.ENOSPC, errno.EDQUOT)
WAYS_OUT = {  # of what a system refuses to write
    **dict.fromkeys(FULL, "free space there, or choose another place"),
    errno.EFBIG: "no file may grow so large there (ulimit -f): raise the limit, or choose another place",
    errno.EROFS: "choose a place that can be written",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions, or choose another place"),
}


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary file of the same name to write to, which becomes ``path`` when the block ends; after an
    exception (a full disk, Ctrl-C) it is removed, and ``path`` is as it was.

    A file that is there lends its mode and, where the system allows, its owner; of a symbolic link the file
    that it names is replaced. Nothing can be put in place of a pipe, a device or ``/dev/stdout``
    (:func:`is_stream`): these are given as they are. OSErrors name ``path``.
    """
    path = Path(path)
    if is_stream(path):
        with _named(path):
            yield path
        return
    target = Path(os.path.realpath(path))
    with _named(path), workplace(target) as place:
        temporary = place / "new" / target.name
        temporary.parent.mkdir()
        temporary.touch(exist_ok=False)
        there = target.exists()
        model = (target if there else temporary).stat()
        yield temporary
        if there and hasattr(os, "chown"):
            with suppress(OSError):
                os.chown(temporary, model.st_uid, model.st_gid)
        temporary.chmod(stat.S_IMODE(model.st_mode))  # safetensors lets only the owner read what it writes
        flush(temporary)
        os.replace(temporary, target)


@contextmanager
def atomic_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """As :func:`atomic_file`, for a folder to fill; without ``replace`` FileExistsError where one stands.
    Where the system cannot :func:`exchange` two folders, a kill between the two renames that replace one by
    another leaves neither in its place: :func:`tidy` puts the new one there."""
    target = Path(os.path.realpath(path))
    with _named(Path(path)), workplace(target) as place:
        temporary, old = place / "new" / target.name, place / "old" / target.name
        temporary.mkdir(parents=True)
        if target.is_dir():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        yield temporary
        for file in (path for path in temporary.rglob("*") if path.is_file()):
            file.chmod(temporary.stat().st_mode & 0o666)
            flush(file)
        there = target.exists()
        if there and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if there and exchange(temporary, target):
            return  # what stood there goes with the workplace
        old.parent.mkdir()
        try:
            if there:
                target.rename(old)
            temporary.rename(target)
        except BaseException:
            if old.exists() and not target.exists():
                old.rename(target)
            raise


def exchange(one: Path, other: Path) -> bool:
    """Let two paths change names in one step, where the system can; False where it cannot: renameat2(2) of
    Linux and renamex_np(2) of macOS, on most of their file systems."""
    if sys.platform not in ("linux", "darwin"):
        return False
    libc, names = ctypes.CDLL(None), (os.fsencode(one.absolute()), os.fsencode(other.absolute()))
    if sys.platform == "darwin":
        return hasattr(libc, "renamex_np") and libc.renamex_np(*names, 2) == 0  # RENAME_SWAP
    # The folders at the front count for relative paths alone; RENAME_EXCHANGE.
    return hasattr(libc, "renameat2") and libc.renameat2(-100, names[0], -100, names[1], 2) == 0


def write_json(path: Path, value: object) -> None:
    """``value`` as readable JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def flush(file: Path) -> None:
    """Wait until a file's bytes are on the disk: some file systems report that they are full only then."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def is_stream(path: Path) -> bool:
    """Whether what is written to ``path`` goes on from there, or behind what others wrote: a pipe, a device,
    or :func:`open_number`."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return open_number(path) is not None or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def open_number(path: Path) -> int | None:
    """The number of a file that is open in this process, named as ``/dev/stdout`` or ``/dev/fd/3``. Opened
    anew by that name, it would be written over from its beginning."""
    if str(path) in (names := ("/dev/stdin", "/dev/stdout", "/dev/stderr")):
        return names.index(str(path))
    ours = os.path.realpath(path.parent) in ("/dev/fd", f"/proc/{os.getpid()}/fd")
    return int(path.name) if ours and path.name.isdecimal() else None


def require_writable(path: Path, option: str, size: int = 0) -> None:
    """InputError where ``path``, a file or a folder that ``option`` names and that need not be there yet,
    cannot be written or has no room for ``size`` bytes: a try, before any work goes into what could not be
    kept."""
    if is_stream(path):  # a pipe's writer waits for its reader
        return
    place = Path(os.path.realpath(path))
    inside = place / "x" if place.is_dir() else place
    while not inside.parent.exists():
        inside = inside.parent
    try:
        if not inside.parent.is_dir():
            raise OSError(errno.ENOTDIR, f"{inside.parent} is no folder")
        with workplace(inside) as probe:
            (probe / "probe").write_bytes(PROBE)
            flush(probe / "probe")
        if (free := shutil.disk_usage(inside.parent).free) < size:
            raise OSError(errno.ENOSPC, f"{size / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free")
    except OSError as error:
        why = f"{error.strerror}; {WAYS_OUT.get(error.errno, 'choose another place')}"
        raise InputError(f"{option} {path} cannot be written: {why}") from None


# --- where it is written meanwhile ---


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that is this process's alone, removed at the end. What killed processes left
    beside it is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path.parent)
    place = path.with_name(f".{path.name[:40]}.{os.urandom(8).hex()}.partial")
    lock = None
    try:
        with _making(path.parent):
            place.mkdir(mode=0o700)
            lock = os.open(place / "lock", os.O_CREAT | os.O_EXCL | os.O_RDWR)
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
            os.write(lock, _machine())
        yield place
    finally:
        _clear(place)
        if lock is not None:
            os.close(lock)


def tidy(folder: Path) -> None:
    """Remove from ``folder`` what processes left there that were killed while they wrote. Where one died
    between the two renames of a folder, the new one, which was complete, takes its place."""
    with suppress(OSError):
        seen = [entry for entry in os.scandir(folder) if PARTIAL.fullmatch(entry.name)]
        all_made = bool(seen) and _none_is_making(folder)
        for entry in seen:
            if entry.is_dir(follow_symlinks=False):
                _clear_if_abandoned(Path(entry), all_made)


@contextmanager
def _making(folder: Path) -> Iterator[None]:
    """Say to :func:`tidy`, by a lock on the folder, that what lies in it without a lock is being made."""
    opened = None
    with suppress(OSError):  # a folder that may not be read, or a system without such locks
        opened = os.open(folder, os.O_RDONLY)
        for _ in range(TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            time.sleep(0.001)  # another is just looking; never to wait long for one that was stopped
    try:
        yield
    finally:
        if opened is not None:
            os.close(opened)


def _none_is_making(folder: Path) -> bool:
    """Whether for sure no process was making a workplace in ``folder`` at this instant."""
    if fcntl is None:
        return False
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(opened)
    return True


def _clear_if_abandoned(place: Path, is_made: bool) -> None:
    """``is_made`` says that its maker either has its lock by now or is dead."""
    if hasattr(os, "getuid") and place.stat().st_uid != os.getuid():
        return
    old = time.time() - max(x.lstat().st_mtime for x in (place, *place.rglob("*"))) > DAY
    lock = None
    try:
        lock = os.open(place / "lock", os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A network's file system may keep locks to one machine: of another's, only what is old.
            said = os.read(lock, 100)
            old = old or said == _machine() or (is_made and not said)
        if old:
            _clear(place)
    except FileNotFoundError:  # it is being made, or its maker was killed at once
        if old or is_made:
            _clear(place)
    except OSError:  # its writer lives, or nobody can say
        pass
    finally:
        if lock is not None:
            os.close(lock)


def _clear(place: Path) -> None:
    with suppress(OSError):
        for old in place.glob("old/*"):
            new, target = place / "new" / old.name, place.parent / old.name
            if not os.path.lexists(target):
                (new if new.exists() else old).rename(target)
    for part in (place / "new", place / "old", place):  # the lock goes last
        shutil.rmtree(part, ignore_errors=True)


def _machine() -> bytes:
    """What the processes of one machine since its start have in common, in all of its containers."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    return b"this machine"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of writing say what was written: some name nothing, or a temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is None and error.filename is None:  # numpy's words for a short write
            raise OSError(errno.ENOSPC, str(error), str(path)) from error
        unnamed = error.filename is None and error.errno in WAYS_OUT
        if unnamed or ".partial" in str(error.filename):
            error.filename, error.filename2 = str(path), None
        raise
