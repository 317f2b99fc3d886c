"""How much a request may ask, and how requests share batches."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from gptcls.common.options import check_at_least, check_finite
from gptcls.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The sizes of one server."""

    batch_size: int = 64
    """Most texts that are scored together, of whichever requests."""
    wait_ms: float = 2.0
    """Milliseconds that the first text of a batch waits for texts of other requests."""
    max_texts: int = 1000
    """Most texts of a request."""
    max_characters: int = 20_000
    """Most characters of a text that is sent by itself; a file has --max-bytes."""
    max_explained: int = 2000
    """Most characters of a text that is explained, which costs as many texts as it has words."""
    max_bytes: int = 10_000_000
    """Most bytes of a request; a file is one."""
    max_rows: int = 10_000
    """Most rows of a file; gptcls classify labels files of any size."""
    max_waiting: int = 10_000
    """Most texts that wait; beyond them a request is told to try again (status 503)."""

    def checked(self) -> "Limits":
        """These limits; InputError for one that lets nothing through."""
        values = asdict(self)
        check_finite(values)
        check_at_least(values, dict.fromkeys(values, 1) | {"wait_ms": 0})
        if self.wait_ms > 60_000:
            raise InputError(f"--wait-ms {self.wait_ms} is longer than a minute; a few milliseconds do")
        if self.max_waiting < self.batch_size:
            said = f"--max-waiting {self.max_waiting} is less than --batch-size {self.batch_size}"
            raise InputError(f"{said}, so no full batch could wait; raise it")
        return self

    def check(self, texts: Sequence[str]) -> None:
        """Raise InputError for too many texts, or one that is too long."""
        if len(texts) > self.max_texts:
            said = f"{len(texts):,} texts are more than the {self.max_texts:,} of a request (--max-texts)"
            raise InputError(f"{said}; send them in parts")
        for n, text in enumerate(texts):
            if len(text) > self.max_characters:
                said = f"texts.{n} has {len(text):,} characters, more than {self.max_characters:,}"
                raise InputError(f"{said} (--max-characters); cut it")

    def check_explained(self, text: str) -> None:
        """Raise InputError for a text that is too long to be explained."""
        if len(text) > self.max_explained:
            said = f"the text has {len(text):,} characters, and {self.max_explained:,} are explained here"
            raise InputError(f"{said} (--max-explained); gptcls explain takes any")
