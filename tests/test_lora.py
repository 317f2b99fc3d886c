"""LoRA layers against PEFT, the book and the formula; and that nothing which reads a weight misses them."""

import math
from contextlib import suppress
from copy import deepcopy

import pytest
import torch
from helpers.tiny import CPU, ROWS, tiny_classifier, tiny_lora, tiny_task
from torch import nn

from gptcls.core.answer import dataset_logits
from gptcls.core.batches import TextDataset, pad
from gptcls.core.classifier import POOLERS, Classifier
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.loop import decay_groups
from gptcls.fast.frozen import Frozen, Staged, Trained
from gptcls.fast.fused import FusedBlock, can_fuse
from gptcls.fast.one_position import at
from gptcls.models.lora import (
    LoRAConfig,
    LoRAEmbedding,
    LoRALinear,
    adapt,
    add_lora,
    learn_adapters,
    lora_layers,
    merge,
    merged,
    plus_groups,
    unmerge,
)

IDS = [[5, 6, 7, 8, 9, 10], [11], [3, 4], [50000, 1, 2, 3]]


def logits(model):
    with torch.no_grad():
        return model(*pad(IDS, pad_to=9))


def bits(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_bits(one, two):
    return one.keys() == two.keys() and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_the_formula():
    torch.manual_seed(0)
    base = nn.Linear(8, 6)
    layer = LoRALinear(base, LoRAConfig(rank=3, alpha=7.0))
    nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(5, 8)
    w, b, a, big_b = (
        p.detach().double() for p in (base.weight, base.bias, layer.lora_A.weight, layer.lora_B.weight)
    )
    expected = x.double() @ (w + 7 / 3 * big_b @ a).T + b
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.weight.double(), w + 7 / 3 * big_b @ a, atol=1e-6, rtol=1e-6)
    assert layer.bias is base.bias


@pytest.mark.parametrize("dora", [False, True])
def test_the_formula_of_a_table_is_that_of_one_hot_rows(dora):
    torch.manual_seed(0)
    table, ids = nn.Embedding(9, 6), torch.tensor([[3, 0], [8, 3]])
    layer, linear = LoRAEmbedding(table, LoRAConfig(2, 7.0, dora=dora)), nn.Linear(9, 6, bias=False)
    linear.weight = nn.Parameter(table.weight.detach().T)
    twin = LoRALinear(linear, layer.config)
    torch.testing.assert_close(layer(ids), table(ids))
    with torch.no_grad():
        for parameter, other in zip(layer.adapter(), twin.adapter(), strict=True):
            other.copy_(parameter.normal_())
    one_hot = nn.functional.one_hot(ids, 9).float()
    torch.testing.assert_close(layer(ids), twin(one_hot))
    torch.testing.assert_close(layer.weight[ids], layer(ids))
    torch.testing.assert_close(layer.weight.T, twin.weight)


def test_doras_formula():
    torch.manual_seed(0)
    base = nn.Linear(8, 6)
    with torch.no_grad():
        base.weight[2] = 0  # a row of no length
    layer = LoRALinear(base, LoRAConfig(3, 7.0, dora=True))
    x = torch.randn(5, 8)
    torch.testing.assert_close(layer(x), base(x))
    torch.testing.assert_close(layer.magnitude, base.weight.square().sum(dim=1).sqrt())
    with torch.no_grad():
        for parameter in layer.adapter():
            parameter.normal_()
    w, b, a, big_b, m = (
        p.detach().double()
        for p in (base.weight, base.bias, layer.lora_A.weight, layer.lora_B.weight, layer.magnitude)
    )
    v = w + 7 / 3 * big_b @ a
    whole = m[:, None] * v / v.square().sum(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(layer(x).double(), x.double() @ whole.T + b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layer.weight.double(), whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(layer.weight.norm(dim=1), layer.magnitude.abs()), "m is how long the rows are"


@pytest.mark.parametrize("train", [False, True])
def test_dora_with_dropout_is_pefts(train):
    """Of a layer of its own, as only there both draw the same random numbers; the gradients too."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(8, 6))
    ours = LoRALinear(deepcopy(base[0]), LoRAConfig(3, 7.0, 0.5, dora=True)).train(train)
    settings = peft.LoraConfig(r=3, lora_alpha=7, lora_dropout=0.5, use_dora=True, target_modules=["0"])
    network = peft.get_peft_model(base, settings).train(train)
    twin = network.base_model.model[0]
    pairs = [
        (ours.lora_A.weight, twin.lora_A.default.weight),
        (ours.lora_B.weight, twin.lora_B.default.weight),
        (ours.magnitude, twin.lora_magnitude_vector.default.weight),
    ]
    outputs = []
    with torch.no_grad():
        for own, other in pairs:
            other.copy_(own.normal_())
    x = torch.randn(50, 8)
    for layer in (ours, twin):
        torch.manual_seed(1)
        outputs.append(layer(x))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    for own, other in pairs:
        torch.testing.assert_close(own.grad, other.grad, atol=1e-3, rtol=1e-4)
    assert torch.equal(outputs[0], ours.eval()(x)) != train, "the dropout drops"


def test_groups_of_lora_plus_are_pefts():
    """PEFT speeds up what is no matrix as well, the head's bias, and has a rate of its own for a table: the
    paper has neither."""
    peft = pytest.importorskip("peft")
    from peft.optimizers import create_loraplus_optimizer

    model = tiny_lora(LoRAConfig(3, dora=True), ("*", "wte"))
    groups = decay_groups(model.trained_parameters().values(), 0.1)
    groups = plus_groups(groups, model.backbone, 16.0)
    ours = {
        id(p): (1e-3 * group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    assert len(ours) == sum(len(group["params"]) for group in groups) == len(model.trained_parameters())
    network = peft.get_peft_model(
        tiny_classifier().backbone, peft.LoraConfig(r=3, target_modules=["qkv", "proj", "fc"])
    )
    theirs = create_loraplus_optimizer(
        network, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1
    )
    rates = {id(p): (x["lr"], x["weight_decay"]) for x in theirs.param_groups for p in x["params"]}
    twins = dict(network.named_parameters())
    for name, layer in lora_layers(model.backbone).items():
        for part in ("lora_A", "lora_B") if name != "wte" else ():
            twin = twins[f"base_model.model.{name}.{part}.default.weight"]
            assert ours[id(getattr(layer, part).weight)] == rates[id(twin)]
    table = lora_layers(model.backbone)["wte"]
    slow = [p for layer in lora_layers(model.backbone).values() for p in (layer.magnitude,)]
    for parameter in (*table.adapter(), *slow, *model.head.parameters()):
        assert ours[id(parameter)][0] == 1e-3


def test_training_starts_at_the_pretrained_network():
    plain = tiny_classifier()
    adapted = deepcopy(plain)
    layers = add_lora(adapted.backbone, LoRAConfig(rank=16))
    assert torch.equal(logits(plain), logits(adapted))
    for layer in layers.values():
        a = layer.lora_A.weight
        # Kaiming uniform with a = sqrt(5): within sqrt(6 / ((1 + a**2) * fan_in)) = 1 / sqrt(fan_in)
        bound = 1 / math.sqrt(layer.base.in_features)
        assert 0.9 * bound < a.abs().max() <= bound
        assert a.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert not layer.lora_B.weight.any()


def test_the_books_parameter_count():
    """Appendix E: 2,666,528 of gpt2-small's 124,441,346, with the head replaced by two classes."""
    chapter = pytest.importorskip("llms_from_scratch.ch04")
    sizes = {"vocab_size": 50257, "context_length": 1024, "emb_dim": 768, "n_heads": 12, "n_layers": 12}
    with torch.device("meta"):
        model = chapter.GPTModel({**sizes, "drop_rate": 0.0, "qkv_bias": True})
        model.out_head = nn.Linear(768, 2)
        assert sum(p.numel() for p in model.parameters()) == 124_441_346
        model.requires_grad_(False)
        add_lora(model, LoRAConfig(rank=16, alpha=16.0))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2_666_528


def test_our_parameter_count_and_the_books():
    """Query, key and value are one matrix here and share one A; and the head is trained, not adapted."""
    with torch.device("meta"):
        model = Classifier(GPT2(PRESETS["gpt2-small"]), 2)
        add_lora(model.backbone, LoRAConfig(rank=16))
    learn_adapters(model)
    head = 768 * 2 + 2
    count = sum(p.numel() for p in model.trained_parameters().values())
    assert count == 12 * 16 * ((768 + 2304) + (768 + 768) + (768 + 3072) + (3072 + 768)) + head == 2_360_834
    shared_a = 12 * 16 * 2 * 768
    adapter_of_the_head = 16 * (768 + 2)
    assert count - head + shared_a + adapter_of_the_head == 2_666_528


def test_equal_to_the_books_lora():
    book = pytest.importorskip("llms_from_scratch.appendix_e")
    torch.manual_seed(1)
    ours = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Sequential(nn.Linear(6, 4)))
    theirs = deepcopy(ours)
    book.replace_linear_with_lora(theirs, rank=3, alpha=6 / 3)  # the package does not divide by the rank
    layers = add_lora(ours, LoRAConfig(rank=3, alpha=6.0))
    for name, layer in layers.items():
        twin = theirs.get_submodule(name)
        nn.init.normal_(layer.lora_B.weight)
        with torch.no_grad():
            twin.lora.A.copy_(layer.lora_A.weight.T)
            twin.lora.B.copy_(layer.lora_B.weight.T)
    x = torch.randn(5, 8)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("mlp.*",), ("layers.1.*",), ("*",)])
def test_equal_to_peft_on_another_family(targets):
    """Layers are found by name: transformers' Llama is as good as ours."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=99)
    torch.manual_seed(0)
    ours = transformers.LlamaModel(config).eval()
    theirs = deepcopy(ours)
    layers = add_lora(ours, LoRAConfig(rank=4, alpha=6.0), targets)
    theirs = peft.get_peft_model(
        theirs, peft.LoraConfig(r=4, lora_alpha=6, target_modules=list(layers))
    ).eval()
    for name, layer in layers.items():
        twin = theirs.get_submodule(f"base_model.model.{name}")
        nn.init.normal_(layer.lora_B.weight, std=0.2)
        with torch.no_grad():
            twin.lora_A.default.weight.copy_(layer.lora_A.weight)
            twin.lora_B.default.weight.copy_(layer.lora_B.weight)
    ids = torch.randint(99, (3, 7))
    with torch.no_grad():
        before = ours(ids).last_hidden_state
        torch.testing.assert_close(before, theirs(ids).last_hidden_state, atol=1e-5, rtol=0)
        merge(ours)
        after = ours(ids).last_hidden_state
        torch.testing.assert_close(after, theirs.merge_and_unload()(ids).last_hidden_state, atol=1e-5, rtol=0)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dora", [False, True])
def test_merging_and_back_exactly(dora):
    model = tiny_lora(LoRAConfig(3, 6.0, dora=dora), ("*", "wte"))
    before, expected = bits(model), logits(model)
    layers = merge(model)
    assert len(layers) == 13
    assert not lora_layers(model)
    assert bits(model).keys() == tiny_classifier().state_dict().keys()
    assert {type(block.attn.qkv) for block in model.backbone.blocks} == {nn.Linear}
    assert type(model.backbone.wte) is nn.Embedding
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)
    unmerge(model, layers)
    assert same_bits(bits(model), before)
    assert torch.equal(logits(model), expected)


def test_merged_is_undone_whatever_happens():
    model = tiny_lora()
    before = bits(model)
    with suppress(OSError), merged(model):
        assert not lora_layers(model)
        raise OSError("full disk")
    assert same_bits(bits(model), before)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("pooling", POOLERS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_two_stages_see_the_adapters(pooling, depth, dora):
    """``one_position`` and ``FusedBlock`` compute with a layer's weight and never call the layer."""
    model = tiny_lora(LoRAConfig(3, 6.0, dora=dora))
    model.pooling = pooling
    ids, lengths = pad(IDS, pad_to=9)
    expected = logits(model)
    lower = Frozen(model, depth)
    if can_fuse(model.backbone.blocks[0], torch.float32):
        assert all(isinstance(block, FusedBlock) for block in lower.blocks)
    with torch.no_grad():
        got = Trained(model, depth)(lower(ids, lengths), lengths)
    torch.testing.assert_close(got, expected, atol=5e-6, rtol=1e-5)
    merge(model)
    torch.testing.assert_close(logits(Staged(model)), expected, atol=5e-6, rtol=1e-5)
    plain = tiny_lora(LoRAConfig(3, 6.0, dora=dora))
    plain.pooling = pooling
    for layer in lora_layers(plain).values():
        nn.init.zeros_(layer.lora_B.weight)
        if dora:
            nn.init.constant_(layer.magnitude, layer.base.weight.norm(dim=1).mean().item())
    assert (logits(plain) - expected).abs().max() > 1e-2, "adapters that change nothing would prove nothing"


def test_bf16_copies_see_the_adapters():
    model = tiny_lora()
    expected = logits(model)
    got = logits(Staged(model, torch.bfloat16))
    torch.testing.assert_close(got, expected, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("pooling", POOLERS)
def test_gradients_at_one_position_are_those_of_the_plain_forward(pooling, dora):
    ids, lengths = pad(IDS)
    grads = []
    for fast in (False, True):
        model = tiny_lora(LoRAConfig(3, 6.0, dora=dora), targets=("blocks.2.*",))
        model.pooling = pooling
        output = Trained(model, 2)(Frozen(model, 2)(ids, lengths), lengths) if fast else model(ids, lengths)
        output.square().sum().backward()
        grads.append({name: p.grad for name, p in model.trained_parameters().items()})
    assert len(grads[0]) == (3 if dora else 2) * 4 + 2
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4, msg=name)


def test_dropout_is_not_left_out_at_one_position():
    """An effective weight has no inputs to drop: the plain block takes over while training."""
    model = tiny_lora(LoRAConfig(3, 6.0, dropout=0.5))
    ids, lengths = pad(IDS)
    hidden = model.backbone.embed(ids).detach()
    block = model.backbone.blocks[2]
    rows = torch.arange(4)
    torch.testing.assert_close(at(block, hidden, lengths - 1), block(hidden)[rows, lengths - 1])
    block.train()
    outputs = []
    for call in (lambda: at(block, hidden, lengths - 1), lambda: block(hidden)[rows, lengths - 1]):
        torch.manual_seed(0)
        outputs.append(call())
    assert torch.equal(*outputs)
    assert (block(hidden) - block(hidden)).abs().max() > 1e-3, "the dropout drops"


def test_scores_of_a_dataset_are_those_of_the_plain_forward():
    model = tiny_lora()
    data = TextDataset([text for text, _ in ROWS], tiny_task().targets([label for _, label in ROWS]), 64)
    expected = dataset_logits(model, data, CPU)
    torch.testing.assert_close(dataset_logits(Staged(model), data, CPU), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("*",), 12),
        (("qkv",), 3),
        (("proj",), 6),
        (("attn.proj",), 3),
        (("mlp.*", "qkv"), 9),
        (("blocks.1.*",), 4),
        (("blocks.[01].mlp.fc", "blocks.2.attn.qkv"), 3),
        (("qkv", "attn.qkv"), 3),
    ],
)
def test_patterns(targets, expected):
    model = tiny_classifier()
    layers = add_lora(model.backbone.blocks, LoRAConfig(2), targets, prefix="blocks")
    assert len(layers) == expected
    for name, layer in layers.items():
        assert model.backbone.get_submodule(name) is layer
    assert lora_layers(model.backbone).keys() == layers.keys()


@pytest.mark.parametrize(
    ("targets", "n", "frozen"),
    [
        (("*",), 12, 0),
        (("*", "wte"), 13, 0),
        (("wte",), 1, 0),
        (("blocks.2.*", "wte"), 5, 0),
        (("blocks.2.*",), 4, 2),
    ],
)
def test_the_token_table_is_a_target_by_its_name_alone(targets, n, frozen):
    model = tiny_classifier()
    layers = adapt(model.backbone, LoRAConfig(2), targets)
    learn_adapters(model)
    assert len(layers) == n
    assert (type(model.backbone.wte) is LoRAEmbedding) == ("wte" in layers) == ("wte" in targets)
    assert model.frozen_blocks == frozen, "what is below the blocks trains, so nothing is computed once"
    trained = model.trained_parameters()
    assert len(trained) == 2 * n + 2
    assert {name for name in trained if "wte" in name} == {
        f"backbone.wte.lora_{part}.weight" for part in ("A", "B") if "wte" in targets
    }
    ids, lengths = pad(IDS)
    nn.init.normal_(next(iter(layers.values())).lora_B.weight)
    model(ids, lengths).sum().backward()
    assert all(parameter.grad is not None for parameter in trained.values())


def test_what_has_no_table_of_that_name_is_said():
    backbone = tiny_classifier().backbone
    backbone.wte = nn.Linear(3, 3)
    with pytest.raises(InputError, match="--lora-targets wte: this network has no token table"):
        adapt(backbone, LoRAConfig(2), ("*", "wte"))
    assert not lora_layers(backbone)
    with pytest.raises(InputError, match=r"--lora-rank 17 .* at most 16"):
        adapt(tiny_classifier().backbone, LoRAConfig(17), ("wte",))


@pytest.mark.parametrize("pattern", ["q_proj", "roj", "blocks.3.*", "", "wpe", "QKV"])
def test_a_pattern_without_a_layer_is_named(pattern):
    model = tiny_classifier()
    with pytest.raises(InputError, match="no linear layer") as error:
        adapt(model.backbone, LoRAConfig(2), ("qkv", "wte", pattern))
    assert repr(pattern) in str(error.value)
    assert "blocks.*.attn.qkv, blocks.*.attn.proj, blocks.*.mlp.fc, blocks.*.mlp.proj" in str(error.value)
    assert not lora_layers(model), "nothing was wrapped"


def test_a_rank_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"--lora-rank 17 .* at most 16"):
        add_lora(tiny_classifier().backbone, LoRAConfig(17))
    add_lora(tiny_classifier().backbone, LoRAConfig(16))


def test_adapters_are_not_adapted():
    model = tiny_lora()
    with pytest.raises(ValueError, match="already"):
        add_lora(model.backbone, LoRAConfig(2))


def test_what_trains():
    model = tiny_lora(LoRAConfig(3, 6.0, dropout=0.5), targets=("blocks.1.attn.*", "blocks.2.mlp.fc"))
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {"head.weight", "head.bias"}
    for layer in ("1.attn.qkv", "1.attn.proj", "2.mlp.fc"):
        expected |= {f"backbone.blocks.{layer}.lora_{part}.weight" for part in "AB"}
    assert names == model.trained_parameters().keys() == expected
    assert model.frozen_blocks == 1
    model.train()
    assert [block.training for block in model.backbone.blocks] == [False, True, True]
    assert model.backbone.blocks[1].attn.qkv.dropout.training
    assert not model.eval().backbone.blocks[1].attn.qkv.dropout.training


@pytest.mark.parametrize(("policy", "frozen"), [("head", 3), ("last_block", 2), ("last_2", 1), ("all", 0)])
def test_frozen_blocks(policy, frozen):
    assert tiny_classifier(policy).frozen_blocks == frozen


def test_lora_without_adapters_trains_nothing():
    with pytest.raises(ValueError, match="add_lora"):
        learn_adapters(tiny_classifier())


def test_a_base_in_bf16_keeps_its_format():
    """Large networks are held in bf16; what is trained stays in fp32."""
    torch.manual_seed(0)
    base = nn.Linear(16, 12).bfloat16()
    layer = LoRALinear(base, LoRAConfig(4, 8.0))
    nn.init.normal_(layer.lora_B.weight)
    x = torch.randn(5, 16).bfloat16()
    assert layer(x).dtype == layer.weight.dtype == torch.bfloat16
    assert layer.lora_A.weight.dtype == layer.lora_B.weight.dtype == torch.float32
    exact = base.weight.float() + 2 * layer.lora_B.weight @ layer.lora_A.weight
    assert torch.equal(layer.weight, exact.bfloat16()), "rounded once"
    layer(x).sum().backward()
    assert layer.lora_A.weight.grad.dtype == torch.float32
    assert base.weight.grad is None
