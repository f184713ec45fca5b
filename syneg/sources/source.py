"""A source in memory: corpus, queries and qrels, and the pairs that they make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from syneg.errors import InputError, nearest
from syneg.rows import WRITTEN_ORIGIN, written_kind

CORPUS_FEATURES = Features({name: Value("string") for name in ("id", "title", "text")})
QUERY_FEATURES = Features({name: Value("string") for name in ("id", "text")})

Qrels = dict[str, dict[str, float]]
"""query id -> document id -> relevance; above 0 is relevant. Whole numbers are held as int."""

TRAIN, TEST = "train", "test"
WRITTEN_NOTE = "written.json"
"""The file that tells of a folder that its queries were written by an LLM."""
WRITTEN_QUERIES = "written.jsonl"
"""The file beside it that has each written query, which tells them from real ones where there are any."""

_BLANK = r"^[\s\p{Z}\p{Cc}\p{Cf}]*$"
"""Texts in which nothing is seen, for Arrow's RE2: blanks, controls, marks of no width."""
_BREAKS_A_LINE = re.compile("[\t\n\r\ud800-\udfff]")


@dataclass
class SourceArguments:
    """Which source to read.

    Raises:
        InputError: For a share that is none.
    """

    source: str = field(
        default="pydocs",
        metadata={
            "help": "A BEIR folder; a file or folder of pairs (CSV, TSV, JSON Lines, JSON or Parquet); "
            "documents "
            "alone (the same, or a folder of .txt or .md files); a Hub id; mteb:TaskName; or pydocs (the "
            "embedded one)."
        },
    )
    split: str = field(default="train", metadata={"help": "The split of the qrels."})
    unknown_documents: str = field(
        default="error",
        metadata={
            "help": "What to do with a judgement of a document or query that the source lacks.",
            "choices": ["error", "skip"],
        },
    )
    query_column: str | None = field(
        default=None,
        metadata={
            "help": "Pairs: the column of the queries; found by its name (query, question ...) if null."
        },
    )
    positive_column: str | None = field(
        default=None,
        metadata={
            "help": "Pairs: the column of the positives; documents alone: that of their texts. Found by "
            "its name "
            "(positive, answer, passage, context, text ...) if null."
        },
    )
    test_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the queries of split train that a split test is cut from, where the "
            "source has none. "
            "No document is relevant on both sides."
        },
    )
    test_seed: int = field(
        default=0,
        metadata={"help": "Seed of that cut. It is not --seed, so that every command cuts the same."},
    )

    def __post_init__(self) -> None:
        if not 0 <= self.test_share < 1:
            raise InputError(f"--test_share is {self.test_share}; it must be at least 0 and below 1.")


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
        qrels: Judgements by split. Documents alone have none, and no queries.
        skipped: How many judgements of each split named an unknown document or query.
        notes: Lines a person should read, such as what was left out in making it.
        written: The ids of the queries that an LLM wrote.
    """

    name: str
    corpus: Dataset
    queries: Dataset
    qrels: dict[str, Qrels]
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    written: frozenset[str] = frozenset()

    from_pairs: ClassVar[Callable[..., Source]]
    """Makes a source of pairs in memory: `syneg.sources.loading.source_from_pairs`, which reads them."""

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

    @cached_property
    def blank_documents(self) -> np.ndarray:
        """Which documents have neither title nor text, shape (documents,); they are never negatives."""
        return _blank(self.corpus, ("title", "text"))

    @cached_property
    def blank_queries(self) -> np.ndarray:
        """Which queries have no text, shape (queries,)."""
        return _blank(self.queries, ("text",))

    def origin_of(self, query_id: str) -> str:
        """Returns what a query's pairs come from: "source", or "written" where an LLM wrote the query."""
        return WRITTEN_ORIGIN if query_id in self.written else "source"

    def written_of(self, split: str) -> str | None:
        """Returns "written" where an LLM wrote a split's queries, "partly written" for some, else None."""
        queries = self.judgements(split)
        count = sum(query in self.written for query in queries) if self.written else 0
        return written_kind(count, len(queries))

    def judgements(self, split: str) -> Qrels:
        """Returns the qrels of a split.

        Raises:
            InputError: Where there is no such split; names those there are.
        """
        if not self.qrels:
            raise InputError(
                f"{self.name}: these are documents alone, without queries and judgements, so there is "
                "no split "
                f"{split!r}. Give pairs, or a BEIR folder with queries.jsonl and qrels."
            )
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
        query_rows, positive_rows = self._positive_rows(split)
        if not len(query_rows):
            raise InputError(f"{self.name}: split {split!r} has no judgement above 0, so no pair.")
        seen = ~self._without_text(query_rows, positive_rows)
        if not seen.any():
            raise InputError(f"{self.name}: split {split!r} has no pair of which both sides have a text.")
        return Pairs(self, query_rows[seen], positive_rows[seen])

    def pairs_without_text(self, split: str) -> int:
        """Returns how many pairs of a split `pairs` leaves out: those of which a side has no text."""
        return int(self._without_text(*self._positive_rows(split)).sum())

    def _positive_rows(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        qrels = self.judgements(split)
        pairs = [(q, d) for q, docs in qrels.items() for d, relevance in docs.items() if relevance > 0]
        return (
            self.query_ids.get_indexer([q for q, _ in pairs]),
            self.document_ids.get_indexer([d for _, d in pairs]),
        )

    def _without_text(self, query_rows: np.ndarray, positive_rows: np.ndarray) -> np.ndarray:
        return self.blank_queries[query_rows] | self.blank_documents[positive_rows]

    def save(self, folder: str | Path) -> Path:
        """Writes the source as a BEIR folder, with which queries an LLM wrote, and returns its path.

        Raises:
            InputError: For an id that would break a line of the qrels; nothing is written then.
        """
        folder = Path(folder)
        self.check_ids()
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        _write_jsonl(
            folder / "corpus.jsonl",
            ({"_id": d["id"], "title": d["title"], "text": d["text"]} for d in self.corpus),
        )
        _write_jsonl(folder / "queries.jsonl", ({"_id": q["id"], "text": q["text"]} for q in self.queries))
        for split, qrels in self.qrels.items():
            # Without quotes, as the format has it: an id may hold them.
            with open(folder / "qrels" / f"{split}.tsv", "w", encoding="utf-8", newline="") as file:
                file.write("query-id\tcorpus-id\tscore\n")
                file.writelines(
                    f"{q}\t{d}\t{int(s) if s == int(s) else float(s)!r}\n"
                    for q, docs in qrels.items()
                    for d, s in docs.items()
                )
        if self.written:
            real = len(self.query_ids) - len(self.written)
            note = {"origin": "written", "real_pairs": {"queries": real} if real else None}
            (folder / WRITTEN_NOTE).write_text(json.dumps(note) + "\n", encoding="utf-8")
            _write_jsonl(folder / WRITTEN_QUERIES, ({"query_id": name} for name in sorted(self.written)))
        return folder

    def check_ids(self) -> None:
        """Checks that `save` can write the ids.

        Raises:
            InputError: For an id that would break a line of the qrels.
        """
        for kind, ids in (("document", self.document_ids), ("query", self.query_ids)):
            broken = next((name for name in ids if _BREAKS_A_LINE.search(name)), None)
            if broken is not None:
                raise InputError(
                    f"{self.name}: {kind} id {broken!r} holds a tab or a line break, which qrels cannot "
                    "hold; "
                    "give it another id."
                )


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


def _blank(dataset: Dataset, columns: tuple[str, ...]) -> np.ndarray:
    parts = [np.zeros(0, dtype=bool)]
    if len(dataset):
        for table in dataset.select_columns(list(columns)).with_format("arrow").iter(10_000):
            blank = np.ones(len(table), dtype=bool)
            for column in columns:
                texts = pc.fill_null(table[column].cast(pa.large_string()), "")
                blank &= pc.match_substring_regex(texts, _BLANK).to_numpy(zero_copy_only=False)
            parts.append(blank)
    return np.concatenate(parts)


def _write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _as_list(rows: Iterable[int]) -> list[int]:
    return rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
