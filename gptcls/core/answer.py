"""Answers for many texts: logits in batches of similar length, in the order the texts came."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from gptcls.core.batches import token_budget_batches

# Positions per batch. On a CPU larger batches are slower: the matrices already fill the cores, and the
# activations leave the cache. A GPU wants all the work it can get.
TOKEN_BUDGETS = {"cpu": 1024}
LARGE_BUDGET = 16_384


def token_budget(device: torch.device) -> int:
    """Positions that a batch without gradients should hold on a device."""
    return TOKEN_BUDGETS.get(device.type, LARGE_BUDGET)


@torch.inference_mode()
def dataset_logits(model: nn.Module, dataset: Dataset, device: torch.device) -> Tensor:
    """Logits (N, K), on the CPU in fp32, of the N texts of a dataset in their order.

    Inside, the rows run sorted by length in batches of about :func:`token_budget` positions; which rows
    share a batch changes no result, up to rounding. A text of several rows has the mean of their logits. The
    dataset is like :class:`gptcls.core.batches.TextDataset`; the model has ``n_outputs`` (K), and is left in
    eval mode.
    """
    if model.training:  # asking each of its layers takes longer than a short text
        model.eval()
    if not len(dataset):
        return torch.zeros(0, model.n_outputs)
    batches, logits = token_budget_batches(dataset.widths, token_budget(device)), []
    for rows in batches:
        inputs, lengths, _ = dataset.collate([dataset[row] for row in rows])
        logits.append(model(inputs.to(device), lengths.to(device)).float().cpu())
    order = torch.tensor([row for rows in batches for row in rows])
    joined = torch.cat(logits)
    ordered = torch.empty_like(joined).index_copy_(0, order, joined)
    return ordered if len(dataset) == len(dataset.targets) else mean_of_each(ordered, dataset.owners)


def mean_of_each(logits: Tensor, owners: Sequence[int]) -> Tensor:
    """Logits (R, K) of rows -> (N, K), the mean over the rows of each text; ``owners`` (R,) says whose."""
    texts = torch.tensor(owners)
    n_rows = texts.bincount()
    return logits.new_zeros(len(n_rows), logits.shape[1]).index_add_(0, texts, logits) / n_rows[:, None]
