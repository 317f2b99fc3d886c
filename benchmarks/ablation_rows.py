"""The book's 19 ablations as a table: what each changes in a run, and the figures that were published.

Raschka, *Build a Large Language Model From Scratch*, bonus material of chapter 6, "Additional classification
finetuning experiments": one run each of GPT-2 on 1,045 / 149 / 300 messages, timed on an A100. Each row here
is a set of options added to ``--recipe book``, which is row 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.models.pretrained import weights_file
from gptcls.models.weight_files import read_object
from gptcls.train.config import LORA, RECIPES, TrainConfig
from gptcls.train.presets import NARROW
from gptcls.train.resolve import resolve

WHOLE = "whole"  # as pad_to: all the positions that the model has
SIZES = ("gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl")
LORA_LR = LORA["lr"]


@dataclass(frozen=True)
class Ablation:
    """One row: a name, the options that it changes, and what was published for gpt2-small."""

    number: int
    name: str
    options: Mapping[str, Any]  # of TrainConfig, added to --recipe book
    published: tuple[float, float, float]  # accuracy on train, validation and test, percent
    minutes: float  # published
    note: str = ""  # what a reader must know to compare
    same_as: int | None = None  # the row whose run this is, to the last bit
    keeps_features: bool = field(default=True, kw_only=True)  # worth room in the cache

    def applies_to(self, model: str) -> bool:
        """Whether the row means anything for ``model``: another size of GPT-2 does only for a GPT-2."""
        return "model" not in self.options or model in SIZES


_ALL = {"train": "all"}
_LORA = {"train": "lora", "lora_rank": 16, "lr": LORA_LR}
ABLATIONS = {
    row.number: row
    for row in (
        Ablation(
            1,
            "default",
            {},
            (96.63, 99.33, 95.00),
            0.28,
            "the last block, read at position -1, padded to the longest training text: 120 tokens in the "
            "book's split, other lengths in others",
        ),
        Ablation(2, "first position", {"pooling": "first"}, (78.46, 80.54, 75.00), 0.28),
        Ablation(3, "head only", {"train": "head"}, (78.65, 79.87, 72.00), 0.25),
        Ablation(4, "last two blocks", {"train": "last_2"}, (98.85, 98.66, 98.33), 0.33),
        Ablation(5, "all layers", _ALL, (99.62, 96.64, 96.67), 0.69),
        Ablation(6, "medium", {"model": "gpt2-medium"}, (87.50, 91.28, 84.67), 0.75),
        Ablation(7, "large", {"model": "gpt2-large"}, (99.52, 98.66, 96.67), 1.50),
        Ablation(8, "xl", {"model": "gpt2-xl"}, (99.81, 99.33, 98.33), 2.83),
        Ablation(9, "xl, all layers", {"model": "gpt2-xl", **_ALL}, (100, 98.66, 98.67), 8.12),
        Ablation(10, "random weights, all layers", {"init": "random", **_ALL}, (100, 96.64, 93.67), 0.69),
        Ablation(
            11,
            "LoRA, rank 16, alpha 16",
            {"lora_alpha": 16.0, **_LORA},
            (100, 97.32, 96.67),
            0.75,
            f"its learning rate is that of the book's appendix E, {LORA_LR:g}, unless --lr is given",
        ),
        Ablation(
            12,
            "xl, LoRA, rank 16, alpha 8",
            {"model": "gpt2-xl", "lora_alpha": 8.0, **_LORA},
            (100, 98.66, 98.33),
            5.79,
            "as row 11",
        ),
        Ablation(
            13,
            "padded to the model's length",
            {"pad_to": WHOLE},
            (83.08, 87.92, 78.33),
            2.46,
            "1,024 positions of GPT-2, 256 of gpt2-nano",
            keeps_features=False,  # of gpt2-small they are gigabytes, and few of them are used twice
        ),
        Ablation(
            14,
            "no padding, batch 1",
            {"pooling": "last", "batch_size": 1},
            (100, 98.66, 98.00),
            1.75,
            "without padding, position -1 is the last real token",
        ),
        Ablation(
            15,
            "no padding, batch 1, accumulate 8",
            {"pooling": "last", "batch_size": 1, "accumulate": 8},
            (99.33, 98.66, 98.33),
            1.70,
        ),
        Ablation(
            16,
            "last real token",
            {"pooling": "last"},
            (99.42, 98.66, 98.33),
            0.30,
            "texts are read to their end, the book's to the length of the longest training text",
        ),
        Ablation(
            17,
            "no causal mask",
            {"no_causal_mask": True},
            (99.23, 98.66, 95.33),
            0.29,
            "every position sees every other, padding included, as in the book",
        ),
        Ablation(
            18,
            "ignore_index",
            {},
            (96.63, 99.33, 95.00),
            0.28,
            "is row 1: the loss is told to skip targets of 50256, and a class is 0 or 1",
            same_as=1,
        ),
        Ablation(
            19,
            "mean of all positions",
            {"pooling": "mean"},
            (97.79, 99.33, 96.33),
            0.32,
            "the mean of the real tokens; the book's takes in the padding",
        ),
    )
}


def chosen(numbers: tuple[int, ...]) -> list[Ablation]:
    """The rows of these numbers in the table's order; all without any. InputError for a number of none."""
    for number in numbers:
        if number not in ABLATIONS:
            raise InputError(
                f"--rows {number}: there is no such row; take numbers from 1 to {len(ABLATIONS)}"
            )
    return [row for row in ABLATIONS.values() if not numbers or row.number in numbers]


def settings(model: str) -> dict[str, Any]:
    """What all rows of a model share: the book's settings (none), or those that suit a narrow network.

    The book's 5e-5 hardly moves a narrow network: it has the rate that the tables in ``ablations-nano`` were
    measured with, and for steps that large a warm-up, a schedule and clipping. The epochs stay the book's.
    """
    if not is_narrow(model):
        return {}
    steps = {name: RECIPES["default"][name] for name in ("schedule", "warmup", "clip")}
    return steps | {"lr": 1e-3}


def is_narrow(model: str) -> bool:
    """Whether the network has fewer channels than :data:`gptcls.train.presets.NARROW`, by its preset or the
    config.json of its weights; without a word of either it has not."""
    if model in PRESETS:
        return PRESETS[model].n_embd < NARROW
    file = weights_file(model).with_name("config.json")
    declared = read_object(file) if file.is_file() else {}
    width = declared.get("n_embd", declared.get("hidden_size"))
    return isinstance(width, int) and width < NARROW


def config_of(row: Ablation, n_positions: int, **shared: Any) -> TrainConfig:
    """The run of a row: the book's recipe, the model's :func:`settings`, the row's changes.

    Args:
        row: one that applies to the model.
        n_positions: of the model.
        shared: ``model``, ``data``, ``seed`` and other options of :class:`TrainConfig`; of these ``epochs``
            and ``lr`` stand above the row, the others below it. None leaves a value to the recipe.
    """
    above = {name: value for name in ("epochs", "lr") if (value := shared.pop(name, None)) is not None}
    options = settings(shared["model"]) | shared | row.options | above
    if options.get("pad_to") == WHOLE:
        options["pad_to"] = n_positions
    return resolve(TrainConfig.of(recipe="book", **options))
