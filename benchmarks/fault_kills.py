"""Kills of a run at any instant, and whether ``--resume`` brings it to the end that it would have had.

Half of the instants are drawn from the time a run takes; the other half are the moments just before one of
the disk's changes, where all windows lie that a clock hardly hits. A third of the runs are killed again while
they resume. Survived: the run ends with every byte of the undisturbed one's results, and nothing lies about.
"""

import csv
import hashlib
import json
import random
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.fault_commands import Done, Running, Trap, warm

SIGNALS = {signal.SIGKILL: 8, signal.SIGTERM: 1, signal.SIGHUP: 1}  # how often each is sent
AGAIN = 1 / 3  # of the runs are killed a second time, while they resume
TIMES = ("seconds", "seconds_training")  # what differs between two undisturbed runs
HEX = re.compile(r"[0-9a-f]{32}")  # files of a cache have random names
HAM = ("see you at home", "running late sorry", "did you eat", "call me after work")
SPAM = ("win a prize now", "claim your cash", "free entry text win", "urgent account locked")


class Place:
    """A folder with rows, texts and a tiny GPT-2 with random weights, ``base``: what commands run on.

    Runs that are compared with each other share it, since a saved classifier names its base weights' path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows, self.texts, self.base = folder / "rows.csv", folder / "texts.csv", folder / "base"
        lines = [f"{text} {i},{label}" for i in range(6) for label in ("ham", "spam") for text in _of(label)]
        self.rows.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")
        texts = [f"{text}, said {n} of us" for n in range(60) for text in (*HAM, *SPAM)]
        self.texts.write_text("\n".join(["text", *(f'"{text}"' for text in texts)]) + "\n", encoding="utf-8")
        random_gpt2(self.base)

    @cached_property
    def classifier(self) -> Path:
        """The folder of a finished run."""
        arguments = ["--data", self.rows, "--model", self.base, "--epochs", 1, "--out", "trained"]
        done = warm("train", arguments, self.folder, None, blank_pictures)
        if done.code:
            raise RuntimeError(f"the undisturbed run failed: {done.last}")
        return self.folder / "trained"

    @cached_property
    def kills(self) -> "Kills":
        """Kills in it, and the undisturbed runs that they are compared with."""
        return Kills(self)

    def fresh(self) -> Path:
        """An empty folder in it."""
        return Path(tempfile.mkdtemp(dir=self.folder))


def random_gpt2(folder: Path, **sizes: int) -> Path:
    """A GPT-2 with random weights in Hugging Face's format."""
    from dataclasses import asdict

    from safetensors.torch import save_file

    from gptcls.core.gpt2 import GPT2, GPT2Config
    from gptcls.core.weights import GPT2_NAMES

    folder.mkdir(parents=True, exist_ok=True)
    config = GPT2Config(**{"n_layer": 2, "n_embd": 8, "n_head": 2, "n_positions": 32, **sizes})
    torch.manual_seed(0)
    save_file(GPT2_NAMES.to_theirs(GPT2(config).state_dict()), folder / "model.safetensors")
    names = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
    described = {"model_type": "gpt2", **{name: asdict(config)[name] for name in names}}
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def _of(label: str) -> tuple[str, ...]:
    return HAM if label == "ham" else SPAM


@dataclass(frozen=True)
class Recipe:
    """A run that is killed: the verb, and its arguments but for --out."""

    name: str
    verb: str
    arguments: tuple[str, ...]
    result: str  # the folder that a finished run leaves in its own


TRAIN = ("--data", "../rows.csv", "--model", "{base}", "--epochs", "3", "--lr", "0.01")
PRETRAIN = (
    "--data", "../texts.csv", "--model", "{base}", "--steps", "12", "--batch-size", "4", "--window", "16",
    "--eval-freq", "4", "--candidates", "64",
)  # fmt: skip
RECIPES = (
    Recipe("train", "train", TRAIN, "classifier"),
    Recipe("train, with a cache", "train", (*TRAIN, "--cache", "cache"), "classifier"),
    Recipe("train, every block", "train", (*TRAIN, "--train", "all", "--patience", "2"), "classifier"),
    Recipe("pretrain", "pretrain", PRETRAIN, "model"),
    Recipe("pretrain, with a cache", "pretrain", (*PRETRAIN, "--cache", "cache", "--keep", "6"), "model"),
)


@dataclass(frozen=True)
class Outcome:
    """What became of a killed run; ``reason`` is empty where it survived."""

    case: str
    verb: str
    signum: int
    reason: str = ""
    uncaught: int = 0
    hangs: int = 0
    left_behind: int = 0  # bytes


@dataclass(frozen=True)
class Reference:
    """What the undisturbed run left, how long it took and how often it changed the disk."""

    hashes: dict[str, str]  # file -> sha256, "" where two undisturbed runs differ: the options
    seconds: float
    changes: int


class Kills:
    """Numbered kills below ``place``; the same number and seed are the same kill."""

    def __init__(self, place: Place, seed: int = 0) -> None:
        self.place, self.seed = place, seed
        self.references: dict[str, Reference] = {}
        self.locks = {recipe.name: threading.Lock() for recipe in RECIPES}

    def reference(self, recipe: Recipe) -> Reference:
        with self.locks[recipe.name]:
            if recipe.name not in self.references:
                folder = self.place.fresh()
                done = self.command(recipe, folder, Trap()).wait()
                if done.code:
                    raise RuntimeError(f"the undisturbed run of {recipe.name} failed: {done.last}")
                self.references[recipe.name] = Reference(results(folder), done.seconds, done.changes)
                shutil.rmtree(folder)
            return self.references[recipe.name]

    def kill(self, number: int, keep: bool = False) -> Outcome:
        """Kill the run of that number, resume it, and compare; ``keep`` leaves its folder where it failed."""
        rng = random.Random(f"{self.seed}/kill/{number}")
        recipe = rng.choice(RECIPES)
        signum = rng.choices(list(SIGNALS), SIGNALS.values())[0]
        reference, folder = self.reference(recipe), self.place.fresh()
        case, faults, uncaught, hangs = f"kill-{number}", [], 0, 0
        done = None
        for turn in range(1 + (rng.random() < AGAIN)):
            done = self._killed(recipe, folder, reference, signum, rng, turn > 0)
            hangs, uncaught = hangs + (done.code is None), uncaught + done.uncaught
            nothing_yet = done.code == 2 and not (folder / "run").exists()  # to resume
            if signum != signal.SIGKILL and done.code not in (0, 128 + signum) and not nothing_yet:
                faults.append(f"{signal.Signals(signum).name}: exit {done.code}, {done.last}")
            if done.code == 0:
                break
        done, reasons, left = self.finish(recipe, folder, done)
        hangs, uncaught = hangs + (done.code is None), uncaught + done.uncaught
        faults += reasons
        if faults and keep:
            print(f"{case}: {recipe.name}, {signal.Signals(signum).name}: see {folder}")
            print(done.err)
        else:
            shutil.rmtree(folder)
        reason = f"{recipe.name}: {'; '.join(faults)}" if faults else ""
        return Outcome(case, recipe.verb, signum, reason, uncaught, hangs, left)

    def finish(self, recipe: Recipe, folder: Path, done: Done | None) -> tuple[Done, list[str], int]:
        """Resume what ended as ``done``; the last command, what is wrong with the run's end, and the bytes
        that lie about. A run that had not yet begun may be begun again, one that had finished may say so."""
        resumed, reference = False, self.reference(recipe)
        for resume in (True, False):
            if done is not None and done.code == 0:
                break
            done, resumed = self.command(recipe, folder, None, resume).wait(), resume
            if done.code == 0 or not resume or (folder / "run").exists():
                break
        if done.code and not (resumed and done.code == 2 and "finished" in done.last):
            return done, [f"{'--resume' if resumed else 'again'}: exit {done.code}, {done.last}"], 0
        reasons, found = [], results(folder)
        unlike = [file for file, value in reference.hashes.items() if value and found.get(file) != value]
        unlike += [file for file in reference.hashes if file not in found and file not in unlike]
        if unlike:
            reasons.append(f"{len(unlike)} files are not the undisturbed run's: {unlike[0]}")
        if more := leftovers(folder, reference):
            reasons.append(f"left behind: {more[0].relative_to(folder)}")
        return done, reasons, sum(file.lstat().st_size for file in more)

    def survives(self, recipe: Recipe, trap: Trap) -> str:
        """Why a run that meets ``trap`` does not end as it would have; empty where it does."""
        folder = self.place.fresh()
        done = self.command(recipe, folder, trap).wait()
        _, reasons, _ = self.finish(recipe, folder, done)
        shutil.rmtree(folder)
        return "; ".join(reasons)

    def _killed(
        self, recipe: Recipe, folder: Path, reference: Reference, signum: int, rng: random.Random,
        resume: bool,
    ) -> Done:  # fmt: skip
        """The run, or its continuation, until a signal ends it at a random instant or change of the disk."""
        by_clock, share = rng.random() < 0.5, rng.random()
        if not by_clock:
            trap = Trap(int(share * reference.changes), signum)
            return self.command(recipe, folder, trap, resume).wait()
        running = self.command(recipe, folder, None, resume)
        end = time.perf_counter() + share * reference.seconds
        while time.perf_counter() < end and running.code is None:
            time.sleep(0.002)
        running.send(signum)
        return running.wait()

    def command(self, recipe: Recipe, folder: Path, trap: Trap | None, resume: bool = False) -> Running:
        arguments = [argument.format(base=self.place.base) for argument in recipe.arguments]
        arguments += ["--out", "run", *(["--resume"] if resume else [])]
        return Running(recipe.verb, arguments, folder, trap, frequent_checkpoints)


def blank_pictures() -> None:
    """In the command: pictures are files of five bytes, since drawing them takes as long as all the rest."""
    from matplotlib.figure import Figure

    Figure.savefig = lambda self, path, **_: Path(path).write_bytes(b"blank")


def frequent_checkpoints() -> None:
    """The same, and a checkpoint twenty times a second, so that a run of a second has as many as one of an
    hour."""
    from gptcls.train import hooks

    blank_pictures()
    hooks.CHECKPOINT_SECONDS = 0.05


def files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() or path.is_symlink())


def results(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a run's folder and its neighbours, without what the clock says."""
    return {_name(file, folder): _hash(file) for file in files_below(folder)}


def leftovers(folder: Path, reference: Reference) -> list[Path]:
    """The files that no undisturbed run leaves."""
    known = list(reference.hashes)
    return [file for file in files_below(folder) if _name(file, folder) not in known]


def _name(file: Path, folder: Path) -> str:
    return HEX.sub("*", file.relative_to(folder).as_posix())


def _hash(file: Path) -> str:
    content = file.read_bytes()
    if file.name == "metrics.json":
        values = json.loads(content)
        content = json.dumps({k: v for k, v in values.items() if k not in TIMES}, sort_keys=True).encode()
    elif file.name == "history.csv":
        rows = csv.DictReader(content.decode("utf-8").splitlines())
        content = json.dumps([{k: v for k, v in row.items() if k not in TIMES} for row in rows]).encode()
    elif file.name == "classifier.json":
        values = json.loads(content)
        values["training"].pop("resume", None)
        content = json.dumps(values, sort_keys=True).encode()
    elif file.name == "config.json" and file.parent.name == "run":
        return ""  # the options, --resume among them
    return hashlib.sha256(content).hexdigest()
