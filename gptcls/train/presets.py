"""--preset: what is trained, what the head reads, and for how long, by the network's width and the rows; best
also mixes the answers with those of the n-gram baseline.

For narrow networks chosen with gpt2-nano, 400 rows of each of five data sets and one seed, on validation rows
(``python -m benchmarks.presets``, table in benchmarks/LOG.md): best was the best of a grid of 24, balanced is
among the best of those that train the last block alone, for two thirds as long. quick reads the last token,
so that the block computes one position of a text. Large pretrained weights could not be had where this was
built: wider networks get the book's settings, about as many passes as the book has over its 1,045 rows.
"""

import math
from typing import Any, Literal

Preset = Literal["quick", "balanced", "best"]
NARROW = 512  # channels; below, a network takes larger steps
NARROW_RATE, WIDE_RATE = 5e-4, 5e-5
MOST = 20  # passes over the rows


def preset_settings(preset: Preset, width: int | None, rows: int, decoder: bool = True) -> dict[str, Any]:
    """Options of a run on that many training rows; ``width`` is the network's C, None if nothing says it.

    >>> preset_settings("balanced", 256, rows=364)
    {'train': 'last_block', 'pooling': 'max', 'lr': 0.0005, 'batch_size': 16, 'epochs': 13}
    """
    if width is None or width >= NARROW:
        per_root, fewest = {"quick": (80, 2), "balanced": (160, 3), "best": (320, 5)}[preset]
        trained = "last_2" if preset == "best" else "last_block"
        chosen = {"train": trained, "pooling": "auto", "lr": WIDE_RATE, "batch_size": 8}
    else:
        per_root, fewest = {"quick": (130, 2), "balanced": (250, 4), "best": (380, 8)}[preset]
        trained = "blocks" if preset == "best" else "last_block"
        # The first token of an encoder learnt to speak for all.
        pooling = "max" if decoder and preset != "quick" else "auto"
        chosen = {"train": trained, "pooling": pooling, "lr": NARROW_RATE, "batch_size": 16}
    chosen["epochs"] = min(MOST, max(fewest, round(per_root / math.sqrt(rows))))
    return chosen | ({"stack": "ngrams"} if preset == "best" else {})
