"""Named faults of runs: killed, stopped, started twice, resumed on other data."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.fault_commands import Running, Trap, cold, start_cold, warm
from benchmarks.fault_kills import RECIPES, Place, Recipe, blank_pictures, files_below
from benchmarks.fault_list import fault, refused, require, stopped, succeeded

FOLDER, SIGNALS, LOCKS, RESUME = "run's folder", "signals", "locks", "resume"
TRAIN, CACHED, PRETRAIN = RECIPES[0], RECIPES[1], RECIPES[3]
TEMPORARY = (".partial", ".previous")
PAUSE = 0.02


def _survived(place: Place, traps: list[Trap], recipe: Recipe = TRAIN) -> None:
    for trap in traps:
        reason = place.kills.survives(recipe, trap)
        where = f"{trap.event or 'change'} {trap.at} of {trap.path or 'the disk'}"
        require(not reason, f"killed before {where}: {reason}")


@fault(FOLDER, "killed before its first checkpoint")
def before_the_first_checkpoint(place: Place) -> None:
    _survived(place, [Trap(0, path="/run/.checkpoint"), Trap(0, path="/run/checkpoint")])


@fault(FOLDER, "killed while split/ and config.json are written")
def while_it_begins(place: Place) -> None:
    _survived(place, [Trap(at, path=path) for path in ("split", "config") for at in (0, 1, 2, 5)])


@fault(FOLDER, "killed while it is scored, the classifier there and the metrics not")
def while_it_is_scored(place: Place) -> None:
    _survived(place, [Trap(0, path=path) for path in ("metrics", "predictions", ".png", "mistakes")])


@fault(FOLDER, "killed while the finished run deletes its checkpoint")
def while_it_deletes_the_checkpoint(place: Place) -> None:
    reference = place.kills.reference(TRAIN)
    _survived(place, [Trap(reference.changes - back) for back in (1, 2, 3, 4)])


@fault(FOLDER, "killed between the two renames of a folder")
def between_two_renames(place: Place) -> None:
    checkpoints = [Trap(at, path="checkpoint", event="os.rename") for at in (1, 2, 3, 4)]
    exchanges = [Trap(at, event="ctypes.dlsym") for at in (0, 1)]
    classifiers = [Trap(at, path="classifier", event="os.rename") for at in (0, 1, 2)]
    _survived(place, checkpoints + classifiers + exchanges)


@fault(FOLDER, "a pretraining run killed at eight of its changes of the disk")
def pretraining_too(place: Place) -> None:
    changes = place.kills.reference(PRETRAIN).changes
    _survived(place, [Trap((2 * i + 1) * changes // 16) for i in range(8)], PRETRAIN)


@fault(FOLDER, "no checkpoint at the end of an epoch")
def a_checkpoint_an_epoch(place: Place) -> None:
    folder = place.fresh()
    arguments = ["--data", place.rows, "--model", place.base, "--epochs", 100_000, "--out", "run"]
    running = Running("train", arguments, folder, None, blank_pictures)
    checkpoint = folder / "run" / "checkpoint" / "progress.json"
    # Less than a minute, after which there is one anyway; not each of epochs of milliseconds has one.
    _wait_for(lambda: checkpoint.exists() or running.code is not None, 45)
    written = checkpoint.exists()
    running.send(signal.SIGKILL)
    done = running.wait()
    require(written, f"none after 45 s of epochs of milliseconds: {done.last}")
    running = Running("train", [*arguments, "--resume"], folder, None, blank_pictures)
    running.says("epoch")
    said = running.text()
    running.send(signal.SIGKILL)
    running.wait()
    require("epoch 1 of" not in said, f"--resume began with the first epoch: {said[-200:]}")


# --- signals ---


@fault(SIGNALS, "SIGTERM and SIGHUP while a run loads, computes features, trains, scores")
def signals_in_training(place: Place) -> None:
    reference = place.kills.reference(CACHED)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        for at, path in ((0, "run"), (0, ".bin"), (0, "checkpoint"), (0, "metrics"), (0, ".png")):
            folder, what = place.fresh(), f"{signal.Signals(signum).name} before {path!r}:"
            done = place.kills.command(CACHED, folder, Trap(at, signum, path=path)).wait()
            stopped(done, signum, what)
            left = [file.name for file in files_below(folder) if any(mark in file.name for mark in TEMPORARY)]
            require(not left, f"{what} {left[:1]} is left")
            _, reasons, _ = place.kills.finish(CACHED, folder, done)
            require(not reasons, f"{what} {'; '.join(reasons)}")
            shutil.rmtree(folder)
    require(reference.changes, "nothing was written")


@fault(SIGNALS, "SIGTERM and SIGHUP in classify, pseudo_label and ablations")
def signals_in_other_verbs(place: Place) -> None:
    model = place.classifier
    confident = {"classify": [], "pseudo_label": ["--confidence", 0.01]}
    for verb, more in confident.items():
        for signum in (signal.SIGTERM, signal.SIGHUP):
            folder, what = place.fresh(), f"{verb}, {signal.Signals(signum).name}:"
            arguments = ["--model", model, "--data", place.texts, "--out", "out.csv", *more]
            stopped(warm(verb, arguments, folder, Trap(1, signum)), signum, what)
            left = [file.name for file in files_below(folder)]
            require(not left, f"{what} {left} is left")
    folder = place.fresh()
    arguments = ["--model", place.base, "--data", place.rows, "--rows", 1, 2, 3, "--out", "out"]
    process = start_cold("benchmarks.ablations", arguments, folder)
    _wait_for(lambda: (folder / "out" / "results.csv").exists() or process.poll() is not None, 120)
    process.terminate()
    err = process.communicate(timeout=60)[1].decode()
    require("Traceback" not in err, f"ablations: a traceback: {err.strip()[-100:]}")
    ended = process.returncode in (143, -15) and err.strip()
    require(ended, f"ablations: exit {process.returncode}: {err[-100:]}")
    left = [file.name for file in files_below(folder) if any(mark in file.name for mark in TEMPORARY)]
    require(not left, f"ablations: {left} is left")


@fault(SIGNALS, "SIGTERM to a run that is process 1 of a container")
def process_one(place: Place) -> None:
    if subprocess.run(["unshare", "-r", "-p", "-f", "true"], capture_output=True).returncode:
        return  # this machine allows no containers
    folder = place.fresh()
    arguments = ["--data", place.rows, "--model", place.base, "--epochs", 100_000, "--out", "run"]
    wrapper = ["unshare", "-r", "-p", "-f", "--kill-child"]
    process = start_cold("train", arguments, folder, None, None, wrapper, stderr=(folder / "err").open("wb"))
    said = folder / "err"
    _wait_for(lambda: b"epoch 3 of" in said.read_bytes() or process.poll() is not None, 120)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    require(children, f"it did not train: {said.read_text()[-200:]}")
    os.kill(int(children[0]), signal.SIGTERM)
    try:
        code = process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        require(False, "it takes no notice")
    require(code in (143, -15), f"exit {code}: {said.read_text()[-100:]}")
    require("Traceback" not in said.read_text(), "a traceback")


@fault(SIGNALS, "what a killed command left lies about after the next one")
def leftovers_of_a_kill(place: Place) -> None:
    model = place.classifier
    for verb, more in (("classify", []), ("pseudo_label", ["--confidence", 0.01])):
        folder = place.fresh()
        arguments = ["--model", model, "--data", place.texts, "--out", "out.csv", *more]
        require(warm(verb, arguments, folder, Trap(1)).code == 137, f"{verb} was not killed")
        succeeded(warm(verb, arguments, folder), verb)
        left = [file.name for file in files_below(folder) if file.name != "out.csv"]
        require(not left, f"{verb}: {left}")
    for at, path in ((0, ".safetensors"), (1, "cache/")):
        folder = place.fresh()
        done = place.kills.command(CACHED, folder, Trap(at, path=path)).wait()
        require(done.code == 137, f"the run was not killed: {done.last}")
        shutil.rmtree(folder / "run", ignore_errors=True)
        succeeded(place.kills.command(CACHED, folder, None).wait(), "the next run:")
        files = list(files_below(folder / "cache"))
        alone = [f.name for f in files if f.suffix == ".bin" and not f.with_suffix(".safetensors").exists()]
        require(not alone, f"an orphaned file of the cache: {alone}")


@fault(SIGNALS, "a planted link under a temporary name")
def planted_link(place: Place) -> None:
    folder, model = place.fresh(), place.classifier
    victim = folder / "victim"
    victim.write_text("mine")
    arguments = ["--model", model, "--data", place.texts, "--out", "out.csv"]
    succeeded(warm("classify", arguments, folder, None, plant_links, folder, "out.csv"), "classify")
    require(victim.read_text() == "mine", "classify wrote through the link")
    arguments = ["--model", model, "--data", place.rows, "--out", "."]
    done = warm("evaluate", arguments, folder, None, plant_links, folder, "metrics.json")
    require(victim.read_text() == "mine", "evaluate wrote through the link")
    require(not done.uncaught, f"a traceback: {done.last}")


def plant_links(folder: Path, name: str) -> None:
    """In the command: links under the names that could be guessed, made of the process's number."""
    stem, suffix = Path(name).stem, Path(name).suffix
    for middle in (f"{os.getpid()}.partial", "partial"):
        for made in (f".{stem}.{middle}{suffix}", f".{name}.{middle}"):
            (folder / made).unlink(missing_ok=True)
            (folder / made).symlink_to(folder / "victim")


# --- locks ---


@fault(LOCKS, "two runs in one folder")
def two_runs(place: Place) -> None:
    for verb, begins, text in (("train", TRAIN, "train:"), ("pretrain", PRETRAIN, "step 0 of")):
        folder = place.fresh()
        first = place.kills.command(begins, folder, None)
        require(first.says(text), f"{verb}: the first did not begin")
        first.send(signal.SIGSTOP)
        try:
            for resume in (False, True):
                second = place.kills.command(begins, folder, None, resume).wait()
                refused(second, "run", what=f"{verb}, the second{' with --resume' * resume}:")
        finally:
            first.send(signal.SIGCONT)
            done = first.wait()
        _, reasons, _ = place.kills.finish(begins, folder, done)
        require(not reasons, f"{verb}, the first: {'; '.join(reasons)}")


@fault(LOCKS, "two experiments in one folder")
def two_experiments(place: Place) -> None:
    folder = place.fresh()
    arguments = ["--model", place.base, "--data", place.rows, "--rows", 1, 2, "--out", "out"]
    first = start_cold("benchmarks.ablations", arguments, folder)
    try:
        _wait_for(lambda: (folder / "out").exists() or first.poll() is not None, 120)
        first.send_signal(signal.SIGSTOP)
        refused(cold("benchmarks.ablations", arguments, folder), "out", what="the second:")
    finally:
        first.send_signal(signal.SIGCONT)
        err = first.communicate(timeout=240)[1].decode()
    require(first.returncode == 0, f"the first: exit {first.returncode}: {err[-200:]}")


@fault(LOCKS, "two commands that write one file of labels")
def two_files(place: Place) -> None:
    folder = place.fresh()
    arguments = ["--model", place.classifier, "--data", place.texts, "--out", "out.csv"]
    # All is written and has not yet its name.
    first = Running("classify", arguments, folder, Trap(0, signal.SIGSTOP, path="out.csv", event="os.rename"))
    _wait_for(lambda: first.code is not None or _state(first.process.pid) == "T", 60)
    try:
        refused(warm("classify", arguments, folder), "out.csv", what="the second:")
    finally:
        while first.code is None:
            first.send(signal.SIGCONT)
            time.sleep(PAUSE)
        done = first.wait()
    succeeded(done, "the first:")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _wait_for(ready, limit: float) -> None:
    end = time.monotonic() + limit
    while not ready() and time.monotonic() < end:
        time.sleep(PAUSE)


# --- resume ---


@fault(RESUME, "a run resumed on other rows")
def other_rows(place: Place) -> None:
    folder = place.fresh()
    rows = folder / "rows.csv"
    shutil.copy(place.rows, rows)
    arguments = ["--data", "rows.csv", "--model", place.base, "--epochs", 3, "--out", "run"]
    done = warm("train", arguments, folder, Trap(0, signal.SIGKILL, path="metrics"), blank_pictures)
    require(done.code == 137, f"it was not killed: {done.last}")
    rows.write_text(rows.read_text().replace("win a prize", "win a price"))
    refused(warm("train", [*arguments, "--resume"], folder, None, blank_pictures), "rows.csv")


@fault(RESUME, "a pretraining run resumed on other texts of as many tokens")
def other_texts(place: Place) -> None:
    folder = place.fresh()
    texts = folder / "texts.csv"
    shutil.copy(place.texts, texts)
    arguments = ["--data", "texts.csv", "--model", place.base, "--steps", 30, "--window", 16]
    arguments += ["--batch-size", 2, "--eval-freq", 10, "--candidates", 64, "--out", "run"]
    done = warm("pretrain", arguments, folder, Trap(0, signal.SIGKILL, path="metrics"))
    require(done.code == 137, f"it was not killed: {done.last}")
    texts.write_text(texts.read_text().replace("see you at home", "see him at home"))
    refused(warm("pretrain", [*arguments, "--resume"], folder), "texts.csv")
