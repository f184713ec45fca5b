"""Which documents are known to be relevant to a query's text, whatever id the query has."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable

import numpy as np

from syneg.text import normal_text

_AT_ONCE = 65_536


class KnownPositives:
    """Knows the positives of each query text; a query is its text as well as its id, a document likewise.

    It holds two 64-bit hashes a positive, so that millions take little memory. With a million of them the
    chance that a document that is none is taken for one is about 1e-13 each time.

    Args:
        positives: (query, text of its positive, id of its positive or None), in any order, as often as
            they come; read once.
    """

    def __init__(self, positives: Iterable[tuple[str, str, str | None]]) -> None:
        parts: list[np.ndarray] = []
        keys = array("Q")
        for query, text, doc_id in positives:
            of_query = _digest(normal_text(query))
            keys.append(_key(of_query, "text", normal_text(text)))
            if doc_id is not None:
                keys.append(_key(of_query, "id", doc_id))
            if len(keys) >= _AT_ONCE:
                parts.append(np.unique(np.asarray(keys)))
                keys = array("Q")
        table = np.unique(np.concatenate([*parts, np.asarray(keys)]))
        self._keys = array("Q", table.tobytes())
        self._query: tuple[str, bytes] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def is_positive(self, query: str, text: str, doc_id: str | None = None) -> bool:
        """Returns whether a document is a positive of a query of this text, by its text or by its id."""
        if self._query is None or self._query[0] != query:
            # The documents of one query come one after the other.
            self._query = query, _digest(normal_text(query))
        of_query = self._query[1]
        return self._has(_key(of_query, "text", normal_text(text))) or (
            doc_id is not None and self._has(_key(of_query, "id", doc_id))
        )

    def _has(self, key: int) -> bool:
        at = bisect_left(self._keys, key)
        return at < len(self._keys) and self._keys[at] == key


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _key(of_query: bytes, kind: str, value: str) -> int:
    data = of_query + kind.encode() + b"\0" + value.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
