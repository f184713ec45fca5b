"""Duplicates across a data set: equal texts, and near-equal ones by MinHash (datasketch)."""

from __future__ import annotations

import hashlib
import sqlite3
from functools import lru_cache
from typing import Any

import numpy as np

from syneg.text import normal_text, text_keys, units

_PERMUTATIONS = 64
_WORDS = 3
_CACHE_KIB = 65_536

_TABLES = """
CREATE TABLE texts (key INTEGER PRIMARY KEY, name TEXT NOT NULL, signature BLOB);
CREATE TABLE bands (band INTEGER, key INTEGER, PRIMARY KEY (band, key)) WITHOUT ROWID;
"""


class Duplicates:
    """Remembers texts, and knows a text that comes again.

    What it remembers is in a temporary file, so that millions of texts take no memory.

    Args:
        threshold: Jaccard similarity of sequences of 3 `text.units` from which two texts are duplicates, as
            MinHash estimates it (standard error up to 0.06); 0 for equal texts only.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._ranges: list[tuple[int, int]] = []
        if threshold:
            from datasketch import MinHashLSH

            # Its choice of bands; it would itself keep everything in memory.
            self._ranges = list(MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS).hashranges)
        # A nameless database is a file that SQLite deletes.
        self._store = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._store.execute("PRAGMA journal_mode = OFF")
        self._store.execute("PRAGMA synchronous = OFF")
        self._store.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._store.executescript(_TABLES)

    def close(self) -> None:
        """Forgets all texts, and frees the temporary file and its cache. May be called twice."""
        self._store.close()

    def find(self, text: str) -> tuple[str, float] | None:
        """Returns the name of an earlier text that this one repeats, and how similar the two are."""
        query = "SELECT name FROM texts WHERE key = ?"
        if equal := self._store.execute(query, (_key(text),)).fetchone():
            return equal[0], 1.0
        if not self._ranges:
            return None
        signature = _signature(text)
        bands = self._bands(signature)
        near = self._store.execute(
            "SELECT name, signature FROM texts WHERE key IN "
            f"(SELECT key FROM bands WHERE band IN ({', '.join('?' * len(bands))}))",
            bands,
        )
        similar = [
            (float(np.mean(np.frombuffer(other, np.uint32) == signature)), name) for name, other in near
        ]
        best = max(similar, default=(0.0, ""))
        return (best[1], best[0]) if best[0] >= self._threshold else None

    def add(self, text: str, name: str) -> None:
        """Remembers a text under a name that no other text has."""
        key = _key(text)
        signature = _signature(text) if self._ranges else None
        self._store.execute(
            "INSERT OR REPLACE INTO texts VALUES (?, ?, ?)",
            (key, name, None if signature is None else signature.tobytes()),
        )
        if signature is not None:
            rows = [(band, key) for band in self._bands(signature)]
            self._store.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", rows)

    def _bands(self, signature: np.ndarray) -> list[int]:
        """Returns a key for each band of the signature; texts that share one are compared."""
        parts = [f"{begin}:".encode() + signature[begin:end].tobytes() for begin, end in self._ranges]
        return [
            int.from_bytes(hashlib.blake2b(part, digest_size=8).digest(), "big", signed=True)
            for part in parts
        ]


def _key(text: str) -> int:
    """Returns `text_keys` as SQLite's signed integer."""
    return int(text_keys([text]).astype(np.int64)[0])


@lru_cache(maxsize=1)  # A text is looked for first, and then remembered.
def _signature(text: str) -> np.ndarray:
    """Returns the MinHash of the text's word sequences, shape (64,), uint32."""
    words = units(normal_text(text))
    shingles = {" ".join(words[i : i + _WORDS]) for i in range(max(1, len(words) - _WORDS + 1))}
    hashed = _empty().copy()
    hashed.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in sorted(shingles)])
    # Its values are below 2 ** 32.
    return hashed.hashvalues.astype(np.uint32)


@lru_cache(maxsize=1)
def _empty() -> Any:
    """Returns the MinHash of no text, to be copied: drawing its permutations takes its time."""
    from datasketch import MinHash

    return MinHash(num_perm=_PERMUTATIONS)
