"""The book's own package, ``llms_from_scratch``, as a contestant. Nothing of it is copied or patched.

Chapter 6: load GPT-2, train the last block, the final norm and a new 2-way head, look before, on the way and
after. It can be timed in full or on some of its steps.
"""

import json
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.measure import Stopwatch, quiet, scaled

if TYPE_CHECKING:
    import pandas as pd

CPU = torch.device("cpu")
WARM_UP = 2  # steps that are not counted
PARTS = ("train", "validation", "test")
LR, WEIGHT_DECAY = 5e-5, 0.1
EVAL_FREQ, EVAL_ITER, BEFORE_ITER = 50, 5, 10  # section 6.6 and 6.7 of the book


class Book:
    """Chapter 6 through the functions of ``llms_from_scratch``: every text padded to the longest of training.

    Args:
        weights: folder with ``model.safetensors`` and ``config.json`` in Hugging Face's names.
        frames: train, validation and test with the columns ``Text`` and ``Label`` (0 or 1).
        folder: where its CSV files go.
    """

    def __init__(
        self, weights: Path, frames: Sequence["pd.DataFrame"], folder: Path, batch_size: int = 8
    ) -> None:
        from llms_from_scratch import ch06

        from gptcls.core.tokenizer import gpt2_encoding

        self.ch06 = ch06
        self.tokenizer = gpt2_encoding()
        datasets, self.max_length = [], None
        for name, frame in zip(PARTS, frames, strict=True):
            frame.to_csv(folder / f"{name}.csv", index=None)
            dataset = ch06.SpamDataset(folder / f"{name}.csv", self.tokenizer, self.max_length)
            self.max_length = dataset.max_length
            datasets.append(dataset)
        torch.manual_seed(123)
        self.loaders = [
            DataLoader(dataset, batch_size, shuffle=name == "train", drop_last=name == "train")
            for name, dataset in zip(PARTS, datasets, strict=True)
        ]
        self.model = book_model(weights)

    def seconds(self, epochs: int, steps: int, eval_batches: int, full: bool = False) -> float:
        """From the loaded model to the trained one with every evaluation: scaled from a part, or measured."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
        return self._all(optimizer, epochs) if full else self._scaled(optimizer, epochs, steps, eval_batches)

    def _all(self, optimizer: torch.optim.Optimizer, epochs: int) -> float:
        with Stopwatch() as watch, quiet():
            for loader in self.loaders:
                self.ch06.calc_accuracy_loader(loader, self.model, CPU, num_batches=BEFORE_ITER)
            with torch.no_grad():
                for loader in self.loaders:
                    self.ch06.calc_loss_loader(loader, self.model, CPU, num_batches=EVAL_ITER)
            settings = {"num_epochs": epochs, "eval_freq": EVAL_FREQ, "eval_iter": EVAL_ITER}
            train, validation, _ = self.loaders
            self.ch06.train_classifier_simple(self.model, train, validation, optimizer, CPU, **settings)
            for loader in self.loaders:
                self.ch06.calc_accuracy_loader(loader, self.model, CPU)
        return watch.seconds

    def _scaled(self, optimizer: torch.optim.Optimizer, epochs: int, steps: int, eval_batches: int) -> float:
        train, validation = self.loaders[0], Clocked(self.loaders[1], 1)
        clocked = Clocked(train, WARM_UP + steps)
        settings = {"num_epochs": 1, "eval_freq": 10**9, "eval_iter": 1}
        with quiet():
            self.ch06.train_classifier_simple(self.model, clocked, validation, optimizer, CPU, **settings)
        marks = clocked.passes[0]
        # Step 0 holds an evaluation, whatever eval_freq says; as a warm-up it is not counted.
        of_steps = [end - start for start, end in pairwise(marks)][WARM_UP:]
        some = Clocked(train, eval_batches)
        with Stopwatch() as accuracy:
            self.ch06.calc_accuracy_loader(some, self.model, CPU)
        with Stopwatch() as loss, torch.no_grad():
            self.ch06.calc_loss_loader(some, self.model, CPU)
        n_losses, n_accuracies = book_evaluations([len(loader) for loader in self.loaders], epochs)
        return (
            scaled(of_steps, epochs * len(train))
            + scaled([loss.seconds / eval_batches], n_losses)
            + scaled([accuracy.seconds / eval_batches], n_accuracies)
        )

    def review(self, text: str) -> str:
        """The book's ``classify_review``."""
        return self.ch06.classify_review(text, self.model, self.tokenizer, CPU, self.max_length)


def book_evaluations(n_batches: Sequence[int], epochs: int) -> tuple[int, int]:
    """Batches that the book's loss and accuracy functions see in one run, for loaders of these lengths.

    >>> book_evaluations([130, 19, 38], epochs=5)  # 15 before + 13 times 10; 30 before + 5 times 10 + 187
    (145, 267)
    """
    train, validation, _ = n_batches
    on_the_way = min(EVAL_ITER, train) + min(EVAL_ITER, validation)
    curve_points = -(-epochs * train // EVAL_FREQ)
    losses = sum(min(EVAL_ITER, n) for n in n_batches) + curve_points * on_the_way
    accuracies = sum(min(BEFORE_ITER, n) for n in n_batches) + epochs * on_the_way + sum(n_batches)
    return losses, accuracies


class Clocked:
    """The first ``count`` batches of a loader, begun anew where it is shorter, and when each was taken.

    ``passes`` holds, for every iteration over it, the time of each batch and of the end.
    """

    def __init__(self, loader: DataLoader, count: int) -> None:
        self.loader, self.count = loader, count
        self.passes: list[list[float]] = []

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        marks: list[float] = []
        self.passes.append(marks)
        for batch in islice(chain.from_iterable(repeat(self.loader)), self.count):
            marks.append(time.perf_counter())
            yield batch
        marks.append(time.perf_counter())


def book_sizes(weights: Path) -> dict[str, Any]:
    """The book's configuration for the network in a folder."""
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    names = {
        "vocab_size": "vocab_size", "context_length": "n_positions", "emb_dim": "n_embd",
        "n_heads": "n_head", "n_layers": "n_layer",
    }  # fmt: skip
    return {book: config[hf] for book, hf in names.items()} | {"drop_rate": 0.0, "qkv_bias": True}


def book_model(weights: Path) -> nn.Module:
    """The book's GPTModel with pretrained weights, a new head, and all but the last block frozen (6.5)."""
    from llms_from_scratch.ch04 import GPTModel
    from llms_from_scratch.ch05 import load_weights_into_gpt

    sizes = book_sizes(weights)
    model = GPTModel(sizes)
    load_weights_into_gpt(model, openai_params(weights, sizes["n_layers"]))
    for parameter in model.parameters():
        parameter.requires_grad = False
    torch.manual_seed(123)
    model.out_head = nn.Linear(sizes["emb_dim"], 2)
    for parameter in chain(model.trf_blocks[-1].parameters(), model.final_norm.parameters()):
        parameter.requires_grad = True
    return model.eval()


def openai_params(weights: Path, n_layer: int) -> dict[str, Any]:
    """Hugging Face's file as the nested arrays that the book's chapter 5 reads from OpenAI's checkpoints."""
    state = {
        name.removeprefix("transformer."): value.numpy()
        for name, value in load_file(weights / "model.safetensors").items()
    }

    def module(name: str, weight: str) -> dict[str, Any]:
        return {weight: state[f"{name}.weight"], "b": state[f"{name}.bias"]}

    blocks = [
        {
            "attn": {part: module(f"h.{n}.attn.{part}", "w") for part in ("c_attn", "c_proj")},
            "mlp": {part: module(f"h.{n}.mlp.{part}", "w") for part in ("c_fc", "c_proj")},
            **{norm: module(f"h.{n}.{norm}", "g") for norm in ("ln_1", "ln_2")},
        }
        for n in range(n_layer)
    ]
    return {"wte": state["wte.weight"], "wpe": state["wpe.weight"], "blocks": blocks, **module("ln_f", "g")}
