"""Options about tables that several verbs have: where text and labels stand, how the file is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from gptcls.data.labels import LabelKind, Layout
from gptcls.data.readers import SUFFIXES, Dialect
from gptcls.data.sources import NAMES

TEXTS_HELP = f"File of texts: {SUFFIXES}, or UCI's SMSSpamCollection; read piece by piece."


def data_help(corpora: str) -> Any:
    """The help of an option that names labelled data; ``corpora`` says which folders it may be."""
    files = f"file: {SUFFIXES}, or UCI's SMSSpamCollection"
    public = f"public data in a folder of yours: NAME:FOLDER {corpora}"
    return tyro.conf.arg(metavar="DATA", help=f"Data set ({', '.join(NAMES)}); {files}; {public}.")


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """The text column of a table, and how the file is written."""

    text_column: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME …")] = ()
    """Column with the text, or several, such as a premise and a hypothesis, read with the network's separator
    between them; otherwise guessed where only one can be meant (in use, that of the training comes first)."""
    separator: str | None = None
    """Character between the fields of what is read, such as ';', or tab; otherwise by its suffix. What is
    written goes by its own suffix."""
    encoding: str | None = None
    """Encoding of what is read, such as cp1252 or gb18030; otherwise UTF-8. What is written is UTF-8."""
    columns: tuple[str, ...] = ()
    """Names of its columns, for a .csv, .tsv or tab-separated .txt file without a header line."""

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The text columns that were named, in Python perhaps as a single string."""
        return (self.text_column,) if isinstance(self.text_column, str) else tuple(self.text_column or ())

    @property
    def dialect(self) -> Dialect:
        """How the file is written; InputError for what no file can have."""
        return Dialect(self.separator, self.encoding, self.columns)


@dataclass(frozen=True, kw_only=True)
class LabelOptions(TableOptions):
    """Also the labels' columns, and how labels are written."""

    label_column: str | None = None
    """Column with the label; guessed where only one can be meant."""
    label_columns: tuple[str, ...] = ()
    """Several columns of 0 and 1, each named like its label; of a regression, a column for each number."""
    label_separator: str | None = None
    """What stands between the labels of a row, such as ","; lists in .jsonl need none."""
    label_names: Path | None = None
    """File whose lines name the ids 0, 1, 2, … that stand in the label column."""

    def layout(self, kind: LabelKind) -> Layout:
        """Where labels of this kind stand; InputError for options that exclude each other."""
        return Layout(kind, self.label_columns, self.label_separator, self.label_names)
