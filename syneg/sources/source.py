"""A source in memory: corpus, queries and qrels, and the pairs that they make."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, Features, Value

from syneg.errors import InputError, nearest

CORPUS_FEATURES = Features({name: Value("string") for name in ("id", "title", "text")})
QUERY_FEATURES = Features({name: Value("string") for name in ("id", "text")})

Qrels = dict[str, dict[str, int]]
"""query id -> document id -> relevance; above 0 is relevant."""


@dataclass
class SourceArguments:
    """Which source to read."""

    source: str = field(
        default="pydocs",
        metadata={"help": "A BEIR folder, a Hub id, mteb:TaskName, or pydocs (the embedded one)."},
    )
    split: str = field(default="train", metadata={"help": "The split of the qrels."})
    unknown_documents: str = field(
        default="error",
        metadata={
            "help": "What to do with a judgement of a document or query that the source lacks.",
            "choices": ["error", "skip"],
        },
    )


@dataclass(frozen=True)
class Pair:
    """A query and one of its positives, as texts."""

    query_id: str
    query: str
    positive_id: str
    positive: str


def document_text(title: str | None, text: str | None) -> str:
    """Returns a document as one string: title, a space, text (as MTEB encodes it)."""
    return f"{title or ''} {text or ''}".strip()


@dataclass
class Source:
    """Corpus, queries and qrels.

    Attributes:
        name: What it is called in cards and result files.
        corpus: Documents with columns id, title, text.
        queries: Queries with columns id, text.
        qrels: Judgements by split.
        skipped: How many judgements of each split named an unknown document or query.
        notes: Lines a person should read, such as what was left out in making it.
    """

    name: str
    corpus: Dataset
    queries: Dataset
    qrels: dict[str, Qrels]
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def document_ids(self) -> pd.Index:
        """The documents' ids in the corpus's order."""
        return pd.Index(self.corpus["id"][:])

    @cached_property
    def query_ids(self) -> pd.Index:
        """The queries' ids in their order."""
        return pd.Index(self.queries["id"][:])

    def documents(self, rows: Iterable[int] | None = None) -> list[str]:
        """Returns the texts of the documents at these rows of the corpus, or of all."""
        part = self.corpus if rows is None else self.corpus.select(_as_list(rows))
        return [document_text(t, x) for t, x in zip(part["title"][:], part["text"][:], strict=True)]

    def judgements(self, split: str) -> Qrels:
        """Returns the qrels of a split.

        Raises:
            InputError: Where there is no such split; names those there are.
        """
        if split not in self.qrels:
            raise InputError(
                f"{self.name}: no split {split!r}.{nearest(split, self.qrels)} "
                f"It has: {', '.join(sorted(self.qrels)) or 'none'}."
            )
        return self.qrels[split]

    def pairs(self, split: str) -> Pairs:
        """Returns every (query, positive) of a split, in the qrels' order.

        Raises:
            InputError: Where the split is missing or holds no positive.
        """
        qrels = self.judgements(split)
        pairs = [(q, d) for q, docs in qrels.items() for d, relevance in docs.items() if relevance > 0]
        if not pairs:
            raise InputError(f"{self.name}: split {split!r} has no judgement above 0, so no pair.")
        return Pairs(
            self,
            self.query_ids.get_indexer([q for q, _ in pairs]),
            self.document_ids.get_indexer([d for _, d in pairs]),
        )

    def save(self, folder: str | Path) -> Path:
        """Writes the source as a BEIR folder and returns its path."""
        folder = Path(folder)
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        _write_jsonl(
            folder / "corpus.jsonl",
            ({"_id": d["id"], "title": d["title"], "text": d["text"]} for d in self.corpus),
        )
        _write_jsonl(folder / "queries.jsonl", ({"_id": q["id"], "text": q["text"]} for q in self.queries))
        for split, qrels in self.qrels.items():
            with open(folder / "qrels" / f"{split}.tsv", "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, delimiter="\t", lineterminator="\n")
                writer.writerow(["query-id", "corpus-id", "score"])
                writer.writerows((q, d, s) for q, docs in qrels.items() for d, s in docs.items())
        return folder


@dataclass(frozen=True)
class Pairs:
    """Pairs as row numbers into a source; texts are read when asked for.

    Attributes:
        source: Where the texts are.
        query_rows: Row of each pair's query in `source.queries`, shape (n,).
        positive_rows: Row of each pair's positive in `source.corpus`, shape (n,).
    """

    source: Source
    query_rows: np.ndarray
    positive_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.query_rows)

    def __iter__(self) -> Iterator[Pair]:
        for start in range(0, len(self), 1000):
            yield from self._read(slice(start, start + 1000))

    def select(self, indices: Iterable[int]) -> Pairs:
        """Returns the pairs at these positions."""
        chosen = np.asarray(_as_list(indices), dtype=int)
        return Pairs(self.source, self.query_rows[chosen], self.positive_rows[chosen])

    def _read(self, part: slice) -> list[Pair]:
        queries = self.source.queries.select(_as_list(self.query_rows[part]))
        documents = self.source.corpus.select(_as_list(self.positive_rows[part]))
        return [
            Pair(q["id"], q["text"], d["id"], document_text(d["title"], d["text"]))
            for q, d in zip(queries, documents, strict=True)
        ]


def _write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _as_list(rows: Iterable[int]) -> list[int]:
    return rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
