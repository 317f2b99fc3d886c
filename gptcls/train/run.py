"""From rows and pretrained weights to a classifier: :func:`fit` in memory, :func:`train` in a folder; in
several processes of ``torchrun`` too, which share the work."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from gptcls.classify.answers import answered
from gptcls.classify.mixture import NETWORK, fit_mixture, mean_outputs
from gptcls.classify.predict import TextClassifier, networks_of, ready
from gptcls.classify.store import SavedClassifier, save_classifier
from gptcls.common.console import SaidElsewhereError
from gptcls.common.files import require_writable, write_json
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.lazy import pd
from gptcls.common.log import log
from gptcls.common.options import flag
from gptcls.common.processes import all_or_none, join_processes, processes
from gptcls.core.answer import dataset_logits
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.core.loop import Hook, NonFiniteLossError, Trainer, decay_groups, evaluate_loader
from gptcls.core.tokenizer import Tokenizer
from gptcls.data.fields import in_columns
from gptcls.data.repeats import raw_rows, weights_of
from gptcls.data.split import PARTS, Split, load_split, save_split
from gptcls.data.writer import ChunkWriter
from gptcls.evaluation import report
from gptcls.evaluation.baselines import MOST_FITTED, PROBE, Baselines, Parts
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.mistakes import write_mistakes
from gptcls.evaluation.paired import decisions, differences
from gptcls.evaluation.table import DIFFERENCE
from gptcls.fast.adamw import AdamW, TableAdamW
from gptcls.fast.features import FeatureDataset, Means
from gptcls.fast.frozen import Answering, Staged
from gptcls.fast.packed import Packed
from gptcls.fast.parts import by_length
from gptcls.models.lora import plus_groups
from gptcls.train.answers import choose_answers
from gptcls.train.card import card
from gptcls.train.config import TrainConfig
from gptcls.train.ensemble import Glances, Members, put, spread
from gptcls.train.folder import RunFolder
from gptcls.train.hooks import (
    BestWeights,
    Checkpoints,
    EpochLines,
    ProgressBar,
    StopOnSignal,
    read_checkpoint,
)
from gptcls.train.language import loss_of
from gptcls.train.mix import MixedNetwork, mixed_loader
from gptcls.train.processes import (
    CheckpointsTogether,
    SharedAnswers,
    SharedTrainer,
    StopTogether,
    SumGradients,
)
from gptcls.train.resolve import resolve
from gptcls.train.rows import files_read, read_split, split_of
from gptcls.train.second_try import save_somewhere
from gptcls.train.setup import Setup, make_loaders, prepare, restart, stage
from gptcls.train.shards import EvenOfNoRows, Shards, SumLoss
from gptcls.train.soft import Lesson
from gptcls.train.weights import Weighted, weighted

RESULT = "classifier"  # the folder that a finished run leaves in its own
LESSON = "lesson"  # beside the parts of the split, while the frozen blocks run
CALL, CALL_OF_A_GPU = 32, 4096  # positions of training that take as long as what a call costs besides
NEED_VALIDATION = {"patience": (0,), "stack": (None, "none"), "threshold": ("none", "cost")}
IN_MEMORY = "frame"  # what --data is in config.json, and in the folder's name, for rows in memory
AnyConfig = TypeVar("AnyConfig", bound=TrainConfig)


@dataclass
class Run:
    """A finished run: the classifier in memory and what was measured. ``run.predict(texts)`` uses it."""

    config: TrainConfig
    split: Split
    classifier: SavedClassifier
    scores: dict[str, dict]  # part -> scores
    baselines: dict[str, dict[str, dict]]  # baseline -> part -> scores
    targets: dict[str, np.ndarray]  # part -> (N,) or (N, K)
    outputs: dict[str, np.ndarray]  # part -> (N, K), probabilities or numbers
    history: list[dict]  # the curves
    best_epoch: int  # where the weights are from; 0: the last
    seconds: float  # of training
    extra: dict[str, Any] = field(default_factory=dict)  # the book's recipe prints; each network of several
    folder: Path | None = None
    rivals: Baselines | None = None  # the baselines, fitted

    @cached_property
    def predictor(self) -> TextClassifier:
        """The classifier ready for texts, as :func:`gptcls.load_classifier` gives one from a folder."""
        device = pick_device(self.config.run.device)
        return ready(self.classifier, device, self.config.run.precision or "auto")

    def predictions(self, part: str) -> "pd.DataFrame":
        """The texts and labels of a part next to :func:`gptcls.classify.answers.answered`."""
        rows = getattr(self.split, part)[["text", "label"]].reset_index(drop=True)
        saved = self.classifier
        return pd.concat([rows, answered(saved.task, self.outputs[part], saved.decision)], axis=1)

    def predict(self, texts: Any, **options: Any) -> Any:
        """See :meth:`gptcls.classify.predict.TextClassifier.predict`."""
        return self.predictor.predict(texts, **options)

    def predict_proba(self, texts: Any, **options: Any) -> np.ndarray:
        """See :meth:`gptcls.classify.predict.TextClassifier.predict_proba`."""
        return self.predictor.predict_proba(texts, **options)


def fit(
    rows: Any, model: str | Path | nn.Module | None = None, settings: TrainConfig | None = None, *,
    labels: Any = None, tokenizer: Tokenizer | None = None, hooks: Sequence[Hook] = (),
    lesson: Callable[[Setup], Lesson] | None = None, **options: Any,
) -> Run:  # fmt: skip
    """Train a classifier on rows in memory; no file is written but a cache.

    >>> import pandas as pd
    >>> texts = [f"{word} {i}" for i in range(20) for word in ("free prize, call now", "see you at lunch")]
    >>> frame = pd.DataFrame({"text": texts, "label": ["spam", "ham"] * 20})
    >>> run = fit(frame, epochs=3)
    >>> run.predict("free prize, call now")
    'spam'

    ``rows`` are a frame with a text and a label column, split here; a mapping of the parts ``"train"`` and,
    perhaps, ``"validation"`` and ``"test"`` to such frames; a :class:`Split`; or, with ``labels``, texts in a
    list, Series, array or frame (:func:`gptcls.data.in_memory.labelled_rows`). ``model`` is as ``--model``
    (also a classifier), or a network of your own that keeps the backbone's contract (:class:`Classifier`),
    trained in place, and ``tokenizer`` is its own if it is not GPT-2's. A ``lesson`` is what is learnt in
    place of the training rows' labels. ``options`` are laid over ``settings``.

    InputError for what cannot be used, TypeError for an unknown option and rows that are of no such type.
    """
    own = model if isinstance(model, nn.Module) else None
    if not isinstance(model, str | Path | nn.Module | None):
        kind = type(model).__name__
        raise TypeError(f"model is a name, a path or a network, not {kind}; labels go in labels=")
    if model is not None:
        options["model"] = type(own).__name__ if own is not None else str(model)
    config = resolve((settings or TrainConfig()).changed(**options))
    setup = prepare(split_of(rows, config, labels), config, own, tokenizer)
    setup.lesson = lesson and lesson(setup)
    join_processes()
    trainer = trained(setup, hooks)
    return _score(setup, trainer, *_look(setup, trainer))


def trained(setup: Setup, hooks: Sequence[Hook] = ()) -> Trainer:
    """Train what :func:`gptcls.train.setup.prepare` made ready, and return the loop at its end; of an
    ensemble the last network's."""
    for trainer in _trainers(setup, hooks):
        carry_out(trainer)
    setup.gather()
    return trainer


def fit_classifier(split: Split, config: TrainConfig, own: nn.Module | None = None) -> SavedClassifier:
    """The classifier of :func:`fit` and nothing else: no scores, no baselines; its test part is to be empty.
    ``config`` is resolved. Rows may have weights in the loss (:mod:`gptcls.data.repeats`).

    Without validation rows probabilities are as they come out and labels are given from 0.5; InputError for
    what can only be chosen on such rows."""
    setup = prepare(split, config, own)
    saved, options, held = setup.saved, setup.config.fit, split.validation["text"].tolist()
    for name, default in () if held else NEED_VALIDATION.items():
        if getattr(options, name) not in default:
            given = f"{flag(name)} {getattr(options, name)}"
            said = f"{given} is judged on validation rows, and there are none"
            raise InputError(f"{said}: draw some, or leave it out")
    trainer = trained(setup)
    logits = _logits(setup, trainer, ("validation",))
    targets = {part: dataset.targets.numpy() for part, dataset in setup.datasets.items()}
    if options.stack == "ngrams":
        rivals = judge_of(saved.task).rivals(saved.task.labels, most=None)
        parts = [(part, f) for part, f in split.plain_items() if part != "test"]
        rows = {part: (f["text"].tolist(), saved.task.targets(f["label"].tolist())) for part, f in parts}
        rivals.scores({part: (texts, values.numpy()) for part, (texts, values) in rows.items()})
        if (ngrams := rivals.ngram_model()) is not None:
            saved.mixture = fit_mixture(saved.task, ngrams, logits["validation"], targets["validation"], held)
    choose_answers(saved, options, split, logits, targets)
    return saved


def train(
    config: TrainConfig | None = None, *, labels: Any = None, explicit: Collection[str] = (), **options: Any
) -> Run:
    """Train a classifier as the options say and leave everything about it in the run's folder.

    Of several processes, as ``torchrun`` starts them, the first one writes it, and the others return a run
    without scores.

    Options come in ``config``, one by one (``train(data="reviews.csv", epochs=3)``), or both. ``data`` may
    also be rows in memory, with ``labels`` where they have none, as :func:`fit` takes them. Options given
    one by one or named in ``explicit`` may not differ from the run's that is resumed, defaults either.
    InputError for what cannot be used, KeyboardInterrupt after Ctrl-C, once what is trained so far is saved.
    """
    config = (config or TrainConfig()).changed(**options)
    config, rows = rows_apart(config, labels)
    rank, _ = join_processes()
    with ExitStack() as stack:
        with all_or_none():
            folder = RunFolder(config, RESULT, resolve, {*explicit, *options}, writes=rank == 0)
            home = stack.enter_context(folder)
            split = rows_of(home, None if rows is None else split_of(rows, home.config, labels))
        return train_in(home, split)


def rows_apart(config: AnyConfig, labels: Any = None) -> tuple[AnyConfig, Any]:
    """The options without rows in memory, and these, or None where ``data`` names a file."""
    rows = config.data.data
    if rows is None:
        raise TypeError("data is the name of a file, or rows, got NoneType")
    if not isinstance(rows, str | Path):
        return config.changed(data=IN_MEMORY), rows
    if labels is not None:
        raise TypeError("labels= go with data=, texts in memory; of a file give label_column=")
    return config, None


def rows_of(home: RunFolder, given: Split | None = None) -> Split:
    """The rows that stand in the folder or, of a new run, those ``given`` or of its files."""
    if home.has_rows:
        split = load_split(home.path / "split")
        for part, frame in () if given is None else split.items():
            if any(list(frame[name]) != list(getattr(given, part)[name]) for name in ("text", "label")):
                raise InputError(f"the {part} rows given are not those that {home.path} was started with")
        return split
    if given is None and home.resume and home.config.data.data == IN_MEMORY:
        said = f"{home.path} was ended before it held its rows, which were in memory"
        raise InputError(f"{said}; give them again as data=, or start a new run")
    return read_split(home.config) if given is None else given


def train_in(
    home: RunFolder, split: Split, lesson: Callable[[Setup], Lesson] | None = None, start: str | None = None
) -> Run:
    """:func:`train` on these rows, in this folder; ``lesson`` as in :func:`fit`. It starts from ``start``, a
    path inside the folder, where that is given, and from ``--model`` otherwise."""
    config, model = home.config, home.config.model.model
    if start is not None:
        config = config.changed(model=str(home.path / start))
    with all_or_none(lambda: (setup.split.sha256(), setup.config.flat(), setup.saved.base)):
        if home.writes:
            require_writable(home.path, "--out")
        device = pick_device(config.run.device)
        dtype = pick_dtype(config.run.precision, device)
        if home.continues:
            # A damaged one is refused now, not after the frozen pass.
            read_checkpoint(home.path / "checkpoint")
        setup = prepare(split, config)
        setup.lesson = lesson and lesson(setup)
        changed = f"{config.model.model} no longer has the weights {home.path} was started from"
        if start is not None:  # what config.json says is true wherever the folder is read from
            setup.origin = setup.origin and setup.origin | {"name": start}
            setup.config = setup.config.changed(model=model)
            setup.saved.training = setup.config.to_json()
        saved, config = setup.saved, setup.config
        home.config = config
        write_rows = partial(save_split, setup.split)
        folder = home.begin(setup.origin, device, dtype, changed, files_read(config), write_rows)
        full = store_everything(config, saved.base)
        if home.writes:
            require_writable(folder, "--out", _bytes_of(setup, full))
    hooks = _hooks(home)

    def save(where: Path = folder, baselines: dict | None = None) -> None:
        setup.gather()
        if home.writes:
            save_classifier(where / RESULT, saved, full, card(saved, baselines))

    try:
        for trainer in _trainers(setup, hooks):
            with home.running(trainer, save, f"saved so far: {folder}"):
                carry_out(trainer)
            home.resume = home.continues = False  # what the checkpoint held is done
    except NonFiniteLossError as error:
        if _best(trainer).kept_step:
            save()
            home.finish()
        if not home.writes:
            raise SaidElsewhereError(str(error)) from None
        raise
    setup.gather()
    able = None if config.run.shard else trainer
    with all_or_none():
        if home.writes:
            save_somewhere(home, save, able)  # before anything else can go wrong
    with home.scoring():
        looked = _look(setup, trainer)
        if not home.writes:
            progress, measured = trainer.progress, ({}, {}, {}, {})
            end = progress.history, _best(trainer).best_epoch, progress.seconds
            return Run(config, split, saved, *measured, *end)
        run = _score(setup, trainer, *looked)
        scored = partial(save, baselines=run.baselines)
        run = replace(run, folder=save_somewhere(home, scored, able))
        write_run(run.folder, run)
    return run


def _hooks(home: RunFolder) -> list[Hook]:
    """Ctrl-C, and checkpoints, which of several processes the first one writes."""
    stop, folder = StopOnSignal() if processes()[1] == 1 else StopTogether(), home.path / "checkpoint"
    if home.config.run.shard:
        return [stop, CheckpointsTogether(folder)]
    return [stop, Checkpoints(folder)] if home.writes else [stop]


def _trainers(setup: Setup, hooks: Sequence[Hook] = ()) -> Iterator[Trainer]:
    """The trainer of the run; of an ensemble that of one network after the other, each as it is to be trained
    next. A checkpoint that is loaded into the first has those that were done before."""
    model, seeds, members = setup.saved.model, setup.config.fit.seeds, Members(setup.saved)
    if not seeds:
        yield trainer_of(setup, hooks)
        return
    start = {name: p.detach().clone() for name, p in model.trained_parameters().items()}
    while len(members.done) < len(seeds):
        number = len(members.done)
        log.info(f"network {number + 1} of {len(seeds)}, seed {seeds[number]}")
        restart(setup, seeds[number], start)
        lines = partial(Glances, members, len(seeds))  # the run's curves are the last one's
        trainer = trainer_of(setup, [*hooks, members], seeds[number], lines)
        yield trainer
        if len(members.done) < len(seeds):  # a checkpoint of the run's end has them all
            members.add(model)
    setup.saved.members = tuple(members.done[1:])
    put(model, members.done[0])


def trainer_of(
    setup: Setup, hooks: Sequence[Hook] = (), seed: int | None = None,
    lines: Callable[..., EpochLines] = EpochLines,
) -> Trainer:  # fmt: skip
    """The loop over the part of the network that is trained; what is frozen is computed here, once."""
    config, split, lesson = setup.config, setup.split, setup.lesson
    task = loss_of(config, setup.saved.task) if lesson is None else lesson.task
    if setup.network is None:
        parts = setup.datasets if lesson is None else setup.datasets | {LESSON: lesson.dataset}
        setup.network, setup.datasets = stage(setup.saved.model, parts, config, setup.device)
        if lesson is not None:
            lesson.dataset = setup.datasets.pop(LESSON)
        for other in setup.others:
            network, found = stage(other.model, {"train": other.dataset}, config, setup.device)
            other.model, other.dataset = network, found["train"]
        if setup.others:
            setup.network = MixedNetwork(setup.network, [other.model for other in setup.others])
        setup.shards = Shards(setup.saved.model, setup.device) if config.run.shard else None
    network = setup.network
    weights = raw_rows(split.train) if config.data.repeats == "weight" else None
    setup.loaders = loaders = make_loaders(setup.datasets, config, weights)
    if lesson is not None:
        loaders["train"] = lesson.loader(config.fit.batch_size)
    if setup.others:
        loaders["train"] = mixed_loader(setup.datasets["train"], setup.others, config.fit.batch_size)
    for part, frame in split.items():
        if labels := frame["label"].tolist():
            log.info(f"{part}: {len(labels):,} texts, {judge_of(setup.saved.task).summary(labels)}")
        if labels and (in_loss := weights_of(frame)) is not None:
            loaders[part] = weighted(loaders[part], torch.from_numpy(in_loss))
    if weights_of(split.train) is not None:
        task = Weighted(task, setup.datasets["train"].targets)
    torch.manual_seed(config.run.seed if seed is None else seed)
    if config.run.recipe == "book":  # sections 6.5 and 6.6 look before they train, then seed again
        looks = ((loaders[part], setup.device, n) for n in (10, 5) for part in PARTS)  # in the book's order
        seen = [evaluate_loader(network, task, *look) for look in looks]
        setup.look_before = {
            part: {"accuracy": ten[1], "loss": five[0]}
            for part, ten, five in zip(PARTS, seen[:3], seen[3:], strict=True)
        }
        torch.manual_seed(config.run.seed)
    options = config.fit
    book, freq, n_batches = config.run.recipe == "book", options.eval_freq, options.eval_iter
    # At most half as many validation rows as were trained on since: a sixth of the work of training.
    val_iter = n_batches if book else max(n_batches, freq // 2)
    full = options.patience > 0 or not book
    rank, world = processes()
    own = [] if rank else [ProgressBar("training")]
    if len(split.validation):
        own.append(lines(loaders["validation"], freq, n_batches, full, val_iter))
    hooks = [*own, BestWeights(options.patience), *hooks]
    how: dict[str, Any] = {}
    padding = not book and getattr(network, "minds_padding", True)
    # Vectors of a teacher are compared over the whole batch.
    whole = setup.saved.model.pool.sees_padding or setup.shards or (lesson and lesson.task.hidden)
    if padding and not whole:
        how["parts"] = partial(by_length, worth=CALL if setup.device.type == "cpu" else CALL_OF_A_GPU)
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = decay_groups(trained, options.weight_decay, options.decay_on)
    if (factor := config.model.lora_plus or 1.0) != 1.0:
        groups = plus_groups(groups, setup.saved.model.backbone, factor)
    table = network.make_table_sparse() if isinstance(network, Packed) else None
    how["optimizer"] = AdamW(groups, options.lr) if table is None else TableAdamW(groups, options.lr, table)
    rows, device = loaders["train"], setup.device
    if world == 1:
        return Trainer(network, task, rows, options.settings, device, hooks, **how)
    how["seed"] = config.run.seed if seed is None else seed
    if setup.shards:
        hooks, task, how["evenly"] = [SumLoss(), *hooks], EvenOfNoRows(task), True
    else:
        hooks = [SumGradients(), *hooks]
    return SharedTrainer(network, task, rows, options.settings, device, hooks, **how)


def _best(trainer: Trainer) -> BestWeights:
    return next(hook for hook in trainer.hooks if isinstance(hook, BestWeights))


def carry_out(trainer: Trainer) -> None:
    """Train; where it diverges, go back to the last good weights."""
    try:
        trainer.fit()
    except NonFiniteLossError as error:
        best = _best(trainer)
        best.go_back(trainer)
        n = best.kept_step
        kept = f"the weights after {n} steps are kept" if n else "nothing worth keeping was trained"
        raise NonFiniteLossError(f"{error}: {kept}; try a smaller --lr") from None


def _look(setup: Setup, trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The logits of every part, see :func:`_logits`, and what the book prints besides: all that processes
    which share the work have to compute together."""
    model, device, extra = trainer.model, setup.device, {}
    if setup.look_before:  # the book's last lines; its train loader drops the incomplete batch
        # The number of batches is given since a shuffled loader's rows cannot be put together to texts.
        task, loaders = setup.saved.task, setup.loaders
        looks = {part: evaluate_loader(model, task, x, device, len(x)) for part, x in loaders.items()}
        by_loader = {part: accuracy for part, (_, accuracy) in looks.items()}
        extra = {"before_training": setup.look_before, "accuracy_by_loader": by_loader}
    return _logits(setup, trainer), extra


def _score(setup: Setup, trainer: Trainer, logits: dict[str, Tensor], extra: dict[str, Any]) -> Run:
    """Score every part next to the baselines; what is tuned on validation rows becomes the classifier's."""
    saved, split, task = setup.saved, setup.split, setup.saved.task
    targets = {part: dataset.targets.numpy() for part, dataset in setup.datasets.items()}
    rows = {part: (f["text"].tolist(), task.targets(f["label"].tolist())) for part, f in split.plain_items()}
    texts = {part: (texts, values.numpy()) for part, (texts, values) in rows.items()}
    stacked = setup.config.fit.stack == "ngrams"
    most = None if stacked else MOST_FITTED  # what is a part of the answer sees all rows
    rivals = judge_of(task).rivals(task.labels, most)
    baselines = rivals.scores(texts, _frozen_vectors(setup))
    if stacked and (ngrams := rivals.ngram_model()) is None:
        log.info("--stack ngrams: there are none, so the network answers alone")
    elif stacked:
        alone = {part: mean_outputs(task, values) for part, values in logits.items()}
        judge = judge_of(judge_of(task).tuned(targets["validation"], alone["validation"]))
        baselines = {NETWORK: {part: judge.scores(targets[part], alone[part]) for part in alone}} | baselines
        rivals.outputs[NETWORK] = alone
        rivals.decided[NETWORK] = {part: decisions(judge.task, values) for part, values in alone.items()}
        held = targets["validation"], split.validation["text"].tolist()
        saved.mixture = fit_mixture(task, ngrams, logits["validation"], *held)
    outputs = choose_answers(saved, setup.config.fit, split, logits, targets)
    judge = judge_of(saved.task, saved.decision)
    saved.scores = {part: judge.scores_of(f, targets[part], outputs[part]) for part, f in split.items()}
    if split.plain is not None:  # rows were made or left out: how often the data repeats a text is not seen
        saved.scores["train"] = judge.scores(targets["train"], outputs["train"])
    if seeds := setup.config.fit.seeds:
        texts = {part: frame["text"].tolist() for part, frame in split.items()}
        alone = [  # with all else that is between logits and answers
            {part: saved.outputs(x[i], texts[part]) for part, x in logits.items()} for i in range(len(seeds))
        ]
        found = [{part: judge.scores(targets[part], own[part]) for part in own} for own in alone]
        extra["networks"] = spread(saved.task, seeds, found, saved.scores)
    measured = (saved.scores, baselines, targets, outputs)
    for name, part in product(baselines, ("validation", "test")):
        pair = decisions(saved.task, outputs[part], saved.decision), rivals.decided[name][part]
        found, theirs = baselines[name][part], rivals.outputs[name][part]
        found[DIFFERENCE] = differences(task, targets[part], *pair)
        if saved.decision.costs is not None and len(theirs):  # their answers by the same rule
            found["cost"] = saved.decision.cost(task, targets[part], theirs)
    progress = trainer.progress
    end = progress.history, _best(trainer).best_epoch, progress.seconds
    return Run(setup.config, split, saved, *measured, *end, extra, rivals=rivals)


def _logits(setup: Setup, trainer: Trainer, parts: Collection[str] = PARTS) -> dict[str, Tensor]:
    """Of each part (N, K); of an ensemble of each network, (M, N, K). They come from the form in which the
    classifier answers, on features where the run has them; with ``--shard``, which no card may hold whole,
    from the form that trained."""
    saved, config, device = setup.saved, setup.config, setup.device
    dtype = pick_dtype(config.run.precision, device)
    saved.model.eval()
    if config.run.shard:
        networks = [trainer.model]
    else:
        kept = isinstance(setup.datasets["train"], FeatureDataset)
        form = partial(Answering, depth=saved.model.frozen_blocks) if kept else Staged
        networks = (form(each, dtype=dtype) for each in networks_of(saved, device))
        if isinstance(trainer, SharedTrainer):
            networks = map(SharedAnswers, networks)
    rows = {part: setup.datasets[part] for part in parts}
    found = [{part: dataset_logits(each, rows[part], device) for part in parts} for each in networks]
    return {part: torch.stack([x[part] for x in found]) for part in parts} if saved.members else found[0]


def _frozen_vectors(setup: Setup) -> Parts | None:
    """What the frozen blocks say of each text, where the run computed it, for the probe; of the training rows
    those as labelled."""
    split, datasets = setup.split, setup.datasets
    if not isinstance(datasets["train"], FeatureDataset):
        log.info(f"{PROBE} left out: this run trains all of them or keeps no output of theirs")
        return None
    parts = {part: (x.vectors, x.targets.numpy()) for part, x in datasets.items()}
    if split.plain is not None:
        first = {text: row for row, text in reversed(list(enumerate(split.train["text"])))}
        rows = [first[text] for text in split.plain["text"] if text in first]
        vectors, targets = parts["train"]
        own = Means(datasets["train"], rows) if isinstance(vectors, Means) else vectors[rows]
        parts["train"] = own, targets[rows]
    return parts


def _bytes_of(setup: Setup, full: bool) -> int:
    """What the tensors of the classifier take; of an ensemble's other networks those that are trained."""
    others = len(setup.config.fit.seeds[1:])
    return sum(
        p.numel() * p.element_size() * ((full or p.requires_grad) + others * p.requires_grad)
        for p in setup.saved.model.parameters()
    )


def store_everything(config: TrainConfig, base: dict | None) -> bool:
    """Whether the saved classifier holds all tensors, or only those that were trained."""
    train, save = config.model.train, config.run.save
    if base is None or train == "all" or save == "full":
        return True
    if config.language.head == "lm" and not config.fit.epochs:
        return False
    return save == "auto" and base["name"] not in PRESETS and train != "lora"


def write_run(folder: Path, run: Run) -> None:
    """Scores, curves, pictures, answers and mistakes of a run."""
    task, extra = run.classifier.task, {"seconds_training": round(run.seconds, 2)} | run.extra
    write_json(folder / "metrics.json", {"scores": run.scores, "baselines": run.baselines} | extra)
    columns = ["step", "epoch", "examples_seen", "lr", "train_loss", "val_loss"]
    columns += [f"train_{task.measure_name}", f"val_{task.measure_name}", "full_val_loss"]
    columns += ["train_rows", "val_rows"]
    report.write_history(folder / "history.csv", run.history, columns)
    test = run.targets["test"], run.outputs["test"], run.scores["test"]
    decision = run.classifier.decision
    report.write_pictures(folder, task, *test, run.history, run.best_epoch, decision)
    judge, parts = judge_of(task, decision), ("validation", "test")
    found = {part: judge.mistakes(run.targets[part], run.outputs[part]) for part in parts}
    texts = {part: getattr(run.split, part)["text"].tolist() for part in parts}
    where = "Rows are those of split/, counted from 1; predictions.csv has every answer."
    write_mistakes(folder / "mistakes.md", {part: (texts[part], found[part]) for part in parts}, where)
    escape = run.config.run.escape_formulas
    with ChunkWriter(folder / "predictions.csv", escape_formulas=escape) as writer:
        for part in parts:
            rows = in_columns(run.predictions(part))
            rows.insert(0, "part", part)
            writer.write(rows)
