"""Weights, configs, tokenizers, classifiers, caches and checkpoints that are damaged, or made to do harm."""

import json
import logging
import pickle
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.random_llama import byte_level
from helpers.tiny import CPU, tiny_classifier, tiny_saved, tiny_trainer, write_csv
from safetensors.torch import load_file, save_file

import gptcls.train.run as train_run
from benchmarks.fault_mutations import damaged_bytes, damaged_json
from gptcls.classify.predict import load_classifier
from gptcls.classify.store import save_classifier
from gptcls.core.batches import TextDataset
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen
from gptcls.models.gpt2_files import save_pretrained
from gptcls.models.llama import Llama, LlamaConfig
from gptcls.models.llama_files import NAMES
from gptcls.models.pretrained import load_pretrained, load_tokenizer
from gptcls.pretrain import text as pretrain_text
from gptcls.pretrain.text import read_streams
from gptcls.train.config import TrainConfig
from gptcls.train.hooks import load_checkpoint, save_checkpoint

QWEN = {
    "model_type": "qwen2", "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "intermediate_size": 20, "max_position_embeddings": 32,
    "vocab_size": 300, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "eos_token_id": [1, 2],
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 32},
    "use_sliding_window": True, "sliding_window": 3, "layer_types": ["full_attention"] * 2,
}  # fmt: skip


def gpt2_folder(folder: Path) -> Path:
    save_pretrained(GPT2(GPT2Config(2, 16, 2, 32, 50)), folder)
    return folder


def qwen_folder(folder: Path) -> Path:
    config = LlamaConfig(
        n_layer=2, n_embd=16, n_head=4, n_kv_head=2, head_dim=4, n_inner=20, n_positions=32, vocab_size=300,
        qkv_bias=True,
    )  # fmt: skip
    folder.mkdir()
    save_file(NAMES.to_theirs(Llama(config).state_dict()), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(QWEN), encoding="utf-8")
    byte_level(["see you"], 280).save(str(folder / "tokenizer.json"))
    return folder


def classifier_folder(folder: Path) -> Path:
    save_classifier(folder, tiny_saved())
    return folder


def use_qwen(folder: Path) -> None:
    load_tokenizer(folder).require_fit("it", load_pretrained(folder).config.vocab_size)


def use_classifier(folder: Path) -> None:
    load_classifier(folder, "cpu", "fp32").predict(["see you", ""])


Case = tuple[Callable[[Path], Path], str, Callable[[Path], object]]  # what is written, damaged, and done then
CASES: dict[str, Case] = {
    "weights": (gpt2_folder, "model.safetensors", load_pretrained),
    "config": (qwen_folder, "config.json", use_qwen),
    "tokenizer": (qwen_folder, "tokenizer.json", use_qwen),
    "classifier.json": (classifier_folder, "classifier.json", use_classifier),
    "classifier's weights": (classifier_folder, "model.safetensors", use_classifier),
}


def refusal(function: Callable, *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 900
    return line


@pytest.mark.parametrize("case", CASES)
def test_whatever_happened_to_a_file_it_serves_or_is_refused(tmp_path, case):
    make, name, use = CASES[case]
    path = make(tmp_path / "it") / name
    whole, refused, begun = path.read_bytes(), 0, time.monotonic()
    use(path.parent)
    head = min(len(whole), 8 + int.from_bytes(whole[:8], "little")) if path.suffix == ".safetensors" else 0
    for seed in range(40):
        rng = random.Random(seed)
        if head:  # what is behind the header is numbers, any of which may be meant
            path.write_bytes(damaged_bytes(rng, whole[:head]) + whole[head:])
        else:
            path.write_bytes(damaged_json(rng, whole))
        try:
            use(path.parent)
        except InputError as error:
            refused += "\n" not in str(error)
        if seed >= 10 and time.monotonic() - begun > 2:
            break
    assert refused


# --- PyTorch's files ---


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_that_is_cut_or_changed(tmp_path, zipped):
    folder = gpt2_folder(tmp_path / "it")
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / "model.safetensors"), path, _use_new_zipfile_serialization=zipped)
    (folder / "model.safetensors").unlink()
    load_pretrained(folder)
    whole = path.read_bytes()
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refusal(load_pretrained, folder)
    for seed in range(40):
        path.write_bytes(damaged_bytes(random.Random(seed), whole[:2500]) + whole[2500:])
        try:
            load_pretrained(folder)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02.", pickle.dumps(shutil.rmtree), pickle.dumps([1]), b"PK\x03\x04rest"],
    ids=repr,
)
def test_a_torch_file_that_holds_something_else(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    assert str(path) in refusal(load_pretrained, path)


# --- JSON and sizes ---


@pytest.mark.parametrize(
    ("make", "name", "use"),
    [
        (gpt2_folder, "config.json", load_pretrained),
        (qwen_folder, "config.json", use_qwen),
        (qwen_folder, "tokenizer.json", use_qwen),
        (classifier_folder, "classifier.json", use_classifier),
    ],
)
def test_json_nested_without_end(tmp_path, make, name, use):
    folder = make(tmp_path / "it")
    (folder / name).write_text('{"a": ' + "[" * 200_000, encoding="utf-8")
    assert str(folder) in refusal(use, folder)


@pytest.mark.parametrize("n_layer", [4, 2**20, 2**31, 10**400])
def test_layers_that_the_tensors_do_not_have_are_not_built(tmp_path, n_layer):
    qwen, begun = qwen_folder(tmp_path / "qwen"), time.monotonic()
    said = {"num_hidden_layers": n_layer, "layer_types": None}
    (qwen / "config.json").write_text(json.dumps(QWEN | said), encoding="utf-8")
    assert f"num_hidden_layers {str(n_layer)[:70]}" in refusal(load_pretrained, qwen)
    ours = classifier_folder(tmp_path / "ours")
    spec = json.loads((ours / "classifier.json").read_text(encoding="utf-8"))
    spec["architecture"]["n_layer"] = n_layer
    (ours / "classifier.json").write_text(json.dumps(spec), encoding="utf-8")
    assert "n_layer" in refusal(use_classifier, ours)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "shard", ["", ".", "..", "../model.safetensors", "a/b.bin", "x\0.bin", "weights", None]
)
def test_an_index_names_files_of_weights_next_to_it(tmp_path, shard):
    folder = gpt2_folder(tmp_path / "it")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"wte.weight": "model-00001-of-00002.safetensors", "wpe.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert f"names {shard!r}, which is not a file of weights next to it" in refusal(load_pretrained, folder)


# --- caches: made again, with a word ---


def spoilt_keys(index):
    index["keys"] = index["keys"][:-1]


def spoilt_counts(index):
    index["counts"] = index["counts"] - 1000


def spoilt_offsets(index):
    index["offsets"] = index["offsets"] + 10**15


def no_counts(index):
    del index["counts"]


@pytest.mark.parametrize("spoil", [spoilt_keys, spoilt_counts, spoilt_offsets, no_counts])
def test_features_with_a_damaged_index_are_computed_again(tmp_path, caplog, spoil):
    model = tiny_classifier("last_block").eval()
    rows = TextDataset(["see you", "at home, late", "you won"], torch.zeros(3), 64)

    def features():
        return FeatureCache(tmp_path).datasets(Frozen(model, 2, torch.float32), {"train": rows}, CPU)["train"]

    first = features()
    (path,) = tmp_path.rglob("*.safetensors")
    index = load_file(path)
    spoil(index)
    save_file(index, path)
    with caplog.at_level(logging.INFO, "gptcls"):
        again = features()
    assert "its features are computed again" in caplog.text
    for a, b in zip(first.features, again.features, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("damage", ["cut", "header", "other numbers", "a pickle", "zip"])
def test_tokens_with_a_damaged_file_are_made_again(tmp_path, caplog, damage):
    data = write_csv(tmp_path / "x.csv")
    train, held = read_streams(str(data), None, 0.2, tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.train.npy")
    whole = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "header":
            path.write_bytes(whole.replace(b"'descr'", b"((((((("))
        case "other numbers":
            np.save(path, np.full(100, 60_000, dtype=np.uint16))
        case "a pickle":
            np.save(path, np.array([{}], dtype=object))
        case "zip":
            path.write_bytes(b"PK\x03\x04" + whole)
    with caplog.at_level(logging.INFO, "gptcls"):
        again, _ = read_streams(str(data), None, 0.2, tmp_path / "cache")
    assert "they are made again" in caplog.text
    np.testing.assert_array_equal(again.tokens, train.tokens)
    assert held.tokens[-1] == pretrain_text.PAD_ID


# --- checkpoints ---


def test_a_checkpoint_is_whole_or_refused(tmp_path):
    trainer = tiny_trainer(epochs=1)
    trainer.fit()
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, trainer)
    names = ("progress.json", "state.safetensors")
    whole, refused = {name: (folder / name).read_bytes() for name in names}, 0
    head = 8 + int.from_bytes(whole["state.safetensors"][:8], "little")
    for seed in range(20):
        rng = random.Random(seed)
        changed = damaged_json(rng, whole["progress.json"])
        state = whole["state.safetensors"]
        (folder / "progress.json").write_bytes(changed if seed % 2 else whole["progress.json"])
        spoilt = state if seed % 2 else damaged_bytes(rng, state[:head]) + state[head:]
        (folder / "state.safetensors").write_bytes(spoilt)
        try:
            load_checkpoint(folder, trainer)
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > 5


def shorter(moments: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"exp_avg": moments[1:]}


def rows_beyond(moments: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"exp_avg": moments[:1], "exp_avg_sq": moments[:1], "rows": torch.tensor([len(moments)])}


@pytest.mark.parametrize("spoil", [shorter, rows_beyond])
def test_moments_of_another_shape_are_refused(tmp_path, spoil):
    """A fused step would read beyond them."""
    trainer = tiny_trainer(epochs=1)
    trainer.fit()
    save_checkpoint(tmp_path, trainer)
    (file,) = tmp_path.glob("*.safetensors")
    tensors, at = load_file(file), "optimizer.{}.head.weight".format
    spoilt = {at(name): value.clone() for name, value in spoil(tensors[at("exp_avg")]).items()}
    save_file(tensors | spoilt, file)
    with pytest.raises(InputError, match="is damaged"):
        load_checkpoint(tmp_path, trainer)


def test_a_damaged_checkpoint_is_found_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"data": str(write_csv(tmp_path / "x.csv")), "model": "gpt2-nano", "epochs": 1, "out": "run"}

    def killed(trainer) -> None:
        save_checkpoint(tmp_path / "run" / "checkpoint", trainer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_run, "carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            train_run.train(TrainConfig.of(**options))
    state = tmp_path / "run" / "checkpoint" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    monkeypatch.setattr(train_run, "prepare", lambda *_: pytest.fail("the network was loaded"))
    resumed = TrainConfig.of(**options, resume=True)
    assert "checkpoint is damaged" in refusal(train_run.train, resumed)
