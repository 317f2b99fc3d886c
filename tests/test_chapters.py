"""The course: notebooks are built from their chapters, and every chapter runs, solutions included."""

import base64
import os
import struct
import subprocess
import sys
import zlib

import pytest

pytest.importorskip("jupytext", reason="the course is built with the extra course")
import nbformat
from nbformat.v4 import new_output

from chapters import build
from chapters.png import SIGNATURE, plain_png
from gptcls.core.errors import InputError

CHAPTERS = build.find_chapters()
names = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
TOY = """# %% [markdown]
# # A toy
#
# **1.** Add them.

# %%
import sys

a, b = 2, 3
print(a, b)

# %% tags=["solution"]
assert a + b == 5
print("the sum is", a + b)

# %%
a * b
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A course of one small chapter, in a folder of its own."""
    monkeypatch.setattr(build, "ROOT", tmp_path)
    for name in ("CHAPTERS", "NOTEBOOKS"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(build, name, folder)
    path = build.CHAPTERS / "01_toy.py"
    path.write_text(TOY, encoding="utf-8")
    return path


def test_every_notebook_is_built_from_its_chapter():
    assert build.stale_notebooks(CHAPTERS) == []


@pytest.mark.slow
@names
def test_a_chapter_runs_without_a_network(chapter, tmp_path):
    """As a script, in a process and a folder of its own; every assertion in it is one of this test."""
    env = os.environ | {"MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(build.ROOT)}
    done = subprocess.run(
        [sys.executable, chapter],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []  # what a chapter writes goes to a temporary folder


@names
def test_a_chapter_has_what_every_chapter_promises(chapter):
    text = chapter.read_text(encoding="utf-8")
    assert text.count('tags=["solution"]') == 3
    assert text.count("assert_close(") >= 1
    assert "**What you will learn**" in text
    assert "## What changed from the book" in text
    for cell in build.read_chapter(chapter).cells:
        if build.SOLUTION in cell.metadata.get("tags", []):
            assert "assert" in cell.source, cell.source


@names
def test_a_notebook_is_small_and_says_nothing_of_where_it_was_built(chapter):
    path = build.notebook_path(chapter)
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == build.METADATA
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", ())) >= 1


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(toy):
    first = build.executed(toy)
    assert nbformat.reads(first, as_version=4).metadata == build.METADATA
    assert first == build.executed(toy)
    cells = nbformat.reads(first, as_version=4).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "markdown", "code"]
    assert [cell.execution_count for cell in cells if cell.cell_type == "code"] == [1, 2]
    assert cells[1].outputs[0].text == "2 3\n"
    assert cells[3].outputs[0].data["text/plain"] == "6"
    assert cells[3].outputs[0].execution_count == 2
    folded = cells[2].source
    assert folded.startswith("<details>")
    assert "assert a + b == 5" in folded
    assert "It prints:\n\n```text\nthe sum is 5\n```" in folded


@pytest.mark.slow
def test_a_notebook_that_differs_from_its_chapter_is_found(toy):
    assert build.stale_notebooks([toy]) == ["01_toy.ipynb"]  # there is none yet
    build.main(build.Options())
    assert build.stale_notebooks([toy]) == []
    other = build.NOTEBOOKS / "02_gone.ipynb"
    other.write_bytes(build.notebook_path(toy).read_bytes())
    assert build.stale_notebooks([toy]) == ["02_gone.ipynb"]
    assert build.stale_notebooks([toy], everything=False) == []
    for old, new in (("print(a, b)", "print(b, a)"), ("a + b == 5", "5 == a + b"), ("Add them", "Add these")):
        toy.write_text(TOY.replace(old, new), encoding="utf-8")
        assert build.stale_notebooks([toy], everything=False) == ["01_toy.ipynb"]
        with pytest.raises(InputError, match=r"run python -m chapters\.build"):
            build.main(build.Options(check=True, chapters=("01",)))


CLOCK = """
# %% tags=["timing"]
import time

print("seconds:", time.perf_counter())
assert a == 2
"""


@pytest.mark.slow
def test_timings_are_kept_while_the_code_is_the_same(toy):
    def built(text, **options):
        toy.write_text(text, encoding="utf-8")
        build.main(build.Options(**options))
        return build.notebook_path(toy).read_text(encoding="utf-8")

    def seconds(text):
        cells = nbformat.reads(text, as_version=4).cells
        return next(cell.outputs[0].text for cell in cells if "perf_counter" in cell.source)

    first = built(TOY + CLOCK)
    assert built(TOY + CLOCK) == first
    other_words = built((TOY + CLOCK).replace("Add them", "Add these\n\n# %% [markdown]\n# So."))
    assert other_words != first
    assert seconds(other_words) == seconds(first)  # it has another place now, and is found
    timed_again = built(TOY + CLOCK, time=True)
    assert seconds(timed_again) != seconds(first)
    other_code = built((TOY + CLOCK).replace("print(a, b)", "print(b, a)"))
    assert seconds(other_code) != seconds(timed_again)
    assert "3 2" in other_code  # what is no timing is never kept
    with pytest.raises(InputError, match="AssertionError"):  # kept outputs hide no failure
        built((TOY + CLOCK).replace("assert a == 2", "assert a == 3"))


PICTURE = """
# %% tags=["front"]
import matplotlib.pyplot as plt

plt.plot([a, b])
plt.show()
"""


@pytest.mark.slow
def test_the_picture_of_the_readme_is_that_of_its_notebook(toy):
    toy.write_text(TOY + PICTURE, encoding="utf-8")
    build.main(build.Options())
    front = build.NOTEBOOKS / "front.png"
    assert front.read_bytes().startswith(SIGNATURE)
    assert build.stale_notebooks([toy]) == []
    front.write_bytes(front.read_bytes() + b"\0")
    assert build.stale_notebooks([toy]) == ["front.png"]
    front.unlink()
    assert build.stale_notebooks([toy]) == ["front.png"]


def test_an_inserted_cell_renames_no_other(toy):
    before = [cell.id for cell in build.folded(build.read_chapter(toy)).cells]
    toy.write_text(TOY.replace("# %%\nimport sys", "# %%\na * b\n\n# %%\nimport sys"), encoding="utf-8")
    after = [cell.id for cell in build.folded(build.read_chapter(toy)).cells]
    assert len(set(after)) == len(after) == 5
    assert sum(name in after for name in before) >= 3  # all but the one that now stands there twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("# %%\n1 / 0", "ZeroDivisionError"),
        ("# %%\nprint('hm', file=sys.stderr)", "writes to stderr"),
        ("# %%\nobject()", "address in memory"),
        ('# %% tags=["solution"]\na * b', "let it print"),
    ],
)
def test_a_cell_that_fails_or_cannot_be_repeated_stops_the_build(toy, cell, message):
    toy.write_text(f"{TOY}\n{cell}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        build.main(build.Options())
    assert f"01_toy.py, cell {cell.splitlines()[-1]!r}" in str(error.value)
    assert list(build.NOTEBOOKS.iterdir()) == []


def test_an_unknown_chapter_is_named(toy):
    with pytest.raises(InputError, match=r"'07'.*01_toy"):
        build.find_chapters(("07",))
    assert build.find_chapters(("01",)) == build.find_chapters() == [toy]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_picture_keeps_its_pixels_and_loses_its_story():
    head, pixels, end = (
        chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(b"\0\x7f")),
        chunk(b"IEND", b""),
    )
    size = chunk(b"pHYs", struct.pack(">IIB", 3937, 3937, 1))
    story = chunk(b"tEXt", b"Software\0something 1.2") + chunk(b"tIME", bytes(7))
    assert plain_png(SIGNATURE + head + story + size + pixels + end) == SIGNATURE + head + size + pixels + end
    with pytest.raises(ValueError, match="no PNG"):
        plain_png(b"GIF89a")


@pytest.mark.draws
def test_pictures_in_outputs_are_cleaned():
    import io

    from matplotlib.figure import Figure

    file = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(file, format="png")
    assert b"Software" in file.getvalue()
    cell = nbformat.v4.new_code_cell("draw()")
    data = {"image/png": base64.b64encode(file.getvalue()).decode(), "text/plain": "<Figure size 1x1>"}
    cell.outputs = [new_output("display_data", data)]
    build._clean(cell.outputs[0], CHAPTERS[0], cell)
    assert list(cell.outputs[0].data) == ["image/png"]
    assert b"Software" not in base64.b64decode(cell.outputs[0].data["image/png"])
