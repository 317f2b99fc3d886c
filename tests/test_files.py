"""Outputs are whole or not there, whatever ends their writer; links, modes and pipes stay what they are."""

import errno
import os
import resource
import signal
import stat
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from gptcls.common import files
from gptcls.common.files import atomic_file, atomic_folder, require_writable, tidy, workplace, write_json
from gptcls.core.errors import InputError
from gptcls.data.writer import ChunkWriter

ROWS = pd.DataFrame({"text": ["hi", "you, there"], "label": ["a", "b"]})


def in_a_process(function) -> int:
    """Its exit status, negative for the signal that killed it."""
    if not (child := os.fork()):
        os._exit(function() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kill_within(writer, path: Path) -> None:
    def write():
        with writer(path) as temporary:
            (temporary / "half" if temporary.is_dir() else temporary).write_text("half of")
            killed()

    assert in_a_process(write) == -signal.SIGKILL


# --- what killed processes left ---


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path, writer):
    kill_within(writer, tmp_path / "x.csv")
    (left,) = names(tmp_path)
    assert left.startswith(".x.csv.")
    assert left.endswith(".partial")
    write_json(tmp_path / "another.json", 1)
    assert names(tmp_path) == ["another.json"]


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    started, go_on = os.pipe(), os.pipe()

    def write():
        with atomic_file(tmp_path / "x.txt") as temporary:
            temporary.write_text("all of it")
            os.write(started[1], b"1")
            os.read(go_on[0], 1)

    child = os.fork()
    if not child:
        write()
        os._exit(0)
    os.read(started[0], 1)
    tidy(tmp_path)
    write_json(tmp_path / "x.json", 1)
    with workplace(tmp_path / "x.txt"):  # of this process too
        tidy(tmp_path)
        assert len(names(tmp_path)) == 3
    os.write(go_on[1], b"1")
    assert os.waitpid(child, 0)[1] == 0
    assert names(tmp_path) == ["x.json", "x.txt"]
    assert (tmp_path / "x.txt").read_text() == "all of it"


@pytest.mark.parametrize("after", [1, 2])
def test_a_kill_between_the_two_renames_of_a_folder_loses_neither(tmp_path, after, monkeypatch):
    with atomic_folder(tmp_path / "x") as temporary:
        (temporary / "which").write_text("old")
    rename, done = Path.rename, []

    def fatal(self, target):
        rename(self, target)
        done.append(target)
        if len(done) == after:
            killed()

    def replace():
        monkeypatch.setattr(Path, "rename", fatal)
        monkeypatch.setattr(files, "exchange", lambda *_: False)  # as where the system has no such call
        with atomic_folder(tmp_path / "x") as temporary:
            (temporary / "which").write_text("new")

    assert in_a_process(replace) == -signal.SIGKILL
    assert (tmp_path / "x").exists() == (after == 2)
    tidy(tmp_path)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x" / "which").read_text() == "new"


def test_a_folder_may_hold_folders(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "x") as temporary:
            (temporary / "a" / "b").mkdir(parents=True)
            file = temporary / "a" / "b" / "c"
            file.write_text(text)
            file.chmod(0o600)
        file = tmp_path / "x" / "a" / "b" / "c"
        assert file.read_text() == text
        assert file.stat().st_mode & 0o777 == (tmp_path / "x").stat().st_mode & 0o666
        assert list((tmp_path / "x" / "a" / "b").iterdir()) == [file]


@pytest.mark.parametrize("call", ["open", "write"])
def test_a_kill_while_its_place_is_made_leaves_nothing_either(tmp_path, monkeypatch, call):
    monkeypatch.setattr(os, call, lambda *_: killed())
    assert in_a_process(lambda: write_json(tmp_path / "x.json", 1)) == -signal.SIGKILL
    monkeypatch.undo()
    (tmp_path / ".x.0123456789abcdef.partial").mkdir()
    tidy(tmp_path)
    assert names(tmp_path) == []


def test_a_place_that_is_being_made_is_left_alone(tmp_path, monkeypatch):
    real, met = os.open, []

    def meanwhile(path, *arguments):
        if Path(path).name == "lock":
            monkeypatch.undo()
            in_a_process(lambda: tidy(tmp_path))
            met.append(Path(path).parent.exists())
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", meanwhile)
    write_json(tmp_path / "x.json", 1)
    assert met == [True]


def test_a_place_without_a_lock_is_left_alone_while_any_is_being_made(tmp_path):
    left = tmp_path / ".x.0123456789abcdef.partial"
    left.mkdir()
    for lock in (False, True):
        if lock:
            (left / "lock").touch()
        with files._making(tmp_path):
            tidy(tmp_path)
            assert left.exists()
    tidy(tmp_path)
    assert not left.exists()


def test_another_machines_file_is_left_alone_for_a_day(tmp_path):
    """A file system may keep its locks to one machine."""
    kill_within(atomic_file, tmp_path / "x")
    (left,) = tmp_path.iterdir()
    (left / "lock").write_bytes(b"another boot")
    tidy(tmp_path)
    assert left.exists()
    long_ago = time.time() - 2 * files.DAY
    for path in (*left.rglob("*"), left):
        os.utime(path, (long_ago, long_ago))
    tidy(tmp_path)
    assert names(tmp_path) == []


def test_other_peoples_names_are_not_removed(tmp_path):
    for name in (".notes.partial", "x.0123456789abcdef.partial", ".x.12.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".f.0123456789abcdef.partial").write_text("a file")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis").write_text("years of work")
    (tmp_path / ".y.0123456789abcdef.partial").symlink_to(elsewhere)
    before = names(tmp_path)
    tidy(tmp_path)
    assert names(tmp_path) == before
    assert names(elsewhere) == ["thesis"]


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    """Whoever knew the name could put a link there: its target stays as it is."""
    monkeypatch.setattr(os, "urandom", lambda n: b"\1" * n)
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / f".x.{'01' * 8}.partial").symlink_to(victim)
    with pytest.raises(FileExistsError), atomic_file(tmp_path / "x") as temporary:
        temporary.write_text("content")
    assert names(victim) == []


def test_names_do_not_depend_on_the_process_number(tmp_path, monkeypatch):
    """In containers that share a folder, all may have the same."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with workplace(tmp_path / "x") as one, workplace(tmp_path / "x") as two:
        assert one != two
        assert len(names(tmp_path)) == 2


def test_a_failing_rename_brings_the_older_folder_back(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "x") as temporary:
        (temporary / "which").write_text("old")
    rename = Path.rename

    def fails(self, target):
        if self.parent.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    monkeypatch.setattr(files, "exchange", lambda *_: False)
    with pytest.raises(OSError, match="Input/output error"), atomic_folder(tmp_path / "x") as temporary:
        (temporary / "which").write_text("new")
    assert (tmp_path / "x" / "which").read_text() == "old"
    assert names(tmp_path) == ["x"]


# --- modes, links, pipes ---


def test_outputs_keep_their_mode(tmp_path):
    file, folder = tmp_path / "x.csv", tmp_path / "folder"
    file.write_text("old")
    file.chmod(0o640)
    folder.mkdir()
    folder.chmod(0o700)
    with ChunkWriter(file) as writer:
        writer.write(ROWS)
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("a")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
    assert len(pd.read_csv(file)) == 2


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_written_through(tmp_path, exists):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "x.csv", tmp_path / "link.csv"
    if exists:
        target.write_text("old")
    link.symlink_to(target)
    with ChunkWriter(link) as writer:
        writer.write(ROWS)
    assert link.is_symlink()
    assert pd.read_csv(target).equals(ROWS)
    folder = tmp_path / "folder"
    folder.symlink_to(tmp_path / "there")
    with atomic_folder(folder) as temporary:
        (temporary / "a").write_text("a")
    assert folder.is_symlink()
    assert names(tmp_path / "there") == ["a"]
    assert names(tmp_path) == ["folder", "link.csv", "there"]


@pytest.mark.parametrize("name", ["pipe", "pipe.csv", "pipe.csv.gz", "pipe.jsonl"])
def test_a_fifo_is_streamed_to(tmp_path, name):
    path, read = tmp_path / name, {"csv": pd.read_csv, "jsonl": lambda f: pd.read_json(f, lines=True)}
    os.mkfifo(path)
    content = []
    reader = threading.Thread(target=lambda: content.append(path.read_bytes()))
    reader.start()
    require_writable(path, "--out")  # takes nothing and waits for nobody
    with ChunkWriter(path, source=__file__) as writer:
        writer.write(ROWS)
    reader.join(10)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert names(tmp_path) == [name]
    copy = tmp_path / ("copy" + path.suffix)
    copy.write_bytes(content[0])
    kind = "jsonl" if "jsonl" in name else "csv"
    found = pd.read_csv(copy, compression="gzip") if name.endswith("gz") else read[kind](copy)
    assert found.equals(ROWS)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_keeps_what_others_wrote(tmp_path, name):
    """The writer shares the place in the file with whoever else has it open."""

    def write():
        os.dup2(os.open(tmp_path / "x", os.O_CREAT | os.O_WRONLY), 1)
        os.write(1, b"before\n")
        for _ in range(2):
            with ChunkWriter(name) as writer:
                writer.write(ROWS[["text"]])
        os.write(1, b"after\n")

    assert in_a_process(write) == 0
    rows = 'text\nhi\n"you, there"\n'
    assert (tmp_path / "x").read_text() == f"before\n{rows}{rows}after\n"
    assert names(tmp_path) == ["x"]


def test_parquet_needs_a_file(tmp_path):
    os.mkfifo(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet: a Parquet file cannot be streamed"):
        ChunkWriter(tmp_path / "x.parquet")


# --- a disk that refuses ---


@pytest.mark.parametrize("writer", ["csv", "json", "numpy"])
def test_errors_of_a_full_disk_name_the_file(tmp_path, writer):
    """No file may grow beyond 50 kB in the process: most errors then name nothing, numpy's not even why."""
    path = tmp_path / "large"

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with atomic_file(path) as temporary:
            if writer == "numpy":
                import numpy as np

                np.save(temporary.open("wb"), np.zeros(1_000_000))
            else:
                temporary.write_text("x" * 1_000_000)

    def status():
        try:
            write()
        except OSError as error:
            return 7 if error.filename == str(path) and error.errno in files.WAYS_OUT else 8

    assert in_a_process(status) == 7
    assert names(tmp_path) == []


def test_what_cannot_be_written_is_found_before(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(InputError, match=r"^--out .*file/x cannot be written: .*file is no folder"):
        require_writable(tmp_path / "file" / "x", "--out")
    with pytest.raises(InputError, match=r"MB are needed.*; free space there, or choose another place"):
        require_writable(tmp_path / "new" / "x", "--out", 10**18)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        try:
            require_writable(tmp_path / "new" / "x", "--out")
        except InputError as error:
            return 7 if "ulimit -f" in str(error) else 8

    assert in_a_process(limited) == 7
    for path in ("new/x", "x", "."):
        require_writable(tmp_path / path, "--out", 1000)
    assert names(tmp_path) == ["file"]
