"""A dry run of a whole build: one prompt, what would fail, and what each stage takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from syneg.encoders import encoder_path
from syneg.errors import InputError
from syneg.gating.arguments import GatingArguments
from syneg.llm.estimate import Estimate, estimate
from syneg.llm.generation import Completions, Generation
from syneg.rates import HARDWARE, MINILM, encode_seconds, parameters_of, search_seconds, train_seconds
from syneg.rows import SYNTHETIC, make_negative, make_row
from syneg.sources import Pair, Source
from syneg.stages import SizedPairs, Stage
from syneg.text import estimate_tokens
from syneg.writing.arguments import GenerationArguments

TRAINED_NEGATIVES = 4
"""Negatives a pair that training is reckoned with: a mixture is chosen only then."""
_SAMPLED = 256
"""Texts that the length of all is taken from."""
_LONGEST = 512
"""Tokens that an encoder reads of a text at most."""


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
        basis: What the hours are reckoned with, for people.
    """

    stage: str
    work: str
    requests: int | None = None
    tokens: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    basis: str = ""


class Reckoning:
    """What the work of an encoder takes on this machine, by the formula of `syneg.rates`.

    Args:
        encoder: The model, as for ``--encoder``; nothing of it but its configuration is read.
        device: Where it will run; the first accelerator, or the CPU, where None.
    """

    def __init__(self, encoder: str, device: str | None = None) -> None:
        from syneg.mining.embeddings import choose_device

        self.hardware = HARDWARE["cpu" if choose_device(device) == "cpu" else "gpu"]
        found = _parameters(encoder)
        self.parameters = found or MINILM
        size = f"{self.parameters / 1e6:.1f}M parameters beside its tables"
        self.basis = (
            f"mine, teacher and train for {self.hardware.title} ({self.hardware.source}) and a model of "
            f"{size}{'' if found else ' (all-MiniLM-L6-v2; its own are not known)'}; train with "
            f"{TRAINED_NEGATIVES} negatives a pair"
        )

    def scoring(self, stage: str, count: int, noun: str, tokens: float) -> Step:
        """Returns the step that encodes so many texts of so many tokens."""
        return self._step(stage, count, noun, encode_seconds(count, tokens, self.parameters, self.hardware))

    def mining(self, queries: int, query_tokens: float, documents: int, document_tokens: float) -> Step:
        """Returns the step of the dense miner: encoding, and the exact search."""
        seconds = encode_seconds(queries, query_tokens, self.parameters, self.hardware)
        seconds += encode_seconds(documents, document_tokens, self.parameters, self.hardware)
        seconds += search_seconds(queries, documents, self.hardware)
        return self._step("mine", queries + documents, "texts to encode", seconds)

    def training(self, pairs: int, query_tokens: float, document_tokens: float) -> Step:
        """Returns the step of training on every pair once."""
        seconds = train_seconds(
            pairs, TRAINED_NEGATIVES, query_tokens, document_tokens, self.parameters, self.hardware
        )
        return self._step("train", pairs, "pairs, each epoch", seconds)

    def _step(self, stage: str, count: int, noun: str, seconds: float) -> Step:
        return Step(stage, f"{count:,} {noun}", hours=seconds / 3600, basis=self.basis)


def lengths(source: Source) -> tuple[float, float]:
    """Returns the estimated tokens of a query and of a document, from some of them, evenly spread."""
    queries = source.queries.select(_spread(len(source.queries)))["text"][:]
    return _mean_tokens(queries), _mean_tokens(source.documents(_spread(len(source.corpus))))


def _spread(count: int) -> range:
    return range(0, count, max(1, count // _SAMPLED))


def _mean_tokens(texts: Sequence[str]) -> float:
    # Beside its words a text has a token at its beginning and its end; an encoder cuts what is longer.
    return sum(min(estimate_tokens(text) + 2, _LONGEST) for text in texts) / max(len(texts), 1)


def _parameters(encoder: str) -> int | None:
    from transformers import AutoConfig

    try:
        return parameters_of(AutoConfig.from_pretrained(encoder_path(encoder)))
    except (OSError, ValueError, InputError):
        return None  # What is wrong with it is told by the stage's own check.


def by_llm(stage: str, work: str, found: Estimate, requests: int) -> Step:
    """Returns the step of an LLM, scaled from an estimate to a number of requests."""
    share = requests / found.open_requests if found.open_requests else 0.0
    tokens = round(share * (found.prompt_tokens + found.completion_tokens))
    hours = None if found.gpu_hours is None else share * found.gpu_hours
    return Step(stage, work, requests, tokens, None if hours is None else hours / found.gpus, hours)


def teacher_step(
    args: GatingArguments, negatives: int, tokens: float, reckoning: Reckoning | None = None
) -> Step:
    """Returns what the teacher takes for so many negatives.

    Args:
        args: Who the teacher is.
        negatives: Negatives that it scores.
        tokens: Tokens of one.
        reckoning: That of the dense miner, where it is the teacher.
    """
    noun = "negatives to score"
    if reckoning is None:
        if args.teacher_kind != "bi-encoder":
            # It reads every pair of texts; no rate of one was measured.
            return Step("teacher", f"{negatives:,} {noun}")
        assert args.teacher is not None
        reckoning = Reckoning(args.teacher, args.teacher_device)
    return reckoning.scoring("teacher", negatives, noun, tokens)


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
    return [*lines, *dict.fromkeys(step.basis for step in steps if step.basis)]


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
