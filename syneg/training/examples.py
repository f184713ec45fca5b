"""Reading rows of any origin: ours, triplets, n-tuples, lists of negatives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from syneg.errors import InputError
from syneg.reading import columns_seen
from syneg.training.mixing import ANONYMOUS, Candidate

QUERY_COLUMNS = ("query", "anchor", "question", "sentence1")
POSITIVE_COLUMNS = ("positive", "pos", "answer", "passage", "document", "sentence2")
_NEGATIVE_COLUMN = re.compile(r"neg(ative)?s?(_?\d+)?")


@dataclass(frozen=True)
class Example:
    """A row, read.

    Attributes:
        identity: What tells it from other rows, in any order and epoch: its ids, or a hash of its texts.
        query: The query.
        positive: The positive.
        query_id: The query's id, or None.
        positive_id: The positive's id, or None.
        candidates: The negatives that may be drawn, in the row's order.
    """

    identity: str
    query: str
    positive: str
    query_id: str | None
    positive_id: str | None
    candidates: list[Candidate]


def read_example(row: Mapping[str, Any]) -> Example:
    """Reads a row of any origin.

    Raises:
        InputError: Where the query or the positive is missing, or is no text.
    """
    query = _text(row, QUERY_COLUMNS, "query")
    positive = _text(row, POSITIVE_COLUMNS, "positive")
    query_id, positive_id = _id(row, "query_id"), _id(row, "positive_id")
    if query_id is not None and positive_id is not None:
        # A mirror shares its ids with no other row, but its origin is part of what it is.
        identity = f"{query_id}/{positive_id}" + ("" if row.get("origin") in (None, "source") else "/mirror")
    else:
        digest = hashlib.blake2b(f"{query}\x1f{positive}".encode(), digest_size=8)
        identity = digest.hexdigest()
    return Example(identity, query, positive, query_id, positive_id, list(_candidates(row)))


def _text(row: Mapping[str, Any], names: tuple[str, ...], kind: str) -> str:
    name = next((name for name in names if name in row), None)
    if name is None:
        found = columns_seen(row)
        raise InputError(
            f"a row has no {kind}: none of the columns {', '.join(names)} is there (found: {found}). "
            "Rename the column."
        )
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"column {name!r} of a row holds {value!r:.60}, which is no text; mend or drop the row."
        )
    return value


def _id(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    return None if value is None else str(value)


def _candidates(row: Mapping[str, Any]) -> Iterator[Candidate]:
    for name, value in row.items():
        if not _NEGATIVE_COLUMN.fullmatch(name) or value is None:
            continue
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, str):
                yield Candidate(item, ANONYMOUS)
            elif isinstance(item, Mapping) and isinstance(item.get("text"), str):
                yield Candidate(
                    text=item["text"],
                    source=item.get("source") or ANONYMOUS,
                    doc_id=item.get("doc_id"),
                    hardness=item.get("score"),
                    difficulty=item.get("difficulty"),
                    teacher_score=item.get("teacher_score"),
                    positive_teacher_score=item.get("positive_teacher_score"),
                )
            elif item is not None:
                raise InputError(
                    f"column {name!r} of a row holds {item!r:.60}; expected texts, or negatives with 'text' "
                    "and 'source'."
                )
