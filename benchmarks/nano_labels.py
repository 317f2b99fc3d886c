"""Scores against the number of labels: what few of them are worth with and without pretraining."""

import math
from typing import TYPE_CHECKING, Any

from benchmarks import nano_plots
from benchmarks.cells import Cells
from benchmarks.contestants import (
    BATCH,
    CHARACTERS,
    GRIDS,
    MAX_LENGTH,
    PRETRAINED,
    WORDS,
    caption,
    forget_vectors,
    learner,
)
from benchmarks.datasets import SETS, SETTINGS_SEED, few_labels, split_by
from benchmarks.over_seeds import Interval, gain, markdown, over_seeds, shown
from gptcls.data.split import Split
from gptcls.models.pretrained import weights_sha256

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from benchmarks.nano import Options

ALL = 10**9  # more labels than any set has
FEWEST_STEPS = 40
SEARCHED = 1000  # labels at most to choose settings with; what they give is taken for more as well
SEARCH_SHARE = 0.5  # of the steps
NAMES = {"accuracy": "accuracy %", "f1": "F1 of spam %"}


def steps_for(n: int, per_root: float, passes: int) -> int:
    """Optimizer steps for n labels: they grow with the root of n, but cover each row ``passes`` times.

    >>> [steps_for(n, 6, passes=2) for n in (16, 50, 200, 1000, 7463)]
    [40, 42, 84, 189, 934]
    """
    return max(FEWEST_STEPS, int(per_root * math.sqrt(n)), passes * math.ceil(n / BATCH))


class Labels:
    """For each set, number of labels and contestant a choice of settings, and then a run for each seed."""

    def __init__(self, cells: Cells, options: "Options") -> None:
        self.cells, self.options = cells, options
        self.counts = [n or ALL for n in options.labels]
        self.found: dict[str, dict[str, dict[int, list[dict]]]] = {}  # set -> contestant -> labels -> seeds
        self.sizes: dict[str, int] = {}  # set -> training rows

    def measure(self) -> None:
        """All cells, those that are there left out."""
        seeds = self.options.seeds
        for name in self.options.sets:
            splits = {seed: split_by(name, self.options.data, seed) for seed in (SETTINGS_SEED, *seeds)}
            self.sizes[name] = len(splits[SETTINGS_SEED].train)
            by_contestant = self.found.setdefault(name, {contestant: {} for contestant in GRIDS})
            for n in self.counts:
                for contestant in GRIDS:
                    where = f"labels/{name}/{'all' if n == ALL else n}/{contestant}"
                    setting = self._choose(name, contestant, min(n, SEARCHED), splits[SETTINGS_SEED])
                    runs = by_contestant[contestant][n] = []
                    for seed in seeds:
                        rows = few_labels(splits[seed].train, n, seed)
                        learn = learner(
                            contestant, self.options.model, self._steps(rows), self.options.device
                        )
                        cell = f"{where}/seed {seed}"
                        runs.append(self.cells.measured(cell, learn, rows, splits[seed].test, setting, seed))
                    found = over_seeds(runs, SETS[name].score)
                    print(f"{where}: {shown(found)} with {setting}", flush=True)
            forget_vectors()

    def _steps(self, rows: "DataFrame") -> int:
        return steps_for(len(rows), self.options.steps, self.options.passes)

    def _choose(self, name: str, contestant: str, n: int, split: Split) -> dict[str, Any]:
        """The setting with the best score on the validation rows; the first of equals."""
        rows = few_labels(split.train, n, SETTINGS_SEED)
        steps = int(SEARCH_SHARE * self._steps(rows))
        learn = learner(contestant, self.options.model, steps, self.options.device)
        tried = []
        for number, setting in enumerate(GRIDS[contestant]):
            cell = f"labels/{name}/{n}/{contestant}/setting {number}"
            found = self.cells.measured(cell, learn, rows, split.validation, setting, SETTINGS_SEED)
            tried.append(found[SETS[name].score])
        return GRIDS[contestant][tried.index(max(tried))]

    def settings(self) -> dict[str, Any]:
        """What the cells depend on besides their names."""
        options = self.options
        own = {"grids": GRIDS, "batch": BATCH, "length": MAX_LENGTH, "weights": weights_sha256(options.model)}
        return own | {"steps": options.steps, "passes": options.passes}

    def better_tfidf(self, name: str, n: int, score: str) -> str:
        """The one with the better mean on the very test rows, so that nobody can say it was the weaker."""
        return max((WORDS, CHARACTERS), key=lambda c: over_seeds(self.found[name][c][n], score)[0])

    def gain(self, name: str, n: int, score: str) -> Interval:
        """Pretrained minus the better TF-IDF, seed by seed."""
        runs = self.found[name]
        return gain(runs[PRETRAINED][n], runs[self.better_tfidf(name, n, score)][n], score)

    def scores(self, name: str) -> tuple[str, ...]:
        """What is shown of a set."""
        return tuple(dict.fromkeys((SETS[name].score, "accuracy")))

    def table(self) -> str:
        """All sets in Markdown, and how the settings were chosen."""
        heads = ["all" if n == ALL else f"{n:,} labels" for n in self.counts]
        said = []
        for name, runs in self.found.items():
            for score in self.scores(name):
                lines = [[f"{NAMES[score]}, {SETS[name].what}", *heads]]
                for contestant, by_count in runs.items():
                    means = (shown(over_seeds(by_count[n], score)) for n in self.counts)
                    lines.append([contestant, *means])
                gains = (shown(self.gain(name, n, score), sign="+") for n in self.counts)
                lines.append(["**pretrained minus the better TF-IDF**", *gains])
                said.append(markdown(lines))
        return "\n\n".join([*said, self.caption()])

    def caption(self) -> str:
        """What every contestant had to choose from, and how long the networks trained."""
        options = self.options
        counts = [n for n in self.counts if n < ALL]
        steps = ", ".join(f"{steps_for(n, options.steps, options.passes):,} for {n:,} labels" for n in counts)
        return (
            f"Mean and 95 % interval over the seeds {' '.join(map(str, options.seeds))}. {caption()} "
            f"Networks take about so many steps of {BATCH} texts of at most {MAX_LENGTH} tokens: {steps}; "
            f"with all labels at least {options.passes} passes. Settings are chosen in half as many steps, "
            f"by accuracy or, of text messages, by F1 of spam; those chosen with {SEARCHED:,} labels serve "
            f"for more as well."
        )

    def pictures(self) -> "dict[str, Figure]":
        """Scores and gains by the number of labels."""
        lines, ticks = {}, {}
        for name, runs in self.found.items():
            at = {n: self.sizes[name] if n == ALL else n for n in self.counts}
            lines[name] = {
                contestant: {at[n]: over_seeds(by_count[n], SETS[name].score) for n in self.counts}
                for contestant, by_count in runs.items()
            }
            ticks[name] = {at[n]: "all" if n == ALL else f"{n:,}" for n in self.counts}
        units = {name: NAMES[SETS[name].score].replace(" %", " (%)") for name in lines}
        units = {name: f"test {unit}" for name, unit in units.items()}
        titles = {name: SETS[name].what for name in lines}
        gains = {
            f"{SETS[name].what}: {NAMES[SETS[name].score]}": {
                i: self.gain(name, n, SETS[name].score) for i, n in enumerate(self.counts)
            }
            for name in lines
        }
        heads = ["all" if n == ALL else f"{n:,}" for n in self.counts]
        return {
            "labels.png": nano_plots.by_labels(titles, lines, units, ticks),
            "labels-gain.png": nano_plots.by_difference(gains, heads),
        }
