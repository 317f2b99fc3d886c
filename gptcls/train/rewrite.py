"""New training texts written by a model: translated there and back, or paraphrased.

Back-translation (Sennrich, Haddow and Birch 2016, "Improving Neural Machine Translation Models with
Monolingual Data"; for labelled texts Xie et al. 2020, "Unsupervised Data Augmentation") takes any two
sequence-to-sequence models of ``transformers``, a paraphrase one. What they write is kept in
``rewritten.sqlite``, in ``--cache`` or ``~/.cache/gptcls``, each batch once it is done: by what writes (of a
folder the sha256 of its files) and the text, so that no later run writes it again.

A paraphrase may say something else. It counts only where a classifier still gives it the label of its
source: the one that is named, or TF-IDF and logistic regression trained on the originals.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from gptcls.classify.predict import load_classifier
from gptcls.common.extras import needed
from gptcls.common.files import require_writable
from gptcls.common.hardware import pick_device
from gptcls.common.log import log
from gptcls.common.processes import require_one_process
from gptcls.core.errors import InputError
from gptcls.data.augment import BY_MODEL, Rewrite
from gptcls.data.fields import n_fields
from gptcls.data.labels import KINDS, LabelKind
from gptcls.evaluation.baselines import tfidf_baseline
from gptcls.models.weight_files import remembered_sha256
from gptcls.train.config import TrainConfig

if TYPE_CHECKING:
    from pandas import DataFrame

FILE = "rewritten.sqlite"
SUFFIXES = (".safetensors", ".bin", ".spm", ".model", ".json", ".txt")  # of weights and tokenizers
BATCH = 32  # texts
BEAMS = 4
NUCLEUS = 0.95  # of the probability is sampled from (Holtzman et al. 2020)
MORE = 1.5  # times as many tokens as a text has may be written, and a few
INSTALL = "pip install 'gptcls[translate]'"


@dataclass(frozen=True)
class Writer:
    """``models``, names or folders, of which each rewrites what the one before wrote; ``option`` is what
    named them. Of one copy the likeliest text is taken, by beam search; several, or with ``sample``, are
    drawn from what the first may write."""

    option: str
    models: tuple[str, ...]
    copies: int = 1
    seed: int = 0
    prefix: str = ""  # before each text, for the first
    sample: bool = False

    @property
    def samples(self) -> bool:
        return self.sample or self.copies > 1

    def write(self, texts: Sequence[str], place: Path, device: torch.device) -> list[list[str]]:
        """``copies`` new texts of each, none of one longer than a model reads. ``place`` is the folder of
        what was written before. The same texts and seed give the same, after an interruption too, unless some
        of them stood among other texts before."""
        require_writable(place, "--cache")
        place.mkdir(parents=True, exist_ok=True)
        drawn = self.seed if self.samples else None
        models = [_identity(name) for name in self.models]
        settings = json.dumps([models, self.prefix, self.copies, self.samples, drawn])
        keys = [hashlib.sha256(json.dumps([settings, text]).encode()).hexdigest() for text in texts]
        with _opened(place / FILE) as known:
            order = sorted(dict(zip(keys, texts, strict=True)).items(), key=lambda item: len(item[1]))
            batches = enumerate(order[start : start + BATCH] for start in range(0, len(order), BATCH))
            todo = {n: [(key, text) for key, text in batch if key not in known] for n, batch in batches}
            missing = sum(map(len, todo.values()))
            there = f"{len(order) - missing:,} texts from {place / FILE}"
            log.info(f"{self.option}: {there}, {missing:,} to write")
            if missing:
                chain = [_load(self.option, name, device) for name in self.models]
                with tqdm(total=missing, desc=self.option.strip("-"), unit=" texts", disable=None) as bar:
                    for n, batch in todo.items():
                        if batch:
                            found = self._written(chain, [text for _, text in batch], self.seed + n)
                            known.add([key for key, _ in batch], found)
                            bar.update(len(batch))
            made = [known[key] for key in keys]
        if longer := sum(not each for each in made):
            why = "longer than the models read, or nothing came"
            log.info(f"{self.option}: {longer:,} texts get none: {why}")
        return made

    def _written(self, chain: list["Model"], texts: list[str], seed: int) -> list[list[str]]:
        first, *others = chain
        fits = [i for i, text in enumerate(texts) if first.reads(self.prefix + text)]
        new = first([self.prefix + texts[i] for i in fits], self.copies, self.samples, seed) if fits else []
        owners = [i for i in fits for _ in range(self.copies)]
        for model in others:
            pairs = zip(owners, new, strict=True)
            kept = [(i, text) for i, text in pairs if text.strip() and model.reads(text)]
            owners, new = [i for i, _ in kept], model([text for _, text in kept]) if kept else []
        made: list[list[str]] = [[] for _ in texts]
        for i, text in zip(owners, new, strict=True):
            if text.strip():
                made[i].append(text)
        return made


@dataclass(frozen=True)
class Model:
    """A sequence-to-sequence model of ``transformers`` and its tokenizer."""

    model: Any
    tokenizer: Any
    most: int  # tokens that it reads

    def reads(self, text: str) -> bool:
        """Whether the whole text fits."""
        return len(self.tokenizer(text)["input_ids"]) <= self.most

    @torch.inference_mode()
    def __call__(self, texts: list[str], copies: int = 1, sample: bool = False, seed: int = 0) -> list[str]:
        """``copies`` texts for each, behind each other."""
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True)
        inputs = {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        width = inputs["input_ids"].shape[1]
        how: dict[str, Any] = {"num_beams": max(BEAMS, copies), "do_sample": False}
        if sample:
            how = {"num_beams": 1, "do_sample": True, "top_p": NUCLEUS, "top_k": 0}
        longest = {"max_new_tokens": min(self.most - 1, int(MORE * width) + 8), "max_length": None}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            ids = self.model.generate(**inputs, num_return_sequences=copies, **how, **longest)
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)


def _load(option: str, name: str, device: torch.device) -> Model:
    with needed("translate", option):
        import transformers
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(name)
    except ImportError as error:  # a tokenizer's own library, such as Marian's sentencepiece
        raise InputError(f"{option} {name}: {_line(error)}; {INSTALL}") from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{option} {name} is no sequence-to-sequence model: {_line(error)}") from None
    finally:
        transformers.utils.logging.enable_progress_bar()
    limits = (getattr(model.config, key, None) for key in ("max_position_embeddings", "n_positions"))
    most = min(tokenizer.model_max_length, *(limit for limit in limits if limit), 512)
    return Model(model.to(device).eval(), tokenizer, most)


def _line(error: Exception) -> str:
    return f"{' '.join(str(error).split()) or type(error).__name__:.150}"


def _identity(name: str) -> str:
    """What a model's output depends on: of a folder its weights, of a name on the hub the name."""
    files = sorted(file for file in Path(name).glob("*") if file.suffix in SUFFIXES)
    return remembered_sha256(*files) if files else name


# --- what was written before ---


class Known:
    """Texts by key, in a file that several processes may use and a kill leaves whole."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        connection.execute("CREATE TABLE IF NOT EXISTS rewritten (key TEXT PRIMARY KEY, texts TEXT)")

    def __contains__(self, key: str) -> bool:
        return self._row(key) is not None

    def __getitem__(self, key: str) -> list[str]:
        return json.loads(self._row(key)[0])

    def _row(self, key: str) -> tuple[str] | None:
        return self.connection.execute("SELECT texts FROM rewritten WHERE key = ?", (key,)).fetchone()

    def add(self, keys: list[str], texts: list[list[str]]) -> None:
        rows = ((key, json.dumps(each)) for key, each in zip(keys, texts, strict=True))
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO rewritten VALUES (?, ?)", rows)


@contextmanager
def _opened(file: Path) -> Iterator[Known]:
    try:
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            yield Known(connection)
    except sqlite3.Error as error:
        raise InputError(f"{file} cannot be used ({error}): delete it, or name another --cache") from None


# --- for a run ---


def rewrites_of(config: TrainConfig) -> dict[str, Rewrite]:
    """What makes the new texts of each operation of ``--augment`` that a model carries out."""
    data, run = config.data, config.run
    asked = [name for name in data.augment if name in BY_MODEL]
    if not asked:
        return {}
    require_one_process(f"train --augment {asked[0]}")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptcls"
    place = run.cache or home
    copies, seed = data.augment_copies, run.seed
    pair = data.translate_there or "", data.translate_back or ""
    writers = {
        "back-translate": Writer("--translate-there", pair, copies, seed),
        "paraphrase": Writer("--paraphrase-with", (data.paraphrase_with or "",), copies, seed,
                             data.paraphrase_prefix, sample=True),
    }  # fmt: skip

    def rewrite(name: str, rows: "DataFrame") -> list[list[str]]:
        if n_fields(rows["text"]) > 1:
            raise InputError(f"--augment {name} rewrites one text a row: name one column, or leave it out")
        made = writers[name].write(rows["text"].tolist(), place, pick_device(run.device))
        if data.augment_judge is None and name == "back-translate":
            return made
        return _with_its_label(name, rows, made, _judge(config, rows), KINDS[data.task])

    return {name: lambda rows, name=name: rewrite(name, rows) for name in asked}


def _judge(config: TrainConfig, rows: "DataFrame") -> Callable[[list[str]], list]:
    """What gives texts their answers."""
    if (name := config.data.augment_judge) is not None:
        return load_classifier(name, config.run.device).predict
    model = tfidf_baseline(config.run.seed, rows["text"].tolist())
    model.fit(rows["text"].tolist(), rows["label"].tolist())
    return lambda texts: model.predict(texts).tolist()


def _with_its_label(
    name: str, rows: "DataFrame", made: list[list[str]], judge: Callable, kind: LabelKind
) -> list[list[str]]:
    """Those new texts that the judge gives the label of their source."""
    flat = [text for texts in made for text in texts]
    answers = iter(judge(flat) if flat else [])
    kept = [
        [text for text in texts if _names(next(answers)) == set(kind.names(label))]
        for texts, label in zip(made, rows["label"], strict=True)
    ]
    n = sum(map(len, kept))
    log.info(f"{name}: {n:,} of {len(flat):,} new texts are judged to have their source's label")
    return kept


def _names(answer: Any) -> set[str]:
    return set(answer) if isinstance(answer, list) else {answer}
