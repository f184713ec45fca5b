"""The written queries of a pilot: asked for documents that its evaluation half has nothing to do with.

What `syneg ask` and `syneg mine` make of a whole source is made of a pilot's sample of it here; the lines for
the whole source are those two commands.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from syneg.asking import AskFolderArguments, Asking, NothingWritten
from syneg.asking.drawing import judged
from syneg.asking.folder import save_written
from syneg.building import (
    FolderArguments,
    StageArguments,
    mine_parts,
    new_card,
    options_of,
    part_of,
    write_folder,
)
from syneg.errors import InputError
from syneg.evaluation.verdict import Verdict
from syneg.gating.queries import QueryGateArguments
from syneg.hub.folders import load_split
from syneg.llm.arguments import LLMArguments
from syneg.llm.estimate import Estimate, estimate
from syneg.llm.journal import Journal
from syneg.llm.report import RunFigures
from syneg.mining.arguments import MiningArguments
from syneg.mining.cache import document_keys
from syneg.sources import Source, SourceArguments
from syneg.sources.source import TEST, TRAIN
from syneg.training.held_out import hold_back_rows
from syneg.writing.examples import Examples, read_examples
from syneg.writing.query_arguments import QueryArguments

WRITTEN, WRITTEN_AND_PAIRS = "written", "written-and-pairs"
EXAMPLES = "examples.jsonl"

_OF_THE_LLM = {one.name for one in dataclasses.fields(LLMArguments)} - {
    *("max_tokens", "max_positive_tokens", "recordings", "journal", "shard", "dry_run"),
}
"""What holds for queries as for negatives: who is asked, and how. How long a text may be differs."""
_OF_THE_MINERS = {one.name for one in dataclasses.fields(QueryGateArguments)} & {
    one.name for one in dataclasses.fields(MiningArguments)
}


@dataclass(frozen=True)
class Written:
    """What was written for a pilot.

    Attributes:
        documents: Documents that were written for.
        queries: Queries that the gates kept.
        examples: Real queries that the prompt showed; None where recorded lines do not tell.
        run: What this run asked for.
    """

    documents: int
    queries: int
    examples: int | None
    run: RunFigures


@dataclass(frozen=True)
class Queries:
    """What a pilot found of written queries.

    Attributes:
        verdict: Of those beside the pairs, against dense.
        alone: Of those alone, against the model before training.
        written: What was written.
        cost: What the writing for the whole source costs that is not in the journal yet.
    """

    verdict: Verdict
    alone: Verdict
    written: Written
    cost: Estimate

    def lines(self, pairs: int) -> list[str]:
        """Returns both verdicts for people.

        Args:
            pairs: Pairs of the pilot.
        """
        made = self.written
        shown = f", after {made.examples} real ones as examples" if made.examples else ""
        return [
            f"WRITTEN QUERIES, {made.queries:,} for {made.documents:,} documents{shown}:",
            f"  with the pairs: {self.verdict.sentence(pairs)}",
            f"  without labels: {self.alone.sentence(pairs)}",
        ]

    def to_dict(self, pairs: int) -> dict[str, Any]:
        """Returns all for JSON.

        Args:
            pairs: Pairs of the pilot.
        """
        return {
            **self.verdict.to_dict(pairs),
            "alone": self.alone.to_dict(pairs),
            "documents": self.written.documents,
            "queries": self.written.queries,
            "examples": self.written.examples,
            "cost": {key: value for key, value in self.cost.to_dict().items() if key != "example"},
        }


@dataclass(frozen=True)
class QueriesPlan:
    """How a pilot has queries written.

    Attributes:
        args: What is asked, as `syneg ask` takes it; for the sample.
        gates: Which written queries are kept.
        stages: The data set as configured, of which the miners are, the split and the seed.
        source: The whole source.
        sample: The pilot's sample of it, its halves in the splits train and test.
        closed: Documents that are not written for, and why.
    """

    args: QueryArguments
    gates: QueryGateArguments
    stages: StageArguments
    source: Source
    sample: Source
    closed: Mapping[str, str]

    def asking(self, journal: Journal, with_pairs: bool = False) -> Asking:
        """Returns the asking for the sample; nothing is asked yet.

        Raises:
            InputError: For recordings that cannot be used, or no document to write for.
        """
        where = SourceArguments(source=self.sample.name)
        args = dataclasses.replace(self.args, with_pairs=with_pairs)
        return Asking(
            where, args, self.gates, journal, self.stages.seed, source=self.sample, closed=self.closed
        )

    def check(self) -> None:
        """Finds out, before an LLM is asked for anything, whether there is something to ask for.

        Raises:
            InputError: For recordings that cannot be used, or no document to write for.
        """
        try:
            with self._journal() as journal:
                self.asking(journal)
        except InputError as error:
            raise InputError(f"written queries: {error} --written_documents 0 leaves them out.") from None

    def write(self, output: Path, save_best: float) -> tuple[Written | None, list[str]]:
        """Asks for what the journal lacks, gates it, and mines for it: alone, and beside the pairs.

        Args:
            output: The pilot's folder; rows are in its `rows-written` and `rows-written-and-pairs`.
            save_best: The share that is held back to choose an epoch by.

        Returns:
            What was written, and what a reader must know; None where it is too little to train on.

        Raises:
            InputError: For an engine, a gate or a miner that cannot be used. No completion is lost.
        """
        found, mining = None, part_of(self.stages, MiningArguments)
        for name in (WRITTEN, WRITTEN_AND_PAIRS):
            asked, rows = output / f"asked-{name}", output / f"rows-{name}"
            try:
                with self._journal() as journal:
                    asking = self.asking(journal, with_pairs=name == WRITTEN_AND_PAIRS)
                    written = asking.run()
            except NothingWritten as error:
                return None, [f"Written queries are not tried: {error}"]
            save_written(written, AskFolderArguments(str(asked), self.stages.seed, overwrite=True))
            if found is None:
                print("\n".join([f"{asked}:", *written.lines, ""]), flush=True)
            folder = FolderArguments(str(rows), self.stages.seed, overwrite=True)
            parts = mine_parts(SourceArguments(source=str(asked)), mining, self.stages.seed)
            report = write_folder(parts, folder, new_card(folder, str(asked)))[TRAIN]
            print("\n".join([f"{rows}:", *report["lines"], ""]), flush=True)
            if found is None:
                try:
                    hold_back_rows(load_split(str(rows)), save_best)
                except InputError as error:
                    return None, [f"Written queries are not tried, for there are too few: {error}"]
                found = Written(
                    len(asking.drawn.rows),
                    len(written.kept),
                    None if asking.is_replayed else len(asking.examples.shown),
                    asking.generation.report.run,
                )
        return found, []

    def estimate(self) -> Estimate:
        """Returns what the sample's queries cost that are not in the journal yet; nothing is asked for."""
        with self._journal() as journal:
            return estimate(self.asking(journal).generation)

    def whole_estimate(self, tokens_per_second: float | None) -> Estimate:
        """Returns what the whole source's queries cost that are not in the journal yet."""
        args = dataclasses.replace(self._whole(), tokens_per_second=tokens_per_second)
        where = part_of(self.stages, SourceArguments)
        with self._journal() as journal:
            asking = Asking(where, args, self.gates, journal, self.stages.seed, source=self.source)
            return estimate(asking.generation)

    def options(self, with_pairs: bool) -> dict[str, str]:
        """Returns the options of `syneg ask` for the whole source, but for its output.

        Args:
            with_pairs: Whether the pairs of its split stand beside the written ones.
        """
        args = dataclasses.replace(self._whole(), with_pairs=with_pairs)
        where = part_of(self.stages, SourceArguments)
        return {**options_of(where), **options_of(args), **options_of(self.gates)}

    def _whole(self) -> QueryArguments:
        """Returns what is asked for the whole source: in proportion to its pairs, as the sample was."""
        wanted, split = self.args.documents, self.stages.split
        assert wanted is not None
        wanted = round(wanted * len(self.source.pairs(split)) / len(self.sample.pairs(TRAIN)))
        return dataclasses.replace(
            self.args,
            documents=min(max(1, wanted), len(self.source.corpus)),
            # What is evaluated on later is no more trained on than it was here.
            without_test_documents=set(self.source.qrels) != {split},
        )

    def _journal(self) -> Journal:
        assert self.args.journal is not None
        return Journal(self.args.journal)


def plan_queries(
    stages: StageArguments,
    source: Source,
    sample: Source,
    *,
    documents: int | None,
    recordings: str | None,
    model: str,
    folder: Path,
) -> QueriesPlan | None:
    """Returns how a pilot has queries written; None where nothing is there to replay them from.

    Args:
        stages: The data set as configured: who is asked and how, the miners, the seed. `journal` must be set.
        source: The whole source.
        sample: The pilot's sample of it.
        documents: Documents to write for; None for as many as the training half has pairs.
        recordings: What the engine `recorded` replays.
        model: The encoder of the round trip, where no dense miner is there.
        folder: Where the file of examples is written.
    """
    if stages.engine == "recorded" and recordings is None:
        return None
    common = {name: getattr(stages, name) for name in _OF_THE_LLM}
    # With which examples lines were recorded is not known.
    shows = stages.engine != "recorded" or Path(str(recordings)).is_dir()
    others, relevant = judged(source, [split for split in source.qrels if split != stages.split])
    args = QueryArguments(
        **common,
        query_kind=stages.query_kind,
        document_kind=stages.document_kind,
        documents=len(sample.pairs(TRAIN)) if documents is None else documents,
        recordings=recordings if stages.engine == "recorded" else None,
        journal=f"{stages.journal}-queries",
    )
    closed = _closed(sample, relevant)
    if shows:
        held_out = [*judged(sample, [TEST])[0], *others]
        examples = read_examples(sample, [TRAIN], args, stages.seed, held_out, closed)
        args = dataclasses.replace(args, **_shown(examples, folder))
    gates = {name: getattr(stages, name) for name in _OF_THE_MINERS}
    if "dense" not in stages.miners:
        gates["encoder"] = model
    return QueriesPlan(args, QueryGateArguments(**gates), stages, source, sample, closed)


def _shown(examples: Examples, folder: Path) -> dict[str, Any]:
    """Returns the keys of `syneg ask` that show these examples, of which a file is written.

    By a file the whole source's prompts have the very same, and what was written for the pilot is not written
    again.
    """
    if not examples.shown:
        return {"num_examples": 0}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / EXAMPLES
    with open(path, "w", encoding="utf-8") as file:
        for name, one in zip(examples.document_ids, examples.shown, strict=True):
            file.write(json.dumps({"query": one.query, "doc_id": name}, ensure_ascii=False) + "\n")
    return {"examples": str(path)}


def _closed(sample: Source, relevant: set[str]) -> dict[str, str]:
    """Returns the documents that nothing is written for, and why.

    Those are what the evaluation half has judgements of, with all that have the same text, and what is
    relevant to queries of the source's other splits.
    """
    closed = dict.fromkeys(sorted(relevant), "relevant to a query of another split")
    names = [name for scores in sample.qrels[TEST].values() for name in scores]
    keys = document_keys(sample)
    same = np.isin(keys, keys[sample.document_ids.get_indexer(names)])
    return closed | dict.fromkeys(sample.document_ids[same], "of the evaluation half")
