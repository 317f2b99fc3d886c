"""What the pictures share: an empty figure, colours, and names that the fonts at hand can draw."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gptcls.evaluation.table import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

logger = logging.getLogger("gptcls")

# Okabe and Ito's colours, told apart by readers of every colour vision (https://jfly.uni-koeln.de/color/).
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
LONGEST = 28  # characters of a label name that are drawn
# With Chinese glyphs, on Linux, Windows and macOS: they help out where matplotlib's own font has none.
FALLBACK_FONTS = "Noto Sans CJK SC, WenQuanYi Micro Hei, Microsoft YaHei, Hiragino Sans GB, Arial Unicode MS"


def new_figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """A figure of that many inches and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot()


def say(axes: "Axes", text: str, **style) -> None:
    """Words in place of a drawing."""
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, **style)


def drawable(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names on one line, shortened to 28 characters, and the font families to draw them with.

    A name without glyphs in any of these fonts would come out as empty boxes: it becomes "class 3",
    its number in ``labels``, and that is logged.
    """
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    installed = {entry.name for entry in fontManager.ttflist}
    families = ["sans-serif", *(font for font in FALLBACK_FONTS.split(", ") if font in installed)]
    glyphs: set[int] = set()
    for family in families:
        glyphs.update(get_font(findfont(FontProperties(family=[family]))).get_charmap())
    names = []
    for number, label in enumerate(labels):
        name = shortened(" ".join(label.split()), LONGEST)
        if not name or not glyphs.issuperset(map(ord, name)):
            reason = "label %r: no font here can draw it, the picture says class %d (install Noto Sans CJK?)"
            logger.info(reason, label, number)
            name = f"class {number}"
        names.append(name)
    return names, families
