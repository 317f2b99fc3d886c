"""The frozen-feature cache: what is a fixed function of the text is computed once a text.

With ``--train last_block`` eleven of gpt2-small's twelve blocks never change. The book computes them for
75 % padding, again in every epoch and again in every evaluation. Here they run once over each distinct text,
in batches of similar length; training and evaluation then start from their output. Given a folder it stays
there between runs, under a key of everything that it depends on, so that a stale one cannot be taken.
"""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, chain, compress, pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from gptcls.common.files import atomic_file, flush, require_writable, tidy, workplace
from gptcls.common.hardware import pick_dtype
from gptcls.common.log import log
from gptcls.common.processes import exchange, processes, send_rows
from gptcls.core.answer import mean_of_each, token_budget
from gptcls.core.batches import Batch, TextDataset, pad, token_budget_batches
from gptcls.core.classifier import Classifier
from gptcls.core.errors import InputError
from gptcls.core.tokenizer import Tokenizer
from gptcls.fast.frozen import Frozen
from gptcls.language.tree import TreeBlock

FORMAT = "1"
Computed = tuple[Tensor, list[int], list[int]]  # vectors (V, C), and of each row the first and how many


class Rows(Sequence[Tensor]):
    """Rows of hidden vectors (T, C), each a view of one of the ``storages`` (V, C) that is made when it is
    asked for: kept, a tensor for each would take more memory than all else about a short text.

    ``places`` (N, 3): which storage, the first vector in it, and how many.
    """

    def __init__(self, storages: Sequence[Tensor], places: Sequence[tuple[int, int, int]]) -> None:
        self.storages, self.places = storages, np.array(places, dtype=np.int64).reshape(-1, 3)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        storage, start, count = self.places[index].tolist()
        return self.storages[storage][start : start + count]


class FeatureDataset(Dataset):
    """A :class:`TextDataset` after a :class:`Frozen`: rows of hidden vectors (T, C) next to the targets."""

    def __init__(self, source: TextDataset, features: Sequence[Tensor]) -> None:
        self.features, self.lengths = features, source.lengths
        self.targets, self.owners = source.targets, source.owners

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        return self.features[index], self.lengths[index], self.targets[self.owners[index]]

    @property
    def widths(self) -> list[int]:
        """Positions that each row takes in a batch of its own."""
        return [len(row) for row in self.features]

    def means(self) -> Tensor:
        """A vector (N, C) for each text, in fp32: the mean of its tokens', or the frozen pooling's."""
        means = self._means(range(len(self)))
        return means if len(self) == len(self.targets) else mean_of_each(means, self.owners)

    def _means(self, rows: Iterable[int]) -> Tensor:
        each = ((self.features[row], self.lengths[row]) for row in rows)
        return torch.stack([row[:length].float().mean(dim=0) for row, length in each])

    @property
    def vectors(self) -> "Means | np.ndarray":
        """:meth:`means` as an array or, of texts of one row each, as something that is indexed like one."""
        return Means(self) if len(self) == len(self.targets) else self.means().numpy()

    def collate(self, items: list[tuple[Tensor, int, Tensor]]) -> Batch:
        """Items as one batch ``(hidden (B, T, C), lengths (B,), targets)``, zeros behind shorter rows."""
        rows, lengths, targets = zip(*items, strict=True)
        hidden = rows[0].new_zeros(len(rows), max(map(len, rows)), rows[0].shape[1])
        for target, row in zip(hidden, rows, strict=True):
            target[: len(row)] = row
        return hidden, torch.tensor(lengths), torch.stack(targets)


class Means:
    """:meth:`FeatureDataset.means` of the ``texts``, by default all, each made when it is asked for."""

    def __init__(self, dataset: FeatureDataset, texts: Sequence[int] | None = None) -> None:
        self.dataset, self.texts = dataset, np.arange(len(dataset)) if texts is None else np.array(texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:  # (M,) -> (M, C)
        return self.dataset._means(self.texts[places].tolist()).numpy()


@dataclass(frozen=True)
class FeatureCache:
    """Where features are kept: between runs in ``folder``, if there is one, where ``read_only`` adds none.
    Beyond ``budget`` bytes, and in a folder, they lie in a memory-mapped file."""

    folder: Path | None = None
    budget: float = 2**31
    read_only: bool = False

    def datasets(
        self, frozen: Frozen, parts: Mapping[str, TextDataset], device: torch.device
    ) -> dict[str, FeatureDataset]:
        """``frozen`` applied to every distinct row of ``parts``, once; InputError where a file of features
        does not fit the disk. Several processes share the rows out, and each has the features of all; the
        first one writes the folder."""
        first = processes()[0] == 0
        pool, pad_tos = frozen.classifier.pool, {dataset.pad_to for dataset in parts.values()}
        if frozen.pools and pool.sees_padding and len(pad_tos) > 1:
            raise ValueError("the last position is pooled: pad all parts to one length")
        rows = {part: list(zip(d.rows, d.widths, strict=True)) for part, d in parts.items()}
        keys = {part: [_row_key(*row) for row in rows[part]] for part in parts}
        todo = {key: row for part in parts for key, row in zip(keys[part], rows[part], strict=True)}
        folder = None if self.folder is None else self.folder / _frozen_key(frozen)
        storages, found = [], {}
        if folder is not None:
            if first and not self.read_only:
                _remove_orphans(folder)
            storages, found = _read(folder, frozen)
        missing = _missing(todo, found)
        if missing:
            pad_id = next(iter(parts.values())).pad_id
            kept = folder if first and not self.read_only else None
            rows_missing = [todo[key] for key in missing]
            storage, offsets, counts = self._compute(frozen, rows_missing, kept, missing, pad_id, device)
            places = zip(repeat(len(storages)), offsets, counts)
            found |= dict(zip(missing, places, strict=True))
            storages.append(storage)
        if folder is not None:
            log.info(f"features: {len(todo) - len(missing):,} texts from {folder}, {len(missing):,} computed")
        kept_in = {part: Rows(storages, [found[key] for key in keys[part]]) for part in parts}
        return {part: FeatureDataset(dataset, kept_in[part]) for part, dataset in parts.items()}

    def mean_vectors(
        self, backbone: nn.Module, texts: Sequence[str], max_length: int, tokenizer: Tokenizer,
        device: torch.device,
    ) -> np.ndarray:  # fmt: skip
        """What a pretrained network says of each text: the mean (N, C) of its tokens' last hidden vectors. A
        BERT's pooler, which learnt to speak for the first token alone, is taken off ``backbone``."""
        if getattr(backbone.config, "pooler", False):
            backbone.drop_pooler()
        classifier = Classifier(backbone, 1, "mean").to(device)
        classifier.freeze("head")
        frozen = Frozen(classifier, len(backbone.blocks), pick_dtype("auto", device))
        dataset = TextDataset(texts, torch.zeros(len(texts)), max_length, tokenizer=tokenizer)
        return self.datasets(frozen, {"rows": dataset}, device)["rows"].means().numpy()

    def _compute(
        self, frozen: Frozen, rows: list[tuple[list[int], int]], folder: Path | None, keys: list[bytes],
        pad_id: int, device: torch.device,
    ) -> Computed:  # fmt: skip
        """The features of all rows, and where each one's begin and how many they are."""
        n_stored = [1 if frozen.pools else width for _, width in rows]
        path = None if folder is None else folder / f"{uuid.uuid4().hex}.bin"
        if path is None:
            return self._fill(frozen, rows, n_stored, path, keys, pad_id, device)
        require_writable(path.parent, "--cache")
        with workplace(path):  # which says that the file has its writer
            try:
                return self._fill(frozen, rows, n_stored, path, keys, pad_id, device)
            except BaseException:
                with suppress(OSError):  # a system that keeps mapped files must not hide what went wrong
                    path.unlink()
                raise

    def _fill(
        self, frozen: Frozen, rows: list[tuple[list[int], int]], n_stored: list[int], path: Path | None,
        keys: list[bytes], pad_id: int, device: torch.device,
    ) -> Computed:  # fmt: skip
        storage = self._storage(sum(n_stored), frozen.backbone.config.n_embd, frozen.out_dtype, path)
        offsets, start = [0] * len(rows), 0
        batches = token_budget_batches([width for _, width in rows], token_budget(device))
        rank, world = processes()
        ends = [0]  # the rows of each process lie behind each other
        for owner in range(world):
            for i in chain.from_iterable(batches[owner::world]):
                offsets[i] = start
                start += n_stored[i]
            ends.append(start)
        own = batches[rank::world]
        total = sum(len(rows[i][0]) for i in chain.from_iterable(own))
        with tqdm(total=total, desc="frozen blocks", unit="tok", disable=True if rank else None) as bar:
            for batch in own:
                ids, lengths = pad([rows[i][0] for i in batch], rows[batch[-1]][1], pad_id)
                hidden = frozen(ids.to(device), lengths.to(device)).cpu()  # (B, T, C) or (B, 1, C)
                for i, row in zip(batch, hidden, strict=True):
                    storage[offsets[i] : offsets[i] + n_stored[i]] = row[: n_stored[i]]
                bar.update(int(lengths.sum()))
            if world > 1:
                for owner, (start, end) in enumerate(pairwise(ends)):
                    send_rows(storage[start:end], owner)
            if path is not None:
                flush(path)  # else a power cut could leave zeros behind a valid index
                index = torch.tensor(offsets), torch.tensor(n_stored)
                _write_index(path.with_suffix(".safetensors"), keys, *index)
        return storage, offsets, n_stored

    def _storage(self, n: int, width: int, dtype: torch.dtype, path: Path | None) -> Tensor:
        """Room for ``n`` vectors: in a new file ``path``, mapped; without one in memory or, beyond budget, in
        a temporary file. InputError where it does not fit the disk."""
        size = n * width * dtype.itemsize
        gib = size / 2**30
        if path is None and size <= self.budget:
            return torch.empty(n, width, dtype=dtype)
        if path is None:
            log.info(f"features take {gib:.1f} GiB, more than the budget: they go to a temporary file")
            with workplace(Path(tempfile.gettempdir()) / "gptcls-features") as temporary:
                # Mapped, the file outlives its name (where a system keeps the name, it stays behind).
                return self._storage(n, width, dtype, temporary / "features.bin")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if size > shutil.disk_usage(path.parent).free:  # found while writing, it would kill the process
                raise OSError(28, "No space left on device")
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
        except OSError as error:
            path.unlink(missing_ok=True)
            said = f"{gib:.2f} GiB of features do not fit into {path.parent}: {error}"
            raise InputError(f"{said}; choose another --cache, or raise --cache-budget") from None
        return torch.from_file(str(path), shared=True, size=n * width, dtype=dtype).view(n, width)


def _missing(todo: Mapping[bytes, Any], found: Mapping[bytes, Any]) -> list[bytes]:
    """The keys in ``todo`` that are not found, in its order: of several processes by any of them."""
    lacks = torch.tensor([key not in found for key in todo], dtype=torch.uint8)
    if processes()[1] > 1:
        exchange(dist.all_reduce, lacks, dist.ReduceOp.MAX)
    return list(compress(todo, lacks.tolist()))


def _row_key(row: list[int], width: int) -> bytes:
    """What a row's features depend on: its ids, and how far it is padded."""
    return hashlib.sha256(torch.tensor([width, *row], dtype=torch.int32).numpy().tobytes()).digest()


def _frozen_key(frozen: Frozen) -> str:
    """What all features depend on: sizes, depth, number format, kernels, and every weight that is read."""
    backbone, depth = frozen.backbone, len(frozen.blocks)
    kernels = {type(block).__name__ for block in frozen.blocks} | {next(backbone.parameters()).device.type}
    # The blocks too may depend on the pooling: by what it counts as padding.
    pooling = frozen.classifier.pooling if frozen.pools or frozen.classifier.pool.sees_padding else ""
    frozen_as = depth, frozen.dtype, frozen.int8, sorted(kernels), pooling
    settings = FORMAT, torch.__version__, backbone.config, *frozen_as
    settings += tuple(block.tree for block in backbone.blocks[:1] if isinstance(block, TreeBlock))
    digest = hashlib.sha256(repr(settings).encode())
    unread = [*backbone.blocks[depth:], *([] if frozen.pools else [backbone.norm])]
    unread_ids = {id(parameter) for module in unread for parameter in module.parameters()}
    for name, parameter in backbone.named_parameters():
        if id(parameter) not in unread_ids:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _write_index(path: Path, keys: list[bytes], offsets: Tensor, counts: Tensor) -> None:
    """The index comes last: without it the features next to it do not count."""
    joined = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(len(keys), -1)
    try:
        with atomic_file(path) as temporary:
            save_file({"keys": joined, "offsets": offsets, "counts": counts}, temporary)
    except SafetensorError as error:
        raise InputError(f"{path} cannot be written: {error}; choose another --cache") from None


def _remove_orphans(folder: Path) -> None:
    """Remove features whose writer was killed before they had an index. A living writer has a workplace, from
    before its file is there until the index is."""
    without = [file for file in folder.glob("*.bin") if not file.with_suffix(".safetensors").exists()]
    tidy(folder)
    for file in without:
        if not any(folder.glob(f".{file.name}.*")) and not file.with_suffix(".safetensors").exists():
            with suppress(OSError):
                file.unlink()


def _read_index(path: Path) -> tuple[list[bytes], list[int], list[int]]:
    """Keys, offsets and counts; ValueError and what :func:`load_file` raises where it is not whole."""
    index = load_file(path)
    keys, offsets, counts = index["keys"], index["offsets"].tolist(), index["counts"].tolist()
    if index["offsets"].ndim != 1 or index["counts"].ndim != 1 or keys.dtype != torch.uint8:
        raise ValueError("not an index")
    if keys.shape != (len(counts), 32) or min(counts, default=1) < 1:
        raise ValueError("not an index")
    # Rows lie behind each other without gaps, in any order.
    if sorted(offsets) != [0, *accumulate(n for _, n in sorted(zip(offsets, counts, strict=True)))][:-1]:
        raise ValueError("rows overlap")
    return [key.tobytes() for key in keys.numpy()], offsets, counts


def _read(folder: Path, frozen: Frozen) -> tuple[list[Tensor], dict[bytes, tuple[int, int, int]]]:
    """The features that earlier runs left in ``folder``, memory-mapped, and the place of each row's, as
    :class:`Rows` has it, by its key."""
    storages: list[Tensor] = []
    found: dict[bytes, tuple[int, int, int]] = {}
    width = frozen.backbone.config.n_embd
    for path in sorted(folder.glob("[!.]*.safetensors")):  # what another run is still writing has a dot
        file = path.with_suffix(".bin")
        try:
            keys, offsets, counts = _read_index(path)
            if file.stat().st_size != sum(counts) * width * frozen.out_dtype.itemsize:
                raise OSError("wrong size")
            # Not shared: what is written to these does not reach the file.
            storage = torch.from_file(str(file), False, sum(counts) * width, dtype=frozen.out_dtype)
        except (OSError, RuntimeError, LookupError, ValueError, SafetensorError) as error:
            log.info(f"{path} is incomplete ({error!s:.60}): its features are computed again")
            continue
        found |= dict(zip(keys, zip(repeat(len(storages)), offsets, counts), strict=True))
        storages.append(storage.view(-1, width))
    return storages, found
