"""A text whose pieces have numbers: coloured in a terminal, as HTML, and as bars.

Colours are those for every colour vision, orange for what is above 0 and blue for what is below, and never
tell alone: the numbers stand there too. Texts come from anywhere, so nothing in one reaches a terminal or a
browser as a command.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import numpy as np

from gptcls.common import console
from gptcls.evaluation.page import escaped
from gptcls.evaluation.plots import drawable, new_figure
from gptcls.evaluation.style import BLUE, GREY, VERMILION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAINT = 0.05  # of the largest number: below it a piece stays as it is
# Backgrounds in xterm's 256 colours under black letters, which show on a light and on a dark terminal.
ABOVE, BELOW, RESET = (223, 215, 208), (153, 111, 69), "\x1b[0m"
STYLE = """
.why{font-size:17px;line-height:2.5;overflow-wrap:anywhere}.why .text{white-space:pre-wrap}
.why ruby{border-radius:3px;padding:1px 2px}.why rt{font-size:.62em;opacity:.85;position:relative;top:-.35em}
.why .for{background:rgba(230,110,0,var(--a));border-bottom:2px solid #d55e00}
.why .against{background:rgba(0,114,210,var(--a));border-bottom:2px dotted #0072b2}
.why .unread{opacity:.5}.why table{border-collapse:collapse;line-height:1.5}
.why th,.why td{padding:1px 10px;text-align:right;font-variant-numeric:tabular-nums}
.why th:first-child,.why td:first-child{text-align:left;white-space:pre-wrap}
.why tbody tr{border-top:1px solid rgba(128,128,128,.35)}.why caption{text-align:left;font-weight:600}
.why.note,.why .note{opacity:.8;font-size:.9em;line-height:1.5}
"""


# --- a terminal ---


def printable(text: str) -> str:
    r"""A text that does nothing to a terminal, its line breaks and tabs as they are.

    >>> printable("caf\N{LATIN SMALL LETTER E WITH ACUTE}\x1b[2J")
    'caf\xe9\\x1b[2J'
    """
    return console.escaped(text, keep="\n\t")


def takes_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and its user wants them (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ  # the old console prints the codes


def coloured(pieces: Sequence[str], values: Sequence[float], most: float) -> str:
    """The text with the background of each piece, space in front left as it is; ``most`` has full colour."""
    parts = []
    for piece, value in zip(map(printable, pieces), values, strict=True):
        bare = piece.lstrip()
        share = abs(value) / most
        if bare and share >= FAINT:  # never of NaN
            tone = (ABOVE if value > 0 else BELOW)[min(2, int(3 * share))]
            piece = f"{piece[: len(piece) - len(bare)]}\x1b[38;5;16;48;5;{tone}m{bare}{RESET}"
        parts.append(piece)
    return "".join(parts)


# --- HTML ---


def marked(pieces: Sequence[str], values: Sequence[float], most: float, notes: Sequence[str]) -> str:
    """The text as HTML, the number of each piece above it and a note on it; ``most`` has full colour."""
    parts = []
    for piece, value, note in zip(pieces, values, notes, strict=True):
        bare = piece.lstrip()
        share = abs(value) / most
        space, word, hint = escaped(piece[: len(piece) - len(bare)]), escaped(bare), escaped(note)
        if np.isnan(value):
            parts.append(f'<span class="unread" title="{hint}">{space}{word}</span>')
        elif not bare or share < FAINT:
            parts.append(f'{space}<span title="{hint}">{word}</span>')
        else:
            kind, tone = "for" if value > 0 else "against", 0.1 + 0.5 * min(1, share)
            ruby = f'<ruby class="{kind}" style="--a:{tone:.2f}" title="{hint}">'
            parts.append(f"{space}{ruby}<bdi>{word}</bdi><rt>{value:+.2f}</rt></ruby>")
    return f'<div class="text" dir="auto">{"".join(parts)}</div>'


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of text as an HTML table."""
    lines = ("".join(f"<td>{escaped(cell)}</td>" for cell in row) for row in rows)
    top = "".join(f"<th>{escaped(cell)}</th>" for cell in head)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    head = f"<caption>{escaped(caption)}</caption><thead><tr>{top}</tr></thead>"
    return f"<table>{head}\n<tbody>{body}</tbody></table>"


# --- bars ---

Bars = tuple[str, Sequence[str], Sequence[float], Sequence[tuple[float, float]]]


def plot_bars(panels: Sequence[Bars], xlabel: str) -> "Figure":
    """Bars of pieces from top to bottom, a panel each: its title, the pieces, their numbers, and the ends of
    their intervals or nothing. Names without glyphs become "piece 3"."""
    heights = [0.9 + 0.24 * len(names) for _, names, _, _ in panels]
    figure, first = new_figure(7.0, sum(heights) + 0.3)
    first.remove()
    grid = figure.add_gridspec(len(panels), 1, height_ratios=heights)
    for place, (title, names, values, ends) in enumerate(panels):
        axes, places = figure.add_subplot(grid[place]), np.arange(len(names))
        shown, style = drawable([" ".join(printable(name).split()) or repr(name) for name in names], "piece")
        numbers = np.asarray(values, dtype=float)
        colours = [VERMILION if value > 0 else BLUE for value in numbers]
        spread = abs(np.array(list(ends)).T - numbers) if len(ends) else None
        axes.barh(places, numbers, color=colours, xerr=spread, ecolor=GREY, height=0.7)
        axes.set_yticks(places, shown, size=9, **style)
        axes.invert_yaxis()
        axes.axvline(0, color=GREY, lw=0.8)
        low, high = axes.get_xlim()
        reach = [*map(tuple, ends)] or [(value, value) for value in numbers]
        for y, value, (left, right) in zip(places, numbers, reach, strict=True):
            at, side = (max(value, right), "left") if value > 0 else (min(value, left), "right")
            axes.annotate(f"{value:+.2f}", (at, y), (3 if value > 0 else -3, 0), ha=side, va="center", size=8,
                          textcoords="offset points")  # fmt: skip
        margin = 0.12 * (high - low)
        axes.set_xlim(low - margin * bool((numbers < 0).any()), high + margin * bool((numbers > 0).any()))
        axes.set_title(printable(title), size=10, loc="left", **style)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(xlabel, **style)
    return figure
