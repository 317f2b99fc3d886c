"""Continue a text: ``python -m gptcls.generate --model gpt2-small "Every effort moves you"``."""

from dataclasses import dataclass

import torch
import tyro

from gptcls.cli import run
from gptcls.device import pick_device
from gptcls.errors import InputError
from gptcls.models.pretrained import load_pretrained
from gptcls.models.sampling import generate
from gptcls.tokenizer import PAD_ID, VOCAB_SIZE, decode, encode


@dataclass(frozen=True)
class GenerateConfig:
    """Continue a text with a pretrained GPT-2."""

    text: tyro.conf.Positional[str] = "Every effort moves you"
    """the beginning"""
    model: str = "gpt2-nano"
    """preset, hub name (owner/name), or local folder or file"""
    max_new_tokens: int = 15
    """how many tokens to add at most"""
    temperature: float = 0.0
    """0 takes the likeliest token each time; higher is more random"""
    top_k: int | None = None
    """sample among this many likeliest tokens only"""
    seed: int = 123
    """of the random numbers"""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the first of cuda, mps, cpu that is there"""


def generate_text(config: GenerateConfig) -> str:
    """The text of ``config`` and its continuation.

    Raises:
        InputError: an empty text, a seed that no generator takes, an unknown model or device, or a model with
            another vocabulary.
    """
    prompt = encode(config.text)
    if not prompt:
        raise InputError("the text is empty: give at least one character")
    if not 0 <= config.seed < 2**64:
        raise InputError(f"--seed {config.seed} is no seed: take a whole number from 0 to 2**64 - 1")
    device = pick_device(config.device)
    model = load_pretrained(config.model).to(device)
    if model.config.vocab_size != VOCAB_SIZE:
        raise InputError(
            f"{config.model} has a vocabulary of {model.config.vocab_size} tokens: "
            f"GPT-2's tokenizer has {VOCAB_SIZE}"
        )
    generator = torch.Generator(device).manual_seed(config.seed)
    ids = torch.tensor([prompt], device=device)
    ids = generate(
        model, ids, config.max_new_tokens, config.temperature, config.top_k, generator, eos_id=PAD_ID
    )
    return decode(ids[0].tolist())


def main() -> None:
    """``python -m gptcls.generate``."""
    run(GenerateConfig, lambda config: print(generate_text(config)))


if __name__ == "__main__":
    main()
