"""One file from the Hugging Face hub, in the hub's own cache (``HF_HOME``), checked before it gets there.

A file that is in the cache is used without asking the network. What has arrived of a download that broke off
stays in ``blobs/<etag>.gptcls.incomplete`` for the next attempt: ``hf_hub_download`` throws it away (since
version 1.18, huggingface_hub pull request 4306), and on a slow line half a gigabyte would start over.
"""

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.models.weight_files import file_sha256

BUSY = (429, 503)  # too many requests, over capacity: both pass
PATIENCE = 600  # seconds that are waited for one file in all; the hub counts requests in windows of 300
Answer = TypeVar("Answer")


class NotOnHubError(InputError):
    """The hub answered: there is no such repository, revision or file, or not for you."""


def is_hub_name(name: str) -> bool:
    """Whether a repository on the hub may be called so: ``owner/name``.

    >>> is_hub_name("openai-community/gpt2"), is_hub_name("./gpt2"), is_hub_name("gpt2")
    (True, False, False)
    """
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None


def cached_file(repo: str, filename: str, revision: str = "main") -> Path | None:
    """The file if it is in the cache already; asks no network."""
    found = _in_cache(repo, filename, revision)
    return Path(found) if isinstance(found, str) else None


def _in_cache(repo: str, filename: str, revision: str) -> Any:
    """A path, None, or huggingface_hub's mark of what the hub has said that it has not."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return try_to_load_from_cache(repo, filename, revision=revision)
    except ValueError:  # no possible name of a repository: hub_file says so
        return None


def _remember_absent(error: Exception, repo: str, filename: str) -> None:
    """Leave huggingface_hub's mark of a file that a commit has not: nobody asks for it again."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    headers = getattr(response_of(error), "headers", {})
    commit = headers.get("X-Repo-Commit", "")
    if headers.get("X-Error-Code") == "EntryNotFound" and re.fullmatch("[0-9a-f]{40}", commit):
        folder = repo_folder_name(repo_id=repo, repo_type="model")
        mark = Path(constants.HF_HUB_CACHE, folder, ".no_exist", commit, filename)
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def hub_file(
    repo: str, filename: str, revision: str = "main", sha256: str | None = None, size: int | None = None,
    patient: bool = True,
) -> Path:  # fmt: skip
    """The path of ``filename`` in the hub's cache, downloaded if it is not there, or not of this ``size``.

    ``sha256``, or the hub's own word (the etag: of a large file its sha256, of a small one the hash that git
    knows it by), is checked once, after the download: a file gets its name in the cache only then. A hub that
    is busy is asked again, if ``patient``. NotOnHubError where the hub says that it has no such file.
    """
    try:
        found = _in_cache(repo, filename, revision)
        if found is not None and not isinstance(found, str):
            raise NotOnHubError(f"the hub has no {filename} of {repo} at {revision}, as it said before")
        cached = None if found is None else Path(found)
        if cached is not None and size not in (None, found := cached.stat().st_size):
            log.info(f"{cached} has {found} bytes instead of {size}: downloading it again")
            cached.resolve().unlink()
            cached.unlink(missing_ok=True)
            cached = None
        if cached is None:
            ask = partial(_download, repo, filename, revision, sha256)
            return _patiently(ask, f"{filename} of {repo}") if patient else ask()
        _check_etag(cached.resolve().name, sha256, str(cached))
        return cached
    except InputError as error:
        raise error from None
    except Exception as error:  # each generation of huggingface_hub has another HTTP client and its errors
        log.debug("download failed", exc_info=error)
        with suppress(ImportError, AttributeError, TypeError):  # of inner functions, see _download
            _remember_absent(error, repo, filename)
        raise _explain(error, repo, filename, revision) from None


def _patiently(ask: Callable[[], Answer], what: str) -> Answer:
    """``ask()``, again as long as the hub says that it is busy: after the time that it names, for up to
    :data:`PATIENCE` seconds in all, or, where it names none, after 1, 2, 4, 8 and 16. The log and a bar say
    what is waited for; then its refusal is raised."""
    waited, pause = 0.0, 1.0
    while True:
        try:
            return ask()
        except Exception as error:
            response = response_of(error)
            if getattr(response, "status_code", None) not in BUSY:
                raise
            named = _retry_after(response.headers)
            wait = pause if named is None else named
            if waited + wait > PATIENCE or (named is None and pause > 16):
                raise
        said = "as it asks" if named is not None else "since it names no time"
        log.info(f"the hub is busy (status {response.status_code}): {what} again in {wait:.0f} s, {said}")
        with tqdm(total=round(wait), desc="waiting for the hub", unit="s", leave=False, disable=None) as bar:
            for _ in range(int(wait)):
                time.sleep(1)
                bar.update()
            time.sleep(wait % 1)
        waited, pause = waited + wait, 2 * pause


def response_of(error: BaseException | None) -> Any:
    """The hub's answer behind an error of huggingface_hub, which may be the cause of another."""
    while error is not None:
        if getattr(response := getattr(error, "response", None), "status_code", None) is not None:
            return response
        error = error.__cause__
    return None


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, from the header of that name: a number of them, or a date (RFC 9110, 10.2.3).

    >>> _retry_after({"Retry-After": "20"}), _retry_after({"Retry-After": "soon"})
    (20.0, None)
    """
    value = str(headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value):
        return float(value)
    with suppress(ValueError, TypeError):
        at = parsedate_to_datetime(value)
        at = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
        return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
    return None


def _download(repo: str, filename: str, revision: str, sha256: str | None) -> Path:
    try:
        return _resumable_download(repo, filename, revision, sha256)
    except (ImportError, AttributeError, TypeError) as error:  # of inner functions, which no version promises
        _say_once(f"{type(error).__name__}: {error}")
    # What every version of huggingface_hub can do, with the same checks.
    from huggingface_hub import hf_hub_download, hf_hub_url

    url = hf_hub_url(repo, filename, revision=revision)
    path = Path(hf_hub_download(repo, filename, revision=revision))
    blob = path.resolve()
    try:
        _refuse_html(blob, url)
        _check_hash(blob, _check_etag(blob.name, sha256, url), url)
    except InputError:
        path.unlink(missing_ok=True)
        raise
    return path


@cache
def _say_once(reason: str) -> None:
    log.warning(f"with this huggingface_hub a download that breaks off starts over ({reason})")


def _resumable_download(repo: str, filename: str, revision: str, sha256: str | None) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    # What the hub says of the file, and where it belongs in the cache.
    url = hf_hub_url(repo, filename, revision=revision)
    meta = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if meta.commit_hash is None or not meta.etag or Path(meta.etag).name != meta.etag:
        raise OSError("what answers there is not a Hugging Face hub, perhaps a proxy or a login page")
    expected = _check_etag(meta.etag, sha256, url)
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE, folder, "blobs", meta.etag)
    partial = blob.with_name(f"{meta.etag}.gptcls.incomplete")
    lock = Path(constants.HF_HUB_CACHE, ".locks", folder, f"{meta.etag}.lock")  # hf_hub_download's own
    blob.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not blob.exists():
            size, have = meta.size or 0, partial.stat().st_size if partial.exists() else 0
            have = have if have <= size else 0
            needed, free = size - have, shutil.disk_usage(blob.parent).free
            if needed > free:
                raise OSError(errno.ENOSPC, f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB free")
            log.info("%s %s", "resuming the download of" if have else "downloading", url)
            # A compressed answer could not be continued at a byte of the file.
            headers = build_hf_headers(headers={"Accept-Encoding": "identity"})
            options = {"headers": headers, "expected_size": meta.size, "displayed_filename": filename}
            try:
                with partial.open("r+b" if have else "wb") as file:
                    file.seek(have)
                    http_get(url, file, resume_size=have, **options)
            finally:
                _refuse_html(partial, url)
            _check_hash(partial, expected, url)
            partial.replace(blob)
    # With the blob in place this only gives it its name in the snapshot, in whichever way the system allows.
    path = Path(hf_hub_download(repo, filename, revision=revision))
    if not path.is_symlink():
        blob.unlink(missing_ok=True)  # where there are no symbolic links, the snapshot holds a copy
    return path


def _check_etag(etag: str, sha256: str | None, what: str) -> str | None:
    """What the file must hash to. The hub's etag of a large file is its sha256: known without reading it. Of
    a small one it is git's hash of a blob, a sha1; a mirror may have etags of its own, which say nothing."""
    if not re.fullmatch("[0-9a-f]{64}", etag):
        return etag if sha256 is None and re.fullmatch("[0-9a-f]{40}", etag) else sha256
    if sha256 not in (None, etag):
        what = f"{what} has the sha256 {etag} instead of {sha256}: these are not the published weights"
        raise InputError(f"{what}; set HF_ENDPOINT to another mirror, or pass the path of a file you trust")
    return etag


def _check_hash(file: Path, expected: str | None, url: str) -> None:
    if expected is None:
        return
    kind, found = ("sha256", file_sha256(file)) if len(expected) == 64 else ("git hash", git_hash(file))
    if found != expected:
        file.unlink()
        what = f"{url} has the {kind} {found} instead of {expected}: it was deleted"
        raise InputError(f"{what}; try again, or set HF_ENDPOINT to another mirror")


def git_hash(file: Path) -> str:
    """The name that git gives a file's bytes (``git hash-object``): the sha1 of "blob", their number, a zero
    byte, and them."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _refuse_html(file: Path, url: str) -> None:
    if not file.exists():
        return
    with file.open("rb") as opened:
        start = opened.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):  # "<" may begin a safetensors file: the header's size
        file.unlink()
        what = "an HTML page instead of the file, perhaps a proxy's or a login page: it was deleted"
        raise InputError(f"{url} gives {what}; open it in a browser to see, or set HF_ENDPOINT to a mirror")


def _explain(error: Exception, repo: str, filename: str, revision: str) -> InputError:
    """What to tell somebody who asked for a file and got ``error``."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import HFValidationError

    if isinstance(error, HFValidationError):
        return InputError(f"{repo!r} is not a hub repository's name, which looks like openai-community/gpt2")
    response = response_of(error)
    status = getattr(response, "status_code", None)
    where, cached, hub = f"{filename} of {repo}", constants.HF_HUB_CACHE, constants.ENDPOINT
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        way_out = "free some, or set HF_HOME to a folder on a larger disk"
        return InputError(f"no room for {where} in {cached} ({error.strerror}): {way_out}")
    named = getattr(error, "filename", None)
    ours = (cached, constants.HF_HOME)  # where a token lies, too
    if named and any(Path(named).is_relative_to(x) or Path(x).is_relative_to(named) for x in ours):
        way_out = "set HF_HOME to a folder that can be written"
        said = f"{named} cannot be written ({error.strerror})"
        return InputError(f"there is no place for {where}: {said}; {way_out}")
    if constants.HF_HUB_OFFLINE:
        way_out = "unset HF_HUB_OFFLINE, which forbids to get it, or pass the path of a local copy"
        return InputError(f"{where} is not in {cached}: {way_out}")
    if status in (401, 403, 404):
        way_out = "check the name; what is private or gated needs HF_TOKEN"
        return NotOnHubError(f"{hub} has no {where} at {revision} for you (status {status}): {way_out}")
    if status in BUSY:
        named = _retry_after(response.headers)
        when = "later" if named is None else f"in {named:,.0f} s, as it asks"
        more = "; HF_TOKEN, of a free account, raises the limit" if status == 429 else ""
        return InputError(f"{hub} is busy (status {status}) and did not give {where}: try again {when}{more}")
    reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no answer':.200}"
    by_hand = f"download {hf_hub_url(repo, filename, revision=revision)} by hand and pass its path"
    ways = f"try again (it continues where it stopped), set HF_ENDPOINT to a mirror, or {by_hand}"
    return InputError(f"{where} could not be downloaded from {hub} ({reason}): {ways}")
