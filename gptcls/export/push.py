"""A folder to a repository of the Hugging Face hub, and what to tell those whom the hub refuses."""

import sys
from pathlib import Path

from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.models.hub import is_hub_name, response_of

# Of a classifier, ours or another program's: nothing else that lies there goes up.
FILES = ("*.json", "*.safetensors", "*.onnx", "*.onnx.data", "*.py", "README.md")


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Send the classifier in ``folder``, ours or one written for others, to the repository ``repo``
    (``owner/name``), which is made where it is not there yet: public, unless ``private``. Returns its
    address.

    Who may do so is said by HF_TOKEN, or by ``hf auth login``. InputError for no possible name, before
    anything is sent, and where the hub does not take it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    require_hub_name(repo)
    api, watched = HfApi(), sys.stderr is not None and sys.stderr.isatty()
    if not watched:
        disable_progress_bars()
    try:
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        how = {"allow_patterns": list(FILES), "commit_message": "Classifier by gptcls"}
        api.upload_folder(folder_path=folder, repo_id=repo, **how)
    except Exception as error:  # each generation of huggingface_hub has another HTTP client and its errors
        log.debug("push failed", exc_info=error)
        if watched:
            print(file=sys.stderr)  # behind the bar that was under way
        raise _explained(error, repo, api.endpoint) from None
    finally:
        enable_progress_bars()
    return str(address)


def require_hub_name(repo: str) -> None:
    """InputError where no repository can be called so."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
        possible = is_hub_name(repo)
    except HFValidationError:
        possible = False
    if not possible:
        raise InputError(f"--push {repo!r} is not a hub repository's name, which looks like owner/name")


def _explained(error: Exception, repo: str, hub: str) -> InputError:
    """What to tell somebody whose classifier did not get there."""
    from huggingface_hub import constants

    status = getattr(response_of(error), "status_code", None)
    if constants.HF_HUB_OFFLINE:
        return InputError(f"{repo} cannot be reached: unset HF_HUB_OFFLINE, which forbids it")
    said = {
        401: "it does not know you: set HF_TOKEN to a token that may write, or run hf auth login",
        403: f"your token may not write there: take one with write access to {repo.partition('/')[0]}",
        404: "it has no such place for you: check the name, and that your token may write there",
        409: "somebody else is changing it: try again",
        413: "it is too large for your account there: ask the hub for room, or save less (--save auto)",
        429: "it is busy: try again in a few minutes",
    }
    if status in said:
        return InputError(f"{hub} did not take {repo} (status {status}): {said[status]}")
    reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no answer':.200}"
    way_out = "try again; what arrived whole is not sent again"
    return InputError(f"{hub} did not take {repo} ({reason}): {way_out}")
