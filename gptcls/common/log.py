"""The one log of the package, silent below warnings unless a program asks for it, as the verbs do."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("gptcls")


@contextmanager
def unlogged() -> Iterator[None]:
    """Nothing below a warning is logged inside: for what is tried out and changes nothing."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
