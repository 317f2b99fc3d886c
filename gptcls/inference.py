"""Logits for many rows: in batches of similar length, in the order they came."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gptcls.data.batches import token_budget_batches

# Positions a batch. On a CPU larger batches are slower: the matrices already fill the cores, and the
# activations leave the cache. A GPU wants all the work it can get.
TOKEN_BUDGETS = {"cpu": 1024}
LARGE_BUDGET = 16_384


def token_budget(device: torch.device) -> int:
    """Positions that a batch without gradients should hold on a device."""
    return TOKEN_BUDGETS.get(device.type, LARGE_BUDGET)


@torch.inference_mode()
def dataset_logits(model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
    """Logits (N, K), on the CPU in fp32, of the N rows of a dataset in their order.

    Inside, the rows run sorted by length in batches of about :func:`token_budget` positions; which rows
    share a batch changes no result beyond rounding. The model is left in eval mode. The dataset has
    ``widths`` and ``collate``, as a :class:`gptcls.data.batches.TextDataset`.
    """
    model.eval()
    batches = token_budget_batches(dataset.widths, token_budget(device))
    logits = []
    for rows in batches:
        inputs, lengths, _ = dataset.collate([dataset[row] for row in rows])
        logits.append(model(inputs.to(device), lengths.to(device)).float().cpu())
    order = torch.tensor([row for rows in batches for row in rows])
    joined = torch.cat(logits)
    return torch.empty_like(joined).index_copy_(0, order, joined)
