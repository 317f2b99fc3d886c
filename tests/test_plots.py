"""Pictures: what they show, and that nothing warns, crashes or falls off the edge."""

import logging
import subprocess
import sys
import warnings
from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_score, recall_score

from gptcls.evaluation.metrics import classification_scores
from gptcls.evaluation.plots import plot_confusion, plot_history, plot_precision_recall
from gptcls.evaluation.table import format_each

pytestmark = pytest.mark.draws

# The losses of the book's chapter 6 at steps 0, 50, ..., 600.
TRAIN = [2.153, 0.617, 0.523, 0.561, 0.419, 0.409, 0.333, 0.340, 0.136, 0.153, 0.222, 0.207, 0.083]
VALIDATION = [2.392, 0.637, 0.557, 0.489, 0.397, 0.353, 0.320, 0.306, 0.200, 0.132, 0.137, 0.143, 0.074]


def saved(figure, tmp_path):
    """Draw with every warning an error, and check that all text lies on the page."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0
    assert figure.dpi == 150
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert 0 <= drawn.x0 < drawn.x1 <= width
    assert 0 <= drawn.y0 < drawn.y1 <= height
    return figure


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def rows_of(*columns) -> list[dict]:
    names = ("epoch", "examples_seen", "train_loss", "val_loss")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def tick_names(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_values_stand_at_their_epochs_and_examples(tmp_path):
    epochs, examples = np.linspace(0, 5, 13), np.linspace(0, 5200, 13)
    axes = saved(plot_history(rows_of(epochs, examples, TRAIN, VALIDATION)), tmp_path).axes[0]
    train, validation = axes.lines
    assert list(train.get_xdata()) == list(epochs)
    assert list(train.get_ydata()) == TRAIN
    assert list(validation.get_ydata()) == VALIDATION
    assert [text.get_text() for text in axes.get_legend().texts] == ["Training loss", "Validation loss"]
    assert axes.get_ylabel() == "Loss (nats)"
    assert axes.get_xlabel() == "Epochs"
    (top,) = axes.child_axes
    assert top.get_xlabel() == "Examples seen"
    assert top.get_xlim() == pytest.approx([1040 * limit for limit in axes.get_xlim()])


def test_history_takes_the_rows_that_hold_the_measure(tmp_path):
    rows = [
        {"epoch": 0.5, "examples_seen": 50, "train_loss": 0.7, "val_loss": 0.8},
        {"epoch": 1.0, "examples_seen": 100, "train_accuracy": 0.9, "val_accuracy": None},
        {"epoch": 1.5, "examples_seen": 150, "train_loss": "0.5", "val_loss": ""},
        {"epoch": 2.0, "examples_seen": 200, "train_loss": float("nan"), "val_loss": float("inf")},
    ]
    loss = saved(plot_history(rows), tmp_path).axes[0]
    assert [list(line.get_xdata()) for line in loss.lines] == [[0.5, 1.5], [0.5]]
    accuracy = saved(plot_history(rows, "accuracy"), tmp_path).axes[0]
    assert accuracy.get_ylabel() == "Accuracy (%)"
    assert len(accuracy.lines) == 1
    assert accuracy.yaxis.get_major_formatter()(0.9) == "90"


def test_the_legend_says_how_many_rows_each_point_looked_at(tmp_path):
    points = [
        {"epoch": e, "train_loss": 1.0, "val_loss": 2.0, "train_rows": 40, "val_rows": 200} for e in (0, 0.5)
    ]
    end = {"epoch": 1.0, "train_rows": 196, "val_rows": 516, "full_val_loss": 3.0}
    measured = end | {"train_accuracy": 0.9, "val_accuracy": 0.8}

    def legend(rows: list[dict], label: str) -> list[str]:
        return [
            text.get_text() for text in saved(plot_history(rows, label), tmp_path).axes[0].get_legend().texts
        ]

    train, val = "Training loss, 40 rows", "Validation loss, 200 rows"
    assert legend([*points, measured], "loss") == [train, val, "Validation loss, all 516 rows"]
    names = ["Training accuracy, 196 rows", "Validation accuracy, all 516 rows"]
    assert legend([*points, measured], "accuracy") == names
    everything = [*points, end | {"val_rows": 200}]
    assert legend(everything, "loss") == [train, "Validation loss, all 200 rows"]
    line = plot_history(everything).axes[0].lines[1]
    assert list(line.get_ydata()) == [2.0, 2.0, 3.0], "one line, through both kinds of points"


@pytest.mark.parametrize("validation", [{}, {"val_loss": None}])
def test_one_row_without_validation(validation, tmp_path):
    axes = saved(
        plot_history([{"epoch": 1, "examples_seen": 1040, "train_loss": 0.5, **validation}]), tmp_path
    ).axes[0]
    assert len(axes.lines) == 1
    assert axes.lines[0].get_marker() == "o"


def test_nothing_recorded(tmp_path):
    assert texts(saved(plot_history([]), tmp_path)) == ["no loss was recorded"]
    saved(plot_history(rows_of([0], [0], [0.5], [0.6])), tmp_path)


def test_confusion_shows_counts_and_row_percentages(tmp_path):
    figure = saved(plot_confusion([[147, 2], [7, 144]], ["ham", "spam"]), tmp_path)
    # 147 / 149, 2 / 149, 7 / 151, 144 / 151
    assert texts(figure) == ["147\n98.7 %", "2\n1.3 %", "7\n4.6 %", "144\n95.4 %"]
    assert tick_names(figure.axes[0].yaxis) == ["ham", "spam"]
    assert "Predicted" in figure.axes[0].get_xlabel()
    assert "True" in figure.axes[0].get_ylabel()


def luminance(colour) -> float:
    """WCAG 2.2, relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_cell_text_reads_on_every_colour():
    for hits in range(101):
        figure = plot_confusion([[hits, 100 - hits], [0, 1]], ["a", "b"])
        image = figure.axes[0].images[0]
        background = luminance(image.cmap(image.norm(hits / 100)))
        ink = {"white": 1.0, "black": 0.0}[figure.axes[0].texts[0].get_color()]
        contrast = (max(ink, background) + 0.05) / (min(ink, background) + 0.05)
        assert contrast >= 4.5, hits  # WCAG's level AA


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [7, 12, 13, 28, 40, 150])
def test_confusion_of_many_classes(n_classes, tmp_path):
    matrix = np.random.default_rng(0).integers(0, 50, (n_classes, n_classes))
    matrix[3] = 0  # a label without texts
    figure = saved(plot_confusion(matrix, [f"a rather long label {k}" for k in range(n_classes)]), tmp_path)
    assert len(texts(figure)) == (n_classes**2 if n_classes <= 12 else 0)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [label.get_window_extent() for label in axis.get_ticklabels()]
        assert 7 <= len(boxes) <= 60
        if n_classes > 12:  # slanted names may share a bounding box without touching
            assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert max(figure.get_size_inches()) < 18


def test_awkward_names(tmp_path, caplog):
    long = "a name that goes on and on, well beyond what fits beside a picture"
    names = ["$\\frac{$", "two\nlines", long, "_x", "", "\U0010fffd"]
    with caplog.at_level(logging.INFO, logger="gptcls"):
        figure = saved(plot_confusion(np.eye(6, dtype=int), names), tmp_path)
    shown = tick_names(figure.axes[0].xaxis)
    assert shown[:2] == ["$\\frac{$", "two lines"]
    assert shown[3:] == ["_x", "class 4", "class 5"]
    begin, end = shown[2].split("…")
    assert long.startswith(begin)
    assert long.endswith(end)
    assert len(shown[2]) <= 28
    assert "class 5" in caplog.text
    saved(plot_precision_recall([0, 1], [0.2, 0.8], "$\\frac{$"), tmp_path)


def test_long_names_with_one_prefix_differ(tmp_path):
    topics = ("delivery", "invoice", "a broken part")
    names = [f"complaint of a registered customer about {topic}" for topic in topics]
    figure = saved(plot_confusion(np.eye(3, dtype=int), names), tmp_path)
    shown = tick_names(figure.axes[0].xaxis)
    assert all(name.endswith(topic) for name, topic in zip(shown, topics, strict=True))
    assert max(map(len, shown)) <= 28
    scores = classification_scores(np.arange(3), np.eye(3), names)
    report = format_each(scores)
    assert all(topic in report for topic in topics)


def test_chinese_names(tmp_path):
    names = ["财经", "房产", "股票"]
    figure = saved(plot_confusion(np.eye(3, dtype=int), names), tmp_path)
    assert tick_names(figure.axes[0].xaxis) in (
        names,
        ["class 0", "class 1", "class 2"],
    )  # by installed fonts
    saved(plot_precision_recall([0, 1], [0.2, 0.8], "财经"), tmp_path)


def test_confusion_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        plot_confusion([[1, 2], [3, 4]], ["a", "b", "c"])


def test_precision_recall_equals_scikit_learn(tmp_path):
    generator = np.random.default_rng(0)
    targets = generator.random(400) < 0.2
    scores = 1 / (1 + np.exp(1 - 2 * targets + generator.normal(size=400)))
    figure = saved(plot_precision_recall(targets.astype(int), scores, "spam"), tmp_path)
    curve, chance, point = figure.axes[0].lines
    recall, precision = curve.get_xdata(), curve.get_ydata()
    assert curve.get_drawstyle() == "steps-post"
    area = -np.sum(np.diff(recall) * precision[:-1])  # the steps drawn enclose the average precision
    assert area == pytest.approx(average_precision_score(targets, scores))
    assert f"{area:.3f}" in curve.get_label()
    assert chance.get_ydata()[0] == pytest.approx(targets.mean())
    expected = recall_score(targets, scores > 0.5), precision_score(targets, scores > 0.5)
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx(expected)


def test_precision_recall_without_positives_or_finds(tmp_path):
    for targets, scores in ([[0, 0], [0.1, 0.9]], [[], []]):
        figure = saved(plot_precision_recall(targets, scores, "spam"), tmp_path)
        assert "undefined" in texts(figure)[0]
    figure = saved(plot_precision_recall([0, 1], [0.1, 0.5], "spam"), tmp_path)
    assert "no text" in figure.axes[0].lines[-1].get_label()
    with pytest.raises(ValueError, match=r"\(2,\)"):
        plot_precision_recall([0, 1], [0.5], "spam")


def test_no_global_state():
    code = (
        "import sys; from gptcls.evaluation.plots import plot_history as plot; plot([]); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "matplotlib.figure" in loaded
    assert "matplotlib.pyplot" not in loaded
