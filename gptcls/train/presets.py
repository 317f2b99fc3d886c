"""--preset: what is trained, what the head reads, and for how long, by the network's width and the rows; best
also mixes the answers with those of the n-gram baseline.

For narrow networks chosen with gpt2-nano on validation rows of six data sets (``python -m
benchmarks.presets``, table in benchmarks/LOG.md). Large pretrained weights could not be had where this was
built: wider networks get the book's settings, about as many passes as the book has over its 1,045 rows.
"""

import math
from typing import Any, Literal

Preset = Literal["quick", "balanced", "best"]
NARROW = 512  # channels; below, a network takes larger steps, and training all of its blocks costs little
NARROW_RATE, WIDE_RATE = 1e-3, 5e-5  # of the last block
# Passes over the rows: so many divided by the root of their number, but not fewer than the second figure.
PASSES: dict[Preset, tuple[float, int]] = {"quick": (100, 2), "balanced": (130, 4), "best": (380, 8)}
MOST = 20


def preset_settings(preset: Preset, width: int | None, rows: int, decoder: bool = True) -> dict[str, Any]:
    """Options of a run on that many training rows; ``width`` is the network's C, None if nothing says it.

    >>> preset_settings("balanced", 256, rows=364)
    {'batch_size': 16, 'epochs': 7, 'train': 'blocks', 'lr': 0.0005, 'pooling': 'max'}
    """
    narrow = width is not None and width < NARROW
    per_root, fewest = PASSES[preset]
    epochs = min(MOST, max(fewest, round(per_root / math.sqrt(rows))))
    steps = {"batch_size": 16 if narrow else 8, "epochs": epochs}
    steps |= {"stack": "ngrams"} if preset == "best" else {}
    if not narrow:
        trained = "last_2" if preset == "best" else "last_block"
        return steps | {"train": trained, "lr": WIDE_RATE, "pooling": "auto"}
    quick = preset == "quick"
    # Of an encoder the first token speaks for all, as it learnt to.
    pooling = "auto" if not decoder else "mean" if quick else "max"
    what = {"train": "last_block", "lr": NARROW_RATE} if quick else {"train": "blocks", "lr": NARROW_RATE / 2}
    return steps | what | {"pooling": pooling}
