"""Labelling with Ray Data, on the cores of one machine or on a cluster: readers that cut files into pieces,
actors with a classifier each that write a piece's answers as a part of the output, and a driver that counts.

A part's name says which rows it holds, and it is written whole or not at all. So whatever a lost actor had
not finished is done again by another, and gives the same part. The driver alone decides when all is there.
"""

import glob
import logging
import math
import os
import pickle
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from gptcls.classify.answers import added_columns, answers_of, require_free, with_answers
from gptcls.classify.predict import AnswerOptions, TextClassifier
from gptcls.classify.store import BUNDLED
from gptcls.common import signals
from gptcls.common.extras import needed
from gptcls.common.files import atomic_folder, require_writable, tidy
from gptcls.common.lazy import pd
from gptcls.common.lock import LOCK, locked
from gptcls.common.log import log
from gptcls.common.options import check_at_least
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import PRESETS
from gptcls.data.columns import columns_of, find_text_columns, text_values
from gptcls.data.options import TableOptions
from gptcls.data.readers import FORMATS, SUFFIXES, Dialect, format_of, read_json_lines, suffix_of
from gptcls.data.writer import ChunkWriter

WHERE = ("source_file", "source_row")  # the columns that say where a row stood, 1-based
DONE = "_SUCCESS"  # as Spark and Hadoop name it: in a folder whose parts are all there
OURS = ("enable_progress_bars", "print_on_execution_start", "target_max_block_size")  # of Ray's settings
READ_AHEAD = 2**26  # bytes of pieces for each actor that may lie in Ray's object store
STORE = 2**28  # bytes of that store on a machine where nothing else needs it
TRIES = 4  # of a piece that its actors do not survive, on one machine


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How Ray shares out the work."""

    actors: int | None = None
    """Classifiers in memory, each a process with its share of the cores, or a GPU; otherwise one for each
    GPU, or core."""
    piece: int = 4096
    """Rows read and labelled together: a part of --out."""
    parts: Literal["parquet", "csv", "tsv", "jsonl"] = "parquet"
    """Format of these parts."""
    cluster: str | None = None
    """Address of a Ray cluster that runs, or auto; otherwise one is started here for as long as it takes."""

    def checked(self) -> "RayOptions":
        """InputError for what cannot be."""
        check_at_least(vars(self), {"actors": 1, "piece": 1})
        return self


@dataclass(frozen=True)
class Source:
    """A file to read, here (``system`` is None) or on a pyarrow file system."""

    name: str  # as people know it
    path: str
    system: Any = None

    @contextmanager
    def here(self) -> Iterator[Path]:
        """Its path on this machine; what is elsewhere is copied to a temporary folder meanwhile. InputErrors
        and OSErrors name it as people know it."""
        with ExitStack() as stack:
            path = Path(self.path)
            try:
                if self.system is not None:
                    from pyarrow import fs

                    folder = stack.enter_context(tempfile.TemporaryDirectory())
                    path = Path(folder, path.name)
                    fs.copy_files(self.path, str(path), self.system, fs.LocalFileSystem())
                yield path
            except InputError as error:
                raise InputError(str(error).replace(str(path), self.name)) from None
            except OSError as error:
                raise InputError(f"{self.name} cannot be read: {' '.join(str(error).split()):.200}") from None


@dataclass(frozen=True)
class Piece:
    """Rows of a file on their way to an actor, or why they could not be read."""

    source: str
    name: str  # of the part that they become: in the order of names is that of the rows
    first: int  # the number of the first row in the file, 1-based
    rows: "pd.DataFrame | None" = None
    error: str = ""


@dataclass(frozen=True)
class Part:
    """What became of a piece."""

    name: str
    rows: int = 0
    blank: int = 0
    truncated: int = 0
    formulas: int = 0
    columns: tuple[str, ...] = ()  # with their types, where a format has types
    pid: int = 0  # of the actor
    error: str = ""


@dataclass(frozen=True)
class Job:
    """All that readers and actors must know."""

    options: AnswerOptions
    texts: tuple[str, ...]  # columns
    columns: tuple[str, ...]  # of every file; () where they may vary
    added: tuple[str, ...]  # columns that the answers get
    dialect: Dialect
    piece: int
    out: str  # a folder that all machines see
    system: Any  # pyarrow's, of a folder that is not here
    suffix: str
    escape_formulas: bool
    threads: int
    tries: str  # a folder of each machine's own


# --- what runs on Ray's workers ---


def pieces(job: Job, number: int, source: Source) -> Iterator[Piece]:
    """The rows of a file, piece by piece; the last has the error that ended it, if any."""
    i, first = 0, 1
    try:
        with source.here() as path:
            for i, rows in enumerate(format_of(path, job.dialect).read(path, job.dialect, job.piece)):
                if job.columns and tuple(rows.columns) != job.columns:
                    changed = sorted({*rows.columns} ^ {*job.columns}) or ["another order"]
                    raise InputError(f"{path} has other columns than the first file ({changed[0]!r})")
                yield Piece(source.name, f"part-{number:06}-{i:06}{job.suffix}", first, rows)
                first += len(rows)
    except InputError as error:
        yield Piece(source.name, f"part-{number:06}-{i + 1:06}{job.suffix}", first, error=str(error))


class Labeller:
    """An actor: one classifier, for piece after piece."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        self.job, self.error = job, ""
        try:
            self.classifier: TextClassifier = job.options.load()
        except InputError as error:  # what the machine of the driver has and this one has not
            self.error = str(error)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        piece: Piece = pickle.loads(row["piece"])
        try:
            if error := self.error or piece.error:
                raise InputError(error)
            with _counted(Path(self.job.tries, piece.name), piece):
                part = self.part(piece)
        except (InputError, OSError) as error:
            part = Part(piece.name, error=str(error))
        return {"part": pickle.dumps(part)}

    def part(self, piece: Piece) -> Part:
        """Write the answers to a piece."""
        job, saved, rows = self.job, self.classifier.saved, piece.rows
        texts = text_values(columns_of(rows, job.texts, piece.source))
        outputs, truncated = self.classifier.scored(texts)
        answers = answers_of(saved.task, saved.decision)
        require_free(rows, (*job.added, *WHERE), piece.source)
        where = piece.source, range(piece.first, piece.first + len(rows))
        labelled = with_answers(rows, answers, job.added, outputs)
        labelled = labelled.assign(**dict(zip(WHERE, where, strict=True)))
        with ExitStack() as stack:
            folder = job.out if job.system is None else stack.enter_context(tempfile.TemporaryDirectory())
            target = Path(folder, piece.name)
            with ChunkWriter(target, escape_formulas=job.escape_formulas) as writer:
                writer.write(labelled)
            columns = () if target.suffix == ".jsonl" else tuple(labelled.columns)
            if target.suffix == ".parquet":
                from pyarrow import parquet

                columns = tuple(f"{field.name}: {field.type}" for field in parquet.read_schema(target))
            if job.system is not None:
                from pyarrow import fs

                fs.copy_files(str(target), f"{job.out}/{piece.name}", fs.LocalFileSystem(), job.system)
        blank = sum(text is None for text in texts)
        counts = len(rows), blank, truncated, writer.n_formulas
        return Part(piece.name, *counts, columns, os.getpid())


@contextmanager
def _counted(file: Path, piece: Piece) -> Iterator[None]:
    """InputError for a piece that was begun :data:`TRIES` times and never ended: Ray would try for ever."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as opened:
        opened.write(b".")
    if file.stat().st_size > TRIES:
        rows = f"{piece.source}, rows {piece.first} to {piece.first + len(piece.rows) - 1}"
        way_out = "if memory is short, a smaller --piece or fewer --actors take less"
        raise InputError(f"{rows}: {TRIES} actors died while they labelled these; {way_out}")
    yield
    file.unlink()


# --- what runs where the command was given ---


def label_with_ray(
    options: AnswerOptions, table: TableOptions, data: str | Path, out: str | Path, how: RayOptions,
    escape_formulas: bool = False,
) -> int:  # fmt: skip
    """Label every row of the files that ``data`` names (:func:`sources_of`) and return how many there were.

    The folder ``out`` gets parts: each row with the columns that
    :func:`gptcls.classify.run.classify_file` writes, then its file and its number there, :data:`WHERE`. In
    the order of names the parts hold the rows in the order of files and rows. A folder here appears when it
    is complete; one behind a URI is, once :data:`DONE` is in it. InputError for what cannot be read, for
    files of different columns, and for a folder that holds something; then nothing is left of it.
    """
    with tqdm(unit=" rows", delay=1, disable=None) as bar:
        counts = [0, 0, 0, 0]
        with closing(labelled_parts(options, table, data, out, how, escape_formulas)) as parts:
            for part in parts:
                each = part.rows, part.blank, part.truncated, part.formulas
                counts = [total + more for total, more in zip(counts, each, strict=True)]
                bar.update(part.rows)
    rows, blank, truncated, formulas = counts
    if blank:
        log.info(f"{data}: {blank:,} rows have no text and get no label")
    if formulas and not escape_formulas:
        said = f"cells that a spreadsheet would take for formulas: {formulas:,}"
        log.info(f"{out}: {said}; --escape-formulas makes them text")
    if truncated:
        log.info(f"{truncated:,} texts were longer than what the classifier reads")
    return rows


def labelled_parts(
    options: AnswerOptions, table: TableOptions, data: str | Path, out: str | Path, how: RayOptions,
    escape_formulas: bool = False,
) -> Iterator[Part]:  # fmt: skip
    """:func:`label_with_ray`, each part as it comes; the folder is complete when there are no more."""
    how.checked()
    _require_ray()
    suffix, dialect = f".{how.parts}", table.dialect
    if escape_formulas and how.parts not in ("csv", "tsv"):
        raise InputError("--escape-formulas goes with --parts csv or tsv")
    sources = sources_of(data)
    with _output(out) as (folder, system):
        classifier = options.load()
        rows, source = _first_rows(sources, dialect, how.piece, data)
        trained_on = classifier.saved.text_columns
        texts = find_text_columns(rows.columns, table.text_column, rows, source.name, trained_on)
        answers = answers_of(classifier.saved.task, classifier.saved.decision)
        added = tuple(added_columns(answers, rows.columns))
        require_free(rows, (*added, *WHERE), source.name)
        varying = FORMATS.get(suffix_of(Path(source.path)))
        columns = () if varying and varying.read is read_json_lines else tuple(rows.columns)
        del classifier
        options = replace(options, model=_absolute(options.model), base=_absolute(options.base))
        with (
            tempfile.TemporaryDirectory(prefix="gptcls-") as tries,
            _ray(how, options.device) as (actors, threads, gpus),
        ):
            reading = options, texts, columns, added, dialect, how.piece
            job = Job(*reading, folder, system, suffix, escape_formulas, threads, tries)
            names, form = [], None
            for part in _stream(job, sources, actors, gpus):
                if part.error:
                    raise InputError(part.error)
                form = form or part.columns
                if part.columns != form:
                    changed = sorted({*part.columns} ^ {*form}) or ["another order"]
                    said = f"{part.name} would have other columns or types than the part before it"
                    raise InputError(f"{out}: {said} ({changed[0]!r}); give --parts jsonl")
                names.append(part.name)
                yield part
            _finish(folder, system, names, out)


def sources_of(data: str | Path) -> list[Source]:
    """The files that ``data`` names, sorted: a file, a folder with all below it (names that begin with . or _
    are left out), or a pattern such as ``folder/*.parquet``; here, or behind a URI that pyarrow reads, such
    as ``s3://bucket/folder``. InputError where there is none, or of several formats.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.csv", "a.csv", "_SUCCESS"):
    ...         _ = Path(folder, name).write_text("text")
    ...     [Path(source.name).name for source in sources_of(folder)]
    ['a.csv', 'b.csv']
    """
    found = _elsewhere(str(data)) if "://" in str(data) else _here(str(data))
    if not found:
        raise InputError(f"--data {data}: no file there; give a file, a folder or a pattern ({SUFFIXES})")
    suffixes = sorted({suffix_of(Path(source.path)) for source in found})
    if len(suffixes) > 1:
        said = f"--data {data} has files of several formats ({', '.join(suffixes)})"
        raise InputError(f"{said}; name those of one, such as '*{suffixes[0]}'")
    return found


def _here(data: str) -> list[Source]:
    if os.path.isdir(data):
        paths = [path for path in Path(data).rglob("*") if path.is_file()]
        paths = [path for path in paths if _is_data(str(path.relative_to(data)))]
    elif glob.has_magic(data) and not os.path.exists(data):
        paths = [Path(name) for name in glob.glob(data, recursive=True) if os.path.isfile(name)]
    else:
        paths = [Path(data)]  # that there is none its reader says
    return [Source(str(path), str(path.absolute())) for path in sorted(paths)]


def _elsewhere(data: str) -> list[Source]:
    from pyarrow import fs

    where, mark, query = data.partition("?")  # which is no wildcard in a URI
    names = where.split("/")
    fixed = next((i for i, name in enumerate(names) if glob.has_magic(name)), len(names))
    system, top = _system_of("/".join(names[:fixed]) + mark + query)
    try:
        infos = [system.get_file_info(top)]
        if infos[0].type != fs.FileType.File:
            infos = system.get_file_info(fs.FileSelector(top, allow_not_found=True, recursive=True))
    except OSError as error:
        raise InputError(f"--data {data}: {' '.join(str(error).split()):.200}") from None
    paths = sorted(info.path for info in infos if info.type == fs.FileType.File)
    if names[fixed:]:
        pattern = [*top.rstrip("/").split("/"), *names[fixed:]]
        paths = [each for each in paths if _matches(each.split("/"), pattern)]
    elif paths != [top]:
        paths = [each for each in paths if _is_data(each.removeprefix(top).lstrip("/"))]
    return [Source(f"{names[0]}//{each}", each, system) for each in paths]


def _matches(names: list[str], pattern: list[str]) -> bool:
    return len(names) == len(pattern) and all(map(fnmatch, names, pattern))


def _is_data(name: str) -> bool:
    """Whether a file of a folder holds rows, by its path below it."""
    return suffix_of(Path(name)) in FORMATS and not any(part[0] in "._" for part in Path(name).parts)


def _system_of(uri: str) -> tuple[Any, str]:
    from pyarrow import ArrowException, fs

    try:
        return fs.FileSystem.from_uri(uri)
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{uri} cannot be used: {' '.join(str(error).split()):.200}") from None


def _first_rows(
    sources: Sequence[Source], dialect: Dialect, n: int, data: str | Path
) -> tuple["pd.DataFrame", Source]:
    """Of the first file that has any: other files of a folder may have none."""
    for source in sources:
        with source.here() as path:
            for rows in format_of(path, dialect).read(path, dialect, n):
                return rows, source
    raise InputError(f"{data} has no rows: at least one is needed")


def _absolute(name: Any) -> Any:
    """A worker may start in another folder."""
    if not isinstance(name, str | Path) or str(name) in {*BUNDLED, *PRESETS} or not os.path.exists(name):
        return name
    return os.path.abspath(name)


@contextmanager
def _output(out: str | Path) -> Iterator[tuple[str, Any]]:
    """The folder to write parts to, and its file system if it is not here. It is complete when the block
    ends; after an exception nothing is left of it."""
    full = f"--out {out} holds something already; name a new or an empty folder"
    if "://" in str(out):
        from pyarrow import fs

        system, path = _system_of(str(out))
        selector = fs.FileSelector(path, allow_not_found=True)
        try:
            if system.get_file_info(path).type == fs.FileType.File or system.get_file_info(selector):
                raise InputError(full)
            system.create_dir(path)
        except OSError as error:
            said = f"--out {out} cannot be written: {' '.join(str(error).split()):.200}"
            raise InputError(said) from None
        try:
            yield path, system
        except BaseException:
            with suppress(OSError):
                system.delete_dir_contents(path, missing_dir_ok=True)
            raise
        return
    folder = Path(os.path.realpath(out))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(full)
    require_writable(folder, "--out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = f"{out} is in use by another process; wait until it ends, or choose another folder"
    with locked(folder.with_name(f".{folder.name}{LOCK}"), busy), atomic_folder(folder) as temporary:
        yield str(temporary), None


def _finish(folder: str, system: Any, names: Sequence[str], out: str | Path) -> None:
    if system is not None:
        with system.open_output_stream(f"{folder}/{DONE}"):
            return
    tidy(Path(folder))  # of actors that died
    if missing := {*names} - {*os.listdir(folder)}:
        said = f"{len(missing):,} of {len(names):,} parts were written on other machines"
        raise InputError(f"{said}: --out {out} must be a folder that all of them share, or a URI")
    Path(folder, DONE).touch()


# --- Ray itself ---


def _require_ray() -> None:
    # Read when it is imported: nothing goes to its makers, and its actors are as urgent as any other program,
    # where Ray's own choice is a niceness of 15.
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):
        os.environ.setdefault(name, "0")
    with needed("ray", "--engine ray"):
        import ray.data  # noqa: F401


@contextmanager
def _ray(how: RayOptions, device: str) -> Iterator[tuple[int, int, float]]:
    """Ray, for as long as the block takes unless it ran before: actors, threads and GPUs of each."""
    import ray

    own = not ray.is_initialized()
    if own:
        options = {"log_to_driver": False, "logging_level": "ERROR"}
        if how.cluster is None:
            cores = os.cpu_count() or 1
            # An actor's share of the cores counts as what Ray gives away, at least one.
            options |= {"address": "local", "include_dashboard": False}
            options |= {"num_cpus": max(cores, how.actors or 1), "object_store_memory": STORE}
        else:
            _require_reachable(how.cluster)
            options |= {"address": how.cluster}
        try:
            ray.init(**options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"--cluster {how.cluster or 'none'}: Ray does not start ({said:.200})") from None
    try:
        if ":" in device:
            raise InputError(f"--device {device}: Ray gives each actor a GPU of its own; use cuda")
        with signals.obeyed():  # Ray has put its own handler in place
            kind = "GPU" if device in ("auto", "cuda") and "GPU" in ray.cluster_resources() else "CPU"
            shares = [int(node["Resources"].get(kind, 0)) for node in ray.nodes() if node["Alive"]]
            actors, most = how.actors or sum(shares), sum(shares)
            if actors > most:
                raise InputError(f"--actors {actors} is more than the {most} {kind}s that Ray has")
            cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
            if how.cluster is None and own:
                cores = [os.cpu_count() or 1]
            fitting = (n for n in range(max(cores), 0, -1) if sum(each // n for each in cores) >= actors)
            yield actors, next(fitting, 1), float(kind == "GPU")
    finally:
        if own:
            ray.shutdown()


def _require_reachable(address: str) -> None:
    """InputError unless somebody listens at ``host:port``; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and "/" not in address and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            said = f"--cluster {address} does not answer ({error})"
            raise InputError(f"{said}; is it the head's port?") from None


def _stream(job: Job, sources: Sequence[Source], actors: int, gpus: float) -> Iterator[Part]:
    """The parts in the order in which they are done."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, ExecutionResources, TaskPoolStrategy

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    before = {name: getattr(context, name) for name in OURS}
    limits = context.execution_options.resource_limits
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 1  # a piece is a block: what is done again after a failure
    ahead = ExecutionResources.for_limits(object_store_memory=READ_AHEAD * actors)
    context.execution_options.resource_limits = ahead

    def read(row: dict[str, Any]) -> Iterator[dict[str, bytes]]:
        for piece in pieces(job, row["number"], pickle.loads(row["source"])):
            yield {"piece": pickle.dumps(piece)}

    rows = [{"number": i, "source": pickle.dumps(source)} for i, source in enumerate(sources)]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    # Readers take no core from Ray's count: with an actor on each core there would be none for them.
    data = data.flat_map(read, num_cpus=0, compute=TaskPoolStrategy(size=math.ceil(actors / 8)))
    pool = ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2)
    resources = {"num_cpus": job.threads, "num_gpus": gpus}
    data = data.map(Labeller, fn_constructor_args=(job,), compute=pool, **resources)
    try:
        for row in data.iter_rows():
            yield pickle.loads(row["part"])
    except ray.exceptions.RayError as error:
        said = " ".join(str(error).split())
        raise InputError(f"Ray cannot go on: {said[-300:]}; look into /tmp/ray/session_latest/logs") from None
    finally:  # Ray may go on with other work of this program
        for name, value in before.items():
            setattr(context, name, value)
        context.execution_options.resource_limits = limits
