"""The options of a training run: one definition for Python, the command line, its help and config.json.

They are grouped by theme. :func:`gptcls.train.resolve.resolve` fills in what is None here, by the recipe, the
model and what is trained.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from gptcls.common.options import Options, own_first
from gptcls.core.classifier import POOLERS
from gptcls.data.augment import Augmentation, Operation
from gptcls.data.corpora import corpus_of
from gptcls.data.labels import KINDS, Layout
from gptcls.data.long_texts import Long
from gptcls.data.options import LabelOptions

# What a recipe sets where the user sets nothing.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {
        "balance": "none",
        "train": "last_block",
        "pooling": "auto",
        "epochs": 5,
        "batch_size": 8,
        "lr": 5e-5,
        "schedule": "cosine",
        "warmup": 0.1,
        "clip": 1.0,
        "patience": 3,
        "precision": "auto",
    },
    # Chapter 6 of the book, settings of its sections 6.2 to 6.7.
    "book": {
        "balance": "undersample",
        "train": "last_block",
        "pooling": "position-1",
        "epochs": 5,
        "batch_size": 8,
        "lr": 5e-5,
        "schedule": "constant",
        "warmup": 0.0,
        "clip": 0.0,
        "patience": 0,
        "precision": "fp32",
    },
}
# Random weights know nothing worth freezing, and need larger and more steps.
FROM_RANDOM = {"train": "all", "lr": 1e-3, "epochs": 8}
# A narrow network takes larger steps than gpt2-small, and can afford more of them.
FOR_MODEL: dict[str, dict[str, Any]] = {"gpt2-nano": {"lr": 1e-3, "epochs": 10}}
# Appendix E of the book. The head is left out: it is new and smaller than an adapter of it would be.
LORA = {"lora_rank": 16, "lora_alpha": 16.0, "lora_dropout": 0.0, "lora_targets": ("*",), "lr": 8e-4}


def by_recipe(name: str, metavar: str) -> Any:
    """What --help shows of an option whose default depends on the recipe and the model."""
    default, book = RECIPES["default"][name], RECIPES["book"][name]
    hint = f"default: {default}"
    for model, own in FOR_MODEL.items():
        if name in own:
            hint += f"; {model}: {own[name]}"
    if name in FROM_RANDOM:
        hint += f"; from random weights: {FROM_RANDOM[name]}"
    if name in LORA:
        hint += f"; with lora: {LORA[name]}"
    if book != default:
        hint += f"; book: {book}"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"({hint})")


def with_lora(default: str, metavar: str) -> Any:
    """What --help shows of an option whose default --train lora brings."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@own_first
@dataclass(frozen=True, kw_only=True)
class DataOptions(LabelOptions):
    """What is read, how it is split, and what becomes of the training rows."""

    data: str = "sms-sample"
    """Data set (sms-sample, sms-spam), file (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection), or a
    public data set in a folder of yours: trec6:FOLDER, goemotions:FOLDER, thucnews:FOLDER,
    chnsenticorp:FOLDER, movie-reviews:FOLDER."""
    task: Literal["single", "multi", "regression"] = "single"
    """What is predicted of a text: one class of two or more, any number of labels, or one or more numbers."""
    validation: Path | None = None
    """File to validate on; otherwise a part of --data is split off."""
    test: Path | None = None
    """File to test on; otherwise a part of --data is split off."""
    positive: str | None = None
    """The label that precision, recall and F1 are about, of two; otherwise the second in sorted order."""
    validation_fraction: float = 0.1
    """Share of the rows split off for validation."""
    test_fraction: float = 0.2
    """Share of the rows split off for testing."""
    balance: Annotated[
        Literal["none", "undersample", "oversample", "weights"] | None,
        by_recipe("balance", "{none,undersample,oversample,weights}"),
    ] = None
    """Leave the classes as they are; in the training rows, cut each to the smallest or repeat rows of each up
    to the largest; or weigh them in the loss (of several labels, weigh the texts that have one against those
    that lack it)."""
    clean: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Collapse white space and repeated punctuation and strip control characters, here and whenever the
    classifier is used."""
    augment: tuple[Operation, ...] = ()
    """Make new training texts by replacing words with synonyms, inserting synonyms, deleting or swapping
    words; needs words between spaces."""
    augment_copies: int = 1
    """New texts that each of these operations makes of a training text."""
    augment_share: float = 0.1
    """Share of a text's words that an operation changes, at least one."""
    synonyms: Path | None = None
    """File with a line a word: the word, a tab, its synonyms with commas between them; otherwise a small
    English table."""
    extra: Path | None = None
    """File of rows to add to the training rows, such as gptcls.pseudo_label writes: columns text and label,
    several labels as a JSON list. The baselines are fitted without them, as without what --balance and
    --augment make of the rows."""

    @property
    def label_layout(self) -> Layout:
        """How the labels are written in the files."""
        return self.layout(KINDS[self.task])

    @property
    def cleaning(self) -> str:
        """What is done to every text first."""
        return "basic" if self.clean else "none"

    @property
    def augmentation(self) -> Augmentation:
        """What is made of each training text."""
        return Augmentation(self.augment, self.augment_copies, self.augment_share, self.synonyms)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network, what of it is trained, and what it reads of a text."""

    model: str = "gpt2-nano"
    """Preset (gpt2-nano, gpt2-small, gpt2-medium, gpt2-large, gpt2-xl), name on the Hugging Face hub, or a
    local folder or file, with the weights of a GPT-2, Llama, Mistral, Qwen2, BERT or RoBERTa."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Start from the model's pretrained weights, or a preset from random ones."""
    train: Annotated[str | None, by_recipe("train", "{head,last_block,last_2,…,all,lora}")] = None
    """What is trained: the new head, the last blocks with the final norm, everything, or the head and small
    matrices beside the frozen ones (LoRA)."""
    lora_rank: Annotated[int | None, with_lora("16", "INT")] = None
    """Rank of the matrices that --train lora adds."""
    lora_alpha: Annotated[float | None, with_lora("16", "FLOAT")] = None
    """What they add is scaled by alpha / rank."""
    lora_dropout: Annotated[float | None, with_lora("0", "FLOAT")] = None
    """Dropout on what they read, while training."""
    lora_targets: Annotated[tuple[str, ...] | None, with_lora("*", "PATTERN …")] = None
    """Linear layers of the blocks that get them, by name or the end of it: qkv, 'attn.*', 'blocks.11.*'."""
    pooling: Annotated[str | None, by_recipe("pooling", f"{{auto,{','.join(POOLERS)}}}")] = None
    """What the head reads: the last real token, the first, the mean of all, each channel's largest value, or
    the last position of a text padded to a fixed length (the book's). auto is the last of a decoder, the
    first of an encoder (BERT)."""
    no_causal_mask: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of a GPT-2: every token sees the whole text, also what follows it. Padding stays unseen, except with
    position-1, which reads it."""
    long: Long = "head"
    """What is read of a text of more than --max-length tokens: its start, its end, both, or all of it in
    overlapping windows whose logits are averaged."""
    max_length: int | None = None
    """Tokens kept of each text; otherwise what the model can read (book: the longest training text)."""
    pad_to: int | None = None
    """Tokens to pad every text to; otherwise the longest of its batch. Needed by position-1, which otherwise
    takes the longest training text."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How it is trained."""

    epochs: Annotated[int | None, by_recipe("epochs", "INT")] = None
    """Passes over the training rows."""
    batch_size: Annotated[int | None, by_recipe("batch_size", "INT")] = None
    """Texts a batch."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    lr: Annotated[float | None, by_recipe("lr", "FLOAT")] = None
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    schedule: Annotated[Literal["cosine", "constant"] | None, by_recipe("schedule", "{cosine,constant}")] = (
        None
    )
    """The learning rate after the warm-up."""
    warmup: Annotated[float | None, by_recipe("warmup", "FLOAT")] = None
    """Share of the steps in which the learning rate rises to its peak."""
    clip: Annotated[float | None, by_recipe("clip", "FLOAT")] = None
    """Largest norm of the gradient; 0 does not clip."""
    patience: Annotated[int | None, by_recipe("patience", "INT")] = None
    """Epochs without a better validation loss before the run stops; the weights of the best epoch are kept.
    0 trains to the end and keeps the last weights."""
    label_smoothing: float = 0.0
    """Share of each target that the loss gives to all classes alike."""
    raw_targets: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Regression: the head predicts the numbers as they are. Without it, in standard deviations from the mean
    of the training rows, so that one learning rate serves all units; answers and errors are in the data's."""
    eval_freq: int = 50
    """Steps between two points of the loss curve."""
    eval_iter: int = 5
    """Batches that such a point looks at."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the run computes, and what it leaves."""

    seed: int = 123
    """Seed of the split, the head, random weights and the shuffling. On one CPU with as many threads the same
    seed gives the same bits."""
    recipe: Literal["default", "book"] = "default"
    """default: every row, duplicates dropped before a stratified split. book: chapter 6 of "Build a Large
    Language Model From Scratch" step by step, for its numbers. Options given beside it win."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None, by_recipe("precision", "{auto,fp32,bf16,fp16}")
    ] = None
    """Number format of the frozen blocks, on NVIDIA GPUs with bf16 of every matrix product; auto takes the
    fastest that the processor has. What is trained is kept in fp32. The frozen weights of a Llama, Mistral or
    Qwen2 are held in it."""
    no_cache: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The plain loop, in fp32 on a CPU: without it the frozen blocks run once a text, not once a step."""
    cache: Path | None = None
    """Folder that keeps the frozen blocks' output between runs, so that a sweep computes it once. Texts that
    were computed in other batches may differ in their last bits."""
    cache_budget: float = 2.0
    """GiB of memory for the frozen blocks' output; what is larger goes to a file."""
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile the network with torch.compile; pays for long runs on a GPU."""
    save: Literal["auto", "trained", "full"] = "auto"
    """Tensors in the saved classifier: the trained ones, to be laid over the base weights (of LoRA the head
    and an adapter in PEFT's format); all of them (LoRA merged into them); or the trained ones for LoRA and
    where the base is a preset that can be fetched again."""
    out: Path | None = None
    """The run's folder; otherwise a new one, runs/<model>-<data>."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the interrupted run in --out with the options it was started with."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """Fine-tune a pretrained GPT, Llama, Mistral, Qwen2, BERT or RoBERTa on labelled texts: to name one class
    of each, any number of labels, or numbers.

    Without options: a small GPT on a bundled sample of text messages, in under a minute.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def run_name(self) -> str:
        """What the run's folder is called where nothing else is said."""
        source = self.data.data
        data = source.split(":")[0] if corpus_of(source) else Path(source).stem
        name = f"{Path(self.model.model).name}-{data}"
        return name if self.run.recipe == "default" else f"{name}-{self.run.recipe}"
