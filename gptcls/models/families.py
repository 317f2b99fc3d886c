"""The families of networks that gptcls knows: one table of all that differs between them outside the network.

A new family is a network that keeps the backbone's contract (``gpt2.py``), a reader of its files, and an
entry of :data:`FAMILIES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.core.weights import State
from gptcls.models import bert_files, gpt2_files, llama_files
from gptcls.models.bert import Bert, BertConfig, RobertaConfig
from gptcls.models.llama import Llama, LlamaConfig


# Under a causal mask the last token alone has seen the whole text. In an encoder all have, and the first was
# trained to speak for them; what stands behind the text, which the book reads, is masked.
DECODER, ENCODER = ("last", "first", "mean", "max", "position-1"), ("first", "last", "mean", "max")


@dataclass(frozen=True)
class Family:
    """How networks of one kind are named, read and built.

    Args:
        model_types: what config.json calls them.
        config: the dataclass of their sizes; plain numbers, as classifier.json holds them.
        network: built from a ``config``.
        read: (tensors under the file's names, entries of config.json, its path) -> (config, tensors under our
            names); raises InputError for anything that the network does not compute.
        both_names: one of our tensor names, for messages, with the file's spelling.
        their_name: one of our tensor names in Hugging Face's spelling.
        transposed: whether Hugging Face stores the blocks' matrices (in, out); ours are (out, in).
        own_tokenizer: whether ``tokenizer.json`` lies beside the weights; else it is GPT-2's bundled one.
        narrow: whether each block may hold its weights in bf16 or fp16 and compute in it.
        poolings: what a classifier's head may read (:data:`gptcls.core.classifier.POOLERS`), the usual
            one first.
    """

    config: type
    network: Callable[[Any], nn.Module]
    decoder: bool = True
    model_types: tuple[str, ...] = ()
    read: Callable[[Mapping[str, Tensor], Mapping[str, Any], str], tuple[Any, State]] | None = None
    both_names: Callable[[str], str] = str
    their_name: Callable[[str], str] = str
    transposed: bool = False
    own_tokenizer: bool = False
    narrow: bool = False
    poolings: tuple[str, ...] = DECODER


FAMILIES = {
    "gpt2": Family(
        model_types=("gpt2",),
        config=GPT2Config,
        network=GPT2,
        read=gpt2_files.read_gpt2,
        both_names=gpt2_files.both_names,
        their_name=gpt2_files.huggingface_name,
        transposed=True,
        own_tokenizer=False,
        narrow=False,  # its frozen blocks make their own copies in bf16 (fused.py)
        poolings=DECODER,
    ),
    "llama": Family(
        model_types=tuple(llama_files.MODEL_TYPES),
        config=LlamaConfig,
        network=Llama,
        read=llama_files.read_llama,
        both_names=llama_files.NAMES.both,
        their_name=llama_files.NAMES.theirs,
        transposed=False,
        own_tokenizer=True,
        narrow=True,
        poolings=DECODER,
    ),
    "bert": Family(
        model_types=("bert",),
        config=BertConfig,
        network=Bert,
        read=bert_files.read_bert,
        both_names=bert_files.BERT.both,
        their_name=bert_files.BERT.theirs,
        transposed=False,
        own_tokenizer=True,
        narrow=False,
        poolings=ENCODER,
    ),
    "roberta": Family(
        model_types=("roberta", "xlm-roberta"),
        config=RobertaConfig,
        network=Bert,
        read=bert_files.read_roberta,
        both_names=bert_files.ROBERTA.both,
        their_name=bert_files.ROBERTA.theirs,
        transposed=False,
        own_tokenizer=True,
        narrow=False,
        poolings=ENCODER,
    ),
}


def declared_family(declared: Mapping[str, Any], source: str) -> Family:
    """The family that a config.json names; GPT-2 where it names none, as the book's and OpenAI's files.

    Raises InputError, with the supported ones, for any other.
    """
    model_type = declared.get("model_type") or "gpt2"
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = sorted(name for family in FAMILIES.values() for name in family.model_types)
    raise InputError(f"{source} says model_type {model_type!r}; supported are {', '.join(known)}")


def family_name(network: nn.Module) -> str:
    """The key of :data:`FAMILIES` under which ``network`` was built."""
    for name, family in FAMILIES.items():
        if type(network.config) is family.config:
            return name
    kind, config = type(network).__name__, type(network.config).__name__
    raise InputError(
        f"no family has networks of the class {kind} with a {config}: enter it first, as "
        f'gptcls.models.families.FAMILIES["mine"] = Family({config}, {kind}, decoder=True)'
    )
