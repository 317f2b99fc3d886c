"""python -m benchmarks.audit: how many wrong labels gptcls.audit finds.

Of the training rows as they are read, repeats included, a share gets another label, each other class as
likely. The rows are then put in the audit's order, the least probable label first. How the labels are judged
was chosen with the seeds 1000 to 1002, which are none of these.
"""

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.datasets import DATA, SETS
from benchmarks.over_seeds import markdown
from gptcls.audit import audit
from gptcls.common import cli
from gptcls.evaluation.findings import SUSPECT
from gptcls.evaluation.intervals import mean_interval

if TYPE_CHECKING:
    from pandas import DataFrame

HEADS = ["", "rows", "classes", "flipped", "in the first 10 %", "among the suspects", "suspects flipped",
         "right label suggested", "CPU s"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """Flip labels, and see how many the audit finds."""

    data: Path = DATA
    """Folder of the data sets."""
    sets: tuple[str, ...] = ("sms", "trec6", "rt_polarity", "thucnews")
    """Data sets."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the rows that are flipped."""
    share: float = 0.05
    """Share of the rows that are flipped."""
    rows: int = 6000
    """Rows of a set at most, drawn once."""


def flipped(rows: "DataFrame", share: float, seed: int) -> tuple["DataFrame", np.ndarray]:
    """The rows with another label in some, and the numbers of these.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"text": list("abcd"), "label": ["x", "y", "x", "y"]})
    >>> changed, which = flipped(rows, 0.5, seed=0)
    >>> (changed["label"] != rows["label"]).sum() == len(which) == 2
    True
    """
    names = sorted(set(rows["label"]))
    labels = np.array([names.index(label) for label in rows["label"]])
    random = np.random.default_rng(seed)
    which = random.choice(len(rows), round(share * len(rows)), replace=False)
    labels[which] = (labels[which] + random.integers(1, len(names), len(which))) % len(names)
    return rows.assign(label=[names[i] for i in labels]), which


def found(rows: "DataFrame", options: Options, seed: int, cache: Path) -> list[float]:
    """Shares: of the flipped rows in the first tenth, of those among the suspects, of the suspects flipped,
    of the flipped suspects with the right label suggested; then the CPU seconds."""
    changed, which = flipped(rows, options.share, seed)
    before = time.process_time()
    result = audit(data=changed, cache=cache)
    seconds = time.process_time() - before
    first = np.argsort(result.rows["own"].to_numpy(), kind="stable")[: len(rows) // 10]
    suspects = result.of(SUSPECT)
    at = suspects["row"].to_numpy(dtype=int)
    hit = np.isin(at, which)
    right = suspects["suggested"].to_numpy()[hit] == rows["label"].to_numpy()[at[hit]]
    return [np.isin(which, first).mean(), np.isin(which, at).mean(), hit.mean(), right.mean(), seconds]


def line(name: str, options: Options, cache: Path) -> list[str]:
    """A line of the table."""
    rows = SETS[name].read(options.data)["train"]
    rows = rows.sample(min(options.rows, len(rows)), random_state=0).sort_index().reset_index(drop=True)
    each = np.array([found(rows, options, seed, cache) for seed in options.seeds])
    shown = []
    for values in each[:, :4].T:
        mean, low, high = (100 * value for value in mean_interval(values))
        shown.append(f"{mean:.1f} [{low:.1f}, {min(high, 100):.1f}]" if len(values) > 1 else f"{mean:.1f}")
    n_classes, n_flipped = rows["label"].nunique(), round(options.share * len(rows))
    return [name, f"{len(rows):,}", str(n_classes), str(n_flipped), *shown, f"{each[:, 4].max():.0f}"]


def run(options: Options) -> None:
    """Measure and print."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        print(markdown([HEADS, *(line(name, options, Path(folder)) for name in options.sets)]))
    n = len(options.seeds)
    print(f"\nPer cent, means over {n} seeds with 95 % intervals (Student's). Labels that were wrong before")
    print("any was flipped count against the suspects. CPU s: of the slowest seed, the first, which computes")
    print("the frozen vectors.")


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
