"""Marks what a document shares with the query and with the positive, and where it differs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bm25s.stopwords import STOPWORDS_EN

QUERY, SHARED, NEW = "q", "s", "n"
RUN = 3
"""So many words in a row, not all of them stop words, make a shared passage."""

LIKE = 0.1
"""Where so large a share of the words is in shared passages, the words that differ are marked too."""

MAX_WORDS = 1200
"""Longer documents are cut."""

_STOP = frozenset(STOPWORDS_EN)
_WORDS = re.compile(r"\w+|\W+")


@dataclass(frozen=True)
class Piece:
    """A stretch of text and its marks: any of QUERY, SHARED and NEW, separated by spaces."""

    text: str
    marks: str


def words(text: str) -> list[str]:
    """Returns the words of a text, in lower case."""
    return [word.casefold() for word in re.findall(r"\w+", text)]


def content_words(text: str) -> set[str]:
    """Returns the words of a text that are not stop words."""
    return {word for word in words(text) if word not in _STOP}


def overlap(query: str, document: str) -> float:
    """Returns the share of the query's content words that the document has, from 0 to 1."""
    wanted = content_words(query)
    return len(wanted & set(words(document))) / len(wanted) if wanted else 0.0


def mark(text: str, query: str, positive: str | None = None) -> list[Piece]:
    """Cuts a document into marked stretches.

    Words of the query are marked QUERY. Against a positive, runs of at least `RUN` words that it has
    too are marked SHARED, and, where these make up `LIKE` of the document, words that the positive
    does not have NEW: in a document about something else nearly every word would be.

    Args:
        text: The document.
        query: The query.
        positive: The positive; None for the positive itself.
    """
    tokens = _WORDS.findall(text)
    tokens = tokens[: 2 * MAX_WORDS]
    wanted = content_words(query)
    plain = [token.casefold() if token[0].isalnum() or token[0] == "_" else None for token in tokens]
    shared = _shared(plain, words(positive)) if positive is not None else set()
    count = sum(word is not None for word in plain)
    alike = sum(plain[at] is not None for at in shared) >= LIKE * count
    known = set(words(positive)) if positive is not None and shared and alike else None
    pieces: list[Piece] = []
    for at, (token, word) in enumerate(zip(tokens, plain, strict=True)):
        marks = [QUERY] if word in wanted else []
        marks += [SHARED] if at in shared else []
        marks += [NEW] if word and known is not None and word not in known and word not in _STOP else []
        _add(pieces, token, " ".join(marks))
    if len("".join(tokens)) < len(text):
        _add(pieces, " …", "")
    return pieces


def _shared(plain: list[str | None], positive: list[str]) -> set[int]:
    """Returns the tokens, words and what is between them, of the runs that the positive has too."""
    runs = {tuple(positive[i : i + RUN]) for i in range(len(positive) - RUN + 1)}
    runs = {run for run in runs if not _STOP.issuperset(run)}
    at = [i for i, word in enumerate(plain) if word is not None]
    shared: set[int] = set()
    for i in range(len(at) - RUN + 1):
        if tuple(plain[j] for j in at[i : i + RUN]) in runs:
            shared.update(range(at[i], at[i + RUN - 1] + 1))
    return shared


def _add(pieces: list[Piece], text: str, marks: str) -> None:
    if pieces and pieces[-1].marks == marks:
        pieces[-1] = Piece(pieces[-1].text + text, marks)
    else:
        pieces.append(Piece(text, marks))
