"""--head lm in a run: the prompt that its options and rows make, and what is learnt behind it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel, Task
from gptcls.core.tokenizer import Tokenizer
from gptcls.data.split import Split
from gptcls.language.head import LabelClassifier, content_free, require_language_model
from gptcls.language.pattern import Pattern, read_pattern
from gptcls.language.prompt import Prompt, Prompted
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.train.config import TrainConfig
from gptcls.train.stand_in import StandIn
from gptcls.train.start import Start

FOR_SHOTS = 0.5  # share of the positions


@dataclass(frozen=True)
class LabelTokens(StandIn):
    """The loss of a language model on the tokens of the right label alone, over the whole vocabulary, where
    the task's is over the labels: ``-log p(label | text)``, mean over the batch.

    >>> task, likelihoods = LabelTokens(SingleLabel(("ham", "spam"))), torch.tensor([[0.01, 0.04]])
    >>> torch.allclose(task.loss(likelihoods.log(), torch.tensor([1])), -torch.tensor(0.04).log())
    True
    """

    task: SingleLabel

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of log-likelihoods (B, K) and targets (B,); classes have the task's weights."""
        weights = self.task.class_weights
        return F.nll_loss(logits, targets, None if weights is None else logits.new_tensor(weights))


def loss_of(config: TrainConfig, task: Task) -> Task | LabelTokens:
    """What a run of these options learns by: its task, or that with another loss (``--objective``)."""
    return LabelTokens(task) if config.language.objective == "tokens" else task


def make_prompt(
    config: TrainConfig, task: Task, split: Split, start: Start, pattern: Pattern | None = None
) -> Prompt:
    """The prompt of a run, by this ``pattern`` or its own, with shots of its training rows. InputError for a
    network that is no language model, a pattern that cannot be used or that leaves no room for a text."""
    options, name, sizes = config.language, config.model.model, start.backbone.config
    require_language_model(start.backbone, name)
    pattern = pattern or read_pattern(options.pattern, options.verbalizers)
    shots = list(_shots(split, task, options.shots, config.run.seed))
    positions = min(config.model.max_length or sizes.n_positions, sizes.n_positions)
    chat = options.chat == "auto" and isinstance(start.tokenizer, FileTokenizer) and start.tokenizer.chat
    make, longest = Prompt.of_chat if chat else Prompt.of, None
    if shots:
        bare = make(pattern, task.labels, start.tokenizer, [("", label) for _, label in shots])
        longest = math.floor((FOR_SHOTS * positions - len(bare.prefix)) / len(shots))
        if longest < 1:
            taken = f"{len(bare.prefix)} of {positions} tokens without their texts"
            raise InputError(f"--shots {options.shots} take {taken}; take fewer, or a shorter --pattern")
    prompt = make(pattern, task.labels, start.tokenizer, shots, longest)
    Prompted(start.tokenizer, prompt).require_room(positions)
    words = ", ".join(repr(words.strip()) for words in pattern.answers(task.labels)[:8])
    more = ", …" if task.n_outputs > 8 else ""
    by = ", in the words of its chat template" if chat else ""
    log.info(f"--head lm: {pattern.pattern!r} with {words}{more}{by}")
    return prompt


def divide_out(model: LabelClassifier, tokenizer: Tokenizer, max_length: int, device: torch.device) -> None:
    """Calibrate a head that is not trained by what it says of texts without content."""
    found = content_free(model, tokenizer, max_length, device)
    model.divide_out(found)
    said = ", ".join(f"{math.exp(x):.3f}" for x in found[:8]) + (", …" if len(found) > 8 else "")
    log.info(f"probabilities behind texts without content, divided out: {said}")


def _shots(split: Split, task: Task, n: int, seed: int) -> Iterator[tuple[str, str]]:
    """``n`` training rows drawn by the seed, of each class as many as of others or one more, shuffled."""
    if n > len(split.train):
        raise InputError(f"--shots {n}: there are {len(split.train)} training rows; take fewer")
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(split.train))
    labels = split.train["label"].to_numpy()[order]
    turns = np.zeros(len(order), dtype=int)
    for label in task.labels:
        own = labels == label
        turns[own] = np.arange(own.sum())
    chosen = order[np.argsort(turns, kind="stable")[:n]]
    for row in generator.permutation(chosen):
        yield split.train["text"].iloc[row], split.train["label"].iloc[row]
