"""Completions read as data: JSON in, fields or a named failure out. Nothing is ever evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

TRUNCATED = "truncated"
NOT_JSON = "not_json"
WRONG_SHAPE = "wrong_shape"
EMPTY = "empty"
PROMPT_TOO_LONG = "prompt_too_long"
FAILURES = (TRUNCATED, NOT_JSON, WRONG_SHAPE, EMPTY, PROMPT_TOO_LONG)
"""The kinds of failure."""

_THINKING = re.compile(r"\A\s*(?:<think(?:ing)?>)?.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"\A\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)


class ParseFailure(Exception):
    """A completion that cannot be used.

    Attributes:
        kind: One of `FAILURES`.
        detail: What is wrong, for people.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


def strip_thinking(text: str) -> tuple[str, bool]:
    """Returns the text without a reasoning model's thinking before it, and whether there was any.

    Thinking that was never closed is left alone: it fails to parse and is counted as such.
    """
    if "</think" not in text:
        return text, False
    # A JSON string may well talk about the tag; what starts as JSON has no thinking before it.
    if text.lstrip().startswith(("{", "[", "```")):
        return text, False
    stripped = _THINKING.sub("", text, count=1)
    return stripped, stripped != text


def parse_object(text: str, finish_reason: str) -> dict[str, Any]:
    """Returns the JSON object that a completion holds.

    Args:
        text: The completion.
        finish_reason: Why the engine stopped; "length" tells a cut-off text from a malformed one.

    Raises:
        ParseFailure: empty, truncated, not_json, wrong_shape or prompt_too_long.
    """
    if finish_reason == PROMPT_TOO_LONG:
        raise ParseFailure(PROMPT_TOO_LONG, "the prompt does not fit the model's context")
    text, _ = strip_thinking(text)
    fence = _FENCE.match(text)
    text = fence[1] if fence else text
    if not text.strip():
        kind = TRUNCATED if finish_reason == "length" else EMPTY
        raise ParseFailure(kind, "the completion holds no text")
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        if finish_reason == "length":
            raise ParseFailure(TRUNCATED, "cut off at the limit of tokens") from None
        problem = getattr(error, "msg", None) or type(error).__name__
        raise ParseFailure(NOT_JSON, f"{problem} (character {getattr(error, 'pos', 0)})") from None
    if not isinstance(value, dict):
        raise ParseFailure(WRONG_SHAPE, f"expected a JSON object, found a {type(value).__name__}")
    return value


def text_field(
    fields: Mapping[str, Any], name: str, required: bool = True, blank: bool = False
) -> str | None:
    """Returns a field's text, stripped.

    Args:
        fields: The parsed object.
        name: The field.
        required: Whether it must be there; None is returned where it need not and is not.
        blank: Whether it may be blank.

    Raises:
        ParseFailure: wrong_shape where it is missing, not a string or not encodable (a lone
            surrogate), empty where it is blank.
    """
    value = fields.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str):
        found = "missing" if name not in fields else f"a {type(value).__name__}, not a string"
        raise ParseFailure(WRONG_SHAPE, f"field {name!r} is {found}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ParseFailure(WRONG_SHAPE, f"field {name!r} holds half a surrogate pair") from None
    # NUL survives JSON but not every reader of Parquet; no document means one.
    value = value.replace("\x00", "").strip()
    if not value and not blank:
        raise ParseFailure(EMPTY, f"field {name!r} is blank")
    return value
