"""Logits for many texts: in batches of similar length, in the order they came."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gptcls.classifier import Classifier
from gptcls.data.batches import pad, token_budget_batches

# Positions a batch. On CPUs larger batches are not faster: the matrices already fill the cores, and the
# activations leave the cache.
TOKEN_BUDGET = 1024


@torch.inference_mode()
def rows_logits(
    model: Classifier, rows: Sequence[list[int]], device: torch.device, pad_to: int | None = None
) -> Tensor:
    """Logits (N, K), on the CPU in fp32, of N rows of token ids in the order given.

    Inside, the rows run sorted by length in batches of about :data:`TOKEN_BUDGET` positions; which rows
    share a batch changes no result beyond rounding. The model is left in eval mode.
    """
    model.eval()
    logits = torch.empty(len(rows), model.head.out_features)
    for batch in token_budget_batches([max(len(row), pad_to or 0) for row in rows], TOKEN_BUDGET):
        ids, lengths = pad([rows[i] for i in batch], pad_to)
        logits[batch] = model(ids.to(device), lengths.to(device)).float().cpu()
    return logits
