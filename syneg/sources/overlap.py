"""What two splits of a source share: judgements of documents that are relevant in both."""

from __future__ import annotations

from dataclasses import dataclass

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
