"""Engines and strategies that the tests make on the spot."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from syneg.llm.requests import Completion, Outcome, Request
from syneg.rows import Negative
from syneg.sources import Pair
from syneg.writing.negatives import negatives_of, read_negatives
from syneg.writing.strategies import SynegStrategy, register


def good_text(request: Request) -> str:
    """Returns a completion that depends on the request's key alone."""
    word = hashlib.sha256(request.key.encode()).hexdigest()
    return json.dumps({"reasoning": f"because {word[:8]}", "hard_negative_document": f"document {word}"})


class ScriptedEngine:
    """Answers by a function, last in first out in a window: an order that nobody may rely on."""

    def __init__(
        self, answer: Callable[[Request], Completion | str] = good_text, window: int = 4, name: str = "script"
    ) -> None:
        self.answer = answer
        self.window = window
        self.name = name
        self.asked: list[Request] = []
        self.closed = False

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        source, held = iter(requests), deque[Request]()
        while True:
            while len(held) < self.window and (request := next(source, None)) is not None:
                held.append(request)
            if not held:
                return
            request = held.pop()
            self.asked.append(request)
            answer = self.answer(request)
            if isinstance(answer, str):
                answer = Completion(request.key, answer, "stop", 100, 20, 60, self.name)
            yield answer

    def close(self) -> None:
        self.closed = True


@register
class BoundedStrategy(SynegStrategy):
    """The paper's prompt with lengths bounded in the schema, so that a random LLM comes to an end."""

    name = "bounded"

    def schema(self, count: int) -> dict:
        schema = super().schema(count)
        schema["properties"]["reasoning"] = {"type": "string", "maxLength": 20}
        schema["properties"]["hard_negative_document"] = {"type": "string", "minLength": 3, "maxLength": 40}
        return schema


@dataclass
class WrittenForPair:
    """What was written for a pair, slot by slot, by the journal alone."""

    pair: Pair
    negatives: list[Negative] = field(default_factory=list)
    mirrors: list[str | None] = field(default_factory=list)
    failures: list[tuple[Negative, str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


def written_by(pairs: Iterable[Pair], *arguments: Any, **options: Any) -> Iterator[WrittenForPair]:
    """Yields what each pair came to; arguments are those of `negatives_of`."""
    pairs = list(pairs)
    outcomes = iter(list(negatives_of(pairs, *arguments, **options).outcomes()))
    generation = negatives_of(pairs, *arguments, **options)
    for pair, answers in zip(pairs, generation.results(), strict=True):
        result = WrittenForPair(pair, outcomes=[next(outcomes)[1] for _ in answers])
        for answer in answers:
            negatives, mirrors, raw = read_negatives(answer)
            result.negatives += negatives
            result.mirrors += mirrors
            if raw is not None:
                result.failures.append((raw, str(answer.failure)))
        yield result
