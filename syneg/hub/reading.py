"""Reading parts of a data set, from a folder or from the Hub, without loading the whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from syneg.errors import InputError
from syneg.hub.network import reading_errors

CARD = "README.md"
MANIFEST = "syneg.json"
"""What made the data set, for machines. Also the mark of a folder that may be overwritten."""

FORMAT = "syneg-dataset"


class Shards:
    """The rows of some Parquet files as one sequence; only the row groups that are asked for are read.

    Args:
        files: Paths, or open files. Open files are closed with the shards.
    """

    def __init__(self, files: Iterable[Path | IO[bytes]]) -> None:
        self._stack = ExitStack()
        self._groups: list[tuple[pq.ParquetFile, int, int]] = []
        for file in files:
            if not isinstance(file, Path):
                self._stack.enter_context(file)
            reader = self._stack.enter_context(pq.ParquetFile(file))
            for group in range(reader.num_row_groups):
                self._groups.append((reader, group, reader.metadata.row_group(group).num_rows))

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return sum(rows for _, _, rows in self._groups)

    def rows(self, positions: Iterable[int]) -> list[dict[str, Any]]:
        """Returns the rows at these positions, in order of position."""
        wanted, found, start = sorted(set(positions)), [], 0
        for reader, group, rows in self._groups:
            here = [row - start for row in wanted if start <= row < start + rows]
            if here:
                found += reader.read_row_group(group).take(here).to_pylist()
            start += rows
        return found

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column of strings whole, equal values held once; no other column is read."""
        parts = [
            reader.read_row_group(group, columns=[name])[name].dictionary_encode()
            for reader, group, _ in self._groups
        ]
        chunks = [chunk for part in parts for chunk in part.chunks]
        return pa.chunked_array(chunks, pa.dictionary(pa.int32(), pa.string())).unify_dictionaries()


def spaced(total: int, count: int) -> Sequence[int]:
    """Returns `count` evenly spaced positions below `total`, or all where there are fewer."""
    return sorted({i * total // count for i in range(count)}) if total and count else []


def evenly_spaced(files: Iterable[Path], count: int) -> list[dict[str, Any]]:
    """Returns `count` rows of Parquet files, evenly spaced, reading one row group for each."""
    with Shards(files) as shards:
        return shards.rows(spaced(len(shards), count))


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Returns what made the data set of a folder; None where the folder is not ours."""
    try:
        return _manifest((path / MANIFEST).read_bytes())
    except OSError:
        return None


def _manifest(content: bytes) -> dict[str, Any] | None:
    try:
        manifest = json.loads(content)
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


class Published:
    """A data set where it lies: a folder here, or a repository on the Hub, read over the network.

    Args:
        spec: A folder, or a Hub id, with ``@revision`` where it is not the newest.

    Raises:
        InputError: Where there is no such data set, or it was not made by this package.
    """

    def __init__(self, spec: str | Path) -> None:
        self.spec = str(spec)
        if Path(spec).is_dir():
            self._system, self._root = fsspec.filesystem("file"), str(Path(spec).absolute())
        elif self.spec.count("/") == 1 and not self.spec.startswith((".", "/")):
            self._system, self._root = fsspec.filesystem("hf"), f"datasets/{self.spec}"
        else:
            raise InputError(f"{self.spec!r}: neither a folder here nor a Hub id (owner/name).")
        with reading_errors(self.spec):
            content = self._read(MANIFEST)
        manifest = _manifest(content) if content is not None else None
        if manifest is None:
            raise InputError(
                f"{self.spec!r}: no data set of ours here or on the Hub ({MANIFEST} is missing or not ours)."
            )
        self.manifest = manifest

    def splits(self, config: str = "default") -> list[str]:
        """Returns the splits of a configuration that have rows."""
        names = (Path(path).name for path in self._glob(f"{config}/*-00000-of-*.parquet"))
        return sorted(name.rsplit("-", 3)[0] for name in names)

    def open(self, config: str, split: str) -> Shards:
        """Opens the shards of a split; there are none where it has no rows."""
        paths = sorted(self._glob(f"{config}/{split}-*-of-*.parquet"))
        return Shards([self._system.open(path, "rb") for path in paths])

    def _glob(self, pattern: str) -> list[str]:
        return [str(path) for path in self._system.glob(f"{self._root}/{pattern}")]

    def _read(self, name: str) -> bytes | None:
        try:
            return self._system.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
