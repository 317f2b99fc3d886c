"""The look of the course's pictures: one call at the top of a chapter."""

from gptcls.evaluation.plots import BLUE, GREEN, GREY, VERMILION

# The rest of Okabe and Ito's colours that show on white.
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)


def use_style() -> None:
    """Set pyplot's defaults: legible sizes, colours for every colour vision, nothing clipped, 100 dpi.

    It changes matplotlib's global state, so the library itself never calls it; its own pictures
    (:mod:`gptcls.evaluation.plots`) do not need it.
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.figsize": (7.2, 3.8),
            "figure.facecolor": "white",  # a transparent one would be unreadable on a dark page
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=CYCLE),
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "image.cmap": "cividis",
        }
    )
