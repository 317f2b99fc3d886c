"""The book's data, row for row, against its own functions and published counts."""

from pathlib import Path

import pandas as pd
import pytest

from gptcls.core.errors import InputError
from gptcls.core.tokenizer import gpt2_encoding
from gptcls.data.book import balance_as_book, book_split, read_as_book
from gptcls.data.same_text import text_key
from gptcls.data.sources import load_data
from gptcls.data.split import drop_duplicates

UCI = Path(__file__).parents[2] / "shared" / "data" / "sms" / "SMSSpamCollection"
pytestmark = pytest.mark.skipif(
    not UCI.exists(), reason="the SMS Spam Collection is not beside this checkout"
)
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def split():
    return book_split(UCI)


def test_reading():
    frame = read_as_book(UCI)
    assert len(frame) == 5572
    assert frame.label.value_counts().to_dict() == {"ham": 4825, "spam": 747}


def test_true_rows_and_duplicates():
    frame = load_data(UCI)
    assert len(frame) == 5574
    assert frame.text.nunique() == 5171
    assert frame.groupby("text").label.nunique().max() == 1
    distinct = drop_duplicates(frame)
    assert len(distinct) == 5128
    assert len(frame) - len(distinct) == 446
    assert distinct.label.value_counts().to_dict() == {"ham": 4502, "spam": 626}


def test_balance_and_split_sizes(split):
    assert balance_as_book(read_as_book(UCI)).label.value_counts().to_dict() == {"ham": 747, "spam": 747}
    assert [len(part) for _, part in split.items()] == [1045, 149, 300]
    assert [int((part.label == "spam").sum()) for _, part in split.items()] == [517, 79, 151]


def test_leak_of_the_split(split):
    train = set(split.train.text)
    assert int(split.test.text.isin(train).sum()) == 37
    assert int(split.test.text.isin(train | set(split.validation.text)).sum()) == 41
    keys = [part.text.map(text_key) for _, part in split.items()]
    assert int(keys[2].isin(keys[0]).sum()) == 43, "by letters and digits"


def test_lengths(split):
    lengths = [len(gpt2_encoding().encode(text)) for text in split.train.text]
    assert max(lengths) == 120
    assert round(sum(lengths) / len(lengths), 1) == 30.4


def test_same_rows_as_the_book(split):
    reason = "needs llms-from-scratch, installed with --no-deps (it asks for TensorFlow)"
    ch06 = pytest.importorskip("llms_from_scratch.ch06", reason=reason)
    book = pd.read_csv(UCI, sep="\t", header=None, names=["Label", "Text"])  # section 6.2
    book = ch06.create_balanced_dataset(book)
    ours = balance_as_book(read_as_book(UCI))
    assert ours.index.tolist() == book.index.tolist()
    for (name, part), expected in zip(split.items(), ch06.random_split(book, 0.7, 0.1), strict=True):
        assert part.text.tolist() == expected["Text"].tolist(), name
        assert part.label.tolist() == expected["Label"].tolist(), name
        assert part.index.tolist() == list(range(len(part)))


def test_sample_by_the_same_steps():
    frame, split = load_data("sms-sample"), book_split("sms-sample")
    n = 2 * int((frame.label == "spam").sum())
    assert [len(part) for _, part in split.items()] == [n * 7 // 10, n // 10, n - n * 7 // 10 - n // 10]
    everything = pd.concat([part for _, part in split.items()])
    assert sorted(everything.text) == sorted(frame.text)


def test_other_data_is_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,0\nb,1\n")
    with pytest.raises(
        InputError, match=r"x\.csv: label '0', but the book's recipe reads the SMS Spam Collection"
    ):
        book_split(path)
    path.write_text("text,label\na,spam\nb,spam\nc,ham\n")
    with pytest.raises(InputError, match="found 2 spam and 1 ham"):
        book_split(path)
