"""Continuing a text: the sampler by itself, then the command."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.random_gpt2 import TINY, transformers_gpt2
from torch import Tensor, nn

from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.generate import GenerateConfig, generate_text
from gptcls.models.sampling import generate


class Fixed(nn.Module):
    """A backbone that always gives the same logits and notes how long the sequences were that it saw."""

    def __init__(self, logits: list[float], n_positions: int = 4) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)
        self.config = SimpleNamespace(n_positions=n_positions)
        self.seen: list[int] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.seen.append(ids.shape[1])
        return torch.zeros(*ids.shape, 1)

    def lm_logits(self, hidden: Tensor) -> Tensor:
        return self.logits.expand(*hidden.shape[:2], -1)


def test_greedy_takes_the_likeliest_and_sees_no_more_than_the_positions() -> None:
    model = Fixed([0.0, 2.0, 1.0])
    ids = generate(model, torch.tensor([[0, 0]]), 5)
    assert ids.tolist() == [[0, 0, 1, 1, 1, 1, 1]]
    assert model.seen == [2, 3, 4, 4, 4]


def test_past_the_positions_the_oracle_continues_the_same_way() -> None:
    oracle = transformers_gpt2()
    model = GPT2(GPT2Config(**TINY)).eval()
    from gptcls.models.gpt2_files import convert

    model.load_state_dict(convert(oracle.state_dict()))
    ids = torch.randint(97, (1, TINY["n_positions"]), generator=torch.Generator().manual_seed(3))
    ours = generate(model, ids, 6)
    for step in range(6):
        window = ours[:, step : TINY["n_positions"] + step]
        with torch.inference_mode():
            assert oracle(window).logits[0, -1].argmax() == ours[0, TINY["n_positions"] + step]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (2.0, None), (0.5, 2), (1.0, 3), (1.0, 9)])
def test_sampled_frequencies_are_the_softmax(temperature: float, top_k: int | None) -> None:
    logits = [0.0, 1.0, -1.0, 0.5]
    rows = 20_000
    ids = torch.zeros(rows, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    tokens = generate(Fixed(logits), ids, 1, temperature, top_k, generator)[:, 1]
    weights = [torch.tensor(logit / temperature).exp().item() for logit in logits]
    kept = sorted(weights)[-(top_k or 4) :]
    wanted = [weight / sum(kept) if weight in kept else 0.0 for weight in weights]
    found = (torch.bincount(tokens, minlength=4) / rows).tolist()
    assert found == pytest.approx(wanted, abs=0.015)  # four standard deviations
    assert [share > 0 for share in found] == [share > 0 for share in wanted]


def test_the_same_seed_gives_the_same_tokens() -> None:
    model, ids = Fixed([0.0, 1.0, 2.0]), torch.zeros(1, 1, dtype=torch.long)
    runs = [generate(model, ids, 20, 1.0, None, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_end_token_ends() -> None:
    assert generate(Fixed([0.0, 1.0]), torch.tensor([[0]]), 9, eos_id=1).tolist() == [[0, 1]]
    assert generate(Fixed([0.0, 1.0]), torch.tensor([[0]]), 2, eos_id=0).tolist() == [[0, 1, 1]]
    sampled = generate(
        Fixed([0.0, 0.0]),
        torch.zeros(50, 1, dtype=torch.long),
        30,
        temperature=1.0,
        generator=torch.Generator().manual_seed(0),
        eos_id=1,
    )
    for row in sampled[:, 1:].tolist():
        assert 1 in row
        assert set(row[row.index(1) :]) == {1}


@pytest.mark.parametrize("top_k", [None, 1, 2])
@pytest.mark.parametrize("temperature", [1e-3, 1e-40, 1e-300, 5e-324])
def test_the_smallest_temperatures_are_greedy(temperature: float, top_k: int | None) -> None:
    model = Fixed([-3.0, 5e3, 5e3 + 1])
    generator = torch.Generator().manual_seed(0)
    ids = generate(model, torch.zeros(3, 1, dtype=torch.long), 4, temperature, top_k, generator)
    assert (ids[:, 1:] == 2).all()


WRONG = [{"temperature": value} for value in (-1.0, float("nan"), float("inf"))]


@pytest.mark.parametrize("wrong", [*WRONG, {"max_new_tokens": -1}, {"top_k": 0}])
def test_numbers_that_mean_nothing(wrong: dict) -> None:
    with pytest.raises(InputError, match="at least"):
        generate(Fixed([0.0, 1.0]), torch.tensor([[0]]), **{"max_new_tokens": 1, **wrong})


def test_an_empty_prompt() -> None:
    with pytest.raises(InputError, match="no tokens"):
        generate(Fixed([0.0]), torch.zeros(1, 0, dtype=torch.long), 1)
    with pytest.raises(InputError, match="empty"):
        generate_text(GenerateConfig("", model="gpt2-nano"))


def test_bundled_model_writes() -> None:
    config = GenerateConfig("Every effort", max_new_tokens=3, device="cpu")
    text = generate_text(config)
    assert text.startswith("Every effort")
    assert len(text) > len("Every effort")
    assert generate_text(config) == text


@pytest.mark.parametrize("seed", [-1, 2**64, 10**23 - 1])
def test_a_seed_that_is_none(seed: int) -> None:
    with pytest.raises(InputError, match=f"--seed {seed} .* 2\\*\\*64"):
        generate_text(GenerateConfig("x", model="gpt2-nano", seed=seed))


def test_a_model_with_another_vocabulary(tmp_path: Path) -> None:
    transformers_gpt2().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="vocabulary of 97 tokens"):
        generate_text(GenerateConfig("x", model=str(tmp_path)))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "gptcls.generate", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_command() -> None:
    done = command(
        "--model", "gpt2-nano", "Every effort moves you", "--max-new-tokens", "2", "--device", "cpu"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Every effort moves you")
    assert done.stderr == ""


@pytest.mark.slow
def test_command_with_a_mistake() -> None:
    done = command("--model", "gpt2-smal", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "did you mean gpt2-small?" in done.stderr
