"""Parting a split's queries, for a test split or to be held back, so that no document is on both sides; and a
sample of them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from syneg.errors import InputError
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
    queries = [query for query, scores in qrels.items() if any(score > 0 for score in scores.values())]
    if not queries:
        raise InputError(f"{source.name}: split {TRAIN!r} has no judgement above 0 to cut a test split from.")
    groups = query_groups(source, {query: qrels[query] for query in queries})
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


def sample_pairs(
    source: Source, split: str, pairs: int, seed: int = 0, documents: int | None = None
) -> Source:
    """Returns a source with a part of a split's queries as its only split, "train".

    Queries are taken whole, in the order of a hash of their ids and the seed, as long as their pairs fit; one
    with more pairs than are wanted is passed over.

    Args:
        source: The source.
        split: The split to take from.
        pairs: Pairs wanted: all where there are not more.
        seed: Seed of the choice.
        documents: Keep so many documents: all that the taken queries have judgements of, and others at
            random. None: the whole corpus.

    Raises:
        InputError: Where the split is missing, or no query fits.
    """
    qrels = source.judgements(split)
    counts = {query: sum(score > 0 for score in scores.values()) for query, scores in qrels.items()}
    asked = sorted((query for query, count in counts.items() if count), key=lambda q: _place(seed, q))
    chosen, taken = set(), 0
    for query in asked:
        if taken + counts[query] <= pairs:
            chosen.add(query)
            taken += counts[query]
    if not chosen:
        raise InputError(
            f"{source.name}: no query of split {split!r} has {pairs} or fewer relevant documents; take more "
            "pairs."
        )
    kept: Qrels = {query: scores for query, scores in qrels.items() if query in chosen}
    rows = np.sort(source.query_ids.get_indexer(list(kept)))
    notes = [f"{source.name}: {taken:,} of {sum(counts.values()):,} pairs of split {split} (seed {seed})."]
    corpus = source.corpus
    if documents is not None and documents < len(corpus):
        judged = np.unique(source.document_ids.get_indexer([d for scores in kept.values() for d in scores]))
        others = np.setdiff1d(np.arange(len(corpus)), judged)
        more = min(max(documents - len(judged), 0), len(others))
        drawn = np.random.default_rng(seed).choice(others, more, replace=False)
        corpus = corpus.select(np.sort(np.concatenate([judged, drawn])).tolist())
        notes.append(
            f"{source.name}: {len(corpus):,} of {len(source.corpus):,} documents: the {len(judged):,} that "
            "are judged, and others at random. Figures are higher than on the whole corpus, and mined "
            "negatives easier."
        )
    return Source(
        source.name,
        corpus,
        source.queries.select(rows.tolist()),
        {TRAIN: kept},
        notes=[*source.notes, *notes],
        written=source.written & kept.keys(),
    )


def query_groups(source: Source, qrels: Qrels) -> list[set[str]]:
    """Returns the queries of qrels, those in one set that share a relevant document, directly or over others.

    A query and a document are their texts as well as their ids (Unicode form, case and blanks aside). A query
    without anything relevant is joined to no other.
    """
    judged = [(query, d) for query, scores in qrels.items() for d, score in scores.items() if score > 0]
    rows, at = np.unique(source.query_ids.get_indexer([query for query, _ in judged]), return_inverse=True)
    asked = text_keys(source.queries.select(rows.tolist())["text"])[at].tolist()
    rows, at = np.unique(source.document_ids.get_indexer([d for _, d in judged]), return_inverse=True)
    documents = text_keys(source.documents(rows.tolist()))[at].tolist()
    joined = joined_names(zip([query for query, _ in judged], asked, documents, strict=True))
    return [*joined, *({query} for query in qrels.keys() - {query for query, _ in judged})]


def joined_names(judged: Iterable[tuple[str, Hashable, Hashable]]) -> list[set[str]]:
    """Returns the names of queries, those in one set that are joined by an equal query or document.

    Args:
        judged: Of each pair the name of its query, and what its query and its document are known by.
    """
    judged = list(judged)
    if not judged:
        return []
    names, *sides = zip(*judged, strict=True)
    queries, documents = (pd.factorize(pd.Series(side, dtype=object))[0] for side in sides)
    documents = documents + queries.max() + 1
    number = documents.max() + 1
    edges = coo_array((np.ones(len(names), dtype=bool), (queries, documents)), shape=(number, number))
    _, labels = connected_components(edges, directed=False)
    groups: dict[int, set[str]] = {}
    for name, label in zip(names, labels[queries].tolist(), strict=True):
        groups.setdefault(label, set()).add(name)
    return list(groups.values())


def held_back(groups: Iterable[set[str]], share: float) -> set[str]:
    """Returns which queries are held back: whole groups, so that no document is on both sides.

    Which is told by a hash of the first of a group's names, and so hangs neither on the order nor on a seed;
    a group of more than the share of all names is not held back.

    Args:
        groups: The queries' names, those that must stay together in one set.
        share: The share of them that is to be held back.
    """
    groups = list(groups)
    most = max(1, share * sum(map(len, groups)))
    return set().union(*(g for g in groups if len(g) <= most and hash_share(min(g)) < share))


def hash_share(name: str) -> float:
    """Returns a number from 0 to below 1 that hangs on the name alone, evenly spread."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _place(seed: int, query: str) -> str:
    return hashlib.blake2b(f"{seed}\t{query}".encode(), digest_size=8).hexdigest()
