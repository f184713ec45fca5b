"""What every strategy shares: its interface, the registry, and the drawing of attributes."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from syneg.errors import unknown
from syneg.generation.parsing import Written, parse_object
from syneg.generation.requests import Message, digest


@dataclass(frozen=True)
class PromptOptions:
    """What the prompt is told about the source.

    Attributes:
        persona: The LLM's persona; ``{domain}`` is replaced.
        query_kind: What a query is, as in "scientific claim".
        document_kind: What a document is, as in "abstract of a scientific paper".
    """

    persona: str = "You are an expert in {domain}."
    query_kind: str = "search query"
    document_kind: str = "document"


@dataclass(frozen=True)
class Example:
    """What one prompt is rendered from. Its texts are neutralised and cut already.

    Attributes:
        query: The query.
        positive: The positive.
        attributes: One mapping (domain, difficulty, length) for each negative asked for.
    """

    query: str
    positive: str
    attributes: Sequence[Mapping[str, str]]


class Strategy(ABC):
    """Renders messages, and owns the JSON schema of the answer and its parser.

    What all requests share comes first in the messages, so that the engine's prefix cache serves
    it; the query and the positive come last. In the schema the reasoning comes first and the
    document last. Change `version` with every change of wording: it is part of the journal's key.
    """

    name: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, options: PromptOptions) -> None:
        self.options = options

    @property
    def label(self) -> str:
        """Name and version, as in "syneg/1"."""
        return f"{self.name}/{self.version}"

    @abstractmethod
    def messages(self, example: Example) -> list[Message]:
        """Returns the chat for one example."""

    @abstractmethod
    def schema(self, count: int) -> dict[str, Any]:
        """Returns the JSON schema of a completion that holds `count` negatives."""

    @abstractmethod
    def read(self, fields: Mapping[str, Any], count: int) -> list[Written]:
        """Returns the negatives in a parsed completion.

        Raises:
            ParseFailure: Where the object does not follow the schema.
        """

    @abstractmethod
    def write(self, written: Sequence[Written]) -> dict[str, Any]:
        """Returns the object that `read` would turn into these: a recorded completion's shape."""

    def parse(self, text: str, finish_reason: str, count: int) -> list[Written]:
        """Returns the negatives in a completion.

        Raises:
            ParseFailure: Where it is no JSON, is cut off, is blank or has the wrong shape.
        """
        return self.read(parse_object(text, finish_reason), count)

    def completion_text(self, written: Sequence[Written]) -> str:
        """Returns the completion that `parse` would turn into these."""
        return json.dumps(self.write(written), ensure_ascii=False)


_STRATEGIES: dict[str, type[Strategy]] = {}


def register(strategy: type[Strategy]) -> type[Strategy]:
    """Makes a strategy known by its name. Usable as a class decorator."""
    _STRATEGIES[strategy.name] = strategy
    return strategy


def make_strategy(name: str, options: PromptOptions | None = None) -> Strategy:
    """Returns the strategy with this name.

    Raises:
        InputError: For a name that is no strategy's; names the nearest.
    """
    if name not in _STRATEGIES:
        raise unknown("strategy", name, _STRATEGIES)
    return _STRATEGIES[name](options or PromptOptions())


def draw_attributes(
    values: Mapping[str, Sequence[str]], seed: int, query_id: str, positive_id: str, slot: int
) -> dict[str, str]:
    """Returns the attributes of one slot, the same wherever and whenever they are drawn.

    A pair walks through all combinations in steps coprime to their number, so its slots differ
    until every combination was used once.
    """
    total = math.prod(len(options) for options in values.values())
    drawn = digest(seed, query_id, positive_id)
    start, step = drawn % total, (drawn >> 32) % total
    while math.gcd(step, total) != 1:
        step = (step + 1) % total
    place = (start + slot * step) % total
    chosen = {}
    for name, options in values.items():
        place, i = divmod(place, len(options))
        chosen[name] = options[i]
    return chosen
