"""The loop of next-token training.

python -m gptcls.pretrain: a GPT-2 learns to continue text, from random weights or further on your own.

    python -m gptcls.pretrain --init random --data novels.jsonl.gz messages.txt
    python -m gptcls.train --model runs/gpt2-nano-pretrained/model --data labelled.csv

What comes out is a folder in Hugging Face's format, which this package and ``transformers`` both load.
"""

import logging
import math
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from gptcls.common.files import write_json
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.interrupt import stop_requested
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.loop import CHECKPOINT_SECONDS, NonFiniteLossError, StoppedError, lr_factor
from gptcls.core.tokenizer import PAD_ID, VOCAB_SIZE, decode, encode
from gptcls.evaluation import report
from gptcls.models.gpt2_files import save_pretrained
from gptcls.models.pretrained import load_pretrained, weights_sha256
from gptcls.models.sampling import generate
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.next_token import Candidates, next_token_loss, perplexity
from gptcls.pretrain.text import Stream, WindowSampler, hold_out, read_documents
from gptcls.train import folder as runs
from gptcls.train.checkpoint import load_checkpoint, save_checkpoint, try_checkpoint

log = logging.getLogger("gptcls")


@dataclass(frozen=True, kw_only=True)
class PretrainSettings:
    """How :class:`Pretrainer` trains. A step is one of the optimizer, counted from 0."""

    steps: int
    lr: float  # at the peak
    warmup_steps: int
    weight_decay: float
    clip: float  # largest gradient norm; 0 does not clip
    candidates: int  # tokens a softmax runs over; 0: all of them
    eval_freq: int  # steps between two looks at the held-out text
    seed: int


@dataclass
class PretrainProgress:
    """Where a run stands: everything about it that is no tensor."""

    step: int = 0
    tokens_seen: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # of the steps since the last entry of the history
    history: list[dict] = field(default_factory=list)


class Pretrainer:
    """One next-token training run of ``model`` that can stop and go on, bit for bit, on a CPU.

    Windows, candidates and dropout of a step are drawn from the seed and the number of the step alone, so
    weights, optimizer and counters are all that a checkpoint has to keep.

    Args:
        model: a GPT2; all of it is trained.
        sampler: gives the windows of each step.
        settings: see :class:`PretrainSettings`.
        dtype: of the matrix products; the weights stay in fp32.
    """

    def __init__(
        self,
        model: GPT2,
        sampler: WindowSampler,
        settings: PretrainSettings,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.sampler, self.settings, self.dtype = model, sampler, settings, dtype
        self.device = model.wte.weight.device
        self.parameters = dict(model.named_parameters())
        for parameter in self.parameters.values():  # a loaded one may be a transposed view of a file
            parameter.data = parameter.data.contiguous()
        matrices = [p for p in self.parameters.values() if p.ndim == 2]
        others = [p for p in self.parameters.values() if p.ndim != 2]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},  # decay would pull norms and biases to a meaningless 0
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95), fused=True)
        # The most common tokens first: the candidates of a step are mostly they.
        self.by_count = sampler.counts(len(model.wte.weight)).argsort(descending=True, stable=True)
        self.progress = PretrainProgress()

    def fit(
        self, look: Callable[[], dict[str, float]], on_checkpoint: Callable[[], None] | None = None
    ) -> PretrainProgress:
        """Train to the last step, or to the first Ctrl-C.

        ``look`` judges the model (in eval mode) every ``eval_freq`` steps, before the first and after the
        last; what it returns goes to the history. ``on_checkpoint`` is called whenever
        :data:`CHECKPOINT_SECONDS` have passed since the last time.

        Raises StoppedError after the step in which Ctrl-C came, NonFiniteLossError when the loss is no
        longer a number (the last checkpoint is then what there is).
        """
        progress, settings = self.progress, self.settings
        started = saved_at = time.perf_counter()
        started -= progress.seconds
        bar = tqdm(
            total=settings.steps * self._tokens_a_step(),
            initial=progress.tokens_seen,
            desc="pretraining",
            unit="tok",
            unit_scale=True,
            disable=None,
        )
        self.model.train()
        with stop_requested() as stop, logging_redirect_tqdm([log]), bar:
            if not progress.history:
                self._look(look)
            while progress.step < settings.steps:
                progress.losses.append(self._step())
                bar.set_postfix(loss=f"{progress.losses[-1]:.3f}", refresh=False)
                bar.update(self._tokens_a_step())
                now = time.perf_counter()
                progress.seconds = now - started
                if progress.step % settings.eval_freq == 0 or progress.step == settings.steps:
                    self._look(look)
                if stop():
                    raise StoppedError
                if on_checkpoint and now - saved_at > CHECKPOINT_SECONDS:
                    on_checkpoint()
                    saved_at = time.perf_counter()
        self.model.eval()
        return progress

    def state(self) -> dict[str, Tensor]:
        """Nothing: weights, optimizer and the number of the step are all that a step depends on."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing to take up, see :meth:`state`."""

    def _tokens_a_step(self) -> int:
        return self.sampler.batch_size * (self.sampler.length - 1)

    def lr(self, step: int) -> float:
        """The learning rate of a step."""
        settings = self.settings
        return settings.lr * lr_factor("cosine", step, settings.steps, settings.warmup_steps)

    def _step(self) -> float:
        """One update; returns its loss."""
        settings, step = self.settings, self.progress.step
        torch.manual_seed((settings.seed << 32) + step)  # of dropout and of the candidates
        windows = self.sampler.batch(step)
        targets = windows[:, 1:].flatten()
        candidates = None
        if settings.candidates:
            candidates = Candidates.draw(targets, self.by_count, settings.candidates).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(step)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden = self.model(windows[:, :-1].to(self.device))  # (B, T, C)
        table = (self.model.wte if self.model.lm_head is None else self.model.lm_head).weight
        loss = next_token_loss(
            hidden.flatten(0, 1).float(), table, targets.to(self.device), self.dtype, candidates
        )
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters.values()])
        if not (math.isfinite(loss.item()) and math.isfinite(norm)):
            raise NonFiniteLossError(
                f"the loss is no longer finite at step {step} (lr {self.lr(step):.3g}); try a smaller --lr"
            )
        if settings.clip and norm > settings.clip:
            nn.utils.clip_grads_with_norm_(self.parameters.values(), settings.clip, norm)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.tokens_seen += len(targets)
        return loss.item()

    def _look(self, look: Callable[[], dict[str, float]]) -> None:
        """An entry of the history: the mean training loss since the last one, and what ``look`` finds."""
        progress, losses = self.progress, self.progress.losses
        self.model.eval()
        entry = {
            "step": progress.step,
            "tokens": progress.tokens_seen,
            "seconds": round(progress.seconds, 1),
            "train_loss": sum(losses) / len(losses) if losses else None,
        }
        progress.history.append(entry | look())
        progress.losses = []
        self.model.train()


RESULT = "model"  # the folder that a finished run leaves in its own


LOOK_WINDOWS = 64  # of each file's held-out text while the run goes on


FINAL_WINDOWS = 1024  # and at its end


SAMPLE_TOKENS = 30


@dataclass(frozen=True)
class PretrainRun:
    """A finished run: its folder, the held-out perplexity of each file, the network, the history."""

    folder: Path
    perplexity: dict[str, float]
    model: GPT2
    progress: PretrainProgress


def pretrain(config: PretrainConfig) -> PretrainRun:
    """Train as ``config`` says; the weights are in ``model``, in the run's folder, in Hugging Face's format.

    Raises:
        InputError: something in the options or the data cannot be used; the line says what.
        KeyboardInterrupt: after Ctrl-C, once what is trained so far is saved.
    """
    if config.resume:
        (config, origin_then, there), folder = runs.resumed(config), config.out
    else:
        config = config.checked()
        folder = runs.new_folder(config.out, config.run_name, RESULT)
    device = pick_device(config.device)
    dtype = pick_dtype(config.precision, device)
    if dtype == torch.float16:  # its gradients would need loss scaling
        dtype = torch.float32
    here = runs.environment(device, dtype)
    model, base = _build_model(config)
    window = config.window or min(config.WINDOW, model.config.n_positions)
    if window > model.config.n_positions:
        raise InputError(f"--window {window} is longer than the {model.config.n_positions} tokens it reads")
    streams, held = _read_streams(config, window + 1)
    origin = {"weights": base, "tokens": {stream.name: len(stream.tokens) for stream in streams}}
    if config.resume:
        runs.warn_of_changes(there, here)
        if origin != origin_then:
            raise InputError(f"the text or the weights that {folder} was started with changed; put them back")
    else:
        folder = runs.claim(folder, config.out, config.run_name, RESULT)
        runs.write_config(folder, config, origin, here)
    settings = PretrainSettings(
        steps=config.steps,
        lr=config.lr,
        warmup_steps=round(config.warmup * config.steps),
        weight_decay=config.weight_decay,
        clip=config.clip,
        candidates=config.candidates,
        eval_freq=config.eval_freq,
        seed=config.seed,
    )
    shares = config.mix or [len(stream.tokens) for stream in streams]
    sampler = WindowSampler(streams, shares, window + 1, config.batch_size, config.seed)
    trainer = Pretrainer(model.to(device), sampler, settings, dtype)
    if config.resume:
        load_checkpoint(folder / "checkpoint", trainer)
    try:
        trainer.fit(
            look=lambda: _look(trainer, held, config),
            on_checkpoint=lambda: try_checkpoint(folder / "checkpoint", trainer),
        )
    except StoppedError:
        save_pretrained(trainer.model, folder / RESULT, config.save)
        save_checkpoint(folder / "checkpoint", trainer)
        where = shlex.quote(str(folder))
        log.info(f"interrupted; the weights so far: {folder / RESULT} (continue with --out {where} --resume)")
        raise
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error}; {folder} has what was saved before") from None
    return _finish(folder, trainer, held, config)


def _build_model(config: PretrainConfig) -> tuple[GPT2, dict | None]:
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
            raise InputError(f"{config.model} is no GPT-2: pretraining is for these alone")
        model = GPT2(replace(loaded.config, dropout=config.dropout))
        model.load_state_dict(loaded.state_dict())
        base = {"name": config.model, "sha256": weights_sha256(config.model)}
    sizes = model.config
    if sizes.vocab_size < VOCAB_SIZE:
        raise InputError(
            f"{config.model} knows {sizes.vocab_size} tokens, GPT-2's tokenizer has {VOCAB_SIZE}; "
            "choose a model with GPT-2's vocabulary"
        )
    log.info(
        f"{config.model}: {config.init} weights, {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{sizes.n_layer} layers, width {sizes.n_embd}, {sizes.n_positions} positions"
    )
    return model, base


def _read_streams(config: PretrainConfig, length: int) -> tuple[list[Stream], dict[str, Tensor]]:
    """What is trained on, and each file's held-out windows (n, length)."""
    streams, held = [], {}
    for name in config.data:
        documents = read_documents(name, config.text_column)
        train, rest = hold_out(documents, config.held_out)
        stream, judged = Stream.of(name, train), Stream.of(name, rest)
        for part, tokens in (("", len(stream.tokens)), ("the held-out part of ", len(judged.tokens))):
            if tokens < length:
                way_out = "make --window smaller" + (" or --held-out larger" if part else "")
                raise InputError(f"{part}{name} has {tokens} tokens, a window needs {length}: {way_out}")
        streams.append(stream)
        held[name] = torch.from_numpy(judged.windows(length)[:FINAL_WINDOWS].astype(np.int64))
        log.info(
            f"{name}: {len(documents):,} documents, {len(stream.tokens):,} tokens to train on, "
            f"{len(judged.tokens):,} held out"
        )
    return streams, held


def _look(trainer: Pretrainer, held: dict[str, Tensor], config: PretrainConfig) -> dict[str, float]:
    """Held-out perplexities, and a sample of what the model writes by now, to the log."""
    progress = trainer.progress
    windows = {name: w[:LOOK_WINDOWS].to(trainer.device) for name, w in held.items()}
    found = {name: perplexity(trainer.model, w) for name, w in windows.items()}
    text = _sample(trainer, config)
    losses = progress.losses
    train_loss = f"train loss {sum(losses) / len(losses):.3f}, " if losses else ""
    log.info(
        f"step {progress.step}: {train_loss}held-out perplexity "
        + ", ".join(f"{value:,.1f} ({Path(name).name})" for name, value in found.items())
        + f'; it writes: "{" ".join(text.split())}"'
    )
    return {f"perplexity {name}": value for name, value in found.items()}


def _sample(trainer: Pretrainer, config: PretrainConfig) -> str:
    """A text by the model, from the prompt on; without one from the beginning of a document."""
    ids = torch.tensor([[PAD_ID, *encode(config.prompt)]], device=trainer.device)
    generator = torch.Generator(trainer.device).manual_seed(config.seed)
    written = generate(trainer.model, ids, SAMPLE_TOKENS, 0.8, 50, generator, eos_id=PAD_ID)[0, 1:]
    return decode(written[written != PAD_ID].tolist())


def _finish(
    folder: Path, trainer: Pretrainer, held: dict[str, Tensor], config: PretrainConfig
) -> PretrainRun:
    """Save everything, then measure the perplexity on all of the held-out windows."""
    save_pretrained(trainer.model, folder / RESULT, config.save)  # before anything else can go wrong
    progress = trainer.progress
    columns = list(dict.fromkeys(key for row in progress.history for key in row))
    report.write_history(folder / "history.csv", progress.history, columns)
    final = {name: perplexity(trainer.model, w.to(trainer.device)) for name, w in held.items()}
    write_json(
        folder / "metrics.json",
        {
            "perplexity": final,
            "held_out_tokens": {name: w[:, 1:].numel() for name, w in held.items()},
            "tokens_seen": progress.tokens_seen,
            "seconds_training": round(progress.seconds, 1),
        },
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return PretrainRun(folder, final, trainer.model, progress)
