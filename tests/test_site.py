"""The site: what the repository holds as HTML, searched and read without a network, every link followed."""

import base64
import re
import shutil
import sys

import pytest

from chapters import site
from gptcls.core.errors import InputError

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XDSwAAAABJRU5ErkJggg=="
README = """# Toy

Read [one](notebooks/01_one.ipynb), [how](docs/how.md#a-second-heading), [the code](code/twice.py),
[the data](data/) and [a table](data/table.csv). 中文见 [README](README.zh-CN.md).

![a picture](picture.png)
"""
CHINESE = """# 玩具

[English](README.md)

## 注意力

每个词元对前面的词元取加权平均, 见[第一章](notebooks/01_one.ipynb)。
"""
HOW = """# How

A price of $5 and another of $6.

## A second heading

Calibrated probabilities, see [the readme](../README.md).
"""
FORMULA = r"""# 1. One

Inline $\sqrt{D}$, and

$$\mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{D}}\right)V$$

<details><summary>中文提要</summary>

预训练的网络变成**分类器**。

</details>

Next: [2. Two](02_two.ipynb).
"""


def notebook(*cells: dict) -> str:
    import nbformat

    return nbformat.writes(
        nbformat.v4.new_notebook(cells=list(cells), metadata={"language_info": {"name": "python"}})
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A repository of two notebooks and a few pages."""
    nbformat = pytest.importorskip("nbformat", reason="the site is built with the extra site")
    new = nbformat.v4
    root = tmp_path_factory.mktemp("toy")
    outputs = [
        new.new_output("stream", name="stdout", text="seven\n"),
        new.new_output("display_data", {"image/png": PIXEL}),
        new.new_output("display_data", {"text/html": "<p id='shown'>a <b>token</b></p>", "text/plain": "a"}),
    ]
    cells = (
        new.new_markdown_cell(FORMULA),
        new.new_code_cell("print('seven')  # 1 / 0", outputs=outputs, execution_count=1),
    )
    for name, text in {
        "README.md": README,
        "README.zh-CN.md": CHINESE,
        "docs/how.md": HOW,
        "code/twice.py": "def twice(x):\n    return 2 * x\n",
        "data/README.md": "No heading, and back to [one](../notebooks/01_one.ipynb).\n",
        "data/table.csv": "a,b\n",
        "notebooks/01_one.ipynb": notebook(*cells),
        "notebooks/02_two.ipynb": notebook(new.new_markdown_cell("# 2. Two\n\n[back](01_one.ipynb)")),
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "picture.png").write_bytes(base64.b64decode(PIXEL))
    return root


@pytest.fixture(scope="module")
def built(toy):
    """Its site."""
    for name in ("sphinx", "myst_nb", "furo", "math_core"):
        pytest.importorskip(name, reason="the site is built with the extra site")
    out = toy.parent / f"{toy.name} site"
    pages, faults = site.build(toy, out)
    assert faults == []
    assert pages == 7
    return out


@pytest.mark.slow
def test_pages_have_formulas_pictures_folds_and_outputs(built):
    page = (built / "notebooks" / "01_one.html").read_text(encoding="utf-8")
    assert re.search(r"<math><msqrt><mi>D</mi></msqrt></math>", page)
    assert re.search(r'<math display="block">.*?softmax.*?<mfrac>.*?<mi>Q</mi><msup><mi>K</mi>', page)
    assert re.search(
        r"<details><summary>中文提要</summary>\s*<p>预训练的网络变成<strong>分类器</strong>.*?</details>",
        page,
        re.S,
    )
    assert "seven" in page
    assert "<p id='shown'>a <b>token</b></p>" in page
    picture = re.search(r'<img[^>]*src="\.\./(_images/[^"]+)"', page)
    assert (built / picture[1]).read_bytes() == base64.b64decode(PIXEL)
    assert 'href="02_two.html"' in page
    assert "$5 and another of $6" in (built / "docs" / "how.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_links_lead_to_pages_of_the_site(built):
    page = (built / "index.html").read_text(encoding="utf-8")
    assert page == (built / "README.html").read_text(encoding="utf-8")
    for link in (
        "docs/how.html#a-second-heading",
        "code/twice.html",
        "data/README.html",
        "README.zh-CN.html",
    ):
        assert f'href="{link}"' in page, link
    table = re.search(r'href="(_downloads/[^"]*table\.csv)"', page)
    assert (built / table[1]).read_text() == "a,b\n"
    assert "twice" in (built / "code" / "twice.html").read_text(encoding="utf-8")
    assert '<html class="no-js" lang="zh-CN"' in (built / "README.zh-CN.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_search_of_a_folder_finds_words_of_both_languages(built):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    with playwright.sync_playwright() as play:
        found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
        how = {"executable_path": path} if (path := next(found, None)) else {}
        try:
            browser = play.chromium.launch(args=["--no-sandbox"], **how)
        except playwright.Error as error:
            pytest.skip(f"no browser here: {str(error).splitlines()[0]}")
        page, wrong = browser.new_page(), []
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith("file:") or wrong.append(asked.url))

        def finds(query: str) -> dict[str, str]:
            page.goto(f"{(built / 'search.html').as_uri()}?q={query}")
            page.wait_for_selector("text=/Search finished|did not match/")
            items = page.locator("ul.search > li").all()
            return {item.locator("a").inner_text(): item.inner_text() for item in items}

        assert "Calibrated probabilities" in finds("calibration")["How"]
        assert "加权平均" in finds("词元")["玩具"]
        assert set(finds("预训练的网络")) == {"1. One"}
        assert "玩具 > 注意力" in finds("注意力")
        assert finds("训练预") == {}
        assert set(finds("分类器")) == {"1. One"}
        page.click("ul.search > li a")
        page.wait_for_selector("details[open] .highlighted")  # what was found in a fold is shown
        assert wrong == []
        browser.close()


@pytest.mark.slow
def test_each_broken_link_is_a_line_and_ends_with_2(toy, built, tmp_path, capsys, monkeypatch):
    root = tmp_path / "toy"
    shutil.copytree(toy, root)
    (root / "docs" / "how.md").write_text(
        "# How\n\n[a](gone.md) [b](../README.md#no-such) $$\\frac{1$$\n\n![c](https://example.org/c.png)\n"
    )
    out = tmp_path / "site"
    monkeypatch.setattr(site, "ROOT", root)
    with pytest.raises(InputError, match=r"\d faults in the 7 pages of "):
        site.build_and_say(site.Options(out=out))
    lines = capsys.readouterr().err.splitlines()
    for wanted in (
        r"how\.md.*gone\.md",
        r"how\.md.*no-such",
        r"how\.md.*no formula",
        r"how\.html loads https://ex",
    ):
        assert sum(bool(re.search(wanted, line)) for line in lines) == 1, (wanted, lines)
    shutil.copytree(toy, root, dirs_exist_ok=True)
    site.build_and_say(site.Options(out=out))  # in the place of the first
    assert "7 pages, every link leads somewhere" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_links_that_lead_nowhere_and_what_would_be_fetched_are_found(tmp_path):
    (tmp_path / "a b.html").write_text('<h1 id="here">A</h1><a href="#here"></a><a href="#there"></a>')
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="s.css"><script src="//cdn.example/x.js"></script>'
        '<a href="a%20b.html#here"></a><a href="a%20b.html#gone"></a><a href="https://example.org"></a>'
        '<a href="sub/"></a><img src="data:image/png;base64,AAAA"><img src="no.png">'
    )
    (tmp_path / "s.css").write_text("@import 'x.css'; a {background: url(https://example.org/a.png)}")
    assert site.broken(tmp_path) == [
        "a b.html links to #there, which has no such heading",
        "index.html loads //cdn.example/x.js from the network",
        "index.html links to a%20b.html#gone, which has no such heading",
        "index.html links to sub/, which is not there",
        "index.html links to no.png, which is not there",
        "s.css loads https://example.org/a.png from the network",
    ]


def test_what_is_no_site_is_not_replaced(tmp_path):
    (tmp_path / "README.md").write_text("# Toy\n")
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(InputError, match="out is a file"):
        site.build(tmp_path, out)
    out.unlink()
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something other than a site"):
        site.build(tmp_path, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(InputError, match=r"--out \S+mine\.txt/in cannot be written: .*is no folder"):
        site.build(tmp_path, out / "mine.txt" / "in")
    with pytest.raises(InputError, match=r"README\.md is missing"):
        site.build(tmp_path / "elsewhere", tmp_path / "new")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("# Toy\n")
    monkeypatch.setitem(sys.modules, "sphinx.application", None)
    with pytest.raises(InputError, match=r"the site needs sphinx: pip install 'gptcls\[site\]'"):
        site.build(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pages_are_the_repositorys_in_their_order(tmp_path):
    for name in ("b.md", "a.md"):
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / name).write_text("[x](../code/x.py#L2) [y](../code) [z](../../z.md) [w](w.txt)")
    (tmp_path / "code").mkdir()
    for name in ("code/x.py", "code/README.md", "code/y.py", "README.md"):
        (tmp_path / name).write_text("[y](y.py)")
    found = [path.as_posix() for path in site.sources(tmp_path)]
    assert found == ["README.md", "docs/a.md", "docs/b.md", "code/x.py", "code/README.md", "code/y.py"]
