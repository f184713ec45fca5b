"""Texts: when two are equal, what is unseen in them, and what must not reach a prompt as it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import pandas as pd

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


def normal_text(text: str) -> str:
    """Returns the form in which two texts count as equal: lower case, single spaces, one Unicode form."""
    folded = text.casefold()
    if not text.isascii():
        # Folding takes some composed letters apart, so the form comes last (and once before, Unicode 3.13).
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())
    return " ".join(folded.split())


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
