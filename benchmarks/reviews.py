"""python -m benchmarks.reviews: the book's study of film reviews, and what each way costs in time and memory.

Raschka, *Build a Large Language Model From Scratch*, bonus material of chapter 6, "Additional Experiments
Classifying the Sentiment of 50k IMDB Movie Reviews": one epoch over 35,000 reviews, on a GPU. Give the
reviews as files of one's own (``--train``, ``--test``: a text and a label column); without, these are the
film reviews at hand. Networks of the size of GPT-2 and BERT with random weights show time and memory on some
steps, and no score; ``--models`` names pretrained ones, whose runs are whole. Each has a process of its own.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.datasets import DATA, SETS, SETTINGS_SEED, few_labels, split_parts
from benchmarks.measure import machine, peak_mib, run_alone, scaled
from benchmarks.over_seeds import markdown
from benchmarks.setup import random_weights
from gptcls.classify.predict import ready
from gptcls.common import cli
from gptcls.common.hardware import pick_device
from gptcls.common.log import unlogged
from gptcls.core.errors import InputError
from gptcls.core.loop import Hook, Trainer
from gptcls.data.sources import load_data
from gptcls.data.split import Split, drop_duplicates, make_split
from gptcls.evaluation.baselines import tfidf_baseline
from gptcls.evaluation.intervals import wilson_interval
from gptcls.models.bert import Bert, BertConfig
from gptcls.models.bert_files import BERT
from gptcls.models.pretrained import weights_sha256
from gptcls.train.config import TrainConfig
from gptcls.train.hooks import BestWeights
from gptcls.train.resolve import resolve
from gptcls.train.run import fit_classifier, trainer_of
from gptcls.train.setup import prepare, stage

WORDS, NANO, SMALL, BASE = "logistic regression", "gpt2-nano", "gpt2-small", "bert-base"
# Test accuracy on IMDb in percent: github.com/rasbt/LLMs-from-scratch, ch06/03_bonus_imdb-classification.
PUBLISHED = {(WORDS, ""): 88.85, (SMALL, "all"): 91.88, (BASE, "all"): 90.89}
BATCH = 8  # the study's
NO_SCORE = "random weights: none"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Logistic regression, gpt2-nano, networks as large as GPT-2 and BERT, pretrained ones that one has."""

    train: Path | None = None
    """File of training reviews, such as IMDb's 25,000; otherwise a part of --data."""
    test: Path | None = None
    """File of test reviews."""
    data: Literal["movie-reviews", "rt_polarity"] = "movie-reviews"
    """Where no files are given: 2,000 long film reviews, or 10,662 of one sentence."""
    folder: Path = DATA
    """Where these lie."""
    models: tuple[str, ...] = ()
    """Pretrained networks to train and score: names on the hub, presets, or local folders."""
    sizes: tuple[Literal["gpt2-small", "bert-base"], ...] = ("gpt2-small", "bert-base")
    """Networks with random weights to measure time and memory with."""
    trained: tuple[str, ...] = ("last_block", "all")
    """What of them is trained, and of --models."""
    max_length: int = 256
    """Tokens read of a review, as in the study."""
    epochs: int = 1
    """Passes of these networks over the training rows; gpt2-nano's are its preset's."""
    lr: float = 5e-5
    """Learning rate of --models."""
    steps: int = 3
    """Steps, and batches of answers, that random weights are timed on, behind one that does not count."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    json: Path | None = None
    """Also write what was measured to this file."""
    alone: str | None = None
    """One contestant, as a JSON list of its name and what is trained, printed as a line of JSON."""
    weights: Path | None = None
    """Its random weights."""

    def arguments(self) -> list[str]:
        """The options that a contestant alone in a process needs, for its command line."""
        own = [f"--data={self.data}", f"--folder={self.folder.resolve()}", f"--device={self.device}"]
        own += [f"--{name}={path.resolve()}" for name in ("train", "test") if (path := getattr(self, name))]
        names = ("max_length", "epochs", "lr", "steps")
        return own + [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in names]


def rows_of(options: Options) -> Split:
    """The reviews: of the files 10 % of the training rows are for validation."""
    if options.train is None:
        with unlogged():
            return split_parts(SETS[options.data].read(options.folder), SETTINGS_SEED)
    train, test = (load_data(path) for path in (options.train, options.test))
    with unlogged():
        return make_split(drop_duplicates(train), test=test, seed=SETTINGS_SEED)


def words(split: Split, clock: Callable[[], float]) -> dict[str, Any]:
    """TF-IDF of words and logistic regression."""
    model, started = tfidf_baseline(texts=split.train["text"].tolist()), clock()
    model.fit(split.train["text"], split.train["label"])
    trained = clock()
    answers = model.predict(split.test["text"])
    found = {"training": trained - started, "answers": clock() - trained, "parameters": model[-1].coef_.size}
    return found | {"right": int((answers == split.test["label"]).sum())}


def whole(split: Split, config: TrainConfig, clock: Callable[[], float]) -> dict[str, Any]:
    """A network trained to the end, and all test texts answered."""
    started = clock()
    saved = fit_classifier(split, config)
    seconds = clock() - started
    parameters = sum(p.numel() for p in saved.model.trained_parameters().values())
    classifier = ready(saved, pick_device(config.run.device), "auto")
    started = clock()
    answers = classifier.predict(split.test["text"].tolist())
    found = {"training": seconds, "answers": clock() - started, "parameters": parameters}
    return found | {"right": int(np.equal(answers, split.test["label"].tolist()).sum())}


class Clock(Hook):
    """When each step ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.ends = clock, []

    def on_step(self, trainer: Trainer) -> None:
        self.ends.append(self.clock())


def part(split: Split, config: TrainConfig, clock: Callable[[], float], steps: int) -> dict[str, Any]:
    """A network of random weights on some steps, scaled to all."""
    few = few_labels(split.train, BATCH * (1 + steps), SETTINGS_SEED)
    texts = few_labels(split.test, BATCH * (1 + steps), SETTINGS_SEED)
    setup = prepare(Split(few, few[:BATCH], few[:BATCH]), config)
    parameters = sum(p.numel() for p in setup.saved.model.trained_parameters().values())
    started = clock()
    setup.network, setup.datasets = stage(setup.saved.model, setup.datasets, setup.config, setup.device)
    a_text = (clock() - started) / len(few) if setup.saved.model.frozen_blocks else 0.0  # repeats run once
    trainer, timer = trainer_of(setup), Clock(clock)
    trainer.hooks = [*(hook for hook in trainer.hooks if isinstance(hook, BestWeights)), timer]
    trainer.fit()
    n, epochs = len(split.train), setup.config.fit.epochs
    a_step = np.diff(timer.ends[: 1 + steps]).tolist()
    seconds = a_text * (n + len(split.validation)) + scaled(a_step, epochs * math.ceil(n / BATCH))
    classifier, times = ready(setup.saved, setup.device, "auto"), []
    for first in range(0, len(texts), BATCH):
        started = clock()
        classifier.predict(texts["text"].tolist()[first : first + BATCH])
        times.append((clock() - started) / BATCH)
    return {"training": seconds, "answers": fmean(times[1:]) * len(split.test), "parameters": parameters}


def measured(options: Options) -> dict[str, Any]:
    """One contestant, in this process."""
    name, trained = json.loads(options.alone)
    split, device = rows_of(options), pick_device(options.device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    shared = {"device": options.device, "calibrate": "none", "max_length": options.max_length}
    own = {"train": trained, "epochs": options.epochs, "batch_size": BATCH, "lr": options.lr}
    with unlogged():
        if name == WORDS:
            found = words(split, clock)
        elif options.weights is not None:
            config = resolve(TrainConfig.of(model=str(options.weights), **shared, **own))
            found = part(split, config, clock, options.steps)
        else:
            own = {} if name == NANO else own
            found = whole(split, resolve(TrainConfig.of(model=name, **shared, **own)), clock)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else peak_mib()
    sizes = {part: len(frame) for part, frame in split.items()}
    return found | {"name": name, "trained": trained, "peak_mib": peak, "rows": sizes}


@contextmanager
def random_networks(options: Options) -> Iterator[dict[str, Path]]:
    """Folders of the networks that :attr:`Options.sizes` names, as they would come from a hub."""
    makers = {SMALL: partial(random_weights, SMALL), BASE: partial(_random_bert, options)}
    with tempfile.TemporaryDirectory() as folder:
        yield {name: makers[name](Path(folder) / name) for name in options.sizes}


def _random_bert(options: Options, folder: Path) -> Path:
    """A network of the sizes of bert-base-uncased; its tokenizer learnt these training texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    trainer = trainers.WordPieceTrainer(vocab_size=30_522, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(rows_of(options).train["text"], trainer)
    around = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(SETTINGS_SEED)
    sizes = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_positions": 512}
    network = Bert(BertConfig(**sizes, vocab_size=30_522, n_segments=2))
    save_file(BERT.to_theirs(network.state_dict()), folder / "model.safetensors", {"format": "pt"})
    declared = {
        "model_type": "bert", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "vocab_size": 30_522,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(declared), encoding="utf-8")
    return folder


def table(found: list[dict[str, Any]]) -> str:
    """
    >>> costs = {"training": 61.04, "answers": 4.0, "parameters": 14_183_424, "peak_mib": 1411.6}
    >>> print(table([{"name": "gpt2-small", "trained": "all", "rows": {"test": 200}} | costs]))
    |  | trained | parameters | test accuracy % | on IMDb | training, s | s per 1,000 texts | peak, MiB |
    | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
    | gpt2-small | all | 14,183,424 | random weights: none | 91.88 | 61.0 | 20.0 | 1,412 |
    """
    heads = ["trained", "parameters", "test accuracy %", "on IMDb", "training, s", "s per 1,000 texts"]
    lines = [["", *heads, "peak, MiB"]]
    for each in found:
        n, score = each["rows"]["test"], NO_SCORE
        if (right := each.get("right")) is not None:
            low, high = wilson_interval(right, n)
            score = f"{100 * right / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        published = PUBLISHED.get((each["name"], each["trained"]))
        line = [Path(each["name"]).name, each["trained"], f"{each['parameters']:,}", score]
        line += ["" if published is None else f"{published:.2f}", f"{each['training']:,.1f}"]
        lines.append([*line, f"{1000 * each['answers'] / n:.1f}", f"{each['peak_mib']:,.0f}"])
    return markdown(lines, words=2)


def run(options: Options) -> None:
    """All contestants, or one of them."""
    if options.alone:
        print(json.dumps(measured(options)))
        return
    if (options.train is None) != (options.test is None):
        raise InputError("--train and --test go together: give both files, or neither")
    if options.steps < 1:
        raise InputError(f"--steps {options.steps} is too small; use 1 or more")
    split = rows_of(options)  # a wrong path is said at once, not after minutes
    for model in options.models:
        weights_sha256(model)
    shared, found = options.arguments(), []
    with random_networks(options) as folders:
        contestants = [(WORDS, ""), (NANO, "preset")]
        contestants += [
            (name, trained) for name in (*folders, *options.models) for trained in options.trained
        ]
        for contestant in contestants:
            own = ["--weights", str(folders[contestant[0]])] if contestant[0] in folders else []
            done = run_alone("benchmarks.reviews", "--alone", json.dumps(contestant), *own, *shared)
            found.append(done)
            print(f"{' '.join(contestant).strip()}: training {done['training']:,.1f} s", flush=True)
            if options.json:
                options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    here, sizes = machine(), ", ".join(f"{len(frame):,} {part}" for part, frame in split.items())
    seconds = "CPU seconds" if pick_device(options.device).type == "cpu" else "Seconds"
    print(f"\n{table(found)}\n")
    print(
        f"{sizes} rows, {options.max_length} tokens of each; on IMDb: what the study gives. {seconds} on "
        f"{here['cpu']}, {here['threads']} threads; of random weights {options.steps} steps of {BATCH} "
        f"reviews, scaled to {options.epochs} passes over all."
    )


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
