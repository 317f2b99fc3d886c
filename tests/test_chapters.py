"""The course: notebooks are built from their chapters, and every chapter runs, solutions included."""

import ast
import base64
import re
import struct
import sys
import zlib

import pytest

pytest.importorskip("jupytext", reason="the course is built with the extra course")
import nbformat
from nbformat.v4 import new_output

from chapters import build, notebooks
from chapters.png import SIGNATURE, plain_png
from gptcls.core.errors import InputError

CHAPTERS = notebooks.find_chapters()
TEXTS = ("text/plain", "text/html")
names = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
QUIZ = (
    "\n# %% \\[markdown\\]\n# ## Quiz\n#\n# <details><summary><b>Five questions</b></summary>\n#\n"
    + "".join(rf"# {n}\. .+\? <details><summary>Answer</summary>.+</details>\n" for n in range(1, 6))
    + "# </details>\n#\n# .*\n$"
)
TOY = '''# %% [markdown]
# # A toy
#
# **1.** Add them.

# %%
import sys

a, b = 2, 3
print(a, b)

# %% tags=["your-turn"]
def plus(a, b):
    """Your turn."""

# check
got = plus(2, 3)
print("your turn" if got is None else "right" if got == 5 else f"not yet: {got}")

# %% tags=["wrong"]
def plus(a, b):
    return a * b

# %% tags=["solution"]
def plus(a, b):
    return a + b

print("the sum is", plus(2, 3))

# %%
a * b
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A course of one small chapter, in a folder of its own."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    for name in ("CHAPTERS", "NOTEBOOKS"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(notebooks, name, folder)
    path = notebooks.CHAPTERS / "01_toy.py"
    path.write_text(TOY, encoding="utf-8")
    return path


def test_every_notebook_is_built_from_its_chapter():
    assert notebooks.stale_notebooks(CHAPTERS) == []


@pytest.mark.slow
@names
def test_a_chapter_runs_without_a_network(chapter, monkeypatch):
    """On the sample that is bundled; every assertion and every exercise in it is one of this test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("COURSE_SMS", "COURSE_TREC"):
        monkeypatch.delenv(name, raising=False)
    notebooks.executed(chapter)


@names
def test_a_chapter_has_what_every_chapter_promises(chapter):
    text = chapter.read_text(encoding="utf-8")
    cells = notebooks.read_chapter(chapter).cells
    answers = [tag for cell in cells if (tag := notebooks._tag(cell))]
    assert answers == [notebooks.YOURS, notebooks.WRONG, notebooks.SOLUTION] * 3
    for part in ("**What you will learn**", "中文提要", "## Exercises", "## Quiz", "★"):
        assert part in text
    assert text.count("<details>") == text.count("</details>") >= 1 + 3 + 1 + 5  # summary, exercises, quiz
    assert len(re.findall(QUIZ, text)) == 1
    assert len(text.splitlines()) <= 380
    code = "\n".join(c.source for c in cells if c.cell_type == "code" and notebooks._tag(c) is None)
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert sum(len(node.names) for node in imports) <= 12


@names
def test_a_notebook_is_small_and_says_nothing_of_where_it_was_built(chapter):
    path = notebooks.notebook_path(chapter)
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata == notebooks.METADATA
    assert all(cell.metadata == {} for cell in notebook.cells)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [o.get("text", "") + "".join(o.get("data", {}).get(kind, "") for kind in TEXTS) for o in outputs]
    assert not re.search(r"/(?:home|opt|root|tmp|Users|var)/", "\n".join(shown))
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_building_twice_gives_the_same_bytes(toy):
    first = notebooks.executed(toy)
    assert nbformat.reads(first, as_version=4).metadata == notebooks.METADATA
    assert first == notebooks.executed(toy)
    cells = nbformat.reads(first, as_version=4).cells
    assert [cell.cell_type for cell in cells] == ["markdown", "code", "code", "markdown", "code"]
    assert [cell.execution_count for cell in cells if cell.cell_type == "code"] == [1, 2, 3]
    assert cells[1].outputs[0].text == "2 3\n"
    assert cells[2].outputs[0].text == "your turn\n"
    assert cells[4].outputs[0].data["text/plain"] == "6"
    assert cells[4].outputs[0].execution_count == 3
    folded = cells[3].source
    assert folded.startswith("<details>")
    assert "return a + b" in folded
    assert "It prints:\n\n```text\nthe sum is 5\nright\n```" in folded
    assert "exec(" not in first
    assert "return a * b" not in first


@pytest.mark.slow
def test_a_notebook_that_differs_from_its_chapter_is_found(toy):
    assert notebooks.stale_notebooks([toy]) == ["01_toy.ipynb"]  # there is none yet
    build.main(build.Options())
    assert notebooks.stale_notebooks([toy]) == []
    other = notebooks.NOTEBOOKS / "02_gone.ipynb"
    other.write_bytes(notebooks.notebook_path(toy).read_bytes())
    assert notebooks.stale_notebooks([toy]) == ["02_gone.ipynb"]
    assert notebooks.stale_notebooks([toy], everything=False) == []
    edits = (("print(a, b)", "print(b, a)"), ("return a + b", "return b + a"), ("Add them", "Add these"))
    for old, new in edits:
        toy.write_text(TOY.replace(old, new), encoding="utf-8")
        assert notebooks.stale_notebooks([toy], everything=False) == ["01_toy.ipynb"]
        with pytest.raises(InputError, match=r"run python -m chapters\.build"):
            build.main(build.Options(check=True, chapters=("01",)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return a * b", "return a + b", "wrong cell says 'right'"),  # a check that calls everything right
        ("return a + b\n\n", "return a - b\n\n", "solution cell says 'not yet: -1'"),
        ("return a + b\n\n", "return a + b + sys.maxsize * 0\n\n", "NameError"),  # it would not run alone
        ('"""Your turn."""', "return a + b", "your-turn cell says 'right'"),
        ("# check", "# a check", "a line '# check'"),
        ("a, b = 2, 3", 'a, b = 2, 3; open("left.txt", "w").close()', r"leaves files behind: left\.txt"),
    ],
)
def test_an_exercise_whose_check_is_wrong_stops_the_build(toy, old, new, message):
    assert TOY.count(old) == 1
    toy.write_text(TOY.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        notebooks.executed(toy)
    assert "exec(" not in str(error.value)


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
        return notebooks.notebook_path(toy).read_text(encoding="utf-8")

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
    front = notebooks.NOTEBOOKS / "front.png"
    assert front.read_bytes().startswith(SIGNATURE)
    assert notebooks.stale_notebooks([toy]) == []
    front.write_bytes(front.read_bytes() + b"\0")
    assert notebooks.stale_notebooks([toy]) == ["front.png"]
    front.unlink()
    assert notebooks.stale_notebooks([toy]) == ["front.png"]


def test_an_inserted_cell_renames_no_other(toy):
    def ids():
        cells = notebooks.folded(notebooks.read_chapter(toy)).cells
        assert len({cell.id for cell in cells}) == len(cells)
        return {cell.source: cell.id for cell in cells if cell.source != "a * b"}  # soon there twice

    before = ids()
    assert len(before) == 4
    toy.write_text(TOY.replace("# %%\nimport sys", "# %%\na * b\n\n# %%\nimport sys"), encoding="utf-8")
    assert ids() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("# %%\n1 / 0", "ZeroDivisionError"),
        ("# %%\nprint('hm', file=sys.stderr)", "writes to stderr"),
        ("# %%\nobject()", "address in memory"),
    ],
)
def test_a_cell_that_fails_or_cannot_be_repeated_stops_the_build(toy, cell, message):
    toy.write_text(f"{TOY}\n{cell}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message) as error:
        build.main(build.Options())
    assert f"01_toy.py, cell {cell.splitlines()[-1]!r}" in str(error.value)
    assert list(notebooks.NOTEBOOKS.iterdir()) == []


def test_an_unknown_chapter_is_named(toy):
    ten = toy.with_name("10_ten.py")
    ten.touch()
    for name in ("07", "0", "01_to", ""):
        with pytest.raises(InputError, match=rf"{name!r}.*01_toy, 10_ten"):
            notebooks.find_chapters((name,))
    for name in ("1", "01", "01_toy"):
        assert notebooks.find_chapters((name,)) == [toy]
    assert notebooks.find_chapters(("10", "1")) == notebooks.find_chapters() == [toy, ten]


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.delattr("chapters.notebooks")
    monkeypatch.delitem(sys.modules, "chapters.notebooks")
    monkeypatch.setitem(sys.modules, "jupytext", None)
    with pytest.raises(InputError, match=r"the course needs jupytext: pip install 'gptcls\[course\]'"):
        build.main(build.Options(check=True))


def test_a_check_takes_no_timings(toy):
    with pytest.raises(InputError, match="--check executes nothing"):
        build.main(build.Options(check=True, time=True))


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
    notebooks._clean(cell.outputs[0], CHAPTERS[0], cell)
    assert list(cell.outputs[0].data) == ["image/png"]
    assert b"Software" not in base64.b64decode(cell.outputs[0].data["image/png"])
