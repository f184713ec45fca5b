"""Texts: when two are equal, their words in every script, what is unseen, what must not reach a prompt.

What is folded here serves comparison only; texts are written out as they came in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd
import regex

_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")

# Control tokens of the chat templates in use: ChatML, Llama 2 to 4, Mistral, Gemma, DeepSeek (with
# full-width bars), Phi, GLM, the thinking and tool tags, and the tags that our own prompts use.
_NAMES = (
    r"s|bos|eos|pad|unk|mask|sop|eop|think|thinking|tool_call|tool_response|tools|function|"
    r"start_of_turn|end_of_turn|start_of_image|end_of_text|unused\d+|extra_id_\d+|0x[0-9a-f]{2}|"
    r"query|positive_document|mined_negative"
)
_BRACKETED = r"inst|system_prompt|available_tools|tool_calls|tool_results|gmask|smask|cls|sep|img|pad|unk"
_CONTROL = re.compile(
    rf"<(?=[|｜]|/?(?:{_NAMES})\s*/?>|</?sys>>)|\[(?=/?(?:{_BRACKETED})\])|(?<=[|｜])>", re.IGNORECASE
)

# One match is one estimated token: four letters or digits of an ASCII word with the space before
# it, two of another alphabet, one character of scripts written without spaces, one of all else.
_TOKEN = re.compile(r"[ ]?[A-Za-z0-9_]{1,4}|[^\W\u2e80-\U0010ffffA-Za-z0-9_]{1,2}|\n+|[^\S\n]+|\S")


# Characters of scripts that put no blanks between words: Han, kana, Bopomofo, Yi, Tangut, Nushu, and those
# of South-East Asia that Unicode's line breaking leaves to a dictionary (Thai, Lao, Khmer, Burmese ...).
# The accents of Bopomofo are left out: other scripts use them as well.
_LETTERS = r"\p{L}\p{N}_"
_MARKS = r"\p{Mn}\p{Mc}"
_BLANKLESS = (
    r"[[[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{Yi}\p{Tangut}\p{Nushu}\p{lb=SA}]"
    rf"&&[{_LETTERS}]]--[\u02b0-\u02ff]]"
)
_SPACED = rf"[[{_LETTERS}]--{_BLANKLESS}]"
_BY_PAIRS = rf"[{_BLANKLESS}||[\p{{Hangul}}&&\p{{L}}]]"
_V1 = regex.VERSION1
_NO_BLANKS = regex.compile(_BLANKLESS, _V1)
_LETTER = regex.compile(rf"[{_LETTERS}]", _V1)
_COUNTED = regex.compile(rf"{_BLANKLESS}[{_MARKS}]*|[[\S]--{_BLANKLESS}]+", _V1)
_LOOSE_BLANK = regex.compile(rf"(?<={_BLANKLESS}[{_MARKS}]*) | (?={_BLANKLESS})", _V1)
_RUN = regex.compile(rf"{_BLANKLESS}[{_MARKS}]*|{_SPACED}[{_SPACED}{_MARKS}]*", _V1)
_ASCII_RUN = re.compile(r"\w+", re.ASCII)
_WORD = regex.compile(
    rf"(?P<pairs>(?:{_BY_PAIRS}[{_MARKS}]*)+)|[{_SPACED}--{_BY_PAIRS}][[{_SPACED}{_MARKS}]--{_BY_PAIRS}]+",
    _V1,
)
_ASCII_WORD = re.compile(r"\w\w+", re.ASCII)
_SYMBOL = regex.compile(rf"{_BY_PAIRS}[{_MARKS}]*", _V1)

# What a reader does not see: soft hyphens, joiners, marks of direction, byte order marks, variants.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u180b-\u180e\u200d-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff"
    "\U000e0100-\U000e01ef"
)
_IGNORED = re.compile(f"[{_INVISIBLE}\u200b\u200c]")
# A blank of no width is one between words; a non-joiner is inside of a word behind a mark only (as in Hindi).
_NOT_IN_WORDS = regex.compile(rf"[{_INVISIBLE}]|(?<=[{_MARKS}])\u200c", _V1)
# Vowels and accents that Arabic and Hebrew may write or leave out, and the stroke that lengthens a word.
_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed]"
)
_WIDE = re.compile("[\uff01-\uff9f]+")
_HALF_PAIR = re.compile("[\ud800-\udfff]")

# Letters that need nothing of all this: Latin, Greek and Cyrillic with composed accents, and usual symbols.
_PLAIN = re.compile(
    "[\x00-\xac\xae-\u012f\u0131-\u02ff\u0386-\u0482\u048a-\u0590\u1e00-\u1eff\u2000-\u200a\u2010-\u2029"
    "\u202f-\u205f\u20a0-\u20cf\u2150-\u2bff]*"
).fullmatch
_PLAIN_WORD = re.compile(r"\w\w+")

WORDS_VERSION = f"2, Unicode {unicodedata.unidata_version}"
"""Changes where `words` returns other words for a text, so that nothing made of them is taken for current."""


def normal_text(text: str) -> str:
    """Returns the form in which two texts count as equal: what a reader cannot tell apart, and case.

    Lower case, single blanks, none beside a character of a script without blanks, one Unicode form (NFC),
    letters of one width (full-width Latin, half-width kana), nothing invisible (joiners, marks of
    direction, soft hyphens). A capital I with a dot is an i. Accents, vowel signs, figures and punctuation
    count: H₂O is not H2O.
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    plain = _PLAIN(text)
    if not plain:
        text = _seen(_IGNORED.sub("", text)).replace("İ", "i").replace("i\u0307", "i").replace("I\u0307", "i")
    # Folding takes some composed letters apart, so the form comes last (and once before, Unicode 3.13).
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = " ".join(unicodedata.normalize("NFC", folded).split())
    return folded if plain else _LOOSE_BLANK.sub("", folded)


def _seen(text: str) -> str:
    """Returns letters in one width, and a replacement character for half a surrogate pair."""
    text = _WIDE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return _HALF_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)


def words(text: str) -> list[str]:
    r"""Returns the words that a text is searched by, in lower case; none of one letter.

    Letters, figures and the marks on them make a word. Scripts without blanks between words, and Korean,
    whose words carry endings, come in overlapping pairs of characters (marks stay on theirs), one that
    stands alone as it is: what Lucene's CJKAnalyzer does, here for Thai, Lao, Khmer and Burmese as well.
    The vowel points of Arabic and Hebrew, which most texts leave out, do not count.

    Text in ASCII, and other text without marks in scripts with blanks, comes out as by bm25s and
    scikit-learn (``\b\w\w+\b``).
    """
    text = search_form(text)
    if text.isascii():
        return _ASCII_WORD.findall(text)
    if _PLAIN(text):
        return _PLAIN_WORD.findall(text)
    found = []
    for match in _WORD.finditer(text):
        if match["pairs"] is None:
            found.append(match[0])
            continue
        symbols = _SYMBOL.findall(match[0])
        found += [a + b for a, b in pairwise(symbols)] or symbols
    return found


def search_form(text: str) -> str:
    """Returns the form in which texts are searched: as `normal_text`, but blanks and words stay as they are.

    The vowel points of Arabic and Hebrew, which most texts leave out, are gone.
    """
    if text.isascii() or _PLAIN(text):
        return text.lower()
    text = unicodedata.normalize("NFC", _seen(_NOT_IN_WORDS.sub("", text))).lower().replace("i\u0307", "i")
    return _OPTIONAL.sub("", text)


def units(text: str) -> list[str]:
    """Returns what a text's length is counted in: its words, its characters where the script has no blanks.

    Words are what stands between blanks, as by `str.split`. In a text with characters of a script without
    blanks each such character is one (its marks with it), and what holds no letter and no figure is none.
    """
    if text.isascii() or _PLAIN(text) or not _NO_BLANKS.search(text):
        return text.split()
    return [piece for piece in _COUNTED.findall(text) if _LETTER.search(piece)]


def letter_runs(text: str) -> list[str]:
    """Returns the runs of letters, figures and their marks; each character where there are no blanks."""
    return (_ASCII_RUN if text.isascii() else _RUN).findall(text)


def text_keys(texts: Iterable[str]) -> np.ndarray:
    """Returns one uint64 a text, equal for texts that are equal by `normal_text`; in any run and process.

    With a million documents the chance that any two different ones share a key is about 3e-8.
    """
    return pd.util.hash_array(np.array([normal_text(text) for text in texts], dtype=object), categorize=False)


def visible(text: str) -> str:
    """Replaces characters that are not seen but act: controls, escape codes, reversed direction.

    Line feeds and tabs stay.
    """
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


def neutralise(text: str) -> str:
    """Returns the text with chat-template tokens broken up, so that no tokenizer sees one.

    A space goes between the token's first character and the rest (``<|im_end|>`` becomes
    ``< |im_end| >``): it stays readable. Half surrogate pairs become question marks.
    """
    if not text.isascii():
        # Half a surrogate pair has no UTF-8, and tokenizers refuse it.
        text = text.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(lambda match: f" {match[0]}" if match[0] == ">" else f"{match[0]} ", text)


def estimate_tokens(text: str) -> int:
    """Returns about how many tokens a text has, rather too many than too few.

    It depends on the text alone: a prompt, and with it the journal's key, must not change with
    which tokenizer happens to be installed where a journal is replayed.
    """
    return sum(1 for _ in _TOKEN.finditer(text))


def pieces(text: str) -> list[str]:
    """Returns the pieces that `estimate_tokens` counts."""
    return _TOKEN.findall(text)


def cut(text: str, max_tokens: int) -> tuple[str, bool]:
    """Returns the text cut to an estimated number of tokens, and whether anything was cut."""
    if len(text) <= max_tokens:
        return text, False
    for count, match in enumerate(_TOKEN.finditer(text)):
        if count == max_tokens:
            return text[: match.start()].rstrip(), True
    return text, False
