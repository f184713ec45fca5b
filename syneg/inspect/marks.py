"""Marks what a document shares with the query and with the positive, and where it differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from bm25s.stopwords import STOPWORDS_EN

from syneg.text import letter_runs, search_form, words

QUERY, SHARED, NEW = "q", "s", "n"
RUN = 3
"""So many words in a row, not all of them stop words, make a shared passage; twice as many characters in
scripts without blanks between words."""

LIKE = 0.1
"""Where so large a share of the words is in shared passages, the words that differ are marked too."""

MAX_WORDS = 1200
"""Longer documents are cut."""

_STOP = frozenset(STOPWORDS_EN)


@dataclass(frozen=True)
class Piece:
    """A stretch of text and its marks: any of QUERY, SHARED and NEW, separated by spaces."""

    text: str
    marks: str


def content_words(text: str) -> set[str]:
    """Returns the words that a text is searched by, stop words left out."""
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
    runs, complete = _runs(text)
    forms = [search_form(text[start:end]) for start, end in runs]
    wanted = _asked_for(text, runs, content_words(query))
    shared: set[int] = set()
    known: set[str] | None = None
    if positive is not None:
        others = [search_form(run) for run in letter_runs(positive)]
        shared = _shared(forms, others)
        known = set(others) if shared and len(shared) >= LIKE * len(runs) else None
    pieces: list[Piece] = []
    last = 0
    for at, (start, end) in enumerate(runs):
        # What is between two words of a shared passage belongs to it.
        _add(pieces, text[last:start], SHARED if {at - 1, at} <= shared else "")
        marks = [QUERY] if at in wanted else []
        marks += [SHARED] if at in shared else []
        marks += [NEW] if known is not None and forms[at] not in known and forms[at] not in _STOP else []
        _add(pieces, text[start:end], " ".join(marks))
        last = end
    _add(pieces, text[last:] if complete else " …", "")
    return pieces


def _runs(text: str) -> tuple[list[tuple[int, int]], bool]:
    """Returns where the words of a text are, and whether these are all of them."""
    runs, end = [], 0
    found = letter_runs(text)
    for run in found[:MAX_WORDS]:
        start = text.index(run, end)
        end = start + len(run)
        runs.append((start, end))
    return runs, len(found) <= MAX_WORDS


def _asked_for(text: str, runs: list[tuple[int, int]], wanted: set[str]) -> set[int]:
    """Returns the runs that hold a word of the query; without blanks a word is two characters in a row."""
    found = {i for i, (start, end) in enumerate(runs) if not wanted.isdisjoint(words(text[start:end]))}
    for i, ((start, end), (after, last)) in enumerate(pairwise(runs)):
        if end == after and not wanted.isdisjoint(words(text[start:last])):
            found |= {i, i + 1}
    return found


def _shared(forms: list[str], others: list[str]) -> set[int]:
    """Returns the words of the runs that the positive has too."""
    length = RUN if sum(len(form) == 1 for form in forms) * 2 <= len(forms) else 2 * RUN
    runs = {run for run in _windows(others, length) if not _STOP.issuperset(run)}
    return {at for i, run in enumerate(_windows(forms, length)) if run in runs for at in range(i, i + length)}


def _windows(forms: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(forms[i:] for i in range(length)), strict=False)


def _add(pieces: list[Piece], text: str, marks: str) -> None:
    if not text:
        return
    if pieces and pieces[-1].marks == marks:
        pieces[-1] = Piece(pieces[-1].text + text, marks)
    else:
        pieces.append(Piece(text, marks))
