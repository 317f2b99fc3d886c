"""Folders of the Llama family: what is read, in how much memory, and one line for every fault."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.random_gpt2 import random_ids
from helpers.random_llama import KINDS, LLAMA3, SIZES, oracle_of, save
from safetensors.torch import load_file, save_file

from gptcls.core.errors import InputError
from gptcls.models.llama import Llama, LlamaConfig
from gptcls.models.llama_files import MODEL_TYPES, NAMES
from gptcls.models.llama_files import read_llama_config as read_config
from gptcls.models.pretrained import load_pretrained, weights_sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Qwen2 with an untied head."""
    return save(oracle_of("qwen2"), tmp_path / "saved")


def assert_same(folder: Path, oracle) -> None:
    model = load_pretrained(folder)
    with torch.inference_mode():
        logits = model.lm_logits(model(random_ids()))
        torch.testing.assert_close(logits, oracle(random_ids()).logits, rtol=0, atol=1e-4)


def edit(folder: Path, **changes: object) -> None:
    """Set entries of config.json; those that are ... go."""
    file = folder / "config.json"
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def refused(folder: Path, *named: str) -> None:
    with pytest.raises(InputError) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value)
    for part in named:
        assert part in str(caught.value)


# Names


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "phi3" not in kind])
def test_names_there_and_back(kind: str) -> None:
    """Phi-3's joint matrices become separate ones first, and stay so."""
    theirs = oracle_of(kind).state_dict()
    ours = NAMES.to_ours(theirs)
    assert len(ours) == len(theirs)
    back = NAMES.to_theirs(ours)
    assert back.keys() == theirs.keys()
    assert all(back[name] is theirs[name] for name in theirs)


def test_what_we_name_is_what_transformers_reads(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    state = load_pretrained(folder).state_dict()
    save_file(NAMES.to_theirs(state), folder / "model.safetensors", metadata={"format": "pt"})
    _, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_without_the_prefix_as_a_model_without_a_head(tmp_path: Path, caplog) -> None:
    oracle = oracle_of("llama")
    save(oracle.model, tmp_path)
    assert "embed_tokens.weight" in load_file(tmp_path / "model.safetensors")
    with torch.inference_mode():
        hidden = load_pretrained(tmp_path)(random_ids())
        expected = oracle.model(random_ids()).last_hidden_state
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-4)


def test_frequencies_that_old_files_hold_are_passed_over(folder: Path) -> None:
    file = folder / "model.safetensors"
    extra = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(3)}
    save_file(load_file(file) | extra, file)
    assert_same(folder, oracle_of("qwen2"))


# Heads


@pytest.mark.parametrize("stored", ["once", "twice"])
def test_a_tied_head(stored: str, tmp_path: Path) -> None:
    oracle = oracle_of("qwen2 tied")
    file = save(oracle, tmp_path) / "model.safetensors"
    state = load_file(file)
    assert "lm_head.weight" not in state
    if stored == "twice":
        save_file(state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}, file)
    assert load_pretrained(tmp_path).lm_head is None
    assert_same(tmp_path, oracle)


def test_a_head_that_is_not_the_table_it_should_be_tied_to(tmp_path: Path, caplog) -> None:
    """As transformers, which takes the head that is there."""
    file = save(oracle_of("qwen2 tied"), tmp_path) / "model.safetensors"
    save_file(load_file(file) | {"lm_head.weight": torch.eye(97, 48)}, file)
    with caplog.at_level("INFO", "gptcls"):
        model = load_pretrained(tmp_path)
    assert torch.equal(model.lm_head.weight, torch.eye(97, 48))
    assert "another one" in caplog.text


# Shards


def test_shards(tmp_path: Path) -> None:
    oracle = oracle_of("mistral")
    save(oracle, tmp_path, max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert_same(tmp_path, oracle)
    shards[1].unlink()
    refused(tmp_path, f"{shards[1]} is missing", "model.safetensors.index.json", f"of {len(shards)} files")
    with pytest.raises(InputError, match=f"{shards[1].name} is missing"):
        weights_sha256(tmp_path)


def test_a_shard_without_one_of_its_tensors(tmp_path: Path) -> None:
    save(oracle_of("mistral"), tmp_path, max_shard_size="60KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    state = load_file(shard)
    lost = sorted(state)[0]
    save_file({name: tensor for name, tensor in state.items() if name != lost}, shard)
    refused(tmp_path, lost, "is missing")


# Memory


MEASURE = """
import re, sys
from pathlib import Path
import torch
from gptcls.models.pretrained import load_pretrained

def kilobytes(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

load_pretrained(sys.argv[1], torch.bfloat16)  # the libraries' own memory
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew (Linux, man 5 proc)
before = kilobytes("VmRSS")
model = load_pretrained(sys.argv[2], torch.bfloat16)
assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
print(1024 * (kilobytes("VmHWM") - before))
"""


def test_bf16_is_loaded_in_place(tmp_path: Path) -> None:
    """At most its size and a tenth: 74 MB here, of which the largest tensor is a third."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is measured through Linux's /proc")
    options = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 24_000}
    values = {**SIZES, **options, "model_type": "llama", "tie_word_embeddings": True}
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in Llama(read_config(values, "")).state_dict().items()}
    state = NAMES.to_theirs({name: torch.zeros(s, dtype=torch.bfloat16) for name, s in shapes.items()})
    large = tmp_path / "large"
    large.mkdir()
    save_file(state, large / "model.safetensors")
    (large / "config.json").write_text(json.dumps(values))
    tiny = save(oracle_of("qwen2").bfloat16(), tmp_path / "tiny")
    size = (large / "model.safetensors").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tiny, large], capture_output=True, text=True, check=False
    )
    (large / "model.safetensors").unlink()
    assert done.returncode == 0, done.stderr
    assert 0.9 * size < int(done.stdout) < 1.1 * size


# config.json


FAULTS = {
    "hidden_act": ("gelu", ["hidden_act 'gelu'", "'silu'"]),
    "model_type": ("gemma2", ["model_type 'gemma2'; supported are bert, "]),
    "num_hidden_layers": (2, ["model.layers.2.", "is not a tensor of this network"]),
    "hidden_size": (64, ["[97, 48] instead of [97, 64]"]),
    "intermediate_size": ("80", ["intermediate_size '80'"]),
    "num_attention_heads": (7, ["n_kv_head 2 does not divide n_head 7"]),
    "num_key_value_heads": (3, ["self_attn.k_proj", "[16] instead of [24]"]),
    "max_position_embeddings": (..., ["has no max_position_embeddings"]),
    "vocab_size": (100, ["[97, 48] instead of [100, 48]"]),
    "rms_norm_eps": (float("inf"), ["rms_norm_eps inf"]),
    "tie_word_embeddings": ("yes", ["tie_word_embeddings 'yes'"]),
    "quantization_config": ({"quant_method": "gptq"}, ["quantized"]),
    "rope_parameters": ({"rope_type": "longrope"}, ["rope_type 'longrope'", "'default' or 'linear'"]),
    "is_causal": (False, ["is_causal False", "not True"]),
    "use_sliding_window": (1, ["use_sliding_window 1"]),
}  # fmt: skip


@pytest.mark.parametrize("key", FAULTS)
def test_a_config_that_does_not_fit(folder: Path, key: str) -> None:
    value, named = FAULTS[key]
    edit(folder, **{key: value})
    refused(folder, *named, str(folder))


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "rope_type 'longrope'"),
        ({"type": "dynamic", "factor": 2.0}, "rope_type 'dynamic'"),
        ({"type": "mrope", "mrope_section": [16, 24, 24]}, "rope_type 'mrope'"),
        (LLAMA3 | {"factor": -8}, "factor -8"),
        (LLAMA3 | {"low_freq_factor": 4.0}, "low_freq_factor 4.0"),
        ({"rope_type": "llama3"}, "has no factor"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ([4], "rope_scaling [4]"),
    ],
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_rotary_positions_of_other_kinds(folder: Path, key: str, rope: object, named: str) -> None:
    edit(folder, **{"rope_parameters": None, key: rope})
    refused(folder, named)


def declared(kind: str, **changes: object) -> LlamaConfig:
    values = {**SIZES, "model_type": kind, "num_hidden_layers": 30, **changes}
    return read_config(values, "config.json")


def test_both_spellings_of_the_rotary_positions() -> None:
    old = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    for scaling in (old, {"type" if key == "rope_type" else key: value for key, value in old.items()}):
        assert declared("llama", rope_theta=500_000.0, rope_scaling=scaling) == declared(
            "llama", rope_parameters=LLAMA3
        )
    assert declared("llama", rope_parameters=LLAMA3).rope_factor == 8
    assert declared("qwen2", rope_theta=1e6).rope_theta == 1e6
    unsaid = {"rope_type": "default", "rope_theta": None}
    assert declared("qwen2", rope_theta=1e6, rope_scaling=unsaid).rope_theta == 1e6
    assert declared("qwen2").rope_theta == 10_000


def test_windows_as_transformers_reads_them() -> None:
    from transformers import MistralConfig, Qwen2Config

    for changes in (
        {},
        {"use_sliding_window": True},
        {"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 16},
        {"use_sliding_window": True, "max_window_layers": 21, "sliding_window": 16},
        {"use_sliding_window": True, "max_window_layers": 70},
        {"use_sliding_window": True, "sliding_window": None},
        {"use_sliding_window": False, "sliding_window": 16, "max_window_layers": 2},
    ):
        theirs = Qwen2Config(**{**SIZES, "num_hidden_layers": 30, **changes})
        for ours in (declared("qwen2", **changes), read_config(theirs.to_dict(), "config.json")):
            windows = [ours.window if i >= (ours.window_from or 0) else None for i in range(30)]
            wanted = [
                theirs.sliding_window if kind == "sliding_attention" else None for kind in theirs.layer_types
            ]
            assert windows == wanted, changes
    for changes in ({}, {"sliding_window": None}, {"sliding_window": 7}):
        assert declared("mistral", **changes).window == MistralConfig(**changes).sliding_window
    for kinds in (["sliding_attention", "full_attention"] * 15, ["full_attention"], 5, "full_attention"):
        with pytest.raises(InputError, match="layer_types"):
            declared("qwen2", use_sliding_window=True, layer_types=kinds)
    for first in ("ten", -1, 2.5):
        with pytest.raises(InputError, match="max_window_layers"):
            declared("qwen2", use_sliding_window=True, max_window_layers=first)


@pytest.mark.parametrize("changes", [{"tie_word_embeddings": "yes"}, {"num_attention_heads": 5}])
def test_a_fault_names_its_file_once(changes: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        declared("qwen2", **changes)
    assert str(caught.value).count("config.json") == 1


def test_blocks_without_positions_as_transformers_reads_them() -> None:
    from transformers import SmolLM3Config

    for changes in ({}, {"no_rope_layer_interval": 3}, {"no_rope_layers": [1] * 30}):
        theirs = SmolLM3Config(**{**SIZES, "num_hidden_layers": 30, **changes})
        for ours in (declared("smollm3", **changes), read_config(theirs.to_dict(), "config.json")):
            every = ours.rope_left_out or 31
            assert [int(i % every > 0) for i in range(1, 31)] == theirs.no_rope_layers, changes
    with pytest.raises(InputError, match="no_rope_layers"):
        declared("smollm3", no_rope_layers=[0] * 30)
    assert declared("smollm3").rope_theta == SmolLM3Config().rope_parameters["rope_theta"]
    assert declared("smollm3").tied == SmolLM3Config().tie_word_embeddings
    assert declared("qwen3").head_dim == 128


def test_phi3s_longrope_is_refused_by_all_its_names() -> None:
    for kind in ("longrope", "su", "yarn"):
        with pytest.raises(InputError, match="rope_type"):
            declared("phi3", rope_scaling={"type": kind, "factor": 4.0})


def test_dropout_is_said_to_be_left_out(folder: Path, caplog) -> None:
    edit(folder, attention_dropout=0.1)
    with caplog.at_level("INFO", "gptcls"):
        load_pretrained(folder)
    assert "attention_dropout 0.1 is not applied" in caplog.text


def test_a_file_without_its_config_says_what_is_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "no GPT-2 weights", "another model needs its config.json")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        (
            "model.layers.0.mlp.gate_up_proj.weight",
            "not part of a network of the Llama family: model.layers.0.mlp",
        ),
        ("qa_outputs.weight", "qa_outputs.weight"),
        ("embed_tokens.weight", "there twice"),
    ],
)
def test_an_unknown_tensor(folder: Path, name: str, named: str) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | {name: torch.zeros(2, 2)}, file)
    refused(folder, named)


def test_a_bias_that_the_config_does_not_tell_of(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"model.layers.1.self_attn.o_proj.bias": torch.zeros(48)}, file)
    refused(folder, "model.layers.1.self_attn.o_proj.bias", "is not a tensor of this network")


def test_nan(folder: Path) -> None:
    file = folder / "model.safetensors"
    state = load_file(file)
    state["model.layers.2.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(state, file)
    refused(folder, "model.layers.2.mlp.up_proj.weight", "not finite")


def test_every_model_type_has_an_oracle() -> None:
    assert {name.lower() for name, _ in KINDS.values()} == MODEL_TYPES.keys()
