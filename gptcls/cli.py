"""What every command shares: options from a dataclass, log lines on stderr, one line an error."""

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from gptcls.errors import InputError

Config = TypeVar("Config")


def run(config_class: type[Config], function: Callable[[Config], Any]) -> None:
    """Parse ``sys.argv`` into ``config_class``, call ``function`` with it, and exit.

    Exit status: 0 when the function returns, 2 for a mistake in what was given or for a file that cannot
    be read or written (one line on stderr), 130 after Ctrl-C.
    """
    config = tyro.cli(config_class)
    logger = logging.getLogger("gptcls")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        function(config)
    except BrokenPipeError:  # whoever read our output has enough, as in "… | head"
        sys.stderr.close()
        sys.exit(0)
    except (InputError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
