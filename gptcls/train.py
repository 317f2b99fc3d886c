"""python -m gptcls.train: from rows and pretrained weights to a classifier in a folder.

This is the one place where all rooms of the house are composed.
"""

import logging
import shlex
import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from gptcls import cli, report, runs
from gptcls.assemble import (
    build_classifier,
    choose_tokenizer,
    encode_split,
    make_loaders,
    make_task,
    read_split,
    stage,
)
from gptcls.config import TrainConfig
from gptcls.data.split import PARTS, Split, load_split, save_split
from gptcls.device import pick_device
from gptcls.errors import InputError
from gptcls.inference import dataset_logits
from gptcls.models.gpt2 import PRESETS
from gptcls.precision import pick_dtype
from gptcls.store import SavedClassifier, save_classifier
from gptcls.tasks import Task
from gptcls.training.checkpoint import load_checkpoint, save_checkpoint, try_checkpoint
from gptcls.training.evaluate import evaluate_loader
from gptcls.training.loop import NonFiniteLossError, StoppedError, Trainer
from gptcls.training.progress import FitSettings, Progress

log = logging.getLogger("gptcls")
RESULT = "classifier"  # the folder that a finished run leaves in its own


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
        (config, base_then, there), folder = runs.resumed(config), config.out
    else:
        config = config.resolved()
        folder = runs.new_folder(config.out, config.run_name, RESULT)
    device = pick_device(config.device)
    here = runs.environment(device, pick_dtype(config.precision, device))
    if config.resume:
        runs.warn_of_changes(there, here)
    split = load_split(folder / "split") if config.resume else read_split(config)
    task = make_task(split, config)
    tokenizer = choose_tokenizer(config)
    model, base = build_classifier(config, task, device, tokenizer)
    if config.resume and base != base_then:
        raise InputError(
            f"{config.model} no longer has the weights that {folder} was started from; put them back"
        )
    full = _store_everything(config, base)
    datasets, max_length, pad_to = encode_split(split, task, config, model, tokenizer)
    if not config.resume:
        folder = runs.claim(folder, config.out, config.run_name, RESULT)
        save_split(split, folder / "split")
        runs.write_config(folder, config, base, here)
    network, datasets = stage(model, datasets, config, device)
    loaders = make_loaders(datasets, config)

    for part in PARTS:
        labels = getattr(split, part)["label"].tolist()
        log.info(f"{part}: {len(labels):,} texts, {task.summary(labels)}")
    before = {}
    torch.manual_seed(config.seed)
    if config.recipe == "book":  # section 6.5 and 6.6 look before they train, then seed again
        before = _look_before(network, task, loaders, device)
        torch.manual_seed(config.seed)

    settings = FitSettings(**{f.name: getattr(config, f.name) for f in fields(FitSettings)})
    trainer = Trainer(network, task, *loaders[:2], settings, device)
    if config.resume:
        load_checkpoint(folder / "checkpoint", trainer)
    reading = {"tokenizer": tokenizer, "long": config.long, "cleaning": config.cleaning}
    saved = SavedClassifier(model, task, max_length, pad_to, base, config.to_json(), scores={}, **reading)
    try:
        trainer.fit(on_checkpoint=lambda: try_checkpoint(folder / "checkpoint", trainer))
    except StoppedError:
        save_classifier(folder / RESULT, saved, full)
        save_checkpoint(folder / "checkpoint", trainer)
        log.info(f"interrupted; saved so far: {folder} (continue with --out {folder} --resume)")
        raise
    except NonFiniteLossError:
        if trainer.progress.kept_step:
            save_classifier(folder / RESULT, saved, full)
        raise
    save_classifier(folder / RESULT, saved, full)  # before anything else can go wrong
    return _finish(folder, config, saved, full, split, datasets, loaders, trainer, before)


def _look_before(model: nn.Module, task: Task, loaders: list[DataLoader], device: torch.device) -> dict:
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
    datasets: dict[str, Dataset],
    loaders: list[DataLoader],
    trainer: Trainer,
    before: dict,
) -> Run:
    """Score every part beside the baselines, save everything, and print the table."""
    task = saved.task
    more = {"seconds_training": round(trainer.progress.seconds, 2)}
    if config.recipe == "book":
        more["before_training"] = before
        # The book's last lines. Its train loader drops the incomplete batch, so these are not the table's.
        more["accuracy_by_loader"] = {
            part: evaluate_loader(trainer.model, task, loader, trainer.device)[1]
            for part, loader in zip(PARTS, loaders, strict=True)
        }
    outputs = {
        part: task.outputs(dataset_logits(trainer.model, dataset, trainer.device)).numpy()
        for part, dataset in datasets.items()
    }
    targets = {part: dataset.targets.numpy() for part, dataset in datasets.items()}
    saved.task = task = task.tuned(targets["validation"], outputs["validation"])
    saved.scores = {part: task.scores(targets[part], outputs[part]) for part in PARTS}
    save_classifier(folder / RESULT, saved, full)
    yardsticks = task.baselines(
        {
            part: (frame["text"].tolist(), task.targets(frame["label"].tolist()).numpy())
            for part, frame in split.plain_items()
        }
    )
    history = trainer.progress.history
    report.write_metrics(folder / "metrics.json", saved.scores, yardsticks, **more)
    columns = ["step", "epoch", "examples_seen", "lr", "train_loss", "val_loss"]
    columns += [f"train_{task.measure_name}", f"val_{task.measure_name}", "full_val_loss"]
    report.write_history(folder / "history.csv", history, columns)
    report.write_pictures(
        folder,
        task,
        targets["test"],
        outputs["test"],
        saved.scores["test"],
        history,
        trainer.progress.best_epoch,
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return Run(folder, saved.scores, yardsticks, saved, trainer.progress)


def _store_everything(config: TrainConfig, base: dict | None) -> bool:
    return base is None or config.train == "all" or config.save == "full" or (
        config.save == "auto" and config.model not in PRESETS and config.train != "lora"
    )  # fmt: skip


def main() -> None:
    """The command line."""
    cli.run(TrainConfig, _train_and_print)


def _train_and_print(config: TrainConfig) -> None:
    run = train(config)
    print(report.scores_table(run.classifier.task, run.scores, run.baselines))
    folder = shlex.quote(str(run.folder))
    print(f'\nsaved in {run.folder}; try: python -m gptcls.classify --model {folder} "…"')


if __name__ == "__main__":
    main()
