"""Generation: from items (pairs, documents, questions) to what an LLM's completions say of them.

A `Task` says what is asked of an item and how a completion is read; what it is about is not known here.
`Completions` has each completion from the journal or else from an engine. `Generation` takes a task through
all items: each prompt is rendered once, each completion is read once.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tqdm import tqdm

from syneg.llm.arguments import LLMArguments, parse_shard
from syneg.llm.engines import check_engine, make_engine
from syneg.llm.journal import Journal
from syneg.llm.parsing import PROMPT_TOO_LONG, ParseFailure
from syneg.llm.recordings import Recordings
from syneg.llm.report import GenerationReport, RunFigures
from syneg.llm.requests import Attempt, Completion, Engine, Outcome, Request

SUMMARY = "summary.json"
"""The report of the last run, in the journal's folder."""

_IN_MEMORY = 1 << 23
"""Bytes of answers that wait in memory for their turn; what is more waits in a temporary file."""

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)
Tag = TypeVar("Tag")


@dataclass(frozen=True)
class Answer:
    """What a settled slot says.

    Attributes:
        results: What the task read, as plain values; empty where nothing came or it could not be read.
        attributes: The request's attributes, one mapping for each result asked for.
        generator: Who wrote it.
        failure: Why it could not be read, or None.
        raw: The completion as it came, where it could not be read.
    """

    results: list[Any] = field(default_factory=list)
    attributes: list[dict[str, str]] = field(default_factory=list)
    generator: str = ""
    failure: str | None = None
    raw: str = ""


class Task(Protocol[ItemIn]):
    """What is asked of an LLM, and how its completions are read."""

    label: str
    """Strategy and version, as in "syneg/1"."""
    noun: str
    """What is written, for people, as in "synthetic negatives"."""
    slots: int
    """Requests an item."""
    max_attempts: int
    """How often a request is made in all, where its completion cannot be read."""
    replays_failures: bool
    """Whether a recorded completion that cannot be read settles its slot; else that is an error."""

    def requests(self, item: ItemIn) -> Iterator[Request | None]:
        """Yields the first request of each slot; None for one whose recording is of another text."""

    def read(self, request: Request, completion: Completion) -> list[Any]:
        """Returns what a completion says, as values that JSON can hold.

        Raises:
            ParseFailure: Where it cannot be read.
        """

    def numbered(self, request: Request, attempt: int) -> Request:
        """Returns the request as it is made for the n-th time, from 0."""

    def expected_tokens(self, item: ItemIn, request: Request) -> int:
        """Returns about how many tokens the completion will have, reasoning aside."""

    def missing(self) -> int:
        """Returns how many recordings belong to none of the items that requests were asked for."""


class Completions:
    """Where completions come from: the journal, and an engine that fills it.

    The journal is scanned when the first completion is looked for; the engine starts with the first
    request that the journal has no completion of.

    Args:
        args: Which engine, and which LLM.
        journal: The journal, or its folder.
        recordings: What the engine `recorded` replays.
        engine: An engine that runs already, and is left running; None starts the one `args` names.

    Raises:
        InputError: For an unknown engine.
    """

    def __init__(
        self,
        args: LLMArguments,
        journal: Journal | str | Path,
        recordings: Recordings | None = None,
        engine: Engine | None = None,
    ) -> None:
        check_engine(args.engine)
        self.args = args
        self.folder = journal.folder if isinstance(journal, Journal) else Path(journal)
        self.recordings = recordings
        self.figures = RunFigures()
        self._journal = journal if isinstance(journal, Journal) else None
        self._is_ours = not isinstance(journal, Journal)
        self._given, self._engine = engine, engine

    @property
    def journal(self) -> Journal:
        """The journal, opened."""
        if self._journal is None:
            self._journal = Journal(self.folder)
        return self._journal

    def known(self, task: Task[Any], request: Request) -> Outcome:
        """Returns what a slot came to by the journal alone.

        Args:
            task: Reads the completions.
            request: The slot's first request.
        """
        outcome = Outcome(cut=request.cut, next_request=request)
        while outcome.next_request is not None:
            entry = self.journal.get(outcome.next_request.key)
            if entry is None:
                break
            self._read_attempt(task, outcome, entry.completion)
        self._close_unrecorded(task, outcome)
        return outcome

    def settle(
        self,
        task: Task[Any],
        requests: Iterable[tuple[Tag, Request | None]],
        settled: Callable[[Tag, Outcome], None],
    ) -> None:
        """Has every slot's completion, and asks again for what could not be read.

        Args:
            task: Reads the completions.
            requests: A tag and the first request of each slot; rendered as fast as the engine works.
            settled: Called once a slot, in any order, with its tag.

        Raises:
            InputError: Where the engine cannot be started or a request was not recorded. What has come
                is in the journal.
        """
        _Settling(self, task, settled).run(requests)

    def engine(self) -> Engine:
        """Returns the engine, started."""
        if self._engine is None:
            self._engine = make_engine(self.args, self.recordings)
        return self._engine

    def rest(self) -> None:
        """Frees the engine, where it was started here; the next request starts it again."""
        if self._engine is not None and self._given is None:
            self._engine.close()
            self._engine = None

    def close(self) -> None:
        """Frees the engine, the journal and the recordings; of each what was opened here."""
        self.rest()
        if self._journal is not None and self._is_ours:
            self._journal.close()
            self._journal = None
        if self.recordings is not None:
            self.recordings.close()

    def read(self, task: Task[Any], outcome: Outcome, completion: Completion) -> None:
        """Takes the completion of an outcome's next request into it, and says what is to be asked next."""
        self._read_attempt(task, outcome, completion)
        # The journal may have a later attempt already: this one's line was torn.
        while outcome.next_request is not None and (entry := self.journal.get(outcome.next_request.key)):
            self._read_attempt(task, outcome, entry.completion)
        self._close_unrecorded(task, outcome)

    def _read_attempt(self, task: Task[Any], outcome: Outcome, completion: Completion) -> None:
        request = outcome.next_request
        assert request is not None
        attempt = Attempt(request, completion)
        outcome.attempts.append(attempt)
        outcome.next_request = None
        try:
            attempt.results = task.read(request, completion)
        except ParseFailure as failure:
            attempt.failure = failure
            number = request.attempt + 1
            if failure.kind != PROMPT_TOO_LONG and number < task.max_attempts:
                outcome.next_request = task.numbered(request, number)

    def _close_unrecorded(self, task: Task[Any], outcome: Outcome) -> None:
        """Closes a slot that was never recorded, if such may be skipped, or not that often."""
        if self.recordings is None or outcome.next_request is None:
            return
        if self.recordings.find(outcome.next_request) is None:
            outcome.not_recorded = not outcome.attempts
            if (outcome.attempts and task.replays_failures) or self.args.on_miss == "skip":
                outcome.next_request = None


@dataclass
class _Open(Generic[Tag]):
    """A slot that is not settled, and everyone who waits for it: equal requests are made once."""

    outcome: Outcome
    request: Request
    tags: list[Tag]


class _Settling(Generic[Tag]):
    """One call of `Completions.settle`: what is in flight, and what must be asked again.

    It is also the stream of requests that the engine takes from. After it was empty it may hold some
    again: those to be retried.
    """

    def __init__(
        self, completions: Completions, task: Task[Any], settled: Callable[[Tag, Outcome], None]
    ) -> None:
        self._completions, self._task, self._settled = completions, task, settled
        self._in_flight: dict[str, _Open[Tag]] = {}
        self._retries: deque[Request] = deque()
        self._new: Iterator[Request] = iter(())

    def run(self, requests: Iterable[tuple[Tag, Request | None]]) -> None:
        self._new = self._open_requests(requests)
        first = next(self._new, None)
        if first is None:
            return
        engine = self._completions.engine()
        begin = time.perf_counter()
        self._retries.appendleft(first)
        try:
            # One round as a rule, since retries join the stream. An engine that does not look into
            # it again after it was empty gets the last of them in another round.
            while self._retries:
                for completion in engine.generate(self):
                    self._take(completion)
        finally:
            self._completions.figures.seconds += time.perf_counter() - begin
        # What the engine passed over (recordings may lack it) is settled with what there is.
        for left in self._in_flight.values():
            self._settle(left.outcome, left.tags)

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        return self._retries.popleft() if self._retries else next(self._new)

    def _open_requests(self, requests: Iterable[tuple[Tag, Request | None]]) -> Iterator[Request]:
        for tag, request in requests:
            if request is None:
                self._settle(Outcome(changed=True), [tag])
            elif request.key in self._in_flight:
                self._in_flight[request.key].tags.append(tag)
            else:
                outcome = self._completions.known(self._task, request)
                self._completions.figures.from_journal += len(outcome.attempts)
                if self._put_in_flight(outcome, [tag]):
                    assert outcome.next_request is not None
                    yield outcome.next_request

    def _put_in_flight(self, outcome: Outcome, tags: list[Tag]) -> bool:
        """Returns whether a request must be made; else the slot is settled, or waits for an equal one."""
        request = outcome.next_request
        if request is None:
            self._settle(outcome, tags)
        elif request.key in self._in_flight:
            self._in_flight[request.key].tags += tags
        else:
            self._in_flight[request.key] = _Open(outcome, request, tags)
            return True
        return False

    def _take(self, completion: Completion) -> None:
        slot = self._in_flight.pop(completion.key)
        self._completions.journal.append(slot.request, completion)
        self._completions.figures.count(completion)
        self._completions.read(self._task, slot.outcome, completion)
        if self._put_in_flight(slot.outcome, slot.tags):
            assert slot.outcome.next_request is not None
            self._retries.append(slot.outcome.next_request)

    def _settle(self, outcome: Outcome, tags: list[Tag]) -> None:
        for tag in tags:
            self._settled(tag, outcome)


class Generation(Generic[Item]):
    """A task taken through all items, in their order, with every completion kept.

    Args:
        items: What is asked about; walked through once.
        task: What is asked.
        completions: Where completions come from. Several generations may share them.
        progress: Whether to show a progress bar.
    """

    def __init__(
        self,
        items: Iterable[Item],
        task: Task[Item],
        completions: Completions,
        *,
        progress: bool = True,
    ) -> None:
        self.items = _shard(_countable(items), completions.args.shard)
        self.task, self.completions = task, completions
        self.report = GenerationReport(noun=task.noun, prompt=task.label, pairs=len(self.items))
        self._progress = progress
        self._answers: _Answers | None = None

    def run(self) -> GenerationReport:
        """Asks for every completion that the journal lacks, and reads all.

        A completion that cannot be read is asked for again, with another seed, as often as the task says.
        The engine is started only if there is something to ask; at the end all that was opened is closed.

        Returns:
            The figures, which are also in ``summary.json`` in the journal's folder.

        Raises:
            InputError: For an engine that cannot be used, or a request that was not recorded. What has
                been journalled stays.
        """
        completions = self.completions
        completions.figures = RunFigures()
        total = len(self.items) * self.task.slots
        with tqdm(total=total, desc=f"Writing {self.task.noun}", disable=not self._progress) as bar:

            def settled(slot: int, outcome: Outcome) -> None:
                self._settled(slot, outcome)
                self._show(bar)

            self._walk(lambda requests: completions.settle(self.task, requests, settled))
        self.report.run = completions.figures
        self._write_summary()
        return self.report

    def results(self) -> Iterator[list[Answer]]:
        """Yields each item's answers, slot by slot, in the items' order.

        Before `run` it reads what the journal has, and asks for nothing. The same journal gives the same
        results, in whatever order and files its entries were written.
        """
        self.read()
        assert self._answers is not None
        slots = self.task.slots
        for i in range(len(self.items)):
            yield [self._answers.get(i * slots + j) for j in range(slots)]

    def read(self) -> GenerationReport:
        """Reads what the journal has, unless it was read or asked for already; returns the report."""
        if self._answers is None:
            self._walk(self._read_all)
        return self.report

    def outcomes(self) -> Iterator[tuple[Item, Outcome]]:
        """Yields what each slot came to by the journal alone, with its requests; nothing is kept."""
        for item in self.items:
            for request in self.task.requests(item):
                yield (
                    item,
                    Outcome(changed=True) if request is None else self.completions.known(self.task, request),
                )

    def close(self) -> None:
        """Frees engine, journal, recordings and what was read."""
        self.completions.close()
        self._answers = None

    def _walk(self, settle: Callable[[Iterator[tuple[int, Request | None]]], None]) -> None:
        self._answers = _Answers(len(self.items) * self.task.slots)
        try:
            settle(enumerate(request for item in self.items for request in self.task.requests(item)))
        except BaseException:
            self._answers = None
            raise
        finally:
            # All is read: what comes next may need the memory that the LLM takes.
            torn = self.completions.journal.torn
            self.completions.close()
        self.report.torn, self.report.missing = torn, self.task.missing()

    def _read_all(self, requests: Iterator[tuple[int, Request | None]]) -> None:
        for slot, request in requests:
            known = None if request is None else self.completions.known(self.task, request)
            self._settled(slot, known or Outcome(changed=True))

    def _settled(self, slot: int, outcome: Outcome) -> None:
        assert self._answers is not None
        self.report.add(outcome)
        if outcome.attempts:
            self._answers.put(slot, outcome.attempts[-1])

    def _show(self, bar: tqdm) -> None:
        figures = self.completions.figures
        shown = {"kept": self.report.kept, "failed": self.report.failed}
        if figures.completion_tokens:
            seconds = max(1e-9, bar.format_dict["elapsed"])
            shown["tok/s"] = round(figures.completion_tokens / seconds)
            shown["cache"] = f"{figures.cached_tokens / max(1, figures.prompt_tokens):.0%}"  # type: ignore
        bar.set_postfix(shown, refresh=False)
        bar.update()

    def _write_summary(self) -> None:
        folder = self.completions.folder
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{SUMMARY}.{os.getpid()}"
        temporary.write_text(json.dumps(self.report.to_dict(), indent=1, ensure_ascii=False) + "\n")
        temporary.replace(folder / SUMMARY)


class _Answers:
    """The answers of all slots, put in any order: in a temporary file, with 8 bytes a slot in memory."""

    def __init__(self, slots: int) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._offsets = array("q", [-1]) * slots
        self._end = 0

    def put(self, slot: int, attempt: Attempt) -> None:
        completion = attempt.completion
        failed = attempt.failure is not None
        line = json.dumps(
            {
                "results": attempt.results,
                "attributes": [dict(one) for one in attempt.request.attributes],
                "generator": completion.generator,
                "failure": str(attempt.failure) if failed else None,
                "raw": completion.text if failed else "",
            }
        )
        data = line.encode() + b"\n"
        self._file.seek(self._end)
        self._file.write(data)
        self._offsets[slot], self._end = self._end, self._end + len(data)

    def get(self, slot: int) -> Answer:
        if self._offsets[slot] < 0:
            return Answer()
        self._file.seek(self._offsets[slot])
        return Answer(**json.loads(self._file.readline()))


def _countable(items: Iterable[Item]) -> Collection[Item]:
    """Returns the items as something that can be counted and walked through more than once."""
    if hasattr(items, "__len__") and hasattr(items, "__iter__"):
        return items  # type: ignore[return-value]
    return list(items)


def _shard(items: Collection[Item], shard: str | None) -> Collection[Item]:
    """Returns the items of a shard, "i/n": every n-th from the i-th on."""
    i, n = parse_shard(shard)
    if n == 1:
        return items
    if hasattr(items, "select"):
        return items.select(range(i, len(items), n))
    return list(items)[i::n]
