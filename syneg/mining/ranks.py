"""The processes that `accelerate launch` starts: who does what, and how results come together."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from syneg.mining.candidates import Candidates


class Ranks:
    """This process among those that mine together; alone unless started by a launcher.

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
