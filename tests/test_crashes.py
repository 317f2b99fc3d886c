"""Runs that are killed, at every point where they touch the disk: what is left goes on, or begins again."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.kills import killed_at_each_write
from helpers.tiny import ROWS, stopped_before, tiny_saved, tiny_trainer, write_csv
from safetensors.torch import load_file
from test_pretrain import config as pretraining
from test_pretrain import text  # noqa: F401

import gptcls.train.run
from benchmarks.ablations import AblationConfig, run_ablations
from gptcls.classify.predict import TextClassifier
from gptcls.classify.run import classify_file
from gptcls.classify.store import save_classifier
from gptcls.common.lock import BusyError, locked
from gptcls.core.errors import InputError
from gptcls.core.loop import NonFiniteLossError, Trainer
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.run import pretrain
from gptcls.train.config import TrainConfig
from gptcls.train.folder import RunFolder
from gptcls.train.hooks import Checkpoints, load_checkpoint, save_checkpoint
from gptcls.train.resolve import resolve
from gptcls.train.run import train

HERE = (torch.device("cpu"), torch.float32, "")
HOME = Path(gptcls.__file__).parents[1]


@pytest.fixture
def data(tmp_path):
    return write_csv(tmp_path / "rows.csv")


def empty(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


# --- the pieces, each killed everywhere ---


def test_a_checkpoint_killed_anywhere_is_the_earlier_one_or_the_later(tmp_path):
    earlier, later, again = (tiny_trainer("head") for _ in range(3))
    later.progress.step = 7
    with torch.no_grad():
        later.model.head.weight.fill_(7.0)
    found = []

    def act():
        save_checkpoint(tmp_path / "x", earlier)
        save_checkpoint(tmp_path / "x", later)

    for _ in killed_at_each_write(act, tmp_path):
        if (tmp_path / "x" / "progress.json").exists():
            load_checkpoint(tmp_path / "x", again)
            found.append(again.progress.step)
            assert bool((again.model.head.weight == 7).all()) == (again.progress.step == 7)
        empty(tmp_path / "x")
    assert set(found) == {0, 7}
    assert sorted(found) == found
    assert found.count(0) > 3


@pytest.mark.parametrize("atomic", [True, False])
def test_a_classifier_killed_anywhere_is_the_old_one_or_the_new(tmp_path, atomic, monkeypatch):
    old, new = tiny_saved(seed=0), replace(tiny_saved(seed=1), max_length=7)
    if not atomic:  # as on a system that cannot exchange two names: there the old one may be put aside
        monkeypatch.setattr("gptcls.common.files.exchange", lambda *_: False)
    for name, saved in (("old", old), ("new", new)):
        save_classifier(tmp_path / name, saved)
    whole, runs, seen = [contents(tmp_path / name) for name in ("old", "new")], tmp_path / "runs", set()
    shutil.copytree(tmp_path / "old", runs / "x")
    for _ in killed_at_each_write(lambda: save_classifier(runs / "x", new), runs):
        anywhere = [path.parent for path in runs.rglob("classifier.json")]
        found = [contents(folder) for folder in ([runs / "x"] if atomic else anywhere)]
        assert any(each in whole for each in found)
        seen |= {whole.index(each) for each in found if each in whole}
        shutil.rmtree(runs)
        shutil.copytree(tmp_path / "old", runs / "x")
    assert seen == {0, 1}


def contents(folder):
    """Its files; what a killed writer left is in a folder of its own."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def opened(out, **options):
    return RunFolder(TrainConfig.of(data="sms-sample", out=out, **options), "classifier", resolve)


def write_rows(folder):
    folder.mkdir(exist_ok=True)
    (folder / "train.csv").write_text("text,label\n")


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_killed_anywhere_at_its_beginning_is_free_or_goes_on(tmp_path, there):
    def begin():
        with opened(tmp_path / "x", seed=5) as home:
            home.begin(None, *HERE, (), write_rows)

    states = []
    if there:
        empty(tmp_path / "x")
    for _ in killed_at_each_write(begin, tmp_path):
        if (tmp_path / "x" / "config.json").exists():
            with opened(tmp_path / "x", resume=True) as home:
                states.append(home.state)
                assert home.config.run.seed == 5
                assert home.has_rows == (home.state == "running")
                home.begin(None, *HERE, (), write_rows)
                assert home.state == "running"
        else:
            assert there or not (tmp_path / "x").exists()
            with pytest.raises(InputError, match="start a new one without --resume"):
                opened(tmp_path / "x", resume=True)
            begin()
        with opened(tmp_path / "x") as home:  # nothing worth keeping was computed yet
            assert not home.resume
        empty(tmp_path)
        if there:
            empty(tmp_path / "x")
    assert set(states) == {"new", "running"}


def test_a_folder_killed_anywhere_at_its_end_goes_on_or_is_finished(tmp_path):
    def end():
        with opened(tmp_path / "x", resume=True) as home:
            home.begin(None, *HERE)
            with home.scoring():
                (home.path / "metrics.json").write_text("{}")

    def scene():
        empty(tmp_path)
        with opened(tmp_path / "x") as home:
            home.begin(None, *HERE, (), write_rows)
        for name in ("checkpoint", "classifier"):
            (tmp_path / "x" / name).mkdir()
        (tmp_path / "x" / "checkpoint" / "progress.json").touch()

    states = []
    scene()
    for _ in killed_at_each_write(end, tmp_path):
        state = json.loads((tmp_path / "x" / "config.json").read_text())["state"]
        states.append(state)
        if state == "finished":
            with pytest.raises(InputError, match="finished run: there is nothing left to resume"):
                opened(tmp_path / "x", resume=True)
            assert not (tmp_path / "x" / "checkpoint").exists(), "what was still to be removed is"
            with pytest.raises(InputError, match="holds a finished run"):
                opened(tmp_path / "x")
        else:
            with opened(tmp_path / "x", resume=True) as home:
                assert home.continues
            with pytest.raises(InputError, match="add --resume"):
                opened(tmp_path / "x")
        scene()
    assert list(dict.fromkeys(states)) == ["running", "scoring", "finished"]


def test_a_run_of_before_there_were_states(tmp_path):
    with opened(tmp_path) as home:
        home.begin(None, *HERE)
    path = tmp_path / "config.json"
    description = json.loads(path.read_text())
    del description["state"], description["sha256"]
    path.write_text(json.dumps(description))
    with opened(tmp_path, resume=True) as home:
        assert home.state == "running"
    (tmp_path / "classifier").mkdir()
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="finished"):
        opened(tmp_path, resume=True)


# --- whole runs ---


def tiny_run(data, base, out, **options):
    options = {"epochs": 2, "batch_size": 42, "max_length": 16, "device": "cpu"} | options
    return TrainConfig.of(model=str(base), data=str(data), out=out, **options)


def scores(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name != "seconds_training"}


def same_files(one, two):
    def names(folder):
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if ".partial" not in str(p))

    assert names(one) == names(two)


@pytest.mark.slow
@pytest.mark.parametrize("every", [11])  # 1 is every write, a few minutes
def test_training_killed_at_any_write_ends_with_the_same_scores(data, base, tmp_path, monkeypatch, every):
    monkeypatch.setattr("gptcls.train.hooks.CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr("gptcls.evaluation.baselines.Baselines.scores", lambda *_: {})
    train(tiny_run(data, base, tmp_path / "whole"))
    out, n_resumed = tmp_path / "runs" / "cut", 0
    config = tiny_run(data, base, out)
    out.parent.mkdir()
    expected = load_file(tmp_path / "whole" / "classifier" / "model.safetensors")
    for n in killed_at_each_write(lambda: train(config), out.parent, every):
        if not out.exists():
            train(config)
        elif json.loads((out / "config.json").read_text())["state"] == "finished":
            with pytest.raises(InputError, match="finished"):
                train(out=out, resume=True)
        else:
            train(out=out, resume=True)
            n_resumed += 1
        assert scores(out) == scores(tmp_path / "whole"), n
        found = load_file(out / "classifier" / "model.safetensors")
        assert all(torch.equal(value, found[name]) for name, value in expected.items()), n
        same_files(out, tmp_path / "whole")
        empty(out.parent)
    assert n_resumed > 50 // every


@pytest.mark.slow
@pytest.mark.parametrize("every", [5])
def test_pretraining_killed_at_any_write_ends_with_the_same_weights(text, tmp_path, monkeypatch, every):  # noqa: F811
    monkeypatch.setattr("gptcls.train.hooks.CHECKPOINT_SECONDS", -1)
    changes = {"steps": 2, "table": "counts"}
    whole = pretrain(pretraining(text, tmp_path / "whole", **changes))
    out, n_resumed = tmp_path / "runs" / "cut", 0
    config = pretraining(text, out, **changes)
    out.parent.mkdir()
    expected = load_file(whole.folder / "model" / "model.safetensors")
    for n in killed_at_each_write(lambda: pretrain(config), out.parent, every):
        if not out.exists():
            pretrain(config)
        elif json.loads((out / "config.json").read_text())["state"] == "finished":
            with pytest.raises(InputError, match="finished"):
                pretrain(PretrainConfig(out=out, resume=True))
        else:
            assert pretrain(PretrainConfig(out=out, resume=True)).perplexity == whole.perplexity
            n_resumed += 1
        found = load_file(out / "model" / "model.safetensors")
        assert all(torch.equal(value, found[name]) for name, value in expected.items()), n
        same_files(out, tmp_path / "whole")
        empty(out.parent)
    assert n_resumed > 20 // every


def command(verb, *arguments):
    environment = os.environ | {"PYTHONPATH": str(HOME), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", f"gptcls.{verb}", *map(str, arguments)]
    return subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_sigkill_at_any_time_and_resume_as_a_user(data, base, tmp_path):
    options = ("--model", base, "--data", data, "--epochs", 60, "--max-length", 16, "--device", "cpu")
    began = time.perf_counter()
    whole = command("train", *options, "--out", tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr.read()
    seconds, out, draw = time.perf_counter() - began, tmp_path / "cut", random.Random(0)
    for _ in range(4):
        way = ("--resume",) if (out / "config.json").exists() else options
        running = command("train", *way, "--out", out)
        time.sleep(draw.uniform(0.3, 1) * seconds)
        running.kill()
        running.wait()
    way = ("--resume",) if (out / "config.json").exists() else options
    last = command("train", *way, "--out", out)
    _, said = last.communicate()
    assert last.returncode == 0 or "finished run" in said, said
    assert scores(out) == scores(tmp_path / "whole")


def test_an_epoch_s_end_is_worth_a_checkpoint_where_it_costs_little(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("gptcls.train.hooks.time.perf_counter", lambda: clock[0])
    saved = []

    def save(folder, trainer):
        saved.append(clock[0])
        clock[0] += 0.5

    monkeypatch.setattr("gptcls.train.hooks.save_checkpoint", save)
    hook = Checkpoints(tmp_path)
    hook.on_start(None)
    for _ in range(40):
        clock[0] += 4
        hook.on_epoch(None)
    assert saved == [8, 36.5, 65.0, 93.5, 122.0, 150.5]  # after a guess of 5 s every 50 times half a second
    clock[0] += 60
    hook.on_step(None)
    assert len(saved) == 7


# --- whose folder it is ---


def test_a_second_run_in_the_same_folder_is_refused(data, base, tmp_path):
    config = tiny_run(data, base, tmp_path / "x")
    with RunFolder(config, "classifier", resolve) as first:
        first.begin(None, *HERE)
        for options in ({"model": str(base), "data": str(data)}, {"resume": True}):
            with pytest.raises(InputError, match=r"x is in use by another process; wait"):
                train(out=tmp_path / "x", **options)
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["config.json"]


def test_both_begin_at_once_and_one_of_them_runs(tmp_path):
    """Neither saw the other when it chose its folder."""
    first, second = opened(tmp_path / "x"), opened(tmp_path / "x", seed=5)
    with first, second:
        second.begin(None, *HERE)
        with pytest.raises(BusyError, match="in use"):
            first.begin(None, *HERE)
    assert json.loads((tmp_path / "x" / "config.json").read_text())["options"]["seed"] == 5


def test_a_lock_ends_with_its_process(tmp_path):
    file = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys, time; file = open(sys.argv[1], 'w'); "
                               "fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); time.sleep(600)", file],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    holder.stdout.readline()
    with pytest.raises(BusyError, match="busy"), locked(file, "busy"):
        pass
    holder.kill()
    holder.wait()
    assert file.exists()
    with locked(file, "busy"):
        pass
    assert not file.exists()


def test_a_lock_whose_file_was_removed_keeps_out_the_next(tmp_path, monkeypatch):
    """The first ends between the moments when a second opens the file and locks it."""
    import fcntl

    file, flock, stack = tmp_path / ".lock", fcntl.flock, ExitStack()
    stack.enter_context(locked(file, "busy"))

    def late(*arguments):
        stack.close()
        return flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(file, "busy"):
        assert file.exists()
        with pytest.raises(BusyError), locked(file, "busy"):
            pass


def test_the_end_of_a_lock_leaves_the_next_one_s(tmp_path, monkeypatch):
    file, close, stack = tmp_path / ".lock", os.close, ExitStack()

    def close_and_lock(number):
        close(number)
        monkeypatch.undo()
        stack.enter_context(locked(file, "busy"))

    with locked(file, "busy"):
        monkeypatch.setattr(os, "close", close_and_lock)
    with pytest.raises(BusyError), locked(file, "busy"):
        pass
    stack.close()
    assert not file.exists()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    import fcntl

    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with caplog.at_level("INFO", "gptcls"), locked(tmp_path / ".lock", "busy"):
        pass
    assert "no locks here (No locks available); let no other process write to it" in caplog.text


def test_a_lock_is_not_made_where_a_link_leads(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"\.lock"), locked(tmp_path / ".lock", "busy"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_one_process_writes_an_output_file(tmp_path):
    pd.DataFrame({"text": ["win a prize"]}).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "link.csv").symlink_to("out.csv")
    classifier = TextClassifier(tiny_saved(), torch.device("cpu"), "fp32")
    with locked(tmp_path / ".out.csv.gptcls.lock", ""):
        for name in ("out.csv", "link.csv"):
            with pytest.raises(InputError, match=r"out\.csv is in use by another process"):
                classify_file(classifier, tmp_path / "t.csv", tmp_path / name)
    assert classify_file(classifier, tmp_path / "t.csv", tmp_path / "out.csv") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.csv", "out.csv", "t.csv"]


def test_one_process_fills_a_table_of_ablations(tmp_path):
    results = tmp_path / "x" / "results.csv"
    options = AblationConfig(out=results.parent, data="sms-sample", rows=(1,), device="quantum")
    with pytest.raises(InputError, match="quantum"):
        run_ablations(options)
    assert not results.parent.exists()
    results.parent.mkdir()
    busy = pytest.raises(InputError, match="x is in use by another process")
    with locked(results.with_name(".gptcls.lock"), ""), busy:
        run_ablations(options)


# --- what a resumed run reads ---


@pytest.fixture
def cut(data, base, tmp_path):
    """A run that was stopped after one step."""
    with stopped_before(1):
        train(tiny_run(data, base, tmp_path / "cut", augment=("delete",)))
    return tmp_path / "cut"


def test_what_a_kill_left_beside_the_folder_goes_when_the_run_goes_on(cut, tmp_path):
    (tmp_path / ".cut.0123456789abcdef.partial").mkdir()
    (tmp_path / ".cut.0123456789abcdef.partial" / "lock").touch()
    train(out=cut, resume=True)
    assert not list(tmp_path.glob("*.partial"))
    assert not list(tmp_path.glob(".*.partial"))


def test_what_a_kill_left_in_a_finished_run_goes_when_it_is_asked_to_go_on(data, base, tmp_path):
    train(tiny_run(data, base, tmp_path / "x"))
    (tmp_path / "x" / ".config.json.0123456789abcdef.partial").mkdir()
    with pytest.raises(InputError, match="holds a finished run"):
        train(out=tmp_path / "x", resume=True)
    assert not list((tmp_path / "x").glob(".*.partial"))


def test_what_a_kill_left_in_a_cache_goes_when_it_is_read(text, tmp_path):  # noqa: F811
    cache = tmp_path / "cache"
    pretrain(pretraining(text, tmp_path / "x", cache=cache))
    (cache / ".tokens.0123456789abcdef.partial").mkdir()
    pretrain(pretraining(text, tmp_path / "y", cache=cache))
    assert not list(cache.glob(".*.partial"))


def test_changed_rows_are_not_resumed(cut, data, tmp_path):
    def refused(file, fate="changed"):
        with pytest.raises(InputError, match=f"{file} {fate} since .*cut was started"):
            train(out=cut, resume=True)

    for file in (data, cut / "split" / "test.csv", cut / "split" / "plain.csv"):
        before = file.read_bytes()
        file.write_bytes(before.replace(b",ham", b",spam", 1))
        assert file.read_bytes() != before
        refused(file)
        file.write_bytes(before)
    (cut / "split" / "plain.csv").rename(tmp_path / "plain.csv")
    refused(cut / "split" / "plain.csv", "is gone")
    (tmp_path / "plain.csv").rename(cut / "split" / "plain.csv")
    data.unlink()  # its rows are in the folder
    assert train(out=cut, resume=True).scores["test"]["n"] == 12


def test_changed_costs_are_not_resumed(data, base, tmp_path):
    costs = tmp_path / "costs.csv"
    costs.write_text("label,ham,spam\nham,0,5\nspam,1,0\n")
    with stopped_before(1):
        train(tiny_run(data, base, tmp_path / "x").changed(costs=costs, threshold="cost"))
    costs.write_text("label,ham,spam\nham,0,50\nspam,1,0\n")
    with pytest.raises(InputError, match=r"costs\.csv changed since .*x was started"):
        train(out=tmp_path / "x", resume=True)


def test_changed_rows_in_memory_are_not_resumed(base, tmp_path):
    rows = pd.DataFrame(ROWS, columns=["text", "label"])
    options = {"model": str(base), "epochs": 1, "max_length": 16, "device": "cpu", "out": tmp_path / "x"}
    with stopped_before(1):
        train(data=rows, **options)
    other = rows.assign(text=rows["text"] + "!")
    with pytest.raises(InputError, match="rows given are not those"):
        train(data=other, out=tmp_path / "x", resume=True)
    assert train(data=rows, out=tmp_path / "x", resume=True).scores["test"]["n"] == 12


def test_changed_text_is_not_pretrained_on(text, tmp_path):  # noqa: F811
    own = Path(shutil.copy(text, tmp_path / "own.jsonl"))
    with stopped_before(1):
        pretrain(pretraining(own, tmp_path / "x"))
    before = own.read_text()
    own.write_text(before.replace("cat", "dog", 1))
    with pytest.raises(InputError, match=f"{own} changed since .*x was started"):
        pretrain(PretrainConfig(out=tmp_path / "x", resume=True))


def test_ctrl_c_while_scoring_is_gone_on_with(data, base, tmp_path, monkeypatch, caplog):
    whole = train(tiny_run(data, base, tmp_path / "whole"))

    def ctrl_c(*_):
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, caplog.at_level("INFO", "gptcls"):
        patch.setattr(gptcls.train.run, "dataset_logits", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_run(data, base, tmp_path / "x"))
    said = f"{tmp_path / 'x'} is left in state 'scoring' (continue with --out {tmp_path / 'x'} --resume)"
    assert said in caplog.text
    assert train(out=tmp_path / "x", resume=True).scores == whole.scores


def test_what_diverged_is_not_gone_on_with(data, base, tmp_path, monkeypatch):
    """It would diverge again."""
    step = Trainer._step

    def diverge(self, group):
        if self.progress.step == 1:
            raise NonFiniteLossError("the loss is no longer finite")
        return step(self, group)

    monkeypatch.setattr("gptcls.train.hooks.CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(Trainer, "_step", diverge)
    with pytest.raises(NonFiniteLossError, match="weights after 1 steps are kept"):
        train(tiny_run(data, base, tmp_path / "x"))
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["classifier", "config.json", "split"]
    with pytest.raises(InputError, match="nothing left to resume"):
        train(out=tmp_path / "x", resume=True)


def test_a_lock_of_another_program_stays(data, base, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".lock").write_text("of another program")
    with pytest.raises(InputError, match="not empty and holds no run"):
        train(tiny_run(data, base, tmp_path / "x"))
    assert (tmp_path / "x" / ".lock").read_text() == "of another program"
