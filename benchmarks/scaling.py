"""python -m benchmarks.scaling: what training and classifying cost as the data grows.

Without ``--corpus``, one epoch of ``--model``: each size runs in a process of its own, the frozen blocks once
over every text, one epoch on their output, and a tenth as many texts to validate on. The texts are those of
the collection, repeated, each with its number behind it, so that no two are equal.

With ``--corpus``, files of JSON lines that have a ``text``: the whole ``train`` and ``classify`` over
distinct sentences and messages of 5 to 60 tokens, the label of each made by a rule; CPU seconds and the heap
of every stage, each size in processes of its own.

Time a text should stay flat, and beyond ``--cache-budget`` memory too.
"""

import csv
import gzip
import json
import lzma
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from benchmarks import ours, setup
from benchmarks.measure import Row, Stopwatch, anonymous_mib, peak_mib, report, run_alone
from benchmarks.nano_plots import DASHES, MARKERS, panels
from gptcls.classify.run import ClassifyConfig, classify
from gptcls.common import cli
from gptcls.core.errors import InputError
from gptcls.core.loop import Curves, Trainer
from gptcls.core.tokenizer import GPT2
from gptcls.data.same_text import text_key
from gptcls.data.sources import labelled_frame, load_data
from gptcls.data.split import Split
from gptcls.evaluation.style import CYCLE
from gptcls.train.config import TrainConfig
from gptcls.train.run import train
from gptcls.train.setup import make_loaders, prepare, stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTHS = range(5, 61)  # tokens
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
SPEAKER = re.compile(r"\b(i|me|my|we)\b", re.IGNORECASE)
LISTENER = re.compile(r"\b(you|your|u)\b", re.IGNORECASE)
STAGES = {  # what a stage is made of, by command; what is inside of another is not counted twice
    "train": {
        "gptcls.train.rows.load_parts": "reading",
        "gptcls.train.rows.settle": "repeats",
        "gptcls.train.rows.make_split": "splitting",
        "gptcls.train.setup.encode_split": "tokens",
        "gptcls.fast.features.FeatureCache.datasets": "frozen pass",
        "gptcls.core.loop.Trainer.fit": "epochs",
        "gptcls.train.run._look": "scoring",
        "gptcls.train.run._score": "scoring",
        "gptcls.train.run._frozen_vectors": "baselines",
        "gptcls.evaluation.baselines.Baselines.scores": "baselines",
        "gptcls.train.run.save_split": "writing",
        "gptcls.train.run.write_run": "writing",
    },
    "classify": {
        "gptcls.classify.run.classify_file": "reading",
        "gptcls.classify.predict.TextDataset": "tokens",
        "gptcls.classify.predict.dataset_logits": "network",
        "gptcls.classify.run.with_answers": "writing",
        "gptcls.data.writer.ChunkWriter._without_formulas": "writing",
    },
}
SAMPLER = """
import sys, time
while True:
    resident, shared = map(int, open(f"/proc/{sys.argv[1]}/statm").read().split()[1:3])
    print(time.perf_counter(), resident - shared, flush=True)
    time.sleep(0.01)
"""


class Stages:
    """The CPU seconds and the largest heap, in MiB, of each stage of a command that runs in this process.
    Another process looks at the heap (memory that belongs to no file), since much of the work holds Python's
    lock."""

    def __init__(self, functions: Mapping[str, str]) -> None:
        self.seconds: Counter = Counter()
        self.spans = [(time.perf_counter(), "start")]
        self.since = 0.0
        for path, name in functions.items():
            home, attribute = _home_of(path)
            setattr(home, attribute, self._timed(getattr(home, attribute), name))

    def _timed(self, function: Callable, name: str) -> Callable:
        @wraps(function)
        def timed(*given, **options):
            outer = self.spans[-1][1]
            self._turn_to(name)
            try:
                return function(*given, **options)
            finally:
                self._turn_to(outer)

        return timed

    def _turn_to(self, name: str) -> None:
        now = time.process_time()
        self.seconds[self.spans[-1][1]] += now - self.since
        self.since = now
        self.spans.append((time.perf_counter(), name))

    def of(self, work: Callable[[], object]) -> dict[str, dict[str, float]]:
        """Do the work."""
        with tempfile.TemporaryFile("w+") as file:
            command = [sys.executable, "-c", SAMPLER, str(os.getpid())]
            with subprocess.Popen(command, stdout=file) as sampler:
                try:
                    work()
                finally:
                    self._turn_to("end")
                    sampler.kill()
            file.seek(0)
            samples = [tuple(map(float, line.split())) for line in file if line.endswith("\n")]
        begins, heaps, page = [moment for moment, _ in self.spans], {}, os.sysconf("SC_PAGE_SIZE") / 2**20
        for moment, pages in samples:
            name = self.spans[max(0, bisect(begins, moment) - 1)][1]
            heaps[name] = max(heaps.get(name, 0.0), pages * page)
        return {"seconds": dict(self.seconds), "heap_mib": heaps}


def _home_of(path: str) -> tuple[object, str]:
    """The module or class that a dotted name is an attribute of, and its own name."""
    home, _, attribute = path.rpartition(".")
    try:
        return import_module(home), attribute
    except ModuleNotFoundError:
        outer, name = _home_of(home)
        return getattr(outer, name), attribute


@dataclass(frozen=True, kw_only=True)
class Options(setup.Options):
    """What more and more texts cost."""

    sizes: tuple[int, ...] = ()
    """Training texts; with --corpus all texts. By default 1,000 to 10,000 and 6,000 to 100,000."""
    only: int | None = None
    """Run this size alone and print its figures as a line of JSON."""
    cache_budget: float = 2.0
    """With --corpus or --only: GiB of features in memory; 0 puts them all into a file."""
    corpus: tuple[Path, ...] = ()
    """JSON lines with a text each, .gz or .xz: train and classify as whole commands over their sentences."""
    verb: Literal["train", "classify"] = "train"
    """With --corpus and --only: which of the two."""
    rows: Path | None = None
    """With --corpus and --only: the texts and labels, made before."""
    out: Path | None = None
    """With --corpus and --only: where train leaves its classifier and classify finds it."""
    epochs: int = 1
    """With --corpus: passes over the training rows."""
    picture: Path | None = None
    """With --corpus: a file to draw it in."""


def texts_in(files: Sequence[Path], count: int) -> Iterator[str]:
    """``count`` different sentences and lines of 5 to 60 tokens, drawn from all that the files hold."""
    random.seed(setup.SEED)
    opened = {".gz": gzip.open, ".xz": lzma.open}
    pieces: list[str] = []
    for path in files:
        with opened.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            texts = (json.loads(line)["text"] for line in file)
            pieces += (piece.strip() for text in texts for piece in SENTENCE_END.split(text))
    random.shuffle(pieces)
    seen: set[str] = set()
    for piece in pieces:
        if (key := text_key(piece)) not in seen and len(GPT2.encode(piece)) in LENGTHS:
            seen.add(key)
            yield piece
            if len(seen) == count:
                return
    raise InputError(f"--corpus holds {len(seen):,} texts of {count:,}: name more files")


def label_of(text: str) -> str:
    """Whom it speaks of."""
    speaker, listener = SPEAKER.search(text), LISTENER.search(text)
    return ("both" if listener else "speaker") if speaker else "listener" if listener else "others"


def grown(options: Options) -> dict[str, object]:
    """The stages of one command on one size."""
    stages = Stages(STAGES[options.verb])
    if options.verb == "train":
        shared = {"train": "last_block", "epochs": options.epochs, "batch_size": 32}
        shared["cache_budget"] = options.cache_budget
        config = TrainConfig.of(data=str(options.rows), model=options.model, out=options.out, **shared)
        found = stages.of(lambda: train(config))
    else:
        labelled = options.rows.with_name("labelled.csv")
        config = ClassifyConfig(model=str(options.out), data=options.rows, out=labelled)
        found = stages.of(lambda: classify(config))
    return found | {"peak_mib": peak_mib()}


def numbered_rows(data: Path, count: int) -> Split:
    """``count`` training rows and a tenth as many for validation and test, all different."""
    frame = load_data(data)
    n_more = max(2, count // 10)
    picked = frame.iloc[[i % len(frame) for i in range(count + n_more)]]
    texts = [f"{text} {i}" for i, text in enumerate(picked["text"])]
    rows = labelled_frame(texts, picked["label"].tolist())
    return Split(rows[:count], rows[count:], rows[count:])


def alone(options: Options, weights: Path) -> dict[str, float | None]:
    """Seconds and memory of one size."""
    cpu = torch.device("cpu")
    split = numbered_rows(options.data, options.only)
    config = ours.config_for(weights, 1, 8, "auto", options.cache_budget)
    setup = prepare(split, config)
    config = setup.config
    task, datasets = setup.saved.task, setup.datasets
    with Stopwatch() as frozen:
        network, features = stage(setup.saved.model, datasets, config, cpu)
    with Stopwatch() as epoch:
        loaders = make_loaders(features, config)
        curves = Curves(loaders["validation"], config.fit.eval_freq, config.fit.eval_iter, full=True)
        Trainer(network, task, loaders["train"], config.fit.settings, cpu, [curves]).fit()
    tokens = sum(datasets["train"].lengths) + sum(datasets["validation"].lengths)
    return {
        "frozen": frozen.seconds,
        "epoch": epoch.seconds,
        "tokens": tokens,
        "peak_mib": peak_mib(),  # with the file's pages that are in memory at the time
        "heap_mib": anonymous_mib(),
    }


def row_for(size: int, where: str, figures: dict[str, float | None]) -> Row:
    """A line of the table."""
    seconds = figures["frozen"] + figures["epoch"]
    note = f"frozen pass {figures['frozen']:.1f} s, epoch {figures['epoch']:.1f} s"
    if figures["heap_mib"] is not None:
        note += f"; {figures['heap_mib']:,.0f} MiB at the end without mapped files"
    return Row(
        f"{size:,} texts, features {where}",
        seconds,
        seconds_per_1k=1000 * seconds / size,
        tokens_per_second=figures["tokens"] / figures["frozen"],
        peak_mib=figures["peak_mib"],
        note=note,
    )


def growth(options: Options, folder: Path) -> None:
    """Both commands on every size, as a table and, with --picture, drawn."""
    sizes = options.sizes or (6000, 25_000, 100_000)
    texts, found = list(texts_in(options.corpus, max(sizes))), {verb: {} for verb in STAGES}
    for size in sizes:
        with (rows := folder / f"{size}.csv").open("w", newline="", encoding="utf-8") as file:
            lines = ((text, label_of(text)) for text in texts[:size])
            csv.writer(file).writerows([("text", "label"), *lines])
        shared = [
            f"--only={size}",
            f"--rows={rows}",
            f"--out={folder / str(size)}",
            f"--model={options.model}",
        ]
        shared += [f"--cache-budget={options.cache_budget}", f"--epochs={options.epochs}"]
        for verb in STAGES:
            arguments = [f"--verb={verb}", *shared, "--corpus", *map(str, options.corpus)]
            found[verb][size] = run_alone("benchmarks.scaling", *arguments)
    for verb, figures in found.items():
        print(f"\n{verb}: CPU ms a text\n\n{growth_table(figures)}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.picture is not None:
        growth_picture(found).savefig(options.picture, dpi=100)


def milliseconds(size: int, figures: dict) -> dict[str, float]:
    """What each stage takes for a text, and ``"all"``, without the start and the rest."""
    each = {name: 1000 * spent / size for name, spent in figures["seconds"].items() if name != "start"}
    return {"all": sum(each.values())} | each


def growth_table(figures: dict[int, dict]) -> str:
    """Of one command by the number of texts, in Markdown."""
    stages = list(dict.fromkeys(name for each in figures.values() for name in milliseconds(1, each)))
    heads = ["texts", *stages, "start and rest, s", "heap, MiB", "most in", "with mapped files"]
    lines = [heads, ["---:"] * len(heads)]
    for size, each in figures.items():
        spent, where = milliseconds(size, each), max(each["heap_mib"], key=each["heap_mib"].__getitem__)
        cells = [f"{size:,}", *(f"{spent.get(name, 0):.2f}" for name in stages)]
        cells += [f"{each['seconds']['start']:.1f}", f"{each['heap_mib'][where]:,.0f}", where]
        lines.append([*cells, f"{each['peak_mib']:,.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def growth_picture(found: dict[str, dict[int, dict]]) -> "Figure":
    """Time a text and the heap, by the number of texts."""
    figure, (time_of, heap_of) = panels(2, height=3.2)
    sizes = sorted({size for figures in found.values() for size in figures})
    for number, (verb, figures) in enumerate(found.items()):
        style = {"color": CYCLE[number], "marker": MARKERS[number], "ls": DASHES[number], "label": verb}
        time_of.plot(list(figures), [milliseconds(n, each)["all"] for n, each in figures.items()], **style)
        heap_of.plot(list(figures), [max(each["heap_mib"].values()) for each in figures.values()], **style)
    for axes, what in ((time_of, "CPU ms a text"), (heap_of, "largest heap, MiB")):
        axes.set_xscale("log")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set(xlabel="texts", ylabel=what, ylim=(0, 1.15 * axes.get_ylim()[1]))
    time_of.legend(frameon=False)
    return figure


def run(options: Options) -> None:
    """All sizes, or one."""
    if options.corpus and options.only is not None:
        print(json.dumps(grown(options)))
        return
    if options.corpus:
        with tempfile.TemporaryDirectory() as folder:
            growth(options, Path(folder))
        return
    load_data(options.data)  # a wrong path is said at once
    with setup.workspace(options) as (_, weights):
        if options.only is not None:
            print(json.dumps(alone(options, weights)))
            return
        shared = options.arguments(weights.resolve())
        rows = []
        for where, budget in (("in memory", 2.0), ("on disk", 0.0)):
            for size in options.sizes or (1000, 3000, 10_000):
                arguments = ["--only", str(size), "--cache-budget", str(budget), *shared]
                rows.append(row_for(size, where, run_alone("benchmarks.scaling", *arguments)))
        title = f"One epoch of {options.model}, last block, as the data grows"
        report(title, rows, {}, asdict(options), options.json)


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
