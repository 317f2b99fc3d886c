"""Writing files so that a reader sees the old content or the new, never half of it."""

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary sibling to write to, which becomes ``path`` when the block ends; after an exception (a full
    disk, Ctrl-C) it is removed, and ``path`` is as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, since writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # safetensors lets only the owner read what it writes
        flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, replace: bool = True) -> Iterator[Path]:
    """As :func:`atomic_file`, for a folder to fill; without ``replace`` FileExistsError where one stands."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, previous = (path.with_name(f".{path.name}.{os.getpid()}.{x}") for x in ("partial", "previous"))
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed and had the same number
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            file.chmod(temporary.stat().st_mode & 0o666)
            flush(file)
        replaces = path.exists()
        if replaces and not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if replaces and exchange(temporary, path):
            return  # what stood there has the temporary name
        if replaces:
            path.rename(previous)
        try:
            temporary.rename(path)
        except BaseException:
            if replaces:
                previous.rename(path)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
