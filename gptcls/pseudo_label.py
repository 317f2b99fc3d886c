"""python -m gptcls.pseudo_label: unlabelled texts, with the label that a classifier is sure of.

Self-training (Lee 2013, "Pseudo-Label"): a second classifier trains on the labelled rows and on those that
the first was sure of (``gptcls.train --extra``). It repeats the mistakes that the first was sure of: keep the
confidence high, and judge by rows that people labelled. In several rounds each classifier labels all texts
anew, so that a label may be taken back.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro

from gptcls.classify.predict import ClassifierOptions, TextClassifier, networks_of, ready
from gptcls.classify.run import answered_chunks
from gptcls.classify.store import SavedClassifier, find_classifier
from gptcls.classify.words import holds_words
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import is_stream, require_writable, workplace
from gptcls.common.lazy import pd
from gptcls.common.lock import locked_output
from gptcls.common.log import log
from gptcls.common.options import check_at_least, own_first
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.data.columns import column_of, label_values, require_column
from gptcls.data.fields import in_columns
from gptcls.data.options import TEXTS_HELP, TableOptions
from gptcls.data.split import Split, load_split
from gptcls.data.writer import ChunkWriter
from gptcls.evaluation.judge import judge_of
from gptcls.evaluation.table import aligned
from gptcls.fast.features import FeatureCache
from gptcls.models.families import is_decoder
from gptcls.models.weight_files import read_object
from gptcls.pretrain.adapt import BASE
from gptcls.train.config import TrainConfig
from gptcls.train.presets import preset_settings
from gptcls.train.resolve import resolve
from gptcls.train.rows import split_of
from gptcls.train.run import fit_classifier


@own_first
@dataclass(frozen=True, kw_only=True)
class PseudoLabelConfig(TableOptions, ClassifierOptions):
    """Label the texts of a file, and keep those that the classifier is sure of.

    Then train on both: python -m gptcls.train --data labelled.csv --extra pseudo.csv
    """

    model: str  # again, to stand first in --help
    data: Annotated[Path, tyro.conf.arg(metavar="FILE", help=TEXTS_HELP)]
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File for the rows taken, with the columns text (of several texts also text_2, …), label and
    probability."""
    confidence: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="FLOAT LABEL=FLOAT …", help_behavior_hint="(default: 0.95)")
    ] = ("0.95",)
    """Least probability of the label of a row taken, more than 0 and at most 1, and of single labels another
    one: 0.95 spam=0.99."""
    agree: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Of an ensemble (gptcls.train --seeds 1 2): take a text only where each network alone gives it the same
    label and is that sure."""
    rounds: int = 1
    """With 2 or more: train the run of --model again on its own rows and those taken, as it was trained, let
    that label all texts anew, and so on; --out has the rows of the last round."""
    truth: str | None = None
    """Column with the true labels, where somebody knows them: to say how many labels taken are wrong."""


class Round(NamedTuple):
    """What one classifier was sure of."""

    taken: dict[str, int]  # rows of each label
    rows: int  # read
    wrong: int | None  # of the labels taken, where the true ones are known
    validation: dict  # the classifier's scores on its run's validation rows; {} where --rounds asks for none


class Sure(NamedTuple):
    """A classifier's networks, of which each must be sure, and the least probability of each label (K,)."""

    networks: list[TextClassifier]
    least: np.ndarray

    @classmethod
    def of(
        cls, classifier: TextClassifier, confidence: Sequence[str] | float, agree: bool = False,
        precision: str = "auto", cache: FeatureCache | None = None,
    ) -> "Sure":  # fmt: skip
        """As ``--confidence`` and ``--agree`` say; with a ``cache`` of what the frozen blocks compute."""
        saved, device, networks = classifier.saved, classifier.device, [classifier]
        if not isinstance(saved.task, SingleLabel):
            raise InputError("--model gives no single class to be sure of; take a --task single")
        if agree and not saved.members:
            raise InputError("--agree: --model is one network; train several with gptcls.train --seeds 1 2")
        if agree:
            each = networks_of(saved, device)
            alone = [replace(saved, model=model, members=()) for model in each]
            networks = [TextClassifier(one, device, precision, cache) for one in alone]
        elif cache is not None:
            networks = [TextClassifier(saved, device, precision, cache)]
        return cls(networks, least_of(confidence, saved.task.labels))

    def best(self, texts: Sequence[str | None], outputs: np.ndarray) -> "pd.DataFrame":
        """Each text that there is with its most probable label, and the probability of that: of several
        networks the least, and only texts that all of them give one label. ``outputs`` (N, K) are the first
        network's; the index is the text's place."""
        several = [outputs, *(network.scored(list(texts))[0] for network in self.networks[1:])]
        read = np.array([text is not None for text in texts], dtype=bool)
        winners = np.stack([each[read].argmax(axis=1) for each in several])  # (M, N)
        same = (winners == winners[0]).all(axis=0)
        places, winner = np.flatnonzero(read)[same], winners[0][same]
        probability = np.min([each[places, winner] for each in several], axis=0).astype(np.float32)
        labels = self.networks[0].labels
        # The first chunk's types are those of a Parquet file, and no row of it may be sure.
        columns = [texts[i] for i in places], [labels[i] for i in winner]
        texts, names = (pd.array(values, dtype="string") for values in columns)
        found = {"text": texts, "label": names, "probability": probability}
        return pd.DataFrame(found, index=places)

    def of_rows(self, rows: "pd.DataFrame") -> "pd.DataFrame":
        """Those rows of :meth:`best` that are sure enough."""
        least = dict(zip(self.networks[0].labels, self.least, strict=True))
        return rows[rows["probability"] >= rows["label"].map(least).astype(float)]


def least_of(confidence: Sequence[str] | float, labels: Sequence[str]) -> np.ndarray:
    """The least probability (K,) of each label; InputError for what is none, and for unknown labels.

    >>> least_of(["0.95", "spam=0.99"], ("ham", "spam")).tolist()
    [0.95, 0.99]
    """
    given = confidence if isinstance(confidence, tuple | list) else [confidence]
    general, own = None, {}
    for each in given:
        name, equals, value = str(each).rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not 0 < number <= 1:
            raise InputError(f"--confidence {each} is not a probability; use more than 0, at most 1")
        if equals and name not in labels:
            raise InputError(f"--confidence {each}: the labels are {', '.join(labels)}")
        if name in own or (not equals and general is not None):
            raise InputError(f"--confidence {' '.join(map(str, given))} says twice how sure; say it once")
        if equals:
            own[name] = number
        else:
            general = number
    if general is None and (rest := [label for label in labels if label not in own]):
        raise InputError(f"--confidence says nothing of {rest[0]!r}; add {rest[0]}=0.95, or 0.95 for others")
    return np.array([own.get(label, general) for label in labels])


def pseudo_label(config: PseudoLabelConfig) -> list[Round]:
    """Write the texts that the classifier is sure of, and return what each round took. Memory holds a few
    thousand rows at a time, with several rounds also the rows taken: a text that stands twice is written
    twice; ``--extra`` then goes by ``--repeats``. InputError, leaving no file, for what cannot be read, and
    when no text was taken."""
    check_at_least({"rounds": config.rounds}, {"rounds": 1})
    for each in config.confidence if isinstance(config.confidence, tuple | list) else [config.confidence]:
        least_of([str(each).rpartition("=")[2]], ())  # before anything is loaded
    if config.rounds > 1 and is_stream(config.data):
        raise InputError(f"--rounds {config.rounds} reads --data {config.data} as often: give a file")
    require_writable(config.out, "--out")
    run = _run_of(config) if config.rounds > 1 else None
    classifier, rounds = config.load(), []
    with ExitStack() as stack:
        stack.enter_context(locked_output(config.out))
        scratch = Path()
        if run is not None:
            scratch = stack.enter_context(workplace(Path(tempfile.gettempdir()) / "gptcls-pseudo-label"))
        for number in range(1, config.rounds + 1):
            cache = None
            if run is not None and _shares(classifier.saved, run[1]):
                cache = FeatureCache(scratch / "features")
            sure = Sure.of(classifier, config.confidence, config.agree, config.precision, cache)
            out = config.out if number == config.rounds else scratch / f"round-{number}.csv"
            taken, n, wrong = _label(sure, config, out)
            found = Round(taken, n, wrong, {} if run is None else _validated(classifier, run[0]))
            rounds.append(found)
            log.info(f"{_said(found)}: {out if number == config.rounds else f'round {number}'}")
            if number < config.rounds:
                saved = trained_again(*run, out, None if cache is None else cache.folder, classifier.saved)
                classifier = ready(saved, classifier.device, config.precision)
    return rounds


def _label(sure: Sure, config: PseudoLabelConfig, out: Path) -> tuple[dict[str, int], int, int | None]:
    """One round: rows of each label taken, rows read, and how many labels are wrong."""
    taken, n, surest = Counter(dict.fromkeys(sure.networks[0].labels, 0)), 0, 0.0
    wrong, saved = None if config.truth is None else 0, sure.networks[0].saved
    with ChunkWriter(out, source=config.data) as writer:
        for chunk, texts, outputs in answered_chunks(sure.networks[0], config.data, config):
            rows = sure.best([text and saved.as_read(text) for text in texts], outputs)
            found = sure.of_rows(rows)
            if config.truth is not None:
                require_column(list(chunk.columns), config.truth, "--truth", config.data)
                known = label_values(column_of(chunk, config.truth, config.data))
                if len(known) and not {*known} & {*saved.task.labels}:
                    said = f"--truth {config.truth} holds none of the labels {', '.join(saved.task.labels)}"
                    raise InputError(f"{said}; name another column")
                wrong += sum(known[i] != label for i, label in found["label"].items())
            writer.write(in_columns(found, saved.fields))
            taken.update(found["label"])
            surest = max(surest, *rows["probability"], 0.0)
            n += len(chunk)
        if not taken.total():
            asked = config.confidence
            asked = " ".join(asked) if isinstance(asked, tuple | list) else asked
            agreed = " from every network" if config.agree else ""
            none = f"{config.data}: no text has a label of probability {asked} or more{agreed}"
            raise InputError(f"{none}, the surest has {surest:.9g}; lower --confidence")
    return dict(taken), n, wrong


def _said(found: Round) -> str:
    total = sum(found.taken.values())
    counts = ", ".join(f"{count:,} {label}" for label, count in found.taken.items())
    wrong = "" if found.wrong is None else f", {found.wrong:,} of them wrong"
    return f"{total:,} of {found.rows:,} rows taken ({counts}){wrong}"


# --- rounds ---


def _run_of(config: PseudoLabelConfig) -> tuple[Split, TrainConfig]:
    """The rows that the classifier was trained on, as they were labelled, and its options."""
    if isinstance(config.model, TextClassifier):
        raise InputError("--rounds trains --model again on its own rows: give the folder of its run")
    place = find_classifier(config.model).resolve()
    if holds_words(place):
        raise InputError(f"--rounds {config.rounds} trains a network again, and {config.model} has none")
    place = place.parent
    if not (place / "split").exists() or not (place / "config.json").exists():
        said = f"--rounds {config.rounds} trains --model again on its own rows"
        raise InputError(f"{said}, and next to {config.model} are none: give the folder gptcls.train left")
    options = read_object(place / "config.json").get("options", {})
    known = TrainConfig.defaults()
    try:
        settings = TrainConfig.of(**{name: value for name, value in options.items() if name in known})
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{place}/config.json is damaged ({error!r:.80}); train the run again") from None
    for so, what in (
        (options.get("teacher"), "learnt from a teacher"),
        (settings.fit.epochs == 0 or settings.language.shots, "was not trained"),
        (settings.data.extra, "had --extra rows"),
    ):
        if so:
            said = f"--rounds {config.rounds} trains --model again on its own rows, and it {what}"
            raise InputError(f"{said}; take another run, or leave --rounds out")
    if options.get("adapt") is not None:
        if not (place / BASE).exists():
            said = f"--rounds {config.rounds} trains --model again from {place / BASE}"
            raise InputError(f"{said}, which is gone; put it back, or train the run again")
        settings = settings.changed(model=str(place / BASE))
    return Split(*(frame for _, frame in load_split(place / "split").plain_items())), settings


def _shares(saved: SavedClassifier, settings: TrainConfig) -> bool:
    """Whether a run like this freezes blocks whose output the rounds can share."""
    lora = settings.model.train == "lora"
    return not lora and not settings.run.no_cache and bool(saved.model.frozen_blocks)


def trained_again(
    split: Split, settings: TrainConfig, extra: Path, cache: Path | None, saved: SavedClassifier
) -> SavedClassifier:
    """The run that ``saved`` is from once more, with the rows of a file as ``--extra``; no test row is read,
    and no text of any part is among the extra rows. Where the number of epochs was the preset's, it is the
    preset's for so many rows."""
    epochs, model = settings.fit.epochs, saved.model
    kind = model.backbone.config.n_embd, len(split.train), is_decoder(model.backbone)
    if epochs == preset_settings(settings.fit.preset, *kind)["epochs"]:
        epochs = None
    own = {"extra": extra, "cache": cache, "epochs": epochs, "out": None, "resume": False}
    config = resolve(settings.changed(**own))
    rows = split_of(split, config)
    return fit_classifier(replace(rows, test=rows.test[:0]), config)


def _validated(classifier: TextClassifier, split: Split) -> dict:
    saved = classifier.saved
    targets = saved.task.targets(split.validation["label"].tolist()).numpy()
    outputs = classifier.outputs_of(split.validation["text"].tolist())
    return judge_of(saved.task, saved.decision).scores(targets, outputs)


def table(rounds: Sequence[Round]) -> str:
    """A line a round: how many rows it took, how many of them are wrong, and the classifier on validation."""
    lines = [["round", "rows taken", "wrong", "validation accuracy % [95 % CI]"]]
    for number, found in enumerate(rounds, 1):
        low, value, high = (100 * found.validation[f"accuracy{end}"] for end in ("_low", "", "_high"))
        wrong = "?" if found.wrong is None else f"{found.wrong:,}"
        taken = f"{sum(found.taken.values()):,}"
        lines.append([str(number), taken, wrong, f"{value:.2f} [{low:.2f}, {high:.2f}]"])
    if all(found.wrong is None for found in rounds):
        lines = [[line[0], line[1], line[3]] for line in lines]
    return "\n".join(aligned(lines))


def _label_and_print(config: PseudoLabelConfig) -> None:
    rounds = pseudo_label(config)
    if len(rounds) > 1:
        n = rounds[0].validation["n"]
        say(f"{table(rounds)}\nOf each round's classifier, before it saw its rows; {n:,} validation rows.")


def main() -> None:
    cli.run(PseudoLabelConfig, _label_and_print)


if __name__ == "__main__":
    main()
