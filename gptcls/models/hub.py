"""One file from the Hugging Face hub, in the hub's own cache (``HF_HOME``), checked before it gets there.

A file that is in the cache is used without asking the network. What has arrived of a download that broke off
stays in ``blobs/<etag>.gptcls.incomplete`` for the next attempt: ``hf_hub_download`` throws it away (since
version 1.18, huggingface_hub pull request 4306), and on a slow line half a gigabyte would start over.
"""

import errno
import re
import shutil
from functools import cache
from pathlib import Path

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.models.weight_files import file_sha256


class NotOnHubError(InputError):
    """The hub answered: there is no such repository, revision or file, or not for you."""


def cached_file(repo: str, filename: str, revision: str = "main") -> Path | None:
    """The file if it is in the cache already; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(repo, filename, revision=revision)
    except ValueError:  # no possible name of a repository: hub_file says so
        return None
    return Path(found) if isinstance(found, str) else None


def hub_file(
    repo: str, filename: str, revision: str = "main", sha256: str | None = None, size: int | None = None
) -> Path:
    """The path of ``filename`` in the hub's cache, downloaded if it is not there, or not of this ``size``.

    ``sha256``, or the hub's own word (the etag of a large file), is checked once, after the download: a file
    gets its name in the cache only then. NotOnHubError where the hub says that it has no such file.
    """
    try:
        cached = cached_file(repo, filename, revision)
        if cached is not None and size not in (None, found := cached.stat().st_size):
            log.info(f"{cached} has {found} bytes instead of {size}: downloading it again")
            cached.resolve().unlink()
            cached.unlink(missing_ok=True)
            cached = None
        if cached is None:
            return _download(repo, filename, revision, sha256)
        _check_etag(cached.resolve().name, sha256, str(cached))
        return cached
    except InputError as error:
        raise error from None
    except Exception as error:  # each generation of huggingface_hub has another HTTP client and its errors
        log.debug("download failed", exc_info=error)
        raise _explain(error, repo, filename, revision) from None


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
        _check_sha256(blob, _check_etag(blob.name, sha256, url), url)
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
    sha256 = _check_etag(meta.etag, sha256, url)
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
            _check_sha256(partial, sha256, url)
            partial.replace(blob)
    # With the blob in place this only gives it its name in the snapshot, in whichever way the system allows.
    path = Path(hf_hub_download(repo, filename, revision=revision))
    if not path.is_symlink():
        blob.unlink(missing_ok=True)  # where there are no symbolic links, the snapshot holds a copy
    return path


def _check_etag(etag: str, sha256: str | None, what: str) -> str | None:
    """What the file must hash to. The hub's etag of a large file is its sha256: known without reading it."""
    if not re.fullmatch("[0-9a-f]{64}", etag):
        return sha256
    if sha256 not in (None, etag):
        what = f"{what} has the sha256 {etag} instead of {sha256}: these are not the published weights"
        raise InputError(f"{what}; set HF_ENDPOINT to another mirror, or pass the path of a file you trust")
    return etag


def _check_sha256(file: Path, sha256: str | None, url: str) -> None:
    if sha256 is not None and (found := file_sha256(file)) != sha256:
        file.unlink()
        what = f"{url} has the sha256 {found} instead of {sha256}: it was deleted"
        raise InputError(f"{what}; try again, or set HF_ENDPOINT to another mirror")


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
    status = getattr(getattr(error, "response", None), "status_code", None)
    where, cached, hub = f"{filename} of {repo}", constants.HF_HUB_CACHE, constants.ENDPOINT
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        way_out = "free some, or set HF_HOME to a folder on a larger disk"
        return InputError(f"no room for {where} in {cached} ({error.strerror}): {way_out}")
    if constants.HF_HUB_OFFLINE:
        way_out = "unset HF_HUB_OFFLINE, which forbids to get it, or pass the path of a local copy"
        return InputError(f"{where} is not in {cached}: {way_out}")
    if status in (401, 403, 404):
        way_out = "check the name; what is private or gated needs HF_TOKEN"
        return NotOnHubError(f"{hub} has no {where} at {revision} for you (status {status}): {way_out}")
    reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no answer':.200}"
    by_hand = f"download {hf_hub_url(repo, filename, revision=revision)} by hand and pass its path"
    ways = f"try again (it continues where it stopped), set HF_ENDPOINT to a mirror, or {by_hand}"
    return InputError(f"{where} could not be downloaded from {hub} ({reason}): {ways}")
