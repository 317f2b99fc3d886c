"""Finished measurements in a JSON file: a later call takes up what an earlier one left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptcls.common.files import write_json
from gptcls.core.errors import InputError
from gptcls.models.weight_files import read_object


class Cells:
    """Measurements by name, such as "labels/trec6/50/seed 0", written after each.

    Several processes may share a file where none measures what another does: each keeps what it finds there.
    Without a path nothing outlives the process. ``option`` is the one that the path was given with.
    """

    def __init__(self, path: Path | None = None, option: str = "--json") -> None:
        self.path, self.option = path, option
        self.found: dict[str, Any] = {}
        if path is not None and path.exists():
            self.found = self._read(path)

    def under(self, settings: dict[str, Any], table: str) -> None:
        """Say what all of a table's cells depend on; InputError where the file's were measured otherwise."""
        known = self.measured(f"{table}/settings", lambda: settings)
        for name in sorted({*known, *settings}):
            if known.get(name) != (now := json.loads(json.dumps(settings.get(name)))):
                said = f"was measured with {name} {known.get(name)}, and would now have {now}"
                raise InputError(f"{self.path}: {table} {said}; choose another {self.option}")

    def measured(self, name: str, measure: Callable[..., Any], *arguments: Any) -> Any:
        """The cell of that name; what is not there is measured: ``measure(*arguments)``."""
        if name not in self.found:
            self.found[name] = json.loads(json.dumps(measure(*arguments)))
            if self.path is not None:
                others = self._read(self.path) if self.path.exists() else {}
                self.found = others | self.found
                write_json(self.path, dict(sorted(self.found.items())))
        return self.found[name]

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return read_object(path)
        except InputError as error:
            raise InputError(f"{error}; choose another {self.option}") from None
