"""Signals that end a program: SIGTERM (a supervisor's) and SIGHUP (a terminal that closes) are obeyed as
Ctrl-C is, by an exception, so that everything cleans up behind itself.

Without a handler they would kill at once, or, of the first process of a container, do nothing at all.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from gptcls.common.console import speaks

ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}  # what is said of each
if hasattr(signal, "SIGHUP"):  # not on Windows
    ENDING[signal.SIGHUP] = "hung up"
ECHO_SECONDS = 10  # in which one that comes again is the same one: of a shell and the terminal, of torchrun
_came_at = -ECHO_SECONDS  # the last SIGTERM or SIGHUP


class Interrupted(KeyboardInterrupt):
    """What ends the program: Ctrl-C, or the signal ``signum``."""

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__(signum)
        self.signum = signum


def install(handler: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Let ``handler`` answer the signals of :data:`ENDING`, and return what did so far, for :func:`restore`.
    A signal that is ignored stays so (``nohup`` ignores SIGHUP). {} outside of the main thread, where Python
    allows no handler."""
    global _came_at
    _came_at = -ECHO_SECONDS

    def answer(signum: int, frame: FrameType | None) -> None:
        if not _echo(signum):
            if signum != signal.SIGINT:
                _leave_dead_terminal()
            handler(signum, frame)

    previous = {}
    with suppress(ValueError):
        for signum in ENDING:
            if signum == signal.SIGINT or signal.getsignal(signum) is not signal.SIG_IGN:
                previous[signum] = signal.signal(signum, answer)
    return previous


def restore(previous: dict[int, Any]) -> None:
    """Undo :func:`install`."""
    for signum, handler in previous.items():
        signal.signal(signum, handler)


@contextmanager
def obeyed() -> Iterator[None]:
    """In the block a signal raises :class:`Interrupted`."""
    previous = install(_interrupt)
    try:
        yield
    finally:
        restore(previous)


def exit_at_once() -> dict[int, Any]:
    """As long as nothing has begun that would need cleaning up, such as while modules are imported, a signal
    ends the process with its line and its status. Returns what :func:`restore` needs."""
    return install(_exit)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)


def _exit(signum: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, f"{ENDING[signum]}\n".encode() if speaks() else b"")
    os._exit(128 + signum)


def _echo(signum: int) -> bool:
    """Whether a signal repeats the last one. Ctrl-C never does: people press it twice to stop at once."""
    global _came_at
    if signum == signal.SIGINT:
        return False
    last, _came_at = _came_at, time.monotonic()
    return _came_at - last < ECHO_SECONDS


def _leave_dead_terminal() -> None:
    """What is written to a terminal that closed goes nowhere, instead of failing while things are saved."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            number = stream.fileno()
            try:
                os.write(number, b"")
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
