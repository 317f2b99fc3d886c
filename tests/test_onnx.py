"""A classifier taken to ONNX Runtime: the same ids, the same answers, with nothing of ours and no torch."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import random_bert, random_llama
from helpers.tiny import TINY, set_pooling, tiny_classifier, tiny_lora, tiny_saved, write_csv
from test_to_transformers import TEXTS, TRAINED_ON, checkpoint, saved_over
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from benchmarks import inference as benchmark
from gptcls.classify.predict import TextClassifier, load_classifier
from gptcls.classify.store import SavedClassifier, save_classifier
from gptcls.core.batches import TextDataset
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.core.task import SingleLabel, Task
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.data.clean import CLEANERS
from gptcls.data.long_texts import CUTS
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.decision import UNSURE, Decision
from gptcls.export import to_onnx as exporter
from gptcls.export.run import ExportConfig, export
from gptcls.export.to_onnx import Answers, to_onnx
from gptcls.models.pretrained import load_pretrained
from gptcls.models.rotary import ROPE_TYPES
from gptcls.models.tokenizer_file import FileTokenizer

CPU = torch.device("cpu")
AWKWARD = [
    *TEXTS, "我想要中文 分类！", "👩‍👩‍👧‍👦 👍🏽 e\u0301", "<|endoftext|>", "a<|endoftext|>b </s>", "   ",  # noqa: RUF001
    " \n\n\n x", "don't I'LL we've", "x" * 300, "1234567890" * 9, "\u200b\x00\x85", "٣٤٥ ½ Ⅷ", "a\r\nb\tc",
]  # fmt: skip
LISTED = cache(ONNXRegistry.from_torchlib)
THREE = SingleLabel(("a", "b", "c"))


@pytest.fixture(autouse=True)
def operators_are_listed_once(monkeypatch) -> None:
    """Torch makes its table of some thousand ONNX operators anew for every network."""
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(LISTED))


@cache
def tokenizer_of(file: Path) -> Any:
    """As a user of the folder loads it."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.encode_special_tokens = True
    return tokenizer


def rows_of(folder: Path, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and lengths as a user of the folder has them."""
    rows = tokenizer_of(folder / "tokenizer.json").encode_batch(texts)
    return np.array([row.ids for row in rows]), np.array([sum(row.attention_mask) for row in rows])


def session_of(folder: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])


def theirs(folder: Path, texts: list[str], batch: int) -> list[np.ndarray]:
    """What ONNX Runtime says of texts in batches of a size."""
    session, parts = session_of(folder), []
    for start in range(0, len(texts), batch):
        ids, lengths = rows_of(folder, texts[start : start + batch])
        parts.append(session.run(None, {"ids": ids, "lengths": lengths}))
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def answered(task: Task, outputs: list[np.ndarray]) -> list:
    """Their outputs in the words that :meth:`TextClassifier.predict` has."""
    if not task.has_probabilities:
        (numbers,) = outputs
        return numbers.tolist() if numbers.shape[1] > 1 else numbers[:, 0].tolist()
    named = [[task.labels[k] for k in np.flatnonzero(row)] for row in outputs[1]]
    several = isinstance(task, MultiLabel)
    return [
        (names if several else names[0]) if sure else UNSURE
        for names, sure in zip(named, outputs[2], strict=True)
    ]


def assert_same(saved: SavedClassifier, folder: Path, texts: list[str] = AWKWARD, atol: float = 1e-5) -> None:
    """The same outputs one by one and in ragged batches, neither of the size that was traced."""
    texts = [text for text in texts if text.strip()]
    ours = TextClassifier(saved, CPU, "fp32")
    expected, answers = ours.outputs(texts), ours.predict(texts)
    for batch in (1, 8):
        found = theirs(folder, texts, batch)
        np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=atol)
        if saved.task.has_probabilities:
            assert answered(saved.task, found) == answers


def stirred(saved: SavedClassifier) -> SavedClassifier:
    """Other answers to other texts."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in saved.model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.5 if name.startswith("head") else 0.1))
    return saved


@pytest.fixture(scope="module")
def gpt2() -> SavedClassifier:
    """With adapters, not yet merged, and a calibration."""
    return replace(
        tiny_saved(),
        model=tiny_lora(),
        max_length=20,
        calibration=Calibration((1.7,)),
        task=SingleLabel(("ja", "nein")),
    )


@pytest.fixture(scope="module")
def folder(gpt2, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "here"
    to_onnx(gpt2, folder)
    return folder


def test_gpt2_with_adapters(gpt2, folder) -> None:
    before = {name: p.clone() for name, p in gpt2.model.state_dict().items()}
    assert sorted(p.name for p in folder.iterdir()) == ["example.py", "model.onnx", "tokenizer.json"]
    assert_same(gpt2, folder)
    session = session_of(folder)
    assert {each.name: each.shape for each in session.get_inputs()} == {
        "ids": ["batch", "length"],
        "lengths": ["batch"],
    }
    assert [each.name for each in session.get_outputs()] == ["probabilities", "given", "sure"]
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["labels"]) == ["ja", "nein"]
    assert all(torch.equal(before[name], p) for name, p in gpt2.model.state_dict().items())


def test_padding_changes_nothing_and_a_text_without_a_token_is_one_of_padding(gpt2, folder) -> None:
    session = session_of(folder)
    ids, lengths = rows_of(folder, TEXTS[:3])
    wider = np.pad(ids, ((0, 0), (0, 9)), constant_values=7)
    one, other = (session.run(None, {"ids": each, "lengths": lengths})[0] for each in (ids, wider))
    np.testing.assert_allclose(one, other, atol=1e-6)
    pad = np.full((1, 4), 50256)
    none, single = (session.run(None, {"ids": pad, "lengths": np.array([n])})[0] for n in (0, 1))
    np.testing.assert_array_equal(none, single)


WITHOUT = """
import runpy, sys
for name in ("torch", "gptcls", "transformers", "tiktoken"):
    sys.modules[name] = None  # importing it raises
sys.argv = ["example.py", *sys.argv[1:]]
runpy.run_path("example.py", run_name="__main__")
"""


def ran(folder: Path, *texts: str) -> list[list[str]]:
    command = [sys.executable, "-I", "-c", WITHOUT, *texts]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_the_example_needs_neither_torch_nor_gptcls(gpt2, folder) -> None:
    texts = ["win a prize", "see you at home " * 9]
    ours = TextClassifier(gpt2, CPU, "fp32")
    lines = ran(folder, *texts)
    assert [line[:2] for line in lines] == [[text, ours.predict(text)] for text in texts]
    found = [line[2].strip("[]").split() for line in lines]
    np.testing.assert_allclose(np.array(found, dtype=float), ours.predict_proba(texts), atol=6e-5)
    source = (folder / "example.py").read_text(encoding="utf-8")
    body = source.partition("\n\n")[2].splitlines()
    assert len(body) == 10
    assert {name for name in ("torch", "gptcls") if name in source} == set()


# --- the graph, before it is traced ---

SIGNS = {
    "classes": {"task": THREE},
    "all trained": {"task": THREE, "train": "all"},
    "calibrated": {"task": THREE, "calibration": Calibration((3.1,))},
    "too sure to be true": {"task": THREE, "calibration": Calibration((20.0,)), "grow": 400.0},
    "costs": {"task": THREE, "decision": Decision(costs=((0.0, 1.0, 5.0), (2.0, 0.0, 1.0), (1.0, 9.0, 0.0)))},
    "abstains": {"task": THREE, "decision": Decision(abstain=0.5)},
    "threshold": {"task": SingleLabel(("x", "y")), "decision": Decision(threshold=0.6, abstain=0.55)},
    "labels": {"task": MultiLabel(("a", "b", "c"), (0.3, 0.5, 0.61)), "decision": Decision(abstain=0.55)},
    "labels calibrated": {
        "task": MultiLabel(("a", "b", "c"), (0.3, 0.5, 0.61)),
        "calibration": Calibration((1.3, 0.8, 2.0), (0.1, -0.2, 0.0)),
    },
    "labels too sure": {
        "task": MultiLabel(("a", "b")),
        "calibration": Calibration((9.0, 2.0), (1.0, 0.0)),
        "grow": 400.0,
    },
    "numbers": {"task": Regression(("stars", "price"), (3.0, 1000.0), (1.2, 300.0))},
    "a number": {"task": Regression(("label",))},
}


def said(
    task: Task,
    calibration=None,
    decision=None,
    grow: float = 1.0,
    members: int = 0,
    train: str = "last_block",
) -> SavedClassifier:
    torch.manual_seed(1)
    model = Classifier(GPT2(TINY), task.n_outputs)
    model.freeze(train)
    saved = stirred(
        replace(tiny_saved(), model=model.eval(), task=task, max_length=20, calibration=calibration)
    )
    with torch.no_grad():
        model.head.weight.mul_(grow)
    own = [
        {name: p.detach() + 0.4 * torch.randn_like(p) for name, p in model.trained_parameters().items()}
        for _ in range(members)
    ]
    return replace(saved, members=tuple(own), decision=decision or saved.decision)


@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize("name", SIGNS)
def test_the_graph_says_what_the_classifier_says(name: str, members: int) -> None:
    saved = said(**SIGNS[name], members=members)
    ours = TextClassifier(saved, CPU, "fp32")
    data = TextDataset(TRAINED_ON, torch.zeros(len(TRAINED_ON)), saved.max_length, None, saved.tokenizer)
    ids, lengths, _ = data.collate([data[i] for i in range(len(data))])
    with torch.no_grad():
        outputs = Answers(saved)(ids, lengths)
    outputs = [x.numpy() for x in (outputs if isinstance(outputs, tuple) else (outputs,))]
    expected, unit = ours.outputs(TRAINED_ON), np.array(getattr(saved.task, "scales", 1.0))
    atol = 1e-4 if "grow" in SIGNS[name] else 5e-6  # large logits have large roundings
    np.testing.assert_allclose(outputs[0] / unit, expected / unit, rtol=1e-5, atol=atol)
    assert expected.std(axis=0).max() > 0.01, "the texts differ in what is said of them"
    if saved.task.has_probabilities:
        assert answered(saved.task, outputs) == ours.predict(TRAINED_ON)


# --- tokenizer.json ---


def tokenizers_of_families(folder: Path) -> Iterator[tuple[str, Any]]:
    yield "gpt2", tiny_saved().tokenizer
    for name, made in (
        ("wordpiece", lambda: random_bert.wordpiece(TRAINED_ON, folder)),
        ("roberta", lambda: random_bert.roberta_bpe(TRAINED_ON, folder)),
        ("byte level", lambda: random_llama.byte_level(TRAINED_ON)),
        ("byte level with ends", lambda: random_llama.byte_level(TRAINED_ON, ends=("<s>", "</s>"))),
        ("sentencepiece", lambda: random_llama.sentencepiece_like(TRAINED_ON)),
    ):
        made().save(str(folder / "tokenizer.json"))
        yield name, FileTokenizer(folder / "tokenizer.json", pad_id=1)


@pytest.mark.parametrize("long", ["head", "tail"])
def test_ids_are_ours_cut_as_ours(tmp_path, long: str) -> None:
    texts, cut = [text.replace("\x00", "") for text in AWKWARD], 0
    for name, tokenizer in tokenizers_of_families(tmp_path):
        for max_length in (5, 64):
            saved = replace(tiny_saved(), tokenizer=tokenizer, long=long, max_length=max_length)
            there = tmp_path / f"{name} {max_length}"
            there.mkdir()
            exporter._tokenizer(saved).save(str(there / "tokenizer.json"))
            ids, lengths = rows_of(there, texts)
            data = TextDataset(texts, torch.zeros(len(texts)), max_length, None, tokenizer, CUTS[long])
            expected = [row for row, _ in (data[i] for i in range(len(data)))]
            assert [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)] == expected, name
            assert ids.shape[1] == max(map(len, expected))
            cut += data.truncated
    assert cut > 50


def test_the_books_position_is_padded_to_its_place(tmp_path) -> None:
    saved = replace(
        tiny_saved(), model=set_pooling(tiny_classifier().eval(), "position-1"), pad_to=40, max_length=40
    )
    exporter._tokenizer(saved).save(str(tmp_path / "tokenizer.json"))
    ids, lengths = rows_of(tmp_path, TEXTS)
    assert ids.shape == (len(TEXTS), 40)
    with torch.no_grad():
        found, *_ = Answers(saved)(torch.from_numpy(ids), torch.from_numpy(lengths))
    np.testing.assert_allclose(found, TextClassifier(saved, CPU, "fp32").outputs(TEXTS), atol=1e-6)


# --- other families and forms ---

# Together they have every switch of every family, so the graphs of the others are made of the same parts.
TRACED = {"qwen3 window": {"attention_bias": True}} | {
    kind: {} for kind in ("smollm3", "bert", "distilbert", "electra", "deberta", "modernbert")
}
OTHERS = ("llama", "llama3", "llama yarn", "mistral", "qwen2", "qwen2 window", "qwen3", "phi3", "roberta",
          "xlm-roberta", "camembert", "ernie", "ernie with tasks")  # fmt: skip


# What else is traced by the way.
ASKED = {
    "electra": Regression(("stars", "price"), (3.0, 10.0), (1.2, 4.0)),
    "qwen3 window": MultiLabel(("a", "b")),
}
POOLED = {"smollm3": "mean"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRACED)
def test_every_family(tmp_path, kind: str) -> None:
    saved = saved_over(checkpoint(tmp_path, kind, **TRACED[kind]), ASKED.get(kind, THREE))
    saved.model = set_pooling(saved.model, POOLED.get(kind, saved.model.pooling))
    if kind == "distilbert":
        saved.decision = Decision(costs=((0.0, 1.0, 5.0), (2.0, 0.0, 1.0), (1.0, 9.0, 0.0)), abstain=0.3)
    one = kind in ("distilbert", "electra", "bert")  # of the others two, as they differ
    del saved.model.backbone.blocks[1 if one else 2 :]
    to_onnx(saved, tmp_path / "onnx")
    assert_same(saved, tmp_path / "onnx", TEXTS, atol=1e-4)
    rows = rows_of(tmp_path / "onnx", TEXTS)
    assert [ids[:n].tolist() for ids, n in zip(*rows, strict=True)] == saved.tokenizer.encode_rows(TEXTS, 30)


def switches(kind: str, folder: Path) -> set[tuple]:
    """All but sizes and other numbers, of a network's class."""
    oracles = random_llama if kind in random_llama.KINDS else random_bert
    folder.mkdir()
    backbone = load_pretrained(
        random_llama.save(oracles.oracle_of(kind, "Model", **TRACED.get(kind, {})), folder)
    )
    values = asdict(backbone.config).items()
    named = {(name, x if isinstance(x, bool | str) else bool(x)) for name, x in values}
    return {(type(backbone), *each) for each in named - TABLES}


# What a table of numbers is made from, which is computed before and part of no graph.
TABLES = {("rope_type", kind) for kind in ROPE_TYPES} | {("rope_whole_pairs", False), ("tied", True)}


def test_other_kinds_are_made_of_the_same_parts(tmp_path) -> None:
    traced = set().union(*(switches(kind, tmp_path / kind) for kind in TRACED))
    for kind in OTHERS:
        assert switches(kind, tmp_path / kind) <= traced, kind


@pytest.mark.slow
def test_an_ensemble_with_labels_of_8_bits_beside_its_file(tmp_path, monkeypatch) -> None:
    saved = said(**SIGNS["labels calibrated"], members=1)
    monkeypatch.setattr(exporter, "LARGEST", 1000)
    to_onnx(saved, tmp_path / "x", int8=True)
    names = ["example.py", "model.onnx", "model.onnx.data", "tokenizer.json"]
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == names
    exact = TextClassifier(saved, CPU, "fp32").outputs(TEXTS)
    found = theirs(tmp_path / "x", TEXTS, 4)[0]
    assert 1e-6 < abs(found - exact).max() < 0.1
    n = sum(p.numel() for p in saved.model.parameters())
    assert sum(p.stat().st_size for p in (tmp_path / "x").glob("model*")) < 1.5 * n
    assert len(ran(tmp_path / "x")) == 2


@pytest.mark.slow
def test_the_bundled_classifier_of_8_bits_on_its_test_rows(tmp_path, sms_file) -> None:
    from gptcls.data.sources import load_data
    from gptcls.data.split import drop_duplicates, make_split

    texts = make_split(drop_duplicates(load_data(sms_file)), seed=123).test["text"].tolist()
    export(ExportConfig(model="sms-spam-nano", to="onnx", out=tmp_path / "x", int8=True))
    assert (tmp_path / "x" / "model.onnx").stat().st_size < 17e6
    found = answered(SingleLabel(("ham", "spam")), theirs(tmp_path / "x", texts, 16))
    expected = load_classifier(precision="fp32").predict(texts)
    assert np.mean([one == other for one, other in zip(found, expected, strict=True)]) >= 0.995


# --- what cannot be ---


class Counting(nn.Module):
    """A block that does something else while it is traced, and one that cannot be traced."""

    def __init__(self, values: bool) -> None:
        super().__init__()
        self.values = values

    def forward(self, x, lengths=None):
        if self.values:
            return x * 2 if float(x.sum()) > 0 else x
        return x.flip(-1) if torch.compiler.is_compiling() else x


@pytest.mark.parametrize(
    ("values", "said"),
    [(True, "cannot trace this GPT2: "), pytest.param(False, "differ by ", marks=pytest.mark.slow)],
)
def test_a_network_that_no_trace_holds(tmp_path, values: bool, said: str) -> None:
    saved = tiny_saved()
    saved.model.backbone.blocks = nn.ModuleList([Counting(values)])
    with pytest.raises(InputError, match=said) as caught:
        to_onnx(saved, tmp_path / "x")
    assert "\n" not in str(caught.value)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mixture": "there is one"}, "n-grams, which are no network: train it without --stack ngrams"),
        (
            {"long": "windows"},
            "--long windows, which tokenizer.json cannot say: train it with --long head or tail",
        ),
    ],
)
def test_what_no_network_does_is_refused(tmp_path, changes: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        to_onnx(replace(tiny_saved(), **changes), tmp_path / "x")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_what_is_not_installed_is_named(tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"needs {name}: pip install 'gptcls\[onnx\]'"):
        to_onnx(tiny_saved(), tmp_path / "x")
    assert [*tmp_path.iterdir()] == []


def test_the_example_cleans_as_the_classifier_does() -> None:
    """A browser's worth of noise through the lines that stand in it."""
    import re

    source = exporter._example(replace(tiny_saved(), cleaning="basic"))
    lines = [line for line in source.splitlines() if line.startswith("texts = [re.")]
    names = {"re": re, "texts": [*AWKWARD, " Free\x00\n\n entry!!! http://a.b... \u200b\ufeff——"]}
    expected = [CLEANERS["basic"](text) for text in names["texts"]]
    exec("\n".join(lines), names)
    assert names["texts"] == expected
    assert "re" not in exporter._example(tiny_saved()).splitlines()[0].split(", ")


def test_the_extra_names_what_is_imported() -> None:
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("onnx = "))
    assert {each.partition(">")[0] for each in ast.literal_eval(line.partition("= ")[2])} == {
        "onnx", "onnxscript", "onnxruntime",
    }  # fmt: skip


def test_the_benchmark_prints_what_it_measured(gpt2, folder, tmp_path, monkeypatch, capsys) -> None:
    save_classifier(tmp_path / "c", gpt2)
    monkeypatch.setattr(benchmark, "to_onnx", lambda _, where, int8: shutil.copytree(folder, where))
    options = {"model": str(tmp_path / "c"), "data": write_csv(tmp_path / "rows.csv"), "rows": 12}
    options |= {"peers": ("ort", "ort-int8"), "parts": ("one", "many")}
    benchmark.run(benchmark.Options(**options, repeats=2, messages=3))
    printed = capsys.readouterr().out
    for row in ("one text: ONNX Runtime int8", "12 texts: ONNX Runtime fp32", "0 of 24 labels differ"):
        assert row in printed


def test_the_page_shows_the_example() -> None:
    page = (Path(__file__).parents[1] / "docs" / "onnx.md").read_text(encoding="utf-8")
    assert f"```py\n{exporter._example(tiny_saved())}```" in page
