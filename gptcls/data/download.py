"""The SMS Spam Collection: downloaded once, checked, and never left as a broken file."""

import hashlib
import io
import os
import time
import zipfile
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from tqdm import tqdm

from gptcls.common.files import atomic_file
from gptcls.common.log import log
from gptcls.core.errors import InputError

# UCI data set 228 (Almeida and Hidalgo 2011, doi 10.24432/C5CC84), then the mirror that the book uses.
SMS_URLS = (
    "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
    "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
)
ZIP_NAME = "sms+spam+collection.zip"
ZIP_BYTES = 203_415
ZIP_SHA256 = "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3"
MEMBER = "SMSSpamCollection"
MEMBER_SHA256 = "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d"


def data_folder() -> Path:
    """Where downloads land: ``$GPTCLS_DATA``, or ``dataset`` in the current folder."""
    return Path(os.environ.get("GPTCLS_DATA") or "dataset")


def sms_spam_file(
    folder: Path | None = None, urls: Sequence[str] = SMS_URLS, timeout: float = 30, deadline: float = 300
) -> Path:
    """The path of UCI's ``SMSSpamCollection`` in ``folder`` (default :func:`data_folder`).

    A file or zip that is there already is used without network; one with a wrong checksum is never
    overwritten, since it may be somebody's work: InputError. Otherwise the URLs are tried in order, each with
    ``timeout`` seconds of silence and ``deadline`` in all; InputError if all fail.
    """
    folder = data_folder() if folder is None else Path(folder)
    path, archive = folder / MEMBER, folder / ZIP_NAME
    if path.exists():
        if _sha256(path.read_bytes()) != MEMBER_SHA256:
            way_out = "delete it to download it again, or give its path instead of the name sms-spam"
            raise InputError(f"{path} is not UCI's file (its checksum differs): {way_out}")
        return path
    content = archive.read_bytes() if archive.exists() else _first_good(urls, folder, timeout, deadline)
    if problem := _wrong_zip(content):
        raise InputError(f"{archive} is not UCI's zip ({problem}): delete it to download it again")
    with zipfile.ZipFile(io.BytesIO(content)) as file:  # by name: nothing is extracted to disk
        text = file.read(MEMBER)
    if _sha256(text) != MEMBER_SHA256:
        raise InputError(f"{MEMBER} in {ZIP_NAME} has the wrong checksum: delete the zip and try again")
    with atomic_file(path) as temporary:
        temporary.write_bytes(text)
    log.info("SMS Spam Collection saved as %s", path)
    return path


def _first_good(urls: Sequence[str], folder: Path, timeout: float, deadline: float) -> bytes:
    problems = []
    for url in urls:
        log.info("downloading %s", url)
        try:
            content = _download(url, timeout, deadline)
            problem = _wrong_zip(content)
        except (OSError, ValueError, HTTPException) as error:
            problem = " ".join(str(error).split()) or type(error).__name__
        if not problem:
            return content
        log.info("failed: %s", problem)
        problems.append(f"{url} ({problem})")
    way_out = f"Try again, or put {ZIP_NAME} or the {MEMBER} inside it into {folder}"
    raise InputError(f"could not download the SMS Spam Collection: {'; '.join(problems)}. {way_out}")


def _download(url: str, timeout: float, deadline: float) -> bytes:
    """At most one byte more than the zip should have: enough to see that it is something else."""
    end = time.monotonic() + deadline
    content = bytearray()
    request = Request(url, headers={"User-Agent": "gptcls"})
    with urlopen(request, timeout=timeout) as response:
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=size or None, desc=ZIP_NAME, unit="B", unit_scale=True, disable=None) as bar:
            while len(content) <= ZIP_BYTES and (piece := response.read1(1 << 16)):
                content += piece
                bar.update(len(piece))
                if time.monotonic() > end:
                    raise TimeoutError(f"not finished after {deadline:g} s")
    return bytes(content)


def _wrong_zip(content: bytes) -> str | None:
    """What is wrong with a downloaded zip; None if nothing."""
    if _sha256(content) == ZIP_SHA256:
        return None
    if content.lstrip()[:1] == b"<":
        return "a web page instead of the zip"
    if len(content) < ZIP_BYTES:
        return f"{len(content):,} of {ZIP_BYTES:,} bytes"
    return "wrong checksum"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
