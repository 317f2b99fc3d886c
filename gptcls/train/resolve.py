"""From the options that were given to those of a run: defaults filled in, what excludes what refused, before
anything is read or downloaded."""

from dataclasses import fields
from typing import Any

from gptcls.common.log import log
from gptcls.common.options import check_at_least, check_choices, check_seed, flag
from gptcls.core.classifier import POOLERS, trained_blocks
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.data.augment import BY_MODEL
from gptcls.train.config import FROM_RANDOM, LORA, RECIPES, LanguageOptions, TrainConfig
from gptcls.train.presets import preset_settings

AT_LEAST = {
    "epochs": 0, "batch_size": 1, "shots": 0, "accumulate": 1, "eval_freq": 1, "eval_iter": 1, "patience": 0,
    "lr": 0, "weight_decay": 0, "cache_budget": 0, "warmup": 0, "clip": 0, "max_length": 1,
    "pad_to": 1, "lora_rank": 1, "lora_alpha": 0, "lora_dropout": 0,
    "lora_plus": 1,
}  # fmt: skip
SHARES = ("warmup", "validation_fraction", "test_fraction", "lora_dropout", "label_smoothing")
# The book reads and splits its one file in its own way.
NOT_WITH_BOOK = (
    "validation", "test", "validation_fraction", "test_fraction", "separator", "encoding", "columns", "clean",
    "augment", "extra", "repeats",
)  # fmt: skip
LABELS_OF_BOOK = ("task", "label_columns", "label_separator", "label_names")
TASK_OPTIONS = {  # every other option goes with every task
    "positive": ("single",), "label_smoothing": ("single",), "balance": ("single", "multi"),
    "raw_targets": ("regression",),
}  # fmt: skip


def resolve(config: TrainConfig) -> TrainConfig:
    """The configuration with all defaults that depend on the recipe or what is trained, but not on the rows;
    InputError for the first value that no run can use."""
    check_choices(config)
    values = config.flat()
    defaults = dict(RECIPES[config.run.recipe])
    if config.run.recipe == "default" and config.model.init == "random":
        defaults |= FROM_RANDOM
    if config.model.train == "lora":
        defaults |= LORA
    values |= {name: default for name, default in defaults.items() if values[name] is None}
    if values["costs"] is not None and values["threshold"] == "none":
        values["threshold"] = "cost"
    if values["shots"] and values["epochs"] is None:
        values["epochs"] = 0
    for check in (
        _check_shard, _check_language, _check_task, _check_seeds, _check_answers, _check_what_trains,
        _check_numbers, _check_files, _check_models_of_augment,
    ):  # fmt: skip
        check(values)
    config = type(config).of(**values)
    # These check themselves.
    _ = config.data.label_layout, config.data.dialect, config.data.augmentation, config.language.mixed
    return config


def settle(config: TrainConfig, width: int | None, decoder: bool, rows: int) -> TrainConfig:
    """With what was open until the network's size and kind and the number of training rows were known: as the
    preset says, which is logged."""
    values = config.flat()
    chosen = preset_settings(config.fit.preset, width, rows, decoder)
    if config.language.head == "lm":
        chosen = {name: value for name, value in chosen.items() if name != "stack"} | {"pooling": "last"}
        chosen |= {"train": "head"} if values["epochs"] == 0 else {}
    chosen = {name: value for name, value in chosen.items() if values[name] is None}
    if chosen:
        said = ", ".join(
            f"{flag(name)} {value:g}" if name == "lr" else f"{flag(name)} {value}"
            for name, value in chosen.items()
        )
        log.info(f"--preset {config.fit.preset} for {rows:,} rows: {said}")
    return config.changed(**chosen)


def _changed(values: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """Those of some options that are not at their default."""
    defaults = TrainConfig.defaults()
    return [name for name in names if values[name] != defaults[name]]


def _check_task(values: dict[str, Any]) -> None:
    task, balance = values["task"], values["balance"]
    if values["recipe"] == "book" and _changed(values, ("preset",)):
        raise InputError(f"--recipe book has its own settings; leave out --preset {values['preset']}")
    if values["recipe"] == "book" and values["stack"] == "ngrams":
        raise InputError("--recipe book has no n-grams; leave out --stack ngrams")
    if values["recipe"] == "book" and (changed := _changed(values, LABELS_OF_BOOK)):
        raise InputError(f"--recipe book reads one class per text; leave out {flag(changed[0])}")
    for name, tasks in TASK_OPTIONS.items():
        value = values[name]
        unset = "none" if name == "balance" else TrainConfig.defaults()[name]
        if task not in tasks and value != unset:
            given = flag(name) if value is True else f"{flag(name)} {value}"
            raise InputError(f"{given} is for --task {' or '.join(tasks)}, not {task}; leave it out")
    if task == "multi" and balance not in ("none", "weights"):
        raise InputError(f"--balance {balance} needs one class per text, not --task multi; use weights")


def _check_seeds(values: dict[str, Any]) -> None:
    if not (seeds := values["seeds"]):
        return
    given = f"--seeds {' '.join(map(str, seeds))}"
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise InputError(f"{given}: an ensemble has two or more different ones; or give one as --seed")
    for seed in seeds:
        check_seed(seed)
    if values["train"] == "lora":
        raise InputError(f"{given}: adapters cannot be put together yet; leave out --train lora or --seeds")
    if values["recipe"] == "book":
        raise InputError(f"{given}: --recipe book trains one network; leave one of the two out")


def _check_shard(values: dict[str, Any]) -> None:
    if not values["shard"]:
        return
    for name in ("cache", "compile", "seeds"):
        if value := values[name]:
            given = f"{flag(name)} {value}" if name == "cache" else flag(name)
            raise InputError(f"{given} is not for a network in parts (--shard); leave one of the two out")
    if values["recipe"] == "book":
        raise InputError("--recipe book trains a whole network; leave out --shard")
    values["no_cache"] = True


def _check_language(values: dict[str, Any]) -> None:
    """What goes with --head lm, and what does not."""
    given = _changed(values, tuple(each.name for each in fields(LanguageOptions) if each.name != "head"))
    epochs = values["epochs"]
    if values["head"] != "lm":
        if given:
            raise InputError(f"{flag(given[0])} goes with --head lm; add that, or leave it out")
        if epochs == 0:
            raise InputError("--epochs 0 is too small; use 1 or more, or --head lm")
        return
    if values["task"] != "single":
        way_out = "take --task single, or leave --head lm out"
        raise InputError(f"--head lm names one class of each text, not --task {values['task']}; {way_out}")
    for so, what in (
        (values["recipe"] == "book", "--recipe book"),
        (values["init"] == "random", "--init random"),
        (values["no_causal_mask"], "--no-causal-mask"),
        (values["shard"], "--shard"),
        (values["seeds"], "--seeds"),
        (values["pooling"] not in (None, "auto", "last"), f"--pooling {values['pooling']}"),
        (values["pad_to"] is not None, "--pad-to"),
        (values["objective"] == "tokens" and values["label_smoothing"], "--label-smoothing"),
    ):
        if so:
            beside = "--objective tokens" if what == "--label-smoothing" else "--head lm"
            raise InputError(f"{what} is not for {beside}; leave one of the two out")
    if values["shots"] and epochs:
        raise InputError(f"--shots are for a head that is asked as it is; leave out --epochs {epochs}")
    if values["train"] == "head" and epochs != 0:
        raise InputError("--train head trains a new head, and --head lm has none; use last_block or more")
    if epochs == 0 and (given := _changed(values, ("objective", "mix"))):
        said = f"{flag(given[0])} is about training, and --epochs 0 has none"
        raise InputError(f"{said}; leave one of the two out")
    for name, weighs in (
        ("balance", values["balance"] == "weights"),
        ("repeats", values["repeats"] == "weight"),
        ("label_smoothing", values["label_smoothing"]),
    ):
        if values["mix"] and weighs:
            raise InputError(f"{flag(name)} {values[name]} is not for --mix; leave one of the two out")
    if (n := len(values["mix_patterns"])) not in (0, m := len(values["mix"])):
        raise InputError(f"--mix-patterns has {n} for {m} of --mix; give one for each, or none")


def _check_answers(values: dict[str, Any]) -> None:
    threshold, costs, abstain = values["threshold"], values["costs"], values["abstain"]
    if threshold == "cost" and costs is None:
        raise InputError("--threshold cost needs --costs FILE, a table of what each error costs")
    if threshold == "auto" and costs is not None:
        raise InputError(f"--threshold auto and --costs {costs} exclude each other; leave one out")
    if abstain is not None and not 0 <= abstain <= 1:
        raise InputError(f"--abstain {abstain} is not a probability; use 0 to 1, such as 0.9")
    if values["task"] == "regression" and (changed := _changed(values, ("threshold", "costs", "abstain"))):
        raise InputError(f"{flag(changed[-1])} is about names, not numbers (--task regression); leave it out")


def _check_what_trains(values: dict[str, Any]) -> None:
    model, train, preset = values["model"], values["train"], PRESETS.get(values["model"])
    if train != "lora":
        if train is not None:
            trained_blocks(train, preset.n_layer if preset else 10_000)
        if given := [name for name in LORA if name != "lr" and values[name] is not None]:
            raise InputError(f"{flag(given[0])} goes with --train lora; add that, or leave it out")
    if values["pooling"] not in (known := (None, "auto", *POOLERS)):
        raise InputError(f"--pooling {values['pooling']!r} is unknown; use {', '.join(known[1:])}")
    if preset and max(values["max_length"] or 0, values["pad_to"] or 0) > preset.n_positions:
        raise InputError(f"{model} reads {preset.n_positions} tokens; lower --max-length and --pad-to")
    if values["save"] == "trained" and values["init"] == "random":
        raise InputError("--save trained needs pretrained base weights; this run starts from random ones")


def _check_numbers(values: dict[str, Any]) -> None:
    check_seed(values["seed"])
    check_at_least(values, AT_LEAST)
    for name in SHARES:
        if values[name] is not None and not 0 <= values[name] < 1:
            raise InputError(f"{flag(name)} {values[name]} is not a share; use a number from 0 to below 1")
    pad_to, max_length = values["pad_to"], values["max_length"]
    if pad_to and max_length and max_length > pad_to:
        raise InputError(f"--max-length {max_length} does not fit --pad-to {pad_to}; make it smaller")


def _check_files(values: dict[str, Any]) -> None:
    for part in ("validation", "test"):
        if values[part] and _changed(values, (f"{part}_fraction",)):
            raise InputError(f"{flag(part)} and {flag(part)}-fraction exclude each other; leave one out")
    if values["recipe"] == "book" and (changed := _changed(values, NOT_WITH_BOOK)):
        raise InputError(f"--recipe book reads and splits in its own way; leave out {flag(changed[0])}")
    if (cache := values["cache"]) is None:
        return
    if cache.is_file():
        raise InputError(f"--cache {cache} is a file; name a folder")
    if values["no_cache"]:
        raise InputError(f"--no-cache and --cache {cache} exclude each other; leave one out")
    if values["train"] == "all":
        raise InputError(f"--cache {cache} keeps what is frozen, --train all freezes nothing; leave it out")


def _check_models_of_augment(values: dict[str, Any]) -> None:
    """The models of those operations of --augment that need some, and none of the others."""
    asked = set(values["augment"]) & set(BY_MODEL)
    owners = {"translate_there": "back-translate", "translate_back": "back-translate"}
    owners |= {"paraphrase_with": "paraphrase"}
    for name, operation in owners.items():
        if operation in asked and not values[name]:
            raise InputError(f"--augment {operation} needs {flag(name)}, a model's name or folder")
    for name, operation in (owners | {"paraphrase_prefix": "paraphrase"}).items():
        if operation not in asked and _changed(values, (name,)):
            given = f"{flag(name)} {values[name]}"
            raise InputError(f"{given} goes with --augment {operation}; add that, or leave it out")
    if values["augment_judge"] and not asked:
        given = f"--augment-judge {values['augment_judge']}"
        raise InputError(f"{given} goes with --augment {' or '.join(BY_MODEL)}; add that, or leave it out")
    judged = "paraphrase" in asked or values["augment_judge"]
    if judged and values["task"] == "regression":
        raise InputError("--augment with a judge is about labels, not numbers (--task regression)")
    if "paraphrase" in asked and values["task"] == "multi" and not values["augment_judge"]:
        raise InputError("--augment paraphrase of --task multi needs --augment-judge, a trained classifier")
