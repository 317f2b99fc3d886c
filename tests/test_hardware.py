"""What torch promises to nobody may be missing in another version: then it is slower, and nothing else."""

from types import SimpleNamespace

import pytest
import torch
from helpers.tiny import tiny_classifier

from gptcls.common.hardware import pick_dtype
from gptcls.fast.frozen import Staged
from gptcls.fast.fused import can_fuse


def test_bf16_is_not_chosen_where_torch_does_not_say_that_the_cpu_has_it(monkeypatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pick_dtype("auto", torch.device("cpu")) == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    "mkldnn",
    [
        SimpleNamespace(),
        SimpleNamespace(_linear_pointwise=len),  # a later version's, without a residual
        SimpleNamespace(_linear_pointwise=SimpleNamespace(binary=len)),  # nothing for bf16
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_not_fused_where_torch_has_no_operators_for_it(monkeypatch, mkldnn, dtype) -> None:
    model = tiny_classifier().eval()
    ids, lengths = torch.randint(99, (3, 7)), torch.tensor([7, 3, 1])
    with torch.no_grad():
        expected = model(ids, lengths)
        monkeypatch.setattr(torch.ops, "mkldnn", mkldnn)
        if dtype == torch.bfloat16 or not hasattr(mkldnn, "_linear_pointwise"):
            assert not can_fuse(model.backbone.blocks[0], dtype)
            close = {"atol": 5e-2, "rtol": 5e-2} if dtype == torch.bfloat16 else {}
            torch.testing.assert_close(Staged(model, dtype)(ids, lengths), expected, **close)
