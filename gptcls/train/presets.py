"""--preset: what is trained, what the head reads, and for how long, by the network's width and the rows.

For narrow networks chosen with gpt2-nano on validation rows of six data sets (``python -m
benchmarks.presets``, table in benchmarks/LOG.md). Large pretrained weights could not be had where this was
built: wider networks get the book's settings, about as many passes as the book has over its 1,045 rows.
"""

import math
from typing import Any, Literal

Preset = Literal["quick", "balanced", "best"]
NARROW = 512  # channels; below, a network takes larger steps, and training all of its blocks costs little
FEWEST, MOST = 2, 20  # passes over the training rows
NARROW_RATE, WIDE_RATE = 1e-3, 5e-5
POOLING = "max"  # of an encoder the first token speaks for all, as it learnt to
BLOCKS: dict[Preset, str] = {"quick": "last_block", "balanced": "blocks", "best": "blocks"}
# Passes, times the root of the number of rows: twice the rows are seen half again as often in all.
PASSES: dict[Preset, float] = {"quick": 100, "balanced": 200, "best": 400}


def preset_settings(preset: Preset, width: int | None, rows: int, decoder: bool = True) -> dict[str, Any]:
    """Options of a run on that many training rows; ``width`` is the network's C, None if nothing says it.

    >>> preset_settings("balanced", 768, rows=1045)
    {'train': 'last_block', 'pooling': 'auto', 'lr': 5e-05, 'batch_size': 8, 'epochs': 6}
    """
    narrow = width is not None and width < NARROW
    epochs = min(MOST, max(FEWEST, round(PASSES[preset] / math.sqrt(rows))))
    if not narrow:
        train = "last_2" if preset == "best" else "last_block"
        return {"train": train, "pooling": "auto", "lr": WIDE_RATE, "batch_size": 8, "epochs": epochs}
    return {
        "train": BLOCKS[preset],
        "pooling": POOLING if decoder else "auto",
        "lr": NARROW_RATE,
        "batch_size": 16,
        "epochs": epochs,
    }
