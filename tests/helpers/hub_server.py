"""A Hugging Face hub on 127.0.0.1, good or broken in one of several ways.

It answers HEAD and GET on ``/{owner}/{repo}/resolve/{revision}/{file}`` as the hub does: ``X-Repo-Commit``,
``X-Linked-Etag`` (sha256), ``X-Linked-Size``, ``Range``; in the mode "redirects" the bytes come from another
host, as those of large files do.

And it takes what ``HfApi.create_repo`` and ``upload_folder`` send without Xet: ``/api/repos/create``,
``/api/validate-yaml``, ``/api/models/{repo}/preupload``, Git LFS's batches and ``/api/models/{repo}/commit``.
What was committed can then be had. ``refuse`` names parts of paths that answer with a status instead.
"""

import base64
import hashlib
import json
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.fault_hub import COMMIT, Handler, served

PAGE = b"<!DOCTYPE html><html><body>Please sign in to this network.</body></html>"


@dataclass
class Hub:
    """What the server has and how it behaves; ``requests`` lists what it was asked for."""

    files: dict[str, bytes]  # "owner/repo/file" -> content
    mode: str = "good"
    refusals: int = 0  # how many answers say that it is busy, before the mode counts
    status: int = 429  # of these
    retry_after: str | None = None  # the header that goes with them
    git_hashes: bool = False  # whether small files have git's hashes as etags, as the hub's have
    keep: int = 0  # how many bytes arrive in the modes that break off
    token: str = ""  # without which nothing is taken
    refuse: dict[str, int] = field(default_factory=dict)  # part of a path -> status
    private: dict[str, bool] = field(default_factory=dict)  # of the repositories that were made
    large: dict[str, bytes] = field(default_factory=dict)  # sha256 -> content, sent and not yet committed
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    stop: threading.Event = field(default_factory=threading.Event)

    def asked(self, method: str) -> list[tuple[str, str | None]]:
        """File name and Range of the requests with this method."""
        return [(path.split("/")[-1], asked) for used, path, asked in self.requests if used == method]


class _Hubs(Handler):
    hub: Hub

    def do_POST(self) -> None:  # noqa: N802
        self._take()

    def do_PUT(self) -> None:  # noqa: N802
        self._take()

    def _take(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        content = self.rfile.read(int(self.headers["Content-Length"]))
        hub.requests.append((self.command, path, None))
        status = next((status for part, status in hub.refuse.items() if part in path), 200)
        if self.command == "POST" and self.headers.get("Authorization") != f"Bearer {hub.token}":
            status = 401
        if status != 200:
            return self._send(status, b'{"error": "no"}', True, {"Content-Type": "application/json"})
        answer = json.dumps(self._taken(path, content)).encode()
        return self._send(200, answer, True, {"Content-Type": "application/json"})

    def _taken(self, path: str, content: bytes) -> dict[str, Any]:
        """What the hub answers to a part of an upload."""
        hub = self.hub
        if path.startswith("/large/"):
            digest = path.rpartition("/")[2]
            assert hashlib.sha256(content).hexdigest() == digest
            hub.large[digest] = content
            return {}
        if path.endswith("/commit/main"):
            repo = path.removeprefix("/api/models/").removesuffix("/commit/main")
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[f"{repo}/{value['path']}"] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[f"{repo}/{value['path']}"] = hub.large[value["oid"]]
            return {"commitUrl": f"{hub.url}/{repo}/commit/{COMMIT}", "commitOid": COMMIT}
        asked = json.loads(content)
        if path == "/api/repos/create":
            repo = f"{asked['organization']}/{asked['name']}"
            hub.private.setdefault(repo, asked.get("visibility") == "private" or bool(asked.get("private")))
            return {"url": f"{hub.url}/{repo}"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            kinds = {True: "lfs", False: "regular"}
            return {"files": [
                {"path": x["path"], "uploadMode": kinds[x["path"].endswith(".safetensors")],
                 "shouldIgnore": False} for x in asked["files"]
            ]}  # fmt: skip
        assert path.endswith("/info/lfs/objects/batch"), path
        return {"transfer": "basic", "objects": [
            {**each, "actions": {"upload": {"href": f"{hub.url}/large/{each['oid']}"}}}
            for each in asked["objects"]
        ]}  # fmt: skip

    def _answer(self, body: bool) -> None:
        hub, mode = self.hub, self.hub.mode
        if "/resolve/" not in self.path:  # huggingface_hub looks for other things by the way
            return self._send(404, b"", body)
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        owner, repo, _, _, *rest = self.path.strip("/").split("/")
        content = hub.files.get(f"{owner}/{repo}/{'/'.join(rest)}")
        if hub.refusals and (body or hub.mode != "busy on get"):
            hub.refusals -= 1
            named = {} if hub.retry_after is None else {"Retry-After": hub.retry_after}
            return self._send(hub.status, b"", body, named)
        if mode == "busy":
            return self._send(503, b"over capacity", body)
        if mode == "html" or (mode == "html on get" and body):
            return self._send(200, PAGE, body, {"Content-Type": "text/html"})
        if mode == "stalls on head":
            hub.stop.wait(30)
            return None
        if content is None or mode == "404":
            code = "RepoNotFound" if mode == "404" else "EntryNotFound"
            return self._send(404, b"", body, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
        digest = hashlib.sha256(content).hexdigest()
        if hub.git_hashes and len(content) < 10_000:
            digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if not body and mode != "redirects":
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            return self._send(200, content, body, headers)
        if mode == "redirects" and not self.headers["Host"].startswith("localhost"):
            elsewhere = hub.url.replace("127.0.0.1", "localhost") + self.path
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            return self._send(302, b"", body, {"X-Repo-Commit": COMMIT, "Location": elsewhere, **linked})
        if mode == "wrong bytes":
            content = bytes(byte ^ 1 for byte in content)
        start = 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if mode == "truncated":  # it claims that this was all
            headers.pop("Content-Range", None)
            return self._send(200, content[: hub.keep], body, headers)
        part = content[start:]
        if mode in ("dies", "dies once", "stalls"):
            return self._break_off(206 if asked else 200, part, headers)
        return self._send(206 if asked else 200, part, body, headers)

    def _break_off(self, status: int, part: bytes, headers: dict[str, str]) -> None:
        """Announce everything, send ``keep`` bytes, then hang up or say no more."""
        hub = self.hub
        sent, hub.keep = part[: hub.keep], 0
        self._head(status, len(part), headers)
        self.wfile.write(sent)
        self.wfile.flush()
        if hub.mode == "stalls":
            hub.stop.wait(30)
        if hub.mode == "dies once":
            hub.mode = "good"
        self.close_connection = True


def serve(files: dict[str, bytes]) -> AbstractContextManager[Hub]:
    """A running :class:`Hub`."""
    return served(Hub(files), _Hubs)
