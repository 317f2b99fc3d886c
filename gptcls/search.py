"""python -m gptcls.search: the settings of a training run, searched by optuna on the validation rows.

The first trial is the preset's own settings, so the best is never behind them on validation. Trials share
the rows, their split and the frozen blocks' output. Test rows are not looked at until the search is over:
then the best settings, and the preset's beside them, are each trained and tested once.
"""

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.extras import needed
from gptcls.common.files import atomic_file, require_writable, workplace
from gptcls.common.lazy import pd
from gptcls.common.lock import LOCK, locked
from gptcls.common.log import log, unlogged
from gptcls.common.options import check_at_least, flag
from gptcls.common.processes import require_one_process
from gptcls.compare import Comparison, compare
from gptcls.core.errors import InputError
from gptcls.core.loop import Hook, NonFiniteLossError, Trainer
from gptcls.core.task import Task
from gptcls.data.split import Split
from gptcls.evaluation.plots import new_figure
from gptcls.evaluation.style import BLUE, GREY, VERMILION
from gptcls.models.families import is_decoder
from gptcls.train.config import TrainConfig
from gptcls.train.folder import checkpoint_in, state_of
from gptcls.train.hooks import duration
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split
from gptcls.train.run import RESULT, train, trained
from gptcls.train.setup import Setup, prepare

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

Tunable = Literal["lr", "epochs", "train", "pooling", "batch_size", "lora_rank", "label_smoothing"]
NOT_OF_TRIALS = ("trials", "minutes", "out", "cache", "cache_budget")  # may change when a search goes on
STEPS = 20  # of a trial's course at which it is compared with the others at the same point
UNPRUNED = 5  # trials before the first is given up


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What is searched, and for how long."""

    trials: int = 30
    """Settings to try; the first are those of --preset."""
    minutes: float | None = None
    """Begin no trial after so many."""
    tune: tuple[Tunable, ...] = ("lr", "epochs", "train", "pooling", "batch_size")
    """Options to search over; what you give on the command line stays as you say."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(TrainConfig):
    """Search for the settings that score best on the validation rows, then test the best of them once.

    Finished trials stay: the same command, or one with more --trials, goes on where it stopped.
    """

    FIRST_PAGE: ClassVar = (
        "data", "text_column", "label_column", "model", "trials", "minutes", "tune", "out",
    )  # fmt: skip
    GROUPS: ClassVar = TrainConfig.GROUPS | {"search": "search"}

    search: SearchOptions = field(default_factory=SearchOptions)

    @property
    def run_name(self) -> str:
        return f"search-{super().run_name}"

    def training(self, **options: Any) -> TrainConfig:
        """A training run with these options laid over those that stay."""
        own = SearchOptions.__dataclass_fields__
        return TrainConfig.of(**{name: x for name, x in self.flat().items() if name not in own} | options)


@dataclass(frozen=True)
class Search:
    """What was found: the ``best`` options, the ``trials`` with a value on validation each, and the tests of
    the run with the best settings and the preset's, ``None`` where the preset's are the best or diverged."""

    best: dict[str, Any]
    trials: "pd.DataFrame"
    folder: Path
    comparison: Comparison | None


def search(config: SearchConfig | None = None, **options: Any) -> Search:
    """Search as the options say (``search(data="reviews.csv", trials=20)``). In the folder stand
    ``trials.csv``, ``search.png``, ``trials.log`` (optuna's journal, by which it goes on) and the runs that
    were tested: the best, and the preset's (``trial-0``, or the next where that was cut short).

    InputError for options that cannot be used, and a folder that holds another search; KeyboardInterrupt
    after Ctrl-C: finished trials stay.
    """
    require_one_process("search")
    config = (config or SearchConfig()).changed(**options)
    with needed("search", "gptcls.search"):
        import optuna
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fixed = resolve(config.training(out=None))
    _check(config)
    folder = config.run.out or Path("runs") / config.run_name
    require_writable(folder, "--out")
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"--out {folder} is in use by another process; wait until it ends, or choose another folder"
    try:
        with locked(folder / LOCK, busy), workplace(Path(tempfile.gettempdir()) / "gptcls-search") as scratch:
            return _search(optuna, config, fixed, folder, config.run.cache or scratch)
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _check(config: SearchConfig) -> None:
    asked = config.search
    check_at_least(vars(asked), {"trials": 1})
    if asked.minutes is not None and not 0 < asked.minutes < np.inf:
        raise InputError(f"--minutes {asked.minutes} is no time; use more than 0")
    if config.run.resume:
        raise InputError("--resume is not needed: the same command goes on where the search stopped")
    if config.language.head != "linear":
        raise InputError("--head lm has settings of its own, which are not searched; leave it out")
    if config.fit.seeds:
        raise InputError("--seeds goes with gptcls.train, once settings are chosen; leave it out")
    if config.run.recipe == "book":
        raise InputError("--recipe book has its own settings; leave it out to search for better ones")


def _search(optuna: Any, config: SearchConfig, fixed: TrainConfig, folder: Path, cache: Path) -> Search:
    """:func:`search`, by the one process that may write to the folder."""
    split = read_split(fixed)
    first = prepare(split, fixed)
    task, n_rows = first.saved.task, len(split.validation)
    space = _space(optuna, config, first)
    study = _study(optuna, config, folder, split, task)
    _enqueue_preset(study, first, space)
    log.info(f"{', '.join(map(flag, space))} searched over on {n_rows:,} validation rows, of which each is "
             f"{100 / n_rows:.2g} % of them")  # fmt: skip
    began, done = time.perf_counter(), _finished(study)
    while len(done) < config.search.trials:
        minutes = (time.perf_counter() - began) / 60
        if config.search.minutes is not None and minutes >= config.search.minutes and done:
            log.info(f"--minutes {config.search.minutes:g} are over after {len(done)} trials")
            break
        _try(optuna, study, config, split, task, cache, space)
        done = _finished(study)
        _write_trials(folder, done, space, task)
    frame = _write_trials(folder, done, space, task)
    if all(trial.state.name != "COMPLETE" for trial in done):  # what diverged may have an epoch's value
        raise InputError(f"none of {len(done)} trials came to its end; try a smaller --lr")
    preset, best = done[0], study.best_trial
    with atomic_file(folder / "search.png") as temporary:
        plot_search(frame, list(space), task, _importances(optuna, study)).savefig(temporary, dpi=150)
    compared = [best, preset] if best.number != preset.number and preset.state.name == "COMPLETE" else [best]
    runs = [_tested(config, folder / f"trial-{each.number}", each.params) for each in compared]
    found = compare(*runs) if len(runs) > 1 else None
    return Search(dict(best.params), frame, runs[0], found)


# --- what is searched over ---


def _space(optuna: Any, config: SearchConfig, first: Setup) -> dict[str, Any]:
    """Distributions of the options that are left open, around what the preset says."""
    center, given = first.config.flat(), config.flat()
    distributions = optuna.distributions
    blocks = len(first.saved.model.backbone.blocks)
    choices = ["head", "last_block", *(["last_2"] if blocks > 2 else [])]
    pools = ["last" if is_decoder(first.saved.model.backbone) else "first", "mean", "max"]
    lora, n = center["train"] == "lora", center["epochs"]
    every = {
        "lr": distributions.FloatDistribution(center["lr"] / 8, center["lr"] * 8, log=True),
        "epochs": distributions.IntDistribution(max(1, n // 3), 2 * n),
        "train": distributions.CategoricalDistribution(_with(choices, center["train"])),
        "pooling": distributions.CategoricalDistribution(_with(pools, center["pooling"], "auto")),
        "batch_size": distributions.CategoricalDistribution(_with([8, 16, 32], center["batch_size"])),
        "lora_rank": distributions.IntDistribution(2, 64, log=True) if lora else None,
        "label_smoothing": distributions.FloatDistribution(0.0, 0.2),
    }
    default = SearchConfig.defaults()
    space = {name: every[name] for name in config.search.tune if given[name] == default[name]}
    if "lora_rank" in space and not lora:
        raise InputError("--tune lora_rank goes with --train lora")
    if not space:
        named = ", ".join(map(flag, config.search.tune)) or "nothing"
        raise InputError(f"--tune names {named}, which is given: leave one of them open")
    return space


def _with(choices: list, value: Any, same_as_first: Any = None) -> list:
    """``choices`` with ``value`` among them."""
    return choices if value in (*choices, same_as_first) else [*choices, value]


def _enqueue_preset(study: "optuna.Study", first: Setup, space: dict[str, Any]) -> None:
    """The first trial that is not cut short is the preset's."""
    if _finished(study):
        return
    center = first.config.flat()
    if center["pooling"] == "auto" and "pooling" in space:
        center["pooling"] = space["pooling"].choices[0]
    study.enqueue_trial({name: center[name] for name in space})


# --- the trials ---


def _study(optuna: Any, config: SearchConfig, folder: Path, split: Split, task: Task) -> "optuna.Study":
    """The study in the folder, or a new one; InputError where that is another search's."""
    given = {name: value for name, value in config.to_json().items() if name not in NOT_OF_TRIALS}
    settings = json.loads(json.dumps({"options": given, "rows": split.sha256()}))
    storages = optuna.storages
    storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(folder / "trials.log")))
    study = optuna.create_study(
        study_name="gptcls", storage=storage, load_if_exists=True,
        direction="minimize" if task.kind == "regression" else "maximize",
    )  # fmt: skip
    before = study.user_attrs.get("settings", settings)
    changed = [flag(k) for k, v in settings["options"].items() if before["options"].get(k) != v]
    if changed or before["rows"] != settings["rows"]:
        what = f"another {', '.join(changed)}" if changed else "other rows"
        raise InputError(f"--out {folder} holds a search with {what}; choose another folder")
    study.set_user_attr("settings", settings)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # of a process that was ended
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # A search that goes on must not draw again what it drew at first.
    study.sampler = optuna.samplers.TPESampler(seed=config.run.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=STEPS // 4)
    return study


class _Report(Hook):
    """Tells optuna how a trial stands after each epoch, and gives up what is behind."""

    def __init__(self, optuna: Any, trial: "optuna.Trial", measure: str) -> None:
        self.optuna, self.trial, self.measure = optuna, trial, f"val_{measure}"

    def on_epoch(self, trainer: Trainer) -> None:
        epoch, epochs = trainer.progress.epoch, trainer.settings.epochs
        value = trainer.progress.history[-1][self.measure]
        if value is None or epoch == epochs:
            return
        self.trial.report(value, round(STEPS * epoch / epochs))
        if self.trial.should_prune():
            raise self.optuna.TrialPruned


def _try(
    optuna: Any, study: "optuna.Study", config: SearchConfig, split: Split, task: Task, cache: Path,
    space: dict[str, Any],
) -> None:  # fmt: skip
    """One trial; its value is the task's measure on all validation rows, as the epochs' lines say it."""
    trial = study.ask(space)
    began, state, value = time.perf_counter(), optuna.trial.TrialState.COMPLETE, None
    try:
        with unlogged():
            setup = prepare(split, _settings(config, trial.params, cache))
            trainer = trained(setup, [_Report(optuna, trial, task.measure_name)])
        looks = [row for row in trainer.progress.history if row.get("full_val_loss") is not None]
        value = looks[-1][f"val_{task.measure_name}"]
    except optuna.TrialPruned:
        state = optuna.trial.TrialState.PRUNED
    except NonFiniteLossError:  # a rate too large for these settings
        state = optuna.trial.TrialState.PRUNED
        trial.set_user_attr("diverged", True)
    study.tell(trial.number, value, state=state)
    measured = "diverged" if trial.user_attrs else "given up, behind the others"
    if value is not None:
        measured = f"validation {task.measure_name} {task.measure_format.format(value)}"
    tried = ", ".join(f"{name} {_short(x)}" for name, x in trial.params.items())
    seconds = duration(time.perf_counter() - began)
    log.info(f"trial {trial.number}: {measured} in {seconds} ({tried})")


def _settings(config: SearchConfig, params: dict[str, Any], cache: Path) -> TrainConfig:
    """A trial's options; what trains every block has no frozen output to share."""
    settings = resolve(config.training(**params, out=None))
    shared = (settings.model.train or "last_block") in ("head", "last_block", "last_2")
    return settings.changed(cache=cache if shared else None)


def _tested(config: SearchConfig, folder: Path, params: dict[str, Any]) -> Path:
    """The folder of the run with a trial's settings, trained and tested unless an earlier call did it."""
    if state_of(folder, RESULT) == "finished":
        return folder
    with unlogged():
        if checkpoint_in(folder):
            train(out=folder, resume=True)
        else:
            train(_settings(config, params, config.run.cache).changed(out=folder))
    return folder


def _finished(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    """Without those that were cut short."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


# --- what is left of it ---


def _write_trials(folder: Path, done: list, space: dict[str, Any], task: Task) -> "pd.DataFrame":
    """``trials.csv``: a line a trial."""
    lines = []
    for trial in done:
        state, seconds = trial.state.name.lower(), round(trial.duration.total_seconds(), 2)
        line = {"trial": trial.number, "state": state, task.measure_name: trial.value, "seconds": seconds}
        lines.append(line | {name: trial.params.get(name) for name in space})
    frame = pd.DataFrame(lines)
    with atomic_file(folder / "trials.csv") as temporary:
        frame.to_csv(temporary, index=False)
    return frame


def _importances(optuna: Any, study: "optuna.Study") -> dict[str, float]:
    """Each option's share of the variance between trials (Hutter et al. 2014, functional ANOVA); {} for too
    few trials, or all alike."""
    values = [trial.value for trial in study.trials if trial.state.name == "COMPLETE"]
    if len(values) < 4 or len(set(values)) < 2:
        return {}
    fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=fanova)


def plot_search(
    frame: "pd.DataFrame", names: list[str], task: Task, importances: dict[str, float]
) -> "Figure":
    """The measure of each whole trial against each option, the preset's and the best marked, and how much of
    the differences an option explains."""
    figure, first = new_figure(max(4.0, 3.0 * len(names)), 3.4)
    first.remove()
    whole = frame[frame["state"] == "complete"]
    measure = whole[task.measure_name].astype(float)
    best = measure.idxmin() if task.kind == "regression" else measure.idxmax()
    marked = ((whole.index, GREY, "o", 18, None),
              (whole.index.intersection([0]), BLUE, "s", 50, "the preset's"),
              ([best], VERMILION, "D", 50, "the best"))  # fmt: skip
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        is_word = name in ("train", "pooling", "batch_size")
        values = whole[name].astype(str if is_word else float)
        if is_word:  # the first that is drawn stands first
            order = sorted(set(whole[name]))
            axes.scatter([str(each) for each in order], [measure.iloc[0]] * len(order), alpha=0)
        for rows, colour, marker, size, label in marked:
            dot = {"color": colour, "marker": marker, "s": size, "label": label}
            axes.scatter(values.loc[rows], measure.loc[rows], **dot)
        if name in ("lr", "lora_rank"):
            axes.set_xscale("log")
            ends = np.geomspace(values.min(), values.max(), 3)
            axes.set_xticks(ends, [f"{end:.1e}" if name == "lr" else f"{end:.0f}" for end in ends])
            axes.minorticks_off()
        explained = f": explains {importances[name]:.0%}" if name in importances else ""
        axes.set_title(f"{name}{explained}", size=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelleft=place == 0)
        if place == 0:
            axes.set_ylabel(f"validation {task.measure_name}")
            shown = axes.get_legend_handles_labels()
            figure.legend(*shown, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _search_and_print(config: SearchConfig) -> None:
    found = search(config)
    options = " ".join(f"{flag(name)} {_short(value)}" for name, value in found.best.items())
    if found.comparison is None and found.trials["state"].iloc[0] == "complete":
        say("the preset's own settings are the best on validation")
    else:
        rest = f"\n\n{found.comparison.table()}" if found.comparison else "; the preset's diverged"
        say(f"best on validation: {options}{rest}")
    given = '"…"' if len(config.data.text_columns) < 2 else "--data FILE --out FILE"
    say(f"\nsaved in {found.folder}; try: {cli.command('classify')} --model {found.folder} {given}")


def main() -> None:
    cli.run(SearchConfig, _search_and_print)


if __name__ == "__main__":
    main()
