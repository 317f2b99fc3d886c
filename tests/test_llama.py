"""The Llama family against ``transformers``: same weights, same logits, same tokens, whatever the shape."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.random_gpt2 import random_ids
from helpers.random_llama import KINDS, oracle_of, save
from torch import Tensor, nn

from gptcls.core.batches import pad
from gptcls.core.classifier import POOLERS, Classifier
from gptcls.core.errors import InputError
from gptcls.fast.frozen import Frozen, Staged, Trained
from gptcls.fast.one_position import at
from gptcls.models.llama import Llama
from gptcls.models.pretrained import load_pretrained
from gptcls.models.sampling import generate

LENGTHS = [41, 1, 7, 30, 12]


def close(found: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def ragged() -> tuple[list[list[int]], Tensor, Tensor]:
    """Rows without the padding id 0, and the same as a padded batch."""
    generator = torch.Generator().manual_seed(2)
    rows = [torch.randint(1, 97, (length,), generator=generator).tolist() for length in LENGTHS]
    return rows, *pad(rows, pad_id=0)


@pytest.mark.parametrize("kind", KINDS)
def test_next_token_logits(kind: str, tmp_path: Path) -> None:
    oracle = oracle_of(kind)
    model = load_pretrained(save(oracle, tmp_path))
    ids = random_ids(rows=2, length=100)
    with torch.inference_mode():
        close(model.lm_logits(model(ids)), oracle(ids).logits)


@pytest.mark.parametrize(
    "kind",
    [
        "qwen2", "qwen2 window", "llama", "llama3", "mistral", "qwen3 window", "qwen3 yarn", "smollm3",
        "phi3 window",
    ],
)  # fmt: skip
def test_sequence_classification_of_ragged_batches(kind: str, tmp_path: Path, caplog) -> None:
    oracle = oracle_of(kind, "ForSequenceClassification", num_labels=3)
    with caplog.at_level("INFO", "gptcls"):
        model = Classifier(load_pretrained(save(oracle, tmp_path)), 3).eval()
    assert "left out, as heads for another purpose: score.weight" in caplog.text
    _, ids, lengths = ragged()
    with torch.inference_mode():
        model.head.weight.copy_(oracle.score.weight)
        model.head.bias.zero_()
        expected = oracle(ids, attention_mask=(ids != 0).long()).logits
        close(model(ids, lengths), expected)
        close(Staged(model)(ids, lengths), expected)
        wide, _ = pad(ids.tolist(), 60, pad_id=5)
        close(model(wide, lengths), expected)  # more padding, of another token, changes nothing


@pytest.mark.parametrize("kind", ["qwen2 tied", "llama3", "mistral"])
def test_greedy_tokens(kind: str, tmp_path: Path) -> None:
    oracle = oracle_of(kind)
    model = load_pretrained(save(oracle, tmp_path))
    ids = random_ids(rows=2, length=6)
    wanted = oracle.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    assert torch.equal(generate(model, ids, 20), wanted)


def test_greedy_tokens_with_several_ends(tmp_path: Path) -> None:
    oracle = oracle_of("llama")
    model = load_pretrained(save(oracle, tmp_path))
    ids = random_ids(rows=3, length=6)
    free = generate(model, ids, 12)
    ends = [free[0, 8].item(), free[1, 11].item()]
    wanted = oracle.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
        eos_token_id=ends, pad_token_id=ends[0],
    )  # fmt: skip
    assert not torch.equal(free[:, : wanted.shape[1]], wanted)
    assert torch.equal(generate(model, ids, 12, eos_id=ends), wanted)


def test_the_window_and_the_rotation_matter(tmp_path: Path) -> None:
    """Else the tests above could not tell whether they are there."""
    model = load_pretrained(save(oracle_of("mistral"), tmp_path))
    ids = random_ids(rows=1, length=40)
    with torch.inference_mode():
        hidden = model(ids)
        for changed in ({"window": 10}, {"window": None}, {"rope_theta": 1000.0}, {"rope_factor": 4.0}):
            other = Llama(replace(model.config, **changed)).eval()
            other.load_state_dict(model.state_dict())
            assert (other(ids) - hidden).abs().max() > 1e-2, changed


def test_rotation_depends_on_the_distance_alone() -> None:
    """The point of rotary positions: q and k turned by m and n meet as if turned by m - n and 0."""
    from gptcls.models.rotary import Rotation, rotary_table, rotate

    cos, sin = rotary_table(Rotation(head_dim=8), 64, torch.device("cpu"))
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = (rotate(x.expand(64, 8), cos, sin) for x in (q, k))
    products = turned_q @ turned_k.T
    for distance in (0, 3, 17):
        diagonal = products.diagonal(-distance)
        close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[0].std() > 0.1


# The fast path


@pytest.mark.parametrize(
    "kind", ["qwen2 window", "llama biases", "llama yarn", "mistral", "qwen3", "smollm3"]
)
@pytest.mark.parametrize("pooling", POOLERS)
@pytest.mark.parametrize("depth", [0, 2, 3])
def test_two_stages_are_the_whole(kind: str, pooling: str, depth: int, tmp_path: Path) -> None:
    model = Classifier(load_pretrained(save(oracle_of(kind), tmp_path)), 2, pooling).eval()
    _, ids, lengths = ragged()
    with torch.no_grad():
        fast = Trained(model, depth)(Frozen(model, depth)(ids, lengths), lengths)
        close(fast, model(ids, lengths), atol=1e-5)


def test_a_block_at_one_position_has_the_same_gradients(tmp_path: Path) -> None:
    model = load_pretrained(save(oracle_of("qwen2 window"), tmp_path))
    x = torch.randn(3, 20, 48, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([19, 4, 0])
    block = model.blocks[-1]

    def gradients(pooled: Tensor) -> dict[str, Tensor]:
        return dict(
            zip(
                dict(block.named_parameters()),
                torch.autograd.grad(pooled.square().sum(), [*block.parameters()]),
                strict=True,
            )
        )

    expected = gradients(block(x)[torch.arange(3), positions])
    for name, grad in gradients(at(block, x, positions)).items():
        assert grad.abs().max() > 0, name
        close(grad, expected[name], atol=1e-4 * expected[name].abs().max().item())


# Number formats


def narrow(kind: str, folder: Path) -> nn.Module:
    """A checkpoint in bf16, loaded as such."""
    model = load_pretrained(save(oracle_of(kind).bfloat16(), folder), torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    return model


@pytest.mark.parametrize("policy", ["head", "last_block", "last_2", "all"])
def test_what_trains_is_fp32_and_the_rest_stays_as_it_is(policy: str, tmp_path: Path) -> None:
    backbone = narrow("qwen2", tmp_path)
    addresses = {name: p.data_ptr() for name, p in backbone.named_parameters()}
    model = Classifier(backbone, 2)
    model.freeze(policy)
    trained = model.trained_parameters()
    assert {p.dtype for p in trained.values()} == {torch.float32}
    for name, p in backbone.named_parameters():
        if f"backbone.{name}" not in trained:
            assert (p.dtype, p.data_ptr()) == (torch.bfloat16, addresses[name])
    _, ids, lengths = ragged()
    depth = model.frozen_blocks
    lower = Frozen(model, depth, torch.bfloat16)
    assert all(mine is theirs for mine, theirs in zip(lower.blocks, backbone.blocks, strict=False))
    plain = model(ids, lengths)
    plain.sum().backward()
    assert all(p.grad is not None for p in trained.values())
    with torch.no_grad():
        assert lower(ids, lengths).dtype == lower.out_dtype
        fast = Trained(model, depth)(lower(ids, lengths), lengths)
        staged = Staged(model, torch.bfloat16)(ids, lengths)
        wide = Classifier(load_pretrained(tmp_path), 2).eval()
        wide.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
        reference = wide(ids, lengths)
    for found in (plain, fast, staged):  # bf16 has 8 bits
        assert found.dtype == torch.float32
        close(found, reference, atol=0.06 * reference.abs().max().item())


def test_blocks_in_another_format_are_copied(tmp_path: Path) -> None:
    model = Classifier(load_pretrained(save(oracle_of("qwen2"), tmp_path)), 2).eval()
    _, ids, lengths = ragged()
    lower = Frozen(model, 2, torch.bfloat16)
    assert {parameter.dtype for parameter in lower.blocks.parameters()} == {torch.bfloat16}
    assert lower(ids, lengths).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_bf16_is_as_near_to_fp32_as_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = narrow("llama3", tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    exact = load_pretrained(tmp_path)
    ids = random_ids(rows=4, length=50)
    with torch.inference_mode():
        reference = exact.lm_logits(exact(ids))
        ours = (model.lm_logits(model(ids)).float() - reference).square().mean().sqrt()
        others = (theirs(ids).logits.float() - reference).square().mean().sqrt()
    assert 0 < ours < 1.2 * others


# Bad input


def test_a_sequence_longer_than_the_positions(tmp_path: Path) -> None:
    model = load_pretrained(save(oracle_of("llama"), tmp_path))
    assert model(random_ids(rows=1, length=128)).shape == (1, 128, 48)
    with pytest.raises(ValueError, match="129 tokens do not fit the 128 positions"):
        model(random_ids(rows=1, length=129))


def test_without_a_language_model_head_nothing_is_generated(tmp_path: Path, caplog) -> None:
    model = load_pretrained(save(oracle_of("mistral", "ForSequenceClassification"), tmp_path))
    with pytest.raises(InputError, match="no language-model head"):
        generate(model, random_ids(rows=1), 3)


@pytest.mark.parametrize("changed", [{"n_kv_head": 4}, {"n_kv_head": 12}, {"head_dim": 7}])
def test_sizes_that_fit_no_network(changed: dict, tmp_path: Path) -> None:
    model = load_pretrained(save(oracle_of("llama"), tmp_path))
    with pytest.raises(ValueError, match=next(iter(changed))):
        replace(model.config, **changed)
