"""The options of a pretraining run: one definition for Python, the command line, its help and config.json."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from gptcls.common.help import ADVANCED
from gptcls.common.options import Options, check_at_least, check_seed, flag
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.core.tokenizer import VOCAB_SIZE
from gptcls.data.readers import SUFFIXES

DECAY = 0.3
LR = {"random": 1e-3, "pretrained": 1e-4}  # what is known already is easily lost to large steps
DATA_HELP = f"Files of text: .txt, a document each, or tables, a document per row: {SUFFIXES}."
HINT = f"(default: {LR['pretrained']}; from random weights: {LR['random']})"


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Options):
    """Train a GPT-2 to predict the next token of plain text.

    From random weights (--init random), or on from pretrained ones, so that they learn the language of your
    texts (Gururangan et al. 2020, "Don't Stop Pretraining").
    """

    FIRST_PAGE: ClassVar = (
        "data", "text_column", "model", "init", "steps", "batch_size", "lr", "cache", "out", "resume",
    )  # fmt: skip
    GROUPS: ClassVar = {
        **dict.fromkeys(("data", "mix", "text_column", "held_out", "cache"), "data"),
        **dict.fromkeys(
            ("model", "init", "n_layer", "n_embd", "n_head", "n_positions", "window", "dropout"), "model"
        ),
        **dict.fromkeys(("batch_size", "steps", "lr", "schedule", "optimizer", "seed"), "training"),
        **dict.fromkeys(("eval_freq", "prompt", "save", "keep", "out", "resume"), "output"),
        "": ADVANCED,
    }
    WINDOW: ClassVar[int] = 256  # short enough to be fast, long enough for what the model can learn

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE …", help=DATA_HELP)] = ()
    mix: tuple[float, ...] = ()
    """Share of each file in what is trained on, in the order of --data; otherwise that of its tokens."""
    text_column: str | None = None
    """Column with the text in tables; otherwise the one called text."""
    model: str = "gpt2-nano"
    """Preset (gpt2-nano, -small, -medium, -large, -xl), name on the Hugging Face hub, or a local folder or
    file with GPT-2 weights."""
    init: Literal["pretrained", "random"] = "pretrained"
    """Train the model's weights further, or start a preset from random ones."""
    n_layer: int | None = None
    """Blocks, other than the preset's; with --init random."""
    n_embd: int | None = None
    """Width, likewise."""
    n_head: int | None = None
    """Attention heads, likewise."""
    n_positions: int | None = None
    """Longest sequence, likewise."""
    window: int | None = None
    """Tokens per row; otherwise 256, or the model's longest sequence where that is shorter."""
    batch_size: int = 16
    """Rows per step, of each process that torchrun starts."""
    steps: int = 1000
    """Steps of the optimizer."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon makes the updates of the blocks' matrices orthogonal, with AdamW for the rest; a step costs a
    little more."""
    lr: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint=HINT)] = None
    """Peak learning rate, of either optimizer."""
    schedule: Literal["cosine", "trapezoid"] = "cosine"
    """The learning rate after the warm-up: it falls to 0 along a cosine, or stays until a line falls to 0."""
    decay: float = DECAY
    """Share of the steps, the last ones, in which a trapezoid falls; with 0 it stays to the end."""
    warmup: float = 0.02
    """Share of the steps in which the learning rate rises to its peak."""
    weight_decay: float = 0.1
    """Weight decay, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""
    dropout: float = 0.0
    """Share of the activations dropped in training; worth 0.1 where the text is read many times."""
    candidates: int = 4096
    """About how many tokens the softmax of a training step runs over, drawn by how common they are, besides
    the targets. 0 takes all 50,257: with a small model several times slower."""
    table: Literal["random", "counts"] = "random"
    """The token table at the start: random, or from counts of which tokens stand near which in --data,
    which takes minutes; with --init random."""
    table_mix: tuple[float, ...] = ()
    """How often each file counts for --table counts, in the order of --data; otherwise once."""
    table_rate: float = 1.0
    """Share of the learning rate that the token table is trained at; 0 freezes it, and saves a small model a
    fifth of a step."""
    held_out: float = 0.02
    """Share of each file's text that is not trained on, to measure the perplexity. The text alone decides
    which part, so that later runs over the same files do not train on it."""
    eval_freq: int = 250
    """Steps between two looks at the held-out text, each with a sample of what the model writes."""
    prompt: str = ""
    """Beginning of these samples; otherwise that of a document."""
    save: Literal["fp32", "fp16"] = "fp32"
    """Number format of the saved weights; fp16 halves the file."""
    keep: tuple[int, ...] = ()
    """Steps after which the weights are also saved, in fp16, in the run's kept/step-000123."""
    cache: Path | None = None
    """Folder that keeps the tokens of each file, so that later runs over the same files start in seconds."""
    seed: int = 123
    """Of the weights and the order: the same bits on one CPU with as many threads."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the matrix products, not of the weights; auto takes bf16 where it is at full speed."""
    out: Path | None = None
    """The run's folder; otherwise a new one, runs/<model>-pretrained."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the interrupted run in --out with the options it was started with."""

    @property
    def run_name(self) -> str:
        """What the run's folder is called where nothing else is said."""
        return f"{Path(self.model).name}-pretrained"

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that were asked for in place of the preset's."""
        sizes = {name: getattr(self, name) for name in ("n_layer", "n_embd", "n_head", "n_positions")}
        return {name: size for name, size in sizes.items() if size is not None}

    def checked(self) -> "PretrainConfig":
        """The same with the learning rate filled in; InputError for a value that no run can use."""
        if not self.data:
            raise InputError("--data is missing: name the files of text to train on")
        check_seed(self.seed)
        check_at_least(self.flat(), {
            "batch_size": 1, "steps": 1, "lr": 0, "warmup": 0, "weight_decay": 0, "clip": 0, "dropout": 0,
            "candidates": 0, "eval_freq": 1, "window": 2, "n_layer": 1, "n_embd": 1, "n_head": 1,
            "n_positions": 2, "table_rate": 0,
        })  # fmt: skip
        for name in ("warmup", "decay", "dropout", "held_out"):
            share = getattr(self, name)
            if not 0 <= share < 1 or (name == "held_out" and not share):
                raise InputError(f"{flag(name)} {share} is not a share; use a number above 0 and below 1")
        most = VOCAB_SIZE // 2
        if self.candidates and not 16 <= self.candidates <= most:
            raise InputError(f"--candidates {self.candidates} cannot be; use 16 to {most}, or 0 for all")
        for name in ("mix", "table_mix"):
            mix, n_files = getattr(self, name), len(self.data)
            if mix and (len(mix) != n_files or min(mix) < 0 or not 0 < sum(mix) < math.inf):
                shares = " ".join(map(str, mix))
                raise InputError(f"{flag(name)} {shares}: give each of {n_files} files a number, 0 or more")
        if self.table == "counts" and self.init != "random":
            raise InputError("--table counts goes with --init random; pretrained weights have their table")
        if self.table_mix and self.table != "counts":
            raise InputError("--table-mix goes with --table counts; leave it out")
        if self.schedule != "trapezoid" and self.decay != DECAY:
            raise InputError(f"--decay {self.decay} goes with --schedule trapezoid; a cosine has none")
        if wrong := [step for step in self.keep if not 1 <= step <= self.steps]:
            raise InputError(f"--keep {wrong[0]} never comes; name steps from 1 to --steps {self.steps}")
        if self.cache and self.cache.is_file():
            raise InputError(f"--cache {self.cache} is a file; name a folder")
        if self.sizes and self.init != "random":
            size = flag(next(iter(self.sizes)))
            raise InputError(f"{size} goes with --init random; these weights have their size")
        if self.init == "random" and self.model not in PRESETS:
            raise InputError(f"--init random needs a preset ({', '.join(PRESETS)}), not {self.model!r}")
        return replace(self, lr=self.lr or LR[self.init])
