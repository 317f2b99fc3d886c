"""AdamW for a token table that costs what the rows in use cost: of 50,257 tokens a corpus of messages has
5,000, and a step 150.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.adamw import adamw

MOMENTS = ("exp_avg", "exp_avg_sq")


class TableAdamW(torch.optim.AdamW):
    """AdamW of which one parameter, ``table`` (V, C), has sparse gradients, such as ``F.embedding`` can give:
    moments are kept of those of its rows alone that ever had one. The others' are 0, so that their step is
    weight decay and nothing else: the same numbers as AdamW's, up to rounding."""

    def __init__(self, groups: Iterable[dict], lr: float, table: nn.Parameter) -> None:
        super().__init__(groups, lr=lr, fused=True)
        self.table = table

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        table, gradient = self.table, self.table.grad
        table.grad = None
        super().step()
        if gradient is None:
            return
        group = next(group for group in self.param_groups if any(p is table for p in group["params"]))
        gradient, state = gradient.coalesce(), self.state[table]
        touched = gradient.indices()[0]
        if not state:
            state["step"] = torch.tensor(0.0)
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
        beta1, beta2 = group["betas"]
        how = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize", "fused")}
        moments = ([state[name]] for name in MOMENTS)
        adamw([values], [dense], *moments, [], [state["step"]], beta1=beta1, beta2=beta2, **how)
        table.mul_(1 - group["lr"] * group["weight_decay"])
        table[rows] = values
