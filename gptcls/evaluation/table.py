"""Scores as a table for the terminal, and the report of each class or number below it."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH = 100  # columns of the terminal table
GAP = "  "
LONGEST = 40  # characters of a label's name in a report
MISSING = "\N{EN DASH}"
Rows = Sequence[tuple[str, dict]]  # (name, scores)


@dataclass(frozen=True)
class Columns:
    """What a table shows of each row's scores, behind the row's name and n."""

    heads: tuple[str, ...]
    cells: Callable[[dict], list[str]]  # of one row's scores; "value [low, high]" or one value
    notes: Callable[[Rows], list[str]]  # sentences below the table


# --- what each task shows ---


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f}"


def _share(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4g}"


def _with_interval(scores: dict, name: str, show: Callable[[float | None], str]) -> str:
    """ "96.67 [93.97, 98.18]" """
    value, low, high = (show(scores.get(name + end)) for end in ("", "_low", "_high"))
    return value if MISSING in (value, low, high) else f"{value} [{low}, {high}]"


def _class_cells(scores: dict) -> list[str]:
    others = (_share(scores.get(name)) for name in ("precision", "recall", "f1", "mcc", "roc_auc"))
    return [_with_interval(scores, "accuracy", _percent), *others]


def _class_notes(rows: Rows) -> list[str]:
    """Whose precision, recall and F1 these are, unless the rows disagree."""
    notes = ["CI: Wilson's confidence interval.", "AUC: ROC AUC."]
    labels = {tuple(scores["support"]) for _, scores in rows if "support" in scores}
    if len(labels) == 1:
        (names,) = labels
        macro = f"Precision, recall, F1 and AUC are macro averages over {len(names)} classes."
        notes[1:1] = [f'Precision, recall and F1 are those of "{names[1]}".' if len(names) == 2 else macro]
    return notes


def _list_cells(scores: dict) -> list[str]:
    return [
        _with_interval(scores, "subset_accuracy", _percent),
        _share(scores["hamming_loss"]),
        _share(scores["micro_f1"]),
        _with_interval(scores, "macro_f1", _share),
        _share(scores["average_precision"]),
    ]


def _list_notes(rows: Rows) -> list[str]:
    return [
        "Exact: all labels of a text are right. CI: Wilson's interval, of macro-F1 the bootstrap's.",
        "AP: average precision, macro.",
    ]


def _number_cells(scores: dict) -> list[str]:
    shown = {"mae": _number, "rmse": _number, "spearman": _share}
    return [_with_interval(scores, name, show) for name, show in shown.items()]


def _number_notes(rows: Rows) -> list[str]:
    notes = ["MAE, RMSE: mean absolute and root mean squared error, in the targets' units."]
    if any("per_number" in scores for _, scores in rows):
        return [*notes, "All are means over the predicted numbers."]
    return [*notes, "CI: the bootstrap's, Bonett and Wright's for Spearman's correlation."]


CLASSES = Columns(("accuracy % [95 % CI]", "prec.", "recall", "F1", "MCC", "AUC"), _class_cells, _class_notes)
LISTS = Columns(
    ("exact % [95 % CI]", "Hamming", "micro-F1", "macro-F1 [95 % CI]", "AP"), _list_cells, _list_notes
)
NUMBERS = Columns(("MAE [95 % CI]", "RMSE [95 % CI]", "Spearman [95 % CI]"), _number_cells, _number_notes)


# --- the tables ---


def format_scores(rows: Rows, columns: Columns = CLASSES) -> str:
    """The table a run prints, at most 100 columns wide, with a line below that says what it shows.

    ``rows`` holds (name, scores) pairs, by default those of ``classification_scores``: accuracy is in per
    cent with its 95 % Wilson interval; the other scores run to 1. An undefined score is a dash. Long names
    are wrapped.
    """
    header = ["", "n", *columns.heads]
    body = [[name, str(scores["n"]), *columns.cells(scores)] for name, scores in rows]
    for column in range(2, len(header)):
        for cells, aligned in zip(body, _below_one_another([cells[column] for cells in body]), strict=True):
            cells[column] = aligned
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - len(GAP) * (len(widths) - 1))
    lines = [_line(header, widths), _rule(widths)]
    for cells in body:
        first, *rest = textwrap.wrap(cells[0], widths[0], subsequent_indent=GAP) or [""]
        lines += [_line([first, *cells[1:]], widths), *rest]
    return "\n".join(lines + textwrap.wrap(" ".join(columns.notes(rows)), WIDTH))


def format_per_class(scores: dict) -> str:
    """The per-class report of one part: precision, recall, F1 and texts of each class, then the averages.

    With a column for the thresholds where the classes have one. "" for scores without ``per_class``.
    """
    if "per_class" not in scores:
        return ""
    per_class = scores["per_class"]
    more = ["threshold"] if "threshold" in next(iter(per_class.values())) else []
    body = [
        [
            name,
            str(row["support"]),
            *(_share(row[measure]) for measure in ("precision", "recall", "f1", *more)),
        ]
        for name, row in per_class.items()
    ]
    for name, average in scores["averages"].items():
        shown = [_share(average[measure]) for measure in ("precision", "recall", "f1")]
        body.append([f"{name} average", str(scores["n"]), *shown, *[""] * len(more)])
    return _report(["", "n", "precision", "recall", "F1", *more], body, ruled=len(per_class))


def format_per_number(scores: dict) -> str:
    """The scores of each predicted number; "" where there is only one."""
    if "per_number" not in scores:
        return ""
    body = [[name, str(row["n"]), *NUMBERS.cells(row)] for name, row in scores["per_number"].items()]
    return _report(["", "n", *NUMBERS.heads], body)


def _report(header: list[str], body: list[list[str]], ruled: int | None = None) -> str:
    """Aligned lines under a header, with a rule below it and, if asked, below the first ``ruled`` lines."""
    body = [[shortened(cells[0], LONGEST), *cells[1:]] for cells in body]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [_line(cells, widths).rstrip() for cells in (header, *body)]
    if ruled is not None:
        lines.insert(1 + ruled, _rule(widths))
    return "\n".join([lines[0], _rule(widths), *lines[1:]])


def _line(cells: list[str], widths: list[int]) -> str:
    """The name to the left, numbers to the right."""
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return GAP.join([cells[0].ljust(widths[0]), *numbers])


def _rule(widths: list[int]) -> str:
    return GAP.join("─" * width for width in widths)


def _below_one_another(values: Sequence[str]) -> list[str]:
    """Padded to one width, point below point."""
    pairs = [value.partition(" ")[::2] for value in values]
    left = max((len(value) for value, _ in pairs), default=0)
    right = max((len(interval) for _, interval in pairs), default=0)
    return [f"{value:>{left}} {interval:<{right}}" if right else value for value, interval in pairs]


def shortened(name: str, most: int) -> str:
    """A name in ``most`` characters, the middle left out: labels often begin with the same words.

    >>> shortened("complaint about the delivery", 15)
    'complai…elivery'
    """
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end].rstrip()}…{name[-end:].lstrip()}"
