"""Generation: fills the journal with completions, and reads negatives out of it."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from syneg.llm.engines import check_engine, make_engine
from syneg.llm.journal import Journal
from syneg.llm.report import GenerationReport, RunFigures
from syneg.llm.requests import Completion, Engine, Request
from syneg.rows import SYNTHETIC, Negative, make_negative
from syneg.sources import Pair, Pairs
from syneg.writing.arguments import GenerationArguments, parse_shard
from syneg.writing.planning import Attempt, Mined, Outcome, Planner

SUMMARY = "summary.json"
"""The report of the last run, in the journal's folder."""


@dataclass
class SyntheticResult:
    """What generation came to for one pair.

    Attributes:
        pair: The pair.
        negatives: The synthetic negatives, slot by slot.
        mirrors: For each of them the query that it satisfies, where the LLM wrote one.
        failures: For each slot that failed for good: the raw completion as a negative, and why.
        outcomes: What each slot came to, attempt by attempt.
    """

    pair: Pair
    negatives: list[Negative] = field(default_factory=list)
    mirrors: list[str | None] = field(default_factory=list)
    failures: list[tuple[Negative, str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)


def run_generation(
    pairs: Pairs | Iterable[Pair],
    args: GenerationArguments,
    journal: str | Path,
    seed: int,
    *,
    mined: Mined | None = None,
    engine: Engine | None = None,
    progress: bool = True,
) -> GenerationReport:
    """Asks for every completion that the journal does not have yet.

    A completion that cannot be read is asked for again, with another seed, `args.max_attempts`
    times in all. The engine is started only if there is something to ask.

    Args:
        pairs: The pairs.
        args: What is asked, and how.
        journal: The journal's folder.
        seed: Seed of the attributes and of the sampling.
        mined: Gives the mined negatives of a pair, best first, to a strategy that starts from them.
        engine: An engine that runs already, and is left running; None starts the one `args` names.
        progress: Whether to show a progress bar.

    Returns:
        The figures, which are also in ``summary.json`` in the journal's folder.

    Raises:
        InputError: For an unknown engine or strategy, an engine that is not installed, recordings
            that cannot be read, or a request that was not recorded. What has been journalled stays.
    """
    check_engine(args.engine)
    pairs = shard_of(countable(pairs), args.shard)
    with ExitStack() as stack:
        log = stack.enter_context(Journal(journal))
        planner = stack.enter_context(closing(Planner(args, seed, mined)))
        bar = stack.enter_context(
            tqdm(total=len(pairs) * len(planner.slots()), desc="Generating", disable=not progress)
        )
        run = _Run(planner, log, bar)

        def started() -> Engine:
            return engine or stack.enter_context(closing(make_engine(args, planner.recordings)))

        run.ask(pairs, started)
    report = tally(pairs, args, journal, seed, mined=mined)
    report.run = run.figures
    _write_summary(Path(journal), report)
    return report


def iter_synthetic(
    pairs: Pairs | Iterable[Pair],
    args: GenerationArguments,
    journal: str | Path,
    seed: int,
    *,
    mined: Mined | None = None,
) -> Iterator[SyntheticResult]:
    """Yields what each pair came to, in the pairs' order, from the journal alone.

    The same journal gives the same results, in whatever order and files its entries were written.
    Arguments are those of `run_generation`.
    """
    with Journal(journal) as log, closing(Planner(args, seed, mined)) as planner:
        for pair in pairs:
            result = SyntheticResult(pair)
            for outcome in planner.outcomes(pair, log):
                result.outcomes.append(outcome)
                if outcome.attempts:
                    _add_attempt(result, outcome.attempts[-1])
            yield result


def _add_attempt(result: SyntheticResult, attempt: Attempt) -> None:
    completion = attempt.completion
    if attempt.failure is not None:
        raw = make_negative(
            completion.text, SYNTHETIC, generator=completion.generator, **attempt.request.attributes[0]
        )
        result.failures.append((raw, str(attempt.failure)))
        return
    for written, attributes in zip(attempt.written, attempt.request.attributes, strict=True):
        result.negatives.append(
            make_negative(
                written.text,
                SYNTHETIC,
                reasoning=written.reasoning,
                generator=completion.generator,
                **attributes,
            )
        )
        result.mirrors.append(written.mirror_query)


def tally(
    pairs: Pairs | Iterable[Pair],
    args: GenerationArguments,
    journal: str | Path,
    seed: int,
    *,
    mined: Mined | None = None,
) -> GenerationReport:
    """Returns the report on what the journal holds, without asking for anything.

    Arguments are those of `run_generation`.
    """
    pairs = countable(pairs)
    report = GenerationReport(pairs=len(pairs))
    with Journal(journal) as log, closing(Planner(args, seed, mined)) as planner:
        report.torn = log.torn
        report.prompt = planner.strategy.label
        for pair in pairs:
            for outcome in planner.outcomes(pair, log):
                report.add(outcome)
        if planner.recordings is not None:
            report.missing = planner.recordings.missing(pairs)
    return report


def shard_of(pairs: Collection[Pair], shard: str | None) -> Collection[Pair]:
    """Returns the pairs of a shard, "i/n": every n-th from the i-th on.

    Raises:
        InputError: Where `shard` is malformed.
    """
    i, n = parse_shard(shard)
    if n == 1:
        return pairs
    part: Any = pairs.select(range(i, len(pairs), n)) if isinstance(pairs, Pairs) else list(pairs)[i::n]
    return part


def _write_summary(journal: Path, report: GenerationReport) -> None:
    journal.mkdir(parents=True, exist_ok=True)
    temporary = journal / f".{SUMMARY}.{os.getpid()}"
    temporary.write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
    temporary.replace(journal / SUMMARY)


def countable(pairs: Pairs | Iterable[Pair]) -> Collection[Pair]:
    """Returns the pairs as something that can be counted and walked through more than once."""
    if hasattr(pairs, "__len__") and hasattr(pairs, "__iter__"):
        return pairs  # type: ignore[return-value]
    return list(pairs)


class _Stream:
    """The requests to make. After it was empty it may hold some again: those to be retried."""

    def __init__(self, take: Callable[[], Request | None]) -> None:
        self._take = take

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Request:
        request = self._take()
        if request is None:
            raise StopIteration
        return request


class _Run:
    """One run: what is in flight, what must be asked again, and the progress bar."""

    def __init__(self, planner: Planner, journal: Journal, bar: tqdm) -> None:
        self.figures = RunFigures()
        self._planner = planner
        self._journal = journal
        self._bar = bar
        self._in_flight: dict[str, Request] = {}
        self._retries: deque[Request] = deque()
        self._kept = self._failed = 0

    def ask(self, pairs: Iterable[Pair], start: Callable[[], Engine]) -> None:
        """Asks for what is open, and again for what failed, until nothing is left to ask."""
        stream = self._open_requests(pairs)
        first = next(stream, None)
        if first is None:
            return
        engine = start()
        begin = time.perf_counter()
        self._retries.appendleft(first)
        try:
            # One round as a rule, since retries join the stream. An engine that does not look into
            # it again after it was empty gets the last of them in another round.
            while self._retries:
                for completion in engine.generate(_Stream(lambda: self._next_request(stream))):
                    self._take(completion)
        finally:
            self.figures.seconds = time.perf_counter() - begin

    def _next_request(self, stream: Iterator[Request]) -> Request | None:
        request = self._retries.popleft() if self._retries else next(stream, None)
        if request is not None:
            self._in_flight[request.key] = request
        return request

    def _open_requests(self, pairs: Iterable[Pair]) -> Iterator[Request]:
        for pair in pairs:
            for outcome in self._planner.outcomes(pair, self._journal):
                self.figures.from_journal += len(outcome.attempts)
                request = outcome.next_request
                if request is not None and request.key not in self._in_flight:
                    yield request
                else:
                    self._settle(outcome.attempts[-1] if outcome.attempts else None)

    def _take(self, completion: Completion) -> None:
        request = self._in_flight.pop(completion.key)
        self._journal.append(request, completion)
        figures = self.figures
        figures.asked += 1
        figures.prompt_tokens += completion.prompt_tokens
        figures.completion_tokens += completion.completion_tokens
        figures.cached_tokens += completion.cached_tokens
        attempt = self._planner.read(request, completion)
        again = self._planner.again(attempt)
        # The journal may have a later attempt already: this one's line was torn.
        while again is not None and (entry := self._journal.get(again.key)) is not None:
            attempt = self._planner.read(again, entry.completion)
            again = self._planner.again(attempt)
        if again is None:
            self._settle(attempt)
        else:
            self._retries.append(again)

    def _settle(self, attempt: Attempt | None) -> None:
        if attempt is not None:
            self._kept += len(attempt.written)
            self._failed += attempt.failure is not None
        shown = {"kept": self._kept, "failed": self._failed}
        figures = self.figures
        if figures.completion_tokens:
            seconds = max(1e-9, self._bar.format_dict["elapsed"])
            shown["tok/s"] = round(figures.completion_tokens / seconds)
            shown["cache"] = f"{figures.cached_tokens / max(1, figures.prompt_tokens):.0%}"  # type: ignore
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
