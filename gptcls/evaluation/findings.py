"""What may be wrong with rows of labelled data: texts that stand twice, doubtful labels, unknown texts.

``rows`` is a table with the columns part, row (its number there), text and label, its index 0 to N-1;
``text`` (N,) numbers its texts, the same text by the same number. A finder yields a finding for each row that
it has something to say of.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gptcls.common.lazy import pd
from gptcls.core.task import Task
from gptcls.data.fields import on_one_line
from gptcls.data.labels import LabelKind
from gptcls.data.near import Pairs
from gptcls.data.scripts import scripts_of
from gptcls.data.split import PARTS
from gptcls.evaluation.confident import Suspects

LEAK, CONFLICT, REPEAT, NEAR = "leak", "conflict", "repeat", "near duplicate"
SUSPECT, DOUBT = "suspect label", "doubtful label"
CUT, LENGTH, SCRIPT = "cut", "length", "script"
FEW = 5  # training rows that do not make a length or a script known; of fewer than 100 rows, none
COLUMNS = ("finding", "part", "row", "label", "suggested", "score", "like_part", "like_row", "said", "text")

Finding = dict[str, Any]  # finding, at (the row), and what is known of suggested, score, like and said


# --- texts that stand twice ---


def leaks(rows: "pd.DataFrame", text: np.ndarray, pairs: Pairs) -> Iterator[Finding]:
    """Rows of validation and test whose text, or a near one, stands in a part before theirs."""
    near, part = _neighbours(pairs), rows["part"].tolist()
    first = {place: at for at, place in reversed(list(enumerate(zip(text.tolist(), part, strict=True))))}
    for at, (own, where) in enumerate(zip(text.tolist(), part, strict=True)):
        for before in PARTS[: PARTS.index(where)]:
            if (found := _nearest(own, before, near, first)) is not None:
                yield _alike(LEAK, rows, at, *found, text[at] == text[found[0]])
                break


def repeats(rows: "pd.DataFrame", text: np.ndarray, pairs: Pairs) -> Iterator[Finding]:
    """Rows whose text, or a near one, stands in an earlier row of the same part."""
    near, part = _neighbours(pairs), rows["part"].tolist()
    first: dict[tuple[int, str], int] = {}
    for at, place in enumerate(zip(text.tolist(), part, strict=True)):
        if place in first:
            yield _alike(REPEAT, rows, at, first[place], 1.0, True)
            continue
        if (found := _nearest(*place, near, first)) is not None:
            yield _alike(NEAR, rows, at, *found, False)
        first[place] = at


def _neighbours(pairs: Pairs) -> dict[int, list[tuple[int, float]]]:
    near: dict[int, list[tuple[int, float]]] = {}
    for (a, b), share in zip(pairs.texts.tolist(), pairs.similarity.tolist(), strict=True):
        near.setdefault(a, []).append((b, share))
        near.setdefault(b, []).append((a, share))
    return near


def _nearest(
    text: int, part: str, near: dict[int, list[tuple[int, float]]], first: dict[tuple[int, str], int]
) -> tuple[int, float] | None:
    """The first row of a part with a text, or with the one that is most like it, and how much it is."""
    if (text, part) in first:
        return first[text, part], 1.0
    alike = [(first[other, part], share) for other, share in near.get(text, ()) if (other, part) in first]
    return max(alike, key=lambda each: (each[1], -each[0]), default=None)


def _alike(finding: str, rows: "pd.DataFrame", at: int, like: int, share: float, same: bool) -> Finding:
    part, row, label = rows.loc[like, ["part", "row", "label"]]
    what = "the same text as" if same else f"{share:.0%} alike:"
    other = "" if label == rows.at[at, "label"] else f", which is {label}"
    said = f"{what} {part} {row}{other}"
    return {"finding": finding, "at": at, "score": share, "like": like, "said": said}


def conflicts(rows: "pd.DataFrame", text: np.ndarray, kind: LabelKind) -> Iterator[Finding]:
    """Rows whose label is not that of most rows of their text, and all rows of a text without a majority."""
    labels = rows["label"]
    several = (labels.groupby(text).transform("nunique") > 1).to_numpy()
    groups = {one: own.tolist() for one, own in labels[several].groupby(text[several])}
    votes = {one: (kind.vote(own), Counter(own)) for one, own in groups.items()}
    for at in np.flatnonzero(several).tolist():
        vote, counts = votes[text[at]]
        if vote == labels[at]:
            continue
        others = counts.most_common(4)
        said = "the same text is " + ", ".join(f"{label} in {n} rows" for label, n in others)
        yield {"finding": CONFLICT, "at": at, "suggested": vote or "", "said": said}


# --- labels ---


def of_suspects(rows: "pd.DataFrame", suspects: Suspects) -> Iterator[Finding]:
    for finding, each in ((SUSPECT, suspects.rows), (DOUBT, suspects.doubtful)):
        for at in each.tolist():
            label, own = suspects.suggested[at], float(suspects.own[at])
            said = f"models of other rows say {label}"
            yield {"finding": finding, "at": at, "suggested": label, "score": own, "said": said}


def confused_classes(task: Task, rows: "pd.DataFrame", outputs: np.ndarray) -> "pd.DataFrame":
    """How often models that had not seen a row say another class than its label, most often first; of several
    labels, how often one is given to a text that lacks it, and missed."""
    if not task.has_probabilities:
        return pd.DataFrame()
    names = np.array(task.labels, dtype=object)
    targets = task.targets(rows["label"].tolist()).numpy()
    if targets.ndim == 2:
        given, true = outputs >= 0.5, targets > 0
        counts = {"label": names, "given to texts without it": (given & ~true).sum(axis=0),
                  "not given": (true & ~given).sum(axis=0), "rows": true.sum(axis=0)}  # fmt: skip
        return pd.DataFrame(counts)
    answers = outputs.argmax(axis=1)
    wrong = pd.DataFrame({"label": names[targets], "taken for": names[answers]})[answers != targets]
    counts = wrong.value_counts().rename("rows").reset_index()
    return counts.assign(**{"rows of the label": counts["label"].map(rows["label"].value_counts())})


# --- lengths and scripts ---


def cut_texts(n_tokens: np.ndarray, max_length: int) -> Iterator[Finding]:
    for at in np.flatnonzero(n_tokens > max_length).tolist():
        said = f"{n_tokens[at]:,} tokens, of which the first {max_length:,} are read"
        yield {"finding": CUT, "at": at, "score": max_length / int(n_tokens[at]), "said": said}


def uncovered(rows: "pd.DataFrame", n_tokens: np.ndarray) -> Iterator[Finding]:
    """Rows of validation and test of a length or in a script that the training rows hardly have."""
    trained = (rows["part"] == "train").to_numpy()
    few = FEW if trained.sum() >= 100 else 1
    ordered = np.sort(n_tokens[trained])
    written = rows["text"].map(scripts_of)
    known = Counter(name for own in written[trained] for name in own)
    for at in np.flatnonzero(~trained).tolist():
        n = int(n_tokens[at])
        longer, shorter = len(ordered) - np.searchsorted(ordered, n), np.searchsorted(ordered, n, "right")
        for others, word in ((longer, "long"), (shorter, "short")):
            if others < few:
                said = f"{n:,} tokens; {others} training rows are as {word}"
                yield {"finding": LENGTH, "at": at, "score": float(n), "said": said}
        for name in written[at]:
            if known[name] < few:
                said = f"{name}; {known[name]} training rows are in it"
                yield {"finding": SCRIPT, "at": at, "said": said}


def lengths_by_part(rows: "pd.DataFrame", n_tokens: np.ndarray) -> "pd.DataFrame":
    """Tokens of the texts of each part."""
    found = []
    for part, own in pd.Series(n_tokens).groupby(rows["part"].to_numpy()):
        middle, high = (int(own.quantile(q, "nearest")) for q in (0.5, 0.95))
        found.append((PARTS.index(part), part, len(own), int(own.min()), middle, high, int(own.max())))
    return pd.DataFrame([each[1:] for each in sorted(found)],
                        columns=["part", "rows", "fewest", "median", "95 %", "most"])  # fmt: skip


def scripts_by_part(rows: "pd.DataFrame") -> "pd.DataFrame":
    """How many rows of each part are in each script."""
    each = rows[["part"]].assign(script=[own or ("no letters",) for own in rows["text"].map(scripts_of)])
    each = each.explode("script")
    counts = pd.crosstab(each["script"], each["part"])
    counts = counts[[part for part in PARTS if part in counts]]
    return counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index].reset_index()


def as_frame(found: Iterable[Finding], rows: "pd.DataFrame", unit: str) -> "pd.DataFrame":
    """The findings as :data:`COLUMNS`, each kind in its own order."""
    lines = []
    for each in found:
        own, like = rows.loc[each["at"]], each.get("like")
        other = ("", "") if like is None else (rows.at[like, "part"], rows.at[like, "row"])
        lines.append((each["finding"], own["part"], own["row"], own["label"], each.get("suggested", ""),
                      each.get("score"), *other, each["said"], on_one_line(own["text"])))  # fmt: skip
    return pd.DataFrame(lines, columns=list(COLUMNS))
