"""Compaction of a journal: its finished files become one Parquet file."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from syneg.errors import InputError
from syneg.llm.journal import ROW_GROUP, Entry, Journal, encode_line, place_of


@dataclass
class CompactionReport:
    """What a compaction did.

    Attributes:
        files: Files that were taken in and removed.
        busy: Files left alone, since a process is writing to them.
        entries: Entries written.
        duplicates: Entries that were left out as others hold the same completion.
        torn: Torn lines that were left out.
        bytes_before: Of the files taken in.
        bytes_after: Of the Parquet file.
    """

    files: int = 0
    busy: int = 0
    entries: int = 0
    duplicates: int = 0
    torn: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def lines(self) -> list[str]:
        """Returns what was done, for people."""
        return [
            f"{self.files} files with {self.entries} completions made into one: "
            f"{self.bytes_before} bytes before, {self.bytes_after} after",
            f"left out: {self.duplicates} duplicates, {self.torn} torn lines; "
            f"left alone: {self.busy} files that are being written",
        ]


def compact_journal(folder: str | Path) -> CompactionReport:
    """Makes one Parquet file of a journal's files, except of those that are being written.

    Reading gives the same before and after. A file is removed only when the new one is on the disk,
    so stopping this at any moment leaves at worst the same entries twice, which is harmless.

    Args:
        folder: The journal's folder.

    Raises:
        InputError: Where there is no such folder, or another compaction is at work in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"journal {folder}: no such folder.")
    report = CompactionReport()
    with _alone(folder):
        paths = [path for path in Journal.files(folder) if not _is_busy(path)]
        report.busy = len(Journal.files(folder)) - len(paths)
        report.files = len(paths)
        report.bytes_before = sum(path.stat().st_size for path in paths)
        if not paths:
            return report
        with Journal(folder, paths) as journal:
            report.torn = journal.torn
            target = _write(journal, folder, report)
        for path in paths:
            path.unlink()
        report.bytes_after = target.stat().st_size if target else 0
    return report


def _write(journal: Journal, folder: Path, report: CompactionReport) -> Path | None:
    """Writes each key's entry, in the order of first arrival, to a new Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("key", pa.string()), ("place", pa.string()), ("record", pa.large_binary())])
    temporary = folder / f".compact-{secrets.token_hex(8)}.tmp"
    rows: list[dict[str, object]] = []
    with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for entry in _unique(journal, report):
            place = f"{place_of(entry.query_id, entry.positive_id, entry.slot):016x}"
            rows.append({"key": entry.completion.key, "place": place, "record": encode_line(entry)})
            if len(rows) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema))
    if not report.entries:
        temporary.unlink()
        return None
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    target = folder / f"compact-{secrets.token_hex(8)}.parquet"
    temporary.rename(target)
    return target


def _unique(journal: Journal, report: CompactionReport) -> Iterator[Entry]:
    """Yields of several entries with one key the one that counts, where the first of them stands."""
    for location in journal.locations():
        entry = journal.read(location)
        if entry is None:
            continue
        if journal.first_location(entry.completion.key) != location:
            report.duplicates += 1
            continue
        best = journal.get(entry.completion.key)
        assert best is not None
        report.entries += 1
        yield best


def _is_busy(path: Path) -> bool:
    """Returns whether a process holds the lock that a journal's writer takes."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with open(folder / ".compacting", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"journal {folder}: another compaction is at work in it.") from None
        yield
