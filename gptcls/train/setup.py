"""From rows and options to what the loop needs: :func:`prepare` does all that can be refused, :func:`stage`
begins the long work."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from gptcls.classify.store import SavedClassifier
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.log import log
from gptcls.core.batches import TextDataset, bucket_loader, classes_of, plain_loader
from gptcls.core.classifier import POOLERS, Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.task import Task
from gptcls.core.tasks import TASKS
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.core.tokenizer import Tokenizer
from gptcls.core.weights import State
from gptcls.data.labels import KINDS
from gptcls.data.long_texts import CUTS, describe_cut
from gptcls.data.repeats import expanded
from gptcls.data.split import Split
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Autocast, Frozen, Trained
from gptcls.fast.fused import FusedBlock
from gptcls.models.families import FAMILIES, known_family, poolings_of
from gptcls.models.lora import LoRAConfig, add_lora, freeze
from gptcls.models.pretrained import declared_size, load_pretrained, load_tokenizer, weights_sha256
from gptcls.train.answers import first_decision
from gptcls.train.config import ModelOptions, TrainConfig
from gptcls.train.resolve import TASK_OPTIONS, settle
from gptcls.train.sampler import WeightedBucketSampler
from gptcls.train.soft import Lesson


@dataclass
class Setup:
    """What a run needs, in memory."""

    config: TrainConfig
    split: Split
    saved: SavedClassifier  # before training
    datasets: dict[str, Any]  # part -> texts; where blocks are frozen, their features once there are any
    device: torch.device
    loaders: dict[str, DataLoader] = field(default_factory=dict)
    look_before: dict[str, dict] = field(default_factory=dict)  # the book's look before it trains
    network: nn.Module | None = None  # what the loop trains, once the frozen blocks have run
    lesson: Lesson | None = None  # what is learnt in place of the training rows' labels


def prepare(
    split: Split, config: TrainConfig, own: nn.Module | None = None, tokenizer: Tokenizer | None = None
) -> Setup:
    """The classifier at the start of training, the rows encoded for it, and every option settled."""
    task, decision = first_decision(config.fit, make_task(split, config))
    config = settle(config, *_size_of(config.model.model, own), len(split.train))
    options, device = config.model, pick_device(config.run.device)
    n_train, batch_size = len(split.train), config.fit.batch_size
    if config.run.recipe == "book" and n_train < batch_size:  # its loader drops the incomplete batch
        raise InputError(f"--batch-size {batch_size} is larger than the {n_train} training rows")
    if tokenizer is None:
        fresh = own is not None or options.init == "random"  # random weights learn GPT-2's
        tokenizer = GPT2_TOKENIZER if fresh else load_tokenizer(options.model)
    model, base = build_classifier(config, task, device, tokenizer, own)
    datasets, max_length, pad_to = encode_split(split, task, config, model, tokenizer)
    saved = SavedClassifier(
        model, task, max_length, pad_to, base, config.to_json(), {}, tokenizer, options.long,
        config.data.cleaning, config.data.text_columns, decision=decision,
    )  # fmt: skip
    return Setup(config, split, saved, datasets, device)


def _size_of(name: str, own: nn.Module | None) -> tuple[int | None, bool]:
    """As :func:`declared_size`, also of a network in memory; one of a family unknown counts as a decoder."""
    if own is None:
        return declared_size(name)
    family = known_family(own)
    return own.config.n_embd, family is None or FAMILIES[family].decoder


def make_task(split: Split, config: TrainConfig) -> Task:
    """The task over the labels of the training rows, with the options that are its own. What it counts of
    them, such as the weights of classes, it counts as often as they are drawn."""
    task, values = config.data.task, config.flat()
    own = {name: values[name] for name, tasks in TASK_OPTIONS.items() if task in tasks}
    if task == "multi" and all(len(KINDS[task].names(label)) == 1 for label in split.train["label"]):
        hint = "--task single is meant for that, unless a --label-separator is missing"
        log.info(f"--task multi: every training row has exactly one label; {hint}")
    drawn = expanded(split.train) if config.data.repeats == "weight" else split.train
    return TASKS[task].for_training(drawn["label"].tolist(), **own)


def build_classifier(
    config: TrainConfig, task: Task, device: torch.device, tokenizer: Tokenizer = GPT2_TOKENIZER,
    own: nn.Module | None = None,
) -> tuple[Classifier, dict | None]:  # fmt: skip
    """The classifier at the start of training, and the name and sha256 of its pretrained weights, if any."""
    options, seed = config.model, config.run.seed
    torch.manual_seed(seed)
    backbone, base = (own, None) if own is not None else _backbone(config, device)
    # A network of the user's own need not state the size of its vocabulary.
    tokenizer.require_fit(options.model, getattr(backbone.config, "vocab_size", tokenizer.vocab_size))
    if options.no_causal_mask:
        if not isinstance(backbone, GPT2):
            kind = type(backbone).__name__.lower()
            raise InputError(f"--no-causal-mask is for a GPT-2; {options.model} is a {kind}")
        backbone.drop_causal_mask()
    torch.manual_seed(seed)
    pooling = choose_pooling(options, backbone)
    if pooling != "first" and getattr(backbone.config, "pooler", False):
        backbone.drop_pooler()
    model = Classifier(backbone, task.n_outputs, pooling)
    if options.train == "lora":
        lora = LoRAConfig(options.lora_rank, options.lora_alpha, options.lora_dropout)
        add_lora(model.backbone.blocks, lora, options.lora_targets, prefix="blocks")
    freeze(model, options.train)
    if (cache := config.run.cache) and not model.frozen_blocks:
        raise InputError(f"--cache {cache} keeps what is frozen; this run trains every block, leave it out")
    trained = sum(p.numel() for p in model.trained_parameters().values())
    everything = sum(p.numel() for p in model.parameters())
    log.info(f"{options.model}: training {options.train}, {trained:,} of {everything:,} parameters")
    return model.to(device), base


def restart(setup: Setup, seed: int, start: State) -> None:
    """Put what is trained of the network back to where it was at the ``start``, with a head, and random
    weights, of another seed."""
    model, config = setup.saved.model, setup.config
    torch.manual_seed(seed)
    if config.model.init == "random":
        fresh, _ = build_classifier(config.changed(seed=seed), setup.saved.task, setup.device)
        start = fresh.trained_parameters()
    else:
        head = nn.Linear(model.head.in_features, model.n_outputs)
        pool = POOLERS[model.pooling](model.head.in_features)
        start = start | {f"head.{name}": p for name, p in head.named_parameters()}
        start |= {f"pool.{name}": p for name, p in pool.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.trained_parameters().items():
            parameter.copy_(start[name])


def _backbone(config: TrainConfig, device: torch.device) -> tuple[nn.Module, dict | None]:
    name = config.model.model
    if config.model.init == "random":
        if name not in PRESETS:
            raise InputError(f"--init random needs a preset ({', '.join(PRESETS)}), not {name!r}")
        log.info(f"{name}: random weights, no pretraining")
        return GPT2(PRESETS[name]), None
    plain = config.run.no_cache or config.model.train == "all"  # everything in one number format
    backbone = load_pretrained(name, torch.float32 if plain else pick_dtype(config.run.precision, device))
    local = name not in PRESETS and Path(name).exists()  # a preset comes first
    return backbone, {"name": str(Path(name).resolve()) if local else name, "sha256": weights_sha256(name)}


def choose_pooling(options: ModelOptions, backbone: nn.Module) -> str:
    """What the head reads: as asked for, if the family can give that; for auto, what is usual in it."""
    family = known_family(backbone)
    # Of a network of the user's own nothing is known.
    poolings = poolings_of(FAMILIES[family]) if family else tuple(POOLERS)
    pooling = poolings[0] if options.pooling == "auto" else options.pooling
    if pooling not in poolings:
        known = f"{options.model}, which is a {family}; use {', '.join(poolings)}"
        raise InputError(f"--pooling {pooling} is not for {known}")
    return pooling


def encode_split(
    split: Split, task: Task, config: TrainConfig, model: Classifier, tokenizer: Tokenizer = GPT2_TOKENIZER
) -> tuple[dict[str, TextDataset], int, int | None]:
    """Each part as a dataset, the tokens kept of each text, and the length that all are padded to, if any."""
    options, n_positions = config.model, model.backbone.config.n_positions
    max_length, pad_to = options.max_length or n_positions, options.pad_to
    if max(max_length, pad_to or 0) > n_positions:
        raise InputError(f"{options.model} reads {n_positions} tokens; lower --max-length and --pad-to")
    max_length = min(max_length, pad_to or max_length)
    datasets, cut = {}, CUTS[options.long]
    for part, frame in split.items():
        texts, targets = frame["text"].tolist(), task.targets(frame["label"].tolist())
        dataset = TextDataset(texts, targets, max_length, tokenizer=tokenizer, cut=cut)
        if part == "train" and model.pool.sees_padding and pad_to is None:
            pad_to = max_length = max(dataset.lengths)  # the book's length: the longest training text
        dataset.pad_to = pad_to
        if dataset.truncated:
            log.info(f"{part}: {describe_cut(dataset.truncated, max_length, options.long)}")
            if len(dataset) > len(frame):
                log.info(f"{part}: {len(dataset):,} windows of {len(frame):,} texts")
        datasets[part] = dataset
    return datasets, max_length, pad_to


def stage(
    model: Classifier, datasets: dict[str, TextDataset], config: TrainConfig, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """What the loop trains, and on what: with frozen blocks, the rest of the model on their output."""
    dtype, options = pick_dtype(config.run.precision, device), config.run
    depth, network = model.frozen_blocks, model
    if depth and not options.no_cache:
        frozen, network = Frozen(model, depth, dtype), Trained(model, depth)
        if options.compile and not any(isinstance(block, FusedBlock) for block in frozen.blocks):
            frozen.compile(dynamic=True)
        cache = FeatureCache(options.cache, options.cache_budget * 2**30)
        datasets = cache.datasets(frozen, datasets, device)
    if device.type == "cuda" and dtype == torch.bfloat16:  # fp16 gradients would need loss scaling
        network = Autocast(network, dtype)
    if options.compile:
        network.compile(dynamic=True)
    return network, datasets


def make_loaders(
    datasets: dict[str, Any], config: TrainConfig, weights: np.ndarray | None = None
) -> dict[str, DataLoader]:
    """A loader per part; the training rows are shuffled, in the book's way with its recipe, or drawn in
    proportion to ``weights``, one for each training text."""
    size, train, book = config.fit.batch_size, datasets["train"], config.run.recipe == "book"
    shuffled = plain_loader(train, size, shuffle=True) if book else bucket_loader(train, size)
    if weights is not None:
        sampler = WeightedBucketSampler(train.lengths, size, weights[train.owners], classes_of(train))
        shuffled = DataLoader(train, batch_sampler=sampler, collate_fn=train.collate)
    return {part: plain_loader(dataset, size) for part, dataset in datasets.items()} | {"train": shuffled}
