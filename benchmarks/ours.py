"""gptcls as a contestant: the parts of ``gptcls.train`` with a clock between them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import Stopwatch
from gptcls.common.hardware import pick_dtype
from gptcls.core.answer import dataset_logits
from gptcls.core.loop import Curves, Trainer, evaluate_loader
from gptcls.data.split import PARTS, Split
from gptcls.train.config import TrainConfig
from gptcls.train.hooks import BestWeights
from gptcls.train.resolve import resolve
from gptcls.train.setup import make_loaders, prepare, stage

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Result:
    """What one fine-tuning run took and gave."""

    seconds: float  # model and token ids in memory -> trained, every evaluation included
    frozen_seconds: float  # of these, the frozen blocks over every distinct text
    tokens: int  # real tokens of the distinct texts
    frozen_flops: float  # of the matrix products with weights in the frozen blocks
    predictions: dict[str, Tensor]  # part -> classes (N,)
    accuracy: dict[str, float]  # part -> share of correct predictions


def config_for(
    weights: Path, epochs: int, batch_size: int, precision: str, cache_budget: float = 2.0
) -> TrainConfig:
    """The default recipe over a folder of weights: the last block and, as in the book, the last token."""
    config = TrainConfig.of(
        model=str(weights),
        train="last_block",
        pooling="last",
        lr=5e-5,
        epochs=epochs,
        batch_size=batch_size,
        precision=precision,
        cache_budget=cache_budget,
        device="cpu",
    )
    return resolve(config)


def finetune(config: TrainConfig, split: Split) -> Result:
    """Train as ``gptcls.train`` does, with the book's look before training added."""
    setup = prepare(split, config)
    config = setup.config
    model, task, datasets = setup.saved.model, setup.saved.task, setup.datasets
    distinct = {tuple(row) for dataset in datasets.values() for row in dataset.rows}
    tokens = sum(map(len, distinct))
    options = config.fit
    with Stopwatch() as watch:
        with Stopwatch() as frozen:
            network, features = stage(model, datasets, config, CPU)
        loaders = make_loaders(features, config)
        for part in PARTS:
            evaluate_loader(network, task, loaders[part], CPU, 10)
            evaluate_loader(network, task, loaders[part], CPU, 5)
        curves = Curves(loaders["validation"], options.eval_freq, options.eval_iter, full=True)
        hooks = [curves, BestWeights(options.patience)]
        Trainer(network, task, loaders["train"], options.settings, CPU, hooks).fit()
        logits = {part: dataset_logits(network, dataset, CPU) for part, dataset in features.items()}
        accuracy = {part: task.measure(logits[part], features[part].targets) for part in PARTS}
    n_frozen = model.frozen_blocks
    return Result(
        watch.seconds,
        frozen.seconds,
        tokens,
        block_flops(model.backbone.config.n_embd) * n_frozen * tokens,
        {part: values.argmax(dim=-1) for part, values in logits.items()},
        accuracy,
    )


def block_flops(n_embd: int) -> int:
    """Floating-point operations of one block's weights for one token.

    12 C² weights, a multiplication and an addition each. The attention scores, below one percent for texts
    of this length, are not counted, nor is padding.
    """
    return 2 * 12 * n_embd**2


def default_dtype() -> torch.dtype:
    """What ``--precision auto`` takes on this processor."""
    return pick_dtype("auto", CPU)


def dtype_name(dtype: torch.dtype) -> str:
    """``bf16`` or ``fp32``."""
    return {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
