"""From pairs to requests, and from the journal back to what each slot came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from syneg.llm.journal import Journal
from syneg.llm.parsing import PROMPT_TOO_LONG, ParseFailure, Written
from syneg.llm.recordings import Recordings, open_recordings
from syneg.llm.requests import Completion, Request, digest
from syneg.sources import Pair
from syneg.text import cut, neutralise
from syneg.writing.arguments import GenerationArguments
from syneg.writing.strategies import Example, PromptOptions, make_strategy
from syneg.writing.strategy import Strategy, draw_attributes

Mined = Callable[[Pair], Sequence[str]]
"""Gives the mined negatives of a pair, best first; for strategies that start from one."""


@dataclass
class Attempt:
    """One completion of a request, read.

    Attributes:
        request: What was asked.
        completion: What came.
        written: The negatives in it, where it could be read.
        failure: Why it could not, otherwise.
    """

    request: Request
    completion: Completion
    written: list[Written] = field(default_factory=list)
    failure: ParseFailure | None = None


@dataclass
class Outcome:
    """What a slot came to so far.

    Attributes:
        attempts: The completions that the journal has, first to last. All but the last failed.
        next_request: What to ask next; None where the slot is settled, for good or ill.
        positive_cut: Whether the positive (or a mined negative) was cut to its budget.
        changed: Whether the recording was made for another query text, so that nothing is asked.
        not_recorded: Whether the engine is `recorded` and has no completion of this slot.
    """

    attempts: list[Attempt] = field(default_factory=list)
    next_request: Request | None = None
    positive_cut: bool = False
    changed: bool = False
    not_recorded: bool = False


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


class Planner:
    """Renders the requests of pairs. The same arguments and seed give the same requests.

    Args:
        args: What is asked, and how.
        seed: Seed of the attributes and of the sampling.
        mined: Mined negatives, for a strategy that wants them.

    Raises:
        InputError: For an unknown strategy, or recordings that cannot be read.
    """

    def __init__(self, args: GenerationArguments, seed: int, mined: Mined | None = None) -> None:
        self.args = args
        self.seed = seed
        self.strategy = strategy_of(args)
        self._mined = mined if self.strategy.wants_mined else None
        self.recordings: Recordings | None = None
        if args.engine == "recorded":
            self.recordings = open_recordings(args, self.strategy)
        # Without randomness another seed gives the same completion.
        self.max_attempts = args.max_attempts if args.temperature > 0 else 1
        self._schemas: dict[int, Mapping[str, Any]] = {}

    def slots(self) -> range:
        """Returns the first slot of each of a pair's requests."""
        return range(0, self.args.slots, self.args.negatives_per_request)

    def outcomes(self, pair: Pair, journal: Journal) -> Iterator[Outcome]:
        """Yields what each slot of a pair came to, by the journal alone."""
        for slot in self.slots():
            yield self._outcome(pair, slot, journal)

    def read(self, request: Request, completion: Completion) -> Attempt:
        """Returns a completion, read."""
        count = len(request.attributes)
        try:
            written = self.strategy.parse(completion.text, completion.finish_reason, count)
        except ParseFailure as failure:
            return Attempt(request, completion, failure=failure)
        return Attempt(request, completion, written)

    def again(self, attempt: Attempt) -> Request | None:
        """Returns the request to make after a failed attempt, or None where it was the last."""
        number = attempt.request.attempt + 1
        failure = attempt.failure
        if failure is None or failure.kind == PROMPT_TOO_LONG or number >= self.max_attempts:
            return None
        return self._numbered(attempt.request, number)

    def close(self) -> None:
        """Closes the recordings."""
        if self.recordings is not None:
            self.recordings.close()

    def _outcome(self, pair: Pair, slot: int, journal: Journal) -> Outcome:
        model = self.args.llm
        attributes = None
        if self.recordings is not None:
            if self.recordings.is_changed(pair, slot):
                return Outcome(changed=True)
            asked = self.recordings.asked(pair, slot, model)
            if asked is not None:
                model, attributes = asked.model, asked.attributes
        request, positive_cut = self._render(pair, slot, model, attributes)
        outcome = Outcome(positive_cut=positive_cut)
        open_request: Request | None = request
        while open_request is not None:
            entry = journal.get(open_request.key)
            if entry is None:
                break
            outcome.attempts.append(self.read(open_request, entry.completion))
            open_request = self.again(outcome.attempts[-1])
        outcome.next_request = open_request
        if open_request is not None and self.recordings is not None:
            self._check_recorded(outcome, self.recordings)
        return outcome

    def _check_recorded(self, outcome: Outcome, recordings: Recordings) -> None:
        """Closes a slot that was never recorded, if such may be skipped, or not that often."""
        assert outcome.next_request is not None
        if recordings.find(outcome.next_request) is None:
            outcome.not_recorded = not outcome.attempts
            if outcome.attempts or self.args.on_miss == "skip":
                outcome.next_request = None

    def _render(
        self, pair: Pair, slot: int, model: str, attributes: list[dict[str, str]] | None
    ) -> tuple[Request, bool]:
        args = self.args
        if attributes is None:
            attributes = self._drawn(pair, slot)
        passages = [pair.positive, *self._mined_for(pair, slot, len(attributes))]
        cuts = [cut(neutralise(text), args.max_positive_tokens) for text in passages]
        positive, *mined = (text for text, _ in cuts)
        count = len(attributes)
        if count not in self._schemas:
            self._schemas[count] = self.strategy.schema(count)
        request = Request(
            model=model,
            messages=self.strategy.messages(Example(neutralise(pair.query), positive, attributes, mined)),
            sampling={},
            schema=self._schemas[count],
            prompt=self.strategy.label,
            query_id=pair.query_id,
            positive_id=pair.positive_id,
            slot=slot,
            attributes=attributes,
        )
        return self._numbered(request, 0), any(was_cut for _, was_cut in cuts)

    def _drawn(self, pair: Pair, slot: int) -> list[dict[str, str]]:
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

    def _mined_for(self, pair: Pair, slot: int, count: int) -> list[str]:
        """Returns a mined negative for each slot, a different one as long as there are."""
        found = self._mined(pair) if self._mined is not None else ()
        return [found[i % len(found)] for i in range(slot, slot + count)] if found else []

    def _numbered(self, request: Request, attempt: int) -> Request:
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
