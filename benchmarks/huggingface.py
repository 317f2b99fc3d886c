"""``transformers``' GPT2ForSequenceClassification in the usual loop, as a contestant."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.measure import Stopwatch, scaled, spread

WARM_UP = 2  # steps that are not counted
PAD_ID = 50256
LR, WEIGHT_DECAY = 5e-5, 0.1
RANK = 16


class HuggingFace:
    """``GPT2ForSequenceClassification`` in a plain loop: random batches, padded to the longest of each.

    That is what Trainer with DataCollatorWithPadding does, without its bookkeeping. Validation after every
    epoch, all three parts at the end, in batches of ``eval_size``.
    """

    def __init__(
        self,
        weights: Path,
        parts: Sequence[tuple[list[list[int]], Tensor]] = (),
        batch_size: int = 8,
        eval_size: int = 32,
        train: str = "last_block",
    ) -> None:
        from transformers import GPT2ForSequenceClassification
        from transformers.utils import logging

        logging.set_verbosity_error()  # it would say that the head is new
        logging.disable_progress_bar()
        torch.manual_seed(123)
        self.model = GPT2ForSequenceClassification.from_pretrained(weights, num_labels=2, pad_token_id=PAD_ID)
        self.model.requires_grad_(train == "all")
        if train == "lora":
            self._adapt()
        elif train == "last_block":
            for module in (self.model.transformer.h[-1], self.model.transformer.ln_f, self.model.score):
                module.requires_grad_(True)
        self.optimizer = self._adamw()
        self.parts, self.batch_size, self.eval_size = parts, batch_size, eval_size

    def seconds(self, epochs: int, steps: int, eval_batches: int, full: bool = False) -> float:
        """From the loaded model to the trained one with every evaluation: scaled from a part, or measured."""
        self.optimizer = self._adamw()
        torch.manual_seed(123)
        if full:
            with Stopwatch() as watch:
                for _ in range(epochs):
                    for rows in self._shuffled():
                        self._step(rows)
                    for rows in self._ordered(1):
                        self._evaluate(1, rows)
                for part, rows in self._final():
                    self._evaluate(part, rows)
            return watch.seconds
        order = self._shuffled()
        chosen = [order[i] for i in spread([self._width(0, rows) for rows in order], steps)]
        for rows in order[:WARM_UP]:
            self._step(rows)
        of_steps = [self._clock(self._step, rows) for rows in chosen]
        evaluations = [(1, rows) for rows in self._ordered(1)] * epochs + self._final()
        picked = spread([self._width(*batch) for batch in evaluations], eval_batches)
        of_evaluations = [self._clock(self._evaluate, *evaluations[i]) for i in picked]
        return scaled(of_steps, epochs * len(order)) + scaled(of_evaluations, len(evaluations))

    def _adapt(self) -> None:
        """PEFT's LoRA on every linear layer of the blocks, as wide as ours is by default."""
        from peft import LoraConfig, get_peft_model

        every = ["c_attn", "c_proj", "c_fc"]
        sizes = {"r": RANK, "lora_alpha": RANK, "target_modules": every, "fan_in_fan_out": True}
        self.model = get_peft_model(self.model, LoraConfig(task_type="SEQ_CLS", **sizes))

    def _adamw(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        # fused: Trainer's default too, and the fastest.
        return torch.optim.AdamW(trained, lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    def step_seconds(self, steps: int, clock: Callable[[], float], widest: bool = False) -> float:
        """Mean seconds of ``steps`` training steps on batches as wide as those of an epoch are; with
        ``widest`` the epoch's widest is one more that does not count."""
        order = self._shuffled()[:-1]  # the last one may be incomplete
        widths = [self._width(0, rows) for rows in order]
        if widest:
            self._step(order[widths.index(max(widths))])
        start = clock()
        for i in spread(widths, steps):
            self._step(order[i])
        return (clock() - start) / min(steps, len(order))

    def _final(self) -> list[tuple[int, list[int]]]:
        return [(part, rows) for part in range(3) for rows in self._ordered(part)]

    def _shuffled(self) -> list[list[int]]:
        order = torch.randperm(len(self.parts[0][0]))
        return [rows.tolist() for rows in order.split(self.batch_size)]

    def _ordered(self, part: int) -> list[list[int]]:
        return [rows.tolist() for rows in torch.arange(len(self.parts[part][0])).split(self.eval_size)]

    def _width(self, part: int, rows: list[int]) -> int:
        return max(len(self.parts[part][0][row]) for row in rows)

    @staticmethod
    def _clock(function: Callable, *arguments: Any) -> float:
        with Stopwatch() as watch:
            function(*arguments)
        return watch.seconds

    def _batch(self, part: int, rows: list[int]) -> dict[str, Tensor]:
        ids, targets = self.parts[part]
        return collate([ids[row] for row in rows]) | {"labels": targets[rows]}

    def _step(self, rows: list[int]) -> None:
        self.model.train()
        self.optimizer.zero_grad()
        self.model(**self._batch(0, rows)).loss.backward()
        self.optimizer.step()

    def _evaluate(self, part: int, rows: list[int]) -> int:
        self.model.eval()
        batch = self._batch(part, rows)
        with torch.inference_mode():
            logits = self.model(**batch).logits
        return int((logits.argmax(dim=-1) == batch["labels"]).sum())

    @torch.inference_mode()
    def logits(self, ids: Tensor, lengths: Tensor) -> Tensor:  # (B, T), (B,) -> (B, 2)
        """Of one padded batch of token ids."""
        self.model.eval()
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return self.model(input_ids=ids, attention_mask=mask).logits


def collate(rows: Sequence[list[int]]) -> dict[str, Tensor]:
    """Rows of ids as ``input_ids`` (B, T), T the longest, and ``attention_mask`` (B, T)."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD_ID)
    lengths = torch.tensor([len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}
