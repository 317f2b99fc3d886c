"""Training: from labelled rows and pretrained weights to a classifier, in memory or in a folder."""

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """The room can be called: ``from gptcls import train`` gives it, imported before or not."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """:func:`gptcls.train.run.train`."""
        from gptcls.train.run import train

        return train(*args, **options)


sys.modules[__name__].__class__ = _Room
