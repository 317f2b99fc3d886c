"""What a training run is told, and where it stands."""

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How :class:`gptcls.training.loop.Trainer` trains. A step is one of the optimizer, counted from 0."""

    epochs: int
    lr: float
    weight_decay: float
    schedule: str  # "cosine" or "constant", after the warm-up
    warmup: float  # share of all steps in which the learning rate rises
    clip: float  # largest gradient norm; 0 does not clip
    accumulate: int  # batches a step
    patience: int  # epochs without a better validation loss before the run stops; 0 never stops early
    eval_freq: int  # steps between two entries of the loss curve
    eval_iter: int  # batches of train and validation that such an entry looks at


@dataclass
class Progress:
    """Where a run stands: everything about it that is no tensor."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    examples_seen: int = 0
    best_val_loss: float = math.inf
    best_epoch: int = 0  # from 1; 0 while no epoch was judged
    kept_step: int = 0  # steps behind the weights to go back to
    epochs_without_better: int = 0
    finished: bool = False
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)
