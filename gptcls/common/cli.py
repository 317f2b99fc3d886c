"""What every verb shares: options from a dataclass, the log on stderr, one line per error; and ``gptcls``."""

import contextlib
import difflib
import importlib
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptcls.core.errors import InputError

VERBS = {  # name: its module, and what it does
    "train": ("gptcls.train.__main__", "fine-tune a pretrained network on labelled texts"),
    "classify": ("gptcls.classify.__main__", "label texts, lines of standard input, or a file of any size"),
    "evaluate": ("gptcls.evaluate", "score a trained classifier on labelled data"),
    "pretrain": ("gptcls.pretrain.__main__", "train a GPT-2 to predict the next token of plain text"),
    "generate": ("gptcls.generate", "continue a text"),
    "pseudo-label": ("gptcls.pseudo_label", "label texts, and keep those that the classifier is sure of"),
}


def main() -> None:
    """``gptcls VERB …``: the same as ``python -m gptcls.VERB …``. Only that verb is imported."""
    verb, *rest = sys.argv[1:] or ["--help"]
    verb = verb.replace("pseudo_label", "pseudo-label")
    if verb in VERBS:
        sys.argv = [f"gptcls {verb}", *rest]
        importlib.import_module(VERBS[verb][0]).main()
    elif verb in ("-h", "--help"):
        print("usage: gptcls VERB [OPTIONS]\n       gptcls VERB --help | gptcls --version\n")
        print("\n".join(f"  {name:<13} {what}" for name, (_, what) in VERBS.items()))
    elif verb == "--version":
        print("gptcls", sys.modules["gptcls"].__version__)
    else:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"verbs are {', '.join(VERBS)}"
        print(f"error: gptcls has no verb {verb!r}; {hint}", file=sys.stderr)
        sys.exit(2)


def run(config_class: type, function: Callable[[Any], Any]) -> None:
    """Parse ``sys.argv`` into ``config_class`` and call ``function`` with it. Exits with 2 for a mistake in
    what was given or a file that cannot be used, named in one line on stderr, and with 130 after Ctrl-C."""
    logger = logging.getLogger("gptcls")
    try:
        config = _parse(config_class)
        if not logger.handlers:
            logger.addHandler(logging.StreamHandler(sys.stderr))  # the message alone, without a formatter
            logger.setLevel(logging.INFO)
            logger.propagate = False
        function(config)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads our output may have enough of it, as in … | head
        sys.stderr.close()  # else Python reports the pipe once more while it exits
        sys.exit(0)
    except (InputError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _parse(config_class: type) -> Any:
    import tyro

    prog = sys.argv[0]
    if not prog.startswith("gptcls "):  # not started by :func:`main`, but as a module
        script = Path(prog).parent if Path(prog).stem == "__main__" else Path(prog)
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
    if lines[1:] and not lines[1].strip("─-"):  # where the terminal cannot show a box: a title, underlined
        lines = lines[2:]
    lines = [line for line in lines if not line.startswith(("╭", "╰"))]
    ends = (i for i, line in enumerate(lines) if not line.strip("─-"))
    message = " ".join(lines[: next(ends, len(lines))]).rstrip(".")
    if message.startswith("Missing from"):  # and the option's whole help
        return f"{message[message.index('--') :].split()[0]} is missing"
    if "Perhaps you meant:" in lines:
        message += f"; did you mean {lines[lines.index('Perhaps you meant:') + 1]}?"
    return message


def given_options() -> frozenset[str]:
    """The options that the user wrote on the command line, by name."""
    flags = (argument.partition("=")[0] for argument in sys.argv[1:] if argument.startswith("--"))
    return frozenset(flag.removeprefix("--").replace("-", "_") for flag in flags)
