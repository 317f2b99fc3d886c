"""python -m benchmarks.techniques: which technique pays, against the plain run, on six data sets.

A line for each technique (:mod:`benchmarks.technique_rows`), a column for each data set, in the cells the
paired difference to ``gptcls train`` as it is, in points, with its 95 % interval over test rows and seeds.
All techniques of a data set and a seed have the same rows (:mod:`benchmarks.technique_places`).

With ``--out FILE`` every answer is kept as it comes; the same command goes on where it stopped, and
``--show`` prints the table of what is there.
"""

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro

from benchmarks.cells import Cells
from benchmarks.datasets import DATA
from benchmarks.over_seeds import Interval, markdown, shown
from benchmarks.technique_places import SETS, Place, Sizes, place_of
from benchmarks.technique_rows import PLAIN, TECHNIQUES, Technique
from gptcls.common import cli
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.evaluation.table import MISSING
from gptcls.models.pretrained import weights_sha256

TABLE, TRUTH = "techniques", "truth"
NAMES = {"accuracy": "accuracy", "f1": "F1 of spam", "micro_f1": "micro-F1"}
TODO = "…"  # a cell that is not measured yet


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where techniques are tried, of this program and of ``benchmarks.few_labels``."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the rows drawn, the head and the order; the test rows are the same for all."""
    test: int = 800
    """Test rows at most."""
    length: int = 48
    """Tokens of each text at most."""
    data: Path = DATA
    """Folder of the data sets' folders."""
    model: str = "gpt2-nano"
    """Pretrained weights."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of all answers; what it holds is not measured again."""
    show: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure nothing, print the table of what --out holds."""


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(PlaceOptions):
    """Try techniques on several data sets and seeds."""

    sets: tuple[Literal["sms", "trec6", "rt_polarity", "goemotions", "chnsenticorp", "thucnews"], ...] = (
        tuple(SETS)  # type: ignore[assignment]
    )
    """Which data sets."""
    only: tuple[str, ...] = ()
    """Do these techniques alone, and the plain run; their keys are those of TECHNIQUES."""
    train: int = 300
    """Training rows."""
    validation: int = 250
    """Validation rows."""
    unlabelled: int = 800
    """Texts without labels at most."""
    part: Literal["test", "validation"] = "test"
    """Rows that the table is about."""

    @property
    def sizes(self) -> Sizes:
        return Sizes(*(getattr(self, each.name) for each in fields(Sizes)))


# --- measuring ---


def chosen(only: Sequence[str], flag: str = "--only") -> dict[str, Technique]:
    """The techniques of these keys, the plain run first; all without any. InputError for an unknown key."""
    if unknown := [key for key in only if key not in TECHNIQUES]:
        raise InputError(f"{flag} {unknown[0]}: there is no such technique; take {', '.join(TECHNIQUES)}")
    return {key: each for key, each in TECHNIQUES.items() if not only or key in (PLAIN, *only)}


def seeds_of(technique: Technique, name: str, seeds: Sequence[int]) -> Sequence[int]:
    """The seeds that it is tried with on a data set."""
    return seeds[: technique.most_seeds] if not technique.sets or name in technique.sets else ()


def written(flags: np.ndarray) -> str:
    """Answers (N, K) as a number each, whose bits they are.

    >>> written(np.array([[True, False], [False, True], [True, True]]))
    '1 2 3'
    """
    return " ".join(str(int(row @ (1 << np.arange(flags.shape[1])))) for row in flags.astype(np.int64))


def read(text: str, n_outputs: int) -> np.ndarray:
    """What :func:`written` wrote."""
    numbers = np.array(text.split(), dtype=np.int64)
    return (numbers[:, None] >> np.arange(n_outputs) & 1).astype(bool)


def truth(place: Place) -> dict[str, Any]:
    """The targets, as they are kept."""
    return {"labels": list(place.task.labels)} | {part: written(x) for part, x in place.truth().items()}


def answers_of(place: Place, technique: Technique) -> dict[str, Any]:
    """A technique's answers, and the processor's seconds they took beside those of what it builds on."""
    for key in technique.after:
        TECHNIQUES[key].outputs(place)
    began = time.process_time()
    found = technique.outputs(place)
    seconds = time.process_time() - began
    return {part: written(x) for part, x in place.answers(found).items()} | {"seconds": round(seconds, 2)}


def cell(where: str, key: str, seed: int) -> str:
    """What a measurement is called in the file."""
    return f"{where}/{key}/seed {seed}"


def at(name: str) -> str:
    """Where the cells of a data set stand."""
    return f"{TABLE}/{name}"


def measure_place(
    cells: Cells, where: str, seed: int, todo: dict[str, Technique], build: Callable[[Path], Place]
) -> None:
    """The cells of a place, those that are there left out; ``build`` makes it, given a folder."""
    if all(cell(where, key, seed) in cells.found for key in (*todo, TRUTH)):
        return
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="gptcls-techniques-"))
    try:
        place = build(folder)
        for key, technique in todo.items():
            cells.measured(cell(where, key, seed), answers_of, place, technique)
        cells.measured(cell(where, TRUTH, seed), truth, place)
    finally:
        shutil.rmtree(folder)
    print(f"{where}, seed {seed}: done in {time.monotonic() - began:.0f} s", flush=True)


def measure(options: Options, cells: Cells) -> None:
    """All cells, seed by seed."""
    for seed in options.seeds:
        for name in options.sets:
            todo = {k: t for k, t in chosen(options.only).items() if seed in seeds_of(t, name, options.seeds)}
            own = {"name": name, "data": options.data, "seed": seed, "sizes": options.sizes}
            build = partial(place_of, **own, model=options.model, device=options.device)
            measure_place(cells, at(name), seed, todo, lambda folder, build=build: build(folder=folder))


# --- how sure a difference is ---


class Estimate(NamedTuple):
    """A mean, the variance of it, and the degrees of freedom of that."""

    mean: float
    variance: float
    df: float

    def interval(self, unit: float = 100) -> Interval:
        """With 95 % confidence, by Student's t."""
        from scipy.stats import t

        if not self.variance > 0:
            ends = (0.0, 0.0) if self.variance == 0 else (math.inf, math.inf)
        else:
            ends = (float(t.ppf(0.975, self.df)) * math.sqrt(self.variance),) * 2
        return unit * self.mean, unit * (self.mean - ends[0]), unit * (self.mean + ends[1])


def contributions(true: np.ndarray, given: np.ndarray, score: str) -> np.ndarray:
    """What each of N texts adds to a score, (N,), from flags (N, K): the mean of them is the score.

    "accuracy": whether the answer is right. "f1" (of the second of two classes) and "micro_f1" are ratios of
    sums, 2 hits / (given + true): a text's share is the score and N times its influence on it (delta method).
    """
    if score == "accuracy":
        return (true == given).all(axis=1).astype(float)
    columns = slice(1, 2) if score == "f1" else slice(None)
    true, given = true[:, columns], given[:, columns]
    hits, both = (true & given).sum(axis=1), true.sum(axis=1) + given.sum(axis=1)
    f1 = 2 * hits.sum() / max(both.sum(), 1)
    return f1 + (2 * hits - f1 * both) / max(both.mean(), 1e-12)


def values(
    found: dict[str, Any], where: str, key: str, seed: int, score: str, part: str = "test"
) -> np.ndarray:
    """The :func:`contributions` of the texts that a technique answered, from the file's cells."""
    told, answers = found[cell(where, TRUTH, seed)], found[cell(where, key, seed)]
    true, given = (read(each[part], len(told["labels"])) for each in (told, answers))
    return contributions(true, given, score)


def crossed(values: np.ndarray) -> Estimate:
    """The mean of values (S, N) of S seeds and N texts, all seeds answering the same texts: both are drawn.

    Two-way random effects without repetition: (MS of seeds + MS of texts - MS of the rest) / (S N) estimates
    the variance of the mean, with Satterthwaite's (1946, Biometrics Bulletin 2:110-114) degrees of freedom.
    One seed tells of the texts alone.
    """
    n_seeds, n = values.shape
    mean, by_seed, by_text = float(values.mean()), values.mean(axis=1), values.mean(axis=0)
    of_texts = n_seeds * by_text.var(ddof=1)
    if n_seeds == 1:
        return Estimate(mean, of_texts / n, n - 1)
    of_seeds = n * by_seed.var(ddof=1)
    rest = values - by_text - by_seed[:, None] + mean
    freedoms = np.array([n - 1, n_seeds - 1, (n - 1) * (n_seeds - 1)])
    squares = np.array([of_texts, of_seeds, (rest**2).sum() / freedoms[2]])
    whole = of_texts + of_seeds - squares[2]
    if whole < max(of_texts, of_seeds):  # the smaller one is nothing but the rest
        largest = int(of_seeds > of_texts)
        whole, squares, freedoms = squares[largest], squares[[largest]], freedoms[[largest]]
    df = whole**2 / (squares**2 / freedoms).sum() if whole else 1.0
    return Estimate(mean, whole / values.size, df)


def over_seeds_alone(means: Sequence[float]) -> Estimate:
    """The mean of a value of each seed, whose texts are its own (Student's)."""
    variance = np.var(means, ddof=1) / len(means) if len(means) > 1 else math.nan
    return Estimate(fmean(means), float(variance), len(means) - 1)


def mean_of(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over data sets, which are these and no sample of others."""
    variances = np.array([each.variance for each in estimates])
    freedoms = np.array([each.df for each in estimates])
    total = variances.sum()
    df = total**2 / (variances**2 / np.maximum(freedoms, 1)).sum() if total > 0 else 1.0
    return Estimate(fmean(each.mean for each in estimates), float(total) / len(estimates) ** 2, float(df))


# --- the table ---


class Results:
    """What the cells say."""

    def __init__(self, cells: Cells, options: Options) -> None:
        self.found, self.options = cells.found, options

    def seeds(self, name: str, key: str) -> list[int]:
        """Those with this technique and the plain run."""
        return [
            seed
            for seed in seeds_of(TECHNIQUES[key], name, self.options.seeds)
            if all(cell(at(name), each, seed) in self.found for each in (key, PLAIN, TRUTH))
        ]

    def values(self, name: str, key: str, seed: int) -> np.ndarray:
        """The :func:`contributions` of its texts."""
        return values(self.found, at(name), key, seed, SETS[name].score, self.options.part)

    def estimate(self, name: str, key: str, against: str | None = PLAIN) -> Estimate | None:
        """The mean difference to another technique, or the mean score; None where nothing is measured."""
        if not (seeds := self.seeds(name, key)):
            return None
        rows = [self.values(name, key, seed) for seed in seeds]
        if against is not None:
            rows = [mine - self.values(name, against, seed) for mine, seed in zip(rows, seeds, strict=True)]
        if self.options.part == "test":
            return crossed(np.stack(rows))
        return over_seeds_alone([float(row.mean()) for row in rows])

    def cost(self, name: str, key: str) -> float | None:
        """Processor's seconds a seed, the median."""
        keys = (key, *TECHNIQUES[key].after)
        known = [s for s in self.seeds(name, key) if all(cell(at(name), k, s) in self.found for k in keys)]
        if not known:
            return None
        return median(sum(self.found[cell(at(name), k, s)]["seconds"] for k in keys) for s in known)

    def line(self, key: str) -> list[str]:
        """A technique's line of the table."""
        technique, against = TECHNIQUES[key], None if key == PLAIN else PLAIN
        cells, estimates, costs = [], [], []
        for name in self.options.sets:
            tried = seeds_of(technique, name, self.options.seeds)
            found = self.estimate(name, key, against) if tried else None
            if found is None:
                cells.append(TODO if tried else MISSING)
                continue
            estimates.append(found)
            said = shown(interval := found.interval(), sign="" if key == PLAIN else "+")
            if against and (interval[1] > 0 or interval[2] < 0):
                said = f"**{said}**"
            if (n := len(self.seeds(name, key))) < len(self.options.seeds):
                said += f" ({n} seed{'s' * (n > 1)})"
            cells.append(said)
            if (own := self.cost(name, key)) and (whole := self.cost(name, PLAIN)):
                costs.append(own / whole)
        mean = mean_of(estimates).interval() if estimates else None
        over_all = TODO if mean is None else shown(mean, sign="" if key == PLAIN else "+")
        if mean and against and (mean[1] > 0 or mean[2] < 0):
            over_all = f"**{over_all}**"
        return [technique.title, *cells, over_all, f"{fmean(costs):.1f}" if costs else TODO]

    def table(self) -> str:
        """All lines in Markdown, and what they mean."""
        heads = [f"{name}, {NAMES[SETS[name].score]}" for name in self.options.sets]
        lines = [["", *heads, "mean of these", "time"]]
        lines += [self.line(key) for key in chosen(self.options.only)]
        return f"{markdown(lines)}\n\n{self.caption()}"

    def caption(self) -> str:
        """How it was measured."""
        o = self.options
        over = (
            f"the same test rows for all seeds, {o.test:,} at most, and intervals over test rows and seeds"
            if o.part == "test"
            else "each seed's own validation rows, and Student's intervals over the seeds"
        )
        return (
            f"{Path(o.model).name}, {o.train:,} training and {o.validation:,} validation rows, texts of "
            f"{o.length} tokens at most; seeds {' '.join(map(str, o.seeds))}, which draw rows, head and "
            f"order; {over}. First line: the score in per cent; below: the difference to it in points with "
            f"its 95 % interval, bold where that leaves 0 out. {MISSING}: not tried there; {TODO}: not "
            "measured yet. Time: the processor's, plain run = 1, what it builds on included."
        )


def run(options: Options) -> None:
    """Measure what is missing, and print the table."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    if options.show and (options.out is None or not options.out.exists()):
        raise InputError("--show prints what --out FILE holds; name a file of an earlier call")
    chosen(options.only)
    cells = Cells(options.out, "--out")
    cells.under({"sizes": vars(options.sizes), "weights": weights_sha256(options.model)}, TABLE)
    if not options.show:
        measure(options, cells)
    print(f"\n{Results(cells, options).table()}")


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
