"""Cleaning of texts, off unless asked for; a classifier trained on cleaned texts cleans what it is given.

The network has seen raw text, and capitals, line breaks and rows of exclamation marks can be just what tells
two classes apart. So this pays where such things are noise: scraped pages, broken exports, hidden characters.
"""

import re
from collections.abc import Callable

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.columns import is_blank
from gptcls.data.fields import of_each_field

# Unicode's control characters that are not white space, and the invisible ones that join nothing: zero width
# space, word joiner, byte order mark. The joiners that emoji and some scripts need stay.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u200b\u2060\ufeff]")
SPACE = re.compile(r"\s+")
# No slash, since addresses hold two, and no currency: a row of dollars is a word of its own.
REPEATED = re.compile(r"([!?.,;:\-_*#~=…–—·！？。，、；：～])\1+")  # noqa: RUF001 (full-width marks)


def basic(text: str) -> str:
    r"""Without control characters; white space and repeats of a punctuation mark become one.

    Cleaning twice is cleaning once.

    >>> basic(" Free\x00\n\n entry!!! http://a.b... ")
    'Free entry! http://a.b.'
    """
    return REPEATED.sub(r"\1", SPACE.sub(" ", CONTROL.sub("", text)).strip())


# Under the names that a saved classifier records.
CLEANERS: dict[str, Callable[[str], str]] = {"none": str, "basic": of_each_field(basic)}


def cleaned(frame: "pd.DataFrame", cleaning: str) -> "pd.DataFrame":
    """The rows with cleaned texts, index 0 to N - 1; those of which nothing is left are dropped."""
    if cleaning == "none":
        return frame
    texts = frame["text"].map(CLEANERS[cleaning])
    log.info("cleaned: %d of %d texts changed", int((texts != frame["text"]).sum()), len(frame))
    left = ~texts.map(is_blank)
    empty = int((~left).sum())
    if empty == len(frame):
        raise InputError("cleaning leaves nothing of any text: leave out --clean")
    if empty:
        log.info("dropped %d rows of whose texts cleaning left nothing", empty)
    return frame.assign(text=texts)[left].reset_index(drop=True)
