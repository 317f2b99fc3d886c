"""python -m benchmarks.tasks: every kind of task on real data, and TF-IDF on the same split.

Each score is the mean over the seeds, and so are the ends of its 95 % interval (Wilson's for accuracies, the
bootstrap over test texts for F1s); the difference to TF-IDF has that of the paired one, text by text. A seed
decides what is drawn for validation (and for testing, where a data set has no test part of its own), the
head, random weights and the shuffling. A last table shows what class weights and undersampling do to the
recall of spam at its natural rate.
"""

import contextlib
import json
import logging
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.datasets import SETS
from benchmarks.measure import ROOT, machine
from gptcls.common import cli
from gptcls.core.gpt2 import PRESETS
from gptcls.data.corpora import CORPORA, load_parts
from gptcls.data.labels import ONE_CLASS, Layout
from gptcls.evaluation.baselines import TFIDF
from gptcls.evaluation.table import DIFFERENCE, MISSING
from gptcls.train.config import TrainConfig
from gptcls.train.presets import Preset
from gptcls.train.run import Run, train

IMBALANCE = "imbalance"


@dataclass(frozen=True)
class Contest:
    """A data set and what is compared on it."""

    folder: str  # below --data-root
    what: str
    scores: tuple[str, ...]  # of classification_scores or multilabel_scores, those with an interval
    note: str = ""


CONTESTS = {
    "trec6": Contest("trec6", "TREC-6, questions", ("accuracy", "f1")),
    "goemotions": Contest(
        "goemotions",
        "GoEmotions, 28 labels",
        ("macro_f1", "micro_f1"),
        "macro-F1 of BERT-base in its paper: 0.46",
    ),
    "thucnews": Contest("thucnews", "THUCNews, titles", ("accuracy", "f1")),
    "chnsenticorp": Contest("chnsenticorp", "ChnSentiCorp, hotel reviews", ("accuracy",)),
    "rt_polarity": Contest("rt_polarity", "film reviews of one sentence", ("accuracy",)),
}
NAMES = {"accuracy": "accuracy", "f1": "macro-F1", "macro_f1": "macro-F1", "micro_f1": "micro-F1"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Real data for every task, with seeds, intervals and a TF-IDF baseline on the same split."""

    data_root: Path = ROOT.parent / "shared" / "data"
    """Folder with the data sets' folders: trec6, goemotions, thucnews, chnsenticorp, rt_polarity, sms."""
    model: str = "gpt2-nano"
    """Model, as for gptcls.train."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Start from the model's pretrained weights or from random ones."""
    preset: Preset = "balanced"
    """What the options below are where they are not given, as for gptcls.train."""
    train: str | None = None
    """What is trained, as for gptcls.train."""
    pooling: Literal["auto", "last", "first", "mean", "max"] | None = None
    """What the head reads, as for gptcls.train."""
    epochs: int | None = None
    """Passes over the training rows, as for gptcls.train."""
    lr: float | None = None
    """Learning rate, as for gptcls.train."""
    batch_size: int | None = None
    """Texts per batch, as for gptcls.train."""
    max_length: int | None = None
    """Tokens kept of each text."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One run of each for every line."""
    only: tuple[
        Literal["trec6", "goemotions", "thucnews", "chnsenticorp", "rt_polarity", "imbalance"], ...
    ] = ()
    """Do these alone."""
    rows: int | None = None
    """Keep at most so many rows of each part, drawn at random: to try the program out."""
    json: Path | None = None
    """Also write every score of every run to this file."""


def settings(options: Options) -> dict:
    """What all runs have in common, for TrainConfig."""
    names = (
        "model", "init", "preset", "train", "pooling", "epochs", "lr", "batch_size", "max_length", "device",
    )  # fmt: skip
    return {name: getattr(options, name) for name in names}


@contextlib.contextmanager
def data_of(name: str, options: Options) -> Iterator[dict[str, object]]:
    """The options that name a data set and its task.

    What ``gptcls train`` does not read by name, and with ``--rows`` all, are files in a temporary folder.
    """
    source, corpus = f"{name}:{options.data_root / CONTESTS[name].folder}", CORPORA.get(name)
    kind = corpus.kind if corpus else ONE_CLASS
    if corpus and options.rows is None:
        yield {"data": source, "task": kind.task}
        return
    parts = load_parts(source, layout=Layout(kind)) if corpus else SETS[name].read(options.data_root)
    with tempfile.TemporaryDirectory() as folder:
        files, known = {}, set()
        for part, frame in parts.items():
            drawn = frame.sample(min(options.rows or len(frame), len(frame)), random_state=0)
            names = [set(kind.names(label)) for label in drawn["label"]]
            known = known or set().union(*names)  # train comes first; what it lacks cannot be scored
            files[part] = Path(folder) / f"{part}.jsonl"
            kept = drawn[[each <= known for each in names]]
            kept.to_json(files[part], orient="records", lines=True, force_ascii=False)
        yield {"data": str(files.pop("train")), "task": kind.task, **files}


def runs_of(config: dict, options: Options) -> list[Run]:
    """A run of each seed; their folders do not stay."""
    runs = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(
                train(TrainConfig.of(**settings(options), **config, seed=seed, out=Path(folder) / "run"))
            )
    return runs


def with_interval(scores: list[dict], name: str) -> str:
    """ "82.4 [79.0, 85.5]": means over the runs, in per cent."""
    ends = ([each.get(name + end) for each in scores] for end in ("", "_low", "_high"))
    mean, low, high = (None if None in values else 100 * statistics.fmean(values) for values in ends)
    if mean is None:
        return MISSING
    return f"{mean:.1f}" if low is None or high is None else f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def each_seed(scores: list[dict], name: str) -> str:
    """The single runs, in per cent."""
    return ", ".join(MISSING if each[name] is None else f"{100 * each[name]:.1f}" for each in scores)


def weights_of(run: Run) -> str:
    """Which weights a run began with."""
    base = run.classifier.base
    if base is None:
        return f"{run.classifier.training['model']}, random"
    name = base["name"] if base["name"] in PRESETS else Path(base["name"]).name
    return f"{name}, pretrained ({base['sha256'][:8]})"


def contest_lines(name: str, runs: list[Run]) -> list[list[str]]:
    """The lines of a data set: one a score."""
    contest, lines = CONTESTS[name], []
    ours = [run.scores["test"] for run in runs]
    theirs = [run.baselines[TFIDF]["test"] for run in runs]
    for score in contest.scores:
        lines.append(
            [
                contest.what,
                f"{ours[0]['n']:,}",
                NAMES[score],
                with_interval(ours, score),
                each_seed(ours, score),
                with_interval(theirs, score),
                with_interval([each[DIFFERENCE] for each in theirs], score),
                contest.note if "macro_f1" in score else "",
            ]
        )
    return lines


def imbalance_lines(options: Options) -> tuple[list[list[str]], list[Run]]:
    """Precision and recall of spam as it comes, with class weights, and undersampled."""
    lines, runs = [], []
    for balance in ("none", "weights", "undersample"):
        config = {"data": str(options.data_root / "sms" / "SMSSpamCollection"), "balance": balance}
        found = runs_of(config | {"positive": "spam"}, options)
        scores = [run.scores["test"] for run in found]
        shown = [with_interval(scores, name) for name in ("recall", "precision", "f1", "accuracy")]
        lines.append([balance, *shown, each_seed(scores, "recall")])
        runs += found
    return lines, runs


def table(head: list[str], lines: list[list[str]]) -> str:
    """Lines in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines])


def run(options: Options) -> None:
    """Train everything that is asked for, and print the tables."""
    logging.getLogger("gptcls").setLevel(logging.INFO)
    names = options.only or (*CONTESTS, IMBALANCE)
    lines, everything, runs = [], {}, []
    for name in [name for name in names if name in CONTESTS]:
        with data_of(name, options) as config:
            runs = runs_of(config, options)
        lines += contest_lines(name, runs)
        everything[name] = [{"scores": run.scores["test"], "baselines": run.baselines} for run in runs]
    if lines:
        trained = runs[0].classifier.training["train"]
        print(
            f"Weights: {weights_of(runs[0])}; trained: {trained}. Per cent, means over {len(runs)} seeds.\n"
        )
        head = [
            "data",
            "test texts",
            "score",
            "gptcls [95 % CI]",
            "each seed",
            "TF-IDF [95 % CI]",
            "difference",
            "",
        ]
        print(table(head, lines), "\n")
    if IMBALANCE in names:
        lines, runs = imbalance_lines(options)
        print(f"SMS Spam Collection, 13 % spam. Weights: {weights_of(runs[0])}. Means over the seeds.\n")
        head = ["--balance", "recall of spam", "precision", "F1", "accuracy [95 % CI]", "recall, each seed"]
        print(table(head, lines))
        everything[IMBALANCE] = [{"scores": run.scores["test"]} for run in runs]
    if options.json is not None:
        content = {"machine": machine(), "seeds": options.seeds, "settings": settings(options)} | everything
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
