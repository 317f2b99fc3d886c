"""Muon against torch's own, which works in bf16, AdamW for the rest, and what it promises."""

import math

import pytest
import torch
from torch.nn import Parameter

from gptcls.pretrain import muon
from gptcls.pretrain.muon import Muon, orthogonalize

GRADIENTS = 4  # steps


def train(build, *starts, steps=range(GRADIENTS), parameters=None, optimizer=None):
    """The parameters and their optimizer after these steps, whose gradients are always the same."""
    parameters = parameters or [Parameter(start.clone()) for start in starts]
    optimizer = optimizer or build(*parameters)
    for step in steps:
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + step)
        for p in parameters:
            p.grad = torch.randn(p.shape)
        optimizer.step()
    return parameters, optimizer


def both(p, *others):
    return Muon([{"params": [p], "parts": 1}, {"params": others, "weight_decay": 0.01}])


@pytest.fixture
def start():
    torch.manual_seed(9)
    return torch.randn(32, 64)


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8), (3, 8, 8)])
def test_orthogonalize_brings_all_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.max() < 1.3
    assert values.median() > 0.6


def off(start, dtype=torch.float32):
    """How far Muon's steps are from torch's, which orthogonalises in bf16, as a share of these."""
    (ours,), _ = train(lambda p: Muon([{"params": [p], "parts": 1}], dtype=dtype), start)
    (theirs,), _ = train(
        lambda p: torch.optim.Muon([p], weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), start
    )
    return ((ours - theirs).norm() / (theirs - start).norm()).item()


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
def test_steps_are_those_of_torch_up_to_its_bf16(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    assert off(start) < 0.015
    assert off(start, torch.bfloat16) < 0.03  # each rounds at other places


@pytest.mark.parametrize(
    ("name", "value"),
    [("ITERATIONS", 4), ("MOMENTUM", 0.9), ("SIZE", 0.19), ("COEFFICIENTS", (3.0, -3.2, 1.2))],
)
def test_another_muon_would_be_found_out(start, monkeypatch, name, value):
    monkeypatch.setattr(muon, name, value)
    assert off(start) > 0.015


def test_everything_else_is_adamws(start):
    vector = torch.randn(5)
    (p, mine), _ = train(both, start, vector)
    (q, theirs), _ = train(lambda *ps: torch.optim.AdamW(
        [{"params": [ps[0]]}, {"params": [ps[1]], "weight_decay": 0.01}], betas=(0.9, 0.95), fused=True
    ), start, vector)  # fmt: skip
    assert torch.equal(mine, theirs)
    assert not torch.allclose(p, q)


def test_parts_are_made_orthogonal_each_for_itself():
    torch.manual_seed(0)
    starts, gradients = torch.randn(3, 8, 8), torch.randn(3, 8, 8)
    joint, *apart = Parameter(starts.reshape(24, 8).clone()), *map(Parameter, starts.clone())
    joint.grad = gradients.reshape(24, 8).clone()
    for p, gradient in zip(apart, gradients, strict=True):
        p.grad = gradient.clone()
    Muon([{"params": [joint], "parts": 3}], lr=0.1).step()
    Muon([{"params": apart, "parts": 1}], lr=0.1).step()
    torch.testing.assert_close(joint, torch.cat(apart))


def test_an_update_has_the_promised_size():
    torch.manual_seed(0)
    p = Parameter(torch.zeros(64, 256))
    p.grad = torch.randn(64, 256)
    Muon([{"params": [p], "parts": 1}], lr=0.5).step()
    assert math.isclose(p.square().mean().sqrt().item(), 0.2 * 0.5, rel_tol=0.2)


def test_a_parameter_without_a_gradient_stays(start):
    p, q = Parameter(start.clone()), Parameter(start.clone())
    both(p, q).step()
    assert torch.equal(p, start)
    assert torch.equal(q, start)


@pytest.mark.parametrize("how", ["a checkpoint", "state_dict"])
def test_it_goes_on_to_the_same_bits(start, how):
    whole, _ = train(both, start, torch.ones(5))
    half, before = train(both, start, torch.ones(5), steps=range(2))
    after = both(*half)
    if how == "state_dict":
        after.load_state_dict(before.state_dict())
    else:  # as gptcls.train.hooks reads one
        for p in half:
            for key, value in before.state[p].items():
                after.state[p][key] = value.clone()
    resumed, _ = train(both, parameters=half, optimizer=after, steps=range(2, GRADIENTS))
    assert all(map(torch.equal, whole, resumed))
    fresh, _ = train(both, start, torch.ones(5), steps=range(2))
    train(both, parameters=fresh, optimizer=both(*fresh), steps=range(2, GRADIENTS))
    assert not any(map(torch.equal, whole, fresh)), "without its state it would end elsewhere"
