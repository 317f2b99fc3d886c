"""python -m gptcls.explain: why a text gets its answer, and which words move the answers most."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from gptcls.classify.attribution import STEPS, By, asked_labels
from gptcls.classify.explanation import LEFT_OUT, Explanation, strongest
from gptcls.classify.predict import DEFAULT_CLASSIFIER, ClassifierOptions, TextClassifier
from gptcls.classify.run import model_first
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import atomic_file
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.common.options import check_at_least, check_seed, own_first
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.columns import columns_of, find_text_columns, text_values
from gptcls.data.corpora import CORPORA, corpus_of, load_parts
from gptcls.data.fields import without_boundary
from gptcls.data.labels import Layout
from gptcls.data.options import TEXTS_HELP, TableOptions
from gptcls.data.readers import read_chunks, suffix_of
from gptcls.data.sources import NAMES
from gptcls.data.writer import WRITERS, ChunkWriter
from gptcls.evaluation import marked, page
from gptcls.evaluation.table import aligned

MOST_PANELS = 6  # texts and labels in one picture
KNOWN = f"{', '.join(NAMES)}, or one of {', '.join(CORPORA)} as NAME:FOLDER, of which the test part"
DATA_HELP = f"Data set ({KNOWN}) or file whose texts are explained together. {TEXTS_HELP}"


@own_first
@dataclass(frozen=True, kw_only=True)
class ExplainConfig(TableOptions, ClassifierOptions):
    """Say what each word adds to an answer: of the texts given, or over all texts of --data.

    A word is left out, and what the answer loses is what it added: removed, so that what follows moves up.
    Probabilities are compared as log-odds. A text of T words costs T + 1 texts.
    """

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts to explain."""
    model: str = DEFAULT_CLASSIFIER
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help=DATA_HELP)] = None
    out: Annotated[Path | None, tyro.conf.arg(aliases=["--output"], metavar="FILE")] = None
    """File for what is printed, by its suffix: .html (a page that needs nothing else), .png, or a table with
    every piece in .csv, .tsv, .jsonl or .parquet."""
    label: tuple[str, ...] = ()
    """What to explain; otherwise the answer, and with --data every label, of two classes the second."""
    by: By = "word"
    """Pieces to leave out: words, or the tokenizer's tokens."""
    gradients: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A second opinion beside it: integrated gradients, which words that cover for each other share."""
    steps: int = STEPS
    """Points of their integral; more bring its sum nearer to what it should be."""
    rows: int | None = 1000
    """Most texts of --data that are explained, drawn at random; None takes all."""
    least: int = 3
    """Texts of --data that a word must stand in to be listed; two at least."""
    top: int = 15
    """Words listed of each label with --data."""
    seed: int = 123
    """Of the draw of --rows."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "fp32"
    """Number format of the blocks, but for a last one that is read at one position, and with int8 any last
    one; a narrow one is faster, and its rounding shows in differences of answers."""


def explain(config: ExplainConfig) -> "list[Explanation | None] | pd.DataFrame":
    """Print what ``config`` asks for, write ``config.out``, and return the explanations of its texts or, of
    ``data``, :func:`gptcls.classify.explanation.strongest` of each label in one frame, with a column
    ``label`` in front. InputError, leaving no file, for options that exclude each other and for what cannot
    be read."""
    config = model_first(config, "to explain its texts")
    _check(config)
    classifier = config.load()
    shown = asked_labels(classifier.saved.task, config.label)
    if config.data is None:
        how = {"by": config.by, "gradients": config.gradients, "steps": config.steps}
        texts = list(map(without_boundary, config.texts))
        found = classifier.explained(texts, labels=config.label, **how)
        _write_texts(config.out, found, config.texts)
        colours = marked.takes_colours(sys.stdout)
        for text, each in zip(config.texts, found, strict=True):
            _say([f"{text!r} has no answer", ""] if each is None else each.lines(colours), colours)
        return found
    texts = _texts_of(config, classifier)
    n_all = len(texts)
    if config.rows is not None and n_all > config.rows:
        drawn = np.random.RandomState(config.seed).choice(n_all, config.rows, replace=False)
        texts = [texts[i] for i in np.sort(drawn)]
        log.info(f"{config.data}: {len(texts):,} of {n_all:,} texts, drawn at random (--rows {config.rows})")
    found = classifier.explained(texts, by=config.by)
    table = _of_each_label(classifier, found, shown, config.least)
    _write_table(config, table, len(texts), classifier)
    for label, rows in table.groupby("label", sort=False):
        _say(_listed(rows[: config.top], _title(classifier, str(label)), config.by))
    return table


def _check(config: ExplainConfig) -> None:
    if bool(config.texts) == (config.data is not None):
        both = ", not both" if config.texts else " with a file of them"
        order = "; texts stand before --label, which takes all that follow" if config.label else ""
        raise InputError(f"give texts, or --data{both}{'' if config.texts else order}")
    if config.data is not None and config.gradients:
        raise InputError("--gradients goes with texts, not with --data")
    if config.data is None and (config.text_column or config.separator or config.encoding or config.columns):
        raise InputError("--text-column, --separator, --encoding and --columns go with --data")
    check_at_least(vars(config), {"rows": 1, "least": 1, "top": 1})
    check_seed(config.seed)
    if config.out is not None and _kind(config.out) not in (".html", ".png", *WRITERS):
        known = ", ".join((".html", ".png", *WRITERS))
        raise InputError(f"--out {config.out}: unknown format {config.out.suffix!r} to write; give {known}")
    if config.out is not None and config.out.is_dir():
        raise InputError(f"--out {config.out} is a folder: give the name of a file to write")


def _texts_of(config: ExplainConfig, classifier: TextClassifier) -> list[str]:
    found = corpus_of(config.data)
    if found or config.data in NAMES:
        layout = Layout(CORPORA[found[0]].kind) if found else Layout()
        parts = load_parts(config.data, config.text_column, None, layout, config.dialect)
        return parts.get("test", parts["train"])["text"].tolist()
    texts, names, source = [], None, Path(config.data)
    for chunk in read_chunks(source, dialect=config.dialect):
        if names is None:
            trained_on = classifier.saved.text_columns
            names = find_text_columns(chunk.columns, config.text_column, chunk, source, trained_on)
        texts += [text for text in text_values(columns_of(chunk, names, source)) if text is not None]
    if not texts:
        raise InputError(f"{source} has no text to explain")
    return texts


def _of_each_label(
    classifier: TextClassifier, found: Sequence[Explanation | None], shown: Sequence[int], least: int
) -> "pd.DataFrame":
    labels, task = classifier.labels, classifier.saved.task
    two = isinstance(task, SingleLabel) and len(labels) == 2  # the one's log-odds are the other's, negated
    frames = [
        strongest(found, k, least).assign(label=labels[k])
        for k in shown or ([1] if two else range(len(labels)))
    ]
    table = pd.concat(frames, ignore_index=True)
    if table.empty:
        raise InputError(f"no word stands in {least} texts: lower --least, or give more texts")
    return table[["label", *(name for name in table if name != "label")]]


def _title(classifier: TextClassifier, label: str) -> str:
    log_odds = classifier.saved.task.has_probabilities
    return f"what adds most to the log-odds of {label}" if log_odds else f"what adds most to {label}"


def _cells(rows: "pd.DataFrame") -> Iterator[list[str]]:
    for row in rows.itertuples():
        yield [row.piece, f"{row.texts:,}", f"{row.mean:+.2f}", f"[{row.low:+.2f}, {row.high:+.2f}]",
               f"{row.turned:,}"]  # fmt: skip


HEADS = ("texts", "mean", "95 % CI", "answers turned")


def _listed(rows: "pd.DataFrame", title: str, by: str) -> list[str]:
    cells = [[by, *HEADS], *([marked.printable(row[0]), *row[1:]] for row in _cells(rows))]
    return [f"{title}, mean over the texts that have it", *aligned(cells, left=(0,)), ""]


def _say(lines: Iterable[str], colours: bool = False) -> None:
    """Print lines; with ``colours`` these are all that is left of a terminal's commands in them."""
    for line in lines:
        say(line, keep="\n\t\x1b" if colours else "\n\t")


# --- files ---


def _kind(out: Path) -> str:
    """What is written, by the suffix: tables may be compressed, pages and pictures not."""
    suffix = out.suffix.lower()
    return suffix if suffix in (".html", ".png") or suffix_of(out) in (".html", ".png") else suffix_of(out)


def _write_texts(out: Path | None, found: Sequence[Explanation | None], texts: Sequence[str]) -> None:
    """The explanations of some texts as a page, a picture or a table."""
    if out is None:
        return
    read = [(n, each) for n, each in enumerate(found, 1) if each is not None]
    if not read:
        raise InputError(f"no text has an answer, so there is nothing to write to {out}")
    if _kind(out) == ".html":
        body = "\n".join(each.section() for _, each in read)
        _write_page(out, "Why: what each piece adds", f'{body}<p class="why note">{LEFT_OUT}</p>')
    elif _kind(out) == ".png":
        panels = [panel for _, each in read for panel in each.panels()]
        if len(panels) > MOST_PANELS:
            raise InputError(f"{out}: {len(panels)} panels are too many for a picture; write .html instead")
        first = read[0][1]
        unit = "log-odds" if first.task.has_probabilities else "score"
        _write_picture(out, panels, f"what the {first.by} adds to the {unit}")
    else:
        frames = [each.frame().assign(text=n) for n, each in read]
        # Texts may have other labels shown than the first one.
        names = list(dict.fromkeys(name for frame in frames for name in frame if name != "text"))
        with ChunkWriter(out) as writer:
            for frame in frames:
                writer.write(frame.reindex(columns=["text", *names]))


def _write_table(config: ExplainConfig, table: "pd.DataFrame", n: int, classifier: TextClassifier) -> None:
    """The strongest pieces of a data set as a page, a picture or a table."""
    out, groups = config.out, list(table.groupby("label", sort=False))
    if out is None:
        return
    if _kind(out) == ".html":
        captions = ((_title(classifier, str(label)), rows[: config.top]) for label, rows in groups)
        tables = (marked.table(title, [config.by, *HEADS], list(_cells(rows))) for title, rows in captions)
        notes = f"Means over the texts that have the {config.by}, of {n:,} texts. Digits count as 0."
        body = f'<div class="why">{"<br>".join(tables)}<p class="note">{notes} {LEFT_OUT}</p></div>'
        _write_page(out, f"Why: the {config.by}s that add most", body)
    elif _kind(out) == ".png":
        if len(groups) > MOST_PANELS:
            said = f"{out}: {len(groups)} labels are too many for a picture"
            raise InputError(f"{said}; name some with --label")
        panels = [
            (f"{label}: the strongest {config.by}s of {n:,} texts", rows["piece"].tolist(),
             rows["mean"].tolist(), list(zip(rows["low"], rows["high"], strict=True)))
            for label, rows in ((label, rows[: config.top]) for label, rows in groups)
        ]  # fmt: skip
        _write_picture(out, panels, f"what the {config.by} adds, mean over its texts and 95 % interval")
    else:
        with ChunkWriter(out) as writer:
            writer.write(table.round(6))


def _write_page(out: Path, title: str, body: str) -> None:
    with atomic_file(out) as temporary:
        temporary.write_text(page.page(title, [body], marked.STYLE), encoding="utf-8")


def _write_picture(out: Path, panels: Sequence[marked.Bars], xlabel: str) -> None:
    with atomic_file(out) as temporary:
        marked.plot_bars(panels, xlabel).savefig(temporary)


def main() -> None:
    cli.run(ExplainConfig, explain)


if __name__ == "__main__":
    main()
