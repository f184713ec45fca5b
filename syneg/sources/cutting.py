"""Cutting a test split from the training split, so that no document is relevant on both sides."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from syneg.errors import InputError
from syneg.sources.overlap import joined
from syneg.sources.source import TEST, TRAIN, Qrels, Source
from syneg.text import text_keys


def cut_test(source: Source, share: float, seed: int = 0) -> Source:
    """Returns the source with a split "test" cut from its split "train".

    Queries that are joined by a relevant document, or by an equal text (Unicode form, case and blanks aside),
    go to one side together. Which go is told by a hash of their ids and the seed, and not by their order.

    Args:
        source: The source.
        share: The share of the queries that the test split is to have, above 0 and below 1.
        seed: Seed of the choice.

    Raises:
        InputError: Where the share is none, there is no split "train", there is a split "test" already, or
            all queries hang together.
    """
    if not 0 < share < 1:
        raise InputError(f"test_share is {share}; it must be at least 0 and below 1.")
    if TEST in source.qrels:
        raise InputError(f"{source.name}: it has a split {TEST!r}; leave out --test_share, or the split.")
    qrels = source.judgements(TRAIN)
    relevant = {query: [d for d, r in docs.items() if r > 0] for query, docs in qrels.items()}
    queries = [query for query, documents in relevant.items() if documents]
    if not queries:
        raise InputError(f"{source.name}: split {TRAIN!r} has no judgement above 0 to cut a test split from.")
    groups = _groups(source, queries, relevant)
    wanted = max(1, round(share * len(queries)))
    chosen: set[str] = set()
    # A group goes as a whole or not at all; one that is too large for the test split is passed over.
    for members in sorted(groups, key=lambda members: min(_place(seed, query) for query in members)):
        if len(chosen) + len(members) <= wanted:
            chosen.update(members)
    if not chosen or len(chosen) == len(queries):
        raise InputError(
            f"{source.name}: no test split of {share:.0%} can be cut: its {len(queries):,} queries "
            "share documents "
            f"in {len(groups):,} groups that cannot be parted. Take another --test_share, or give a "
            "test split."
        )
    parts: dict[str, Qrels] = {
        TRAIN: {query: documents for query, documents in qrels.items() if query not in chosen},
        TEST: {query: documents for query, documents in qrels.items() if query in chosen},
    }
    note = f"{source.name}: split test is cut from train: {len(chosen):,} of {len(queries):,} queries"
    if len(chosen) < wanted:
        note += f" (of {wanted:,} wanted: the others share documents in groups too large)"
    return replace(source, qrels={**source.qrels, **parts}, notes=[*source.notes, f"{note}."])


def _groups(source: Source, queries: list[str], relevant: dict[str, list[str]]) -> list[set[str]]:
    """Returns the queries, those that must stay together in one group."""
    asked = text_keys(source.queries.select(source.query_ids.get_indexer(queries).tolist())["text"])
    judged = [
        (query, key, d) for query, key in zip(queries, asked.tolist(), strict=True) for d in relevant[query]
    ]
    rows, at = np.unique(source.document_ids.get_indexer([d for *_, d in judged]), return_inverse=True)
    documents = text_keys(source.documents(rows.tolist()))[at].tolist()
    return joined((query, key, document) for (query, key, _), document in zip(judged, documents, strict=True))


def _place(seed: int, query: str) -> str:
    return hashlib.blake2b(f"{seed}\t{query}".encode(), digest_size=8).hexdigest()
