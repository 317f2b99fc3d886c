"""The course's notebooks, built from its chapters and executed; ``python -m chapters.build`` does it.

A chapter, ``chapters/NN_topic.py``, is a Python script with cells (py:percent) and the only place to edit.
Its notebook is what a reader opens: the same cells with their outputs and pictures. Nothing in it depends on
when or where it was built, so that building again without a change gives no diff.

An exercise is three code cells. ``# %% tags=["your-turn"]`` is a stub for the learner and, below a line
``# check``, a few lines that print "your turn", "right" or what is not yet so. ``# %% tags=["wrong"]`` is
an answer that the check must not call right; the notebook leaves it out. ``# %% tags=["solution"]`` is one
that it must; in the notebook it becomes text, folded under the word "Solution": JupyterLab alone would fold a
hidden cell, and GitHub folds a ``<details>`` as well. Both answers run alone, each with the check in a
namespace of its own.

A cell marked ``# %% tags=["timing"]`` shows seconds, which no two builds would agree on. It runs at every
build, asserts included, but while the notebook's code stays the same it keeps the outputs it had. ``--time``
takes new ones. No other cell may show what such a cell has measured.

The picture of a cell marked ``# %% tags=["front"]`` is also written to ``notebooks/front.png``, for the
README.
"""

import base64
import hashlib
import os
import re
import tempfile
from itertools import count
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from chapters.png import plain_png
from gptcls.core.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS, NOTEBOOKS = ROOT / "chapters", ROOT / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
YOURS, WRONG, SOLUTION, TIMING, FRONT = "your-turn", "wrong", "solution", "timing", "front"  # the tags
CHECK = "\n# check\n"  # what stands below judges an answer
# As if in a notebook of its own.
ALONE = 'exec(compile({code!r}, "<{tag}>", "exec"), {{"__name__": "__main__"}})'
PRINTS, END = "\n\nIt prints:\n\n```text\n", "\n\n</details>"
INLINE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # whatever backend is set around us
SECONDS = 600  # that a cell, or the start of a kernel, may take on a busy machine


def find_chapters(names: tuple[str, ...] = ()) -> list[Path]:
    """The chapters in their order, or those of these numbers or names; InputError for one that is none."""
    everything = {path.stem: path for path in sorted(CHAPTERS.glob("[0-9][0-9]_*.py"))}
    wanted = set()
    for name in names:
        found = {stem for stem in everything if name in (stem, stem[:2], stem[:2].removeprefix("0"))}
        if not found:
            raise InputError(f"no chapter is called {name!r}: there are {', '.join(everything)}")
        wanted |= found
    return [path for stem, path in everything.items() if not names or stem in wanted]


def notebook_path(chapter: Path) -> Path:
    """Where the notebook of a chapter lies."""
    return NOTEBOOKS / f"{chapter.stem}.ipynb"


def stale_notebooks(chapters: list[Path], everything: bool = True) -> list[str]:
    """Notebooks that are missing, differ from their chapter, or (``everything``) belong to none, and the
    README's picture where it is not its notebook's."""
    stale = []
    for chapter in chapters:
        path = notebook_path(chapter)
        wanted = _sources(folded(read_chapter(chapter)))
        if not path.exists() or _sources(nbformat.read(path, as_version=4)) != wanted:
            stale.append(path.name)
        elif (picture := front_picture(chapter)) is not None:
            front = NOTEBOOKS / "front.png"
            if not front.exists() or front.read_bytes() != picture:
                stale.append(front.name)
    if everything:
        known = {notebook_path(chapter) for chapter in chapters}
        stale += sorted(path.name for path in NOTEBOOKS.glob("*.ipynb") if path not in known)
    return stale


def front_picture(chapter: Path) -> bytes | None:
    """The PNG that the notebook of a chapter shows for the cell marked for the README; None without one."""
    marked = [c.source for c in read_chapter(chapter).cells if FRONT in _tags(c)]
    for cell in nbformat.read(notebook_path(chapter), as_version=4).cells if marked else ():
        if cell.source in marked:
            return base64.b64decode(cell.outputs[0].data["image/png"])
    return None


def read_chapter(chapter: Path) -> NotebookNode:
    """The cells of a chapter as a notebook without outputs, solutions still code."""
    notebook = jupytext.reads(chapter.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def executed(chapter: Path, time: bool = False) -> str:
    """The notebook of a chapter as the text of its file.

    It runs in an empty folder, in a fresh kernel. Unless ``time`` asks for new ones, timings of the same code
    are kept. Raises InputError for a cell that fails, a check that is wrong about an answer, a file that is
    left behind, and an output that another build could not repeat: what goes to stderr, an address in memory.
    """
    notebook = read_chapter(chapter)
    answers = [(cell, cell.source, check) for cell, check in _answers(notebook, chapter)]
    for cell, source, check in answers:
        cell.source = ALONE.format(code=f"{source}\n{CHECK}{check}", tag=_tag(cell))
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            startup_timeout=SECONDS,
            extra_arguments=["--log-level=ERROR"],  # else a line about how the kernel talks to us
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        )
        try:
            client.execute(env=os.environ | INLINE)
        except CellExecutionError as error:
            failed = next(
                c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", ()))
            )
            failed.source = next((source for cell, source, _ in answers if cell is failed), failed.source)
            raise InputError(f"{_place(chapter, failed)} fails: {error.ename}: {error.evalue}") from None
        if left := sorted(os.listdir(folder)):
            raise InputError(f"{chapter.name} leaves files behind: {', '.join(left)}")
    for cell, source, _ in answers:
        cell.source = source
    for cell in notebook.cells:
        _judge(cell, chapter)
        for output in cell.get("outputs", ()):
            _clean(output, chapter, cell)
    timed = [i for i, cell in enumerate(_shown(notebook)) if TIMING in _tags(cell)]
    notebook = folded(notebook)
    if not time:
        _keep_outputs(notebook, timed, notebook_path(chapter))
    return nbformat.writes(notebook) + "\n"


def folded(notebook: NotebookNode) -> NotebookNode:
    """The notebook as readers get it: solutions folded, cells numbered and named by their content."""
    cells, names, number = [], set(), 0
    for cell in _shown(notebook):
        if _tag(cell) == SOLUTION:
            cell = new_markdown_cell(_details(cell))
        cell.metadata.clear()
        cell.id = _name(cell, names)
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = number
        cells.append(cell)
    notebook.cells = cells
    notebook.metadata = NotebookNode(METADATA)  # the kernel added its version
    return notebook


def _shown(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a notebook has; wrong answers are there to try the checks."""
    return [cell for cell in notebook.cells if _tag(cell) != WRONG]


def _tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _tag(cell: NotebookNode) -> str | None:
    """Which part of an exercise a cell is."""
    return next((tag for tag in (YOURS, WRONG, SOLUTION) if tag in _tags(cell)), None)


def _answers(notebook: NotebookNode, chapter: Path) -> list[tuple[NotebookNode, str]]:
    """The cells that answer an exercise, each with the check of the stub above it."""
    answers, check = [], None
    for cell in notebook.cells:
        if _tag(cell) == YOURS:
            check = cell.source.partition(CHECK)[2]
            if not check:
                raise InputError(
                    f"{_place(chapter, cell)}: a stub has a line '# check' and the check below it"
                )
        elif _tag(cell):
            if check is None:
                raise InputError(f"{_place(chapter, cell)}: no stub stands above this answer")
            answers.append((cell, check))
    return answers


def _judge(cell: NotebookNode, chapter: Path) -> None:
    """Was the check right about this stub or answer?"""
    if (tag := _tag(cell)) is None:
        return
    printed = "".join(output.get("text", "") for output in cell.outputs)
    verdict = (printed.splitlines() or [""])[-1]
    expected = {YOURS: "your turn", SOLUTION: "right"}.get(tag)
    fair = verdict.startswith(expected) if expected else verdict and not verdict.startswith("right")
    if not fair:
        raise InputError(f"{_place(chapter, cell)}: the check of this {tag} cell says {verdict!r}")


def _keep_outputs(notebook: NotebookNode, cells: list[int], built: Path) -> None:
    """Give the ``cells`` the outputs that they had in the notebook ``built`` before, if the code is the same.

    All of it: seconds taken of other code would tell a reader something untrue.
    """
    if not built.exists():
        return
    before, now = (
        [cell for cell in each.cells if cell.cell_type == "code"]
        for each in (nbformat.read(built, as_version=4), notebook)
    )
    if [cell.source for cell in before] != [cell.source for cell in now]:
        return
    for i in cells:
        cell = notebook.cells[i]
        cell.outputs = before[cell.execution_count - 1].outputs


def _details(cell: NotebookNode) -> str:
    """A solution and what it printed, folded."""
    printed = "".join(output.get("text", "") for output in cell.outputs)
    text = f"<details>\n<summary><b>Solution</b></summary>\n\n```python\n{cell.source}\n```"
    if printed:
        text += f"{PRINTS}{printed.rstrip()}\n```"
    return text + END


def _name(cell: NotebookNode, taken: set[str]) -> str:
    """A cell's id: a hash of its content, so that inserting a cell renames no other."""
    hashes = (hashlib.sha256(f"{n}{cell.cell_type}{cell.source}".encode()).hexdigest()[:8] for n in count())
    name = next(name for name in hashes if name not in taken)
    taken.add(name)
    return name


def _place(chapter: Path, cell: NotebookNode) -> str:
    return f"{chapter.name}, cell {cell.source.splitlines()[0]!r}"


def _sources(notebook: NotebookNode) -> list[tuple[str, str]]:
    """What must agree: the cells, but for what a folded solution printed, which only running it shows."""
    pairs = [(cell.cell_type, cell.source.removesuffix(END)) for cell in notebook.cells]
    return [(kind, source.partition(PRINTS)[0]) for kind, source in pairs]


def _clean(output: NotebookNode, chapter: Path, cell: NotebookNode) -> None:
    """Take out of an output what another build would not repeat, or refuse it."""
    place = _place(chapter, cell)
    if output.output_type == "stream" and output.name == "stderr":
        raise InputError(f"{place} writes to stderr: {output.text.strip()[:200]!r}")
    if "metadata" in output:
        output.metadata.clear()
    data = output.get("data", {})
    if data and _tag(cell) == SOLUTION:
        raise InputError(f"{place}: a solution is folded into text; let it print, without pictures")
    if "image/png" in data:
        data["image/png"] = base64.b64encode(plain_png(base64.b64decode(data["image/png"]))).decode()
        data.pop("text/plain", None)  # <Figure size 720x380 with 1 Axes>
    shown = [output.get("text", ""), *(value for kind, value in data.items() if kind.startswith("text/"))]
    if address := re.search(r"0x[0-9a-f]{6,}", "\n".join(shown)):
        raise InputError(f"{place} shows an address in memory, {address[0]}")
