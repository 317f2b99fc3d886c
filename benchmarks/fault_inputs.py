"""What is fuzzed: for each kind of file a whole one, how it is damaged, and what gptcls reads it with.

Reading may end in one way besides success: an error that the command line shows as a line, an InputError or
an OSError. Everything is tiny, so that hundreds are read in a second.
"""

import contextlib
import gzip
import io
import json
import logging
import lzma
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from benchmarks import fault_mutations as mutations
from benchmarks.fault_kills import files_below
from gptcls.classify.predict import TextClassifier, load_classifier
from gptcls.classify.run import classify_file
from gptcls.classify.store import SavedClassifier, save_classifier
from gptcls.common import cli, help
from gptcls.core.batches import TextDataset
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.core.loop import FitSettings, Trainer
from gptcls.core.task import SingleLabel
from gptcls.data.columns import columns_of, find_text_columns, text_values
from gptcls.data.readers import read_chunks
from gptcls.data.sources import load_data
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen
from gptcls.models.families import FAMILIES
from gptcls.models.lora import LoRAConfig, add_lora, freeze
from gptcls.models.peft_files import CONFIG, TENSORS
from gptcls.models.pretrained import load_pretrained, load_tokenizer, weights_sha256
from gptcls.models.tokenizer_file import FileTokenizer
from gptcls.pretrain.config import PretrainConfig
from gptcls.pretrain.text import read_streams
from gptcls.train.config import TrainConfig
from gptcls.train.folder import RunFolder
from gptcls.train.hooks import BestWeights, load_checkpoint, save_checkpoint
from gptcls.train.resolve import resolve
from gptcls.train.rows import read_split
from gptcls.train.setup import make_task

SENTENCES = ("see you at home", "win a prize, now", 'he said "ok"', "café")
TEXTS = [f"{text} {i}" for i in range(3) for text in SENTENCES]
LABELS = ["ham", "spam", "ham", "spam"] * 3
GPT2_SIZES = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 16}
VOCABULARY = 300


@dataclass(frozen=True)
class Kind:
    """One kind of input; ``share`` is how many of a hundred inputs are of it."""

    name: str
    share: int
    file: str  # which of ``files`` is damaged
    files: dict[str, bytes]  # all that has to be there
    damage: mutations.Mutator
    use: Callable[[Path], Any]  # of the folder with the files
    made: tuple[str, ...] = field(default=())  # what a use that succeeds may leave beside them


class Kinds:
    """All kinds, their originals made in ``folder``, where a random case is written and used."""

    def __init__(self, folder: Path) -> None:
        logging.getLogger("gptcls").setLevel(logging.CRITICAL)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.folder, self.home = folder, folder / "whole"
        self.home.mkdir(parents=True, exist_ok=True)
        self.classifier = self._classifier()
        made = [*self._tables(), *self._weights(), *self._classifiers(), *self._runs(), *self._words()]
        self.kinds = {kind.name: kind for kind in made}
        # Spread, so that a short campaign too meets all of them.
        self.schedule = [kind.name for kind in made for _ in range(kind.share)]
        random.Random(0).shuffle(self.schedule)

    def name(self, number: int) -> str:
        """The kind of the case of that number: the first cases are one of each."""
        names = list(self.kinds)
        return names[number] if number < len(names) else self.schedule[number % len(self.schedule)]

    def write(self, number: int, seed: int) -> tuple[Kind, Path]:
        """The files of the case of that number, one of them damaged, in a folder of their own."""
        kind, rng = self.kinds[self.name(number)], random.Random(f"{seed}/fuzz/{number}")
        case = self.folder / "case"
        case.mkdir(exist_ok=True)
        for name, content in kind.files.items():
            path = case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kind.damage(rng, content) if name == kind.file else content)
        return kind, case

    # --- the kinds ---

    def _classifier(self) -> TextClassifier:
        """Of the tokenizer's few tokens, so that its file is small; saved in ``whole/classifier``."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=["<pad>"], show_progress=False
        )
        tokenizer.train_from_iterator(TEXTS, trainer)
        tokenizer.save(str(self.home / "tokenizer.json"))
        network = GPT2(GPT2Config(**GPT2_SIZES, vocab_size=VOCABULARY))
        task = SingleLabel.of(LABELS)
        own = FileTokenizer(self.home / "tokenizer.json")
        saved = SavedClassifier(Classifier(network, 2).eval(), task, 16, None, None, {"lr": 0.1}, {}, own)
        save_classifier(self.home / "classifier", saved)
        return load_classifier(self.home / "classifier", device="cpu")

    def _tables(self) -> list[Kind]:
        frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
        comma = frame.to_csv(index=False).encode()
        tab = frame.to_csv(index=False, sep="\t").encode()
        lines = frame.to_json(orient="records", lines=True).encode()
        several = [{"text": text, "label": ["a", label]} for text, label in zip(TEXTS, LABELS, strict=True)]
        many = "\n".join(map(json.dumps, several)).encode()
        numbers = frame.assign(label=range(len(frame))).to_csv(index=False).encode()
        plain, parquet, sheet = "\n".join(TEXTS).encode(), io.BytesIO(), io.BytesIO()
        frame.to_parquet(parquet, index=False)
        frame.to_excel(sheet, index=False)

        def both(name: str) -> Callable[[Path], None]:
            return partial(_table, name=name, classifier=self.classifier)

        def kind(
            name: str, share: int, file: str, content: bytes, damage: mutations.Mutator, use=None
        ) -> Kind:
            return Kind(name, share, file, {file: content}, damage, use or both(file))

        one, any_number = (partial(_labels, task=task) for task in ("single", "multi"))
        return [
            kind("CSV: bytes", 6, "rows.csv", comma, mutations.damaged_bytes),
            kind("CSV: text", 8, "rows.csv", comma, mutations.damaged_text),
            kind("CSV: cells", 8, "rows.csv", comma, mutations.damaged_table),
            kind("TSV", 5, "rows.tsv", tab, mutations.damaged_text),
            kind("JSON lines", 6, "rows.jsonl", lines, mutations.damaged_json_lines),
            kind("labels", 6, "rows.jsonl", lines, mutations.damaged_json_lines, one),
            kind("labels, several", 4, "rows.jsonl", many, mutations.damaged_json_lines, any_number),
            kind("labels, numbers", 3, "rows.csv", numbers, mutations.damaged_table, _numbers),
            kind("Parquet", 6, "rows.parquet", parquet.getvalue(), mutations.damaged_parquet),
            kind("Excel (zip)", 1, "rows.xlsx", sheet.getvalue(), mutations.damaged_zip),
            kind("gzip", 3, "rows.csv.gz", gzip.compress(comma, mtime=0), mutations.damaged_gzip),
            kind("xz", 1, "rows.csv.xz", lzma.compress(comma), mutations.damaged_xz),
            kind("text to pretrain on", 2, "words.txt", plain, mutations.damaged_text, _stream),
            kind(
                "synonyms", 1, "synonyms.tsv", b"see\tlook\nhome\thouse\n", mutations.damaged_text, _synonyms
            ),
        ]

    def _weights(self) -> list[Kind]:
        kinds, as_json = [], mutations.damaged_json
        for family, share in (("gpt2", 4), ("llama", 2), ("bert", 2)):
            network, described = _tiny(family)
            files = self._published(network, described)
            use = partial(_pretrained, tokenizer=family != "gpt2")
            for file, damage in (
                ("model.safetensors", mutations.damaged_safetensors),
                ("config.json", as_json),
            ):
                kinds.append(Kind(f"{family}: {file}", share, file, files, damage, use))
        network, described = _tiny("gpt2")
        files = self._published(network, described)
        state = _theirs(network, "gpt2")
        shards, home = {"a.safetensors": {}, "b.safetensors": {}}, self.home / "shards"
        home.mkdir()
        for i, (name, value) in enumerate(state.items()):
            list(shards.values())[i % 2][name] = value
        weight_map = {name: shard for shard, part in shards.items() for name in part}
        for shard, part in shards.items():
            save_file(part, home / shard)
        index = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}).encode()
        config = {"config.json": files["config.json"]}
        sharded = config | {shard: (home / shard).read_bytes() for shard in shards}
        name = "model.safetensors.index.json"
        kinds.append(Kind("index of shards", 3, name, sharded | {name: index}, as_json, _pretrained))
        torch.save(state, home / "model.pth")
        torch.save(state, home / "old.pth", _use_new_zipfile_serialization=False)
        for file, damage in (("model.pth", mutations.damaged_zip), ("old.pth", mutations.damaged_bytes)):
            content, use = {file: (home / file).read_bytes()} | config, partial(_pretrained, file=file)
            kinds.append(Kind(f"PyTorch: {file}", 2, file, content, damage, use))
        words = {"tokenizer.json": (self.home / "tokenizer.json").read_bytes()}
        kinds.append(Kind("tokenizer.json", 4, "tokenizer.json", words, mutations.damaged_json, _tokenizer))
        return kinds

    def _published(self, network: Any, described: dict) -> dict[str, bytes]:
        """A folder in Hugging Face's format."""
        path = self.home / "model.safetensors"
        save_file(_theirs(network, described["model_type"]), path)
        files = {"model.safetensors": path.read_bytes(), "config.json": json.dumps(described).encode()}
        return files | {"tokenizer.json": (self.home / "tokenizer.json").read_bytes()}

    def _classifiers(self) -> list[Kind]:
        whole = _contents(self.home / "classifier")
        damages = (
            ("classifier.json", 5, mutations.damaged_json),
            ("model.safetensors", 3, mutations.damaged_safetensors),
            ("tokenizer.json", 1, mutations.damaged_json),
        )  # fmt: skip
        kinds = [Kind(f"classifier: {file}", n, file, whole, how, _classify) for file, n, how in damages]
        network, described = _tiny("llama")
        base = self.home / "base"
        base.mkdir()
        for name, content in self._published(network, described).items():
            (base / name).write_bytes(content)
        network = Classifier(network, 2)
        add_lora(network.backbone.blocks, LoRAConfig(2, 2.0), ("*",), prefix="blocks")
        freeze(network, "lora")
        origin = {"name": str(base), "sha256": weights_sha256(base)}
        own = load_tokenizer(base)
        saved = SavedClassifier(network.eval(), SingleLabel.of(LABELS), 16, None, origin, {}, {}, own)
        save_classifier(self.home / "adapted", saved, full=False)
        adapted = _contents(self.home / "adapted")
        for file, damage in ((CONFIG, mutations.damaged_json), (TENSORS, mutations.damaged_safetensors)):
            kinds.append(Kind(f"adapter: {file}", 1, file, adapted, damage, _classify))
        return kinds

    def _runs(self) -> list[Kind]:
        words = self.classifier.saved.tokenizer
        trainer = _trainer(words)
        trainer.fit()
        save_checkpoint(self.home / "checkpoint", trainer)
        checkpoint = _contents(self.home / "checkpoint")
        load, as_tensors = partial(_checkpoint, tokenizer=words), mutations.damaged_safetensors
        kinds = [
            Kind("checkpoint: progress.json", 3, "progress.json", checkpoint, mutations.damaged_json, load),
            Kind("checkpoint: tensors", 3, "state.safetensors", checkpoint, as_tensors, load),
        ]
        description = {"format": "gptcls run", "base": None, "environment": {}}
        description["options"] = TrainConfig().to_json()
        run = {f"checkpoint/{name}": content for name, content in checkpoint.items()}
        run["config.json"] = json.dumps(description).encode()
        kinds.append(Kind("a run's config.json", 3, "config.json", run, mutations.damaged_json, _resumed))
        features = self.home / "features"
        _features(features, words)
        cache = {file.relative_to(features).as_posix(): file.read_bytes() for file in files_below(features)}
        for suffix, damage in ((".safetensors", as_tensors), (".bin", mutations.damaged_bytes)):
            file = next(name for name in cache if name.endswith(suffix))
            use = partial(_features, tokenizer=words)
            kinds.append(Kind(f"feature cache: {suffix}", 1, file, cache, damage, use, ("kept",)))
        return kinds

    def _words(self) -> list[Kind]:
        text = {"words": b"see you at home, he said"}
        flags = [flag for option in help.options_of(TrainConfig) for flag in option.flags]
        flags += [flag for option in help.options_of(PretrainConfig) for flag in option.flags]
        content = {"arguments": json.dumps(sorted(set(flags))).encode()}

        def arguments(rng: random.Random, data: bytes) -> bytes:
            return json.dumps(mutations.damaged_arguments(rng, json.loads(data))).encode()

        answer = partial(_answer, classifier=self.classifier)
        return [
            Kind("texts", 5, "words", text, mutations.damaged_text, answer),
            Kind("command lines", 1, "arguments", content, arguments, _command_line),
        ]


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def _theirs(network: Any, family: str) -> dict[str, torch.Tensor]:
    """Its tensors under the names of Hugging Face's files."""
    return {k: v.clone() for k, v in FAMILIES[family].names.to_theirs(network.state_dict()).items()}


def _tiny(family: str) -> tuple[Any, dict[str, Any]]:
    """A network of the family with random weights, and its config.json."""
    sizes = {
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "vocab_size": VOCABULARY, "max_position_embeddings": 16, "pad_token_id": 0,
    }  # fmt: skip
    kind = FAMILIES[family]
    own = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 16, "vocab_size": VOCABULARY}
    match family:
        case "gpt2":
            config, described = kind.config(**own), {"model_type": "gpt2", **own, "eos_token_id": 0}
        case "llama":
            config = kind.config(**own, n_kv_head=1, head_dim=4, n_inner=12)
            described = {"model_type": "llama", **sizes, "num_key_value_heads": 1}
        case _:
            config = kind.config(**own, n_inner=12, n_segments=2)
            described = {"model_type": "bert", **sizes, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    return kind.network(config).eval(), described


# --- what reads them ---


def _split_of(**options: Any) -> None:
    """The rows of a run and its targets, as training begins."""
    config = resolve(TrainConfig().changed(**options))
    split = read_split(config)
    task = make_task(split, config)
    for _, frame in split.items():
        task.targets(frame["label"].tolist())


def _table(folder: Path, name: str, classifier: TextClassifier) -> None:
    """Training's rows, and classify's, which reads the file on another way. Every eighth file is also split
    and answered: that takes ten times as long as reading it."""
    path, out = folder / name, folder / "out.csv"
    whole, failed = path.stat().st_size % 8 == 0, []
    read = partial(_split_of, data=str(path)) if whole else partial(load_data, str(path))
    label = partial(classify_file, classifier, path, out) if whole else partial(_chunks, path)
    for step in (read, label):
        try:
            step()
        except (InputError, OSError) as error:
            failed.append(error)
            if step is label and out.exists():
                raise RuntimeError("a file that cannot be read left an output file") from None
    out.unlink(missing_ok=True)
    if failed:
        raise failed[0]


def _chunks(path: Path) -> None:
    for chunk in read_chunks(path):
        text_values(columns_of(chunk, find_text_columns(chunk.columns, None, chunk, path), path))


def _labels(folder: Path, task: str) -> None:
    _split_of(data=str(folder / "rows.jsonl"), task=task)


def _numbers(folder: Path) -> None:
    _split_of(data=str(folder / "rows.csv"), task="regression")


def _stream(folder: Path) -> None:
    read_streams(str(folder / "words.txt"), None, 0.1)


def _synonyms(folder: Path) -> None:
    _split_of(data="sms-sample", augment=("synonym",), synonyms=folder / "synonyms.tsv")


def _pretrained(folder: Path, file: str = "", tokenizer: bool = False) -> None:
    load_pretrained(folder / file)
    if tokenizer:
        load_tokenizer(folder)


def _tokenizer(folder: Path) -> None:
    found = FileTokenizer(folder / "tokenizer.json")
    found.decode(found.encode_rows(["see you", ""], 8)[0])


def _classify(folder: Path) -> None:
    load_classifier(folder, device="cpu").predict("see you at home")


def _trainer(tokenizer: FileTokenizer) -> Trainer:
    torch.manual_seed(0)
    task = SingleLabel.of(LABELS)
    model = Classifier(GPT2(GPT2Config(**GPT2_SIZES, vocab_size=VOCABULARY)), 2)
    model.freeze("head")
    rows = TextDataset(["a", "b"], task.targets(["ham", "spam"]), 4, tokenizer=tokenizer)
    batch = rows.collate([rows[0], rows[1]])
    settings, cpu = FitSettings(epochs=1, lr=0.1), torch.device("cpu")
    return Trainer(model, task, [batch, batch], settings, cpu, [BestWeights(0)])


def _checkpoint(folder: Path, tokenizer: FileTokenizer) -> None:
    load_checkpoint(folder, _trainer(tokenizer))


def _resumed(folder: Path) -> None:
    RunFolder(TrainConfig().changed(out=folder, resume=True), "classifier", resolve)


def _features(folder: Path, tokenizer: FileTokenizer) -> None:
    """Damaged ones are computed again: nothing may be raised."""
    torch.manual_seed(0)
    model = Classifier(GPT2(GPT2Config(**GPT2_SIZES, vocab_size=VOCABULARY)), 2).eval()
    rows = TextDataset(["a", "b c"], torch.zeros(2, dtype=torch.long), 4, tokenizer=tokenizer)
    FeatureCache(folder / "kept").datasets(Frozen(model, 1), {"train": rows}, torch.device("cpu"))


def _answer(folder: Path, classifier: TextClassifier) -> None:
    classifier.predict((folder / "words").read_bytes().decode("utf-8", "surrogateescape"))


def _command_line(folder: Path) -> None:
    """Exit 0 for help, 2 with one line for a mistake; nothing else."""
    arguments = json.loads((folder / "arguments").read_text(encoding="utf-8"))
    before, err = sys.argv, io.StringIO()
    sys.argv = ["gptcls train", *arguments]
    try:
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            cli.run(TrainConfig, resolve)
    except SystemExit as exit_:
        lines = err.getvalue().strip().splitlines()
        if exit_.code not in (0, None) and (exit_.code != 2 or len(lines) != 1):
            raise RuntimeError(f"exit {exit_.code} with {len(lines)} lines: {arguments!r:.100}") from None
    finally:
        sys.argv = before
        logging.getLogger("gptcls").handlers.clear()
