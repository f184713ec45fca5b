"""A dry run: what a generation would cost, before it is paid for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from syneg.llm.arguments import LLMArguments
from syneg.llm.engines.vllm_engine import chat_token_ids
from syneg.llm.generation import SUMMARY, Generation
from syneg.llm.requests import Request
from syneg.rates import write_seconds
from syneg.text import pieces

_REASONING_TOKENS = 150
"""What is reckoned for reasoning and JSON where the journal has no completion to go by."""


@dataclass
class Estimate:
    """What a generation would cost.

    Attributes:
        pairs: Pairs.
        open_requests: Requests that are not in the journal yet.
        done_requests: Those that are settled.
        rendered: Prompts that were rendered and counted.
        prompt_tokens: Estimated tokens of all open prompts.
        shared_tokens: Tokens at the start of every prompt that was counted, which the prefix cache
            serves from the second request on.
        completion_tokens: Estimated tokens of all open completions, without retries.
        tokens_from: How tokens were counted: the tokenizer, or the built-in estimate.
        completions_from: What the length of a completion was taken from.
        tokens_per_second: Completion tokens a second, as stated or measured; None where unknown.
        rate_from: Where that rate comes from.
        gpus: GPUs that one engine uses, by the engine's options.
        gpu_hours: Estimated; None where the rate is unknown.
        example: One prompt, as messages.
        unit: What requests are about, for people.
    """

    pairs: int
    open_requests: int
    done_requests: int
    rendered: int
    prompt_tokens: int
    shared_tokens: int
    completion_tokens: int
    tokens_from: str
    completions_from: str
    tokens_per_second: float | None
    rate_from: str
    gpus: int
    gpu_hours: float | None
    example: list[dict[str, str]]
    unit: str = "pairs"

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns the figures for people."""
        lines = [
            f"{self.open_requests} requests to make for {self.pairs} {self.unit}; "
            f"{self.done_requests} settled",
            f"prompts: about {self.prompt_tokens} tokens, counted on {self.rendered} with "
            f"{self.tokens_from}; the first {self.shared_tokens} are the same in all",
            f"completions: about {self.completion_tokens} tokens, by {self.completions_from}",
        ]
        if self.gpu_hours is None:
            return [*lines, "time: unknown; state --tokens_per_second, or run a part first"]
        return [
            *lines,
            f"time: about {self.gpu_hours:.2g} GPU hours on {self.gpus} GPU(s) at "
            f"{self.tokens_per_second:.0f} completion tokens/s ({self.rate_from})",
        ]


def estimate(generation: Generation[Any]) -> Estimate:
    """Renders prompts and estimates what the open requests cost, without asking for anything.

    Args:
        generation: What would be asked; of its prompts `dry_run_prompts`, evenly spread, are counted, and
            what its journal holds is not.

    Raises:
        InputError: For recordings that cannot be read, or a tokenizer without a chat template.
    """
    args, task = generation.completions.args, generation.task
    journal = generation.completions.folder
    total = len(generation.items) * task.slots
    every = max(1, total // args.dry_run_prompts)
    count_tokens, tokens_from = _counter(args)
    open_requests = done = 0
    prompts: list[list[Any]] = []
    expected = written = completions = 0
    most = args.max_tokens
    example: Request | None = None
    for item, outcome in generation.outcomes():
        for attempt in outcome.attempts:
            written += attempt.completion.completion_tokens
            completions += 1
        request = outcome.next_request
        if request is None:
            done += 1
            continue
        if open_requests % every == 0:
            prompts.append(count_tokens(request))
            expected += task.expected_tokens(item, request)
            most = max(most, request.sampling["max_tokens"])
            example = example or request
        open_requests += 1
    rendered = max(1, len(prompts))
    if completions and written:
        length, completions_from = written / completions, f"the {completions} completions in the journal"
    else:
        length = expected / rendered + _REASONING_TOKENS
        what = "the positives' length" if generation.report.unit == "pairs" else "what is usual"
        completions_from = f"{what} and {_REASONING_TOKENS} tokens for the rest"
    completion_tokens = round(open_requests * min(length, most))
    rate, rate_from = _rate(args, journal)
    gpus = _gpus(args)
    return Estimate(
        pairs=len(generation.items),
        open_requests=open_requests,
        done_requests=done,
        rendered=len(prompts),
        prompt_tokens=round(open_requests * sum(map(len, prompts)) / rendered),
        shared_tokens=_shared(prompts),
        completion_tokens=completion_tokens,
        tokens_from=tokens_from,
        completions_from=completions_from,
        tokens_per_second=rate,
        rate_from=rate_from,
        gpus=gpus,
        gpu_hours=write_seconds(1, completion_tokens, rate) / 3600 * gpus if rate else None,
        example=[dict(message) for message in example.messages] if example else [],
        unit=generation.report.unit,
    )


def _shared(prompts: list[list[Any]]) -> int:
    """Returns the number of items that all prompts have in common at their start."""
    if len(prompts) < 2:
        return 0
    # All lie between the first and the last in order, so those two share the least.
    first, last = min(prompts), max(prompts)
    differs = (i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return next(differs, min(len(first), len(last)))


def _counter(args: LLMArguments) -> tuple[Callable[[Request], list[Any]], str]:
    """Returns a function from a request to its tokens, and what to call it."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    if args.engine != "recorded":
        logging.set_verbosity_error()
        try:
            tokenizer = AutoTokenizer.from_pretrained(args.llm)
        except (OSError, ValueError):
            # No such model here or on the Hub: a server may know it under a name of its own.
            return _estimated_tokens, f"the built-in estimate ({args.llm} has no tokenizer here)"

        def counted(request: Request) -> list[Any]:
            return chat_token_ids(tokenizer, request.messages, request.sampling["chat_template_options"])

        return counted, f"the tokenizer of {args.llm}"
    return _estimated_tokens, "the built-in estimate"


def _estimated_tokens(request: Request) -> list[Any]:
    """Returns one item for each estimated token; equal beginnings have equal items."""
    return [piece for message in request.messages for piece in pieces(message["content"])]


def _rate(args: LLMArguments, journal: Path) -> tuple[float | None, str]:
    if args.tokens_per_second is not None:
        return args.tokens_per_second, "as stated"
    path = journal / SUMMARY
    if path.is_file():
        run = json.loads(path.read_text(encoding="utf-8"))["run"]
        if run["seconds"] and run["completion_tokens"]:
            return run["completion_tokens"] / run["seconds"], f"as measured, {path}"
    return None, ""


def _gpus(args: LLMArguments) -> int:
    assert isinstance(args.engine_options, dict)
    options = {**args.engine_options, **args.engine_options.get("engine_kwargs", {})}
    gpus = 1
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        gpus *= int(options.get(name, 1))
    return gpus
