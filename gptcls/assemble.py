"""From a configuration to what the loop needs: rows, task, classifier, datasets, loaders."""

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gptcls.classifier import Classifier
from gptcls.config import TrainConfig
from gptcls.data import book, prepare
from gptcls.data.batches import TextDataset, bucket_loader, plain_loader
from gptcls.data.clean import cleaned
from gptcls.data.corpora import load_parts
from gptcls.data.labels import Layout
from gptcls.data.long_texts import said_of_long
from gptcls.data.sources import load_data
from gptcls.data.split import PARTS, Split
from gptcls.errors import InputError
from gptcls.models.families import FAMILIES, family_name
from gptcls.models.fused import FusedBlock
from gptcls.models.gpt2 import GPT2, PRESETS
from gptcls.models.lora import LoRAConfig, add_lora
from gptcls.models.pretrained import load_pretrained, load_tokenizer, weights_sha256
from gptcls.options import flag
from gptcls.precision import pick_dtype
from gptcls.staged import Autocast, Lower, Upper
from gptcls.task_options import task_options
from gptcls.tasks import TASKS, Task
from gptcls.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.tokenizer import Tokenizer
from gptcls.training.features import FeatureCache

log = logging.getLogger("gptcls")
RESAMPLERS = {"undersample": prepare.undersample, "oversample": prepare.oversample}


def read_split(config: TrainConfig) -> Split:
    """The rows to train, validate and test on."""
    columns, layout = (config.text_column, config.label_column), config.layout
    if config.recipe == "book":
        balanced = config.balance == "undersample"
        split = book.book_split(config.data, *columns, balanced=balanced, seed=config.seed)
        if config.balance == "oversample":
            split = replace(split, train=prepare.oversample(split.train, config.seed), plain=split.train)
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
    split = prepare.make_split(
        prepare.drop_duplicates(parts.pop("train"), layout.kind),
        **parts,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        kind=layout.kind,
    )
    plain = split.train
    if config.extra is not None:
        extra = cleaned(load_data(config.extra, layout=Layout(layout.kind)), config.cleaning)
        split = prepare.with_extra(split, extra, config.extra, layout.kind)
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
