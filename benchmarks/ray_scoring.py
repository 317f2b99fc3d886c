"""python -m benchmarks.ray_scoring: many short rows through ``--engine ray`` and through one process.

The rows are messages with a number added, in several Parquet files. The answers of both engines are compared,
and memory is looked at while the rows go through: of each actor, of the driver, and of Ray's object store.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.over_seeds import markdown
from gptcls.classify.predict import ClassifierOptions
from gptcls.classify.ray_engine import WHERE, RayOptions, labelled_parts
from gptcls.classify.run import ClassifyConfig, classify_file
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.core.errors import InputError
from gptcls.data.sources import load_data

MB = 1e6
PROBABILITY = 1e-5  # that batches of other rows may change


@dataclass(frozen=True, kw_only=True)
class Options(ClassifierOptions):
    """Label rows with actors and without, and compare the answers."""

    model: str = "sms-spam-nano"
    """Classifier."""
    data: str = "sms-sample"
    """Whose texts are repeated."""
    rows: int = 200_000
    """To label."""
    files: int = 8
    """That they are in."""
    actors: tuple[int, ...] = (1, 2)
    """Of each run of Ray."""
    points: int = 5
    """At which memory is looked at."""
    piece: int = RayOptions.piece
    """Rows that an actor labels together."""


def write_rows(texts: list[str], options: Options, folder: Path) -> list[Path]:
    """The files, each message with its number behind it: no two are the same."""
    paths, of_each = [], -(-options.rows // options.files)
    for start in range(0, options.rows, of_each):
        numbers = range(start, min(start + of_each, options.rows))
        paths.append(folder / f"rows-{len(paths):03}.parquet")
        pd.DataFrame({"text": [f"{texts[i % len(texts)]} {i}" for i in numbers]}).to_parquet(paths[-1])
    return paths


def resident(pid: int) -> float:
    """MB that a process holds now, without files that others share; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) * 1024 / MB for line in lines if line.startswith("RssAnon:"))


def stored() -> float:
    """MB in Ray's object store."""
    import ray

    whole, free = (
        f().get("object_store_memory", 0) for f in (ray.cluster_resources, ray.available_resources)
    )
    return (whole - free) / MB


def with_ray(options: Options, actors: int, data: Path, out: Path) -> tuple[list[str], list[list[str]]]:
    """The row of the table, and those of memory."""
    config = ClassifyConfig(model=options.model, device=options.device, precision=options.precision)
    how = RayOptions(actors=actors, piece=options.piece)
    done, pids, points, started, first = 0, [], [], time.perf_counter(), None
    for part in labelled_parts(config, config, data, out, how):
        first = first or (time.perf_counter(), part.rows)
        done += part.rows
        pids += [part.pid] if part.pid not in pids else []
        if done * options.points >= (len(points) + 1) * options.rows:
            held = [f"{resident(pid):,.0f}" for pid in pids]
            points.append([str(actors), f"{done:,}", ", ".join(held), f"{resident(os.getpid()):,.0f}",
                           f"{stored():,.1f}"])  # fmt: skip
        last = time.perf_counter()
    rate = (done - first[1]) / (last - first[0])
    seconds = time.perf_counter() - started
    return [
        "ray",
        str(actors),
        f"{done:,}",
        f"{seconds:,.0f}",
        f"{done / seconds:,.0f}",
        f"{rate:,.0f}",
    ], points


def in_one_process(options: Options, data: list[Path], out: Path) -> list[str]:
    """File by file in this process."""
    started = time.perf_counter()
    classifier = options.load()
    loaded = time.perf_counter()
    out.mkdir()
    done = sum(classify_file(classifier, path, out / path.name) for path in data)
    end = time.perf_counter()
    cells = f"{end - started:,.0f}", f"{done / (end - started):,.0f}", f"{done / (end - loaded):,.0f}"
    return ["local", "-", f"{done:,}", *cells]


def answers(folder: Path) -> pd.DataFrame:
    """All parts, in the order of their names."""
    return pd.concat(map(pd.read_parquet, sorted(folder.glob("*.parquet"))), ignore_index=True)


def compare(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """InputError where rows, their order or labels differ, or a probability by more than PROBABILITY."""
    same = found.drop(columns=[*WHERE])
    try:
        pd.testing.assert_frame_equal(same, expected, check_dtype=False, atol=PROBABILITY, rtol=0)
    except AssertionError as error:
        raise InputError(f"the answers differ: {' '.join(str(error).split())}") from None


def main() -> None:
    """Parse, measure, print."""
    cli.run(Options, measure)


def measure(options: Options) -> None:
    """Both engines on the same rows."""
    texts = load_data(options.data)["text"].tolist()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "in").mkdir()
        files = write_rows(texts, options, home / "in")
        lines, held = [in_one_process(options, files, home / "local")], []
        expected = answers(home / "local")
        for actors in options.actors:
            line, points = with_ray(options, actors, home / "in", home / f"out-{actors}")
            compare(answers(home / f"out-{actors}"), expected)
            lines.append(line)
            held += points
    heads = ["engine", "actors", "rows", "seconds", "rows a second", "after the start"]
    say(markdown([heads, *lines]) + "\n")
    heads = ["actors", "rows done", "MB of each actor", "MB of the driver", "MB in the object store"]
    say(markdown([heads, *held]))


if __name__ == "__main__":
    main()
