"""The classifier against transformers, the book's counts, and what padding must not change."""

import pytest
import torch
from helpers.tiny import set_pooling
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, pad
from gptcls.core.classifier import POOLERS, Classifier, LastToken, Pooler, trained_blocks
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS, GPT2Config
from gptcls.fast.frozen import Frozen, Trained
from gptcls.models.pretrained import load_pretrained

TINY = GPT2Config(n_layer=3, n_embd=32, n_head=4, n_positions=64)
CPU = torch.device("cpu")
texts = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=40), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    model = Classifier(GPT2(TINY), 3)
    with torch.no_grad():  # random biases and norms: zeros and ones would hide a mistake
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def test_logits_equal_transformers_on_ragged_batches(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=3, n_embd=32, n_head=4, n_positions=64, vocab_size=101, num_labels=2, pad_token_id=100
    )
    torch.manual_seed(1)
    theirs = transformers.GPT2ForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.transformer.save_pretrained(tmp_path)
    ours = Classifier(load_pretrained(tmp_path), 2).eval()
    with torch.no_grad():
        ours.head.weight.copy_(theirs.score.weight)
        ours.head.bias.zero_()  # theirs has none
    rows = [torch.randint(0, 100, (n,)).tolist() for n in (1, 7, 64, 20, 2)]
    ids, lengths = pad(rows, pad_id=100)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=(ids != 100).long()).logits
        got = ours(ids, lengths)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)
    assert (got - expected).abs().max() < 1e-4 < expected.abs().max()


def test_trained_parameters_are_the_books():
    with torch.device("meta"):
        model = Classifier(GPT2(PRESETS["gpt2-small"]), 2)
    model.freeze("last_block")
    assert sum(p.numel() for p in model.trained_parameters().values()) == 7_090_946
    names = {name.rsplit(".", 1)[0] for name in model.trained_parameters()}
    assert {"head", "backbone.norm", "backbone.blocks.11.attn.qkv"} <= names
    assert not any(name.startswith("backbone.blocks.10") for name in names)


@pytest.mark.parametrize(
    ("policy", "n_blocks"),
    [("head", 0), ("last_block", 1), ("last_1", 1), ("last_2", 2), ("last_3", 3), ("blocks", 3), ("all", 3)],
)
def test_policies(policy, n_blocks):
    model = Classifier(GPT2(TINY), 2)
    model.freeze(policy)
    trained = [any(p.requires_grad for p in block.parameters()) for block in model.backbone.blocks]
    assert trained == [False] * (3 - n_blocks) + [True] * n_blocks
    assert model.backbone.norm.weight.requires_grad == (n_blocks > 0)
    assert model.backbone.wte.weight.requires_grad == (policy == "all")
    assert model.head.weight.requires_grad
    assert trained_blocks(policy, 3) == n_blocks


@pytest.mark.parametrize("policy", ["last", "last_0", "last_4", "block", "", "LAST_2"])
def test_unknown_policy_is_named(policy):
    with pytest.raises(InputError, match="--train"):
        trained_blocks(policy, 3)


def test_frozen_parts_stay_in_eval_mode():
    model = Classifier(GPT2(GPT2Config(n_layer=3, n_embd=32, n_head=4, dropout=0.5)), 2)
    model.freeze("last_block")
    model.train()
    assert [block.training for block in model.backbone.blocks] == [False, False, True]
    assert not model.backbone.drop.training
    model.eval()
    assert not any(module.training for module in model.modules())
    model.freeze("all")
    model.train()
    assert all(module.training for module in model.modules())


@given(texts, st.integers(0, 20))
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
def test_padding_changes_no_prediction(tiny, pooling, rows, extra):
    set_pooling(tiny, pooling)
    ids, lengths = pad(rows, pad_id=0)
    padded, _ = pad(rows, pad_to=ids.shape[1] + extra, pad_id=99)
    with torch.no_grad():
        torch.testing.assert_close(tiny(padded, lengths), tiny(ids, lengths), atol=1e-5, rtol=0)
        alone = torch.cat([tiny(*pad([row])) for row in rows])
    torch.testing.assert_close(tiny(ids, lengths), alone, atol=1e-5, rtol=0)


def test_padding_does_change_the_books_position(tiny):
    rows = [[5, 6, 7]]
    set_pooling(tiny, "position-1")
    with torch.no_grad():
        short, long = tiny(*pad(rows, pad_id=1)), tiny(*pad(rows, pad_to=30, pad_id=1))
    assert (short - long).abs().max() > 1e-3


@given(texts)
@settings(deadline=None, max_examples=40)
def test_batching_changes_no_prediction_and_keeps_the_order(tiny, rows):
    set_pooling(tiny, "last")
    with torch.no_grad():
        alone = torch.cat([tiny(*pad([row])) for row in rows])
    dataset = TextDataset([], torch.zeros(len(rows)), 64)
    dataset.rows, dataset.owners = rows, range(len(rows))
    torch.testing.assert_close(dataset_logits(tiny, dataset, CPU), alone, atol=1e-5, rtol=0)


def test_poolers():
    hidden = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([2, 4])
    expected = {
        "last": [hidden[0, 1], hidden[1, 3]],
        "first": [hidden[0, 0], hidden[1, 0]],
        "mean": [hidden[0, :2].mean(0), hidden[1].mean(0)],
        "max": [hidden[0, :2].max(0).values, hidden[1].max(0).values],
        "position-1": [hidden[0, 3], hidden[1, 3]],
    }
    assert expected.keys() == POOLERS.keys()
    for name, rows in expected.items():
        torch.testing.assert_close(POOLERS[name](3)(hidden, lengths), torch.stack(rows))


class Attentive(Pooler):
    """A pooler with parameters: the mean, weighted by a softmax over learned scores."""

    def __init__(self, width):
        super().__init__(width)
        self.score = torch.nn.Linear(width, 1)

    def forward(self, hidden, lengths):
        unseen = torch.arange(hidden.shape[1]) >= lengths[:, None]
        scores = self.score(hidden)[..., 0].masked_fill(unseen, -torch.inf)
        return (scores.softmax(dim=1)[..., None] * hidden).sum(dim=1)


class Scored(LastToken):
    """A pooler with parameters that reads one position."""

    def __init__(self, width):
        super().__init__(width)
        self.score = torch.nn.Linear(width, width)

    def forward(self, hidden, lengths):
        return self.score(super().forward(hidden, lengths)).tanh()


@pytest.mark.parametrize("policy", ["head", "last_block", "all"])
@pytest.mark.parametrize("pooler", [Attentive, Scored])
def test_a_pooler_with_parameters_is_a_class_in_a_table(monkeypatch, pooler, policy):
    monkeypatch.setitem(POOLERS, "mine", pooler)
    model = Classifier(GPT2(TINY), 2, "mine")
    model.freeze(policy)
    assert {"pool.score.weight", "pool.score.bias"} <= model.trained_parameters().keys()
    ids, lengths = pad([[5, 6, 7], [8]], pad_id=0)
    depth = model.frozen_blocks
    torch.testing.assert_close(
        Trained(model, depth)(Frozen(model, depth)(ids, lengths), lengths), model(ids, lengths)
    )
