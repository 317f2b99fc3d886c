"""A file that was sent, labelled: the rows that ``gptcls classify --data`` would write, as CSV."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gptcls.classify.predict import TextClassifier
from gptcls.classify.run import classify_file
from gptcls.common.lazy import pd
from gptcls.core.errors import InputError
from gptcls.data.columns import find_text_columns
from gptcls.data.encodings import LONGEST_LINE, read_lines, require_text
from gptcls.data.options import TableOptions
from gptcls.data.readers import is_uci, read_chunks
from gptcls.data.writer import ChunkWriter

# What is text. Compressed files and workbooks unpack to many times what was sent.
KINDS = (".csv", ".tsv", ".txt", ".jsonl")


class StoppedError(Exception):
    """Nobody waits for the file any more."""


def label_file(
    classifier: TextClassifier, body: bytes, name: str, table: TableOptions, most_rows: int
) -> tuple[bytes, Sequence[str]]:
    """The CSV file, with ``'`` before what a spreadsheet would take for a formula, and the text columns that
    were read. A .txt file without columns has a text a line, blank ones left out. InputError for what cannot
    be used, naming the file ``file`` with its suffix, and for more than ``most_rows`` rows."""
    suffix = Path(name).suffix.lower()
    if suffix not in KINDS:
        what = f"a {suffix!r:.20} file" if suffix else "a file without a suffix"
        raise InputError(f"this is {what}; give {', '.join(KINDS)}, a workbook saved as CSV UTF-8")
    with TemporaryDirectory(prefix="gptcls-") as folder:
        source, target = Path(folder) / f"file{suffix}", Path(folder) / "labelled.csv"
        source.write_bytes(body)
        try:
            if suffix == ".txt" and not table.columns and table.separator is None:
                source, table = _lines_as_table(source, table)
            names = _text_columns(classifier, source, table, most_rows)
            classify_file(classifier, source, target, replace(table, text_column=names), escape_formulas=True)
        except InputError as error:
            raise InputError(str(error).replace(f"{folder}/", "")) from None
        return target.read_bytes(), names


def _text_columns(
    classifier: TextClassifier, source: Path, table: TableOptions, most_rows: int
) -> tuple[str, ...]:
    names, n = (), 0
    for chunk in read_chunks(source, dialect=table.dialect):
        asked, trained_on = table.text_column, classifier.saved.text_columns
        names = names or find_text_columns(chunk.columns, asked, chunk, source, trained_on)
        n += len(chunk)
        if n > most_rows:
            way_out = "label it with gptcls classify --data, which takes any number"
            raise InputError(f"{source} has more than {most_rows:,} rows (--max-rows); {way_out}")
    return names


def _lines_as_table(source: Path, table: TableOptions) -> tuple[Path, TableOptions]:
    """Lines of text as a table with the column "text"; UCI's SMS format is one already."""
    require_text(source, table.encoding, LONGEST_LINE)
    if is_uci(source, table.encoding):
        return source, table
    lines = [line for _, line in read_lines(source, table.encoding)]
    if not lines:
        raise InputError(f"{source} has no text: give one a line")
    if table.text_column not in ((), ("text",)):
        raise InputError(f"{source} has a text a line and no columns: leave out --text-column")
    rows = source.with_suffix(".jsonl")
    with ChunkWriter(rows) as writer:
        writer.write(pd.DataFrame({"text": lines}))
    return rows, TableOptions(text_column=("text",))
