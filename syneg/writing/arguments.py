"""Arguments of the generation stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from syneg.config import parse_mapping, split_commas
from syneg.errors import InputError, unknown

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
class GenerationArguments:
    """What is asked of which LLM, and how.

    Raises:
        InputError: For a value out of its range, or an attribute that does not exist.
    """

    engine: str = field(
        default="vllm",
        metadata={
            "help": "What turns requests into completions: vllm (in process), openai (any server that speaks "
            "its protocol), ray (vLLM on a Ray cluster), or recorded (replays)."
        },
    )
    llm: str = field(
        default="Qwen/Qwen3-4B-Instruct-2507",
        metadata={"help": "The LLM that writes: a Hub id or a folder."},
    )
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
    temperature: float = field(default=0.8, metadata={"help": "Sampling temperature."})
    top_p: float = field(default=0.95, metadata={"help": "Nucleus sampling: the mass that is kept."})
    max_tokens: int = field(
        default=1536, metadata={"help": "Tokens that a completion may have for each negative in it."}
    )
    max_attempts: int = field(
        default=3,
        metadata={"help": "How often a request is made in all, where its completion cannot be used."},
    )
    max_positive_tokens: int = field(
        default=2048,
        metadata={"help": "Tokens (estimated, for any model) that a passage may have; the rest is cut."},
    )
    chat_template_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": 'Passed to the model\'s chat template; {"enable_thinking": false} where not given.'
        },
    )
    recordings: str | None = field(
        default=None,
        metadata={"help": "For the engine 'recorded': a JSONL of recorded completions, or a journal folder."},
    )
    on_miss: str = field(
        default="error",
        metadata={
            "help": "What the engine 'recorded' does with a request that was not recorded: error or skip.",
            "choices": ["error", "skip"],
        },
    )
    engine_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Passed through to the engine, such as dtype, quantization, tensor_parallel_size."},
    )
    base_urls: list[str] | None = field(
        default=None,
        metadata={"help": "For the engine openai: its servers, as in http://localhost:8000/v1."},
    )
    concurrency: int = field(
        default=64, metadata={"help": "For the engine openai: requests in flight at each server."}
    )
    shard: str | None = field(
        default=None,
        metadata={"help": "Ask only for a part of the pairs, as in 0/4: the first of four machines."},
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Ask for nothing: render prompts, and estimate tokens and GPU hours."},
    )
    dry_run_prompts: int = field(default=200, metadata={"help": "Prompts that a dry run renders and counts."})
    tokens_per_second: float | None = field(
        default=None, metadata={"help": "For a dry run: completion tokens a second of the engine."}
    )
    journal: str | None = field(
        default=None, metadata={"help": "The journal's folder; <output>-journal where not given."}
    )

    def __post_init__(self) -> None:
        self.attributes = checked_attributes(parse_mapping(self.attributes, "attributes"))
        self.engine_options = parse_mapping(self.engine_options, "engine_options")
        options = self.chat_template_options
        if options is None:
            options = {"enable_thinking": False}
        self.chat_template_options = parse_mapping(options, "chat_template_options")
        self.base_urls = split_commas(self.base_urls)
        for name in (
            "slots",
            "max_tokens",
            "max_attempts",
            "max_positive_tokens",
            "negatives_per_request",
            "concurrency",
            "dry_run_prompts",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, not {getattr(self, name)}.")
        if self.tokens_per_second is not None and self.tokens_per_second <= 0:
            raise InputError("--tokens_per_second must be above 0.")
        parse_shard(self.shard)
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise InputError("--temperature must be at least 0, and --top_p above 0 and at most 1.")
        if self.on_miss not in ("error", "skip"):
            raise unknown("value of --on_miss", self.on_miss, ("error", "skip"))


def parse_shard(shard: str | None) -> tuple[int, int]:
    """Returns (i, n) for "i/n", and (0, 1) for None.

    Raises:
        InputError: Where it is not of that form, or i is not below n.
    """
    if shard is None:
        return 0, 1
    first, slash, second = shard.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise InputError(f"--shard {shard!r}: expected i/n with i from 0 to n-1, as in 0/4.")
    return int(first), int(second)


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
