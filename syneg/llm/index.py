"""An index from 64-bit hashes to locations, 16 bytes an entry."""

from __future__ import annotations

from array import array

import numpy as np

_MERGE_AT = 1 << 16


class LocationIndex:
    """Maps a 64-bit number to the locations (non-negative, below 2**63) added under it.

    A dict of a hundred million keys does not fit in memory; two sorted arrays do. What was added
    last is held in a dict, and merged into the arrays when that has grown.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(0, dtype=np.uint64)
        self._locations = np.empty(0, dtype=np.int64)
        self._recent: dict[int, list[int]] = {}
        self._recent_size = 0

    def __len__(self) -> int:
        return len(self._hashes) + self._recent_size

    def add(self, number: int, location: int) -> None:
        """Adds a location under a number."""
        self._recent.setdefault(number, []).append(location)
        self._recent_size += 1
        # Merging at a share of the whole keeps the total work of adding near linear.
        if self._recent_size >= max(_MERGE_AT, len(self._hashes) // 8):
            self._merge()

    def get(self, number: int) -> list[int]:
        """Returns the locations under a number, in the order they were added."""
        start, stop = np.searchsorted(self._hashes, np.uint64(number), side="left"), None
        found: list[int] = []
        if start < len(self._hashes) and int(self._hashes[start]) == number:
            stop = np.searchsorted(self._hashes, np.uint64(number), side="right")
            found = self._locations[start:stop].tolist()
        return found + self._recent.get(number, [])

    def locations(self) -> np.ndarray:
        """Returns all locations, sorted, shape (n,)."""
        self._merge()
        return np.sort(self._locations)

    def _merge(self) -> None:
        hashes, locations = array("Q"), array("q")
        for number, places in self._recent.items():
            hashes.extend([number] * len(places))
            locations.extend(places)
        self._recent, self._recent_size = {}, 0
        all_hashes = np.concatenate([self._hashes, np.frombuffer(hashes, dtype=np.uint64)])
        all_locations = np.concatenate([self._locations, np.frombuffer(locations, dtype=np.int64)])
        order = np.argsort(all_hashes, kind="stable")
        self._hashes, self._locations = all_hashes[order], all_locations[order]
