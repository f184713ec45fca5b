"""The journal: every completion ever paid for, appended as it arrives.

A folder of JSON Lines files. Each process writes a file of its own, so several processes and
machines may fill one folder side by side; reading takes all files together. A line is written with
one unbuffered write, so killing the process loses nothing that was written; `fsync` follows at most
a second later, so a machine that loses power loses at most that second. A line torn by either is
passed over and counted. Which of two entries with one key counts does not depend on their order.
Compaction makes one Parquet file of many.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from syneg.errors import InputError
from syneg.llm.index import LocationIndex
from syneg.llm.requests import Completion, Request, digest
from syneg.reading import reason

ROW_GROUP = 256
"""Rows in a row group of a compacted journal: what one look-up reads, about a megabyte."""

_KEY_START, _KEY_END = len(b'{"key":"'), len(b'{"key":"') + 64
_PLACE_START = _KEY_END + len(b'","place":"')
_PLACE_END = _PLACE_START + 16
_HEX = re.compile(rb"[0-9a-f]+")
_OFFSET_BITS = 44
"""A location is a file's number and, in it, an offset in bytes (or, in Parquet, a row's number)."""
_OPEN_FILES, _OPEN_GROUPS = 64, 8


@dataclass(frozen=True)
class Entry:
    """A completion, and the request it answers as far as a reader needs it.

    Attributes:
        completion: The completion, raw.
        query_id: The pair's query.
        positive_id: The pair's positive.
        slot: The pair's slot.
        attempt: 0 for the first time of asking.
        attributes: One mapping for each negative asked for.
        model: The LLM that was asked.
        prompt: Strategy and version.
        sampling: temperature, top_p, max_tokens, seed.
    """

    completion: Completion
    query_id: str
    positive_id: str
    slot: int
    attempt: int
    attributes: list[dict[str, str]]
    model: str
    prompt: str
    sampling: dict[str, Any] = field(default_factory=dict)


_REQUEST_FIELDS = (
    "query_id",
    "positive_id",
    "slot",
    "attempt",
    "attributes",
    "model",
    "prompt",
    "sampling",
)
_COMPLETION_FIELDS = (
    "key",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "generator",
    "text",
)

_KINDS: dict[str, Any] = {
    **dict.fromkeys(("key", "finish_reason", "generator", "text", "model", "prompt"), str),
    **dict.fromkeys(("query_id", "positive_id"), str),
    **dict.fromkeys(("slot", "attempt", "prompt_tokens", "completion_tokens"), int),
    "cached_tokens": int | None,
    "attributes": list,
    "sampling": dict,
}
"""What an entry holds. A line with anything else was damaged, and counts as torn."""


def has_entries(folder: str | Path) -> bool:
    """Returns whether a folder is a journal that holds anything."""
    files = (path for pattern in ("*.jsonl", "*.parquet") for path in Path(folder).glob(pattern))
    return any(path.stat().st_size for path in files)


def place_of(query_id: str, positive_id: str, slot: int) -> int:
    """Returns the 64-bit number under which a pair's slot is indexed."""
    return digest(query_id, positive_id, slot)


def entry_of(request: Request, completion: Completion) -> Entry:
    """Returns the entry for a completion.

    Raises:
        ValueError: Where the completion answers another request.
    """
    if completion.key != request.key:
        raise ValueError("the completion answers another request")
    return Entry(completion, **{name: getattr(request, name) for name in _REQUEST_FIELDS})


def encode_line(entry: Entry) -> bytes:
    """Returns the journal's line for an entry. Key and place come first, at fixed positions."""
    completion = entry.completion
    record = {
        "key": completion.key,
        "place": f"{place_of(entry.query_id, entry.positive_id, entry.slot):016x}",
        **{name: getattr(entry, name) for name in _REQUEST_FIELDS},
        **{name: getattr(completion, name) for name in _COMPLETION_FIELDS},
    }
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return line.encode("utf-8", "surrogatepass") + b"\n"


def decode_line(line: bytes) -> Entry | None:
    """Returns the entry of a line, or None where the line was torn."""
    try:
        record = json.loads(line.decode("utf-8", "surrogatepass"))
        if not all(isinstance(record[name], kinds) for name, kinds in _KINDS.items()):
            return None
        completion = Completion(**{name: record[name] for name in _COMPLETION_FIELDS})
        return Entry(completion, **{name: record[name] for name in _REQUEST_FIELDS})
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def hashes_of(line: bytes) -> tuple[int, int] | None:
    """Returns the hashes of a line's key and place, or None where the line was torn."""
    return _hashes(line[_KEY_START:_KEY_END], line[_PLACE_START:_PLACE_END])


def _hashes(key: bytes, place: bytes) -> tuple[int, int] | None:
    # `int` alone would take blanks, signs and underscores for parts of a number.
    if len(key) != 64 or len(place) != 16 or not (_HEX.fullmatch(key) and _HEX.fullmatch(place)):
        return None
    return int(key, 16) >> 192, int(place, 16)


class Journal:
    """Reads a journal's folder and appends to it. Use it as a context manager.

    Only keys' and places' hashes and offsets are held in memory (about 32 bytes an entry); texts
    are read from the files when asked for.

    Args:
        folder: The folder; made with the first entry where it does not exist.
        paths: The files to read, where not all of the folder.
        fsync_seconds: The longest that an entry may wait for its `fsync`.

    Attributes:
        folder: The folder.
        torn: Lines that were passed over since they are incomplete or damaged; one that is damaged
            behind its key is found, and counted, when it is read.

    Raises:
        InputError: Where the folder is a file.
    """

    def __init__(
        self, folder: str | Path, paths: Sequence[Path] | None = None, fsync_seconds: float = 1.0
    ) -> None:
        self.folder = Path(folder)
        self.torn = 0
        self._fsync_seconds = fsync_seconds
        self._keys = LocationIndex()
        self._places = LocationIndex()
        self._files: list[Path] = []
        self._readers: OrderedDict[int, Any] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._writer: BinaryIO | None = None
        self._writer_number = 0
        self._synced = 0.0
        self._last: tuple[int, Entry | None] = (-1, None)
        self._damaged: set[int] = set()
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"journal {self.folder}: this is a file; the journal is a folder.")
        for path in self.files(self.folder) if paths is None else paths:
            self._scan(path)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        """Returns the number of entries, duplicates included."""
        return len(self._keys)

    @staticmethod
    def files(folder: Path) -> list[Path]:
        """Returns the files of a journal."""
        return sorted(path for path in folder.glob("*") if path.suffix in (".jsonl", ".parquet"))

    def get(self, key: str) -> Entry | None:
        """Returns the entry with this key, or None.

        Of several, the one whose completion sorts first: which that is does not depend on when,
        or in which file, they were written.
        """
        found = [entry for _, entry in self._with_key(key)]
        return min(found, key=_rank) if found else None

    def at(self, query_id: str, positive_id: str, slot: int) -> list[Entry]:
        """Returns all entries of a pair's slot, in an order that does not depend on their arrival."""
        locations = self._places.get(place_of(query_id, positive_id, slot))
        entries = [entry for entry in map(self.read, locations) if entry is not None]
        place = (query_id, positive_id, slot)
        found = [entry for entry in entries if (entry.query_id, entry.positive_id, entry.slot) == place]
        return sorted(found, key=lambda entry: (entry.attempt, entry.completion.key, _rank(entry)))

    def locations(self) -> Iterator[int]:
        """Yields where each entry is, duplicates included, file by file."""
        yield from self._keys.locations().tolist()

    def first_location(self, key: str) -> int:
        """Returns where the first of the entries with this key is."""
        return min(location for location, _ in self._with_key(key))

    def read(self, location: int) -> Entry | None:
        """Returns the entry at a location, or None where what is there is no entry."""
        # Looking a slot up, then its key, reads the same entry twice in a row.
        if self._last[0] == location:
            return self._last[1]
        entry = self._read(location)
        self._last = (location, entry)
        return entry

    def _read(self, location: int) -> Entry | None:
        number, offset = location >> _OFFSET_BITS, location & ((1 << _OFFSET_BITS) - 1)
        if self._files[number].suffix == ".parquet":
            entry = decode_line(self._row(number, offset))
        else:
            file = self._reader(number)
            file.seek(offset)
            entry = decode_line(file.readline())
        if entry is None and location not in self._damaged:
            self._damaged.add(location)
            self.torn += 1
        return entry

    def append(self, request: Request, completion: Completion) -> None:
        """Writes a completion down. When this returns, killing the process cannot lose it."""
        line = encode_line(entry_of(request, completion))
        if self._writer is None:
            self._open_writer()
        assert self._writer is not None
        offset = self._writer.tell()
        # A full disk leaves a torn line at the end of the file, and raises.
        view = memoryview(line)
        while view:
            view = view[self._writer.write(view) :]
        self._index(hashes_of(line), self._writer_number, offset)
        if time.monotonic() - self._synced >= self._fsync_seconds:
            self.sync()

    def sync(self) -> None:
        """Asks the disk to keep what was written."""
        if self._writer is not None:
            os.fsync(self._writer.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Syncs and closes the files. May be called twice."""
        if self._writer is not None:
            self.sync()
            self._writer.close()
            self._writer = None
        for file in self._readers.values():
            file.close()
        self._readers.clear()
        self._groups.clear()

    def _with_key(self, key: str) -> list[tuple[int, Entry]]:
        locations = self._keys.get(int(key[:16], 16))
        entries = [(location, self.read(location)) for location in locations]
        return [(at, entry) for at, entry in entries if entry is not None and entry.completion.key == key]

    def _open_writer(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # The name is new for each process and each opening: nobody appends to a torn line.
        host = socket.gethostname()
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{host}-{os.getpid()}-{secrets.token_hex(4)}"
        hidden, path = self.folder / f".{name}.tmp", self.folder / f"{name}.jsonl"
        self._writer = open(hidden, "xb", buffering=0)  # noqa: SIM115
        # Locked before it can be seen: compaction leaves alone what is locked.
        fcntl.flock(self._writer, fcntl.LOCK_EX)
        hidden.rename(path)
        self._writer_number = len(self._files)
        self._files.append(path)
        self._synced = time.monotonic()
        directory = os.open(self.folder, os.O_RDONLY)
        try:
            # The file's name must outlive a power cut as well as its contents.
            os.fsync(directory)
        finally:
            os.close(directory)

    def _scan(self, path: Path) -> None:
        number = len(self._files)
        self._files.append(path)
        if path.suffix == ".parquet":
            self._scan_parquet(number)
            return
        offset = 0
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"}\n") or not self._index(hashes_of(line), number, offset):
                    self.torn += 1
                offset += len(line)
            # Held open: compaction by another process may remove the name, but not the file.
            if len(self._readers) < _OPEN_FILES:
                self._reader(number)

    def _scan_parquet(self, number: int) -> None:
        row = 0
        with _parquet_errors(self._files[number]):
            for batch in self._reader(number).iter_batches(columns=["key", "place"]):
                for key, place in zip(batch["key"].to_pylist(), batch["place"].to_pylist(), strict=True):
                    if not self._index(_hashes(key.encode(), place.encode()), number, row):
                        self.torn += 1
                    row += 1

    def _index(self, hashes: tuple[int, int] | None, number: int, offset: int) -> bool:
        if hashes is None:
            return False
        location = number << _OFFSET_BITS | offset
        self._keys.add(hashes[0], location)
        self._places.add(hashes[1], location)
        return True

    def _reader(self, number: int) -> Any:
        """Returns a file opened for reading; the one used longest ago makes room."""
        if number not in self._readers:
            if len(self._readers) >= _OPEN_FILES:
                self._readers.popitem(last=False)[1].close()
            self._readers[number] = _open(self._files[number])
        self._readers.move_to_end(number)
        return self._readers[number]

    def _row(self, number: int, row: int) -> bytes:
        group = (number, row // ROW_GROUP)
        if group not in self._groups:
            if len(self._groups) >= _OPEN_GROUPS:
                self._groups.popitem(last=False)
            with _parquet_errors(self._files[number]):
                table = self._reader(number).read_row_group(group[1], columns=["record"])
                self._groups[group] = [bytes(record) for record in table["record"].to_pylist()]
        self._groups.move_to_end(group)
        return self._groups[group][row % ROW_GROUP]


def _open(path: Path) -> Any:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with _parquet_errors(path):
                return pq.ParquetFile(path)
        return open(path, "rb")
    except FileNotFoundError:
        raise InputError(
            f"{path}: this file of the journal is gone. If it was compacted meanwhile, run the same "
            "command again."
        ) from None


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Turns what a damaged file of a compacted journal raises into one line."""
    try:
        yield
    except FileNotFoundError:
        raise
    # pyarrow's own errors are ValueErrors, OSErrors or KeyErrors.
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: this file of the journal is damaged ({reason(error)}). Bring back a whole copy, "
            "or move it away; what it held is then asked for again."
        ) from None


def _plain(value: Any) -> Any:
    """Returns a mapping that is no dict as one, for JSON."""
    return dict(value)


def _rank(entry: Entry) -> tuple[bool, str, str]:
    """Orders entries with one key: whole ones before those cut off, then by what they say."""
    completion = entry.completion
    return (completion.finish_reason != "stop", completion.text, completion.generator)
