"""Public data sets that lie in a folder of yours, in the files that their authors published.

``--data goemotions:FOLDER`` reads one with its official parts.
"""

import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.encodings import check_zip, require_file
from gptcls.data.labels import LISTS, ONE_CLASS, LabelKind, Layout
from gptcls.data.readers import PLAIN, Dialect
from gptcls.data.sources import ONE_CLASS_LAYOUT, labelled_frame, load_data

TREC_CLASSES = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
Parts = dict[str, Any]  # frames with the columns text and label, by "train", "validation", "test"


class Corpus(NamedTuple):
    kind: LabelKind
    read: Callable[[Path], Parts]  # of a folder


def trec6(folder: Path) -> Parts:
    """Questions in six coarse classes (Li and Roth 2002): ``COARSE:fine text``, latin-1. 5,452 for training,
    500 for testing, in ``train.txt`` and ``test.txt`` or under their authors' names."""
    names = {"train": ("train.txt", "train_5500.label"), "test": ("test.txt", "TREC_10.label")}
    return {part: _questions(_first(folder, *files)) for part, files in names.items()}


def _questions(path: Path) -> "pd.DataFrame":
    rows = []
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        label, _, text = line.partition(" ")
        rows.append((text.strip(), label.partition(":")[0]))
        if rows[-1][1] not in TREC_CLASSES or not text.strip():
            raise InputError(f"{path}, line {number}: {line!r:.60} is not like TREC's, COARSE:fine text")
    return _numbered(rows)


def goemotions(folder: Path) -> Parts:
    """Comments with any of 28 emotions (Demszky et al. 2020): ``text<TAB>ids<TAB>id``, and labels.txt."""
    layout = Layout(LISTS, label_separator=",", label_names=_first(folder, "labels.txt", "emotions.txt"))
    files = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    return _tables(folder, files, layout, "text", "label", "id")


def thucnews(folder: Path) -> Parts:
    """Chinese news titles in ten classes: ``title<TAB>class id``, names in class.txt."""
    layout = Layout(label_names=_first(folder, "class.txt"))
    files = {"train": "train.txt", "validation": "dev.txt", "test": "test.txt"}
    if not (folder / "train.txt").exists():
        log.info(f"{folder}: no train.txt, so dev.txt is trained on")
        files = {"train": "dev.txt", "test": "test.txt"}
    return _tables(folder, files, layout, "text", "label")


def _tables(folder: Path, files: dict[str, str], layout: Layout, *columns: str) -> Parts:
    how = {"layout": layout, "dialect": Dialect(columns=columns), "numbered": True}
    return {part: load_data(_first(folder, file), **how) for part, file in files.items()}


def chnsenticorp(folder: Path) -> Parts:
    """Chinese hotel reviews, 1 for praise, 0 for blame: ``label,review``; rows without text are left out."""
    path = _first(folder, "ChnSentiCorp_htl_all.csv")
    return {"train": load_data(path, "review", "label", numbered=True)}


def movie_reviews(folder: Path) -> Parts:
    """Long film reviews, pos or neg (Pang and Lee 2004), one text file each inside movie_reviews.zip."""
    path = _first(folder, "movie_reviews.zip")
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, path, "fetch it again")
            names = [Path(name) for name in sorted(archive.namelist()) if name.endswith(".txt")]
            names = [name for name in names if name.parent.name in ("neg", "pos")]
            rows = [(archive.read(name.as_posix()).decode("latin-1"), name.parent.name) for name in names]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise InputError(f"{path} is not a readable zip archive ({error}); fetch it again") from None
    if not rows:
        raise InputError(f"{path} holds no neg/*.txt and no pos/*.txt; fetch it again")
    return {"train": _numbered(rows)}


CORPORA = {
    "trec6": Corpus(ONE_CLASS, trec6),
    "goemotions": Corpus(LISTS, goemotions),
    "thucnews": Corpus(ONE_CLASS, thucnews),
    "chnsenticorp": Corpus(ONE_CLASS, chnsenticorp),
    "movie-reviews": Corpus(ONE_CLASS, movie_reviews),
}


def corpus_of(data: str | Path) -> tuple[str, Path] | None:
    """The name and the folder in ``"goemotions:FOLDER"``; None for a file or another data set's name."""
    name, colon, folder = str(data).partition(":")
    return (name, Path(folder)) if colon and name in CORPORA else None


def load_parts(
    data: str | Path, text_column: str | Sequence[str] | None = None, label_column: str | None = None,
    layout: Layout = ONE_CLASS_LAYOUT, dialect: Dialect = PLAIN, trained_on: Sequence[str] = (),
) -> Parts:  # fmt: skip
    """The parts of a data set: "train", of a corpus also what else it has; the index numbers the rows.
    InputError for a corpus with options about columns, or of another task than the ``layout``'s."""
    if (found := corpus_of(data)) is None:
        how = {"layout": layout, "dialect": dialect, "trained_on": trained_on, "numbered": True}
        return {"train": load_data(data, text_column, label_column, **how)}
    name, folder = found
    kind, read = CORPORA[name]
    if kind is not layout.kind:
        raise InputError(f"{name} is for --task {kind.task}, not --task {layout.kind.task}")
    if text_column or label_column or layout != Layout(layout.kind) or dialect != PLAIN:
        raise InputError(f"--data {data} knows its own columns and labels; leave those options out")
    parts = read(folder)
    log.info(f"{name}: its own parts " + ", ".join(f"{part} {len(frame):,}" for part, frame in parts.items()))
    return parts


def _first(folder: Path, *names: str) -> Path:
    """The first of these files that is there."""
    if found := [folder / name for name in names if (folder / name).exists()]:
        require_file(found[0])
        return found[0]
    where = "no such folder" if not folder.is_dir() else f"the folder holds no {' or '.join(names)}"
    raise InputError(f"{folder}: {where}; give the folder of the data set's own files")


def _numbered(rows: list[tuple[str, str]]) -> "pd.DataFrame":
    """(text, label) rows as a frame whose index counts them from 1."""
    return labelled_frame(*zip(*rows, strict=True)).set_index(pd.RangeIndex(1, len(rows) + 1, name="row"))
