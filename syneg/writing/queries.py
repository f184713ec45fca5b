"""Queries that an LLM writes for documents: what is asked for one, and how its completions are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from syneg.errors import InputError
from syneg.llm.generation import Completions, Generation
from syneg.llm.journal import Journal
from syneg.llm.recordings import Asked, RecordedJournal, Recordings, recordings_path
from syneg.llm.requests import Completion, Engine, Request, digest
from syneg.reading import columns_seen, is_blank, json_lines, whole_text
from syneg.sources import Source, document_text
from syneg.text import cut, neutralise
from syneg.writing.passages import passages
from syneg.writing.query_arguments import QueryArguments
from syneg.writing.query_strategy import (
    QUERY_KINDS,
    DocumentPrompt,
    QueryOptions,
    RealQuery,
    WrittenText,
    make_query_strategy,
)
from syneg.writing.strategy import draw_attributes

_BLOCK = 1000
"""Documents read at once."""
_passages = lru_cache(maxsize=1)(passages)
"""The requests on a document stand one after the other."""


@dataclass(frozen=True)
class Subject:
    """What one request is about.

    Attributes:
        document_id: The document.
        passage: The passage of it that is in the prompt, its title first.
        slot: Which of the document's queries this asks for: the first, where it asks for several.
        count: How many it asks for.
        beside_query_id: The query that the document was mined for as a negative; blank where it was drawn.
        neighbour: That query, and its positive.
    """

    document_id: str
    passage: str
    slot: int
    count: int
    beside_query_id: str = ""
    neighbour: RealQuery | None = None


class Subjects:
    """Requests on documents, as numbers; texts are read when asked for.

    Of a document of several passages the first request has one that is drawn, and each further request the
    one after it, round and round.

    Args:
        source: Where the texts are.
        rows: Row of each request's document in the corpus, shape (n,).
        slots: First slot of each request, shape (n,).
        counts: Queries that each asks for, shape (n,).
        passage_tokens: The most tokens of a passage.
        seed: Seed of the draw of passages.
        beside: For a document's id the query that it was mined for, its id first, and that one's positive.
    """

    def __init__(
        self,
        source: Source,
        rows: np.ndarray,
        slots: np.ndarray,
        counts: np.ndarray,
        passage_tokens: int,
        seed: int,
        beside: Mapping[str, tuple[str, RealQuery]] | None = None,
    ) -> None:
        self.source, self.rows, self.slots, self.counts = source, rows, slots, counts
        self._passage_tokens, self._seed, self._beside = passage_tokens, seed, beside or {}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Subject]:
        for start in range(0, len(self), _BLOCK):
            here = slice(start, start + _BLOCK)
            documents = self.source.corpus.select(self.rows[here].tolist())
            columns = zip(documents, self.slots[here].tolist(), self.counts[here].tolist(), strict=True)
            for document, slot, count in columns:
                passage = self._passage(document, slot, count)
                beside = self._beside.get(document["id"], ("", None))
                yield Subject(document["id"], passage, slot, count, *beside)

    def select(self, indices: Iterable[int]) -> Subjects:
        """Returns the requests at these positions."""
        chosen = np.asarray(list(indices), dtype=int)
        return Subjects(
            self.source,
            self.rows[chosen],
            self.slots[chosen],
            self.counts[chosen],
            self._passage_tokens,
            self._seed,
            self._beside,
        )

    def _passage(self, document: Mapping[str, Any], slot: int, count: int) -> str:
        found = _passages(document["text"] or "", self._passage_tokens)
        first = digest(self._seed, "passage", document["id"])
        return document_text(document["title"], found[(first + slot // count) % len(found)])


def queries_of(
    subjects: Subjects | Sequence[Subject],
    task: QueriesTask,
    journal: Journal | str | Path,
    *,
    engine: Engine | None = None,
    progress: bool = True,
) -> Generation[Subject]:
    """Returns the generation of queries for documents; nothing is asked yet.

    Args:
        subjects: What the requests are about.
        task: What is asked.
        journal: The journal, or its folder.
        engine: An engine that runs already, and is left running; None starts the one that is named.
        progress: Whether to show a progress bar.

    Raises:
        InputError: For an unknown engine.
    """
    completions = Completions(task.args, journal, task.recordings, engine)
    generation = Generation(subjects, task, completions, progress=progress)
    generation.report.unit, generation.report.result = "passages", "query"
    return generation


class QueriesTask:
    """Asks for queries of a document. The same arguments, examples and seed give the same requests.

    Args:
        args: What is asked, and how.
        seed: Seed of the kinds and of the sampling.
        examples: Real queries with their documents, as they are.
        recordings: What the engine `recorded` replays.

    Raises:
        InputError: For an unknown strategy.
    """

    noun = "written queries"
    slots = 1
    replays_failures = True

    def __init__(
        self,
        args: QueryArguments,
        seed: int,
        examples: Sequence[RealQuery] = (),
        recordings: RecordedQueries | None = None,
    ) -> None:
        self.args, self.seed, self.recordings = args, seed, recordings
        self._kinds = [QUERY_KINDS.get(kind, kind) for kind in args.kinds(bool(examples))]
        self.strategy = make_query_strategy(
            args.strategy,
            QueryOptions(
                query_kind=args.query_kind,
                document_kind=args.document_kind,
                reflection=args.with_reflection,
                kinds=bool(self._kinds),
                examples=[_shown(one, args.max_example_tokens) for one in examples],
                beside=args.beside is not None,
            ),
        )
        self.label = self.strategy.label
        # Without randomness another seed gives the same completion.
        self.max_attempts = args.max_attempts if args.temperature > 0 else 1
        self._schemas: dict[int, Mapping[str, Any]] = {}

    def requests(self, subject: Subject) -> Iterator[Request]:
        """Yields the one request on a document's passage."""
        asked = None
        if self.recordings is not None:
            asked = self.recordings.asked(subject, self.args.llm)
        if asked is None:
            asked = Asked(self.args.llm, self._attributes(subject))
        count = len(asked.attributes)
        if count not in self._schemas:
            self._schemas[count] = self.strategy.schema(count)
        # The title may take a passage over its budget.
        passage, was_cut = cut(neutralise(subject.passage), 2 * self.args.max_positive_tokens)
        neighbour = subject.neighbour and _shown(subject.neighbour, self.args.max_positive_tokens)
        request = Request(
            model=asked.model,
            messages=self.strategy.messages(DocumentPrompt(passage, asked.attributes, neighbour)),
            sampling={},
            schema=self._schemas[count],
            prompt=self.label,
            query_id=subject.beside_query_id,
            positive_id=subject.document_id,
            slot=subject.slot,
            attributes=asked.attributes,
            cut=was_cut,
        )
        yield self.numbered(request, 0)

    def read(self, request: Request, completion: Completion) -> list[dict[str, Any]]:
        """Returns the queries in a completion, as mappings of `WrittenText`."""
        count = len(request.attributes)
        return [asdict(one) for one in self.strategy.parse(completion.text, completion.finish_reason, count)]

    def numbered(self, request: Request, attempt: int) -> Request:
        """Returns the request with the seed of this attempt."""
        args = self.args
        sampling = {
            "temperature": args.temperature,
            "top_p": args.top_p,
            "max_tokens": args.max_tokens * len(request.attributes),
            # 31 bits: what every engine takes.
            "seed": digest(self.seed, "query", request.positive_id, request.slot, attempt) >> 33,
            "chat_template_options": args.chat_template_options,
        }
        return replace(request, sampling=sampling, attempt=attempt)

    def expected_tokens(self, subject: Subject, request: Request) -> int:
        """Returns what a query of about a dozen words takes."""
        return 20 * len(request.attributes)

    def missing(self) -> int:
        """Returns how many recorded queries are of documents that the source does not have."""
        return 0 if self.recordings is None else self.recordings.unknown

    def _attributes(self, subject: Subject) -> list[dict[str, str]]:
        slots = range(subject.slot, subject.slot + subject.count)
        if not self._kinds:
            return [{} for _ in slots]
        kinds = {"kind": self._kinds}
        return [draw_attributes(kinds, self.seed, "", subject.document_id, slot) for slot in slots]


def _shown(example: RealQuery, max_tokens: int) -> RealQuery:
    """Returns a real query and its document as the prompt shows them."""
    return RealQuery(neutralise(example.query), cut(neutralise(example.document), max_tokens)[0])


class RecordedQueries(Recordings, Protocol):
    """What the engine `recorded` replays as written queries.

    Attributes:
        unknown: How many recordings are of documents that the source does not have.
    """

    unknown: int

    def asked(self, subject: Subject, llm: str) -> Asked | None:
        """Returns what was asked for when the slot was recorded, or None where it was not."""
        ...

    def counts(self, document_ids: Iterable[str]) -> dict[str, int] | None:
        """Returns how many queries each of a source's documents has, or None where that is not known."""
        ...


def open_query_recordings(args: QueryArguments) -> RecordedQueries | None:
    """Opens what `args.recordings` names, where the engine is `recorded`.

    Raises:
        InputError: Where nothing is named, it does not exist, or a line of it is malformed.
    """
    if args.engine != "recorded":
        return None
    path = recordings_path(args, "queries", "queries_per_request")
    return _FromJournal(path) if path.is_dir() else RecordedLines(path, args)


class RecordedLines:
    """A JSONL of recorded queries, held in memory.

    One JSON object a line: doc_id, query, and where known kind, reasoning and generator; other keys are not
    read. The n-th line of a document is the recording of its n-th slot.

    Args:
        path: The file.
        args: What strategy the lines are turned into completions of.

    Raises:
        InputError: For a malformed line; names its number.
    """

    def __init__(self, path: Path, args: QueryArguments) -> None:
        self.path = path
        self.unknown = 0
        self._strategy = make_query_strategy(args.strategy, QueryOptions(reflection=args.with_reflection))
        self._records: dict[str, list[dict[str, str]]] = {}
        self._lines = 0
        for where, line in json_lines(path):
            record = query_line(line, where, ("doc_id", "query"), _OPTIONAL)
            self._records.setdefault(record.pop("doc_id"), []).append(record)
            self._lines += 1
        if not self._lines:
            raise InputError(f"--recordings {path}: the file holds no recorded query.")

    def counts(self, document_ids: Iterable[str]) -> dict[str, int]:
        """Returns how many lines each document has; says in `unknown` how many belong to none of them.

        Raises:
            InputError: Where all of them do.
        """
        known = {name: len(self._records[name]) for name in document_ids if name in self._records}
        self.unknown = self._lines - sum(known.values())
        if not known:
            raise InputError(
                f"--recordings {self.path}: its {self._lines} queries are of documents that the source does "
                f"not have, as {next(iter(self._records))!r}."
            )
        return known

    def asked(self, subject: Subject, llm: str) -> Asked | None:
        """Returns the recorded kind, if any.

        The model is named after the file, whatever `llm` is: a journal that is filled from recordings must
        not pass for the work of the LLM that is asked next.
        """
        record = self._record(subject.document_id, subject.slot)
        if record is None:
            return None
        return Asked(f"recorded:{self.path.stem}", [{"kind": record["kind"]} if "kind" in record else {}])

    def find(self, request: Request) -> Completion | None:
        """Returns the line as a completion in the strategy's schema."""
        record = self._record(request.positive_id, request.slot)
        if record is None or request.attempt > 0:
            return None
        text = self._strategy.completion_text([WrittenText(record["query"], record.get("reasoning"))])
        generator = record.get("generator", f"recorded:{self.path.stem}")
        return Completion(key=request.key, text=text, finish_reason="stop", generator=generator)

    def explain(self, request: Request) -> str:
        """Says how many lines there are."""
        return f"{self.path} has no line for it ({self._lines} lines)"

    def close(self) -> None:
        """Nothing is open."""

    def _record(self, document_id: str, slot: int) -> dict[str, str] | None:
        records = self._records.get(document_id, [])
        return records[slot] if slot < len(records) else None


class _FromJournal(RecordedJournal):
    """The journal of an earlier run, which may well cover more than is asked."""

    unknown = 0

    def asked(self, subject: Subject, llm: str) -> Asked | None:
        """Returns what the slot's entry says; one made by `llm` before any other."""
        return self.asked_at(subject.beside_query_id, subject.document_id, subject.slot, llm)

    def counts(self, document_ids: Iterable[str]) -> None:
        """Returns None: which documents are asked for is drawn as it was then."""
        return None


_OPTIONAL = ("kind", "reasoning", "generator")


def query_line(
    record: Mapping[str, Any], where: str, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, str]:
    """Returns the texts of a line: those that must be there, and of the others those that are.

    Raises:
        InputError: Where a text is missing or blank, or is no string.
    """
    texts = {}
    for name in (*required, *optional):
        value = record.get(name)
        if name in required and name not in record:
            raise InputError(f"{where}: {name!r} is missing (found: {columns_seen(record)}).")
        if value is None and name in optional:
            continue
        if not isinstance(value, str):
            raise InputError(f"{where}: {name!r} must be a string, not a {type(value).__name__}.")
        texts[name] = whole_text(value)
        if name in required and is_blank(value):
            raise InputError(f"{where}: {name!r} is blank.")
    return texts


def slots_of(counts: Sequence[int], per_request: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the requests for documents that get so many queries each.

    Args:
        counts: Queries of each document.
        per_request: The most that one request asks for.

    Returns:
        Position of each request's document, its first slot and its number of queries, shape (n,) each.
    """
    requests = [
        (i, slot, min(per_request, count - slot))
        for i, count in enumerate(counts)
        for slot in range(0, count, per_request)
    ]
    table = np.array(requests, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]
