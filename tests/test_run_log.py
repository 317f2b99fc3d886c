"""What a run says while it trains: to a log file a line an epoch, with the time left; and its hints."""

import logging
import re

import pandas as pd
import pytest
from helpers.tiny import ROWS, tiny_trainer, val_loader

from gptcls import fit
from gptcls.core.loop import Curves
from gptcls.train import hooks
from gptcls.train.hooks import EpochLines, ProgressBar

FRAME = pd.DataFrame(ROWS, columns=["text", "label"])


def said(caplog, silent=30.0, bar=False):
    """A run of 4 epochs of 8 steps that looks every 3 steps: its lines, its trainer."""
    trainer = tiny_trainer(patience=0)
    trainer.hooks[0] = EpochLines(val_loader(trainer), 3, 2, full=True)
    trainer.hooks[:0] = [ProgressBar("training")] if bar else []
    with caplog.at_level(logging.INFO, "gptcls"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hooks, "SILENT_SECONDS", silent)
        trainer.fit()
    return [record.message for record in caplog.records], trainer


def test_one_line_an_epoch(caplog):
    lines, trainer = said(caplog)
    assert [line.partition(":")[0] for line in lines] == [f"epoch {n} of 4" for n in (1, 2, 3, 4)]
    pattern = r"loss \d\.\d{3}, train accuracy .*, validation accuracy \S+ \(all 60 rows, loss .*\); \d+ s"
    for line in lines[:-1]:
        assert re.search(pattern + r", about \d+ s left$", line), line
    assert re.search(pattern + "$", lines[-1]), "nothing is left after the last"
    assert trainer.total_steps == 32


def test_a_long_epoch_gives_signs_of_life(caplog):
    lines, _ = said(caplog, silent=0.0)
    assert sum("step" in line.partition(":")[0] for line in lines) == len(range(0, 32, 3))
    assert re.search(r"^epoch 1 step 0003: train loss .*; 0 s, about \d+ s left$", lines[1])


def test_what_is_recorded_is_what_curves_records(caplog):
    _, mine = said(caplog)
    plain = tiny_trainer(patience=0)
    plain.hooks[0] = Curves(val_loader(plain), 3, 2, full=True)
    plain.fit()
    assert mine.progress.history == plain.progress.history


def test_the_loss_is_the_mean_of_the_epochs_steps(caplog):
    losses = []

    class Losses(hooks.Hook):
        def on_step(self, trainer):
            losses.append(trainer.loss)

    trainer = tiny_trainer(patience=0)
    trainer.hooks[:] = [EpochLines(val_loader(trainer), 3, 2), Losses()]
    with caplog.at_level(logging.INFO, "gptcls"):
        trainer.fit()
    per_epoch = [sum(losses[i : i + 8]) / 8 for i in range(0, 32, 8)]
    shown = [float(re.search(r"loss (\d\.\d+)", record.message)[1]) for record in caplog.records]
    assert shown == pytest.approx(per_epoch, abs=6e-4)


def test_lines_and_the_bar_of_a_terminal_do_not_mix(tmp_path):
    """On a terminal of 90 columns, in a process of its own."""
    pty = pytest.importorskip("pty")
    import fcntl
    import os
    import struct
    import subprocess
    import sys
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 90, 0, 0))
    code = (
        "import sys, logging; sys.path[:0] = ['tests']\n"
        "log = logging.getLogger('gptcls')\n"
        "log.addHandler(logging.StreamHandler(sys.stderr)); log.setLevel(20)\n"
        "from helpers.tiny import tiny_trainer, val_loader\n"
        "from gptcls.train.hooks import EpochLines, ProgressBar\n"
        "trainer = tiny_trainer(patience=0)\n"
        "trainer.hooks[:] = [ProgressBar('training'), EpochLines(val_loader(trainer), 3, 2)]\n"
        "trainer.fit()"
    )
    done = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # how Linux says that the other end is closed
        pass
    assert done.wait() == 0, seen
    text = seen.decode()
    assert "training: 100%" in text
    whole = [line.rpartition("\r")[2] for line in text.split("\r\n")]
    assert sum(bool(re.fullmatch(r"epoch \d of 4: .* s(, about .* left)?", line)) for line in whole) == 4


def test_many_labels_that_are_single(base, caplog):
    quick = {"epochs": 1, "max_length": 16, "device": "cpu", "task": "multi"}
    hint = "--task multi: every training row has exactly one label; --task single is meant for that"
    with caplog.at_level(logging.INFO, "gptcls"):
        fit(FRAME, base, **quick)
        assert hint in caplog.text
        caplog.clear()
        lists = [["short"] if i % 3 else ["short", "late"] for i in range(len(FRAME))]
        fit(FRAME.assign(label=lists), base, **quick)
        assert hint not in caplog.text
