"""gptcls.serve: predict's answers, however requests share batches; strangers and floods stay out."""

import asyncio
import base64
import csv
import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tiny import CPU, HAM, SPAM, tiny_saved
from prometheus_client.parser import text_string_to_metric_families

import gptcls
from benchmarks.serve import Answers, check
from gptcls import TextClassifier, load_classifier
from gptcls.classify.run import classify_file
from gptcls.classify.store import save_classifier
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.data.sources import load_data
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.decision import Decision
from gptcls.serve import run as serve_run
from gptcls.serve.batching import Batcher, BusyError
from gptcls.serve.limits import Limits

TestClient = pytest.importorskip("fastapi.testclient", reason="needs pip install 'gptcls[serve]'").TestClient

from gptcls.serve.app import create_app  # noqa: E402 (needs FastAPI)

HERE = "http://127.0.0.1:8000"
SECRET = "the word xylophone stands nowhere else"


@pytest.fixture(scope="module")
def bundled():
    return load_classifier(precision="fp32")


@pytest.fixture(scope="module")
def tiny():
    saved = tiny_saved()
    with torch.no_grad():
        saved.model.head.weight.mul_(5)  # so that texts differ in their answers
    return saved


@pytest.fixture
def client(bundled):
    with TestClient(create_app(bundled, "sms"), base_url=HERE) as client:
        yield client


def of(classifier, limits=None, **more):
    return TestClient(create_app(classifier, "x", limits, **more), base_url=HERE)


def detail(response, status=422):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    assert "\n" not in response.json()["detail"]
    return response.json()["detail"]


def metrics(client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


# --- answers ---


def test_answers_and_probabilities_are_those_of_predict(client, bundled):
    texts = [*load_data("sms-sample")["text"][:25], " ", "\ud83d half an emoji", "é 你好", "win " * 300]
    found = client.post("/classify", content=json.dumps({"texts": texts}), headers=JSON).json()
    assert found["labels"] == list(bundled.labels)
    assert found["answers"] == bundled.predict(texts)
    ours = np.array([row or [np.nan] * 2 for row in found["probabilities"]])
    np.testing.assert_allclose(ours, bundled.predict_proba(texts), atol=1e-5)
    assert found["note"] == "1 texts are longer than 256 tokens; the rest was not read"
    assert metrics(client)["gptcls_longer_texts_total"] == 1


JSON = {"content-type": "application/json"}
TEXTS = ["", *(f"{text} {n}" for n, text in enumerate(HAM + SPAM))]


def changed(saved, how):
    return {
        "calibrated": replace(saved, calibration=Calibration((2.5,)), decision=Decision(threshold=0.7)),
        "unsure": replace(saved, decision=Decision(abstain=0.9)),
        "labels": replace(saved, task=MultiLabel(("a", "b"))),
        "numbers": replace(saved, task=Regression(("a", "b"), (1.0, 2.0), (3.0, 1.0))),
    }[how]


def test_the_page_is_told_which_texts_are_read_together(tiny):
    for own, expected in (
        ({}, ["text"]),
        ({"text_columns": ("title", "body")}, ["text"]),  # joined, as earlier versions did
        ({"text_columns": ("title", "body"), "fields": 2}, ["title", "body"]),
    ):
        with of(TextClassifier(replace(tiny, **own), CPU, "fp32")) as client:
            assert client.get("/classifier").json()["fields"] == expected


@pytest.mark.parametrize("how", ["calibrated", "unsure", "labels", "numbers"])
def test_every_kind_of_answer_is_that_of_predict(tiny, how):
    classifier = TextClassifier(changed(tiny, how), CPU, "fp32")
    with of(classifier) as client:
        found = client.post("/classify", json={"texts": TEXTS}).json()
        about = client.get("/classifier").json()
        why = client.post("/explain", json={"text": TEXTS[3]}).json()
    expected = classifier.predict(TEXTS)
    assert len({str(each) for each in expected}) > 2, "the texts differ"
    assert about["labels"] == list(classifier.labels)
    assert why["answer"] == pytest.approx(expected[3]) if how == "numbers" else why["answer"] == expected[3]
    if how == "numbers":
        assert found["probabilities"] is None
        assert found["answers"][0] is None
        np.testing.assert_allclose(found["answers"][1:], expected[1:], rtol=1e-5)
        return
    assert found["answers"] == expected
    assert ("unsure" in expected) == (how == "unsure")
    p = np.array(found["probabilities"][1:])
    np.testing.assert_allclose(p, classifier.predict_proba(TEXTS)[1:], atol=1e-5)


def test_no_texts_are_no_answers(client):
    found = client.post("/classify", json={"texts": []}).json()
    assert (found["answers"], found["probabilities"], found["note"]) == ([], [], None)


@pytest.mark.parametrize("by", ["word", "token"])
def test_an_explanation_is_the_librarys(client, bundled, by):
    text = "my number is 09090812345"
    found = client.post("/explain", json={"text": text, "labels": ["spam"], "by": by}).json()
    why = bundled.explain(text, ["spam"], by)
    assert [each["piece"] for each in found["pieces"]] == list(why.pieces)
    np.testing.assert_allclose(
        [each["adds"]["spam"] for each in found["pieces"]], why.attributions[:, 1], atol=1e-5
    )
    assert [each["without"] for each in found["pieces"]] == list(why.without)
    assert (found["answer"], found["outputs"]["spam"]) == ("spam", pytest.approx(why.outputs[1], abs=1e-6))
    unread = client.post("/explain", json={"text": "a " * 300}).json()["pieces"][-1]
    assert (unread["adds"], unread["without"]) == ({"ham": None}, None)


def test_the_answer_that_the_docs_show_is_the_answer(client):
    page = (Path(gptcls.__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    given = re.search(r"printf '(.*)'", page)[1]
    promised = json.loads(re.search(r'^\{"labels".*?^```', page, re.S | re.M)[0].removesuffix("```"))
    found = client.post("/classify", content=given, headers=JSON).json()
    np.testing.assert_allclose(found.pop("probabilities"), promised.pop("probabilities"), rtol=1e-3)
    assert found == promised


# --- many at once ---


def test_each_of_many_at_once_gets_the_answer_to_its_own_text(tiny):
    texts = list(load_data("sms-sample")["text"].drop_duplicates())[:200]
    classifier = TextClassifier(tiny, CPU, "fp32")
    expected = classifier.predict_proba(texts)
    assert len({round(float(p), 4) for p in expected[:, 1]}) > 150, "an exchange would show"
    with of(classifier, Limits(wait_ms=20.0)) as client, ThreadPoolExecutor(40) as pool:
        found = list(pool.map(lambda text: client.post("/classify", json={"texts": [text]}).json(), texts))
        counted = metrics(client)
    ours = np.array([each["probabilities"][0] for each in found])
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert counted["gptcls_texts_total"] == counted["gptcls_batch_texts_sum"] == 200
    assert counted["gptcls_batch_texts_count"] < 100, "requests share batches"
    assert counted["gptcls_requests_total /classify 200"] == 200
    assert counted["gptcls_waiting_texts"] == 0


class Slow:
    """Answers when it is let, and remembers the batches."""

    def __init__(self):
        self.batches, self.go, self.begun = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.begun.set()
        assert self.go.wait(20)
        self.batches.append(list(items))
        if "bad" in items:
            raise ValueError(SECRET)
        return [item * 2 for item in items]


def test_what_gathers_meanwhile_is_one_batch_of_the_size_allowed():
    slow = Slow()
    with Batcher(slow, most=4) as batcher:
        first = batcher.submit(["a"])
        assert slow.begun.wait(20)
        others = [batcher.submit(items) for items in (["b"], ["c", "d"], ["e", "f"], [], ["g"])]
        assert batcher.waiting == 6
        slow.go.set()
        found = [each.result(20) for each in (first, *others)]
    assert found == [["aa"], ["bb"], ["cc", "dd"], ["ee", "ff"], [], ["gg"]]
    assert slow.batches == [["a"], ["b", "c", "d"], ["e", "f", "g"]]
    with pytest.raises(ValueError, match="3 items at once, of at most 2"):
        Batcher(slow, most=2).submit(["a", "b", "c"])


def test_an_error_is_that_of_the_caller_who_brought_it():
    slow = Slow()
    with Batcher(slow, most=9) as batcher:
        batcher.submit(["first"])
        assert slow.begun.wait(20)
        good, bad, also_good = (batcher.submit(items) for items in (["a"], ["b", "bad"], ["c"]))
        slow.go.set()
        assert (good.result(20), also_good.result(20)) == (["aa"], ["cc"])
        with pytest.raises(ValueError, match=SECRET):
            bad.result(20)


def test_who_leaves_is_not_computed_for_and_a_full_queue_says_so():
    slow = Slow()
    with Batcher(slow, most=2, room=3) as batcher:
        batcher.submit(["first"])
        assert slow.begun.wait(20)
        gone, stays = batcher.submit(["gone"]), batcher.submit(["a", "b"])
        with pytest.raises(BusyError, match="3 are waiting already; try again in a moment"):
            batcher.submit(["c"])
        gone.cancel()
        slow.go.set()
        assert stays.result(20) == ["aa", "bb"]
    assert slow.batches == [["first"], ["a", "b"]]
    assert not batcher.alive
    with pytest.raises(BusyError, match="the server is stopping"):
        batcher.submit(["d"])


def test_closing_answers_what_waits_and_does_not_wait_for_ever():
    slow = Slow()
    slow.go.set()
    with Batcher(slow, wait=0.01) as batcher:
        waiting = [batcher.submit([str(n)]) for n in range(200)]
    assert [each.result(0) for each in waiting] == [[f"{n}{n}"] for n in range(200)]
    stuck = Slow()
    batcher = Batcher(stuck, most=1)
    with batcher:
        batcher.submit(["computed"])
        assert stuck.begun.wait(20)
        left = batcher.submit(["left"])
        batcher.close(seconds=0.1)
        with pytest.raises(BusyError, match="the server has stopped"):
            left.result(0)
        stuck.go.set()


def test_a_busy_server_says_when_to_come_again(tiny):
    classifier, slow = TextClassifier(tiny, CPU, "fp32"), Slow()
    scored = classifier.scored
    classifier.scored = lambda texts: (slow(["x"]), scored(texts))[1]
    with of(classifier, Limits(batch_size=1, max_waiting=1)) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/classify", json={"texts": ["a"]})
        assert slow.begun.wait(20)
        second = pool.submit(client.post, "/classify", json={"texts": ["b"]})
        until = time.monotonic() + 20
        while not metrics(client)["gptcls_waiting_texts"] and time.monotonic() < until:
            time.sleep(0.01)
        third = client.post("/classify", json={"texts": ["c"]})
        assert detail(third, 503) == "1 are waiting already; try again in a moment"
        assert third.headers["retry-after"] == "1"
        slow.go.set()
        assert [each.result(20).status_code for each in (first, second)] == [200, 200]


@pytest.mark.parametrize("path", ["/file", "/classify", "/explain"])
def test_work_ends_when_its_client_leaves(tiny, path):
    classifier, slow = TextClassifier(tiny, CPU, "fp32"), Slow()
    scored, explained = classifier.scored, classifier.explained
    classifier.scored = lambda texts: (slow(texts), scored(texts))[1]
    classifier.explained = lambda texts, **how: (slow(texts), explained(texts, **how))[1]
    texts = [f"see you {n}" for n in range(10)]
    body = {"/file": "\n".join(texts), "/classify": json.dumps({"texts": texts})}
    body = body.get(path, json.dumps({"text": texts[0]})).encode()
    app = create_app(classifier, limits=Limits(batch_size=2))
    arriving = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive():
        return arriving.pop() if arriving else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async def go():
        async with app.router.lifespan_context(app):
            headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
            scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
            await app(scope | {"query_string": b"", "http_version": "1.1"}, receive, send)
            slow.go.set()

    asyncio.run(asyncio.wait_for(go(), 20))
    assert sent[0]["status"] == 499
    assert len(slow.batches) <= 1, "what had begun, and no more"


# --- what is refused ---


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"texts": ["a", 3]}', "texts.1: Input should be a valid string"),
        ('{"texts": "a"}', "texts: Input should be a valid list"),
        ('{"text": ["a"]}', "texts: Field required"),
        ('{"tex', "the body must be a JSON object, sent with the header Content-Type: application/json"),
        ("[1]", "the body must be a JSON object, sent with the header Content-Type: application/json"),
        (json.dumps({"texts": ["a"] * 6}), "6 texts are more than the 5 of a request (--max-texts)"),
        (json.dumps({"texts": ["a", "b" * 51]}), "texts.1 has 51 characters, more than 50 (--max-char"),
    ],
)
def test_a_body_that_cannot_be_used_is_one_line(tiny, body, said):
    with of(TextClassifier(tiny, CPU, "fp32"), Limits(max_texts=5, max_characters=50)) as client:
        assert detail(client.post("/classify", content=body, headers=JSON)).startswith(said)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text": "a" * 2001}, "the text has 2,001 characters, and 2,000 are explained here (--max-explai"),
        ({"text": " \n"}, "the text is blank: there is nothing to explain"),
        ({"text": "a", "labels": ["eggs"]}, "label 'eggs' is unknown; the classifier has ham, spam"),
        ({"text": "a", "by": "letter"}, "by: Input should be 'word' or 'token'"),
    ],
)
def test_an_explanation_that_cannot_be_is_one_line(client, body, said):
    assert detail(client.post("/explain", json=body)).startswith(said)


def test_a_body_that_is_too_large_is_not_read(tiny):
    with of(TextClassifier(tiny, CPU, "fp32"), Limits(max_bytes=1000)) as client:
        said = "a request may have 1,000 bytes (--max-bytes); send it in parts"
        for path in ("/classify", "/file", "/explain"):
            assert detail(client.post(path, content=b"x" * 1001, headers=JSON), 413) == said
            # Without a length, as it comes.
            body = (b"x" * 100 for _ in range(11))
            assert detail(client.post(path, content=body, headers=JSON), 413) == said
        assert client.post("/file", content=b"x" * 1000).status_code == 200


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("127.0.0.1:8000", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:8000", True),
        ("192.168.0.7:8000", True), ("tower.lan:8000", True), ("evil.example", False),
        ("evil.example:8000", False), ("127.0.0.1.evil.example", False), ("localhost.evil.example:80", False),
        ("", False),
    ],
)  # fmt: skip
def test_a_host_that_is_not_known_is_refused(tiny, host, fine):
    with of(TextClassifier(tiny, CPU, "fp32"), names=["Tower.lan"]) as client:
        for path in ("/", "/health", "/classifier", "/metrics"):
            response = client.get(path, headers={"host": host})
            assert response.status_code == (200 if fine else 400)
        if not fine:
            assert f"this server is not known as {host!r}" in detail(response, 400)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (HERE, 200), ("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:9", 403),
        ("https://127.0.0.1:8000", 200),
    ],
)  # fmt: skip
def test_pages_of_other_sites_cannot_use_it(client, origin, status):
    response = client.post("/classify", json={"texts": ["a"]}, headers={"origin": origin})
    assert response.status_code == status
    assert not [name for name in response.headers if name.startswith("access-control")]
    # Without a preflight, which is not answered either, a browser sends no JSON.
    plain = client.post("/classify", content='{"texts": ["a"]}', headers={"content-type": "text/plain"})
    assert plain.status_code == 422
    ask = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    assert client.options("/classify", headers=ask).status_code == 403


def test_an_error_of_ours_is_one_line_and_the_log_has_no_text(tiny, caplog):
    classifier = TextClassifier(tiny, CPU, "fp32")

    def scored(texts):
        raise RuntimeError(texts[0])

    with of(classifier) as client, caplog.at_level(logging.DEBUG):
        client.post("/classify", json={"texts": [SECRET]})
        client.post("/file?name=x.csv", content=f"{SECRET},other {SECRET}\na,b")
        classifier.scored = scored
        response = client.post("/classify", json={"texts": [SECRET]})
        assert detail(response, 500) == "an error of the server's, which its log names"
        assert client.get("/health").json() == {"status": "ok"}
        assert metrics(client)["gptcls_requests_total /classify 500"] == 1
    ours = [record.getMessage() for record in caplog.records if record.name == "gptcls"]
    assert any(re.fullmatch(r"/classify: RuntimeError in .*test_serve.py, line \d+", line) for line in ours)
    assert SECRET not in "".join(line for line in ours if "guessed" not in line)


def test_paths_that_are_not_there_share_one_counter(client):
    for n in range(5):
        assert client.get(f"/{n}").status_code == 404
    assert metrics(client)["gptcls_requests_total other 404"] == 5
    for path in ("/docs", "/redoc"):  # their pages load scripts from elsewhere
        assert client.get(path).status_code == 404
    assert "/classify" in client.get("/openapi.json").json()["paths"]


def test_health_says_when_nothing_is_answered_any_more(tiny):
    with of(TextClassifier(tiny, CPU, "fp32")) as client:
        assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/health").status_code == 503
    assert detail(client.post("/classify", json={"texts": ["a"]}), 503) == "the server is stopping"


# --- files ---

ROWS = 'id,text\n1,"see you, at\nsix"\n2,=cmd|win a prize\n3,\n4,"URGENT ""call"" now"\n'


def test_a_file_comes_back_as_the_command_labels_it(client, bundled, tmp_path):
    (tmp_path / "rows.csv").write_text(ROWS, encoding="utf-8")
    classify_file(bundled, tmp_path / "rows.csv", tmp_path / "out.csv", escape_formulas=True)
    response = client.post("/file?name=My+rows.CSV", content=ROWS.encode())
    assert response.text == (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert "\n2,'=cmd|win a prize,ham," in response.text
    assert response.headers["content-disposition"] == 'attachment; filename="labelled.csv"'
    assert response.headers["x-text-columns"] == "text"


def test_a_file_says_how_it_is_written(client, bundled):
    body = "Wer;Was\nich;schön, bis später\ndu;gewinne ü\n".encode("cp1252")
    query = "/file?name=x.csv&separator=;&encoding=cp1252&text_column=Was"
    frame = pd.read_csv(io.StringIO(client.post(query, content=body).text))
    assert frame["Was"].tolist() == ["schön, bis später", "gewinne ü"]
    np.testing.assert_allclose(
        frame["probability_spam"], bundled.predict_proba(frame["Was"])[:, 1], atol=2e-6
    )
    two = client.post("/file?name=x.csv&text_column=a&text_column=b", content="a,b\nsee,you\n")
    assert two.headers["x-text-columns"] == "a, b"


def test_lines_are_texts(client, bundled):
    lines = ["see you at six", "", "  ", 'say "hi", ok', "=1+1", "-5", "You won a prize 80455"]
    response = client.post("/file", content="\r\n".join(lines).encode("utf-8-sig"))
    rows = list(csv.reader(io.StringIO(response.text)))
    texts = [line for line in lines if line.strip()]
    assert [row[0] for row in rows] == ["text", *("'=1+1" if text == "=1+1" else text for text in texts)]
    assert [row[1] for row in rows[1:]] == bundled.predict(texts)
    uci = client.post("/file", content="ham\tsee you\nspam\twin\n").text
    assert uci.splitlines()[0] == "label,text,predicted_label,probability_ham,probability_spam"


@pytest.mark.parametrize(
    ("query", "body", "said"),
    [
        ("?name=x.xlsx", b"PK", "this is a '.xlsx' file; give .csv, .tsv, .txt, .jsonl"),
        ("?name=x.csv.gz", b"x", "this is a '.gz' file; give .csv"),
        ("?name=noname", b"x", "this is a file without a suffix; give .csv"),
        ("", b"", "file.txt is empty"),
        ("", b"\n \n", "file.txt has no text: give one a line"),
        ("", "schön".encode("cp1252"), "file.txt, line 1: not UTF-8; it looks like CP1252"),
        (
            "?name=x.csv", b"a,b\n1,2\n",
            "file.csv: cannot tell which column is the text among 'a', 'b'; name it with text_column",
        ),
        ("?name=x.csv&text_column=c", b"a,b\n1,2\n", "file.csv: text_column names 'c'"),
        ("?name=x.csv", b"text\na,b\n", "file.csv, line 2: the header has 1 fields, this row 2"),
        ("?name=x.csv&separator=ab", b"text\na\n", "separator 'ab' cannot separate fields"),
        ("?name=x.csv&encoding=none", b"text\na\n", "encoding 'none' is not one that Python knows"),
        ("?name=x.jsonl", b'{"text": 3}', "file.jsonl: a value of type int in column 'text'"),
        ("?name=../../etc/x.csv", b"text\n" + b"a\n" * 21, "file.csv has more than 20 rows (--max-rows)"),
        ("?name=x.txt&text_column=c", b"a\n", "file.txt has a text a line and no columns"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_one_line(tiny, query, body, said):
    with of(TextClassifier(tiny, CPU, "fp32"), Limits(max_rows=20)) as client:
        line = detail(client.post(f"/file{query}", content=body))
        assert line.startswith(said)
        assert "/tmp" not in line


def test_a_file_leaves_nothing_behind_and_lets_others_in_between(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with of(TextClassifier(tiny, CPU, "fp32"), Limits(batch_size=8)) as client:
        text = client.post("/file", content="\n".join(f"see you {n}" for n in range(30))).text
        counted = metrics(client)
    assert len(text.splitlines()) == 31
    batches = [counted[f"gptcls_batch_texts_{name}"] for name in ("count", "sum", "bucket 8.0", "bucket 4.0")]
    assert batches == [4, 30, 4, 0], "a piece at a time, between which others have their turn"
    assert not list(tmp_path.iterdir())


# --- the page ---


def test_the_page_needs_nothing_from_elsewhere(client):
    response = client.get("/")
    page, policy = response.text, response.headers["content-security-policy"]
    for kind in ("script", "style"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    elsewhere = r"https?://|\bsrc=|@import|innerHTML|<link(?! rel=\"icon\" href=\"data:)"
    assert not re.findall(elsewhere, page.replace("http://www.w3.org/2000/svg", ""))
    assert not re.findall(r"<[^>]* (?:style|on[a-z]+)=", page), "the policy forbids it"
    assert response.headers["cache-control"] == "no-store"


def test_every_field_of_the_page_has_its_label(client):
    page = client.get("/").text
    fields = re.findall(r"<(?:textarea|select|input)\b[^>]*\bid=\"([\w-]+)\"", page)
    assert set(fields) == {"text", "label", "texts", "file", "text-column", "separator", "encoding"}
    assert all(f'for="{name}"' in page for name in fields)
    ids = re.findall(r"\bid=\"([\w-]+)\"", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"\$\(\"([\w-]+)\"\)", page)) <= set(ids)


# --- the command ---


def test_what_cannot_be_served_is_one_line(run_main, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, said in (
            (["--port", port], f"port {port} of 127.0.0.1 is in use; choose another --port, or 0 for any"),
            (["--port", 70000], "--port 70000 is out of range; use 0 to 65535"),
            (["--host", "no..name"], "--host 'no..name' is no address or name of this machine"),
            (["--host", "192.0.2.1"], "port 8000 of 192.0.2.1 cannot be: this machine has no such address"),
            ([tmp_path / "none", "--port", 0], f"{tmp_path / 'none'} does not exist; train one"),
            (["a", "--model", "b"], "give a or --model b, not both"),
            (["--batch-size", 0], "--batch-size 0 is too small; use 1 or more"),
            (["--wait-ms", "nan"], "--wait-ms nan is not a finite number"),
            (["--max-waiting", 10], "--max-waiting 10 is less than --batch-size 64"),
            (["--abstain", 2, "--port", 0], "--abstain 2.0 is not a probability"),
        ):
            status, out, err = run_main(serve_run, *arguments)
            assert (status, out, err.count("\n")) == (2, "", 1), err
            assert err.startswith(f"error: {said}")


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra_it_says_what_to_install(run_main, monkeypatch, missing):
    for name in [name for name in sys.modules if name.startswith(("gptcls.serve.", missing))]:
        if name != "gptcls.serve.run":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    status, out, err = run_main(serve_run)
    assert (status, out, err) == (2, "", f"error: serving needs {missing}: pip install 'gptcls[serve]'\n")


def test_a_second_interrupt_ends_it_at_once():
    from uvicorn import Config

    from gptcls.serve.server import Server

    server = Server(Config(None))
    with server.capture_signals():
        signal.raise_signal(signal.SIGINT)
        assert (server.should_exit, server.force_exit, server.came) == (True, False, signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert server.force_exit
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def takes_connections(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_signal_lets_what_has_begun_finish(tmp_path):
    save_classifier(tmp_path / "run" / "classifier", tiny_saved())
    environment = os.environ | {"PYTHONPATH": str(Path(gptcls.__file__).parents[1])}
    command = [sys.executable, "-m", "gptcls.serve", "run", "--port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        url = re.fullmatch(r"run is served at (http://127.0.0.1:\d+); Ctrl-C stops it\n", line)[1]
        port = int(url.rpartition(":")[2])
        body = json.dumps({"texts": ["see you", "win a prize"]}).encode()
        begun = HTTPConnection("127.0.0.1", port, timeout=30)
        begun.putrequest("POST", "/classify")
        for name, value in (JSON | {"content-length": str(len(body))}).items():
            begun.putheader(name, value)
        begun.endheaders(body[:5])
        assert json.load(urllib.request.urlopen(f"{url}/health", timeout=30)) == {"status": "ok"}
        process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 30
        while takes_connections(port):
            assert time.monotonic() < until
        begun.send(body[5:])
        response = begun.getresponse()
        assert response.status == 200
        assert len(json.load(response)["answers"]) == 2
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (143, "terminated\n")


def test_the_benchmark_finds_answers_that_are_lost_or_exchanged():
    expected = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    check(Answers(1.0, np.ones(3), expected * 1.0001), expected, 1e-3)
    with pytest.raises(gptcls.InputError, match="2 answers differ"):
        check(Answers(1.0, np.ones(3), expected[[1, 0, 2]]), expected, 1e-3)
    with pytest.raises(gptcls.InputError, match="1 requests have no answer"):
        check(Answers(1.0, np.array([1, np.nan, 1]), expected), expected, 1e-3)
