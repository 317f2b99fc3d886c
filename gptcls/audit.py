"""python -m gptcls.audit: what is wrong with labelled data, row by row.

Nothing is trained but small linear models, and no row is changed: it says which rows to look at, and why.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch

from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import atomic_file
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.lazy import pd
from gptcls.common.log import log, unlogged
from gptcls.common.options import check_seed, own_first
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.core.tasks import TASKS
from gptcls.data.corpora import CORPORA, corpus_of, load_parts
from gptcls.data.in_memory import labelled_rows
from gptcls.data.labels import KINDS, LabelKind
from gptcls.data.near import Pairs, near_pairs
from gptcls.data.options import LabelOptions, data_help
from gptcls.data.repeats import settle
from gptcls.data.same_text import text_key
from gptcls.data.scripts import scripts_of
from gptcls.data.sources import from_frame, load_data
from gptcls.data.split import PARTS, make_split
from gptcls.data.writer import ChunkWriter
from gptcls.evaluation import page
from gptcls.evaluation.confident import FEWEST, Suspects, held_out, suspects_of
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.mistakes import CONTROLS
from gptcls.evaluation.ngrams import Tfidf
from gptcls.evaluation.table import shortened
from gptcls.fast.features import FeatureCache
from gptcls.models.pretrained import load_pretrained, load_tokenizer

LEAK, CONFLICT, REPEAT, NEAR = "leak", "conflict", "repeat", "near duplicate"
SUSPECT, DOUBT = "suspect label", "doubtful label"
CUT, LENGTH, SCRIPT = "cut", "length", "script"
FEW = 5  # training rows that do not make a length or a script known; of fewer than 100 rows, none
SHOWN, ON_PAGE, LONGEST = 8, 200, 600  # rows in the terminal, of a kind on the page, characters there
COLUMNS = ("finding", "part", "row", "label", "suggested", "score", "like_part", "like_row", "said", "text")


@own_first
@dataclass(frozen=True, kw_only=True)
class AuditConfig(LabelOptions):
    """Look for what is wrong with labelled data: leaks, repeats, wrong labels, confused classes, texts that
    are cut, and texts unlike the training rows. It changes nothing, and to find something is no error."""

    data: Annotated[str, data_help(f"of {', '.join(CORPORA)}")]
    validation: Path | None = None
    """File to validate on; otherwise the part of --data that gptcls.train would split off."""
    test: Path | None = None
    """File to test on; otherwise the part of --data that gptcls.train would split off."""
    task: Literal["single", "multi", "regression"] = "single"
    """What a label is: one class, any number of labels, or one or more numbers."""
    near: float = 0.8
    """Share of their runs of 4 letters or digits, of all that either has, from which on two texts are near
    duplicates; more than 0, at most 1."""
    model: str = "gpt2-nano"
    """Network whose tokens are counted and whose frozen vectors labels are judged by, as in gptcls.train."""
    max_length: int | None = None
    """Tokens kept of each text; otherwise what the model can read."""
    seed: int = 123
    """Of the parts that are split off, as in gptcls.train."""
    cache: Path | None = None
    """Folder that keeps the frozen vectors between runs, as in gptcls.train."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    out: Path | None = None
    """Folder for audit.html and audit.csv; otherwise runs/audit-<data>."""


@dataclass
class Audit:
    """What was found. ``rows`` has every row of the data: part, row (its number there), text, label, and,
    where labels were judged, ``own``, the probability of its label. ``findings`` has a row for each finding;
    ``confused`` counts the classes that are taken for each other, ``notes`` are sentences."""

    name: str
    unit: str  # what rows are numbered by, such as "line"
    rows: "pd.DataFrame"
    findings: "pd.DataFrame"
    confused: "pd.DataFrame"
    lengths: "pd.DataFrame"
    scripts: "pd.DataFrame"
    meanings: dict[str, str]  # finding -> what it says of a row
    notes: list[str]

    @property
    def parts(self) -> list[str]:
        return [part for part in PARTS if part in set(self.rows["part"])]

    def of(self, finding: str) -> "pd.DataFrame":
        """The rows of one kind of finding, in their order."""
        return self.findings[self.findings["finding"] == finding]


def audit(
    config: AuditConfig | None = None, show: bool = False, *, labels: Any = None, **options: Any
) -> Audit:
    """Look at every row; ``show`` prints the table, and with ``out`` the report is written.

    Options come in ``config``, one by one (``audit(data="labels.csv")``), or both. ``data`` may also be rows
    in memory: a DataFrame, texts and their ``labels``, or a mapping of "train" and, perhaps, "validation" and
    "test" to frames. Parts that the data does not have are split off as :func:`gptcls.train.run.train` does
    it with that seed, so that what is found between parts is what a run would meet. InputError for what
    cannot be read.

    >>> found = audit(data="sms-sample")
    >>> found.of("suspect label")[["label", "suggested"]].value_counts().index[0]
    ('ham', 'spam')
    """
    config = AuditConfig(**options) if config is None else replace(config, **options)
    check_seed(config.seed)
    if not 0 < config.near <= 1:
        raise InputError(f"--near {config.near} is no share of two texts; use more than 0, at most 1")
    if config.out is not None and Path(config.out).is_file():
        raise InputError(f"--out {config.out} is a file; choose a folder")
    kind, notes = KINDS[config.task], []
    rows, unit, name = _read(config, labels)
    rows["part"] = _parts(rows, config, kind, notes)
    tokenizer, device = load_tokenizer(config.model), pick_device(config.device)
    backbone = load_pretrained(config.model, pick_dtype("auto", device))
    tokenizer.require_fit(config.model, backbone.config.vocab_size)
    max_length = _max_length(config, backbone)
    # What the rows say of each other.
    text, first = _distinct(rows["text"])
    pairs = near_pairs(rows["text"].iloc[first].tolist(), config.near)
    found = [*_leaks(rows, text, pairs), *_conflicts(rows, text, kind), *_repeats(rows, text, pairs)]
    # What the network's tokens and vectors say.
    n_tokens = np.array([len(ids) for ids in tokenizer.encode_rows(rows["text"])])
    confused = pd.DataFrame()
    try:
        task = _task(config, rows, first)
    except InputError as error:
        notes.append(f"Labels were not judged: {error}.")
    else:
        texts = rows["text"].iloc[first].tolist()
        vectors = FeatureCache(config.cache).mean_vectors(backbone, texts, max_length, tokenizer, device)
        outputs = _held_out(task, rows, text, first, kind, vectors)[text]
        suspects = _suspects(task, rows, outputs)
        rows["own"] = suspects.own
        found += _of_suspects(rows, suspects)
        confused = _confused(task, rows, outputs)
    found += [*_cut(n_tokens, max_length), *_uncovered(rows, n_tokens)]
    findings = _frame(found, rows, unit)
    lengths, scripts = _lengths(rows, n_tokens), _scripts(rows)
    meanings = _meanings(config, max_length)
    result = Audit(name, unit, rows, findings, confused, lengths, scripts, meanings, notes)
    if config.out is not None:
        write_report(result, Path(config.out))
    if show:
        say(in_words(result))
        if config.out is not None:
            log.info(f"the report: {config.out}/audit.html; each row found: {config.out}/audit.csv")
    return result


# --- rows ---


def _read(config: AuditConfig, labels: Any) -> tuple["pd.DataFrame", str, str]:
    """Every row of the parts that are given: part, row, text, label; what numbers them; the data's name."""
    columns, layout = (config.text_columns, config.label_column), config.layout(KINDS[config.task])
    data, name = config.data, "rows in memory"
    if isinstance(data, str | Path) and labels is None:
        parts, name = load_parts(data, *columns, layout, config.dialect), str(data)
    else:
        given = data if isinstance(data, Mapping) and labels is None else {"train": data}
        if "train" not in given or not given.keys() <= set(PARTS):
            raise InputError(
                f"parts {', '.join(map(str, given))}: give train and, perhaps, validation and test"
            )
        how = columns if labels is None else ("text", "label")
        frames = {part: labelled_rows(frame, labels, config.text_columns) for part, frame in given.items()}
        parts = {part: from_frame(frame, *how, layout, numbered=True) for part, frame in frames.items()}
    for part, path in (("validation", config.validation), ("test", config.test)):
        if path is not None:
            parts[part] = load_data(str(path), *columns, layout, config.dialect, numbered=True)
    unit = parts["train"].index.name or "row"
    frames = [
        pd.DataFrame({"part": part, "row": list(frame.index), "text": frame["text"], "label": frame["label"]})
        for part, frame in ((part, parts[part]) for part in PARTS if part in parts)
    ]
    return pd.concat(frames, ignore_index=True), unit, name


def _parts(rows: "pd.DataFrame", config: AuditConfig, kind: LabelKind, notes: list[str]) -> list[str]:
    """The part of each row: the one it is given in, or that training would draw it for. Where training would
    refuse the rows, they stay together, and a note says why."""
    parts = {
        part: rows[rows["part"] == part].assign(at=lambda each: each.index) for part in set(rows["part"])
    }
    found = rows["part"].tolist()
    try:
        with unlogged():  # training will say it
            settled, _ = settle(parts.pop("train").drop(columns="part"), kind, "keep")
            given = parts.get("validation"), parts.get("test")
            split = make_split(settled, *given, seed=config.seed, kind=kind)
    except InputError as error:
        notes.append(f"gptcls.train would refuse these rows: {error}.")
        return found
    if drawn := [part for part in PARTS[1:] if part not in parts]:
        notes.append(
            f"{' and '.join(drawn).capitalize()}: split off as gptcls.train does with seed {config.seed}."
        )
    for part in drawn:
        for at in getattr(split, part)["at"]:
            found[at] = part
    return found


def _distinct(texts: "pd.Series") -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's text (N,), and of each text its first row (D,)."""
    text = pd.factorize(texts.map(text_key))[0]
    return text, np.unique(text, return_index=True)[1]


def _max_length(config: AuditConfig, backbone: torch.nn.Module) -> int:
    n_positions = backbone.config.n_positions
    asked = n_positions if config.max_length is None else config.max_length
    if not 1 <= asked <= n_positions:
        raise InputError(f"--max-length {asked}: {config.model} reads 1 to {n_positions} tokens")
    return asked


# --- texts that stand twice ---

Finding = dict[str, Any]  # finding, at (the row), and what is known of suggested, score, like and said


def _leaks(rows: "pd.DataFrame", text: np.ndarray, pairs: Pairs) -> Iterator[Finding]:
    """Rows of validation and test whose text, or a near one, stands in a part before theirs."""
    near, part = _neighbours(pairs), rows["part"].tolist()
    first = {place: at for at, place in reversed(list(enumerate(zip(text.tolist(), part, strict=True))))}
    for at, (own, where) in enumerate(zip(text.tolist(), part, strict=True)):
        for before in PARTS[: PARTS.index(where)]:
            alike = [
                (share, first[other, before])
                for other, share in near.get(own, ())
                if (other, before) in first
            ]
            if (own, before) in first:
                alike = [(1.0, first[own, before])]
            if alike:
                share, like = max(alike, key=lambda each: (each[0], -each[1]))
                yield _alike(LEAK, rows, at, like, share, text[at] == text[like])
                break


def _repeats(rows: "pd.DataFrame", text: np.ndarray, pairs: Pairs) -> Iterator[Finding]:
    """Rows whose text, or a near one, stands in an earlier row of the same part."""
    near, part = _neighbours(pairs), rows["part"].tolist()
    first: dict[tuple[int, str], int] = {}
    for at, place in enumerate(zip(text.tolist(), part, strict=True)):
        if place in first:
            yield _alike(REPEAT, rows, at, first[place], 1.0, True)
            continue
        own, where = place
        alike = [
            (share, first[other, where]) for other, share in near.get(own, ()) if (other, where) in first
        ]
        if alike:
            share, like = max(alike, key=lambda each: (each[0], -each[1]))
            yield _alike(NEAR, rows, at, like, share, False)
        first[place] = at


def _neighbours(pairs: Pairs) -> dict[int, list[tuple[int, float]]]:
    near: dict[int, list[tuple[int, float]]] = {}
    for (a, b), share in zip(pairs.texts.tolist(), pairs.similarity.tolist(), strict=True):
        near.setdefault(a, []).append((b, share))
        near.setdefault(b, []).append((a, share))
    return near


def _alike(finding: str, rows: "pd.DataFrame", at: int, like: int, share: float, same: bool) -> Finding:
    part, row, label = rows.loc[like, ["part", "row", "label"]]
    what = "the same text as" if same else f"{share:.0%} alike:"
    other = "" if label == rows.at[at, "label"] else f", which is {label}"
    return {
        "finding": finding,
        "at": at,
        "score": share,
        "like": like,
        "said": f"{what} {part} {row}{other}",
    }


def _conflicts(rows: "pd.DataFrame", text: np.ndarray, kind: LabelKind) -> Iterator[Finding]:
    """Rows whose label is not that of most rows of their text, and all rows of a text without a majority."""
    labels = rows["label"]
    several = (labels.groupby(text).transform("nunique") > 1).to_numpy()
    votes = {one: kind.vote(own.tolist()) for one, own in labels[several].groupby(text[several])}
    for at in np.flatnonzero(several).tolist():
        vote = votes[text[at]]
        if vote == labels[at]:
            continue
        others = Counter(labels[text == text[at]]).most_common(4)
        said = "the same text is " + ", ".join(f"{label} in {n} rows" for label, n in others)
        yield {"finding": CONFLICT, "at": at, "suggested": vote or "", "said": said}


# --- labels ---


def _task(config: AuditConfig, rows: "pd.DataFrame", first: np.ndarray) -> Task:
    """The task over all labels; InputError where there is nothing to judge them by."""
    if len(first) < FEWEST:
        raise InputError(f"{len(first)} different texts are fewer than {FEWEST}")
    task = TASKS[config.task].for_training(rows["label"].tolist())
    targets = task.targets(rows["label"].iloc[first].tolist()).numpy()
    if reason := judge_of(task).rivals(task.labels).unfit(targets):
        raise InputError(reason)
    return task


def _held_out(
    task: Task,
    rows: "pd.DataFrame",
    text: np.ndarray,
    first: np.ndarray,
    kind: LabelKind,
    vectors: np.ndarray,
) -> np.ndarray:
    """Outputs (D, K) for each text, by models fitted on others, each under the label of most of its rows."""
    votes = (
        rows["label"]
        .groupby(text)
        .agg(lambda own: kind.vote(own.tolist()) if own.nunique() > 1 else own.iat[0])
    )
    known = votes.notna().to_numpy()
    labels = [vote if is_known else other for vote, is_known, other in
              zip(votes, known, rows["label"].iloc[first], strict=True)]  # fmt: skip
    targets = task.targets(labels).numpy()
    ngrams = Tfidf().fit_transform(rows["text"].iloc[first].tolist())
    return held_out(judge_of(task).rivals(task.labels), vectors, ngrams, targets, known)


def _suspects(task: Task, rows: "pd.DataFrame", outputs: np.ndarray) -> Suspects:
    labels = rows["label"].tolist()
    return suspects_of(task, labels, task.targets(labels).numpy(), outputs)


def _of_suspects(rows: "pd.DataFrame", suspects: Suspects) -> Iterator[Finding]:
    for finding, each in ((SUSPECT, suspects.rows), (DOUBT, suspects.doubtful)):
        for at in each.tolist():
            label, own = suspects.suggested[at], float(suspects.own[at])
            said = f"models of other rows say {label}"
            yield {"finding": finding, "at": at, "suggested": label, "score": own, "said": said}


def _confused(task: Task, rows: "pd.DataFrame", outputs: np.ndarray) -> "pd.DataFrame":
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


def _cut(n_tokens: np.ndarray, max_length: int) -> Iterator[Finding]:
    for at in np.flatnonzero(n_tokens > max_length).tolist():
        said = f"{n_tokens[at]:,} tokens, of which the first {max_length:,} are read"
        yield {"finding": CUT, "at": at, "score": max_length / int(n_tokens[at]), "said": said}


def _uncovered(rows: "pd.DataFrame", n_tokens: np.ndarray) -> Iterator[Finding]:
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


def _lengths(rows: "pd.DataFrame", n_tokens: np.ndarray) -> "pd.DataFrame":
    """Tokens of the texts of each part."""
    found = []
    for part, own in pd.Series(n_tokens).groupby(rows["part"].to_numpy()):
        middle, high = (int(own.quantile(q, "nearest")) for q in (0.5, 0.95))
        found.append((PARTS.index(part), part, len(own), int(own.min()), middle, high, int(own.max())))
    return pd.DataFrame([each[1:] for each in sorted(found)],
                        columns=["part", "rows", "fewest", "median", "95 %", "most"])  # fmt: skip


def _scripts(rows: "pd.DataFrame") -> "pd.DataFrame":
    """How many rows of each part are in each script."""
    each = rows[["part"]].assign(script=[own or ("no letters",) for own in rows["text"].map(scripts_of)])
    each = each.explode("script")
    counts = pd.crosstab(each["script"], each["part"])
    counts = counts[[part for part in PARTS if part in counts]]
    return counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index].reset_index()


# --- the report ---


def _meanings(config: AuditConfig, max_length: int) -> dict[str, str]:
    near = f"{config.near:.0%}"
    return {
        LEAK: f"it, or a text {near} alike, stands in a part before",
        CONFLICT: "the same text has other labels as well",
        SUSPECT: "models of other rows confidently say another label",
        DOUBT: "models of other rows say another label, less surely",
        REPEAT: "the same text stands earlier in the part",
        NEAR: f"a text {near} alike stands earlier in the part",
        CUT: f"longer than {max_length:,} tokens",
        LENGTH: "hardly a training row is as long, or as short",
        SCRIPT: "hardly a training row is in its script",
    }


def _frame(found: list[Finding], rows: "pd.DataFrame", unit: str) -> "pd.DataFrame":
    """The findings as :data:`COLUMNS`, each kind in its own order."""
    lines = []
    for each in found:
        own, like = rows.loc[each["at"]], each.get("like")
        other = ("", "") if like is None else (rows.at[like, "part"], rows.at[like, "row"])
        lines.append((each["finding"], own["part"], own["row"], own["label"], each.get("suggested", ""),
                      each.get("score"), *other, each["said"], own["text"]))  # fmt: skip
    return pd.DataFrame(lines, columns=list(COLUMNS))


def write_report(found: Audit, folder: Path) -> None:
    """``audit.csv`` with every finding, ``audit.html`` with the first of each kind."""
    with ChunkWriter(folder / "audit.csv") as writer:
        writer.write(found.findings)
    with atomic_file(folder / "audit.html") as temporary:
        temporary.write_text(as_page(found), encoding="utf-8")


def as_page(found: Audit) -> str:
    """The report as one HTML page."""
    heads = ["finding", *found.parts, "what it says of a row"]
    parts = [page.paragraph(" ".join(found.notes)), page.table(heads, _counts(found))]
    for finding, meaning in found.meanings.items():
        if (each := found.of(finding)).empty:
            continue
        first = f" The first {ON_PAGE:,} of {len(each):,}; audit.csv has all." if len(each) > ON_PAGE else ""
        shown = ["part", found.unit, "label", "why", "text"]
        lines = (
            (
                row.part,
                str(row.row),
                row.label,
                row.said,
                shortened(CONTROLS.sub("\ufffd", row.text), LONGEST),
            )
            for row in each.head(ON_PAGE).itertuples()
        )
        said = page.paragraph(f"{meaning[0].upper()}{meaning[1:]}.{first}")
        parts.append(page.section(f"{finding.capitalize()}: {len(each):,}", said, page.table(shown, lines)))
    tables = {
        "Classes that are confused": (
            found.confused,
            "Rows that models fitted on other rows take for another.",
        ),
        "Tokens of a text": (found.lengths, ""),
        "Rows in each script": (found.scripts, "A text of several counts in each."),
    }
    for title, (frame, said) in tables.items():
        if not frame.empty:
            lines = frame.head(ON_PAGE).itertuples(index=False, name=None)
            own = [page.paragraph(said)] if said else []
            parts.append(page.section(title, *own, page.table(list(frame.columns), lines)))
    return page.page(f"Audit of {found.name}", parts)


def _counts(found: Audit) -> list[list[object]]:
    """A line for each kind: how many rows of each part, and what that says."""
    by_part = pd.crosstab(found.findings["finding"], found.findings["part"])
    by_part = by_part.reindex(index=list(found.meanings), columns=found.parts, fill_value=0)
    sizes = found.rows["part"].value_counts()
    lines = [["rows", *(int(sizes[part]) for part in found.parts), ""]]
    return lines + [[kind, *map(int, by_part.loc[kind]), said] for kind, said in found.meanings.items()]


def in_words(found: Audit) -> str:
    """The table and the first suspects for the terminal."""
    lines = [
        ["", *found.parts],
        *([str(line[0]), *(f"{n:,}" for n in line[1:-1])] for line in _counts(found)),
    ]
    said = ["", "", *found.meanings.values()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = []
    for line, meaning in zip(lines, said, strict=True):
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        shown.append(f"{line[0]:<{widths[0]}}  {numbers}  {meaning}".rstrip())
    shown += ["", *found.notes]
    for finding in (LEAK, CONFLICT, SUSPECT):
        each = found.of(finding)
        if not each.empty:
            shown += ["", f"{finding}, the first {min(SHOWN, len(each))} of {len(each):,}:"]
        for row in each.head(SHOWN).itertuples():
            text = shortened(" ".join(CONTROLS.sub("\ufffd", row.text).split()), 60)
            shown.append(f"  {row.part} {row.row}, {shortened(row.label, 30)}: {text!r} ({row.said})")
    if "taken for" in found.confused:
        pairs = found.confused.head(SHOWN).itertuples(index=False, name=None)
        shown += [
            "",
            "classes that are confused: "
            + ", ".join(f"{a} for {b} {n:,} of {own:,}" for a, b, n, own in pairs),
        ]
    return "\n".join(shown)


def main() -> None:
    def run(config: AuditConfig) -> None:
        found = corpus_of(config.data)
        name = found[0] if found else Path(config.data).stem
        audit(replace(config, out=config.out or Path("runs", f"audit-{name}")), show=True)

    cli.run(AuditConfig, run)


if __name__ == "__main__":
    main()
