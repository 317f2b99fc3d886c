"""A trained classifier in the form that other programs read."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from gptcls.classify.store import read_classifier
from gptcls.common.files import require_writable
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.evaluation.decision import PLAIN


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a trained classifier for programs that know nothing of gptcls."""

    model: str
    """Folder that gptcls.train left: a run, or the classifier inside it."""
    to: Literal["transformers", "onnx"]
    """What is written: a folder for transformers, and for what loads its folders (vLLM, TEI, …); or one for
    ONNX Runtime."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Folder to write."""
    int8: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For ONNX Runtime: weights of 8 bits, a quarter of the size."""
    likeliest: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of a classifier that abstains, or answers by costs or a threshold: write one that always answers with
    the likeliest class."""
    base: str | None = None
    """Where the weights are that it was trained on, for a classifier stored without them; otherwise where
    they were then, or next to its folder."""
    allow_download: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Get them from the Hugging Face hub if the classifier says that they are there; presets always may."""


def export(config: ExportConfig) -> Path:
    """Write what ``config`` says and return the folder. InputError, with nothing written, for a classifier
    that cannot be read or expressed there, and a folder that holds something else."""
    if config.int8 and config.to != "onnx":
        raise InputError("--int8 goes with --to onnx; transformers quantizes as it loads")
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise InputError(f"--out {config.out} is not an empty folder; choose another, or delete it")
    require_writable(config.out, "--out")
    classifier = read_classifier(config.model, torch.float32, config.base, config.allow_download)
    if config.likeliest:
        classifier = replace(classifier, decision=PLAIN)
    if config.to == "onnx":
        from gptcls.export.to_onnx import to_onnx

        to_onnx(classifier, config.out, config.int8)
    else:
        from gptcls.export.to_transformers import to_transformers

        to_transformers(classifier, config.out)
    log.info(f"written for {config.to}: {config.out}")
    return config.out
