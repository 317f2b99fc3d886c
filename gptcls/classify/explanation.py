"""An explanation: what each piece of a text adds to an answer, how it is shown, and many of them together."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptcls.common.lazy import pd
from gptcls.core.task import Task
from gptcls.data.fields import SIGN
from gptcls.evaluation import marked
from gptcls.evaluation.intervals import mean_interval
from gptcls.evaluation.table import aligned

MOST = 12  # pieces of a text that are listed
LEFT_OUT = (
    "The number of a piece is the score of the whole text minus that of the text without it: removed, so "
    "that what follows moves up, with nothing in its place."
)


@dataclass(frozen=True, eq=False)
class Gradients:
    """Integrated gradients of a text, in the units of its scores; NaN for an output not asked for."""

    attributions: np.ndarray  # (U, K)
    scores: np.ndarray  # (K,) of the network, which for a mixture is not all of the answer
    baseline: np.ndarray  # (K,) of as many padding tokens

    @property
    def gap(self) -> np.ndarray:
        """(K,): what the attributions add up to, minus what they should, scores - baseline."""
        return np.nansum(self.attributions, axis=0) - (self.scores - self.baseline)


@dataclass(frozen=True, eq=False)
class Explanation:
    """What each of the U pieces of a text adds to each of the K outputs.

    A score is the log-odds, the logarithm of p / (1 - p), where an output is a probability p, which hardly
    moves near 0 and 1; else the number itself. ``attributions`` (U, K) are the text's scores minus those
    without the piece, NaN for a piece that is not read; ``without`` (U,) are the answers then.
    """

    text: str  # cleaned
    pieces: tuple[str, ...]  # which joined are the text
    by: str  # "word" or "token"
    task: Task
    shown: tuple[int, ...]  # the outputs that were asked for
    answer: Any
    outputs: np.ndarray  # (K,)
    scores: np.ndarray  # (K,)
    attributions: np.ndarray  # (U, K)
    without: tuple[Any, ...]
    gradients: Gradients | None = None
    covers: str = ""  # what of the answer the gradients leave out
    seams: tuple[int, ...] = ()  # the pieces, with a line break in front, that begin another text of a row

    def turns(self, piece: int) -> bool:
        """Whether the answer is another one without a piece, for answers that are names."""
        return self.task.has_probabilities and self.without[piece] not in (None, self.answer)

    def frame(self) -> "pd.DataFrame":
        """A row a piece: ``piece``, ``attribution_<label>`` and ``gradients_<label>`` of the labels shown,
        and ``answer_without``, the answer when it is left out."""
        columns: dict[str, Any] = {"piece": list(self.pieces)}
        for k in self.shown:
            columns[f"attribution_{self.task.labels[k]}"] = self.attributions[:, k].round(6)
            if self.gradients is not None:
                columns[f"gradients_{self.task.labels[k]}"] = self.gradients.attributions[:, k].round(6)
        without = pd.array([None if each is None else plain(each) for each in self.without], dtype="string")
        return pd.DataFrame(columns | {"answer_without": without})

    def lines(self, colours: bool = False) -> Iterator[str]:
        """For a terminal: of each label shown the text and the pieces that add most."""
        for k in self.shown:
            values = self.attributions[:, k]
            yield self._head(k)
            drawn = self._drawn(values)
            text = marked.coloured(*drawn, self._full(k)) if colours else "".join(drawn[0])
            yield text if colours else marked.printable(text)
            rows = [[f"{value:+.2f}" for value in self._numbers(n, k)] for n in self._order(k)]
            said = [self._said(n) for n in self._order(k)]
            heads = [[""] * len(rows[0]), ["occlusion", "gradients"]][self.gradients is not None]
            rows = [[*row, said[0], said[1]] for row, said in zip(rows, said, strict=True)]
            if self.gradients is not None:
                rows = [[*heads, "", ""], *rows]
            yield from ("  " + line for line in aligned(rows, left=(len(heads), len(heads) + 1)))
            rest = int(np.isfinite(values).sum()) - len(said)
            unread = int(np.isnan(values).sum())
            if rest:
                yield f"  and {rest:,} {self.by}s that add less"
            if unread:
                yield f"  {unread:,} {self.by}s were not read"
            if self.gradients is not None:
                yield "  " + self._completeness(k)
            yield ""

    def section(self) -> str:
        """As HTML, to stand in a page with :data:`gptcls.evaluation.marked.STYLE`."""
        said = [f"without it: {plain(each)}" if each is not None else "not read" for each in self.without]
        parts = []
        for k in self.shown:
            values = self.attributions[:, k]
            notes = [f"{value:+.3f}; {note}" for value, note in zip(values, said, strict=True)]
            parts.append(f"<h2>{marked.escaped(self._head(k))}</h2>")
            notes = self._with_signs(notes, "between two texts")
            parts.append(marked.marked(*self._drawn(values), self._full(k), notes))
            rows = [
                [self.pieces[n].strip() or repr(self.pieces[n]), *(f"{v:+.3f}" for v in self._numbers(n, k)),
                 plain(self.without[n]) if self.turns(n) else ""]
                for n in self._order(k)
            ]  # fmt: skip
            heads = [self.by, "occlusion", *(["gradients"] if self.gradients else []), "answer without it"]
            shown = marked.table(f"what adds most to {self._what(k)}", heads, rows)
            more = f'<p class="note">{marked.escaped(self._completeness(k))}</p>' if self.gradients else ""
            parts.append(f"<details><summary>as a table</summary>{shown}{more}</details>")
        return f'<div class="why">{"".join(parts)}</div>'

    def _repr_html_(self) -> str:  # how a notebook shows it
        return f"<style>{marked.STYLE}</style>{self.section()}"

    def panels(self) -> list[marked.Bars]:
        """For :func:`gptcls.evaluation.marked.plot_bars`: the strongest pieces in the order of the text."""
        found = []
        for k in self.shown:
            order = sorted(self._order(k, 2 * MOST))
            values = [self.attributions[n, k] for n in order]
            found.append((self._head(k), [self.pieces[n].strip() for n in order], values, ()))
        return found

    def _drawn(self, values: Sequence[float]) -> tuple[list[str], list[float]]:
        """The pieces and their values, with a sign where another text of a row begins."""
        pieces = [f" {piece[1:]}" if n in self.seams else piece for n, piece in enumerate(self.pieces)]
        return self._with_signs(pieces, f"\n{SIGN}"), self._with_signs(values, 0.0)

    def _with_signs(self, each: Sequence[Any], sign: Any) -> list[Any]:
        """What there is of each piece, and ``sign`` before those that begin another text."""
        return [one for n, own in enumerate(each) for one in ([sign, own] if n in self.seams else [own])]

    def _numbers(self, piece: int, k: int) -> list[float]:
        both = [self.attributions] + ([self.gradients.attributions] if self.gradients is not None else [])
        return [each[piece, k] for each in both]

    def _full(self, k: int) -> float:
        """What has full colour: the largest, or 1 in log-odds, so that a text of nothing much stays pale."""
        largest = np.nanmax(abs(self.attributions[:, k]), initial=0)
        return float(max(largest, 1.0 if self.task.has_probabilities else 1e-12))

    def _order(self, k: int, most: int = MOST) -> list[int]:
        """The pieces that were read, the strongest first."""
        sizes = np.nan_to_num(abs(self.attributions[:, k]), nan=-1)
        return [n for n in np.argsort(-sizes, kind="stable").tolist() if sizes[n] >= 0][:most]

    def _said(self, piece: int) -> tuple[str, str]:
        word = marked.printable(self.pieces[piece].strip()) or repr(self.pieces[piece])
        said = f"without it: {marked.printable(plain(self.without[piece]))}" if self.turns(piece) else ""
        return word, said

    def _what(self, k: int) -> str:
        label = self.task.labels[k]
        return f"the log-odds of {label}" if self.task.has_probabilities else label

    def _head(self, k: int) -> str:
        label = marked.printable(self.task.labels[k])
        if not self.task.has_probabilities:
            return f"{label}: {self.outputs[k]:.6g}"
        given = self.answer if isinstance(self.answer, list) else [self.answer]
        other = f" (the answer is {marked.printable(plain(self.answer))})"
        said = "" if self.task.labels[k] in given else other
        return f"{label}: {self.outputs[k]:.2%}, log-odds {self.scores[k]:+.2f}{said}"

    def _completeness(self, k: int) -> str:
        found = self.gradients
        total, difference = np.nansum(found.attributions[:, k]), found.scores[k] - found.baseline[k]
        ends = f"{found.scores[k]:+.2f} of the text, {found.baseline[k]:+.2f} of padding alone"
        said = f"integrated gradients add up to {total:+.3f}, and should to {difference:+.3f} ({ends})"
        return said + (f"; {self.covers}" if self.covers else "")


def plain(answer: Any) -> str:
    """An answer in a line: a class, labels with commas, numbers.

    >>> plain("ham"), plain(["joy", "love"]), plain([]), plain(1 / 3)
    ('ham', 'joy, love', 'no label', '0.333333')
    """
    if isinstance(answer, list):
        return ", ".join(map(plain, answer)) or "no label"
    return f"{answer:.6g}" if isinstance(answer, float) else str(answer)


# --- a data set ---


def spelled(piece: str) -> str:
    """What counts as the same piece over texts: in any case, without marks around it, all digits 0, so that
    no telephone number stands alone.

    >>> spelled(" £1000!"), spelled(" Won,"), spelled("?!")
    ('£0000', 'won', '?!')
    """
    word = re.sub(r"\d", "0", piece.strip().casefold())
    bare = word.strip(".,;:!?\"'()[]<>*…“”‘’«»。，、！？；：（）")  # noqa: RUF001 (full-width marks)
    return bare or word or repr(piece)


def strongest(found: Sequence[Explanation | None], label: int, least: int = 3) -> "pd.DataFrame":
    """The pieces that move an output most over many texts, the strongest first.

    Columns: ``piece``, as :func:`spelled`; ``texts`` that have it; the ``mean`` over these texts of what it
    adds, summed where it stands there twice, with ``low`` and ``high``, the ends of Student's 95 % interval;
    ``turned``, in how many of them the answer is another one without it. Those of fewer than ``least`` texts,
    and of one, are left out. The order is that of the end nearest to 0, so that few texts must agree; an
    interval around 0 comes last.
    """
    sums: dict[str, list[tuple[float, bool]]] = {}
    for each in found:
        of_text: dict[str, tuple[float, bool]] = {}
        for n, piece in enumerate(each.pieces if each is not None else ()):
            if np.isfinite(added := each.attributions[n, label]):
                total, turned = of_text.get(name := spelled(piece), (0.0, False))
                of_text[name] = total + added, turned or each.turns(n)
        for name, value in of_text.items():
            sums.setdefault(name, []).append(value)
    rows = []
    for name, values in sums.items():
        if len(values) >= max(2, least):
            added, turned = zip(*values, strict=True)
            rows.append((name, len(values), *mean_interval(added), sum(turned)))
    frame = pd.DataFrame(rows, columns=["piece", "texts", "mean", "low", "high", "turned"])
    nearest = np.maximum(frame["low"], -frame["high"])
    order = np.lexsort((-frame["mean"].abs(), -nearest))
    return frame.iloc[order].reset_index(drop=True)
