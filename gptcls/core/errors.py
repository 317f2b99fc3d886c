"""The one error that means: what was given cannot be used."""


class InputError(ValueError):
    """A mistake in what the caller gave: a file, a column, a name, a folder.

    Its message is a single line that names the offending value and the way out. The commands
    print that line on standard error and exit with status 2; from Python it is a ``ValueError``.
    """
