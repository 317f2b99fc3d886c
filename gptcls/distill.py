"""python -m gptcls.distill: a small classifier learns what a large one answers (Hinton, Vinyals and Dean
2015, "Distilling the Knowledge in a Neural Network").

What teaches are the teacher's outputs as it gives them: calibrated where it is, of an ensemble the mean, of a
mixture with n-grams the mixture; with ``--hidden`` its vectors too. The student is any network that
gptcls.train takes, or none: hashed n-grams into a linear layer (:mod:`gptcls.classify.words`).

No text that the teacher was trained on is among the student's test rows: there the teacher is better than it
is elsewhere, and so is who learnt from it.
"""

import json
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import tyro
from torch import nn

from gptcls.classify.predict import TextClassifier, load_classifier, vectors_shown
from gptcls.classify.store import SavedClassifier, find_classifier
from gptcls.classify.words import holds_words
from gptcls.classify.words_store import save_words
from gptcls.common import cli
from gptcls.common.console import escaped, say
from gptcls.common.files import require_writable, write_json
from gptcls.common.help import ADVANCED
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.common.options import check_finite, flag, own_first
from gptcls.common.processes import require_one_process
from gptcls.core.errors import InputError
from gptcls.core.task import Task
from gptcls.data.clean import CLEANERS
from gptcls.data.columns import columns_of, find_text_columns, is_blank, text_values
from gptcls.data.fields import n_fields
from gptcls.data.labels import KINDS
from gptcls.data.options import data_help
from gptcls.data.readers import read_chunks
from gptcls.data.same_text import text_key
from gptcls.data.sources import SAMPLE
from gptcls.data.split import Split, load_split, names_in, save_split
from gptcls.evaluation.baselines import TFIDF
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.paired import decisions, differences, holm
from gptcls.evaluation.table import DIFFERENCE, format_differences
from gptcls.models.pretrained import weights_file
from gptcls.models.weight_files import present_parts
from gptcls.train.answers import choose_answers, first_decision
from gptcls.train.config import DataOptions, FitOptions, LanguageOptions, ModelOptions, TrainConfig
from gptcls.train.folder import RunFolder
from gptcls.train.resolve import resolve
from gptcls.train.rows import files_read, read_split, split_of
from gptcls.train.run import RESULT, Run, fit, train_in, write_run
from gptcls.train.setup import Setup, make_task
from gptcls.train.soft import Lesson, SoftTargets
from gptcls.train.words import fit_words

TEACHERS = "teacher"  # as --data: the teacher's own rows
ROWS = "of which the parts it has; otherwise the teacher's own rows, in its own parts"
DISTILLED, ALONE, NGRAMS = "distilled", "alone", "TF-IDF"  # as the table calls them
# What a student without a network has of training, and what goes with rows of one's own.
WITH_WORDS = ("calibrate", "threshold", "costs", "abstain")
WITH_DATA = (
    "validation", "test", "validation_fraction", "test_fraction", "label_column", "label_columns",
    "label_separator", "label_names",
)  # fmt: skip
SECONDS = 0.5  # that a measurement of speed takes at least


@dataclass(frozen=True, kw_only=True)
class TeachingOptions:
    """Who teaches, and how."""

    teacher: str | None = None
    """Folder that gptcls.train or gptcls.distill left, owner/name of one on the hub, or sms-spam-nano."""
    beside: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FOLDER …")] = ()
    """More teachers, of the same rows and labels, such as one for each pattern of --head lm: what is learnt
    is the mean of what all answer."""
    student: Literal["network", "words"] = "network"
    """The network that --model names; or none, but n-grams into a linear layer, for 10,000 and more short
    texts a second."""
    temperature: float = 2.0
    """What both sides' logits are divided by in the soft part of the loss: above 1, small probabilities count
    more."""
    soft: float = 0.5
    """Share of the soft part in the loss of a row with a label, 0 to 1; of rows without, it is all."""
    hidden: float = 0.0
    """Weight of a further part of the loss, such as 1: how differently the vectors that the heads of student
    and first teacher read arrange the texts of a batch (1 less their CKA)."""
    base: str | None = None
    """Where the weights are that the teacher was trained on, if it is stored without them and they moved."""
    allow_download: bool = False
    """Get them from the Hugging Face hub if the teacher says that they are there; presets always may."""


@own_first
@dataclass(frozen=True, kw_only=True)
class StudentsData(DataOptions):
    """The rows that the student learns from."""

    data: Annotated[str, data_help(ROWS)] = TEACHERS
    unlabelled: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File of texts without labels, which the student learns from by what the teacher says of them."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainConfig):
    """Train a small classifier on what a large one, the teacher, answers, and on labels where there are some.

    All other options are those of gptcls.train. The same student is trained a second time without a teacher,
    and the table says what each of them is worth.
    """

    FIRST_PAGE: ClassVar = (
        "teacher", "student", "data", "unlabelled", "task", "temperature", "soft", "model", "preset", "out",
    )  # fmt: skip
    GROUPS: ClassVar = TrainConfig.GROUPS | {
        "teaching": "distillation", "base": ADVANCED, "allow_download": ADVANCED,
    }  # fmt: skip

    teaching: TeachingOptions = field(default_factory=TeachingOptions)
    data: StudentsData = field(default_factory=StudentsData)

    @property
    def run_name(self) -> str:
        """What the run's folder is called where nothing else is said."""
        words = self.teaching.student == "words"
        return f"{'words' if words else Path(self.model.model).name}-from-{Path(self.teaching.teacher).name}"

    @property
    def alone(self) -> TrainConfig:
        """The same without a teacher."""
        values = self.flat()
        return TrainConfig.of(**{name: values[name] for name in TrainConfig.defaults()})


@dataclass(frozen=True)
class Distilled:
    """A distilled student, and what it is judged by, on the test rows."""

    run: Run
    scores: dict[str, dict]  # teacher, distilled, alone and the n-gram baseline -> scores
    pairs: dict[tuple[str, str], dict]  # what the distilled student has more than each other one
    costs: dict[str, tuple[float, int]]  # texts a second of one thread of a CPU, bytes on disk

    def table(self) -> str:
        """All of it for the terminal."""
        judge, width = judge_of(self.run.classifier.task), max(map(len, self.costs))
        lines = [f"{'':{width}}  texts/s  bytes on disk"]
        lines += [f"{name:{width}}  {rate:7,.0f}  {size:13,}" for name, (rate, size) in self.costs.items()]
        lines += ["Texts a second: of one thread of a CPU. Bytes: with the weights that it was trained on."]
        tables = judge.table(list(self.scores.items())), format_differences(self.pairs), "\n".join(lines)
        return "\n\n".join(tables)


def checked(config: DistillConfig) -> DistillConfig:
    """With every default that :func:`gptcls.train.resolve.resolve` knows; InputError for what cannot be."""
    values, defaults, teaching = config.flat(), config.defaults(), config.teaching
    if teaching.teacher is None:
        raise InputError("--teacher is missing: name the folder of a trained classifier")
    settled = resolve(config)
    check_finite({name: getattr(teaching, name) for name in ("temperature", "soft", "hidden")})
    if teaching.temperature <= 0:
        raise InputError(f"--temperature {teaching.temperature} is too small; use more than 0, such as 2")
    if not 0 <= teaching.soft <= 1:
        raise InputError(f"--soft {teaching.soft} is not a share; use 0 to 1")
    if teaching.hidden < 0:
        raise InputError(f"--hidden {teaching.hidden} is below 0; use 0 or more, such as 1")
    if teaching.hidden and (teaching.student == "words" or values["head"] == "lm"):
        given = "--student words" if teaching.student == "words" else "--head lm"
        raise InputError(f"--hidden is for a network with a new head; leave it or {given} out")
    if teaching.hidden and settled.model.train == "head":
        raise InputError("--hidden: with --train head nothing that it reads is trained; train more")
    if teaching.hidden and (n := values["batch_size"] or 8) < 3:
        raise InputError(f"--hidden compares a batch's texts: --batch-size {n} is too small; use 8 or more")
    if values["objective"] == "tokens" or values["mix"]:
        given = "--mix" if values["mix"] else "--objective tokens"
        raise InputError(f"{given} learns labels, not a teacher's answers; leave it out")
    if values["recipe"] == "book":
        raise InputError("--recipe book has no teacher; leave it out")
    if values["balance"] == "weights" and values["task"] == "single":
        raise InputError("--balance weights weighs labels, not a teacher's answers; use oversample")
    if values["repeats"] == "weight":
        raise InputError("--repeats weight is not for distillation; use keep")
    changed = [name for name, value in values.items() if value != defaults[name]]
    if values["data"] == TEACHERS and (given := [name for name in WITH_DATA if name in changed]):
        raise InputError(f"{flag(given[0])} goes with --data; without it the rows are the teacher's own")
    if teaching.student == "words":
        groups = (ModelOptions, LanguageOptions, FitOptions)
        of_networks = {each.name for group in groups for each in fields(group)} - {*WITH_WORDS}
        if given := [name for name in changed if name in of_networks]:
            raise InputError(f"{flag(given[0])} is for a network; leave it out with --student words")
    return settled


def distill(
    config: DistillConfig | None = None, *, explicit: Collection[str] = (), **options: Any
) -> Distilled:
    """Train a student as the options say, leave its run in a folder, and judge it next to its teacher.

    Options come in ``config``, one by one (``distill(teacher="runs/big", data="new.csv")``), or both; with
    ``explicit`` they are as in :func:`gptcls.train.run.train`. InputError for what cannot be used: a teacher
    of another task or other labels than the rows', and rows of which none is left to test on.
    """
    require_one_process("distill")
    config = (config or DistillConfig()).changed(**options)
    with RunFolder(config, RESULT, checked, {*explicit, *options}) as home:
        require_writable(home.path, "--out")
        teaching = home.config.teaching
        teacher = _teachers(teaching, home.config.run.device)
        home.config = _as_taught(home.config, teacher)
        split = load_split(home.path / "split") if home.has_rows else _split(home.config, teacher)
        _require_unseen(split, teaching.beside)
        names = sorted(names_in(split.train, KINDS[home.config.data.task]))
        if names != sorted(teacher.labels):
            said = f"answers {', '.join(teacher.labels)}; the rows have {', '.join(names)}"
            raise InputError(f"--teacher {teaching.teacher} {said}; give rows with the same labels")
        more = _unlabelled(home.config, split)
        if teaching.student == "words":
            run, alone = _words_in(home, split, teacher, more)
        else:
            with ExitStack() as after:
                run = train_in(home, split, lesson=partial(_lesson, home.config, teacher, more, after))
            log.info(f"saved in {run.folder}; now the same student without a teacher")
            alone = fit(run.split, settings=run.config.alone)
    on_cpu = _teachers(teaching, "cpu")
    distilled = _judged(run, alone, teacher, on_cpu)
    how = {name: getattr(teaching, name) for name in ("temperature", "soft", "hidden")}
    found = {"scores": distilled.scores} | how
    costs = {name: {"texts_per_second": r, "bytes": n} for name, (r, n) in distilled.costs.items()}
    found |= {"differences": {other: pair for (_, other), pair in distilled.pairs.items()}, "costs": costs}
    write_json(run.folder / "distillation.json", found)
    return distilled


class Teachers:
    """Several classifiers of the same labels as one, whose probabilities, or numbers, are the mean of theirs
    (Schick & Schütze 2021: of one for each pattern). In all else it is the first."""

    def __init__(self, classifiers: Sequence[TextClassifier]) -> None:
        self.classifiers, first = tuple(classifiers), classifiers[0]
        self.saved, self.labels = first.saved, first.labels

    def outputs_of(self, rows: list[str | None], vectors: bool = False) -> np.ndarray:
        """The mean (N, K), as :meth:`TextClassifier.outputs_of` of one; with ``vectors`` (N, K + C): behind
        that what the first one's head reads."""
        n, (first, *others) = len(self.labels), self.classifiers
        outputs, n_longer = first.scored(rows, vectors=True) if vectors else first.scored(rows)
        first.log_truncated(n_longer)
        each = [outputs[:, :n], *(other.outputs_of(rows) for other in others)]
        return np.concatenate([np.mean(each, axis=0), outputs[:, n:]], axis=1)

    def scored(self, rows: list[str | None]) -> np.ndarray:
        """The same, with nothing in the log of texts that are cut."""
        return np.mean([each.scored(rows)[0] for each in self.classifiers], axis=0)


def _teachers(teaching: TeachingOptions, device: str) -> Teachers:
    """Those that the options name; InputError where they do not answer the same question."""
    names, how = (teaching.teacher, *teaching.beside), {"allow_download": teaching.allow_download}
    if len(names) > 1 and teaching.base is not None:
        raise InputError(f"--base {teaching.base} is of one teacher; put base weights next to each instead")
    found = [load_classifier(name, device, base=teaching.base, **how) for name in names]
    first = found[0].saved
    for name, other in zip(names[1:], found[1:], strict=True):
        if (other.labels, other.saved.task.kind) != (found[0].labels, first.task.kind):
            raise InputError(f"--beside {name} has other labels than --teacher {names[0]}; leave it out")
        if other.saved.cleaning != first.cleaning:
            said = f"--beside {name} cleans texts otherwise than --teacher {names[0]}"
            raise InputError(f"{said}; leave it out")
    return Teachers(found)


def _require_unseen(split: Split, beside: Sequence[str]) -> None:
    """InputError where one of the other teachers was trained, or judged itself, on a test row."""
    test = _keys(split.test)
    for name in beside:
        place = find_classifier(name).resolve().parent / "split"
        own = load_split(place) if place.exists() else None
        if own is not None and (n := len(test & (_keys(own.train) | _keys(own.validation)))):
            said = f"--beside {name} was trained on {n:,} of the test rows"
            raise InputError(f"{said}; train it on the rows of --teacher, with the same --seed")


def _as_taught(config: DistillConfig, teacher: Teachers) -> DistillConfig:
    """With the teacher's order of two classes; InputError where it answers another kind of question."""
    task, name = teacher.saved.task, config.teaching.teacher
    if task.name != config.data.task:
        raise InputError(f"--teacher {name} is of --task {task.name}, not --task {config.data.task}")
    if config.teaching.hidden and not isinstance(getattr(teacher.saved.model, "head", None), nn.Linear):
        raise InputError(f"--hidden: no head of --teacher {name} reads one vector of a text; leave it out")
    own = config.data.data == TEACHERS
    if own and teacher.saved.cleaning != config.data.cleaning:
        way_out = "add --clean" if teacher.saved.cleaning != "none" else "leave --clean out, or give --data"
        raise InputError(f"--teacher {name}: its rows are cleaned otherwise; {way_out}")
    if task.name == "single" and len(task.labels) == 2 and config.data.positive is None:
        return config.changed(positive=task.labels[1])
    return config


# --- the rows ---


def _split(config: DistillConfig, teacher: Teachers) -> Split:
    """The student's rows, none to test on that the teacher was trained on: where they are the teacher's, in
    its own parts."""
    place = find_classifier(config.teaching.teacher).resolve().parent / "split"
    own = load_split(place) if place.exists() else None
    if config.data.data == TEACHERS:
        if own is None:
            raise InputError(f"--teacher {config.teaching.teacher} has no rows next to it; give --data")
        return split_of(Split(*(frame for _, frame in own.plain_items())), config)
    split = read_split(config.changed(extra=None, balance="none", augment=()))
    if own is None:
        log.info(f"no split lies next to the teacher ({place}): rows of its training flatter both")
        return split_of(split, config)
    parts = {part: _keys(frame) for part, frame in own.items()}
    rows = pd.concat([frame for _, frame in split.items()])
    keys = rows["text"].map(text_key)
    given = config.data.validation or config.data.test
    if not given and {*keys} == set().union(*parts.values()):
        log.info(f"{config.data.data}: the teacher's texts, in the teacher's own parts")
        split = Split(*(rows[keys.isin(known)].reset_index(drop=True) for known in parts.values()))
        return split_of(split, config)
    trained = parts["train"] | parts["validation"] | (set() if own.plain is None else _keys(own.plain))
    known = split.test["text"].map(text_key).isin(trained)
    if known.all():
        raise InputError(f"--data {config.data.data}: the teacher was trained on every test row; name others")
    if known.any():
        log.info(f"moved {known.sum():,} rows from test to train: the teacher was trained on their texts")
        train = pd.concat([split.train, split.test[known]], ignore_index=True)
        split = replace(split, train=train, test=split.test[~known].reset_index(drop=True))
    return split_of(split, config)


def _keys(frame: "pd.DataFrame") -> set[str]:
    return set(frame["text"].map(text_key))


def _unlabelled(config: DistillConfig, split: Split) -> list[str]:
    """The texts of ``--unlabelled``, each once, without those that stand in a part of the split."""
    if (path := config.data.unlabelled) is None:
        return []
    frame = pd.concat(read_chunks(path, dialect=config.data.dialect))
    names = find_text_columns(frame.columns, config.data.text_columns, frame[:SAMPLE], path)
    cleaned = map(CLEANERS[config.data.cleaning], filter(None, text_values(columns_of(frame, names, path))))
    texts = [text for text in cleaned if not is_blank(text)]
    known, found = set().union(*(_keys(rows) for _, rows in split.items())), {}
    for text in texts:
        if (key := text_key(text)) not in known:
            found.setdefault(key, text)
    rest = "the others repeat, or stand among the labelled rows"
    log.info(f"{path}: {len(found):,} of {len(texts):,} texts are learnt from; {rest}")
    if not found:
        raise InputError(f"--unlabelled {path}: no text is new; leave it out")
    return list(found.values())


# --- the student ---


def _taught(
    config: DistillConfig, teacher: Teachers, task: Task, texts: list[str]
) -> tuple[SoftTargets, np.ndarray]:
    """The loss, and what the teacher says of the texts (N, K), with ``--hidden`` its vectors beside it."""
    if teacher.labels != task.labels:
        said = f"--positive {config.data.positive} is not the second of its labels"
        raise InputError(f"--teacher {config.teaching.teacher}: {said}; leave --positive out")
    log.info(f"the teacher reads {len(texts):,} texts")
    teaching, outputs = config.teaching, teacher.outputs_of(texts, vectors=config.teaching.hidden > 0)
    return SoftTargets(task, teaching.temperature, teaching.soft, teaching.hidden), outputs


def _lesson(
    config: DistillConfig, teacher: Teachers, more: list[str], after: ExitStack, setup: Setup
) -> Lesson:
    """What a network learns: the training texts and ``more``, which have no labels. ``after`` is closed when
    it has learnt them."""
    saved, train = setup.saved, setup.split.train
    texts = [*train["text"], *more]
    soft, outputs = _taught(config, teacher, saved.task, texts)
    if config.teaching.hidden:
        after.enter_context(vectors_shown(saved.model.head, training=True))
    reads = saved.max_length, saved.pad_to, saved.tokenizer, saved.long
    return Lesson.of(soft, texts, train["label"].tolist(), outputs, *reads)


def _words_in(home: RunFolder, split: Split, teacher: Teachers, more: list[str]) -> tuple[Run, Run]:
    """The student of n-grams, in its folder, and the same without a teacher."""
    config, train = home.config, split.train
    task, _ = first_decision(config.fit, make_task(split, config))
    texts, labels = [*train["text"], *more], train["label"].tolist()
    soft, outputs = _taught(config, teacher, task, texts)
    folder = home.begin(None, torch.device("cpu"), torch.float32, "", files_read(config),
                        partial(save_split, split))  # fmt: skip
    with home.scoring():
        run = _words(config, split, texts, soft.targets(labels, outputs), soft)
        run = replace(run, folder=folder)
        save_words(folder / RESULT, run.classifier)
        write_run(folder, run)
    alone = _words(config.alone, split, texts[: len(labels)], task.targets(labels), task, run)
    return run, alone


def _words(
    config: TrainConfig, split: Split, texts: Sequence[str], targets: Any, learnt: Task | SoftTargets,
    other: Run | None = None,
) -> Run:  # fmt: skip
    """A student of n-grams that learnt these, scored beside the baselines, or those of ``other``."""
    task, decision = first_decision(config.fit, make_task(split, config))
    rows = {part: (f["text"].tolist(), task.targets(f["label"].tolist())) for part, f in split.items()}
    started = time.perf_counter()
    words = fit_words(texts, targets, learnt, rows["validation"])
    seconds = time.perf_counter() - started
    saved = SavedClassifier(
        words, task, 0, None, None, config.to_json(), {}, cleaning=config.data.cleaning,
        text_columns=config.data.text_columns, decision=decision, fields=n_fields(texts),
    )  # fmt: skip
    logits = {part: words.logits(texts) for part, (texts, _) in rows.items()}
    true = {part: targets.numpy() for part, (_, targets) in rows.items()}
    outputs = choose_answers(saved, config.fit, split, logits, true)
    judge = judge_of(saved.task, saved.decision)
    saved.scores = {part: judge.scores_of(frame, true[part], outputs[part]) for part, frame in split.items()}
    if other is None:
        rivals = judge.rivals(task.labels)
        plain = {part: (f["text"].tolist(), f["label"].tolist()) for part, f in split.plain_items()}
        baselines = rivals.scores({p: (texts, task.targets(x).numpy()) for p, (texts, x) in plain.items()})
    else:
        rivals, baselines = other.rivals, {}
    for name, part in ((name, part) for name in baselines for part in ("validation", "test")):
        ours = decisions(saved.task, outputs[part], saved.decision)
        found = differences(task, true[part], ours, rivals.decided[name][part])
        baselines[name][part][DIFFERENCE] = found
    return Run(config, split, saved, saved.scores, baselines, true, outputs, [], 0, seconds, rivals=rivals)


# --- what it is worth ---


def _judged(run: Run, alone: Run, teacher: Teachers, on_cpu: Teachers) -> Distilled:
    """The four of them on the student's test rows; ``on_cpu`` is the teacher where its speed is measured."""
    task, true, texts = run.classifier.task, run.targets["test"], run.split.test["text"].tolist()
    taught, rivals = teacher.saved, run.rivals
    outputs = teacher.outputs_of(texts)
    decided = {"teacher": decisions(taught.task, outputs, taught.decision)}
    scores = {"teacher": judge_of(taught.task, taught.decision).scores(true, outputs)}
    for name, one in ((DISTILLED, run), (ALONE, alone)):
        scores[name] = one.scores["test"]
        decided[name] = decisions(one.classifier.task, one.outputs["test"], one.classifier.decision)
    student = load_classifier(run.folder, "cpu")
    costs = {
        "teacher": (texts_per_second(on_cpu.scored, texts), _bytes_of_all(run.config.teaching, on_cpu)),
        DISTILLED: (texts_per_second(student.scored, texts), bytes_on_disk(run.folder, student)),
    }
    if (ngrams := rivals.ngram_model()) is not None:
        scores[NGRAMS] = {k: v for k, v in run.baselines[TFIDF]["test"].items() if k != DIFFERENCE}
        decided[NGRAMS] = rivals.decided[TFIDF]["test"]
        with tempfile.TemporaryDirectory() as place:
            ngrams.save(Path(place))
            costs[NGRAMS] = texts_per_second(ngrams.outputs, texts), _bytes(Path(place))
    others = [name for name in decided if name != DISTILLED]
    pairs = {(DISTILLED, x): differences(task, true, decided[DISTILLED], decided[x]) for x in others}
    tested = [pair for pair in pairs.values() if "p" in pair]
    for pair, p in zip(tested, holm([pair["p"] for pair in tested]), strict=True):
        pair["p_holm"] = p
    return Distilled(run, scores, pairs, costs)


def _bytes_of_all(teaching: TeachingOptions, teachers: Teachers) -> int:
    """Of all teachers, each with its base weights."""
    names = (teaching.teacher, *teaching.beside)
    return sum(bytes_on_disk(name, x) for name, x in zip(names, teachers.classifiers, strict=True))


def texts_per_second(outputs: Callable[[list[str]], Any], texts: Sequence[str]) -> float:
    """How many texts ``outputs`` answers in a second of one thread's time, with all that is between a
    text and its answer; taken from as many as take :data:`SECONDS`."""
    threads, n = torch.get_num_threads(), 64
    torch.set_num_threads(1)
    try:
        outputs(list(texts[:8]))  # what is built at first use
        while True:
            some = list(islice(cycle(texts), n))
            started = time.process_time()
            outputs(some)
            if (took := time.process_time() - started) >= SECONDS:
                return n / took
            n *= 4
    finally:
        torch.set_num_threads(threads)


def bytes_on_disk(folder: str | Path, classifier: TextClassifier) -> int:
    """What a classifier takes, with the base weights where it is stored without them."""
    home = find_classifier(folder)
    description = json.loads((home / "classifier.json").read_text(encoding="utf-8"))
    total = _bytes(home)
    if not holds_words(home) and description["tensors"] != "all":
        parts = present_parts(weights_file(classifier.saved.base["name"], download=False))
        total += sum(part.stat().st_size for part in parts)
    return total


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _distill_and_print(config: DistillConfig) -> None:
    found = distill(config, explicit=cli.given_options())
    say(found.table())
    say(f"\nsaved in {escaped(str(found.run.folder))}")


def main() -> None:
    cli.run(DistillConfig, _distill_and_print)


if __name__ == "__main__":
    main()
