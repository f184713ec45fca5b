"""What two parts of a source share: documents that are relevant in both, and how to part without any."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from syneg.sources.source import Source
from syneg.text import text_keys


@dataclass(frozen=True)
class Overlap:
    """How far two splits of a source share their relevant documents.

    Attributes:
        split: The split that is evaluated.
        other: The split that is trained on.
        judgements: Judgements above 0 of `split`.
        shared: Those of them whose document, or one of equal text, is relevant in `other` too.
        queries: The queries of `split` with a judgement above 0.
        shared_queries: Those of them that have such a document.
    """

    split: str
    other: str
    judgements: int
    shared: int
    queries: frozenset[str]
    shared_queries: frozenset[str]

    def halves(self) -> dict[str, frozenset[str]]:
        """Returns the queries that have such a document and those that have none, by what they are called."""
        parts = {
            f"with a document of {self.other}": self.shared_queries,
            f"without a document of {self.other}": self.queries - self.shared_queries,
        }
        return {f"{label} ({len(part):,})": part for label, part in parts.items() if part}

    def __str__(self) -> str:
        """The count as a line for a person."""
        return (
            f"{self.shared:,} of {self.judgements:,} judgements of split {self.split} are of a document that "
            f"is relevant in split {self.other} too ({len(self.shared_queries):,} of {len(self.queries):,} "
            "queries have one): a model trained there may know it."
        )


def shared_judgements(source: Source, split: str, other: str = "train") -> Overlap:
    """Counts a split's judgements of documents that are relevant in another split too.

    A document is its text as well as its id (Unicode form, case and blanks aside).

    Args:
        source: Corpus and qrels.
        split: The split that is evaluated.
        other: The split that is trained on.

    Raises:
        InputError: Where the source lacks one of the splits.
    """
    judged, known = (
        [(query, d) for query, scores in source.judgements(name).items() for d, s in scores.items() if s > 0]
        for name in (split, other)
    )
    documents = sorted({document for _, document in (*judged, *known)})
    texts = source.documents(source.document_ids.get_indexer(documents).tolist())
    key = dict(zip(documents, text_keys(texts).tolist(), strict=True))
    known_keys = {key[document] for _, document in known}
    shared = [query for query, document in judged if key[document] in known_keys]
    return Overlap(
        split, other, len(judged), len(shared), frozenset(query for query, _ in judged), frozenset(shared)
    )


def held_back_names(judged: Iterable[tuple[str, Hashable, Hashable]], share: float) -> set[str]:
    """Returns which queries are held back, so that they share no query and no document with the others.

    What is joined by a query or a document, directly or over others, stays on one side. Which side is told
    by a hash of the first of its names, and so hangs neither on the order nor on a seed; what is joined in
    more than the share of all names is not held back.

    Args:
        judged: Of each pair the name of its query, and what its query and its document are known by.
        share: The share of the names that is to be held back.
    """
    groups = joined(judged)
    most = max(1, share * len(set().union(*groups)))
    held = (group for group in groups if len(group) <= most and hash_share(min(group)) < share)
    return set().union(*held)


def joined(judged: Iterable[tuple[str, Hashable, Hashable]]) -> list[set[str]]:
    """Returns groups of names: those that a query or a document joins, directly or over others.

    Args:
        judged: Of each pair the name of its query, and what its query and its document are known by.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    judged = list(judged)
    if not judged:
        return []
    names, *sides = zip(*judged, strict=True)
    queries, documents = (pd.factorize(pd.Series(side, dtype=object))[0] for side in sides)
    documents = documents + queries.max() + 1
    number = documents.max() + 1
    edges = coo_array((np.ones(len(names), dtype=bool), (queries, documents)), shape=(number, number))
    labels = connected_components(edges, directed=False)[1][queries]
    groups: dict[int, set[str]] = {}
    for name, label in zip(names, labels.tolist(), strict=True):
        groups.setdefault(label, set()).add(name)
    return list(groups.values())


def hash_share(name: str) -> float:
    """Returns a number from 0 to below 1 that hangs on the name alone, evenly spread."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
