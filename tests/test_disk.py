"""Disks that are full or read-only: found before the work, named with the way out, and no work is lost."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import ROWS, tiny_saved, write_csv
from safetensors.torch import load_file

import gptcls
import gptcls.classify.run
import gptcls.evaluate
import gptcls.pretrain.run
import gptcls.pseudo_label
import gptcls.train.run
from gptcls.classify import store
from gptcls.classify.predict import load_classifier
from gptcls.classify.store import save_classifier
from gptcls.common.lock import LOCK
from gptcls.core.errors import InputError
from gptcls.train import run as run_of_training
from gptcls.train import second_try

HOME = str(Path(gptcls.__file__).parents[1])


def on_a_disk_of(size: str, folder: Path, command: list) -> list[str]:
    """The command, with a disk of its own of that size at ``folder``; skips where none can be had."""
    how = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    mount = f'mount -t tmpfs -o {size} tmpfs "$0"'
    folder.mkdir()
    if shutil.which("unshare") is None or subprocess.run([*how, "sh", "-c", mount, folder]).returncode:
        pytest.skip("no disk can be mounted here")
    return [*how, "sh", "-c", f'{mount} && exec "$@"', *map(str, (folder, *command))]


def verb(name: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"gptcls.{name}", *map(str, arguments)]


@pytest.fixture
def classifier(tmp_path):
    save_classifier(tmp_path / "classifier", tiny_saved())
    return tmp_path / "classifier"


def training(base: Path, tmp_path: Path, epochs: int) -> list:
    data = write_csv(tmp_path / "rows.csv", ROWS)
    how = ["--batch-size", 4, "--max-length", 16, "--device", "cpu", "--repeats", "keep", "--save", "full"]
    return ["--model", base, "--data", data, "--epochs", epochs, *how]


# --- found before the work ---


def test_every_verb_tries_before_it_loads(run_main, tmp_path, monkeypatch, classifier):
    """The disk takes no byte more: nothing is loaded, and nothing left."""
    data = write_csv(tmp_path / "rows.csv", ROWS)

    def refuses(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gptcls.common.files.flush", refuses)
    for loads in ("train.run.prepare", "classify.predict.load_classifier", "pretrain.run.build_model"):
        monkeypatch.setattr(f"gptcls.{loads}", lambda *_, name=loads: pytest.fail(f"{name} was called"))
    before = sorted(tmp_path.rglob("*"))
    out, model = tmp_path / "new" / "out.csv", ("--model", classifier)
    for module, *arguments in (
        (gptcls.train.run, "--data", data),
        (gptcls.pretrain.run, "--data", data),
        (gptcls.classify.run, *model, "--data", data),
        (gptcls.pseudo_label, *model, "--data", data),
        (sys.modules["gptcls.evaluate"], *model, "--data", data),
    ):
        status, _, err = run_main(module, *arguments, "--out", out)
        said = f"error: --out {out} cannot be written: No space left on device; free space there, or choose"
        assert (status, err.count("\n")) == (2, 1), err
        assert err.startswith(said)
        assert sorted(tmp_path.rglob("*")) == before


def test_a_read_only_disk(classifier, tmp_path):
    data = write_csv(tmp_path / "rows.csv", ROWS)
    command = verb("classify", "--model", classifier, "--data", data, "--out", tmp_path / "disk" / "x.csv")
    command = on_a_disk_of("ro", tmp_path / "disk", command)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": HOME})
    assert done.returncode == 2
    said = "cannot be written: Read-only file system; choose a place that can be written\n"
    assert done.stderr == f"error: --out {tmp_path / 'disk' / 'x.csv'} {said}"


def test_a_classifier_that_will_not_fit_is_refused_before_it_is_trained(base, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)  # the token table alone has 3 MB
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr("gptcls.core.loop.Trainer.fit", lambda self: pytest.fail("training began"))
    data = write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(
        InputError, match=r"--out .*run cannot be written: 3 MB are needed, 1 MB are free; free"
    ):
        gptcls.train(data=data, model=str(base), out=tmp_path / "run", device="cpu", save="full")


@pytest.mark.parametrize("save", ["full", "trained"])
def test_what_an_ensemble_needs_is_what_it_takes(save, base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run_of_training, "require_writable", lambda *given: asked.append(given[2:]))
    data, how = write_csv(tmp_path / "rows.csv", ROWS), {"epochs": 1, "max_length": 16, "device": "cpu"}
    gptcls.train(data=data, model=str(base), out=tmp_path / "run", seeds=(1, 2, 3), save=save, **how)
    files = (tmp_path / "run" / "classifier").glob("*.safetensors")
    tensors = [tensor.nbytes for file in files for tensor in load_file(file).values()]
    assert asked[-1] == (sum(tensors),)


def test_a_disk_that_fills_while_rows_are_written(classifier, tmp_path):
    """The rows take 4 MB, the disk 1 MB: the message says which file, and what stood there stays."""
    (tmp_path / "rows.csv").write_text("text,more\n" + f"hi,{'x' * 2000}\n" * 2_000)
    command = verb("classify", "--model", classifier, "--data", tmp_path / "rows.csv")
    file = tmp_path / "disk" / "x.csv"
    shell = 'echo old > "$0"; "$@" --out "$0"; cat "$0"; ls -A "${0%/*}"'
    command = on_a_disk_of("size=1m", file.parent, ["sh", "-c", shell, file, *command])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": HOME})
    said = f"error: {file}: No space left on device; free space there, or choose another place\n"
    assert (done.stdout, done.stderr) == ("old\nx.csv\n", said)


# --- trained, and cannot be saved ---


def full_from(monkeypatch, function: str, error: OSError) -> list:
    """``function`` fails from now on as on a full disk."""
    calls = []

    def fails(*arguments, **options):
        calls.append(arguments)
        raise error

    monkeypatch.setattr(function, fails)
    return calls


def test_without_a_terminal_a_checkpoint_stays(base, tmp_path, monkeypatch):
    out = tmp_path / "run"
    options = {
        "data": write_csv(tmp_path / "rows.csv", ROWS), "model": str(base), "out": out, "device": "cpu",
        "epochs": 2, "repeats": "keep",
    }  # fmt: skip
    whole = gptcls.train(**options | {"out": tmp_path / "whole"})
    with monkeypatch.context() as patch:
        full_from(patch, "gptcls.classify.store.save_file", OSError(28, "No space left on device"))
        with pytest.raises(InputError) as caught:
            gptcls.train(**options)
    assert str(out / "classifier") in str(caught.value)
    assert f"once there is room, go on with --out {out} --resume" in str(caught.value)
    monkeypatch.setattr("gptcls.core.loop.Trainer._step", lambda *_: pytest.fail("nothing is trained again"))
    resumed = gptcls.train(out=out, resume=True)
    files = [run.folder / "classifier" / "model.safetensors" for run in (whole, resumed)]
    one, two = map(load_file, files)
    assert all((one[name] == two[name]).all() for name in one)


def test_where_no_checkpoint_fits_either_it_says_so(base, tmp_path, monkeypatch):
    for function in ("gptcls.classify.store.save_file", "gptcls.train.hooks.save_file"):
        full_from(monkeypatch, function, OSError(28, "No space left on device"))
    data = write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(InputError, match="no checkpoint could be saved either"):
        gptcls.train(data=data, model=str(base), out=tmp_path / "run", device="cpu", epochs=1)


def test_another_folder_is_the_runs_alone(base, tmp_path, monkeypatch):
    other = tmp_path / "another"
    real = store.save_file

    def full(tensors, file, **options):
        if tmp_path / "run" in Path(file).parents:
            raise OSError(28, "No space left on device")
        real(tensors, file, **options)

    held, write = [], run_of_training.write_run
    monkeypatch.setattr(store, "save_file", full)
    monkeypatch.setattr(second_try, "_another_folder", lambda error: other)
    monkeypatch.setattr(
        run_of_training, "write_run", lambda *a: (held.append((other / LOCK).exists()), write(*a))
    )
    options = {"data": write_csv(tmp_path / "rows.csv", ROWS), "model": str(base), "epochs": 1}
    run = gptcls.train(out=tmp_path / "run", device="cpu", **options)
    assert (run.folder, held, (other / LOCK).exists()) == (other, [True], False)
    assert json.loads((other / "config.json").read_text())["state"] == "finished"


def test_ctrl_c_at_the_question_for_another_folder_leaves_a_checkpoint(base, tmp_path, monkeypatch):
    def interrupted(error: InputError) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(second_try, "_another_folder", interrupted)
    options = {"data": write_csv(tmp_path / "rows.csv", ROWS), "model": str(base), "device": "cpu"}
    with monkeypatch.context() as patch:
        full_from(patch, "gptcls.classify.store.save_file", OSError(28, "No space left on device"))
        with pytest.raises(KeyboardInterrupt):
            gptcls.train(out=tmp_path / "run", epochs=2, **options)
    monkeypatch.setattr("gptcls.core.loop.Trainer._step", lambda *_: pytest.fail("nothing is trained again"))
    assert gptcls.train(out=tmp_path / "run", resume=True).scores["test"]["n"]


@pytest.mark.slow
def test_at_a_terminal_another_folder_can_be_named(base, tmp_path):
    """A real disk fills while a real run trains; the first answer is no folder to use, the second is."""
    disk, run = tmp_path / "disk", tmp_path / "disk" / "run"
    arguments = [*training(base, tmp_path, 60), "--out", run]
    command = on_a_disk_of("size=5m", disk, verb("train", *arguments))
    os.environ["PYTHONPATH"] = HOME
    child, terminal = pty.fork()
    if not child:
        os.execvp(command[0], command)
    seen, filled, answers = b"", False, [str(base), str(tmp_path / "another")]
    try:
        while part := os.read(terminal, 4096):
            seen += part
            if b"epoch 2 " in seen and not filled:
                filler = Path(f"/proc/{child}/root{disk}/filler")
                with filler.open("wb", buffering=0) as file:
                    try:
                        while file.write(bytes(4096)):
                            pass
                    except OSError:
                        filled = True
            if seen.count(b"(empty: none): ") > 2 - len(answers) and answers:
                os.write(terminal, answers.pop(0).encode() + b"\n")
    except OSError:  # how Linux says that the other end is closed
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, seen.decode()
    assert b"is there already" in seen
    other = tmp_path / "another"
    assert load_classifier(other).predict("win a prize now 1") == "spam"
    assert {"classifier", "config.json", "metrics.json", "predictions.csv", "split"} <= set(os.listdir(other))
    assert not list(other.rglob("*.partial"))
    assert not (other / LOCK).exists()
    assert gptcls.evaluate(model=str(other))["n"]


def test_pretraining_too(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and looked at the rain. " * 300)
    config = gptcls.pretrain.run.PretrainConfig(
        data=(str(text),), init="random", n_layer=1, n_embd=8, n_head=1, n_positions=16, window=16, steps=2,
        batch_size=2, device="cpu", out=tmp_path / "run",
    )  # fmt: skip
    full_from(monkeypatch, "gptcls.models.gpt2_files.save_file", OSError(28, "No space left on device"))
    with pytest.raises(InputError, match=r"cannot save the weights to .*go on with --out .*run --resume"):
        gptcls.pretrain.run.pretrain(config)
    monkeypatch.undo()
    from dataclasses import replace

    run = gptcls.pretrain.run.pretrain(replace(config, resume=True))
    assert (run.folder / "model" / "model.safetensors").exists()
    assert not (run.folder / "checkpoint").exists()
