"""python -m benchmarks.baseline: the baseline of every run against TF-IDF of words, and the seconds it takes.

At most 10,000 rows of each data set, without repeated texts, split as a run splits them; a test part that
a set has of its own stays whole. The plain pipeline next to it is TF-IDF of words (of Chinese, of
characters and pairs of them) and logistic regression, C=10, of several labels one against the rest with
thresholds of 0.5. The seconds are those of the whole baseline: vectors, choice, scores of all parts.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.datasets import DATA, SETS
from benchmarks.over_seeds import markdown
from gptcls.common import cli
from gptcls.core.tasks import TASKS
from gptcls.data.corpora import load_parts
from gptcls.data.labels import KINDS, Layout
from gptcls.data.split import drop_duplicates, make_split
from gptcls.evaluation.baselines import TFIDF, Model, Parts, tfidf_baseline
from gptcls.evaluation.judge import Judge, judge_of

ROWS = 10_000
HEADS = ["", "training texts", "characters each", "classes", "words, C=10", "baseline", "CPU s"]
CORPORA = {  # name -> folder, task; in benchmarks.datasets are the others
    "thucnews": ("thucnews", "single"),
    "chnsenticorp": ("chnsenticorp", "single"),
    "movie-reviews": ("movie_reviews", "single"),
    "goemotions": ("goemotions", "multi"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How strong the baseline of every run is, and what it costs."""

    data: Path = DATA
    """Folder of the data sets."""
    sets: tuple[str, ...] = ("rt_polarity", "trec6", "sms", "thucnews", *list(CORPORA)[1:])
    """Data sets."""
    seed: int = 123
    """Of what is drawn."""


def compared(name: str, options: Options) -> list[str]:
    """A line of the table."""
    folder, task = CORPORA.get(name, ("", "single"))
    kind = KINDS[task]
    corpus = f"{name}:{options.data / folder}"
    parts = load_parts(corpus, layout=Layout(kind)) if folder else SETS[name].read(options.data)
    rows, test = drop_duplicates(parts["train"], kind), parts.get("test")
    rows = rows.sample(min(ROWS, len(rows)), random_state=options.seed).reset_index(drop=True)
    split = make_split(rows, test=test, seed=options.seed, kind=kind)
    judge = judge_of(TASKS[task].for_training(split.train["label"].tolist()))
    targets = {part: judge.task.targets(frame["label"].tolist()).numpy() for part, frame in split.items()}
    parts = {part: (frame["text"].tolist(), targets[part]) for part, frame in split.items()}
    before = time.process_time()
    found = judge.rivals(judge.task.labels).scores(parts)[TFIDF]["test"]
    seconds = time.process_time() - before
    texts, labels = parts["train"][0], judge.task.labels
    shape = [f"{len(texts):,}", f"{sum(map(len, texts)) / len(texts):,.0f}", str(len(labels))]
    return [name, *shape, _shown(_of_words(parts, judge)), _shown(found), f"{seconds:.1f}"]


def _of_words(parts: Parts, judge: Judge) -> dict:
    """The test scores of TF-IDF of words."""
    from sklearn.multiclass import OneVsRestClassifier

    (texts, targets), (test_texts, test_targets) = parts["train"], parts["test"]
    if targets.ndim == 1:
        model = tfidf_baseline(texts=texts).fit(texts, targets)
        shares = class_probabilities(model, test_texts, len(judge.task.labels))
    else:
        shares = (
            OneVsRestClassifier(tfidf_baseline(texts=texts)).fit(texts, targets).predict_proba(test_texts)
        )
    return judge.scores(test_targets, shares)


def class_probabilities(model: Model, texts: Sequence[str], n_classes: int) -> np.ndarray:
    """``model.predict_proba`` as (N, K), with zeros for the classes that its training texts lacked."""
    probabilities = np.zeros((len(texts), n_classes))
    if len(texts):  # scikit-learn refuses an empty list
        probabilities[:, model.classes_] = model.predict_proba(list(texts))
    return probabilities


def _shown(scores: dict) -> str:
    """Accuracy in per cent or micro-F1, with its interval."""
    name, form = ("accuracy", "{:.1%}") if "accuracy" in scores else ("micro_f1", "{:.3f}")
    value, low, high = (form.format(scores[name + end]).rstrip("%") for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def run(options: Options) -> None:
    """Compare and print."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    print(markdown([HEADS, *(compared(name, options) for name in options.sets)]))
    print("\nTest accuracy in per cent, of goemotions micro-F1, with 95 % intervals.")


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
