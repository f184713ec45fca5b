"""Recorded completions: a JSONL that people exchange, or the journal of an earlier run."""

from __future__ import annotations

import shutil
import tempfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from syneg.errors import InputError
from syneg.llm.arguments import LLMArguments
from syneg.llm.index import LocationIndex
from syneg.llm.journal import Journal, place_of
from syneg.llm.requests import Completion, Request
from syneg.reading import BOM, COMPRESSED, columns_seen, json_object, open_binary, reason, utf8, whole_text
from syneg.resources import resource_path


@dataclass(frozen=True)
class Asked:
    """What a recording was made with, as far as rendering its request again needs it.

    Attributes:
        model: The LLM's name in the request.
        attributes: One mapping for each result asked for.
    """

    model: str
    attributes: list[dict[str, str]]


class Recordings(Protocol):
    """What the engine `recorded` replays."""

    def find(self, request: Request) -> Completion | None:
        """Returns the recorded completion, or None."""
        ...

    def explain(self, request: Request) -> str:
        """Says, for a request that was not found, what there is instead."""
        ...

    def close(self) -> None:
        """Closes the files. May be called twice."""
        ...


def recordings_path(args: LLMArguments, what: str, per_request: str) -> Path:
    """Returns the journal folder, or the file of lines, that `args.recordings` names.

    Args:
        args: The LLM's arguments.
        what: What is recorded, for errors, as in "completions".
        per_request: The key that says how many one completion holds; a line holds one.

    Raises:
        InputError: Where nothing is named, it does not exist, or it is a file and completions hold several.
    """
    if not args.recordings:
        raise InputError(
            f"--engine recorded needs --recordings: a JSONL of recorded {what}, or a journal folder."
        )
    path = Path(resource_path(args.recordings))
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"--recordings {path}: no such file or folder.")
        if getattr(args, per_request) != 1:
            raise InputError(
                f"--recordings {path}: a JSONL of recorded {what} has one result a line; "
                f"leave --{per_request} at 1."
            )
    return path


class PairLines:
    """A JSONL of which each line belongs to a query and a document; only offsets are held in memory.

    An id that no line has as it is written is looked for in another Unicode form.

    Args:
        path: The file.
        option: The option that named it, for errors.
        document: The key that has the document's id, beside ``query_id``.
        required: Other keys that a line must have, with a string.
        optional: Keys that it may have, with a string or null.
        repeated: Whether a pair may have several lines.
        choices: Key -> the values that it may have.

    Attributes:
        lines: How many there are.

    Raises:
        InputError: For a malformed line; names its number.
    """

    def __init__(
        self,
        path: Path,
        option: str,
        document: str,
        required: tuple[str, ...],
        optional: tuple[str, ...],
        repeated: bool = False,
        choices: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.path = path
        self.lines = 0
        self._document = document
        self._required = ("query_id", document, *required)
        self._optional = optional
        self._index = LocationIndex()
        self._forms = LocationIndex()
        self._last: tuple[Any, dict[str, Any] | None] = (None, None)
        self._choices = choices or {}
        self._file = _seekable(path)
        counts: dict[int, int] = {}
        offset = 0
        for number, line in enumerate(self._file, start=1):
            if line.strip():
                record = self._checked(line, number)
                query_id, document_id = record["query_id"], record[document]
                pair = place_of(query_id, document_id, -1)
                count = counts[pair] = counts.get(pair, -1) + 1
                if count and not repeated:
                    raise InputError(
                        f"{path}, line {number}: a second line for query {query_id!r} and "
                        f"document {document_id!r}; leave one."
                    )
                self._index.add(place_of(query_id, document_id, count), offset)
                if not count and not (query_id.isascii() and document_id.isascii()):
                    self._forms.add(place_of(*_in_one_form(query_id, document_id), 0), offset)
                self.lines += 1
            offset += len(line)
        if not self.lines:
            raise InputError(f"{option} {path}: the file holds no recorded completion.")

    def get(self, query_id: str, document_id: str, number: int = 0) -> dict[str, Any] | None:
        """Returns the pair's line of this number, from 0, or None."""
        # Who renders a request and who answers it look the same line up, one after the other.
        if self._last[0] != (query_id, document_id, number):
            self._last = (query_id, document_id, number), self._read(query_id, document_id, number)
        return self._last[1]

    def _read(self, query_id: str, document_id: str, number: int) -> dict[str, Any] | None:
        ids = self._as_written(query_id, document_id)
        for offset in self._index.get(place_of(*ids, number)):
            record = self._record_at(offset)
            if (record["query_id"], record[self._document]) == ids:
                return record
        return None

    def count(self, query_id: str, document_id: str) -> int:
        """Returns how many lines a pair has."""
        number, ids = 0, self._as_written(query_id, document_id)
        while self._index.get(place_of(*ids, number)):
            number += 1
        return number

    def _as_written(self, query_id: str, document_id: str) -> tuple[str, str]:
        """Returns the ids under which the pair's lines stand: its own, or those of another Unicode form."""
        own = query_id, document_id
        if all(map(str.isascii, own)) or self._index.get(place_of(*own, 0)):
            return own
        places = self._forms.get(place_of(*_in_one_form(*own), 0))
        # Of several that differ in form only it may be any.
        if len(places) != 1:
            return own
        record = self._record_at(places[0])
        ids = record["query_id"], record[self._document]
        return ids if _in_one_form(*ids) == _in_one_form(*own) else own

    def _record_at(self, offset: int) -> dict[str, Any]:
        self._file.seek(offset)
        return _record(self._file.readline(), str(self.path))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _checked(self, line: bytes, number: int) -> Mapping[str, Any]:
        where = f"{self.path}, line {number}"
        record = _record(line, where)
        for name in (*self._required, *self._optional):
            value = record.get(name)
            if name in self._required and name not in record:
                raise InputError(f"{where}: {name!r} is missing (found: {columns_seen(record)}).")
            if not isinstance(value, str) and (name in self._required or value is not None):
                raise InputError(f"{where}: {name!r} must be a string, not a {type(value).__name__}.")
        for name, known in self._choices.items():
            if record[name] not in known:
                raise InputError(f"{where}: the {name} is {record[name]!r:.80}, none of {', '.join(known)}.")
        return record


def _record(line: bytes, where: str) -> dict[str, Any]:
    """Returns the object of a line, its texts without half surrogate pairs, as a source has them."""
    record = json_object(utf8(line.removeprefix(BOM), where), where)
    return {name: whole_text(value) if isinstance(value, str) else value for name, value in record.items()}


def _in_one_form(query_id: str, document_id: str) -> tuple[str, str]:
    """Returns ids in one Unicode form."""
    return unicodedata.normalize("NFC", query_id), unicodedata.normalize("NFC", document_id)


def _seekable(path: Path) -> IO[bytes]:
    """Opens a file for reading at any place; a compressed one is unpacked beside, and gone when closed."""
    if path.suffix.lower() not in COMPRESSED:
        return open_binary(path)
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with open_binary(path) as packed:
            shutil.copyfileobj(packed, unpacked)
    except OSError as error:
        raise InputError(f"{path}: cannot be unpacked ({reason(error)}).") from None
    unpacked.seek(0)
    return unpacked


class RecordedJournal:
    """The journal of an earlier run.

    Args:
        folder: The journal's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        if not len(self.journal):
            raise InputError(f"--recordings {folder}: the journal holds no completion.")

    def asked_at(self, query_id: str, positive_id: str, slot: int, llm: str) -> Asked | None:
        """Returns what the slot's entry says; one made by `llm` before any other."""
        entries = self.journal.at(query_id, positive_id, slot)
        if not entries:
            return None
        entry = next((entry for entry in entries if entry.model == llm), entries[0])
        return Asked(entry.model, entry.attributes)

    def find(self, request: Request) -> Completion | None:
        """Returns the completion with the request's key."""
        entry = self.journal.get(request.key)
        return entry.completion if entry else None

    def explain(self, request: Request) -> str:
        """Says in what the entry of the same slot differs."""
        entries = self.journal.at(request.query_id, request.positive_id, request.slot)
        if not entries:
            return f"{self.journal.folder} has no entry for this pair and slot"
        entry = next((e for e in entries if e.attempt == request.attempt), entries[0])
        pairs = [
            ("llm", entry.model, request.model),
            ("strategy", entry.prompt, request.prompt),
            *((k, entry.sampling.get(k), v) for k, v in request.sampling.items()),
            ("attempt", entry.attempt, request.attempt),
        ]
        differ = [f"{name} was {then!r}, is {now!r}" for name, then, now in pairs if then != now]
        return (
            f"{self.journal.folder} has an entry for this pair and slot, but "
            f"{'; '.join(differ) or 'the texts or attributes in the prompt differ'}"
        )

    def close(self) -> None:
        """Closes the journal."""
        self.journal.close()
