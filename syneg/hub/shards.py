"""The Parquet shards of a split: written in bounded memory, checked, and read without loading the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features
from datasets.arrow_writer import ParquetWriter

from syneg.errors import InputError

BATCH_ROWS = 500
"""Rows of a Parquet row group. At 20 negatives of 400 characters a row, about 4 MB."""

SHARD_BYTES = 256 * 2**20
"""A shard is closed once its file is this large, in bytes."""


@dataclass(frozen=True)
class SplitFiles:
    """What was written for one split of one configuration.

    Attributes:
        features: The columns.
        num_examples: Rows.
        num_bytes: Size in memory (Arrow), in bytes.
        files: Paths relative to the folder, and their sizes on disk in bytes.
    """

    features: Features
    num_examples: int
    num_bytes: int
    files: dict[str, int]


class SplitWriter:
    """Writes one split, row by row, in shards of bounded size; memory does not grow with the rows.

    Made by `FolderWriter.open_split`.

    Args:
        folder: The folder being written.
        config: The configuration.
        split: The split.
        features: The columns.
        shard_bytes: A shard is closed once its file is this large, in bytes.
    """

    def __init__(self, folder: Path, config: str, split: str, features: Features, shard_bytes: int) -> None:
        self._folder, self._config, self._split = folder, config, split
        self._features, self._shard_bytes = features, shard_bytes
        self._shards: list[Path] = []
        self._writer: ParquetWriter | None = None
        self.num_examples = 0
        self.num_bytes = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds one row.

        Raises:
            InputError: Where the row's columns are not those of the split.
        """
        if row.keys() != self._features.keys():
            strange = sorted(row.keys() ^ self._features.keys())[0]
            state = "is missing from" if strange in self._features else "is not a column of"
            raise InputError(
                f"{self._config}/{self._split}, row {self.num_examples}: {strange!r} {state} it "
                f"(columns: {', '.join(self._features)})."
            )
        writer = self._shard()
        writer.write(dict(row))
        self.num_examples += 1
        if self.num_examples % BATCH_ROWS == 0:
            self._close_if_large()

    def add_dataset(self, dataset: Dataset) -> None:
        """Adds the rows of a `datasets.Dataset` without turning them into Python objects."""
        for table in dataset.select_columns(list(self._features)).with_format("arrow").iter(BATCH_ROWS):
            writer = self._shard()
            writer.write_table(table)
            self.num_examples += table.num_rows
            self._close_if_large()

    def close(self) -> SplitFiles:
        """Closes the last shard, gives the shards their names and returns what was written."""
        self._close_shard()
        count, files = len(self._shards), {}
        for i, path in enumerate(self._shards):
            final = path.with_name(f"{self._split}-{i:05d}-of-{count:05d}.parquet")
            path.rename(final)
            files[final.relative_to(self._folder).as_posix()] = final.stat().st_size
        return SplitFiles(self._features, self.num_examples, self.num_bytes, files)

    def abandon(self) -> None:
        """Closes the open file, if any; what is in it is of no use."""
        if self._writer is not None:
            self._writer.close()

    def _shard(self) -> ParquetWriter:
        if self._writer is None:
            path = self._folder / self._config / f"{self._split}-{len(self._shards):05d}.parquet"
            path.parent.mkdir(exist_ok=True)
            self._shards.append(path)
            self._writer = ParquetWriter(
                path=str(path), features=self._features, writer_batch_size=BATCH_ROWS
            )
        return self._writer

    def _close_if_large(self) -> None:
        if self._writer is not None and self._writer.stream.tell() >= self._shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            _, num_bytes = self._writer.finalize()
            self.num_bytes += num_bytes
            self._writer = None


def shard_name(path: Path) -> tuple[str, int, int]:
    """Returns split, number and count of a shard named ``<split>-00000-of-0000N.parquet``."""
    try:
        split, number, _, count = path.stem.rsplit("-", 3)
        return split, int(number), int(count)
    except ValueError:
        raise InputError(f"{path}: not a shard's name (<split>-00000-of-0000N.parquet).") from None


def read_split(folder: Path, shards: list[Path]) -> SplitFiles:
    """Returns what the shards of a split hold, from their footers.

    Raises:
        InputError: Where a shard is missing or broken.
    """
    rows, size, files = 0, 0, {}
    features = None
    for shard in shards:
        try:
            metadata = pq.read_metadata(shard)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{shard}: missing or broken shard ({reason}). Build the folder again."
            ) from None
        features = features or Features.from_arrow_schema(metadata.schema.to_arrow_schema())
        rows += metadata.num_rows
        size += sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        files[shard.relative_to(folder).as_posix()] = shard.stat().st_size
    assert features is not None
    return SplitFiles(features, rows, size, files)


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
