"""Asking: from documents to a source whose queries an LLM wrote, in BEIR's layout.

Documents are drawn, cut into passages where they are long, and asked about; what comes back goes through
gates; what is kept becomes a source that every other command takes.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from syneg.config import OutputArguments, split_commas
from syneg.errors import InputError
from syneg.gating.duplicates import Duplicates
from syneg.gating.queries import QueryGateArguments, QueryJudge, WrittenQuery, check_miners, gate_queries
from syneg.hub.folders import check_output, load_split
from syneg.hub.replacing import clear_leftovers, disk_errors, move_into_place, try_lock
from syneg.llm.arguments import parse_shard
from syneg.llm.estimate import estimate
from syneg.llm.generation import Generation
from syneg.llm.journal import Journal
from syneg.llm.requests import Engine, digest
from syneg.mining.arguments import MINERS
from syneg.rows import check_rows
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source, SourceArguments, source_of
from syneg.sources.loading import WRITTEN_NOTE as NOTE
from syneg.sources.source import Qrels
from syneg.text import estimate_tokens, normal_text, units
from syneg.writing.examples import Examples, read_examples
from syneg.writing.passages import passages
from syneg.writing.queries import (
    QueriesTask,
    RecordedLines,
    RecordedQueries,
    Subject,
    Subjects,
    open_query_recordings,
    queries_of,
    slots_of,
)
from syneg.writing.query_arguments import QueryArguments
from syneg.writing.query_strategy import QueryExample

_WRITTEN, _DROPPED, _CARD = "written.jsonl", "dropped.jsonl", "README.md"
_OURS = {
    NOTE,
    _WRITTEN,
    _DROPPED,
    _CARD,
    "corpus.jsonl",
    "queries.jsonl",
    "qrels/train.tsv",
    "qrels/test.tsv",
}
_BLOCK = 1000

_LIMITS = (
    "The queries were written by an LLM and not asked by people; a split test of them favours what resembles "
    "the writer.",
    "An LLM may know public texts and the queries that people put to them: on a private corpus expect a "
    "smaller gain than on a public one.",
)
_WITHOUT_EXAMPLES = (
    "no real queries were shown as examples. Written queries are then easier than real ones and of another "
    "kind; a dozen real ones with their documents (--examples FILE) were worth 2 and 8 points of nDCG@10 on "
    "the two sources measured"
)


@dataclass
class AskFolderArguments(OutputArguments):
    """The written source."""

    overwrite: bool = field(
        default=False, metadata={"help": "Whether to replace a written source that is there already."}
    )


@dataclass
class WrittenSource:
    """A source whose queries were written, and what came of the others.

    Attributes:
        source: The written source.
        kept: Its queries, in order.
        dropped: What the gates dropped, and completions that could not be read.
        facts: What was drawn, written and dropped, as plain values.
        lines: The same for people.
    """

    source: Source
    kept: list[WrittenQuery]
    dropped: list[WrittenQuery]
    facts: dict[str, Any]
    lines: list[str]


class Asking:
    """Queries for a source's documents: what is drawn, then what is asked, then what is kept.

    Args:
        where: The source, and the split that examples are drawn from.
        args: What is asked, and how.
        gates: Which written queries are kept.
        journal: The journal.
        seed: Seed of every draw and of the sampling.
        engine: An engine that runs already, and is left running; None starts the one that is named.

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
    ) -> None:
        self.where, self.args, self.gates, self.seed = where, args, gates, seed
        self._journal, self._engine = journal, engine
        self.source = source_of(where)
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
        self.held_out, relevant = _judged(self.source, others)
        recordings = open_query_recordings(args)
        # With which examples recorded lines were written is not known; the journal's requests have them.
        self.is_replayed = isinstance(recordings, RecordedLines)
        self.examples = Examples()
        if not (self.is_replayed and args.examples is None):
            self.examples = read_examples(self.source, splits, args, seed, self.held_out, relevant)
        excluded = dict.fromkeys(self.examples.document_ids, "shown as an example")
        if args.without_test_documents:
            excluded |= dict.fromkeys(relevant, "relevant to a held-out query")
        self.cut = 0
        if args.positive == "passage":
            self.source, self.cut = cut_corpus(self.source, args.max_positive_tokens)
        self.beside: dict[str, tuple[str, QueryExample]] | None = None
        if args.beside is not None:
            self.beside = _neighbours(args.beside, splits, seed, self.held_out)
        self.drawn = draw(self.source, args, seed, excluded, recordings, self.beside)
        self.subjects = self._subjects()
        task = QueriesTask(args, seed, self.examples.shown, recordings)
        self.generation: Generation[Subject] = queries_of(self.subjects, task, journal, engine=engine)

    def estimate(self) -> list[str]:
        """Returns what the asking would cost, as lines; nothing is asked for."""
        return [*self._drawn_lines(), *estimate(self.generation).lines()]

    def ask(self) -> list[str]:
        """Asks for the completions that the journal lacks; returns what came, as lines."""
        return [*self._drawn_lines(), *self.generation.run().lines()]

    def run(self) -> WrittenSource:
        """Asks, gates, and makes the written source.

        Raises:
            InputError: For an engine or a gate that cannot be used, or where no query is left. No completion
                is lost.
        """
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
            raise InputError(f"{self.source.name}: no query could be read ({kinds}).{hint}")
        tolls = gate_queries(
            queries,
            self.source,
            self.gates,
            held_out=self.held_out,
            examples=[one.query for one in self.examples.shown],
            judge=judge,
        )
        kept = [query for query in queries if query.gate is None]
        if not kept:
            raise InputError(
                f"{self.source.name}: no query passed the gates ({'; '.join(tolls.lines())}). Loosen them, "
                "or name others with --gates; no completion is lost."
            )
        source = self._source(kept)
        splits = {split: len(qrels) for split, qrels in source.qrels.items()}
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
            "test": "written" if "test" in splits else None,
            "limits": list(_LIMITS),
        }
        documents = len({query.document_id for query in kept})
        told = ", ".join(f"{count:,} in split {split}" for split, count in splits.items())
        lines += [*tolls.lines(), f"{len(kept):,} written queries for {documents:,} documents: {told}"]
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
        for query in kept:
            split = "test" if self._is_held_out(query.document_id) else "train"
            qrels.setdefault(split, {})[query.id] = {query.document_id: 1}
        if not qrels["train"]:
            raise InputError(
                f"{self.source.name}: all {len(kept)} queries fell into the test split; lower "
                "--test_documents."
            )
        queries = Dataset.from_dict(texts, features=QUERY_FEATURES)
        return Source(self.source.name, self.source.corpus, queries, qrels)

    def _is_held_out(self, document_id: str) -> bool:
        return digest(self.seed, "test", document_id) < self.args.test_documents * 2**64

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
        return [*lines, *self.examples.lines()]


@dataclass
class Drawn:
    """Documents that are written for, in the order of their draw.

    Attributes:
        rows: Their rows in the corpus.
        counts: Queries asked for each.
        left_out: Documents that are not, by why.
        long: How many of them are cut into passages for the prompt.
    """

    rows: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    long: int = 0


def draw(
    source: Source,
    args: QueryArguments,
    seed: int,
    excluded: dict[str, str],
    recordings: RecordedQueries | None = None,
    beside: Collection[str] | None = None,
) -> Drawn:
    """Draws documents, near-duplicates once; the order depends on their ids and the seed alone.

    Args:
        source: The source.
        args: How many, and which are left out.
        seed: Seed of the draw.
        excluded: Why a document is left out, by its id.
        recordings: Where these know which documents they are of, no others are drawn.
        beside: The ids of the documents to draw among; None for all.

    Raises:
        InputError: Where none is left.
    """
    ids = source.document_ids
    known = None if recordings is None else recordings.counts(ids)
    drawn = Drawn()
    duplicates = Duplicates(args.near_duplicate)
    order = sorted(range(len(ids)), key=lambda row: digest(seed, "document", ids[row]))
    wanted = len(ids) if args.documents is None else args.documents
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        for row, text in zip(block, source.documents(block), strict=True):
            if len(drawn.rows) == wanted:
                return drawn
            name = ids[row]
            why = excluded.get(name) or excluded.get(_whole(name))
            if known is not None and name not in known:
                why = "not recorded"
            elif beside is not None and name not in beside:
                why = "not a mined negative of --beside"
            elif why is None:
                why = _unfit(text, args, duplicates)
            if why is not None:
                drawn.left_out[why] += 1
                continue
            duplicates.add(text, name)
            drawn.rows.append(row)
            count = args.queries_per_document or (1 if known is None else known[name])
            drawn.counts.append(count if known is None else min(count, known[name]))
            drawn.long += len(text) > args.max_positive_tokens < estimate_tokens(text)
    if not drawn.rows:
        why = ", ".join(f"{why}: {count:,}" for why, count in sorted(drawn.left_out.items()))
        raise InputError(f"{source.name}: no document is left to write for ({why}).")
    return drawn


def _unfit(text: str, args: QueryArguments, duplicates: Duplicates) -> str | None:
    """Returns why a document is not written for, or None."""
    if len(units(normal_text(text))) < args.min_document_words:
        return f"shorter than --min_document_words ({args.min_document_words})"
    return "repeats another" if duplicates.find(text) else None


def cut_corpus(source: Source, max_tokens: int) -> tuple[Source, int]:
    """Returns the source with the passages of long documents in their place, and how many were long.

    A passage has its document's title, and the id ``DOCUMENT#1`` and so on. Queries and qrels are left out:
    they are of documents.

    Raises:
        InputError: Where a passage's id is another document's.
    """

    def cut_block(block: dict[str, list[str]]) -> dict[str, list[str]]:
        ids, titles, texts = [], [], []
        for name, title, text in zip(block["id"], block["title"], block["text"], strict=True):
            found = passages(text or "", max_tokens)
            ids += [name] if len(found) == 1 else [f"{name}#{i + 1}" for i in range(len(found))]
            titles += [title] * len(found)
            texts += found
        return {"id": ids, "title": titles, "text": texts}

    corpus = source.corpus.map(
        cut_block,
        batched=True,
        features=CORPUS_FEATURES,
        remove_columns=source.corpus.column_names,
        desc="Cutting",
    )
    made = Source(source.name, corpus, Dataset.from_dict({"id": [], "text": []}, features=QUERY_FEATURES), {})
    made.notes = source.notes
    if not made.document_ids.is_unique:
        twice = made.document_ids[made.document_ids.duplicated()][0]
        raise InputError(f"{source.name}: document {twice!r} has the id of another one's passage; rename it.")
    return made, len(source.corpus) - int(made.document_ids.isin(source.document_ids).sum())


def _whole(name: str) -> str:
    """Returns the id of a passage's document."""
    whole, _, number = name.rpartition("#")
    return whole if number.isdecimal() else name


def _judged(source: Source, splits: Iterable[str]) -> tuple[list[str], set[str]]:
    """Returns the queries of these splits, and the ids of the documents relevant to them."""
    names: dict[str, None] = {}
    relevant: set[str] = set()
    for split in splits:
        for query, documents in source.qrels[split].items():
            names[query] = None
            relevant.update(name for name, relevance in documents.items() if relevance > 0)
    rows = source.query_ids.get_indexer(list(names))
    return source.queries.select(rows.tolist())["text"][:] if names else [], relevant


def _neighbours(
    dataset: str, splits: Sequence[str], seed: int, held_out: Sequence[str]
) -> dict[str, tuple[str, QueryExample]]:
    """Returns for the ids of mined negatives a query that they were mined for, and its positive; in memory.

    Of several rows that a document was mined for one is drawn; rows of held-out queries are passed over.

    Raises:
        InputError: For rows that cannot be read, or without a mined negative.
    """
    closed = set(map(normal_text, held_out))
    found: dict[str, tuple[int, str, QueryExample]] = {}
    for split in splits:
        rows = load_split(dataset, "default", split)
        check_rows(rows, dataset)
        for row in rows:
            if normal_text(row["query"]) in closed:
                continue
            for name in {n["doc_id"] for n in row["negatives"] if n["source"] in MINERS and n["doc_id"]}:
                place = digest(seed, "beside", row["query_id"], name)
                if name not in found or place < found[name][0]:
                    found[name] = place, row["query_id"], QueryExample(row["query"], row["positive"])
    if not found:
        raise InputError(f"--beside {dataset}: no row has a mined negative with an id.")
    return {name: (query_id, example) for name, (_, query_id, example) in found.items()}


def save(written: WrittenSource, output: AskFolderArguments) -> Path:
    """Writes a written source as a folder, whole or not at all, and returns its path.

    Beside BEIR's files stand ``README.md``, ``written.json`` (what made it), ``written.jsonl`` and
    ``dropped.jsonl``: what was kept and what was not, with gate and reason; both can be replayed as
    recordings.

    Raises:
        InputError: Where the folder may not be replaced, or its disk is full.
    """
    folder = Path(output.output).absolute()
    check_folder(output)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        partial = folder.with_name(f".{folder.name}.partial-{uuid.uuid4().hex[:12]}")
        partial.mkdir()
        lock = try_lock(partial)
        try:
            written.source.save(partial)
            splits = {name: split for split, qrels in written.source.qrels.items() for name in qrels}
            with open(partial / _WRITTEN, "w", encoding="utf-8") as file:
                file.writelines(_line(query, {"split": splits[query.id]}) for query in written.kept)
            with open(partial / _DROPPED, "w", encoding="utf-8") as file:
                file.writelines(
                    _line(query, {"gate": query.gate, "cause": query.cause, "reason": query.reason})
                    for query in written.dropped
                )
            note = json.dumps(written.facts, indent=1, ensure_ascii=False) + "\n"
            (partial / NOTE).write_text(note, encoding="utf-8")
            (partial / _CARD).write_text(_card(folder.name, written), encoding="utf-8")
            if lock is not None:
                lock.close()
            (partial / ".lock").unlink(missing_ok=True)
            move_into_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def check_folder(output: AskFolderArguments) -> None:
    """Checks, before any work, that the folder can be written.

    Raises:
        InputError: Where it exists and may not be replaced, or its place cannot be written to.
    """
    folder = Path(output.output).absolute()
    if not (folder / NOTE).is_file():
        check_output(folder)
        return
    if not output.overwrite:
        raise InputError(f"{folder}: exists. Choose another --output, or replace it with --overwrite.")
    for path in folder.rglob("*"):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative not in _OURS:
            raise InputError(f"{folder}: holds {relative!r}, which syneg did not write; move it first.")
    check_output(folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}"))


def _line(query: WrittenQuery, further: dict[str, Any]) -> str:
    record = {"doc_id": query.document_id, "query": query.text, "query_id": query.id}
    record |= {
        name: getattr(query, name) for name in ("kind", "beside_query_id", "reasoning", "generator")
    } | further
    return json.dumps({k: v for k, v in record.items() if v not in (None, "")}, ensure_ascii=False) + "\n"


def _card(name: str, written: WrittenSource) -> str:
    facts = written.facts
    # What documents or LLMs say is in none of these lines but for names.
    lines = "\n".join(f"- {line.strip()}" for line in written.lines)
    return f"""# {name}

A source in BEIR's layout whose queries were **written** by an LLM for documents of {facts["source"]}.

{lines}

`written.jsonl` has each query with its document, kind and writer; `dropped.jsonl` what the gates dropped, \
with gate and reason. To gate otherwise, run the same `syneg ask` with other gates: its journal has every \
completion.

## Limits
{chr(10).join(f"- {limit}" for limit in _LIMITS)}
"""


def _shown(spec: str) -> str:
    # Of a folder its name alone: where it lies on the maker's machine is nobody's business.
    return Path(spec).name if Path(spec).exists() else spec


def ask(
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
        folder = save(written, output)
    return [*written.lines, str(folder)]
