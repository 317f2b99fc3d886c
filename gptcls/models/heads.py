"""The head of a network that classifies already: what it answers, and its rows in another run's order.

``transformers`` saves one with its networks called ``…ForSequenceClassification``: the labels stand in
config.json (``id2label``), what they mean in ``problem_type``, and the head is the last linear layer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import Regression
from gptcls.core.weights import State
from gptcls.models.families import FAMILIES, Family, known_family, poolings_of

# transformers' names of a task -> Task.kind
KINDS = {
    "single_label_classification": "single_label", "multi_label_classification": "multi_label",
    "regression": "regression",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head: what it answers, and from what. The numbers of a regression are ``means`` and
    ``scales`` of its outputs, as :class:`Regression` has them."""

    labels: tuple[str, ...]
    kind: str  # Task.kind
    pooling: str  # a key of POOLERS
    weight: Tensor  # (K, C)
    bias: Tensor  # (K,), zeros where there is none
    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()

    def rows_of(self, task: Task) -> list[int] | None:
        """For each of the task's labels the head's row; None where it is of another kind, or its labels are
        others. What is the same to a reader is one label: POSITIVE and positive, ``LABEL_1``, which
        transformers writes where nobody named it, and 1. A regression's lone number needs no name.

        >>> from gptcls.core.task import SingleLabel
        >>> head = Head(("POSITIVE", "NEGATIVE"), "single_label", "first", torch.zeros(2, 8), torch.zeros(2))
        >>> head.rows_of(SingleLabel(("negative", "positive")))
        [1, 0]
        """
        if self.kind != task.kind or len(self.labels) != task.n_outputs:
            return None
        if self.kind == "regression" and task.n_outputs == 1:
            return [0]
        for spelling in (str, str.casefold, lambda x: re.sub(r"^label_(?=\d+$)", "", x.casefold())):
            rows = {spelling(label): row for row, label in enumerate(self.labels)}
            wanted = [spelling(label) for label in task.labels]
            if len(rows) == task.n_outputs and rows.keys() == {*wanted}:
                return [rows[label] for label in wanted]
        return None

    @torch.no_grad()
    def of(self, task: Task) -> tuple[Tensor, Tensor]:
        """Weight (K, C) and bias (K,) that give the answers of this head to a ``task`` of the same labels."""
        rows = self.rows_of(task)
        weight, bias = self.weight.float()[rows], self.bias.float()[rows]
        if isinstance(task, Regression):  # mean + scale · (W h + b) is the number, here as there
            means, scales = self.means or (0.0,) * len(rows), self.scales or (1.0,) * len(rows)
            mean, scale = (weight.new_tensor([x[row] for row in rows]) for x in (means, scales))
            weight = weight * (scale / weight.new_tensor(task.scales))[:, None]
            bias = (bias * scale + mean - bias.new_tensor(task.means)) / bias.new_tensor(task.scales)
        return weight, bias

    @torch.no_grad()
    def put(self, task: Task, layer: nn.Linear) -> None:
        """Make ``layer`` such a head; where it has no bias, this one's is zeros."""
        weight, bias = self.of(task)
        layer.weight.copy_(weight)
        if layer.bias is not None:
            layer.bias.copy_(bias)


def take_head(tensors: State, declared: Mapping[str, Any], family: Family) -> Head | None:
    """Take the head of a classifier of texts out of a file's ``tensors``, if its config.json (``declared``)
    speaks of one; a bias that it lacks is zeros."""
    names = declared.get("architectures")
    said = names[0] if isinstance(names, list) and names else None
    if not str(said).endswith("ForSequenceClassification") or f"{family.head}.weight" not in tensors:
        return None
    if declared.get("classifier_pooling", "cls") != "cls":  # ModernBERT's mean is taken below its pooler
        return None
    weight, bias = tensors.pop(f"{family.head}.weight"), tensors.pop(f"{family.head}.bias", None)
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise InputError(f"{family.head}.weight has the shape {list(weight.shape)}, not a head's")
    by_id = declared.get("id2label")
    labels = by_id if isinstance(by_id, dict) else {}
    labels = tuple(str(labels.get(str(row), f"LABEL_{row}")).strip() for row in range(len(weight)))
    usual = "regression" if len(labels) == 1 else "single_label_classification"  # as transformers guesses
    kind = str(declared.get("problem_type") or usual)
    pooling = "last" if family.decoder else "first"
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return Head(labels, KINDS.get(kind, kind), pooling, weight, bias)


@torch.no_grad()
def published_head(model: Classifier) -> State | None:
    """The tensors, under transformers' names, that its class for such a network has above or in place of the
    network's own to give the logits of ``model``; None where it computes something else.

    The head of its decoders has no bias: that of the final LayerNorm takes it in (:func:`bias_into_norm`); an
    RMSNorm has nowhere to put it.
    """
    backbone, key = model.backbone, known_family(model.backbone)
    family = FAMILIES[key] if key else None
    if not isinstance(model.head, nn.Linear):
        return None
    if family is None or family.head is None or model.pooling != poolings_of(family)[0]:
        return None
    if key == "modernbert":  # whose class may take a mean: its config.json says so, no tensor
        return None
    if not getattr(backbone.config, "causal", True) or not getattr(backbone.config, "pooler", True):
        return None
    weight, bias = (tensor.float() for tensor in weight_and_bias(model.head))
    if not family.decoder:
        named = backbone.state_dict(prefix="backbone.").items()
        own = {name: p for name, p in named if ".norm.dense." in name}
        theirs = {family.names.theirs(name.removeprefix("backbone.")): p.cpu() for name, p in own.items()}
        theirs = {name: p for name, p in theirs.items() if "classifier" in name}  # else it is the network's
        return theirs | {f"{family.head}.weight": weight, f"{family.head}.bias": bias}
    found = {f"{family.head}.weight": weight}
    if not bias.any():
        return found
    norm = dict(backbone.norm.named_parameters())
    moved = bias_into_norm(norm["bias"].detach().cpu(), weight, bias) if "bias" in norm else None
    if moved is None:
        return None
    shifted = {"weight": norm["weight"].float().cpu(), "bias": moved}
    return found | {family.names.theirs(f"norm.{kind}"): tensor for kind, tensor in shifted.items()}


def weight_and_bias(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Those of a head, weight (K, C) and bias (K,), on the CPU; zeros where it has no bias."""
    weight = layer.weight.detach().cpu()
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu()


def bias_into_norm(beta: Tensor, weight: Tensor, bias: Tensor, *, differences: bool = False) -> Tensor | None:
    """The bias β + δ (C,) of a final norm with which a head ``weight`` (K, C) needs none of its own: W (n + β
    + δ) is W (n + β) + b where W δ = b. Of all such δ it is the smallest; None where there is none.

    With ``differences`` W δ may differ from ``bias`` (K,) by the same number in all K, which a softmax does
    not see.
    """
    W, b = weight.double(), bias.double()
    W, b = (W - W.mean(dim=0), b - b.mean()) if differences else (W, b)
    delta = torch.linalg.lstsq(W, b[:, None], driver="gelsd").solution[:, 0]
    moved = (beta + delta).float()
    missed = (W @ (moved.double() - beta.double()) - b).abs().max() / max(1.0, b.abs().max())
    return None if missed > 1e-6 else moved


def named(labels: Sequence[str], most: int = 5) -> str:
    """Labels for a log line, the first few of many."""
    shown = ", ".join(f"{label:.40}" for label in labels[:most])
    return shown + (f" and {len(labels) - most:,} more" if len(labels) > most else "")
