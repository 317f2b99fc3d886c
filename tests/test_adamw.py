"""Our AdamW is torch's, without its compiler."""

import subprocess
import sys

import torch

from gptcls.fast.adamw import AdamW


def test_it_is_torchs_bit_for_bit():
    torch.manual_seed(0)
    starts = [torch.randn(5, 7), torch.randn(7), torch.randn(3)]
    pairs = [[torch.nn.Parameter(start.clone()) for start in starts] for _ in range(2)]
    groups = [
        [{"params": own[:1], "weight_decay": 0.1}, {"params": own[1:], "weight_decay": 0.0, "lr_scale": 2.0}]
        for own in pairs
    ]
    ours, theirs = AdamW(groups[0], 1e-2), torch.optim.AdamW(groups[1], lr=1e-2, fused=True)
    for step in range(6):
        grads = [torch.randn_like(start) for start in starts]
        for own, optimizer in zip(pairs, (ours, theirs), strict=True):
            optimizer.zero_grad()
            for parameter, grad in zip(own[: 2 + step % 2], grads, strict=False):  # the last one now and then
                parameter.grad = grad.clone()
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * group.get("lr_scale", 1.0) / (1 + step)
            optimizer.step()
    for one, other in zip(*pairs, strict=True):
        assert torch.equal(one, other)
        assert not any(torch.equal(one, start) for start in starts)
        assert ours.state[one].keys() == theirs.state[other].keys()
        assert all(torch.equal(value, theirs.state[other][name]) for name, value in ours.state[one].items())


def test_it_takes_an_empty_list():
    AdamW([], 1e-3).step()


def test_torchs_compiler_is_not_imported():
    code = """
import sys, torch
from gptcls.fast.adamw import AdamW
p = torch.nn.Parameter(torch.ones(2))
optimizer = AdamW([{"params": [p], "weight_decay": 0.1}], 1e-3)
optimizer.zero_grad()
p.sum().backward()
optimizer.step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
