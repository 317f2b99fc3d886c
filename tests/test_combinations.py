"""Families of networks, adapters, tasks and ways of reading a text, together: saved, read again, and held
against ``transformers`` with PEFT on top."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.random_bert import oracle_of as bert_oracle
from helpers.random_bert import wordpiece
from helpers.random_llama import byte_level, save
from helpers.random_llama import oracle_of as llama_oracle
from helpers.tiny import ROWS, tiny_saved

from gptcls.classify.predict import load_classifier
from gptcls.classify.store import save_classifier
from gptcls.core.errors import InputError
from gptcls.core.tasks import MultiLabel
from gptcls.data.clean import basic
from gptcls.data.labels import LISTS
from gptcls.data.sources import labelled_frame
from gptcls.data.split import Split, load_split, with_extra
from gptcls.pseudo_label import PseudoLabelConfig, pseudo_label
from gptcls.train.config import TrainConfig
from gptcls.train.run import Run, train

TEXTS = [text for text, _ in ROWS]
QUICK = {"epochs": 2, "device": "cpu", "precision": "fp32", "lr": 5e-3, "train": "lora", "lora_rank": 4}


def run(folder: Path, base: Path, rows: list[dict[str, Any]], **options: Any) -> Run:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return train(TrainConfig.of(data=str(data), model=str(base), out=folder / "run", **QUICK | options))


def with_adapter(network: torch.nn.Module, folder: Path) -> tuple[torch.nn.Module, torch.nn.Linear, dict]:
    """Their network under the adapter of a run, the head of the run, and what classifier.json says."""
    peft = pytest.importorskip("peft")
    saved = load_classifier(folder, "cpu", "fp32").saved
    spec = json.loads((folder / "classifier" / "classifier.json").read_text())
    network = peft.PeftModel.from_pretrained(network, folder / "classifier").eval()
    return network, saved.model.head, spec


def test_lists_of_labels_from_the_windows_of_a_llama_with_adapters(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    base = tmp_path / "base"
    sizes = {"vocab_size": 320, "max_position_embeddings": 64, "eos_token_id": 0, "pad_token_id": None}
    save(llama_oracle("llama", **sizes), base)
    tokenizer = byte_level(TEXTS, 320, ends=("<s>", "</s>"))
    tokenizer.save(str(base / "tokenizer.json"))
    rows = [
        {"text": text * (1 + i % 3), "label": [label] * (i % 5 > 0) + ["loud"] * (i % 4 == 0)}
        for i, (text, label) in enumerate(ROWS)
    ]
    run(tmp_path, base, rows, task="multi", pooling="last", long="windows", max_length=12)
    theirs = transformers.LlamaForCausalLM.from_pretrained(base)
    network, head, spec = with_adapter(theirs, tmp_path / "run")
    assert (spec["architecture"]["family"], spec["tensors"], spec["long"]) == ("llama", "adapter", "windows")
    classifier = load_classifier(tmp_path / "run", "cpu", "fp32")
    assert classifier.labels == ("ham", "loud", "spam")

    text = "you have won a prize, claim your cash now"
    whole = tokenizer.encode(text).ids
    first, *ids, last = whole
    last_start = len(ids) - 10  # each window keeps the two tokens around a text
    n = -(-last_start // 7) + 1  # a step of 10 less a quarter, rounded up
    assert n > 2
    logits = []
    for k in range(n):
        start = k * last_start // (n - 1)
        window = torch.tensor([[first, *ids[start : start + 10], last]])
        with torch.inference_mode():
            logits.append(head(network(window, output_hidden_states=True).hidden_states[-1][:, -1]))
    expected = torch.cat(logits).mean(dim=0).sigmoid()
    found = classifier.predict_proba([text, "win"])
    assert found[0] == pytest.approx(expected.numpy(), abs=1e-5)
    thresholds = classifier.saved.task.thresholds
    assert classifier.predict(text) == [
        name for name, p, cut in zip(classifier.labels, found[0], thresholds, strict=True) if p >= cut
    ]


def test_a_number_from_a_bert_with_adapters(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    base = tmp_path / "base"
    save(bert_oracle("bert", vocab_size=300), base)
    tokenizer = wordpiece(TEXTS, base)
    rows = [{"text": text, "label": 1000.0 + 10 * len(text)} for text in TEXTS]
    done = run(tmp_path, base, rows, task="regression", lora_targets=("attn.*",))
    theirs = transformers.BertForSequenceClassification.from_pretrained(
        base,
        num_labels=1,
        ignore_mismatched_sizes=True,  # of its head, which the adapter brings
    )
    network, head, spec = with_adapter(theirs, tmp_path / "run")
    assert (spec["architecture"]["family"], spec["pooling"], spec["task"]["kind"]) == (
        "bert", "first", "regression",
    )  # fmt: skip
    classifier = load_classifier(tmp_path / "run", "cpu", "fp32")
    texts = ["win a prize now", "see you at home and do not be late"]
    mean, scale = spec["task"]["means"][0], spec["task"]["scales"][0]
    with torch.inference_mode():
        for text, answer in zip(texts, classifier.predict(texts), strict=True):
            ids = torch.tensor([tokenizer.encode(text).ids])
            pooled = network.base_model.model.bert(ids).pooler_output
            assert answer == pytest.approx(mean + scale * head(pooled).item(), rel=1e-5)
    train_rows = load_split(tmp_path / "run" / "split").train
    numbers = train_rows["label"].astype(float)
    assert (mean, scale) == pytest.approx((numbers.mean(), numbers.std(ddof=0)))
    assert done.scores["test"]["n"] == 12


def test_adapters_of_a_classifier_that_cleans(base: Path, tmp_path: Path) -> None:
    """It reads a text as it was trained to, whoever cleaned it; what else was asked for is kept beside."""
    marks = ["", "!!!", "\x01 ...", "\n\n"]
    rows = [{"text": text + marks[i % 4], "label": label} for i, (text, label) in enumerate(ROWS)]
    run(tmp_path, base, rows, clean=True, balance="oversample", pooling="max", label_smoothing=0.1)
    spec = json.loads((tmp_path / "run" / "classifier" / "classifier.json").read_text())
    assert (spec["cleaning"], spec["tensors"], spec["pooling"]) == ("basic", "adapter", "max")
    texts = load_split(tmp_path / "run" / "split").train["text"].tolist()
    assert texts == [basic(text) for text in texts]
    classifier = load_classifier(tmp_path / "run", "cpu", "fp32")
    raw = ["win a prize\x01\n\n now!!!", "see   you"]
    found = classifier.predict_proba(raw)
    np.testing.assert_array_equal(found, classifier.predict_proba([basic(text) for text in raw]))
    classifier.saved.cleaning = "none"
    assert np.abs(found - classifier.predict_proba(raw)).max() > 1e-4


def test_extra_rows_of_lists_of_labels() -> None:
    train = labelled_frame(["one", "two", "three"], ['["a", "b"]', '["c"]', "[]"])
    split = Split(train, labelled_frame(["four"], ['["a"]']), labelled_frame(["five"], ["[]"]))
    extra = labelled_frame(["six", "two", "five", "seven"], ['["b", "c"]', '["a"]', '["a"]', "[]"])
    found = with_extra(split, extra, "more.csv", LISTS).train
    assert found["text"].tolist() == ["one", "two", "three", "six", "seven"], "a new list of known labels"
    with pytest.raises(InputError, match=r"more.csv: label 'd' is not among .* a, b, c"):
        with_extra(split, labelled_frame(["six"], ['["a", "d"]']), "more.csv", LISTS)


def test_pseudo_labels_are_for_one_class_a_text(tmp_path: Path) -> None:
    saved = tiny_saved()
    saved.task = MultiLabel(("a", "b"))
    save_classifier(tmp_path / "lists", saved)
    (tmp_path / "x.csv").write_text("text\nhello\n")
    config = PseudoLabelConfig(
        model=str(tmp_path / "lists"), data=tmp_path / "x.csv", out=tmp_path / "y.csv", device="cpu"
    )
    with pytest.raises(InputError, match=r"--model .*--task single"):
        pseudo_label(config)
    assert not (tmp_path / "y.csv").exists()
