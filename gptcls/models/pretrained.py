"""A name or a path in, its network with weights out, or its tokenizer.

Loading is strict: every tensor is there, has its shape and is finite, and config.json agrees."""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.core.tokenizer import GPT2, Tokenizer
from gptcls.core.weights import parse
from gptcls.models import weight_files as files
from gptcls.models.chat import FILE as CHAT_TEMPLATE
from gptcls.models.chat import read_chat
from gptcls.models.families import Family, declared_family
from gptcls.models.heads import Head, take_head
from gptcls.models.hub import NotOnHubError, cached_file, hub_file, is_hub_name
from gptcls.models.refused import FORMATS, IN_FULL, quantized_tensor, what_is_there
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.models.tokenizer_json import OLDER, is_openais, read_tokenizer_json


class UnaskedError(InputError):
    """What is needed would have to be downloaded, and nobody who may has asked for that."""


@dataclass(frozen=True)
class Release:
    """Where the weights of a preset are published, and what they hash to."""

    repo: str
    sha256: str
    revision: str = "main"
    size: int | None = None  # bytes


# Only gpt2-small's revision is known: the others come from the branch main, and sha256 pins the content.
RELEASES = {
    "gpt2-small": Release(
        "openai-community/gpt2", "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
        revision="607a30d783dfa663caf39e06633721c8d4cfcd7e", size=548_105_171),
    "gpt2-medium": Release("openai-community/gpt2-medium",
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd"),
    "gpt2-large": Release("openai-community/gpt2-large",
        "5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce"),
    "gpt2-xl": Release("openai-community/gpt2-xl",
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a"),
}  # fmt: skip
# The hub's first models had no owner in their names, and most tutorials still write them so.
OWNERS = {
    **dict.fromkeys(("bert-base-cased", "bert-base-chinese", "bert-base-german-cased",
        "bert-base-multilingual-cased", "bert-base-multilingual-uncased", "bert-base-uncased",
        "bert-large-cased", "bert-large-uncased"), "google-bert"),
    **dict.fromkeys(("roberta-base", "roberta-large", "xlm-roberta-base", "xlm-roberta-large"), "FacebookAI"),
    "gpt2": "openai-community",
    **dict.fromkeys(("distilgpt2", "distilroberta-base"), "distilbert"),
}  # fmt: skip
BUNDLED = {"gpt2-nano": Path(__file__).parents[1] / "assets" / "gpt2-nano" / "model.safetensors"}


def load_pretrained(
    name_or_path: str | Path, dtype: torch.dtype = torch.float32, download: bool = True
) -> nn.Module:
    """The network with its pretrained weights, on the CPU and in eval mode; GPT-2's are always in float32.

    Where they are: a preset (:data:`RELEASES`, :data:`BUNDLED`), which comes before a folder of that name;
    ``owner/name`` on the hub, or one of :data:`OWNERS` without its owner; a folder with
    ``model.safetensors`` or ``pytorch_model.bin``, whole or in shards, or OpenAI's TensorFlow checkpoint; or
    one file with Hugging Face's, the book's or OpenAI's names. Without ``download`` nothing but a preset
    comes from the hub. InputError where they are nowhere, do not arrive, or are not one whole network of a
    family that gptcls knows.
    """
    return _read(*_found(name_or_path, download), dtype)[0]


def load_headed(
    name_or_path: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Head | None]:
    """The same network, and of a classifier of texts (transformers' ``…ForSequenceClassification``) its head,
    which reads what the network gives; None where there is none, or it reads something else."""
    return _read(*_found(name_or_path), dtype, headed=True)


def _read(
    path: Path, declared: dict[str, Any], source: str, family: Family, dtype: torch.dtype,
    headed: bool = False,
) -> tuple[nn.Module, Head | None]:  # fmt: skip
    """The network in a file, and its head if that is asked for and there."""
    tensors = files.read_state(path, dtype if family.narrow else torch.float32)
    try:
        if found := quantized_tensor(tensors):
            raise InputError(f"{found} is of quantized weights: {IN_FULL}")
        head = take_head(tensors, declared, family) if headed else None
        config, state = family.read(tensors, declared, source)
        found = {parse(name)[1] for name in state} - {""}
        if config.n_layer > len(found):  # before they are built
            said = f"{source} says num_hidden_layers {config.n_layer}"
            raise InputError(f"{said}, the tensors are of {len(found)} blocks")
        with shapes_only():
            model = family.network(config)
        if "lm_head.weight" not in state:
            model.lm_head = None  # tied, or a checkpoint without one
        expected, names = model.state_dict(), family.names
        for name in {**state, **expected}:
            if name not in expected:
                raise InputError(f"{names.both(name)} is not a tensor of this network")
            check_tensor(names.both(name), state.get(name), expected[name].shape)
        if head is not None:
            check_tensor(f"{family.head}.weight", head.weight, (len(head.labels), config.n_embd))
            check_tensor(f"{family.head}.bias", head.bias, (len(head.labels),))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    model.load_state_dict(state, strict=True, assign=True)
    if not getattr(config, "pooler", True):  # which a file left out
        head = None
    return model.eval(), head


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """The tokenizer that the weights of that name were trained with: the ``tokenizer.json`` next to them, as
    :mod:`gptcls.models.tokenizer_json` reads it, or the bundled one of a GPT-2 that has none, or OpenAI's.
    Which tokens end a text is in ``generation_config.json``, else in ``config.json``. InputError where there
    is no such model, or its tokenizer is missing or broken."""
    if str(name_or_path) in PRESETS:
        return GPT2
    path, declared, source, family = _found(name_or_path)
    content = None
    if Path(source).name == "config.json":  # else a lone file, and what lies around it is not its own
        content = read_tokenizer_json(path.parent, declared.get("model_type") or "gpt2")
    if not family.own_tokenizer and (content is None or is_openais(content)):
        if content is None and (size := declared.get("vocab_size", GPT2.vocab_size)) != GPT2.vocab_size:
            said = f"{name_or_path} has a vocabulary of {size} tokens and no tokenizer.json"
            log.info(f"{said}: it is read with GPT-2's, of {GPT2.vocab_size:,}")
        return GPT2
    generation = path.with_name("generation_config.json")
    ends = declared | (files.read_object(generation) if generation.is_file() else {})
    eos_ids = eos if isinstance(eos := ends.get("eos_token_id"), list) else [eos]
    file = path.with_name("tokenizer.json")
    tokenizer = FileTokenizer(file, declared.get("pad_token_id"), eos_ids, content)
    tokenizer.chat = read_chat(path.parent)
    return tokenizer


@contextmanager
def shapes_only() -> Iterator[None]:
    """Networks built inside have tensors without memory or values: for what a file replaces at once."""
    with torch.device("meta"), _NoRandomNumbers():
        yield


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out ``normal_``. On the meta device its first call would import torch's compiler: a second."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        skipped = getattr(function, "__name__", "") == "normal_"
        return None if skipped else function(*args, **(kwargs or {}))


def weights_file(name_or_path: str | Path, download: bool = True) -> Path:
    """The file that holds the weights, downloaded if need be; of several, the one that leads to them. Without
    ``download`` nothing but a preset is asked of the hub: InputError for what is not in the cache."""
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name in RELEASES:
        release = RELEASES[name]
        return hub_file(release.repo, "model.safetensors", release.revision, release.sha256, release.size)
    if name in BUNDLED:
        return BUNDLED[name]
    if name and path.is_dir():
        return files.find_weights(path)
    if path.is_file():
        if path.suffix in files.SUFFIXES or path.name in files.CANDIDATES:
            return path
        if path.suffix in FORMATS:
            raise InputError(f"{path} holds {FORMATS[path.suffix]}: {IN_FULL}, as safetensors")
        raise InputError(f"{path} has no known format: pass a {', '.join(files.SUFFIXES)} file or a folder")
    if name in OWNERS:
        return _hub_weights(f"{OWNERS[name]}/{name}", download)
    if is_hub_name(name) and path.suffix not in files.SUFFIXES:
        return _hub_weights(name, download)
    close = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"take {', '.join(PRESETS)} or owner/name on the hub"
    raise InputError(f"no model, folder or file is called {name!r}: {hint}")


def weights_sha256(name_or_path: str | Path, download: bool = True) -> str:
    """The sha256 of the weights: a preset's from the table, else the file's, or of its parts in order;
    ``download`` is that of :func:`weights_file`."""
    if (name := str(name_or_path)) in RELEASES:
        return RELEASES[name].sha256
    return files.remembered_sha256(*files.present_parts(weights_file(name_or_path, download)))


def _hub_weights(repo: str, download: bool = True) -> Path:
    """Weights, config.json and what else the family needs of a hub repository, together in the cache."""

    def get(name: str) -> Path:
        if not download and cached_file(repo, name) is None:
            raise UnaskedError(f"{name} of {repo} is on the hub, not on this machine")
        return hub_file(repo, name, patient=path is None)  # else the hub is hardly needed

    names = files.PUBLISHED
    path = next((cached for name in names if (cached := cached_file(repo, name))), None)
    if path is None and not download:
        raise UnaskedError(f"{repo} is on the hub, not on this machine")
    if path is None:
        log.info(f"{repo} is not a local path: looking on the Hugging Face hub")
    # Before the weights: so where they are in the cache and it is not, the hub had none, and may be away now.
    absent = NotOnHubError if path is None else InputError
    family = declared_family({}, "")
    with suppress(absent):
        config = get("config.json")
        family = declared_family(files.read_object(config), str(config))
    for name in ("tokenizer.json", "tokenizer_config.json", CHAT_TEMPLATE, "generation_config.json"):
        with suppress(absent):
            get(name)
    if not family.own_tokenizer and cached_file(repo, "tokenizer.json") is None:
        for name in OLDER:
            with suppress(absent):
                get(name)
    for name in names if path is None else ():
        with suppress(NotOnHubError):
            path = get(name)
            break
    if path is None:
        with suppress(NotOnHubError):
            raise InputError(f"{repo} holds {what_is_there(get('adapter_config.json').parent)}")
        nowhere = f"{repo} is not a local path, and the hub has none of {', '.join(names)} under that name"
        raise InputError(f"{nowhere}: check the spelling; what is private or gated needs HF_TOKEN")
    for part in files.weight_parts(path):
        get(part.name)
    return path


def _found(name_or_path: str | Path, download: bool = True) -> tuple[Path, dict[str, Any], str, Family]:
    """Where the weights are, what else is said about the network, who says it, and its family."""
    name, path = str(name_or_path), weights_file(name_or_path, download)
    described = [file for n in ("config.json", "hparams.json") if (file := path.with_name(n)).is_file()]
    declared, source = {}, ""
    if name in RELEASES:
        declared, source = asdict(PRESETS[name]), f"the preset {name}"
    elif described:
        declared, source = files.read_object(described[0]), str(described[0])
    return path, declared, source, declared_family(declared, source)


def check_tensor(what: str, tensor: Tensor | None, shape: tuple[int, ...], way_out: str = "") -> None:
    """InputError from ``what`` to ``way_out`` unless it is a tensor of that shape with finite numbers."""
    if tensor is None:
        fault = "is missing"
    elif tensor.shape != shape:
        fault = f"has the shape {list(tensor.shape)} instead of {list(shape)}"
    elif not tensor.is_floating_point():
        fault = f"holds {tensor.dtype}, not floating-point numbers"
    elif not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):  # NaN goes through both
        fault = "holds a value that is not finite"
    else:
        return
    raise InputError(f"{what} {fault}{way_out}")
