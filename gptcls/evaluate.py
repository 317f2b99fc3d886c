"""python -m gptcls.evaluate: how good a saved classifier is on labelled data."""

import logging
from dataclasses import dataclass
from pathlib import Path

from gptcls import cli, report
from gptcls.data.prepare import load_split
from gptcls.data.sources import load_data
from gptcls.errors import InputError
from gptcls.predict import load_classifier

log = logging.getLogger("gptcls")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score a trained classifier on labelled data."""

    model: Path
    """Folder that gptcls.train left: a run, or the classifier inside it."""
    data: str
    """Data set (sms-sample, sms-spam) or file (.csv, .tsv, .jsonl, .parquet, or UCI's SMSSpamCollection)."""
    text_column: str | None = None
    """Column with the text; guessed where only one can be meant."""
    label_column: str | None = None
    """Column with the label; guessed where only one can be meant."""
    out: Path | None = None
    """Folder for metrics.json and the pictures; nothing is written without it."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


def evaluate(config: EvaluateConfig) -> dict:
    """The scores of a classifier on a data set, as in ``metrics.json``.

    Rows whose text the classifier was trained on are left out where the run's split lies beside it, and the
    log says how many.

    Raises InputError for data that cannot be read, a label unseen in training, or a folder without a
    classifier.
    """
    classifier = load_classifier(config.model, config.device)
    task = classifier.saved.task
    rows = load_data(config.data, config.text_column, config.label_column)
    targets = task.targets(rows["label"].tolist()).numpy()  # before the long part: it may refuse a label
    new = ~rows["text"].isin(_training_texts(config.model)).to_numpy()
    if not new.all():
        log.info(f"left out: {(~new).sum()} of {len(rows)} rows, whose texts the classifier was trained on")
    if not new.any():
        raise InputError(f"every text of {config.data} was trained on; evaluate on data the run has not seen")
    targets, texts = targets[new], rows["text"][new].tolist()
    probabilities = classifier.predict_proba(texts)
    scores = task.scores(targets, probabilities)
    if config.out is not None:
        report.write_metrics(config.out / "metrics.json", {"data": scores}, {})
        report.write_pictures(config.out, targets, probabilities, task.labels, scores)
    return scores


def _training_texts(folder: Path) -> set[str]:
    """The texts that the run in ``folder`` trained on; none where only the classifier was copied."""
    for run in (folder, folder.parent):
        if (run / "split" / "train.csv").exists():
            return set(load_split(run / "split").train["text"])
    return set()


def main() -> None:
    """The command line."""
    cli.run(EvaluateConfig, lambda config: print(report.scores_table({config.data: evaluate(config)}, {})))


if __name__ == "__main__":
    main()
