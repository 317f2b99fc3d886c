"""Using a trained classifier: ``load_classifier`` and the book's ``classify_review``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import torch
from torch import Tensor, nn

from gptcls.classify.attribution import STEPS, By, explanations
from gptcls.classify.explanation import Explanation
from gptcls.classify.store import SavedClassifier, find_classifier, read_classifier
from gptcls.classify.words import Words, holds_words
from gptcls.classify.words_store import read_words
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.log import log
from gptcls.common.options import HardwareOptions
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, pad
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tokenizer import MAX_CHARS, PAD_ID
from gptcls.core.weights import State
from gptcls.data.clean import CLEANERS
from gptcls.data.columns import is_blank
from gptcls.data.in_memory import texts_of
from gptcls.data.long_texts import cut_of, describe_cut
from gptcls.evaluation.decision import UNSURE, Decision, abstaining
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Staged
from gptcls.language.prompt import Prompted
from gptcls.models.lora import merge

DEFAULT_CLASSIFIER = "sms-spam-nano"  # in this package: trained on UCI's SMS messages
# To one text, by the classifier's task; "unsure" where it abstains, None for a blank text.
Answer = str | list[str] | float | list[float] | None


class TextClassifier:
    """A trained classifier in memory. One text gives one answer; a list, Series, array or DataFrame of texts
    gives a list; one that reads several texts together takes a list of tuples or a DataFrame. A blank text
    (nothing but white space, or missing) has the answer None.

    >>> classifier = load_classifier()
    >>> classifier.predict(["You have won a prize, text WIN to 80000", "see you at lunch"])
    ['spam', 'ham']
    """

    def __init__(
        self, saved: SavedClassifier, device: torch.device, precision: str = "auto",
        cache: FeatureCache | None = None,
    ) -> None:  # fmt: skip
        """``saved`` stays as it is: the model here is a copy, adapters merged, other tensors shared. What the
        frozen blocks say of a text is taken from ``cache`` where it has it."""
        models = networks_of(saved, device)
        self.saved, self.device, self.cache = replace(saved, model=models[0]), device, cache
        depth = 0 if cache is None else models[0].frozen_blocks
        how = _dtype(precision, device), precision == "int8", depth
        self.models = [Staged(each, *how) for each in models]

    def deciding(self, decision: Decision) -> "TextClassifier":
        """The same classifier, its tensors shared, with other answers to the same probabilities."""
        other = copy(self)
        other.saved = replace(self.saved, decision=decision)
        return other

    @property
    def model(self) -> nn.Module:
        """The network; of an ensemble the first."""
        return self.models[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The K names of the outputs, in their order: classes, labels, or numbers."""
        return self.saved.task.labels

    def predict(
        self, texts: Any, max_length: int | None = None, text_column: str | Sequence[str] | None = None
    ) -> Answer | list[Answer]:
        """The answer to a text, or the list of answers: a class, a list of labels, a number or several each.
        A classifier that abstains answers ``"unsure"`` where its confidence is too low.

        ``texts`` are what :func:`gptcls.data.in_memory.texts_of` takes, which also says how a DataFrame's
        ``text_column`` is found; TypeError for all else. ``max_length`` cuts texts shorter than the
        classifier does.
        """
        answers = self.answers(np.atleast_2d(self.outputs(texts, max_length, text_column)))
        return answers[0] if isinstance(texts, str) else answers

    def answers(self, outputs: np.ndarray) -> list[Answer]:
        """The answers that outputs (N, K) stand for, None for those of a blank text."""
        read = ~np.isnan(outputs).any(axis=1)
        decoded = iter(self.saved.decision.answers(self.saved.task, outputs[read]))
        return [next(decoded) if was_read else None for was_read in read]

    def predict_proba(
        self, texts: Any, max_length: int | None = None, text_column: str | Sequence[str] | None = None
    ) -> np.ndarray:
        """Probabilities: (K,) for a text, (N, K) for N texts, columns as in :attr:`labels`, NaN for a blank
        text. Those of classes sum to 1 per row; those of labels are on their own. Arguments are those of
        :meth:`predict`; InputError for a regression, which has none."""
        if not self.saved.task.has_probabilities:
            raise InputError("this classifier predicts numbers, which have no probabilities; use predict")
        return self.outputs(texts, max_length, text_column)

    def outputs(
        self, texts: Any, max_length: int | None = None, text_column: str | Sequence[str] | None = None
    ) -> np.ndarray:
        """Probabilities or a regression's numbers, (K,) or (N, K), NaN for a blank text; the log says how
        many texts were cut."""
        rows = texts_of(texts, text_column, self.saved.text_columns, self.saved.fields)
        outputs = self.outputs_of(rows, max_length)
        return outputs[0] if isinstance(texts, str) else outputs

    def outputs_of(self, rows: list[str | None], max_length: int | None = None) -> np.ndarray:
        """The same (N, K) of rows as this package has them: those of several texts with boundaries
        (:mod:`gptcls.data.fields`)."""
        outputs, n_longer = self.scored(rows, max_length)
        self.log_truncated(n_longer, max_length)
        return outputs

    def scored(
        self, texts: list[str | None], max_length: int | None = None, vectors: bool = False
    ) -> tuple[np.ndarray, int]:
        """:meth:`outputs_of`, and the number of texts cut, for :meth:`log_truncated` at a file's end. With
        ``vectors`` the outputs are (N, K + C): behind them is what the head, of an ensemble the first, reads
        of each text, of windows the mean."""
        read, cleaned, dataset = self._dataset(texts, max_length)
        n_outputs = len(self.labels)
        with vectors_shown(self.saved.model.head, training=False) if vectors else nullcontext():
            logits = list(self._logits(dataset))
        logits[0], seen = logits[0][:, :n_outputs], logits[0][:, n_outputs:]
        found = self.saved.outputs(torch.stack(logits) if self.saved.members else logits[0], cleaned)
        outputs = np.full((len(texts), n_outputs + seen.shape[1]), np.nan, dtype=np.float32)
        outputs[read] = np.concatenate([found, seen], axis=1)
        return outputs, dataset.truncated

    def _dataset(
        self, texts: list[str | None], max_length: int | None = None
    ) -> tuple[list[int], list[str], TextDataset]:
        """Which texts are not blank, these as they are read, and their rows."""
        saved, width = self.saved, _shorter(max_length, self.saved.max_length)
        if isinstance(saved.tokenizer, Prompted):
            saved.tokenizer.require_room(width)
        read = [i for i, text in enumerate(texts) if not is_blank(text)]
        cleaned = [CLEANERS[saved.cleaning](saved.as_read(texts[i])) for i in read]
        targets, cut = torch.zeros(len(read)), cut_of(saved.long, saved.tokenizer)
        return read, cleaned, TextDataset(cleaned, targets, width, saved.pad_to, saved.tokenizer, cut)

    def _logits(self, dataset: TextDataset) -> Iterator[Tensor]:
        """Of each network (N, K)."""
        if self.cache is None or not len(dataset):
            yield from (dataset_logits(model, dataset, self.device) for model in self.models)
            return
        features = self.cache.datasets(self.models[0].frozen, {"texts": dataset}, self.device)["texts"]
        yield from (dataset_logits(model.above, features, self.device) for model in self.models)

    def explain(
        self, texts: Any, labels: str | Sequence[str] | None = None, by: By = "word",
        gradients: bool = False, steps: int = STEPS, text_column: str | Sequence[str] | None = None,
    ) -> Explanation | list[Explanation | None] | None:  # fmt: skip
        """Why: an :class:`gptcls.classify.explanation.Explanation` of a text, None of a blank one, or the
        list of them. What each word adds, or each token with ``by="token"``, by leaving it out: a text of T
        words costs T + 1 texts. ``labels`` are those to show, by default those of the answer.

        With ``gradients`` also integrated gradients, of ``steps`` points. Differences of answers are small:
        load the classifier with ``precision="fp32"`` for theirs to be exact.

        >>> why = load_classifier(precision="fp32").explain("my number is 09090812345")
        >>> why.answer, why.pieces[why.attributions[:, 1].argmax()], why.without[3]
        ('spam', ' 09090812345', 'ham')
        """
        rows = texts_of(texts, text_column, self.saved.text_columns, self.saved.fields)
        found = self.explained(rows, labels=labels, by=by, gradients=gradients, steps=steps)
        return found[0] if isinstance(texts, str) else found

    def explained(self, texts: Sequence[str | None], **options: Any) -> list[Explanation | None]:
        """:meth:`explain` of rows as :meth:`scored` takes them."""
        return list(explanations(self.saved, self.models, self.device, texts, **options))

    def log_truncated(self, n: int, max_length: int | None = None) -> None:
        """Log that ``n`` texts were longer than what is read, if any, and what became of them."""
        if n:
            log.info(describe_cut(n, _shorter(max_length, self.saved.max_length), self.saved.long))


class WordsClassifier(TextClassifier):
    """A :class:`TextClassifier` whose ``saved.model`` is :class:`Words`: no network, and no tokens to cut."""

    def __init__(self, saved: SavedClassifier) -> None:
        self.saved, self.device, self.models = saved, torch.device("cpu"), []

    def scored(self, texts: list[str | None], max_length: int | None = None) -> tuple[np.ndarray, int]:
        if max_length is not None:
            raise InputError(f"max_length {max_length} counts tokens, and n-grams have none; leave it out")
        read = [i for i, text in enumerate(texts) if not is_blank(text)]
        cleaned = [CLEANERS[self.saved.cleaning](self.saved.as_read(texts[i])) for i in read]
        outputs = np.full((len(texts), len(self.labels)), np.nan, dtype=np.float32)
        outputs[read] = self.saved.outputs(self.saved.model.logits(cleaned), cleaned)
        return outputs, 0

    def explained(self, texts: Sequence[str | None], **_: Any) -> list[Explanation | None]:
        raise InputError("a classifier of n-grams is not explained; explain the network that taught it")


@contextmanager
def vectors_shown(head: nn.Module, training: bool) -> Iterator[None]:
    """In training, or else in eval mode, what the head reads (B, C) stands behind its logits (B, K)."""

    def beside(head: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
        return torch.cat([logits, *inputs], dim=-1) if head.training == training else logits

    hook = head.register_forward_hook(beside)
    try:
        yield
    finally:
        hook.remove()


def ready(saved: SavedClassifier, device: torch.device, precision: str = "auto") -> TextClassifier:
    """The classifier for texts, of a network or of words."""
    if isinstance(saved.model, Words):
        return WordsClassifier(saved)
    return TextClassifier(saved, device, precision)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    """With ``"int8"`` the weights alone are integers; all else computes in the fastest format."""
    return pick_dtype("auto" if precision == "int8" else precision, device)


def networks_of(saved: SavedClassifier, device: torch.device) -> list[Classifier]:
    """Copies of its network, or of an ensemble's: adapters merged, tensors shared as far as they are the same
    and on that device."""
    first = _merged_copy(saved.model).to(device)
    return [first, *(_member(first, each) for each in saved.members)]


def _merged_copy(classifier: Classifier) -> Classifier:
    """A classifier with tensors shared, not copied, and adapters merged into weights of its own."""
    shared = {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in classifier.parameters()}
    shared |= {id(buffer): buffer for buffer in classifier.buffers()}
    copy = deepcopy(classifier, shared)  # the modules alone: tensors stand in the memo
    if merge(copy.backbone):  # freeze("all") would widen what is in bf16
        copy.policy, copy.learning = "all", [copy.backbone]
        copy.requires_grad_(True)
    return copy


def _member(classifier: Classifier, trained: State) -> Classifier:
    """Another network of an ensemble: the same frozen tensors, these trained ones."""
    copy = _merged_copy(classifier)
    for name, parameter in copy.named_parameters():
        if name in trained:
            parameter.data = trained[name].to(parameter.device)
    return copy


def load_classifier(
    folder: str | Path = DEFAULT_CLASSIFIER, device: str = "auto", precision: str = "auto",
    base: str | Path | None = None, allow_download: bool = False,
) -> TextClassifier:  # fmt: skip
    """The classifier that ``gptcls.train`` left in ``folder``, one on the hub (``"owner/name"``), or one of
    this package by name.

    See :func:`gptcls.classify.store.read_classifier` for ``base``, ``allow_download`` and errors,
    :mod:`gptcls.common.hardware` for ``device`` and ``precision``, the number format of the blocks, but for
    the last where the head reads one position of it; ``"int8"`` is 8-bit weights through torchao: for CPUs
    without bf16, where it saves about a quarter.
    """
    on = pick_device(device)
    if holds_words(found := find_classifier(folder)):
        return WordsClassifier(read_words(found))
    saved = read_classifier(folder, _dtype(precision, on), base, allow_download)
    saved.model.to(on)  # it is ours alone: nothing stays behind on the CPU
    return TextClassifier(saved, on, precision)


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(HardwareOptions):
    """The classifier that a verb uses."""

    model: str
    """Folder that gptcls.train left: a run, or the classifier inside it; the name of one on the Hugging Face
    hub (owner/name); or sms-spam-nano, which ships with this package."""
    base: str | None = None
    """Where the weights are that it was trained on, for a classifier stored without them; otherwise where
    they were then, or next to its folder."""
    allow_download: bool = False
    """Get them from the Hugging Face hub if the classifier says that they are there; presets always may, as
    may a classifier that --model names."""

    def load(self) -> TextClassifier:
        """:func:`load_classifier` with these options; in Python ``model`` may also be what it returns."""
        if isinstance(self.model, TextClassifier):
            return self.model
        return load_classifier(self.model, self.device, self.precision, self.base, self.allow_download)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(ClassifierOptions):
    """A classifier that may abstain."""

    abstain: float | None = None
    """Answer unsure below this confidence, the probability that the answer (of several labels, its least sure
    decision) is right; 0 always answers; otherwise as the classifier was trained to."""

    def load(self) -> TextClassifier:
        """As :meth:`ClassifierOptions.load`; InputError where there is nothing to be unsure about."""
        classifier = super().load()
        if self.abstain is None:
            return classifier
        saved = classifier.saved
        decision = abstaining(saved.decision, saved.task, self.abstain)
        return classifier.deciding(decision)


def classify_review(
    text: Any, model: str | Path | TextClassifier | nn.Module | None = None,
    tokenizer: Any = None, device: torch.device | str | None = None, max_length: int | None = None,
    pad_token_id: int = PAD_ID,
) -> Answer | list[Answer]:  # fmt: skip
    """``"spam"`` or ``"not spam"`` for a text, or a list of them for a list; without a class "spam" what
    :meth:`TextClassifier.predict` answers. None for a blank text, ``"unsure"`` where a classifier abstains.

    Args:
        model: a folder with a trained classifier (kept in memory between calls), a :class:`TextClassifier`
            (which stays on its device), or, as in the book (section 6.8), a network with a 2-way head.
        tokenizer, pad_token_id: what the book passes with such a network, anything with
            ``encode(text) -> ids``, and what to pad with. TypeError if given with a trained classifier.
        max_length: tokens to cut each text to; with a bare network also the length to pad to.
    """
    texts = texts_of(text)
    if isinstance(model, nn.Module):
        answers = [_review(t, model, tokenizer, device, max_length, pad_token_id) for t in texts]
    else:
        if tokenizer is not None or pad_token_id != PAD_ID:
            raise TypeError("a trained classifier has its own tokenizer and padding; leave them out")
        if not isinstance(model, TextClassifier):
            folder = find_classifier(model or DEFAULT_CLASSIFIER).resolve()
            model = _cached(folder, (folder / "classifier.json").stat().st_mtime_ns, str(device or "auto"))
        answers = model.predict(texts, max_length)
        if "spam" in model.labels and isinstance(model.saved.task, SingleLabel):
            kept = (None, "spam", UNSURE)
            answers = [answer if answer in kept else "not spam" for answer in answers]
    return answers[0] if isinstance(text, str) else answers


@torch.inference_mode()
def _review(
    text: str | None, model: nn.Module, tokenizer: Any, device: Any, length: int | None, pad_id: int
) -> str | None:
    """One text through our :class:`Classifier` or the book's GPTModel; class 1 of the head is spam."""
    if tokenizer is None:
        raise TypeError("a network needs its tokenizer: classify_review(text, model, tokenizer, device)")
    if is_blank(text):
        return None
    model.eval()
    ours = isinstance(model, Classifier)
    n_positions = model.backbone.config.n_positions if ours else model.pos_emb.weight.shape[0]
    # To a tiktoken encoding "<|endoftext|>" in a text is a mistake unless it is told otherwise.
    options = {"disallowed_special": ()} if isinstance(tokenizer, tiktoken.Encoding) else {}
    width = _shorter(length, n_positions)
    row = tokenizer.encode(text[:MAX_CHARS], **options)[:width] or [pad_id]
    ids, lengths = (tensor.to(device) for tensor in pad([row], length and width, pad_id))
    logits = model(ids, lengths) if ours else model(ids)[:, -1]
    return "spam" if logits.argmax(dim=-1).item() == 1 else "not spam"


def _shorter(max_length: int | None, limit: int) -> int:
    """The length to cut to: ``max_length`` where it is given and within the limit."""
    if max_length is not None and max_length < 1:
        raise InputError(f"max_length {max_length} leaves nothing to read; use 1 or more, or None")
    return min(max_length or limit, limit)


@lru_cache(maxsize=2)
def _cached(folder: Path, saved_at: int, device: str) -> TextClassifier:
    return load_classifier(folder, device)
