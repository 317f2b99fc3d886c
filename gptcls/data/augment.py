"""More training texts from those there are: the four operations of EDA on words, and what they cannot do.

Wei & Zou 2019, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks"
(EMNLP). Each new text keeps the label of the text it was made from.

Words are what stands between white space. A text without any, as in Chinese, is one word, and no operation
changes it: segment such texts first. The two other operations, which models carry out, are handed in
(:mod:`gptcls.train.rewrite`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from numpy.random import RandomState

from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.core.errors import InputError
from gptcls.data.encodings import read_lines, require_text
from gptcls.data.fields import BOUNDARY, fields_of
from gptcls.data.same_text import text_key

BY_MODEL = ("back-translate", "paraphrase")
Operation = Literal["synonym", "insert", "delete", "swap", "back-translate", "paraphrase"]
Rewrite = Callable[["pd.DataFrame"], list[list[str]]]  # the new texts of each row
Synonyms = dict[str, tuple[str, ...]]
CORE = re.compile(r"\w(?:.*\w)?", re.DOTALL)  # a word without the marks around it


def replace_synonyms(words: list[str], n: int, synonyms: Synonyms, random: RandomState) -> list[str]:
    """``n`` of the words that have synonyms, each replaced by one of them; marks and capitals stay."""
    words, known = list(words), _with_synonyms(words, synonyms)
    for i in random.permutation(len(known))[:n]:
        words[known[i]] = _synonym(words[known[i]], synonyms, random)
    return words


def insert_synonyms(words: list[str], n: int, synonyms: Synonyms, random: RandomState) -> list[str]:
    """``n`` times a synonym of a word of the text at any place in it."""
    known, new = _with_synonyms(words, synonyms), list(words)
    for _ in range(n if known else 0):
        source = _core(words[known[random.randint(len(known))]]).lower()
        new.insert(random.randint(len(new) + 1), _synonym(source, synonyms, random))
    return new


def delete_words(words: list[str], n: int, synonyms: Synonyms, random: RandomState) -> list[str]:
    """Each word kept or deleted by chance, ``n`` deletions to be expected; one word at least stays."""
    kept = [word for word in words if random.random_sample() >= n / len(words)]
    return kept or [words[random.randint(len(words))]]


def swap_words(words: list[str], n: int, synonyms: Synonyms, random: RandomState) -> list[str]:
    """``n`` times two words exchanged."""
    words = list(words)
    for _ in range(n if len(words) > 1 else 0):
        i, j = random.permutation(len(words))[:2]
        words[i], words[j] = words[j], words[i]
    return words


OPERATIONS: dict[str, Callable[[list[str], int, Synonyms, RandomState], list[str]]] = {
    "synonym": replace_synonyms,
    "insert": insert_synonyms,
    "delete": delete_words,
    "swap": swap_words,
}


@dataclass(frozen=True)
class Augmentation:
    """What to make of each training text. InputError for values that fit none or no operation in use."""

    operations: tuple[Operation, ...] = ()  # none makes nothing
    copies: int = 1  # new texts that each operation makes of a text
    share: float = 0.1  # of a text's words that an operation changes, one at least (the paper's alpha)
    synonyms: Path | None = None  # a file for :func:`read_synonyms`; None takes the package's own

    def __post_init__(self) -> None:
        if len(set(self.operations)) < len(self.operations):
            raise InputError(f"--augment {' '.join(self.operations)} names one twice; see --augment-copies")
        if self.copies < 1:
            raise InputError(f"--augment-copies {self.copies} is too small; use 1 or more")
        if not 0 < self.share <= 1:
            raise InputError(f"--augment-share {self.share} is not a share; use a number above 0, up to 1")
        if self.synonyms is not None and not {"synonym", "insert"} & set(self.operations):
            raise InputError(f"--synonyms {self.synonyms} goes with --augment synonym or insert")
        if not self.operations and (self.copies, self.share) != (Augmentation.copies, Augmentation.share):
            raise InputError("--augment-copies and --augment-share go with --augment; name its operations")

    def of(
        self, train: "pd.DataFrame", others: Iterable[str], seed: int, by_model: Mapping[str, Rewrite] = {}
    ) -> "pd.DataFrame":
        """The training rows and behind them the new ones, index 0 to N - 1; ``by_model`` has what makes those
        of the operations :data:`BY_MODEL`.

        A text that is the same (:func:`text_key`) as one of ``train``, of ``others`` (validation and test) or
        of the new ones is left out; without any other, InputError. The same seed gives the same texts.
        """
        if not self.operations:
            return train
        synonyms = read_synonyms(self.synonyms) if {"synonym", "insert"} & set(self.operations) else {}
        random = RandomState(seed)
        texts = [[field.split() for field in fields_of(text)] for text in train["text"]]
        taken = set(map(text_key, (*train["text"], *others)))
        rows, new, counts = [], [], []
        for name in self.operations:
            before = len(new)
            made = by_model[name](train) if name in BY_MODEL else self._made(name, texts, synonyms, random)
            for row, each in enumerate(made):
                for text in each:
                    if (key := text_key(text)) not in taken:
                        taken.add(key)
                        rows.append(row)
                        new.append(text)
            counts.append(f"{len(new) - before:,} by {name}")
        by_words = set(self.operations) - set(BY_MODEL)
        if by_words and (n_one_word := sum(max(map(len, fields)) == 1 for fields in texts)):
            log.info(f"augmentation: {n_one_word:,} of {len(texts):,} texts are one word without white space")
        if not rows:
            failed = f"{' '.join(self.operations)} could make no new text of {len(texts):,}"
            needs = "it needs words between spaces and, for synonym and insert, words in --synonyms"
            needs = needs if by_words else "take other models, or a judge that knows the labels better"
            raise InputError(f"--augment {failed}; {needs}")
        log.info(f"augmented: {len(rows):,} training rows added to {len(texts):,} ({', '.join(counts)})")
        return pd.concat([train, train.iloc[rows].assign(text=new)], ignore_index=True)

    def _made(
        self, name: str, texts: list[list[list[str]]], synonyms: Synonyms, random: RandomState
    ) -> Iterator[list[str]]:
        """The copies of each row after one operation, which changes each of its texts by itself."""

        def changed(words: list[str]) -> str:
            n = max(1, round(self.share * len(words)))
            return " ".join(OPERATIONS[name](words, n, synonyms, random) if words else [])

        for fields in texts:
            yield [BOUNDARY.join(map(changed, fields)) for _ in range(self.copies)]


def read_synonyms(path: Path | None = None) -> Synonyms:
    """A table of synonyms: UTF-8, one word per line, ``word<TAB>synonym,synonym``; None: the package's own.
    Words are in lower case; a synonym may be several words. InputError for a malformed or repeated line."""
    if path is None:
        with as_file(files("gptcls") / "assets" / "synonyms.tsv") as own:
            return read_synonyms(own)
    require_text(path)
    synonyms: Synonyms = {}
    for number, line in read_lines(path):
        word, *rest = (field.strip() for field in line.split("\t"))
        found = tuple(filter(None, (name.strip() for name in rest[0].split(",")))) if rest else ()
        if len(rest) != 1 or not found or len(word.split()) != 1:
            said = "is not a word, a tab, and its synonyms with commas between them"
            raise InputError(f"{path}, line {number}: {line.strip()!r:.60} {said}")
        if word.lower() in synonyms:
            raise InputError(f"{path}, line {number}: {word!r} stands twice; put its synonyms in one line")
        synonyms[word.lower()] = found
    return synonyms


def _core(word: str) -> str:
    found = CORE.search(word)
    return found[0] if found else ""


def _with_synonyms(words: list[str], synonyms: Synonyms) -> list[int]:
    return [i for i, word in enumerate(words) if _core(word).lower() in synonyms]


def _synonym(word: str, synonyms: Synonyms, random: RandomState) -> str:
    """One of the word's synonyms, with the marks around it and its capitals."""
    core = _core(word)
    choices = synonyms[core.lower()]
    found = choices[random.randint(len(choices))]
    if core.isupper() and len(core) > 1:
        found = found.upper()
    elif core[0].isupper():
        found = found[0].upper() + found[1:]
    return word.replace(core, found, 1)
