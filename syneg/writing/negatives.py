"""Hard negatives that an LLM writes: what is asked for a pair, and how its completions become negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from syneg.llm.generation import Answer, Completions, Generation
from syneg.llm.journal import Journal
from syneg.llm.recordings import Asked, PairLines, RecordedJournal, Recordings, recordings_path
from syneg.llm.requests import Completion, Engine, Request, digest
from syneg.rows import SYNTHETIC, Negative, make_negative
from syneg.sources import Pair, Pairs
from syneg.text import cut, estimate_tokens, neutralise
from syneg.writing.arguments import ATTRIBUTE_NAMES, GenerationArguments
from syneg.writing.strategies import Example, PromptOptions, Strategy, Written, make_strategy
from syneg.writing.strategy import draw_attributes

MinedTexts = Callable[[Pair], Sequence[str]]
"""Gives the texts of a pair's mined negatives, best first; for strategies that start from one."""


def strategy_of(args: GenerationArguments) -> Strategy:
    """Returns the strategy that the arguments name, told what they say of the source.

    Raises:
        InputError: For an unknown strategy.
    """
    options = PromptOptions(
        persona=args.persona,
        query_kind=args.query_kind,
        document_kind=args.document_kind,
        attributes=args.with_attributes,
        reflection=args.with_reflection,
        mirror=args.mirror,
    )
    return make_strategy(args.strategy, options)


def negatives_of(
    pairs: Pairs | Iterable[Pair],
    args: GenerationArguments,
    journal: Journal | str | Path,
    seed: int,
    *,
    mined: MinedTexts | None = None,
    engine: Engine | None = None,
    progress: bool = True,
) -> Generation[Pair]:
    """Returns the generation of negatives for pairs; nothing is asked yet.

    Args:
        pairs: The pairs.
        args: What is asked, and how.
        journal: The journal, or its folder.
        seed: Seed of the attributes and of the sampling.
        mined: Gives the mined negatives of a pair, best first, to a strategy that starts from them.
        engine: An engine that runs already, and is left running; None starts the one `args` names.
        progress: Whether to show a progress bar.

    Raises:
        InputError: For an unknown engine or strategy, or recordings that cannot be read.
    """
    task = NegativesTask(args, seed, mined)
    return Generation(pairs, task, Completions(args, journal, task.recordings, engine), progress=progress)


def read_negatives(answer: Answer) -> tuple[list[Negative], list[str | None], Negative | None]:
    """Returns what a slot's answer says.

    Returns:
        The negatives; for each of them the query that it satisfies, where the LLM wrote one; and, where
        the completion could not be read, that completion as a negative.
    """
    if answer.failure is not None:
        raw = make_negative(answer.raw, SYNTHETIC, generator=answer.generator, **answer.attributes[0])
        return [], [], raw
    written = [Written(**fields) for fields in answer.results]
    negatives = [
        make_negative(one.text, SYNTHETIC, reasoning=one.reasoning, generator=answer.generator, **attributes)
        for one, attributes in zip(written, answer.attributes, strict=True)
    ]
    return negatives, [one.mirror_query for one in written], None


class NegativesTask:
    """Asks for negatives of a pair. The same arguments and seed give the same requests.

    Args:
        args: What is asked, and how.
        seed: Seed of the attributes and of the sampling.
        mined: Mined negatives, for a strategy that wants them.

    Raises:
        InputError: For an unknown strategy, or recordings that cannot be read.
    """

    noun = "synthetic negatives"
    replays_failures = True

    def __init__(self, args: GenerationArguments, seed: int, mined: MinedTexts | None = None) -> None:
        self.args = args
        self.seed = seed
        self.strategy = strategy_of(args)
        self.label = self.strategy.label
        self.recordings = open_recordings(args, self.strategy) if args.engine == "recorded" else None
        self._first_slots = range(0, args.slots, args.negatives_per_request)
        self.slots = len(self._first_slots)
        # Without randomness another seed gives the same completion.
        self.max_attempts = args.max_attempts if args.temperature > 0 else 1
        self._mined = mined if self.strategy.wants_mined else None
        self._schemas: dict[int, Mapping[str, Any]] = {}
        self._recorded = 0

    def requests(self, pair: Pair) -> Iterator[Request | None]:
        """Yields the first request of each slot; see `generation.Task`."""
        if self.recordings is not None:
            self._recorded += self.recordings.count(pair)
        mined = self._mined(pair) if self._mined is not None else ()
        for slot in self._first_slots:
            asked = None
            if self.recordings is not None:
                if self.recordings.is_changed(pair, slot):
                    yield None
                    continue
                asked = self.recordings.asked(pair, slot, self.args.llm)
            if asked is None:
                asked = Asked(self.args.llm, self._attributes(pair, slot))
            yield self._render(pair, slot, asked, mined)

    def read(self, request: Request, completion: Completion) -> list[dict[str, Any]]:
        """Returns the negatives in a completion, as mappings of `Written`."""
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
            "seed": digest(self.seed, request.query_id, request.positive_id, request.slot, attempt) >> 33,
            "chat_template_options": args.chat_template_options,
        }
        return replace(request, sampling=sampling, attempt=attempt)

    def expected_tokens(self, pair: Pair, request: Request) -> int:
        """Returns what the negatives will have if they are as long as the positive."""
        return estimate_tokens(pair.positive) * len(request.attributes)

    def missing(self) -> int:
        """Returns how many recordings belong to none of the pairs."""
        return 0 if self.recordings is None else self.recordings.lines - self._recorded

    def _render(self, pair: Pair, slot: int, asked: Asked, mined: Sequence[str]) -> Request:
        count = len(asked.attributes)
        # For each negative another mined one, as long as there are.
        start_from = [mined[i % len(mined)] for i in range(slot, slot + count)] if mined else []
        cuts = [cut(neutralise(text), self.args.max_positive_tokens) for text in (pair.positive, *start_from)]
        positive, *passages = (text for text, _ in cuts)
        if count not in self._schemas:
            self._schemas[count] = self.strategy.schema(count)
        example = Example(neutralise(pair.query), positive, asked.attributes, passages)
        request = Request(
            model=asked.model,
            messages=self.strategy.messages(example),
            sampling={},
            schema=self._schemas[count],
            prompt=self.label,
            query_id=pair.query_id,
            positive_id=pair.positive_id,
            slot=slot,
            attributes=asked.attributes,
            cut=any(was_cut for _, was_cut in cuts),
        )
        return self.numbered(request, 0)

    def _attributes(self, pair: Pair, slot: int) -> list[dict[str, str]]:
        """Returns the attributes of each slot that the request at `slot` covers."""
        args = self.args
        slots = range(slot, min(slot + args.negatives_per_request, args.slots))
        # By the strategy's own options: `plain` has them off whatever was asked for.
        if not self.strategy.options.attributes:
            return [{} for _ in slots]
        assert isinstance(args.attributes, dict)
        return [
            draw_attributes(args.attributes, self.seed, pair.query_id, pair.positive_id, one) for one in slots
        ]


class RecordedNegatives(Recordings, Protocol):
    """What the engine `recorded` replays as written negatives.

    Attributes:
        lines: How many recordings should belong to the pairs; 0 where there may well be others.
    """

    lines: int

    def asked(self, pair: Pair, slot: int, llm: str) -> Asked | None:
        """Returns what was asked for when the slot was recorded, or None where it was not.

        Where the slot was recorded with several LLMs, `llm` is the one to prefer.
        """
        ...

    def is_changed(self, pair: Pair, slot: int) -> bool:
        """Returns whether the recording was made for another query text."""
        ...

    def count(self, pair: Pair) -> int:
        """Returns how many recordings belong to the pair, of those that `lines` counts."""
        ...


def open_recordings(args: GenerationArguments, strategy: Strategy) -> RecordedNegatives:
    """Opens what `args.recordings` names.

    Raises:
        InputError: Where nothing is named, it does not exist, or a line of it is malformed.
    """
    path = recordings_path(args, "completions", "negatives_per_request")
    return _FromJournal(path) if path.is_dir() else _FromLines(path, strategy)


class _FromLines:
    """A JSONL of recorded completions.

    One JSON object a line: query_id, positive_id, text, and where known domain, difficulty, length,
    reasoning, query (as it was then), mirror_query and generator. The n-th line of a pair is the
    recording of its n-th slot.

    Args:
        path: The file.
        strategy: Whose completions the lines are turned into.

    Raises:
        InputError: For a malformed line; names its number.
    """

    def __init__(self, path: Path, strategy: Strategy) -> None:
        self.path = path
        self._strategy = strategy
        optional = (*ATTRIBUTE_NAMES, "query", "reasoning", "mirror_query", "generator")
        self._lines = PairLines(path, "--recordings", "positive_id", ("text",), optional, repeated=True)
        self.lines = self._lines.lines

    def asked(self, pair: Pair, slot: int, llm: str) -> Asked | None:
        """Returns the recorded attributes; one that was not recorded is said to be so.

        The model is named after the file, whatever `llm` is: a journal that is filled from
        recordings must not pass for the work of the LLM that is asked next.
        """
        record = self._lines.get(pair.query_id, pair.positive_id, slot)
        if record is None:
            return None
        attributes = {name: record.get(name) or "not recorded" for name in ATTRIBUTE_NAMES}
        return Asked(f"recorded:{self.path.stem}", [attributes])

    def is_changed(self, pair: Pair, slot: int) -> bool:
        """Returns whether the line's `query` differs from the pair's."""
        record = self._lines.get(pair.query_id, pair.positive_id, slot)
        return record is not None and record.get("query", pair.query) != pair.query

    def count(self, pair: Pair) -> int:
        """Returns how many lines the pair has."""
        return self._lines.count(pair.query_id, pair.positive_id)

    def find(self, request: Request) -> Completion | None:
        """Returns the line as a completion in the strategy's schema."""
        record = self._lines.get(request.query_id, request.positive_id, request.slot)
        if record is None or request.attempt > 0:
            return None
        written = Written(record["text"], record.get("reasoning") or "", record.get("mirror_query"))
        text = self._strategy.completion_text([written])
        generator = record.get("generator") or f"recorded:{self.path.stem}"
        return Completion(key=request.key, text=text, finish_reason="stop", generator=generator)

    def explain(self, request: Request) -> str:
        """Says how many lines there are."""
        return f"{self.path} has no line for it ({self._lines.lines} lines)"

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


class _FromJournal(RecordedJournal):
    """The journal of an earlier run, which may well cover more than is asked."""

    lines = 0

    def asked(self, pair: Pair, slot: int, llm: str) -> Asked | None:
        """Returns what the slot's entry says; one made by `llm` before any other."""
        return self.asked_at(pair.query_id, pair.positive_id, slot, llm)

    def is_changed(self, pair: Pair, slot: int) -> bool:
        """Returns False: the key covers the query's text, so a changed query is a miss."""
        return False

    def count(self, pair: Pair) -> int:
        """Returns 0."""
        return 0
