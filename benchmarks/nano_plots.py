"""The pictures of ``python -m benchmarks.nano``: one message each, bars are 95 % intervals."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.over_seeds import Interval
from gptcls.evaluation.plots import new_figure
from gptcls.evaluation.style import BLUE, CYCLE, GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "os^DvPX"
DASHES = ("-", "-", "-", "--", "--", ":", ":")


def panels(count: int, width: float = 3.7, height: float = 3.9) -> "tuple[Figure, Sequence[Axes]]":
    """A figure of some axes next to one another."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.6 + width * count, height), dpi=150, layout="constrained")
    found = figure.subplots(1, count, squeeze=False)[0]
    for axes in found:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found


def draw_lines(axes: "Axes", lines: Mapping[str, Mapping[float, Interval]], spread: float = 1.0) -> None:
    """A line with bars for each name; in a logarithmic axis they stand apart by the factor ``spread``."""
    for number, (name, points) in enumerate(lines.items()):
        shift = spread ** (number - (len(lines) - 1) / 2)
        style = {"color": CYCLE[number], "marker": MARKERS[number], "ls": DASHES[number]}
        axes.errorbar([x * shift for x in points], *_with_bars(points.values()), **style, **BARS, label=name)


BARS = {"ms": 5, "lw": 1.6, "elinewidth": 1, "capsize": 2}


def _with_bars(intervals: Iterable[Interval]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Means, and how far the ends are from them; an end that is not known is not drawn."""
    means, lows, highs = (np.array(values) for values in zip(*intervals, strict=True))
    return means, [np.where(np.isfinite(ends), abs(ends - means), 0) for ends in (lows, highs)]


def legend_above(figure: "Figure", axes: "Axes", columns: int = 3) -> None:
    """One legend for all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def by_labels(
    titles: Mapping[str, str],
    scores: Mapping[str, Mapping],
    units: Mapping[str, str],
    ticks: Mapping[str, Mapping[float, str]],
) -> "Figure":
    """A panel for each data set: a contestant's score by the number of labels."""
    figure, found = panels(len(scores))
    for axes, (name, lines) in zip(found, scores.items(), strict=True):
        draw_lines(axes, lines, spread=1.06)
        label_axis(axes, ticks[name])
        axes.set_title(titles[name], fontsize=10, loc="left")
        axes.set_ylabel(units[name])
    legend_above(figure, found[0])
    return figure


def label_axis(axes: "Axes", ticks: Mapping[float, str]) -> None:
    """Numbers of labels, evenly in their logarithm."""
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlabel("labelled texts")


def by_difference(lines: Mapping[str, Mapping[float, Interval]], ticks: Sequence[str]) -> "Figure":
    """Pretrained minus the better TF-IDF on each data set, seed by seed, by the number of labels."""
    figure, (axes,) = panels(1, 6.2, 3.8)
    for number, (name, points) in enumerate(lines.items()):
        at = [x + 0.1 * (number - (len(lines) - 1) / 2) for x in points]
        style = {"color": CYCLE[number], "marker": MARKERS[number]}
        axes.errorbar(at, *_with_bars(points.values()), **style, **BARS, label=name)
    axes.axhline(0, color=GREY, lw=1)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set(xlabel="labelled texts", ylabel="pretrained minus better TF-IDF (points)")
    legend_above(figure, axes, 1)
    return figure


def by_tokens(
    titles: Mapping[str, str], scores: Mapping[str, Mapping], references: Mapping[str, tuple[str, float]]
) -> "Figure":
    """A panel for each data set: accuracy by the tokens of pretraining, random weights at 0."""
    figure, found = panels(len(scores), 4.2)
    for axes, (name, lines) in zip(found, scores.items(), strict=True):
        least = min((x for points in lines.values() for x in points if x), default=1.0)
        for number, (what, points) in enumerate(lines.items()):
            style = {"color": CYCLE[number], "marker": MARKERS[number], "ls": DASHES[number]}
            after = {x: y for x, y in points.items() if x}
            axes.errorbar(list(after), *_with_bars(after.values()), **style, **BARS, label=what)
            if 0 in points:  # it has no place in a logarithmic axis but its left end
                axes.errorbar([least / 4], *_with_bars([points[0]]), **style | {"ls": ""}, **BARS)
        what, value = references[name]
        axes.axhline(value, color=GREY, ls="--", lw=1.2, label=what)
        axes.set_xscale("log")
        at = [10**k for k in range(3, 10) if least <= 10**k <= max(max(points) for points in lines.values())]
        axes.set_xticks([least / 4, *at], ["random\nweights", *map(short_count, at)])
        axes.minorticks_off()
        axes.set_title(titles[name], fontsize=10, loc="left")
        axes.set(xlabel="tokens of pretraining", ylabel="test accuracy (%)")
    legend_above(figure, found[0])
    return figure


def short_count(n: float) -> str:
    """
    >>> short_count(8_192), short_count(1_000_000), short_count(32_768_000)
    ('8.2 k', '1 M', '32.8 M')
    """
    for size, unit in ((10**6, " M"), (10**3, " k")):
        if n >= size:
            return f"{n / size:.1f}".removesuffix(".0") + unit
    return f"{n:g}"


def in_rows(rows: Mapping[str, Interval], what: str) -> "Figure":
    """Names one below the other, each with its mean and bar."""
    figure, axes = new_figure(6.6, 0.9 + 0.36 * len(rows))
    means, bars = _with_bars(rows.values())
    axes.errorbar(means, range(len(rows)), xerr=bars, fmt="o", color=BLUE, ms=6, capsize=3)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(what)
    return figure
