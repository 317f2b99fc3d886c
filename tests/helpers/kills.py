"""Processes killed at each point where they touch the disk."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.fault_commands import changed_path


def killed_at_each_write(act: Callable[[], object], under: Path, every: int = 1) -> Iterator[int]:
    """In a process of its own, ``act`` until just before its first write under a folder; yield; again until
    the second, or so many after it as ``every`` says; and so on, until it comes to its end. Between two, the
    caller sets the scene again."""
    n = 1
    while _killed(act, under, n):
        yield n
        n += every


def _killed(act: Callable[[], object], under: Path, n: int) -> bool:
    """Whether ``act`` came as far as its write number ``n``, and died there as by SIGKILL."""
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), code
        return code == 9
    left = n

    def watch(event: str, arguments: tuple) -> None:
        nonlocal left
        if _is_write(event, arguments, under):
            left -= 1
            if not left:
                os._exit(9)

    try:
        sys.addaudithook(watch)
        act()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _is_write(event: str, arguments: tuple, under: Path) -> bool:
    """Whether something below a folder is about to change on the disk."""
    path = changed_path(event, arguments)
    if not path:
        return path is not None
    if not os.path.abspath(path).startswith(f"{under}{os.sep}"):
        return False
    return event == "open" or os.path.lexists(path) == (event != "os.mkdir")
