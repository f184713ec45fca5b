"""Arguments of whoever asks an LLM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from syneg.config import parse_mapping, split_commas
from syneg.errors import InputError, unknown


@dataclass
class LLMArguments:
    """Which LLM is asked by which engine, how it samples, and where its completions are kept.

    Raises:
        InputError: For a value out of its range.
    """

    engine: str = field(
        default="vllm",
        metadata={
            "help": "What turns requests into completions: vllm (in process), openai (any server that speaks "
            "its protocol), ray (vLLM on a Ray cluster), recorded (replays), or FILE.py:CLASS, your own."
        },
    )
    llm: str = field(
        default="Qwen/Qwen3-4B-Instruct-2507",
        metadata={"help": "The LLM that writes: a Hub id or a folder."},
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
        metadata={
            "help": "Ask only for a part of the pairs (or documents), as in 0/4: the first of four machines."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Ask for nothing: render prompts, and estimate tokens and GPU hours."},
    )
    dry_run_prompts: int = field(default=200, metadata={"help": "Prompts that a dry run renders and counts."})
    tokens_per_second: float | None = field(
        default=None, metadata={"help": "For a dry run: completion tokens a second of the engine."}
    )
    gpu_price: float | None = field(
        default=None, metadata={"help": "For a dry run: what a GPU costs an hour, in any currency."}
    )
    journal: str | None = field(
        default=None, metadata={"help": "The journal's folder; <output>-journal where not given."}
    )

    def __post_init__(self) -> None:
        self.engine_options = parse_mapping(self.engine_options, "engine_options")
        options = self.chat_template_options
        if options is None:
            options = {"enable_thinking": False}
        self.chat_template_options = parse_mapping(options, "chat_template_options")
        self.base_urls = split_commas(self.base_urls)
        self._at_least_one(
            "max_tokens", "max_attempts", "max_positive_tokens", "concurrency", "dry_run_prompts"
        )
        if self.tokens_per_second is not None and self.tokens_per_second <= 0:
            raise InputError("--tokens_per_second must be above 0.")
        if self.gpu_price is not None and self.gpu_price < 0:
            raise InputError("--gpu_price must be at least 0.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise InputError("--temperature must be at least 0, and --top_p above 0 and at most 1.")
        parse_shard(self.shard)
        if self.on_miss not in ("error", "skip"):
            raise unknown("value of --on_miss", self.on_miss, ("error", "skip"))

    def _at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, not {getattr(self, name)}.")


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
