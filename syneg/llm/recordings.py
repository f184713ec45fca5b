"""Recorded completions: a JSONL that people exchange, or the journal of an earlier run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from syneg.errors import InputError
from syneg.llm.index import LocationIndex
from syneg.llm.journal import Journal, place_of
from syneg.llm.parsing import Written
from syneg.llm.requests import Completion, Request
from syneg.resources import resource_path
from syneg.sources import Pair
from syneg.writing.arguments import ATTRIBUTE_NAMES, GenerationArguments
from syneg.writing.strategies import Strategy

_REQUIRED = ("text",)
_OPTIONAL = (*ATTRIBUTE_NAMES, "query", "reasoning", "mirror_query", "generator")


@dataclass(frozen=True)
class Asked:
    """What a recording was made with, as far as rendering its request again needs it.

    Attributes:
        model: The LLM's name in the request.
        attributes: One mapping for each negative asked for.
    """

    model: str
    attributes: list[dict[str, str]]


class Answers(Protocol):
    """What the engine `recorded` replays."""

    def find(self, request: Request) -> Completion | None:
        """Returns the recorded completion, or None."""
        ...

    def explain(self, request: Request) -> str:
        """Says, for a request that was not found, what there is instead."""
        ...

    def close(self) -> None:
        """Closes the files."""
        ...


class Recordings(Answers, Protocol):
    """What the engine `recorded` replays as written negatives."""

    def asked(self, pair: Pair, slot: int, llm: str) -> Asked | None:
        """Returns what was asked for when the slot was recorded, or None where it was not.

        Where the slot was recorded with several LLMs, `llm` is the one to prefer.
        """
        ...

    def is_changed(self, pair: Pair, slot: int) -> bool:
        """Returns whether the recording was made for another query text."""
        ...

    def missing(self, asked: Iterable[Pair]) -> int:
        """Returns how many recordings belong to none of these pairs."""
        ...


def open_recordings(args: GenerationArguments, strategy: Strategy) -> Recordings:
    """Opens what `args.recordings` names.

    Raises:
        InputError: Where nothing is named, it does not exist, or a line of it is malformed.
    """
    if not args.recordings:
        raise InputError(
            "--engine recorded needs --recordings: a JSONL of recorded completions, or a journal folder."
        )
    path = Path(resource_path(args.recordings))
    if path.is_dir():
        return RecordedJournal(path)
    if not path.is_file():
        raise InputError(f"--recordings {path}: no such file or folder.")
    if args.negatives_per_request != 1:
        raise InputError(
            f"--recordings {path}: a JSONL of recorded completions has one negative a line; "
            "leave --negatives_per_request at 1."
        )
    return RecordedLines(path, strategy)


class PairLines:
    """A JSONL of which each line belongs to a query and a document; only offsets are held in memory.

    Args:
        path: The file.
        option: The option that named it, for errors.
        document: The key that has the document's id, beside ``query_id``.
        required: Other keys that a line must have, with a string.
        optional: Keys that it may have, with a string or null.
        repeated: Whether a pair may have several lines.

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
    ) -> None:
        self.path = path
        self.lines = 0
        self._document = document
        self._required = ("query_id", document, *required)
        self._optional = optional
        self._index = LocationIndex()
        self._file = open(path, "rb")  # noqa: SIM115
        counts: dict[int, int] = {}
        offset = 0
        for number, line in enumerate(self._file, start=1):
            if line.strip():
                record = self._checked(line, number)
                pair = place_of(record["query_id"], record[document], -1)
                count = counts[pair] = counts.get(pair, -1) + 1
                if count and not repeated:
                    raise InputError(
                        f"{path}, line {number}: a second line for query {record['query_id']!r} and "
                        f"document {record[document]!r}; leave one."
                    )
                self._index.add(place_of(record["query_id"], record[document], count), offset)
                self.lines += 1
            offset += len(line)
        if not self.lines:
            raise InputError(f"{option} {path}: the file holds no recorded completion.")

    def get(self, query_id: str, document_id: str, number: int = 0) -> dict[str, Any] | None:
        """Returns the pair's line of this number, from 0, or None."""
        for offset in self._index.get(place_of(query_id, document_id, number)):
            self._file.seek(offset)
            record: dict[str, Any] = json.loads(self._file.readline())
            if (record["query_id"], record[self._document]) == (query_id, document_id):
                return record
        return None

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _checked(self, line: bytes, number: int) -> Mapping[str, Any]:
        where = f"{self.path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where}: not JSON ({getattr(error, 'msg', 'not UTF-8')}).") from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object, found a {type(record).__name__}.")
        for name in (*self._required, *self._optional):
            value = record.get(name)
            if name in self._required and name not in record:
                raise InputError(f"{where}: {name!r} is missing (found: {', '.join(record)}).")
            if not isinstance(value, str) and (name in self._required or value is not None):
                raise InputError(f"{where}: {name!r} must be a string, not a {type(value).__name__}.")
        return record


class RecordedLines:
    """A JSONL of recorded completions.

    One JSON object a line: query_id, positive_id, text, and where known domain, difficulty, length,
    reasoning, query (as it was then), mirror_query and generator. The n-th line of a pair is the
    recording of its n-th slot.

    Args:
        path: The file.
        strategy: Whose completions the lines are turned into.

    Raises:
        InputError: For a malformed line; names its number.
    """

    def __init__(self, path: Path, strategy: Strategy) -> None:
        self.path = path
        self._strategy = strategy
        self._lines = PairLines(path, "--recordings", "positive_id", _REQUIRED, _OPTIONAL, repeated=True)

    def asked(self, pair: Pair, slot: int, llm: str) -> Asked | None:
        """Returns the recorded attributes; one that was not recorded is said to be so.

        The model is named after the file, whatever `llm` is: a journal that is filled from
        recordings must not pass for the work of the LLM that is asked next.
        """
        record = self._lines.get(pair.query_id, pair.positive_id, slot)
        if record is None:
            return None
        attributes = {name: record.get(name) or "not recorded" for name in ATTRIBUTE_NAMES}
        return Asked(f"recorded:{self.path.stem}", [attributes])

    def is_changed(self, pair: Pair, slot: int) -> bool:
        """Returns whether the line's `query` differs from the pair's."""
        record = self._lines.get(pair.query_id, pair.positive_id, slot)
        return record is not None and record.get("query", pair.query) != pair.query

    def find(self, request: Request) -> Completion | None:
        """Returns the line as a completion in the strategy's schema."""
        record = self._lines.get(request.query_id, request.positive_id, request.slot)
        if record is None or request.attempt > 0:
            return None
        written = Written(record["text"], record.get("reasoning") or "", record.get("mirror_query"))
        text = self._strategy.completion_text([written])
        generator = record.get("generator") or f"recorded:{self.path.stem}"
        return Completion(key=request.key, text=text, finish_reason="stop", generator=generator)

    def explain(self, request: Request) -> str:
        """Says how many lines there are."""
        return f"{self.path} has no line for it ({self._lines.lines} lines)"

    def missing(self, asked: Iterable[Pair]) -> int:
        """Returns how many lines belong to none of these pairs."""
        found = 0
        for pair in asked:
            slot = 0
            while self._lines.get(pair.query_id, pair.positive_id, slot) is not None:
                slot += 1
            found += slot
        return self._lines.lines - found

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


class RecordedJournal:
    """The journal of an earlier run.

    Args:
        folder: The journal's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder)
        if not len(self.journal):
            raise InputError(f"--recordings {folder}: the journal holds no completion.")

    def asked(self, pair: Pair, slot: int, llm: str) -> Asked | None:
        """Returns what the slot's entry says; one made by `llm` before any other."""
        entries = self.journal.at(pair.query_id, pair.positive_id, slot)
        if not entries:
            return None
        entry = next((entry for entry in entries if entry.model == llm), entries[0])
        return Asked(entry.model, entry.attributes)

    def is_changed(self, pair: Pair, slot: int) -> bool:
        """Returns False: the key covers the query's text, so a changed query is a miss."""
        return False

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

    def missing(self, asked: Iterable[Pair]) -> int:
        """Returns 0: a journal may well cover more than is asked."""
        return 0

    def close(self) -> None:
        """Closes the journal."""
        self.journal.close()
