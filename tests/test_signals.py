"""SIGTERM and SIGHUP are obeyed as Ctrl-C is: everything is cleaned up, one line, exit status 143 or 129."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.tiny import HAM, ROWS, SPAM, tiny_saved, tiny_trainer, write_csv
from safetensors.torch import load_file

import gptcls
from gptcls.classify.store import save_classifier
from gptcls.common import signals
from gptcls.core.loop import Hook, Trainer
from gptcls.fast.features import FeatureCache
from gptcls.train.hooks import StoppedError

ENDS = [(signal.SIGTERM, 143, "terminated\n"), (signal.SIGHUP, 129, "hung up\n")]
HOME = str(Path(gptcls.__file__).parents[1])


def verb(name: str, *arguments: object, path: str = HOME, before: tuple = (), **how) -> subprocess.Popen:
    """``python -m gptcls.NAME`` with pipes."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [*before, sys.executable, "-m", f"gptcls.{name}", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.Popen(command, text=True, env=environment, **pipes | how)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    save_classifier(folder, tiny_saved())
    return folder


@pytest.fixture
def slow_import(tmp_path):
    """A torch that takes its time to be imported, as the real one does on a cold disk."""
    (tmp_path / "slow" / "torch").mkdir(parents=True)
    code = "import sys, time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "slow" / "torch" / "__init__.py").write_text(code)
    return f"{tmp_path / 'slow'}{os.pathsep}{HOME}"


# --- before anything has begun ---


@pytest.mark.parametrize(("signum", "status", "said"), [*ENDS, (signal.SIGINT, 130, "interrupted\n")])
def test_while_modules_are_imported(slow_import, signum, status, said):
    process = verb("generate", path=slow_import)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, said)


def in_a_container(process: subprocess.Popen) -> int:
    """The number, seen from here, of the process that has number 1 in there."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def needs_a_container() -> tuple[str, ...]:
    how = ("unshare", "--pid", "--fork", "--kill-child")
    how += () if os.getuid() == 0 else ("--user", "--map-root-user")
    if shutil.which("unshare") is None or subprocess.run([*how, "true"], capture_output=True).returncode:
        pytest.skip("a process may not have number 1 here")
    return how


@pytest.mark.parametrize(("signum", "status", "said"), ENDS)
def test_as_the_first_process_of_a_container(slow_import, folder, signum, status, said):
    """Of it the system drops what it has no handler for."""
    process = verb("generate", path=slow_import, before=needs_a_container())
    assert process.stdout.readline() == "importing\n"
    os.kill(in_a_container(process), signum)
    assert (process.wait(30), process.stderr.read()) == (status, said)
    if signum == signal.SIGTERM:
        process = verb("classify", "--model", folder, before=needs_a_container(), bufsize=1)
        process.stdin.write("see you\n")
        assert process.stdout.readline().count("\t") == 1
        os.kill(in_a_container(process), signum)
        assert (process.wait(30), process.stderr.read()) == (status, said)


# --- verbs at work ---


@pytest.mark.parametrize(("signum", "status", "said"), ENDS)
def test_classify_leaves_no_half_file(folder, tmp_path, signum, status, said):
    (tmp_path / "in.csv").write_text("text\n" + "win a prize\n" * 1_000_000)
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    process = verb("classify", "--model", folder, "--data", source, "--out", target)
    while not list(tmp_path.glob(".out.csv.*.partial/new/out.csv")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, said)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_what_is_ignored_stays_ignored(folder):
    """As nohup ignores SIGHUP."""
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = verb("classify", "--model", folder, bufsize=1, preexec_fn=ignore)
    for _ in range(2):
        process.stdin.write("see you\n")
        assert process.stdout.readline().count("\t") == 1
        process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143


def options(base: Path, tmp_path: Path) -> list:
    data = write_csv(tmp_path / "rows.csv", ROWS * 4)
    quick = {"epochs": 8, "batch-size": 4, "max-length": 16, "device": "cpu", "repeats": "keep"}
    return ["--model", base, "--data", data, *(x for k, v in quick.items() for x in (f"--{k}", v))]


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "status", "said"), ENDS)
def test_training_is_saved_and_goes_on(base, tmp_path, signum, status, said):
    process = verb("train", *options(base, tmp_path), "--out", tmp_path / "run")
    for line in process.stderr:
        if line.startswith("epoch 2"):
            break
    process.send_signal(signum)
    process.send_signal(signum)  # a shell and its terminal both send one
    _, err = process.communicate(timeout=200)
    assert process.returncode == status
    assert err.endswith(said)
    assert "--resume" in err
    resumed = verb("train", "--out", tmp_path / "run", "--resume")
    assert resumed.communicate(timeout=400)[1]
    assert resumed.returncode == 0


@pytest.mark.slow
def test_a_terminal_that_closes(base, tmp_path):
    """Nothing can be shown any more, and all is saved."""
    child, terminal = pty.fork()
    if not child:
        command = [sys.executable, "-m", "gptcls.train", *options(base, tmp_path), "--out", tmp_path / "run"]
        os.execv(sys.executable, list(map(str, command)))
    seen = b""
    while b"epoch 2" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129, seen
    assert (tmp_path / "run" / "checkpoint" / "progress.json").exists()
    assert load_file(tmp_path / "run" / "classifier" / "model.safetensors")
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.slow
def test_a_kill_in_the_frozen_pass_leaves_no_features_behind(tmp_path):
    """With SIGTERM they are removed at once, after SIGKILL by the next run."""
    data = write_csv(tmp_path / "rows.csv", [(f"{text} {i}", label) for i in range(3_000) for text, label in (
        (HAM[0], "ham"), (SPAM[0], "spam"))])  # fmt: skip
    cache, run = (
        tmp_path / "cache",
        ["--model", "gpt2-nano", "--data", data, "--device", "cpu", "--epochs", 1],
    )
    run += ["--cache", cache]
    for signum in (signal.SIGTERM, signal.SIGKILL):
        process = verb("train", *run, "--out", tmp_path / f"run{signum}")
        while not list(cache.rglob("*.bin")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signum)
        assert process.wait(60) == {signal.SIGTERM: 143}.get(signum, -signum)
        assert bool(list(cache.rglob("*.bin"))) == (signum == signal.SIGKILL)
    assert verb("train", *run, "--out", tmp_path / "again").communicate(timeout=300)
    (features,) = cache.rglob("*.bin")
    assert features.with_suffix(".safetensors").exists()
    assert not list(cache.rglob("*.partial"))


# --- in one process ---


@pytest.mark.parametrize("signum", signals.ENDING)
def test_a_signal_is_an_exception_that_names_it(signum):
    before = signal.getsignal(signum)
    with pytest.raises(KeyboardInterrupt) as caught, signals.obeyed():
        os.kill(os.getpid(), signum)
    assert caught.value.signum == signum
    assert signal.getsignal(signum) is before


def test_the_echo_of_a_signal_does_not_disturb_the_cleaning_up():
    with signals.obeyed():
        for signum, n in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
            cleaned = []
            try:
                os.kill(os.getpid(), signum)
            except KeyboardInterrupt:
                try:
                    os.kill(os.getpid(), signum)
                    cleaned.append(signum)
                except KeyboardInterrupt:  # Ctrl-C twice: at once
                    pass
            assert len(cleaned) == (1 if n == 1 else 0)


@pytest.mark.parametrize("signum", signals.ENDING)
def test_a_run_stops_after_its_step_and_says_by_what(signum, monkeypatch):
    trainer, step, done = tiny_trainer(), Trainer._step, []

    def signalled(self, group):
        if not done:
            os.kill(os.getpid(), signum)
            if signum != signal.SIGINT:
                os.kill(os.getpid(), signum)
        done.append(group)
        return step(self, group)

    monkeypatch.setattr(Trainer, "_step", signalled)
    with pytest.raises(StoppedError) as caught:
        trainer.fit()
    assert caught.value.signum == signum
    assert len(done) == 1


def test_features_that_nobody_writes_any_more_are_removed(tmp_path):
    """A file without index is a living writer's or an orphan."""
    from test_features import CPU, Frozen, data, stirred

    frozen, cache = Frozen(stirred(), 2), FeatureCache(tmp_path)
    started, go_on = os.pipe(), os.pipe()

    class Paused(Frozen):
        def forward(self, *inputs):
            os.write(started[1], b"1")
            os.read(go_on[0], 1)
            return super().forward(*inputs)

    def compute(frozen):
        return cache.datasets(frozen, {"train": data()}, CPU)["train"]

    child = os.fork()
    if not child:
        compute(Paused(stirred(), 2))
        os._exit(0)
    os.read(started[0], 1)
    (theirs,) = tmp_path.rglob("*.bin")
    ours = compute(frozen)
    assert theirs.exists()
    for index in tmp_path.rglob("*.safetensors"):
        index.unlink()  # ours now are an orphan
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    again = compute(frozen)
    assert not theirs.exists()
    assert all(map(torch.equal, ours.features, again.features))
    assert len(list(tmp_path.rglob("*.bin"))) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_a_signal_behind_the_last_look_is_not_lost():
    """It comes while the checkpoint of the last epoch is saved."""

    class Late(Hook):
        def on_epoch(self, trainer):
            if trainer.progress.epoch == trainer.settings.epochs:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer = tiny_trainer(patience=0)  # StopOnSignal is its last hook
    trainer.hooks.append(Late())
    with pytest.raises(StoppedError) as caught:
        trainer.fit()
    assert (caught.value.signum, trainer.progress.finished) == (signal.SIGTERM, True)
