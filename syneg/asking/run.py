"""Asking: from documents to a source whose queries an LLM wrote, in BEIR's layout.

Documents are drawn, cut into passages where they are long, and asked about; what comes back goes through
gates; what is kept becomes a source that every other command takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from syneg.asking.drawing import cut_corpus, draw, judged, neighbours
from syneg.asking.folder import LIMITS, AskFolderArguments, WrittenSource, check_folder, save_written
from syneg.asking.real import RealPairs, real_pairs
from syneg.config import split_commas
from syneg.errors import InputError
from syneg.gating.queries import QueryGateArguments, QueryJudge, WrittenQuery, check_miners, gate_queries
from syneg.llm.arguments import parse_shard
from syneg.llm.engines import check_ready
from syneg.llm.estimate import estimate
from syneg.llm.generation import Generation
from syneg.llm.journal import Journal, has_entries
from syneg.llm.requests import Engine, digest
from syneg.planning import by_llm, prompt_lines, table
from syneg.sources import QUERY_FEATURES, Source, SourceArguments, source_of
from syneg.sources.source import Qrels
from syneg.writing.examples import Examples, read_examples
from syneg.writing.queries import (
    QueriesTask,
    RecordedLines,
    Subject,
    Subjects,
    open_query_recordings,
    queries_of,
    slots_of,
)
from syneg.writing.query_arguments import QueryArguments
from syneg.writing.query_strategy import RealQuery

_WITHOUT_EXAMPLES = (
    "no real queries were shown as examples. Written queries are then easier than real ones and of another "
    "kind; a dozen real ones with their documents (--examples FILE) were worth 2 and 8 points of nDCG@10 on "
    "the two sources measured"
)


class NothingWritten(InputError):
    """No written query is left: none came, or none passed the gates."""


class Asking:
    """Queries for a source's documents: what is drawn, then what is asked, then what is kept.

    Args:
        where: The source, and the split that examples are drawn from.
        args: What is asked, and how.
        gates: Which written queries are kept.
        journal: The journal.
        seed: Seed of every draw and of the sampling.
        engine: An engine that runs already, and is left running; None starts the one that is named.
        source: What `where` names, where it is in memory already.
        closed: Further documents that are not written for, and why.

    Raises:
        InputError: For a source, examples or recordings that cannot be used, or no document to write for.
    """

    def __init__(
        self,
        where: SourceArguments,
        args: QueryArguments,
        gates: QueryGateArguments,
        journal: Journal,
        seed: int,
        engine: Engine | None = None,
        source: Source | None = None,
        closed: Mapping[str, str] | None = None,
    ) -> None:
        self.where, self.args, self.gates, self.seed = where, args, gates, seed
        self._journal, self._engine = journal, engine
        self.source = source_of(where) if source is None else source
        if len(self.source.corpus) < 2:
            raise InputError(
                f"{self.source.name}: one document is no corpus: there is nothing to tell it from. Give at "
                "least 2 (a few hundred to gain by), or several files."
            )
        self.source.check_ids()
        splits = split_commas(where.split)
        if self.source.qrels and splits != ["train"]:
            for split in splits:
                self.source.judgements(split)
        others = [split for split in self.source.qrels if split not in splits]
        self.held_out, relevant = judged(self.source, others)
        self.real = real_pairs(self.source, splits) if args.with_pairs else RealPairs()
        recordings = open_query_recordings(args)
        # With which examples recorded lines were written is not known; the journal's requests have them.
        self.is_replayed = isinstance(recordings, RecordedLines)
        self.examples = Examples()
        if not (self.is_replayed and args.examples is None):
            self.examples = read_examples(self.source, splits, args, seed, self.held_out, relevant)
        excluded = dict.fromkeys(self.examples.document_ids, "shown as an example")
        if args.without_test_documents:
            excluded |= dict.fromkeys(relevant, "relevant to a held-out query")
        excluded |= closed or {}
        self.cut = 0
        if args.positive == "passage":
            self.source, self.cut = cut_corpus(self.source, args.max_positive_tokens)
        self.beside: dict[str, tuple[str, RealQuery]] | None = None
        if args.beside is not None:
            self.beside = neighbours(args.beside, splits, seed, self.held_out)
        self.drawn = draw(self.source, args, seed, excluded, recordings, self.beside)
        self.subjects = self._subjects()
        task = QueriesTask(args, seed, self.examples.shown, recordings)
        self.generation: Generation[Subject] = queries_of(self.subjects, task, journal, engine=engine)

    def estimate(self) -> list[str]:
        """Returns what the asking would cost, as lines; nothing is asked for."""
        found = estimate(self.generation)
        step = by_llm("ask", f"{found.pairs:,} {self.generation.task.noun}", found, found.open_requests)
        lines = [*self._drawn_lines(), *found.lines(), *prompt_lines(found.example)]
        return [*lines, *table([step], self.args.gpu_price)]

    def ask(self) -> list[str]:
        """Asks for the completions that the journal lacks; returns what came, as lines."""
        return [*self._drawn_lines(), *self.generation.run().lines()]

    def run(self) -> WrittenSource:
        """Asks, gates, and makes the written source.

        Raises:
            InputError: For an engine or a gate that cannot be used, or where no query is left. No completion
                is lost.
        """
        if self._engine is None and not has_entries(self._journal.folder):
            check_ready(self.args)
        judge = self._judge() if "judge" in self.gates.gates else None
        check_miners(self.source, self.gates)
        lines = self.ask()
        report = self.generation.report
        queries = list(self._read())
        if not any(query.gate is None for query in queries):
            kinds = (
                ", ".join(f"{kind} {count}" for kind, count in report.failures.items())
                or "no completion came"
            )
            hint = (
                " Lower --max_positive_tokens or --num_examples."
                if "prompt_too_long" in report.failures
                else ""
            )
            raise NothingWritten(f"{self.source.name}: no query could be read ({kinds}).{hint}")
        tolls = gate_queries(
            queries,
            self.source,
            self.gates,
            held_out=self.held_out,
            examples=[one.query for one in self.examples.shown],
            real=list(self.real.pairs()),
            judge=judge,
        )
        kept = [query for query in queries if query.gate is None]
        if not kept:
            raise NothingWritten(
                f"{self.source.name}: no query passed the gates ({'; '.join(tolls.lines())}). Loosen them, "
                "or name others with --gates; no completion is lost."
            )
        source = self._source(kept)
        splits = {split: len(qrels.keys() - self.real.qrels.keys()) for split, qrels in source.qrels.items()}
        facts: dict[str, Any] = {
            "origin": "written",
            "source": _shown(self.where.source),
            "documents": len(self.source.corpus),
            "documents_cut_into_passages": self.cut,
            "documents_asked_about": len(self.drawn.rows),
            "documents_left_out": dict(sorted(self.drawn.left_out.items())),
            "examples": {"shown": len(self.examples.shown), "from": self.examples.origin},
            "strategy": self.args.strategy,
            "prompt_version": report.prompt,
            "engine": self.args.engine,
            # What was replayed was not written by the model that the arguments would have asked.
            "llm": None if self.args.engine == "recorded" else self.args.llm,
            "seed": self.seed,
            # Without the figures of the last run, which differ between equal ones.
            "generation": {k: v for k, v in report.to_dict().items() if k != "run"},
            "gates": tolls.to_dict(),
            "queries": splits,
            "real_pairs": self.real.facts(),
            "test": "written" if "test" in splits else None,
            "limits": list(LIMITS),
        }
        documents = len({query.document_id for query in kept})
        told = ", ".join(f"{count:,} in split {split}" for split, count in splits.items())
        lines += [*tolls.lines(), f"{len(kept):,} written queries for {documents:,} documents: {told}"]
        if self.real.qrels:
            lines.append(f"{len(self.real.qrels):,} real queries beside them in split train")
        if "test" in splits:
            judged = "and judged" if "judge" in self.gates.gates else "and not judged (--gates ...,judge)"
            lines.append(f"split test is written, {judged}: it favours what resembles the writer")
        if not self.examples.shown and not self.is_replayed:
            lines.append(_WITHOUT_EXAMPLES)
        return WrittenSource(
            source, kept, [query for query in queries if query.gate is not None], facts, lines
        )

    def _subjects(self) -> Subjects:
        places, slots, counts = slots_of(self.drawn.counts, self.args.queries_per_request)
        rows = np.asarray(self.drawn.rows, dtype=np.int64)[places]
        tokens = self.args.max_positive_tokens
        return Subjects(self.source, rows, slots, counts, tokens, self.seed, self.beside)

    def _read(self) -> Iterator[WrittenQuery]:
        ids = self.source.document_ids
        i, n = parse_shard(self.args.shard)
        for place, answers in enumerate(self.generation.results()):
            at = i + place * n
            row, slot = int(self.subjects.rows[at]), int(self.subjects.slots[at])
            for answer in answers:
                texts = answer.results if answer.failure is None else [{"query": answer.raw}]
                for number, text in enumerate(texts):
                    name = f"written:{ids[row]}:{slot + number + 1}"
                    kind = answer.attributes[number].get("kind")
                    query = WrittenQuery(
                        name, text["query"], row, ids[row], at, kind, text.get("reasoning"), answer.generator
                    )
                    if answer.failure is not None:
                        query.drop("parse", answer.failure.partition(":")[0], answer.failure)
                    if self.beside is not None:
                        query.beside_query_id = self.beside[ids[row]][0]
                    yield query

    def _judge(self) -> QueryJudge:
        def texts(queries: Sequence[WrittenQuery]) -> Iterator[str]:
            for subject in self.subjects.select(query.place for query in queries):
                yield subject.passage

        folder = self._journal.folder / "judge"
        return QueryJudge(self.gates, self.args, folder, texts, self.seed, self._engine)

    def _source(self, kept: Sequence[WrittenQuery]) -> Source:
        texts = {"id": [query.id for query in kept], "text": [query.text for query in kept]}
        qrels: dict[str, Qrels] = {"train": {}}
        held_out = self._held_out_documents({query.document_id for query in kept})
        for query in kept:
            split = "test" if query.document_id in held_out else "train"
            qrels.setdefault(split, {})[query.id] = {query.document_id: 1}
        if not qrels["train"]:
            raise InputError(
                f"{self.source.name}: all {len(kept)} queries fell into the test split; lower "
                "--test_documents."
            )
        qrels["train"] |= self.real.qrels
        texts = {
            "id": [*texts["id"], *self.real.texts],
            "text": [*texts["text"], *self.real.texts.values()],
        }
        queries = Dataset.from_dict(texts, features=QUERY_FEATURES)
        return Source(self.source.name, self.source.corpus, queries, qrels)

    def _held_out_documents(self, names: set[str]) -> set[str]:
        """Returns which documents are of the test split; none that a real training pair has."""
        bound = self.args.test_documents * 2**64
        chosen = {name for name in names if digest(self.seed, "test", name) < bound}
        if not (chosen and self.real.qrels):
            return chosen
        return chosen - self.real.like_positives(self.source, chosen, self.args.near_duplicate)

    def _drawn_lines(self) -> list[str]:
        name, drawn = self.source.name, self.drawn
        lines = [*self.source.notes, f"{name}: {len(self.source.corpus):,} documents"]
        if self.cut:
            lines[-1] += f" ({self.cut:,} long ones were cut into passages)"
        lines[-1] += f", {len(drawn.rows):,} of them to write for"
        lines += [f"  not written for, {why}: {count:,}" for why, count in sorted(drawn.left_out.items())]
        if drawn.long:
            lines.append(
                f"  {drawn.long:,} documents are longer than --max_positive_tokens "
                f"({self.args.max_positive_tokens}): a prompt has a passage of theirs"
            )
        return [*lines, *self.examples.lines(), *self.real.lines()]


def _shown(spec: str) -> str:
    # Of a folder its name alone: where it lies on the maker's machine is nobody's business.
    return Path(spec).name if Path(spec).exists() else spec


def ask_queries(
    where: SourceArguments,
    args: QueryArguments,
    gates: QueryGateArguments,
    output: AskFolderArguments,
    engine: Engine | None = None,
) -> list[str]:
    """Has queries written for a source's documents, and writes them as a source.

    Args:
        where: The source.
        args: What is asked, and how. With `dry_run` or `shard` no folder is written.
        gates: Which written queries are kept.
        output: The folder.
        engine: An engine that runs already, and is left running; None starts the one that is named.

    Returns:
        What was done, as lines for people.

    Raises:
        InputError: Where an argument, the source, a gate or the engine cannot be used. No completion is lost.
    """
    check_folder(output)
    with Journal(args.journal or f"{output.output}-journal") as journal:
        asking = Asking(where, args, gates, journal, output.seed, engine)
        if args.dry_run:
            return asking.estimate()
        if args.shard:
            # The other machines' completions are elsewhere; a run without --shard over all journals writes.
            return [*asking.ask(), f"shard {args.shard} is in {journal.folder}"]
        written = asking.run()
        folder = save_written(written, output)
    return [*written.lines, str(folder)]
