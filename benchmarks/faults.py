"""python -m benchmarks.faults: what gptcls survives, brought about on purpose.

Four parts: runs that are killed at any instant and resumed (:mod:`benchmarks.fault_kills`), damaged files of
every kind (:mod:`benchmarks.fault_fuzz`), and the named faults of runs and of files
(:mod:`benchmarks.fault_runs`, :mod:`benchmarks.fault_files`). Everything is drawn from --seed, so that a case
can be had again by the name that the table gives it.
"""

import logging
import math
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from benchmarks import fault_files, fault_runs  # noqa: F401  they enter their faults into the list
from benchmarks.fault_commands import SCRATCH
from benchmarks.fault_fuzz import Found, fuzz, repeat
from benchmarks.fault_kills import Outcome, Place
from benchmarks.fault_list import FAULTS, FailedError, Fault
from gptcls.common import cli
from gptcls.common.files import write_json
from gptcls.core.errors import InputError

log = logging.getLogger("gptcls")
KINDS = ("kills", "inputs", "named")
SIZES = {  # kills, inputs, and whether all named faults are tried
    "seconds": (2, 60, False),
    "minute": (12, 1_500, False),
    "hour": (1_000, 100_000, True),
}
QUICK = {  # by the name of the function
    "before_the_first_checkpoint", "long_field", "labels_of_several_types", "not_a_number", "formulas",
    "planted_link",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FaultsConfig:
    """Kill runs, damage files, fill disks, and print what was survived.

    Exits with 1 where anything was not.
    """

    size: Literal["seconds", "minute", "hour"] = "minute"
    """How many kills, damaged files and named faults: for a test, for CI, by hand."""
    kills: int | None = None
    """Runs to kill; otherwise as --size says: 2, 12 or 1,000."""
    inputs: int | None = None
    """Damaged inputs to read; otherwise as --size says: 60, 1,500 or 100,000."""
    parts: tuple[Literal["kills", "inputs", "named"], ...] = KINDS
    """Parts of the campaign."""
    named: str | None = None
    """Only the named faults that have this in their name or subject; otherwise six, with --size hour all."""
    seed: int = 0
    """Of every kill and every damage."""
    minutes: float = math.inf
    """Each of kills and inputs ends after so many, with those that were tried by then."""
    jobs: int = os.cpu_count() or 1
    """Processes at once."""
    case: str | None = None
    """One case again, in full: kill-12 or fuzz-345, as the table names them. With the same --seed."""
    out: Path | None = None
    """File for the figures, as JSON."""


@dataclass
class Campaign:
    """What was tried, and how it went."""

    kills: list[Outcome] = field(default_factory=list)
    kills_seconds: float = 0.0
    found: Found | None = None
    named: list[tuple[Fault, str, float]] = field(default_factory=list)  # the reason it failed, seconds

    @property
    def passed(self) -> bool:
        bad = [kill for kill in self.kills if kill.reason] + [reason for _, reason, _ in self.named if reason]
        found = self.found or Found()
        return not (bad or found.uncaught or found.hangs or found.left_behind)


def faults(config: FaultsConfig) -> Campaign:
    """Bring about what ``config`` says; InputError for a case that has no such name."""
    campaign = Campaign()
    kills, inputs, all_named = SIZES[config.size]
    kills = kills if config.kills is None else config.kills
    inputs = inputs if config.inputs is None else config.inputs
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=SCRATCH))
    try:
        place = Place(folder)
        place.kills.seed = config.seed
        if "named" in config.parts:
            chosen = _chosen(config.named, all_named)
            campaign.named = _in_parallel(partial(_tried, place=place), chosen, config.jobs, "named faults")
        if "kills" in config.parts and kills:
            started = time.perf_counter()
            kill = partial(_killed, place=place, end=started + 60 * config.minutes)
            campaign.kills = list(filter(None, _in_parallel(kill, range(kills), config.jobs, "kills")))
            campaign.kills_seconds = time.perf_counter() - started
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if "inputs" in config.parts and inputs:
        campaign.found = fuzz(inputs, config.seed, config.jobs, 60 * config.minutes)
    return campaign


def _chosen(named: str | None, everything: bool) -> list[Fault]:
    if named is not None:
        if found := [each for each in FAULTS if named in f"{each.about}: {each.name}"]:
            return found
        raise InputError(f"--named {named}: no fault has that in its name or subject")
    return [each for each in FAULTS if everything or each.bring_about.__name__ in QUICK]


def _in_parallel(function, over: Iterable, jobs: int, what: str) -> list:
    over = list(over)
    with ThreadPoolExecutor(jobs) as pool:
        return list(tqdm(pool.map(function, over), total=len(over), desc=what, disable=None))


def _killed(number: int, place: Place, end: float) -> Outcome | None:
    if time.perf_counter() > end:
        return None
    outcome = place.kills.kill(number)
    if outcome.reason:
        log.info(f"{outcome.case}: {outcome.reason}")
    elif number % 20 == 0:
        log.info(f"{outcome.case}: survived, as all that say nothing")
    return outcome


def _tried(each: Fault, place: Place) -> tuple[Fault, str, float]:
    started = time.perf_counter()
    try:
        each.bring_about(place)
        reason = ""
    except FailedError as error:
        reason = str(error)
    except Exception as error:  # of the fault's own script: not passed either
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        reason = f"could not be tried: {type(error).__name__}: {error} ({where})"
    seconds = time.perf_counter() - started
    log.info(f"{each.about}: {each.name}: {reason or 'passed'} ({seconds:.0f} s)")
    return each, reason, seconds


def again(config: FaultsConfig) -> None:
    """Print one case in full; its files stay."""
    kind, _, number = config.case.partition("-")
    if kind not in ("kill", "fuzz") or not number.isdigit():
        raise InputError(f"--case {config.case} is no case: take kill-NUMBER or fuzz-NUMBER")
    if kind == "fuzz":
        print(repeat(int(number), config.seed))
        return
    place = Place(Path(tempfile.mkdtemp(prefix="faults-")))
    place.kills.seed = config.seed
    print(place.kills.kill(int(number), keep=True))


def table(campaign: Campaign) -> str:
    """The figures in Markdown, then what failed."""
    lines = ["| | survived | of |", "|---|---:|---:|"]
    by_signal = Counter((kill.verb, kill.signum) for kill in campaign.kills)
    lost = Counter((kill.verb, kill.signum) for kill in campaign.kills if kill.reason)
    for (verb, signum), n in sorted(by_signal.items()):
        name = signal.Signals(signum).name
        lines.append(f"| runs of {verb} ended by {name} and resumed | {n - lost[verb, signum]:,} | {n:,} |")
    found = campaign.found or Found()
    if n := found.read.total():
        lines.append(f"| damaged inputs | {n - len(found.uncaught) - len(found.hangs):,} | {n:,} |")
    passed = sum(not reason for _, reason, _ in campaign.named)
    if campaign.named:
        lines.append(f"| named faults | {passed} | {len(campaign.named)} |")
    uncaught = sum(kill.uncaught for kill in campaign.kills) + len(found.uncaught)
    hangs = sum(kill.hangs for kill in campaign.kills) + len(found.hangs)
    left = sum(kill.left_behind for kill in campaign.kills) + found.left_behind
    lines += ["", "| must be 0 | |", "|---|---:|"]
    bad = {"uncaught exceptions": uncaught, "hangs": hangs, "bytes left behind": left}
    lines += [f"| {what} | {n:,} |" for what, n in bad.items()]
    if campaign.named:
        lines += ["", "| subject | named fault | |", "|---|---|---|"]
        for each, reason, _ in campaign.named:
            lines.append(f"| {each.about} | {each.name} | {'failed' if reason else 'passed'} |")
    if found.read:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(found.read.items()))
        lines += ["", f"{found.read.total() / found.seconds:.0f} inputs a second: {kinds}."]
    if campaign.kills:
        lines.append(f"{campaign.kills_seconds / len(campaign.kills):.1f} s a kill and what follows it.")
    return "\n".join(lines)


def failures(campaign: Campaign) -> str:
    """Each thing that failed, with the name of its first case."""
    lines = [f"{each.about}: {each.name}: {reason}" for each, reason, _ in campaign.named if reason]
    lines += [f"{kill.case}: {kill.reason}" for kill in campaign.kills if kill.reason]
    if (found := campaign.found) is not None:
        first = {(each["error"], each["where"]): each for each in reversed(found.uncaught)}
        for key, n in found.by_place.most_common():
            each = first[key]
            lines.append(f"{each['case']}: {n} times {key[0]} at {key[1]}: {each.get('said', '')}")
        lines += [f"{each['case']}: a hang" for each in found.hangs]
        lines += [f"{each['case']}: {each['kind']} left {each['file']}" for each in found.left]
    return "\n".join(lines)


def figures(campaign: Campaign) -> dict:
    """For --out."""
    found = campaign.found or Found()
    return {
        "kills": len(campaign.kills),
        "kills_survived": sum(not kill.reason for kill in campaign.kills),
        "inputs": found.read.total(), "inputs_by_kind": dict(sorted(found.read.items())),
        "inputs_per_second": round(found.read.total() / found.seconds, 1) if found.seconds else None,
        "uncaught": sum(kill.uncaught for kill in campaign.kills) + len(found.uncaught),
        "hangs": sum(kill.hangs for kill in campaign.kills) + len(found.hangs),
        "bytes_left_behind": sum(kill.left_behind for kill in campaign.kills) + found.left_behind,
        "named": {f"{each.about}: {each.name}": reason or "passed" for each, reason, _ in campaign.named},
        "failures": failures(campaign).splitlines(),
    }  # fmt: skip


def main() -> None:
    cli.run(FaultsConfig, _run)


def _run(config: FaultsConfig) -> None:
    if config.case is not None:
        return again(config)
    campaign = faults(config)
    print(table(campaign))
    if config.out is not None:
        write_json(config.out, figures(campaign))
    if not campaign.passed:
        print(f"\n{failures(campaign)}")
        raise SystemExit(1)
    return None


if __name__ == "__main__":
    main()
