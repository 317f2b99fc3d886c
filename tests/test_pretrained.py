"""Weights from files: every format gives the oracle's logits, every fault one line that names it."""

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from helpers.random_gpt2 import book_gpt2, openai_variables, random_ids, transformers_gpt2
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.tokenizer import encode
from gptcls.models import pretrained, weight_files
from gptcls.models.pretrained import load_pretrained, weights_file, weights_sha256
from gptcls.models.sampling import generate
from gptcls.models.weight_files import file_sha256

NO_BOOK = "needs llms-from-scratch, installed with --no-deps (it asks for TensorFlow)"


@pytest.fixture(scope="module")
def oracle():
    return transformers_gpt2()


@pytest.fixture
def folder(oracle, tmp_path: Path) -> Path:
    """A folder as ``GPT2LMHeadModel.save_pretrained`` writes it."""
    oracle.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def logits(model: GPT2, ids: torch.Tensor | None = None) -> torch.Tensor:
    with torch.inference_mode():
        return model.lm_logits(model(random_ids() if ids is None else ids))


def assert_same(model: GPT2, oracle, ids: torch.Tensor | None = None, atol: float = 1e-4) -> None:
    with torch.inference_mode():
        found = oracle(random_ids() if ids is None else ids)
    torch.testing.assert_close(logits(model, ids), getattr(found, "logits", found), rtol=0, atol=atol)


def continued(oracle, ids: torch.Tensor) -> torch.Tensor:
    """15 greedy tokens by ``transformers``' own generation."""
    mask = torch.ones_like(ids)
    return oracle.generate(ids, attention_mask=mask, max_new_tokens=15, do_sample=False, pad_token_id=0)


# Formats


def test_language_model_saved_by_transformers(folder: Path, oracle) -> None:
    assert any(name.startswith("transformer.") for name in load_file(folder / "model.safetensors"))
    model = load_pretrained(folder)
    assert_same(model, oracle)
    ids = random_ids(length=6)
    assert torch.equal(generate(model, ids, 15), continued(oracle, ids))


def test_plain_model_saved_by_transformers(oracle, tmp_path: Path) -> None:
    oracle.transformer.save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / "model.safetensors")
    assert_same(load_pretrained(str(tmp_path)), oracle)


def test_shards(oracle, tmp_path: Path) -> None:
    oracle.save_pretrained(tmp_path, max_shard_size="100KB")
    assert weights_file(tmp_path).name == "model.safetensors.index.json"
    assert_same(load_pretrained(tmp_path), oracle)
    before = weights_sha256(tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    state = load_file(shard)
    save_file({name: tensor + 1 for name, tensor in state.items()}, shard)
    assert weights_sha256(tmp_path) != before
    shard.unlink()
    with pytest.raises(InputError, match=shard.name):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_model_bin(folder: Path, oracle, zipped: bool) -> None:
    (folder / "model.safetensors").unlink()
    state = oracle.state_dict()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert_same(load_pretrained(folder), oracle)


def test_pytorch_model_bin_in_shards(folder: Path, oracle) -> None:
    (folder / "model.safetensors").unlink()
    state = {name: tensor.clone() for name, tensor in oracle.state_dict().items()}
    save_torch_state_dict(state, folder, max_shard_size="100KB", safe_serialization=False)
    assert len(list(folder.glob("pytorch_model-*.bin"))) > 1
    assert weights_file(folder).name == "pytorch_model.bin.index.json"
    assert_same(load_pretrained(folder), oracle)
    assert len(weights_sha256(folder)) == 64
    sorted(folder.glob("*.bin"))[0].unlink()
    refused(folder, "is missing: pytorch_model.bin.index.json names it")


def test_a_file_alone_takes_the_number_of_heads_of_the_preset_of_its_width(tmp_path: Path, caplog) -> None:
    oracle = transformers_gpt2(n_layer=1, n_embd=256, n_head=4)
    oracle.save_pretrained(tmp_path / "saved")
    alone = shutil.copy(tmp_path / "saved" / "model.safetensors", tmp_path / "alone.safetensors")
    with caplog.at_level(logging.INFO, "gptcls"):
        assert_same(load_pretrained(alone), oracle)
    assert "4 heads" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_float32(folder: Path, oracle, dtype: torch.dtype) -> None:
    file = folder / "model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
    model = load_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    rounded = transformers_gpt2()
    rounded.load_state_dict({name: value.to(dtype).float() for name, value in oracle.state_dict().items()})
    assert_same(model, rounded)


def test_layer_norm_epsilon_comes_from_the_config(tmp_path: Path) -> None:
    oracle = transformers_gpt2(layer_norm_epsilon=0.5)
    oracle.save_pretrained(tmp_path)
    assert_same(load_pretrained(tmp_path), oracle)


@pytest.mark.parametrize("name", ["gpt2-tiny.pth", "gpt2-tiny.safetensors", "model_and_optimizer.pth"])
def test_files_of_the_book(name: str, tmp_path: Path) -> None:
    pytest.importorskip("llms_from_scratch", reason=NO_BOOK)
    oracle = book_gpt2()
    state = oracle.state_dict()
    if name.endswith(".safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save(
            state if name != "model_and_optimizer.pth" else {"model_state_dict": state}, tmp_path / name
        )
    (tmp_path / "config.json").write_text('{"n_head": 3}')
    for source in (tmp_path / name, tmp_path):
        assert_same(load_pretrained(source), oracle)


def write_openai_checkpoint(oracle, folder: Path) -> None:
    tf = pytest.importorskip("tensorflow", reason="needs tensorflow: pip install 'gptcls[tf]'").compat.v1
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in openai_variables(oracle).items():
            tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "model.ckpt"))
    config = oracle.config
    sizes = {"n_vocab": config.vocab_size, "n_ctx": config.n_positions}
    hparams = sizes | {key: getattr(config, key) for key in ("n_embd", "n_head", "n_layer")}
    (folder / "hparams.json").write_text(json.dumps(hparams))


def test_tensorflow_checkpoint_of_openai(oracle, tmp_path: Path) -> None:
    write_openai_checkpoint(oracle, tmp_path)
    assert_same(load_pretrained(tmp_path), oracle)
    assert len(weights_sha256(tmp_path)) == 64
    data = next(tmp_path.glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a whole TensorFlow checkpoint"):
        load_pretrained(tmp_path)


def test_tensorflow_checkpoint_without_tensorflow(tmp_path: Path, monkeypatch) -> None:
    for name in ("checkpoint", "model.ckpt.data-00000-of-00001", "hparams.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r"pip install 'gptcls\[tf\]'"):
        load_pretrained(tmp_path)


@pytest.mark.slow
def test_full_size_gpt2_small(tmp_path: Path) -> None:
    sizes = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
    oracle = transformers_gpt2(std=0.03, **sizes)
    oracle.save_pretrained(tmp_path)
    model = load_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # half a gigabyte that pytest would keep
    assert model.config == PRESETS["gpt2-small"]
    ids = random_ids(rows=2, length=40, vocab_size=50257)
    assert_same(model, oracle, ids)
    assert torch.equal(generate(model, ids[:1, :5], 15), continued(oracle, ids[:1, :5]))


# What comes out


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_the_network_can_be_trained_and_its_file_stays_as_it_was(folder: Path, oracle, kind: str) -> None:
    file = folder / "model.safetensors"
    if kind == "bin":
        file.unlink()
        file = folder / "pytorch_model.bin"
        torch.save(oracle.state_dict(), file)
    before = file.read_bytes()
    model = load_pretrained(folder)
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert all(type(value) is torch.nn.Parameter and value.requires_grad for value in model.parameters())
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model.lm_logits(model(random_ids())).logsumexp(dim=-1).mean().backward()
    optimizer.step()
    assert all(not torch.equal(value, start[name]) for name, value in model.named_parameters())
    assert file.read_bytes() == before


def test_weights_sha256(folder: Path) -> None:
    import hashlib

    file = folder / "model.safetensors"
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert weights_sha256(folder) == weights_sha256(str(file)) == expected
    assert weights_sha256("gpt2-small").startswith("248dfc39")


def test_every_preset_has_weights() -> None:
    assert {*pretrained.RELEASES, *pretrained.BUNDLED} == set(PRESETS)


def test_bundled_nano_is_the_preset_it_names() -> None:
    model = load_pretrained("gpt2-nano")
    assert model.config == PRESETS["gpt2-nano"]
    assert weights_file("gpt2-nano").stat().st_size < 40_000_000
    theirs = GPT2LMHeadModel.from_pretrained(weights_file("gpt2-nano").parent, dtype=torch.float32).eval()
    ids = torch.tensor([encode("see you at the station")])
    with torch.no_grad():
        torch.testing.assert_close(model.lm_logits(model(ids)), theirs(ids).logits, atol=1e-4, rtol=1e-4)


# Faults: each is one line that names what is wrong


def refused(source: Path | str, *named: str) -> None:
    with pytest.raises(InputError) as caught:
        load_pretrained(source)
    message = str(caught.value)
    assert "\n" not in message
    for part in named:
        assert part in message


def set_tensor(name: str, change):
    def fault(state: dict) -> dict:
        if change is None:
            return {key: value for key, value in state.items() if key != name}
        return {**state, name: change(state.get(name))}

    return fault


def with_value(value: float):
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[5] = value
        return tensor

    return change


H0 = "transformer.h.0."
TENSOR_FAULTS = {
    "missing": (set_tensor(H0 + "mlp.c_fc.weight", None), ["h.0.mlp.c_fc.weight", "is missing"]),
    "missing table": (set_tensor("transformer.wpe.weight", None), ["wpe.weight", "is missing"]),
    "missing norm": (set_tensor("transformer.ln_f.bias", None), ["norm.bias", "is missing"]),
    "unexpected": (set_tensor(H0 + "mlp.gate.weight", lambda _: torch.ones(3)), ["h.0.mlp.gate.weight"]),
    "unexpected bias": (set_tensor("transformer.wte.bias", lambda _: torch.ones(3)), ["wte.bias"]),
    "extra block": (set_tensor("transformer.h.7.ln_1.bias", lambda _: torch.ones(48)), ["n_layer 2", "3"]),
    "transposed": (
        set_tensor(H0 + "mlp.c_fc.weight", lambda tensor: tensor.t().contiguous()),
        ["h.0.mlp.c_fc.weight", "[48, 192] instead of [192, 48]"],
    ),
    "flat": (set_tensor(H0 + "mlp.c_fc.weight", torch.flatten), ["mlp.fc.weight", "[9216]"]),
    "flat table": (set_tensor("transformer.wte.weight", torch.flatten), ["wte.weight", "[4656]"]),
    "narrow norm": (set_tensor(H0 + "ln_1.bias", lambda old: old[:40].clone()), ["ln_1.bias", "[40]"]),
    "nan": (set_tensor(H0 + "ln_2.bias", with_value(float("nan"))), ["ln_2.bias", "not finite"]),
    "inf": (set_tensor("transformer.wpe.weight", with_value(-float("inf"))), ["wpe", "not finite"]),
    "integers": (set_tensor(H0 + "ln_1.weight", torch.Tensor.int), ["ln_1.weight", "torch.int32"]),
    "narrow head": (set_tensor("lm_head.weight", lambda _: torch.ones(97, 40)), ["lm_head", "[97, 40]"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_faults_in_the_tensors(folder: Path, fault: str) -> None:
    change, named = TENSOR_FAULTS[fault]
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file)
    refused(folder, "model.safetensors", *named)


CONFIG_FAULTS = {
    "n_layer": (3, ["n_layer 3", "2"]),
    "n_embd": (64, ["n_embd 64", "48"]),
    "n_head": (5, ["n_head 5", "48"]),
    "n_positions": (64, ["n_positions 64", "32"]),
    "n_ctx": (64, ["n_ctx 64", "32"]),
    "vocab_size": (100, ["vocab_size 100", "97"]),
    "n_inner": (100, ["n_inner 100"]),
    "model_type": ("gptj", ["'gptj'", "supported are bert, ", " gpt2, llama"]),
    "activation_function": ("gelu", ["'gelu'", "'gelu_new'"]),
    "scale_attn_weights": (False, ["scale_attn_weights"]),
    "is_causal": (False, ["is_causal False"]),
    "scale_attn_by_inverse_layer_idx": (True, ["scale_attn_by_inverse_layer_idx"]),
    "add_cross_attention": (True, ["add_cross_attention"]),
    "layer_norm_epsilon": ("small", ["layer_norm_epsilon 'small'"]),
}


@pytest.mark.parametrize("key", CONFIG_FAULTS)
def test_a_config_that_contradicts_the_tensors(folder: Path, key: str) -> None:
    value, named = CONFIG_FAULTS[key]
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    refused(folder, *named)


@pytest.mark.parametrize("key", ["n_head", "n_positions"])
@pytest.mark.parametrize("value", ["3", 3.5, 0, -3, [3]])
def test_a_config_with_values_that_are_no_sizes(folder: Path, key: str, value: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    refused(folder, key, repr(value))


@pytest.mark.parametrize("content", ["{", "[]", '"gpt2"'])
def test_a_config_that_is_no_json_object(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    refused(folder, "config.json", "JSON")


BROKEN = {
    "truncated": (lambda data: data[: len(data) // 2], "download it again"),
    "empty": (lambda data: b"", "download it again"),
    "html": (lambda data: b"\n<!DOCTYPE html><html>Sign in</html>", "HTML page"),
    "lfs pointer": (
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:12",
        "git lfs pull",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_broken_files(folder: Path, oracle, name: str, fault: str) -> None:
    torch.save(oracle.state_dict(), folder / "pytorch_model.bin")
    change, hint = BROKEN[fault]
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    refused(folder / name, name, hint)


class Malicious:
    def __reduce__(self):
        return (Path.write_text, (Path("pwned"), "x"))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"wte.weight": Malicious()}, "never loaded"),
        (torch.nn.Linear(2, 2), "never loaded"),
        ([torch.zeros(2)], "a list"),
        (torch.zeros(2), "a Tensor"),
        ({"epoch": 3}, "epoch is of the type int"),
        ({}, "no GPT-2 weights"),
    ],
)
def test_pickles_that_hold_something_else(tmp_path: Path, monkeypatch, content: object, named: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "model.pth")
    refused(tmp_path / "model.pth", "model.pth", named)
    assert not (tmp_path / "pwned").exists()


def test_a_width_that_no_preset_has_needs_a_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "width 48", "config.json next to the file")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "JSON"),
        ('{"weight_map": {"wte.weight": "../other.safetensors"}}', "../other.safetensors"),
        ('{"weight_map": {"wte.weight": 3}}', "names 3"),
    ],
)
def test_a_broken_index_of_shards(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    refused(tmp_path, named)


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("T5", {}, "'t5', an encoder-decoder"),
        ("Bart", {}, "'bart', an encoder-decoder"),
        ("Mixtral", {}, "'mixtral', a mixture of experts"),
        ("Qwen3Moe", {}, "'qwen3_moe', a mixture of experts"),
        ("DeepseekV3", {}, "'deepseek_v3', a mixture of experts"),
        ("ViT", {}, "'vit', a network of images"),
        ("CLIP", {}, "'clip', a network of images"),
        ("Qwen2VL", {}, "'qwen2_vl', a network of images"),
        ("Wav2Vec2", {}, "'wav2vec2', a network of sound"),
        ("Mamba", {}, "'mamba', a recurrent network"),
        ("Rwkv", {}, "'rwkv', a recurrent network"),
        ("GPTNeo", {}, "'gpt_neo'; supported are bert, "),
        (
            "GPT2",
            {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}},
            "a network with code of its own",
        ),
        ("Llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "weights quantized by gptq"),
        ("Qwen2", {"quantization_config": {"quant_method": "awq"}}, "weights quantized by awq"),
        ("GPT2", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized by bitsandbytes"),
        ("Llama", {"quantization": {"group_size": 64, "bits": 4}}, "quantized by an unknown method"),
    ],
)
def test_a_plain_word_for_each_kind_that_is_refused(name, options, word, tmp_path: Path) -> None:
    """By the config.json that transformers writes of it."""
    config = getattr(transformers, f"{name}Config")().to_dict() | options
    (tmp_path / "config.json").write_text(json.dumps(config, default=str))
    (tmp_path / "model.safetensors").touch()
    refused(tmp_path, word)


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("model-Q4_K_M.gguf", "quantized weights for llama.cpp"),
        ("tf_model.h5", "TensorFlow's weights"),
        ("flax_model.msgpack", "Flax' weights"),
        ("model.onnx", "an ONNX graph"),
        ("adapter_config.json", "an adapter, not a network: lay it over its base"),
    ],
)
def test_a_plain_word_for_each_format_that_is_refused(file: str, word: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"x")
    refused(tmp_path, f"holds {word}")
    if not file.endswith("json"):
        refused(tmp_path / file, f"holds {word}")


def test_a_plain_word_for_folders_of_others(folder: Path, tmp_path: Path) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"h.0.mlp.c_fc.qweight": torch.zeros(2)}, file)
    refused(folder, "h.0.mlp.c_fc.qweight is of quantized weights: take the checkpoint in bf16 or fp32")
    torch.save({}, tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text("{}")
    refused(tmp_path, "is in Meta's own format")
    refused(Path(pretrained.__file__).parents[1] / "assets" / "sms-spam-nano", "gptcls.train goes on from it")


def test_folders_without_one_file_of_weights(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "holds no weights")
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    refused(tmp_path, "a.pth, b.pth")
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path / "notes.txt", "notes.txt", ".safetensors")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gpt2-smal", "did you mean gpt2-small?"),
        ("gpt2-nan", "did you mean gpt2-nano?"),
        ("gpt3", "did you mean gpt2-"),
        ("", "gpt2-small"),
        ("nowhere/model.safetensors", "no model, folder or file"),
        ("./nowhere", "no model, folder or file"),
    ],
)
def test_names_of_nothing(name: str, hint: str) -> None:
    refused(name, name, hint)


# Hashes that are remembered


@pytest.fixture
def remembering(tmp_path: Path, monkeypatch):
    """(the memory's file, a list of what is hashed); every file counts as large."""
    hashed = []

    def noted(*paths: Path) -> str:
        hashed.append(paths)
        return file_sha256(*paths)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_files, "LARGE", 0)
    monkeypatch.setattr(weight_files, "file_sha256", noted)
    return tmp_path / "cache" / "gptcls" / "sha256.json", hashed


def test_a_large_file_is_hashed_once_until_it_changes(folder: Path, remembering) -> None:
    memory, hashed = remembering
    first = weights_sha256(folder)
    assert weights_sha256(str(folder / "model.safetensors")) == first == file_sha256(*hashed[0])
    assert len(hashed) == 1
    state = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in state.items()}, folder / "model.safetensors")
    assert weights_sha256(folder) == file_sha256(*hashed[0]) != first
    assert len(hashed) == 2
    assert len(json.loads(memory.read_text())) == 1, "the old entry is replaced"


def test_all_parts_of_a_sharded_model_count(oracle, tmp_path: Path, remembering) -> None:
    _, hashed = remembering
    oracle.save_pretrained(tmp_path / "saved", max_shard_size="100KB")
    found = {weights_sha256(tmp_path / "saved") for _ in range(2)}
    assert len(hashed) == 1
    shard = sorted((tmp_path / "saved").glob("*.safetensors"))[1]
    save_file({name: tensor + 1 for name, tensor in load_file(shard).items()}, shard)
    assert weights_sha256(tmp_path / "saved") not in found


@pytest.mark.parametrize(
    "damage", ["{", "[1]", '{"x": {"files": [], "sha256": "ab"}}', '{"x": 3}', "[" * 100_000, "\udcff"]
)
def test_a_damaged_memory_is_not_believed(folder: Path, remembering, damage: str) -> None:
    memory, hashed = remembering
    first = weights_sha256(folder)
    known = str((folder / "model.safetensors").resolve())
    memory.write_bytes(damage.replace('"x"', json.dumps(known)).encode("utf-8", "surrogateescape"))
    assert weights_sha256(folder) == first
    assert len(hashed) == 2


def test_a_memory_that_cannot_be_written_is_done_without(folder: Path, remembering, monkeypatch) -> None:
    memory, hashed = remembering
    memory.parents[1].write_text("a file where the folder should be")
    assert weights_sha256(folder) == weights_sha256(folder)
    assert len(hashed) == 2


def test_without_a_home_nothing_is_remembered(folder: Path, remembering, monkeypatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert weights_sha256(folder) == weights_sha256(folder)
    assert len(remembering[1]) == 2


def test_small_files_are_not_remembered(folder: Path, remembering, monkeypatch) -> None:
    memory, _ = remembering
    monkeypatch.setattr(weight_files, "LARGE", 1 << 26)
    weights_sha256(folder)
    assert not memory.exists()
