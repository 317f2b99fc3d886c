"""Batches: padding, buckets, budgets."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.core.batches import (
    BucketSampler,
    TextDataset,
    bucket_loader,
    classes_of,
    pad,
    plain_loader,
    token_budget_batches,
)
from gptcls.core.tokenizer import PAD_ID, encode
from gptcls.fast.parts import by_length

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=200)


def dataset(n=37):
    return TextDataset([f"word {'and so on ' * (i % 7)}" for i in range(n)], torch.arange(n), 1024)


def test_pad_against_torch():
    rows = [[1, 2, 3], [4], [5, 6]]
    ids, lengths = pad(rows)
    expected = torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], True, PAD_ID)
    assert torch.equal(ids, expected)
    assert lengths.tolist() == [3, 1, 2]
    assert pad(rows, pad_to=5)[0].shape == (3, 5)
    assert pad(rows, pad_to=2)[0].shape == (3, 3), "pad_to never cuts"


def test_dataset_cuts_counts_and_never_is_empty():
    data = TextDataset(["one two three four", "", "one"], torch.zeros(3), max_length=2)
    assert data.rows == [encode("one two"), [PAD_ID], encode("one")]
    assert data.truncated == 1


def test_collate():
    ids, lengths, targets = dataset().collate([dataset()[3], dataset()[0]])
    assert ids.shape == (2, lengths.max())
    assert targets.tolist() == [3, 0]


@given(lengths_lists, st.integers(1, 9))
@settings(deadline=None)
def test_buckets_hold_every_row_once_and_repeat_with_the_seed(lengths, batch_size):
    sampler = BucketSampler(lengths, batch_size)
    torch.manual_seed(5)
    first = list(sampler)
    assert sorted(row for batch in first for row in batch) == list(range(len(lengths)))
    assert len(first) == len(sampler)
    assert all(len(batch) <= batch_size for batch in first)
    torch.manual_seed(5)
    assert list(sampler) == first


def test_buckets_waste_less_than_plain_shuffling_and_change_every_epoch():
    lengths = torch.randint(1, 100, (1000,), generator=torch.Generator().manual_seed(0)).tolist()

    torch.manual_seed(0)
    sampler = BucketSampler(lengths, 8)
    one, two = list(sampler), list(sampler)
    assert one != two
    shuffled = torch.randperm(1000).split(8)
    assert positions(lengths, one) < 1.1 * sum(lengths)
    assert sum(lengths) < 0.63 * positions(lengths, [rows.tolist() for rows in shuffled])


def positions(lengths, batches):
    return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)


def spam_like(n=1200):
    """Lengths that tell the class: half of the rows are short and of class 0, half are long."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 2, (n,), generator=generator)
    return (torch.randint(5, 25, (n,), generator=generator) + 20 * classes).tolist(), classes


def test_a_batch_holds_every_class_as_often_as_by_chance_or_more():
    lengths, classes = spam_like()
    torch.manual_seed(0)

    def one_class(batches):
        return sum(len(set(classes[batch].tolist())) == 1 for batch in batches) / len(batches)

    assert one_class(list(BucketSampler(lengths, 8))) > 0.3, "sorted by length alone"
    stratified = list(BucketSampler(lengths, 8, classes))
    assert one_class(stratified) <= one_class([rows.tolist() for rows in torch.randperm(1200).split(8)])
    # Cut by length these carry hardly any padding, as those that are sorted by length alone.
    parts = [
        part
        for batch in stratified
        for part in by_length((*pad([[0] * lengths[row] for row in batch]), classes[batch]), worth=8)
    ]
    assert sum(ids.numel() for ids, _, _ in parts) < 1.12 * sum(lengths)
    assert len(parts) < 2.5 * len(stratified)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 8), (37, 4), (1200, 8), (1001, 5)])
def test_a_few_batches_sort_a_few_windows_and_are_the_epochs_first(n, batch_size, monkeypatch):
    """A look at training rows every 50 steps would else cost more, the more rows there are. The whole epoch
    is that of the loop over windows that is written out here."""
    lengths, classes = spam_like(n)
    sampler, windows = BucketSampler(lengths, batch_size, classes, window=4), []
    sort = sampler._sorted
    monkeypatch.setattr(sampler, "_sorted", lambda *given: windows.append(given) or sort(*given))
    torch.manual_seed(3)
    few = list(islice(sampler, 2))
    assert len(windows) <= 2
    torch.manual_seed(3)
    split = torch.randperm(n).split(sampler.window)
    rows = torch.cat([sort(part, torch.rand(len(classes[part].unique()))) for part in split])
    sizes = [len(batch) for batch in rows.split(batch_size)]
    first = (n - 1) // sampler.window * sampler.window // batch_size
    sizes.insert(int(torch.randint(first, len(sizes), ())), sizes.pop())
    batches = rows.split(sizes)
    epoch = [batches[index].tolist() for index in torch.randperm(len(batches))]
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert list(sampler) == epoch
    assert epoch[:2] == few
    assert torch.equal(torch.get_rng_state(), after)


@given(st.integers(1, 40), st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_the_incomplete_batch_is_any(n, batch_size):
    """In the mean over the epochs its rows are as long as all are."""
    lengths, means = list(range(n)), []
    if n % batch_size == 0 or n < batch_size:
        return
    torch.manual_seed(0)
    for _ in range(200):
        (short,) = (batch for batch in BucketSampler(lengths, batch_size) if len(batch) < batch_size)
        means.append(sum(short) / len(short))
    error = np.std(means) / len(means) ** 0.5
    assert abs(np.mean(means) - (n - 1) / 2) < 4 * error + 0.5


@given(lengths_lists, st.integers(1, 500), st.booleans())
@settings(deadline=None)
def test_parts_are_the_batch_and_never_wider_than_it(lengths, worth, cut_off):
    rows = [[row] * length for row, length in enumerate(lengths)]
    ids, counts = pad(rows)
    if cut_off:  # as features that were pooled already
        ids = ids[:, :1]
    found = by_length((ids, counts, torch.arange(len(rows))), worth)
    assert sorted(int(t) for _, _, targets in found for t in targets) == list(range(len(rows)))
    for part, lengths_, targets in found:
        width = min(int(lengths_.max()), ids.shape[1])
        assert torch.equal(part, ids[targets, :width])
        assert torch.equal(lengths_, counts[targets])
    assert len(found) == 1 or sum(part.numel() for part, _, _ in found) <= ids.numel() - worth * (
        len(found) - 1
    )


def test_classes_are_those_of_rows_with_one_class():
    targets = torch.tensor([1, 0])
    data = TextDataset(["a b c d", "a"], targets, 2, cut=lambda ids, room: [ids[:room], ids[room:]])
    assert classes_of(data).tolist() == [1, 1, 0]
    for other in (targets.float(), targets[:, None]):
        assert classes_of(TextDataset(["a", "b"], other, 2)) is None


@given(lengths_lists, st.integers(1, 300))
@settings(deadline=None)
def test_token_budget(lengths, budget):
    batches = token_budget_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_loaders():
    data = dataset()
    assert [len(t) for _, _, t in plain_loader(data, 8)] == [8, 8, 8, 8, 5]
    assert [len(t) for _, _, t in plain_loader(data, 8, shuffle=True)] == [8, 8, 8, 8]
    seen = torch.cat([targets for _, _, targets in bucket_loader(data, 8)])
    assert sorted(seen.tolist()) == list(range(37))
    data.pad_to = 90
    assert all(ids.shape[1] == 90 for ids, _, _ in bucket_loader(data, 8))


def test_non_text_names_its_row():
    with pytest.raises(TypeError, match="row 1"):
        TextDataset(["a", None], torch.zeros(2), 10)
