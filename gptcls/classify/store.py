"""A trained classifier as one folder: ``classifier.json``, which people can read, and ``model.safetensors``.

The tensors are all of the network's, or only the trained ones with the name and sha256 of the base weights
they were trained on (28 MB instead of 498 MB for the last block of gpt2-small). For LoRA these are the head,
in ``model.safetensors``, and an adapter in PEFT's format. ``tokenizer.json`` is there where not GPT-2's, and
``ngrams.json`` with ``ngrams.safetensors`` where the answers are mixed with those of n-grams, and
``members.safetensors`` where several networks answer together: what was trained of all but the first.
README.md is for people, and for the hub.
"""

import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptcls.classify.description import FORMAT_VERSION, checked_description
from gptcls.classify.mixture import Mixture, mean_outputs
from gptcls.classify.words import holds_words
from gptcls.common.files import atomic_folder, write_json
from gptcls.common.log import log
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.task import Task
from gptcls.core.tasks import MultiLabel, task_from_json
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.core.tokenizer import Tokenizer
from gptcls.core.weights import State, parse
from gptcls.data.fields import BOUNDARY, column_names, in_lines
from gptcls.data.long_texts import Long
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.decision import PLAIN, Decision
from gptcls.language.head import LabelClassifier, read_by, require_language_model
from gptcls.language.prompt import Prompt
from gptcls.models.families import FAMILIES, family_name
from gptcls.models.fields_tokenizer import for_fields
from gptcls.models.heads import published_head
from gptcls.models.hub import cached_file, hub_file, is_hub_name
from gptcls.models.lora import freeze, merged
from gptcls.models.peft_files import CONFIG, TENSORS, load_adapter, save_adapter
from gptcls.models.pretrained import UnaskedError, check_tensor, load_pretrained, shapes_only, weights_sha256
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.models.weight_files import read_object, saving

# Classifiers that ship with the package.
BUNDLED = {"sms-spam-nano": Path(__file__).parents[1] / "assets" / "sms-spam-nano"}


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
    tokenizer: Tokenizer = GPT2_TOKENIZER
    long: Long = "head"  # what is read of a text of more than max_length tokens
    cleaning: str = "none"  # what is done to a text first, one of CLEANERS
    text_columns: tuple[str, ...] = ()  # of a table, where the training's were named
    mixture: Mixture | None = None  # with n-grams; without it the network answers alone
    members: tuple[State, ...] = ()  # of an ensemble: the trained tensors of the networks after the first
    calibration: Calibration | None = None  # of its probabilities, those of the mixture where there is one
    decision: Decision = PLAIN  # from probabilities to answers
    fields: int = 1  # texts of a row, which the tokenizer tells apart; those of several columns may be one

    def __post_init__(self) -> None:
        if self.fields > 1 and not self.text_columns:  # of rows in memory: as files of this package call them
            self.text_columns = column_names(self.fields)

    def as_read(self, text: str) -> str:
        """A row as this classifier was trained on such: of ``fields`` texts, or as one text in lines.
        InputError for a row of another number of texts."""
        if self.fields == 1:
            return in_lines(text)
        if (found := text.count(BOUNDARY) + 1) != self.fields:
            named, what = ", ".join(self.text_columns), "a text alone" if found == 1 else f"{found} texts"
            way_out = "give a table with --data and --text-column, in Python a list of tuples or a DataFrame"
            said = f"this classifier reads {self.fields} texts together ({named}), and a row has {what}"
            raise InputError(f"{said}; {way_out}")
        return text

    def outputs(self, logits: Tensor, texts: Sequence[str]) -> np.ndarray:
        """Probabilities or numbers (N, K), from the logits (N, K) of the texts, cleaned; of an ensemble from
        those of every network, (M, N, K)."""
        plain = self.uncalibrated(logits, texts)
        return plain if self.calibration is None else self.calibration.outputs(plain, self.several)

    def uncalibrated(self, logits: Tensor, texts: Sequence[str]) -> np.ndarray:
        """The same before calibration."""
        if self.calibration is not None:  # of whose small differences it makes large ones
            logits = logits.double()
        if self.mixture is None:
            return mean_outputs(self.task, logits)
        return self.mixture.outputs(self.task, logits, texts)

    @property
    def several(self) -> bool:
        """Whether each output stands on its own."""
        return isinstance(self.task, MultiLabel)


WAYS_OUT = (
    "add --allow-download (in Python allow_download=True)",
    "say where they are with --base (in Python base=), or train again with --save full",
)
NO_ROOM = "free space or choose another --out"
AS_THEY_ARE = (  # in classifier.json
    "base", "max_length", "pad_to", "long", "cleaning", "text_columns", "fields", "training",
    "scores",
)  # fmt: skip


def save_classifier(
    folder: Path, saved: SavedClassifier, full: bool = True, readme: str | None = None
) -> None:
    """Write ``saved`` to ``folder``, and a ``readme`` beside it; a classifier already there stays whole until
    this one is complete.

    ``full`` stores every tensor, adapters merged; otherwise the trained ones, to be laid over ``saved.base``.
    InputError when the folder holds something else than a classifier or cannot be written, and for a backbone
    of no family in :data:`gptcls.models.families.FAMILIES`.
    """
    folder, model = Path(folder), saved.model
    if not full and saved.base is None:
        raise ValueError("only a classifier over pretrained weights can be stored without them")
    # What is written: the tensors, and all else in classifier.json.
    architecture = {"family": family_name(model.backbone), **asdict(model.backbone.config)}
    prompt = model.prompt if isinstance(model, LabelClassifier) else None
    if prompt is None and architecture.get("tied", True):
        architecture.pop("tied", None)  # the default, and the classifier has no language-model head
    lora = model.policy == "lora"
    stored = "all" if full else "adapter" if lora else "trained"
    with merged(model) if full else nullcontext():
        tensors = {k: v.detach().cpu().contiguous() for k, v in _tensors(model, stored).items()}
    tokenizer = saved.tokenizer.to_json()
    description = {
        "format": "gptcls classifier",
        "format_version": FORMAT_VERSION,
        "tensors": stored,
        "architecture": architecture,
        "tokenizer": tokenizer and {"pad_id": saved.tokenizer.pad_id, "eos_ids": saved.tokenizer.eos_ids},
        "task": saved.task.to_json(),
        "pooling": model.pooling,
        "head_bias": prompt is None and model.head.bias is not None,
        "prompt": prompt and prompt.to_json(),
        "trained": "all" if full and lora else model.policy,  # merged, it is a network like any other
        **{field: getattr(saved, field) for field in AS_THEY_ARE},
        "members": 1 + len(saved.members),
        "mixture": saved.mixture and saved.mixture.to_json(),
        "calibration": saved.calibration and saved.calibration.to_json(),
        "decision": None if saved.decision == PLAIN else saved.decision.to_json(),
        "versions": library_versions(),
    }
    with saving("the classifier", folder, NO_ROOM):
        if folder.exists() and any(folder.iterdir()) and not (folder / "classifier.json").is_file():
            raise InputError(f"{folder} holds other files and no classifier to replace; choose another")
        with atomic_folder(folder) as temporary:
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
            if saved.members:
                members = {
                    f"{number}.{name}": tensor.detach().cpu().contiguous()
                    for number, member in enumerate(saved.members, 2)
                    for name, tensor in member.items()
                }
                save_file(members, temporary / "members.safetensors", metadata={"format": "pt"})
            if stored == "adapter":
                save_adapter(temporary, model.backbone, saved.base["name"], published_head(model))
            if saved.mixture is not None:
                saved.mixture.ngrams.save(temporary)
            write_json(temporary / "classifier.json", description)
            if readme is not None:
                (temporary / "README.md").write_text(readme, encoding="utf-8")
            if tokenizer is not None:
                (temporary / "tokenizer.json").write_text(tokenizer, encoding="utf-8")


def find_classifier(folder: Path | str) -> Path:
    """The folder with ``classifier.json``: ``folder``, a run's ``classifier/``, one of :data:`BUNDLED`, or in
    the hub's cache that of the repository ``"owner/name"``, downloaded if it is not there. A name whose owner
    is a folder here is none of the hub's. InputError when there is no such classifier."""
    if str(folder) in BUNDLED:
        return BUNDLED[str(folder)]
    name, folder = folder, Path(folder)
    for candidate in (folder, folder / "classifier"):
        if (candidate / "classifier.json").is_file():
            return candidate
    owner, _, _ = str(name).partition("/")
    if isinstance(name, str) and is_hub_name(name) and not folder.exists() and not Path(owner).is_dir():
        try:
            return _from_hub(name)
        except InputError as error:
            raise InputError(f"{name} is no folder here, and as a classifier on the hub: {error}") from None
    what = "holds no classifier (no classifier.json)" if folder.exists() else "does not exist"
    way_out = f"train one with python -m gptcls.train --out {folder}, or take {', '.join(BUNDLED)}"
    raise InputError(f"{folder} {what}; {way_out}")


def _from_hub(repo: str) -> Path:
    """The files of a classifier in a hub repository, all of one commit: those that its classifier.json asks
    for, which says nothing yet of other repositories."""
    if cached_file(repo, "classifier.json") is None:
        log.info(f"{repo} is no folder here: looking on the Hugging Face hub")
    described = hub_file(repo, "classifier.json")
    spec, folder = read_object(described), described.parent
    asked = {
        "tokenizer.json": spec.get("tokenizer"),
        CONFIG: spec.get("tensors") == "adapter",
        TENSORS: spec.get("tensors") == "adapter",
        "ngrams.json": spec.get("mixture"),
        "ngrams.safetensors": spec.get("mixture"),
        "members.safetensors": spec.get("members", 1) != 1,
    }
    for name in ("model.safetensors", *(name for name, needed in asked.items() if needed)):
        hub_file(repo, name, revision=folder.name)
    return folder


@contextmanager
def intact(folder: Path) -> Iterator[None]:
    """While its files are read: InputError for what a file that is not as it was written may raise."""
    damage = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError)
    try:
        yield
    except InputError:
        raise
    except (*damage, SafetensorError) as error:
        said = f"damaged ({type(error).__name__}: {error!s:.200})"
        raise InputError(f"{folder} is {said}; save or copy it again") from error


def read_classifier(
    folder: Path | str, dtype: torch.dtype = torch.float32, base: Path | str | None = None,
    allow_download: bool = False, ways_out: tuple[str, str] = WAYS_OUT,
) -> SavedClassifier:  # fmt: skip
    """Load what :func:`save_classifier` wrote; the model is in eval mode.

    ``dtype`` is that of what was not trained. ``base`` names the weights that it was trained on, for a
    classifier stored without them; otherwise they are those of the name in ``classifier.json`` or, where that
    is a path and nothing is there, of the same file name next to the classifier or its run. Wherever they
    are, their sha256 must be the stored one. What ``classifier.json`` names is not asked of the hub unless
    ``allow_download``, or it is a preset: a stranger may have written it. ``ways_out`` is what messages say
    of how to download these and how to have them otherwise.

    Raises InputError when there is no classifier, it is damaged or newer than this gptcls, the base weights
    are absent or others, or a ``base`` is given that it does not need.
    """
    folder = find_classifier(folder)
    if holds_words(folder):
        raise InputError(f"{folder} holds n-grams and no network; give a classifier that is a network")
    with intact(folder):
        text = (folder / "classifier.json").read_text(encoding="utf-8")
        spec = checked_description(json.loads(text), folder)
        stored, sizes = spec["tensors"], dict(spec["architecture"])
        family = FAMILIES[sizes.pop("family")]
        config, task = family.config(**sizes), task_from_json(spec["task"])
        dtype = dtype if family.narrow else torch.float32
        tokenizer = GPT2_TOKENIZER
        if (ids := spec["tokenizer"]) is not None:  # which the file does not name
            tokenizer = FileTokenizer(folder / "tokenizer.json", ids["pad_id"], ids["eos_ids"])
            if (n := getattr(config, "vocab_size", None)) is not None:  # a user's own network may not say
                tokenizer.require_fit(str(folder), n)
        elif (folder / "tokenizer.json").exists():  # not GPT-2's, whose ids may be beyond the table
            raise ValueError("tokenizer is null beside a tokenizer.json")
        prompt = spec["prompt"] and Prompt.from_json(spec["prompt"])
        tensors = load_file(folder / "model.safetensors")
        if stored == "all" and family.read:  # before as many blocks are built
            blocks = {parse(name)[1] for name in tensors if name.startswith("backbone.blocks.")}
            if config.n_layer > len(blocks):
                raise ValueError(f"n_layer is {config.n_layer}, the tensors are of {len(blocks)} blocks")
        backbone = None
        if stored != "all":
            where = base, allow_download, ways_out
            backbone, spec["base"] = _load(spec["base"], config, folder, dtype, *where)
        elif base is not None:
            raise InputError(f"{folder} holds all of its tensors and needs no base weights: leave --base out")
        copy = load_adapter(backbone, folder) if stored == "adapter" else {}
        # A network of the user's own may compute what is not in the file while it is built.
        with shapes_only() if family.read else nullcontext():
            network = backbone or family.network(config)
            if prompt is None:
                model = Classifier(network, task.n_outputs, spec["pooling"], spec["head_bias"])
            else:
                require_language_model(network, str(folder))
                model = LabelClassifier(network, prompt)
        tokenizer = for_fields(tokenizer, spec["fields"], network)
        freeze(model, spec["trained"])
        _assign(model, tensors, stored, folder / "model.safetensors", dtype)
        _require_one_head(model, copy, folder)
        own = {field: spec[field] for field in AS_THEY_ARE} | {"text_columns": tuple(spec["text_columns"])}
        own["members"] = _read_members(folder / "members.safetensors", spec["members"], model)
        own["mixture"] = spec["mixture"] and Mixture.read(spec["mixture"], folder, task)
        own["calibration"] = spec["calibration"] and Calibration.from_json(spec["calibration"])
        own["decision"] = Decision.from_json(spec["decision"])
    return SavedClassifier(model.eval(), task, tokenizer=read_by(tokenizer, prompt), **own)


def _load(
    base: dict, config: Any, folder: Path, dtype: torch.dtype, given: Any, allow_download: bool,
    ways_out: tuple[str, str],
) -> tuple[nn.Module, dict]:  # fmt: skip
    """The network of the base weights, and ``base`` with the name where they are now."""
    download = allow_download or given is not None
    name = base["name"] if given is None else str(given)
    if given is not None and name not in PRESETS and Path(name).exists():  # a preset comes first
        name = str(Path(name).resolve())
    elif given is None and Path(name).is_absolute() and not Path(name).exists():
        near = [parent / Path(name).name for parent in folder.resolve().parents[:2]]
        name = next((str(path) for path in near if path.exists()), name)
    allow, way_out = ways_out
    try:
        if (found := weights_sha256(name, download)) != base["sha256"]:
            raise InputError(f"they have sha256 {found[:12]}…, those of the training {base['sha256'][:12]}…")
        backbone = load_pretrained(name, dtype, download)
    except UnaskedError as error:
        said = f"{folder} needs base weights: {error}; if you trust it, {allow}"
        raise InputError(f"{said}, or {way_out}") from None
    except InputError as error:
        raise InputError(f"{folder} needs the base weights {name}: {error}; {way_out}") from None
    if isinstance(backbone, GPT2) and not getattr(config, "causal", True):
        backbone.drop_causal_mask()
    if getattr(config, "sep_id", None) is not None:
        backbone.mark_segments(config.sep_id)
    if not getattr(config, "pooler", True) and backbone.config.pooler:
        backbone.drop_pooler()
    for size, value in asdict(config).items():
        if size not in ("tied", "dropout") and (theirs := getattr(backbone.config, size)) != value:
            says = f"{folder / 'classifier.json'} says {size} {value!r}, its base weights {name} have"
            raise InputError(f"{says} {theirs!r}; put the original files back or train again")
    return backbone, base | {"name": name}


def _assign(model: Classifier, tensors: State, stored: str, path: Path, dtype: torch.dtype) -> None:
    """Lay the tensors of ``path`` into the model, those not trained in ``dtype``; every name and shape must
    be the expected one."""
    trained, expected = model.trained_parameters(), _tensors(model, stored)
    way_out = "; save or copy it again"
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in expected:
            raise InputError(f"tensor {name} is unexpected in {path}{way_out}")
        check_tensor(f"tensor {name} in {path}", tensors.get(name), expected[name].shape, way_out)
        # No copy where it is in that format already.
        tensors[name] = tensors[name].to(torch.float32 if name in trained else dtype)
    model.load_state_dict(tensors, strict=stored == "all", assign=True)
    freeze(model, model.policy)  # assigned parameters are fresh ones


def _require_one_head(model: Classifier, copy: State, folder: Path) -> None:
    """InputError unless ``copy``, the head that stands in the adapter for PEFT's sake, is the model's."""
    own = published_head(model) if copy else {}
    same = own is not None and own.keys() == copy.keys()
    if not same or not all(torch.allclose(own[name], tensor, atol=1e-5) for name, tensor in copy.items()):
        raise InputError(f"{folder} holds two heads: take {', '.join(copy)} out of its adapter")


def _read_members(path: Path, n: int, model: Classifier) -> tuple[State, ...]:
    """The trained tensors of an ensemble's networks, all ``n`` but the first."""
    if n == 1:
        return ()
    tensors, trained, way_out = load_file(path), model.trained_parameters(), "; save or copy it again"
    names = [f"{number}.{name}" for number in range(2, n + 1) for name in trained]
    if extra := sorted(tensors.keys() - set(names)):
        raise InputError(f"tensor {extra[0]} is unexpected in {path}{way_out}")
    for name in names:
        shape = trained[name.partition(".")[2]].shape
        check_tensor(f"tensor {name} in {path}", tensors.get(name), shape, way_out)
    return tuple({name: tensors[f"{i}.{name}"].float() for name in trained} for i in range(2, n + 1))


def _tensors(model: Classifier, stored: str) -> State:
    """What of a classifier stands in model.safetensors."""
    if stored == "adapter":  # which has files of its own
        return {name: p for name, p in model.named_parameters() if not name.startswith("backbone.")}
    return model.state_dict() if stored == "all" else model.trained_parameters()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a result depends on."""
    packages = ("gptcls", "torch", "tiktoken", "tokenizers", "numpy", "pandas", "scikit-learn", "safetensors")
    found = dict.fromkeys(packages, "not installed")  # as gptcls is where it runs from a source tree
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {"python": platform.python_version()} | found
