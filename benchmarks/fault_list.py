"""The faults that have names: what was met once, and must not be met again."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.fault_commands import Done
from benchmarks.fault_kills import Place

SUBJECTS = (
    "run's folder", "signals", "locks", "memory", "resume", "labels", "consoles", "damaged files", "disk",
    "hub",
)  # fmt: skip
FAULTS: list["Fault"] = []  # in the order of SUBJECTS


class FailedError(Exception):
    """The fault is there; the message says how it showed."""


@dataclass(frozen=True)
class Fault:
    """One fault: what it is about, its name, and the function that brings it about and raises FailedError."""

    about: str
    name: str
    bring_about: Callable[[Place], None]


def fault(about: str, name: str) -> Callable[[Callable[[Place], None]], Callable[[Place], None]]:
    """Enter a function into the list."""

    def enter(function: Callable[[Place], None]) -> Callable[[Place], None]:
        FAULTS.append(Fault(about, name, function))
        FAULTS.sort(key=lambda each: SUBJECTS.index(each.about))
        return function

    return enter


def require(holds: object, reason: str) -> None:
    """FailedError with the reason unless it holds."""
    if not holds:
        raise FailedError(reason)


def succeeded(done: Done, what: str = "") -> None:
    """The command ended well."""
    require(not done.uncaught, f"{what} a traceback: {done.last}")
    require(done.code == 0, f"{what} exit {done.code}: {done.last}")


def refused(done: Done, *words: str, what: str = "") -> None:
    """The command ended with 2 and one line that has these words, any of those that a ``|`` separates."""
    require(done.code is not None, f"{what} it hangs")
    require(not done.uncaught, f"{what} a traceback: {done.last}")
    require(done.code == 2, f"{what} exit {done.code}: {done.last}")
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    one = len(errors) == 1 and done.last == errors[0][:300]
    require(one, f"{what} {len(errors)} error lines: {done.last}")
    for word in words:
        found = any(each in errors[0] for each in word.split("|"))
        require(found, f"{what} the line does not say {word!r}: {errors[0][:160]}")


def stopped(done: Done, signum: int, what: str = "") -> None:
    """A signal ended the command in good order."""
    require(done.code is not None, f"{what} it hangs")
    require(not done.uncaught, f"{what} a traceback: {done.last}")
    require(done.code == 128 + signum, f"{what} exit {done.code} instead of {128 + signum}: {done.last}")
    require(done.err.strip(), f"{what} without a line")
