"""A trained classifier as one folder: ``classifier.json``, which people can read, and ``model.safetensors``.

The tensors are either all of the network's, or only the trained ones beside the name and sha256 of the
base weights they were trained on (28 MB instead of 548 MB for the last block of gpt2-small).
"""

import json
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gptcls.atomic import atomic_folder
from gptcls.classifier import Classifier
from gptcls.errors import InputError
from gptcls.models.gpt2 import GPT2, GPT2Config
from gptcls.models.pretrained import load_pretrained, weights_sha256
from gptcls.tasks import SingleLabel

FORMAT_VERSION = 1


@dataclass
class SavedClassifier:
    """Everything that is needed to use a classifier again, or to know where it came from."""

    model: Classifier
    task: SingleLabel
    max_length: int  # tokens read of each text
    pad_to: int | None  # positions that every text is padded to; only the book's pooling needs it
    base: dict | None  # {"name", "sha256"} of the pretrained weights; None where training began at random
    training: dict  # the settings of the run
    scores: dict  # per part of the data, as in metrics.json


def save_classifier(folder: Path, saved: SavedClassifier, full: bool = True) -> None:
    """Write ``saved`` to ``folder``; a classifier already there stays whole until this one is complete.

    Args:
        folder: created with its parents.
        saved: the classifier.
        full: store every tensor; otherwise only the trained ones, to be laid over ``saved.base``.

    Raises:
        InputError: the disk is full or the folder cannot be written.
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
    try:
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
        if spec["format_version"] > FORMAT_VERSION:
            raise InputError(
                f"{folder} has format version {spec['format_version']}, this gptcls reads up to "
                f"{FORMAT_VERSION}; update gptcls"
            )
        architecture = dict(spec["architecture"])
        if (family := architecture.pop("family")) != "gpt2":
            raise InputError(f"{folder} is a {family!r} network, this gptcls reads gpt2; update gptcls")
        config = GPT2Config(**architecture)
        task = SingleLabel.from_json(spec["task"])
        tensors = load_file(folder / "model.safetensors")
        model = _empty_classifier(config, task, spec)
        if spec["tensors"] == "trained":
            model = _over_base(model, spec, folder)
        _assign(model, tensors, spec["tensors"], folder)
    except (json.JSONDecodeError, KeyError, TypeError, FileNotFoundError, SafetensorError) as error:
        raise InputError(
            f"{folder} is damaged ({type(error).__name__}: {error}); save or copy it again"
        ) from error
    return SavedClassifier(
        model.eval(),
        task,
        spec["max_length"],
        spec["pad_to"],
        spec["base"],
        spec["training"],
        spec["scores"],
    )


def _empty_classifier(config: GPT2Config, task: SingleLabel, spec: dict) -> Classifier:
    """The network without memory behind its tensors: they come from the file."""
    with torch.device("meta"):
        model = Classifier(GPT2(config), task.n_outputs, spec["pooling"])
    model.freeze(spec["trained"])
    return model


def _over_base(model: Classifier, spec: dict, folder: Path) -> Classifier:
    """``model`` with its backbone loaded from the base weights that ``spec`` names."""
    base = spec["base"]
    try:
        found = weights_sha256(base["name"])
        backbone = load_pretrained(base["name"])
    except InputError as error:
        raise InputError(f"{folder} needs the base weights {base['name']}: {error}") from None
    if found != base["sha256"]:
        raise InputError(
            f"{folder} was trained on base weights {base['name']} with sha256 {base['sha256'][:12]}…, but "
            f"those there now have {found[:12]}…; put the original file back or train again with --save full"
        )
    model.backbone = backbone
    model.freeze(spec["trained"])
    return model


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
