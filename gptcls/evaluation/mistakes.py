"""``mistakes.md``: the texts of a part that a classifier gets wrong, those that it is surest of first.

What it is surest of is most often a wrong label, a text that says too little, or a class that it has not
understood. Markdown that an editor and GitHub show alike: texts and labels stand in code, where nothing in
them means anything.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptcls.common.files import atomic_file
from gptcls.data.fields import on_one_line
from gptcls.evaluation.table import shortened

MOST, LONGEST_TEXT, LONGEST_LABEL = 50, 1_000, 60  # mistakes of a part, characters of one
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Mistake(NamedTuple):
    """A text that is wrong: its row, how wrong it is (the largest comes first), and in what way."""

    row: int
    size: float
    said: str


class Mistakes(NamedTuple):
    """Those of a part, and a table of what they are, heads first; nothing where every text has an error."""

    each: list[Mistake]
    counted: list[list[str]]


# --- of each task ---


def class_mistakes(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], answers: np.ndarray | None = None
) -> Mistakes:
    """Of one class per text: targets (N,) and probabilities (N, K), of which the likeliest are the answers if
    these (N,) are not given. The table counts each confused pair.

    >>> found = class_mistakes(np.array([0, 1]), np.array([[0.2, 0.8], [0.1, 0.9]]), ["ham", "spam"])
    >>> found.each[0].said
    '80.0% sure of `spam`; it is `ham` (20.0%)'
    """
    answers = probabilities.argmax(axis=1) if answers is None else answers
    rows = np.flatnonzero(answers != targets)
    name, shown = [code(label) for label in labels], "{:.1%}".format
    each, columns = [], (rows.tolist(), answers[rows], targets[rows], probabilities[rows].astype(float))
    for row, answer, true, own in zip(*columns, strict=True):
        said = f"{shown(own[answer])} sure of {name[answer]}; it is {name[true]} ({shown(own[true])})"
        each.append(Mistake(row, own[answer], said))
    pairs = Counter(zip(targets[rows].tolist(), answers[rows].tolist(), strict=True)).most_common()
    support = np.bincount(targets, minlength=len(labels))
    counted = [[name[true], name[answer], f"{n:,} of {support[true]:,}"] for (true, answer), n in pairs]
    return Mistakes(each, [["label", "answer", "texts of the label"], *counted])


def label_mistakes(
    targets: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], thresholds: Sequence[float]
) -> Mistakes:
    """Of lists of labels: targets and probabilities (N, K). A text is as wrong as its worst label: by how far
    the probability is from the threshold, as a share of the way to 0 or 1."""
    name, limits = [code(label) for label in labels], np.asarray(thresholds, dtype=float)
    p, true = probabilities.astype(float), targets.astype(bool)
    given = p >= limits
    way = np.where(given, 1 - limits, limits)
    sure = np.divide(abs(p - limits), way, out=np.zeros_like(p), where=way > 0)
    sure[given == true] = 0
    each = []
    for row in np.flatnonzero((given != true).any(axis=1)).tolist():
        said = [
            ", ".join(f"{name[k]} ({p[row, k]:.3f})" for k in np.flatnonzero(wrong[row]).tolist())
            for wrong in (given & ~true, true & ~given)
        ]
        parts = (w + s for w, s in zip(("given, and wrong: ", "missed: "), said, strict=True) if s)
        each.append(Mistake(row, sure[row].max(), "; ".join(parts)))
    wrong, missed = (given & ~true).sum(axis=0), (true & ~given).sum(axis=0)
    order = [k for k in np.argsort(-(wrong + missed), kind="stable").tolist() if wrong[k] + missed[k]]
    counted = [[name[k], f"{wrong[k]:,}", f"{missed[k]:,} of {true[:, k].sum():,}"] for k in order]
    return Mistakes(each, [["label", "given, and wrong", "missed"], *counted])


def number_errors(targets: np.ndarray, predictions: np.ndarray, labels: Sequence[str]) -> Mistakes:
    """Of numbers: targets and predictions (N, K). Every text is off by something; several numbers are
    compared in standard deviations of the part."""
    targets, errors = targets.astype(float), predictions.astype(float) - targets
    scales = targets.std(axis=0) if len(targets) else np.ones(len(labels))
    sizes = (abs(errors) / np.where(scales > 0, scales, 1)).max(axis=1, initial=0)
    each = []
    for row, size in enumerate(sizes.tolist()):
        columns = labels, predictions[row], targets[row], errors[row]
        said = [
            f"{code(label) + ' ' if len(labels) > 1 else ''}{predicted:.6g}; it is {true:.6g} ({error:+.4g})"
            for label, predicted, true, error in zip(*columns, strict=True)
        ]
        each.append(Mistake(row, size, ", ".join(said)))
    return Mistakes(each, [])


# --- on disk ---


def write_mistakes(path: Path, parts: Mapping[str, tuple[Sequence[str], Mistakes]], files: str) -> None:
    """The texts of each part with their mistakes; ``files`` says where all rows of a part are."""
    order = "The worst come first: wrong answers that it was surest of, the largest errors."
    lines = ["# Mistakes", "", f"{order} {files}", ""]
    for part, (texts, found) in parts.items():
        lines += _part(part, texts, found)
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(lines))


def _part(part: str, texts: Sequence[str], found: Mistakes) -> list[str]:
    each = sorted(found.each, key=lambda mistake: -mistake.size)[:MOST]
    wrong = f"{len(found.each):,} of {len(texts):,} texts are wrong"
    what = wrong if found.counted else f"{len(texts):,} texts"
    lines = [f"## {part.capitalize()}: {what}", ""]
    if len(found.counted) > 1:
        # Within a table an upright bar ends a cell, even in code.
        head, *rows = ([cell.replace("|", r"\|") for cell in line] for line in found.counted)
        rule = ["---", *["---:" if cell[0].isdigit() else "---" for cell in rows[0][1:]]]
        for line in (head, rule, *rows):
            lines.append(f"| {' | '.join(line)} |")
        lines.append("")
    if len(each) < len(found.each):
        lines += [f"The first {len(each)}:", ""]
    for mistake in each:
        lines += [f"Row {mistake.row + 1}: {mistake.said}", "", fenced(texts[mistake.row]), ""]
    return lines


def code(label: str) -> str:
    """A label as inline code on one line.

    >>> code("a`c")
    '``a`c``'
    """
    name = shortened(CONTROLS.sub("\N{REPLACEMENT CHARACTER}", " ".join(label.split())), LONGEST_LABEL) or " "
    ticks = "`" * (1 + max(map(len, re.findall("`+", name)), default=0))
    room = " " if name.startswith("`") or name.endswith("`") else ""
    return f"{ticks}{room}{name}{room}{ticks}"


def fenced(text: str) -> str:
    """A text as a block of code, the middle of a long one left out."""
    text = on_one_line(text).replace("\r\n", "\n").replace("\r", "\n")
    text = shortened(CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text), LONGEST_TEXT)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"
