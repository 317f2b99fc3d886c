"""A GPT-2 learns to continue text, from random weights or further on your own.

    python -m gptcls.pretrain --init random --data novels.jsonl.gz messages.txt
    python -m gptcls.train --model runs/gpt2-nano-pretrained/model --data labelled.csv
    torchrun --nproc-per-node 2 -m gptcls.pretrain --init random --data novels.jsonl.gz --optimizer muon

What comes out is a folder in Hugging Face's format, which this package and ``transformers`` both load. The
loop is that of fine-tuning (``core/loop.py``).
"""

import math
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptcls.common.files import require_writable, write_json
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.log import log
from gptcls.common.processes import all_or_none, join_processes
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.loop import FitSettings, Hook, NonFiniteLossError, Trainer, decay_groups
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.core.tokenizer import PAD_ID, decode, encode
from gptcls.evaluation import report
from gptcls.fast.frozen import Autocast
from gptcls.fast.packed import PackedGPT2, can_pack_gpt2
from gptcls.models.gpt2_files import save_pretrained
from gptcls.models.pretrained import load_pretrained, load_tokenizer, weights_sha256
from gptcls.models.sampling import generate
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.muon import Muon
from gptcls.pretrain.next_token import NextToken, chances_of, perplexity
from gptcls.pretrain.table import start_from_counts
from gptcls.pretrain.text import Stream, WindowLoader, read_streams
from gptcls.train.folder import RunFolder
from gptcls.train.hooks import Checkpoints, ProgressBar, StopOnSignal, read_checkpoint, time_left
from gptcls.train.processes import StopTogether, SumGradients
from gptcls.train.second_try import save_somewhere

RESULT = "model"  # the folder that a finished run leaves in its own
LOOK_WINDOWS = 16  # of each file's held-out text while the run goes on
FINAL_WINDOWS = 256  # and at its end
SAMPLE_TOKENS = 30


@dataclass(frozen=True)
class PretrainRun:
    """A finished run: its folder, the held-out perplexity of each file (none but in the first of several
    processes), the network, how it went."""

    folder: Path
    perplexity: dict[str, float]
    model: GPT2
    tokens_seen: int
    seconds: float
    history: list[dict]


def pretrain(config: PretrainConfig, explicit: Collection[str] = ()) -> PretrainRun:
    """Train as ``config`` says; the weights are in ``model``, in the run's folder, in Hugging Face's format.
    ``explicit`` and errors are as in :func:`gptcls.train.run.train`."""
    rank, world = join_processes()
    with ExitStack() as stack:
        with all_or_none():
            folder = RunFolder(config, RESULT, PretrainConfig.checked, explicit, writes=rank == 0)
            home = stack.enter_context(folder)
        return _pretrain(home, rank, world)


def _pretrain(home: RunFolder, rank: int, world: int) -> PretrainRun:
    """The same in this folder, as the process of this rank."""
    config = home.config
    with all_or_none():
        if home.resume and (then := home.description["base"].get("processes", 1)) != world:
            raise InputError(f"{home.path} was started as {then} processes, now {world}: start as many")
        if home.writes:
            require_writable(home.path, "--out")
        if home.continues:
            read_checkpoint(home.path / "checkpoint")  # a damaged one is refused before texts are read
        device = pick_device(config.device)
        dtype = pick_dtype(config.precision, device)
        if dtype == torch.float16:  # its gradients would need loss scaling
            dtype = torch.float32
        model, base = build_model(config)
        window = config.window or min(config.WINDOW, model.config.n_positions)
        if window > model.config.n_positions:
            most = model.config.n_positions
            raise InputError(f"--window {window} is longer than the {most} tokens it reads")
        streams, held = _read_streams(config, window + 1)
        origin = {"weights": base, "tokens": {stream.name: len(stream.tokens) for stream in streams}}
        if world > 1:
            origin["processes"] = world
        changed = f"the text or the weights that {home.path} was started with changed"
        folder = home.begin(origin, device, dtype, changed, map(Path, config.data))
    shares = config.mix or [len(stream.tokens) for stream in streams]
    loader = WindowLoader(streams, shares, window, config.batch_size, config.steps, config.seed, rank, world)
    if config.table == "counts" and rank == 0 and not home.continues:  # other processes are sent this table
        start_from_counts(model, streams, config.table_mix, loader.counts(len(model.wte.weight)).numpy())
    model.wte.requires_grad_(config.table_rate > 0)
    look = HeldOut(model.to(device), held, config, loader.tokens_per_step)
    hooks = [SumGradients(world), StopTogether()] if world > 1 else [StopOnSignal()]
    hooks.append(TokenTable(model))
    if rank == 0:
        bar = ProgressBar("pretraining", "tok", loader.tokens_per_step)
        keep = Keep(model, config.keep, folder / "kept")
        hooks = [bar, look, keep, *hooks, Checkpoints(folder / "checkpoint")]
    trainer = _trainer(model, loader, config, device, dtype, hooks)

    def save(where: Path = folder) -> None:
        if rank == 0:
            save_pretrained(model, where / RESULT, config.save, GPT2_TOKENIZER)

    try:
        with home.running(trainer, save, f"the weights so far: {folder / RESULT}"):
            trainer.fit()
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error}; try a smaller --lr, {folder} has what was saved before") from None
    progress = trainer.progress
    tokens_seen = progress.step * look.tokens_per_step
    if rank:
        return PretrainRun(folder, {}, model, tokens_seen, progress.seconds, progress.history)
    # Before anything else can go wrong.
    folder = save_somewhere(home, save, trainer)
    with home.scoring():
        columns = list(dict.fromkeys(key for row in progress.history for key in row))
        report.write_history(folder / "history.csv", progress.history, columns)
        final = look.perplexities(FINAL_WINDOWS)
        write_json(folder / "metrics.json", {
            "perplexity": final, "held_out_tokens": {name: w[:, 1:].numel() for name, w in held.items()},
            "tokens_seen": tokens_seen, "seconds_training": round(progress.seconds, 1),
        })  # fmt: skip
    return PretrainRun(folder, final, model, tokens_seen, progress.seconds, progress.history)


def build_model(config: PretrainConfig) -> tuple[GPT2, dict | None]:
    """The network at the start, and the name and sha256 of its pretrained weights, if any."""
    torch.manual_seed(config.seed)
    if config.init == "random":
        try:
            sizes = replace(PRESETS[config.model], dropout=config.dropout, **config.sizes)
        except ValueError as error:
            raise InputError(f"{config.model} with {config.sizes}: {error}") from None
        model, base = GPT2(sizes), None
    else:
        loaded = load_pretrained(config.model)
        if not isinstance(loaded, GPT2):
            raise InputError(f"{config.model} is not a GPT-2: pretraining is for these alone")
        if load_tokenizer(config.model) is not GPT2_TOKENIZER:
            said = f"{config.model} has a tokenizer of its own, and pretraining reads texts with GPT-2's"
            raise InputError(f"{said}: take a GPT-2 without, or --init random")
        model = GPT2(replace(loaded.config, dropout=config.dropout))
        model.load_state_dict(loaded.state_dict())
        base = {"name": config.model, "sha256": weights_sha256(config.model)}
    sizes = model.config
    GPT2_TOKENIZER.require_fit(config.model, sizes.vocab_size)
    log.info(
        f"{config.model}: {config.init} weights, {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{sizes.n_layer} layers, width {sizes.n_embd}, {sizes.n_positions} positions"
    )
    return model, base


def _read_streams(config: PretrainConfig, length: int) -> tuple[list[Stream], dict[str, Tensor]]:
    """What is trained on, and each file's held-out windows (n, length)."""
    streams, held = [], {}
    for name in config.data:
        stream, judged = read_streams(name, config.text_column, config.held_out, config.cache)
        for part, tokens in (("", stream.tokens), ("the held-out part of ", judged.tokens)):
            if (n := len(tokens)) < length:
                way_out = "make --window smaller" + (" or --held-out larger" if part else "")
                raise InputError(f"{part}{name} has {n} tokens, a window needs {length}: {way_out}")
        streams.append(stream)
        held[name] = torch.from_numpy(judged.windows(length)[:FINAL_WINDOWS].astype(np.int64))
        log.info(
            f"{name}: {len(stream.starts):,} documents with {len(stream.tokens):,} tokens to train on, "
            f"{len(judged.starts):,} with {len(judged.tokens):,} held out"
        )
    return streams, held


def _trainer(
    model: GPT2, loader: WindowLoader, config: PretrainConfig, device: torch.device, dtype: torch.dtype,
    hooks: list[Hook],
) -> Trainer:  # fmt: skip
    """One long epoch."""
    counts = loader.counts(len(model.wte.weight))
    chances = chances_of(counts, config.candidates) if config.candidates else None
    task = NextToken(model, chances, dtype)
    settings = FitSettings(
        epochs=1, lr=config.lr, schedule=config.schedule, warmup=config.warmup, decay=config.decay,
        clip=config.clip,
    )  # fmt: skip
    if can_pack_gpt2(model, dtype):
        network = PackedGPT2(model)
    else:
        network = model if dtype == torch.float32 else Autocast(model, dtype)
    return Trainer(network, task, loader, settings, device, hooks, _optimizer(model, config, dtype))


def _optimizer(model: GPT2, config: PretrainConfig, dtype: torch.dtype) -> torch.optim.Optimizer:
    """The token table has a learning rate of its own; Muon takes the blocks' matrices, AdamW the rest."""
    qkv = [block.attn.qkv.weight for block in model.blocks]
    whole = [layer.weight for b in model.blocks for layer in (b.attn.proj, b.mlp.fc, b.mlp.proj)]
    own = qkv + whole if config.optimizer == "muon" else []
    apart = set(map(id, [model.wte.weight, *own]))
    groups = decay_groups((p for p in model.parameters() if id(p) not in apart), config.weight_decay)
    if config.table_rate:
        groups.append({"params": [model.wte.weight], "lr_scale": config.table_rate})
    how = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True, **how)
    return Muon([{"params": qkv, "parts": 3}, {"params": whole, "parts": 1}, *groups], dtype=dtype, **how)


class TokenTable(Hook):
    """In checkpoints too where it is frozen, since they hold what is trained."""

    def __init__(self, model: GPT2) -> None:
        self.table = model.wte.weight

    def state(self) -> dict[str, Any]:
        return {} if self.table.requires_grad else {"table": self.table.detach()}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        if not self.table.requires_grad:
            self.table.copy_(state["table"])


class Keep(Hook):
    """The weights after some steps, each in a folder of its own in ``folder``."""

    def __init__(self, model: GPT2, steps: Collection[int], folder: Path) -> None:
        self.model, self.steps, self.folder = model, steps, folder

    def on_step(self, trainer: Trainer) -> None:
        if (step := trainer.progress.step) not in self.steps:
            return
        try:
            save_pretrained(self.model, self.folder / f"step-{step:06d}", "fp16", GPT2_TOKENIZER)
        except InputError as error:  # a full disk does not end a healthy run
            log.info(f"{error}; training goes on")


class HeldOut(Hook):
    """Looks at the held-out text every ``eval_freq`` steps, before the first and after the last. What it
    finds goes to the history and the log, which also shows what the model writes by now."""

    def __init__(self, model: GPT2, held: dict[str, Tensor], config: PretrainConfig, per_step: int) -> None:
        self.model, self.held, self.config, self.tokens_per_step = model, held, config, per_step
        self.losses: list[float] = []  # of the steps since the last look
        n = config.candidates  # such a loss is no logarithm of a perplexity: it chooses among fewer tokens
        self.loss_name = f"train loss among {n:,} candidates" if n else "train loss"
        self.loss_column = "candidate_loss" if n else "train_loss"

    def on_start(self, trainer: Trainer) -> None:
        if not trainer.progress.history:
            self._look(trainer)

    def on_step(self, trainer: Trainer) -> None:
        self.losses.append(trainer.loss)
        if trainer.progress.step % self.config.eval_freq == 0 or trainer.progress.step == trainer.total_steps:
            self._look(trainer)

    def on_end(self, trainer: Trainer) -> None:
        self.model.eval()

    def state(self) -> dict[str, Any]:
        return {"losses": self.losses}

    def restore(self, state: dict[str, Any]) -> None:
        self.losses = state["losses"]

    def perplexities(self, n_windows: int) -> dict[str, float]:
        """The perplexity of each file's first windows, exact; the model is left in eval mode."""
        self.model.eval()
        device = self.model.wte.weight.device
        return {name: perplexity(self.model, w[:n_windows].to(device)) for name, w in self.held.items()}

    def _look(self, trainer: Trainer) -> None:
        progress, found = trainer.progress, self.perplexities(LOOK_WINDOWS)
        if not all(map(math.isfinite, found.values())):
            raise NonFiniteLossError(f"the held-out perplexity is not finite after step {progress.step}")
        train_loss = sum(self.losses) / len(self.losses) if self.losses else None
        progress.history.append({
            "step": progress.step, "tokens": progress.step * self.tokens_per_step,
            "seconds": round(progress.seconds, 1), self.loss_column: train_loss,
            **{f"perplexity {name}": value for name, value in found.items()},
        })  # fmt: skip
        log.info(
            f"step {progress.step} of {trainer.total_steps} ({time_left(progress, trainer.total_steps)}): "
            + (f"{self.loss_name} {train_loss:.3f}, " if self.losses else "")
            + "held-out perplexity "
            + ", ".join(f"{value:,.1f} ({Path(name).name})" for name, value in found.items())
            + f'; it writes: "{" ".join(self._sample().split())}"'
        )  # fmt: skip
        self.losses = []
        self.model.train()

    def _sample(self) -> str:
        """A text by the model, from the prompt on; without one from the beginning of a document."""
        device = self.model.wte.weight.device
        ids = torch.tensor([[PAD_ID, *encode(self.config.prompt)]], device=device)
        generator = torch.Generator(device).manual_seed(self.config.seed)
        written = generate(self.model, ids, SAMPLE_TOKENS, 0.8, 50, generator, eos_id=PAD_ID)[0, 1:]
        return decode(written[written != PAD_ID].tolist())
