"""Which rows a process gets in which step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info


class RowSampler:
    """Batches of row numbers, one process's part of each step.

    The order is a function of (seed, epoch) alone. Each step takes the next `batch_size` * `world_size`
    rows and deals them out in turns, so that the union over the processes is the batch that one process
    would have had. The last step deals out what is left: a process may get fewer rows, or none.

    Args:
        size: Rows of the data set.
        batch_size: Rows a process and step.
        seed: Seed of the order.
        rank: This process.
        world_size: How many there are.
        drop_last: Whether an incomplete last step is left out.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, left = divmod(self.size, self.batch_size * self.world_size)
        return whole + int(left > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        step = self.batch_size * self.world_size
        for i in range(len(self)):
            yield order[i * step : (i + 1) * step][self.rank :: self.world_size].tolist()


class Rows:
    """A data set as the data loader sees it; unlike a `datasets.Dataset` it can give no rows at all.

    Args:
        dataset: Anything with a length and ``__getitem__``.
    """

    def __init__(self, dataset: object) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> object:
        return self.dataset[index]  # type: ignore[index]

    def __getitems__(self, indices: list[int]) -> list[object]:
        if not indices:
            return []
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(indices)
        return [self.dataset[i] for i in indices]  # type: ignore[index]


class StreamedSteps(IterableDataset):
    """A stream, cut into one process's part of each step.

    As `RowSampler`: each step takes the stream's next `batch_size` * `world_size` rows and deals them out,
    so that all processes have equally many steps and their union is what one process would have had. For
    that, every process (and every worker, which prepares every n-th step) reads the whole stream.

    Args:
        stream: Rows; its order is its own (`IterableDataset.shuffle` shuffles it, anew every epoch).
        batch_size: Rows a process and step.
        rank: This process.
        world_size: How many there are.
        drop_last: Whether an incomplete last step is left out.
    """

    def __init__(
        self, stream: Any, batch_size: int, rank: int = 0, world_size: int = 1, drop_last: bool = False
    ) -> None:
        self.stream, self.batch_size = stream, batch_size
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, by which the stream shuffles."""
        if hasattr(self.stream, "set_epoch"):
            self.stream.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[Any]]:
        worker = get_worker_info()
        which, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        size = self.batch_size * self.world_size
        rows = iter(_undivided(self.stream))
        for step in itertools.count():
            taken = list(itertools.islice(rows, size))
            if not taken or (self.drop_last and len(taken) < size):
                return
            if step % workers == which:
                yield taken[self.rank :: self.world_size]


def _undivided(stream: Any) -> Iterable[Any]:
    """Yields a stream's rows in its order; a `datasets` stream would give a worker its own shards only."""
    worker = torch.utils.data._utils.worker
    info, worker._worker_info = worker._worker_info, None
    try:
        rows = iter(stream)
        first = next(rows, None)
    finally:
        worker._worker_info = info
    if first is not None:
        yield first
        yield from rows
