"""Pairs to a source: documents and queries are made of their texts, each once.

What is a query, a positive and a negative is told by the columns' names; what cannot be told is an error
that says what was seen. Equal texts (Unicode form, case and blanks aside) are one query or one document,
unless ids say otherwise; the first way of writing is the one that is kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from syneg.errors import InputError
from syneg.reading import columns_seen, id_of, is_blank, relevance_of, shown, text_of
from syneg.sources.source import CORPUS_FEATURES, QUERY_FEATURES, Qrels, Source, document_text
from syneg.sources.tables import TAKEN, TableRecord
from syneg.text import normal_text

QUERY_COLUMNS = ("query", "question", "anchor", "queries", "search_query", "sentence1")
POSITIVE_COLUMNS = (
    "positive",
    "positives",
    "pos",
    "answer",
    "passage",
    "context",
    "document",
    "doc",
    "response",
    "sentence2",
    "text",
)
LISTS_OF_POSITIVES = ("positives", "pos")
TEXT_COLUMNS = ("text", "contents", "content", "body", "passage", "document", "context", "abstract")
QUERY_ID_COLUMNS = ("query_id", "queryid", "qid", "question_id", "anchor_id")
DOCUMENT_ID_COLUMNS = (
    "positive_id",
    "doc_id",
    "docid",
    "document_id",
    "passage_id",
    "pid",
    "corpus_id",
    "answer_id",
    "context_id",
)
TITLE_COLUMNS = ("title", "positive_title", "document_title", "passage_title")
SCORE_COLUMNS = ("score", "label", "relevance", "rel")
NEGATIVE_COLUMN = re.compile(r"(hard_?)?neg(ative)?s?(_passages?)?(_?\d+)?")


@dataclass(frozen=True)
class PairColumns:
    """Which column of a table is what; None where there is none."""

    query: str
    positive: str
    query_id: str | None
    positive_id: str | None
    title: str | None
    score: str | None
    negatives: list[str]

    @property
    def positive_is_list(self) -> bool:
        """Whether the column may hold several positives, by its name."""
        return self.positive.strip().casefold() in LISTS_OF_POSITIVES


@dataclass(frozen=True)
class DocumentColumns:
    """Which column of a table of documents is what."""

    text: str
    id: str | None
    title: str | None


def columns_of(
    names: Iterable[str], query_column: str | None, positive_column: str | None, where: str
) -> PairColumns | DocumentColumns:
    """Tells from the names of a table's columns whether it holds pairs or documents, and which is what.

    Args:
        names: The names; case, blanks and hyphens do not matter.
        query_column: The column of the queries; found by its name where it is None.
        positive_column: The column of the positives (or of the documents' texts), likewise.
        where: Where the table stands.

    Raises:
        InputError: Where neither can be told, or several columns could be meant; says what was seen.
    """
    names = list(names)
    plain = {re.sub(r"[\s-]+", "_", name.strip().casefold()): name for name in reversed(names)}
    if len(plain) < len(names):
        raise InputError(f"{where}: two columns have the same name but for case ({columns_seen(names)}).")
    for option, given in (("query_column", query_column), ("positive_column", positive_column)):
        if given is not None and given not in names:
            raise InputError(f"{where}: --{option} is {given!r}, but its columns are {columns_seen(names)}.")

    def first(known: Iterable[str], *taken: str | None) -> str | None:
        return next((plain[n] for n in known if n in plain and plain[n] not in taken), None)

    query = query_column or _one_of(plain, QUERY_COLUMNS, ("query", "anchor"), "query_column", where, ())
    if query is None:
        text = positive_column or first(TEXT_COLUMNS)
        if text is None:
            raise InputError(
                f"{where}: neither pairs nor documents: its columns are {columns_seen(names)}. Pairs "
                "need a query "
                f"({', '.join(QUERY_COLUMNS[:3])}) and a positive ({', '.join(POSITIVE_COLUMNS[:6])}), "
                "documents "
                f"a text ({', '.join(TEXT_COLUMNS[:4])}); rename them, or name them by --query_column and "
                f"--positive_column. {TAKEN}"
            )
        return DocumentColumns(
            text, first(("_id", "id", *DOCUMENT_ID_COLUMNS), text), first(("title",), text)
        )
    positive = positive_column or _one_of(
        plain, POSITIVE_COLUMNS, ("positive", "positives", "pos"), "positive_column", where, (query,)
    )
    if positive is None:
        raise InputError(
            f"{where}: {query!r} holds queries, but no column holds their positives "
            f"(found: {columns_seen(names)}). Name it by --positive_column, or call it positive."
        )
    if positive == query:
        raise InputError(f"{where}: {query!r} cannot be the column of the queries and of the positives.")
    taken = (query, positive)
    return PairColumns(
        query,
        positive,
        first(QUERY_ID_COLUMNS, *taken),
        first(DOCUMENT_ID_COLUMNS, *taken),
        first(TITLE_COLUMNS, *taken),
        first(SCORE_COLUMNS, *taken),
        [name for n, name in plain.items() if NEGATIVE_COLUMN.fullmatch(n) and name not in taken][::-1],
    )


def _one_of(
    plain: Mapping[str, str],
    known: tuple[str, ...],
    plainly: tuple[str, ...],
    option: str,
    where: str,
    taken: tuple[str, ...],
) -> str | None:
    """Returns the column that has one of the known names.

    Raises:
        InputError: Where several have, unless one says it plainly.
    """
    found = [n for n in known if n in plain and plain[n] not in taken]
    clear = [n for n in found if n in plainly]
    if len(clear) == 1:
        found = clear
    # A text beside an answer or a passage is a further column; alone it is the positive.
    found = [n for n in found if n != "text"] or found
    if len(found) > 1:
        raise InputError(
            f"{where}: several columns could be meant ({columns_seen(plain[n] for n in found)}); "
            f"say which by --{option}."
        )
    return plain[found[0]] if found else None


@dataclass
class _Texts:
    """Documents or queries: id -> text, and the id of each text, by its normal form."""

    prefix: str
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)
    by_key: dict[str, str] = field(default_factory=dict)
    rewritten: int = 0

    def add(self, name: str | None, title: str, text: str, where: str) -> str:
        """Returns the id of a text, its own or one that is made of it."""
        key = normal_text(document_text(title, text))
        if name is None:
            name = self.by_key.get(key)
            if name is None:
                # A hash, so that a row more does not give other ids, and other requests, to the rest.
                name = self.prefix + hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        known = self.texts.get(name)
        if known is None:
            self.texts[name] = (title, text)
            self.by_key.setdefault(key, name)
        elif known != (title, text):
            if normal_text(document_text(*known)) != key:
                raise InputError(
                    f"{where}: id {name!r} stood with another text before ({known[1]!r:.60}); ids must "
                    "be unique."
                )
            self.rewritten += 1
        return name


class PairsReader:
    """Makes a source of tables of pairs, split by split.

    Args:
        name: What the source is called.
        query_column: The column of the queries; found by its name where it is None.
        positive_column: The column of the positives, likewise.
    """

    def __init__(
        self, name: str, query_column: str | None = None, positive_column: str | None = None
    ) -> None:
        self.name = name
        self._query_column, self._positive_column = query_column, positive_column
        self._queries, self._documents = _Texts("q"), _Texts("d")
        self._qrels: dict[str, Qrels] = {}
        self._negatives: dict[str, str] = {}
        self._rows = self._repeated = self._negatives_given = self._blank = 0
        self._first_blank = ""

    def read(self, split: str, records: Iterable[tuple[str, TableRecord]]) -> None:
        """Adds a table's pairs to a split.

        Raises:
            InputError: For a row that is malformed, or says otherwise than one before; names it.
        """
        columns: PairColumns | None = None
        for where, record in records:
            if columns is None:
                found = columns_of(record, self._query_column, self._positive_column, where)
                if isinstance(found, DocumentColumns):
                    raise InputError(
                        f"{where}: documents alone ({found.text!r}) beside pairs; give each a source of "
                        "its own."
                    )
                columns = found
            self._rows += 1
            self._read_row(self._qrels.setdefault(split, {}), columns, record, where)

    def _read_row(self, qrels: Qrels, columns: PairColumns, record: TableRecord, where: str) -> None:
        for name in (columns.query, columns.positive):
            if name not in record:
                raise InputError(f"{where}: column {name!r} is missing (found: {columns_seen(record)}).")
        query = text_of(record[columns.query], columns.query, where)
        title = text_of(record.get(columns.title), columns.title, where) if columns.title else ""
        given = record[columns.positive]
        # A list elsewhere is a text in parts, or answers among which nobody has chosen.
        several = columns.positive_is_list and isinstance(given, list | tuple)
        positives = [text_of(text, columns.positive, where) for text in (given if several else [given])]
        negatives = [text for name in columns.negatives for text in _texts(record.get(name), name, where)]
        relevance: float = 1
        if columns.score:
            relevance = relevance_of(record.get(columns.score), f"{where}, column {columns.score!r}")
        if len(positives) > 1 and (columns.positive_id or columns.title):
            named = columns.positive_id or columns.title
            raise InputError(
                f"{where}: {len(positives)} positives for one {named!r}; write a row for each, or leave "
                "it out."
            )
        seen = [text for text in positives if not (is_blank(text) and is_blank(title))]
        if is_blank(query) or not seen:
            self._blank += 1
            self._first_blank = self._first_blank or where
            return
        query_id = self._queries.add(_id(record, columns.query_id, where), "", query, where)
        for text in seen:
            document_id = self._documents.add(_id(record, columns.positive_id, where), title, text, where)
            judged = qrels.setdefault(query_id, {})
            if document_id not in judged:
                judged[document_id] = relevance
            elif judged[document_id] == relevance:
                self._repeated += 1
            else:
                raise InputError(
                    f"{where}: query {query_id!r} and document {document_id!r} have relevance "
                    f"{judged[document_id]} before and {relevance} here; leave one."
                )
        for text in negatives:
            self._negatives_given += 1
            self._negatives.setdefault(normal_text(text), text)

    def source(self) -> Source:
        """Returns the source.

        Raises:
            InputError: Where no row is left.
        """
        if not self._qrels or not any(self._qrels.values()):
            why = f"; {self._blank:,} rows lack a query or a positive" if self._blank else ""
            raise InputError(f"{self.name}: no pair in {self._rows:,} rows{why}.")
        notes = []
        if self._blank:
            notes.append(
                f"{self._blank:,} rows without a text for the query or the positive are left out "
                f"(the first: {self._first_blank})"
            )
        if self._repeated:
            notes.append(f"{self._repeated:,} pairs stand there before and are left out")
        if rewritten := self._queries.rewritten + self._documents.rewritten:
            notes.append(
                f"{rewritten:,} queries or positives are equal to others but for case, blanks or "
                "Unicode form; "
                "the first way of writing stands"
            )
        if self._negatives_given:
            before = len(self._documents.texts)
            for key, text in self._negatives.items():
                if key not in self._documents.by_key:
                    self._documents.add(None, "", text, self.name)
            notes.append(
                f"{self._negatives_given:,} given negatives are in the corpus, to be mined "
                f"({len(self._documents.texts) - before:,} documents more); they are no judgements"
            )
        documents, queries = self._documents.texts, self._queries.texts
        return Source(
            name=self.name,
            corpus=Dataset.from_dict(
                {
                    "id": list(documents),
                    "title": [title for title, _ in documents.values()],
                    "text": [text for _, text in documents.values()],
                },
                features=CORPUS_FEATURES,
            ),
            queries=Dataset.from_dict(
                {"id": list(queries), "text": [text for _, text in queries.values()]}, features=QUERY_FEATURES
            ),
            qrels={split: qrels for split, qrels in self._qrels.items() if qrels},
            notes=[f"{self.name}: {note}." for note in notes],
        )


def _id(record: TableRecord, column: str | None, where: str) -> str | None:
    return id_of(record.get(column), column, where) if column else None


def _texts(value: Any, column: str, where: str) -> list[str]:
    """Returns the texts of a column of negatives: a text, a list of texts, or of objects with 'text'."""
    texts = []
    for item in value if isinstance(value, list | tuple) else [value]:
        text = item.get("text") if isinstance(item, Mapping) else item
        if isinstance(item, Mapping) and not isinstance(text, str):
            raise InputError(f"{where}: {column!r} must hold texts, found {shown(item)}.")
        texts.append(text_of(text, column, where))
    return [text for text in texts if not is_blank(text)]
