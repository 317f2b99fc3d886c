"""Who may ask a server, and how much at once: what every request passes before the application sees it.

A server on 127.0.0.1 is not out of reach: every page that a browser has open can send it requests. A page of
another site could give its own name the address 127.0.0.1 and then read the answers (DNS rebinding): so the
``Host`` header must be an address, ``localhost`` or a name that the server was given, which such a page's
name is not. Without that trick it could still have work done: so what has an ``Origin`` must have ours. No
header allows other sites anything (CORS).
"""

import ipaddress
import time
from collections.abc import Iterable
from contextlib import suppress
from traceback import extract_tb
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptcls.common.log import log
from gptcls.serve.metrics import Metrics

HEADERS = {
    "cache-control": "no-store",  # texts are nobody else's
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """ASGI middleware: refuses strangers and what is too large in one line, times and counts the rest, and
    turns an exception into status 500 without a word of the text in the log."""

    def __init__(self, app: ASGIApp, names: Iterable[str], max_bytes: int, metrics: Metrics) -> None:
        self.app, self.max_bytes, self.metrics = app, max_bytes, metrics
        self.names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, headers = message["status"], MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if (refusal := self._refusal(Headers(scope=scope))) is not None:
                await refused(*refusal)(scope, receive, answer)
            else:
                await self.app(scope, self._counted(receive), answer)
        except Exception as error:  # whose message may quote the text
            where = extract_tb(error.__traceback__)[-1]
            log.error(f"{scope['path']}: {type(error).__name__} in {where.filename}, line {where.lineno}")
            if status == 500:  # nothing was answered yet
                await refused(500, "an error of the server's, which its log names")(scope, receive, answer)
        finally:
            # What no route has shares one name: whoever tries paths must not fill the memory.
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

    def _refusal(self, headers: Headers) -> tuple[int, str] | None:
        """The status and the line for a request that goes no further."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.knows(host):
            way_out = "ask it by its address, or start it with --names"
            return 400, f"this server is not known as {host!r:.200}; {way_out}"
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, f"pages of {origin!r:.200} may not use this server"
        with suppress(ValueError):
            if int(headers.get("content-length", "0")) > self.max_bytes:
                return 413, self._too_large
        return None

    def knows(self, host: str) -> bool:
        """Whether a ``Host`` header names this server: by any address, or by one of its names.

        >>> guard = Guard(None, ["tower"], 1, None)
        >>> [guard.knows(host) for host in ("127.0.0.1:80", "[::1]:80", "Tower", "localhost", "evil.example")]
        [True, True, True, True, False]
        """
        bare = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        with suppress(ValueError):
            ipaddress.ip_address(bare.removeprefix("[").removesuffix("]"))
            return True
        return bare.lower() in self.names

    def _counted(self, receive: Receive) -> Receive:
        """The body as it comes, as long as it is within the limit: its length may not have been said."""
        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self.max_bytes:
                raise HTTPException(413, self._too_large)
            return message

        return counted

    @property
    def _too_large(self) -> str:
        return f"a request may have {self.max_bytes:,} bytes (--max-bytes); send it in parts"


def refused(status: int, line: str, **more: Any) -> JSONResponse:
    """An error as FastAPI writes them: ``{"detail": "one line"}``."""
    return JSONResponse({"detail": line}, status, **more)
