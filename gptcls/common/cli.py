"""What every verb shares: options from a dataclass, the log on stderr, one line per error; and ``gptcls``."""

import contextlib
import difflib
import gc
import importlib
import io
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gptcls.common import memory, signals
from gptcls.common.console import (
    SaidElsewhereError,
    complain,
    escaped,
    is_writable,
    let_go,
    prepare_streams,
    say,
    speaks,
)
from gptcls.common.files import WAYS_OUT
from gptcls.core.errors import InputError

NUMBERS = {int: "a whole number", float: "a number"}
VERBS = {  # name: its module, and what it does
    "train": ("gptcls.train.__main__", "fine-tune a pretrained network on labelled texts"),
    "classify": ("gptcls.classify.__main__", "label texts, lines of standard input, or a file of any size"),
    "explain": ("gptcls.explain", "say what each word of a text adds to the answer"),
    "evaluate": ("gptcls.evaluate", "score a trained classifier on labelled data"),
    "label": ("gptcls.label", "label rows at the terminal, those first that teach most"),
    "audit": ("gptcls.audit", "look for wrong labels, leaks and repeats in labelled data"),
    "search": ("gptcls.search", "search for the settings that score best on validation rows"),
    "compare": ("gptcls.compare", "test which of several runs is better on the same test rows"),
    "export": ("gptcls.export.__main__", "write a classifier for transformers, ONNX Runtime or the hub"),
    "pretrain": ("gptcls.pretrain.__main__", "train a GPT-2 to predict the next token of plain text"),
    "generate": ("gptcls.generate", "continue a text"),
    "serve": ("gptcls.serve.__main__", "a page to try a classifier, and a JSON endpoint for programs"),
    "distill": ("gptcls.distill", "train a small classifier on what a large one answers"),
    "pseudo-label": ("gptcls.pseudo_label", "label texts, and keep those that the classifier is sure of"),
}


class OneLine(logging.Formatter):
    """Each message on a line of its own, :func:`gptcls.common.console.escaped`."""

    def format(self, record: logging.LogRecord) -> str:
        return escaped(super().format(record))


def main() -> None:
    """``gptcls VERB …``: the same as ``python -m gptcls.VERB …``. Only that verb is imported."""
    previous = signals.exit_at_once()
    try:
        _main(*sys.argv[1:] or ["--help"])
    finally:
        signals.restore(previous)
        gc.enable()


def _main(verb: str, *rest: str) -> None:
    prepare_streams()
    verb = verb.replace("pseudo_label", "pseudo-label")
    if verb in VERBS:
        sys.argv = [f"gptcls {verb}", *rest]
        gc.disable()  # what is imported stays: looking through torch for rubbish takes 0.3 s, see run
        importlib.import_module(VERBS[verb][0]).main()
    elif verb in ("-h", "--help", "--help-all"):
        verbs = "\n".join(f"  {name:<13} {what}" for name, (_, what) in VERBS.items())
        _finish(say, f"usage: gptcls VERB [OPTIONS]\n       gptcls VERB --help | gptcls --version\n\n{verbs}")
    elif verb == "--version":
        _finish(say, f"gptcls {sys.modules['gptcls'].__version__}")
    else:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"verbs are {', '.join(VERBS)}"
        complain(f"error: gptcls has no verb {verb!r}; {hint}")
        sys.exit(2)


def run(config_class: type, function: Callable[[Any], Any]) -> None:
    """Parse ``sys.argv`` into ``config_class`` and call ``function`` with it. Exits with 2 for a mistake in
    what was given or a file that cannot be used, named in one line on stderr, and with 130 after Ctrl-C, 143
    after SIGTERM, 129 after SIGHUP."""
    prepare_streams()
    logger = logging.getLogger("gptcls")

    def parse_and_call() -> None:
        with contextlib.nullcontext() if speaks() else _unsaid():
            config = _parse(config_class)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(OneLine())  # the message alone
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        if not gc.isenabled():
            gc.freeze()  # else the first look would be through all of it after all
            gc.enable()
        function(config)

    def explaining_memory() -> None:
        try:
            parse_and_call()
        except Exception as error:
            if memory.ran_out(error):
                raise memory.explained(error, config_class) from None
            raise

    with signals.obeyed():
        _finish(explaining_memory)


def _finish(function: Callable[..., None], *arguments: Any) -> None:
    """Call ``function``; whatever ends it becomes an exit status and at most a line on stderr."""
    try:
        function(*arguments)
        say("", end="", flush=True)
    except BrokenPipeError:  # whoever reads our output may have enough of it, as in … | head
        let_go(sys.stdout)
        sys.exit(0)
    except SaidElsewhereError:
        sys.exit(2)
    except (InputError, OSError) as error:
        said = str(error)
        if isinstance(error, OSError) and error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            way_out = f"; {WAYS_OUT[error.errno]}" if error.errno in WAYS_OUT else ""
            said = f"{where}{error.strerror}{way_out}"
        complain(f"error: {said}")
        sys.exit(2)
    except KeyboardInterrupt as error:
        signum = getattr(error, "signum", signal.SIGINT)
        if speaks():
            complain(signals.ENDING[signum])
        sys.exit(128 + signum)
    finally:
        for stream in (sys.stdout, sys.stderr):
            if not is_writable(stream):
                let_go(stream)


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Nothing of what is printed is seen."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _parse(config_class: type) -> Any:
    import tyro

    from gptcls.common import help

    prog = command()
    asked = {"-h", "--help", "--help-all"}.intersection(itertools.takewhile("--".__ne__, sys.argv[1:]))
    if asked:
        say(help.page(config_class, prog, "--help-all" in asked), flush=True)
        sys.exit(0)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            # Options lie in groups; their flags are plain, and none is there to undo another.
            forms = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
            how = {"prog": prog, "config": forms, "return_unknown_args": True}
            config, unknown = tyro.cli(config_class, **how)
    except SystemExit as exit_:
        options = {flag: option for option in help.options_of(config_class) for flag in option.flags}
        if exit_.code:
            complain(f"error: {_in_one_line(complaint.getvalue(), options)}; see {prog} --help")
        raise
    if unknown:
        flags = [flag for option in help.options_of(config_class) for flag in option.flags]
        complain(f"error: {_unknown(unknown[0], flags)}; see {prog} --help")
        sys.exit(2)
    return config


def command(verb: str = "") -> str:
    """How the verb that runs was started, or another would be in the same way: ``gptcls train``, or
    ``python -m gptcls.train``."""
    started = sys.argv[0]
    if started.startswith("gptcls "):  # by :func:`main`
        return f"gptcls {verb}" if verb else started
    script = Path(started).parent if Path(started).stem == "__main__" else Path(started)
    return f"python -m {f'gptcls.{verb}' if verb else f'{script.parent.name}.{script.stem}'}"


def _unknown(argument: str, flags: list[str]) -> str:
    flag = argument.partition("=")[0]
    if not flag.startswith("-"):
        return f"{argument!r} follows no option that takes it"
    near = difflib.get_close_matches(flag.replace("_", "-"), flags, n=1, cutoff=0.7)
    return f"there is no option {flag}" + (f"; did you mean {near[0]}?" if near else "")


def _in_one_line(box: str, options: dict[str, Any]) -> str:
    """What tyro's boxed message says, in the option's own words: its choices in their order, its values as
    they were typed, since the box breaks long ones."""
    lines = [line.strip("│ ") for line in box.splitlines()]
    if lines[1:] and not lines[1].strip("─-"):  # where the terminal cannot show a box: a title, underlined
        lines = lines[2:]
    lines = [line for line in lines if not line.startswith(("╭", "╰"))]
    ends = (i for i, line in enumerate(lines) if not line.strip("─-"))
    message = " ".join(lines[: next(ends, len(lines))]).rstrip(".")
    flag = next(iter(re.findall(r"--[a-z][a-z-]*", message)), None)
    if message.startswith("Missing from"):  # and the option's whole help
        stray = sys.argv[1] if sys.argv[1:] and not sys.argv[1].startswith("-") else ""
        return f"{flag} is missing" + (f"; did you mean {flag} {stray}?" if stray else "")
    if message.startswith("Missing value"):
        return f"{flag} has no value"
    option = options.get(flag)
    if option is None or not (values := _values_of(option)):
        return message
    if option.choices and (wrong := [value for value in values if value not in option.choices]):
        return f"{flag} {wrong[0]!r} is none of its choices: {', '.join(option.choices)}"
    return f"{flag} {' '.join(values)!r} is not {NUMBERS[option.kind]}" if option.kind in NUMBERS else message


def _values_of(option: Any) -> list[str]:
    """What the user wrote behind an option."""
    values: list[str] = []
    for i, argument in enumerate(sys.argv):
        flag, equals, value = argument.partition("=")
        if flag.replace("_", "-") in option.flags:
            values = [value] if equals else []
            values += itertools.takewhile(lambda each: not each.startswith("--"), sys.argv[i + 1 :])
    return values


def given_options() -> frozenset[str]:
    """The options that the user wrote on the command line, by name."""
    flags = (argument.partition("=")[0] for argument in sys.argv[1:] if argument.startswith("--"))
    return frozenset(flag.removeprefix("--").replace("-", "_") for flag in flags)
