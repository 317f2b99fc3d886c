"""python -m benchmarks.few_labels: what a technique makes of 8, 32, 128 and 512 labelled texts.

All labels are trained on, none is left to validate: stacks are half and half, and the baselines choose among
their models by cross-validation. ``--methods`` takes any key of ``benchmarks.technique_rows.TECHNIQUES``.

With ``--out FILE`` every answer is kept as it comes; the same command goes on where it stopped.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro

from benchmarks import nano_plots
from benchmarks.cells import Cells
from benchmarks.over_seeds import Interval, markdown, shown
from benchmarks.technique_places import SETS, Sizes, place_of
from benchmarks.technique_rows import TECHNIQUES
from benchmarks.techniques import (
    NAMES,
    TODO,
    TRUTH,
    PlaceOptions,
    cell,
    chosen,
    crossed,
    measure_place,
    values,
)
from gptcls.common import cli
from gptcls.common.files import atomic_file
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.models.pretrained import weights_sha256

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "few labels"


@own_first
@dataclass(frozen=True, kw_only=True)
class Options(PlaceOptions):
    """Scores by the number of labels."""

    sets: tuple[Literal["sms", "trec6", "rt_polarity", "chnsenticorp", "thucnews"], ...] = (
        "sms",
        "trec6",
        "rt_polarity",
    )
    """Which data sets."""
    labels: tuple[int, ...] = (8, 32, 128, 512)
    """Numbers of labelled texts."""
    methods: tuple[str, ...] = (
        "plain", "stack", "tfidf", "probe", "knn", "zero-shot", "shots", "labels", "tokens"
    )  # fmt: skip
    """Keys of techniques."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Picture: score by the number of labels."""


def at(name: str, n: int) -> str:
    """Where the cells of a data set and a number of labels stand."""
    return f"{TABLE}/{name}/{n}"


def measure(options: Options, cells: Cells) -> None:
    """All cells, seed by seed."""
    for seed in options.seeds:
        for name in options.sets:
            asked = {key: TECHNIQUES[key] for key in options.methods}
            todo = {key: each for key, each in asked.items() if not each.sets or name in each.sets}
            for n in options.labels:
                sizes = Sizes(n, 0, options.test, 0, options.length)
                own = {"name": name, "data": options.data, "seed": seed, "sizes": sizes}
                build = partial(place_of, **own, model=options.model, device=options.device)
                measure_place(
                    cells, at(name, n), seed, todo, lambda folder, build=build: build(folder=folder)
                )


def score(cells: Cells, options: Options, name: str, n: int, key: str) -> Interval | None:
    """Mean over the seeds in per cent, its interval over test rows and seeds; None while there is none."""
    where, found = at(name, n), cells.found
    seeds = [seed for seed in options.seeds if all(cell(where, each, seed) in found for each in (key, TRUTH))]
    if not seeds:
        return None
    rows = [values(found, where, key, seed, SETS[name].score) for seed in seeds]
    mean, low, high = crossed(np.stack(rows)).interval()
    return mean, max(low, 0.0), min(high, 100.0)


def table(cells: Cells, options: Options) -> str:
    """All data sets in Markdown."""
    said = []
    for name in options.sets:
        heads = [f"{n:,} labels" for n in options.labels]
        lines = [[f"{NAMES[SETS[name].score]} %, {SETS[name].what}", *heads]]
        for key in options.methods:
            found = [score(cells, options, name, n, key) for n in options.labels]
            lines.append([TECHNIQUES[key].title, *(TODO if x is None else shown(x) for x in found)])
        said.append(markdown(lines))
    caption = (
        f"{Path(options.model).name}; means over the seeds {' '.join(map(str, options.seeds))}, which draw "
        f"labels, head and order, with their 95 % intervals over test rows and seeds; the same test rows for "
        f"all, {options.test:,} at most; texts of {options.length} tokens at most; no row to validate on."
    )
    return "\n\n".join([*said, caption])


def picture(cells: Cells, options: Options) -> "Figure":
    """A panel for each data set, a line for each method."""
    lines: dict[str, dict[str, dict[float, Interval]]] = {}
    for name in options.sets:
        for key in options.methods:
            found = {n: score(cells, options, name, n, key) for n in options.labels}
            points = {n: each for n, each in found.items() if each is not None}
            if points:
                lines.setdefault(name, {})[TECHNIQUES[key].title] = points
    if not lines:
        raise InputError("there is nothing to draw yet: leave out --plot, or measure first")
    titles = {name: SETS[name].what for name in lines}
    units = {name: f"test {NAMES[SETS[name].score]} (%)" for name in lines}
    ticks = {name: {n: f"{n:,}" for n in options.labels} for name in lines}
    return nano_plots.by_labels(titles, lines, units, ticks)


def run(options: Options) -> None:
    """Measure what is missing, print the table and, if asked for, draw it."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    if options.show and (options.out is None or not options.out.exists()):
        raise InputError("--show shows what --out FILE holds; name a file of an earlier call")
    chosen(options.methods, "--methods")
    cells = Cells(options.out, "--out")
    own = {"test": options.test, "length": options.length, "weights": weights_sha256(options.model)}
    cells.under(own, TABLE)
    if not options.show:
        measure(options, cells)
    print(f"\n{table(cells, options)}")
    if options.plot is not None:
        with atomic_file(options.plot) as temporary:
            picture(cells, options).savefig(temporary, metadata={"Software": None})


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
