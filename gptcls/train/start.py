"""What training starts from: the network that --model names, its tokenizer and, of a classifier, its head."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gptcls.classify.store import find_classifier, read_classifier
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.log import log
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.task import Task
from gptcls.core.tasks import Regression
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.core.tokenizer import Tokenizer
from gptcls.language.head import LabelClassifier
from gptcls.language.tree import without_trees
from gptcls.models.heads import Head, named, weight_and_bias
from gptcls.models.lora import merge
from gptcls.models.pretrained import load_headed, load_tokenizer, weights_sha256
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.models.weight_files import read_object, remembered_sha256
from gptcls.train.config import TrainConfig


@dataclass
class Start:
    """A network, not yet a classifier of this run's labels.

    ``origin`` is the name and sha256 of what the run begins from, ``base`` those of the weights over which
    what it trains may be laid: of a classifier that is trained on the same as its own, from which it differs
    in the tensors called ``touched``. Both are None where there are none.
    """

    name: str
    backbone: nn.Module
    tokenizer: Tokenizer
    origin: dict | None = None
    base: dict | None = None
    touched: frozenset[str] = frozenset()
    head: Head | None = None
    cleaning: str | None = None  # of the texts that the head was trained on, where that is known
    pad_to: int | None = None  # likewise

    def settle_head(self, config: TrainConfig, task: Task) -> TrainConfig:
        """Decide whether the head is trained on, as the log says; where it is, the options say what it reads,
        else it is dropped."""
        if (head := self.head) is None:
            return config
        if (why := self._misfit(config, task)) is not None:
            log.info(f"{self.name} is a classifier and gets a new head: {why}")
            self.head = None
            return config
        log.info(f"{self.name} is a classifier of these labels: its head is trained on")
        if self.cleaning not in (None, config.data.cleaning):
            way_out = "add --clean" if self.cleaning == "basic" else "leave out --clean"
            log.info(f"{self.name} read texts that were cleaned otherwise: {way_out} to go on as it was")
        pad_to = self.pad_to if config.model.pad_to is None else config.model.pad_to
        return config.changed(pooling=head.pooling, pad_to=pad_to)

    def _misfit(self, config: TrainConfig, task: Task) -> str | None:
        head, asked = self.head, config.model.pooling
        if head.kind != task.kind:
            return f"its own is of a {head.kind} task, not {task.kind}"
        if head.rows_of(task) is None:
            return f"its own answers {named(head.labels)}, the rows have {named(task.labels)}"
        if asked not in (None, "auto", head.pooling):
            return f"its own reads --pooling {head.pooling}, not {asked}"
        return None

    def base_of(self, model: Classifier) -> dict | None:
        """The weights over which what ``model`` trains can be laid; None where it differs in more."""
        return self.base if self.touched <= model.trained_parameters().keys() else None


def start_of(config: TrainConfig, own: nn.Module | None = None, tokenizer: Tokenizer | None = None) -> Start:
    """What --model names: a preset, pretrained weights, a published classifier or one of gptcls; or a network
    of the user's ``own`` and its ``tokenizer``. InputError where it is none of these."""
    name, options = config.model.model, config.model
    if own is not None:
        return Start(name, own, tokenizer or GPT2_TOKENIZER)
    if options.init == "random":
        if name not in PRESETS:
            raise InputError(f"--init random needs a preset ({', '.join(PRESETS)}), not {name!r}")
        log.info(f"{name}: random weights, no pretraining")
        torch.manual_seed(config.run.seed)
        return Start(name, GPT2(PRESETS[name]), tokenizer or GPT2_TOKENIZER)  # which learn that tokenizer's
    adapted = config.run.shard and options.train == "lora"  # of what it adapts nothing is trained
    # Everything in one number format.
    plain = options.train == "all" or (config.run.no_cache and not adapted)
    dtype = torch.float32 if plain else pick_dtype(config.run.precision, pick_device(config.run.device))
    if folder := classifier_at(name):
        return _continued(name, folder, dtype)
    tokenizer = tokenizer or load_tokenizer(name)
    backbone, head = load_headed(name, dtype)
    local = name not in PRESETS and Path(name).exists()  # a preset comes first
    base = {"name": str(Path(name).resolve()) if local else name, "sha256": weights_sha256(name)}
    return Start(name, backbone, tokenizer, base, base, head=head)


def classifier_at(name: str) -> Path | None:
    """The folder of a gptcls classifier, where ``name`` is one's, a run's, or that of a bundled one."""
    if not name or name in PRESETS:
        return None
    with suppress(InputError):
        return find_classifier(Path(name).expanduser())
    return None


def _continued(name: str, folder: Path, dtype: torch.dtype) -> Start:
    """A classifier of gptcls: what of it is not the network's or the head's is chosen anew."""
    fetch = f"fetch them with python -m gptcls.classify --model {name} --allow-download"
    near = f"put them next to {folder}, or train it again with --save full"
    saved = read_classifier(folder, dtype, ways_out=(fetch, near))
    if saved.members:
        n = 1 + len(saved.members)
        raise InputError(f"--model {name} is an ensemble of {n} networks: take a classifier that is one")
    model, task = saved.model, saved.task
    touched = frozenset(model.trained_parameters())
    whole = read_object(folder / "classifier.json")["tensors"] == "all"  # its base need not be anywhere
    base = None if merge(model.backbone) or whole else saved.base
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))
    origin = {"name": str(folder.resolve()), "sha256": remembered_sha256(*files)}
    numbers = (task.means, task.scales) if isinstance(task, Regression) else ((), ())
    if isinstance(model, LabelClassifier):
        without_trees(model.backbone)
        tokenizer, head = saved.tokenizer.base, None
        if isinstance(tokenizer, FileTokenizer):
            log.info(f"{name}: a classifier keeps no chat template; start from its base to have that again")
    else:
        tokenizer = saved.tokenizer
        head = Head(task.labels, task.kind, model.pooling, *weight_and_bias(model.head), *numbers)
    tokenizer = getattr(tokenizer, "alone", tokenizer)  # this run's rows may have other fields
    pad_to = saved.pad_to if head else None
    return Start(name, model.backbone, tokenizer, origin, base, touched, head, saved.cleaning, pad_to)
