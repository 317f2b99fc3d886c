"""What every contestant is given: one set of weights on disk, one set of rows."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import tyro
from safetensors.torch import save_file

from benchmarks.measure import ROOT
from gptcls.core.gpt2 import GPT2, PRESETS
from gptcls.core.weights import GPT2_NAMES
from gptcls.data.split import Split

if TYPE_CHECKING:
    import pandas as pd

SEED = 123


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all benchmarks ask."""

    model: str = "gpt2-small"
    """Preset whose sizes the random weights have."""
    weights: Path | None = None
    """Folder with model.safetensors and config.json in Hugging Face's names, in place of random weights."""
    data: Path = ROOT.parent / "shared" / "data" / "sms" / "SMSSpamCollection"
    """UCI's SMS Spam Collection."""
    json: Path | None = None
    """Also write the table to this file."""

    def arguments(self, weights: Path) -> list[str]:
        """The options that a contestant alone in a process needs, for its command line."""
        return [f"--model={self.model}", f"--weights={weights.resolve()}", f"--data={self.data.resolve()}"]


@dataclass(frozen=True, kw_only=True)
class PeerOptions(Options):
    """What the benchmarks with peers ask besides."""

    repeats: int = 3
    """Turns that each contestant gets; the table shows medians."""
    peer_steps: int = 12
    """Training steps on which a peer is timed in each turn, after two that do not count."""
    peer_batches: int = 4
    """Evaluation batches on which a peer is timed in each turn."""
    full: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Let the peers do all of their work instead of scaling a part of it."""

    def arguments(self, weights: Path) -> list[str]:
        """The same, and how long a peer is timed."""
        peers = [f"--peer-steps={self.peer_steps}", f"--peer-batches={self.peer_batches}"]
        return [*super().arguments(weights), *peers, *(["--full"] if self.full else [])]


@contextmanager
def workspace(options: Options) -> Iterator[tuple[Path, Path]]:
    """A temporary folder, and the folder with the weights for everybody."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.weights is not None:
            yield folder, options.weights
        else:
            yield folder, random_weights(options.model, folder / "weights")


def random_weights(model: str, folder: Path) -> Path:
    """A GPT-2 of a preset's size with random weights, as ``save_pretrained`` of transformers leaves it.

    No dropout, as in the book: transformers would spend time on it in frozen blocks too.
    """
    folder.mkdir()
    config = PRESETS[model]
    torch.manual_seed(SEED)
    tensors = GPT2_NAMES.to_theirs(GPT2(config).state_dict())
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    sizes = {k: v for k, v in asdict(config).items() if k.startswith("n_")} | {
        "vocab_size": config.vocab_size
    }
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    content = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **sizes, **no_dropout}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def book_frames(split: Split) -> list["pd.DataFrame"]:
    """The three parts with the book's column names: ``Text``, and ``Label`` 0 or 1."""
    return [
        frame.assign(Label=frame["label"].map({"ham": 0, "spam": 1}), Text=frame["text"])[["Label", "Text"]]
        for _, frame in split.items()
    ]


def numbered_repeats(split: Split) -> Split:
    """The same rows, with a number behind every text that has occurred before.

    The default recipe drops repeats; numbered, all rows stay, and both sides do the same work.
    """
    import pandas as pd

    joined = pd.concat([frame for _, frame in split.items()], keys=["train", "validation", "test"])
    nth = joined.groupby("text").cumcount()
    joined["text"] = joined["text"].where(nth == 0, joined["text"] + " #" + (nth + 1).astype(str))
    return Split(*(joined.loc[part].reset_index(drop=True) for part in ("train", "validation", "test")))
