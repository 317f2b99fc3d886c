"""Which values of a training run's options can be used, and which exclude each other.

Which options of a training run go with which task.
"""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gptcls.common.options import flag
from gptcls.core.classifier import trained_blocks
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.data.labels import Layout
from gptcls.train.recipes import LORA

if TYPE_CHECKING:
    from gptcls.train.config import TrainConfig

AT_LEAST = {
    "epochs": 1, "batch_size": 1, "accumulate": 1, "eval_freq": 1, "eval_iter": 1, "patience": 0,
    "lr": 0, "weight_decay": 0, "cache_budget": 0, "warmup": 0, "clip": 0, "max_length": 1,
    "pad_to": 1, "lora_rank": 1, "lora_alpha": 0, "lora_dropout": 0,
}  # fmt: skip


SHARES = ("warmup", "validation_fraction", "test_fraction", "lora_dropout")


# The book reads and splits its one file in its own way.
NOT_WITH_BOOK = (
    "validation", "test", "validation_fraction", "test_fraction", "separator", "encoding", "columns", "clean",
    "augment", "extra",
)  # fmt: skip


def check_config(config: "TrainConfig") -> None:
    """Raise InputError for the first value that no run can use, before anything is read or downloaded.

    The configuration has its recipe's defaults filled in.
    """
    check_task(config)
    _check_what_trains(config)
    config.check_seed()
    _check_numbers(config)
    _check_rows(config)
    _ = config.dialect, config.augmentation  # they check themselves
    _check_cache(config)


def _check_what_trains(config: "TrainConfig") -> None:
    preset = PRESETS.get(config.model)
    if config.train != "lora":
        trained_blocks(config.train, preset.n_layer if preset else 10_000)
        if given := [name for name in LORA if name != "lr" and getattr(config, name) is not None]:
            raise InputError(f"{flag(given[0])} goes with --train lora, not --train {config.train}")
    if preset and max(config.max_length or 0, config.pad_to or 0) > preset.n_positions:
        raise InputError(
            f"{config.model} reads {preset.n_positions} tokens; make --max-length and --pad-to smaller"
        )
    if config.save == "trained" and config.init == "random":
        raise InputError("--save trained needs pretrained base weights; this run starts from random ones")


def _check_numbers(config: "TrainConfig") -> None:
    config.check_at_least(AT_LEAST)
    for name in SHARES:
        value = getattr(config, name)
        if value is not None and not 0 <= value < 1:
            raise InputError(f"{flag(name)} {value} is no share; use a number from 0 to below 1")
    if config.pad_to and config.max_length and config.max_length > config.pad_to:
        raise InputError(
            f"--max-length {config.max_length} does not fit --pad-to {config.pad_to}; make it smaller"
        )


def _check_rows(config: "TrainConfig") -> None:
    default = type(config)
    for part in ("validation", "test"):
        fraction = f"{part}_fraction"
        if getattr(config, part) and getattr(config, fraction) != getattr(default, fraction):
            raise InputError(f"{flag(part)} and {flag(fraction)} exclude each other; leave one out")
    changed = [name for name in NOT_WITH_BOOK if getattr(config, name) != getattr(default, name)]
    if config.recipe == "book" and changed:
        raise InputError(f"--recipe book reads and splits in its own way; leave out {flag(changed[0])}")


def _check_cache(config: "TrainConfig") -> None:
    if config.cache and config.cache.is_file():
        raise InputError(f"--cache {config.cache} is a file; name a folder")
    if config.no_cache and config.cache:
        raise InputError(f"--no-cache and --cache {config.cache} exclude each other; leave one out")
    if config.cache and config.train == "all":
        raise InputError(
            f"--cache {config.cache} keeps what is frozen, and --train all freezes nothing; leave it out"
        )


TASK_OPTIONS = {  # every other option goes with every task
    "positive": ("single",),
    "label_smoothing": ("single",),
    "balance": ("single", "multi"),
    "raw_targets": ("regression",),
}


def task_options(config: "TrainConfig") -> dict[str, Any]:
    """The options that are the task's own, for :meth:`gptcls.core.task.Task.for_training`."""
    return {name: getattr(config, name) for name, tasks in TASK_OPTIONS.items() if config.task in tasks}


def check_task(config: "TrainConfig") -> None:
    """Raise InputError for an option of another task, and for values that no task can use."""
    if config.recipe == "book" and config.layout != Layout():
        raise InputError(
            "--recipe book reads one class a text, as the book does; leave out --task and the options "
            "about labels and columns"
        )
    unset = {field.name: field.default for field in fields(config)} | {"balance": "none"}
    for name, tasks in TASK_OPTIONS.items():
        value = getattr(config, name)
        if config.task not in tasks and value != unset[name]:
            raise InputError(
                f"{flag(name)}{'' if value is True else f' {value}'} is for --task {' or '.join(tasks)}, "
                f"not {config.task}; leave it out"
            )
    if config.task == "multi" and config.balance not in ("none", "weights"):
        raise InputError(
            f"--balance {config.balance} needs one class a text, and --task multi has several; use weights"
        )
    if not 0 <= config.label_smoothing < 1:
        raise InputError(f"--label-smoothing {config.label_smoothing} is no share; use 0 to below 1")
