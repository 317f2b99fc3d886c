"""uvicorn, which obeys the signals that the rest of gptcls does, and the socket that it listens on."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from gptcls.common import signals
from gptcls.core.errors import InputError

GRACE = 8  # seconds for requests that have begun: Docker kills 10 s after it has sent SIGTERM
WAYS_OUT = {
    errno.EADDRINUSE: "is in use; choose another --port, or 0 for any that is free",
    errno.EACCES: "is reserved for the system; choose a --port from 1024 on",
    errno.EADDRNOTAVAIL: "cannot be: this machine has no such address; choose another --host",
}


def listening(host: str, port: int) -> socket.socket:
    """A socket bound to an address; InputError where it cannot be had. Port 0 takes a free one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: a name with an empty part
        raise InputError(f"--host {host!r} is no address or name of this machine ({error})") from None
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart would wait for a minute
        sock.bind(address)
    except OSError as error:
        sock.close()
        what = WAYS_OUT.get(error.errno, f"cannot be listened on ({error.strerror})")
        raise InputError(f"port {port} of {host} {what}") from None
    return sock


class Server(uvicorn.Server):
    """Lets what has begun finish when a signal comes, and ends at once at a second Ctrl-C."""

    came: int | None = None  # the signal

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = signals.install(self._stop)
        try:
            yield
        finally:
            signals.restore(previous)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.force_exit = self.came is not None
        self.should_exit, self.came = True, self.came or signum


def run_server(app: ASGIApp, sock: socket.socket) -> None:
    """Answer requests until a signal comes, which then raises :class:`gptcls.common.signals.Interrupted`.

    No line is logged for a request: paths may hold the names of files and columns.
    """
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=GRACE,
    )  # fmt: skip
    server = Server(config)
    server.run(sockets=[sock])
    if server.came is not None:
        raise signals.Interrupted(server.came)
