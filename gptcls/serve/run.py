"""python -m gptcls.serve: a page to try a classifier in a browser, and a JSON endpoint for programs."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

import tyro

from gptcls.classify.predict import DEFAULT_CLASSIFIER, AnswerOptions, TextClassifier
from gptcls.common.extras import needed
from gptcls.common.log import log, unlogged
from gptcls.common.options import own_first
from gptcls.core.errors import InputError
from gptcls.serve.limits import Limits

EVERYWHERE = ("0.0.0.0", "::")
BACKLOG = 2048  # connections that the system holds until they are accepted


@own_first
@dataclass(frozen=True, kw_only=True)
class ServeConfig(AnswerOptions):
    """Serve a page to try a classifier in a browser, and POST /classify for programs.

    The page shows probabilities and what each word adds, and labels many texts or a file. Nothing of it is
    loaded from elsewhere, and no text is logged or kept. Ctrl-C stops it.
    """

    folder: tyro.conf.Positional[str | None] = None
    """The same as --model."""
    model: str = DEFAULT_CLASSIFIER
    host: str = "127.0.0.1"
    """Address to listen on. The default answers this machine alone; 0.0.0.0 answers everyone who reaches it,
    without a password."""
    port: int = 8000
    """Port to listen on; 0 takes one that is free."""
    names: tuple[str, ...] = ()
    """Host names by which others reach it, such as a proxy's; addresses and localhost are known."""
    limits: Limits = field(default_factory=Limits)

    GROUPS: ClassVar[dict[str, str]] = {"limits": "limits"}


def serve(config: ServeConfig) -> None:
    """Answer requests until a signal comes. InputError for an address that cannot be had, a classifier that
    cannot be read, and where a package of the extra ``serve`` is missing."""
    with needed("serve", "serving"):
        from gptcls.serve.app import create_app
        from gptcls.serve.server import listening, run_server
    limits = config.limits.checked()
    if not 0 <= config.port < 2**16:
        raise InputError(f"--port {config.port} is out of range; use 0 to 65535, 0 for any that is free")
    if config.folder is not None:
        if config.model not in (DEFAULT_CLASSIFIER, config.folder):
            raise InputError(f"give {config.folder} or --model {config.model}, not both")
        config = replace(config, model=config.folder)
    with listening(config.host, config.port) as sock:  # before the classifier is read, which takes seconds
        classifier = config.load()
        name = _name(config.model)
        own = () if config.host in EVERYWHERE else (config.host,)
        app = create_app(classifier, name, limits, (*own, *config.names))
        host, port = sock.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        sock.listen(BACKLOG)
        log.info(f"{name} is served at http://{shown}:{port}; Ctrl-C stops it")
        if not ip_address(host).is_loopback:
            log.info("whoever reaches this address can use it: there is no password")
        with unlogged():  # what reading a file logs may quote it
            run_server(app, sock)


def _name(model: str | TextClassifier) -> str:
    """What the page calls a classifier: the name of its run's folder."""
    if isinstance(model, TextClassifier):
        return "classifier"
    folder = Path(model).resolve() if Path(model).exists() else Path(model)
    return (folder.parent if folder.name == "classifier" else folder).name or str(model)
