"""A classifier as a folder that ``transformers`` reads, one of its classes ``…ForSequenceClassification``.

The head's logits come out calibrated: temperatures, and a regression's units, are folded into its weights.
Two things are put where they change no answer:

- The head of GPT-2's class has no bias. The final norm's takes its place
  (:func:`gptcls.models.heads.bias_into_norm`). Llama's norm has none either, so heads over one are trained
  without.
- The classes of most encoders put a linear layer and an activation below the head. A classifier that was
  trained without gets its own head as that layer: twice, in two forms that the activation keeps apart and the
  layer above puts together again (:data:`BOTH_WAYS`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from gptcls.classify.store import NO_ROOM, SavedClassifier
from gptcls.common.files import atomic_folder, write_json
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tasks import Regression
from gptcls.core.weights import State
from gptcls.evaluation.decision import PLAIN
from gptcls.export.forms import CUT_FROM, FORMS, Form, tokenizer_of, with_tokenizer
from gptcls.language.head import LabelClassifier
from gptcls.models.auto_tokenizer import save_tokenizer, with_padding
from gptcls.models.families import FAMILIES, Family, family_name, poolings_of
from gptcls.models.heads import KINDS, bias_into_norm, weight_and_bias
from gptcls.models.llama import LlamaConfig
from gptcls.models.lora import merged
from gptcls.models.weight_files import saving

SMALL = 2.0**-8
# An activation a, two factors f of its input and two g of its output: g₀ a(f₀ z) + g₁ a(f₁ z) = z. Exactly
# for relu, and for gelu since z Φ(z) + z Φ(-z) = z; for tanh, by its series, up to 8/15 (SMALL z)⁴ z.
BOTH_WAYS = {
    "relu": ((1.0, -1.0), (1.0, -1.0)),
    "gelu": ((1.0, -1.0), (1.0, -1.0)),
    "tanh": ((SMALL, 2 * SMALL), (8 / (6 * SMALL), -1 / (6 * SMALL))),
}


@dataclass(frozen=True)
class ScaledHead:
    """``(W h + b) * factors + shifts`` in double precision: W (K, C), the others (K,)."""

    weight: Tensor
    bias: Tensor
    factors: Tensor
    shifts: Tensor

    @classmethod
    def of(cls, saved: SavedClassifier) -> "ScaledHead":
        """The classifier's, with what is done to its logits: calibration, or the units of its numbers."""
        layer, task = saved.model.head, saved.task
        weight, bias = (tensor.double() for tensor in weight_and_bias(layer))
        zeros, ones = torch.zeros_like(bias), torch.ones_like(bias)
        if isinstance(task, Regression):
            return cls(weight, bias, ones.new_tensor(task.scales), ones.new_tensor(task.means))
        if (by := saved.calibration) is None:
            return cls(weight, bias, ones, zeros)
        return cls(weight, bias, ones / ones.new_tensor(by.temperatures), zeros + ones.new_tensor(by.shifts))

    @property
    def layer(self) -> tuple[Tensor, Tensor]:
        """Weight (K, C) and bias (K,) of one layer that computes it."""
        return self.weight * self.factors[:, None], self.bias * self.factors + self.shifts

    def around(self, activation: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight (C, C) and bias (C,) of a layer below this activation, weight (K, C) and bias (K,) of one
        above it, that compute it together."""
        K, C = self.weight.shape
        below, below_bias, above = (self.weight.new_zeros(shape) for shape in ((C, C), C, (K, C)))
        for half, (f, g) in enumerate(zip(*BOTH_WAYS[activation], strict=True)):
            rows = slice(half * K, (half + 1) * K)
            below[rows], below_bias[rows] = f * self.weight, f * self.bias
            above[:, rows] = torch.diag(g * self.factors)
        return below, below_bias, above, self.shifts


def to_transformers(classifier: SavedClassifier, folder: Path) -> None:
    """Write ``config.json``, ``model.safetensors``, ``tokenizer.json`` and ``tokenizer_config.json`` to
    ``folder``. Probabilities, or numbers, are those of ``classifier`` in fp32, also of texts that are cut
    (``truncation=True``). InputError for what no class of ``transformers`` computes."""
    entries, tensors, pad_token, tokenizer = _converted(classifier)
    side = {"truncation_side": CUT_FROM[classifier.long], "split_special_tokens": True}
    if getattr(classifier.model.backbone.config, "sep_id", None) is not None:
        side["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    with saving("the classifier", folder, NO_ROOM), atomic_folder(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", entries)
        save_tokenizer(temporary, tokenizer, classifier.max_length, pad_token, **side)


def _converted(saved: SavedClassifier) -> tuple[dict[str, Any], State, str, str]:
    """The entries of config.json, the tensors under their names, what pads, and a tokenizer.json."""
    backbone, task = saved.model.backbone, saved.task
    if isinstance(saved.model, LabelClassifier):
        said = "it answers by its language-model head; train without --head lm, or distill it"
        raise InputError(f"transformers cannot express this classifier: {said}")
    name = family_name(backbone)
    family, form = FAMILIES[name], FORMS.get(name)
    if form is None:
        raise InputError(f"transformers has no class for a {name}; use --to onnx")
    tokenizer, config = tokenizer_of(saved), backbone.config
    if isinstance(config, LlamaConfig):
        config = with_tokenizer(config, json.loads(tokenizer))
    entries = form.entries(config)
    _require_expressible(saved, family, entries["architectures"][0])
    tokenizer, pad_token, pad_id = with_padding(tokenizer, saved.tokenizer)
    with merged(saved.model):
        state = {k: v.detach().cpu().float() for k, v in backbone.state_dict().items()}
    if config != backbone.config:
        state |= {f"blocks.{i}.attn.proj.bias": torch.zeros(config.n_embd) for i in range(config.n_layer)}
    table = state["wte.weight"]
    if pad_id >= len(table):  # a row that no answer depends on
        state["wte.weight"] = torch.cat([table, table.new_zeros(pad_id + 1 - len(table), table.shape[1])])
        entries["vocab_size"] = pad_id + 1
    if form.from_padding:
        table = state["wpe.weight"]
        state["wpe.weight"] = torch.cat([table.new_zeros(pad_id + 1, table.shape[1]), table])
        entries["max_position_embeddings"] = len(state["wpe.weight"])
    head = _with_head(saved, form, family.head, state, entries["architectures"][0])
    tensors = family.names.to_theirs(state) | head
    entries |= {
        "id2label": {str(i): label for i, label in enumerate(task.labels)},
        "label2id": {label: i for i, label in enumerate(task.labels)},
        "problem_type": next(theirs for theirs, kind in KINDS.items() if kind == task.kind),
        "pad_token_id": pad_id,
        "torch_dtype": "float32",
    }
    for name, ids in (("bos", saved.tokenizer.prefix), ("eos", saved.tokenizer.eos_ids)):
        entries[f"{name}_token_id"] = next(iter(ids), None)
    return entries, {k: v.float().contiguous() for k, v in tensors.items()}, pad_token, tokenizer


def _require_expressible(saved: SavedClassifier, family: Family, name: str) -> None:
    """InputError for the first thing about the classifier that the class ``name`` knows nothing of."""
    pooling, usual, n = saved.model.pooling, poolings_of(family)[0], 1 + len(saved.members)
    for so, what, way_out in (
        (n > 1, f"it is an ensemble of {n} networks", "train one without --seeds"),
        (saved.mixture, "its answers are a mixture with those of n-grams", "train with --stack none"),
        (pooling != usual, f"its head reads by --pooling {pooling}, that of {name} the {usual} token",
            f"train with --pooling {usual}, or use --to onnx"),
        (saved.long not in CUT_FROM, f"it reads long texts by --long {saved.long}",
            "train with --long head"),
        (saved.cleaning != "none", "it cleans texts first", "train without --clean"),
        (saved.decision != PLAIN, "it abstains, or answers by costs or a threshold",
            "add --likeliest to write one that always gives the likeliest"),
    ):  # fmt: skip
        if so:
            raise InputError(f"transformers cannot express this classifier: {what}; {way_out}")


def _with_head(saved: SavedClassifier, form: Form, layer: str, state: State, name: str) -> State:
    """The tensors of the last ``layer`` under their names; ``state`` (ours) changes with it where it must."""
    head = ScaledHead.of(saved)
    K, C = head.weight.shape
    if form.below and not saved.model.backbone.config.pooler:
        if 2 * K > C:
            raise InputError(f"{name} has no room for {K} outputs over {C} channels; use --to onnx")
        if form.below == "tanh" and isinstance(saved.task, Regression) and set(saved.task.scales) == {1.0}:
            raise InputError(f"{name} has a tanh, which raw numbers would fill; train without --raw-targets")
        below, below_bias, weight, bias = head.around(form.below)
        state |= {"norm.dense.weight": below, "norm.dense.bias": below_bias}
    else:
        weight, bias = head.layer
    if form.bias:
        return {f"{layer}.weight": weight, f"{layer}.bias": bias}
    differences = isinstance(saved.task, SingleLabel)  # softmax knows nothing else
    if differences:
        bias = bias - bias.mean()
    if bias.any():
        if "norm.bias" not in state:
            way_out = "train it again, or use --to onnx"
            raise InputError(f"{name} has no bias, and so no place for that of this head; {way_out}")
        moved = bias_into_norm(state["norm.bias"], weight, bias, differences=differences)
        if moved is None:
            raise InputError(f"{name} has no bias, and its norm cannot stand in for it; use --to onnx")
        state["norm.bias"] = moved
    return {f"{layer}.weight": weight}
