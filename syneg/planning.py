"""A dry run of a whole build: one prompt, what would fail, and what each stage takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.llm.estimate import Estimate, estimate
from syneg.llm.generation import Completions, Generation
from syneg.rows import SYNTHETIC, make_negative, make_row
from syneg.sources import Pair
from syneg.stages import SizedPairs, Stage
from syneg.writing.arguments import GenerationArguments

ENCODED_PER_SECOND, TRAINED_PER_SECOND = 92.0, 8.9
"""Texts encoded, and pairs trained on (1 positive, 4 negatives), in a second: see `MEASURED`."""
MEASURED = (
    "mine, teacher and train by what was measured on two CPU cores with all-MiniLM-L6-v2 (RESULTS.md): "
    f"{ENCODED_PER_SECOND:.0f} texts encoded and {TRAINED_PER_SECOND} pairs trained on a second; another "
    "model or a GPU takes another time"
)


@dataclass
class Step:
    """What one stage would take.

    Attributes:
        stage: What it is called.
        work: What it works on, for people.
        requests: Requests to an LLM; None where it makes none.
        tokens: Tokens of prompts and completions.
        hours: Wall hours; None where no rate is known.
        gpu_hours: GPU hours of an LLM, which cost money; None where no rate is known.
    """

    stage: str
    work: str
    requests: int | None = None
    tokens: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None


def by_llm(stage: str, work: str, found: Estimate, requests: int) -> Step:
    """Returns the step of an LLM, scaled from an estimate to a number of requests."""
    share = requests / found.open_requests if found.open_requests else 0.0
    tokens = round(share * (found.prompt_tokens + found.completion_tokens))
    hours = None if found.gpu_hours is None else share * found.gpu_hours
    return Step(stage, work, requests, tokens, None if hours is None else hours / found.gpus, hours)


def by_rate(stage: str, count: int, noun: str, per_second: float | None) -> Step:
    """Returns the step of a model that is no LLM."""
    return Step(stage, f"{count:,} {noun}", hours=count / per_second / 3600 if per_second else None)


def judge_step(
    pairs: SizedPairs,
    args: GatingArguments,
    generation: GenerationArguments,
    journal: Path,
    documents: int,
    work: str,
) -> Step | None:
    """Returns what the judge takes, at most; None where it replays.

    Args:
        pairs: The pairs; each one's positive stands for the documents that are judged.
        args: Who judges.
        generation: What it is told, where `args` says nothing else.
        journal: The judge's journal.
        documents: Documents that are judged, at most.
        work: The same for people.
    """
    from syneg.gating.judge import VerdictsTask, judge_arguments

    asked, recordings = judge_arguments(args, generation)
    if recordings is not None:
        recordings.close()
        return None
    # Evenly spread, as many as are counted.
    every = max(1, len(pairs) // generation.dry_run_prompts)
    questions = [_question(pair) for pair in islice(pairs, 0, None, every)]
    task = VerdictsTask(asked, 0)
    # Its own journal would count answers of before as done; which those are is known only after the mining.
    found = estimate(Generation(questions, task, Completions(asked, journal), progress=False))
    return by_llm("judge", work, found, documents)


def table(steps: Sequence[Step], gpu_price: float | None) -> list[str]:
    """Returns the steps as lines of a table, with their sum where there is one.

    Args:
        steps: The stages, in order.
        gpu_price: What a GPU costs an hour, in any currency; None leaves money out.
    """
    head = ["stage", "work", "requests", "tokens", "hours", *(["money"] if gpu_price is not None else [])]
    rows = [head]
    for step in steps:
        asks = step.requests is not None
        unknown = "unknown" if step.hours is None else f"{step.hours:.2g}"
        row = [
            step.stage,
            step.work,
            f"{step.requests:,}" if asks else "",
            f"{step.tokens:,}" if asks else "",
            unknown,
        ]
        if gpu_price is not None:
            money = "unknown" if step.gpu_hours is None else f"{step.gpu_hours * gpu_price:.2f}"
            row.append(money if asks else "")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if any(step.requests is not None and step.hours is None for step in steps):
        lines.append("hours of the LLM: no rate was measured; state --tokens_per_second, or run a part first")
    if any(step.requests is None for step in steps):
        lines.append(MEASURED)
    return lines


def prompt_lines(messages: Sequence[dict[str, str]]) -> list[str]:
    """Returns one prompt for people; nothing where there is none to make."""
    if not messages:
        return []
    told = [line for one in messages for line in (f"[{one['role']}]", *one["content"].splitlines())]
    return ["one prompt:", *(f"  | {line}".rstrip() for line in told)]


def problems(stages: Sequence[Stage]) -> list[str]:
    """Returns what would stop the stages before they begin, as lines."""
    lines = []
    for stage in stages:
        try:
            stage.check()
        except InputError as error:
            lines.append(f"would stop: {error}")
    return list(dict.fromkeys(lines))


def _question(pair: Pair) -> Any:
    row = make_row(pair.query_id, pair.query, pair.positive_id, pair.positive)
    return row, make_negative(pair.positive, SYNTHETIC)
