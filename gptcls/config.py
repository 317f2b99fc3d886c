"""The options of a training run: one definition for Python, the command line, its help and config.json."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from gptcls.classifier import trained_blocks
from gptcls.errors import InputError
from gptcls.models.gpt2 import PRESETS
from gptcls.options import RunOptions, flag

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


def _by_recipe(name: str, metavar: str) -> Any:
    """Shows in --help the default that the recipe will choose."""
    default, book = RECIPES["default"][name], RECIPES["book"][name]
    hint = f"default: {default}"
    for model, own in FOR_MODEL.items():
        if name in own:
            hint += f"; {model}: {own[name]}"
    if name in FROM_RANDOM:
        hint += f"; from random weights: {FROM_RANDOM[name]}"
    if book != default:
        hint += f"; book: {book}"
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"({hint})")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunOptions):
    """Fine-tune a GPT into a text classifier.

    Without options: a small GPT on a bundled sample of text messages, in under a minute.
    """

    PATHS: ClassVar[tuple[str, ...]] = ("validation", "test", "cache", "out")

    model: str = "gpt2-nano"
    """Preset (gpt2-nano, gpt2-small, gpt2-medium, gpt2-large, gpt2-xl), name on the Hugging Face hub, or a
    local folder or file, with the weights of a GPT-2, Llama, Mistral, Qwen2, BERT or RoBERTa."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Start from the model's pretrained weights, or a preset from random ones."""
    data: str = "sms-sample"
    """Data set (sms-sample, sms-spam) or file (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection)."""
    validation: Path | None = None
    """File to validate on; otherwise a part of --data is split off."""
    test: Path | None = None
    """File to test on; otherwise a part of --data is split off."""
    text_column: str | None = None
    """Column with the text; guessed where only one can be meant."""
    label_column: str | None = None
    """Column with the label; guessed where only one can be meant."""
    positive: str | None = None
    """The label that precision, recall and F1 are about, of two; otherwise the second in sorted order."""
    validation_fraction: float = 0.1
    """Share of the rows split off for validation."""
    test_fraction: float = 0.2
    """Share of the rows split off for testing."""
    balance: Annotated[
        Literal["none", "undersample", "weights"] | None, _by_recipe("balance", "{none,undersample,weights}")
    ] = None
    """Leave the classes as they are, cut each to the smallest in the training rows, or weigh them in the
    loss."""
    train: Annotated[str | None, _by_recipe("train", "{head,last_block,last_2,…,all}")] = None
    """What is trained: the new head, the last blocks with the final norm, or everything."""
    pooling: Annotated[
        Literal["auto", "last", "first", "mean", "position-1"] | None,
        _by_recipe("pooling", "{auto,last,first,mean,position-1}"),
    ] = None
    """What the head reads: the last real token, the first, the mean of all, or the last position of a text
    padded to a fixed length (the book's). auto is the last of a decoder, the first of an encoder (BERT)."""
    pad_to: int | None = None
    """Tokens to pad every text to; otherwise the longest of its batch. Needed by position-1, which otherwise
    takes the longest training text."""
    max_length: int | None = None
    """Tokens kept of each text; otherwise what the model can read (book: the longest training text)."""
    epochs: Annotated[int | None, _by_recipe("epochs", "INT")] = None
    """Passes over the training rows."""
    batch_size: Annotated[int | None, _by_recipe("batch_size", "INT")] = None
    """Texts a batch."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    lr: Annotated[float | None, _by_recipe("lr", "FLOAT")] = None
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.1
    """AdamW's weight decay."""
    schedule: Annotated[Literal["cosine", "constant"] | None, _by_recipe("schedule", "{cosine,constant}")] = (
        None
    )
    """The learning rate after the warm-up."""
    warmup: Annotated[float | None, _by_recipe("warmup", "FLOAT")] = None
    """Share of the steps in which the learning rate rises to its peak."""
    clip: Annotated[float | None, _by_recipe("clip", "FLOAT")] = None
    """Largest norm of the gradient; 0 does not clip."""
    patience: Annotated[int | None, _by_recipe("patience", "INT")] = None
    """Epochs without a better validation loss before the run stops; the weights of the best epoch are kept.
    0 trains to the end and keeps the last weights."""
    eval_freq: int = 50
    """Steps between two points of the loss curve."""
    eval_iter: int = 5
    """Batches that such a point looks at."""
    seed: int = 123
    """Seed of the split, the head, random weights and the shuffling. On one CPU with as many threads the same
    seed gives the same bits."""
    recipe: Literal["default", "book"] = "default"
    """default: every row, duplicates dropped before a stratified split. book: chapter 6 of "Build a Large
    Language Model From Scratch" step by step, for its numbers. Options given beside it win."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None, _by_recipe("precision", "{auto,fp32,bf16,fp16}")
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
    """Tensors in the saved classifier: the trained ones, to be laid over the base weights; all of them; or
    the trained ones where the base is a preset that can be fetched again."""
    out: Path | None = None
    """The run's folder; otherwise a new one, runs/<model>-<data>."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the interrupted run in --out with the options it was started with."""

    def resolved(self) -> "TrainConfig":
        """The same with every default that hangs on the recipe and the model filled in.

        Raises InputError for a value that no run can use.
        """
        defaults = dict(RECIPES[self.recipe])
        if self.recipe == "default":
            defaults |= FROM_RANDOM if self.init == "random" else FOR_MODEL.get(self.model, {})
        given = {k: v for k, v in defaults.items() if getattr(self, k) is None}
        config = replace(self, **given)
        config._check()
        return config

    @property
    def run_name(self) -> str:
        """What the run's folder is called where nothing else is said."""
        name = f"{Path(self.model).name}-{Path(self.data).stem}"
        return name if self.recipe == "default" else f"{name}-{self.recipe}"

    def _check(self) -> None:
        preset = PRESETS.get(self.model)
        trained_blocks(self.train, preset.n_layer if preset else 10_000)  # before anything is downloaded
        if preset and max(self.max_length or 0, self.pad_to or 0) > preset.n_positions:
            raise InputError(
                f"{self.model} reads {preset.n_positions} tokens; make --max-length and --pad-to smaller"
            )
        if self.save == "trained" and self.init == "random":
            raise InputError("--save trained needs pretrained base weights; this run starts from random ones")
        self.check_seed()
        at_least = {
            "epochs": 1, "batch_size": 1, "accumulate": 1, "eval_freq": 1, "eval_iter": 1, "patience": 0,
            "lr": 0, "weight_decay": 0, "cache_budget": 0, "warmup": 0, "clip": 0, "max_length": 1,
            "pad_to": 1,
        }  # fmt: skip
        self.check_at_least(at_least)
        for name in ("warmup", "validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"{flag(name)} {getattr(self, name)} is no share; use a number from 0 to below 1"
                )
        for part in ("validation", "test"):
            fraction = f"{part}_fraction"
            if getattr(self, part) and getattr(self, fraction) != getattr(TrainConfig, fraction):
                raise InputError(f"{flag(part)} and {flag(fraction)} exclude each other; leave one out")
        own_split = ("validation", "test", "validation_fraction", "test_fraction")
        changed = [name for name in own_split if getattr(self, name) != getattr(TrainConfig, name)]
        if self.recipe == "book" and changed:
            raise InputError(f"--recipe book makes its own split; leave out {flag(changed[0])}")
        if self.no_cache and self.cache:
            raise InputError(f"--no-cache and --cache {self.cache} exclude each other; leave one out")
        if self.cache and self.train == "all":
            raise InputError(
                f"--cache {self.cache} keeps what is frozen, and --train all freezes nothing; leave it out"
            )
        if self.pad_to and self.max_length and self.max_length > self.pad_to:
            raise InputError(
                f"--max-length {self.max_length} does not fit --pad-to {self.pad_to}; make it smaller"
            )
