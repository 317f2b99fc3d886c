"""A backbone of one's own: an entry in the table is all that saving and loading a classifier over it need."""

from dataclasses import dataclass

import pytest
import torch
from helpers.tiny import tiny_task
from torch import nn

from gptcls.classify.store import SavedClassifier, read_classifier, save_classifier
from gptcls.core.classifier import POOLERS, Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.models.families import FAMILIES, Family, declared_family, family_name, poolings_of


@dataclass(frozen=True)
class BagConfig:
    n_layer: int = 1
    n_embd: int = 8
    n_positions: int = 32
    vocab_size: int = 50257


class Bag(nn.Module):
    """Contract 1: ``norm(blocks(embed(ids)))``."""

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(BagBlock(config.n_embd) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, ids, lengths=None):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, lengths)
        return self.norm(x)


class BagBlock(nn.Linear):
    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, x, lengths=None):
        return x + super().forward(x).tanh()


@pytest.fixture
def saved() -> SavedClassifier:
    torch.manual_seed(0)
    return SavedClassifier(Classifier(Bag(BagConfig()), 2).eval(), tiny_task(), 32, None, None, {}, {})


def test_a_backbone_of_ones_own_is_saved_and_loaded(saved, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(FAMILIES, "mine", Family(BagConfig, Bag, decoder=True))
    save_classifier(tmp_path / "bag", saved)
    back = read_classifier(tmp_path / "bag").model
    assert type(back.backbone) is Bag
    ids, lengths = torch.randint(99, (3, 7)), torch.tensor([7, 3, 1])
    with torch.no_grad():
        assert torch.equal(back(ids, lengths), saved.model(ids, lengths))
    monkeypatch.delitem(FAMILIES, "mine")
    with pytest.raises(InputError, match="'mine'"):
        read_classifier(tmp_path / "bag")


def test_one_that_is_not_entered_is_named_with_the_way_out(saved, tmp_path) -> None:
    with pytest.raises(InputError, match=r'Bag .*FAMILIES\["mine"\] = Family\(BagConfig, Bag') as caught:
        save_classifier(tmp_path / "bag", saved)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bag").exists()


def test_nobodys_files_are_read_as_such_a_family(monkeypatch) -> None:
    monkeypatch.setitem(FAMILIES, "mine", Family(BagConfig, Bag, decoder=True, model_types=("bag",)))
    with pytest.raises(InputError, match=r"'bag'; supported are bert, .*gpt2, llama"):
        declared_family({"model_type": "bag"}, "config.json")


def test_what_a_head_may_read() -> None:
    with torch.device("meta"):
        assert family_name(GPT2(PRESETS["gpt2-nano"])) == "gpt2"
    assert {name: poolings_of(family)[0] for name, family in FAMILIES.items()} == {
        "gpt2": "last", "llama": "last", "bert": "first", "roberta": "first", "distilbert": "first",
        "electra": "first", "ernie": "first", "modernbert": "first",
        "deberta": "first",
    }  # fmt: skip
    assert {*poolings_of(FAMILIES["llama"])} == {*POOLERS}
    assert {*poolings_of(FAMILIES["bert"])} == {*POOLERS} - {"position-1"}
