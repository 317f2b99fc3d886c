"""Text generation: one token after the other from the language-model head."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gptcls.core.errors import InputError


@torch.inference_mode()
def generate(
    model: nn.Module, ids: Tensor, max_new_tokens: int, temperature: float = 0.0, top_k: int | None = None,
    generator: torch.Generator | None = None, eos_id: int | Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """``ids`` (B, T), of which the model sees the last ``n_positions``, and n new ones: (B, T + n).

    Args:
        temperature: 0 takes the likeliest token (greedy); higher is more random.
        top_k: sample among the ``top_k`` likeliest tokens only (Fan et al. 2018).
        generator: source of the random numbers, on the device of ``ids``.
        eos_id: end when every row has produced one of these; one that ended earlier repeats the first one.
    """
    if not 0 <= temperature < math.inf or max_new_tokens < 0 or (top_k is not None and top_k < 1):
        given = f"temperature {temperature}, max_new_tokens {max_new_tokens} and top_k {top_k}"
        raise InputError(f"{given}: the first two must be numbers of at least 0, the last at least 1")
    if ids.shape[1] == 0:
        raise InputError("the prompt has no tokens: give at least one")
    ends = torch.tensor([] if eos_id is None else eos_id, dtype=ids.dtype, device=ids.device).view(-1)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)  # (B,)
    for _ in range(max_new_tokens):
        hidden = model(ids[:, -model.config.n_positions :])  # (B, T, C)
        logits = model.lm_logits(hidden[:, -1:])[:, 0]  # (B, V): only the last position predicts anything new
        token = _choose(logits, temperature, top_k, generator)  # (B,)
        if len(ends):
            token = torch.where(ended, ends[0], token)
            ended |= torch.isin(token, ends)
        ids = torch.cat([ids, token[:, None]], dim=1)
        if ended.all():
            break
    return ids


def _choose(logits: Tensor, temperature: float, top_k: int | None, rng: torch.Generator | None) -> Tensor:
    """One token per row: (B, V) -> (B,)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    # The largest logit becomes 0 and a temperature never does in the logits' dtype: quotients are never NaN.
    logits = logits - logits.amax(dim=-1, keepdim=True)
    scaled = logits / max(temperature, torch.finfo(logits.dtype).tiny)
    return torch.multinomial(scaled.softmax(dim=-1), 1, generator=rng)[:, 0]
