"""The page of gptcls.serve in a real browser, as people use it: by keyboard, on a phone, in the dark."""

import contextlib
import csv
import re
import shutil
import threading
import time
from collections.abc import Iterator

import pandas as pd
import pytest
import torch

from gptcls import fit, load_classifier
from gptcls.classify.predict import TextClassifier
from gptcls.serve.limits import Limits

playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
pytest.importorskip("uvicorn", reason="needs pip install 'gptcls[serve]'")

expect = playwright.expect
pytestmark = pytest.mark.slow
MINUS = "\N{MINUS SIGN}"
TEXT = "URGENT! You have won a £900 prize, call 09061701461 to claim"
EVIL = "<img src=x onerror=document.title='run'> <script>document.title='run'</script>"


@contextlib.contextmanager
def served(classifier: TextClassifier, name: str) -> Iterator[str]:
    """The address at which it is served."""
    import uvicorn

    from gptcls.serve.app import create_app
    from gptcls.serve.server import listening

    app = create_app(classifier, name, Limits(max_explained=500))
    with listening("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        server.should_exit = True
        thread.join(30)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(load_classifier(precision="fp32"), "sms-spam-nano") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as play:
        found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
        how = {"executable_path": path} if (path := next(found, None)) else {}  # else playwright's own
        try:
            browser = play.chromium.launch(args=["--no-sandbox"], **how)
        except playwright.Error as error:
            pytest.skip(f"no browser here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(url, browser, **how):
    """The page, ready; a message of its console, an error or a request to elsewhere fails the test."""
    context = browser.new_context(**how)
    page, wrong = context.new_page(), []
    page.set_default_timeout(20_000)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith((url, "blob:", "data:")) or wrong.append(asked.url))
    page.goto(url)
    page.wait_for_selector("#label option", state="attached")
    yield page
    context.close()
    # What the browser itself says of an answer that is a refusal, and of none.
    wrong = [line for line in wrong if "status of 4" not in line and "ERR_FAILED" not in line]
    assert not wrong, wrong


@pytest.fixture
def page(url, browser, request):
    with opened(url, browser, **getattr(request, "param", {})) as page:
        yield page


def test_a_text_by_the_keyboard_alone(page):
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type(TEXT)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".pieces")
    assert page.inner_text("#answer").startswith("spam, ")
    bars = page.locator("#bars li")
    assert [bars.nth(n).locator(".name").inner_text() for n in (0, 1)] == ["spam ✓", "ham"]
    widths = [bars.nth(n).locator(".fill").bounding_box()["width"] for n in (0, 1)]
    assert widths[0] > 50 * widths[1]
    expected = load_classifier(precision="fp32").explain(TEXT, ["spam"])
    numbers = [float(text.replace(MINUS, "-")) for text in page.locator(".pieces rt").all_inner_texts()]
    largest = abs(expected.attributions[:, 1]).max()
    shown = [x for x in expected.attributions[:, 1] if abs(x) >= 0.05 * largest]
    assert numbers == pytest.approx(shown, abs=0.0051)
    assert page.evaluate("document.querySelector('.pieces').textContent.length") > len(TEXT)
    # On with Tab: the button, the label, the way of leaving out, the table; every stop can be seen.
    stops = []
    for _ in range(5):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert width == "3px", stops[-1]
    assert stops[0] == "Classify"
    assert stops[1] == "label"
    assert stops[3] == "as a table"
    assert stops[4] == "texts"


def test_tokens_and_the_other_label(page):
    page.fill("#text", TEXT)
    page.click("text=Classify")
    page.wait_for_selector(".pieces rt")
    words = page.locator(".pieces rt").all_inner_texts()
    page.select_option("#label", "ham")
    expect(page.locator("#why-body")).to_contain_text("log-odds of ham")
    other = {"+": MINUS, MINUS: "+"}
    assert page.locator(".pieces rt").all_inner_texts() == [other[text[0]] + text[1:] for text in words]
    page.check("input[value=token]")
    expect(page.locator("#why-body")).to_contain_text("without the token")
    assert page.locator(".pieces rt").all_inner_texts() != words
    page.click("text=as a table")
    assert page.locator("#why-body tbody tr").count() > 12


def test_a_text_is_never_part_of_the_page(page):
    page.fill("#text", EVIL)
    page.keyboard.press("Control+Enter")
    page.fill("#texts", f"{EVIL}\nok")
    page.focus("#texts")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")
    page.focus("#text")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".pieces")
    assert page.title() == "sms-spam-nano · gptcls"
    assert page.locator("main img, main script").count() == 0
    assert EVIL in page.inner_text("#preview")


def test_many_texts_and_their_file(page, tmp_path):
    page.fill("#texts", 'see you at six\n\nYou won a free cruise! Text CLAIM to 80455\n=1+1, "ok"')
    page.focus("#texts")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#many-status") == "3 texts: 2 ham, 1 spam"
    cells = page.locator("#preview tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in cells] == ["ham", "spam", "ham"]
    assert cells[2].endswith('\'=1+1, "ok"')
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "texts-labelled.csv"
    download.value.save_as(tmp_path / "texts.csv")
    rows = list(csv.reader((tmp_path / "texts.csv").open(encoding="utf-8-sig", newline="")))
    assert rows[0] == ["text", "label", "probability_ham", "probability_spam"]
    assert [row[:2] for row in rows[1:]] == [
        ["see you at six", "ham"], ["You won a free cruise! Text CLAIM to 80455", "spam"],
        ["'=1+1, \"ok\"", "ham"],
    ]  # fmt: skip


def test_a_file_and_what_is_wrong_with_one(page, tmp_path):
    texts = [f"call 0909081{n:04}" if n % 3 == 0 else f"see you at {n}" for n in range(150)]
    lines = ["id;Nachricht", *(f"{n};{text}" for n, text in enumerate(texts))]
    (tmp_path / "my rows.csv").write_text("\n".join(lines), encoding="utf-8")
    page.set_input_files("#file", tmp_path / "my rows.csv")
    page.click("text=Classify all")
    page.wait_for_selector("#many-error:not(:empty)")
    assert "fields are separated by ';'; give separator ';'" in page.inner_text("#many-error")
    page.click("text=How the file is written")
    page.fill("#separator", ";")
    page.fill("#text-column", "Nachricht")
    page.click("text=Classify all")
    page.wait_for_selector("#result:not([hidden])")
    answers = load_classifier(precision="fp32").predict(texts)
    ham, spam = answers.count("ham"), answers.count("spam")
    assert ham > spam > 0
    assert page.inner_text("#many-status") == f"150 texts: {ham} ham, {spam} spam"
    assert page.inner_text("#download") == "Download my rows-labelled.csv"
    assert page.locator("#preview tbody tr").count() == 100
    assert "The first 100 are shown." in page.inner_text("#preview-note")
    assert page.inner_text("#preview thead").split("\t")[-1].strip() == "Nachricht"
    page.fill("#texts", "and a line")
    page.click("text=Classify all")
    page.wait_for_selector("#many-error:not(:empty)")
    assert page.inner_text("#many-error").startswith("there are lines and a file")
    page.click("text=Remove the file")
    page.click("text=Classify all")
    expect(page.locator("#many-status")).to_have_text("1 text: 1 ham")


def test_what_cannot_be_answered_is_said(page):
    page.keyboard.press("Control+Enter")
    assert page.inner_text("#one-error") == "there is no text"
    page.fill("#text", "word " * 200)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#why-error:not(:empty)")
    assert "and 500 are explained here (--max-explained)" in page.inner_text("#why-error")
    assert page.locator("#bars li").count() == 2
    page.fill("#text", "word " * 5000)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#one-error:not(:empty)")
    assert "more than 20,000 (--max-characters)" in page.inner_text("#one-error")
    page.route("**/classify", lambda route: route.abort())
    page.fill("#text", "a")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#one-error")).to_contain_text("the server does not answer")
    page.unroute("**/classify")


def test_the_last_question_is_the_one_answered(page):
    waiting = []
    page.route("**/classify", lambda route: waiting.append(route))
    page.fill("#text", "You won a free cruise! Text CLAIM to 80455")
    page.keyboard.press("Control+Enter")
    page.fill("#text", "see you at six")
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(100)
    first, second = waiting
    second.continue_()
    page.wait_for_selector(".pieces")
    first.abort()
    page.wait_for_timeout(100)
    assert page.inner_text("#answer").startswith("ham, ")
    assert page.inner_text("#one-error") == ""


def luminance(colour: str) -> float:
    """Relative luminance (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance) of "rgb(r, g, b)"."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.mark.parametrize(
    "page",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE, {"color_scheme": "dark", **PHONE}],
    ids=["light", "dark", "phone", "dark phone"],
    indirect=True,
)
def test_it_can_be_read_in_light_and_dark_and_fits_a_phone(page):
    page.fill("#text", f"{TEXT} {'unbroken' * 40}")
    page.press("#text", "Control+Enter")
    page.fill("#texts", f"ok\n{TEXT}")
    page.press("#texts", "Control+Enter")
    page.wait_for_selector(".pieces")
    page.wait_for_selector("#result:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    pairs = {  # what is read, and what it stands on
        "#answer": "section", "#about": "body", ".bars .number": "section", "#text": "#text",
        "#one button": "#one button", ".hint": "section", "rt": "section", "summary": "section", "h1": "body",
    }  # fmt: skip
    page.evaluate("document.querySelector('#one-error').textContent = 'wrong'")
    for front, back in (pairs | {"#one-error": "section"}).items():
        colours = [
            page.eval_on_selector(front, "each => getComputedStyle(each).color"),
            page.eval_on_selector(back, "each => getComputedStyle(each).backgroundColor"),
        ]
        low, high = sorted(map(luminance, colours))
        assert (high + 0.05) / (low + 0.05) >= 4.5, front
    ground = page.eval_on_selector("body", "each => getComputedStyle(each).backgroundColor")
    assert (luminance(ground) < 0.1) == dark


@pytest.mark.parametrize("columns", [("question", "answer"), ("text", "text_2")])
def test_texts_that_are_read_together(browser, tmp_path, columns):
    rows = [(f"Is it {a}?", f"It is {b}.", "yes" if a == b else "no") for a in "abcde" for b in "abcde"]
    data, options = (
        pd.DataFrame(rows, columns=[*columns, "label"]),
        {"train": "head", "epochs": 1, "device": "cpu"},
    )
    if columns[0] == "text":  # what files call texts that had no columns
        trained = fit([row[:2] for row in rows], labels=[row[2] for row in rows], **options)
    else:
        trained = fit(data, text_column=columns, **options)
    classifier = TextClassifier(trained.classifier, torch.device("cpu"), "fp32")
    with served(classifier, "pairs") as url, opened(url, browser) as page:
        page.keyboard.type("Is it a?")
        page.keyboard.press("Tab")
        page.keyboard.type("It is b.")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".pieces")
        expected = classifier.predict([("Is it a?", "It is b.")])[0]
        assert page.inner_text("#answer").startswith(f"{expected}, ")
        assert page.locator("#fields label").all_inner_texts() == list(columns)
        assert "Is it a?" in page.inner_text(".pieces")
        assert "It is b." in page.inner_text(".pieces")
        assert not page.is_visible("#texts")
        assert not page.is_visible("#many-hint")
        page.click("text=Classify all")
        assert page.inner_text("#many-error") == "choose a file"
        file = tmp_path / "pairs.csv"
        data.drop(columns="label").to_csv(file, index=False)
        page.set_input_files("#file", file)
        page.click("text=Classify all")
        page.wait_for_selector("#preview table")
        shown = page.locator("#preview tbody tr td:nth-child(2)").all_inner_texts()
        pairs = list(data[list(columns)].itertuples(index=False, name=None))
        expected = classifier.predict_proba(pairs)[:, 0]
        assert shown == [f"{100 * p:.2f}%" for p in expected]
        assert len(set(shown)) > 20, "each row has its own"
        page.fill("#text", " ")
        page.fill("#text-2", "")
        page.press("#text-2", "Control+Enter")
        page.wait_for_function("document.querySelector('#one-error').textContent")
        assert page.inner_text("#one-error") == "there is no text"
