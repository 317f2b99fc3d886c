"""Too little memory: one line that names a way out, and exit code 2."""

import errno
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from gptcls.classify.run import ClassifyConfig
from gptcls.common import cli
from gptcls.common.memory import explained, ran_out
from gptcls.train.config import TrainConfig

TOO_MUCH = 1 << 60  # elements: more than any machine has


def numpys() -> object:
    return np.empty(TOO_MUCH // 8)


def torchs() -> object:
    return torch.empty(TOO_MUCH // 8)


def pythons() -> object:
    return bytearray(TOO_MUCH)


def arrows() -> object:
    return pa.allocate_buffer(TOO_MUCH)


def the_systems() -> object:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "x.safetensors")


def a_gpus() -> object:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a capacity of")


@pytest.mark.parametrize("allocate", [numpys, torchs, pythons, arrows, the_systems, a_gpus])
def test_whoever_says_it_is_understood(allocate, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(TrainConfig, lambda config: allocate())
    assert stopped.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("error: out of memory (")
    for way_out in ("--batch-size", "--max-length", "--cache-budget", "--model"):
        assert way_out in line


def test_a_verb_without_such_options_names_none_of_them():
    line = str(explained(MemoryError(), ClassifyConfig))
    assert "--batch-size" not in line
    assert "take a smaller --model, or close other programs" in line


@pytest.mark.parametrize("error", [RuntimeError("shapes"), OSError(errno.ENOSPC, "full"), ValueError()])
def test_other_errors_are_not_taken_for_it(error, monkeypatch):
    assert not ran_out(error)

    def fail(config):
        raise error

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit if isinstance(error, OSError) else type(error)):
        cli.run(TrainConfig, fail)


LIMITED = """
import resource, sys
import matplotlib, pandas, scipy.sparse, sklearn.feature_extraction.text, sklearn.linear_model, torch, tyro
from gptcls.train.__main__ import main
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited there")
def test_a_run_that_the_system_gives_no_more_memory(tmp_path):
    options = ["--train", "all", "--batch-size", "64", "--pad-to", "256", "--max-length", "256"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *options, "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: out of memory (")
    assert "--batch-size" in last
