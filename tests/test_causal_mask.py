"""A GPT-2 without its causal mask: transformers under a full mask, the fast path, and files."""

import json

import pytest
import torch
from helpers.random_gpt2 import TINY as SIZES
from helpers.random_gpt2 import transformers_gpt2
from helpers.tiny import CPU, TINY, set_pooling, stir, tiny_classifier, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from gptcls.classify.predict import load_classifier
from gptcls.classify.store import read_classifier
from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, pad
from gptcls.core.classifier import POOLERS, Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen, Staged, Trained
from gptcls.fast.fused import can_fuse
from gptcls.models.gpt2_files import save_pretrained
from gptcls.models.pretrained import load_pretrained
from gptcls.train.config import TrainConfig
from gptcls.train.run import train

ROWS = [[5, 6, 7, 8, 9, 10], [11], [3, 4], [50, 1, 2, 3]]
texts = st.lists(st.lists(st.integers(0, 96), min_size=1, max_size=12), min_size=1, max_size=6)


def stirred(pooling="last", policy="last_block", causal=False):
    """A classifier with no bias 0 and no norm 1, which would hide mistakes."""
    model = tiny_classifier(policy)
    set_pooling(model, pooling)
    stir(model)
    if not causal:
        model.backbone.drop_causal_mask()
    return model.eval()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """transformers' GPT-2 and ours with the same weights, ours without the mask."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("weights")
    theirs = transformers_gpt2(attn_implementation="eager")
    theirs.save_pretrained(folder)
    return theirs.transformer, load_pretrained(folder).drop_causal_mask()


def test_hidden_vectors_equal_transformers_under_a_full_mask(both):
    theirs, ours = both
    ids, lengths = pad(ROWS, pad_to=9, pad_id=0)
    real = torch.arange(9) < lengths[:, None]  # (B, T)
    mask = torch.zeros(4, 1, 9, 9).masked_fill(~real[:, None, None], torch.finfo(torch.float32).min)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask).last_hidden_state
        got = ours(ids, lengths)
        causal = theirs(ids).last_hidden_state
    torch.testing.assert_close(got[real], expected[real], atol=1e-5, rtol=1e-5)
    assert (got - causal)[real].abs().max() > 1e-2, "the mask made no difference: the comparison says little"
    with torch.no_grad():  # without lengths every id is a real one
        expected = theirs(ids, attention_mask=torch.zeros(4, 1, 9, 9)).last_hidden_state
        torch.testing.assert_close(ours(ids), expected, atol=1e-5, rtol=1e-5)


@given(texts, st.integers(0, 9))
@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("pooling", [name for name in POOLERS if name != "position-1"])
def test_padding_changes_no_prediction(pooling, rows, extra):
    model = stirred(pooling)
    ids, lengths = pad(rows, pad_id=0)
    padded, _ = pad(rows, pad_to=ids.shape[1] + extra, pad_id=99)
    with torch.no_grad():
        torch.testing.assert_close(model(padded, lengths), model(ids, lengths), atol=1e-5, rtol=1e-5)


def test_position_minus_one_takes_the_padding_for_a_part_of_the_text():
    """As in the book, whose attention is told of no padding at all."""
    model = stirred("position-1")
    ids, lengths = pad(ROWS, pad_to=9, pad_id=0)
    with torch.no_grad():
        expected = model.head(model.backbone(ids)[:, -1])
        torch.testing.assert_close(model(ids, lengths), expected)
        other, _ = pad(ROWS, pad_to=9, pad_id=99)
        assert (model(other, lengths) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", POOLERS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_two_stages_equal_the_classifier(pooling, depth):
    model = stirred(pooling)
    ids, lengths = pad(ROWS, pad_to=9)
    lower = Frozen(model, depth)
    with torch.no_grad():
        expected = model(ids, lengths)
        got = Trained(model, depth)(lower(ids, lengths), lengths)
        whole = Staged(model)(ids, lengths)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)
    assert can_fuse(stirred(causal=True).backbone.blocks[0], torch.float32)
    assert not can_fuse(model.backbone.blocks[0], torch.float32)


def test_features_are_not_taken_from_another_mask_or_pooling(tmp_path, monkeypatch):
    """With the same weights, and rows of the same width."""
    computed = []
    compute = FeatureCache._compute
    monkeypatch.setattr(FeatureCache, "_compute", lambda *a: computed.append(len(a[2])) or compute(*a))
    data = {"train": TextDataset(["see you", "win a prize now"], torch.zeros(2), 64, pad_to=9)}
    for model in (stirred(causal=True), stirred(), stirred("position-1"), stirred("position-1")):
        parts = FeatureCache(tmp_path).datasets(Frozen(model, 2), data, CPU)
        logits = dataset_logits(Trained(model, 2), parts["train"], CPU)
        torch.testing.assert_close(logits, dataset_logits(model, data["train"], CPU), atol=1e-5, rtol=1e-5)
    assert computed == [2, 2, 2]  # the fourth is the third again


@pytest.mark.parametrize("options", [{}, {"save": "trained"}, {"pooling": "mean", "no_cache": True}])
def test_a_saved_classifier_answers_the_same(base, tmp_path, options):
    data = str(write_csv(tmp_path / "rows.csv"))
    options = {"lr": 1e-2, "epochs": 1, "max_length": 16, "device": "cpu", "precision": "fp32"} | options
    run = train(
        TrainConfig.of(model=str(base), data=data, no_causal_mask=True, out=tmp_path / "x", **options)
    )
    spec = json.loads((tmp_path / "x" / "classifier" / "classifier.json").read_text())
    assert spec["architecture"]["causal"] is False
    loaded = read_classifier(tmp_path / "x")
    assert not loaded.model.backbone.config.causal
    ids, lengths = pad([[5, 6, 7, 8], [9, 10]])
    with torch.no_grad():
        expected = run.classifier.model.eval()(ids, lengths)
        torch.testing.assert_close(loaded.model(ids, lengths), expected, atol=1e-6, rtol=1e-5)
    used = load_classifier(tmp_path / "x", device="cpu", precision="fp32").predict_proba(["see you at home"])
    plain = TextDataset(["see you at home"], torch.zeros(1), 16)
    logits = dataset_logits(loaded.model, plain, CPU)
    assert used == pytest.approx(logits.softmax(-1).numpy(), abs=1e-5)


def test_it_can_neither_write_nor_be_stored_as_a_gpt2(tmp_path):
    model = GPT2(TINY).drop_causal_mask()
    assert model.state_dict().keys() == GPT2(TINY).state_dict().keys()
    with pytest.raises(InputError, match="can classify, not generate"):
        model.lm_logits(model(torch.tensor([[1, 2]])))
    with pytest.raises(InputError, match="causal mask"):
        save_pretrained(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_other_families_are_refused_in_one_line(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=SIZES["vocab_size"], **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    import tokenizers

    vocab = {f"t{i}": i for i in range(96)} | {"[UNK]": 96}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "bert" / "tokenizer.json"))
    data = str(write_csv(tmp_path / "rows.csv"))
    config = TrainConfig.of(model=str(tmp_path / "bert"), data=data, no_causal_mask=True, out=tmp_path / "x")
    with pytest.raises(InputError, match=r"--no-causal-mask is for a GPT-2; .* is a bert"):
        train(config)
    assert not (tmp_path / "x").exists()


def test_the_classifier_of_an_older_version_is_causal(base, tmp_path):
    data = str(write_csv(tmp_path / "rows.csv"))
    train(
        TrainConfig.of(model=str(base), data=data, epochs=1, max_length=16, out=tmp_path / "x", device="cpu")
    )
    path = tmp_path / "x" / "classifier" / "classifier.json"
    spec = json.loads(path.read_text())
    assert spec["architecture"].pop("causal") is True
    path.write_text(json.dumps(spec))
    assert read_classifier(tmp_path / "x").model.backbone.config.causal
    assert isinstance(read_classifier(tmp_path / "x").model, Classifier)
