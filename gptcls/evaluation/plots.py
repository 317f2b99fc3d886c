"""Pictures of a run. Each function returns a Figure and neither shows nor saves it.

Figures are built without pyplot, so drawing touches no global state and needs no display:
``plot_history(rows).savefig("loss.png")``. Lines differ in dash and marker as well as in colour.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gptcls.common.log import log
from gptcls.evaluation.intervals import wilson_interval
from gptcls.evaluation.metrics import MEASURES
from gptcls.evaluation.style import BLUE, GREEN, GREY, VERMILION
from gptcls.evaluation.table import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# With Chinese glyphs, on Linux, Windows and macOS: they help out where matplotlib's own font has none.
FALLBACK_FONTS = "Noto Sans CJK SC, WenQuanYi Micro Hei, Microsoft YaHei, Hiragino Sans GB, Arial Unicode MS"
LONGEST = 28  # characters of a label name that are drawn
UNITS = {"loss": "nats", "accuracy": "%"}
CELL_TEXT_CLASSES = 12  # beyond so many classes the numbers no longer fit their cells
MOST_LABELS, MOST_NUMBERS = 60, 6  # on one axis, in one picture


def new_figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of that many inches and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot()


def _write_instead(axes: "Axes", text: str, **style) -> None:
    """Words in place of a drawing."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, **style)


def drawable(labels: Sequence[str], kind: str = "class", longest: int = LONGEST) -> tuple[list[str], dict]:
    """Names on one line, shortened to ``longest`` characters, and the style of text to draw them in. A name
    without glyphs in its fonts, which would come out as empty boxes, becomes "class 3", its ``kind`` and its
    number in ``labels``, and that is logged."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    installed = {entry.name for entry in fontManager.ttflist}
    families = ["sans-serif", *(font for font in FALLBACK_FONTS.split(", ") if font in installed)]
    fonts = (get_font(findfont(FontProperties(family=[family]))) for family in families)
    glyphs = set().union(*(font.get_charmap() for font in fonts))
    names = []
    for number, label in enumerate(labels):
        name = shortened(" ".join(label.split()), longest)
        if not name or not glyphs.issuperset(map(ord, name)):
            name = f"{kind} {number}"
            what = "label" if kind == "class" else kind
            instead = f"so it is {name!r} (install Noto Sans CJK?)"
            log.info(f"{what} {label!r}: no font here can draw it, {instead}")
        names.append(name)
    return names, {"parse_math": False, "fontfamily": families}


def _floats(values: Iterable[float | str | None]) -> np.ndarray:
    return np.array([math.nan if value is None or value == "" else float(value) for value in values])


def _counted(rows: np.ndarray, n_all: float = 0) -> str:
    """How many rows the points of a line looked at, where that is known, and whether these were all."""
    most = rows[np.isfinite(rows)].max(initial=0)
    return f", all {most:,.0f} rows" if most and most == n_all else f", {most:,.0f} rows" if most else ""


def plot_history(
    rows: Iterable[Mapping], label: str = "loss", kept_epoch: int | None = None, unit: str | None = None
) -> "Figure":
    """Training and validation against epochs (below) and examples seen (above), as in the book's chapter 6.

    A row per evaluation has ``epoch`` (epochs seen, may be fractional), ``examples_seen``, ``train_{label}``
    and ``val_{label}`` of a measure such as "loss"; a value that is absent, None, empty or not finite is left
    out. ``full_val_{label}`` was measured on all validation rows at the end of an epoch. It is drawn next to
    the samples or, where these were all rows as well (``train_rows`` and ``val_rows`` say how many), together
    with them. A line marks ``kept_epoch``, from which early stopping took the weights. The unit "%" is for
    shares between 0 and 1, shown in per cent; by default losses are in nats and accuracies such shares.
    """
    from matplotlib.ticker import MaxNLocator

    rows, unit = list(rows), UNITS.get(label, "") if unit is None else unit
    columns = ("epoch", "examples_seen", f"train_{label}", f"val_{label}", f"full_val_{label}")
    epochs, examples, train, val, full = (_floats(row.get(column) for row in rows) for column in columns)
    figure, axes = new_figure(6.4, 4.0)
    timed = np.isfinite(epochs)
    counts = ("train_rows", "val_rows", "full_val_loss")
    n_train, n_val, judged = (_floats(row.get(column) for row in rows) for column in counts)
    n_all = n_val[np.isfinite(judged)].max(initial=0)
    if n_all and (n_val[np.isfinite(val)] == n_all).all():  # one line tells it all
        val, full = np.where(np.isfinite(val), val, full), np.full_like(full, np.nan)
    lines = (
        (f"Training {label}{_counted(n_train[np.isfinite(train)])}", train, BLUE, "-", "o"),
        (f"Validation {label}{_counted(n_val[np.isfinite(val)], n_all)}", val, VERMILION, "--", "s"),
        (f"Validation {label}{_counted(n_val[np.isfinite(full)], n_all)}", full, GREEN, "-", "^"),
    )
    for name, values, colour, dash, marker in lines:
        known = np.isfinite(values) & timed
        if known.any():
            shape = marker if known.sum() <= 25 or values is full else ""  # a lone point shows only by it
            size = 5 if values is full else 4
            axes.plot(epochs[known], values[known], dash + shape, color=colour, ms=size, label=name)
    axes.set(xlabel="Epochs", ylabel=label[:1].upper() + label[1:] + (f" ({unit})" if unit else ""))
    axes.grid(alpha=0.3)
    if unit == "%":
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    if not axes.lines:
        _write_instead(axes, f"no {label} was recorded")
        return figure
    last = np.nanmax(epochs)
    if last > 0:  # from the start of training, so that one evaluation alone has a place in it
        axes.set_xlim(-0.03 * last, 1.03 * last)
    if last >= 2:
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    if kept_epoch:
        axes.axvline(kept_epoch, color=GREY, ls=":", label=f"Weights kept: epoch {kept_epoch}")
    axes.legend()
    known = timed & np.isfinite(examples) & (epochs > 0)
    rate = examples[known][-1] / epochs[known][-1] if known.any() else 0
    if rate > 0:  # a second x-axis on top; an epoch always holds the same number of examples
        top = axes.secondary_xaxis("top", functions=(lambda epoch: epoch * rate, lambda seen: seen / rate))
        top.set_xlabel("Examples seen")
    return figure


# --- one class per text ---


def plot_confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> "Figure":
    """Confusion matrix (K, K), rows true and columns predicted, coloured by the percentage of its row.

    Each cell shows the count and that percentage; with more than 12 classes the colour speaks alone.
    ValueError for another shape.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    counts, n_classes = np.asarray(matrix), len(labels)
    if counts.shape != (n_classes, n_classes):
        raise ValueError(f"confusion matrix of shape {counts.shape}: {n_classes} labels need a square")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    with_text = n_classes <= CELL_TEXT_CLASSES
    side = min(2.6 + n_classes * (0.75 if with_text else 0.24), 16)
    size = 10 if n_classes <= 6 else 8
    figure, axes = new_figure(side if with_text else side + 1, side)
    # Without numbers the square root spreads the few per cent where the errors of many classes lie.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(1 if with_text else 0.5, vmin=0, vmax=1))
    axes.set_facecolor("#e5e5e5")  # shows where a label has no text
    if not with_text:
        bar = figure.colorbar(image, ax=axes, aspect=40, pad=0.02, label="Share of the true label (%)")
        axes.set_aspect("auto")  # with a bar, forced squares defeat the constrained layout: text is cut off
        bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=None))
    for (row, column), share in np.ndenumerate(shares) if with_text else ():
        known = np.isfinite(share)
        text = f"{counts[row, column]:,}" + (f"\n{100 * share:.1f} %" if known else "")
        colour = "white" if known and _luminance(image.cmap(image.norm(share))) < 0.18 else "black"
        axes.text(column, row, text, ha="center", va="center", size=size, color=colour)
    names, style = drawable(labels)
    step = math.ceil(n_classes / MOST_LABELS)
    ticks, shown, style["size"] = range(0, n_classes, step), names[::step], size
    axes.set_yticks(ticks, shown, **style)
    if not with_text:
        style["rotation"] = 90
    elif n_classes > 6 or max(map(len, names)) > 8:
        style |= {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(ticks, shown, **style)
    axes.set(xlabel="Predicted label", ylabel="True label (% of each row)" if with_text else "True label")
    return figure


def plot_precision_recall(
    targets: Sequence[int], positive_scores: Sequence[float], label: str, threshold: float = 0.5
) -> "Figure":
    """Precision against recall of one class over all thresholds, with its average precision.

    ``targets`` (N,) are 1 where the text is of the class, else 0; ``positive_scores`` (N,) are the class's
    probabilities, ValueError for another shape. Next to the curve: a classifier without skill (precision =
    share of the class in the data) and the point of the threshold, where scores above it are called positive,
    as above 0.5 the largest of two probabilities is.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    targets, scores = np.asarray(targets).astype(bool), np.asarray(positive_scores, dtype=float)
    if targets.ndim != 1 or targets.shape != scores.shape:
        raise ValueError(f"targets {targets.shape} and scores {scores.shape}: give two of shape (N,)")
    (name,), style = drawable([label])
    figure, axes = new_figure(5.6, 5.4)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel(f"Recall of {name} (share found)", **style)
    axes.set_ylabel(f"Precision of {name} (share right)", **style)
    axes.grid(alpha=0.3)
    if not targets.any():
        _write_instead(axes, f"undefined: none of {len(targets)} texts is {name}", **style)
        return figure
    precision, recall, _ = precision_recall_curve(targets, scores, drop_intermediate=True)
    curve = f"classifier: average precision {average_precision_score(targets, scores):.3f}"
    # Steps, not slopes: between two thresholds precision does not run straight (Davis and Goadrich 2006).
    axes.plot(recall, precision, color=BLUE, drawstyle="steps-post", label=curve, zorder=3)
    chance = f"no skill: precision {targets.mean():.3f}, the share of the class"
    axes.axhline(targets.mean(), color=GREY, ls="--", label=chance)
    found = scores > threshold
    if found.any():
        hits = (targets & found).sum()
        point = hits / targets.sum(), hits / found.sum()
        text = f"threshold {threshold:.3g}: recall {point[0]:.3f}, precision {point[1]:.3f}"
        axes.plot(*point, "o", color=VERMILION, ms=8, mec="white", label=text, clip_on=False, zorder=4)
    else:
        axes.plot([], [], " ", label=f"threshold {threshold:.3g}: no text lies above it")
    figure.legend(loc="outside lower center", frameon=False)
    return figure


def plot_reliability(calibration: Mapping, positive: str = "") -> "Figure":
    """Of each bin of probabilities the share that came true with its Wilson interval, and below how many
    there are. ``calibration`` is that of ``calibration_scores``, ``positive`` the second of two classes."""
    figure, _ = new_figure(5.4, 5.8)
    figure.clear()
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    counts.set_xlabel("Probability that the classifier gives")
    if not (bins := calibration["bins"]):
        _write_instead(axes, "no texts")
        return figure
    n, mean, share = (np.array([row[name] for row in bins]) for name in ("n", "probability", "share"))
    ends = np.array([wilson_interval(round(a * b), b) for a, b in zip(share, n.tolist(), strict=True)]).T
    axes.plot([0, 1], [0, 1], ls="--", color=GREY, label="as sure as it should be")
    axes.errorbar(mean, share, abs(ends - share), fmt="none", ecolor=BLUE, alpha=0.5, capsize=3)
    axes.plot(mean, share, "o-", color=BLUE, ms=6, mec="white", clip_on=False, zorder=3,
              label="found, with its 95 % interval")  # fmt: skip
    (name,), style = drawable([positive]) if positive else (["came true"], {})
    axes.set_ylabel(f"Share that is {name}" if positive else "Share that came true", **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    low, ece, high = (100 * calibration[key] for key in ("ece_low", "ece", "ece_high"))
    axes.set_title(f"Calibration error (ECE) {ece:.1f} % [{low:.1f}, {high:.1f}]", size=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    left = np.minimum((mean * 10).astype(int), 9) / 10
    counts.bar(left + 0.05, n, width=0.094, color=BLUE, alpha=0.55)
    counts.set_yscale("log")
    counts.yaxis.set_major_formatter("{x:g}")
    counts.set(ylim=(0.7, 2 * n.max()), ylabel="How many")
    for each in (axes, counts):
        each.grid(alpha=0.3)
        each.set_axisbelow(True)
    return figure


LEVELS_DRAWN = (0.5, 0.7, 0.9, 0.95, 0.99)


def plot_coverage(confidence: np.ndarray, right: np.ndarray, abstain: float = 0.0) -> "Figure":
    """The share of right answers among the texts that are answered, surest first, against their share of all;
    confidences and whether the answers are right (N,). Marks: a few least confidences, and ``abstain``."""
    figure, axes = new_figure(6.0, 4.6)
    axes.set(xlabel="Answered (% of all texts)", ylabel="Right (% of the answers)")
    if not (n_all := len(right)):
        _write_instead(axes, "no texts")
        return figure
    order = np.argsort(-confidence, kind="stable")
    n, hits, levels = np.arange(1, n_all + 1), right[order].cumsum(), confidence[order]
    ends = np.append(levels[1:] < levels[:-1], True)  # texts of one confidence are answered together
    n, hits = n[ends], hits[ends]
    bounds = 100 * np.array([wilson_interval(int(h), int(m)) for h, m in zip(hits, n, strict=True)]).T
    axes.plot(100 * n / n_all, 100 * hits / n, color=BLUE, label="surest first", zorder=3)
    axes.fill_between(100 * n / n_all, *bounds, color=BLUE, alpha=0.15, lw=0, label="95 % interval")
    drawn = [level for level in LEVELS_DRAWN if level != abstain and (confidence >= level).any()]
    at = [(level, GREY, "white", "" if i else "at least so sure") for i, level in enumerate(drawn)]
    at += [(abstain, VERMILION, VERMILION, f"unsure below {abstain:g}")] * (abstain > 0)
    for level, edge, face, label in at:
        if (some := confidence >= level).any():
            x, y = 100 * some.mean(), 100 * right[some].mean()
            axes.plot(x, y, "o", ms=7, mec=edge, mfc=face, label=label or None, zorder=4, clip_on=False)
            axes.annotate(f"{level:g}", (x, y), (0, 7), textcoords="offset points", ha="center", size=8)
    overall = 100 * right.mean()
    axes.axhline(overall, color=GREY, ls="--", label=f"all answered: {overall:.1f} %")
    lowest = min(overall, *(100 * right[confidence >= level].mean() for level in (0.0, abstain)
                            if (confidence >= level).any()), *bounds[0][n > 0.2 * n_all])  # fmt: skip
    axes.set(xlim=(0, 101), ylim=(max(0, lowest - 3), 101.5))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (WCAG 2.2); below 0.18 white reads better on it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --- labels and numbers ---


def plot_label_scores(per_class: Mapping[str, Mapping]) -> "Figure":
    """F1 of each label as a bar, its precision and recall as marks, best label on top.

    With more than 60 labels the 60 with the most texts are drawn. A label without an F1 (no text and no
    prediction) stands below the others without a bar. ``per_class`` is that of ``multilabel_scores``.
    """
    shown = sorted(per_class, key=lambda label: -per_class[label]["support"])[:MOST_LABELS]
    shown.sort(key=lambda label: -1.0 if per_class[label]["f1"] is None else per_class[label]["f1"])
    names, style = drawable(shown)
    n_shown, n_all, rows = len(shown), len(per_class), np.arange(len(shown))
    figure, axes = new_figure(7.0, 1.5 + 0.26 * n_shown)
    precision, recall, f1 = (_floats(per_class[label][measure] for label in shown) for measure in MEASURES)
    axes.barh(rows, np.nan_to_num(f1), color=BLUE, alpha=0.55, height=0.7, label="F1")
    axes.plot(precision, rows, ">", mfc=VERMILION, mec=VERMILION, ms=5, label="Precision")
    axes.plot(recall, rows, "o", mfc="white", mec="black", ms=5, label="Recall")
    ticks = [f"{name} ({per_class[label]['support']:,})" for name, label in zip(names, shown, strict=True)]
    axes.set_yticks(rows, ticks, size=8, **style)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.7, n_shown - 0.3), axisbelow=True)
    more = f"; the {n_shown} most frequent of {n_all}" if n_shown < n_all else ""
    axes.set_xlabel(f"F1, precision and recall of each label (number of its texts{more})")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_predictions(targets: np.ndarray, predictions: np.ndarray, labels: Sequence[str]) -> "Figure":
    """Predicted against true numbers (N, K), a panel per number (at most six); on the line they are equal."""
    names, style = drawable(labels[:MOST_NUMBERS])
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure, first = new_figure(1.0 + 4.0 * columns, 0.6 + 4.0 * rows)
    first.remove()
    n = len(targets)
    alpha = min(0.8, max(0.12, 400 / max(1, n)))  # so that many points still show where they are dense
    dots = {"color": BLUE, "ms": 4, "mew": 0, "alpha": alpha, "rasterized": True, "label": f"a text ({n:,})"}
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        if len(names) > 1:
            axes.set_title(name, size=10, **style)
        if n == 0:
            _write_instead(axes, "no texts")
            continue
        pair = np.asarray(targets)[:, i], np.asarray(predictions)[:, i]
        ends = [np.min(pair), np.max(pair)]
        axes.plot(ends, ends, color=GREY, ls="--", label="predicted = true", zorder=3)
        axes.plot(*pair, "o", **dots)
        axes.set(xlabel="True value", ylabel="Predicted value")
        axes.grid(alpha=0.3)
        for handle in axes.legend(loc="best").legend_handles:
            handle.set_alpha(1)
    return figure


# --- runs ---


def plot_differences(pairs: Mapping[tuple[str, str], Mapping], name: str) -> "Figure":
    """The difference of one score with its interval, a line for each pair of runs; 0 is no difference."""
    unit = 1 if name in ("mae", "rmse") else 100
    named = [f"{shortened(one, 40)} less {shortened(other, 40)}" for one, other in pairs]
    names, style = drawable(named, longest=90)
    figure, axes = new_figure(8.0, 1.4 + 0.4 * len(pairs))
    axes.axvline(0, color=GREY, ls="--")
    for row, found in enumerate(pairs.values()):
        low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
        if low is not None and high is not None:
            axes.plot([unit * low, unit * high], [row, row], color=BLUE)
        axes.plot(unit * found[name], row, "o", color=BLUE)
    axes.set_yticks(range(len(pairs)), names, size=8, **style)
    axes.set(ylim=(len(pairs) - 0.5, -0.5))
    points = " (points)" if unit == 100 else ""
    axes.set_xlabel(f"Difference in {name.replace('_', ' ')}{points}, 95 % interval of pairs")
    axes.grid(axis="x", alpha=0.3)
    return figure
