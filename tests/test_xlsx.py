"""Excel workbooks: the cells that openpyxl wrote come back as a person reads them."""

import datetime
import logging
import sys

import openpyxl
import pandas as pd
import pytest
from helpers.tiny import ROWS, write_csv

from gptcls.core.errors import InputError
from gptcls.data.readers import Dialect, read_chunks
from gptcls.data.sources import load_data


def workbook(path, *rows, sheets=("rows",)):
    book = openpyxl.Workbook()
    book.active.title = sheets[0]
    for row in rows:
        book.active.append(row)
    for name in sheets[1:]:
        book.create_sheet(name).append(["not", "this"])
    book.save(path)
    return path


def test_a_sheet_is_read_as_the_same_csv_is(tmp_path):
    sheet = workbook(tmp_path / "rows.xlsx", ("text", "label"), *ROWS)
    pd.testing.assert_frame_equal(load_data(sheet), load_data(write_csv(tmp_path / "rows.csv")))
    written_by_pandas = tmp_path / "pandas.xlsx"
    pd.DataFrame(ROWS, columns=["text", "label"]).to_excel(written_by_pandas, index=False)
    pd.testing.assert_frame_equal(load_data(written_by_pandas), load_data(sheet))


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("007", "007"),
        ("NA", "NA"),
        (" spaces ", " spaces "),
        ("two\nlines", "two\nlines"),
        ("你好 🎉", "你好 🎉"),
        (7, "7"),
        (7.0, "7"),
        (0.1, "0.1"),
        (-12345678901, "-12345678901"),
        (True, "TRUE"),
        (datetime.datetime(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 12, 30), "2024-05-01 12:30:00"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        ("#N/A", ""),
        (None, ""),
    ],
    ids=repr,
)
def test_cells_are_text_as_written(tmp_path, cell, read):
    (frame,) = read_chunks(workbook(tmp_path / "x.xlsx", ("id", "text"), (cell, "a"), ("x", "b")))
    assert frame["id"].tolist() == [read, "x"]


def test_rows_are_numbered_as_excel_does_and_blank_ones_skipped(tmp_path):
    path = workbook(tmp_path / "x.xlsx", ("text", "label"), ("a", "x"), (), ("b", None))
    chunks = list(read_chunks(path, rows=1))
    assert [(chunk.index.name, *chunk.index) for chunk in chunks] == [("row", 2), ("row", 4)]
    with pytest.raises(InputError, match=r"x\.xlsx: missing label in column 'label' in row 4"):
        load_data(path)


def test_the_first_sheet_is_read_and_named(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gptcls")
    path = workbook(tmp_path / "x.xlsx", ("text", "label"), ("a", "x"), sheets=("mine", "other"))
    assert load_data(path)["text"].tolist() == ["a"]
    assert f"{path}: its first sheet, 'mine', is read, of 2" in caplog.text


def test_columns_may_be_named_where_no_header_is(tmp_path):
    path = workbook(tmp_path / "x.xlsx", *ROWS[:4])
    assert len(load_data(path, dialect=Dialect(columns=("text", "label")))) == 4


def test_what_cannot_be_read(tmp_path, monkeypatch):
    path = workbook(tmp_path / "x.xlsx", ("text", "text"), ("a", "b"))
    with pytest.raises(InputError, match=r"more than one column is named 'text'"):
        load_data(path)
    with pytest.raises(InputError, match="leave out --separator"):
        load_data(path, dialect=Dialect(separator=";"))
    empty = workbook(tmp_path / "empty.xlsx")
    with pytest.raises(InputError, match=r"empty\.xlsx is empty"):
        load_data(empty)
    (tmp_path / "bad.xlsx").write_text("text,label\na,x\n")
    with pytest.raises(InputError, match=r"bad\.xlsx is not a readable Excel workbook .*save it"):
        load_data(tmp_path / "bad.xlsx")
    (tmp_path / "x.csv").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"name it \.xlsx"):
        load_data(tmp_path / "x.csv")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"pip install 'gptcls\[xlsx\]'"):
        load_data(path)


def test_it_is_not_imported_for_other_files(tmp_path):
    import subprocess

    write_csv(tmp_path / "x.csv")
    code = f"import sys; from gptcls.data.sources import load_data; load_data({str(tmp_path / 'x.csv')!r})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('openpyxl' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr
