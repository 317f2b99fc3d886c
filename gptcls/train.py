"""python -m gptcls.train: from rows and pretrained weights to a classifier in a folder.

This is the one place where all rooms of the house are composed.
"""

import logging
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from gptcls import cli, report, runs
from gptcls.atomic import write_json
from gptcls.classifier import Classifier
from gptcls.config import TrainConfig
from gptcls.data import book, prepare
from gptcls.data.batches import TextDataset, bucket_loader, plain_loader
from gptcls.data.prepare import Split
from gptcls.data.sources import load_data
from gptcls.device import pick_device
from gptcls.errors import InputError
from gptcls.evaluation.baseline import baselines
from gptcls.inference import rows_logits
from gptcls.models.gpt2 import GPT2, PRESETS
from gptcls.models.pretrained import load_pretrained, weights_sha256
from gptcls.store import SavedClassifier, save_classifier
from gptcls.tasks import SingleLabel
from gptcls.tokenizer import VOCAB_SIZE
from gptcls.training.checkpoint import load_checkpoint, save_checkpoint
from gptcls.training.evaluate import evaluate_loader
from gptcls.training.loop import FitSettings, NonFiniteLossError, Progress, Trainer

log = logging.getLogger("gptcls")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, what it measured, and the classifier in memory."""

    folder: Path
    scores: dict[str, dict]  # part -> scores
    baselines: dict[str, dict[str, dict]]  # baseline -> part -> scores
    classifier: SavedClassifier
    progress: Progress


def train(config: TrainConfig) -> Run:
    """Train a classifier as ``config`` says and leave everything about it in the run's folder.

    Raises:
        InputError: something in the options or the data cannot be used; the line says what.
        KeyboardInterrupt: after Ctrl-C, once what is trained so far is saved.
    """
    if config.resume:
        config, folder = runs.resumed(config), config.out
    else:
        config = config.resolved()
        folder = runs.new_folder(config)
    device = pick_device(config.device)
    split = prepare.load_split(folder / "split") if config.resume else read_split(config)
    task = make_task(split, config)
    model, base = build_classifier(config, task, device)
    full = _store_everything(config, base)
    datasets, max_length, pad_to = encode_split(split, task, config, model)
    loaders = make_loaders(datasets, config, pad_to)

    for part in PARTS:
        counts = getattr(split, part)["label"].value_counts()
        log.info(
            f"{part}: {counts.sum():,} texts, " + ", ".join(f"{counts.get(x, 0):,} {x}" for x in task.labels)
        )
    if not config.resume:
        prepare.save_split(split, folder / "split")
        write_json(folder / "config.json", config.to_json())
    before = {}
    torch.manual_seed(config.seed)
    if config.recipe == "book":  # section 6.5 and 6.6 look before they train, then seed again
        before = _look_before(model, task, loaders, device)
        torch.manual_seed(config.seed)

    settings = FitSettings(**{f.name: getattr(config, f.name) for f in fields(FitSettings)})
    trainer = Trainer(model, task, *loaders[:2], settings, device)
    if config.resume:
        load_checkpoint(folder / "checkpoint", trainer)
    saved = SavedClassifier(model, task, max_length, pad_to, base, config.to_json(), scores={})
    try:
        trainer.fit(on_checkpoint=lambda: save_checkpoint(folder / "checkpoint", trainer))
    except KeyboardInterrupt:
        save_classifier(folder / "classifier", saved, full)
        log.info(f"interrupted; saved so far: {folder} (continue with --out {folder} --resume)")
        raise
    except NonFiniteLossError:
        if trainer.progress.kept_step:
            save_classifier(folder / "classifier", saved, full)
        raise
    return _finish(folder, config, saved, full, split, datasets, loaders, trainer, before)


def read_split(config: TrainConfig) -> Split:
    """The rows to train, validate and test on."""
    if config.recipe == "book":
        if config.validation or config.test:
            raise InputError("--recipe book makes its own split; leave out --validation and --test")
        return book.book_split(config.data, config.text_column, config.label_column)
    columns = (config.text_column, config.label_column)
    given = {
        part: load_data(str(path), *columns)
        for part, path in (("validation", config.validation), ("test", config.test))
        if path is not None
    }
    split = prepare.make_split(
        prepare.drop_duplicates(load_data(config.data, *columns)),
        **given,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
    )
    if config.balance == "undersample":  # the other parts keep the balance that the classifier will meet
        split = replace(split, train=prepare.undersample(split.train, config.seed))
    return split


def make_task(split: Split, config: TrainConfig) -> SingleLabel:
    """One class a text, over the labels of the training rows."""
    task = SingleLabel.of(split.train["label"], config.positive)
    if config.balance == "weights":
        weights = prepare.class_weights(split.train["label"], task.labels)
        task = replace(task, class_weights=tuple(weights))
    return task


def build_classifier(
    config: TrainConfig, task: SingleLabel, device: torch.device
) -> tuple[Classifier, dict | None]:
    """The classifier at the start of training, and the name and sha256 of its pretrained weights, if any."""
    torch.manual_seed(config.seed)
    if config.starts_random:
        if config.model not in PRESETS:
            raise InputError(f"--init random needs a preset ({', '.join(PRESETS)}), not {config.model!r}")
        log.info(f"{config.model}: random weights, no pretraining")
        backbone, base = GPT2(PRESETS[config.model]), None
    else:
        backbone = load_pretrained(config.model)
        if backbone.config.vocab_size < VOCAB_SIZE:
            raise InputError(
                f"{config.model} knows {backbone.config.vocab_size} tokens, GPT-2's tokenizer has "
                f"{VOCAB_SIZE}; choose a model with GPT-2's vocabulary"
            )
        name = config.model if not Path(config.model).exists() else str(Path(config.model).resolve())
        base = {"name": name, "sha256": weights_sha256(config.model)}
    torch.manual_seed(config.seed)
    model = Classifier(backbone, task.n_outputs, config.pooling)
    model.freeze(config.train)
    trained = sum(parameter.numel() for parameter in model.trained_parameters().values())
    everything = sum(parameter.numel() for parameter in model.parameters())
    log.info(f"{config.model}: training {config.train}, {trained:,} of {everything:,} parameters")
    return model.to(device), base


def encode_split(
    split: Split, task: SingleLabel, config: TrainConfig, model: Classifier
) -> tuple[dict[str, TextDataset], int, int | None]:
    """Each part as a dataset, the tokens kept of each text, and the length that all are padded to, if any."""
    n_positions = model.backbone.config.n_positions
    max_length, pad_to = config.max_length or n_positions, config.pad_to
    if max(max_length, pad_to or 0) > n_positions:
        raise InputError(f"{config.model} reads {n_positions} tokens; make --max-length and --pad-to smaller")
    max_length = min(max_length, pad_to or max_length)
    datasets = {}
    for part in PARTS:
        frame = getattr(split, part)
        dataset = TextDataset(frame["text"].tolist(), task.targets(frame["label"].tolist()), max_length)
        if part == "train" and config.pooling == "position-1" and pad_to is None:
            pad_to = max_length = max(dataset.lengths)  # the book's length: the longest training text
        if dataset.truncated:
            log.info(f"{part}: {dataset.truncated} of {len(dataset)} texts cut to {max_length} tokens")
        datasets[part] = dataset
    return datasets, max_length, pad_to


def make_loaders(
    datasets: dict[str, TextDataset], config: TrainConfig, pad_to: int | None
) -> list[DataLoader]:
    """Loaders for train, validation and test."""
    size = config.batch_size
    if config.recipe == "book":
        if len(datasets["train"]) < size:
            raise InputError(f"--batch-size {size} is larger than the {len(datasets['train'])} training rows")
        return [plain_loader(datasets[part], size, pad_to, shuffle=part == "train") for part in PARTS]
    shuffled = bucket_loader(datasets["train"], size, pad_to)
    return [shuffled, *(plain_loader(datasets[part], size, pad_to) for part in PARTS[1:])]


def _look_before(
    model: Classifier, task: SingleLabel, loaders: list[DataLoader], device: torch.device
) -> dict:
    """Accuracy on 10 batches and loss on 5 of each part, in the order in which the book draws them."""
    accuracies = [evaluate_loader(model, task, loader, device, 10)[1] for loader in loaders]
    losses = [evaluate_loader(model, task, loader, device, 5)[0] for loader in loaders]
    return {
        part: {"accuracy": accuracy, "loss": loss}
        for part, accuracy, loss in zip(PARTS, accuracies, losses, strict=True)
    }


def _finish(
    folder: Path,
    config: TrainConfig,
    saved: SavedClassifier,
    full: bool,
    split: Split,
    datasets: dict[str, TextDataset],
    loaders: list[DataLoader],
    trainer: Trainer,
    before: dict,
) -> Run:
    """Score every part beside the baselines, save everything, and print the table."""
    model, task = saved.model, saved.task
    more = {"seconds_training": round(trainer.progress.seconds, 2)}
    if config.recipe == "book":
        more["before_training"] = before
        # The book's last lines. Its train loader drops the incomplete batch, so these are not the table's.
        more["accuracy_by_loader"] = {
            part: evaluate_loader(model, task, loader, trainer.device)[1]
            for part, loader in zip(PARTS, loaders, strict=True)
        }
    probabilities = {
        part: task.probabilities(rows_logits(model, dataset.rows, trainer.device, saved.pad_to)).numpy()
        for part, dataset in datasets.items()
    }
    targets = {part: dataset.targets.numpy() for part, dataset in datasets.items()}
    saved.scores = {part: task.scores(targets[part], probabilities[part]) for part in PARTS}
    save_classifier(folder / "classifier", saved, full)
    texts = {part: getattr(split, part)["text"].tolist() for part in PARTS}
    yardsticks = baselines({part: (texts[part], targets[part]) for part in PARTS}, task.labels)
    history = trainer.progress.history
    report.write_metrics(folder / "metrics.json", saved.scores, yardsticks, **more)
    report.write_history(folder / "history.csv", history)
    report.write_pictures(
        folder, targets["test"], probabilities["test"], task.labels, saved.scores["test"], history
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return Run(folder, saved.scores, yardsticks, saved, trainer.progress)


def _store_everything(config: TrainConfig, base: dict | None) -> bool:
    if config.save == "trained" and base is None:
        raise InputError("--save trained needs pretrained base weights; this run starts from random ones")
    return base is None or config.train == "all" or config.save == "full" or (
        config.save == "auto" and config.model not in PRESETS
    )  # fmt: skip


def main() -> None:
    """The command line."""
    cli.run(TrainConfig, _train_and_print)


def _train_and_print(config: TrainConfig) -> None:
    run = train(config)
    print(report.scores_table(run.scores, run.baselines))
    print(f'\nsaved in {run.folder}; try: python -m gptcls.classify --model {run.folder} "…"')


if __name__ == "__main__":
    main()
