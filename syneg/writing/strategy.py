"""What every strategy shares: its interface, the shape of a completion, and the registry."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from syneg.errors import InputError, unknown
from syneg.llm.parsing import WRONG_SHAPE, ParseFailure, parse_object, text_field
from syneg.llm.requests import Message, digest
from syneg.resources import class_from_file, is_class_spec

DOCUMENT = "hard_negative_document"
"""The field of the document, in the completion of every strategy that is ours."""

MIRROR_FIELD = "mirror_query"

W = TypeVar("W")
"""What one result of a completion is read as."""

S = TypeVar("S", bound="JsonStrategy[Any]")


@dataclass(frozen=True)
class PromptOptions:
    """What the prompt is told about the source, and which of its parts are on.

    Attributes:
        persona: The LLM's persona; ``{domain}`` is replaced.
        query_kind: What a query is, as in "scientific claim".
        document_kind: What a document is, as in "abstract of a scientific paper".
        attributes: Whether domain, difficulty and length are asked for (off in an ablation).
        reflection: Whether reasoning comes before the document (off in an ablation).
        mirror: Whether the completion also holds the query that its document satisfies.
    """

    persona: str = "You are an expert in {domain}."
    query_kind: str = "search query"
    document_kind: str = "document"
    attributes: bool = True
    reflection: bool = True
    mirror: bool = False


@dataclass(frozen=True)
class Written:
    """A negative as the LLM wrote it.

    Attributes:
        text: The document.
        reasoning: What the LLM wrote before it; None where the strategy asks for none.
        mirror_query: The query that the document satisfies, where it was asked for.
    """

    text: str
    reasoning: str | None = None
    mirror_query: str | None = None


@dataclass(frozen=True)
class Example:
    """What one prompt is rendered from. Its texts are neutralised and cut already.

    Attributes:
        query: The query.
        positive: The positive.
        attributes: One mapping (domain, difficulty, length) for each negative asked for; empty
            mappings where attributes are off.
        mined: For each negative asked for the mined negative to start from, if there is any.
    """

    query: str
    positive: str
    attributes: Sequence[Mapping[str, str]]
    mined: Sequence[str] = field(default_factory=tuple)


class JsonStrategy(ABC, Generic[W]):
    """What strategies share, whatever is written: the JSON schema of a completion, and its parser.

    Attributes:
        name: What it is chosen by.
        version: Of its wording.
        listed: The field of the list, where a completion holds several.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    listed: ClassVar[str]

    def __init__(self) -> None:
        self._systems: dict[int, str] = {}

    @property
    def label(self) -> str:
        """Name and version, as in "syneg/1"."""
        return f"{self.name}/{self.version}"

    def system(self, count: int) -> str:
        """Returns the text that all requests for `count` results share; see `shared`."""
        raise NotImplementedError

    def shared(self, count: int) -> str:
        """Returns `system`'s text, which is made only once."""
        if count not in self._systems:
            self._systems[count] = self.system(count)
        return self._systems[count]

    @abstractmethod
    def properties(self) -> dict[str, Any]:
        """Returns the schema's properties of one result, in the order they are written."""

    def schema(self, count: int) -> dict[str, Any]:
        """Returns the JSON schema of a completion that holds `count` results."""
        one = _object_schema(self.properties())
        if count == 1:
            return one
        many = {"type": "array", "items": one, "minItems": count, "maxItems": count}
        return _object_schema({self.listed: many})

    @abstractmethod
    def read_one(self, fields: Mapping[str, Any]) -> W:
        """Returns what one object of the schema's shape says.

        Raises:
            ParseFailure: Where the object does not follow the schema, or its text is blank.
        """

    @abstractmethod
    def write_one(self, written: W) -> dict[str, Any]:
        """Returns the object that `read_one` would turn into this: a recorded completion's shape."""

    def parse(self, text: str, finish_reason: str, count: int) -> list[W]:
        """Returns what a completion holds.

        Raises:
            ParseFailure: Where it is no JSON, is cut off, is blank or has the wrong shape.
        """
        fields = parse_object(text, finish_reason)
        if count == 1:
            return [self.read_one(fields)]
        items = fields.get(self.listed)
        if not isinstance(items, list) or len(items) != count:
            found = f"{len(items)} items" if isinstance(items, list) else type(items).__name__
            raise ParseFailure(WRONG_SHAPE, f"expected {count} items in {self.listed!r}, found {found}")
        for item in items:
            if not isinstance(item, dict):
                raise ParseFailure(WRONG_SHAPE, f"an item of {self.listed!r} is a {type(item).__name__}")
        return [self.read_one(item) for item in items]

    def completion_text(self, written: Sequence[W]) -> str:
        """Returns the completion that `parse` would turn into these."""
        items = [self.write_one(one) for one in written]
        return json.dumps(items[0] if len(items) == 1 else {self.listed: items}, ensure_ascii=False)


class Strategy(JsonStrategy[Written]):
    """Renders messages, and owns the JSON schema of the answer and its parser.

    What all requests share comes first in the messages, so that the engine's prefix cache serves
    it; the query and the positive come last. In the schema the reasoning comes first and the
    document last. Change `version` with every change of wording: it is part of the journal's key.

    A strategy that answers in other fields than reasoning, mirror query and document overrides
    `properties`, `read_one` and `write_one`.

    Attributes:
        wants_mined: Whether it makes use of mined negatives.
    """

    listed = "negatives"
    wants_mined: ClassVar[bool] = False

    def __init__(self, options: PromptOptions) -> None:
        super().__init__()
        self.options = options

    @abstractmethod
    def messages(self, example: Example) -> list[Message]:
        """Returns the chat for one example; it asks for ``len(example.attributes)`` negatives."""

    def properties(self) -> dict[str, Any]:
        """Returns the schema's properties of one negative, in the order they are written."""
        text = {"type": "string"}
        properties = {"reasoning": text} if self.options.reflection else {}
        if self.options.mirror:
            properties[MIRROR_FIELD] = text
        return {**properties, DOCUMENT: text}

    def read_one(self, fields: Mapping[str, Any]) -> Written:
        """Returns the negative in one object of the schema's shape.

        Raises:
            ParseFailure: Where the object does not follow the schema, or the document is blank.
        """
        text = text_field(fields, DOCUMENT)
        assert text is not None
        reasoning = text_field(fields, "reasoning", required=self.options.reflection, blank=True)
        return Written(text, reasoning, text_field(fields, MIRROR_FIELD, required=self.options.mirror))

    def write_one(self, written: Written) -> dict[str, Any]:
        """Returns the object that `read_one` would turn into this: a recorded completion's shape."""
        fields = {"reasoning": written.reasoning, MIRROR_FIELD: written.mirror_query}
        return {name: text for name, text in fields.items() if text is not None} | {DOCUMENT: written.text}


def _object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_STRATEGIES: dict[str, type[Strategy]] = {}


def register(strategy: type[Strategy]) -> type[Strategy]:
    """Makes a strategy known by its name. Usable as a class decorator."""
    _STRATEGIES[strategy.name] = strategy
    return strategy


def find_strategy(name: str) -> type[Strategy]:
    """Returns the strategy with this name, or the one in this file.

    Args:
        name: A registered name; or ``path/to/file.py``, a file of the user's own that defines one
            `Strategy`, or ``path/to/file.py:ClassName`` where it defines several. It is run.

    Raises:
        InputError: For a name that is no strategy's; names the nearest. For a file that is missing
            or fails, or defines no strategy.
    """
    return named_or_from_file(name, _STRATEGIES, Strategy)


def make_strategy(name: str, options: PromptOptions | None = None) -> Strategy:
    """Returns the strategy that `find_strategy` finds, ready to render."""
    return find_strategy(name)(options or PromptOptions())


def named_or_from_file(name: str, known: Mapping[str, type[S]], base: type[Any]) -> type[S]:
    """Returns the strategy with this name, or the one in this file, which is run.

    Args:
        name: A known name, ``path/to/file.py`` or ``path/to/file.py:ClassName``.
        known: Strategies by name.
        base: What a file's strategy is a subclass of.

    Raises:
        InputError: See `find_strategy`.
    """
    if is_class_spec(name):
        return class_from_file(name, base, "strategy", texts=("name", "version"))
    if name not in known:
        raise InputError(
            f"{unknown('strategy', name, known)} One of your own is FILE.py:CLASS, a "
            f"{base.__module__}.{base.__name__} with name, version, messages and system."
        )
    return known[name]


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


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replaces each ``{name}`` in one pass, so that no text is ever read as a template."""
    parts = template.split("{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, closed, rest = part.partition("}")
        filled.append(values[name] + rest if closed and name in values else "{" + part)
    return "".join(filled)
