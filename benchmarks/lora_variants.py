"""python -m benchmarks.lora_variants: what is trained, and LoRA's variants, on the models that one has.

Each row of :data:`VARIANTS` is a set of options of ``gptcls.train``, compared with plain LoRA seed by seed,
on the same rows. Each takes the learning rate, of some around its own, that does best on validation rows,
which are the same for all seeds. Of several models, such as a base and its instruct version, each is also
compared with the first. Measurements that ``--json`` holds already are not taken again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.ablation_rows import is_narrow
from benchmarks.cells import Cells
from benchmarks.datasets import DATA, SETS, SETTINGS_SEED, few_labels, split_parts
from benchmarks.over_seeds import Interval, gain, markdown, over_seeds, shown
from gptcls.classify.predict import ready
from gptcls.common import cli
from gptcls.common.hardware import pick_device
from gptcls.common.log import unlogged
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.sources import load_data
from gptcls.data.split import Split
from gptcls.evaluation.paired import differences
from gptcls.models.pretrained import weights_sha256
from gptcls.train.config import TrainConfig
from gptcls.train.presets import NARROW_RATE, WIDE_RATE
from gptcls.train.resolve import resolve
from gptcls.train.run import fit_classifier

VALIDATION_ROWS = 200


@dataclass(frozen=True)
class Variant:
    """One row: a name, the options that it adds to a run, and the learning rate that those tried lie around,
    of a wide network; a narrow one's is ten times that, as in the presets."""

    number: int
    name: str
    options: Mapping[str, Any]
    lr: float


_LORA = {"train": "lora", "lora_rank": 16, "lora_alpha": 16.0}
VARIANTS = {
    row.number: row
    for row in (
        Variant(1, "LoRA, rank 16", _LORA, 2e-4),
        Variant(2, "LoRA, rank 64", _LORA | {"lora_rank": 64}, 2e-4),
        Variant(3, "rsLoRA, rank 16", _LORA | {"lora_kind": "rslora"}, 2e-4),
        Variant(4, "rsLoRA, rank 64", _LORA | {"lora_kind": "rslora", "lora_rank": 64}, 2e-4),
        Variant(5, "DoRA", _LORA | {"lora_kind": "dora"}, 2e-4),
        Variant(6, "LoRA+, 16 times", _LORA | {"lora_plus": 16.0}, 5e-5),
        Variant(7, "LoRA, and the token table", _LORA | {"lora_targets": ("*", "wte")}, 2e-4),
        Variant(8, "the last block", {"train": "last_block"}, 5e-5),
        Variant(9, "everything", {"train": "all"}, 5e-5),
    )
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Full fine-tuning, the last block, LoRA and its variants, each beside plain LoRA."""

    models: tuple[str, ...] = ("gpt2-nano",)
    """Presets, names on the hub, or local folders, as in gptcls.train; each is compared with the first."""
    data: tuple[str, ...] = ("trec6", "rt_polarity")
    """Data sets of the project, or files of texts with one label each."""
    folder: Path = DATA
    """Where the project's data sets lie."""
    rows: tuple[int, ...] = ()
    """Numbers of the variants; all without this. The first is always there."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each draws training and test rows of its own, where the set has no test part."""
    train_rows: int = 600
    """Training rows that a seed draws, in proportion to the classes."""
    test_rows: int = 500
    """Test rows likewise."""
    epochs: int = 3
    """Passes over them."""
    tries: tuple[float, ...] = (0.5, 2.0)
    """Multiples of a variant's learning rate to choose from."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: Path | None = None
    """File of what is measured, which the same command goes on from."""

    @property
    def variants(self) -> list[Variant]:
        """Those asked for, in the table's order."""
        return [row for row in VARIANTS.values() if not self.rows or row.number in (1, *self.rows)]


def check(options: Options) -> None:
    """InputError for what cannot be measured, before anything is."""
    if len(set(options.seeds)) < len(options.seeds) or not options.seeds:
        raise InputError(f"--seeds {' '.join(map(str, options.seeds))}: give one or more different seeds")
    for name in ("models", "data", "tries"):
        if not getattr(options, name):
            raise InputError(f"--{name} names nothing; leave it out or give one or more")
    if unknown := sorted({*options.rows} - VARIANTS.keys()):
        raise InputError(f"--rows {unknown[0]}: there is no such row; take 1 to {len(VARIANTS)}")
    for source in options.data:
        split_for(source, options, options.seeds[0])
    for model in options.models:
        weights_sha256(model)


@cache
def split_for(source: str, options: Options, seed: int) -> Split:
    """The rows of one seed; the validation rows are the same for all."""
    parts = SETS[source].read(options.folder) if source in SETS else {"train": load_data(source)}
    with unlogged():
        split = split_parts(parts, seed)
    return Split(
        few_labels(split.train, options.train_rows, seed),
        few_labels(split.validation, VALIDATION_ROWS, SETTINGS_SEED),
        few_labels(split.test, options.test_rows, seed),
    )


def tuned_run(variant: Variant, model: str, source: str, rate: float, seed: int, part: str, options: Options):
    """Train, and answer the texts of a part: accuracy, the answers, CPU seconds of training."""
    split = split_for(source, options, seed)
    lr = variant.lr * rate * (NARROW_RATE / WIDE_RATE if is_narrow(model) else 1)
    shared = {"model": model, "epochs": options.epochs, "device": options.device, "batch_size": 16}
    shared |= {"calibrate": "none", "seed": seed, "lr": lr}
    before = time.process_time()
    with unlogged():
        # Nothing is chosen on validation rows while training: they are for the learning rate.
        rows = Split(split.train, split.validation[:0], split.test[:0])
        saved = fit_classifier(rows, resolve(TrainConfig.of(**shared, **variant.options)))
        seconds = time.process_time() - before
        trained = sum(p.numel() for p in saved.model.trained_parameters().values())
        rows = getattr(split, part)
        shares = ready(saved, pick_device(options.device), "auto").predict_proba(rows["text"].tolist())
    targets = saved.task.targets(rows["label"].tolist()).tolist()
    answers = np.argmax(shares, axis=1).tolist()
    found = {"accuracy": float(np.mean(np.equal(answers, targets))), "answers": answers, "targets": targets}
    return found | {"labels": list(saved.task.labels), "lr": lr, "trained": trained, "seconds": seconds}


class Table:
    """For each set, model and variant a choice of the learning rate, and then a run for each seed."""

    def __init__(self, cells: Cells, options: Options) -> None:
        self.cells, self.options = cells, options
        self.found: dict[tuple[str, str, int], list[dict]] = {}  # set, model, variant -> seeds

    def measure(self) -> None:
        """All cells, those that are there left out."""
        options = self.options
        for source in options.data:
            for model in options.models:
                self.cells.under(self._settings(model), f"lora/{model}")
                for variant in options.variants:
                    run = partial(tuned_run, variant, model, source, options=options)
                    where = f"lora/{model}/{source}/{variant.name}"
                    tried = [
                        self.cells.measured(f"{where}/times {x:g}", run, x, SETTINGS_SEED, "validation")
                        for x in options.tries
                    ]
                    scores = [each["accuracy"] for each in tried]
                    rate = options.tries[scores.index(max(scores))]
                    runs = [
                        self.cells.measured(f"{where}/seed {seed}", run, rate, seed, "test")
                        for seed in options.seeds
                    ]
                    self.found[source, model, variant.number] = runs
                    print(f"{where}: {shown(over_seeds(runs, 'accuracy'))}", flush=True)

    def _settings(self, model: str) -> dict[str, Any]:
        """What a model's cells depend on besides their names."""
        names = ("train_rows", "test_rows", "epochs", "tries")
        variants = {row.name: [dict(row.options), row.lr] for row in VARIANTS.values()}
        own = {name: getattr(self.options, name) for name in names}
        return own | {"variants": variants, "weights": weights_sha256(model)}

    def text(self) -> str:
        """A table for each set and model in Markdown."""
        said = []
        for source in self.options.data:
            for model in self.options.models:
                lines = [self._line(source, model, row) for row in self.options.variants]
                heads = [f"{Path(source).name}, {Path(model).name}", "accuracy %", "minus LoRA"]
                if first := model != self.options.models[0]:
                    heads.append(f"minus {Path(self.options.models[0]).name}")
                heads += ["parameters trained", "learning rate", "CPU s"]
                lines = [line if first else line[:3] + line[4:] for line in lines]
                said.append(markdown([heads, *lines]))
        return "\n\n".join([*said, self._caption()])

    def _line(self, source: str, model: str, row: Variant) -> list[str]:
        runs = self.found[source, model, row.number]
        plain, first = self.found[source, model, 1], self.found[source, self.options.models[0], row.number]
        minus = [
            shown(paired_gain(runs, other), sign="+") if other is not runs else "" for other in (plain, first)
        ]
        seconds = median(run["seconds"] for run in runs)
        own = [f"{runs[0]['trained']:,}", f"{runs[0]['lr']:.2g}", f"{seconds:.1f}"]
        return [row.name, shown(over_seeds(runs, "accuracy")), *minus, *own]

    def _caption(self) -> str:
        options = self.options
        where = "over the test texts" if len(options.seeds) == 1 else "over the seeds"
        return (
            f"{options.train_rows:,} training rows, {options.epochs} epochs, seeds "
            f"{' '.join(map(str, options.seeds))}; 95 % intervals {where}. The learning rate is the best of "
            f"{len(options.tries)} on {VALIDATION_ROWS} validation rows."
        )


def paired_gain(runs: Sequence[dict], others: Sequence[dict]) -> Interval:
    """Accuracy less the others' in points, seed by seed; the interval over seeds or, of one, over the texts,
    to each of which both answers are drawn together."""
    if len(runs) > 1:
        return gain(runs, others, "accuracy")
    task = SingleLabel(tuple(runs[0]["labels"]))
    found = differences(
        task, *(np.array(x) for x in (runs[0]["targets"], runs[0]["answers"], others[0]["answers"]))
    )
    return tuple(100 * found[f"accuracy{end}"] for end in ("", "_low", "_high"))


def run(options: Options) -> None:
    """Measure and print."""
    check(options)
    table = Table(Cells(options.json), options)
    table.measure()
    print(f"\n{table.text()}")


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
