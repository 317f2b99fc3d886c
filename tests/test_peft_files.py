"""Adapters in PEFT's format: ours load in PEFT, PEFT's load here, and what is neither is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import random_bert, random_llama
from helpers.tiny import CPU, tiny_lora, tiny_saved
from safetensors.torch import load_file, save_file
from torch import nn

from gptcls.classify.predict import TextClassifier
from gptcls.classify.store import read_classifier, save_classifier
from gptcls.core.batches import pad
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.task import SingleLabel
from gptcls.core.tokenizer import PAD_ID
from gptcls.models.lora import LoRAConfig, adapt, add_lora, learn_adapters, lora_layers, merge
from gptcls.models.peft_files import BASE, _parameters, _their_name, load_adapter, save_adapter
from gptcls.models.pretrained import load_pretrained, weights_sha256

IDS = [[5, 6, 7, 8, 9, 10], [11], [3, 4], [50000, 1, 2, 3]]
PREFIX = "base_model.model.transformer.h"


@pytest.fixture
def adapted(base):
    """Our classifier over the base in a folder."""
    model = tiny_lora(backbone=load_pretrained(base))
    with torch.no_grad():
        model.head.weight.normal_()
    return model


@pytest.fixture
def folder(adapted, base, tmp_path) -> Path:
    """The same, saved as an adapter."""
    base_weights = {"name": str(base), "sha256": weights_sha256(base)}
    save_classifier(tmp_path / "x", replace(tiny_saved(), model=adapted, base=base_weights), full=False)
    return tmp_path / "x"


def theirs(base, head=None):
    """transformers' classifier over the base; its head has no bias, unless it is given one."""
    transformers = pytest.importorskip("transformers")
    options = {"num_labels": 2, "pad_token_id": PAD_ID, "bos_token_id": None, "eos_token_id": None}
    torch.manual_seed(2)
    model = transformers.GPT2ForSequenceClassification.from_pretrained(base, **options).eval()
    if head is not None:
        model.score = head
    return model


def their_logits(model):
    ids, lengths = pad(IDS)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        return model(ids, attention_mask=mask.long()).logits


def our_logits(model):
    with torch.no_grad():
        return model(*pad(IDS))


def test_our_adapter_in_peft(adapted, folder, base):
    peft = pytest.importorskip("peft")
    expected = our_logits(adapted)
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == {"head.weight", "head.bias"}
    assert tensors["head.bias"].abs().max() > 0.1, "which transformers' head has not"
    network = peft.PeftModel.from_pretrained(theirs(base), folder).eval()
    torch.testing.assert_close(their_logits(network), expected, atol=1e-5, rtol=0)
    merged = network.merge_and_unload()
    torch.testing.assert_close(their_logits(merged), expected, atol=1e-5, rtol=0)
    merge(adapted)
    torch.testing.assert_close(our_logits(adapted), expected, atol=1e-5, rtol=0)


def test_our_adapter_in_peft_hidden_states(adapted, base, tmp_path):
    """Without a head it is for any network over that base."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    save_adapter(folder := tmp_path, adapted.backbone, str(base))
    network = transformers.GPT2LMHeadModel.from_pretrained(base).eval()
    network = peft.PeftModel.from_pretrained(network, folder)
    ids = torch.tensor([IDS[0]])
    with torch.no_grad():
        hidden = network(ids, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(hidden, adapted.backbone(ids), atol=1e-5, rtol=0)


def trained_by_peft(base, path, headed=True, **options):
    """Saved by PEFT, with random numbers in every tensor; returns their network."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    network = theirs(base) if headed else transformers.GPT2Model.from_pretrained(base).eval()
    settings = {
        "r": 4,
        "lora_alpha": 10,
        "target_modules": ["c_attn", "c_proj", "c_fc"],
        "fan_in_fan_out": True,
    }
    task = "SEQ_CLS" if headed else None
    network = peft.get_peft_model(network, peft.LoraConfig(task_type=task, **settings | options)).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3 if "lora" in name else 1.0)
    network.save_pretrained(path)
    return network


@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({}, 12),
        ({"target_modules": ["c_attn"]}, 3),
        ({"target_modules": r".*\.h\.[12]\.mlp\.c_(fc|proj)"}, 4),
        ({"layers_to_transform": [1], "layers_pattern": "h"}, 4),
        ({"target_modules": ["mlp.c_fc"], "lora_dropout": 0.5}, 3),
        ({"use_rslora": True}, 12),
        ({"rank_pattern": {"attn.c_attn": 7, "h.1.mlp.c_fc": 2}}, 12),
        ({"alpha_pattern": {"c_fc": 3, "^transformer.h.0.mlp.c_proj": 5}, "rank_pattern": {"c_fc": 2}}, 12),
        ({"use_dora": True, "use_rslora": True}, 12),
        ({"target_modules": ["wte", "c_fc"], "rank_pattern": {"wte": 2}}, 4),
        ({"target_modules": ["wte", "c_fc"], "use_dora": True}, 4),
        ({"target_modules": ["wte"]}, 1),
    ],
)
def test_their_adapter_here(base, tmp_path, options, n):
    expected = their_logits(trained_by_peft(base, tmp_path / "theirs", **options))
    backbone = load_pretrained(base)
    head = load_adapter(backbone, tmp_path / "theirs")
    assert head.keys() == {"score.weight"}
    assert len(lora_layers(backbone)) == n
    model = Classifier(backbone, 2).eval()
    with torch.no_grad():
        model.head.weight.copy_(head["score.weight"])
        model.head.bias.zero_()
    torch.testing.assert_close(our_logits(model), expected, atol=1e-5, rtol=0)
    merge(model)
    torch.testing.assert_close(our_logits(model), expected, atol=1e-5, rtol=0)


def test_their_adapter_and_head_of_a_bert(tmp_path):
    peft = pytest.importorskip("peft")
    network = random_bert.oracle_of("bert", num_labels=3)
    network.save_pretrained(tmp_path / "bert")
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value", "output.dense"])
    network = peft.get_peft_model(network, settings).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    network.save_pretrained(tmp_path / "theirs")
    model = Classifier(load_pretrained(tmp_path / "bert"), 3, pooling="first").eval()
    head = load_adapter(model.backbone, tmp_path / "theirs")
    assert head.keys() == {"classifier.weight", "classifier.bias"}
    model.head.load_state_dict({name.removeprefix("classifier."): value for name, value in head.items()})
    _, ids, lengths = random_bert.ragged()
    with torch.no_grad():
        expected = network(**random_bert.told(network, lengths, ids)).logits
        torch.testing.assert_close(model(ids, lengths), expected, atol=1e-4, rtol=0)


VARIANTS = [
    {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["wte", "c_attn"]},
    {"target_modules": ["wte", "mlp.c_proj"], "use_dora": True},
]  # fmt: skip


@pytest.mark.parametrize("options", VARIANTS)
def test_gradients_are_those_of_peft(base, tmp_path, options):
    """With the same numbers in every tensor, of each of an adapter's tensors."""
    network = trained_by_peft(base, tmp_path / "theirs", **options)
    backbone = load_pretrained(base)
    head = load_adapter(backbone, tmp_path / "theirs")["score.weight"]
    model = Classifier(backbone, 2).eval()
    learn_adapters(model)
    with torch.no_grad():
        model.head.weight.copy_(head)
        model.head.bias.zero_()
    ids, lengths = pad(IDS)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    for logits in (network(ids, attention_mask=mask.long()).logits, model(ids, lengths)):
        logits.square().mean().backward()
    theirs = {
        name.replace(".default", "").replace("modules_to_save.", ""): p.grad
        for name, p in network.named_parameters()
    }
    ours = lora_layers(backbone)
    checked = 0
    for name, layer in ours.items():
        for end, own in _parameters(layer).items():
            key = f"base_model.model.{_their_name(backbone, name)}.{end}"
            wanted = theirs[key if key in theirs else f"{key}.weight"]  # a ModuleDict or a ParameterDict
            found, scale = layer.get_parameter(own).grad, wanted.abs().max().item()
            torch.testing.assert_close(found, wanted, atol=1e-5 * max(1.0, scale), rtol=1e-4, msg=key)
            checked += bool(wanted.abs().max() > 0)
    assert checked == len(ours) * (3 if "use_dora" in options else 2)
    torch.testing.assert_close(
        model.head.weight.grad, theirs["base_model.model.score.weight"], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", ["rslora", "dora"])
def test_our_variants_in_peft(base, tmp_path, kind):
    peft = pytest.importorskip("peft")
    config = LoRAConfig(3, 6.0, rslora=kind == "rslora", dora=kind == "dora")
    model = tiny_lora(config, ("*", "wte"), load_pretrained(base))
    base_weights = {"name": str(base), "sha256": weights_sha256(base)}
    save_classifier(tmp_path / "x", replace(tiny_saved(), model=model, base=base_weights), full=False)
    expected = our_logits(model)
    assert (expected - our_logits(tiny_lora(backbone=load_pretrained(base)))).abs().max() > 0.1
    network = peft.PeftModel.from_pretrained(theirs(base), tmp_path / "x").eval()
    torch.testing.assert_close(their_logits(network), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(their_logits(network.merge_and_unload()), expected, atol=1e-5, rtol=0)
    back = read_classifier(tmp_path / "x").model
    assert torch.equal(our_logits(back), expected)
    assert back.trained_parameters().keys() == model.trained_parameters().keys()
    assert {layer.config for layer in lora_layers(back).values()} == {config}
    merge(model)
    torch.testing.assert_close(our_logits(model), expected, atol=1e-5, rtol=0)


def test_their_table_of_a_llama_comes_with_the_table_as_it_was(tmp_path):
    """PEFT saves both where it knows the table by its name."""
    peft = pytest.importorskip("peft")
    oracle = random_llama.oracle_of("llama", "ForSequenceClassification", num_labels=3)
    base = random_llama.save(oracle, tmp_path / "base")
    settings = peft.LoraConfig(
        task_type="SEQ_CLS", r=4, use_dora=True, target_modules=["q_proj", "embed_tokens"]
    )
    network = peft.get_peft_model(oracle, settings).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.3)
    network.save_pretrained(tmp_path / "theirs")
    assert any(name.endswith(BASE) for name in load_file(tmp_path / "theirs" / "adapter_model.safetensors"))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = network.base_model.model.model(ids).last_hidden_state
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1.0)):
            backbone = load_pretrained(base, dtype)
            load_adapter(backbone, tmp_path / "theirs")
            torch.testing.assert_close(backbone(ids).float(), wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "ernie", "deberta", "modernbert"])
def test_our_adapter_of_an_encoder_in_peft(kind, tmp_path):
    peft = pytest.importorskip("peft")
    oracle = random_bert.oracle_of(kind, "ForMaskedLM")
    oracle.save_pretrained(tmp_path)
    backbone = load_pretrained(tmp_path)
    if kind == "modernbert":  # its pooler is the head's there
        backbone.drop_pooler()
    for layer in adapt(backbone, LoRAConfig(rank=2, alpha=4.0), ("*", "wte")).values():
        nn.init.normal_(layer.lora_A.weight, std=0.3)
        nn.init.normal_(layer.lora_B.weight, std=0.3)
    save_adapter(tmp_path, backbone, str(tmp_path))
    _, ids, lengths = random_bert.ragged()
    told = random_bert.told(oracle, lengths, ids)
    with torch.no_grad():
        plain = oracle.base_model(**told).last_hidden_state
        network = peft.PeftModel.from_pretrained(oracle, tmp_path).eval()
        wanted = network.base_model.model.base_model(**told).last_hidden_state
        found = backbone.eval()(ids, lengths)
    assert (wanted - plain).abs().max() > 0.1
    for ours, expected, length in zip(found, wanted, lengths, strict=True):
        torch.testing.assert_close(ours[:length], expected[:length], atol=1e-4, rtol=0)


OVER = {  # what the base is, and what transformers calls the layers above it that are saved
    "gpt2": ("ForCausalLM", "score transformer.ln_f"), "qwen2": ("ForCausalLM", "score"),
    "bert": ("Model", "classifier"), "ernie": ("Model", "classifier"),
    "roberta": ("ForSequenceClassification", "classifier.dense classifier.out_proj"),
    "electra": ("ForSequenceClassification", "classifier.dense classifier.out_proj"),
    "distilbert": ("ForSequenceClassification", "pre_classifier classifier"),
    "deberta": ("ForSequenceClassification", "classifier"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OVER)
def test_our_classifier_in_peft_by_its_task(kind, base, tmp_path):
    """AutoPeftModel builds transformers' class, lays our adapters and head over it, and gives our logits."""
    peft = pytest.importorskip("peft")
    head, layers = OVER[kind]
    if kind in random_llama.KINDS:
        base = random_llama.save(random_llama.oracle_of(kind, head, num_labels=3), tmp_path / "their base")
    elif kind != "gpt2":
        base = random_llama.save(random_bert.oracle_of(kind, head, num_labels=3), tmp_path / "their base")
    backbone = load_pretrained(base)
    decoder = kind in ("gpt2", "qwen2")
    model = Classifier(backbone, 3, pooling="last" if decoder else "first")
    add_lora(backbone.blocks, LoRAConfig(rank=2, alpha=4.0, rslora=True), prefix="blocks")
    learn_adapters(model)
    torch.manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.trained_parameters().items():
            if not (kind == "qwen2" and name == "head.bias"):  # which a run does not train
                parameter.normal_(std=0.3)
            else:
                parameter.zero_()
    saved = replace(tiny_saved(), model=model.eval(), task=SingleLabel(("a", "b", "c")))
    base_weights = {"name": str(base), "sha256": weights_sha256(base)}
    save_classifier(tmp_path / "x", replace(saved, base=base_weights), full=False)
    _, ids, lengths = random_bert.ragged()
    options = {"num_labels": 3} | ({"pad_token_id": 0} if decoder else {})
    network = peft.AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "x", **options).eval()
    with torch.no_grad():
        found = network(**random_bert.told(network, lengths, ids)).logits
        torch.testing.assert_close(found, model(ids, lengths), atol=1e-4, rtol=0)
    names = {
        name.removeprefix("base_model.model.")
        for name in load_file(tmp_path / "x" / "adapter_model.safetensors")
    }
    assert {name.rpartition(".")[0] for name in names if "lora" not in name} == set(layers.split())
    back = read_classifier(tmp_path / "x")  # and ours, of which the adapter holds a copy
    with torch.no_grad():
        torch.testing.assert_close(back.model(ids, lengths), model(ids, lengths))


@pytest.mark.parametrize("what", ["pooling", "no pooler", "mask", "bias", "modernbert"])
def test_what_transformers_class_cannot_say_has_no_task(what, base, tmp_path):
    kind = {"no pooler": "roberta", "bias": "qwen2", "modernbert": "modernbert"}.get(what)
    if kind:
        helper = random_llama if what == "bias" else random_bert
        head = "ForMaskedLM" if what == "modernbert" else "Model"
        base = random_llama.save(helper.oracle_of(kind, head), tmp_path / "their base")
    backbone = load_pretrained(base)
    if what == "mask":
        backbone.drop_causal_mask()
    pooling = {"pooling": "mean", "no pooler": "first", "modernbert": "first"}.get(what, "last")
    model = Classifier(backbone, 2, pooling=pooling)
    add_lora(backbone.blocks, LoRAConfig(rank=2), prefix="blocks")
    learn_adapters(model)
    base_weights = {"name": str(base), "sha256": weights_sha256(base)}
    save_classifier(tmp_path / "x", replace(tiny_saved(), model=model, base=base_weights), full=False)
    assert json.loads((tmp_path / "x" / "adapter_config.json").read_text())["task_type"] is None
    assert all("lora" in name for name in load_file(tmp_path / "x" / "adapter_model.safetensors"))
    read_classifier(tmp_path / "x")


def test_adapters_of_several_ranks_are_written_as_such(base, tmp_path):
    peft = pytest.importorskip("peft")
    options = {"rank_pattern": {"c_attn": 7}, "alpha_pattern": {"h.1.mlp.c_fc": 3}}
    trained_by_peft(base, tmp_path / "theirs", **options)
    backbone = load_pretrained(base)
    load_adapter(backbone, tmp_path / "theirs")
    save_adapter(tmp_path, backbone, str(base))
    transformers = pytest.importorskip("transformers")
    plain = transformers.GPT2LMHeadModel.from_pretrained(base).eval()
    network = peft.PeftModel.from_pretrained(plain, tmp_path)
    ids = torch.tensor([IDS[0]])
    with torch.no_grad():
        hidden = network(ids, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(hidden, backbone(ids), atol=1e-5, rtol=0)


def test_their_adapter_of_a_network_without_a_head(base, tmp_path):
    network = trained_by_peft(base, tmp_path / "theirs", headed=False)
    backbone = load_pretrained(base)
    assert load_adapter(backbone, tmp_path / "theirs") == {}
    ids = torch.tensor([IDS[0]])
    with torch.no_grad():
        torch.testing.assert_close(backbone(ids), network(ids).last_hidden_state, atol=1e-5, rtol=0)


def test_there_and_back_exactly(adapted, base, tmp_path):
    save_adapter(tmp_path, adapted.backbone, "gpt2-small")
    backbone = load_pretrained(base)
    assert load_adapter(backbone, tmp_path) == {}
    before, after = adapted.backbone.state_dict(), backbone.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {layer.config for layer in lora_layers(backbone).values()} == {LoRAConfig(3, 6.0)}
    description = json.loads((tmp_path / "adapter_config.json").read_text())
    assert description["base_model_name_or_path"] == "openai-community/gpt2"
    assert description["revision"] == "607a30d783dfa663caf39e06633721c8d4cfcd7e"
    assert description["fan_in_fan_out"] is True


def test_saved_classifier_round_trip(adapted, folder, tmp_path):
    assert {file.name for file in folder.iterdir()} == {
        "classifier.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    back = read_classifier(folder)
    assert torch.equal(our_logits(back.model), our_logits(adapted))
    assert back.model.policy == "lora"
    assert back.model.trained_parameters().keys() == adapted.trained_parameters().keys()
    assert not any(module.training for module in back.model.modules())
    save_classifier(tmp_path / "y", back, full=False)
    for name in ("model.safetensors", "adapter_model.safetensors"):
        assert (tmp_path / "y" / name).read_bytes() == (folder / name).read_bytes()


def test_merged_for_deployment(adapted, folder, tmp_path):
    """It needs no base, and is a classifier that knows nothing of adapters."""
    saved = read_classifier(folder)
    save_classifier(tmp_path / "full", replace(saved, base=None), full=True)
    assert lora_layers(saved.model), "saving changes nothing"
    assert {file.name for file in (tmp_path / "full").iterdir()} == {"classifier.json", "model.safetensors"}
    back = read_classifier(tmp_path / "full")
    assert back.model.policy == "all"
    assert (
        back.model.state_dict().keys()
        == Classifier(load_pretrained(tmp_path / "base"), 2).state_dict().keys()
    )
    torch.testing.assert_close(our_logits(back.model), our_logits(adapted), atol=1e-5, rtol=0)


def test_in_use_the_adapter_is_merged(adapted, folder):
    classifier = TextClassifier(read_classifier(folder), CPU, "fp32")
    assert not lora_layers(classifier.saved.model)
    torch.testing.assert_close(our_logits(classifier.model), our_logits(adapted), atol=1e-5, rtol=0)


def test_the_wrong_base_is_refused(folder, base):
    weights = base / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights)
    with pytest.raises(InputError, match=r"base weights .* sha256"):
        read_classifier(folder)


def edited(**changes):
    def edit(folder):
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return edit


def renamed(old, new, shape=None):
    """One tensor under another name (None: gone), in another shape."""

    def edit(folder):
        tensors = load_file(folder / "adapter_model.safetensors")
        tensor = tensors.pop(f"{PREFIX}.{old}.weight")
        if new is not None:
            tensors[new] = tensor if shape is None else torch.zeros(shape)
        save_file(tensors, folder / "adapter_model.safetensors")

    return edit


def also(name, *shape):
    """One tensor more."""

    def edit(folder):
        file = folder / "adapter_model.safetensors"
        save_file(load_file(file) | {name: torch.ones(shape)}, file)

    return edit


def not_finite(folder):
    tensors = load_file(folder / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, folder / "adapter_model.safetensors")


def cut_off(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def without(name):
    return lambda folder: (folder / name).unlink()


def text(content):
    return lambda folder: (folder / "adapter_config.json").write_text(content)


BAD = {
    "no config": (without("adapter_config.json"), "adapter_config.json is missing"),
    "no tensors": (without("adapter_model.safetensors"), "adapter_model.safetensors is missing"),
    "no json": (text("{"), "JSON"),
    "no object": (text("[]"), "JSON object"),
    "another kind": (edited(peft_type="IA3"), "peft_type 'IA3'.* only LoRA and DoRA"),
    "no kind": (edited(peft_type=None), "peft_type None"),
    "no lengths": (edited(use_dora=True), "c_attn.lora_magnitude_vector in .* is missing"),
    "lengths": (
        renamed("1.mlp.c_fc.lora_B", f"{PREFIX}.1.mlp.c_fc.lora_magnitude_vector"),
        "h.1.mlp.c_fc.lora_B.weight .* is missing",
    ),
    "lengths of plain LoRA": (
        also(f"{PREFIX}.1.mlp.c_fc.lora_magnitude_vector", 64), "lora_magnitude_vector, of which .* nothing",
    ),
    "another base": (
        also(f"{PREFIX}.1.mlp.c_fc.base_layer.weight", 64, 16),
        "c_fc.base_layer.weight, which is not this network's",
    ),
    "a flag": (edited(use_rslora="yes"), "use_rslora 'yes', which is not true or false"),
    "ranks by layer": (edited(rank_pattern={"c_attn": 4}), r"lora_A.weight .* instead of \[4, 16\]"),
    "no ranks": (edited(rank_pattern=[4]), r"rank_pattern \[4\], which is not an object"),
    "alphas": (edited(alpha_pattern={"c_attn": 0}), "lora_alpha 0"),
    "any expression": (edited(rank_pattern={"(a+)+": 4}), r"rank_pattern '\(a\+\)\+', which is not"),
    "biases": (edited(bias="all"), "bias 'all'"),
    "a changed base": (edited(init_lora_weights="pissa"), "init_lora_weights 'pissa'"),
    "what is not invented yet": (edited(use_xlora=True), "use_xlora True"),
    "no rank": (edited(r=0), "r 0, which is not a whole number"),
    "rank of another type": (edited(r="3"), "r '3'"),
    "another rank": (edited(r=4), r"lora_A.weight .* has the shape \[3, 16\] instead of \[4, 16\]"),
    "alpha": (edited(lora_alpha=-1), "lora_alpha -1"),
    "endless alpha": (edited(lora_alpha=float("inf")), "lora_alpha inf"),
    "dropout": (edited(lora_dropout=1), "lora_dropout 1"),
    "targets": (edited(target_modules=["attn.c_attn"]), "disagree: transformer.h.0.attn.c_proj is in"),
    "a half": (renamed("1.mlp.c_fc.lora_B", None), r"h.1.mlp.c_fc.lora_B.weight .* is missing"),
    "unknown layer": (
        renamed("1.mlp.c_fc.lora_B", f"{PREFIX}.9.mlp.c_fc.lora_B.weight"), "h.9.mlp.c_fc.* another one",
    ),
    "unknown tensor": (renamed("1.mlp.c_fc.lora_B", "base_model.model.wte.weight"), "holds .*model.wte"),
    "shape": (
        renamed("1.mlp.c_fc.lora_B", f"{PREFIX}.1.mlp.c_fc.lora_B.weight", (3, 64)),
        r"has the shape \[3, 64\] instead of \[64, 3\]",
    ),
    "nan": (not_finite, "not finite"),
    "cut off": (cut_off, "not a whole safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_adapters_are_one_line(folder, base, name):
    damage, message = BAD[name]
    damage(folder)
    backbone = load_pretrained(base)
    with pytest.raises(InputError, match=message) as error:
        load_adapter(backbone, folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    assert not lora_layers(backbone), "all adapters or none"
    with pytest.raises(InputError, match=message):
        read_classifier(folder)


def test_a_missing_pair_is_noticed(folder, base):
    for part in "AB":
        renamed(f"1.mlp.c_fc.lora_{part}", None)(folder)
    with pytest.raises(InputError, match=r"disagree: transformer.h.1.mlp.c_fc is in target_modules alone"):
        load_adapter(load_pretrained(base), folder)


def test_a_layer_under_two_names(folder, base):
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = f"{PREFIX}.1.mlp.c_fc.lora_B.weight"
    save_file(tensors | {name.replace("transformer.", ""): tensors[name].clone()}, file)
    with pytest.raises(InputError, match=r"h.1.mlp.c_fc twice"):
        load_adapter(load_pretrained(base), folder)


def test_an_empty_file(folder, base):
    save_file({"base_model.model.score.weight": torch.ones(2, 16)}, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match="holds no adapter"):
        load_adapter(load_pretrained(base), folder)


def test_two_heads(folder):
    file = folder / "adapter_model.safetensors"
    save_file(load_file(file) | {"base_model.model.score.weight": torch.ones(2, 16)}, file)
    with pytest.raises(InputError, match="two heads"):
        read_classifier(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("trained", "last_block", "trained 'last_block', which is not lora"),
        ("tensors", "all", "trained 'lora', which is not head"),
        ("base", None, "base None"),
    ],
)
def test_a_description_that_contradicts_the_files(folder, key, value, message):
    file = folder / "classifier.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(InputError, match=message):
        read_classifier(folder)
