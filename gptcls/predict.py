"""Using a trained classifier: ``load_classifier`` and the book's ``classify_review``."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import nn

from gptcls.classifier import Classifier
from gptcls.data.batches import pad
from gptcls.device import pick_device
from gptcls.errors import InputError
from gptcls.inference import rows_logits
from gptcls.store import SavedClassifier, find_classifier, read_classifier
from gptcls.tokenizer import PAD_ID, encode_rows


class TextClassifier:
    """A trained classifier in memory. One text gives one answer, a list of texts a list.

    >>> classifier = load_classifier("runs/x")  # doctest: +SKIP
    >>> classifier.predict("You won a prize, text WIN to 80000")  # doctest: +SKIP
    'spam'
    """

    def __init__(self, saved: SavedClassifier, device: torch.device) -> None:
        self.saved = saved
        self.device = device
        self.model = saved.model.to(device)

    @property
    def labels(self) -> tuple[str, ...]:
        """The K class names, in the order of the probabilities' columns."""
        return self.saved.task.labels

    @overload
    def predict(self, texts: str) -> str: ...
    @overload
    def predict(self, texts: Iterable[str]) -> list[str]: ...
    def predict(self, texts):
        """The label of a text, or the list of labels of several, in their order.

        Raises TypeError, naming the row, for a value that is not text.
        """
        labels = self.saved.task.decode(torch.from_numpy(self.predict_proba(_as_list(texts))))
        return labels[0] if isinstance(texts, str) else labels

    def predict_proba(self, texts: str | Iterable[str]) -> np.ndarray:
        """Class probabilities: (K,) for a text, (N, K) for N texts; columns as in :attr:`labels`."""
        probabilities = self.saved.task.probabilities(self._logits(_as_list(texts))).numpy()
        return probabilities[0] if isinstance(texts, str) else probabilities

    def _logits(self, texts: list[str]) -> torch.Tensor:
        # A text without a token (an empty one) is read as a single end-of-text token.
        rows = [row or [PAD_ID] for row in encode_rows(texts, self.saved.max_length)]
        return rows_logits(self.model, rows, self.device, self.saved.pad_to)


def load_classifier(folder: str | Path, device: str = "auto") -> TextClassifier:
    """The classifier in ``folder``: what ``gptcls.train`` left there (a run or its ``classifier`` folder).

    Raises InputError when the folder holds none, is damaged, or needs base weights that are absent or differ.
    """
    return TextClassifier(read_classifier(folder), pick_device(device))


def classify_review(
    text: str | list[str],
    model: str | Path | TextClassifier | nn.Module | None = None,
    tokenizer: Any = None,
    device: torch.device | str | None = None,
    max_length: int | None = None,
    pad_token_id: int = PAD_ID,
) -> str | list[str]:
    """``"spam"`` or ``"not spam"`` for a text, or a list of them for a list.

    Args:
        text: one text or a list of texts.
        model: a folder with a trained classifier (kept in memory between calls), a loaded
            :class:`TextClassifier`, or, as in the book (chapter 6.8), a network with a 2-way head.
        tokenizer, device, max_length, pad_token_id: the book's arguments, used with such a network:
            anything with ``encode(text) -> ids``, where to run, the length to cut and pad to (None: neither,
            but for the network's own limit), and what to pad with.

    A classifier whose labels do not include "spam" answers with its own labels.
    """
    if isinstance(model, nn.Module):
        answers = [
            _book_review(t, model, tokenizer, device, max_length, pad_token_id) for t in _as_list(text)
        ]
    else:
        if model is None:
            raise InputError('name a trained classifier: classify_review(text, model="runs/…")')
        if not isinstance(model, TextClassifier):
            folder = find_classifier(model).resolve()
            model = _cached(folder, (folder / "classifier.json").stat().st_mtime_ns, str(device or "auto"))
        answers = model.predict(_as_list(text))
        if "spam" in model.labels:
            answers = ["spam" if answer == "spam" else "not spam" for answer in answers]
    return answers[0] if isinstance(text, str) else answers


@lru_cache(maxsize=2)
def _cached(folder: Path, saved_at: int, device: str) -> TextClassifier:
    return load_classifier(folder, device)


@torch.inference_mode()
def _book_review(
    text: str,
    model: nn.Module,
    tokenizer: Any,
    device: torch.device | str | None,
    max_length: int | None,
    pad_token_id: int,
) -> str:
    """Section 6.8 of the book: one text through a bare network, class 1 is spam."""
    if tokenizer is None:
        raise TypeError("a network needs its tokenizer: classify_review(text, model, tokenizer, device)")
    model.eval()
    if isinstance(model, Classifier):
        n_positions = model.backbone.config.n_positions
    else:
        n_positions = model.pos_emb.weight.shape[0]  # the book's GPTModel
    row = tokenizer.encode(text)[: min(max_length or n_positions, n_positions)] or [pad_token_id]
    ids, lengths = pad([row], max_length, pad_token_id)
    ids, lengths = ids.to(device), lengths.to(device)
    logits = model(ids, lengths) if isinstance(model, Classifier) else model(ids)[:, -1]
    return "spam" if logits.argmax(dim=-1).item() == 1 else "not spam"


def _as_list(texts: str | Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"expected a text or a list of texts, got {type(texts).__name__}")
    return list(texts)
