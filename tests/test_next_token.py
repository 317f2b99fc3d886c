"""The loss of next-token prediction against torch's cross entropy, transformers, and its expectation."""

import math

import pytest
import torch
from helpers.tiny import TINY
from torch.nn import functional as F
from transformers import GPT2Config as HuggingFaceConfig
from transformers import GPT2LMHeadModel

from gptcls.core.gpt2 import GPT2
from gptcls.core.weights import GPT2_NAMES
from gptcls.pretrain.next_token import CHUNK, UNSEEN, Candidates, chances_of, next_token_loss, perplexity

N, C, V = CHUNK + 100, 8, 1000  # more than a chunk, and no multiple of it


@pytest.fixture
def case():
    torch.manual_seed(0)
    hidden = torch.randn(N, C, requires_grad=True)
    table = torch.randn(V, C, requires_grad=True)
    return hidden, table, torch.randint(0, V, (N,))


@pytest.fixture
def chances():
    """Of 100 candidates, some of them certain."""
    counts = 1e5 / torch.arange(1, V + 1, dtype=torch.float64)
    return chances_of(counts, 100)[torch.randperm(V)]


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


def test_exact_loss_and_gradients_are_torchs(case):
    hidden, table, targets = case
    mine = next_token_loss(hidden, table, targets, torch.float32)
    torchs = F.cross_entropy(hidden @ table.T, targets)
    torch.testing.assert_close(mine, torchs)
    for a, b in zip(gradients(3 * mine, hidden, table), gradients(3 * torchs, hidden, table), strict=True):
        torch.testing.assert_close(a, b)


def test_bf16_is_close(case):
    hidden, table, targets = case
    mine = next_token_loss(hidden, table, targets, torch.bfloat16)
    torch.testing.assert_close(mine, F.cross_entropy(hidden @ table.T, targets), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("number", [1, 100, 999, V, 2 * V])
def test_chances(number):
    torch.manual_seed(0)
    counts = torch.rand(V, dtype=torch.float64).pow(20) * 1e5
    chances = chances_of(counts, number)
    assert chances.sum().item() == pytest.approx(min(number, V))
    assert chances.min() > 0
    assert chances.max() <= 1
    drawn = (counts > UNSEEN) & (chances < 1)
    factors = chances[drawn] / counts[drawn] ** 0.75
    assert torch.allclose(factors, factors.mean())
    assert (counts[chances < 1] <= counts[chances == 1].min()).all() if (chances == 1).any() else True


def test_sampled_loss_is_the_formula(case, chances):
    """The target once, a token that was drawn once for each that its chance stands for; no other."""
    hidden, table, targets = case
    candidates = Candidates.draw(targets, chances)
    certain = (chances == 1).nonzero()[:, 0]
    assert len(certain)
    assert set(certain.tolist()) <= set(candidates.ids.tolist())
    weights = dict(zip(candidates.ids.tolist(), candidates.log_weight.exp().tolist(), strict=True))
    for token, weight in weights.items():
        assert weight == pytest.approx(1 / chances[token].item()) or (weight == 0 and token in targets)
    expected = []
    logits = (hidden @ table.T).double()
    for row, target in enumerate(targets.tolist()):
        counted = {token: weights.get(token, 0.0) for token in range(V)} | {target: 1.0}
        weight = torch.tensor([counted[token] for token in range(V)], dtype=torch.float64)
        expected.append((weight * logits[row].exp()).sum().log() - logits[row, target])
    mine = next_token_loss(hidden, table, targets, torch.float32, candidates)
    torch.testing.assert_close(mine.double(), torch.stack(expected).mean(), rtol=1e-5, atol=1e-5)


def test_sampled_sum_has_the_right_expectation(chances):
    """Over many draws the sum below the fraction is that of the exact softmax."""
    torch.manual_seed(1)
    logits, targets = torch.randn(V), torch.tensor([3])
    sums = []
    for _ in range(400):
        candidates = Candidates.draw(targets, chances)
        sums.append((logits[candidates.ids].exp() * candidates.log_weight.exp()).sum().item())
    error = torch.tensor(sums).std().item() / math.sqrt(len(sums))
    assert abs(sum(sums) / len(sums) - logits.exp().sum().item()) < 4 * error


def test_gradient_reaches_candidates_only(case, chances):
    hidden, table, targets = case
    candidates = Candidates.draw(targets, chances)
    _, d_table = gradients(next_token_loss(hidden, table, targets, torch.float32, candidates), hidden, table)
    touched = d_table.abs().sum(dim=1).nonzero()[:, 0]
    assert set(touched.tolist()) == set(candidates.ids.tolist())


def test_perplexity_is_that_of_transformers():
    torch.manual_seed(2)
    model = GPT2(TINY).eval()
    oracle = GPT2LMHeadModel(
        HuggingFaceConfig(n_layer=TINY.n_layer, n_embd=TINY.n_embd, n_head=TINY.n_head, n_positions=64)
    ).eval()
    oracle.load_state_dict(GPT2_NAMES.to_theirs(model.state_dict()), strict=False)
    oracle.tie_weights()
    windows = torch.randint(0, 50257, (5, 33))
    with torch.no_grad():
        loss = oracle(input_ids=windows, labels=windows).loss.item()
    assert perplexity(model, windows, batch_size=2) == pytest.approx(math.exp(loss), rel=1e-4)
    model.wte.weight.data *= 1e6
    assert perplexity(model, windows) == math.inf
