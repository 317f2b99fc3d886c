"""Batches: padding, buckets, budgets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.core.batches import (
    BucketSampler,
    TextDataset,
    bucket_loader,
    pad,
    plain_loader,
    token_budget_batches,
)
from gptcls.core.tokenizer import PAD_ID, encode

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

    def positions(batches):
        return sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)

    torch.manual_seed(0)
    sampler = BucketSampler(lengths, 8)
    one, two = list(sampler), list(sampler)
    assert one != two
    shuffled = torch.randperm(1000).split(8)
    assert positions(one) < 1.1 * sum(lengths) < 0.7 * positions([s.tolist() for s in shuffled])


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
