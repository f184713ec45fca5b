"""What a miner finds, what a miner is, and how the processes that mine together share the work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

MISSING = -1
"""Row of a candidate that is not there, where a miner found fewer than were asked for."""


@dataclass(frozen=True)
class Candidates:
    """The documents that a miner ranks highest, for each of some queries.

    Attributes:
        rows: Rows of the corpus, best first, `MISSING` at the end of short lists; shape (queries, depth).
        scores: The miner's scores, NaN where it has none (random); shape (queries, depth). Equal
            scores are ordered by row, so that the list does not depend on how it was computed.
    """

    rows: np.ndarray
    scores: np.ndarray


class Miner(Protocol):
    """Ranks a source's documents for its queries.

    One of a user's own is derived from this class, in a file that ``--miners FILE.py:CLASS`` names. It is
    made with the source and the miners' arguments (`Source`, `MiningArguments`); `score` is asked for only
    where a margin is set for it.
    """

    name: str
    ranked: bool = True
    """Whether rank and score of a candidate mean anything."""

    def __init__(self, source: Any, args: Any) -> None:
        """Takes the source and the miners' arguments, where one of a user's own does not."""

    def search(self, query_rows: np.ndarray, depth: int) -> Candidates:
        """Returns the best documents for the queries at these rows, shape (queries,)."""

    def score(self, query_rows: np.ndarray, document_rows: np.ndarray) -> np.ndarray:
        """Returns the score of each query with the document beside it, shape (n,), exact."""


def order(rows: np.ndarray, scores: np.ndarray) -> Candidates:
    """Sorts candidates by falling score, equal scores by row, missing ones last."""
    scores = np.where(rows == MISSING, -np.inf, scores)
    by = np.lexsort((rows, -scores), axis=1)
    rows, scores = np.take_along_axis(rows, by, axis=1), np.take_along_axis(scores, by, axis=1)
    return Candidates(rows.astype(np.int64), scores.astype(np.float32))


def mix(*parts: np.ndarray | int) -> np.ndarray:
    """Returns uint64 numbers that look random and depend on nothing but `parts`.

    Draws made with them are the same for any order, block size and number of processes. The mixing
    function is SplitMix64's (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).

    Args:
        *parts: Integers or arrays of integers that broadcast together.
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = (state ^ np.asarray(part).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


class Processes:
    """The processes that mine together, seen by one of them; it is alone unless a launcher started it.

    Args:
        cpu: Whether the processes compute on CPUs, and talk by gloo.

    Attributes:
        rank: Its number.
        world: How many there are.
    """

    def __init__(self, cpu: bool = False) -> None:
        self.rank, self.world, self._state = 0, 1, None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state = PartialState(cpu=cpu)
            self.rank, self.world = self._state.process_index, self._state.num_processes

    def share(self, items: np.ndarray) -> np.ndarray:
        """Returns this process's part of `items`: every part is a run of neighbours."""
        return np.array_split(items, self.world)[self.rank]

    def wait(self) -> None:
        """Waits until every process is here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def join(self, part: Candidates) -> Candidates:
        """Returns the parts of all processes, one after the other, on every process."""
        if self._state is None:
            return part
        from accelerate.utils import gather_object

        parts: list[Any] = gather_object([(part.rows, part.scores)])
        return Candidates(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
