"""One process at a time: the operating system's advisory locks, which end with the process that holds them,
however it ends."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from gptcls.common.log import log
from gptcls.core.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


class BusyError(InputError):
    """Another process holds the lock."""


@contextmanager
def locked(file: Path, busy: str) -> Iterator[None]:
    """Hold the lock ``file``, which exists no longer than it is held, or until a later holder finds what a
    killed one left. :class:`BusyError`, ``busy``, at once where somebody else holds it. Where the file system
    knows no locks, the log says so and nobody is kept out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with locked(Path(folder, ".lock"), "the first still writes"):
    ...         with locked(Path(folder, ".lock"), "the first still writes"):
    ...             pass
    Traceback (most recent call last):
        ...
    gptcls.common.lock.BusyError: the first still writes
    """
    held = _acquire(file, busy)
    try:
        yield
    finally:
        if fcntl is None:  # Windows removes a file only once nobody has it open
            os.close(held)
        with suppress(OSError):
            file.unlink()
        if fcntl is not None:  # only now: what lies there later is the next one's
            os.close(held)


def locked_output(file: Path) -> AbstractContextManager[None]:
    """The lock beside an output file, whichever links lead to it; none of what is no file, such as a pipe."""
    file = Path(os.path.realpath(file))
    if file.exists() and not file.is_file():
        return nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    way_out = "wait until it ends, or choose another file"
    return locked(file.with_name(f".{file.name}.lock"), f"{file} is in use by another process; {way_out}")


def _acquire(file: Path, busy: str) -> int:
    while True:
        # Not through a link that somebody may have planted.
        held = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                msvcrt.locking(held, msvcrt.LK_NBLCK, 1)
        except (BlockingIOError, PermissionError):
            os.close(held)
            raise BusyError(busy) from None
        except OSError as error:
            log.info(f"{file.parent}: no locks here ({error.strerror}); let no other process write to it")
            return held
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held), os.stat(file)):
                return held
        os.close(held)  # its last holder removed it meanwhile: a lock on a file that nobody else finds
