"""The data sets that show what pretraining is worth: where they lie, how they are read and how split."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.measure import ROOT
from gptcls.common.lazy import pd
from gptcls.core.errors import InputError
from gptcls.data.corpora import load_parts
from gptcls.data.sources import labelled_frame, load_data
from gptcls.data.split import Split, drop_duplicates, make_split, rows_by_group

if TYPE_CHECKING:
    from pandas import DataFrame

DATA = ROOT.parent / "shared" / "data"
SMS = Path("sms", "SMSSpamCollection")
SETTINGS_SEED = 1000  # of the rows that settings are chosen on; no test seed


class DataSet(NamedTuple):
    what: str
    read: Callable[[Path], "dict[str, DataFrame]"]  # of the folder of all data sets: "train", perhaps "test"
    score: str = "accuracy"  # by which settings are chosen, and which is drawn


def rt_polarity(folder: Path) -> "dict[str, DataFrame]":
    """10,662 film reviews of one sentence, neg or pos (Pang and Lee 2005): latin-1, a file each, zipped."""
    texts, labels = [], []
    with zipfile.ZipFile(folder / "rt_polarity" / "sentence_polarity.zip") as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith((".neg", ".pos"))):
            lines = [line.strip() for line in archive.read(name).decode("latin-1").split("\n")]
            texts += filter(None, lines)
            labels += [name[-3:]] * sum(map(bool, lines))
    return {"train": labelled_frame(texts, labels)}


def _corpus(name: str, folder: str) -> "Callable[[Path], dict[str, DataFrame]]":
    return lambda data: load_parts(f"{name}:{data / folder}")


SETS = {
    "rt_polarity": DataSet("film reviews of one sentence, 2 classes", rt_polarity),
    "trec6": DataSet("questions, 6 classes (TREC-6)", _corpus("trec6", "trec6")),
    "sms": DataSet("text messages, ham or spam", lambda folder: {"train": load_data(folder / SMS)}, "f1"),
    "sms-sample": DataSet("the bundled text messages", lambda folder: {"train": load_data("sms-sample")}),
    "thucnews": DataSet("Chinese news titles, 10 classes", _corpus("thucnews", "thucnews")),
    "chnsenticorp": DataSet("Chinese hotel reviews, 2 classes", _corpus("chnsenticorp", "chnsenticorp")),
    "movie-reviews": DataSet("long film reviews, 2 classes", _corpus("movie-reviews", "movie_reviews")),
}


def split_by(name: str, folder: Path, seed: int) -> Split:
    """70 / 10 / 20 in proportion to the classes, repeated texts dropped; the authors' own test part stays.

    The validation rows are the same for every seed: settings are chosen on them, so no test part, of whatever
    seed, has a row that was looked at.
    """
    return split_parts(SETS[name].read(folder), seed)


def split_parts(parts: "dict[str, DataFrame]", seed: int) -> Split:
    """:func:`split_by` of rows that were read: the parts "train" and, perhaps, "test"."""
    rows, test = drop_duplicates(parts["train"]), parts.get("test")
    first = make_split(rows, test=test, seed=SETTINGS_SEED)
    if test is not None:
        return first
    rest = pd.concat([first.train, first.test], ignore_index=True)
    return make_split(rest, first.validation, test_fraction=2 / 9, seed=seed)


def few_labels(rows: "DataFrame", n: int, seed: int) -> "DataFrame":
    """``n`` of the rows, each class by its share but once at least; all where there are no more than ``n``.

    With one seed the rows of a smaller ``n`` are, but for rounding, among those of a larger one.

    >>> rows = pd.DataFrame({"text": list("abcdefgh"), "label": list("xxxxxxxy")})
    >>> few_labels(rows, 4, seed=0)["label"].tolist()
    ['x', 'x', 'x', 'y']
    """
    if n >= len(rows):
        return rows
    groups = list(rows_by_group(rows["label"].tolist()).values())
    if n < len(groups):
        raise InputError(f"{n} labels do not reach for {len(groups)} classes")
    random = np.random.RandomState(seed)  # its stream is frozen for good (NEP 19)
    shuffled = [random.permutation(group) for group in groups]
    exact = np.array([n * len(group) / len(rows) for group in groups])
    counts = np.maximum(1, np.floor(exact)).astype(int)
    while counts.sum() != n:  # the class that is furthest from its share gives or gets one
        short = exact - counts
        short[counts == 1] = np.maximum(short[counts == 1], 0)  # the last one stays
        step = 1 if counts.sum() < n else -1
        counts[np.argmax(step * short)] += step
    drawn = np.concatenate([group[:count] for group, count in zip(shuffled, counts, strict=True)])
    return rows.iloc[np.sort(drawn)].reset_index(drop=True)
