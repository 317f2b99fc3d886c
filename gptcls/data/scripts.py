"""Scripts: which writing a text is in, told by Unicode's names of its letters. No guess at its language."""

import unicodedata
from collections import Counter
from functools import lru_cache

SHARE = 0.2  # of the letters that make a script one of the text's


def scripts_of(text: str) -> tuple[str, ...]:
    """The scripts that :data:`SHARE` of the letters or more are in, the most frequent first, under Unicode's
    names: LATIN, CYRILLIC, ARABIC, CJK (Chinese characters), HIRAGANA, HANGUL, …; none without letters.

    >>> scripts_of("see you at 5"), scripts_of("до встречи, John Smith"), scripts_of("12:30 :-)")
    (('LATIN',), ('CYRILLIC', 'LATIN'), ())
    """
    letters = text if text.isascii() else unicodedata.normalize("NFKC", text)
    counts = Counter(_script(char) for char in letters if char.isalpha())
    return tuple(name for name, n in counts.most_common() if n >= SHARE * counts.total())


@lru_cache(maxsize=65_536)
def _script(letter: str) -> str:
    return "LATIN" if letter.isascii() else unicodedata.name(letter, "UNNAMED").split()[0]
