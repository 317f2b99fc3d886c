"""Accuracy against the tokens of pretraining: fine-tuned, and as a probe finds it in frozen vectors."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import nano_plots
from benchmarks.cells import Cells
from benchmarks.contestants import (
    BATCH,
    MAX_LENGTH,
    WORDS,
    all_blocks,
    backbone_of,
    fine_tuned,
    forget_vectors,
    probed,
    tfidf,
)
from benchmarks.datasets import SETS, few_labels, split_by
from benchmarks.nano_labels import steps_for
from benchmarks.over_seeds import markdown, over_seeds, shown
from gptcls.core.errors import InputError
from gptcls.data.split import Split
from gptcls.models.pretrained import weights_sha256

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from benchmarks.nano import Options

TUNED, PROBED = "fine-tuned", "probe"
FINE_TUNING = {"pooling": "mean", "lr": 1e-3}  # the same for all: nothing is chosen in this table
STRENGTH = 0.01
TFIDF = {"strength": 10, "ngrams": 1}
IN_PANELS = ("trec6", "rt_polarity")


def tokens_seen(folder: Path, per_step: int | None = None) -> int:
    """Tokens that a checkpoint was trained on: RUN/model says it itself, RUN/kept/step-000100 by its step.

    Without ``per_step`` it is read from the run's ``history.csv`` or ``metrics.json``. InputError where
    neither says it.
    """
    if (metrics := folder.parent / "metrics.json").exists() and folder.name == "model":
        return json.loads(metrics.read_text(encoding="utf-8"))["tokens_seen"]
    found = re.fullmatch(r"step-(\d+)", folder.name)
    history = folder.parents[1] / "history.csv"
    if found and per_step is None and history.exists():
        import pandas as pd

        last = pd.read_csv(history).iloc[-1]
        per_step = round(last["tokens"] / last["step"])
    if not found or per_step is None:
        raise InputError(f"{folder} does not say how many tokens it saw: give --tokens-per-step and step-N")
    return int(found[1]) * per_step


class Tokens:
    """The cells of this table: both accuracies of each checkpoint, set and seed, random weights as 0."""

    def __init__(self, cells: Cells, options: "Options") -> None:
        if not options.checkpoints:
            raise InputError("--tables tokens needs --checkpoints: folders of weights")
        seen = ((tokens_seen(path.resolve(), options.tokens_per_step), path) for path in options.checkpoints)
        self.checkpoints = {n: str(path) for n, path in sorted(seen)}
        self.cells, self.options = cells, options
        self.sets = [name for name in options.sets if name in IN_PANELS]
        self.found: dict[str, dict[str, dict[int, list[dict]]]] = {
            name: {TUNED: {}, PROBED: {}} for name in self.sets
        }  # set -> way -> tokens -> seeds
        self.reference: dict[str, list[dict]] = {name: [] for name in self.sets}  # TF-IDF's seeds

    def measure(self) -> None:
        """All cells, those that are there left out."""
        splits = {
            (name, seed): split_by(name, self.options.data, seed)
            for name in self.sets
            for seed in self.options.seeds
        }
        for (name, seed), split in splits.items():
            cell = f"tokens/{WORDS}/{name}/seed {seed}"
            self.reference[name].append(self.cells.measured(cell, self._tfidf, split, seed))
        last = self.checkpoints[max(self.checkpoints)]
        for n, model in {0: last, **self.checkpoints}.items():
            # More checkpoints may come between two calls; each brings its own cells.
            weights = f"{n} tokens, {weights_sha256(model)[:8]}" if n else "random weights"
            for (name, seed), split in splits.items():
                for way, measure in ((TUNED, self._tuned), (PROBED, self._probed)):
                    cell = f"tokens/{weights}/{name}/{way}/seed {seed}"
                    run = self.cells.measured(cell, measure, model, seed, n == 0, split)
                    self.found[name][way].setdefault(n, []).append(run)
            for name, ways in self.found.items():
                said = (f"{way} {shown(over_seeds(runs[n], 'accuracy'))}" for way, runs in ways.items())
                print(f"tokens/{n}/{name}: {', '.join(said)}", flush=True)
            forget_vectors()

    def _rows(self, split: Split, seed: int) -> "DataFrame":
        return few_labels(split.train, self.options.tokens_labels or len(split.train), seed)

    def _tuned(self, model: str, seed: int, random: bool, split: Split) -> dict[str, Any]:
        rows = self._rows(split, seed)
        backbone = backbone_of(model, seed if random else None)
        steps = steps_for(len(rows), self.options.steps, self.options.passes)
        what = {"train": "all" if random else all_blocks(backbone)}
        return fine_tuned(backbone, rows, split.test, steps, seed, self.options.device, **what, **FINE_TUNING)

    def _probed(self, model: str, seed: int, random: bool, split: Split) -> dict[str, Any]:
        return probed(model, seed if random else None, split.train, split.test, STRENGTH)

    def _tfidf(self, split: Split, seed: int) -> dict[str, Any]:
        return tfidf(self._rows(split, seed), split.test, **TFIDF)

    def settings(self) -> dict[str, Any]:
        """What the cells depend on besides their names."""
        options = self.options
        sizes = asdict(backbone_of(next(iter(self.checkpoints.values()))).config)
        own = {
            "sizes": sizes,
            "fine-tuning": FINE_TUNING,
            "C": STRENGTH,
            "batch": BATCH,
            "length": MAX_LENGTH,
        }
        return own | {"labels": options.tokens_labels, "steps": options.steps, "passes": options.passes}

    def table(self) -> str:
        """Accuracy in per cent, in Markdown."""
        heads = [f"{SETS[name].what}, {way}" for name in self.sets for way in (TUNED, PROBED)]
        lines = [["tokens of pretraining", *heads]]
        for n in (0, *self.checkpoints):
            runs = [self.found[name][way][n] for name in self.sets for way in (TUNED, PROBED)]
            first = "0, random weights" if n == 0 else f"{n:,}"
            lines.append([first, *(shown(over_seeds(each, "accuracy")) for each in runs)])
        tfidf_cells = []
        for name in self.sets:
            tfidf_cells += [shown(over_seeds(self.reference[name], "accuracy")), ""]
        lines.append([f"{WORDS}, the labels of the fine-tuned", *tfidf_cells])
        return f"{markdown(lines)}\n\n{self.caption()}"

    def caption(self) -> str:
        """The settings, which are the same for all."""
        labels = self.options.tokens_labels
        return (
            f"Test accuracy in per cent, mean and 95 % interval over the seeds "
            f"{' '.join(map(str, self.options.seeds))} (where all agree, Wilson's over the test texts). "
            f"Fine-tuned on {f'{labels:,}' if labels else 'all'} labels: mean pooling, learning rate "
            f"{FINE_TUNING['lr']:g}, all blocks (random weights: all layers), nothing chosen. Probe on all "
            f"labels: C = {STRENGTH}, depth by cross-validation."
        )

    def pictures(self) -> "dict[str, Figure]":
        """Both accuracies by tokens."""
        labels = self.options.tokens_labels
        tuned = f"fine-tuned on {f'{labels:,}' if labels else 'all'} labels"
        names = {TUNED: tuned, PROBED: "probe on frozen vectors, all labels"}
        lines = {
            name: {
                names[way]: {n: over_seeds(runs, "accuracy") for n, runs in by_tokens.items()}
                for way, by_tokens in ways.items()
            }
            for name, ways in self.found.items()
        }
        said = f"{WORDS}, labels of the fine-tuned"
        references = {name: (said, over_seeds(runs, "accuracy")[0]) for name, runs in self.reference.items()}
        titles = {name: SETS[name].what for name in lines}
        return {"tokens.png": nano_plots.by_tokens(titles, lines, references)}
