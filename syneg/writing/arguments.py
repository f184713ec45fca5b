"""Arguments of the writing of negatives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from syneg.config import parse_mapping
from syneg.errors import InputError, unknown
from syneg.llm.arguments import LLMArguments

ATTRIBUTE_NAMES = ("domain", "difficulty", "length")

DEFAULT_ATTRIBUTES: dict[str, list[str]] = {
    "domain": [
        "Encyclopedic reference",
        "Science and research",
        "Technology and engineering",
        "Health and medicine",
        "Business and finance",
        "Law and public policy",
        "History and culture",
        "Practical advice",
    ],
    "difficulty": [
        "foundational: a reader with school education can follow it",
        "intermediate: a reader with undergraduate education can follow it",
        "advanced: written for specialists",
    ],
    "length": [
        "about the same length as the positive",
        "somewhat shorter than the positive (about 70%)",
    ],
}
"""The attribute sets where a data set states none; see PAPER, section 'Phase 1' for what each is."""


@dataclass
class GenerationArguments(LLMArguments):
    """What an LLM is asked to write, beside how it is asked.

    Raises:
        InputError: For a value out of its range, or an attribute that does not exist.
    """

    strategy: str = field(
        default="syneg",
        metadata={
            "help": "The prompting strategy: syneg (the paper's), counterfactual, plain, or FILE.py[:CLASS], "
            "a file of your own, which is run."
        },
    )
    mirror: bool = field(
        default=False,
        metadata={"help": "Also ask for the query that the negative does satisfy, for a mirrored row."},
    )
    with_attributes: bool = field(
        default=True, metadata={"help": "Whether domain, difficulty and length are asked for (ablation)."}
    )
    with_reflection: bool = field(
        default=True, metadata={"help": "Whether reasoning comes before the document (ablation)."}
    )
    attributes: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Values of domain, difficulty and length to draw from: a mapping to lists."},
    )
    persona: str = field(
        default="You are an expert in {domain}.",
        metadata={"help": "The LLM's persona; {domain} is replaced by the domain drawn."},
    )
    query_kind: str = field(
        default="search query", metadata={"help": "What the source's queries are, for the prompt."}
    )
    document_kind: str = field(
        default="document", metadata={"help": "What the source's documents are, for the prompt."}
    )
    slots: int = field(default=1, metadata={"help": "Negatives asked for per pair."})
    negatives_per_request: int = field(
        default=1, metadata={"help": "How many of a pair's negatives one completion holds."}
    )

    def __post_init__(self) -> None:
        LLMArguments.__post_init__(self)
        self.attributes = checked_attributes(parse_mapping(self.attributes, "attributes"))
        self._at_least_one("slots", "negatives_per_request")


def checked_attributes(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the attribute sets: those given, and the default for those that are not.

    Raises:
        InputError: For an attribute that does not exist, or values that are no list of strings.
    """
    for name, values in given.items():
        if name not in ATTRIBUTE_NAMES:
            raise unknown("attribute", name, ATTRIBUTE_NAMES)
        if not isinstance(values, list) or not values or not all(isinstance(v, str) for v in values):
            raise InputError(f"--attributes: {name} must be a list of strings with at least one value.")
    return {name: list(given.get(name, DEFAULT_ATTRIBUTES[name])) for name in ATTRIBUTE_NAMES}
