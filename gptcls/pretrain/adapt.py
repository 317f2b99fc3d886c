"""``gptcls.train --adapt FILE``: a GPT-2 reads on in texts like those to classify, and is then fine-tuned
(Gururangan et al. 2020, "Don't Stop Pretraining").

It is :func:`gptcls.pretrain.run.pretrain` and :func:`gptcls.train.run.train_in` in one run's folder:
``adapted`` in it is the run of the first, its ``model`` what the second starts from.
"""

import json
import math
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from gptcls.common.files import atomic_file
from gptcls.common.help import ADVANCED
from gptcls.common.log import log, unlogged
from gptcls.common.options import check_at_least, flag
from gptcls.common.processes import require_one_process
from gptcls.core.errors import InputError
from gptcls.data.fields import fields_of
from gptcls.data.same_text import text_key
from gptcls.data.split import Split
from gptcls.pretrain.config import LR, PretrainConfig
from gptcls.pretrain.run import RESULT as WEIGHTS
from gptcls.pretrain.run import build_model, pretrain
from gptcls.pretrain.text import Stream, hold_out, read_documents
from gptcls.train.config import TrainConfig
from gptcls.train.folder import ADAPTED, ADAPTING, RunFolder, state_of
from gptcls.train.hooks import StoppedError
from gptcls.train.resolve import resolve
from gptcls.train.rows import files_read, split_of
from gptcls.train.run import RESULT, Run, rows_apart, rows_of, train, train_in
from gptcls.train.start import classifier_at

BASE = f"{ADAPTED}/{WEIGHTS}"  # in the run's folder: what fine-tuning starts from
TEXTS = "adapted.jsonl"  # likewise: what is read
WINDOWS = (256, 128, 64, 32, 16)  # tokens a row, the first that the held-out texts fill
HELD_OUT = 0.05  # of the texts, to measure the perplexity
PASSES = 3  # over the texts
STEPS = (50, 1000)  # at least, at most


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """What is read before fine-tuning."""

    adapt: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Texts without labels, .txt or a table with a column text (or that of --text-column): a GPT-2 first
    learns to continue these (gptcls.pretrain). Those that are validated or tested on are left out."""
    adapt_steps: int | None = None
    """Steps of --adapt, of 4,096 tokens; otherwise about three passes over the texts, 50 to 1,000 steps."""
    adapt_lr: float | None = None
    """Peak learning rate of --adapt; otherwise 0.0001."""


@dataclass(frozen=True, kw_only=True)
class AdaptedConfig(TrainConfig):
    __doc__ = TrainConfig.__doc__

    GROUPS: ClassVar = TrainConfig.GROUPS | {
        "adapting": "model", "adapt_steps": ADVANCED, "adapt_lr": ADVANCED,
    }  # fmt: skip

    adapting: AdaptOptions = field(default_factory=AdaptOptions)


def adapt_and_train(
    config: TrainConfig | None = None, *, labels: Any = None, explicit: Collection[str] = (), **options: Any
) -> Run:
    """:func:`gptcls.train.run.train`, after reading on in the texts of ``adapt`` where there are some; the
    same in all else, ``--resume`` too. It is ``gptcls.train``."""
    config = AdaptedConfig.of(**(config or AdaptedConfig()).flat() | options)
    explicit = {*explicit, *options}
    out = config.run.out
    begun = out is not None and ((out / ADAPTED).exists() or state_of(out, RESULT) == ADAPTING)
    going_on = config.run.resume and begun
    if config.adapting.adapt is None and not going_on:
        return train(_plain(config), labels=labels, explicit=explicit)
    require_one_process("train --adapt")
    config, rows = rows_apart(config, labels)
    with RunFolder(config, RESULT, checked, explicit) as home:
        split = rows_of(home, None if rows is None else split_of(rows, home.config, labels))
        if not home.resume or home.state == ADAPTING:
            _read_on(home, split)
            (home.path / TEXTS).unlink(missing_ok=True)
            home.resume = False  # what follows begins
        return train_in(home, split, start=BASE)


def _plain(config: AdaptedConfig) -> TrainConfig:
    """Without what ``--adapt`` brings; InputError for an option that goes with it."""
    for name in ("adapt_steps", "adapt_lr"):
        if (value := config.flat()[name]) is not None:
            raise InputError(f"{flag(name)} {value} goes with --adapt; name the texts, or leave it out")
    return TrainConfig.of(**{name: config.flat()[name] for name in TrainConfig.defaults()})


def checked(config: AdaptedConfig) -> AdaptedConfig:
    """As :func:`gptcls.train.resolve.resolve`; InputError also for what no run can read on with."""
    adapting, config = config.adapting, resolve(config)
    check_at_least(config.flat(), {"adapt_steps": 1})
    if adapting.adapt_lr is not None and not 0 < adapting.adapt_lr < math.inf:
        raise InputError(f"--adapt-lr {adapting.adapt_lr} is no rate; use more than 0, such as 0.0001")
    if classifier_at(config.model.model):
        raise InputError(f"--adapt reads on with a GPT-2, and --model {config.model.model} is a classifier")
    if config.model.init == "random":
        way_out = "python -m gptcls.pretrain --init random, then train --model"
        raise InputError(f"--adapt {adapting.adapt} reads on, and --init random knows nothing yet: {way_out}")
    _documents(config)  # refused now, not after the rows are read
    return config


def _documents(config: AdaptedConfig) -> list[str]:
    """What there is to read: of a table its column text, or else that of ``--text-column``."""
    source, columns = config.adapting.adapt, config.data.text_columns
    try:
        return read_documents(source)
    except InputError:
        if not columns:
            raise
        return read_documents(source, columns[0])


def _read_on(home: RunFolder, split: Split) -> None:
    """Leave the weights that have read on in the run's folder; what a killed run did of that stays."""
    # Whole paths: what the reading is resumed with may not differ, and the working directory may.
    config, folder, texts = home.config, home.path / ADAPTED, (home.path / TEXTS).absolute()
    given, model = config.adapting, config.model.model
    source, goes_on = given.adapt, state_of(folder, WEIGHTS)
    if goes_on == "finished":
        return
    with unlogged():
        build_model(PretrainConfig(model=model))  # refused before there is a folder
    judged = (row for part in ("validation", "test") for row in getattr(split, part)["text"])
    held = {text_key(text) for row in judged for text in (row, *_lines_of(row))}
    documents = _without(_documents(config), held, source)
    window, n_tokens = window_for(documents, source)
    home.claim([source, *files_read(config)])
    written = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    if goes_on is None:
        with atomic_file(texts) as temporary:
            temporary.write_text(written, encoding="utf-8")
    elif texts.exists() and texts.read_text(encoding="utf-8") != written:  # other rows, from memory
        raise InputError(f"the rows given are not those that {home.path} was started with")
    own = reading(texts, window, n_tokens, config, given)
    per_step = own.batch_size * window
    log.info(f"--adapt {source}: {n_tokens:,} tokens, {own.steps:,} steps of {per_step:,}")
    try:
        pretrain(replace(own, out=folder, resume=goes_on is not None))
    except StoppedError:
        whole = f"--out {shlex.quote(str(home.path))} --resume"
        log.info(f"that was the first half of a run: {whole} goes on with the whole of it")
        raise


def reading(
    texts: Path, window: int, n_tokens: int, config: TrainConfig, given: AdaptOptions | None = None
) -> PretrainConfig:
    """How a file of ``n_tokens`` is read, in rows of ``window`` tokens, with the model and seed of a run."""
    given = given or AdaptOptions()
    batch = WINDOWS[0] // window * PretrainConfig.batch_size
    steps = given.adapt_steps or min(max(STEPS[0], round(PASSES * n_tokens / (batch * window))), STEPS[1])
    return PretrainConfig(
        data=(str(texts),), model=config.model.model, window=None if window == WINDOWS[0] else window,
        batch_size=batch, steps=steps, lr=given.adapt_lr or LR["pretrained"], held_out=HELD_OUT,
        eval_freq=max(1, steps // 4), seed=config.run.seed, device=config.run.device,
    )  # fmt: skip


def _lines_of(row: str) -> Iterator[str]:
    """The fields of a row and their lines, without blank ones."""
    for field_of_row in fields_of(row):
        yield from filter(str.strip, (field_of_row, *field_of_row.split("\n")))


def _without(documents: list[str], held: set[str], source: Path) -> list[str]:
    """The documents without those texts, be they a document or a line of one."""
    kept, n = [], 0
    for document in documents:
        lines = document.split("\n")
        if text_key(document) in held:
            n += 1
            continue
        rest = [line for line in lines if not line.strip() or text_key(line) not in held]
        n += len(lines) - len(rest)
        if any(line.strip() for line in rest):
            kept.append("\n".join(rest))
    if n:
        log.info(f"--adapt {source}: {n:,} texts left out, which are validated or tested on")
    return kept


def window_for(documents: list[str], source: Path) -> tuple[int, int]:
    """Tokens a row, and tokens that are trained on."""
    parts = [Stream.of(str(source), part) for part in hold_out(documents, HELD_OUT)] if documents else []
    n_tokens = [len(stream.tokens) for stream in parts] or [0]
    fits = [window for window in WINDOWS if window < min(n_tokens)]
    if not fits:
        raise InputError(f"--adapt {source}: {sum(n_tokens):,} tokens are too few to read on in; give more")
    return fits[0], n_tokens[0]
