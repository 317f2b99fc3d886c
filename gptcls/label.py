"""python -m gptcls.label: label rows at the terminal, those first that a classifier learns most from.

Active learning over frozen vectors (Settles 2009, "Active Learning Literature Survey"): the network reads
every text once; a logistic regression over its vectors is trained anew after every few answers, in a fraction
of a second, and says which rows it is least sure of.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import require_writable
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.lock import locked_output
from gptcls.common.log import log
from gptcls.common.options import check_at_least, check_seed, own_first
from gptcls.core.errors import InputError
from gptcls.data.columns import columns_of, find_text_columns, text_values
from gptcls.data.fields import column_names, fields_named, fields_of, join_fields, n_fields, on_one_line
from gptcls.data.next_rows import Order, next_rows
from gptcls.data.options import TEXTS_HELP, TableOptions
from gptcls.data.readers import read_chunks, suffix_of
from gptcls.evaluation.baselines import regression
from gptcls.evaluation.intervals import wilson_interval
from gptcls.fast.features import FeatureCache
from gptcls.models.fields_tokenizer import for_fields
from gptcls.models.pretrained import load_pretrained, load_tokenizer

SHOWN = 1500  # characters of a text
# C of the logistic regression: of 0.001 to 0.3 the best on average over 16, 64 and 256 random rows of three
# data sets, by their validation rows.
STRENGTH = 0.3
HELP = """\
a number       the label with this number
a name         that label, or a new one; =NAME if the name is a number or one of these letters
s, skip        another row; this one may come again at the next start
u, undo        take the last answer back, and ask again
q, quit        end; so does Ctrl-D
?              this text"""


@own_first
@dataclass(frozen=True, kw_only=True)
class LabelConfig(TableOptions):
    """Label rows of a file at the terminal, those first that a classifier learns most from.

    Each answer is in --out at once: stop whenever you like, and start the same command again to go on.
    """

    data: Annotated[Path, tyro.conf.arg(metavar="FILE", help=TEXTS_HELP)]
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("labels.jsonl")
    """File for the answers, .jsonl; those that it has are taken up."""
    labels: tuple[str, ...] = ()
    """Labels to offer from the start; others can be typed in."""
    order: Order = "both"
    """Rows that come first: of small margin between the two most probable labels (uncertain), unlike those
    that were asked (diverse), both, or none (random). The first ones are random unless diverse."""
    batch: int = 8
    """Answers after which it is trained anew and other rows are chosen."""
    check: int = 5
    """Every so many-th row is drawn at random, and its label guessed before: that tells how often guesses are
    right; 0 draws none."""
    model: str = "gpt2-nano"
    """Network whose frozen vectors are learned from, as in gptcls.train, but no classifier of gptcls."""
    max_length: int | None = None
    """Tokens read of each text; otherwise what the model can read."""
    cache: Path | None = None
    """Folder that keeps the vectors between starts, as in gptcls.train."""
    seed: int = 123
    """Of what is drawn."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


@dataclass(frozen=True)
class Answer:
    """A label that a person gave to a row."""

    row: int
    label: str
    guess: str | None = None  # what the model said before, of a row drawn at random


class AnswersFile:
    """Answers as JSON lines: each is on the disk when :meth:`add` returns, and can be taken back. A row of
    several texts has the columns text, text_2, …"""

    def __init__(self, path: Path, texts: Sequence[str]) -> None:
        """InputError for a file that is none of these. Half a line, of one that was killed, is cut off."""
        self.path, self.ends, self.answers, self.unknown = path, [], [], 0
        self.rows: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            self.rows.setdefault(text, []).append(row)
        self.texts, self.columns = texts, column_names(n_fields(texts))
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            log.info(f"{path}: half an answer at its end is left out")
            os.truncate(path, len(whole))
        end = 0
        for number, line in enumerate(whole.splitlines(keepends=True), 1):
            end += len(line)
            try:
                found = json.loads(line)
                fields, label = [found[name] for name in fields_named(found)], found["label"]
                if not (all(isinstance(value, str) for value in (*fields, label)) and label.strip()):
                    raise ValueError("text and label are to be strings")
                if len(fields) != len(self.columns):
                    raise ValueError(f"texts in it: {len(fields)}, in a row of --data: {len(self.columns)}")
            except (ValueError, LookupError, TypeError) as error:
                said = f"{path}, line {number}: no answer of gptcls.label ({error})"
                raise InputError(f"{said}; choose another --out") from None
            self.ends.append(end)
            self._take(join_fields(fields) or "", label, found.get("guess"))

    def _take(self, text: str, label: str, guess: str | None) -> None:
        rows = self.rows.get(text)
        self.unknown += rows is None
        self.answers.append(Answer(rows[0] if rows else -1, label, guess))

    def add(self, answer: Answer) -> None:
        """Append an answer, and wait until the disk has it."""
        record = dict(zip(self.columns, fields_of(self.texts[answer.row]), strict=True))
        record["label"] = answer.label
        if answer.guess is not None:
            record["guess"] = answer.guess
        with self.path.open("ab") as file:
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
            self.ends.append(file.tell())
        self.answers.append(answer)

    def take_back(self) -> Answer:
        """Remove the last answer, and return it."""
        self.ends.pop()
        os.truncate(self.path, self.ends[-1] if self.ends else 0)
        return self.answers.pop()

    @property
    def known(self) -> dict[int, str]:
        """Row -> label, of the rows there are now; what was answered twice has the last answer."""
        return {answer.row: answer.label for answer in self.answers if answer.row >= 0}


class Learner:
    """What is known of N rows by their vectors (N, C), and which of them should be known next.

    >>> learner = Learner(np.eye(4), "both", seed=0)
    >>> learner.fit({0: "ham", 1: "spam"})
    >>> learner.outputs.shape, sorted(learner.choose([0, 1], 2))
    ((4, 2), [2, 3])
    """

    def __init__(self, vectors: np.ndarray, order: Order, seed: int) -> None:
        from sklearn.preprocessing import StandardScaler

        self.scaler = StandardScaler()  # by all rows, since those with labels are few
        self.vectors = self.scaler.fit_transform(vectors)
        norms = np.linalg.norm(self.vectors, axis=1, keepdims=True)
        self.directions = self.vectors / np.where(norms > 0, norms, 1)
        self.order, self.random = order, np.random.RandomState(seed)
        self.labels: tuple[str, ...] = ()
        self.outputs: np.ndarray | None = None  # probabilities (N, K)

    def fit(self, known: dict[int, str]) -> None:
        """Learn from the rows that have labels; of fewer than two labels there is nothing to learn."""
        self.labels, self.outputs = tuple(sorted({*known.values()})), None
        if len(self.labels) > 1:
            model = regression(STRENGTH).fit(self.vectors[[*known]], [*known.values()])
            self.outputs = model.predict_proba(self.vectors)

    def choose(self, known: Sequence[int], n: int, left_out: Sequence[int] = ()) -> list[int]:
        """The next ``n`` rows."""
        return next_rows(self.order, self.directions, known, self.outputs, n, self.random, left_out)

    def guess(self, row: int) -> str | None:
        """The label of a row, as far as one can tell."""
        return None if self.outputs is None else self.labels[int(self.outputs[row].argmax())]


def label(config: LabelConfig) -> dict[int, str]:
    """Ask until there are no more rows or answers, and return the labels by row. InputError for what cannot
    be read; each answer that was given is in ``config.out``."""
    check_seed(config.seed)
    check_at_least(vars(config), {"batch": 1, "check": 0})
    if suffix_of(config.out) != ".jsonl" or config.out.suffix != ".jsonl":
        raise InputError(f"--out {config.out}: answers are JSON lines; give a name that ends with .jsonl")
    if config.out.exists() and config.out.samefile(config.data):
        raise InputError(f"--out {config.out} is --data itself; give the answers another name")
    if not all(map(str.strip, config.labels)):
        raise InputError("--labels has one without a character; leave it out")
    require_writable(config.out, "--out")
    texts = _texts(config)
    with locked_output(config.out):
        answers = AnswersFile(config.out, texts)
        if answers.unknown:
            log.info(f"{config.out}: {answers.unknown:,} of its texts are not in {config.data}")
        learner = Learner(_vectors(config, texts), config.order, config.seed + len(answers.answers))
        _ask(config, texts, learner, answers)
        _end(config, answers)
        return answers.known


def _texts(config: LabelConfig) -> list[str]:
    """The distinct texts of the file, in their order."""
    names, texts = None, {}
    for chunk in read_chunks(config.data, dialect=config.dialect):
        names = names or find_text_columns(chunk.columns, config.text_column, chunk, config.data)
        texts |= dict.fromkeys(filter(None, text_values(columns_of(chunk, names, config.data))))
    if not texts:
        raise InputError(f"{config.data}: no row has a text")
    return list(texts)


def _vectors(config: LabelConfig, texts: list[str]) -> np.ndarray:
    tokenizer, device = load_tokenizer(config.model), pick_device(config.device)
    backbone = load_pretrained(config.model, pick_dtype("auto", device))
    tokenizer.require_fit(config.model, backbone.config.vocab_size)
    most = backbone.config.n_positions
    if config.max_length is not None and not 1 <= config.max_length <= most:
        given = f"--max-length {config.max_length}"
        raise InputError(f"{given} is out of range; {config.model} reads 1 to {most}")
    tokenizer = for_fields(tokenizer, n_fields(texts), backbone)
    max_length = config.max_length or most
    return FeatureCache(config.cache).mean_vectors(backbone, texts, max_length, tokenizer, device)


# --- the conversation ---


def _ask(config: LabelConfig, texts: list[str], learner: Learner, answers: AnswersFile) -> None:
    """Row after row, until there are no more or somebody has enough."""
    skipped: list[int] = []
    again: tuple[int, str | None] | None = None  # of a row whose answer was taken back
    questions = _questions(config, learner, answers, skipped)
    while (question := again or next(questions, None)) is not None:
        row, guess = question
        names = list(dict.fromkeys([*config.labels, *(answer.label for answer in answers.answers)]))
        say(f"\n{_state(answers)}\n{_shown(texts[row])}\n{_offered(names)}\n> ", end="", flush=True)
        again, label = None, None
        while label is None:
            line = sys.stdin.readline()
            word = line.strip()
            if not line or word.lower() in ("q", "quit"):
                return
            if word.lower() in ("s", "skip"):
                skipped.append(row)
                break
            if word.lower() in ("u", "undo"):
                if answers.answers and answers.answers[-1].row >= 0:
                    last = answers.take_back()
                    again = last.row, last.guess
                    break
                said = "there is no answer to take back"
            else:
                label, said = _label_of(word, names)
            if label is None:
                say(f"{said}\n> ", end="", flush=True)
        if label is not None:
            answers.add(Answer(row, label, guess))


def _questions(
    config: LabelConfig, learner: Learner, answers: AnswersFile, skipped: list[int]
) -> Iterator[tuple[int, str | None]]:
    """Rows to ask, each that was drawn at random with its guess; trained anew after every batch."""
    while True:
        learner.fit(answers.known)
        chosen = learner.choose([*answers.known], config.batch, skipped)
        if not chosen:
            return
        for row in chosen:
            place = len(answers.answers) % config.check if config.check else -1
            if learner.outputs is not None and place == config.check - 1:
                known, random = [*answers.known], learner.random
                for drawn in next_rows("random", learner.vectors, known, None, 1, random, skipped):
                    yield drawn, learner.guess(drawn)
            if row not in answers.known and row not in skipped:
                yield row, None


def _label_of(word: str, names: Sequence[str]) -> tuple[str | None, str]:
    """The label that an answer means, or None and what to say instead.

    >>> _label_of("2", ["ham", "spam"]), _label_of("=2", [])
    (('spam', ''), ('2', ''))
    """
    if word in ("", "?"):
        return None, HELP
    if not word.isprintable():  # the arrow keys of a terminal that does not edit lines
        return None, "a label has no control characters"
    if word.startswith("="):
        word = word[1:].strip()
        return (word, "") if word else (None, "a label has at least one character")
    if word[0] in "+-" and word[1:].isdecimal():
        return None, f"there is no label {word}; for one of that name type ={word}"
    if not word.isdecimal():
        return word, ""
    if 1 <= int(word) <= len(names):
        return names[int(word) - 1], ""
    return None, f"there is no label {word}; " + (f"there are 1 to {len(names)}" if names else "type a name")


def _state(answers: AnswersFile) -> str:
    counts = Counter(answer.label for answer in answers.answers)
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    checks = [answer.guess == answer.label for answer in answers.answers if answer.guess is not None]
    parts = [f"{counts.total():,} labelled" + (f" ({said})" if said else "")]
    if checks:
        low, high = wilson_interval(sum(checks), len(checks))
        parts.append(f"guesses right in {sum(checks)} of {len(checks)} random rows ({low:.0%} to {high:.0%})")
    return "; ".join(parts)


def _shown(text: str) -> str:
    text = on_one_line(text)
    rest = len(text) - SHOWN
    return f"{text[:SHOWN]} … {rest:,} characters more" if rest > 0 else text


def _offered(names: Sequence[str]) -> str:
    numbered = "  ".join(f"{i} {name}" for i, name in enumerate(names, 1))
    return f"[{numbered or 'type the name of its label'}; s skip, u undo, q quit, ? help]"


def _end(config: LabelConfig, answers: AnswersFile) -> None:
    counts = Counter(answer.label for answer in answers.answers)
    say(f"\n{_state(answers)}: {config.out}")
    if len(counts) > 1 and min(counts.values()) > 2:
        columns = f" --text-column {' '.join(answers.columns)}" if len(answers.columns) > 1 else ""
        say(f"train on them: {cli.command('train')} --data {config.out}{columns} --model {config.model}")
    else:
        say("to train, label at least three rows of each of two labels; the same command goes on")


def main() -> None:
    cli.run(LabelConfig, label)


if __name__ == "__main__":
    main()
