"""From rows and options to what the loop needs: :func:`prepare` does all that can be refused, :func:`stage`
begins the long work."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from gptcls.classify.store import SavedClassifier
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.log import log
from gptcls.common.processes import processes
from gptcls.core.batches import TextDataset, bucket_loader, classes_of, plain_loader
from gptcls.core.classifier import POOLERS, Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.core.task import SingleLabel, Task
from gptcls.core.tasks import TASKS
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.core.tokenizer import Tokenizer
from gptcls.core.weights import State
from gptcls.data.fields import n_fields
from gptcls.data.labels import KINDS
from gptcls.data.long_texts import cut_of, describe_cut
from gptcls.data.repeats import expanded, weights_of
from gptcls.data.split import Split
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Autocast, Frozen, Trained
from gptcls.fast.fused import FusedBlock
from gptcls.fast.packed import Packed, can_pack
from gptcls.language.head import LabelClassifier, read_by
from gptcls.language.pattern import Pattern, read_pattern
from gptcls.language.prompt import Prompt, Prompted
from gptcls.language.tree import without_trees
from gptcls.models.families import FAMILIES, is_decoder, known_family, poolings_of
from gptcls.models.fields_tokenizer import for_fields
from gptcls.models.lora import LoRAConfig, adapt, freeze
from gptcls.train.answers import first_decision
from gptcls.train.config import ModelOptions, TrainConfig
from gptcls.train.ensemble import put
from gptcls.train.language import divide_out, make_prompt
from gptcls.train.mix import OtherTask
from gptcls.train.resolve import TASK_OPTIONS, settle
from gptcls.train.rows import mixed_rows
from gptcls.train.sampler import WeightedBucketSampler
from gptcls.train.shards import Shards
from gptcls.train.soft import Lesson
from gptcls.train.start import Start, start_of
from gptcls.train.weights import counted


@dataclass
class Setup:
    """What a run needs, in memory."""

    config: TrainConfig
    split: Split
    saved: SavedClassifier  # before training
    datasets: dict[str, Any]  # part -> texts; where blocks are frozen, their features once there are any
    device: torch.device
    origin: dict | None = None  # name and sha256 of what the run starts from
    head_goes_on: bool = False  # it was trained before this run
    loaders: dict[str, DataLoader] = field(default_factory=dict)
    look_before: dict[str, dict] = field(default_factory=dict)  # the book's look before it trains
    network: nn.Module | None = None  # what the loop trains, once the frozen blocks have run
    shards: Shards | None = None  # while the network is in parts
    lesson: Lesson | None = None  # what is learnt in place of the training rows' labels
    others: Sequence[OtherTask] = ()  # whose rows are drawn among those of training

    def gather(self) -> None:
        """Put a network that is in parts together, in all processes."""
        if self.shards is not None:
            self.saved.model, self.shards = self.shards.gather(), None


def prepare(
    split: Split, config: TrainConfig, own: nn.Module | None = None, tokenizer: Tokenizer | None = None
) -> Setup:
    """The classifier at the start of training, the rows encoded for it, and every option settled."""
    task, decision = first_decision(config.fit, make_task(split, config))
    start = start_of(config, own, tokenizer)
    if config.language.head == "lm":
        start.head = None  # it answers by another
    config = start.settle_head(config, task)
    config = settle(config, start.backbone.config.n_embd, is_decoder(start.backbone), len(split.train))
    options, device = config.model, pick_device(config.run.device)
    if config.run.shard and processes()[1] == 1:
        raise InputError("--shard is for several processes: torchrun --nproc-per-node 2 -m gptcls.train …")
    n_train, batch_size = len(split.train), config.fit.batch_size
    if config.run.recipe == "book" and n_train < batch_size:  # its loader drops the incomplete batch
        raise InputError(f"--batch-size {batch_size} is larger than the {n_train} training rows")
    fields = n_fields(text for _, frame in split.items() for text in frame["text"])
    if config.language.head == "lm" and fields > 1:
        raise InputError(f"--head lm has a pattern for one text, and the rows have {fields}: name one column")
    prompt = make_prompt(config, task, split, start) if config.language.head == "lm" else None
    tokenizer = read_by(for_fields(start.tokenizer, fields, start.backbone), prompt)
    model = build_classifier(config, task, device, start, prompt)
    datasets, max_length, pad_to = encode_split(split, task, config, model, tokenizer)
    if prompt is not None and not config.fit.epochs and config.language.content_free == "auto":
        divide_out(model, tokenizer, max_length, device)
    saved = SavedClassifier(
        model, task, max_length, pad_to, start.base_of(model), config.to_json(), {}, tokenizer, options.long,
        config.data.cleaning, config.data.text_columns, decision=decision, fields=fields,
    )  # fmt: skip
    if config.run.save == "trained" and start.origin and saved.base is None:
        why = f"{options.model} differs from all base weights in more than this run trains"
        raise InputError(f"--save trained: {why}; leave it out")
    others = other_tasks(config, split, start, model) if config.language.mix else []
    return Setup(config, split, saved, datasets, device, start.origin, start.head is not None, others=others)


def make_task(split: Split, config: TrainConfig) -> Task:
    """The task over the labels of the training rows, with the options that are its own. What it counts of
    them, such as the weights of classes, it counts as often as they are drawn, and by their weights."""
    task, values = config.data.task, config.flat()
    own = {name: values[name] for name, tasks in TASK_OPTIONS.items() if task in tasks}
    if task == "multi" and all(len(KINDS[task].names(label)) == 1 for label in split.train["label"]):
        hint = "--task single is meant for that, unless a --label-separator is missing"
        log.info(f"--task multi: every training row has exactly one label; {hint}")
    drawn = expanded(split.train) if config.data.repeats == "weight" else split.train
    labels, weights = drawn["label"].tolist(), weights_of(drawn)
    made = TASKS[task].for_training(labels, **own)
    return made if weights is None else counted(made, made.targets(labels), torch.from_numpy(weights))


def build_classifier(
    config: TrainConfig, task: Task, device: torch.device, start: Start, prompt: Prompt | None = None
) -> Classifier:
    """The classifier at the start of training; with a ``prompt`` its head is the language model's own."""
    options, backbone, tokenizer = config.model, start.backbone, start.tokenizer
    # A network of the user's own need not state the size of its vocabulary.
    tokenizer.require_fit(options.model, getattr(backbone.config, "vocab_size", tokenizer.vocab_size))
    if options.no_causal_mask:
        if not isinstance(backbone, GPT2):
            kind = type(backbone).__name__.lower()
            raise InputError(f"--no-causal-mask is for a GPT-2; {options.model} is a {kind}")
        backbone.drop_causal_mask()
    torch.manual_seed(config.run.seed)
    pooling = choose_pooling(options, backbone)
    if pooling != "first" and getattr(backbone.config, "pooler", False):
        backbone.drop_pooler()
    family, head = known_family(backbone), start.head
    biased = family is None or FAMILIES[family].head_bias or (head is not None and head.of(task)[1].any())
    if prompt is not None:
        model, head = LabelClassifier(backbone, prompt), None
    else:
        model = Classifier(backbone, task.n_outputs, pooling, bool(biased))
    if head is not None:
        head.put(task, model.head)
    if options.train == "lora":
        sizes = options.lora_rank, options.lora_alpha, options.lora_dropout
        kind = {"rslora": options.lora_kind == "rslora", "dora": options.lora_kind == "dora"}
        adapt(model.backbone, LoRAConfig(*sizes, **kind), options.lora_targets)
    freeze(model, options.train)
    if (cache := config.run.cache) and not model.frozen_blocks:
        raise InputError(f"--cache {cache} keeps what is frozen; this run trains every block, leave it out")
    trained = sum(p.numel() for p in model.trained_parameters().values())
    everything = sum(p.numel() for p in model.parameters())
    log.info(f"{options.model}: training {options.train}, {trained:,} of {everything:,} parameters")
    return model if config.run.shard else model.to(device)


def other_tasks(config: TrainConfig, split: Split, start: Start, model: LabelClassifier) -> list[OtherTask]:
    """What ``--mix`` names, each with a classifier whose parameters are those of the run's ``model``."""
    options, found = config.language, []
    patterns = list(map(read_pattern, options.mix_patterns))
    patterns = patterns or [Pattern(read_pattern(options.pattern).pattern)] * len(options.mix)
    files = zip(options.mixed, mixed_rows(config, split), patterns, strict=True)
    for (file, share), rows, pattern in files:
        task = SingleLabel.of(rows["label"])
        prompt = make_prompt(config, task, split, start, pattern)
        backbone = deepcopy(model.backbone, {id(p): p for p in model.backbone.parameters()})  # all but these
        without_trees(backbone)
        other = LabelClassifier(backbone, prompt).to(model.head.paths.device)
        freeze(other, config.model.train)
        alone, reader = Split(rows, rows[:0], rows[:0]), Prompted(start.tokenizer, prompt)
        datasets, *_ = encode_split(alone, task, config, other, reader, f"--mix {file}")
        found.append(OtherTask(share, other, datasets["train"]))
    return found


def restart(setup: Setup, seed: int, start: State) -> None:
    """Put what is trained of the network back to where it was at the ``start``, with a new head, and random
    weights, of another seed."""
    model, config = setup.saved.model, setup.config
    torch.manual_seed(seed)
    if config.model.init == "random":
        config = config.changed(seed=seed)
        fresh = build_classifier(config, setup.saved.task, setup.device, start_of(config))
        start = fresh.trained_parameters()
    elif not setup.head_goes_on:
        head = nn.Linear(model.head.in_features, model.n_outputs, model.head.bias is not None)
        pool = POOLERS[model.pooling](model.head.in_features)
        start = start | {f"head.{name}": p for name, p in head.named_parameters()}
        start |= {f"pool.{name}": p for name, p in pool.named_parameters()}
    put(model, start)


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
    split: Split, task: Task, config: TrainConfig, model: Classifier,
    tokenizer: Tokenizer = GPT2_TOKENIZER, file: str = "",
) -> tuple[dict[str, TextDataset], int, int | None]:  # fmt: skip
    """Each part as a dataset, the tokens kept of each text, and the length that all are padded to, if any.
    The log names ``file`` where the rows are not of --data."""
    options, n_positions = config.model, model.backbone.config.n_positions
    max_length, pad_to = options.max_length or n_positions, options.pad_to
    if max(max_length, pad_to or 0) > n_positions:
        raise InputError(f"{options.model} reads {n_positions} tokens; lower --max-length and --pad-to")
    max_length = min(max_length, pad_to or max_length)
    datasets, cut = {}, cut_of(options.long, tokenizer)
    for part, frame in split.items():
        texts, targets = frame["text"].tolist(), task.targets(frame["label"].tolist())
        dataset = TextDataset(texts, targets, max_length, tokenizer=tokenizer, cut=cut)
        if part == "train" and model.pool.sees_padding and pad_to is None:
            pad_to = max_length = max(dataset.lengths)  # the book's length: the longest training text
        dataset.pad_to = pad_to
        if dataset.truncated:
            log.info(f"{file or part}: {describe_cut(dataset.truncated, max_length, options.long)}")
            if len(dataset) > len(frame):
                log.info(f"{file or part}: {len(dataset):,} windows of {len(frame):,} texts")
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
    if can_pack(model, depth, dtype) and not (options.no_cache or options.compile):
        network = Packed(model, depth)
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
