"""What the ablations gave: the file of single runs, the table over seeds, the picture.

Accuracies are in percent. An interval is Student's 95 % interval of the mean over seeds
(:func:`gptcls.evaluation.intervals.mean_interval`); there is none for a single seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ablation_rows import ABLATIONS, Ablation
from gptcls.common.files import atomic_file
from gptcls.core.errors import InputError
from gptcls.evaluation.intervals import mean_interval
from gptcls.evaluation.plots import new_figure
from gptcls.evaluation.style import BLUE, GREY, VERMILION

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLUMNS = {  # of results.csv, and their types
    "row": "int64", "seed": "int64", "model": "str", "data": "str", "epochs": "int64", "lr": "float64",
    "train": "float64", "validation": "float64", "test": "float64", "n_test": "int64", "seconds": "float64",
}  # fmt: skip
NANO = Path(__file__).parent / "ablations-nano"  # what gpt2-nano gave on the SMS Spam Collection
MISSING = "\N{EN DASH}"
Interval = tuple[float, float, float]  # mean, low, high


@dataclass(frozen=True)
class Summary:
    """One row over its seeds; what was not measured is None."""

    row: Ablation
    n_seeds: int = 0
    train: Interval | None = None
    validation: Interval | None = None
    test: Interval | None = None
    gain: Interval | None = None  # test accuracy minus row 1's, seed by seed
    seconds: float | None = None  # of training, median
    model: str = ""


def read_results(path: Path) -> "pd.DataFrame":
    """``results.csv`` as a table with the columns :data:`COLUMNS`, empty where there is no file.

    Raises InputError for a file that is not one of ours.
    """
    import pandas as pd

    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f"--out {path.parent} is a file; choose a folder")
    if not path.exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    try:
        frame = pd.read_csv(path, encoding="utf-8", dtype=str, keep_default_na=False)
        if list(frame) != list(COLUMNS):
            raise ValueError(f"columns {', '.join(map(str, frame))}")
        return frame.astype(COLUMNS)  # from str: every pandas then reads the very number written
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is not a file of benchmarks.ablations ({error!s:.80}); choose another --out"
        ) from None


def with_result(path: Path, result: dict[str, Any]) -> "pd.DataFrame":
    """``results.csv`` with one more line, which is also written, sorted by row and seed."""
    import pandas as pd

    frame = pd.DataFrame([*read_results(path).to_dict("records"), result], columns=list(COLUMNS))
    frame = frame.astype(COLUMNS).sort_values(["row", "seed"], ignore_index=True)
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
    return frame


def summarise(results: "pd.DataFrame", rows: Sequence[Ablation] = ()) -> list[Summary]:
    """The asked ``rows`` and all that were measured, each over its seeds, in the table's order."""
    wanted = {row.number for row in rows} | set(results["row"].tolist())
    return [_summary(results, row) for row in ABLATIONS.values() if row.number in wanted]


def _summary(results: "pd.DataFrame", row: Ablation) -> Summary:
    by_seed = results[results["row"] == (row.same_as or row.number)].set_index("seed")
    if by_seed.empty:
        return Summary(row)
    default = results[results["row"] == 1].set_index("seed")["test"]
    gains = (by_seed["test"] - default).dropna()
    return Summary(
        row,
        len(by_seed),
        *(mean_interval(by_seed[part]) for part in ("train", "validation", "test")),
        gain=mean_interval(gains) if len(gains) else None,
        seconds=float(by_seed["seconds"].median()),
        model=by_seed["model"].iloc[0],
    )


def table(summaries: Sequence[Summary]) -> str:
    """The summaries in Markdown, the published figures before ours, and notes below."""
    heads = [
        "row",
        "change",
        "published: train / val / test %",
        "min",
        "seeds",
        "here: train %",
        "validation %",
    ]
    heads += ["test %", "test minus row 1", "s"]
    lines = [heads, ["---:", "---", "---:", "---:", "---:", *["---:"] * 5]]
    for summary in summaries:
        row, has_gain = summary.row, summary.gain and (summary.row.same_as or summary.row.number) != 1
        published = " / ".join(f"{value:.2f}" for value in row.published)
        cells = [str(row.number), row.name, published, f"{row.minutes:.2f}", str(summary.n_seeds or MISSING)]
        cells += [_cell(interval) for interval in (summary.train, summary.validation, summary.test)]
        cells.append(_cell(summary.gain, signed=True) if has_gain else MISSING)
        cells.append(MISSING if summary.seconds is None else f"{summary.seconds:.0f}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n\n" + "\n".join(_notes(summaries))


def _cell(interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return MISSING
    mean, low, high = (f"{value:{'+' if signed else ''}.2f}" for value in interval)
    return f"{mean} [{low}, {high}]" if math.isfinite(interval[1]) else mean


def _notes(summaries: Sequence[Summary]) -> list[str]:
    """What the table cannot say by itself, as a list."""
    notes = [
        "published: gpt2-small, one seed, minutes on an A100. Here: mean over seeds, with Student's 95 % "
        "interval from two seeds on. A seed has a split of its own, so differences are taken seed by seed. "
        "s: seconds of training, median over seeds; the frozen blocks' one pass is not counted."
    ]
    notes += [f"row {s.row.number}: {s.row.note}." for s in summaries if s.row.note]
    if absent := [str(s.row.number) for s in summaries if not s.n_seeds and "model" in s.row.options]:
        notes.append(f"rows {', '.join(absent)}: other sizes of GPT-2, to be run with --model gpt2-small.")
    return [f"- {note}" for note in notes]


def plot(summaries: Sequence[Summary]) -> "Figure":
    """Test accuracy of every row with its interval, and the published one."""
    figure, axes = new_figure(8.0, 1.3 + 0.3 * len(summaries))
    lines = range(len(summaries))
    published = [summary.row.published[2] for summary in summaries]
    axes.plot(
        published, lines, "D", mfc="white", color=VERMILION, ms=6, label="published, gpt2-small, one seed"
    )
    measured = [(line, summary) for line, summary in enumerate(summaries) if summary.test]
    if measured:
        means = [summary.test[0] for _, summary in measured]
        spread = [
            [abs(s.test[side] - s.test[0]) if math.isfinite(s.test[side]) else 0 for _, s in measured]
            for side in (1, 2)
        ]
        names = dict.fromkeys(summary.model for _, summary in measured)
        few, many = (end(summary.n_seeds for _, summary in measured) for end in (min, max))
        over = f"{few} to {many} seeds" if few < many else f"{many} seeds"
        label = f"{', '.join(names)}, " + ("one seed" if many == 1 else f"mean and 95 % interval over {over}")
        at = [line for line, _ in measured]
        axes.errorbar(means, at, xerr=spread, fmt="o", color=BLUE, ms=5, capsize=3, label=label)
    if summaries and (default := summaries[0]).row.number == 1 and default.test:
        axes.axvline(default.test[0], color=GREY, ls=":", lw=1, zorder=0)
    axes.set_yticks(lines, [f"{summary.row.number}  {summary.row.name}" for summary in summaries])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("test accuracy (%), dotted: row 1 here")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def write_report(folder: Path, results: "pd.DataFrame", rows: Sequence[Ablation]) -> None:
    """``table.md`` and ``ablations.png``."""
    summaries = summarise(results, rows)
    with atomic_file(folder / "table.md") as temporary:
        temporary.write_text(table(summaries) + "\n", encoding="utf-8")
    with atomic_file(folder / "ablations.png") as temporary:
        plot(summaries).savefig(temporary, dpi=150, metadata={"Software": None})
