"""What the feature cache saves a search: GridSearchCV over learning rates and epochs, with and without it.

    python -m benchmarks.sklearn_search

Seconds are of the processor, so that other work on the machine counts little. Scores must be the same.
"""

import os
import time
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import tyro
from sklearn.model_selection import GridSearchCV

from gptcls.data.sources import load_data
from gptcls.sklearn import GPTClassifier


@dataclass(frozen=True)
class Settings:
    """Compare a search with and without the cache."""

    data: str = "sms-sample"
    """Labelled texts, a class each."""
    model: str = "gpt2-nano"
    """Network to search with."""
    preset: str = "quick"
    """What is trained, and for how long."""
    train: str | None = None
    """What is trained, where the preset is not to say."""
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    """Learning rates, the candidates."""
    folds: int = 3
    """Parts of the rows, each of which is tested on once."""


def search(settings: Settings, cache: str | None) -> tuple[float, list[float]]:
    """Seconds of the processor, and the mean scores of the candidates."""
    rows = load_data(settings.data)
    model = GPTClassifier(settings.model, preset=settings.preset, train=settings.train, cache=cache)
    start = time.process_time()
    grid = {"lr": list(settings.rates)}
    found = GridSearchCV(model, grid, cv=settings.folds, refit=False).fit(rows["text"], rows["label"])
    return time.process_time() - start, found.cv_results_["mean_test_score"].tolist()


def main() -> None:
    settings = tyro.cli(Settings)
    GPTClassifier(settings.model, epochs=1).fit([f"text {i}" for i in range(40)], [0, 1] * 20)  # warm
    with TemporaryDirectory() as folder:
        cached, scores = search(settings, folder)
    plain, expected = search(settings, None)
    fits = len(settings.rates) * settings.folds
    print(f"{fits} fits, {settings.model}, {settings.train or settings.preset}, {os.cpu_count()} cores")
    print(f"cache {cached:.1f} s, without {plain:.1f} s, ratio {plain / cached:.2f}")
    print("scores", *(f"{a:.4f} {b:.4f}" for a, b in zip(scores, expected, strict=True)), sep="  ")


if __name__ == "__main__":
    main()
