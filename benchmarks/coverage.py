"""python -m benchmarks.coverage: how often a 95 % interval holds the truth, by simulation.

First the macro-F1 of N texts of K classes, whose true confusion is known: the percentile bootstrap, and the
interval that a run prints. Then the mean accuracy of five seeds that split the same rows anew, whose truth is
the mean over fresh rows: Student's interval, and Nadeau and Bengio's. 95 of 100 should hold it.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.over_seeds import markdown
from gptcls.common import cli
from gptcls.evaluation.intervals import bootstrap_interval, f1_interval, mean_interval
from gptcls.evaluation.metrics import counts_per_text, f1_of_sums

# Classes, texts, share right, and whether the classes are of one size or of 1, 1/2, 1/3, …
CASES = (
    (3, 4, 0.9, True), (3, 20, 0.98, True), (3, 100, 0.99, True), (3, 100, 0.8, True), (6, 500, 0.93, False),
    (6, 500, 0.995, False), (10, 50, 0.98, False), (20, 100, 0.9, True), (20, 400, 0.7, False),
    (50, 250, 0.97, True), (50, 1000, 0.85, False),
)  # fmt: skip
SPLITS = ((300, 2), (300, 20), (1000, 20))  # rows, and how many numbers each has
SEEDS, TEST, TRAIN = 5, 0.2, 0.7


@dataclass(frozen=True, kw_only=True)
class Options:
    """Simulate, and print the shares of intervals that hold the truth."""

    draws: int = 200
    """Data sets of each line; the share of 200 is known to 1.5 points."""
    seed: int = 0
    """Of the random numbers."""


def confusion(n_classes: int, accuracy: float, even: bool) -> np.ndarray:
    """The true shares (K, K), rows true, columns predicted; errors fall on the others by their sizes."""
    sizes = np.ones(n_classes) if even else 1 / np.arange(1, n_classes + 1)
    sizes /= sizes.sum()
    wrong = np.tile(sizes, (n_classes, 1))
    np.fill_diagonal(wrong, 0)
    wrong *= (1 - accuracy) / wrong.sum(axis=1, keepdims=True)
    return sizes[:, None] * (wrong + accuracy * np.eye(n_classes))


def of_f1(options: Options, n_classes: int, n: int, accuracy: float, even: bool) -> list[str]:
    """A line of the first table."""
    random, shares = np.random.default_rng(options.seed), confusion(n_classes, accuracy, even)
    truth = (2 * np.diag(shares) / (shares.sum(axis=0) + shares.sum(axis=1))).mean()
    one_hot, statistic = np.eye(n_classes, dtype=bool), partial(f1_of_sums, over="seen")
    held, widths = np.zeros(2), np.zeros(2)
    for _ in range(options.draws):
        true, predicted = divmod(random.choice(n_classes**2, n, p=shares.ravel()), n_classes)
        counts = counts_per_text(one_hot[true], one_hot[predicted])
        value = statistic(counts.sum(axis=0)[None]).item()
        ends = np.array([bootstrap_interval(counts, statistic), f1_interval(counts, "seen", value)])
        held += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
        widths += ends[:, 1] - ends[:, 0]
    found = [
        f"{100 * h:.0f} ({w:.3f})" for h, w in zip(held / options.draws, widths / options.draws, strict=True)
    ]
    return [f"{n_classes}{'' if even else ', uneven'}", str(n), f"{truth:.3f}", *found]


def of_seeds(options: Options, n: int, width: int) -> list[str]:
    """A line of the second table: two classes of normal vectors, told apart by the nearer mean."""
    random, distance = np.random.default_rng(options.seed), 1.5
    n_train, n_test = round(TRAIN * n), round(TEST * n)

    def rows(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = random.integers(0, 2, number)
        vectors = random.normal(size=(number, width))
        vectors[:, 0] += distance * labels
        return vectors, labels

    def accuracy(train: tuple, test: tuple) -> float:
        means = np.stack([train[0][train[1] == one].mean(axis=0) for one in (0, 1)])
        nearer = ((test[0][:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        return float((nearer == test[1]).mean())

    truth = np.mean([accuracy(rows(n_train), rows(1000)) for _ in range(500)])
    held, many = np.zeros(2), 5 * options.draws  # each is quick
    for _ in range(many):
        vectors, labels = rows(n)
        scores = []
        for _ in range(SEEDS):
            order = random.permutation(n)
            train, test = order[:n_train], order[n_train : n_train + n_test]
            scores.append(accuracy((vectors[train], labels[train]), (vectors[test], labels[test])))
        for i, overlap in enumerate((0.0, TEST / TRAIN)):
            _, low, high = mean_interval(scores, overlap=overlap)
            held[i] += low <= truth <= high
    return [f"{n}, {width} numbers each", f"{truth:.3f}", *(f"{100 * share:.0f}" for share in held / many)]


def run(options: Options) -> None:
    """Simulate and print."""
    lines = [["classes", "texts", "true macro-F1", "percentile bootstrap, % (width)", "a run's, % (width)"]]
    print(markdown([*lines, *(of_f1(options, *case) for case in CASES)]), flush=True)
    lines = [["rows", "true accuracy", "Student's, %", "Nadeau and Bengio's, %"]]
    print("\n" + markdown([*lines, *(of_seeds(options, *case) for case in SPLITS)]), flush=True)


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
