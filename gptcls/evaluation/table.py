"""Scores as a table: aligned for the terminal, or Markdown for a README."""

import textwrap
from collections.abc import Sequence

WIDTH = 100  # columns of the terminal table
GAP = "  "
MISSING = "\N{EN DASH}"
SHARES = ("precision", "recall", "f1", "mcc", "roc_auc")


def format_scores(rows: Sequence[tuple[str, dict]]) -> str:
    """The table a run prints, at most 100 columns wide, with a line below that says what it shows.

    ``rows`` holds (name, ``classification_scores``) pairs. Accuracy is in per cent with its 95 %
    Wilson interval; the other scores run to 1; an undefined score is a dash. Long names are wrapped.
    """
    header = ["", "n", "accuracy % [95 % CI]", "prec.", "recall", "F1", "MCC", "AUC"]
    body = _cells(rows)
    for cells, accuracy in zip(body, _below_one_another([cells[2] for cells in body]), strict=True):
        cells[2] = accuracy
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    room = WIDTH - sum(widths[1:]) - len(GAP) * (len(widths) - 1)
    widths[0] = min(widths[0], room)
    lines = [_line(header, widths), GAP.join("─" * width for width in widths)]
    for cells in body:
        first, *rest = textwrap.wrap(cells[0], widths[0], subsequent_indent=GAP) or [""]
        lines += [_line([first, *cells[1:]], widths), *rest]
    notes = ["CI: Wilson's confidence interval.", _note(rows), "AUC: ROC AUC."]
    return "\n".join(lines + textwrap.wrap(" ".join(filter(None, notes)), WIDTH))


def markdown_scores(rows: Sequence[tuple[str, dict]]) -> str:
    """The table of ``format_scores`` in Markdown, with the same line below it."""
    header = ["", "n", "accuracy % [95 % Wilson interval]", "precision", "recall", "F1", "MCC", "ROC AUC"]
    body = [[cells[0].replace("|", r"\|"), *cells[1:]] for cells in _cells(rows)]
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, rule, *body)]
    return "\n".join([*lines, "", _note(rows)]).rstrip()


def _line(cells: list[str], widths: list[int]) -> str:
    """The name to the left, numbers to the right."""
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return GAP.join([cells[0].ljust(widths[0]), *numbers])


def _cells(rows: Sequence[tuple[str, dict]]) -> list[list[str]]:
    return [
        [name, str(scores["n"]), _accuracy(scores), *(_share(scores.get(key)) for key in SHARES)]
        for name, scores in rows
    ]


def _accuracy(scores: dict) -> str:
    """ "96.67 [93.97, 98.18]" """
    value, low, high = (_percent(scores.get(key)) for key in ("accuracy", "accuracy_low", "accuracy_high"))
    return value if value == MISSING else f"{value} [{low}, {high}]"


def _below_one_another(accuracies: Sequence[str]) -> list[str]:
    """Padded to one width, point below point."""
    pairs = [accuracy.partition(" ")[::2] for accuracy in accuracies]
    left = max((len(value) for value, _ in pairs), default=0)
    right = max((len(interval) for _, interval in pairs), default=0)
    return [f"{value:>{left}} {interval:<{right}}" for value, interval in pairs]


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}"


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _note(rows: Sequence[tuple[str, dict]]) -> str:
    """Whose precision, recall and F1 these are; nothing where the rows disagree."""
    labels = {tuple(scores["support"]) for _, scores in rows if "support" in scores}
    if len(labels) != 1:
        return ""
    names = labels.pop()
    if len(names) == 2:
        return f'Precision, recall and F1 are those of "{names[1]}".'
    return f"Precision, recall, F1 and AUC are macro averages over {len(names)} classes."
