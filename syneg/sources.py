"""A source: corpus, queries and qrels, from a BEIR folder, a Hub id or an MTEB task."""

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
from datasets import Dataset, Features, Value, concatenate_datasets
from datasets.exceptions import DatasetGenerationError

from syneg.errors import InputError, nearest

CORPUS_FEATURES = Features({name: Value("string") for name in ("id", "title", "text")})
QUERY_FEATURES = Features({name: Value("string") for name in ("id", "text")})
Qrels = dict[str, dict[str, int]]
"""query id -> document id -> relevance; above 0 is relevant."""

_BEIR_LAYOUT = "A BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv."


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


def load_source(spec: str | Path, unknown_documents: str = "error") -> Source:
    """Loads a source.

    Args:
        spec: The path of a BEIR folder; ``mteb:TaskName``; ``pydocs``, the documentation of the
            installed Python packages; or the Hub id of a data set in BEIR's or MTEB's layout
            (configurations ``corpus``, ``queries`` and the qrels).
        unknown_documents: "error", or "skip" to leave out and count judgements that name a
            document or query the source lacks.

    Returns:
        The source, with every split that has qrels.

    Raises:
        InputError: Where something is missing, empty or malformed; says what, where and the remedy.
    """
    text = str(spec)
    if text.startswith("mteb:"):
        raw = _from_mteb(text.removeprefix("mteb:"))
    elif Path(text).is_dir():
        raw = _from_folder(Path(text))
    elif text == "pydocs":
        from syneg.demo.pydocs import pydocs_source

        return pydocs_source()
    elif Path(text).is_absolute() or text.startswith(".") or text.count("/") != 1:
        raise InputError(f"source {text!r}: no such folder. {_BEIR_LAYOUT}")
    else:
        raw = _from_hub(text)
    return _checked(raw, skip=unknown_documents == "skip")


@dataclass
class _Judgement:
    query_id: str
    document_id: str
    relevance: int
    where: str


@dataclass
class _RawSource:
    """What a loader read, before it is checked. `judgements` is read lazily, split by split."""

    name: str
    corpus: Dataset
    queries: Dataset
    judgements: Mapping[str, Iterable[_Judgement]]


def _checked(raw: _RawSource, skip: bool) -> Source:
    source = Source(raw.name, raw.corpus, raw.queries, {})
    for kind, ids in (("corpus", source.document_ids), ("queries", source.query_ids)):
        if len(ids) == 0:
            raise InputError(f"{raw.name}: the {kind} is empty. {_BEIR_LAYOUT}")
        if not ids.is_unique:
            twice = ids[ids.duplicated()][0]
            raise InputError(f"{raw.name}: id {twice!r} stands twice in the {kind}; ids must be unique.")
    if not raw.judgements:
        raise InputError(f"{raw.name}: there are no qrels, so no split. {_BEIR_LAYOUT}")
    for split, judgements in raw.judgements.items():
        source.qrels[split], source.skipped[split] = _checked_qrels(source, judgements, skip)
    return source


def _checked_qrels(source: Source, judgements: Iterable[_Judgement], skip: bool) -> tuple[Qrels, int]:
    rows = list(judgements)
    known_queries = source.query_ids.get_indexer([row.query_id for row in rows]) >= 0
    known_documents = source.document_ids.get_indexer([row.document_id for row in rows]) >= 0
    unknown = ~(known_queries & known_documents)
    if unknown.any() and not skip:
        first = int(unknown.argmax())
        row = rows[first]
        kind, name = ("document", row.document_id) if not known_documents[first] else ("query", row.query_id)
        raise InputError(
            f"{row.where}: {kind} {name!r} is not in the {'corpus' if kind == 'document' else 'queries'} "
            f"({int(unknown.sum())} such judgements). Mend the file, or leave them out with "
            "--unknown_documents skip."
        )
    qrels: Qrels = {}
    for row, is_unknown in zip(rows, unknown, strict=True):
        if not is_unknown:
            qrels.setdefault(row.query_id, {})[row.document_id] = row.relevance
    return qrels, int(unknown.sum())


def _from_folder(folder: Path) -> _RawSource:
    splits = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    if not splits:
        raise InputError(f"{folder}: qrels/<split>.tsv is missing. {_BEIR_LAYOUT}")
    return _RawSource(
        name=folder.resolve().name,
        corpus=_read_jsonl(folder / "corpus.jsonl", CORPUS_FEATURES),
        queries=_read_jsonl(folder / "queries.jsonl", QUERY_FEATURES),
        judgements={split: _read_qrels(path) for split, path in splits.items()},
    )


def _read_jsonl(path: Path, features: Features) -> Dataset:
    if not path.is_file():
        raise InputError(f"{path}: no such file. {_BEIR_LAYOUT}")
    stat = path.stat()
    if stat.st_size == 0:
        return Dataset.from_dict({name: [] for name in features}, features=features)
    # Size and time are part of the arguments, so that a changed file is not served from the cache.
    # Tuples, since `datasets` takes lists for shards.
    arguments = {
        "path": str(path.resolve()),
        "names": tuple(features),
        "stamp": (stat.st_size, stat.st_mtime_ns),
    }
    try:
        dataset = Dataset.from_generator(_jsonl_records, features=features, gen_kwargs=arguments)
    except DatasetGenerationError as error:
        raise (error.__cause__ if isinstance(error.__cause__, InputError) else error) from None
    assert isinstance(dataset, Dataset)
    return dataset


def _jsonl_records(path: str, names: tuple[str, ...], stamp: tuple[int, int]) -> Iterator[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not JSON ({error.msg}).") from None
            yield _text_record(record, names, f"{path}, line {number}")


def _text_record(record: Any, names: Iterable[str], where: str) -> dict[str, str]:
    """Returns id, title and text of a BEIR record; only the title may be missing."""
    found: dict[str, str] = {}
    for name in names:
        value = record.get("_id", record.get("id")) if name == "id" else record.get(name)
        if value is None and name != "title":
            column = "_id" if name == "id" else name
            raise InputError(
                f"{where}: column {column!r} is missing (found: {', '.join(map(str, record))}). "
                f"{_BEIR_LAYOUT}"
            )
        found[name] = "" if value is None else str(value)
    return found


def _read_qrels(path: Path) -> Iterator[_Judgement]:
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = next(reader, [])
        columns = ["query-id", "corpus-id", "score"]
        missing = [name for name in columns if name not in header]
        if missing:
            raise InputError(
                f"{path}, line 1: column {missing[0]!r} is missing "
                f"(found: {', '.join(header) or 'nothing'}). "
                f"The header is {' '.join(columns)}, separated by tabs."
            )
        at = [header.index(name) for name in columns]
        for number, cells in enumerate(reader, start=2):
            if not cells:
                continue
            where = f"{path}, line {number}"
            try:
                query_id, document_id, relevance = (cells[i] for i in at)
                yield _Judgement(query_id, document_id, int(float(relevance)), where)
            except (IndexError, ValueError):
                raise InputError(
                    f"{where}: expected query id, document id and a number, separated by tabs; "
                    f"found {cells!r}."
                ) from None


def _from_mteb(name: str) -> _RawSource:
    import mteb

    try:
        task: Any = mteb.get_task(name)
    except KeyError:
        known = [t.metadata.name for t in mteb.get_tasks(task_types=["Retrieval"])]
        raise InputError(f"source 'mteb:{name}': no such MTEB task.{nearest(name, known)}") from None
    if not hasattr(task, "retrieval") and task.metadata.type not in ("Retrieval", "Reranking"):
        raise InputError(f"source 'mteb:{name}': a {task.metadata.type} task has no corpus and qrels.")
    path, revision = task.metadata.dataset["path"], task.metadata.dataset.get("revision")
    raw = _from_hub(path, revision)
    return _RawSource(name, raw.corpus, raw.queries, raw.judgements)


def _from_hub(repo_id: str, revision: str | None = None) -> _RawSource:
    from datasets import get_dataset_config_names, load_dataset
    from huggingface_hub.errors import HfHubHTTPError

    try:
        configs = get_dataset_config_names(repo_id, revision=revision)
        if not {"corpus", "queries"} <= set(configs):
            raise InputError(
                f"source {repo_id!r}: configurations 'corpus' and 'queries' are needed; "
                f"it has {', '.join(configs)}."
            )
        qrels_id, qrels_config = repo_id, next((c for c in ("qrels", "default") if c in configs), None)
        if qrels_config is None:
            qrels_id, qrels_config = f"{repo_id}-qrels", "default"
        corpus = load_dataset(repo_id, "corpus", revision=revision)
        queries = load_dataset(repo_id, "queries", revision=revision)
        qrels = load_dataset(qrels_id, qrels_config, revision=revision if qrels_id == repo_id else None)
    except (FileNotFoundError, ConnectionError, HfHubHTTPError) as error:
        raise InputError(
            f"source {repo_id!r}: neither a folder here nor a data set that the Hub gives "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'})."
        ) from error
    return _RawSource(
        name=repo_id,
        corpus=_hub_table(corpus, CORPUS_FEATURES, f"{repo_id} corpus"),
        queries=_hub_table(queries, QUERY_FEATURES, f"{repo_id} queries"),
        judgements={
            str(split): _hub_judgements(part, f"{qrels_id} {split}") for split, part in qrels.items()
        },
    )


def _hub_table(splits: Mapping[str, Dataset], features: Features, where: str) -> Dataset:
    table = concatenate_datasets(list(splits.values()))
    return table.map(
        lambda record, i: _text_record(record, features, f"{where}, row {i}"),
        with_indices=True,
        features=features,
        remove_columns=table.column_names,
        desc=f"Reading {where}",
    )


def _hub_judgements(part: Dataset, where: str) -> Iterator[_Judgement]:
    columns = ["query-id", "corpus-id", "score"]
    missing = [name for name in columns if name not in part.column_names]
    if missing:
        raise InputError(
            f"{where}: column {missing[0]!r} is missing (found: {', '.join(part.column_names)})."
        )
    for i, row in enumerate(part.select_columns(columns)):
        yield _Judgement(str(row["query-id"]), str(row["corpus-id"]), int(row["score"]), f"{where}, row {i}")


def _write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _as_list(rows: Iterable[int]) -> list[int]:
    return rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
