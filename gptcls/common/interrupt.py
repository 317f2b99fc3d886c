"""Ctrl-C that never cuts a training step in half."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("gptcls")


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """A function that turns true after Ctrl-C (SIGINT) or SIGTERM; the caller asks it between steps.

    A second signal raises KeyboardInterrupt at once. Outside the main thread Python allows no signal
    handlers: there Ctrl-C keeps its usual meaning.
    """
    requested = False

    def request(signum: int, frame: object) -> None:
        nonlocal requested
        if requested:
            raise KeyboardInterrupt
        requested = True
        log.info("stopping after this step; once more to stop at once")

    previous = {}
    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            previous[signum] = signal.signal(signum, request)
    except ValueError:
        pass
    try:
        yield lambda: requested
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
