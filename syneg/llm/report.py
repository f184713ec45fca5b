"""What a generation came to, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from syneg.llm.parsing import TRUNCATED, strip_thinking
from syneg.llm.requests import Completion, Outcome


@dataclass
class RunFigures:
    """What this run did; a run that was interrupted and went on has other figures.

    Attributes:
        from_journal: Completions that the journal had already.
        asked: Completions that were asked for and came.
        seconds: Wall time of the asking, without starting the engine.
        prompt_tokens: Of what was asked.
        completion_tokens: Of what was asked.
        cached_tokens: Prompt tokens of what was asked that the prefix cache served.
    """

    from_journal: int = 0
    asked: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def count(self, completion: Completion) -> None:
        """Counts a completion that was asked for and came."""
        self.asked += 1
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens
        self.cached_tokens += completion.cached_tokens


@dataclass
class GenerationReport:
    """What a generation came to. All but `run` follows from the journal, however often it stopped.

    Attributes:
        prompt: Strategy and version, as in "syneg/1".
        generators: Results kept by who wrote them, by name.
        pairs: Pairs (or documents, questions).
        requests: Completions that were to be had: one a slot.
        completions: Completions, failed attempts included.
        kept: Results.
        failed: Slots whose last attempt failed too.
        unanswered: Slots without any completion.
        failures: Failed attempts by kind.
        truncations: Failed attempts that were cut off (part of `failures`).
        prompt_tokens: Of all completions.
        completion_tokens: Of all completions.
        thinking_stripped: Completions with a reasoning model's thinking before the answer.
        positives_cut: Slots whose positive was cut to its budget.
        skipped: Slots that were not recorded (engine `recorded`).
        changed: Slots whose query is another than when it was recorded.
        missing: Recordings of pairs that the source does not have.
        torn: Lines of the journal that were passed over since they are incomplete.
        run: What this run did.
        noun: What is written, for people.
        result: One of them, for people.
        unit: What requests are about, for people.
    """

    prompt: str = ""
    generators: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    requests: int = 0
    completions: int = 0
    kept: int = 0
    failed: int = 0
    unanswered: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    truncations: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    thinking_stripped: int = 0
    positives_cut: int = 0
    skipped: int = 0
    changed: int = 0
    missing: int = 0
    torn: int = 0
    run: RunFigures = field(default_factory=RunFigures)
    noun: str = "synthetic negatives"
    result: str = "negative"
    unit: str = "pairs"

    def add(self, outcome: Outcome) -> None:
        """Counts what a slot came to."""
        self.requests += 1
        self.positives_cut += outcome.cut
        self.changed += outcome.changed
        self.skipped += outcome.not_recorded
        failures = Counter(self.failures)
        for attempt in outcome.attempts:
            self.completions += 1
            self.prompt_tokens += attempt.completion.prompt_tokens
            self.completion_tokens += attempt.completion.completion_tokens
            self.thinking_stripped += strip_thinking(attempt.completion.text)[1]
            if attempt.failure is not None:
                failures[attempt.failure.kind] += 1
        self.failures = dict(sorted(failures.items()))
        self.truncations = failures[TRUNCATED]
        if not outcome.attempts:
            self.unanswered += not (outcome.changed or outcome.not_recorded)
        elif outcome.attempts[-1].failure is None:
            last = outcome.attempts[-1]
            self.kept += len(last.results)
            name = last.completion.generator
            kept = Counter(self.generators)
            kept[name] += len(last.results)
            # Slots are settled in no order, so the names have one of their own.
            self.generators = dict(sorted(kept.items()))
        else:
            self.failed += 1

    @property
    def tokens_per_kept(self) -> float | None:
        """Tokens in and out for each negative kept; None where none was."""
        return (self.prompt_tokens + self.completion_tokens) / self.kept if self.kept else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures for JSON."""
        figures = asdict(self)
        for words in ("noun", "result", "unit"):
            del figures[words]
        figures["tokens_per_kept"] = self.tokens_per_kept
        return figures

    def lines(self) -> list[str]:
        """Returns the figures for people, without those that are zero."""
        run = self.run
        lines = [
            f"{self.kept} {self.noun} from {self.requests} requests for {self.pairs} {self.unit}",
            f"completions: {self.completions} ({run.from_journal} from the journal, {run.asked} new)",
        ]
        if self.failures:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.failures.items())
            lines.append(f"failed attempts: {kinds}; slots without a {self.result} in the end: {self.failed}")
        if self.completion_tokens:
            lines.append(
                f"tokens: {self.prompt_tokens} in, {self.completion_tokens} out"
                + (f", {self.tokens_per_kept:.0f} a kept {self.result}" if self.kept else "")
            )
        if run.asked and run.seconds and run.completion_tokens:
            lines.append(
                f"this run: {run.completion_tokens / run.seconds:.0f} tokens/s, "
                f"{run.cached_tokens / max(1, run.prompt_tokens):.0%} of the prompts from the prefix cache"
            )
        counted = {
            "positives cut to --max_positive_tokens": self.positives_cut,
            "completions with thinking, which was stripped": self.thinking_stripped,
            "not recorded, skipped": self.skipped,
            "recorded for another query text, skipped": self.changed,
            f"recordings of {self.unit} that are not in the source": self.missing,
            "slots not asked yet": self.unanswered,
            "torn lines in the journal, passed over": self.torn,
        }
        return lines + [f"{name}: {count}" for name, count in counted.items() if count]
