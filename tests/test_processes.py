"""Several processes of one run, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_pretrain import config, text  # noqa: F401
from test_train import command, refused  # noqa: F401

import gptcls.pretrain.run
from gptcls.common.processes import join_processes
from gptcls.pretrain.run import pretrain
from gptcls.pretrain.text import Stream, WindowLoader
from gptcls.train.processes import StopTogether

HOME = Path(gptcls.__file__).parents[1]
RECIPE = ("--precision", "fp32", "--optimizer", "muon", "--table", "counts", "--candidates", "0")


def start(text, out, *options):  # noqa: F811
    """Two processes that train a tiny network, with the terminal's signals of their own."""
    sizes = ("--n-layer", "2", "--n-embd", "16", "--n-head", "2", "--n-positions", "32", "--batch-size", "4")
    run = ("--init", "random", *sizes, "--device", "cpu", "--lr", "0.01", "--data", str(text)) if text else ()
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    return subprocess.Popen(
        [*torchrun, "gptcls.pretrain", *run, "--out", str(out), *options], text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def weights(folder):
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(text, tmp_path, monkeypatch):  # noqa: F811
    """Each with windows of its own: the mean of their gradients is that of one process with all windows."""
    running = start(text, tmp_path / "two", "--steps", "4", "--keep", "2", *RECIPE)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert out.count("tokens in") == err.count("step 4 of 4 (") == err.count("token table from") == 1, (
        "one speaks"
    )
    windows = WindowLoader.windows
    monkeypatch.setattr(
        WindowLoader,
        "windows",
        lambda self, step: torch.cat([windows(self, 2 * step), windows(self, 2 * step + 1)]),
    )
    monkeypatch.setattr(WindowLoader, "__iter__", in_one)
    options = {
        "optimizer": "muon",
        "table": "counts",
        "candidates": 0,
        "precision": "fp32",
        "dropout": 0.0,
        "batch_size": 4,
        "steps": 4,
    }
    one = pretrain(config(text, tmp_path / "one", **options))
    for name, value in weights(one.folder).items():
        torch.testing.assert_close(weights(tmp_path / "two")[name], value, rtol=1e-4, atol=1e-5)
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert metrics["tokens_seen"] == 4 * 2 * 4 * 32
    assert (tmp_path / "two" / "kept" / "step-000002").exists()


def in_one(self):
    for step in range(self.steps):
        windows = self.windows(step)
        yield windows[:, :-1], torch.full((len(windows),), self.window), windows[:, 1:]


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_they_go_on_to_the_same_bits(text, tmp_path, command):  # noqa: F811
    options = ("--steps", "200", "--eval-freq", "20", "--table-rate", "0", *RECIPE[:6])
    whole = start(text, tmp_path / "whole", *options)
    assert whole.wait(300) == 0
    cut = start(text, tmp_path / "cut", *options)
    while "step 20 of" not in (line := cut.stderr.readline()):
        assert line, "it ended too soon"
    second = Path(f"/proc/{cut.pid}/task/{cut.pid}/children").read_text().split()[1]
    os.kill(int(second), signal.SIGTERM)  # torchrun sends the first one another when this one has ended
    _, err = cut.communicate(timeout=120)
    assert "the weights so far" in err
    progress = json.loads((tmp_path / "cut" / "checkpoint" / "progress.json").read_text())["progress"]
    assert 20 <= progress["step"] < 200
    refused(
        command(gptcls.pretrain.run, "--data", text, "--out", tmp_path / "cut", "--resume"),
        "2 processes, now 1",
    )
    again = start(None, tmp_path / "cut", "--data", str(text), "--resume")
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_each_process_has_windows_of_its_own():
    stream = Stream.of("x", [" ".join(map(str, range(500)))])
    loaders = [WindowLoader([stream], [1], 8, 2, 3, seed=0, rank=rank, world=2) for rank in (0, 1)]
    one = WindowLoader([stream], [1], 8, 2, 6, seed=0)
    drawn = [(ids.tolist(), torch.rand(()).item()) for ids, _, _ in one]
    for rank, loader in enumerate(loaders):
        assert len(loader) == 3
        assert [(ids.tolist(), torch.rand(()).item()) for ids, _, _ in loader] == drawn[rank::2]
        assert loader.tokens_per_step == 2 * 2 * 8


def test_one_process_alone_joins_none(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_processes() == (0, 1)


def test_the_echo_of_a_signal_changes_nothing():
    hook = StopTogether()
    for _ in range(3):
        hook._request(signal.SIGINT, None)
    assert hook.requested
