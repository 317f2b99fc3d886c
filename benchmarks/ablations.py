"""python -m benchmarks.ablations: the book's ablations over several seeds, next to the published figures.

:mod:`benchmarks.ablation_rows` says what is varied, :mod:`benchmarks.ablation_report` what is written.
Here the runs are planned, those that an earlier call finished are left out, and each result is written as it
comes.
"""

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ablation_report import read_results, summarise, table, with_result, write_report
from benchmarks.ablation_rows import ABLATIONS, Ablation, chosen, config_of, settings
from gptcls.common import cli
from gptcls.common.console import say
from gptcls.common.files import require_writable, workplace
from gptcls.common.lock import LOCK, locked
from gptcls.common.log import unlogged
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.models.pretrained import load_pretrained
from gptcls.train.config import TrainConfig
from gptcls.train.rows import read_split
from gptcls.train.run import fit

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("gptcls")
PARTS = ("train", "validation", "test")
PLAIN = ("all", "lora")  # what is trained in these leaves no frozen block to cache


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """The book's 19 ablations, each a changed run of its recipe, under one or more seeds.

    A seed draws everything anew: which ham messages balance the spam, the split, the head, random weights and
    the order of training. An interval over seeds therefore speaks of other draws of these messages, and rows
    are compared seed by seed, on the same split. Seed 123 is the book's.

    Finished runs are skipped: the same command, or one with more rows or seeds, goes on where it stopped.
    """

    rows: tuple[int, ...] = ()
    """Numbers of the rows to run, 1 to 19; all without this."""
    model: str = "gpt2-nano"
    """Preset, name on the hub, or local folder or file, as in gptcls.train. The rows about other sizes of
    GPT-2 run with gpt2-small, -medium, -large and -xl only."""
    data: str = "sms-spam"
    """Data set or file of messages with the labels ham and spam: sms-spam is downloaded, sms-sample is
    bundled."""
    seeds: tuple[int, ...] = (123,)
    """Each row runs once for each of them; five give an interval worth reading."""
    epochs: int | None = None
    """Passes over the training rows; otherwise the book's 5."""
    lr: float | None = None
    """Learning rate of all rows; otherwise the book's 5e-5 (LoRA 8e-4), of gpt2-nano 1e-3 with warm-up,
    cosine and clipping."""
    out: Path | None = None
    """Folder for results.csv, table.md and ablations.png; otherwise runs/ablations-<model>-<data>."""
    cache: Path | None = None
    """Folder that keeps the frozen blocks' output, which rows and seeds share, for later calls as well;
    otherwise a temporary one, in the system's folder for such."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("runs") / f"ablations-{Path(self.model).name}-{Path(self.data).stem}"


def run_ablations(config: AblationConfig) -> "pd.DataFrame":
    """Run what is not yet in the folder's ``results.csv``; returns all of it, one line per run.

    After each run ``results.csv``, ``table.md`` and ``ablations.png`` are written anew.

    Raises:
        InputError: an option or the data cannot be used, the folder's results were measured with others, or
            another process writes to it.
        KeyboardInterrupt: after Ctrl-C; what is finished is written.
    """
    rows, runs = plan(config)
    path = config.folder / "results.csv"
    read_results(path)  # a folder that cannot be used is left as it is
    config.folder.mkdir(parents=True, exist_ok=True)
    way_out = "wait until it ends, or choose another --out"
    busy = f"--out {config.folder} is in use by another process; {way_out}"
    try:
        with locked(config.folder / LOCK, busy):
            return _run_all(config, rows, runs, path)
    finally:
        if not any(config.folder.iterdir()):
            config.folder.rmdir()


def _run_all(config: AblationConfig, rows: list, runs: list, path: Path) -> "pd.DataFrame":
    """:func:`run_ablations`, by the one process that may write to the folder."""
    results = read_results(path)
    _check_same(results, config, path)
    finished = set(zip(results["row"], results["seed"], strict=True))
    todo = [run for run in runs if (run[0].number, run[1].run.seed) not in finished]
    log.info(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished before; {_said(config)}")
    require_writable(config.folder, "--out")
    with workplace(Path(tempfile.gettempdir()) / "gptcls-ablations") as scratch:
        for row, run in todo:
            result = _run(row, run, config.cache or scratch)
            results = with_result(path, result)
            write_report(config.folder, results, rows)
            scores = " / ".join(f"{result[part]:.2f}" for part in PARTS)
            log.info(
                f"row {row.number}, {row.name}, seed {run.run.seed}: {scores} % in {result['seconds']:.0f} s"
            )
    if not todo and len(results):
        write_report(config.folder, results, rows)
    return results


def plan(config: AblationConfig) -> tuple[list[Ablation], list[tuple[Ablation, TrainConfig]]]:
    """The rows that ``config`` asks for, and the runs that they take, all rows of a seed before the next.

    Rows that do not apply to the model take none; one that is another row's run takes that.
    """
    if len(set(config.seeds)) < len(config.seeds) or not config.seeds:
        given = " ".join(map(str, config.seeds)) or "without a number"
        raise InputError(f"--seeds {given}: give one or more different seeds")
    rows = chosen(config.rows)
    needed = {row.same_as or row.number for row in rows if row.applies_to(config.model)}
    preset = PRESETS.get(config.model)
    n_positions = (preset or load_pretrained(config.model).config).n_positions
    shared = _shared(config)
    runs = [
        (ABLATIONS[number], config_of(ABLATIONS[number], n_positions, seed=seed, **shared))
        for seed in config.seeds
        for number in sorted(needed)
    ]
    return rows, runs


def _shared(config: AblationConfig) -> dict[str, Any]:
    """What all rows have from the command line, for :func:`config_of`."""
    return {name: getattr(config, name) for name in ("model", "data", "epochs", "lr", "device")}


def _run(row: Ablation, config: TrainConfig, cache: Path) -> dict[str, Any]:
    """Train, keep the scores, forget the run."""
    if config.model.train not in PLAIN and row.keeps_features:
        config = config.changed(cache=cache)
    with unlogged():
        run = fit(read_split(config), settings=config)
    scores = {part: round(100 * run.scores[part]["accuracy"], 4) for part in PARTS}
    seconds = round(run.seconds, 2)
    return _key(row, config) | scores | {"n_test": run.scores["test"]["n"], "seconds": seconds}


def _key(row: Ablation, config: TrainConfig) -> dict[str, Any]:
    """What a line of results.csv says of how it was measured: names, not where files lie here."""
    names = {"model": Path(config.model.model).name, "data": Path(config.data.data).name}
    settings = {"epochs": config.fit.epochs, "lr": config.fit.lr}
    return {"row": row.number, "seed": config.run.seed, **names, **settings}


def _check_same(results: "pd.DataFrame", config: AblationConfig, path: Path) -> None:
    """Raise InputError where results were measured with other options than their row would have now.

    Of all rows, not only those asked for: they are compared with one another.
    """
    for line in results.to_dict("records"):
        (row,) = chosen((line["row"],))
        now = _key(row, config_of(row, 1, seed=line["seed"], **_shared(config)))  # no key needs positions
        for name, value in now.items():
            if line[name] != value:
                raise InputError(
                    f"{path}: row {line['row']} was measured with {name} {line[name]}, and would now have "
                    f"{value}; choose another --out, or the options that were used"
                )


def _said(config: AblationConfig) -> str:
    """The settings that all rows share, and where they come from."""
    shared = config_of(ABLATIONS[1], 1, **_shared(config)).fit
    by = "as suits a network of its width" if settings(config.model) else "as in the book"
    return f"{Path(config.model).name}: {shared.epochs} epochs at lr {shared.lr:g}, {shared.schedule}, {by}"


def _run_and_print(config: AblationConfig) -> None:
    results = run_ablations(config)
    say(table(summarise(results, chosen(config.rows))))
    if len(results):
        say(f"\nwritten to {config.folder}: results.csv, table.md, ablations.png")


def main() -> None:
    """The command line."""
    cli.run(AblationConfig, _run_and_print)


if __name__ == "__main__":
    main()
