"""Surface features of texts, which say nothing of what a text is about."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from syneg.text import letter_runs

# Chinese, Japanese, Hindi and Arabic end a sentence otherwise, the first two without a blank.
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)|[。！？｡।॥؟۔]+")

_COUNTS: dict[str, re.Pattern[str]] = {
    "digits": re.compile(r"\d"),
    "capital letters": re.compile(r"[A-Z]"),
    "commas": re.compile(r"[,，、،]"),
    "semicolons and colons": re.compile(r"[;:；：؛]"),
    "brackets": re.compile(r"[()\[\]（）［］【】]"),
    "dashes": re.compile(r"[-–—]"),
    "quotation marks": re.compile(r"[\"“”「」『』]"),
    "line breaks": re.compile(r"\n"),
    "characters beyond ASCII": re.compile(r"[^\x00-\x7f]"),
    "double spaces": re.compile(r"  "),
}

SURFACE_FEATURES = (
    "words",
    "words in a sentence",
    "letters in a word",
    "share of different words",
    *(f"{name} per 100 characters" for name in _COUNTS),
    "ends with punctuation",
)
"""Names of the columns of `surface_features`."""


def surface_features(texts: Sequence[str]) -> np.ndarray:
    """Returns surface features, shape (texts, len(SURFACE_FEATURES)).

    The share of different words is that of the first 50, since it falls with length.
    """
    return np.array([_features(text) for text in texts], dtype=np.float64)


def _features(text: str) -> list[float]:
    words = letter_runs(text.lower())
    first = words[:50]
    characters = max(1, len(text))
    return [
        float(len(words)),
        len(words) / max(1, len(_SENTENCE.findall(text))),
        float(np.mean([len(word) for word in words])) if words else 0.0,
        len(set(first)) / max(1, len(first)),
        *(100 * len(pattern.findall(text)) / characters for pattern in _COUNTS.values()),
        float(text.rstrip()[-1:] in ".!?。！？｡।॥؟۔"),
    ]
