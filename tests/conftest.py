"""What several test files need."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # as one_thread, for the processes that tests start

import importlib
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from helpers import SHARED
from helpers.tiny import TINY
from hypothesis import settings
from safetensors.torch import save_file

from gptcls.core.gpt2 import GPT2
from gptcls.core.weights import GPT2_NAMES

settings.register_profile("shared machine", deadline=None)  # seconds of a test say nothing beside other tests
settings.load_profile("shared machine")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """The same arithmetic wherever the tests run."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def blank_pictures(request, monkeypatch):
    """Only tests marked ``draws`` or ``slow`` draw: pictures cost more than a small run."""
    if not any(request.node.get_closest_marker(name) for name in ("draws", "slow")):
        from matplotlib.figure import Figure

        monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).write_bytes(b"blank"))


@pytest.fixture(scope="session")
def sms_file() -> Path:
    """The real UCI file."""
    path = SHARED / "sms" / "SMSSpamCollection"
    if not path.exists():
        pytest.skip(f"the UCI SMS file is not at {path}")
    return path


@pytest.fixture
def base(tmp_path) -> Path:
    """A tiny GPT-2 with GPT-2's vocabulary as a folder in Hugging Face's format, as from the hub."""
    folder = tmp_path / "base"
    folder.mkdir()
    torch.manual_seed(4)
    save_file(GPT2_NAMES.to_theirs(GPT2(TINY).state_dict()), folder / "model.safetensors")
    names = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")
    sizes = {name: asdict(TINY)[name] for name in names}
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    return folder


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Run a verb's ``main`` in this process: (exit status, standard output, standard error)."""

    def run(verb, *arguments):
        if not hasattr(verb, "main"):  # a room: gptcls.train.run
            verb = importlib.import_module(verb.__name__.removesuffix(".run") + ".__main__")
        monkeypatch.setattr(sys, "argv", [verb.__name__, *map(str, arguments)])
        log = logging.getLogger("gptcls")
        log.handlers.clear()
        try:
            verb.main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code or 0
        finally:
            log.handlers.clear()
            log.propagate = True
        return status, *capsys.readouterr()

    return run
