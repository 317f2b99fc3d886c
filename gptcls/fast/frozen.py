"""The fast path: a classifier as two stages, of which the first is a fixed function of the text.

``Trained(Frozen(ids)) == Classifier(ids)``, in fp32 up to rounding. Two facts make it fast: what lies below
the lowest trained block never changes, so it may run once per text, in a narrow number format
(``fast/features.py``); and where the head reads one position, the last block needs its attention and MLP at
that position alone (``fast/one_position.py``).

The plain path, :class:`gptcls.core.classifier.Classifier`, knows nothing of all this and stays the reference.
"""

import logging
from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from gptcls.common.extras import needed
from gptcls.core.classifier import Classifier
from gptcls.fast.fused import FusedBlock, can_fuse
from gptcls.fast.one_position import at, is_cheap
from gptcls.language.head import LabelNodes


class Frozen(nn.Module):
    """The embeddings and the first ``depth`` blocks, as a fixed function in ``dtype``; where these are all
    blocks, also the final norm and a pooling without parameters: then the output is one vector per text.

    Blocks whose weights are in ``dtype`` share them with the classifier as far as their layout allows; others
    are copies of them as they are now. With ``int8`` their weights are rounded to 8 bits. With ``first`` it
    goes on from the output of another of that depth, in place of ids.
    """

    def __init__(
        self, classifier: Classifier, depth: int, dtype: torch.dtype = torch.float32, int8: bool = False,
        first: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.classifier, self.backbone, self.dtype, self.int8 = classifier, classifier.backbone, dtype, int8
        self.first = first
        self.pools = _pools(classifier, depth)
        self.out_dtype = torch.float32 if self.pools else dtype
        blocks = self.backbone.blocks[first:depth]
        form = FusedBlock if all(can_fuse(block, dtype) for block in blocks) else _in_dtype
        self.blocks = _int8_blocks(blocks, dtype) if int8 else nn.ModuleList(form(b, dtype) for b in blocks)
        self.eval()

    @torch.no_grad()
    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:  # (B, T), (B,) -> (B, T, C) or (B, 1, C)
        x = (self.backbone.embed(inputs) if self.first is None else inputs).to(self.dtype)
        seen = self.classifier.seen(lengths, inputs.shape[1])
        for block in self.blocks:
            x = block(x, seen)
        if self.pools:
            return self.classifier.pool(self.backbone.norm(x.float()), lengths)[:, None]
        return x


def _pools(classifier: Classifier, depth: int) -> bool:
    """Whether what is frozen includes the pooling: above all blocks, with nothing to train in it, and of one
    vector a text."""
    pool = classifier.pool
    several = isinstance(pool, LabelNodes) and pool.n_nodes > 1
    return depth == len(classifier.backbone.blocks) and not list(pool.parameters()) and not several


def _in_dtype(block: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The block itself where all its weights are in ``dtype``, else a copy in it."""
    same = all(parameter.dtype == dtype for parameter in block.parameters())
    return block if same else deepcopy(block).to(dtype)


def _int8_blocks(blocks: Iterable[nn.Module], dtype: torch.dtype) -> nn.ModuleList:
    """Copies of ``blocks`` whose linear layers hold int8 weights and round their input to int8 as they go;
    all else computes in ``dtype``. Through torchao: InputError where it is not installed."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it warns of GPU kernels that a CPU has no use for
    with needed("int8", "--precision int8"):
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    copies = nn.ModuleList(deepcopy(block).to(dtype) for block in blocks)
    quantize_(copies, Int8DynamicActivationInt8WeightConfig())
    return copies


class Trained(nn.Module):
    """What is left above a :class:`Frozen` of the same ``depth``: its output (B, T, C) -> logits (B, K), in
    fp32 with the classifier's own parameters: training it trains the classifier."""

    def __init__(self, classifier: Classifier, depth: int) -> None:
        super().__init__()
        self.classifier, self.depth, self.n_outputs = classifier, depth, classifier.n_outputs

    @property
    def minds_padding(self) -> bool:
        """Whether a batch without padding is the faster one: not where a single block is left, which is
        computed at one position of each row."""
        model, one = self.classifier, torch.ones(1, dtype=torch.int64)
        left = model.backbone.blocks[self.depth :]
        return len(left) != 1 or not is_cheap(left[0]) or model.pool.positions(one, 1) is None

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:  # (B, T, C), (B,) -> (B, K)
        model, x = self.classifier, hidden.float()
        blocks, norm, width = model.backbone.blocks[self.depth :], model.backbone.norm, hidden.shape[1]
        if not blocks:
            return model.head(x[:, 0] if _pools(model, self.depth) else model.pool(norm(x), lengths))
        seen = model.seen(lengths, width)
        for block in blocks[:-1]:
            x = block(x, seen)
        positions = model.pool.positions(lengths, width)
        if positions is None:
            return model.head(model.pool(norm(blocks[-1](x, seen)), lengths))
        x = norm(at(blocks[-1], x, positions, seen))[:, None]  # one position is left of each row
        return model.head(model.pool(x, torch.ones_like(lengths)))


class Autocast(nn.Module):
    """A network whose matrix products run in ``dtype``; its parameters stay in fp32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype
        self.n_outputs = getattr(network, "n_outputs", None)  # a language model has none

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, self.dtype):
            return self.network(inputs, lengths).float()  # the loss needs more than bf16


class Answering(nn.Module):
    """What is left above a :class:`Frozen` of the same ``depth``, ``dtype`` and ``int8``, for inference: what
    a classifier answers with and what its run is scored by. The last block too is in ``dtype`` where a mean
    or maximum reads all its positions, but not with ``int8``."""

    def __init__(
        self, model: Classifier, depth: int, dtype: torch.dtype = torch.float32, int8: bool = False
    ) -> None:
        super().__init__()
        n, one = len(model.backbone.blocks), torch.ones(1, dtype=torch.int64)
        several = _pools(model, n) and model.pool.positions(one, 1) is None
        top = max(depth, n if several and dtype != torch.float32 and not int8 else n - 1)
        self.between = Frozen(model, top, dtype, int8, depth) if top > depth else None
        self.trained, self.n_outputs = Trained(model, top), model.n_outputs

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:  # (B, T, C), (B,) -> (B, K)
        if self.between is not None:
            hidden = self.between(hidden, lengths)
        return self.trained(hidden, lengths)


class Staged(nn.Module):
    """Both stages for inference. Where the first one's output is kept, :attr:`above` goes on from it."""

    def __init__(
        self, model: Classifier, dtype: torch.dtype = torch.float32, int8: bool = False, depth: int = 0
    ) -> None:
        super().__init__()
        self.frozen, self.above = Frozen(model, depth, dtype, int8), Answering(model, depth, dtype, int8)
        self.n_outputs = model.n_outputs

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:  # (B, T), (B,) -> (B, K)
        return self.above(self.frozen(ids, lengths), lengths)
