"""Packages that only some of the work needs: extras of the installation."""

from collections.abc import Iterator
from contextlib import contextmanager

from gptcls.core.errors import InputError


@contextmanager
def needed(extra: str, what: str) -> Iterator[None]:
    """Around the imports that ``what`` needs. InputError, naming the ``extra`` to install, where a package is
    missing.

    >>> with needed("xlsx", "Excel"):
    ...     import no_such_package
    Traceback (most recent call last):
    gptcls.core.errors.InputError: Excel needs no_such_package: pip install 'gptcls[xlsx]'
    """
    try:
        yield
    except ImportError as error:
        name = (error.name or "").partition(".")[0]
        if not isinstance(error, ModuleNotFoundError) or not name or name == "gptcls":
            raise  # what is there and broken
        raise InputError(f"{what} needs {name}: pip install 'gptcls[{extra}]'") from None
