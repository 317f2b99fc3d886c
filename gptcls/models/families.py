"""The families of networks that gptcls knows: one table of all that differs between them outside the network.

A new family is a network that keeps the backbone's contract, as :class:`~gptcls.core.classifier.Classifier`
states it, a reader of its files, and an entry of :data:`FAMILIES`. A network of your own needs the entry
alone, where a classifier over it is saved or loaded: ``FAMILIES["mine"] = Family(MyConfig, MyNetwork,
decoder=True)``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from gptcls.core.classifier import POOLERS
from gptcls.core.errors import InputError
from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.core.weights import NameMap, State
from gptcls.models import bert_files, deberta_files, gpt2_files, llama_files, modern_bert_files
from gptcls.models.bert import Bert, BertConfig, DistilBertConfig, ElectraConfig, ErnieConfig, RobertaConfig
from gptcls.models.deberta import Deberta, DebertaConfig
from gptcls.models.llama import Llama, LlamaConfig
from gptcls.models.modern_bert import ModernBert, ModernBertConfig
from gptcls.models.refused import IN_FULL, kind_of, quantized


@dataclass(frozen=True)
class Family:
    """How networks of one kind are built, read and named."""

    config: type  # the dataclass of their sizes; plain numbers, as classifier.json holds them
    network: Callable[[Any], nn.Module]  # built from a config
    decoder: bool  # a token sees only what stands before it; else it sees the whole text
    model_types: tuple[str, ...] = ()  # what config.json calls them
    # (tensors under the file's names, entries of config.json, its path) -> (config, tensors under our names),
    # or InputError. None: nobody's files.
    read: Callable[[State, dict[str, Any], str], tuple[Any, State]] | None = None
    names: NameMap | None = None  # Hugging Face's names of the tensors; None: ours
    own_tokenizer: bool = False  # always in tokenizer.json next to the weights; a GPT-2 may have none
    # Whether a classifier's new head has a bias: not where transformers' has none, nor a norm to hold it.
    head_bias: bool = True
    narrow: bool = False  # each block may hold its weights in bf16 or fp16 and compute in it
    head: str | None = None  # what transformers calls the layer that gives a text's logits


# GPT-2's blocks are not narrow: frozen ones make their own copies in bf16 (fused.py).
FAMILIES = {
    "gpt2": Family(GPT2Config, GPT2, True, ("gpt2",), gpt2_files.read_gpt2, gpt2_files.NAMES, head="score"),
    "llama": Family(
        LlamaConfig, Llama, True, tuple(llama_files.MODEL_TYPES), llama_files.read_llama, llama_files.NAMES,
        own_tokenizer=True, head_bias=False, narrow=True, head="score"),
    "bert": Family(
        BertConfig, Bert, False, ("bert",), bert_files.read_bert, bert_files.BERT, own_tokenizer=True,
        head="classifier"),
    "roberta": Family(
        RobertaConfig, Bert, False, ("roberta", "xlm-roberta", "camembert"), bert_files.read_roberta,
        bert_files.ROBERTA, own_tokenizer=True, head="classifier.out_proj"),
    "distilbert": Family(
        DistilBertConfig, Bert, False, ("distilbert",), bert_files.read_distilbert, bert_files.DISTILBERT,
        own_tokenizer=True, head="classifier"),
    "electra": Family(
        ElectraConfig, Bert, False, ("electra",), bert_files.read_electra, bert_files.ELECTRA,
        own_tokenizer=True, head="classifier.out_proj"),
    "ernie": Family(
        ErnieConfig, Bert, False, ("ernie",), bert_files.read_ernie, bert_files.ERNIE, own_tokenizer=True,
        head="classifier"),
    "deberta": Family(
        DebertaConfig, Deberta, False, ("deberta-v2",), deberta_files.read_deberta, deberta_files.NAMES,
        own_tokenizer=True, head="classifier"),
    "modernbert": Family(
        ModernBertConfig, ModernBert, False, ("modernbert",), modern_bert_files.read_modern_bert,
        modern_bert_files.NAMES, own_tokenizer=True, head="classifier"),
}  # fmt: skip


def declared_family(declared: Mapping[str, Any], source: str) -> Family:
    """The family that a config.json names; GPT-2 where it names none, as the book's and OpenAI's files."""
    model_type = declared.get("model_type") or "gpt2"
    known = {name: family for family in FAMILIES.values() if family.read for name in family.model_types}
    if not isinstance(model_type, str) or model_type not in known:
        said = f"{source} says model_type {model_type!r:.80}{kind_of(declared)}"
        raise InputError(f"{said}; supported are {', '.join(sorted(known))}")
    if method := quantized(declared):
        raise InputError(f"{source} describes weights quantized by {method:.40}: {IN_FULL}")
    return known[model_type]


def known_family(network: nn.Module) -> str | None:
    """The key of :data:`FAMILIES` under which ``network`` was built; None where there is none."""
    return next((name for name, f in FAMILIES.items() if type(network.config) is f.config), None)


def is_decoder(network: nn.Module) -> bool:
    """Whether a token sees only what stands before it; of a family unknown it is taken for granted."""
    name = known_family(network)
    return name is None or FAMILIES[name].decoder


def family_name(network: nn.Module) -> str:
    """The same as :func:`known_family`, with an InputError where there is none."""
    if name := known_family(network):
        return name
    kind, config = type(network).__name__, type(network.config).__name__
    way_out = f'gptcls.models.families.FAMILIES["mine"] = Family({config}, {kind}, decoder=True)'
    raise InputError(f"no family has networks of the class {kind} with a {config}: enter it as {way_out}")


def poolings_of(family: Family) -> tuple[str, ...]:
    """What a classifier's head may read (``POOLERS``), the usual one first: under a causal mask the last
    token alone has seen the whole text; in an encoder all have, and the first was trained to speak for them.
    What stands behind the text, which position -1 reads, is masked there.

    >>> poolings_of(FAMILIES["bert"])[0]
    'first'
    """
    usual = "last" if family.decoder else "first"
    return (usual, *(name for name in POOLERS if name != usual and (family.decoder or name != "position-1")))
