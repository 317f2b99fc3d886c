"""The look of the course's pictures: one call at the top of a chapter."""

from gptcls.evaluation.plots import BLUE, GREEN, GREY, VERMILION

# The rest of Okabe and Ito's colours that show on white.
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY)


def use_style() -> None:
    """Set pyplot's defaults: legible sizes, colours for every colour vision, nothing clipped, 100 dpi.

    It changes matplotlib's global state, so the library never calls it; its own pictures do not need it.
    """
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcdefaults()
    plt.rc("figure", dpi=100, figsize=(7.2, 3.8), facecolor="white")  # transparent: unreadable on a dark page
    plt.rc("figure.constrained_layout", use=True)
    plt.rc("font", size=11)
    plt.rc("axes", titlesize=12, titlelocation="left", axisbelow=True, prop_cycle=cycler(color=CYCLE))
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("grid", alpha=0.3)
    plt.rc("legend", frameon=False)
    plt.rc("image", cmap="cividis")
