"""Rotary positions (Su et al. 2021): each pair of a head's channels is turned by an angle that grows with the
token's position, so that queries and keys meet by their distance alone."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

Angles = tuple[Tensor, Tensor]  # cosines and sines, (T, D) or what goes with (B, H, T, D)
ROPE_TYPES = ("linear", "llama3", "yarn")


@dataclass(frozen=True)
class Rotation:
    """How fast the pairs of D channels turn.

    Rotations may have been made slower by a ``factor``, for longer texts than the first training had: all of
    them (linear), or those that turn less often than ``low`` times in the old length, and partly those up to
    ``high`` times (llama3, yarn). ValueError for what is none of these.
    """

    head_dim: int  # D
    theta: float = 10_000.0  # the slowest pair turns about a radian in as many positions
    kind: str = "llama3"
    factor: float = 1.0  # 1 leaves all rotations as they are
    low: float = 1.0
    high: float = 4.0
    old_positions: int = 8192
    whole_pairs: bool = True  # yarn's ramp begins and ends at a pair, not between two
    scale: float = 1.0  # yarn makes queries and keys longer by this

    def __post_init__(self) -> None:
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd: rotary positions turn pairs")
        if self.kind not in ROPE_TYPES:
            raise ValueError(f"rotary positions: {self.kind!r} is none of {', '.join(ROPE_TYPES)}")
        if self.low >= self.high:
            below = f"low_freq_factor {self.low} is not below high_freq_factor {self.high}"
            raise ValueError(f"rotary positions: {below}")


def rotary_table(rotation: Rotation, n: int, device: torch.device) -> Angles:
    """Cosines and sines (n, D) of the angles by which positions 0 to n - 1 turn each pair of channels, d and
    d + D/2 (as Hugging Face stores the projections)."""
    fast = torch.arange(0, rotation.head_dim, 2, device=device).float() / rotation.head_dim
    turns = 1 / rotation.theta**fast  # (D / 2,) radians per position
    if rotation.factor != 1:
        kept = _kept_share(rotation, turns)
        turns = turns * (kept + (1 - kept) / rotation.factor)
    angles = torch.outer(torch.arange(n, device=device).float(), turns).repeat(1, 2)  # (n, D)
    return angles.cos() * rotation.scale, angles.sin() * rotation.scale


def _kept_share(rotation: Rotation, turns: Tensor) -> Tensor | float:  # (D / 2,) -> (D / 2,)
    """How far each rotation stays as it is, from 1 to 0: then it is slower by the factor."""
    low, high, old = rotation.low, rotation.high, rotation.old_positions
    if rotation.kind == "linear":  # Chen et al. 2023
        return 0.0
    if rotation.kind == "llama3":  # a ramp between the numbers of turns in the old length
        return ((old * turns / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
    # YaRN (Peng et al. 2023): a ramp between the pairs of channels that turn so often.
    per_pair = 2 * math.log(rotation.theta) / rotation.head_dim
    first, last = (math.log(old / (2 * math.pi * times)) / per_pair for times in (high, low))
    if rotation.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotation.head_dim - 1)
    pair = torch.arange(len(turns), device=turns.device)
    return ((last - pair) / max(last - first, 1e-3)).clamp(0, 1)


def angles_of(rotation: Rotation, x: Tensor, longest: int) -> Angles:
    """The table (T, D) for x (B, T, ...) of at most ``longest`` tokens, kept for the next call."""
    T = x.shape[1]
    if traced():
        return rotary_table(rotation, T, x.device)
    n = min(1 << (T - 1).bit_length(), longest)  # few tables serve all lengths
    cos, sin = kept_table(rotation, n, x.device)
    return cos[:T], sin[:T]


@lru_cache(maxsize=16)
def kept_table(rotation: Rotation, n: int, device: torch.device) -> Angles:
    """:func:`rotary_table`, remembered."""
    with torch.inference_mode(False):  # what is kept must also serve a training step
        return rotary_table(rotation, n, device)


def traced() -> bool:
    """Whether torch records a computation: asking a size would fix it, and no tensor has values to keep."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of channels of x (..., T, D); cos and sin (..., T, D) as from :func:`rotary_table`."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)
