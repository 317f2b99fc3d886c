"""The colours of all pictures, and the look of the course's: one call at the top of a chapter."""

# Okabe and Ito's colours that show on white, told apart by every colour vision (https://jfly.uni-koeln.de/color/).
BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
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
