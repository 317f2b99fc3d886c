"""Continue a text: ``python -m gptcls.generate --model gpt2-small "Every effort moves you"``."""

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

import torch
import tyro

from gptcls.common.cli import run
from gptcls.common.console import say
from gptcls.common.hardware import pick_device, pick_dtype
from gptcls.common.options import HardwareOptions, own_first
from gptcls.core.errors import InputError
from gptcls.models.pretrained import load_pretrained, load_tokenizer
from gptcls.models.sampling import generate


@own_first
@dataclass(frozen=True)
class GenerateConfig(HardwareOptions):
    """Continue a text with a pretrained GPT-2 or a network of the Llama family."""

    text: tyro.conf.Positional[str] = "Every effort moves you"
    """The beginning."""
    model: str = "gpt2-nano"
    """Preset, hub name (owner/name), or local folder or file."""
    max_new_tokens: int = 15
    """How many tokens to add at most."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; higher is more random."""
    top_k: int | None = None
    """Sample among this many likeliest tokens only; with --temperature above 0."""
    seed: int = 123
    """Of the random numbers."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(default="auto", kw_only=True)
    """Number format, but for GPT-2, which is always fp32; auto takes the fastest that the processor has."""


def generate_text(config: GenerateConfig) -> str:
    """The text of ``config`` and its continuation, without the token that ends it; InputError for options
    that do not go together, and a model that cannot be read or has another vocabulary."""
    if not config.text:
        raise InputError("the text is empty: give at least one character")
    if not 0 <= config.seed < 2**64:
        raise InputError(f"--seed {config.seed} is not a seed: take a whole number from 0 to 2**64 - 1")
    if config.top_k is not None and config.temperature == 0:
        raise InputError(f"--top-k {config.top_k} chooses nothing at --temperature 0: give one above 0")
    device, tokenizer = pick_device(config.device), load_tokenizer(config.model)
    model = load_pretrained(config.model, pick_dtype(config.precision, device)).to(device)
    tokenizer.require_fit(config.model, model.config.vocab_size)
    generator = torch.Generator(device).manual_seed(config.seed)
    prompt = tokenizer.encode(config.text)
    options = (config.max_new_tokens, config.temperature, config.top_k, generator, tokenizer.eos_ids)
    ids = generate(model, torch.tensor([prompt], device=device), *options)[0].tolist()
    written = takewhile(lambda token: token not in tokenizer.eos_ids, ids[len(prompt) :])
    return tokenizer.decode([*prompt, *written])


def main() -> None:
    run(GenerateConfig, lambda config: say(generate_text(config)))


if __name__ == "__main__":
    main()
