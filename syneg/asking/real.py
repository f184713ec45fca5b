"""The source's own real pairs, which stand beside what is written for its documents."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from syneg.errors import InputError
from syneg.gating.duplicates import Duplicates
from syneg.sources import Source
from syneg.sources.source import Qrels

_WRITTEN = "written:"


@dataclass
class RealPairs:
    """Real queries of a source with their judgements.

    Attributes:
        splits: The splits that they are of.
        texts: Each query's text, by its id.
        qrels: Their judgements.
        left_out: How many of these splits' queries were written themselves and are left out.
    """

    splits: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    qrels: Qrels = field(default_factory=dict)
    left_out: int = 0

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yields the text of each query with the id of each document relevant to it."""
        for query, documents in self.qrels.items():
            yield from ((self.texts[query], name) for name, relevance in documents.items() if relevance > 0)

    def documents(self) -> list[str]:
        """Returns the ids of the documents relevant to them."""
        return list(dict.fromkeys(name for _, name in self.pairs()))

    def like_positives(self, source: Source, names: Collection[str], threshold: float) -> set[str]:
        """Returns which documents are relevant to a real query, or repeat a document that is.

        Args:
            source: The corpus.
            names: The ids of the documents to look at.
            threshold: Similarity from which one repeats another, see `Duplicates`.
        """
        relevant = self.documents()
        known = Duplicates(threshold)
        for name, text in zip(relevant, _texts(source, relevant), strict=True):
            known.add(text, name)
        asked = sorted(names)
        found = {name for name, text in zip(asked, _texts(source, asked), strict=True) if known.find(text)}
        known.close()
        return found

    def facts(self) -> dict[str, Any] | None:
        """Returns their counts; None where there are none."""
        if not self.qrels:
            return None
        return {"queries": len(self.qrels), "pairs": sum(1 for _ in self.pairs()), "splits": self.splits}

    def lines(self) -> list[str]:
        """Returns what a person should know of them."""
        if not self.qrels:
            return []
        pairs = sum(1 for _ in self.pairs())
        line = f"real pairs: {pairs:,} of {len(self.qrels):,} queries, from split {', '.join(self.splits)}"
        left_out = f"  left out, since they were written themselves: {self.left_out:,}"
        return [line, *([left_out] if self.left_out else [])]


def real_pairs(source: Source, splits: Sequence[str]) -> RealPairs:
    """Returns the real queries of splits that have a document relevant to them, with all their judgements.

    Raises:
        InputError: Where there are none, or an id is such as written queries have.
    """
    found = RealPairs(list(splits))
    for split in splits:
        pairs = source.pairs(split)
        # In the qrels' order, without those of which a side has no text.
        asked = dict.fromkeys(source.query_ids[pairs.query_rows].tolist())
        real = [query for query in asked if query not in source.written]
        found.left_out += len(asked) - len(real)
        for query in real:
            found.qrels.setdefault(query, {}).update(source.qrels[split][query])
    if not found.qrels:
        raise InputError(
            f"{source.name}: --with_pairs, and all queries of split {', '.join(splits)} were written "
            "themselves; name the source that has real ones."
        )
    taken = next((query for query in found.qrels if query.startswith(_WRITTEN)), None)
    if taken is not None:
        raise InputError(
            f"{source.name}: real query {taken!r} has an id such as written queries have ({_WRITTEN}...); "
            "give it another one, or leave out --with_pairs."
        )
    names = list(found.qrels)
    rows = source.query_ids.get_indexer(names).tolist()
    found.texts = dict(zip(names, source.queries.select(rows)["text"][:], strict=True))
    return found


def _texts(source: Source, names: Sequence[str]) -> list[str]:
    return source.documents(source.document_ids.get_indexer(list(names)).tolist())
