"""A classifier taken to ``transformers``: its own pipeline, reading the folder, gives the same answers."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import random_bert, random_llama
from helpers.tiny import ROWS, TINY, set_pooling, tiny_lora, tiny_saved, write_csv
from torch import nn

from gptcls.classify.mixture import Mixture
from gptcls.classify.predict import TextClassifier
from gptcls.classify.store import SavedClassifier, read_classifier, save_classifier
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2
from gptcls.core.task import SingleLabel, Task
from gptcls.core.tasks import MultiLabel, Regression
from gptcls.core.tokenizer import GPT2 as GPT2_TOKENIZER
from gptcls.evaluation.calibration import Calibration
from gptcls.evaluation.decision import Decision
from gptcls.export import run as verb
from gptcls.export.run import ExportConfig, export
from gptcls.export.to_transformers import to_transformers
from gptcls.models.auto_tokenizer import tokenizer_json
from gptcls.models.families import FAMILIES, family_name, poolings_of
from gptcls.models.lora import LoRAConfig
from gptcls.models.pretrained import load_pretrained, load_tokenizer
from gptcls.train.run import train

TRAINED_ON = [text for text, _ in ROWS]
TEXTS = [
    *TRAINED_ON[:3],
    "see you </s> at <s> home [SEP] [CLS] <|endoftext|> now <|end|>",
    "won! ! !", "win\n\na\tprize  ", "Ünïcödé 中文 \N{GRINNING FACE}", "call me " * 60, "urgent",
]  # fmt: skip


def pipeline_of(folder: Path) -> Any:
    from transformers import pipeline

    return pipeline("text-classification", model=str(folder), device="cpu")


def theirs(folder: Path, labels: tuple[str, ...], texts: list[str] = TEXTS, **options: Any) -> np.ndarray:
    """What the pipeline says of texts, (N, K)."""
    answers = pipeline_of(folder)(texts, truncation=True, top_k=None, **options)
    rows = [{each["label"]: each["score"] for each in answer} for answer in answers]
    assert all(row.keys() == set(labels) for row in rows)
    return np.array([[row[label] for label in labels] for row in rows])


def assert_same(saved: SavedClassifier, folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    """The same outputs one by one and in padded batches; returns them."""
    ours = TextClassifier(saved, torch.device("cpu"), "fp32").outputs(texts)
    for batch_size in (1, 4):
        found = theirs(folder, saved.task.labels, texts, batch_size=batch_size)
        np.testing.assert_allclose(found, ours, rtol=1e-5, atol=1e-5)
    return ours


def read_again(folder: Path) -> dict[str, Any]:
    """The sizes and switches of the network there, but for what a head or a padding token may add."""
    return comparable(load_pretrained(folder))


def comparable(network: nn.Module) -> dict[str, Any]:
    added = ("pooler", "pooler_act", "tied", "vocab_size", "proj_bias")
    return {name: value for name, value in asdict(network.config).items() if name not in added}


def saved_over(base: Path, task: Task | None = None, max_length: int = 30, **options: Any) -> SavedClassifier:
    """An untrained classifier over a checkpoint, as ``gptcls.train`` builds it, with a head of some size."""
    backbone, task = load_pretrained(base), task or SingleLabel(("a", "b", "c"))
    family = FAMILIES[family_name(backbone)]
    pooling = poolings_of(family)[0]
    torch.manual_seed(1)
    model = Classifier(backbone, task.n_outputs, pooling, family.head_bias).eval()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_(std=0.1)
    tokenizer = load_tokenizer(base)
    return SavedClassifier(model, task, max_length, None, None, {}, {}, tokenizer, **options)


def checkpoint(folder: Path, kind: str, head: str = "Model", **options: Any) -> Path:
    """A tiny one with random weights, with its tokenizer."""
    if kind in random_llama.KINDS:
        oracle = random_llama.oracle_of(kind, head, vocab_size=320, **options)
        tokenizer = random_llama.byte_level(TRAINED_ON, 320, ends=("<s>",))
        if kind.startswith("qwen"):
            tokenizer.pre_tokenizer = as_qwen()
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        oracle = random_bert.oracle_of(kind, head, vocab_size=300, **options)
        roberta = {"roberta", "camembert"} & {kind}
        (random_bert.roberta_bpe if roberta else random_bert.wordpiece)(TRAINED_ON, folder)
    return random_llama.save(oracle, folder)


def as_qwen() -> Any:
    """How the published tokenizer.json of Qwen2 and 3 splits texts."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    splits = Split(Regex(PRETOKENIZE_REGEX), "isolated")
    return Sequence([splits, ByteLevel(add_prefix_space=False, use_regex=False)])


def quick(kinds: Iterable[str], *chosen: str) -> list[Any]:
    """All of them, but for the chosen ones in full runs alone."""
    return [kind if kind in chosen else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


@pytest.mark.parametrize("kind", quick(random_llama.KINDS, "llama3", "qwen2 window", "qwen3", "smollm3"))
def test_decoders(kind: str, tmp_path: Path) -> None:
    saved = saved_over(checkpoint(tmp_path, kind))
    to_transformers(saved, tmp_path / "out")
    assert read_again(tmp_path / "out") == comparable(saved.model.backbone)
    assert assert_same(saved, tmp_path / "out").std(axis=0).max() > 0.002


def test_a_qwen2_with_another_tokenizer_is_a_llama(tmp_path: Path) -> None:
    """Of a folder that says qwen2, transformers reads the tokenizer as Qwen2's."""
    base = checkpoint(tmp_path, "qwen2")
    random_llama.byte_level(TRAINED_ON, 320).save(str(base / "tokenizer.json"))
    saved = saved_over(base)
    to_transformers(saved, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "llama"
    assert_same(saved, tmp_path / "out")


@pytest.mark.parametrize("head", quick(["ForSequenceClassification", "ForMaskedLM"], "ForMaskedLM"))
@pytest.mark.parametrize(
    "kind", quick(random_bert.KINDS, "bert", "roberta", "distilbert", "electra", "deberta")
)
def test_encoders_with_a_layer_below_the_head_and_without(kind: str, head: str, tmp_path: Path) -> None:
    saved = saved_over(checkpoint(tmp_path, kind, head))
    assert saved.model.backbone.config.pooler == (head != "ForMaskedLM" or kind.startswith("modernbert"))
    to_transformers(saved, tmp_path / "out")
    assert read_again(tmp_path / "out") == comparable(saved.model.backbone)
    assert assert_same(saved, tmp_path / "out").std(axis=0).max() > 0.002


TASKS = {
    "single": (SingleLabel(("a", "b", "c")), Calibration((2.5,))),
    "single of two": (SingleLabel(("no", "yes")), None),
    "multi": (MultiLabel(("a", "b", "c"), (0.3, 0.5, 0.9)), Calibration((2.0, 0.5, 1.0), (0.4, 0.0, -3.0))),
    "multi of one": (MultiLabel(("a",)), None),
    "regression": (Regression(("label",), (350.0,), (120.0,)), None),
    "several numbers": (Regression(("joy", "anger"), (3.0, -2.0), (1.5, 40.0)), None),
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("kind", quick(["gpt2", "bert", "roberta", "distilbert"], "roberta"))
def test_tasks_calibration_and_units(kind: str, name: str, tmp_path: Path) -> None:
    task, calibration = TASKS[name]
    saved = tiny_gpt2(task) if kind == "gpt2" else saved_over(checkpoint(tmp_path, kind, "ForMaskedLM"), task)
    saved = replace(saved, calibration=calibration)
    to_transformers(saved, tmp_path / "out")
    assert assert_same(saved, tmp_path / "out").std(axis=0).max() > 0.002
    problem = json.loads((tmp_path / "out/config.json").read_text())["problem_type"]
    words = {SingleLabel: "single_label", MultiLabel: "multi_label", Regression: "regression"}
    assert problem.startswith(words[type(task)])


def tiny_gpt2(task: Task, max_length: int = 20) -> SavedClassifier:
    """Random weights, no bias 0."""
    torch.manual_seed(3)
    model = Classifier(GPT2(TINY), task.n_outputs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return SavedClassifier(model, task, max_length, None, None, {}, {})


@pytest.mark.slow
def test_llamas_head_is_trained_without_a_bias_that_its_class_has_no_place_for(tmp_path: Path) -> None:
    base = checkpoint(tmp_path, "qwen2")
    data = write_csv(tmp_path / "rows.csv")
    run = train(data=data, model=base, out=tmp_path / "run", epochs=1, max_length=12, pooling="last")
    assert run.classifier.model.head.bias is None
    export(ExportConfig(model=str(tmp_path / "run"), to="transformers", out=tmp_path / "out"))
    back = read_classifier(tmp_path / "run")
    assert back.model.head.bias is None
    assert_same(back, tmp_path / "out")
    # One of an older gptcls may have one.
    back.model.head.bias = nn.Parameter(torch.tensor([0.5, 0.5]))
    to_transformers(back, tmp_path / "the same for both")
    back.model.head.bias = nn.Parameter(torch.tensor([0.5, 0.4]))
    with pytest.raises(InputError, match="Qwen2ForSequenceClassification has no bias"):
        to_transformers(back, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_train_here_classify_there(base: Path, tmp_path: Path, run_main) -> None:
    """The round trip, by the command line."""
    train(data=write_csv(tmp_path / "rows.csv"), model=base, out=tmp_path / "run", epochs=1, pooling="last")
    arguments = ("--model", tmp_path / "run", "--to", "transformers", "--out", tmp_path / "out")
    status, out, err = run_main(verb, *arguments)
    assert (status, out) == (0, "")
    assert str(tmp_path / "out") in err
    saved = read_classifier(tmp_path / "run")
    assert_same(saved, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["id2label"] == {"0": "ham", "1": "spam"}
    # It may not write over it.
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir())
    status, _, err = run_main(verb, *arguments)
    assert status == 2
    assert "not an empty folder" in err
    assert before == sorted(path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir())


@pytest.mark.slow
def test_adapters_are_merged(tmp_path: Path) -> None:
    lora = tiny_lora(LoRAConfig(3, 6.0, dora=True), ("*", "wte"))
    saved = replace(tiny_saved(), model=lora, max_length=20)
    plain = {name: tensor.clone() for name, tensor in saved.model.state_dict().items()}
    to_transformers(saved, tmp_path / "out")
    assert_same(saved, tmp_path / "out")
    assert all(torch.equal(tensor, plain[name]) for name, tensor in saved.model.state_dict().items())


@pytest.mark.parametrize("kind", quick(["gpt2", "bert", "qwen3"], "bert"))
def test_the_end_of_long_texts(kind: str, tmp_path: Path) -> None:
    base = None if kind == "gpt2" else checkpoint(tmp_path, kind)
    task = SingleLabel(("a", "b", "c"))
    saved = replace(saved_over(base, task) if base else tiny_gpt2(task), long="tail", max_length=12)
    to_transformers(saved, tmp_path / "out")
    assert_same(saved, tmp_path / "out")


def test_a_padding_token_is_made_where_none_can_be_the_end_of_no_text(tmp_path: Path) -> None:
    """Where the tokenizer ends every text with the token that pads, a decoder would read another."""
    base = checkpoint(tmp_path, "llama", eos_token_id=2)
    random_llama.byte_level(TRAINED_ON, 320, ends=("<s>", "</s>")).save(str(base / "tokenizer.json"))
    saved = saved_over(base)
    assert saved.tokenizer.suffix == (2,)
    for pad_id in (2, 40):  # the end of all texts; a letter
        saved.tokenizer.pad_id = pad_id
        to_transformers(saved, tmp_path / f"out{pad_id}")
        assert_same(saved, tmp_path / f"out{pad_id}", [*TEXTS, "abcdefghijklmnopqrstuvwxyz", "!\"#$%&'()*+"])


def test_gpt2s_tokenizer_as_a_file_on_every_kind_of_white_space_and_mark(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json(GPT2_TOKENIZER))
    tokenizer.encode_special_tokens = True
    signs = [chr(code) for code in (*range(0x250), *range(0x1FFE, 0x2070), 0x3000, 0xFEFF, 0x1F600, 0xE0001)]
    texts = [f"a {sign} b{sign}{sign}c  {sign}'s{sign}12 {sign}" for sign in signs]
    texts += ["<|endoftext|> <|endoftext|>", "\r\n\r\n  x", "don't we'LL they've I'd", "\u3000\u3000 中文"]
    for text in texts:
        assert tokenizer.encode(text).ids == GPT2_TOKENIZER.encode(text), text
    assert tokenizer.token_to_id("<|endoftext|>") == 50256


def unexpressible() -> dict[str, tuple[SavedClassifier, str]]:
    saved, bidirectional = tiny_saved(), tiny_saved()
    bidirectional.model.backbone.drop_causal_mask()
    state = {name: p.detach() for name, p in saved.model.trained_parameters().items()}
    return {
        "max": (replace(tiny_saved(), model=set_pooling(tiny_saved().model, "max")), r"max.*--pooling last"),
        "book": (
            replace(tiny_saved(), model=set_pooling(tiny_saved().model, "position-1")),
            "--pooling last",
        ),
        "first": (replace(tiny_saved(), model=set_pooling(tiny_saved().model, "first")), "last token"),
        "ensemble": (replace(saved, members=(state, state)), r"ensemble of 3.*--seeds"),
        "mixture": (replace(saved, mixture=Mixture(None, 0.5, 1.0)), "--stack none"),
        "abstains": (replace(saved, decision=Decision(abstain=0.9)), "--likeliest"),
        "threshold": (replace(saved, decision=Decision(threshold=0.3)), "--likeliest"),
        "windows": (replace(saved, long="windows"), "--long windows.*--long head"),
        "cleaned": (replace(saved, cleaning="basic"), "--clean"),
        "no mask": (bidirectional, "--no-causal-mask"),
    }


@pytest.mark.parametrize("name", unexpressible())
def test_what_no_class_computes_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    saved, message = unexpressible()[name]
    with pytest.raises(InputError, match=message) as caught:
        to_transformers(saved, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_that_abstains_without_that(tmp_path: Path) -> None:
    saved = replace(tiny_saved(), decision=Decision(abstain=0.9), max_length=20)
    save_classifier(tmp_path / "in", saved)
    options = {"model": str(tmp_path / "in"), "to": "transformers", "out": tmp_path / "out"}
    with pytest.raises(InputError, match="--likeliest"):
        export(ExportConfig(**options))
    assert export(ExportConfig(**options, likeliest=True)) == tmp_path / "out"
    assert (tmp_path / "out/model.safetensors").is_file()


def test_the_bundled_classifier_reads_every_token_and_says_how_to_train_one_that_does_not(run_main, tmp_path):
    arguments = ("--model", "sms-spam-nano", "--to", "transformers", "--out", tmp_path / "out")
    status, out, err = run_main(verb, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--pooling max" in err
    assert "train with --pooling last" in err
    status, _, err = run_main(verb, *arguments, "--int8")
    assert (status, "--to onnx" in err) == (2, True)
