"""Signs that an LLM answered instead of writing a document: refusal, chatter, leaked format."""

from __future__ import annotations

import re

# Only at the beginning: a document about assistants may hold such words further on.
_REFUSAL = re.compile(
    r"^\W*(?:i(?:'|’)?m (?:sorry|afraid|unable)|i am (?:sorry|afraid|unable)|sorry, (?:but )?i|"
    r"i (?:cannot|can(?:'|’)t|won(?:'|’)t|will not|must decline)\b|i apologi[sz]e|"
    r"as an? (?:ai|artificial intelligence|(?:large )?language model)\b|"
    r"unfortunately, i (?:cannot|can(?:'|’)t))",
    re.IGNORECASE,
)
_ASSISTANT = re.compile(r"\bas an? (?:ai|(?:large )?language) (?:model|assistant)\b", re.IGNORECASE)
_OPENING = re.compile(
    r"^\W*(?:(?:sure|certainly|of course|absolutely|okay|ok)\b[,!.:]|"
    r"(?:here(?:'|’)?s|here is|here are|below is|the following is) "
    r"(?:(?:a|an|the|your|my|one)\b)?[^.:\n]{0,60}"
    r"\b(?:negative|document|passage|abstract|text|rewrite|version|example)\b[^.\n]{0,60}:)",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"\bhard[- _]negative (?:document|passage|example|text|sample)s?\b|"
    r"\b(?:this|the above|the) (?:document|passage|text) (?:is|was|serves as|acts as|does) (?:a |an |not )?"
    r"(?:hard negative|negative (?:example|document|passage)|answer(?:ing)? the (?:user(?:'|’)?s )?query|"
    r"intended to)\b|\b(?:the positive document|user_query|positive_document)\b|"
    r"\blet me know if you(?:(?:'|’)d| would)? (?:need|want|like) "
    r"(?:me to|another|any (?:change|adjust|modif|other))",
    re.IGNORECASE,
)
_FORMAT = (
    (re.compile(r"</?(?:think|thinking|reasoning|answer|document|output)>", re.IGNORECASE), "a tag"),
    (re.compile(r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</s>"), "a control token"),
    (re.compile(r"^\s*```|```\s*$"), "a code fence round the whole"),
    (
        re.compile(r"[\"'](?:hard_negative\w*|negative_document|reasoning)[\"']\s*:"),
        "a JSON key",
    ),
    (re.compile(r"^\s*\{.*\}\s*$", re.DOTALL), "a JSON object"),
    (
        re.compile(r"^\W*(?:reasoning|hard[ _]negative(?:[ _]document)?)\W*(?:\n|:)", re.IGNORECASE),
        "a heading",
    ),
    (re.compile(r"(?:\\n){2,}"), "escaped line breaks"),
    (re.compile(r"\{(?:domain_name|difficult_level|length|user_query|positive_document)\}"), "a placeholder"),
)


def refusal(text: str) -> str | None:
    """Returns the words by which the text is a refusal, or None."""
    return _first(_REFUSAL, text[:200]) or _first(_ASSISTANT, text)


def chatter(text: str) -> str | None:
    """Returns the words that speak about the document instead of being it, or None."""
    return _first(_OPENING, text[:200]) or _first(_TALK, text)


def leaked_format(text: str) -> str | None:
    """Returns what of the answer's format is left in the text ("a tag '</think>'"), or None."""
    for pattern, what in _FORMAT:
        found = pattern.search(text)
        if found:
            return f"{what} {_short(found.group())!r}"
    return None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return _short(found.group()) if found else None


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."
