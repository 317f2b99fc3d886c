"""The application: a page to try a classifier, and the endpoints that it and programs use.

=====================  =================================================================================
``GET /``              the page
``GET /classifier``    labels, what is read of a text, the limits
``POST /classify``     ``{"texts": […]}`` -> answers and probabilities
``POST /explain``      ``{"text": …}`` -> what each word or token adds
``POST /file``         the bytes of a file -> a CSV file with labels
``GET /health``        whether it answers
``GET /metrics``       for Prometheus
=====================  =================================================================================

Errors are ``{"detail": "one line"}``. No text is logged or kept.
"""

import asyncio
import base64
import hashlib
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from gptcls.classify.answers import answers_of
from gptcls.classify.attribution import asked_labels
from gptcls.classify.explanation import Explanation
from gptcls.classify.predict import TextClassifier
from gptcls.classify.store import SavedClassifier
from gptcls.core.errors import InputError
from gptcls.data.clean import CLEANERS
from gptcls.data.columns import is_blank
from gptcls.data.fields import column_names, join_fields, without_boundary
from gptcls.data.long_texts import describe_cut
from gptcls.data.options import TableOptions
from gptcls.serve.batching import Batcher, BusyError
from gptcls.serve.guard import Guard, refused
from gptcls.serve.limits import Limits
from gptcls.serve.metrics import Metrics
from gptcls.serve.tables import StoppedError, label_file

Scored = tuple[np.ndarray, bool]  # a text's outputs (K,), and whether it is longer than what is read
Done = TypeVar("Done")
CLIENT_GONE = 499  # nginx's; nobody receives it, the metrics count it
EXPLANATIONS_WAITING = 16


class Texts(BaseModel):
    texts: list[str | list[str]] = Field(description="a text, or the texts that are read together")


class Answers(BaseModel):
    """In the order of the texts; a blank text has the answer None."""

    labels: tuple[str, ...]
    answers: list[str | list[str] | float | list[float] | None]
    probabilities: list[list[float] | None] | None = Field(description="null where numbers are predicted")
    note: str | None = Field(description="which texts were not read as a whole, if any")


class Question(BaseModel):
    text: str | list[str]
    labels: list[str] | None = None
    by: Literal["word", "token"] = "word"


def create_app(
    classifier: TextClassifier, name: str = "classifier", limits: Limits | None = None,
    names: Sequence[str] = (),
) -> FastAPI:  # fmt: skip
    """An application that answers for ``classifier``, in ASGI, as uvicorn and others serve it.

    ``name`` is what the page calls it. ``names`` are host names by which others reach it, besides addresses
    and localhost.
    """
    limits, saved = limits or Limits(), classifier.saved
    has_probabilities = saved.task.has_probabilities

    def score(texts: list[str]) -> list[Scored]:
        with metrics.batch(len(texts)):
            outputs, n_longer = classifier.scored(texts)
            longer = _longer(classifier, texts) if n_longer else [False] * len(texts)
        metrics.longer.inc(n_longer)
        return list(zip(outputs, longer, strict=True))

    def explain(questions: list[Question]) -> list[Explanation | None]:
        metrics.explanations.inc(len(questions))
        return [classifier.explained([each.text], labels=each.labels, by=each.by)[0] for each in questions]

    batches = Batcher(score, limits.batch_size, limits.wait_ms / 1000, limits.max_waiting)
    # A thread of their own: a long text that is explained must not hold up the others.
    explanations = Batcher(explain, most=1, room=EXPLANATIONS_WAITING)
    metrics = Metrics(lambda: batches.waiting)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        with explanations, batches:
            yield

    # No /docs: its page is loaded from elsewhere.
    app = FastAPI(title=f"gptcls: {name}", lifespan=running, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, names=names, max_bytes=limits.max_bytes, metrics=metrics)
    html, policy = page()

    @app.get("/", response_class=HTMLResponse)
    def index() -> HTMLResponse:
        return HTMLResponse(html, headers={"content-security-policy": policy})

    @app.get("/classifier")
    def about() -> dict:
        columns = answers_of(saved.task, saved.decision)
        return {
            "name": name,
            "kind": saved.task.kind,
            "labels": classifier.labels,
            "fields": saved.text_columns if saved.fields > 1 else column_names(1),
            "max_length": saved.max_length,
            "long": saved.long,
            "abstain": saved.decision.abstain if has_probabilities else None,
            "columns": [*columns.columns, *columns.details],
            "limits": asdict(limits),
        }

    @app.post("/classify")
    async def classify(asked: Texts, request: Request) -> Answers:
        texts = [_row(saved, text) for text in asked.texts]
        limits.check(texts)
        scored: list[Scored] = []
        for start in range(0, len(texts), limits.batch_size):
            piece = batches.submit(texts[start : start + limits.batch_size])
            scored += await _or_gone(asyncio.wrap_future(piece), request)
        outputs = np.array([row for row, _ in scored], dtype=np.float32).reshape(-1, len(classifier.labels))
        n_longer = sum(longer for _, longer in scored)
        return Answers(
            labels=classifier.labels,
            answers=classifier.answers(outputs),
            probabilities=list(map(_numbers, outputs)) if has_probabilities else None,
            note=describe_cut(n_longer, saved.max_length, saved.long) if n_longer else None,
        )

    @app.post("/explain")
    async def explain_one(asked: Question, request: Request) -> dict:
        asked.text = _row(saved, asked.text)
        limits.check_explained(asked.text)
        asked_labels(saved.task, asked.labels)
        (found,) = await _or_gone(asyncio.wrap_future(explanations.submit([asked])), request)
        if found is None:
            raise InputError("the text is blank: there is nothing to explain")
        return _in_json(found)

    @app.post("/file", response_class=Response)
    async def file(
        request: Request, name: str = "texts.txt", text_column: Annotated[list[str], Query()] = [],  # noqa: B006
        separator: str | None = None, encoding: str | None = None,
        columns: Annotated[list[str], Query()] = [],  # noqa: B006
    ) -> Response:  # fmt: skip
        body, gone = await request.body(), threading.Event()
        table = TableOptions(
            text_column=tuple(text_column), separator=separator or None, encoding=encoding or None,
            columns=tuple(columns),
        )  # fmt: skip
        queued = Queued(classifier, batches, gone)
        work = run_in_threadpool(label_file, queued, body, name, table, limits.max_rows)
        try:
            csv, names = await _or_gone(work, request)
        finally:
            gone.set()
        headers = {
            "content-disposition": 'attachment; filename="labelled.csv"',
            "x-text-columns": ", ".join(map(quote, names)),
        }
        return Response(csv, media_type="text/csv; charset=utf-8", headers=headers)

    @app.get("/health")
    def health() -> JSONResponse:
        if batches.alive and explanations.alive:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not answering"}, 503)

    @app.get("/metrics")
    def exposition() -> Response:
        return Response(metrics.exposition(), media_type=metrics.content_type)

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return refused(503, str(error), headers={"retry-after": "1"})

    @app.exception_handler(InputError)
    async def unusable(_: Request, error: InputError) -> JSONResponse:
        return refused(422, _as_parameters(str(error)))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        named = (str(part) for part in first["loc"][1:])  # also which of the two types a text was tried as
        kind, where = first["type"], ".".join(part for part in named if part not in ("str", "list[str]"))
        if kind == "json_invalid" or not where:
            said = "the body must be a JSON object, sent with the header Content-Type: application/json"
            return refused(422, said)
        return refused(422, f"{where}: {first['msg']}")

    return app


class Queued(TextClassifier):
    """A classifier whose texts wait for their turn with those of all others, a batch at a time."""

    def __init__(self, classifier: TextClassifier, batches: Batcher, gone: threading.Event) -> None:
        self.__dict__ = vars(classifier) | {"batches": batches, "gone": gone}

    def scored(self, texts: Sequence[str | None], max_length: int | None = None) -> tuple[np.ndarray, int]:
        """As :meth:`TextClassifier.scored`; StoppedError once nobody waits for it any more."""
        texts = [text and self.saved.as_read(text) for text in texts]  # or it would be refused with others
        found: list[Scored] = []
        for start in range(0, len(texts), self.batches.most):
            if self.gone.is_set():
                raise StoppedError
            found += self.batches.submit(texts[start : start + self.batches.most]).result()
        outputs = np.array([row for row, _ in found], dtype=np.float32).reshape(-1, len(self.labels))
        return outputs, sum(longer for _, longer in found)


def _row(saved: SavedClassifier, given: str | list[str]) -> str:
    """A row that was sent, as a classifier takes it: blank, or of the right number of texts."""
    if isinstance(given, str):
        row = without_boundary(given)
    elif saved.fields == 1:
        raise InputError("this classifier reads one text at once: give strings, not lists of them")
    else:
        row = join_fields(given) or ""
    return row if is_blank(row) else saved.as_read(row)


async def _or_gone(work: Awaitable[Done], request: Request) -> Done:
    """What ``work`` gives; where its client leaves, it is cancelled if it has not begun."""
    task = asyncio.ensure_future(work)
    while not (await asyncio.wait([task], timeout=0.5))[0]:
        if await request.is_disconnected():
            task.cancel()
            raise HTTPException(CLIENT_GONE, "the client has gone")
    return task.result()


def _longer(classifier: TextClassifier, texts: Sequence[str | None]) -> list[bool]:
    """Which texts have more tokens than are read."""
    saved = classifier.saved
    cleaned = ["" if is_blank(text) else CLEANERS[saved.cleaning](saved.as_read(text)) for text in texts]
    return [len(ids) > saved.max_length for ids in saved.tokenizer.encode_rows(cleaned, saved.max_length + 1)]


def _numbers(row: np.ndarray) -> list[float] | None:
    """Outputs (K,) to float32's seven digits; None of a blank text."""
    return None if np.isnan(row).any() else [float(f"{value:.7g}") for value in row]


def _in_json(found: Explanation) -> dict:
    """An explanation of the labels shown, for a page to draw."""
    labels, shown = found.task.labels, found.shown

    def of_labels(values: np.ndarray) -> dict[str, float | None]:
        return {labels[k]: None if np.isnan(values[k]) else round(float(values[k]), 6) for k in shown}

    pieces = zip(found.pieces, found.attributions, found.without, strict=True)
    return {
        "answer": found.answer,
        "by": found.by,
        "unit": "log-odds" if found.task.has_probabilities else "number",
        "outputs": of_labels(found.outputs),
        "scores": of_labels(found.scores),
        "pieces": [
            {"piece": piece, "adds": of_labels(adds), "without": without, "turns": found.turns(n)}
            for n, (piece, adds, without) in enumerate(pieces)
        ],
    }


def _as_parameters(line: str) -> str:
    """A message of the command line in the words of a request: ``--text-column`` is ``text_column`` here."""
    names = "text-column|separator|encoding|columns|label"
    return re.sub(rf"--({names})\b", lambda found: found[1].replace("-", "_"), line)


def page() -> tuple[str, str]:
    """The page, and the policy that lets it run its own script and style and nothing else, ask this server
    and nobody else, and stand in no other page (https://www.w3.org/TR/CSP3/)."""
    html = (files("gptcls") / "serve" / "page.html").read_text(encoding="utf-8")
    allowed = {}
    for kind in ("script", "style"):
        inside = re.search(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)[1]
        allowed[kind] = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    hashes = " ".join(f"{kind}-src 'sha256-{value}';" for kind, value in allowed.items())
    rest = "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return html, f"default-src 'none'; {hashes} {rest}"
