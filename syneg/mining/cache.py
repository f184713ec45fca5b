"""The cache of embeddings and indexes: what its keys are made of, and a corpus read in blocks."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from syneg.encoders import encoder_path
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


@contextmanager
def cached_folder(final: Path) -> Iterator[tuple[Path, bool]]:
    """Gives the folder to fill, and whether it is there already; one process fills it, others wait.

    What is written becomes visible under `final` all at once when the block ends without an error, so
    that a process killed midway leaves nothing that looks finished.

    Yields:
        The folder and True where it is there; an empty one to fill and False where it is not.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{final}.lock"):
        if final.is_dir():
            yield final, True
            return
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial, False
        partial.replace(final)


def model_key(spec: str) -> str | None:
    """Returns a key of a model's files, or None where it is a Hub id that is not on this machine yet.

    A folder is known by its files' names, sizes and times; a snapshot of the Hub by its commit.
    """
    path = Path(encoder_path(spec))
    if path.is_dir():
        stats = [
            (str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns)
            for file in sorted(path.rglob("*"))
            if file.is_file()
        ]
        return joint_key(str(path.resolve()), stats)
    from huggingface_hub import try_to_load_from_cache

    # A bare name means the organisation sentence-transformers, as SentenceTransformer has it.
    for repo_id in (spec,) if "/" in spec else (f"sentence-transformers/{spec}", spec):
        found = try_to_load_from_cache(repo_id, "config.json")
        if isinstance(found, str):
            return joint_key(repo_id, Path(found).parent.name)
    return None
