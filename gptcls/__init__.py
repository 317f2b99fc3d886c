"""gptcls: how a pretrained GPT becomes a text classifier, to learn from and to use.

Public names are imported on first use (PEP 562): ``import gptcls.core.gpt2`` loads that lesson alone.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

if sys.argv[:1] == ["-m"]:  # python -m gptcls.VERB: what Python says while it looks for the verb
    from gptcls.common.signals import exit_at_once

    exit_at_once()  # importing takes seconds, in which the first process of a container would be deaf

__version__ = "0.1.0"
_HOMES = {
    "InputError": "gptcls.core.errors",
    "TextClassifier": "gptcls.classify.predict",
    "TrainConfig": "gptcls.train.config",
    "classify_review": "gptcls.classify.predict",
    "fit": "gptcls.train.run",
    "load_classifier": "gptcls.classify.predict",
}
_CALLED = ("evaluate", "train")  # modules that can be called
__all__ = [*_HOMES, *_CALLED]


class _Train(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """:func:`gptcls.pretrain.adapt.adapt_and_train`."""
        return import_module("gptcls.pretrain.adapt").adapt_and_train(*args, **options)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "train" and isinstance(value, ModuleType):  # so Python binds a room that it has imported
            value.__class__ = _Train  # here, since the room may not know of a room above it
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name in _CALLED:
        return import_module(f"gptcls.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'gptcls' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
