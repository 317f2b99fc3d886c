"""python -m benchmarks.long_texts: film reviews of 750 words with each ``--long``, and TF-IDF.

The 2,000 reviews of Pang & Lee (2004), half of them positive. Every way of reading trains on the same rows
with each seed, which also draws the split. The table has the mean over the seeds, the spread between them,
and the 95 % Wilson interval of all seeds' test rows together, in which a review may stand for several seeds;
TF-IDF reads whole reviews.
"""

import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from benchmarks.measure import ROOT, Stopwatch, machine
from gptcls.common import cli
from gptcls.core.errors import InputError
from gptcls.data.corpora import load_parts
from gptcls.data.long_texts import Long
from gptcls.data.writer import ChunkWriter
from gptcls.evaluation.baselines import TFIDF
from gptcls.evaluation.intervals import wilson_interval
from gptcls.evaluation.table import MISSING
from gptcls.train.config import TrainConfig
from gptcls.train.run import Run, train

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which part of a long text is worth reading."""

    model: str = "gpt2-nano"
    """As for gptcls.train: preset, name on the hub, or folder of weights."""
    data: Path = ROOT.parent / "shared" / "data" / "movie_reviews"
    """Folder with movie_reviews.zip, as for --data movie-reviews:FOLDER."""
    ways: tuple[Long, ...] = get_args(Long)
    """Values of --long to compare."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A run of each way for each seed."""
    rows: int | None = None
    """Reviews to take, half of each kind; otherwise all."""
    max_length: int | None = None
    """Tokens read at once; otherwise what the model can read."""
    train: str | None = None
    """As for gptcls.train: what is trained."""
    pooling: Literal["auto", "last", "first", "mean", "max"] | None = None
    """As for gptcls.train: what the head reads."""
    epochs: int | None = None
    """As for gptcls.train."""
    lr: float | None = None
    """As for gptcls.train."""
    json: Path | None = None
    """Also write the figures to this file."""


def reviews(folder: Path, rows: int | None) -> "pd.DataFrame":
    """The reviews in the order of their names; of ``rows`` as many of each kind."""
    frame = load_parts(f"movie-reviews:{folder}")["train"]
    return frame if rows is None else frame.groupby("label").head(rows // 2)


def runs(options: Options, folder: Path) -> Iterator[tuple[str, Run, float]]:
    """Each way with each seed, and its seconds."""
    data = folder / "reviews.csv"
    with ChunkWriter(data) as writer:
        writer.write(reviews(options.data, options.rows))
    for seed in options.seeds:
        for way in options.ways:
            names = ("model", "max_length", "train", "pooling", "epochs", "lr")
            given = {name: getattr(options, name) for name in names}
            out = folder / f"{way}-{seed}"
            with Stopwatch() as watch:
                run = train(TrainConfig.of(data=str(data), long=way, seed=seed, out=out, **given))
            yield way, run, watch.seconds


def figures(name: str, scores: list[dict], seconds: list[float] | None = None) -> dict[str, Any]:
    """A line of the table, from the scores of the test part of each seed."""
    accuracies = [s["accuracy"] for s in scores]
    n = sum(s["n"] for s in scores)
    low, high = wilson_interval(round(sum(s["accuracy"] * s["n"] for s in scores)), n)
    return {
        "what": name,
        "accuracy": statistics.fmean(accuracies),
        "sd": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        "low": low,
        "high": high,
        "n": n,
        "seconds": statistics.fmean(seconds) if seconds else None,
    }


def table(lines: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    rows = [
        ("", "accuracy %", "sd of seeds", "95 % Wilson interval", "test rows", "s a run"),
        ("---",) + ("---:",) * 5,
    ]
    for line in lines:
        rows.append((
            line["what"],
            f"{100 * line['accuracy']:.2f}",
            MISSING if line["sd"] is None else f"{100 * line['sd']:.2f}",
            f"{100 * line['low']:.2f} to {100 * line['high']:.2f}",
            f"{line['n']:,}",
            MISSING if line["seconds"] is None else f"{line['seconds']:.0f}",
        ))  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def run(options: Options) -> list[dict[str, Any]]:
    """All runs; prints the table and returns its figures."""
    if not options.seeds or not options.ways:
        raise InputError("--seeds and --ways need one value each at least")
    if options.rows is not None and options.rows < 20:
        raise InputError(f"--rows {options.rows} is too few to split in three; use 20 or more")
    scores: dict[str, list[dict]] = {way: [] for way in options.ways}
    seconds: dict[str, list[float]] = {way: [] for way in options.ways}
    yardsticks: dict[int, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, done, took in runs(options, Path(folder)):
            scores[way].append(done.scores["test"])
            seconds[way].append(took)
            saved = done.classifier
            yardsticks[saved.training["seed"]] = done.baselines[TFIDF]["test"]  # the same for every way
    lines = [figures(f"--long {way}", scores[way], seconds[way]) for way in options.ways]
    lines.append(figures(TFIDF, list(yardsticks.values())))
    weights = "random weights"
    if base := saved.base:
        weights = f"weights {Path(base['name']).name}, sha256 {base['sha256'][:12]}…"
    reading = f"{saved.max_length} tokens at once, {len(options.seeds)} seeds"
    model = Path(options.model).name  # not where it lies here
    print(f"## Film reviews, {model} ({weights}), {reading}\n")
    print(table(lines))
    if options.json is not None:
        given = asdict(options) | {"model": model}
        content = {"machine": machine(), "weights": weights, "options": given, "rows": lines}
        text = json.dumps(content, indent=2, default=lambda path: path.name)
        options.json.write_text(text + "\n", encoding="utf-8")
    return lines


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
