"""Whether new texts are like the training rows: two-sample tests, and what they found in words.

- *length*: tokens of a text, by Kolmogorov and Smirnov's test;
- *unseen tokens*: a byte-level BPE can spell everything, so no token is unknown to it. Unseen are the tokens
  of a text that no row of one half of the training rows has; their share is compared with that in the other
  half by Mann and Whitney's test;
- *predictions*, and *labels* where there are any: the share of each class by Fisher's exact test, times the
  classes; numbers by Kolmogorov and Smirnov's;
- *content*: a classifier is taught on half of all rows to tell new texts from training rows, and Mann and
  Whitney's test says whether it can on the other half (Friedman 2003; Lopez-Paz and Oquab 2017, "Revisiting
  Classifier Two-Sample Tests"). Its ROC AUC is the chance that it ranks a new text above a training row: one
  half if the two are alike.

Each p-value is adjusted for the number of tests (Holm 1979). Below :data:`ALPHA` a change is called drift: of
a thousand comparisons of rows from one source about one calls some. Tests take rows as independent draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from gptcls.core.task import Task
from gptcls.evaluation.baselines import linear_models, regression_on_vectors
from gptcls.evaluation.confident import STRENGTH, SVM
from gptcls.evaluation.decision import PLAIN, Decision
from gptcls.evaluation.ngrams import Tfidf
from gptcls.evaluation.paired import holm

ALPHA = 0.001
FEWEST = 20  # rows of each side
MOST_WORDS = 6
TELLS = ((0.6, "hardly"), (0.75, "sometimes"), (0.9, "mostly"), (1.01, "nearly always"))  # up to that AUC


@dataclass(frozen=True)
class Sample:
    """Rows of one side: N texts, their tokens and frozen vectors (N, C); what is predicted (M, K), of these
    or, where a classifier was trained on them, of M others: see :func:`answers_of`; labels (N, K) in the same
    way, if there are any."""

    texts: Sequence[str]
    ids: Sequence[Sequence[int]]
    vectors: np.ndarray
    answers: np.ndarray
    labels: np.ndarray | None = None


class Change(NamedTuple):
    """What one test found: its p-value, adjusted once all tests are known, and the two sides in words."""

    what: str
    p: float
    said: str
    figures: dict[str, float]


def drift(reference: Sample, new: Sample, task: Task) -> dict:
    """The comparison, ready for JSON: ``drift``, True if any change has an adjusted p-value below
    :data:`ALPHA`, and ``changes`` by name, each with ``p``, ``drift``, ``said`` and figures; ``n_answers``,
    the predictions of the smaller side. Where a side has fewer than :data:`FEWEST` rows ``drift`` is None,
    and there are no changes; where one has fewer predictions, these are not compared.

    >>> alike = Sample(["a text"] * 20, [[5, 6]] * 20, np.ones((20, 2)), np.ones((20, 1)))
    >>> drift(alike, Sample(["a"], [[5]], np.ones((1, 2)), np.ones((1, 1))), task=None)
    {'n_reference': 20, 'n_new': 1, 'drift': None, 'changes': {}}
    """
    sizes = {"n_reference": len(reference.texts), "n_new": len(new.texts)}
    if min(sizes.values()) < FEWEST:
        return sizes | {"drift": None, "changes": {}}
    found = [_length(reference, new), _unseen(reference, new)]
    sizes["n_answers"] = min(len(reference.answers), len(new.answers))
    if sizes["n_answers"] >= FEWEST:
        found.append(_shares("predictions", reference.answers, new.answers, task))
    if reference.labels is not None and new.labels is not None:
        found.append(_shares("labels", reference.labels, new.labels, task))
    found.append(_content(reference, new))
    adjusted = holm([change.p for change in found])
    changes = {
        change.what: {"p": p, "drift": p < ALPHA, "said": change.said} | change.figures
        for change, p in zip(found, adjusted, strict=True)
    }
    return sizes | {"drift": any(each["drift"] for each in changes.values()), "changes": changes}


def in_words(found: dict, reference: str) -> str:
    """What :func:`drift` found, as lines for the terminal; ``reference`` names the rows compared with."""
    n, n_new = found["n_reference"], found["n_new"]
    if found["drift"] is None:
        return f"{n_new:,} texts against {n:,} ({reference}): too few to tell, {FEWEST} of each are needed"
    lines = [f"{n_new:,} texts against {n:,} ({reference}):"]
    if "predictions" not in found["changes"]:
        known = f"on one side only {found['n_answers']} texts are new to the classifier"
        lines.append(f"  {'predictions':<14} {'unknown':<10} {known}, {FEWEST} are needed")
    for what, each in found["changes"].items():
        verdict = "changed" if each["drift"] else "no change"
        p = f"p = {each['p']:.2g}" if each["p"] >= 1e-12 else "p < 1e-12"
        lines.append(f"  {what:<14} {verdict:<10} {each['said']} ({p})")
    changed = [what for what, each in found["changes"].items() if each["drift"]]
    lines.append(f"drift: {', '.join(changed)} changed" if changed else "no drift found")
    return "\n".join(lines)


def answers_of(task: Task, outputs: np.ndarray, decision: Decision = PLAIN) -> np.ndarray:
    """What outputs (N, K) say, sure or not: 1 for each label that is given, else 0; numbers as they are."""
    if not task.has_probabilities:
        return outputs
    given = decision.given(task, outputs)
    return np.eye(len(task.labels), dtype=int)[given] if given.ndim == 1 else given.astype(int)


def labels_of(task: Task, labels: Sequence[str]) -> np.ndarray:
    """Label strings in the same form (N, K)."""
    targets = task.targets(labels).numpy()
    return np.eye(len(task.labels), dtype=int)[targets] if targets.ndim == 1 else targets


# --- the tests ---


def _length(reference: Sample, new: Sample) -> Change:
    from scipy.stats import ks_2samp

    before, after = (np.array([len(ids) for ids in side.ids]) for side in (reference, new))
    middle = [float(np.median(before)), float(np.median(after))]
    high = [float(np.quantile(each, 0.95)) for each in (before, after)]
    most = f"95 % have at most {high[1]:.4g}, was {high[0]:.4g}"
    said = f"median {middle[1]:g} tokens, was {middle[0]:g}; {most}"
    figures = {"median": middle[1], "median_reference": middle[0]}
    return Change("length", float(ks_2samp(before, after).pvalue), said, figures)


def _unseen(reference: Sample, new: Sample) -> Change:
    from scipy.stats import mannwhitneyu

    # One half of the training rows knows tokens, the other is compared with it as the new texts are: only so
    # do rows of one source differ by chance alone, since several new texts may share a token that is new.
    order = np.random.RandomState(0).permutation(len(reference.ids)).tolist()
    half = len(order) // 2
    known = {token for row in order[:half] for token in reference.ids[row]}
    before = np.array([_share_unseen(reference.ids[row], known) for row in order[half:]])
    after = np.array([_share_unseen(ids, known) for ids in new.ids])
    new_to = "of a text's tokens are new to half of the training rows"
    said = f"{after.mean():.1%} {new_to}, was {before.mean():.1%}"
    figures = {"share": float(after.mean()), "share_reference": float(before.mean())}
    return Change("unseen tokens", _p(mannwhitneyu(before, after).pvalue), said, figures)


def _share_unseen(ids: Sequence[int], known: set[int]) -> float:
    tokens = set(ids)
    return len(tokens - known) / max(1, len(tokens))


def _shares(what: str, before: np.ndarray, after: np.ndarray, task: Task) -> Change:
    """Each output's share of the rows, or its numbers; the one that changed most surely is named."""
    from scipy.stats import fisher_exact, ks_2samp

    names, found = task.labels, []
    for k, (one, other) in enumerate(zip(before.T, after.T, strict=True)):
        if task.has_probabilities:
            counts = [[int(side.sum()), len(side) - int(side.sum())] for side in (one, other)]
            found.append((float(fisher_exact(counts).pvalue), k))
        else:
            found.append((float(ks_2samp(one, other).pvalue), k))
    p, k = min(found)
    old, now = float(before[:, k].mean()), float(after[:, k].mean())
    form = "{:.1%}".format if task.has_probabilities else "{:.4g} on average".format
    said = f"{names[k]} {form(now)}, was {form(old)}"
    return Change(what, min(1.0, p * len(found)), said, {"share": now, "share_reference": old})


def _content(reference: Sample, new: Sample) -> Change:
    from scipy.stats import mannwhitneyu

    texts = [*reference.texts, *new.texts]
    vectors = np.concatenate([reference.vectors, new.vectors])
    is_new = np.arange(len(texts)) >= len(reference.texts)
    half = np.zeros(len(texts), dtype=bool)
    random = np.random.RandomState(0)
    for side in (is_new, ~is_new):  # half of each side to learn on
        rows = random.permutation(np.flatnonzero(side))
        half[rows[: len(rows) // 2]] = True
    # Of all texts, without a word about their side.
    models = [(regression_on_vectors(STRENGTH), vectors)]
    if (ngrams := Tfidf().fit_transform(texts)) is not None:
        models.append((linear_models()[f"{SVM}, balanced classes"], ngrams))
    decisions = np.zeros((~half).sum())
    for model, inputs in models:
        found = model.fit(inputs[half], is_new[half]).decision_function(inputs[~half])
        decisions += found / (found.std() or 1)
    after, before = decisions[is_new[~half]], decisions[~is_new[~half]]
    auc, low, high = auc_interval(before, after)
    tells = next(word for most, word in TELLS if auc < most)
    said = f"a classifier {tells} tells them apart, AUC {auc:.3f} [{low:.3f}, {high:.3f}]"
    p = _p(mannwhitneyu(after, before, alternative="greater").pvalue)
    if p < ALPHA and (words := _words(reference.texts, new.texts)):
        said += f"; now more often: {', '.join(words)}"
    return Change("content", p, said, {"auc": auc, "auc_low": low, "auc_high": high})


def _p(value: float) -> float:
    """Where all values are equal the test divides by nothing: nothing differs."""
    return 1.0 if math.isnan(value) else float(value)


def auc_interval(
    before: np.ndarray, after: np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float]:
    """ROC AUC of decision values, those of ``after`` being the larger ones, with DeLong's interval (1988), on
    the logit's scale so that it stays within 0 and 1."""
    from scipy.stats import rankdata

    m, n = len(after), len(before)
    both = rankdata(np.concatenate([after, before]))
    above = (both[:m] - rankdata(after)) / n  # the share of `before` that each of `after` exceeds
    below = 1 - (both[m:] - rankdata(before)) / m
    auc = float(above.mean())
    error = math.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n)
    if not 0 < auc < 1:
        return auc, auc, auc
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error / (auc * (1 - auc))
    centre = math.log(auc / (1 - auc))
    low, high = (1 / (1 + math.exp(-each)) for each in (centre - half, centre + half))
    return auc, low, high


def _words(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The words whose share of texts grew most surely: by the difference in standard errors, beyond 4."""
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        counts = CountVectorizer(binary=True).fit([*before, *after])
    except ValueError:  # no words
        return []
    old, new = (np.asarray(counts.transform(side).mean(axis=0)).ravel() for side in (before, after))
    n, m = len(before), len(after)
    both = (n * old + m * new) / (n + m)
    z = (new - old) / np.sqrt(np.maximum(both * (1 - both), 1e-12) * (1 / n + 1 / m))
    order = np.argsort(-z, kind="stable")[:MOST_WORDS]
    return [str(counts.get_feature_names_out()[place]) for place in order if z[place] > 4]
