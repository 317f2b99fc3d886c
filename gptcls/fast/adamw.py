"""AdamW by torch's function, since torch's optimizers import its compiler when they are made; and for a token
table at the cost of its rows in use: of 50,257 tokens a corpus of messages has 5,000, and a step 150.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adamw import adamw

MOMENTS = ("exp_avg", "exp_avg_sq")
State = dict[str, Tensor]


class AdamW:
    """``torch.optim.AdamW(groups, lr, fused=True)`` (Loshchilov and Hutter 2019, "Decoupled Weight Decay
    Regularization"), bit for bit.

    Each of ``groups`` has ``params``, perhaps none, and a ``weight_decay``; ``lr`` may be set anew for every
    step. ``state`` has the moments and the number of steps of each parameter, by the names that torch gives
    them.
    """

    def __init__(self, groups: Sequence[dict], lr: float) -> None:
        self.param_groups = [{"lr": lr, **group} for group in groups]
        self.state: dict[nn.Parameter, State] = defaultdict(dict)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step of the parameters that have a gradient."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            for p in moved:
                if not self.state[p]:
                    self.state[p] = {name: torch.zeros_like(p) for name in MOMENTS}
                    self.state[p]["step"] = torch.zeros((), device=p.device)
            _update(group, moved, [p.grad for p in moved], [self.state[p] for p in moved])


class TableAdamW(AdamW):
    """AdamW of which one parameter, ``table`` (V, C), has sparse gradients, such as ``F.embedding`` can give:
    moments are kept of those of its rows alone that ever had one. The others' are 0, so that their step is
    weight decay and nothing else: the same numbers as AdamW's, up to rounding."""

    def __init__(self, groups: Sequence[dict], lr: float, table: nn.Parameter) -> None:
        super().__init__(groups, lr)
        self.table = table

    @torch.no_grad()
    def step(self) -> None:
        """One step of the parameters that have a gradient."""
        table, gradient = self.table, self.table.grad
        table.grad = None
        super().step()
        if gradient is None:
            return
        group = next(group for group in self.param_groups if any(p is table for p in group["params"]))
        gradient, state = gradient.coalesce(), self.state[table]
        touched = gradient.indices()[0]
        if not state:
            state["step"] = torch.zeros(())
            state |= {name: table.new_empty(0, table.shape[1]) for name in MOMENTS}
        # A checkpoint of AdamW has the moments of all rows.
        state.setdefault("rows", torch.arange(len(state["exp_avg"])))
        new = touched[~torch.isin(touched, state["rows"])]
        state["rows"] = rows = torch.cat([state["rows"], new])
        for name in MOMENTS:
            state[name] = F.pad(state[name], (0, 0, 0, len(new)))
        places = torch.empty(len(table), dtype=torch.int64)
        places[rows] = torch.arange(len(rows))
        values, dense = table[rows], torch.zeros_like(state["exp_avg"])
        dense[places[touched]] = gradient.values()
        _update(group, [values], [dense], [state])
        table.mul_(1 - group["lr"] * group["weight_decay"])
        table[rows] = values


def with_all_rows(state: State, table: Tensor) -> None:
    """What :class:`TableAdamW` remembers of a ``table`` (V, C), in place as AdamW would have it."""
    rows = state.pop("rows")
    state |= {name: torch.zeros_like(table).index_copy_(0, rows, state[name]) for name in MOMENTS}


def _update(group: dict, parameters: list[Tensor], gradients: list[Tensor], states: list[State]) -> None:
    means, squares, steps = ([state[name] for state in states] for name in (*MOMENTS, "step"))
    adamw(
        parameters, gradients, means, squares, [], steps, fused=True, amsgrad=False, beta1=0.9, beta2=0.999,
        lr=group["lr"], weight_decay=group["weight_decay"], eps=1e-8, maximize=False,
    )  # fmt: skip
