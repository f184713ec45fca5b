"""The journal: every completion ever paid for, appended as it arrives.

A folder of JSON Lines files. Each process writes a file of its own, so several processes and
machines may fill one folder side by side; reading takes all files together. A line is written with
one unbuffered write, so killing the process loses nothing that was written; `fsync` follows at most
a second later, so a machine that loses power loses at most that second. A line torn by either is
passed over and counted. Which of two entries with one key counts does not depend on their order.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from syneg.errors import InputError
from syneg.generation.index import LocationIndex
from syneg.generation.requests import Completion, Request, digest

_KEY_START, _KEY_END = len(b'{"key":"'), len(b'{"key":"') + 64
_PLACE_START = _KEY_END + len(b'","place":"')
_PLACE_END = _PLACE_START + 16
_OFFSET_BITS = 44
"""A location is a file's number and a byte offset in one integer: 2**44 bytes are 16 TiB."""


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


def place_of(query_id: str, positive_id: str, slot: int) -> int:
    """Returns the 64-bit number under which a pair's slot is indexed."""
    return digest(query_id, positive_id, slot)


def encode_line(request: Request, completion: Completion) -> bytes:
    """Returns the journal's line for a completion. Key and place come first, at fixed positions."""
    record = {
        "key": completion.key,
        "place": f"{place_of(request.query_id, request.positive_id, request.slot):016x}",
        "query_id": request.query_id,
        "positive_id": request.positive_id,
        "slot": request.slot,
        "attempt": request.attempt,
        "attributes": [dict(one) for one in request.attributes],
        "model": request.model,
        "prompt": request.prompt,
        "sampling": dict(request.sampling),
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "cached_tokens": completion.cached_tokens,
        "generator": completion.generator,
        "text": completion.text,
    }
    line = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8", "surrogatepass") + b"\n"


def decode_line(line: bytes) -> Entry | None:
    """Returns the entry of a line, or None where the line was torn."""
    try:
        record = json.loads(line.decode("utf-8", "surrogatepass"))
        completion = Completion(
            key=record["key"],
            text=record["text"],
            finish_reason=record["finish_reason"],
            prompt_tokens=record["prompt_tokens"],
            completion_tokens=record["completion_tokens"],
            cached_tokens=record["cached_tokens"],
            generator=record["generator"],
        )
        names = ("query_id", "positive_id", "slot", "attempt", "attributes", "model", "prompt", "sampling")
        return Entry(completion, **{name: record[name] for name in names})
    except (ValueError, KeyError, TypeError):
        return None


class Journal:
    """Reads a journal's folder and appends to it. Use it as a context manager.

    Only keys' and places' hashes and offsets are held in memory (about 32 bytes an entry); texts
    are read from the files when asked for.

    Args:
        folder: The folder; made with the first entry where it does not exist.
        fsync_seconds: The longest that an entry may wait for its `fsync`.

    Attributes:
        folder: The folder.
        torn: Lines that were passed over since they are incomplete.
    """

    def __init__(self, folder: str | Path, fsync_seconds: float = 1.0) -> None:
        self.folder = Path(folder)
        self.torn = 0
        self._fsync_seconds = fsync_seconds
        self._keys = LocationIndex()
        self._places = LocationIndex()
        self._files: list[Path] = []
        self._readers: dict[int, BinaryIO] = {}
        self._writer: BinaryIO | None = None
        self._writer_number = 0
        self._synced = 0.0
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"journal {self.folder}: this is a file; the journal is a folder.")
        for path in sorted(self.folder.glob("*.jsonl")):
            self._scan(path)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        """Returns the number of lines, duplicates included."""
        return len(self._keys)

    def get(self, key: str) -> Entry | None:
        """Returns the entry with this key, or None.

        Of several, the one whose completion sorts first: which that is does not depend on when,
        or in which file, they were written.
        """
        entries = [self._read(location) for location in self._keys.get(int(key[:16], 16))]
        found = [entry for entry in entries if entry is not None and entry.completion.key == key]
        return min(found, key=_rank) if found else None

    def at(self, query_id: str, positive_id: str, slot: int) -> list[Entry]:
        """Returns all entries of a pair's slot, in an order that does not depend on their arrival."""
        locations = self._places.get(place_of(query_id, positive_id, slot))
        entries = [entry for entry in map(self._read, locations) if entry is not None]
        place = (query_id, positive_id, slot)
        found = [entry for entry in entries if (entry.query_id, entry.positive_id, entry.slot) == place]
        return sorted(found, key=lambda entry: (entry.attempt, entry.completion.key, _rank(entry)))

    def entries(self) -> Iterator[Entry]:
        """Yields every entry of every file, duplicates included."""
        for path in list(self._files):
            with open(path, "rb") as file:
                for line in file:
                    entry = decode_line(line) if line.endswith(b"}\n") else None
                    if entry is not None:
                        yield entry

    def append(self, request: Request, completion: Completion) -> None:
        """Writes a completion down. When this returns, killing the process cannot lose it."""
        if completion.key != request.key:
            raise ValueError("the completion answers another request")
        if self._writer is None:
            self._open_writer()
        assert self._writer is not None
        line = encode_line(request, completion)
        offset = self._writer.tell()
        self._write_whole(line)
        self._index(line, self._writer_number, offset)
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
        self._readers = {}

    def _open_writer(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # The name is new for each process and each opening: nobody appends to a torn line.
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        path = self.folder / f"{name}.jsonl"
        self._writer = open(path, "xb", buffering=0)  # noqa: SIM115
        self._writer_number = len(self._files)
        self._files.append(path)
        self._synced = time.monotonic()
        directory = os.open(self.folder, os.O_RDONLY)
        try:
            # The file's name must outlive a power cut as well as its contents.
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write_whole(self, line: bytes) -> None:
        """Writes a line; a full disk leaves a torn line at the end of the file, and raises."""
        assert self._writer is not None
        view = memoryview(line)
        while view:
            view = view[self._writer.write(view) :]

    def _scan(self, path: Path) -> None:
        number = len(self._files)
        self._files.append(path)
        offset = 0
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"}\n") or not self._index(line, number, offset):
                    self.torn += 1
                offset += len(line)

    def _index(self, line: bytes, number: int, offset: int) -> bool:
        try:
            key = int(line[_KEY_START:_KEY_END], 16) >> 192
            place = int(line[_PLACE_START:_PLACE_END], 16)
        except ValueError:
            return False
        location = number << _OFFSET_BITS | offset
        self._keys.add(key, location)
        self._places.add(place, location)
        return True

    def _read(self, location: int) -> Entry | None:
        number, offset = location >> _OFFSET_BITS, location & ((1 << _OFFSET_BITS) - 1)
        if number not in self._readers:
            if len(self._readers) >= 64:
                self._readers.pop(next(iter(self._readers))).close()
            self._readers[number] = open(self._files[number], "rb")  # noqa: SIM115
        file = self._readers[number]
        file.seek(offset)
        return decode_line(file.readline())


def _rank(entry: Entry) -> tuple[bool, str, str]:
    """Orders entries with one key: whole ones before those cut off, then by what they say."""
    completion = entry.completion
    return (completion.finish_reason != "stop", completion.text, completion.generator)
