"""What people are shown: on terminals of any encoding, on streams that are closed, and with nothing in a
label, a text or a name that would steer the terminal or look like another line."""

import codecs
import os
import re
import sys
from contextlib import suppress
from typing import Any, TextIO

from gptcls.core.errors import InputError

# Control characters, both kinds of line breaks that are none, what reorders a line (Unicode's "Bidi_Control"
# without the marks that Arabic and Hebrew texts need), and halves of characters.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
STAND_INS = {  # of the signs that our own tables and messages have, where a terminal lacks them
    "─": "-", "\N{EN DASH}": "-", "…": "...", "±": "+-", "→": "->",
}  # fmt: skip


class SaidElsewhereError(InputError):
    """What ends this process is said by another one of the same run."""


def speaks() -> bool:
    """Whether this process speaks to the user: of several that ``torchrun`` starts the first one does."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def escaped(text: str, keep: str = "") -> str:
    r"""``text`` without control characters but those in ``keep``: they are written as Python writes them.

    >>> print(escaped("spam\x1b[2J\n"))
    spam\x1b[2J\n
    """

    def shown(found: re.Match[str]) -> str:
        return found[0] if found[0] in keep else found[0].encode("unicode_escape").decode("ascii")

    return CONTROLS.sub(shown, text)


def say(text: str, end: str = "\n", flush: bool = False, keep: str = "\n\t") -> None:
    """Print to standard output, :func:`escaped` but for what is in ``keep``; an OSError says so."""
    try:
        print(escaped(text, keep), end=end, flush=flush)
    except OSError as error:
        error.filename = "standard output"
        raise


def complain(text: str) -> None:
    """One line on standard error, whatever ``text`` holds, if there is one to write to."""
    with suppress(OSError, ValueError):
        print(escaped(" ".join(text.split())), file=sys.stderr, flush=True)


def prepare_streams() -> None:
    """Make standard output and error take all text: a closed one swallows it, and signs that its encoding
    lacks are written in ASCII."""
    for number in range(3):  # else the next file that is opened would become one of them
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error("gptcls", _in_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="gptcls")


def let_go(stream: TextIO) -> None:
    """Whatever is still to be written to ``stream`` goes nowhere: else Python complains of it as it exits."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_writable(stream: TextIO) -> bool:
    """Whether ``stream`` takes what was printed to it so far."""
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _in_ascii(error: Any) -> tuple[str, int]:
    lacking = error.object[error.start : error.end]
    shown = (STAND_INS.get(sign) or sign.encode("unicode_escape").decode("ascii") for sign in lacking)
    return "".join(shown), error.end
