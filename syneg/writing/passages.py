"""Passages of documents: how a long text is cut."""

from __future__ import annotations

import math
import re
from itertools import pairwise

from syneg.text import estimate_tokens, pieces

_ENDS = (r"\n[^\S\n]*\n\s*", r"\n", r"(?<=[.!?])\s+|(?<=[。！？])", r"\s+")
"""Where a text is cut, best first: ends of paragraphs, lines, sentences, words."""


def passages(text: str, max_tokens: int) -> list[str]:
    """Returns the passages of a text, stripped; nothing else of it is lost.

    A text of more than `max_tokens` (estimated) becomes the fewest passages that this allows, of about equal
    length, cut at the ends of paragraphs; a paragraph that is too long at those of lines, then of sentences,
    then of words, and what has none of these anywhere.

    Args:
        text: The text.
        max_tokens: The most that a passage may have.
    """
    total = estimate_tokens(text)
    if total <= max_tokens:
        return [text]
    size = math.ceil(total / math.ceil(total / max_tokens))
    found: list[str] = []
    held, tokens = "", 0
    for unit in _units(text, max_tokens):
        more = estimate_tokens(unit)
        if held and (tokens >= size or tokens + more > max_tokens):
            found.append(held)
            held, tokens = "", 0
        held, tokens = held + unit, tokens + more
    return [one for passage in [*found, held] if (one := passage.strip())]


def _units(text: str, max_tokens: int, level: int = 0) -> list[str]:
    """Returns the parts of a text that are never cut, each of `max_tokens` at most."""
    if estimate_tokens(text) <= max_tokens:
        return [text]
    if level == len(_ENDS):
        parts = pieces(text)
        return ["".join(parts[i : i + max_tokens]) for i in range(0, len(parts), max_tokens)]
    ends = [match.end() for match in re.finditer(_ENDS[level], text)]
    bounds = list(dict.fromkeys([0, *ends, len(text)]))
    return [
        unit for begin, end in pairwise(bounds) for unit in _units(text[begin:end], max_tokens, level + 1)
    ]
