"""What the benchmark of growth measures with: its texts, its clock and its table."""

import json
import lzma
import time

import pytest

from benchmarks import scaling
from gptcls.core.errors import InputError


def test_texts_are_different_sentences_of_the_lengths_asked_for(tmp_path):
    long = "word " * 70
    first = {"text": f"I saw you there on Monday. {long}.\nToo short."}
    again = {"text": "i saw you there on monday\nIt was raining in the whole of the town."}
    (tmp_path / "a.jsonl").write_text(json.dumps(first) + "\n", encoding="utf-8")
    with lzma.open(tmp_path / "b.jsonl.xz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(again) + "\n")
    files = tmp_path / "a.jsonl", tmp_path / "b.jsonl.xz"
    found = {text.strip(".").lower() for text in scaling.texts_in(files, 2)}
    assert found == {"i saw you there on monday", "it was raining in the whole of the town"}
    with pytest.raises(InputError, match="holds 2 texts of 3: name more"):
        list(scaling.texts_in(files, 3))
    assert [scaling.label_of(text) for text in sorted(found)] == ["both", "others"]


def work(seconds):
    until, kept = time.process_time() + seconds, []
    while time.process_time() < until:
        if len(kept) < 40:
            kept.append(bytearray(b"1") * 2**20)
    return len(kept)


def inner():
    work(0.1)


def outer():
    work(0.2)
    inner()


def test_a_stage_inside_another_is_counted_once(monkeypatch):
    for name in ("inner", "outer"):  # put back afterwards
        monkeypatch.setitem(globals(), name, globals()[name])
    stages = scaling.Stages({f"{__name__}.inner": "inside", f"{__name__}.outer": "around"})
    found = stages.of(lambda: outer())
    assert found["seconds"]["around"] == pytest.approx(0.2, abs=0.08)
    assert found["seconds"]["inside"] == pytest.approx(0.1, abs=0.08)
    assert found["heap_mib"]["around"] >= 40


def test_the_table_is_by_text():
    figures = {
        1000: {"seconds": {"start": 3.0, "tokens": 2.0}, "heap_mib": {"tokens": 99.0}, "peak_mib": 120.0}
    }
    head, _, line = scaling.growth_table(figures).splitlines()
    assert head == "| texts | all | tokens | start and rest, s | heap, MiB | most in | with mapped files |"
    assert line == "| 1,000 | 2.00 | 2.00 | 3.0 | 99 | tokens | 120 |"
    assert len(scaling.growth_picture({"train": figures, "classify": figures}).axes) == 2
