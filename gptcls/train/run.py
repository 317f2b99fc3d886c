"""From a configuration to what the loop needs: rows, task, classifier, datasets, loaders.

python -m gptcls.train: from rows and pretrained weights to a classifier in a folder.

This is the one place where all rooms of the house are composed.
"""

import logging
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gptcls.classify.store import SavedClassifier, save_classifier
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.options import flag
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, bucket_loader, plain_loader
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.loop import FitSettings, NonFiniteLossError, Progress, StoppedError, Trainer, evaluate_loader
from gptcls.core.task import Task
from gptcls.core.tasks import TASKS
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.core.tokenizer import Tokenizer
from gptcls.data import book
from gptcls.data.clean import cleaned
from gptcls.data.corpora import load_parts
from gptcls.data.labels import Layout
from gptcls.data.long_texts import said_of_long
from gptcls.data.resample import oversample, undersample
from gptcls.data.sources import load_data
from gptcls.data.split import PARTS, Split, drop_duplicates, load_split, make_split, save_split, with_extra
from gptcls.evaluation import report
from gptcls.evaluation.judge import judge_of
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Autocast, Lower, Upper
from gptcls.fast.fused import FusedBlock
from gptcls.models.families import FAMILIES, family_name
from gptcls.models.lora import LoRAConfig, add_lora
from gptcls.models.pretrained import load_pretrained, load_tokenizer, weights_sha256
from gptcls.train import folder as runs
from gptcls.train.checkpoint import load_checkpoint, save_checkpoint, try_checkpoint
from gptcls.train.config import TrainConfig
from gptcls.train.resolve import task_options

log = logging.getLogger("gptcls")


RESAMPLERS = {"undersample": undersample, "oversample": oversample}


def read_split(config: TrainConfig) -> Split:
    """The rows to train, validate and test on."""
    columns, layout = (config.text_column, config.label_column), config.layout
    if config.recipe == "book":
        balanced = config.balance == "undersample"
        split = book.book_split(config.data, *columns, balanced=balanced, seed=config.seed)
        if config.balance == "oversample":
            split = replace(split, train=oversample(split.train, config.seed), plain=split.train)
        if len(split.train) < config.batch_size:  # its loader drops the incomplete batch
            raise InputError(
                f"--batch-size {config.batch_size} is larger than the {len(split.train)} training rows"
            )
        return split
    parts = load_parts(config.data, *columns, layout, config.dialect)
    for part, path in (("validation", config.validation), ("test", config.test)):
        fraction = f"{part}_fraction"
        if part in parts and getattr(config, fraction) != getattr(TrainConfig, fraction):
            raise InputError(f"--data {config.data} has a {part} part of its own; leave out {flag(fraction)}")
        if path is not None:
            parts[part] = load_data(str(path), *columns, layout, config.dialect)
    parts = {part: cleaned(frame, config.cleaning) for part, frame in parts.items()}
    split = make_split(
        drop_duplicates(parts.pop("train"), layout.kind),
        **parts,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        kind=layout.kind,
    )
    plain = split.train
    if config.extra is not None:
        extra = cleaned(load_data(config.extra, layout=Layout(layout.kind)), config.cleaning)
        split = with_extra(split, extra, config.extra, layout.kind)
    # From here on it is about training alone: the other parts stay what the classifier will meet.
    resample = RESAMPLERS.get(config.balance)
    train = split.train if resample is None else resample(split.train, config.seed)
    others = (*split.validation["text"], *split.test["text"])
    train = config.augmentation.of(train, others, config.seed)
    return split if train is plain else replace(split, train=train, plain=plain)


def make_task(split: Split, config: TrainConfig) -> Task:
    """The task that ``config`` names, over the labels of the training rows."""
    return TASKS[config.task].for_training(split.train["label"].tolist(), **task_options(config))


def choose_tokenizer(config: TrainConfig) -> Tokenizer:
    """The tokenizer of the weights that training starts from; random ones learn GPT-2's."""
    return GPT2_TOKENIZER if config.init == "random" else load_tokenizer(config.model)


def build_classifier(
    config: TrainConfig, task: Task, device: torch.device, tokenizer: Tokenizer = GPT2_TOKENIZER
) -> tuple[Classifier, dict | None]:
    """The classifier at the start of training, and the name and sha256 of its pretrained weights, if any."""
    torch.manual_seed(config.seed)
    if config.init == "random":
        if config.model not in PRESETS:
            raise InputError(f"--init random needs a preset ({', '.join(PRESETS)}), not {config.model!r}")
        log.info(f"{config.model}: random weights, no pretraining")
        backbone, base = GPT2(PRESETS[config.model]), None
    else:
        plain = config.no_cache or config.train == "all"  # everything in one number format
        dtype = torch.float32 if plain else pick_dtype(config.precision, device)
        backbone = load_pretrained(config.model, dtype)
        tokenizer.require_fit(config.model, backbone.config.vocab_size)
        local = config.model not in PRESETS and Path(config.model).exists()  # a preset comes first
        name = str(Path(config.model).resolve()) if local else config.model
        base = {"name": name, "sha256": weights_sha256(config.model)}
    if config.no_causal_mask:
        if not isinstance(backbone, GPT2):
            raise InputError(f"--no-causal-mask is for a GPT-2; {config.model} is a {family_name(backbone)}")
        backbone.drop_causal_mask()
    torch.manual_seed(config.seed)
    model = Classifier(backbone, task.n_outputs, choose_pooling(config, backbone))
    if config.train == "lora":
        lora = LoRAConfig(config.lora_rank, config.lora_alpha, config.lora_dropout)
        add_lora(model.backbone.blocks, lora, config.lora_targets, prefix="blocks")
    model.freeze(config.train)
    if config.cache and not model.frozen_blocks:
        raise InputError(
            f"--cache {config.cache} keeps what is frozen, and this run trains in every block; leave it out"
        )
    trained = sum(parameter.numel() for parameter in model.trained_parameters().values())
    everything = sum(parameter.numel() for parameter in model.parameters())
    log.info(f"{config.model}: training {config.train}, {trained:,} of {everything:,} parameters")
    return model.to(device), base


def choose_pooling(config: TrainConfig, backbone: nn.Module) -> str:
    """What the head reads: as configured, if the family can give that; for auto, what is usual in it."""
    family = family_name(backbone)
    poolings = FAMILIES[family].poolings
    if config.pooling == "auto":
        return poolings[0]
    if config.pooling not in poolings:
        raise InputError(
            f"--pooling {config.pooling} is nothing that {config.model} can give, as it is a {family}; "
            f"use {', '.join(poolings)}"
        )
    return config.pooling


def encode_split(
    split: Split,
    task: Task,
    config: TrainConfig,
    model: Classifier,
    tokenizer: Tokenizer = GPT2_TOKENIZER,
) -> tuple[dict[str, TextDataset], int, int | None]:
    """Each part as a dataset, the tokens kept of each text, and the length that all are padded to, if any."""
    n_positions = model.backbone.config.n_positions
    max_length, pad_to = config.max_length or n_positions, config.pad_to
    if max(max_length, pad_to or 0) > n_positions:
        raise InputError(f"{config.model} reads {n_positions} tokens; make --max-length and --pad-to smaller")
    max_length = min(max_length, pad_to or max_length)
    datasets = {}
    for part in PARTS:
        frame = getattr(split, part)
        targets = task.targets(frame["label"].tolist())
        dataset = TextDataset(
            frame["text"].tolist(), targets, max_length, tokenizer=tokenizer, long=config.long
        )
        if part == "train" and config.pooling == "position-1" and pad_to is None:
            pad_to = max_length = max(dataset.lengths)  # the book's length: the longest training text
        dataset.pad_to = pad_to
        if dataset.truncated:
            log.info(f"{part}: {said_of_long(dataset.truncated, max_length, config.long)}")
            if len(dataset) > len(frame):
                log.info(f"{part}: {len(dataset):,} windows of {len(frame):,} texts")
        datasets[part] = dataset
    return datasets, max_length, pad_to


def stage(
    model: Classifier, datasets: dict[str, TextDataset], config: TrainConfig, device: torch.device
) -> tuple[nn.Module, dict[str, Dataset]]:
    """What the loop trains, and on what: with frozen blocks, the rest of the model on their output."""
    dtype = pick_dtype(config.precision, device)
    depth = model.frozen_blocks
    network: nn.Module = model
    if depth and not config.no_cache:
        lower, network = Lower(model, depth, dtype), Upper(model, depth)
        if config.compile and not any(isinstance(block, FusedBlock) for block in lower.blocks):
            lower.compile(dynamic=True)
        cache = FeatureCache(config.cache, config.cache_budget * 2**30)
        datasets = cache.datasets(lower, datasets, device)
    if device.type == "cuda" and dtype == torch.bfloat16:  # fp16 gradients would need loss scaling
        network = Autocast(network, dtype)
    if config.compile:
        network.compile(dynamic=True)
    return network, datasets


def make_loaders(datasets: dict[str, Dataset], config: TrainConfig) -> list[DataLoader]:
    """Loaders for train, validation and test."""
    size = config.batch_size
    if config.recipe == "book":
        return [plain_loader(datasets[part], size, shuffle=part == "train") for part in PARTS]
    shuffled = bucket_loader(datasets["train"], size)
    return [shuffled, *(plain_loader(datasets[part], size) for part in PARTS[1:])]


RESULT = "classifier"  # the folder that a finished run leaves in its own


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, what it measured, and the classifier in memory."""

    folder: Path
    scores: dict[str, dict]  # part -> scores
    baselines: dict[str, dict[str, dict]]  # baseline -> part -> scores
    classifier: SavedClassifier
    progress: Progress


def train(config: TrainConfig) -> Run:
    """Train a classifier as ``config`` says and leave everything about it in the run's folder.

    Raises:
        InputError: something in the options or the data cannot be used; the line says what.
        KeyboardInterrupt: after Ctrl-C, once what is trained so far is saved.
    """
    if config.resume:
        (config, base_then, there), folder = runs.resumed(config), config.out
    else:
        config = config.resolved()
        folder = runs.new_folder(config.out, config.run_name, RESULT)
    device = pick_device(config.device)
    here = runs.environment(device, pick_dtype(config.precision, device))
    if config.resume:
        runs.warn_of_changes(there, here)
    split = load_split(folder / "split") if config.resume else read_split(config)
    task = make_task(split, config)
    tokenizer = choose_tokenizer(config)
    model, base = build_classifier(config, task, device, tokenizer)
    if config.resume and base != base_then:
        raise InputError(
            f"{config.model} no longer has the weights that {folder} was started from; put them back"
        )
    full = _store_everything(config, base)
    datasets, max_length, pad_to = encode_split(split, task, config, model, tokenizer)
    if not config.resume:
        folder = runs.claim(folder, config.out, config.run_name, RESULT)
        save_split(split, folder / "split")
        runs.write_config(folder, config, base, here)
    network, datasets = stage(model, datasets, config, device)
    loaders = make_loaders(datasets, config)

    for part in PARTS:
        labels = getattr(split, part)["label"].tolist()
        log.info(f"{part}: {len(labels):,} texts, {judge_of(task).summary(labels)}")
    before = {}
    torch.manual_seed(config.seed)
    if config.recipe == "book":  # section 6.5 and 6.6 look before they train, then seed again
        before = _look_before(network, task, loaders, device)
        torch.manual_seed(config.seed)

    settings = FitSettings(**{f.name: getattr(config, f.name) for f in fields(FitSettings)})
    trainer = Trainer(network, task, *loaders[:2], settings, device)
    if config.resume:
        load_checkpoint(folder / "checkpoint", trainer)
    reading = {"tokenizer": tokenizer, "long": config.long, "cleaning": config.cleaning}
    saved = SavedClassifier(model, task, max_length, pad_to, base, config.to_json(), scores={}, **reading)
    try:
        trainer.fit(on_checkpoint=lambda: try_checkpoint(folder / "checkpoint", trainer))
    except StoppedError:
        save_classifier(folder / RESULT, saved, full)
        save_checkpoint(folder / "checkpoint", trainer)
        log.info(f"interrupted; saved so far: {folder} (continue with --out {folder} --resume)")
        raise
    except NonFiniteLossError:
        if trainer.progress.kept_step:
            save_classifier(folder / RESULT, saved, full)
        raise
    save_classifier(folder / RESULT, saved, full)  # before anything else can go wrong
    return _finish(folder, config, saved, full, split, datasets, loaders, trainer, before)


def _look_before(model: nn.Module, task: Task, loaders: list[DataLoader], device: torch.device) -> dict:
    """Accuracy on 10 batches and loss on 5 of each part, in the order in which the book draws them."""
    accuracies = [evaluate_loader(model, task, loader, device, 10)[1] for loader in loaders]
    losses = [evaluate_loader(model, task, loader, device, 5)[0] for loader in loaders]
    return {
        part: {"accuracy": accuracy, "loss": loss}
        for part, accuracy, loss in zip(PARTS, accuracies, losses, strict=True)
    }


def _finish(
    folder: Path,
    config: TrainConfig,
    saved: SavedClassifier,
    full: bool,
    split: Split,
    datasets: dict[str, Dataset],
    loaders: list[DataLoader],
    trainer: Trainer,
    before: dict,
) -> Run:
    """Score every part beside the baselines, save everything, and print the table."""
    task = saved.task
    more = {"seconds_training": round(trainer.progress.seconds, 2)}
    if config.recipe == "book":
        more["before_training"] = before
        # The book's last lines. Its train loader drops the incomplete batch, so these are not the table's.
        more["accuracy_by_loader"] = {
            part: evaluate_loader(trainer.model, task, loader, trainer.device)[1]
            for part, loader in zip(PARTS, loaders, strict=True)
        }
    outputs = {
        part: task.outputs(dataset_logits(trainer.model, dataset, trainer.device)).numpy()
        for part, dataset in datasets.items()
    }
    targets = {part: dataset.targets.numpy() for part, dataset in datasets.items()}
    saved.task = task = judge_of(task).tuned(targets["validation"], outputs["validation"])
    judge = judge_of(task)
    saved.scores = {part: judge.scores(targets[part], outputs[part]) for part in PARTS}
    save_classifier(folder / RESULT, saved, full)
    baselines = judge.baselines(
        {
            part: (frame["text"].tolist(), task.targets(frame["label"].tolist()).numpy())
            for part, frame in split.plain_items()
        }
    )
    history = trainer.progress.history
    report.write_metrics(folder / "metrics.json", saved.scores, baselines, **more)
    columns = ["step", "epoch", "examples_seen", "lr", "train_loss", "val_loss"]
    columns += [f"train_{task.measure_name}", f"val_{task.measure_name}", "full_val_loss"]
    report.write_history(folder / "history.csv", history, columns)
    report.write_pictures(
        folder,
        task,
        targets["test"],
        outputs["test"],
        saved.scores["test"],
        history,
        trainer.progress.best_epoch,
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return Run(folder, saved.scores, baselines, saved, trainer.progress)


def _store_everything(config: TrainConfig, base: dict | None) -> bool:
    return base is None or config.train == "all" or config.save == "full" or (
        config.save == "auto" and config.model not in PRESETS and config.train != "lora"
    )  # fmt: skip
