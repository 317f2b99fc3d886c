"""python -m gptcls.pseudo_label: unlabelled texts, with the label that a classifier is sure of.

Self-training (Lee 2013, "Pseudo-Label"): a classifier labels texts that nobody has labelled, and a second
one trains on the labelled rows and on those that the first was sure of (``gptcls.train --extra``). It repeats
the mistakes that the first was sure of: keep the confidence high, and judge by rows that people labelled.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from tqdm import tqdm

from gptcls.classify.predict import ClassifierOptions
from gptcls.common import cli
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.columns import find_text_column, text_values, values_of
from gptcls.data.options import TableOptions
from gptcls.data.readers import read_chunks
from gptcls.data.writer import ChunkWriter

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("gptcls")


@own_first
@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig(TableOptions, ClassifierOptions):
    """Label the texts of a file, and keep those that the classifier is sure of.

    Then train on both: python -m gptcls.train --data labelled.csv --extra pseudo.csv
    """

    model: str  # again, to stand first in --help
    data: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File of texts (.csv, .tsv, .jsonl or .parquet); read piece by piece."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File for the rows taken, with the columns text, label and probability."""
    confidence: float = 0.95
    """Least probability of the label of a row taken, more than 0 and at most 1."""


def pseudo_label(config: PseudoLabelConfig) -> dict[str, int]:
    """Write the texts that the classifier is sure of, and return how many of each label there are.

    Memory holds a few thousand rows at a time; so a text that stands twice is written twice, and ``--extra``
    takes it once. Rows without text are left out. Raises InputError, leaving no file, for a confidence that
    is not a probability, for what cannot be read, and when no text was taken.
    """
    if not 0 < config.confidence <= 1:
        raise InputError(f"--confidence {config.confidence} is not a probability; use more than 0, at most 1")
    dialect, classifier = config.dialect, config.load()
    if not isinstance(classifier.saved.task, SingleLabel):
        raise InputError(
            f"--model {config.model} gives a text no single class to be sure of; take one of --task single"
        )
    taken: Counter[str] = Counter(dict.fromkeys(classifier.labels, 0))
    n = n_blank = n_longer = 0
    surest = 0.0
    with (
        ChunkWriter(config.out, source=config.data) as writer,
        tqdm(unit=" rows", delay=1, disable=None) as bar,
    ):
        for chunk in read_chunks(config.data, dialect=dialect):
            if n == 0:
                column = find_text_column(chunk.columns, config.text_column, chunk, config.data)
            values = text_values(values_of(chunk, column), chunk.index, column, config.data)
            texts = [text for text in values if text is not None]
            probabilities, longer = classifier.scored(texts)
            rows = _best(texts, probabilities, classifier.labels)
            sure = rows[rows["probability"] >= config.confidence]
            writer.write(sure)
            taken.update(sure["label"])
            surest = max(surest, *rows["probability"], 0.0)
            n += len(chunk)
            n_blank += len(values) - len(texts)
            n_longer += longer
            bar.update(len(chunk))
        if not taken.total():
            raise InputError(
                f"{config.data}: no text has a label of probability {config.confidence} or more, the surest "
                f"has {surest:.9g}; lower --confidence"
            )
    if n_blank:
        log.info(f"{config.data}: {n_blank:,} rows have no text and are left out")
    classifier.log_truncated(n_longer)
    counts = ", ".join(f"{count:,} {label}" for label, count in taken.items())
    log.info(f"{taken.total():,} of {n:,} rows taken ({counts}): {config.out}")
    return dict(taken)


def _best(texts: list[str], probabilities: np.ndarray, labels: Sequence[str]) -> "pd.DataFrame":
    """Each text with the most probable label of its row (N, K), and that label's probability."""
    import pandas as pd

    names = [labels[i] for i in probabilities.argmax(axis=1)]
    # The first chunk's types are those of a Parquet file, and no row of it may be sure.
    columns = {"text": pd.array(texts, dtype="string"), "label": pd.array(names, dtype="string")}
    return pd.DataFrame(columns | {"probability": probabilities.max(axis=1)})


def main() -> None:
    """The command line."""
    cli.run(PseudoLabelConfig, pseudo_label)


if __name__ == "__main__":
    main()
