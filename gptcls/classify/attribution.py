"""Why an answer was given: what each word or token of a text adds to it.

**Occlusion** (Zeiler and Fergus 2014; of words Li et al. 2016, "Understanding Neural Networks through
Representation Erasure") asks the classifier again without each piece. Left out is removed: the tokens behind
it move up by their positions, nothing stands in its place. A masked or padded position would be a text that
no network of this package has seen in training. It is exact, and of the whole answer: calibration, n-grams
and every network of an ensemble included. A text of T pieces costs T + 1 texts.

**Integrated gradients** (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks") is the second
opinion. Two words that say the same cover for each other when one is left out, and share the credit here. It
follows the network's score from a baseline, as many padding tokens, to the text, along the vectors that enter
the first block. What the tokens get adds up to the score minus the baseline's, but for the error of
the integral: ``Gradients.gap``.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gptcls.classify.explanation import Explanation, Gradients
from gptcls.classify.store import SavedClassifier
from gptcls.common.options import check_at_least
from gptcls.core.answer import dataset_logits, token_budget
from gptcls.core.batches import TextDataset, pad
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.core.tokenizer import GPT2Tokenizer, Tokenizer, gpt2_encoding
from gptcls.data.clean import CLEANERS
from gptcls.data.columns import is_blank
from gptcls.data.fields import fields_of, in_lines
from gptcls.data.long_texts import fields_read
from gptcls.fast.frozen import Staged, Trained
from gptcls.language.prompt import Prompted

By = Literal["word", "token"]
LEAST = 1e-16  # of a probability and its rest, where their logarithms are taken
STEPS = 64  # points of an integral
NETWORK_ALONE = "they are of the network, without the n-grams that it is mixed with"
AT_ONCE = 2**20  # token ids of texts with a piece left out that are held in memory
# Characters that are words without spaces between them: kana and Han.
UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
BETWEEN_WORDS = re.compile(rf"\s+|(?<=[{UNSPACED}])(?=\S)|(?<=\S)(?=[{UNSPACED}])")


# --- texts to pieces ---


@dataclass(frozen=True)
class Pieces:
    """A text in pieces and in the rows that the network reads of it.

    >>> from gptcls.core.tokenizer import GPT2
    >>> found = Pieces.of("You have won £900", GPT2, 256, "head", "word")
    >>> found.pieces, found.owners
    (('You', ' have', ' won', ' £900'), (0, 1, 2, 3, 3))
    """

    pieces: tuple[str, ...]  # a line break before the first of another text
    ids: tuple[int, ...]
    owners: tuple[int | None, ...]  # of each id the number of its piece; None: the tokenizer put it there
    rows: tuple[tuple[int, ...], ...]  # which ids each row has, by their numbers
    seams: tuple[int, ...] = ()  # the pieces with which another text of a row begins

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer, max_length: int, long: str, by: By) -> "Pieces":
        """Rows as :class:`gptcls.core.batches.TextDataset` has them; a text of no tokens is one piece."""
        alone, between = getattr(tokenizer, "alone", tokenizer), getattr(tokenizer, "between", ())
        prefix, suffix = tokenizer.prefix, tokenizer.suffix
        pieces, seams, inside, owners = [], [], [], []
        for number, field in enumerate(fields_of(text) if between else [in_lines(text)]):
            if number:
                inside += between
                owners += [None] * len(between)
            ids, spans = encoded_spans(field, alone)
            own = slice(len(prefix), len(ids) - len(suffix))
            starts = _starts(field, spans[own], by)
            owners += [len(pieces) + max(0, bisect_right(starts, at) - 1) for at, _ in spans[own]]
            inside += ids[own]
            if pieces and field:
                seams.append(len(pieces))
            pieces += [field[start:end] for start, end in pairwise([*starts, len(field)])] if field else []
        for seam in seams:
            pieces[seam] = f"\n{pieces[seam]}"
        ids = [*prefix, *inside, *suffix]
        rows, room = [list(range(len(ids)))], max_length - len(prefix) - len(suffix)
        if len(ids) > max_length and room < 1:
            rows = [alone.cut(rows[0], max_length)]
        elif len(ids) > max_length:
            before, behind = rows[0][: len(prefix)], rows[0][len(ids) - len(suffix) :]
            places = fields_read(inside, room, long, between)
            rows = [[*before, *(len(prefix) + at for at in part), *behind] for part in places]
        owners = (*[None] * len(prefix), *owners, *[None] * len(suffix))
        return cls(tuple(pieces or [""]), tuple(ids), owners, tuple(map(tuple, rows)), tuple(seams))

    @property
    def whole(self) -> list[tuple[int, ...]]:
        """The ids of each row."""
        return [tuple(self.ids[i] for i in row) for row in self.rows]

    def without(self, piece: int) -> dict[int, tuple[int, ...]]:
        """Of each row with a token of the piece, by the row's number, the ids without them."""
        ids, owners = self.ids, self.owners
        return {r: tuple(ids[i] for i in self.rows[r] if owners[i] != piece) for r in self.places[piece]}

    @cached_property
    def places(self) -> list[list[int]]:
        """Of each piece the numbers of the rows with a token of it; none of what is not read."""
        found: list[list[int]] = [[] for _ in self.pieces]
        for r, row in enumerate(self.rows):
            for piece in sorted({self.owners[i] for i in row} - {None}):
                found[piece].append(r)
        return found

    def text_without(self, piece: int) -> str:
        """The characters without those of a piece, and without a text of which nothing is left."""
        parts = pairwise([0, *self.seams, len(self.pieces)])
        texts = ["".join(self.pieces[n] for n in range(*part) if n != piece) for part in parts]
        if not self.seams:
            return texts[0]
        return "\n".join(text.removeprefix("\n") for text in texts if text.strip())


def encoded_spans(text: str, tokenizer: Tokenizer) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of a text and, of each, from which character to which it stands for; InputError for a tokenizer
    that does not know. A character of several tokens is in the spans of all of them.

    >>> from gptcls.core.tokenizer import GPT2
    >>> encoded_spans("é you", GPT2)
    ([2634, 345], [(0, 1), (1, 5)])
    """
    if isinstance(tokenizer, Prompted):
        base, lead = tokenizer.base, tokenizer.prompt.lead
        ids, spans = encoded_spans(lead + text, base)
        own = slice(len(base.prefix), len(ids) - len(base.suffix))
        spans = [tuple(max(0, at - len(lead)) for at in span) for span in spans[own]]
        before, behind = ([(0, 0)] * len(each) for each in (tokenizer.prefix, tokenizer.suffix))
        return tokenizer.around(ids[own]), [*before, *spans, *behind]
    if isinstance(tokenizer, GPT2Tokenizer):
        ids = tokenizer.encode(text)
        starts = gpt2_encoding().decode_with_offsets(ids)[1]
        later = {a: b for a, b in pairwise([*starts, len(text)]) if a < b}
        return ids, [(start, later[start]) for start in starts]
    if not hasattr(tokenizer, "spans"):
        raise InputError(f"{type(tokenizer).__name__} does not say where its tokens stand: give it spans()")
    return tokenizer.spans(text)


def _starts(text: str, spans: Sequence[tuple[int, int]], by: By) -> list[int]:
    """Where the pieces of a text begin: before each token that begins no later than the ones before it end,
    or each word. Space belongs to what follows it. No token stands in two pieces."""
    inside, reached = bytearray(len(text) + 1), 0
    tokens = set()
    for start, end in spans:
        inside[start + 1 : end] = b"\1" * max(0, end - start - 1)
        if end > start >= reached:
            tokens.add(reached)  # what lies between two tokens goes with the second
        reached = max(reached, end)
    if by == "token":
        return sorted({0} | {start for start in tokens if not inside[start]})
    end = len(text.rstrip())
    found = BETWEEN_WORDS.finditer(text)
    gaps = (match.span() for match in found if match.start() > 0 and match.end() <= end)
    cuts = (next((i for i in range(a, b + 1) if not inside[i]), None) for a, b in gaps)
    return sorted({0} | {cut for cut in cuts if cut is not None})


# --- scores ---


def scores_of(task: Task, outputs: Tensor) -> Tensor:
    """Outputs (N, K) as the scores that attributions are differences of, in double precision: the log-odds of
    probabilities; numbers as they are.

    >>> from gptcls.core.task import SingleLabel
    >>> scores_of(SingleLabel(("ham", "spam")), torch.tensor([[0.2, 0.8]])).round(decimals=3)
    tensor([[-1.3860,  1.3860]], dtype=torch.float64)
    """
    p = outputs.double()
    if isinstance(task, Regression):
        return p
    # The others' sum: where p is nearly 1, 1 - p would lose what is left.
    others = 1 - torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
    rest = 1 - p if isinstance(task, MultiLabel) else p @ others
    return p.clamp_min(LEAST).log() - rest.clamp_min(LEAST).log()


def asked_labels(task: Task, labels: str | Sequence[str] | None) -> tuple[int, ...]:
    """The numbers of the labels asked for, none of them for None; InputError for one that is unknown."""
    names = (labels,) if isinstance(labels, str) else tuple(labels or ())
    if unknown := [name for name in names if name not in task.labels]:
        raise InputError(f"--label {unknown[0]!r} is unknown; the classifier has {', '.join(task.labels)}")
    return tuple(task.labels.index(name) for name in names)


def _answered(saved: SavedClassifier, outputs: np.ndarray) -> tuple[int, ...]:
    """What the answer to one text is about, sure or not, by its outputs (K,): the class, the labels given,
    else the likeliest; all numbers."""
    if isinstance(saved.task, Regression):
        return tuple(range(saved.task.n_outputs))
    (given,) = saved.decision.given(saved.task, outputs[None])
    places = np.flatnonzero(given).tolist() if np.ndim(given) else [int(given)]
    return tuple(places) or (int(outputs.argmax()),)


# --- both ways ---


def explanations(
    saved: SavedClassifier, models: Sequence[Staged], device: torch.device, texts: Sequence[str | None],
    labels: str | Sequence[str] | None = None, by: By = "word", gradients: bool = False, steps: int = STEPS,
) -> Iterator[Explanation | None]:  # fmt: skip
    """An :class:`Explanation` of each text, None of a blank one; ``models`` give the logits of ``saved``,
    each those of one network.

    ``labels`` are those to show, by default those of each answer. Occlusion gives every output's
    attributions at once; integrated ``gradients``, of ``steps`` points, only those of the labels shown.
    """
    if by not in ("word", "token"):
        raise InputError(f"--by {by!r} is neither word nor token")
    check_at_least({"steps": steps}, {"steps": 1})
    shown = asked_labels(saved.task, labels)
    with tqdm(total=len(texts), desc="explain", unit=" texts", delay=1, disable=None) as bar:
        for group in _groups(saved, texts, by):
            read = [pieces for pieces in group if pieces is not None]
            found = iter(_occluded(saved, models, device, read, shown, by))
            for pieces in group:
                each = None if pieces is None else next(found)
                if each is not None and gradients:
                    networks = [model.frozen.classifier for model in models]
                    integral = integrated_gradients(saved, networks, device, pieces, each.shown, steps)
                    each = replace(each, gradients=integral, covers=NETWORK_ALONE if saved.mixture else "")
                yield each
                bar.update()


def _groups(saved: SavedClassifier, texts: Sequence[str | None], by: By) -> Iterator[list[Pieces | None]]:
    """Texts whose rows with a piece left out fit into memory together."""
    group, size = [], 0
    for text in texts:
        pieces = None
        if not is_blank(text):
            # Half a UTF-16 pair is no character: tokenizers read U+FFFD.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            cleaned = CLEANERS[saved.cleaning](saved.as_read(text))
            pieces = Pieces.of(cleaned, saved.tokenizer, saved.max_length, saved.long, by)
            size += sum(len(row) ** 2 for row in pieces.rows)
        group.append(pieces)
        if size >= AT_ONCE:
            yield group
            group, size = [], 0
    yield group


class _Rows(TextDataset):
    """Rows of ids that are there already, each of which is a text."""

    def __init__(self, rows: Sequence[tuple[int, ...]], saved: SavedClassifier) -> None:
        self.rows, self.owners = [list(row) or [saved.tokenizer.pad_id] for row in rows], range(len(rows))
        self.targets, self.truncated = torch.zeros(len(rows)), 0
        self.pad_to, self.pad_id = saved.pad_to, saved.tokenizer.pad_id


def _occluded(
    saved: SavedClassifier, models: Sequence[Staged], device: torch.device, texts: Sequence[Pieces],
    shown: tuple[int, ...], by: By,
) -> Iterator[Explanation]:  # fmt: skip
    """Each distinct row of ids runs once, whatever text or piece it belongs to; of a text in windows only
    those that a piece stands in run again without it."""
    task, mixed = saved.task, saved.mixture is not None
    numbers: dict[tuple[int, ...], int] = {}
    means: list[list[int]] = []  # the rows that each text has, whole and without each piece
    versions: list[str] = []  # and its characters, for the n-grams
    for text in texts:
        whole = [numbers.setdefault(row, len(numbers)) for row in text.whole]
        means.append(whole)
        for piece in range(len(text.pieces)):
            changed = {r: numbers.setdefault(row, len(numbers)) for r, row in text.without(piece).items()}
            means.append([changed.get(r, number) for r, number in enumerate(whole)])
        if mixed:
            versions += ["".join(text.pieces), *map(text.text_without, range(len(text.pieces)))]
    rows = _Rows(list(numbers), saved)
    logits = torch.stack([dataset_logits(model, rows, device) for model in models])
    logits = torch.stack([logits[:, rows].mean(dim=1) for rows in means], dim=1) if means else logits
    # In double precision: a probability next to 1 leaves float32 nothing to tell two texts apart by.
    outputs = saved.outputs((logits if saved.members else logits[0]).double(), versions)
    scores = scores_of(task, torch.from_numpy(outputs)).numpy()
    answers = saved.decision.answers(task, outputs)
    start = 0
    for text in texts:
        n = len(text.pieces) + 1
        rows, answer = slice(start + 1, start + n), answers[start]
        seen = np.array([mixed or bool(rows) for rows in text.places])
        attributions = np.where(seen[:, None], scores[start] - scores[rows], np.nan)
        without = tuple(each if was else None for each, was in zip(answers[rows], seen, strict=True))
        yield Explanation(
            "".join(text.pieces), text.pieces, by, task, shown or _answered(saved, outputs[start]),
            answer, outputs[start], scores[start], attributions, without,
            seams=text.seams,
        )  # fmt: skip
        start += n


def integrated_gradients(
    saved: SavedClassifier, networks: Sequence[Classifier], device: torch.device, text: Pieces,
    shown: Sequence[int], steps: int = STEPS,
) -> Gradients:  # fmt: skip
    """Integrated gradients of a text by the Gauss-Legendre rule, which needs few points of a smooth path.

    Of a text in windows, and of several ``networks``, the path leads through all of them at once. Of a
    mixture it is the network's part alone, at the mixture's temperature and calibrated as the whole is:
    n-grams have no path between two texts.
    """
    task, tokenizer = saved.task, saved.tokenizer
    temperature = 1.0 if saved.mixture is None else saved.mixture.temperature
    pad_id, whole = tokenizer.pad_id, text.whole
    empty = [[text.ids[i] if text.owners[i] is None else pad_id for i in row] for row in text.rows]
    ids, lengths = pad([list(row) or [pad_id] for row in whole], saved.pad_to, pad_id)  # (R, T), (R,)
    start_ids, _ = pad([row or [pad_id] for row in empty], saved.pad_to, pad_id)
    tops = [Trained(network, 0).eval() for network in networks]
    with torch.no_grad():  # (M, R, T, C) for M networks
        start, end = (
            torch.stack([network.backbone.embed(each.to(device)) for network in networks])
            for each in (start_ids, ids)
        )
    lengths, n_rows = lengths.to(device), len(ids)

    def scores_at(points: Tensor) -> tuple[Tensor, Tensor]:
        """Of P shares of the way the vectors (P, M, R, T, C) and the scores (P, K)."""
        path = (start + points.view(-1, 1, 1, 1, 1) * (end - start)).requires_grad_()
        outputs = []
        for above, vectors in zip(tops, path.unbind(dim=1), strict=True):
            logits = above(vectors.flatten(0, 1), lengths.repeat(len(points)))
            logits = logits.view(len(points), n_rows, -1).mean(dim=1)
            outputs.append(task.outputs(logits.double() / temperature))
        return path, scores_of(task, _calibrated(saved, torch.stack(outputs).mean(dim=0)))

    nodes, weights = np.polynomial.legendre.leggauss(steps)  # of -1 to 1
    nodes, weights = (torch.tensor(each, dtype=end.dtype, device=device) / 2 for each in (nodes, weights))
    total = end.new_zeros(len(shown), *end.shape)
    size = max(1, token_budget(device) // (ids.numel() * len(networks)))
    for points, share in zip((nodes + 0.5).split(size), weights.split(size), strict=True):
        path, scores = scores_at(points)
        for n, k in enumerate(shown):
            (slope,) = torch.autograd.grad(scores[:, k].sum(), path, retain_graph=n + 1 < len(shown))
            total[n] += (share.view(-1, 1, 1, 1, 1) * slope).sum(dim=0)
    each = (total * (end - start)).sum(dim=(1, -1)).double().cpu().numpy()  # (labels, R, T)
    with torch.no_grad():
        ends = scores_at(torch.tensor([0.0, 1.0], dtype=end.dtype, device=device))[1].cpu().numpy()
    found = np.full((len(text.pieces), task.n_outputs), np.nan)
    found[np.ix_([bool(rows) for rows in text.places], shown)] = 0
    for r, row in enumerate(text.rows):
        for t, i in enumerate(row):
            if (piece := text.owners[i]) is not None:
                found[piece, list(shown)] += each[:, r, t]
    unasked = [k for k in range(task.n_outputs) if k not in shown]
    ends[:, unasked] = np.nan
    return Gradients(found, ends[1], ends[0])


def _calibrated(saved: SavedClassifier, p: Tensor) -> Tensor:
    """What :meth:`gptcls.evaluation.calibration.Calibration.outputs` computes, with gradients."""
    if saved.calibration is None:
        return p
    how = (saved.calibration.temperatures, saved.calibration.shifts)
    temperatures, shifts = (torch.tensor(each, dtype=p.dtype, device=p.device) for each in how)
    if not saved.several:
        return (p.clamp_min(1e-38).log() / temperatures).softmax(dim=-1)
    return ((p.clamp_min(1e-38).log() - (1 - p).clamp_min(LEAST).log()) / temperatures + shifts).sigmoid()
