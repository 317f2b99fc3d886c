"""The defaults of a training run that hang on its recipe, its model, or what it trains."""

from typing import Any

import tyro

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
    """What --help shows of an option whose default hangs on the recipe and the model."""
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
