"""The learning rate as a pure function of the step, so that a resumed run needs no state for it."""

import math


def lr_factor(schedule: str, step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """What the peak learning rate is multiplied by at ``step`` (from 0).

    It rises linearly over ``warmup_steps``; then ``"constant"`` stays at 1 and ``"cosine"`` falls to 0 at
    ``total_steps`` along half a cosine (Loshchilov & Hutter 2017, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
