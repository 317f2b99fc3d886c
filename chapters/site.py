"""``python -m chapters.site``: the course and the manual as one book of static HTML, with search.

It holds what the repository holds: the README in both languages, the notebooks in their order as they are
committed (nothing is executed), docs/, the lesson's code, and every page and Python file that one of these
links to. Sphinx with MyST-NB builds it; what they lack for a folder that is opened without a network is in
:mod:`chapters.site_sphinx`. Afterwards every link of the built pages is followed.
"""

import io
import os
import re
import shutil
import tempfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from gptcls.common import cli
from gptcls.common.console import complain, say
from gptcls.common.extras import needed
from gptcls.common.files import atomic_folder, require_writable
from gptcls.core.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
STATIC = Path(__file__).parent / "static"
HOME, CHINESE = "README", "README.zh-CN"
LINK = re.compile(r"\]\(([^)\s#]+)")
MARK = ".buildinfo"  # Sphinx writes it beside the pages
SHOWN = 50  # faults, of more the rest is counted
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Build the course and the manual as HTML that can be read and searched without a network.

    Each fault, such as a link that leads nowhere, is a line on stderr and makes the exit status 2; the pages
    are written all the same.
    """

    out: Path = Path("site")
    """Folder for the pages; one that holds an older site is replaced."""


def build_and_say(options: Options) -> None:
    """Build the site of this repository, and say where it begins."""
    pages, faults = build(ROOT, options.out)
    for fault in faults[:SHOWN]:
        complain(fault)
    if faults:
        raise InputError(f"{len(faults)} faults in the {pages} pages of {options.out}")
    say(f"{pages} pages, every link leads somewhere: open {options.out / 'index.html'}")


def build(root: Path, out: Path) -> tuple[int, list[str]]:
    """Write the site of the repository at ``root`` to ``out``: how many pages it has, and its faults.

    Faults are lines: what Sphinx warns of, links that lead nowhere, and what a page would fetch from the
    network. Raises InputError where ``out`` holds anything but an older site, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out names a folder")
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise InputError(f"{out} holds something other than a site: give --out a new folder")
    require_writable(out, "--out")
    files = sources(root)
    with needed("site", "the site"):
        from sphinx.application import Sphinx
        from sphinx.errors import SphinxError
        from sphinx.util.docutils import docutils_namespace, patch_docutils

        from chapters import site_sphinx
    warnings = io.StringIO()
    with atomic_folder(out) as html, tempfile.TemporaryDirectory() as doctrees:
        try:
            with redirect_stderr(warnings), patch_docutils(None), docutils_namespace():
                app = Sphinx(
                    root,
                    None,  # all settings are given here
                    html,
                    doctrees,
                    "html",
                    confoverrides=settings(files),
                    status=None,
                    warning=warnings,
                )
                app.build()
        except SphinxError as error:
            raise InputError(f"Sphinx: {error}") from None
        site_sphinx.write_excerpts(html, html / "_static")
        said = warned(warnings.getvalue(), root)
        gone = re.findall("target not found: '(.*?)'", "\n".join(said))  # with the line of their source
        known = tuple(f"links to #{target}, which has no such heading" for target in gone)
        faults = [*said, *(fault for fault in broken(html) if not fault.endswith(known))]
        # Browsers open index.html; the same page keeps the name that links have for it.
        shutil.copy(html / f"{HOME}.html", html / "index.html")
    return len(files), faults


def sources(root: Path) -> list[Path]:
    """What becomes a page, relative to ``root``, in the order of the side bar.

    Pages that nobody lists, and Python files, come in by a link from a page that is already there.
    """
    found = [root / f"{HOME}.md", root / f"{CHINESE}.md"]
    for pattern in ("notebooks/*.ipynb", "docs/*.md", "gptcls/core/*.py"):
        found += sorted(root.glob(pattern))
    found = [path for path in found if path.name != "__init__.py"]
    if not found[0].exists():
        raise InputError(f"{found[0]} is missing; it is the first page of the site")
    for page in found:  # it grows on the way
        if page.suffix == ".py" or not page.exists():
            continue
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = Path(os.path.normpath(page.parent / unquote(link)))
            target = target / f"{HOME}.md" if target.is_dir() else target
            inside = target.is_relative_to(root) and target.is_file()
            if inside and target.suffix in (".md", ".py", ".ipynb") and target not in found:
                found.append(target)
    return [path.relative_to(root) for path in found if path.exists()]


def settings(files: list[Path]) -> dict[str, Any]:
    """Sphinx's settings for these pages."""
    return {
        "extensions": ["myst_nb", "chapters.site_sphinx"],
        "project": "gptcls",
        "html_title": "gptcls",
        "root_doc": HOME,
        "include_patterns": [path.as_posix() for path in files],
        "exclude_patterns": ["**/.*", "runs", "site", "build"],
        "nb_execution_mode": "off",
        "nb_merge_streams": True,
        "nb_ipywidgets_js": {},  # it would come from the network
        "myst_enable_extensions": ["dollarmath"],
        "myst_heading_anchors": 6,
        "myst_dmath_allow_space": False,  # as GitHub and Jupyter do; and 5$ is a price
        "myst_dmath_allow_digits": False,
        "smartquotes": False,
        "html_theme": "furo",
        "html_static_path": [str(STATIC)],
        "html_css_files": ["site.css"],
        "html_js_files": ["folds.js"],
        "html_math_renderer": "mathml",
        "html_search_language": "en-zh",
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "html_show_copyright": False,
        "html_use_index": False,
        "html_domain_indices": False,
        "pygments_style": "default",
        "suppress_warnings": ["myst.header"],  # a notebook's cells may begin at any depth
    }


def warned(text: str, root: Path) -> list[str]:
    """What Sphinx warned of, a line each, with paths from ``root``."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace(f"{root}{os.sep}", "")
    return list(dict.fromkeys(line for line in plain.splitlines() if line.strip()))


class Page(HTMLParser):
    """What a page of HTML can be linked by, where it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what matters of one tag."""
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in LOADED and LOADED[tag] in given:
            self.loads.append(given[LOADED[tag]])


def broken(folder: Path) -> list[str]:
    """Links of the pages in ``folder`` that lead nowhere, and what its pages and styles would fetch."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.html"))}
    pages = {path: Page(text) for path, text in texts.items()}
    faults = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        faults += [f"{name} loads {url} from the network" for url in page.loads if _remote(url)]
        for url in dict.fromkeys([*page.links, *page.loads]):
            if urlsplit(url).scheme or url.startswith("//"):
                continue
            before, _, anchor = url.partition("#")
            target = (
                Path(os.path.normpath(path.parent / unquote(before.partition("?")[0]))) if before else path
            )
            if not target.is_file():
                faults.append(f"{name} links to {url}, which is not there")
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                faults.append(f"{name} links to {url}, which has no such heading")
    for path in sorted(folder.rglob("*.css")):
        fetched = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)", path.read_text("utf-8"))
        faults += [f"{path.relative_to(folder)} loads {url} from the network" for url in fetched]
    return faults


def _remote(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https") or url.startswith("//")


def main() -> None:
    """The command line."""
    cli.run(Options, build_and_say)


if __name__ == "__main__":
    main()
