"""Which rows a process gets in which step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import datasets
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


def in_turn(size: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """Returns one process's batches of row numbers for evaluation, in the data set's order.

    Batches are those of one process, dealt out whole: with in-batch negatives too the loss is the same on
    any number of processes. The last ones may be short, or empty where others still have rows.
    """
    step = batch_size * world_size
    starts = range(rank * batch_size, -(-size // step) * step, step)
    return [list(range(start, min(start + batch_size, size))) for start in starts]


class StreamedStep(NamedTuple):
    """One process's part of a step of a stream.

    Attributes:
        rows: The rows.
        epoch: Which pass over the stream they are from, from 0.
        ends_epoch: Whether the pass ends with this step.
    """

    rows: list[Any]
    epoch: int
    ends_epoch: bool


class StreamedSteps(IterableDataset):
    """One pass over a stream, cut into one process's part of each step.

    As `RowSampler`: each step takes the stream's next `batch_size` * `world_size` rows and deals them out,
    so that all processes have equally many steps and their union is what one process would have had. For
    that, every process (and every worker, which prepares every n-th step) reads the whole stream.

    Args:
        stream: Rows; its order is its own (`IterableDataset.shuffle` shuffles it, anew every epoch).
        batch_size: Rows a process and step.
        rank: This process.
        world_size: How many there are.
        drop_last: Whether an incomplete last step is left out.
        whole_batches: Whether a process gets `batch_size` rows that follow each other, instead of every
            `world_size`-th of the step; see `in_turn`.
    """

    def __init__(
        self,
        stream: Any,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        whole_batches: bool = False,
    ) -> None:
        self.stream, self.batch_size = stream, batch_size
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        begin = rank * batch_size
        self.share = slice(begin, begin + batch_size) if whole_batches else slice(rank, None, world_size)

    def __iter__(self) -> Iterator[Any]:
        return (step.rows for step in self._steps(range(1)))

    def _steps(self, epochs: Iterable[int]) -> Iterator[StreamedStep]:
        worker = get_worker_info()
        which, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        size = self.batch_size * self.world_size
        stream = self.stream
        if isinstance(stream, datasets.IterableDataset):
            # Its epoch is in memory that workers share, though one may be in another epoch: this is a copy.
            stream = stream.with_format(None)
        number = 0
        for epoch in epochs:
            if hasattr(stream, "set_epoch"):
                stream.set_epoch(epoch)
            rows = iter(_undivided(stream))
            taken, before = list(itertools.islice(rows, size)), number
            while taken and (len(taken) == size or not self.drop_last):
                following = list(itertools.islice(rows, size))
                if number % workers == which:
                    last = not following or (self.drop_last and len(following) < size)
                    yield StreamedStep(taken[self.share], epoch, last)
                number += 1
                taken = following
            if number == before:
                return  # Else there would be no end to it.


class EndlessSteps(StreamedSteps):
    """Pass after pass over a stream, for the trainer to stop in: every step knows its epoch.

    So the n-th step is the same one after resuming, wherever a pass ends.
    """

    def __iter__(self) -> Iterator[StreamedStep]:
        return self._steps(itertools.count())


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
