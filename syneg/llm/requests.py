"""Requests, completions, what came of them, and the protocol of what turns one into the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from syneg.llm.parsing import ParseFailure

Message = Mapping[str, str]
"""A chat message: role and content."""


def digest(*parts: Any, size: int = 8) -> int:
    """Returns a number in [0, 2**(8*size)) that depends on the parts alone, on any machine."""
    data = json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=size).digest(), "big")


@dataclass(frozen=True)
class Request:
    """One prompt, with everything that determines its completion, and whose it is.

    Attributes:
        model: The LLM that is asked.
        messages: The chat.
        sampling: temperature, top_p, max_tokens, seed, and the chat template's options.
        schema: The JSON schema that the completion follows.
        prompt: Strategy and version, as in "syneg/1".
        query_id: The pair's query; blank where it is a document alone that is asked about.
        positive_id: The pair's positive, or that document.
        slot: Which of the pair's results this asks for: the first one, where it asks for several.
        attempt: 0 for the first time that this slot is asked for.
        attributes: One mapping for each result asked for.
        cut: Whether a passage in it was cut to its budget.
        context: What the completion is read against, as the judged document; no part of what is asked.
    """

    model: str
    messages: Sequence[Message]
    sampling: Mapping[str, Any]
    schema: Mapping[str, Any]
    prompt: str
    query_id: str
    positive_id: str
    slot: int = 0
    attempt: int = 0
    attributes: Sequence[Mapping[str, str]] = field(default_factory=tuple)
    cut: bool = False
    context: str = ""

    @cached_property
    def key(self) -> str:
        """Hash of model, messages, sampling, schema and prompt version: 64 hexadecimal digits."""
        content = [self.model, list(self.messages), self.sampling, self.schema, self.prompt]
        data = json.dumps(content, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(data.encode()).hexdigest()

    @property
    def name(self) -> str:
        """What a message to the user calls it."""
        if not self.query_id:
            return f"document {self.positive_id!r}, slot {self.slot}, attempt {self.attempt + 1}"
        return (
            f"query {self.query_id!r}, positive {self.positive_id!r}, slot {self.slot}, "
            f"attempt {self.attempt + 1}"
        )


@dataclass(frozen=True)
class Completion:
    """What an engine answered to the request with this key.

    Attributes:
        key: The request's key.
        text: The completion as it came.
        finish_reason: "stop", "length" where it was cut off, "prompt_too_long" where the prompt
            does not fit the model's context, or what the engine says.
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens of the completion.
        cached_tokens: Tokens of the prompt that the prefix cache served.
        generator: Who wrote it.
    """

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    generator: str = ""


@dataclass
class Attempt:
    """One completion of a request, read.

    Attributes:
        request: What was asked.
        completion: What came.
        results: What the task read in it.
        failure: Why it could not be read, otherwise.
    """

    request: Request
    completion: Completion
    results: list[Any] = field(default_factory=list)
    failure: ParseFailure | None = None


@dataclass
class Outcome:
    """What a slot came to so far.

    Attributes:
        attempts: Its completions, first to last. All but the last failed.
        next_request: What to ask next; None where the slot is settled, for good or ill.
        cut: Whether a passage of the prompt was cut to its budget.
        changed: Whether the recording was made for another text, so that nothing is asked.
        not_recorded: Whether the engine is `recorded` and has no completion of this slot.
    """

    attempts: list[Attempt] = field(default_factory=list)
    next_request: Request | None = None
    cut: bool = False
    changed: bool = False
    not_recorded: bool = False


class Engine(Protocol):
    """Turns requests into completions.

    One of a user's own is derived from this class, in a file that ``--engine FILE.py:CLASS`` names. It is
    made with the LLM's name and the engine's options (``--llm``, ``--engine_options``).
    """

    def __init__(self, llm: str, options: Any) -> None:
        """Takes the LLM's name and the engine's options, where one of a user's own does not."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields a completion for each request, in any order.

        Takes requests only as fast as it can work on them, so that the caller may render lazily.
        `requests` may hold some again after it was empty: an engine that has others in flight
        then looks into it again as they end.
        """
        ...

    def close(self) -> None:
        """Frees what the engine holds. May be called twice."""
        ...
