"""Training more than one block without padding and in bf16, against the plain path and others' code."""

from dataclasses import replace

import pytest
import torch
from helpers.tiny import (
    CPU,
    TINY,
    set_pooling,
    stir,
    stopped_before,
    tiny_classifier,
    tiny_lora,
    tiny_task,
    write_csv,
)
from torch import nn

from gptcls.core.batches import pad
from gptcls.core.loop import FitSettings, Trainer
from gptcls.core.weights import GPT2_NAMES
from gptcls.fast.adamw import TableAdamW, with_all_rows
from gptcls.fast.frozen import Frozen
from gptcls.fast.fused import can_fuse
from gptcls.fast.packed import Packed, PackedGPT2, can_pack, can_pack_gpt2
from gptcls.models.lora import LoRAConfig
from gptcls.train.config import TrainConfig
from gptcls.train.run import train

IDS = [[5, 6, 7, 8, 9, 10, 6], [11], [3, 4, 5], [50000, 1, 2, 3]]
TARGETS = torch.tensor([0, 1, 1, 0])
WIDER = replace(TINY, n_embd=64, n_head=4)
BF16 = torch.bfloat16
fused = pytest.mark.skipif(not can_fuse(tiny_classifier().backbone.blocks[0], BF16), reason="no fused bf16")


def stirred(how="all", pooling="last", config=WIDER):
    """A classifier with no bias 0 and no norm 1, which would hide mistakes."""
    if how == "lora":
        model = tiny_lora(backbone=tiny_classifier(config=config).backbone)
    else:
        model = tiny_classifier(how, config=config)
    set_pooling(model, pooling)
    return stir(model, 0.05).train()


def gradients(network, model, inputs, lengths):
    model.zero_grad()
    nn.functional.cross_entropy(network(inputs, lengths), TARGETS).backward()
    return {name: p.grad.to_dense().clone() for name, p in model.trained_parameters().items()}


def off(got, expected):
    """The distance of two sets of gradients as a share of the second one's length."""
    assert got.keys() == expected.keys()
    return {name: float((got[name] - g).norm() / g.norm()) for name, g in expected.items()}


@pytest.mark.parametrize("pooling", ["last", "first", "mean", "max"])
@pytest.mark.parametrize("how", ["all", "blocks", "lora"])
def test_gradients_in_fp32_are_the_plain_ones(how, pooling):
    model = stirred(how, pooling)
    ids, lengths = pad(IDS, pad_to=9)
    packed = Packed(model, dtype=torch.float32)
    expected = gradients(model, model, ids, lengths)
    for _ in range(2):  # the second time in the places of the first
        found = off(gradients(packed, model, ids, lengths), expected)
        assert max(found.values()) < 1e-5, found


@fused
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("how", ["all", "lora"])
def test_gradients_in_bf16_are_close(how, pooling):
    model = stirred(how, pooling)
    ids, lengths = pad(IDS, pad_to=9)
    expected = gradients(model, model, ids, lengths)
    found = off(gradients(Packed(model), model, ids, lengths), expected)
    assert 1e-4 < max(found.values()) < 0.05, found


def their_config():
    from transformers import GPT2Config

    sizes = {"n_layer": 3, "n_embd": 64, "n_head": 4, "n_positions": 64}
    dropped = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2Config(**sizes, **dropped, num_labels=2, pad_token_id=50256)


def test_gradients_are_those_of_transformers():
    from transformers import GPT2ForSequenceClassification

    model = stirred()
    with torch.no_grad():
        model.head.bias.zero_()  # theirs has none
    theirs = GPT2ForSequenceClassification(their_config())
    state = GPT2_NAMES.to_theirs(model.backbone.state_dict()) | {"score.weight": model.head.weight}
    theirs.load_state_dict(state)
    ids, lengths = pad(IDS)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    theirs(ids, attention_mask=mask, labels=TARGETS).loss.backward()
    ours = gradients(Packed(model, dtype=torch.float32), model, ids, lengths)
    head = {"score.weight": ours.pop("head.weight")}
    del ours["head.bias"]
    ours = GPT2_NAMES.to_theirs({name.removeprefix("backbone."): g for name, g in ours.items()}) | head
    found = off(ours, {name: p.grad for name, p in theirs.named_parameters()})
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(BF16, marks=fused)])
def test_pretraining_has_the_gradients_of_transformers(dtype):
    from transformers import GPT2LMHeadModel

    model = stirred().backbone
    theirs = GPT2LMHeadModel(their_config())
    theirs.load_state_dict(GPT2_NAMES.to_theirs(model.state_dict()), strict=False)  # the head is the table
    ids = torch.tensor([IDS[0], [*IDS[3], 9, 2, 7]])
    theirs(ids, labels=ids).loss.backward()
    hidden = PackedGPT2(model, dtype)(ids, torch.tensor([7, 7]))
    logits = model.lm_logits(hidden[:, :-1]).flatten(0, 1)
    nn.functional.cross_entropy(logits, ids[:, 1:].flatten()).backward()
    ours = GPT2_NAMES.to_theirs({name: p.grad for name, p in model.named_parameters()})
    found = off(ours, {name: p.grad for name, p in theirs.named_parameters()})
    assert max(found.values()) < (1e-4 if dtype == torch.float32 else 0.05), found


def test_above_frozen_blocks():
    """Adapters in the two upper blocks of three: what is below comes as hidden vectors."""
    model = tiny_lora(backbone=tiny_classifier(config=WIDER).backbone, targets=("blocks.[12].*",)).train()
    ids, lengths = pad(IDS)
    assert model.frozen_blocks == 1
    expected = gradients(model, model, ids, lengths)
    hidden = Frozen(model, 1)(ids, lengths)
    found = off(gradients(Packed(model, 1, torch.float32), model, hidden, lengths), expected)
    assert max(found.values()) < 1e-4, found


def fitted(steps, accumulate=1):
    """The parameters after some steps in fp32, plain and packed."""
    found = []
    for packed in (False, True):
        model = stirred()
        network = Packed(model, dtype=torch.float32) if packed else model
        settings = FitSettings(epochs=1, lr=0.1, clip=0.5, accumulate=accumulate)
        batches = [(*pad(IDS[i % 3 :]), TARGETS[i % 3 :]) for i in range(steps * accumulate)]
        # AdamW would turn the rounding of a gradient that is 0, that of the keys' biases, into whole steps.
        optimizer = torch.optim.SGD(model.parameters())
        trainer = Trainer(network, tiny_task(), batches, settings, CPU, optimizer=optimizer)
        trainer.fit()
        found.append({name.removeprefix("classifier."): p for name, p in trainer.parameters.items()})
    return found


@pytest.mark.parametrize("accumulate", [1, 3])
def test_steps_are_the_plain_ones(accumulate):
    """With the gradient clipped, and of several batches."""
    plain, packed = fitted(4, accumulate)
    for name, parameter in plain.items():
        torch.testing.assert_close(packed[name], parameter, atol=2e-5, rtol=1e-4, msg=name)


def test_a_table_has_adamws_steps():
    """Rows that come anew in later steps, rows that never do, a gradient of two batches."""
    torch.manual_seed(0)
    start, found = torch.randn(50, 8), []
    for ours in (False, True):
        weight = nn.Parameter(start.clone())
        other = nn.Parameter(start[0].clone())
        groups = [{"params": [weight], "weight_decay": 0.3}, {"params": [other], "weight_decay": 0.0}]
        optimizer = TableAdamW(groups, 0.01, weight) if ours else torch.optim.AdamW(groups, 0.01)
        for ids in ([3, 4, 4], [4, 9], [30], [3, 49]):
            optimizer.zero_grad()
            for part in (torch.tensor(ids), torch.tensor([7])):
                vectors = nn.functional.embedding(part, weight, sparse=ours)
                (vectors * other).square().sum().backward()
            optimizer.step()
        found += [(weight.detach(), other.detach())]
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=1e-5)
    assert optimizer.state[weight]["exp_avg"].shape == (6, 8)


@fused
def test_what_is_packed():
    assert can_pack(stirred(), 0, BF16)
    assert can_pack(stirred("lora"), 1, BF16)
    assert can_pack_gpt2(stirred().backbone, BF16)
    assert not can_pack_gpt2(stirred().backbone, torch.float32)
    assert not can_pack_gpt2(stirred(config=replace(WIDER, dropout=0.1)).backbone, BF16)
    assert not can_pack(stirred(), 0, torch.float32)
    assert not can_pack(stirred(), 2, BF16)  # the last block alone has a faster way
    assert not can_pack(stirred(pooling="position-1"), 0, BF16)  # which reads padding
    assert not can_pack(stirred(config=replace(WIDER, dropout=0.1)), 0, BF16)
    assert not can_pack(stirred(config=replace(WIDER, causal=False)), 0, BF16)
    for config in (LoRAConfig(2, dora=True), LoRAConfig(2, dropout=0.1)):
        assert not can_pack(tiny_lora(config).train(), 0, BF16)


@fused
@pytest.mark.parametrize("how", ["all", "lora"])
def test_an_interrupted_run_ends_with_the_same_bits(base, tmp_path, how):
    """Of a table some rows have had no gradient yet where it is interrupted."""
    shared = {"model": str(base), "data": str(write_csv(tmp_path / "rows.csv")), "device": "cpu"}
    shared |= {"train": how, "epochs": 2, "lr": 1e-3, "accumulate": 2, "max_length": 16}
    whole = train(TrainConfig.of(out=tmp_path / "whole", **shared))
    with stopped_before(2):
        train(TrainConfig.of(out=tmp_path / "cut", **shared))
    cut = train(TrainConfig.of(out=tmp_path / "cut", resume=True))
    one, two = (run.classifier.model.trained_parameters() for run in (whole, cut))
    assert all(torch.equal(parameter, two[name]) for name, parameter in one.items())
    assert whole.history == cut.history


@fused
def test_an_interrupted_run_goes_on_where_nothing_is_packed(base, tmp_path, monkeypatch):
    shared = {"model": str(base), "data": str(write_csv(tmp_path / "rows.csv")), "device": "cpu"}
    shared |= {"train": "all", "epochs": 2, "lr": 1e-4, "max_length": 16}
    whole = train(TrainConfig.of(out=tmp_path / "whole", **shared))
    with stopped_before(2):
        train(TrainConfig.of(out=tmp_path / "cut", **shared))
    monkeypatch.setattr("gptcls.common.hardware._cpu_multiplies_bf16", lambda: False)
    cut = train(TrainConfig.of(out=tmp_path / "cut", resume=True))
    one, two = (run.classifier.model.trained_parameters() for run in (whole, cut))
    for name, parameter in one.items():
        torch.testing.assert_close(parameter, two[name], atol=5e-4, rtol=0)


def test_a_tables_moments_of_some_rows_are_those_of_all():
    torch.manual_seed(0)
    start = torch.randn(9, 3)
    one, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = TableAdamW([{"params": [one], "weight_decay": 0.1}], 1e-2, one)
    theirs = torch.optim.AdamW([other], lr=1e-2, weight_decay=0.1)
    for rows in ([7, 1], [1, 4], [2]):
        for table, optimizer, sparse in ((one, ours, True), (other, theirs, False)):
            optimizer.zero_grad()
            nn.functional.embedding(torch.tensor(rows), table, sparse=sparse).square().sum().backward()
            optimizer.step()
    with_all_rows(ours.state[one], one.detach())
    assert ours.state[one].keys() == theirs.state[other].keys()
    for name, value in theirs.state[other].items():
        torch.testing.assert_close(ours.state[one][name], value)
