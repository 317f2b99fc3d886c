"""When two texts count as the same: the one key by which the parts of a data set are kept apart.

Messages are sent again with another comma, readers lose quotes, spreadsheets add spaces. A text that differs
in nothing else was seen, and a score on it says nothing about new texts.
"""

import unicodedata

from gptcls.data.fields import BOUNDARY, fields_of

VARIATION_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # how an emoji looks, text or picture


def text_key(text: str) -> str:
    """The letters and digits of a text in their compatibility form (NFKC), without regard to case.

    Marks belong to the letter that they stand on: without its vowel signs a word in Hindi is another one.
    Where there are no letters and digits, the text itself without white space, so that ":-)" is not "???".
    Rows of several texts are the same where each of their fields is.

    >>> text_key('"FREE entry" -- 1st prize!'), text_key("Free Entry 1ˢᵗ Prize"), text_key(": )")
    ('freeentry1stprize', 'freeentry1stprize', ':)')
    """
    if BOUNDARY in text:
        return BOUNDARY.join(map(text_key, fields_of(text)))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    key = "".join(filter(str.isalnum if text.isascii() else _of_a_word, text))
    return key.casefold() or "".join(text.split())


def _of_a_word(char: str) -> bool:
    if char.isalnum():
        return True
    return unicodedata.category(char) in ("Mn", "Mc") and char not in VARIATION_SELECTORS
