"""Section 6.8 of the book: one text through a bare network whose class 1 is spam."""

from typing import Any

import tiktoken
import torch
from torch import nn

from gptcls.core.batches import pad
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import MAX_CHARS


@torch.inference_mode()
def book_review(
    text: str, model: nn.Module, tokenizer: Any, device: Any, max_length: int | None, pad_id: int
) -> str:
    """``"spam"`` or ``"not spam"`` from our :class:`Classifier` or the book's GPTModel with a 2-way head."""
    if tokenizer is None:
        raise TypeError("a network needs its tokenizer: classify_review(text, model, tokenizer, device)")
    model.eval()
    ours = isinstance(model, Classifier)
    n_positions = model.backbone.config.n_positions if ours else model.pos_emb.weight.shape[0]
    # To a tiktoken encoding "<|endoftext|>" in a text is a mistake unless it is told otherwise.
    options = {"disallowed_special": ()} if isinstance(tokenizer, tiktoken.Encoding) else {}
    width = shorter(max_length, n_positions)
    row = tokenizer.encode(text[:MAX_CHARS], **options)[:width] or [pad_id]
    ids, lengths = (tensor.to(device) for tensor in pad([row], max_length and width, pad_id))
    logits = model(ids, lengths) if ours else model(ids)[:, -1]
    return "spam" if logits.argmax(dim=-1).item() == 1 else "not spam"


def shorter(max_length: int | None, limit: int) -> int:
    """The length to cut to: ``max_length`` where it is given and within the limit."""
    if max_length is not None and max_length < 1:
        raise InputError(f"max_length {max_length} leaves nothing to read; use 1 or more, or None")
    return min(max_length or limit, limit)
