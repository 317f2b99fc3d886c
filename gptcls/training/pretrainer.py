"""The loop of next-token training."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from gptcls.data.packing import WindowSampler
from gptcls.models.gpt2 import GPT2
from gptcls.training.interrupt import stop_requested
from gptcls.training.loop import CHECKPOINT_SECONDS, NonFiniteLossError, StoppedError
from gptcls.training.next_token import Candidates, next_token_loss
from gptcls.training.schedule import lr_factor

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
