"""Every network leaves Python through ``torch.export``, with a batch and a length that stay free."""

import pytest
import torch
from torch.export import Dim, export

from gptcls.core.gpt2 import GPT2, GPT2Config
from gptcls.models import rotary
from gptcls.models.bert import Bert, BertConfig
from gptcls.models.deberta import Deberta, DebertaConfig
from gptcls.models.llama import Llama, LlamaConfig
from gptcls.models.modern_bert import ModernBert, ModernBertConfig

SIZES = {"n_layer": 2, "n_embd": 16, "n_head": 4, "n_positions": 64, "vocab_size": 50}
LLAMA = {**SIZES, "n_kv_head": 2, "head_dim": 4, "n_inner": 24}
NETWORKS = {
    "gpt2": lambda: GPT2(GPT2Config(**SIZES)),
    "gpt2 without its causal mask": lambda: GPT2(GPT2Config(**SIZES)).drop_causal_mask(),
    "llama": lambda: Llama(LlamaConfig(**LLAMA)),
    "llama with a window": lambda: Llama(LlamaConfig(**LLAMA, window=7)),
    "llama without positions in every second block": lambda: Llama(LlamaConfig(**LLAMA, rope_left_out=2)),
    "deberta": lambda: Deberta(DebertaConfig(**SIZES, n_inner=24, n_distances=8, farthest=64)),
    "modernbert": lambda: ModernBert(ModernBertConfig(**SIZES, n_inner=24, window=5, whole_every=2)),
    "bert": lambda: Bert(BertConfig(**SIZES, n_inner=24, n_segments=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_any_batch_and_length(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    inputs = torch.randint(50, (3, 9)), torch.tensor([9, 4, 2])
    sizes = ({0: Dim("B"), 1: Dim("T", max=64)}, {0: Dim("B")})
    exported = export(network, inputs, dynamic_shapes=sizes).module()
    with torch.no_grad():
        for batch, width in ((3, 9), (2, 5), (5, 33), (1, 1), (4, 64)):
            ids, lengths = torch.randint(50, (batch, width)), torch.randint(1, width + 1, (batch,))
            found, expected = exported(ids, lengths), network(ids, lengths)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_export_computed_is_not_kept() -> None:
    """Its tensors hold no values: the next text must not find them in the cache of rotary tables."""
    rotary.kept_table.cache_clear()
    network = NETWORKS["llama"]().eval()
    export(network, (torch.zeros(2, 8, dtype=torch.int64),))
    assert rotary.kept_table.cache_info().currsize == 0
    assert network(torch.zeros(2, 8, dtype=torch.int64)).isfinite().all()
