"""One file from the Hugging Face hub, in the hub's own cache, checked before it gets there.

The cache is the one that ``transformers`` uses (``HF_HOME``), the endpoint may be a mirror (``HF_ENDPOINT``),
and a file that is in the cache is used without asking the network. What has arrived of a download that broke
off stays in ``blobs/<etag>.gptcls.incomplete`` for the next attempt: ``hf_hub_download`` throws it away
(since version 1.18, huggingface_hub pull request 4306), and on a slow line half a gigabyte would start over.
"""

import errno
import hashlib
import logging
import re
import shutil
from pathlib import Path

from gptcls.core.errors import InputError

log = logging.getLogger("gptcls")


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
    """The path of ``filename`` in the hub's cache, downloaded if it is not there.

    Args:
        repo: ``owner/name``.
        revision: commit hash, branch or tag.
        sha256: what the content must hash to; without it, the hub's own word (the etag of a large file).
            Checked once, after the download: a file gets its name in the cache only then.
        size: in bytes; a cached file of another size is broken and is downloaded again.

    Raises:
        NotOnHubError: the hub says that it has no such file.
        InputError: anything else that went wrong.
    """
    try:
        cached = cached_file(repo, filename, revision)
        if cached is not None and size is not None and cached.stat().st_size != size:
            found = cached.stat().st_size
            log.info("%s has %d bytes instead of %d: downloading it again", cached, found, size)
            cached.resolve().unlink()
            cached.unlink(missing_ok=True)
            cached = None
        if cached is not None:
            _check_etag(cached.resolve().name, sha256, str(cached))
        return cached or _download(repo, filename, revision, sha256)
    except InputError as error:
        raise error from None
    except Exception as error:  # each generation of huggingface_hub has another HTTP client and its errors
        log.debug("download failed", exc_info=error)
        raise _explain(error, repo, filename, revision) from None


def _download(repo: str, filename: str, revision: str, sha256: str | None) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(repo, filename, revision=revision)
    meta = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    if meta.commit_hash is None or not meta.etag or Path(meta.etag).name != meta.etag:
        raise OSError("what answers there is no Hugging Face hub, perhaps a proxy or a login page")
    sha256 = _check_etag(meta.etag, sha256, url)
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blob = Path(constants.HF_HUB_CACHE, folder, "blobs", meta.etag)
    partial = blob.with_name(f"{meta.etag}.gptcls.incomplete")
    lock = Path(constants.HF_HUB_CACHE, ".locks", folder, f"{meta.etag}.lock")  # hf_hub_download's own
    blob.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not blob.exists():
            have = partial.stat().st_size if partial.exists() else 0
            if meta.size is None or have > meta.size:
                have = 0
            _check_space(blob.parent, (meta.size or 0) - have)
            log.info("%s %s", "resuming the download of" if have else "downloading", url)
            # A compressed answer could not be continued at a byte of the file.
            headers = build_hf_headers(headers={"Accept-Encoding": "identity"})
            try:
                with partial.open("r+b" if have else "wb") as file:
                    file.seek(have)
                    http_get(
                        url,
                        file,
                        resume_size=have,
                        headers=headers,
                        expected_size=meta.size,
                        displayed_filename=filename,
                    )
            finally:
                _refuse_html(partial, url)
            found = file_sha256(partial)
            if sha256 is not None and found != sha256:
                partial.unlink()
                raise InputError(
                    f"{url} has the sha256 {found} instead of {sha256}: it was deleted; try again, or set "
                    "HF_ENDPOINT to another mirror"
                )
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
        raise InputError(
            f"{what} has the sha256 {etag} instead of {sha256}: these are not the published weights; "
            "set HF_ENDPOINT to another mirror, or pass the path of a file you trust"
        )
    return etag


def file_sha256(*paths: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal; of several files, of their bytes one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _refuse_html(partial: Path, url: str) -> None:
    if not partial.exists():
        return
    with partial.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith(
        (b"<!doctype", b"<html")
    ):  # "<" alone may begin a safetensors file: the header's size
        partial.unlink()
        raise InputError(
            f"{url} gives an HTML page instead of the file, perhaps a proxy's or a login page: it was "
            "deleted; open that address in a browser to see it, or set HF_ENDPOINT to a mirror"
        )


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB free")


def _explain(error: Exception, repo: str, filename: str, revision: str) -> InputError:
    """What to tell somebody who asked for a file and got ``error``."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import HFValidationError

    if isinstance(error, HFValidationError):
        return InputError(f"{repo!r} is no name of a hub repository; those look like openai-community/gpt2")
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = " ".join(str(error).split()) or "no answer"
    reason = f"{type(error).__name__}: {reason if len(reason) < 200 else reason[:200] + '…'}"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"no room for {filename} of {repo} in {constants.HF_HUB_CACHE} ({error.strerror}): "
            "free some, or set HF_HOME to a folder on a larger disk"
        )
    if constants.HF_HUB_OFFLINE:
        return InputError(
            f"{filename} of {repo} is not in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE forbids to get it: "
            "unset HF_HUB_OFFLINE, or pass the path of a local copy"
        )
    if status in (401, 403, 404):
        return NotOnHubError(
            f"{constants.ENDPOINT} has no {filename} in {repo} at {revision} for you (status {status}): "
            "check the name; what is private or gated needs HF_TOKEN"
        )
    url = hf_hub_url(repo, filename, revision=revision)
    return InputError(
        f"{filename} of {repo} could not be downloaded from {constants.ENDPOINT} ({reason}): try again (it "
        f"continues where it stopped), set HF_ENDPOINT to a mirror, or download {url} by hand and pass its "
        "path"
    )
