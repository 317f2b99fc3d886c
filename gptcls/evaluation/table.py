"""Scores as a table for the terminal, and the report of each class or number below it."""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gptcls.common.console import escaped
from gptcls.evaluation.metrics import MEASURES

WIDTH = 100  # columns of the terminal table
GAP = "  "
LONGEST = 40  # characters of a label's name in a report
MISSING = "\N{EN DASH}"
FORMATS = {"accuracy": ".2%", "subset_accuracy": ".2%", "mae": ".4g", "rmse": ".4g"}  # of the others ".3f"
DIFFERENCE = "difference"  # in a baseline's scores: what the classifier's are more, on the same texts
Rows = Sequence[tuple[str, dict]]  # (name, scores)
PAIRED = "Difference: what the classifier has more than the line above, text by text, with its own interval."


@dataclass(frozen=True)
class Columns:
    """What a table shows of each row's scores, behind the row's name and n."""

    shown: dict[str, str]  # head -> name of the score; with "CI" in the head its interval is shown too
    notes: Callable[[Rows], list[str]]  # sentences below the table

    def cells(self, scores: dict) -> list[str]:
        """One row: a value each, or "96.67 [93.97, 98.18]". Of a score that is compared the interval stands
        in the line of the difference, see :func:`with_differences`."""
        alone = DIFFERENCE not in scores
        return [_cell(scores, name, alone and "CI" in head) for head, name in self.shown.items()]


def with_differences(rows: Rows) -> Rows:
    """Below each row that is compared a row with what the classifier's scores are more."""
    lines = []
    for name, scores in rows:
        lines.append((name, scores))
        if found := scores.get(DIFFERENCE):
            lines.append(("  difference", found | {"signed": True}))
    return lines


def _shown(value: float | None, form: str = ".3f") -> str:
    return MISSING if value is None else format(value, form).rstrip("%")


def _cell(scores: dict, name: str, with_interval: bool) -> str:
    signed = "signed" in scores
    if signed and name not in scores:
        return ""
    form = "+" * signed + FORMATS.get(name, ".3f")
    value, low, high = (_shown(scores.get(name + end), form) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]" if with_interval and MISSING not in (value, low, high) else value


# --- what each task shows ---


def _class_notes(rows: Rows) -> list[str]:
    """Whose precision, recall and F1 these are, unless the rows disagree."""
    notes = ["CI: Wilson's confidence interval.", "AUC: ROC AUC."]
    labels = {tuple(scores["support"]) for _, scores in rows if "support" in scores}
    if len(labels) == 1:
        (names,) = labels
        macro = f"Precision, recall, F1 and AUC are macro averages over {len(names)} classes."
        of_one = f'Precision, recall and F1 are those of "{escaped(names[1])}".' if len(names) == 2 else ""
        notes[1:1] = [of_one or macro]
    return notes


def _number_notes(rows: Rows) -> list[str]:
    notes = ["MAE, RMSE: mean absolute and root mean squared error, in the targets' units."]
    if any("per_number" in scores for _, scores in rows):
        return [*notes, "All are means over the predicted numbers."]
    return [*notes, "CI: the bootstrap's, Bonett and Wright's for Spearman's correlation."]


CLASSES = Columns({
    "accuracy % [95 % CI]": "accuracy", "prec.": "precision", "recall": "recall", "F1": "f1",
    "MCC": "mcc", "AUC": "roc_auc",
}, _class_notes)  # fmt: skip
LISTS = Columns({
    "exact % [95 % CI]": "subset_accuracy", "Hamming": "hamming_loss", "micro-F1": "micro_f1",
    "macro-F1 [95 % CI]": "macro_f1", "AP": "average_precision",
}, lambda _: [
    "Exact: all labels of a text are right. CI: Wilson's interval, of macro-F1 the Bayesian bootstrap's.",
    "AP: average precision, macro.",
])  # fmt: skip
NUMBERS = Columns(
    {"MAE [95 % CI]": "mae", "RMSE [95 % CI]": "rmse", "Spearman [95 % CI]": "spearman"}, _number_notes
)


# --- the tables ---


def format_scores(rows: Rows, columns: Columns = CLASSES) -> str:
    """The table a run prints, at most 100 columns wide, with a line below that says what it shows.

    By default of ``classification_scores``: accuracy is in per cent with its 95 % Wilson interval; the other
    scores run to 1. An undefined score is a dash. Long names are wrapped.
    """
    rows = with_differences(rows)
    header = ["", "n", *columns.shown]
    aligned = map(_below_one_another, zip(*(columns.cells(scores) for _, scores in rows), strict=True))
    starts = [[name, str(scores["n"])] for name, scores in rows]
    body = [[*start, *cells] for start, cells in zip(starts, zip(*aligned, strict=True), strict=True)]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - len(GAP) * (len(widths) - 1))
    lines = [_line(header, widths), _rule(widths)]
    for cells in body:
        first, *rest = textwrap.wrap(cells[0], widths[0], subsequent_indent=GAP) or [""]
        lines += [_line([first, *cells[1:]], widths), *rest]
    notes = [*columns.notes(rows), *([PAIRED] if any("signed" in scores for _, scores in rows) else [])]
    return "\n".join(lines + textwrap.wrap(" ".join(notes), WIDTH))


def format_each(scores: dict) -> str:
    """The report of one part: the scores of each number, or precision, recall, F1 and texts of each class and
    then the averages, with a column for the thresholds where the classes have one. "" for a lone number."""
    if "per_number" in scores:
        body = [[name, str(row["n"]), *NUMBERS.cells(row)] for name, row in scores["per_number"].items()]
        return _report(["", "n", *NUMBERS.shown], body)
    if "per_class" not in scores:
        return ""
    per_class = scores["per_class"]
    more = ["threshold"] if "threshold" in next(iter(per_class.values())) else []
    body = [
        [name, str(row["support"]), *(_shown(row[measure]) for measure in (*MEASURES, *more))]
        for name, row in per_class.items()
    ]
    for name, average in scores["averages"].items():
        shown = map(_shown, (average[measure] for measure in MEASURES))
        body.append([f"{name} average", str(scores["n"]), *shown, *[""] * len(more)])
    return _report(["", "n", "precision", "recall", "F1", *more], body, rules=(1, 2 + len(per_class)))


def _report(header: list[str], body: list[list[str]], rules: Sequence[int] = (1,)) -> str:
    """Aligned lines under a header; ``rules`` are the numbers of those that are rules."""
    body = [[shortened(escaped(cells[0]), LONGEST), *cells[1:]] for cells in body]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = [_line(cells, widths).rstrip() for cells in (header, *body)]
    for number in rules:
        lines.insert(number, _rule(widths))
    return "\n".join(lines)


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


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> Iterator[str]:
    """Cells as lines, in columns to the right but for those numbered ``left``."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        columns = enumerate(zip(row, widths, strict=True))
        cells = (cell.ljust(n) if number in left else cell.rjust(n) for number, (cell, n) in columns)
        yield GAP.join(cells).rstrip()


def shortened(name: str, most: int) -> str:
    """A name in ``most`` characters, the middle left out: labels often begin with the same words.

    >>> shortened("complaint about the delivery", 15)
    'complai…elivery'
    """
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end].rstrip()}…{name[-end:].lstrip()}"


def format_differences(pairs: Mapping[tuple[str, str], dict]) -> str:
    """The differences of pairs of runs on the same texts, by :func:`gptcls.evaluation.paired.differences`."""
    measures = [key[:-4] for key in next(iter(pairs.values()), {}) if key.endswith("_low")]
    tested = any("p" in found for found in pairs.values())
    heads = [f"{name.replace('_', ' ')}{' %' * (FORMATS.get(name) == '.2%')} [95 % CI]" for name in measures]
    body = []
    for (one, other), found in pairs.items():
        cells = [_cell(found | {"signed": True}, name, True) for name in measures]
        if tested:
            alone = f"{found['only_first']} : {found['only_second']}"
            cells += [alone, *(f"{found[p]:.3g}" for p in ("p", "p_holm") if p in found)]
        body.append([f"{one} less {other}", *cells])
    more = ["right alone", "p", "p, Holm"] if tested else []
    widths = [max(map(len, column)) for column in zip(["", *heads, *more], *body, strict=True)]
    lines = [_line(["", *heads, *more], widths), _rule(widths), *(_line(cells, widths) for cells in body)]
    notes = ["CI: of pairs, Bonett and Price's of shares, else the bootstrap's."]
    if tested:
        notes.append("Right alone: texts that one of the two has right and the other has not.")
        notes.append("p: McNemar's exact test that either is right as often;")
        notes.append("Holm's is for all pairs of this table.")
    return "\n".join([*lines, *textwrap.wrap(" ".join(notes), WIDTH)])
