"""The house: the lesson is small and knows nothing of the tool, imports point one way, nothing lies loose."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gptcls

HOME = Path(gptcls.__file__).parent
# A module imports from its own room and from those to the left of it. Verbs are the files next to the rooms,
# and the command line of a room, __main__, which nothing imports.
ROOMS = (
    "core", "common", "data", "models", "language", "evaluation", "fast", "classify", "train", "pretrain",
    "export", "serve", "verbs",
)  # fmt: skip

Graph = dict[str, set[str]]  # module -> modules of the package that it names


def modules(home: Path) -> dict[str, Path]:
    """Dotted name -> file, of every module of a package."""
    names = {}
    for path in sorted(home.rglob("*.py")):
        parts = path.relative_to(home.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def graph(home: Path) -> Graph:
    """Who imports whom, read from the source: also in functions, for type checkers, by ``import_module``."""
    files = modules(home)
    return {
        name: _imported(ast.parse(path.read_text(encoding="utf-8")), name, files)
        for name, path in files.items()
    }


def _imported(tree: ast.AST, name: str, files: dict[str, Path]) -> set[str]:
    package = name if files[name].name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            found += [each if (each := f"{source}.{alias.name}") in files else source for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [each.value for each in node.args if isinstance(each, ast.Constant)]
    return {each for each in found if each in files}


def upward(imports: Graph) -> list[str]:
    """Imports against the order of :data:`ROOMS`; the package's own front door stands above all."""

    def height(module: str) -> int:
        _, *rest = module.split(".")
        if not rest:
            return len(ROOMS)
        if rest[-1] == "__main__":
            return ROOMS.index("verbs")
        return ROOMS.index(rest[0] if rest[0] in ROOMS else "verbs")

    pairs = [(module, other) for module, others in imports.items() for other in others]
    return sorted(f"{module} -> {other}" for module, other in pairs if height(other) > height(module))


def circle(imports: Graph) -> list[str]:
    """The modules of one circle, the first one again at its end; empty without a circle."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def lines(folder: Path) -> int:
    """As ``find folder -name '*.py' | xargs cat | wc -l`` counts them."""
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.py"))


@pytest.fixture(scope="module")
def imports() -> Graph:
    return graph(HOME)


def test_core_imports_nothing_else_of_gptcls(imports):
    inside = {name for name in imports if name.startswith("gptcls.core")}
    assert inside >= {"gptcls.core.gpt2", "gptcls.core.loop", "gptcls.core.answer"}
    found = sorted(f"{name} -> {other}" for name in inside for other in imports[name] - inside)
    assert not found, "\n".join(found)


def test_imports_point_one_way(imports):
    found = upward(imports)
    assert not found, "\n".join(found)


def test_no_import_goes_in_a_circle(imports):
    found = circle(imports)
    assert not found, " -> ".join(found)


def test_the_root_holds_the_rooms_and_little_else():
    files = [path.relative_to(HOME).parts for path in HOME.rglob("*.*") if "__pycache__" not in path.parts]
    entries = {parts[0] for parts in files} - {"assets"}
    assert len(entries) <= 23, sorted(entries)
    assert {entry for entry in entries if (HOME / entry).is_dir()} == {*ROOMS} - {"verbs"}


def test_the_lesson_and_the_whole_are_as_small_as_they_promise():
    assert lines(HOME / "core") <= 1_500
    assert lines(HOME) <= 28_000


def test_the_page_on_the_layout_states_the_sizes():
    page = (HOME.parent / "docs" / "design.md").read_text(encoding="utf-8")
    stated = re.search(r"core/ ([\d,]+) lines, gptcls/ ([\d,]+)", page)
    assert stated, "it gives both"
    core, whole = (int(number.replace(",", "")) for number in stated.groups())
    assert core == pytest.approx(lines(HOME / "core"), abs=50)
    assert whole == pytest.approx(lines(HOME), abs=100)


def test_importing_the_network_loads_the_lesson_alone():
    code = "import sys, gptcls.core.gpt2; print(*(name for name in sys.modules if name.startswith('gptcls')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "gptcls.core.gpt2" in loaded
    assert {
        name for name in loaded - {"gptcls", "gptcls.core"} if not name.startswith("gptcls.core.")
    } == set()


@pytest.mark.parametrize(
    "line",
    [
        "from gptcls.train.run import fit",
        "from gptcls.train import run",
        "import gptcls.train.run",
        "from ..train.run import fit",
        "from ..train import run",
        "def f():\n    from gptcls.train.run import fit",
        "if TYPE_CHECKING:\n    from gptcls.train.run import fit",
        "importlib.import_module('gptcls.train.run')",
    ],
)
def test_an_import_upwards_or_in_a_circle_is_found_wherever_it_stands(tmp_path, line):
    home = tmp_path / "gptcls"
    for path, text in (
        ("__init__.py", ""),
        ("core/__init__.py", ""),
        ("core/loop.py", line),
        ("train/__init__.py", ""),
        ("train/run.py", "from gptcls.core import loop"),
        ("evaluate.py", "import gptcls.train.run, gptcls.core.loop"),
    ):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text, encoding="utf-8")
    found = graph(home)
    assert found["gptcls.core.loop"] == {"gptcls.train.run"}
    assert upward(found) == ["gptcls.core.loop -> gptcls.train.run"]
    assert set(circle(found)) == {"gptcls.core.loop", "gptcls.train.run"}
    (home / "core/loop.py").write_text("import torch\nfrom gptcls import train", encoding="utf-8")
    assert upward(graph(home)) == ["gptcls.core.loop -> gptcls.train"]
    (home / "core/loop.py").write_text("import torch", encoding="utf-8")
    assert upward(graph(home)) == circle(graph(home)) == []
