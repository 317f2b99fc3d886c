"""A hub on 127.0.0.1 that misbehaves a given number of times, in one of several ways."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
AnyHub = TypeVar("AnyHub")
LARGE = 100_000  # bytes from which a file's etag is its sha256, as of files in git LFS; else git's own hash


@dataclass
class Hub:
    """``files`` by "owner/repo/name"; the next ``times`` requests for a file whose name ends in ``which``
    meet what ``misbehave`` says: "429", "503", "truncated", "wrong", "endless" or "stalls"."""

    files: dict[str, bytes]
    misbehave: str = ""
    times: int = 10**9
    which: str = ""
    retry_after: int = 1  # seconds, with 429 and 503
    url: str = ""
    asked: list[tuple[str, str, float]] = field(default_factory=list)  # method, path, when
    stop: threading.Event = field(default_factory=threading.Event)


def etag_of(content: bytes) -> str:
    """As the hub gives it: sha256 of a large file, git's blob hash of a small one."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """What any hub of ours has of HTTP; ``_answer`` is what it does."""

    protocol_version = "HTTP/1.1"
    hub: Any

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        raise NotImplementedError

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(content), headers or {})
        if body:
            self.wfile.write(content)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing, which keeps the output clean."""


class _Misbehaving(Handler):
    def _answer(self, body: bool) -> None:
        hub = self.hub
        hub.asked.append((self.command, self.path, time.monotonic()))
        path, _, rest = self.path.strip("/").partition("/resolve/")
        content = hub.files.get(f"{path}/{rest.partition('/')[2]}")
        if content is None:
            return self._send(404, b"", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        etag = etag_of(content)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        if len(content) >= LARGE:
            headers["X-Linked-Etag"] = f'"{etag}"'
        what = hub.misbehave if self.path.endswith(hub.which) and hub.times > 0 else ""
        if what in ("truncated", "wrong", "stalls") and not body:
            what = ""
        if what:
            hub.times -= 1
        match what:
            case "429" | "503":
                return self._send(int(what), b"later", body, {"Retry-After": str(hub.retry_after)})
            case "endless":
                return self._send(302, b"", body, headers | {"Location": f"{hub.url}{self.path}"})
            case "wrong":
                return self._send(200, content[:-1] + bytes([content[-1] ^ 1]), body, headers)
            case "truncated" | "stalls":
                self._head(200, len(content), headers)
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                if what == "stalls":
                    hub.stop.wait(60)
                self.close_connection = True
                return None
        start = 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._send(206 if asked else 200, content[start:], body, headers)


@contextmanager
def served(hub: AnyHub, handler: type[Handler]) -> Iterator[AnyHub]:
    """``hub`` on a free port of 127.0.0.1, its ``url`` filled in; at the end its ``stop`` is set."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stop.set()
        server.shutdown()
        server.server_close()


def serve(files: dict[str, bytes]) -> AbstractContextManager[Hub]:
    """A running :class:`Hub`."""
    return served(Hub(files), _Misbehaving)
