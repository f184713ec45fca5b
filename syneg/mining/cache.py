"""The cache of embeddings and indexes, and what its keys are made of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from syneg.encoders import encoder_path
from syneg.mining.keys import joint_key


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
