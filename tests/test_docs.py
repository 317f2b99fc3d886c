"""README and docs/ promise nothing that is not there: links, tests, commands, paths, Python."""

import ast
import importlib
import io
import json
import re
import shlex
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gptcls.common import cli

HOME = Path(__file__).parents[1]
README, CHINESE = HOME / "README.md", HOME / "README.zh-CN.md"
MANUAL = [README, *sorted((HOME / "docs").glob("*.md"))]
FOLDERS = ("benchmarks", "chapters", "dataset", "gptcls", "notebooks")
PAGES = [*MANUAL, CHINESE, *(page for name in FOLDERS for page in sorted((HOME / name).rglob("*.md")))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\d[\d,.]*\d|\d")
TEST = re.compile(r"(tests/\w+\.py)(?:::(\w+))?")
A_PATH = re.compile(r"[\w.-]*/[\w./-]*|[\w-]+\.[a-z]\w*")
OTHERS = ("pip", "pytest", "curl", "export", "printf", "mkdir", "cp", "jupyter")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(HOME).as_posix())
manual = pytest.mark.parametrize("page", MANUAL, ids=lambda path: path.name)


def blocks(page: Path, language: str) -> list[str]:
    """What stands between fences of this language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub names them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pages
def test_every_relative_link_leads_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One `idea`, two\n[a](#one-idea-two) [b](#else) [c](page.md#one-idea-two) [d](gone.md)\n"
    )
    assert broken(page) == ["#else", "gone.md"]


@pages
def test_every_test_that_is_named_exists(page):
    for file, name in TEST.findall(page.read_text(encoding="utf-8")):
        assert (HOME / file).is_file(), file
        if name:
            assert f"\ndef {name}(" in (HOME / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_every_pain_that_is_ruled_out_names_its_tests():
    ruled_out, not_yet = (
        (HOME / "docs" / "known-pains.md").read_text(encoding="utf-8").split("## Not ruled out")
    )
    rows = [line.split(" | ") for line in ruled_out.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for pain, said_in, _, shown_by in rows:
        assert "https://github.com/" in said_in, pain
        assert any(name for _, name in TEST.findall(shown_by)), pain
    assert not_yet.count("\n| ") > 5
    for name, owner, where in re.findall(
        r"\[(\S*?)#\d+\]\(https://github.com/([\w-]+/[\w.-]+)/(\S+)\)", ruled_out
    ):
        assert name in ("", owner), where


def facts(section: str) -> dict[str, Counter[str]]:
    """What a section says in any language: its code but for comments, links, tables and numbers."""
    prose = FENCE.sub("", section)
    plain = re.sub(r"`[^`]+`|\]\([^)]*\)", "", re.sub(r"(\d+) million", r"\g<1>00 万", prose))
    rows = [line for line in plain.splitlines() if line.startswith("|")]
    return {
        "blocks": Counter(re.sub(" *# .*", "", text) for _, text in FENCE.findall(section)),
        "code": Counter(re.findall("`([^`]+)`", " ".join(prose.split()))),  # a line may break in it
        "links": Counter(re.sub("^#.*", "#", link) for link in LINK.findall(prose)),
        "rows": Counter(map(numbers_of, rows)),
        "numbers": Counter(NUMBER.findall(plain)),
    }


def numbers_of(row: str) -> str:
    """A row of a table without its words."""
    return " | ".join(" ".join(NUMBER.findall(cell)) for cell in row.split("|"))


def differences(english: str, chinese: str) -> list[str]:
    """What sections of a page have that those of its translation lack, or the other way round."""
    ours, theirs = (re.split("^## ", text, flags=re.MULTILINE) for text in (english, chinese))
    found = [] if len(ours) == len(theirs) else [f"{len(ours)} sections, {len(theirs)} in Chinese"]
    for a, b in zip(ours, theirs, strict=False):
        for (what, wanted), got in zip(facts(a).items(), facts(b).values(), strict=True):
            found += [f"{a.splitlines()[0]}: no {what} {each!r} in Chinese" for each in wanted - got]
            found += [f"{a.splitlines()[0]}: {what} {each!r} in Chinese alone" for each in got - wanted]
    return found


def test_the_chinese_readme_says_what_the_readme_says():
    english, chinese = (page.read_text(encoding="utf-8") for page in (README, CHINESE))
    # Each may link to the other, and only Chinese readers are told of mirrors at length.
    english, chinese = (re.sub(r"\[[^]]+\]\(README[.\w-]*\)", "", text) for text in (english, chinese))
    chinese = re.sub("^## 国内网络与镜像\n.*?(?=^## )", "", chinese, flags=re.MULTILINE | re.DOTALL)
    found = differences(english, chinese)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train(1)", "train(2)"),
        ("`--b`", "`--c`"),
        ("b.md#c", "b.md#d"),
        ("| 95", "| 59"),
        ("7", "8"),
        ("## B", ""),
    ],
)
def test_a_translation_that_says_something_else_is_found(old, new):
    page = "# A\n\nTake 7 [of](b.md#c), [these](#those).\n\n## B\n`--b`\n"
    page += "```python\ntrain(1)  # so\n```\n| a | 95 |\n"
    other = page.replace("# so", "# 这样").replace("#those", "#这些").replace("Take", "取")
    assert differences(page, other) == []
    assert len(differences(page, other.replace(old, new))) > 0


SET_OFF = r"\*\*(.+?)\*\*|(?<!\*)\*([^*\n]+)\*(?!\*)|^#+ ([^\n]+)"  # bold, italics, a heading


def introduces(text: str, english: str, chinese: str) -> bool:
    """Does a notebook's prose set a term off, or give it in brackets behind its Chinese name?"""
    found = re.findall(SET_OFF, text, re.MULTILINE | re.DOTALL)
    marked = " | ".join(" ".join("".join(each).split()) for each in found)
    names, words = english.split(", "), re.findall(r"[^、\uff08\uff09]+", chinese)
    beside = "|".join(rf"{re.escape(word)} ?[(\uff08]{re.escape(name)}" for word in words for name in names)
    wanted = "|".join(rf"\b{re.escape(name)}" for name in names)
    return bool(re.search(wanted, marked, re.IGNORECASE) or re.search(beside, text, re.IGNORECASE))


def test_the_terms_of_the_glossary_stand_in_their_chapters():
    text, missing = (HOME / "docs" / "glossary.md").read_text(encoding="utf-8"), []
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|.*\((\S+)\) \|$", text, re.MULTILINE)
    assert len(rows) == text.count("\n| **") >= 60
    for english, chinese, notebook in rows:
        cells = json.loads((HOME / "docs" / notebook).read_text(encoding="utf-8"))["cells"]
        prose = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        if not introduces(prose, english, chinese):
            missing.append(f"{english} in {notebook}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    "path",
    [*PAGES, *sorted(HOME.glob("chapters/*.py")), HOME / "constraints.txt"],
    ids=lambda path: path.relative_to(HOME).as_posix(),
)
def test_no_index_of_packages_is_named(path):
    """Which one is near is the reader's to say: PIP_INDEX_URL."""
    hosts = re.findall(
        r"https?://([\w.-]+)/(?:\S*/)?simple\b|https?://([\w.-]*pypi[\w.-]*)", path.read_text("utf-8")
    )
    assert not hosts or hosts == [("your-index", "")]


def test_the_readme_is_short():
    assert README.read_text(encoding="utf-8").count("\n") <= 200


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a block; those that ``&&`` and ``|`` join stand alone."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word not in ("&&", "|"):
                words.append(word)
            elif words:
                yield words
                words = []


def split_off(words: list[str]) -> tuple[str | None, list[str]]:
    """The module that a command runs, None for a program that is not ours, and its arguments."""
    if words[0] == "gptcls":
        return cli.__name__, words[1:]
    if words[:2] != ["python", "-m"]:
        return None, words[1:]
    package, _, verb = words[2].partition(".")  # python -m gptcls.train is gptcls train
    return (cli.__name__, [verb, *words[3:]]) if package == "gptcls" else (words[2], words[3:])


def made_by(words: list[str], config: Any) -> set[str]:
    """What a command leaves: ``config`` are its options, parsed."""
    if words[0] in ("mkdir", "cp"):
        return {words[-1].rstrip("/")}
    made = {after for before, after in pairwise(words) if before in ("--out", "--output")}
    if hasattr(config, "run_name"):
        made.add(f"runs/{config.run_name}")
    if "sms-spam" in words:
        made.add("dataset/SMSSpamCollection")
    return made


@manual
def test_every_command_has_options_and_paths_that_exist(page, monkeypatch):
    """A path is in the repository, or a command of the page makes it, or a plain block lists it."""
    made, listed = set(), "\n".join(blocks(page, ""))
    parsed: list[Any] = [None]
    monkeypatch.setattr(cli, "run", lambda config_class, function: parsed.append(cli._parse(config_class)))
    for words in (words for text in blocks(page, "bash") for words in commands(text)):
        module, arguments = split_off(words)
        if module:
            monkeypatch.setattr(sys, "argv", [words[0], *arguments])
            importlib.import_module(module).main()  # parses, and does no more
        else:
            assert words[0] in OTHERS, words
        made |= made_by(words, parsed[-1] if module else None)
        for word in filter(A_PATH.fullmatch, arguments if words[0] not in ("pip", "export") else []):
            around = {word.rstrip("/"), *map(str, Path(word).parents)} - {"."}
            assert (HOME / word).exists() or around & made or f"{word}/" in listed, f"{word} in {words}"


def promised(text: str) -> Iterator[tuple[ast.stmt, object]]:
    """The statements of a block, each with the literal that a comment at its end promises, or None."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    for statement in ast.parse(text).body:
        try:
            yield statement, ast.literal_eval(comments.get(statement.end_lineno, "None"))
        except (ValueError, SyntaxError):  # prose
            yield statement, None


def runs(page: Path) -> Iterator[pytest.param]:
    """The page for a test, if it has any Python; marked where it trains."""
    if text := "\n".join(blocks(page, "python")):
        trains = re.search(r"\b(?:train|fit)\(", text)
        yield pytest.param(page, id=page.name, marks=[pytest.mark.slow] if trains else [])


@pytest.mark.parametrize("page", [param for page in MANUAL for param in runs(page)])
def test_the_python_of_a_page_runs_and_gives_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").symlink_to(HOME / "dataset")
    space: dict[str, object] = {}
    for text in blocks(page, "python"):
        for statement, promise in promised(text):
            line = ast.unparse(statement)
            if promise is None or not isinstance(statement, ast.Expr):
                exec(compile(line, page.name, "exec"), space)
            else:
                assert eval(line, space) == promise, line
