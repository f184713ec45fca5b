"""Keys of texts and of collections, by content: equal text has an equal key in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from syneg.sources import Source

BLOCK = 16384


def plain(text: str) -> str:
    """Returns the text as two documents are compared: lower case, single spaces."""
    return " ".join(text.casefold().split())


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Returns one uint64 a text, equal for texts that differ in case and spacing only.

    With a million documents the chance that any two different ones share a key is about 3e-8.
    """
    return pd.util.hash_array(np.array([plain(text) for text in texts], dtype=object), categorize=False)


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
