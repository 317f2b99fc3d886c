"""The book's chapter 6 as one whole process, pictures included: what its reader waits for.

Started and timed by :mod:`benchmarks.finetune`. The last line of stdout is JSON: the seconds that training
and evaluations took here, and what they are for all of the steps.
"""

import argparse
import json
import os
from pathlib import Path

import torch

from benchmarks.book import EVAL_FREQ, Book
from benchmarks.measure import Stopwatch, quiet


def main() -> None:
    """Read, balance, split, load, train, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where its files go")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--eval-batches", type=int, default=4)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()

    os.environ["MPLBACKEND"] = "Agg"  # before the book's package imports matplotlib
    import pandas as pd
    from llms_from_scratch import ch06

    frame = pd.read_csv(options.data, sep="\t", header=None, names=["Label", "Text"])
    balanced = ch06.create_balanced_dataset(frame)
    balanced["Label"] = balanced["Label"].map({"ham": 0, "spam": 1})
    frames = ch06.random_split(balanced, 0.7, 0.1)
    options.folder.mkdir(parents=True, exist_ok=True)
    book = Book(options.weights, frames, options.folder, options.batch_size)
    with Stopwatch() as measured:
        seconds = book.seconds(options.epochs, options.steps, options.eval_batches, options.full)

    os.chdir(options.folder)  # plot_values saves where it stands
    n_points = -(-options.epochs * len(book.loaders[0]) // EVAL_FREQ)
    with quiet():
        for label, n in (("loss", n_points), ("accuracy", options.epochs)):
            values = [1 / (i + 1) for i in range(n)]  # a sample of the steps has no curve; any will do
            axis = torch.linspace(0, options.epochs, n)
            ch06.plot_values(axis, axis * len(frames[0]), values, values, label)
    print(json.dumps({"measured": measured.seconds, "scaled": seconds}))


if __name__ == "__main__":
    main()
