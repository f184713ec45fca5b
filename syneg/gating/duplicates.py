"""Duplicates across a data set: equal texts, and near-equal ones by MinHash (datasketch)."""

from __future__ import annotations

from syneg.mining.keys import text_keys

_PERMUTATIONS = 64
_WORDS = 3


class Duplicates:
    """Remembers texts, and knows a text that comes again.

    Args:
        threshold: Jaccard similarity of 3-word sequences from which two texts are duplicates, as
            MinHash estimates it (standard error up to 0.06); 0 for equal texts only.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._equal: dict[int, str] = {}
        self._hashes: dict[str, object] = {}
        self._index = None
        if threshold:
            from datasketch import MinHashLSH

            self._index = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS)

    def find(self, text: str) -> tuple[str, float] | None:
        """Returns the name of an earlier text that this one repeats, and how similar the two are."""
        key = int(text_keys([text])[0])
        if key in self._equal:
            return self._equal[key], 1.0
        if self._index is None:
            return None
        hashed = _min_hash(text)
        near = [(hashed.jaccard(self._hashes[name]), name) for name in self._index.query(hashed)]
        best = max(near, default=(0.0, ""))
        return (best[1], best[0]) if best[0] >= self._threshold else None

    def add(self, text: str, name: str) -> None:
        """Remembers a text under a name that no other text has."""
        self._equal[int(text_keys([text])[0])] = name
        if self._index is not None:
            self._hashes[name] = hashed = _min_hash(text)
            self._index.insert(name, hashed)


def _min_hash(text: str):  # type: ignore[no-untyped-def]
    from datasketch import MinHash

    words = text.casefold().split()
    shingles = {" ".join(words[i : i + _WORDS]) for i in range(max(1, len(words) - _WORDS + 1))}
    hashed = MinHash(num_perm=_PERMUTATIONS)
    hashed.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in sorted(shingles)])
    return hashed
