"""python -m benchmarks.probe: what a network's frozen vectors know, by depth, before any fine-tuning.

A text is the mean of its tokens' vectors: the rows of the token table, the stream after each block, the
output of the final norm. A logistic regression is trained on them (Alain and Bengio 2017, "Understanding
Intermediate Layers Using Linear Classifier Probes"); one on TF-IDF of words and pairs stands next to it.

Its strength C and the best depth are chosen by cross-validation on the training rows. ``--test`` fits on all
of these, scores the test rows, and says how far the best depth is from the token table on the same rows.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from benchmarks.datasets import DATA, SETS
from benchmarks.nano_plots import MARKERS
from benchmarks.over_seeds import markdown
from gptcls.common import cli
from gptcls.common.files import atomic_file, write_json
from gptcls.core.answer import token_budget
from gptcls.core.batches import pad, token_budget_batches
from gptcls.core.gpt2 import GPT2
from gptcls.core.tokenizer import PAD_ID, encode
from gptcls.evaluation.baselines import regression_on_vectors
from gptcls.evaluation.intervals import wilson_interval
from gptcls.evaluation.style import CYCLE, GREY
from gptcls.models.pretrained import load_pretrained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_LENGTH = 128
FOLDS = 5
ENDS = ("", "_low", "_high")
STRENGTHS = (0.003, 0.03, 0.3)
TFIDF_STRENGTHS = (1, 10, 100)
TABLE, TFIDF = "token table", "TF-IDF of words and pairs"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Probe the depths of pretrained GPT-2 weights."""

    models: tuple[str, ...] = ("gpt2-nano",)
    """Names or folders of weights; several are drawn as several lines."""
    names: tuple[str, ...] = ()
    """What to call each of them; otherwise as it was given."""
    data: Path = DATA
    """Folder of the data sets."""
    sets: tuple[Literal["trec6", "rt_polarity", "sms-sample"], ...] = ("trec6", "rt_polarity", "sms-sample")
    """Data sets: TREC-6 has its authors' test part, of the others a fifth is set apart."""
    test: bool = False
    """Also score the test rows."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for every number."""
    plot: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Picture: accuracy by depth, of the test rows or else by cross-validation."""


# --- vectors ---


@torch.inference_mode()
def mean_vectors(model: GPT2, texts: Sequence[str], max_length: int = MAX_LENGTH) -> dict[str, np.ndarray]:
    """Mean vectors (N, C) of N texts by depth: "token table", "block 1", …, "norm"."""
    model.eval()
    length = min(max_length, model.config.n_positions)
    rows = [encode(text, length) or [PAD_ID] for text in texts]
    found: dict[str, np.ndarray] = {}
    for batch in token_budget_batches([len(row) for row in rows], token_budget(model.wte.weight.device)):
        ids, lengths = pad([rows[i] for i in batch])  # (B, T), (B,)
        real = torch.arange(ids.shape[1]) < lengths[:, None]  # (B, T)
        for depth, x in _depths(model, ids, lengths):  # (B, T, C)
            mean = (x * real[..., None]).sum(dim=1) / lengths[:, None]  # (B, C)
            found.setdefault(depth, np.empty((len(rows), x.shape[-1]), np.float32))[batch] = mean.numpy()
    return found


def _depths(model: GPT2, ids: Tensor, lengths: Tensor) -> Iterator[tuple[str, Tensor]]:
    yield TABLE, model.wte(ids)
    x = model.embed(ids)
    for number, block in enumerate(model.blocks, start=1):
        x = block(x, lengths)
        yield f"block {number}", x
    yield "norm", model.norm(x)


# --- regressions ---


def on_words(strength: float, ngrams: int = 2) -> Any:
    """TF-IDF of words and up to ``ngrams`` of them in a row into a logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    vectorizer = TfidfVectorizer(ngram_range=(1, ngrams), sublinear_tf=True)
    return make_pipeline(vectorizer, LogisticRegression(C=strength, max_iter=1000))


def cross_validated(model: Any, x: Any, y: np.ndarray) -> float:
    """Accuracy over up to FOLDS stratified folds; a class of fewer rows than folds is missing in some, and a
    fold that leaves a single class to train on counts as all wrong."""
    from sklearn.exceptions import FitFailedWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    folds = max(2, min(FOLDS, np.unique(y, return_counts=True)[1].max()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        warnings.simplefilter("ignore", FitFailedWarning)
        split = StratifiedKFold(folds, shuffle=True, random_state=0)
        return float(cross_val_score(model, x, y, cv=split, error_score=0.0).mean())


def probe(
    build: Callable[[float], Any], strengths: Sequence[float], x: Any, y: np.ndarray,
    x_test: Any = None, y_test: np.ndarray | None = None,
) -> dict:  # fmt: skip
    """The best C, its accuracy by cross-validation and, given test rows, which of these are right."""
    scores = {strength: cross_validated(build(strength), x, y) for strength in strengths}
    best = max(scores, key=scores.__getitem__)
    row: dict[str, Any] = {"C": best, "cv": scores[best]}
    if y_test is not None:
        right = build(best).fit(x, y).predict(x_test) == y_test
        row |= {"right": right.astype(int).tolist(), "test": float(right.mean())}
        row["test_low"], row["test_high"] = wilson_interval(int(right.sum()), len(right))
    return row


def paired_interval(
    right: Sequence[int], other: Sequence[int], confidence: float = 0.95
) -> tuple[float, float, float]:
    """Difference of two accuracies on the same texts and its interval, ``(difference, low, high)``.

    Only texts that one side has right and the other wrong count (McNemar 1947). With one more of each kind
    the normal approximation holds for few of them (Bonett and Price 2012, J. Educ. Behav. Stat. 37:479-488).

    >>> print("{:.3f} [{:.3f}, {:.3f}]".format(*paired_interval([1, 1, 1, 1, 0, 1], [1, 0, 1, 0, 1, 1])))
    0.167 [-0.416, 0.666]
    """
    if len(right) != len(other):
        raise ValueError(f"{len(right)} and {len(other)} texts: the two sides must have answered the same")
    gained = sum(a > b for a, b in zip(right, other, strict=True))
    lost = sum(a < b for a, b in zip(right, other, strict=True))
    n = len(right)
    p, q = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * ((p + q - (p - q) ** 2) / (n + 2)) ** 0.5
    return (gained - lost) / n, max(-1.0, p - q - half), min(1.0, p - q + half)


# --- the command ---


def rows_of(name: str, folder: Path) -> tuple[list[str], np.ndarray, list[str], np.ndarray]:
    """Training texts and labels, test texts and labels: where a set has no test part, a stratified fifth."""
    from sklearn.model_selection import train_test_split

    parts = SETS[name].read(folder)
    train, test = parts["train"], parts.get("test")
    if test is None:
        train, test = train_test_split(train, test_size=0.2, random_state=0, stratify=train["label"])
    return train["text"].tolist(), train["label"].to_numpy(), test["text"].tolist(), test["label"].to_numpy()


def probed(options: Options) -> dict[str, dict[str, dict[str, dict]]]:
    """model -> depth -> data set -> what :func:`probe` says."""
    names = dict(zip(options.models, options.names or options.models, strict=True))
    results: dict[str, dict[str, dict[str, dict]]] = {}
    for data in options.sets:
        texts, y, test_texts, y_test = rows_of(data, options.data)
        n = len(texts)
        for source, name in names.items():
            vectors = mean_vectors(load_pretrained(source), texts + (test_texts if options.test else []))
            for depth, x in vectors.items():
                tested = (x[n:], y_test) if options.test else ()
                row = probe(regression_on_vectors, STRENGTHS, x[:n], y, *tested)
                results.setdefault(name, {}).setdefault(depth, {})[data] = row
        tested = (test_texts, y_test) if options.test else ()
        row = probe(on_words, TFIDF_STRENGTHS, texts, y, *tested)
        results.setdefault(TFIDF, {}).setdefault("", {})[data] = row
    return results


def best_depth(depths: dict[str, dict[str, dict]], data: str) -> str:
    """By cross-validation, among those behind the token table."""
    return max((depth for depth in depths if depth != TABLE), key=lambda depth: depths[depth][data]["cv"])


def gains(results: dict, sets: Sequence[str]) -> dict[str, dict[str, dict]]:
    """model -> data set -> the best depth and its test accuracy minus the token table's, with an interval."""
    found: dict[str, dict[str, dict]] = {}
    for name, depths in results.items():
        for data in sets if TABLE in depths else ():
            best = best_depth(depths, data)
            difference = paired_interval(depths[best][data]["right"], depths[TABLE][data]["right"])
            ends = dict(zip(("gain", "low", "high"), difference, strict=True))
            found.setdefault(name, {})[data] = {"depth": best} | ends
    return found


def table(results: dict, sets: Sequence[str]) -> str:
    """Accuracy in per cent, in Markdown."""
    rows = [depths[depth][data] for depths in results.values() for depth in depths for data in sets]
    test = "test" in rows[0]
    heads = [f"{data}, {kind}" for data in sets for kind in (("cv", "test") if test else ("cv",))]
    lines = [["", "depth", *heads]]
    for name, depths in results.items():
        for depth, by_set in depths.items():
            cells = []
            for data in sets:
                row = by_set[data]
                cells.append(f"{100 * row['cv']:.1f}")
                if test:
                    cells.append("{:.1f} [{:.1f}, {:.1f}]".format(*(100 * row[f"test{x}"] for x in ENDS)))
            lines.append([name, depth, *cells])
    return markdown(lines, words=2)


def plot(results: dict, sets: Sequence[str]) -> "Figure":
    """A panel for each data set: accuracy by depth, a line for each model, TF-IDF as a dashed one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 3.1 * len(sets), 3.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, data in zip(panels, sets, strict=True):
        models = [(name, depths) for name, depths in results.items() if name != TFIDF]
        for (name, depths), colour, marker in zip(models, CYCLE, MARKERS, strict=False):
            rows = [by_set[data] for by_set in depths.values()]
            kind = "test" if "test" in rows[0] else "cv"
            shift = 0.12 * ([each for each, _ in models].index(name) - (len(models) - 1) / 2)
            at, y = np.arange(len(rows)) + shift, np.array([100 * row[kind] for row in rows])
            bars = None
            if kind == "test":
                low, high = (np.array([100 * row[f"test{end}"] for row in rows]) for end in ENDS[1:])
                bars = [y - low, high - y]
            axes.errorbar(at, y, bars, fmt=f"-{marker}", color=colour, ms=5, elinewidth=1, label=name)
        axes.axhline(100 * results[TFIDF][""][data][kind], color=GREY, ls="--", lw=1.2, label=TFIDF)
        most = max((list(depths) for _, depths in models), key=len)
        axes.set_xticks(range(len(most)), [depth.replace(" ", "\n", 1) for depth in most])
        axes.set_title(SETS[data].what, fontsize=10, loc="left")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test accuracy (%), 95 % bars" if kind == "test" else "cross-validated accuracy (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def run(options: Options) -> None:
    """Probe, print and, if asked for, write."""
    logging.getLogger("gptcls").setLevel(logging.WARNING)
    results = probed(options)
    print(table(results, options.sets))
    gained = gains(results, options.sets) if options.test else {}
    if gained:
        print("\nTest accuracy of the best depth by cross-validation minus the token table's, same rows:\n")
    for name, by_set in gained.items():
        for data, row in by_set.items():
            difference = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * row[x] for x in ("gain", "low", "high")))
            print(f"- {name}, {data}: {row['depth']}, {difference} points")
    if options.json:
        write_json(options.json, {"probes": results, "gains": gained})
    if options.plot:
        with atomic_file(options.plot) as temporary:
            plot(results, options.sets).savefig(temporary, metadata={"Software": None})


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
