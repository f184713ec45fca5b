"""Writing as a stage: synthetic negatives, and the rows that they make when they are turned round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from syneg.config import parse_mapping
from syneg.encoders import public_name
from syneg.llm.engines import check_ready
from syneg.llm.generation import Answer, Generation
from syneg.llm.journal import Journal, has_entries
from syneg.llm.report import GenerationReport
from syneg.llm.requests import Engine
from syneg.resources import check_place
from syneg.rows import MIRROR, SYNTHETIC, Row, make_dropped, make_negative, make_row, mirror_ids
from syneg.sources import Pair
from syneg.stages import Draft, SizedPairs, Stage
from syneg.writing.arguments import GenerationArguments
from syneg.writing.negatives import MinedTexts, NegativesTask, negatives_of, read_negatives


class Writing(Stage):
    """Puts each pair's synthetic negatives before those that it has; what could not be read is dropped.

    Args:
        args: What is asked, and how.
        journal: The journal.
        seed: Seed of the attributes and of the sampling.
        mined: Gives a pair's mined negatives to a strategy that starts from them.
        engine: An engine that runs already, and is left running.
    """

    name = "generation"

    def __init__(
        self,
        args: GenerationArguments,
        journal: Journal,
        seed: int,
        mined: MinedTexts | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.args, self.seed = args, seed
        self._journal, self._mined, self._engine = journal, mined, engine
        self._generation: Generation[Pair] | None = None
        self._answers: Iterator[list[Answer]] | None = None

    @property
    def generation(self) -> Generation[Pair]:
        """What was asked for."""
        assert self._generation is not None, "prepare comes first"
        return self._generation

    def check(self) -> None:
        """Checks the strategy, the recordings, and the engine unless the journal may have all answers.

        Raises:
            InputError: For what is not to be had.
        """
        check_place(self._journal.folder, "journal")
        # Reads the recordings, if there are any, for what is wrong with them.
        recordings = NegativesTask(self.args, self.seed).recordings
        if recordings is not None:
            recordings.close()
        if self._engine is None and not has_entries(self._journal.folder):
            check_ready(self.args)

    def prepare(self, pairs: SizedPairs) -> None:
        """Asks for the completions that the journal lacks.

        Raises:
            InputError: For an engine, strategy or recordings that cannot be used. The journal keeps every
                completion.
        """
        self._generation = self.generation_of(pairs)
        self._generation.run()
        self._answers = self._generation.results()

    def generation_of(self, pairs: SizedPairs) -> Generation[Pair]:
        """Returns the generation for some pairs, of which nothing is asked yet.

        Raises:
            InputError: For an unknown engine or strategy, or recordings that cannot be read.
        """
        return negatives_of(
            pairs, self.args, self._journal, self.seed, mined=self._mined, engine=self._engine
        )

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """Adds what was written for the next pairs."""
        assert self._answers is not None, "prepare comes first"
        for draft in drafts:
            written = []
            for answer in next(self._answers):
                negatives, queries, unread = read_negatives(answer)
                written += negatives
                draft.mirror_queries |= {
                    negative["text"]: query
                    for negative, query in zip(negatives, queries, strict=True)
                    if query
                }
                if unread is not None:
                    draft.dropped.append(make_dropped(draft.row, unread, "parse", str(answer.failure)))
            draft.row["negatives"] = written + draft.row["negatives"]
        return drafts

    def report(self) -> GenerationReport:
        """Returns the figures of the generation."""
        return self.generation.report

    def card(self) -> dict[str, Any]:
        """Returns strategy, prompt, attributes, engine and LLM."""
        args, task = self.args, self.generation.task
        assert isinstance(task, NegativesTask)
        return {
            "strategy": public_name(args.strategy),
            "prompt_version": task.strategy.version,
            "prompt": task.strategy.shared(args.negatives_per_request),
            "attributes": parse_mapping(args.attributes, "attributes") if args.with_attributes else {},
            "engine": public_name(args.engine),
            # What was replayed was not written by the model that the arguments would have asked.
            "llm": None if args.engine == "recorded" else args.llm,
        }

    def close(self) -> None:
        """Frees what was read; the report stays."""
        self._answers = None
        if self._generation is not None:
            self._generation.close()


class Mirroring(Stage):
    """Makes of each row one turned round for each synthetic negative that says which query it satisfies.

    The mirrored row has that query, the synthetic document as its positive and the row's own positive
    among its negatives, so that being synthetic no longer predicts being negative.
    """

    name = "mirroring"

    def apply(self, drafts: list[Draft]) -> list[Draft]:
        """Puts the mirrored rows before other rows that were made."""
        for draft in drafts:
            row = draft.row
            mirrored: list[Row] = []
            for negative in row["negatives"]:
                query = draft.mirror_queries.get(negative["text"])
                if negative["source"] == SYNTHETIC and query:
                    query_id, document_id = mirror_ids(row, len(mirrored) + 1)
                    positive = make_negative(row["positive"], MIRROR, doc_id=row["positive_id"])
                    mirrored.append(
                        make_row(query_id, query, document_id, negative["text"], [positive], MIRROR)
                    )
            draft.made = mirrored + draft.made
        return drafts
