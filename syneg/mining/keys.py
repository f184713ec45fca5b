"""Keys of collections, by content, and the corpus in blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from syneg.sources import Source
from syneg.text import text_keys

BLOCK = 16384


def document_blocks(source: Source, size: int = BLOCK) -> Iterator[list[str]]:
    """Yields the corpus's texts block by block, so that they need not all be in memory."""
    for start in range(0, len(source.corpus), size):
        yield source.documents(range(start, min(start + size, len(source.corpus))))


def document_keys(source: Source) -> np.ndarray:
    """Returns `text_keys` of the whole corpus, shape (documents,)."""
    return np.concatenate([text_keys(block) for block in document_blocks(source)])


def content_key(blocks: Iterable[Sequence[str]]) -> str:
    """Returns a hexadecimal digest of texts, exact to the byte and in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        for text in block:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()


def joint_key(*parts: object) -> str:
    """Returns a short hexadecimal digest of everything that determines a cached thing."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
