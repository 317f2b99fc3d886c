"""Named faults of what a command reads and writes: memory, labels, consoles, files, disks, the hub."""

import errno
import gzip
import io
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import threading
import zipfile
from pathlib import Path

import torch

from benchmarks.fault_commands import Done, Trap, cold, warm
from benchmarks.fault_hub import serve
from benchmarks.fault_kills import RECIPES, Place, blank_pictures, files_below, random_gpt2
from benchmarks.fault_list import fault, refused, require, succeeded

MEMORY, LABELS, CONSOLES, DAMAGED = "memory", "labels", "consoles", "damaged files"
DISK, HUB = "disk", "hub"
GIB = 1 << 30
ESCAPE = "\x1b"


def limit_memory(more: int) -> None:
    """In the command: ``more`` bytes of address space than it has now."""
    blank_pictures()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + more, size + more))


def _train(place: Place, folder: Path, *more: object, **options: object) -> Done:
    """A run on the place's rows, with other options."""
    values = {"data": place.rows, "model": place.base, "epochs": 1, "out": "run"} | options
    arguments = [each for name, value in values.items() for each in (f"--{name}", value)]
    return warm("train", [*arguments, *more], folder, None, blank_pictures)


# --- memory ---


@fault(MEMORY, "no memory left, at six sizes of what there is")
def out_of_memory(place: Place) -> None:
    folder = place.fresh()
    base = random_gpt2(folder / "wide", n_embd=192)
    met = 0
    for n, mib in enumerate((4, 16, 40, 80, 160, 320)):
        arguments = ["--data", place.rows, "--model", base, "--train", "all", "--epochs", 1]
        arguments += ["--out", f"run{n}"]
        done = warm("train", arguments, folder, None, limit_memory, mib << 20)
        if done.code != 0:
            met += 1
            refused(done, "memory", "--batch-size|--max-length|--cache-budget|smaller", what=f"{mib} MiB:")
    require(met > 1, "memory was never short")


@fault(MEMORY, "a line of 5 GB")
def endless_line(place: Place) -> None:
    folder = place.fresh()
    member = gzip.compress(b"a" * (1 << 20))
    with gzip.open(folder / "rows.csv.gz", "wb") as file:
        file.write(b"text,label\n")
    with (folder / "rows.csv.gz").open("ab") as file:
        for _ in range(5 * 1024):
            file.write(member)
    arguments = ["--data", "rows.csv.gz", "--model", place.base, "--out", "run"]
    done = warm("train", arguments, folder, None, limit_memory, GIB, limit=60)
    refused(done, "rows.csv.gz", "line|unpack")


@fault(MEMORY, "a field of 11 million characters that is closed")
def long_field(place: Place) -> None:
    folder = place.fresh()
    (folder / "rows.csv").write_text(f'text,label\n"{"a b " * 2_750_000}",ham\nc,spam\n')
    done = _train(place, folder, data="rows.csv")
    refused(done, "rows.csv", "line 2", "characters")
    require("never closed" not in done.last, f"the quote is closed: {done.last}")


# --- labels ---


@fault(LABELS, 'labels 1, "1", true and 1.0 in one column')
def labels_of_several_types(place: Place) -> None:
    folder = place.fresh()
    spellings = {
        "with true": ((1, "1", True, 1.0), (0, "0", False, 0.0)),
        "without": ((1, "1", 1.0), (0, "0", 0.0)),
    }
    for what, sides in spellings.items():
        pairs = [(f"text {i}", side[i % len(side)]) for i in range(24) for side in sides]
        rows = [{"text": f"{text} {label!r}", "label": label} for text, label in pairs]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        done = _train(place, folder, data="rows.jsonl", out=what.replace(" ", ""))
        if done.code == 0:
            description = folder / what.replace(" ", "") / "classifier" / "classifier.json"
            labels = json.loads(description.read_text())["task"]["labels"]
            require(len(labels) == 2, f"{what}: {len(labels)} classes: {labels}")
        else:
            refused(done, "rows.jsonl", "label", what=what)


# --- consoles ---


@fault(CONSOLES, "terminals of ASCII and cp1252")
def narrow_terminals(place: Place) -> None:
    folder = place.fresh()
    rows = place.rows.read_text(encoding="utf-8").replace(",ham", ",höflich ✓").replace(",spam", ",中文")
    (folder / "rows.csv").write_text(rows, encoding="utf-8")
    succeeded(_train(place, folder, data="rows.csv"))
    for encoding in ("ascii", "cp1252"):
        narrow = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
        for verb, arguments in (("classify", ["see you ✓"]), ("evaluate", [])):
            done = cold(verb, ["--model", "run", *arguments], folder, environment=narrow)
            succeeded(done, f"{verb}, {encoding}:")
            require(done.out.strip(), f"{verb}, {encoding}: it says nothing")


@fault(CONSOLES, "standard output or error closed, or a full disk")
def closed_output(place: Place) -> None:
    folder = place.fresh()
    for what, closed in (("stdout", ">&-"), ("stderr", "2>&-"), ("both", ">&- 2>&-")):
        wrapper = ["bash", "-c", f'exec "$@" {closed}', "x"]
        done = cold("classify", ["see you", "a prize"], folder, wrapper=wrapper)
        require(done.code in (0, 2), f"{what} closed: exit {done.code}, {done.last}")
        require(not done.uncaught, f"{what} closed: a traceback: {done.last}")
    done = cold("classify", ["see you"], folder, wrapper=["bash", "-c", 'exec "$@" >/dev/full', "x"])
    refused(done, "output|space", what="stdout is full:")


@fault(CONSOLES, "control characters in labels, texts and file names")
def control_characters(place: Place) -> None:
    folder, bad = place.fresh(), f"{ESCAPE}]0;owned\x07"
    rows = [{"text": f"text {i} {bad}", "label": f"{'ab'[i % 2]}{ESCAPE}[2J"} for i in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    trained = _train(place, folder, data="rows.jsonl")
    succeeded(trained)
    answered = warm("classify", ["--model", "run", f"hello {bad}"], folder)
    succeeded(answered)
    scored = warm("evaluate", ["--model", "run"], folder)
    odd = folder / f"{ESCAPE}[31mrows.csv"
    odd.write_text("text\n1\n")
    arguments = ["--data", odd, "--out", f"{ESCAPE}[2J.csv", "--text-column", "nothing"]
    refusal = warm("classify", arguments, folder)
    require(not refusal.uncaught, f"a traceback: {refusal.last}")
    each = {"train": trained, "classify": answered, "evaluate": scored, "an error": refusal}
    for what, done in each.items():
        require(ESCAPE not in done.out + done.err, f"{what} sends an escape sequence to the terminal")


@fault(CONSOLES, "formulas in a CSV for people")
def formulas(place: Place) -> None:
    folder = place.fresh()
    (folder / "texts.csv").write_text('text\n"=1+1"\n"@SUM(A1)"\nsee you\n')
    arguments = ["--data", "texts.csv", "--out"]
    said = warm("classify", [*arguments, "plain.csv"], folder)
    succeeded(said)
    require("formula" in said.err, f"it does not say that cells would be formulas: {said.last}")
    done = warm("classify", [*arguments, "safe.csv", "--escape-formulas"], folder)
    succeeded(done)
    text = (folder / "safe.csv").read_text()
    require("'=1+1" in text and "'@SUM" in text, f"they are not escaped: {text[:80]}")


# --- damaged files ---


@fault(DAMAGED, "Parquet, .pth, zip bombs, encrypted members, encodings that are no text's")
def damaged_files(place: Place) -> None:
    import pandas as pd

    folder = place.fresh()
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(40)], "label": ["a", "b"] * 20})
    parquet, sheet = io.BytesIO(), io.BytesIO()
    frame.to_parquet(parquet, index=False)
    frame.to_excel(sheet, index=False)
    whole = parquet.getvalue()
    damaged = {"cut.parquet": whole[:-9], "page.parquet": whole[:8] + bytes(200) + whole[208:]}
    footer = struct.unpack("<I", whole[-8:-4])[0]
    damaged["footer.parquet"] = whole[: -8 - footer] + bytes(footer) + whole[-8:]
    damaged["marked.xlsx"] = _encrypted(sheet.getvalue())
    damaged["bomb.xlsx"] = _bomb(sheet.getvalue())
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
        arguments = ["--data", name, "--model", place.base, "--out", "run"]
        done = warm("train", arguments, folder, None, limit_memory, 2 * GIB, limit=90)
        refused(done, name, what=f"{name}:")
    frame.to_csv(folder / "rows.csv", index=False)
    for encoding in ("base64", "rot13", "zip", "hex", "undefined", "idna"):
        refused(_train(place, folder, "--encoding", encoding, data="rows.csv"), encoding, what=f"{encoding}:")
    state = io.BytesIO()
    torch.save({"wte.weight": torch.zeros(4, 4)}, state)
    whole = state.getvalue()
    damaged = {"cut.pth": whole[:200], "marked.pth": _encrypted(whole), "no.pth": b"\x80\x02."}
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
        refused(_train(place, folder, model=name), name, what=f"{name}:")


def _bomb(workbook: bytes) -> bytes:
    """With a sheet of 600 MB, in which a few kilobytes repeat."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(workbook)) as old,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("sheet1.xml"):
                head, mark, tail = content.partition(b"<sheetData>")
                row = b'<row><c t="inlineStr"><is><t>' + b"a" * 30_000 + b"</t></is></c></row>"
                content = head + mark + row * 20_000 + tail
            new.writestr(name, content)
    return file.getvalue()


def _encrypted(archive: bytes) -> bytes:
    """Every member is marked as encrypted."""
    found = bytearray(archive)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = found.find(mark)
        while at >= 0:
            found[at + offset] |= 1
            at = found.find(mark, at + 4)
    return bytes(found)


@fault(DAMAGED, "JSON nested 200,000 deep, 2^31 layers, a shard without a name")
def absurd_descriptions(place: Place) -> None:
    folder = place.fresh()
    deep = '{"a":' * 200_000 + "1" + "}" * 200_000
    config = json.loads((place.base / "config.json").read_text())
    sizes = [
        (key, value) for key in ("n_layer", "n_positions", "vocab_size") for value in (2**31, -1, 10**30)
    ]
    absurd = {f"{key} {value}": json.dumps(config | {key: value}) for key, value in sizes}
    for what, content in ({"deep": deep} | absurd).items():
        base = folder / what.replace(" ", "-")
        shutil.copytree(place.base, base)
        (base / "config.json").write_text(content)
        arguments = ["--data", place.rows, "--model", base, "--out", "run"]
        done = warm("train", arguments, folder, None, limit_memory, 2 * GIB)
        refused(done, base.name, what=f"config.json, {what}:")
    for what, index in (("deep", deep), ("no name", json.dumps({"weight_map": {"wte.weight": ""}}))):
        base = folder / f"shards-{what.replace(' ', '-')}"
        base.mkdir()
        (base / "config.json").write_text(json.dumps(config))
        (base / "model.safetensors.index.json").write_text(index)
        refused(_train(place, folder, model=base), "index", what=f"index, {what}:")
    for what in ("deep", "n_layer", "labels"):
        model = folder / f"classifier-{what}"
        shutil.copytree(place.classifier / "classifier", model)
        description = json.loads((model / "classifier.json").read_text())
        description["architecture"]["n_layer"] = 2**20
        (model / "classifier.json").write_text(deep if what == "deep" else json.dumps(description))
        done = warm("classify", ["--model", model, "a"], folder, None, limit_memory, 2 * GIB, limit=60)
        refused(done, model.name, what=f"classifier.json, {what}:")
    (folder / "rows.jsonl").write_text(deep)
    refused(_train(place, folder, data="rows.jsonl"), "rows.jsonl", what="rows:")


@fault(DAMAGED, "a damaged index of a cache, a damaged checkpoint before the frozen pass")
def damaged_state(place: Place) -> None:
    recipe = RECIPES[1]
    kills = place.kills
    folder = place.fresh()
    succeeded(kills.command(recipe, folder, None).wait())
    shutil.rmtree(folder / "run")
    index = next((folder / "cache").rglob("*.safetensors"))
    whole = index.read_bytes()
    from safetensors.torch import load, save

    tensors = load(whole)
    n = len(tensors["counts"])
    worse = {
        "cut": whole[:40],
        "without keys": save({"offsets": tensors["offsets"], "counts": tensors["counts"]}),
        "offsets beyond": save(tensors | {"offsets": tensors["offsets"] + 10**9}),
        "other types": save(tensors | {"offsets": tensors["offsets"].float() + 0.5}),
        "fewer": save(tensors | {"offsets": tensors["offsets"][: n // 2].clone()}),
    }
    for what, content in worse.items():
        index.write_bytes(content)
        done = kills.command(recipe, folder, None).wait()
        succeeded(done, f"index {what}:")
        shutil.rmtree(folder / "run")
        for file in (folder / "cache").rglob("*.safetensors"):
            if file != index:
                file.unlink()
                file.with_suffix(".bin").unlink()
    folder = place.fresh()
    done = kills.command(recipe, folder, Trap(0, signal.SIGKILL, path="metrics")).wait()
    states = list(folder.rglob("checkpoint/state*.safetensors"))
    require(done.code == 137 and states, f"there is no checkpoint to damage: {done.last}")
    for file in (*states, states[0].with_name("progress.json")):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        done = kills.command(recipe, folder, None, True).wait()
        refused(done, "checkpoint", what=f"{file.name}:")
        require("validation: " not in done.err, f"{file.name}: found only after the frozen pass")
        file.write_bytes(content)


@fault(DAMAGED, "an epsilon that is NaN, a learning rate that is infinite")
def not_a_number(place: Place) -> None:
    folder = place.fresh()
    for option in ("lr", "weight-decay", "clip", "warmup", "cache-budget"):
        for value in ("inf", "nan", "-inf"):
            if (option, value) in (("cache-budget", "inf"), ("clip", "inf")):
                continue  # no bound at all is what that means
            done = _train(place, folder, **{option: value, "out": f"{option}{value}"})
            refused(done, f"--{option}", what=f"--{option} {value}:")
    config = json.loads((place.base / "config.json").read_text())
    for value in (float("nan"), float("inf"), 0, -1):
        base = folder / f"epsilon{value}"
        shutil.copytree(place.base, base)
        (base / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": value}))
        refused(_train(place, folder, model=base), "epsilon", what=f"epsilon {value}:")


# --- disks ---

MOUNT = ["unshare", "-r", "-m", "bash", "-c"]


def _on_disk(folder: Path, options: str, verb: str, arguments: list, after: str = "true") -> Done | None:
    """A cold command whose ``disk/`` is a file system of its own; None where this machine allows none."""
    (folder / "disk").mkdir(exist_ok=True)
    mount = f"mount -t tmpfs -o {options} none disk"
    if subprocess.run([*MOUNT, mount], cwd=folder, capture_output=True).returncode:
        return None
    shell = f'{mount} && "$@"; code=$?; find disk -type f | wc -l > left; {after}; exit $code'
    return cold(verb, arguments, folder, wrapper=[*MOUNT, shell, "x"])


@fault(DISK, "a full or a read-only disk is found before the work")
def no_room(place: Place) -> None:
    folder = place.fresh()
    train = ["--data", place.rows, "--model", place.base, "--out", "disk/run"]
    label = ["--model", place.classifier, "--data", place.texts, "--out", "disk/out.csv"]
    for what, options in (("full", "size=4k,nr_inodes=1"), ("read-only", "ro")):
        for verb, arguments in (("train", train), ("classify", label)):
            done = _on_disk(folder, options, verb, arguments)
            if done is None:
                return
            refused(done, "disk", "--out|space|folder", what=f"{verb}, {what}:")
            require("epoch" not in done.err, f"{verb}, {what}: found after the training")


@fault(DISK, "the disk fills up once the weights are trained")
def weights_are_kept(place: Place) -> None:
    kills, recipe = place.kills, RECIPES[0]
    for path in ("classifier", "metrics", "predictions", ".png"):
        folder = place.fresh()
        done = kills.command(recipe, folder, Trap(0, errno=errno.ENOSPC, path=path)).wait()
        refused(done, "space|--out", "run", what=f"{path}:")
        _, reasons, _ = kills.finish(recipe, folder, done)
        require(not reasons, f"{path}: {'; '.join(reasons)}")
        shutil.rmtree(folder)


@fault(DISK, "outputs keep their mode, links and FIFOs")
def outputs_stay_what_they_are(place: Place) -> None:
    folder = place.fresh()
    label = ["--model", place.classifier, "--data", place.texts, "--out"]
    private = folder / "private.csv"
    private.write_text("old")
    private.chmod(0o600)
    succeeded(warm("classify", [*label, private], folder), "a private file:")
    require(private.stat().st_mode & 0o777 == 0o600, f"mode 600 became {private.stat().st_mode & 0o777:o}")
    (folder / "real.csv").write_text("old")
    link = folder / "link.csv"
    link.symlink_to("real.csv")
    succeeded(warm("classify", [*label, link], folder), "a link:")
    kept = link.is_symlink() and "probability" in (folder / "real.csv").read_text()
    require(kept, "the link became a file")
    fifo = folder / "fifo.csv"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()
    done = warm("classify", [*label, fifo], folder, limit=60)
    if done.code == 0:
        reader.join(5)
    is_fifo = fifo.is_fifo()
    if reader.is_alive() and is_fifo:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    require(is_fifo, "the FIFO became a file")
    if done.code != 0:
        refused(done, "fifo.csv", what="a FIFO:")
    else:
        require(read and "probability" in read[0], "nobody at the FIFO got the rows")


# --- the hub ---


def _files(place: Place) -> dict[str, bytes]:
    return {f"team/tiny/{file.name}": file.read_bytes() for file in files_below(place.base)}


def _near(folder: Path, url: str) -> dict[str, str | None]:
    """The environment of a command whose hub is at ``url``, its cache in ``folder``."""
    near = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": None}
    off = dict.fromkeys(("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET"), "1")
    return near | off | dict.fromkeys(("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"), "3")


def _from_hub(folder: Path, url: str) -> Done:
    """Load the network by its hub name: generate does, and little else."""
    arguments = ["--model", "team/tiny", "--max-new-tokens", 1, "see you"]
    return cold("generate", arguments, folder, environment=_near(folder, url))


@fault(HUB, "429 and 503, for a while")
def busy(place: Place) -> None:
    with serve(_files(place)) as hub:
        for status in ("429", "503"):
            for which in ("config.json", "model.safetensors"):
                folder = place.fresh()
                hub.misbehave, hub.times, hub.which, hub.asked = status, 2, which, []
                done = _from_hub(folder, hub.url)
                succeeded(done, f"{status} of {which}:")
                times = [when for _, path, when in hub.asked if path.endswith(which)]
                require(times[1] - times[0] > 0.9, f"{status} of {which}: Retry-After was not waited for")


@fault(HUB, "wrong bytes, half a file, endless redirects, silence; a cache that cannot be written")
def misbehaving_hub(place: Place) -> None:
    with serve(_files(place)) as hub:
        hub.retry_after = 86_400  # longer than anybody waits
        for what in ("wrong", "truncated", "endless", "stalls", "503"):
            for which in ("config.json", "model.safetensors"):
                folder = place.fresh()
                hub.misbehave, hub.times, hub.which = what, 10**9, which
                done = _from_hub(folder, hub.url)
                refused(done, which, what=f"{what} {which}:")
                kept = [f for f in files_below(folder / "hf") if "snapshots" in f.parts and f.name == which]
                require(not kept, f"{what} {which}: it is in the cache under its name")
        hub.misbehave = ""
        folder = place.fresh()
        (folder / "hf").write_text("a file")
        refused(_from_hub(folder, hub.url), "HF_HOME", what="HF_HOME is a file:")
        folder = place.fresh()
        succeeded(_from_hub(folder, hub.url), "a good hub:")


@fault(HUB, "a stranger's classifier asks the hub for its base weights")
def strangers_classifier(place: Place) -> None:
    folder = place.fresh()
    succeeded(_train(place, folder, "--save", "trained"))
    description = folder / "run" / "classifier" / "classifier.json"
    values = json.loads(description.read_text())
    values["base"]["name"] = "team/tiny"
    description.write_text(json.dumps(values))
    with serve(_files(place)) as hub:
        near = _near(folder, hub.url)
        done = cold("classify", ["--model", "run", "see you"], folder, environment=near)
        require(not hub.asked, f"the hub was asked for {len(hub.asked)} files")
        refused(done, "--allow-download")
        done = cold("classify", ["--model", "run", "--allow-download", "see you"], folder, environment=near)
        succeeded(done, "with --allow-download:")
