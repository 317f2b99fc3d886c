"""A trained classifier as one folder: ``classifier.json``, which people can read, and ``model.safetensors``.

The tensors are either all of the network's, or only the trained ones beside the name and sha256 of the
base weights they were trained on (28 MB instead of 498 MB for the last block of gpt2-small).
"""

import json
import math
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gptcls.atomic import atomic_folder
from gptcls.classifier import POOLERS, Classifier, trained_blocks
from gptcls.errors import InputError
from gptcls.models.gpt2 import GPT2, GPT2Config
from gptcls.models.pretrained import check_numbers, load_pretrained, shapes_only, weights_sha256
from gptcls.tasks import Task, task_from_json, task_rules

FORMAT_VERSION = 1


@dataclass
class SavedClassifier:
    """Everything that is needed to use a classifier again, or to know where it came from."""

    model: Classifier
    task: Task
    max_length: int  # tokens read of each text
    pad_to: int | None  # positions that every text is padded to; only the book's pooling needs it
    base: dict | None  # {"name", "sha256"} of the pretrained weights; None where training began at random
    training: dict  # the settings of the run
    scores: dict  # per part of the data, as in metrics.json


def save_classifier(folder: Path, saved: SavedClassifier, full: bool = True) -> None:
    """Write ``saved`` to ``folder``; a classifier already there stays whole until this one is complete.

    Args:
        folder: created with its parents; what stands there may only be an older classifier, which goes.
        saved: the classifier.
        full: store every tensor; otherwise only the trained ones, to be laid over ``saved.base``.

    Raises:
        InputError: the folder holds something else or cannot be written, or the disk is full.
    """
    if not full and saved.base is None:
        raise ValueError(
            "only a classifier over pretrained weights can be stored by its trained tensors alone"
        )
    model = saved.model
    tensors = model.state_dict() if full else model.trained_parameters()
    config = replace(model.backbone.config, tied=True)  # the classifier has no language-model head
    description = {
        "format": "gptcls classifier",
        "format_version": FORMAT_VERSION,
        "base": saved.base,
        "tensors": "all" if full else "trained",
        "architecture": {"family": "gpt2", **asdict(config)},
        "task": saved.task.to_json(),
        "pooling": model.pooling,
        "max_length": saved.max_length,
        "pad_to": saved.pad_to,
        "trained": model.policy,
        "training": saved.training,
        "versions": library_versions(),
        "scores": saved.scores,
    }
    folder = Path(folder)
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / "classifier.json").is_file():
            raise InputError(
                f"{folder} holds other files and no classifier to replace; choose another folder"
            )
        with atomic_folder(folder) as temporary:
            tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
            text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
            (temporary / "classifier.json").write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot save the classifier to {folder}: {error}; free space or choose another --out"
        ) from error


def find_classifier(folder: Path | str) -> Path:
    """The folder that holds ``classifier.json``: ``folder`` itself or, for a run, its ``classifier/``.

    Raises InputError when there is none.
    """
    folder = Path(folder)
    for candidate in (folder, folder / "classifier"):
        if (candidate / "classifier.json").is_file():
            return candidate
    what = "holds no classifier (no classifier.json)" if folder.exists() else "does not exist"
    raise InputError(f"{folder} {what}; train one with python -m gptcls.train --out {folder}")


def read_classifier(folder: Path | str) -> SavedClassifier:
    """Load what :func:`save_classifier` wrote, or the run folder it stands in; the model is in eval mode.

    Raises:
        InputError: no classifier there, a newer format, damaged or mis-shaped tensors, or base weights
            that are absent or are not the ones it was trained on.
    """
    folder = find_classifier(folder)
    try:
        spec = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        _check(spec, folder)
        task = task_from_json(spec["task"])
        config = GPT2Config(**{k: v for k, v in spec["architecture"].items() if k != "family"})
        tensors = load_file(folder / "model.safetensors")
        backbone = _base_backbone(spec["base"], config, folder) if spec["tensors"] == "trained" else None
        with shapes_only():
            model = Classifier(backbone or GPT2(config), task.n_outputs, spec["pooling"])
        model.freeze(spec["trained"])
        _assign(model, tensors, spec["tensors"], folder)
        rest = {key: spec[key] for key in ("max_length", "pad_to", "base", "training", "scores")}
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise InputError(
            f"{folder} is damaged ({type(error).__name__}: {error}); save or copy it again"
        ) from error
    return SavedClassifier(model.eval(), task, **rest)


def _check(spec: dict, folder: Path) -> None:
    """Raise InputError for the first value in classifier.json that no classifier has."""
    if spec["format_version"] > FORMAT_VERSION:
        raise InputError(
            f"{folder} has format version {spec['format_version']}, this gptcls reads up to "
            f"{FORMAT_VERSION}; update gptcls"
        )
    if (family := spec["architecture"]["family"]) != "gpt2":
        raise InputError(f"{folder} is a {family!r} network, this gptcls reads gpt2; update gptcls")
    for field, value, fits, wanted in _rules(spec):
        if not fits:
            raise InputError(
                f"{folder / 'classifier.json'} says {field} {value!r}, which is not {wanted}; "
                "save or copy the classifier again"
            )


def _rules(spec: dict) -> Iterator[tuple[str, Any, bool, str]]:
    """(field, value, whether it fits, what would), each relying on the ones before it."""
    network = spec["architecture"]
    for name in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size"):
        yield name, network[name], _is_whole(network[name], 2**20), f"a whole number from 1 to {2**20}"
    n_embd, n_head, n_positions = network["n_embd"], network["n_head"], network["n_positions"]
    yield "n_head", n_head, n_embd % n_head == 0, f"a divisor of n_embd {n_embd}"
    for name, most in (("dropout", 1), ("norm_eps", math.inf)):
        value = network[name]
        yield name, value, isinstance(value, int | float) and 0 <= value < most, f"a number from 0 to {most}"
    yield from task_rules(spec["task"])
    yield "pooling", spec["pooling"], spec["pooling"] in tuple(POOLERS), f"one of {', '.join(POOLERS)}"
    in_range = f"a whole number from 1 to n_positions {n_positions}"
    yield "max_length", spec["max_length"], _is_whole(spec["max_length"], n_positions), in_range
    pad_to = spec["pad_to"]
    yield "pad_to", pad_to, pad_to is None or _is_whole(pad_to, n_positions), f"null or {in_range}"
    known = _is_policy(spec["trained"], network["n_layer"])
    yield "trained", spec["trained"], known, "head, last_block, last_2, … or all"
    yield "tensors", spec["tensors"], spec["tensors"] in ("all", "trained"), "all or trained"
    named = spec["tensors"] == "all" or isinstance(spec["base"], dict)
    yield "base", spec["base"], named, "the name and sha256 of base weights, which trained tensors need"


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_policy(policy: Any, n_layer: int) -> bool:
    with suppress(InputError, TypeError):
        trained_blocks(policy, n_layer)
        return True
    return False


def _base_backbone(base: dict, config: GPT2Config, folder: Path) -> GPT2:
    """The base weights that a classifier stored by its trained tensors names, if they are still the same."""
    name = base["name"]
    if Path(name).is_absolute() and not Path(name).exists():
        raise InputError(
            f"{folder} needs the base weights {name}, which are gone; "
            "put that file back, or train again with --save full"
        )
    try:
        found = weights_sha256(name)
        backbone = load_pretrained(name)
    except InputError as error:
        raise InputError(f"{folder} needs the base weights {name}: {error}") from None
    if found != base["sha256"]:
        raise InputError(
            f"{folder} was trained on base weights {name} with sha256 {base['sha256'][:12]}…, but "
            f"those there now have {found[:12]}…; put the original file back or train again with --save full"
        )
    for size, value in asdict(config).items():
        if size not in ("tied", "dropout") and getattr(backbone.config, size) != value:
            raise InputError(
                f"{folder / 'classifier.json'} says {size} {value!r}, its base weights {name} have "
                f"{getattr(backbone.config, size)!r}; put the original files back or train again"
            )
    return backbone


def _assign(model: Classifier, tensors: dict[str, torch.Tensor], stored: str, folder: Path) -> None:
    """Lay the stored tensors into the model; every name and shape must be the expected one."""
    expected = model.state_dict() if stored == "all" else model.trained_parameters()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            problem = "is missing from" if name in expected else "is unexpected in"
            raise InputError(f"tensor {name} {problem} {folder / 'model.safetensors'}; save or copy it again")
        if tensors[name].shape != expected[name].shape:
            raise InputError(
                f"tensor {name} in {folder / 'model.safetensors'} has shape {tuple(tensors[name].shape)}, "
                f"not {tuple(expected[name].shape)}; save or copy it again"
            )
        check_numbers(f"tensor {name} in {folder / 'model.safetensors'}", tensors[name])
    tensors = {name: tensor.float() for name, tensor in tensors.items()}  # no copy where it is fp32 already
    model.load_state_dict(tensors, strict=stored == "all", assign=True)
    model.freeze(model.policy)  # assigned parameters are fresh ones


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on."""
    found = {"python": platform.python_version()}
    for package in ("gptcls", "torch", "tiktoken", "numpy", "pandas", "scikit-learn", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree that was never installed
            found[package] = "not installed"
    return found
