"""Clocks, the GEMM peak, peak memory, and the table: everything that is not about a particular contestant."""

import contextlib
import gc
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
GEMM_SIZE = 2048
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """One line of a table. ``None`` where a line has no such figure."""

    what: str
    seconds: float | None = None  # ours; the median of the repeats
    peer_seconds: float | None = None  # the peer's, for the same work
    ratio: float | None = None  # peer / ours; the median of the ratios inside each repeat
    ratios: list[float] = field(default_factory=list)  # of every repeat
    seconds_per_1k: float | None = None  # texts
    tokens_per_second: float | None = None  # real tokens, no padding
    gemm_share: float | None = None  # of the peak of the same number format, measured in the same run
    peak_mib: float | None = None
    note: str = ""


def compare(what: str, ours: Sequence[float], peer: Sequence[float], note: str = "") -> Row:
    """A row from the seconds of interleaved repeats: the ratio is formed inside each, then the median taken.

    >>> compare("x", [1.0, 2.0, 1.0], [10.0, 30.0, 12.0]).ratio
    12.0
    """
    ratios = [b / a for a, b in zip(ours, peer, strict=True)]
    spread = f"{min(ratios):.3g} to {max(ratios):.3g} in {len(ratios)} turns" if len(ratios) > 1 else ""
    return Row(
        what,
        statistics.median(ours),
        statistics.median(peer),
        statistics.median(ratios),
        ratios,
        note="; ".join(filter(None, (spread, note))),
    )


def scaled(measured: Sequence[float], count: int) -> float:
    """Seconds that ``count`` equal pieces of work take, from the seconds of the pieces that were timed.

    >>> scaled([1.0, 3.0], 10)
    20.0
    """
    return statistics.fmean(measured) * count if count else 0.0


def spread(widths: Sequence[int], count: int) -> list[int]:
    """``count`` of the positions in ``widths`` at evenly spaced ranks: their mean stands for that of all.

    Random draws would do as well, but a dozen of them can miss the mean width by a tenth.

    >>> spread([10, 50, 40, 20, 30], 1)  # the middle one
    [4]
    """
    ranked = sorted(range(len(widths)), key=widths.__getitem__)
    count = min(count, len(ranked))
    return [ranked[int((i + 0.5) * len(ranked) / count)] for i in range(count)]


class Stopwatch:
    """``with Stopwatch() as watch: …``, then ``watch.seconds``."""

    def __enter__(self) -> "Stopwatch":
        gc.collect()  # what an earlier contestant left behind is not this one's cost
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self.start


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Nothing on stdout: the book's training function prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@torch.inference_mode()
def gemm_peak(dtype: torch.dtype, runs: int = 10, clock: Callable[[], float] = time.perf_counter) -> float:
    """Floating-point operations a second, best of ``runs`` products of two square matrices of GEMM_SIZE."""
    size = GEMM_SIZE
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    seconds = []
    for _ in range(runs + 2):  # the first ones warm up
        start = clock()
        torch.mm(a, b, out=out)
        seconds.append(clock() - start)
    return 2 * size**3 / min(seconds)


def _proc_status(name: str) -> float | None:
    """A figure of this process as Linux reports it, in MiB."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{name}:")), None)


def anonymous_mib() -> float | None:
    """Resident memory now that belongs to no file, in MiB; None where the system does not say."""
    return _proc_status("RssAnon")


def peak_mib() -> float:
    """The largest resident memory of this process so far, in MiB, mapped files included."""
    peak = _proc_status("VmHWM")
    if peak is not None:  # getrusage would report the parent's peak where that was larger
        return peak
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def run_alone(module: str, *arguments: str) -> dict[str, Any]:
    """Run ``python -m module arguments`` and read the JSON object in the last line of its stdout.

    Adds ``wall``, the seconds from start to exit. Raises RuntimeError with what it said when it fails.
    """
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": wall}


def run_command(*arguments: str, env: Mapping[str, str] | None = None, cpu_time: bool = False) -> float:
    """Seconds of the clock, or of the processor, from start to exit of ``python arguments``, whatever it
    prints. RuntimeError with what it said if it fails."""
    before = os.times()
    with Stopwatch() as watch:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent if cpu_time else watch.seconds


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def peaks_line(peaks: dict[str, float]) -> str:
    """The GEMM peaks in words."""
    figures = ", ".join(f"{value / 1e9:,.0f} GFLOP/s {name}" for name, value in peaks.items())
    return f"GEMM peak ({GEMM_SIZE} cubed, best of the run): {figures}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


COLUMNS = {  # field -> (heading, format)
    "what": ("", str),
    "seconds": ("ours, s", _three_digits),
    "peer_seconds": ("theirs, s", _three_digits),
    "ratio": ("theirs / ours", "{:.3g} x".format),
    "seconds_per_1k": ("s per 1,000 texts", _three_digits),
    "tokens_per_second": ("tokens/s", "{:,.0f}".format),
    "gemm_share": ("share of GEMM peak", "{:.0%}".format),
    "peak_mib": ("peak memory, MiB", "{:,.0f}".format),
    "note": ("note", str),
}


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown; a column in which no row has a figure is left out."""
    used = [name for name in COLUMNS if any(getattr(row, name) not in (None, "") for row in rows)]
    heads = [COLUMNS[name][0] for name in used]
    rules = ["---" if name in ("what", "note") else "---:" for name in used]
    lines = [heads, rules]
    for row in rows:
        values = [(getattr(row, name), COLUMNS[name][1]) for name in used]
        lines.append(["" if value is None else form(value) for value, form in values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(
    title: str, rows: Sequence[Row], peaks: dict[str, float], options: dict[str, Any], path: Path | None
) -> None:
    """Print the table and, given a path, write everything as JSON."""
    here = machine()
    print(f"## {title}\n")
    cores = f"{here['cores']} cores, {here['threads']} threads"
    print(f"{here['cpu']}, {here['isa']}, {cores}, torch {here['torch']}.")
    if peaks:
        print(peaks_line(peaks) + ".")
    print(f"\n{table(rows)}")
    if path is not None:
        content = {"title": title, "machine": here, "gemm_peak_flops": peaks, "options": options}
        content["rows"] = [asdict(row) for row in rows]
        # Names of files, not where they lie here.
        text = json.dumps(content, indent=2, default=lambda path: path.name)
        path.write_text(text + "\n", encoding="utf-8")
        print(f"\nwritten to {path}")
