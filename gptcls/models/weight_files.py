"""The file formats that hold a network's tensors, and what a file's bytes hash to."""

import hashlib
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gptcls.common.extras import needed
from gptcls.common.files import write_json
from gptcls.common.memory import ran_out
from gptcls.core.errors import InputError
from gptcls.models.refused import what_is_there

# In a folder, the first of these that is there holds the weights; an index names the shards of a large model.
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PUBLISHED = ("model.safetensors", INDEXES[0], "pytorch_model.bin", INDEXES[1])
CANDIDATES = (*PUBLISHED, "checkpoint")
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
SHARD = re.compile(rf"\w[\w.-]{{0,200}}({'|'.join(map(re.escape, SUFFIXES))})")  # a plain name, no path
# Bytes from which the hash of a file is remembered: below, computing it takes less than a tenth of a second.
LARGE = 1 << 26


def find_weights(folder: Path) -> Path:
    """The file in ``folder`` that holds the weights: by its usual name, or the only one of a known format."""
    usual = [folder / name for name in CANDIDATES if (folder / name).is_file()]
    files = usual[:1] or sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if not files:
        if instead := what_is_there(folder):
            raise InputError(f"{folder} holds {instead}")
        none = f"no {', '.join(CANDIDATES)}, and no {', '.join(SUFFIXES)} file"
        raise InputError(f"{folder} holds no weights: {none}")
    if (folder / "classifier.json").is_file():
        raise InputError(f"{folder} holds a classifier, not a network: gptcls.train goes on from it")
    if (folder / "params.json").is_file() and files[0].name.startswith("consolidated."):
        raise InputError(f"{folder} is in Meta's own format: take the one for transformers (…-hf)")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise InputError(f"{folder} holds several weight files ({names}): pass the path of one of them")
    return files[0]


def weight_parts(path: Path) -> list[Path]:
    """The files whose bytes are the weights: ``path``, or what an index or a checkpoint file points to."""
    if path.name == "checkpoint":
        if parts := sorted(path.parent.glob("*.data-*")):
            return parts
        raise InputError(f"{path} has no model.ckpt.data-00000-of-00001 next to it")
    if path.name not in INDEXES:
        return [path]
    shards = read_object(path).get("weight_map")
    shards = list(shards.values()) if isinstance(shards, dict) and shards else [None]
    for shard in shards:
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            said = f"names {shard!r:.80}, which is not a file of weights next to it"
            raise InputError(f"{path} {said}: download it again")
    return [path.with_name(shard) for shard in sorted(set(shards))]


def present_parts(path: Path) -> list[Path]:
    """:func:`weight_parts`, all of them there: InputError names the first that is not."""
    parts = weight_parts(path)
    for part in parts:
        if not part.is_file():
            shard = "" if part == path else f": {path.name} names it as one of {len(parts)} files"
            raise InputError(f"{part} is missing{shard}")
    return parts


def read_state(path: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of a weight file, under its own names, in ``dtype``, on the CPU; else InputError.

    Safetensors and new PyTorch files are mapped into memory, copy on write: reading them takes no second
    copy where they are in ``dtype`` already, and writing to the tensors changes no file.
    """
    parts = present_parts(path)
    readers, state = {".safetensors": _read_safetensors, "": _read_tensorflow}, {}
    for part in [path] if path.name == "checkpoint" else parts:
        state |= readers.get(part.suffix, _read_torch)(part)
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"{path} is not a state dict: {name} is of the type {type(tensor).__name__}")
        if tensor.is_floating_point():  # masks need not be; whether a weight is, load_pretrained checks
            state[name] = tensor.detach().to(dtype)
    return state


@contextmanager
def saving(what: str, folder: Path, way_out: str = "free space") -> Iterator[None]:
    """InputError where ``what`` cannot be saved to a folder, be it the system or safetensors that says so."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot save {what} to {folder}: {error}; {way_out}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({_reason(error)}){_hint(path)}") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickles' protocols: whether they load is seen below
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        why = "it is broken, or holds other Python objects, which are never loaded since they could run code"
        raise InputError(f"{path} is not a file of plain tensors: {why}{_hint(path)}") from None
    except Exception as error:  # a pickle's opcodes call what they like, with whatever arguments they find
        asked = re.search(r"tried to allocate (\d+) bytes", str(error))
        if ran_out(error) and not (asked and int(asked[1]) > 2 * path.stat().st_size):
            raise
        raise InputError(f"{path} is not a whole PyTorch file ({_reason(error)}){_hint(path)}") from None
    if isinstance(state, dict) and "model_state_dict" in state:
        state = state["model_state_dict"]  # in chapter 5 of the book the optimizer's state lies next to it
    if not isinstance(state, dict):
        raise InputError(f"{path} is not a state dict but a {type(state).__name__}")
    return dict(state)


def _read_tensorflow(path: Path) -> dict[str, Tensor]:
    folder = path.parent
    with needed("tf", f"{folder}: pass the same weights as safetensors; a TensorFlow checkpoint"):
        import tensorflow as tf
    try:
        reader = tf.train.load_checkpoint(str(folder))
        names = reader.get_variable_to_shape_map()
        return {name: torch.from_numpy(reader.get_tensor(name)) for name in names}
    except (tf.errors.OpError, LookupError, RuntimeError, TypeError, ValueError) as error:
        fault = f"is not a whole TensorFlow checkpoint ({_reason(error)})"
        raise InputError(f"{folder} {fault}: download it again") from None


def file_sha256(*paths: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal; of several files, of their bytes one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def remembered_sha256(*paths: Path) -> str:
    """:func:`file_sha256`, computed once for large files: until a size or a time of change differs,
    ``~/.cache/gptcls/sha256.json`` (``XDG_CACHE_HOME``) remembers it, where that can be written."""
    stats = [path.stat() for path in paths]
    if sum(stat.st_size for stat in stats) < LARGE:
        return file_sha256(*paths)
    name = os.pathsep.join(str(path.resolve()) for path in paths)
    state = [[stat.st_size, stat.st_mtime_ns] for stat in stats]
    known, memory = {}, None
    with suppress(OSError, RuntimeError, InputError):  # RuntimeError: there is no home
        memory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptcls" / "sha256.json"
        known = read_object(memory)
    match known.get(name):
        case {"files": files, "sha256": str(found)} if files == state and re.fullmatch("[0-9a-f]{64}", found):
            return found
    known[name] = {"files": state, "sha256": file_sha256(*paths)}
    if memory is not None:
        with suppress(OSError):
            write_json(memory, known)
    return known[name]["sha256"]


def read_object(file: Path) -> dict[str, Any]:
    """The entries of a JSON file such as config.json; InputError where it holds anything else."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({_reason(error)})") from None
    if not isinstance(values, dict):
        raise InputError(f"{file} is not a JSON object")
    return values


def _reason(error: Exception) -> str:
    return f"{(str(error).strip() or type(error).__name__).splitlines()[0]:.200}"


def _hint(path: Path) -> str:
    """What a file that cannot be read probably is."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"<"):
        return ": it is an HTML page, so download the file itself"
    if start.startswith(b"version https://git-lfs"):
        return ": it is a Git LFS pointer, so run git lfs pull"
    return ": download it again"
