"""python -m benchmarks.serve: many clients at once, against one after another.

A server in a process of its own answers requests of one text each, over HTTP/1.1 with kept connections, as
``gptcls.serve`` is started by people. Every answer is compared with what ``predict_proba`` gives to the same
text in this process: a lost, doubled or exchanged one ends the run.
"""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.over_seeds import markdown
from gptcls import TextClassifier, load_classifier
from gptcls.common import cli
from gptcls.core.errors import InputError
from gptcls.data.sources import load_data

HEADS = ["", "requests", "requests a second", "p50, ms", "p99, ms", "texts a batch"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Ask a server for the labels of single texts, by many clients at once."""

    model: str = "sms-spam-nano"
    """Classifier to serve."""
    data: str = "sms-sample"
    """Whose texts are asked for, in turn; each request has a number added, so that no two are the same."""
    clients: int = 200
    """At once."""
    requests: int = 2000
    """Of all clients together."""
    sequential: int = 400
    """Requests of one client, one after another."""
    tolerance: float = 1e-3
    """Between the logarithms of a probability and of the one that this process computes."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "fp32"
    """Number format, as of gptcls.serve; a narrow one needs a wider tolerance."""


@dataclass(frozen=True)
class Answers:
    """What one way of asking gave."""

    seconds: float  # of all
    each: np.ndarray  # (N,) seconds of each request
    probabilities: np.ndarray  # (N, K)


@contextlib.contextmanager
def served(options: Options, *more: str) -> Iterator[int]:
    """The port of a server."""
    command = [sys.executable, "-m", "gptcls.serve", options.model, "--port", "0"]
    command += ["--precision", options.precision, *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            if (found := re.search(r"http://127.0.0.1:(\d+)", line)) is None:
                raise InputError(f"the server did not start: {line.strip()}")
            yield int(found[1])
        finally:
            process.terminate()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes = b""
) -> bytes:
    """One request and the body of its answer; ConnectionError for any status but 200."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    answer = await reader.readexactly(int(re.search(r"content-length: (\d+)", head)[1]))
    if not head.startswith("http/1.1 200"):
        raise ConnectionError(f"{head.splitlines()[0]}: {answer[:200]!r}")
    return answer


async def ask(port: int, texts: Sequence[str], clients: int) -> Answers:
    """Each text in a request of its own, by so many clients that each ask the next when they have an
    answer."""
    left, seconds, rows = iter(range(len(texts))), np.full(len(texts), np.nan), [None] * len(texts)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in left:
            start = time.perf_counter()
            body = json.dumps({"texts": [texts[n]]}).encode()
            found = json.loads(await exchange(reader, writer, "POST", "/classify", body))
            seconds[n], (rows[n],) = time.perf_counter() - start, found["probabilities"]
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Answers(time.perf_counter() - start, seconds, np.array(rows, dtype=float))


async def per_batch(port: int) -> float:
    """Texts of a batch so far, as the server counts them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = (await exchange(reader, writer, "GET", "/metrics")).decode()
    writer.close()
    total, count = (float(re.search(rf"gptcls_batch_texts_{x} (\S+)", said)[1]) for x in ("sum", "count"))
    return total / count


def in_process(classifier: TextClassifier, texts: Sequence[str]) -> Answers:
    """Texts one after another, without a server."""
    start, seconds, rows = time.perf_counter(), [], []
    for text in texts:
        began = time.perf_counter()
        rows.append(classifier.predict_proba(text))
        seconds.append(time.perf_counter() - began)
    return Answers(time.perf_counter() - start, np.array(seconds), np.array(rows))


def row(what: str, found: Answers, batch: float) -> list[str]:
    p50, p99 = np.percentile(1000 * found.each, [50, 99])
    n = len(found.each)
    return [what, f"{n:,}", f"{n / found.seconds:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{batch:.1f}"]


def run(options: Options) -> list[list[str]]:
    """Print the table and return its rows; InputError where an answer is not the one to its own text."""
    classifier = load_classifier(options.model, precision=options.precision)
    given = list(load_data(options.data)["text"])
    texts = [f"{given[n % len(given)]} {n}" for n in range(options.requests)]
    few = texts[: options.sequential]
    expected = classifier.predict_proba(texts)
    different = len(np.unique(np.log(expected).round(3), axis=0))
    print(f"{len(texts):,} texts have {different:,} different log-probabilities", flush=True)
    rows, kept = [], {}
    for what, size, asked, clients in (
        ("one client, one after another", "64", few, 1),
        (f"{options.clients} clients at once, a text a batch", "1", texts, options.clients),
        (f"{options.clients} clients at once", "64", texts, options.clients),
    ):
        with served(options, "--batch-size", size) as port:
            asyncio.run(ask(port, few[:20], 4))  # warm
            kept[what] = asyncio.run(ask(port, asked, clients))
            batch = asyncio.run(per_batch(port))
        check(kept[what], expected[: len(asked)], options.tolerance)
        rows.append(row(what, kept[what], batch))
    rows.insert(0, row("predict_proba in a loop, no server", in_process(classifier, few), 1))
    print(markdown([HEADS, *rows]))
    return rows


def check(found: Answers, expected: np.ndarray, tolerance: float) -> None:
    """InputError unless there is an answer to every request, and it is that to its own text."""
    if lost := int(np.isnan(found.each).sum()):
        raise InputError(f"{lost} requests have no answer")
    apart = abs(np.log(found.probabilities) - np.log(expected)).max(axis=1)
    if wrong := int((apart > tolerance).sum()):
        raise InputError(f"{wrong} answers differ, their log-probabilities by up to {apart.max():.2g}")
    print(f"{len(apart):,} answers are those to their own texts, log-probabilities within {apart.max():.1g}")


def main() -> None:
    """The command line."""
    cli.run(Options, run)


if __name__ == "__main__":
    main()
