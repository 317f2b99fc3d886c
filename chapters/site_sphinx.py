"""What Sphinx and MyST-NB lack for our site: formulas without JavaScript, a search that finds Chinese words
and shows where they stand though nothing can be fetched, pages for Python files, the side bar."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers import Parser
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish
from sphinx.util import logging

CAPTIONS = {  # of the side bar: the pages whose paths match
    "The course": r"notebooks/.*\.ipynb",
    "In Chinese 中文": r"README\.zh-CN\.md|docs/glossary\.md",
    "The manual": r"docs/.*",
    "The lesson's code": r"gptcls/core/.*\.py",
    "Other pages": r".*",
}
TITLES = {"README.zh-CN.md": "自述文件 <{}>"}  # the page itself is called as the README is
HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORDS = re.compile(rf"[{HAN}]+|[^\W{HAN}]+")
logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_search_language(SearchBoth)
    app.add_source_parser(PythonParser)
    app.add_source_suffix(".py", "python")
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("source-read", prepare)
    app.connect("html-page-context", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class SearchBoth(SearchEnglish):
    """English words by their stems; Chinese text by every two neighbouring characters.

    Chinese has no spaces, and a dictionary would not know 词元 for "token". Pairs need none and find a word
    of any length: a page has the word 注意力 if it has 注意 and 意力.

    >>> SearchBoth({}).split("词元 (tokens)")
    ['词', '元', '词元', 'tokens']
    """

    lang = "en-zh"
    js_splitter_code = rf"""
var splitQuery = (query) =>
  (query.match(/[{HAN}]+|(?:(?![{HAN}])[\p{{L}}\p{{N}}_])+/gu) || []).flatMap((word) =>
    /[{HAN}]{{2}}/u.test(word)
      ? Array.from({{length: word.length - 1}}, (_, i) => word.slice(i, i + 2))
      : [word],
  );
"""

    def split(self, input: str) -> list[str]:
        """The terms of a text, single Chinese characters among them."""
        found = []
        for word in WORDS.findall(input):
            if re.match(f"[{HAN}]", word):
                found += [*word, *(word[i : i + 2] for i in range(len(word) - 1))]
            else:
                found.append(word)
        return found


class PythonParser(Parser):
    """A Python file as a page: its path, and its lines with their numbers."""

    supported = ("python",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the ``document``."""
        env = document.settings.env
        path = f"{env.docname}.py"
        section = nodes.section(ids=[nodes.make_id(path)], names=[path])
        code = nodes.literal_block(inputstring, inputstring, language="python", linenos=True)
        section += [nodes.title(path, path), code]
        document += section


def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    """Give the first page the side bar, and let a link to a folder lead to its README."""
    page = app.env.doc2path(docname).parent
    if app.env.doc2path(docname).suffix == ".py":
        return

    def to_readme(link: re.Match[str]) -> str:
        folder = page / link[1]
        return f"]({link[1].rstrip('/')}/README.md{link[2]}" if (folder / "README.md").exists() else link[0]

    source[0] = re.sub(r"\]\(([^)\s#:]+)([)#])", to_readme, source[0])
    if docname + ".md" in app.config.include_patterns and not re.search("^# ", source[0], re.MULTILINE):
        source[0] = f"# {docname}.md\n\n{source[0]}"  # the side bar needs a name
    if docname == app.config.root_doc:
        source[0] += side_bar(app.config.include_patterns)


def side_bar(pages: list[str]) -> str:
    """MyST's tables of contents of these files, below :data:`CAPTIONS`."""
    left, text = [page for page in pages if page != "README.md"], ""
    for caption, pattern in CAPTIONS.items():
        here = [page for page in left if re.fullmatch(pattern, page)]
        left = [page for page in left if page not in here]
        if here:
            names = "\n".join(TITLES.get(page, "{}").format(f"/{page.rpartition('.')[0]}") for page in here)
            text += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n:maxdepth: 1\n\n{names}\n```\n"
    return text


def finish(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """The search gets its excerpts; a Chinese page says that it is one, since browsers choose the forms of
    characters by it."""
    if pagename == "search":
        app.add_js_file("texts.js", priority=900)
        app.add_js_file("excerpts.js", priority=901)
    if pagename.endswith(".zh-CN"):
        context["language"] = "zh-CN"


def inline_math(translator: Any, node: nodes.math) -> None:
    """A formula in a line."""
    translator.body.append(mathml(node, displaystyle=False))
    raise nodes.SkipNode


def block_math(translator: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own."""
    translator.body.append(f'<div class="formula">{mathml(node, displaystyle=True)}</div>\n')
    raise nodes.SkipNode


def mathml(node: nodes.math | nodes.math_block, displaystyle: bool) -> str:
    """The LaTeX of a node as MathML, which browsers draw without JavaScript."""
    try:
        return LatexToMathML().convert_with_local_state(node.astext(), displaystyle=displaystyle)
    except LatexError as error:
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()[0]
        logger.warning("no formula: %s: %s", node.astext(), said, location=node)
        return ""


class _Text(HTMLParser):
    """The text of a page's main part."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.skipped = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.skipped += tag in ("script", "style", "math")

    def handle_endtag(self, tag: str) -> None:
        self.skipped -= tag in ("script", "style", "math")

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.parts.append(data)


def write_excerpts(html: Path, static: Path) -> None:
    """Write ``texts.js``, what the search shows of its finds: a page in a folder may fetch no other."""
    texts = {}
    for path in sorted(html.rglob("*.html")):
        main = (
            path.read_text(encoding="utf-8").partition('<article role="main"')[2].partition("</article>")[0]
        )
        if main:
            text = "".join(_Text(main[main.index(">") + 1 :]).parts).replace("¶", "")
            texts[path.relative_to(html).as_posix()] = " ".join(text.split())
    code = f"const TEXTS = {json.dumps(texts, ensure_ascii=False)};\n"
    (static / "texts.js").write_text(code, encoding="utf-8")
