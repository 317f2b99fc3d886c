"""python -m gptcls.pseudo_label: unlabelled texts, with the label that a classifier is sure of.

Self-training (Lee 2013, "Pseudo-Label"): a second classifier trains on the labelled rows and on those that
the first was sure of (``gptcls.train --extra``). It repeats the mistakes that the first was sure of: keep the
confidence high, and judge by rows that people labelled.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gptcls.classify.predict import ClassifierOptions
from gptcls.classify.run import answered_chunks
from gptcls.common import cli
from gptcls.common.files import require_writable
from gptcls.common.lazy import pd
from gptcls.common.lock import locked_output
from gptcls.common.log import log
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.fields import in_columns
from gptcls.data.options import TEXTS_HELP, TableOptions
from gptcls.data.writer import ChunkWriter


@own_first
@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig(TableOptions, ClassifierOptions):
    """Label the texts of a file, and keep those that the classifier is sure of.

    Then train on both: python -m gptcls.train --data labelled.csv --extra pseudo.csv
    """

    model: str  # again, to stand first in --help
    data: Annotated[Path, tyro.conf.arg(metavar="FILE", help=TEXTS_HELP)]
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File for the rows taken, with the columns text (of several texts also text_2, …), label and
    probability."""
    confidence: float = 0.95
    """Least probability of the label of a row taken, more than 0 and at most 1."""


def pseudo_label(config: PseudoLabelConfig) -> dict[str, int]:
    """Write the texts that the classifier is sure of, and return how many of each label there are. Memory
    holds a few thousand rows at a time: a text that stands twice is written twice; ``--extra`` then goes
    by ``--repeats``. InputError, leaving no file, for what cannot be read, and when no text was taken."""
    if not 0 < config.confidence <= 1:
        raise InputError(f"--confidence {config.confidence} is not a probability; use more than 0, at most 1")
    require_writable(config.out, "--out")
    classifier = config.load()
    if not isinstance(classifier.saved.task, SingleLabel):
        raise InputError(f"--model {config.model} gives no single class to be sure of; take a --task single")
    taken, n, surest = Counter(dict.fromkeys(classifier.labels, 0)), 0, 0.0
    writer = ChunkWriter(config.out, source=config.data)
    with locked_output(config.out), writer:
        for chunk, texts, outputs in answered_chunks(classifier, config.data, config):
            read = [text and classifier.saved.as_read(text) for text in texts]
            rows = in_columns(_best(read, outputs, classifier.labels), classifier.saved.fields)
            sure = rows[rows["probability"] >= config.confidence]
            writer.write(sure)
            taken.update(sure["label"])
            surest = max(surest, *rows["probability"], 0.0)
            n += len(chunk)
        if not taken.total():
            none = f"{config.data}: no text has a label of probability {config.confidence} or more"
            raise InputError(f"{none}, the surest has {surest:.9g}; lower --confidence")
    counts = ", ".join(f"{count:,} {label}" for label, count in taken.items())
    log.info(f"{taken.total():,} of {n:,} rows taken ({counts}): {config.out}")
    return dict(taken)


def _best(texts: list[str | None], outputs: np.ndarray, labels: tuple[str, ...]) -> "pd.DataFrame":
    """Each text that there is with the most probable label of its outputs (N, K), and its probability."""
    read = [i for i, text in enumerate(texts) if text is not None]
    names = [labels[i] for i in outputs[read].argmax(axis=1)]
    # The first chunk's types are those of a Parquet file, and no row of it may be sure.
    texts, names = (pd.array(values, dtype="string") for values in ([texts[i] for i in read], names))
    probability = outputs[read].max(axis=1).astype(np.float32)
    return pd.DataFrame({"text": texts, "label": names, "probability": probability})


def main() -> None:
    cli.run(PseudoLabelConfig, pseudo_label)


if __name__ == "__main__":
    main()
