"""gpt2-nano on its way: its weights after some steps of pretraining, for whoever wants to see a model learn.

While these steps were taken the token table stood still, so it is kept once, in 8 bits per value with a scale
for each row; what was trained is kept in fp16, in a file for each number of tokens seen.

>>> from benchmarks.nano_steps import load_step, kept
>>> model = load_step(kept()[0])
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, PRESETS

FOLDER = Path(__file__).parent / "nano-steps"
TABLE = "wte.weight"


def kept() -> list[int]:
    """The numbers of tokens for which there are weights, ascending."""
    return sorted(int(path.stem) for path in FOLDER.glob("[0-9]*.safetensors"))


def load_step(tokens: int) -> GPT2:
    """The network after so many tokens; InputError where these weights were not kept."""
    if tokens not in kept():
        raise InputError(f"no weights after {tokens} tokens; there are {', '.join(map(str, kept()))}")
    table = load_file(FOLDER / "table.safetensors")
    rows = table["rows"].float() * table["scales"][:, None].float()  # (V, C)
    model = GPT2(PRESETS["gpt2-nano"])
    trained = load_file(FOLDER / f"{tokens:09d}.safetensors")
    model.load_state_dict({name: value.float() for name, value in trained.items()} | {TABLE: rows})
    return model.eval()


def save_table(table: Tensor) -> None:  # (V, C)
    """Write the token table in 8 bits per value."""
    scales = table.abs().amax(dim=1).clamp(min=1e-8) / 127  # (V,)
    rows = (table / scales[:, None]).round().to(torch.int8)
    save_file({"rows": rows, "scales": scales}, FOLDER / "table.safetensors")


def save_step(model: GPT2, tokens: int) -> None:
    """Write what was trained by then."""
    trained = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != TABLE}
    save_file(trained, FOLDER / f"{tokens:09d}.safetensors")
