"""What every command shares: options from a dataclass, log lines on stderr, one line an error."""

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import tyro

from gptcls.core.errors import InputError

Config = TypeVar("Config")


def run(config_class: type[Config], function: Callable[[Config], Any]) -> None:
    """Parse ``sys.argv`` into ``config_class``, call ``function`` with it, and exit.

    Exit status: 0 when the function returns, 2 for a mistake in what was given or for a file that cannot
    be read or written (one line on stderr), 130 after Ctrl-C.
    """
    with _closed_pipe_is_no_error():
        config = _parse(config_class)
    logger = logging.getLogger("gptcls")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        with _closed_pipe_is_no_error():
            function(config)
    except (InputError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def _closed_pipe_is_no_error() -> Iterator[None]:
    """Whoever reads our output may have enough of it, as in ``… | head``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()  # else Python reports the pipe once more while it exits
        sys.exit(0)


def _parse(config_class: type[Config]) -> Config:
    script = Path(sys.argv[0])
    if script.stem == "__main__":
        script = script.parent
    prog = f"python -m {script.parent.name}.{script.stem}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            # Options lie in groups; their flags are plain.
            return tyro.cli(config_class, prog=prog, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as exit_:
        if exit_.code:
            print(f"error: {_in_one_line(complaint.getvalue())}; see {prog} --help", file=sys.stderr)
        raise


def _in_one_line(box: str) -> str:
    """The first paragraph of tyro's boxed message, and the option it thinks was meant."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    rules = [i for i, line in enumerate(lines) if not line.strip("─-")]
    if 1 in rules:  # where the terminal cannot show a box: a title, underlined
        lines = lines[2:]
    lines = [line for line in lines if not line.startswith(("╭", "╰"))]
    ends = (i for i, line in enumerate(lines) if not line.strip("─-"))
    message = " ".join(lines[: next(ends, len(lines))]).rstrip(".")
    if "Perhaps you meant:" in lines:
        message += f"; did you mean {lines[lines.index('Perhaps you meant:') + 1]}?"
    return message


def given_options() -> frozenset[str]:
    """The options that the user wrote on the command line, by name."""
    flags = (argument.partition("=")[0] for argument in sys.argv[1:] if argument.startswith("--"))
    return frozenset(flag.removeprefix("--").replace("-", "_") for flag in flags)
