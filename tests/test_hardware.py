"""What torch promises to nobody may be missing in another version: then it is slower, and nothing else."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny import tiny_classifier

from gptcls.common.hardware import cpu_quota, pick_device, pick_dtype
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


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [  # as Docker, Kubernetes and systemd leave them, by the kernel's documentation of both versions
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, math.inf),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        (
            "4:memory:/x\n2:cpu,cpuacct:/x",
            {"cpu/x/cpu.cfs_quota_us": "50000", "cpu/x/cpu.cfs_period_us": "20000"},
            3,
        ),
        # version 1 shows a container its own group as the root, and the host's path to it
        ("1:cpu:/docker/1f", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
        ("3:cpuset:/", {"cpu.max": "100000 100000"}, math.inf),
        ("0::/", {"cpu.max": "20000 100000"}, 1),
        ("", {"cpu.max": "100000 100000"}, math.inf),
        ("no group", {"cpu.max": "100000 100000"}, math.inf),
        (None, {}, math.inf),  # not Linux
    ],
)
def test_the_quota_of_a_container(own, files, expected, tmp_path) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text + "\n")
    if own is not None:
        (tmp_path / "own").write_text(own + "\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == expected


@pytest.mark.parametrize(("quota", "threads"), [(2, 2), (1, 1), (math.inf, 3), (8, 3)])
def test_torch_gets_no_more_threads_than_a_container_may_use(quota, threads, monkeypatch, caplog) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("gptcls.common.hardware.cpu_quota", lambda: quota)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        torch.set_num_threads(3)
        with caplog.at_level("INFO", "gptcls"):
            for _ in range(3):
                pick_device("cpu")
        assert torch.get_num_threads() == threads
        assert len(caplog.messages) == (threads < 3), "said once"
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")  # who sets it knows better
        pick_device("cpu")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
