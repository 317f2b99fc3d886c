"""BERT and RoBERTa against ``transformers``: same weights, same logits, however much padding there is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.random_bert import KINDS, oracle_of, ragged, told, wordpiece
from helpers.random_gpt2 import random_ids
from helpers.random_llama import save
from helpers.tiny import CPU
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gptcls.common.hardware import pick_dtype
from gptcls.core.batches import pad
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.fast.features import FeatureCache
from gptcls.fast.frozen import Frozen, Staged, Trained
from gptcls.fast.one_position import at
from gptcls.models.bert import Bert
from gptcls.models.deberta import DebertaConfig, Distances
from gptcls.models.families import FAMILIES, family_name, poolings_of
from gptcls.models.pretrained import load_pretrained, load_tokenizer
from gptcls.models.sampling import generate


def close(found: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def last_layer(oracle: nn.Module) -> nn.Linear:
    """The layer of a classifier of ``transformers`` that has as many outputs as there are classes."""
    return getattr(oracle.classifier, "out_proj", oracle.classifier)


@pytest.mark.parametrize("kind", KINDS)
def test_sequence_classification_of_ragged_batches(kind: str, tmp_path: Path) -> None:
    oracle = oracle_of(kind, num_labels=3)
    model = Classifier(load_pretrained(save(oracle, tmp_path)), 3, "first").eval()
    _, ids, lengths = ragged()
    with torch.inference_mode():
        model.head.load_state_dict(last_layer(oracle).state_dict())
        expected = oracle(**told(oracle, lengths, ids)).logits
        assert expected.std() > 0.1
        close(model(ids, lengths), expected)
        close(Staged(model)(ids, lengths), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_vectors_of_a_masked_language_model(kind: str, tmp_path: Path) -> None:
    """Such a checkpoint has no pooler: what comes out is what the last block leaves."""
    oracle = oracle_of(kind, "ForMaskedLM")
    model = load_pretrained(save(oracle, tmp_path))
    if kind.startswith("modernbert"):  # its head for masked words is what it puts before a classifier
        assert model.config.pooler
        model.drop_pooler()
    assert not model.config.pooler
    assert model.config.n_positions == 66 - KINDS[kind][2]
    _, ids, lengths = ragged()
    with torch.inference_mode():
        expected = oracle.base_model(**told(oracle, lengths, ids)).last_hidden_state
        for found, wanted, length in zip(model(ids, lengths), expected, lengths, strict=True):
            close(found[:length], wanted[:length])
        rows = ids[:1]
        close(model(rows), oracle.base_model(rows).last_hidden_state)  # no lengths: all tokens are real


@pytest.mark.parametrize("head", ["Model", "ForPreTraining", "ForSequenceClassification"])
def test_berts_pooler_is_used_where_there_is_one(head: str, tmp_path: Path) -> None:
    oracle = oracle_of("bert", head)
    model = load_pretrained(save(oracle, tmp_path))
    assert model.config.pooler
    _, ids, lengths = ragged()
    with torch.inference_mode():
        wanted = oracle.base_model(**told(oracle, lengths, ids)).pooler_output
        close(model(ids, lengths)[:, 0], wanted)


def test_the_pooler_can_be_left_out(tmp_path: Path) -> None:
    oracle = oracle_of("ernie with tasks")
    model = load_pretrained(save(oracle, tmp_path))
    model.drop_pooler()
    _, ids, lengths = ragged()
    with torch.inference_mode():
        wanted = oracle.base_model(**told(oracle, lengths, ids)).last_hidden_state
        for found, expected, length in zip(model(ids, lengths), wanted, lengths, strict=True):
            close(found[:length], expected[:length])
    again = Bert(model.config)  # as a saved classifier is read
    assert again.state_dict().keys() == model.state_dict().keys()


def test_mean_vectors_are_not_the_poolers(tmp_path: Path) -> None:
    oracle, texts = oracle_of("bert", "Model"), ["a man sleeps", "he is awake in the park", "no"]
    save(oracle, tmp_path)
    ours, atol = wordpiece(texts, tmp_path, 97), 1e-4 if pick_dtype("auto", CPU) == torch.float32 else 0.1
    found = FeatureCache().mean_vectors(load_pretrained(tmp_path), texts, 60, load_tokenizer(tmp_path), CPU)
    with torch.inference_mode():
        for text, vector in zip(texts, found, strict=True):
            hidden = oracle(torch.tensor([ours.encode(text).ids])).last_hidden_state[0]
            close(torch.from_numpy(vector), hidden.mean(dim=0), atol)


def test_ernies_tasks_where_the_table_is_missing(tmp_path: Path) -> None:
    declare(save(oracle_of("ernie"), tmp_path), use_task_id=True)
    with pytest.raises(InputError, match=r"use_task_id True, and .*task_type_embeddings\.weight is missing"):
        load_pretrained(tmp_path)


def test_robertas_pooler_which_nobody_trained_is_not_used(tmp_path: Path, caplog) -> None:
    oracle = oracle_of("roberta", "Model")
    with caplog.at_level("INFO", "gptcls"):
        model = load_pretrained(save(oracle, tmp_path))
    assert "left out, as heads for another purpose: pooler.dense.bias, pooler.dense.weight" in caplog.text
    ids = random_ids(rows=2, length=9).clamp(min=5)
    with torch.inference_mode():
        close(model(ids), oracle(ids).last_hidden_state)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert", "modernbert", "deberta"])
def test_padding_changes_no_prediction(kind: str, tmp_path: Path) -> None:
    backbone = load_pretrained(save(oracle_of(kind), tmp_path))
    rows, ids, lengths = ragged()
    wide, _ = pad(rows, 60, pad_id=7)
    for pooling in poolings_of(FAMILIES[family_name(backbone)]):
        model = Classifier(backbone, 3, pooling).eval()
        for network in (model, Staged(model)):
            with torch.inference_mode():
                alone = torch.cat([network(torch.tensor([row]), torch.tensor([len(row)])) for row in rows])
                close(network(ids, lengths), alone, atol=1e-5)
                close(network(wide, lengths), alone, atol=1e-5)
    with torch.inference_mode():  # the mask is what does it
        assert (backbone(wide)[:, 0] - backbone(wide, lengths)[:, 0]).abs().max() > 0.01


def test_positions_and_segments_matter(tmp_path: Path) -> None:
    """Else the tests above could not tell whether they are there."""
    model = load_pretrained(save(oracle_of("bert"), tmp_path))
    ids = random_ids(rows=1, length=20)
    with torch.inference_mode():
        hidden = model(ids)
        for change in (
            lambda other: other.wpe.weight.copy_(other.wpe.weight.roll(1, 0)),
            lambda other: other.wse.weight.copy_(other.wse.weight.flip(0)),
            lambda other: setattr(other, "norm", nn.Identity()),
        ):
            other = Bert(model.config).eval()
            other.load_state_dict(model.state_dict())
            change(other)
            assert (other(ids) - hidden).abs().max() > 1e-2


@pytest.mark.parametrize(("n", "farthest"), [(256, 512), (8, 66), (12, 40), (128, 1000)])
def test_debertas_distances(n: int, farthest: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "n_inner": 8, "n_positions": 66, "vocab_size": 9}
    distances = Distances(DebertaConfig(**sizes, n_distances=n, farthest=farthest))
    tokens = torch.arange(-2 * farthest, 2 * farthest)
    wanted = make_log_bucket_position(tokens, n, farthest).long() + n
    assert torch.equal(distances.rows(tokens), wanted.clamp(0, 2 * n - 1))


@pytest.mark.parametrize(
    ("declared", "named"),
    [
        ({"position_biased_input": True}, "position_biased_input True"),
        ({"conv_kernel_size": 3}, "conv_kernel_size 3"),
        ({"pos_att_type": "c2p"}, "pos_att_type 'c2p'"),
        ({"share_att_key": False}, "share_att_key False"),
        ({"position_buckets": 200}, "200 distances do not reach 66 tokens"),
    ],
)
def test_debertas_that_are_not_the_third(declared: dict, named: str, tmp_path: Path) -> None:
    declare(save(oracle_of("deberta"), tmp_path), **declared)
    with pytest.raises(InputError, match=named):
        load_pretrained(tmp_path)


# The fast path


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert", "modernbert", "deberta"])
@pytest.mark.parametrize("pooling", ["first", "last", "mean", "max"])
@pytest.mark.parametrize("depth", [0, 2, 3])
def test_two_stages_are_the_whole(kind: str, pooling: str, depth: int, tmp_path: Path) -> None:
    model = Classifier(load_pretrained(save(oracle_of(kind), tmp_path)), 2, pooling).eval()
    _, ids, lengths = ragged()
    with torch.no_grad():
        fast = Trained(model, depth)(Frozen(model, depth)(ids, lengths), lengths)
        close(fast, model(ids, lengths), atol=1e-5)


def test_a_block_at_one_position_has_the_same_gradients(tmp_path: Path) -> None:
    block = load_pretrained(save(oracle_of("bert"), tmp_path)).blocks[-1]
    x = torch.randn(3, 20, 48, generator=torch.Generator().manual_seed(0))
    lengths, positions = torch.tensor([20, 5, 1]), torch.tensor([0, 4, 0])
    parameters = dict(block.named_parameters())

    def gradients(pooled: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(pooled.square().sum(), [*parameters.values()])
        return dict(zip(parameters, found, strict=True))

    expected = gradients(block(x, lengths)[torch.arange(3), positions])
    for name, grad in gradients(at(block, x, positions, lengths)).items():
        # A key's bias adds the same to all scores of a query, which the softmax does not see.
        assert name == "attn.k.bias" or grad.abs().max() > 1e-4, name
        close(grad, expected[name], atol=1e-4 * max(1, expected[name].abs().max().item()))


def test_lower_blocks_in_bf16(tmp_path: Path) -> None:
    model = Classifier(load_pretrained(save(oracle_of("bert"), tmp_path)), 2, "first").eval()
    _, ids, lengths = ragged()
    with torch.inference_mode():
        exact, narrow = model(ids, lengths), Staged(model, torch.bfloat16)(ids, lengths)
    assert 0 < (narrow - exact).abs().max() < 0.05 * exact.abs().max()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("policy", ["head", "last_block", "last_2", "all"])
def test_what_trains_and_where_dropout_acts(policy: str, tmp_path: Path) -> None:
    """As config.json says, and in the trained blocks alone."""
    dropout = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}
    backbone = load_pretrained(save(oracle_of("bert", **dropout), tmp_path))
    assert (backbone.config.dropout, backbone.config.attn_dropout) == (0.3, 0.2)
    model = Classifier(backbone, 2, "first")
    model.freeze(policy)
    trained = {name.split(".")[1] for name in model.trained_parameters() if name.startswith("backbone")}
    n_blocks = {"head": 0, "last_block": 1, "last_2": 2, "all": 3}[policy]
    everything = {"wte", "wpe", "wse", "embed_norm", "blocks", "norm"}
    assert trained == ({"blocks", "norm"} if 0 < n_blocks < 3 else everything if n_blocks else set())
    _, ids, lengths = ragged()
    model.train()
    assert [block.drop.training for block in backbone.blocks] == [i >= 3 - n_blocks for i in range(3)]
    plain = [model(ids, lengths) for _ in range(2)]
    assert torch.equal(*plain) == (policy == "head")
    if 0 < n_blocks < 3:
        lower, upper = Frozen(model, 3 - n_blocks), Trained(model, 3 - n_blocks).train()
        hidden = lower(ids, lengths)
        assert torch.equal(hidden, lower(ids, lengths))
        assert not torch.equal(upper(hidden, lengths), upper(hidden, lengths))
    plain[0].sum().backward()
    read = {name for name, p in model.trained_parameters().items() if p.grad is not None}
    assert read == model.trained_parameters().keys()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_dropout_is_that_of_transformers(kind: str, tmp_path: Path) -> None:
    """Drawn in the same places and order, the same seed drops the same."""
    dropout = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
    oracle = oracle_of(kind, "ForMaskedLM", **dropout)
    model = load_pretrained(save(oracle, tmp_path)).train()
    _, ids, lengths = ragged()
    torch.manual_seed(5)
    found = model(ids, lengths)
    torch.manual_seed(5)
    expected = oracle.base_model.train()(**told(oracle, lengths, ids)).last_hidden_state
    close(found[:, 0], expected[:, 0])
    block, x = model.blocks[-1], found.detach()
    pooled = [at(block, x, lengths - 1, lengths) for _ in range(2)]
    assert not torch.equal(*pooled)


# Files


def rewrite(folder: Path, change: Any) -> None:
    """The checkpoint in ``folder`` with ``change(tensors)`` in the place of its tensors."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file)


def declare(folder: Path, **changes: Any) -> None:
    """The checkpoint in ``folder`` with other entries in its config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_names_of_files_that_came_from_tensorflow(tmp_path: Path) -> None:
    """google-bert/bert-base-uncased on the hub still has them, and buffers beside the weights."""
    model = load_pretrained(save(oracle_of("bert"), tmp_path / "new"))

    def old(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for name in [name for name in tensors if "LayerNorm" in name]:
            tensors[name.replace(".weight", ".gamma").replace(".bias", ".beta")] = tensors.pop(name)
        return tensors | {"bert.embeddings.position_ids": torch.arange(66)[None]}

    save(oracle_of("bert"), tmp_path / "old")
    rewrite(tmp_path / "old", old)
    assert any(name.endswith("gamma") for name in load_file(tmp_path / "old" / "model.safetensors"))
    found = load_pretrained(tmp_path / "old")
    assert found.config == model.config
    for name, value in found.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


@pytest.mark.parametrize(
    ("kind", "head", "dropped"),
    [
        ("bert", "ForMaskedLM", "cls.predictions.bias, cls.predictions.transform.LayerNorm.bias"),
        ("bert", "ForPreTraining", " and 4 more"),
        ("bert", "ForTokenClassification", "classifier.bias, classifier.weight"),
        ("bert", "ForQuestionAnswering", "qa_outputs.bias, qa_outputs.weight"),
        ("bert", "ForSequenceClassification", "classifier.bias, classifier.weight"),
        ("roberta", "ForMaskedLM", "lm_head.bias, lm_head.dense.bias, lm_head.dense.weight and 2 more"),
        ("roberta", "ForSequenceClassification", "classifier.out_proj.bias, classifier.out_proj.weight"),
        ("roberta", "ForTokenClassification", "classifier.bias, classifier.weight"),
        ("distilbert", "ForMaskedLM", "vocab_layer_norm.bias, vocab_layer_norm.weight"),
        ("electra", "ForPreTraining", "discriminator_predictions.dense.bias"),
        ("electra", "ForMaskedLM", "generator_lm_head.bias, generator_predictions.LayerNorm.bias"),
        ("ernie", "ForMaskedLM", "cls.predictions.bias"),
    ],
)
def test_heads_for_another_purpose_are_left_out(kind, head, dropped, tmp_path: Path, caplog) -> None:
    save(oracle_of(kind, head), tmp_path)
    with caplog.at_level("INFO", "gptcls"):
        load_pretrained(tmp_path)
    assert "left out, as heads for another purpose: " in caplog.text
    assert dropped in caplog.text


@pytest.mark.parametrize(
    ("kind", "declared", "named"),
    [
        ("bert", {"hidden_act": "gelu_new"}, "hidden_act 'gelu_new', which is not 'gelu'"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder True"),
        ("roberta", {"add_cross_attention": True}, "add_cross_attention True"),
        ("bert", {"num_attention_heads": 5}, "n_head 5 does not divide n_embd 48"),
        ("bert", {"hidden_size": None}, "has no hidden_size"),
        (
            "bert",
            {"hidden_dropout_prob": 1},
            "hidden_dropout_prob 1, which is not a number from 0 to below 1",
        ),
        ("bert", {"quantization_config": {}}, "quantized"),
        ("bert", {"num_hidden_layers": 4}, "says num_hidden_layers 4, the tensors are of 3 blocks"),
        ("bert", {"num_hidden_layers": 2**20}, "says num_hidden_layers 1048576, the tensors are of 3 blocks"),
        ("bert", {"num_hidden_layers": 2**31}, "2147483648, which is not a whole number from 1 to 1,048,576"),
        ("bert", {"hidden_size": 10**400}, r"hidden_size 10+, which is not a whole number from 1 to"),
        ("bert", {"layer_norm_eps": float("nan")}, "layer_norm_eps nan, which is not a number above 0"),
        ("roberta", {"layer_norm_eps": 10**400}, r"layer_norm_eps 10+, which is not a number above 0"),
        ("bert", {"max_position_embeddings": 64}, r"wpe\.weight .* has the shape \[66, 48\] instead of"),
        (
            "roberta",
            {"max_position_embeddings": 64},
            r"has the shape \[66, 48\], .* max_position_embeddings 64",
        ),
        ("roberta", {"pad_token_id": -1}, "pad_token_id -1, which is not a whole number from 0 to 1,048,576"),
        ("roberta", {"pad_token_id": 65}, "pad_token_id 65, which leaves none of 66 positions"),
        ("roberta", {"model_type": "albert"}, "supported are bert, .*roberta, .*xlm-roberta"),
    ],
)
def test_a_config_json_that_describes_another_network(kind, declared, named, tmp_path: Path) -> None:
    declare(save(oracle_of(kind), tmp_path), **declared)
    with pytest.raises(InputError, match=named) as error:
        load_pretrained(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("bert", {"bert.encoder.crossattention.weight": 3}, r"not part of a BERT: bert\.encoder\.cross"),
        ("bert", {"cls.seq_relationship.extra.weight": 3}, r"not part of a BERT: cls\.seq_relationship\.e"),
        ("bert", {"bert.embeddings.LayerNorm.gamma": 48}, "is there twice"),
        ("roberta", {"classifier.dense.weight": None}, "norm.dense.bias .*is not a tensor of this network"),
        (
            "roberta",
            {"classifier.dense.bias": None},
            r"norm\.dense\.bias \(classifier\.dense\.bias .* missing",
        ),
        ("roberta", {"roberta.embeddings.position_embeddings.weight": None}, r"wpe\.weight .* is missing"),
        ("roberta", {"roberta.embeddings.position_embeddings.weight": ()}, r"wpe\.weight .* shape \[\]"),
    ],
)
def test_tensors_of_another_network(kind: str, change: dict, named: str, tmp_path: Path) -> None:
    save(oracle_of(kind), tmp_path)
    gone = {name for name, size in change.items() if size is None}
    extra = {name: torch.zeros(size) for name, size in change.items() if size is not None}
    rewrite(tmp_path, lambda tensors: {k: v for k, v in tensors.items() if k not in gone} | extra)
    with pytest.raises(InputError, match=named):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_sequence_longer_than_the_positions(kind: str, tmp_path: Path) -> None:
    model = load_pretrained(save(oracle_of(kind), tmp_path))
    most = 66 - KINDS[kind][2]
    assert model(random_ids(rows=1, length=most)).shape == (1, most, 48)
    with pytest.raises(ValueError, match=f"{most + 1} tokens do not fit the {most} positions"):
        model(random_ids(rows=1, length=most + 1))


def test_an_encoder_generates_nothing(tmp_path: Path) -> None:
    model = load_pretrained(save(oracle_of("bert", "ForMaskedLM"), tmp_path))
    with pytest.raises(InputError, match="it can classify, not generate; take a decoder"):
        generate(model, random_ids(rows=1), 3)


def test_sizes_that_fit_no_network(tmp_path: Path) -> None:
    config = load_pretrained(save(oracle_of("roberta"), tmp_path)).config
    with pytest.raises(ValueError, match="n_head 5 does not divide n_embd 48"):
        replace(config, n_head=5)
