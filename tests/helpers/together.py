"""Several processes of one run, forked from the test's, so that they start in no time."""

import multiprocessing
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

LIMIT = 120  # seconds


def together(n: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``function(*arguments)`` returns in each of ``n`` processes that know of each other as those of
    ``torchrun`` do; AssertionError with the traceback of one that raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = multiprocessing.get_context("fork").Process
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, str(rank)) for rank in range(n)]
        workers = [
            start(target=_work, args=(rank, n, port, file, function, arguments))
            for rank, file in enumerate(files)
        ]
        for worker in workers:
            worker.start()
        end = time.monotonic() + LIMIT
        while any(worker.is_alive() for worker in workers) and time.monotonic() < end:
            if any(worker.exitcode for worker in workers):
                break
            time.sleep(0.01)
        for worker in workers:
            worker.kill()
            worker.join()
        found = [torch.load(file, weights_only=False) for file in files if file.exists()]
    assert not (wrong := [error for error, _ in found if error]), "\n".join(wrong)
    assert len(found) == n, "not all of them ended"
    return [answer for _, answer in found]


def _work(rank: int, n: int, port: int, file: Path, function: Callable[..., Any], arguments: tuple) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    error = found = None
    try:
        found = function(*arguments)
    except BaseException:
        error = traceback.format_exc()
    torch.save((error, found), file)
    if error is None and dist.is_initialized():  # nobody leaves while another still listens
        dist.barrier()
    os._exit(error is not None)
