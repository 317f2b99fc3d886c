"""Several processes that do the work of one run: started by ``torchrun``, or whatever else sets ``RANK`` and
``WORLD_SIZE``. The first one, of rank 0, writes and speaks for all."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gptcls.common.console import SaidElsewhereError
from gptcls.common.log import log
from gptcls.core.errors import InputError

AT_ONCE = 2**25  # bytes that one exchange moves


def join_processes() -> tuple[int, int]:
    """This process's rank and how many there are, once all of them are there; (0, 1) of one alone."""
    if not _joined():
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return 0, 1
        if torch.cuda.is_available():
            dist.init_process_group("cpu:gloo,cuda:nccl")
        else:
            dist.init_process_group("gloo")
    if dist.get_rank():
        log.setLevel(logging.WARNING)
    return processes()


def require_one_process(verb: str) -> None:
    """InputError where ``torchrun`` started more."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"gptcls {verb} runs in one process: leave torchrun out")


def processes() -> tuple[int, int]:
    """The same of those that have joined already."""
    return (dist.get_rank(), dist.get_world_size()) if _joined() else (0, 1)


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each over all processes; they go in as few exchanges as :data:`AT_ONCE` allows."""
    totals: list[Tensor] = []
    for group in _groups(tensors):
        together = torch.cat([tensor.flatten() for tensor in group])
        exchange(dist.all_reduce, together)
        parts = together.split([tensor.numel() for tensor in group])
        totals += [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)]
    return totals


def _groups(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Those that are exchanged together, in their order."""
    groups: list[list[Tensor]] = []
    size = AT_ONCE
    for tensor in tensors:
        if size + tensor.nbytes > AT_ONCE or tensor.dtype != groups[-1][-1].dtype:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    return groups


def send_rows(rows: Tensor, source: int) -> None:
    """Fill ``rows`` (N, C), contiguous, in all other processes with those of the one of rank ``source``."""
    for piece in rows.view(-1).view(torch.uint8).split(AT_ONCE):
        exchange(dist.broadcast, piece, src=source)


def whole(tensor: Tensor) -> Tensor:
    """One that is in parts, see :mod:`gptcls.train.shards`, put together in all processes, which all call
    this; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def in_parts(tensor: Tensor, like: Tensor) -> Tensor:
    """The same back again, if ``like`` is in parts and ``tensor`` is not; nothing is exchanged."""
    if hasattr(tensor, "full_tensor") or not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # takes seconds to import

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def exchange(collective: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """A collective of ``torch.distributed``; InputError where another process has ended meanwhile."""
    try:
        collective(*arguments, **options)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        kind = SaidElsewhereError if dist.get_rank() else InputError
        raise kind(f"another process of this run has ended, so this one cannot go on ({why:.80})") from None


@contextmanager
def all_or_none(same: Callable[[], Any] = lambda: None) -> Iterator[None]:
    """All processes come out of the block, or none: what one cannot use ends all, and is said once. So is
    what ``same`` gives afterwards, where it differs from the first one's."""
    rank, world = processes()
    error: Exception | None = None
    value = None
    try:
        yield
        value = same()
    except (InputError, OSError) as found:
        if world == 1:
            raise
        error = found
    if world == 1:
        return
    found = [None] * world
    exchange(dist.all_gather_object, found, (error is not None, value))
    failed = [other for other, (is_wrong, _) in enumerate(found) if is_wrong]
    if failed and rank == failed[0]:
        raise error
    if failed:
        raise SaidElsewhereError(f"process {failed[0]} cannot go on")
    others = [other for other, (_, its) in enumerate(found) if its != found[0][1]]
    if others and rank:
        raise SaidElsewhereError("the processes differ")
    if others:
        said = f"process {others[0]} of {world} found other rows or weights than the first one"
        raise InputError(f"{said}; give all machines the same files")
