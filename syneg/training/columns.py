"""Training rows of any origin: which columns are read, and as what."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from syneg.errors import InputError
from syneg.reading import columns_seen
from syneg.training.mixing import ANONYMOUS, Candidate

ROW_QUERY_COLUMNS = ("query", "anchor", "question", "sentence1")
ROW_POSITIVE_COLUMNS = ("positive", "pos", "answer", "passage", "document", "sentence2")
NEGATIVE_COLUMNS = (
    "negative, negatives, neg, negs, hard_negative, hard_negatives, hard_neg, hard_negs, each also with a "
    "number (negative_1) or with text, doc, document, passage, context or ctx (negative_passages); - or a "
    "blank may stand for _"
)
"""What is read as negatives, in words."""

_NEGATIVE = re.compile(r"(hard_?)?neg(ative)?(s)?(_(text|doc|document|passage|context|ctx)(s)?)?(_?\d+)?")
_LIKE_NEGATIVE = re.compile(r"(?<![a-z])(hard)?neg(ative)?s?(?![a-z])")
_ABOUT_NEGATIVES = re.compile(r"_(id|pid|docid|score|rank|source|label|title|url|count)s?(_?\d+)?$")


@dataclass(frozen=True)
class TrainingRow:
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


@dataclass(frozen=True)
class Columns:
    """Which columns hold what.

    Attributes:
        query: The column of the queries.
        positive: The column of the positives.
        negatives: The columns of negatives, in the row's order.
        unused: Columns whose names look like negatives that are not read; what only tells about
            negatives that are read, such as their scores, is not among them.
    """

    query: str
    positive: str
    negatives: tuple[str, ...]
    unused: tuple[str, ...]

    @classmethod
    @lru_cache(maxsize=64)
    def among(cls, names: tuple[str, ...]) -> Columns:
        """Finds the columns.

        Raises:
            InputError: Where there is none of queries or of positives.
        """
        plain = {name: _plain_name(name) for name in names}
        negatives = tuple(name for name in names if _NEGATIVE.fullmatch(plain[name]))
        unused = tuple(
            name
            for name in names
            if name not in negatives
            and _LIKE_NEGATIVE.search(plain[name])
            and not (negatives and _ABOUT_NEGATIVES.search(plain[name]))
        )
        query = _first(ROW_QUERY_COLUMNS, names, "query")
        return cls(query, _first(ROW_POSITIVE_COLUMNS, names, "positive"), negatives, unused)

    def refuse(self, column: str) -> InputError:
        """Returns the error for a column that looks like negatives and is not read."""
        return InputError(
            f"column {column!r} looks like negatives and would not be used; rename or remove it. Read as "
            f"negatives: {NEGATIVE_COLUMNS}."
        )


def _plain_name(name: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).casefold()
    return re.sub(r"[^a-z0-9]+", "_", words)


def _first(known: tuple[str, ...], names: tuple[str, ...], kind: str) -> str:
    name = next((name for name in known if name in names), None)
    if name is None:
        found = columns_seen(names)
        raise InputError(
            f"a row has no {kind}: none of the columns {', '.join(known)} is there (found: {found}). "
            "Rename the column."
        )
    return name


def read_row(row: Mapping[str, Any], with_negatives: bool = True) -> TrainingRow:
    """Reads a row of any origin.

    Args:
        row: The row.
        with_negatives: Whether its negatives are wanted; else what stands there is left alone.

    Raises:
        InputError: Where the query, the positive or a negative is missing or is no text, or where a
            column looks like negatives and is not read.
    """
    columns = Columns.among(tuple(row))
    query, positive = _text(row, columns.query), _text(row, columns.positive)
    query_id, positive_id = text_id(row.get("query_id")), text_id(row.get("positive_id"))
    if query_id is not None and positive_id is not None:
        # A mirror shares its ids with no other row, but its origin is part of what it is.
        is_made = row.get("origin") not in (None, "source", "written")
        identity = f"{query_id}/{positive_id}" + "/mirror" * is_made
    else:
        digest = hashlib.blake2b(f"{query}\x1f{positive}".encode(), digest_size=8)
        identity = digest.hexdigest()
    candidates: list[Candidate] = []
    if with_negatives:
        for name in columns.unused:
            if isinstance(row[name], str | list | tuple | Mapping):
                raise columns.refuse(name)
        candidates = [candidate for name in columns.negatives for candidate in _candidates(row, name)]
    return TrainingRow(identity, query, positive, query_id, positive_id, candidates)


def text_id(value: Any) -> str | None:
    """Returns an id as text; ids that are numbers count as equal to their digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    # What pandas makes of whole numbers where one is missing.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def row_name(row: Mapping[str, Any]) -> str:
    """Returns what a person finds a row by: its ids, or how its texts begin."""
    ids = [text_id(row.get(name)) for name in ("query_id", "positive_id")]
    if any(ids):
        return "/".join(word for word in ids if word)
    known = (*ROW_QUERY_COLUMNS, *ROW_POSITIVE_COLUMNS)
    shown = [f"{name} {row[name]!r:.40}" for name in known if isinstance(row.get(name), str)]
    return ", ".join(shown) or "without ids"


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise no_text(name, value, row)
    return value


def no_text(column: str, value: Any, row: Mapping[str, Any], number: int | None = None) -> InputError:
    """Returns the error for a column of a row that holds no text; the row's number is from 0."""
    where = row_name(row) if number is None else f"row {number}, {row_name(row)}"
    return InputError(
        f"column {column!r} of a row holds {value!r:.60}, which is no text ({where}); mend or drop the row."
    )


def _candidates(row: Mapping[str, Any], name: str) -> Iterator[Candidate]:
    value = row[name]
    if isinstance(value, str):
        value = _listed(row, name, value)
    for item in value if isinstance(value, list | tuple) else [value]:
        if item is None:
            continue
        text = item.get("text") if isinstance(item, Mapping) else item
        if not isinstance(text, str):
            raise InputError(
                f"column {name!r} of a row holds {item!r:.60}; expected texts, or negatives with 'text' "
                f"and 'source' ({row_name(row)})."
            )
        if not text.strip():
            raise no_text(name, item, row)
        if not isinstance(item, Mapping):
            yield Candidate(text, ANONYMOUS)
            continue
        yield Candidate(
            text=text,
            source=str(item.get("source") or ANONYMOUS),
            doc_id=text_id(item.get("doc_id")),
            hardness=_number(item.get("score")),
            difficulty=item.get("difficulty"),
            teacher_score=_number(item.get("teacher_score")),
            positive_teacher_score=_number(item.get("positive_teacher_score")),
        )


def _listed(row: Mapping[str, Any], name: str, value: str) -> Any:
    """Returns the list that a text in a column of several negatives is in JSON, as CSV files have it."""
    matched = _NEGATIVE.fullmatch(_plain_name(name))
    several = matched is not None and (matched[3] or matched[6]) and not matched[7]
    if not several or not value.lstrip().startswith("["):
        return value
    try:
        items = json.loads(value)
    except ValueError:
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value  # A text that begins with a bracket.
        raise InputError(
            f"column {name!r} of a row holds a list in Python's notation, {value!r:.60} ({row_name(row)}); "
            "write it as JSON, or as a list column in Parquet or JSON lines."
        ) from None
    return items if all(isinstance(item, str | Mapping) for item in items) else value


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


# Before the first step ----------------------------------------------------------------------------------
