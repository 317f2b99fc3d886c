"""A trained classifier in the form that other programs read, and on the Hugging Face hub."""

import re
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from gptcls.classify.store import SavedClassifier, find_classifier, read_classifier, save_classifier
from gptcls.common.files import atomic_file, require_writable
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.core.tasks import MultiLabel
from gptcls.evaluation.decision import PLAIN
from gptcls.export.push import push, require_hub_name
from gptcls.models.weight_files import read_object
from gptcls.train.card import LOADING, card, loading

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a trained classifier for programs that know nothing of gptcls, or send it to the hub, or both.

    Sent without --to it is the classifier's own folder, which load_classifier("owner/name") and --model
    owner/name then read.
    """

    model: str
    """Folder that gptcls.train left, owner/name of one on the hub, or sms-spam-nano."""
    to: Literal["transformers", "onnx"] | None = None
    """What is written: a folder for transformers, and for what loads its folders (vLLM, …); or one for ONNX
    Runtime."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder to write, new or empty."""
    int8: Switch = False
    """For ONNX Runtime: weights of 8 bits, a quarter of the size."""
    likeliest: Switch = False
    """Of a classifier that abstains, or answers by costs or a threshold: write one that always answers with
    the likeliest class."""
    push: Annotated[str | None, tyro.conf.arg(metavar="OWNER/NAME")] = None
    """Repository on the Hugging Face hub to send it to, made where it is not there; HF_TOKEN, or hf auth
    login, says who you are."""
    private: Switch = False
    """Make that repository for you, or your organisation, alone."""
    base: str | None = None
    """Where the weights are that it was trained on, for a classifier stored without them; otherwise where
    they were then, or next to its folder."""
    allow_download: Switch = False
    """Get them from the Hugging Face hub if the classifier says that they are there; presets always may."""


def export(config: ExportConfig) -> Path | str:
    """Write and send what ``config`` says; returns the folder or, of what was sent, its address. InputError,
    with nothing written, for a classifier that cannot be read or expressed there, and for a folder that holds
    something else; and where the hub refuses, with what was written left as it is."""
    _check(config)
    classifier = read_classifier(config.model, torch.float32, config.base, config.allow_download)
    if config.likeliest:
        classifier = replace(classifier, decision=PLAIN)
    with ExitStack() as stack:
        if config.to is None:
            folder = _complete(classifier, config.model, stack)
        else:
            folder = config.out or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "export"
            _write(classifier, config, folder)
        if config.push is None:
            return folder
        address = push(folder, config.push, config.private)
    log.info(f"sent to {address}")
    return address


def _check(config: ExportConfig) -> None:
    if config.to is None and config.push is None:
        raise InputError("say what to write, with --to transformers or --to onnx, or --push owner/name")
    if config.push is not None:
        require_hub_name(config.push)
    elif config.private:
        raise InputError("--private goes with --push")
    if config.to is None and (config.out is not None or config.int8 or config.likeliest):
        raise InputError("--out, --int8 and --likeliest go with --to transformers or --to onnx")
    if config.int8 and config.to != "onnx":
        raise InputError("--int8 goes with --to onnx; transformers quantizes as it loads")
    if config.to is not None and config.out is None and config.push is None:
        raise InputError(f"--to {config.to} needs --out, the folder to write")
    if (out := config.out) is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"--out {out} is not an empty folder; choose another, or delete it")
        require_writable(out, "--out")


def _write(classifier: SavedClassifier, config: ExportConfig, folder: Path) -> None:
    if config.to == "onnx":
        from gptcls.export.to_onnx import to_onnx

        to_onnx(classifier, folder, config.int8)
    else:
        from gptcls.export.to_transformers import to_transformers

        readme = _card_there(config.model, classifier)  # before anything is written
        to_transformers(classifier, folder)
        with atomic_file(folder / "README.md") as temporary:
            temporary.write_text(readme, encoding="utf-8")
        if isinstance(classifier.task, MultiLabel):
            log.info("it gives every label's probability; from which on a label is given is in its README.md")
    if config.out is not None:
        log.info(f"written for {config.to}: {config.out}")


def _card_there(model: str, classifier: SavedClassifier) -> str:
    """The classifier's card with its metadata and people's changes, but for how it is loaded."""
    from huggingface_hub import ModelCard

    file = find_classifier(model) / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else card(classifier)
    try:
        told = ModelCard(text)
        told.data.library_name = "transformers"
        text = str(told)
    except Exception as error:  # of the YAML library, and others
        reason = " ".join(str(error).split())
        raise InputError(f"{file} begins with metadata that cannot be read: {reason:.200}") from None
    texts = '"a text", "another"'
    if classifier.fields > 1:
        texts = '{"text": "a text", "text_pair": "another"}'
    how = loading(
        "vllm serve FOLDER --runner pooling --dtype float32  # then POST texts to /classify",
        f"""
        from transformers import pipeline

        classify = pipeline("text-classification", model="FOLDER")  # or owner/name on the Hugging Face hub
        classify([{texts}], truncation=True, top_k=None)
        """,
    )
    before, found, after = text.partition(LOADING)
    rest = re.search(r"^## .*", after, re.MULTILINE | re.DOTALL)
    return f"{before.rstrip()}\n\n{how}\n" + (f"\n{rest[0]}" if found and rest else "")


def _complete(classifier: SavedClassifier, model: str, stack: ExitStack) -> Path:
    """The classifier's folder or, where it was stored without base weights that lie on this machine alone, a
    copy with all tensors."""
    folder = find_classifier(model)
    name = "" if classifier.base is None else classifier.base["name"]
    stored = read_object(folder / "classifier.json")["tensors"]
    if stored == "all" or name in PRESETS or not Path(name).exists():
        return folder
    log.info(f"{folder} needs {name}, which is on this machine: all tensors are sent")
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "classifier"
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else card(classifier)
    save_classifier(copy, classifier, readme=text)
    return copy
