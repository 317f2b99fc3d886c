"""A classifier as a folder that ``transformers`` reads, one of its classes ``…ForSequenceClassification``."""

from pathlib import Path

from gptcls.classify.store import SavedClassifier
from gptcls.core.errors import InputError


def to_transformers(classifier: SavedClassifier, folder: Path) -> None:
    """Write it to ``folder``; InputError for what no such class computes."""
    raise InputError(f"{classifier.model.pooling} cannot be written to {folder} yet")
