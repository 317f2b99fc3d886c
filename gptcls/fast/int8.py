"""Blocks with 8-bit weights for inference, through torchao (extra ``gptcls[int8]``)."""

import logging
from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import nn

from gptcls.core.errors import InputError


def int8_blocks(blocks: Iterable[nn.Module], dtype: torch.dtype) -> nn.ModuleList:
    """Copies of ``blocks`` whose linear layers hold int8 weights and round their input to int8 as they go;
    all else computes in ``dtype``. InputError where torchao is not installed."""
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it warns of GPU kernels that a CPU has no use for
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError:
        raise InputError("--precision int8 needs torchao: pip install 'gptcls[int8]'") from None
    copies = nn.ModuleList(deepcopy(block).to(dtype) for block in blocks)
    quantize_(copies, Int8DynamicActivationInt8WeightConfig())
    return copies
