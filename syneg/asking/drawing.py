"""The draw: which documents are written for, by a seed, and the passages of long ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from datasets import Dataset

from syneg.errors import InputError
from syneg.gating.duplicates import Duplicates
from syneg.hub.folders import load_split
from syneg.llm.requests import digest
from syneg.mining.arguments import MINERS
from syneg.rows import check_rows
from syneg.sources import CORPUS_FEATURES, QUERY_FEATURES, Source
from syneg.text import estimate_tokens, normal_text, units
from syneg.writing.passages import passages
from syneg.writing.queries import (
    RecordedQueries,
)
from syneg.writing.query_arguments import QueryArguments
from syneg.writing.query_strategy import RealQuery

_BLOCK = 1000


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


def judged(source: Source, splits: Iterable[str]) -> tuple[list[str], set[str]]:
    """Returns the queries of these splits, and the ids of the documents relevant to them."""
    names: dict[str, None] = {}
    relevant: set[str] = set()
    for split in splits:
        for query, documents in source.qrels[split].items():
            names[query] = None
            relevant.update(name for name, relevance in documents.items() if relevance > 0)
    rows = source.query_ids.get_indexer(list(names))
    return source.queries.select(rows.tolist())["text"][:] if names else [], relevant


def neighbours(
    dataset: str, splits: Sequence[str], seed: int, held_out: Sequence[str]
) -> dict[str, tuple[str, RealQuery]]:
    """Returns for the ids of mined negatives a query that they were mined for, and its positive; in memory.

    Of several rows that a document was mined for one is drawn; rows of held-out queries are passed over.

    Raises:
        InputError: For rows that cannot be read, or without a mined negative.
    """
    closed = set(map(normal_text, held_out))
    found: dict[str, tuple[int, str, RealQuery]] = {}
    for split in splits:
        rows = load_split(dataset, "default", split)
        check_rows(rows, dataset)
        for row in rows:
            if normal_text(row["query"]) in closed:
                continue
            for name in {n["doc_id"] for n in row["negatives"] if n["source"] in MINERS and n["doc_id"]}:
                place = digest(seed, "beside", row["query_id"], name)
                if name not in found or place < found[name][0]:
                    found[name] = place, row["query_id"], RealQuery(row["query"], row["positive"])
    if not found:
        raise InputError(f"--beside {dataset}: no row has a mined negative with an id.")
    return {name: (query_id, example) for name, (_, query_id, example) in found.items()}
