"""pandas, imported when it is first used: a single answer does not need it, and it takes longer to import."""

from importlib import import_module
from typing import Any


class _Lazy:
    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module("pandas"), attribute)


pd: Any = _Lazy()
