"""python -m benchmarks.calibration: what calibration does to classifiers, and which rule for the temperature
serves most data sets.

A network is fine-tuned on some rows of each data set, and its logits of validation and test rows are kept in
``--logits``; the same command goes on where it stopped. The first table compares rules on the validation rows
alone: half of the rows that a small part holds fit a temperature, the others judge it. The second one has the
calibration error of the test rows, before and after what ``gptcls train`` does.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.datasets import DATA, few_labels, split_by
from benchmarks.over_seeds import markdown
from gptcls.common import cli
from gptcls.core.answer import dataset_logits
from gptcls.data.corpora import load_parts
from gptcls.data.labels import LISTS, Layout
from gptcls.data.split import Split
from gptcls.evaluation.calibration import calibration_scores, fit_calibration
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import resolve
from gptcls.train.run import carry_out, trainer_of
from gptcls.train.setup import prepare

HELD, LISTS_HELD, MAX_LENGTH = 500, 700, 48  # validation rows and test rows at most, tokens
SIZES, DRAWS = (50, 100, 200), 20  # validation rows that fit a temperature, and how often they are drawn
NAMED = ("sms", "trec6", "rt_polarity", "thucnews", "chnsenticorp")
Logits = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How well calibrated classifiers are, before and after."""

    sets: tuple[str, ...] = (*NAMED, "goemotions")
    """Which data sets."""
    seeds: tuple[int, ...] = (0,)
    """Of the rows drawn, the head and the order."""
    rows: int = 1000
    """Training rows; of goemotions half as many again."""
    data: Path = DATA
    """Folder of the data sets' folders."""
    logits: Path = Path("runs/calibration")
    """Folder of the logits; what it holds is not computed again."""


def parts_of(name: str, options: Options, seed: int) -> Split:
    """Training rows of a seed, the same validation rows for all, and test rows."""
    if name == "goemotions":
        parts = load_parts(f"goemotions:{options.data / name}", layout=Layout(LISTS))
        sizes = {
            "train": (options.rows * 3 // 2, seed),
            "validation": (LISTS_HELD, 0),
            "test": (LISTS_HELD, 0),
        }
        drawn = [parts[part].sample(n=n, random_state=seed) for part, (n, seed) in sizes.items()]
        return Split(*(frame.reset_index(drop=True) for frame in drawn))
    split = split_by(name, options.data, seed)
    train = few_labels(split.train, options.rows, seed)
    return Split(train, few_labels(split.validation, HELD, 0), few_labels(split.test, HELD, 0))


def logits_of(name: str, options: Options, seed: int) -> Logits:
    """Logits and targets of validation and test rows, of ``--preset quick``."""
    path = options.logits / f"{name}-{options.rows}-{seed}.npz"
    if not path.exists():
        task = "multi" if name == "goemotions" else "single"
        own = {"task": task, "seed": seed, "device": "cpu", "eval_freq": 10**6, "preset": "quick"}
        setup = prepare(parts_of(name, options, seed), resolve(TrainConfig.of(max_length=MAX_LENGTH, **own)))
        trainer = trainer_of(setup)
        carry_out(trainer)
        found = {}
        for part in ("validation", "test"):
            found[f"{part}_logits"] = dataset_logits(
                trainer.model, setup.datasets[part], setup.device
            ).numpy()
            found[f"{part}_targets"] = setup.datasets[part].targets.numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **found)
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def temperature(logits: np.ndarray, targets: np.ndarray, low: float) -> float:
    """That of the smallest log loss, e**low at least."""
    from scipy.optimize import minimize_scalar

    def loss(x: float) -> float:
        return log_loss(logits / np.exp(x), targets)

    return float(np.exp(minimize_scalar(loss, bounds=(low, 3), method="bounded").x))


def log_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    from scipy.special import log_softmax

    return -log_softmax(logits.astype(float), axis=1)[np.arange(len(targets)), targets].mean()


def rules() -> dict[str, Callable[[np.ndarray, np.ndarray], float]]:
    """Name -> (logits, targets) of the rows to fit on -> temperature."""

    def with_errors(fewest: int) -> Callable[[np.ndarray, np.ndarray], float]:
        return lambda z, y: temperature(z, y, 0) if (z.argmax(axis=1) != y).sum() >= fewest else 1.0

    found = {"none": lambda z, y: 1.0, "any temperature": lambda z, y: temperature(z, y, -3)}
    found["1 or more"] = lambda z, y: temperature(z, y, 0)
    return found | {f"1 or more, from {n} errors": with_errors(n) for n in (5, 10, 20)}


def rule_table(options: Options) -> str:
    """Each rule over all sets of one class a text, sizes and seeds: means, and the largest loss of a draw."""
    from scipy.special import softmax

    random, each = np.random.RandomState(0), {name: [] for name in rules()}
    for name in (name for name in options.sets if name != "goemotions"):
        for seed in options.seeds:
            found = logits_of(name, options, seed)
            z, y = found["validation_logits"], found["validation_targets"]
            for n in SIZES:
                for _ in range(DRAWS):
                    fit, judge = np.split(random.permutation(len(y)), [n])
                    plain = log_loss(z[judge], y[judge])
                    for rule, choose in rules().items():
                        scaled = z[judge].astype(float) / choose(z[fit], y[fit])
                        loss, p = log_loss(scaled, y[judge]), softmax(scaled, axis=1)
                        each[rule].append((calibration_scores(y[judge], p)["ece"], loss, loss - plain))
    lines = [["temperature", "ECE %", "log loss", "largest harm"]]
    for rule, rows in each.items():
        ece, loss, harm = zip(*rows, strict=True)
        lines.append([rule, f"{100 * fmean(ece):.1f}", f"{fmean(loss):.3f}", f"{max(harm):+.3f}"])
    return markdown(lines)


def test_table(options: Options) -> str:
    """The calibration error on test rows, before and after, with the intervals of the first seed."""
    from scipy.special import expit, softmax

    lines = [
        [
            "",
            "seed",
            "wrong on validation",
            "temperature",
            "ECE % [95 %] before",
            "after",
            "log loss before",
            "after",
        ]
    ]
    for name in options.sets:
        for seed in options.seeds:
            found, several = logits_of(name, options, seed), name == "goemotions"
            p = {part: found[f"{part}_logits"].astype(float) for part in ("validation", "test")}
            p = {part: expit(z) if several else softmax(z, axis=1) for part, z in p.items()}
            y = {part: found[f"{part}_targets"] for part in p}
            calibration = fit_calibration(y["validation"], p["validation"])
            after = p["test"] if calibration is None else calibration.outputs(p["test"], several)
            temperatures = (1.0,) if calibration is None else calibration.temperatures
            given = p["validation"] >= 0.5 if several else p["validation"].argmax(axis=1)
            scores = [calibration_scores(y["test"], x) for x in (p["test"], after)]
            ece = [
                f"{100 * s['ece']:.1f} [{100 * s['ece_low']:.1f}, {100 * s['ece_high']:.1f}]" for s in scores
            ]
            spread = sorted({f"{t:.2f}" for t in (min(temperatures), max(temperatures))})
            wrong = f"{(given != y['validation']).sum():,} of {given.size:,}"
            loss = [f"{s['log_loss']:.3f}" for s in scores]
            lines.append([name, str(seed), wrong, " to ".join(spread), *ece, *loss])
    return markdown(lines)


def run(options: Options) -> None:
    """Measure what is missing, and print both tables."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    for seed in options.seeds:
        for name in options.sets:
            logits_of(name, options, seed)
            print(f"{name}, seed {seed}: done", flush=True)
    print(f"\n{rule_table(options)}\n\n{test_table(options)}")


if __name__ == "__main__":
    cli.run(Options, run)
