"""The campaign of faults: damage can be had again, what is found is counted, and what is whole passes."""

import json
import random
import signal
import struct
import sys
import zipfile
from collections import Counter
from io import BytesIO

import pytest

from benchmarks import fault_kills, faults
from benchmarks import fault_mutations as mutations
from benchmarks.fault_commands import Done
from benchmarks.fault_fuzz import Found
from benchmarks.fault_inputs import Kinds
from benchmarks.fault_kills import Outcome
from benchmarks.fault_list import FAULTS, SUBJECTS, FailedError, refused, stopped
from gptcls.core.errors import InputError

ROWS = b"text,label\nsee you,ham\nwin a prize,spam\n"
OBJECT = json.dumps({"n_layer": 2, "names": ["a", "b"], "inside": {"x": 0.5, "y": None}}).encode()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> Kinds:
    return Kinds(tmp_path_factory.mktemp("kinds"))


def a_zip() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.xml", "<a>text</a>")
        archive.writestr("b.bin", bytes(100))
    return file.getvalue()


@pytest.mark.parametrize(
    ("damage", "whole"),
    [
        (mutations.damaged_bytes, ROWS),
        (mutations.damaged_text, ROWS),
        (mutations.damaged_table, ROWS),
        (mutations.damaged_json, OBJECT),
        (mutations.damaged_json_lines, OBJECT),
        (mutations.damaged_zip, a_zip()),
    ],
)
def test_damage_is_that_of_its_seed_and_mostly_damage(damage, whole):
    first, again = ([damage(random.Random(seed), whole) for seed in range(100)] for _ in range(2))
    assert first == again
    assert sum(each != whole for each in first) > 80
    assert len(set(first)) > 50


def test_a_damaged_safetensors_file_often_has_a_header_that_fits_its_length():
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole, fits = struct.pack("<Q", len(header)) + header + bytes(8), 0
    for seed in range(100):
        data = mutations.damaged_safetensors(random.Random(seed), whole)
        size = struct.unpack("<Q", data[:8].ljust(8, b"\0"))[0]
        try:
            fits += isinstance(json.loads(data[8 : 8 + size]), dict)
        except ValueError:
            continue
    assert fits > 50  # else the reader never comes to look at what the header says


@pytest.mark.parametrize("shape", [[], 1.5, None, "4", {"a": 1}])
def test_what_was_damaged_before_is_damaged_again(shape):
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(8)
    assert len({mutations.damaged_safetensors(random.Random(seed), whole) for seed in range(100)}) > 50


def test_every_kind_is_whole_before_it_is_damaged(kinds):
    unread = []
    for kind in kinds.kinds.values():
        folder = kinds.folder / "undamaged" / kind.name.replace("/", "-")
        for name, content in kind.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        try:
            kind.use(folder)
        except Exception as error:
            unread.append(f"{kind.name}: {error!r}")
    assert unread == []


def test_a_case_is_that_of_its_number(kinds):
    for number in (3, 20, 500):
        files = []
        for _ in range(2):
            kind, folder = kinds.write(number, seed=7)
            files.append((kind.name, (folder / kind.file).read_bytes()))
        assert files[0] == files[1]
    assert Counter(map(kinds.name, range(len(kinds.kinds)))).most_common(1)[0][1] == 1


def test_thirty_five_faults_each_with_a_subject():
    assert len(FAULTS) == 35
    assert len({each.name for each in FAULTS}) == 35
    assert {each.about for each in FAULTS} == set(SUBJECTS)


def test_what_counts_as_refused_and_as_stopped():
    good = Done(2, "", "epoch 1\nerror: rows.csv is damaged: fetch it again\n", 1.0)
    refused(good, "rows.csv", "fetch|download")
    for bad in (
        Done(0, "fine", "", 1.0),
        Done(None, "", "", 1.0),
        Done(2, "", "error: other.csv is damaged", 1.0),
        Done(2, "", "error: rows.csv\nerror: rows.csv: fetch", 1.0),
        Done(2, "", "Traceback (most recent call last)\nerror: rows.csv: fetch", 1.0),
    ):
        with pytest.raises(FailedError):
            refused(bad, "rows.csv", "fetch|download")
    stopped(Done(143, "", "stopped", 1.0), signal.SIGTERM)
    for bad in (Done(130, "", "stopped", 1.0), Done(143, "", "", 1.0)):
        with pytest.raises(FailedError):
            stopped(bad, signal.SIGTERM)


def test_the_table_counts_what_was_not_survived():
    kills = [
        Outcome("kill-0", "train", signal.SIGKILL),
        Outcome("kill-1", "train", signal.SIGKILL, "train: it did not resume", uncaught=1, left_behind=7),
        Outcome("kill-2", "pretrain", signal.SIGTERM),
    ]
    error = {"case": "fuzz-5", "kind": "CSV", "error": "KeyError", "where": "x.py:1 f", "said": "'a'"}
    hang = {"case": "fuzz-9", "kind": "zip", "error": "hang", "where": ""}
    found = Found(Counter({"CSV": 8, "zip": 2}), [error], [hang], seconds=2.0)
    campaign = faults.Campaign(kills, 6.0, found, [(FAULTS[0], "", 1.0), (FAULTS[1], "it failed", 1.0)])
    table = faults.table(campaign)
    for line in (
        "| runs of train ended by SIGKILL and resumed | 1 | 2 |",
        "| runs of pretrain ended by SIGTERM and resumed | 1 | 1 |",
        "| damaged inputs | 8 | 10 |",
        "| named faults | 1 | 2 |",
        "| uncaught exceptions | 2 |",
        "| hangs | 1 |",
        "| bytes left behind | 7 |",
        "5 inputs a second",
    ):
        assert line in table
    said = faults.failures(campaign)
    for reason in ("it failed", "kill-1: train: it did not resume", "fuzz-5", "KeyError", "fuzz-9: a hang"):
        assert reason in said
    assert not campaign.passed
    assert faults.Campaign(kills[:1]).passed


def test_a_case_of_no_such_name_is_refused():
    with pytest.raises(InputError, match="kill-NUMBER"):
        faults.again(faults.FaultsConfig(case="kill-x"))
    with pytest.raises(InputError, match="no fault"):
        faults.faults(faults.FaultsConfig(named="nothing of the kind", parts=("named",)))


@pytest.mark.slow
def test_a_kill_that_is_not_survived_is_seen(tmp_path, monkeypatch):
    """A run that leaves a file nobody expects, and one whose result differs."""
    place = fault_kills.Place(tmp_path)
    recipe = fault_kills.RECIPES[0]
    reference = place.kills.reference(recipe)
    assert reference.changes > 20
    worse = {
        name: "0" * 64 if name.endswith("predictions.csv") else value
        for name, value in reference.hashes.items()
    }
    worse.pop("run/mistakes.md")
    place.kills.references[recipe.name] = fault_kills.Reference(worse, reference.seconds, reference.changes)
    reason = place.kills.survives(recipe, None)
    assert "run/predictions.csv" in reason
    assert "left behind: run/mistakes.md" in reason


@pytest.mark.slow
def test_the_smallest_campaign_is_passed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks.faults", "--size", "seconds", "--jobs", "2"])
    faults.main()
    assert "| uncaught exceptions | 0 |" in capsys.readouterr().out
