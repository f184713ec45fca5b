"""Readers: a BEIR folder, a Hub data set, an MTEB task. What they parse, they parse in plain generators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, concatenate_datasets
from datasets.exceptions import DatasetGenerationError, DatasetsError

from syneg.errors import InputError, nearest
from syneg.reading import (
    COMPRESSED,
    columns_seen,
    id_of,
    json_lines,
    reason,
    relevance_of,
    text_lines,
    text_of,
)
from syneg.sources.source import CORPUS_FEATURES, QUERY_FEATURES

BEIR_LAYOUT = "A BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv."

PARSER = 2
"""Part of what a cached Arrow file is known by. Another number reads everything anew."""

# The first is BEIR's; the others are met on the Hub and in what people export.
_QRELS_COLUMNS = {
    "query-id": ("query-id", "queryid", "qid"),
    "corpus-id": ("corpus-id", "corpusid", "doc-id", "docid", "document-id", "passage-id", "pid"),
    "score": ("score", "relevance", "rel", "label"),
}


@dataclass
class Judgement:
    """One line of qrels, and where it stands."""

    query_id: str
    document_id: str
    relevance: float
    where: str


@dataclass
class RawSource:
    """What a loader read, before it is checked.

    Attributes:
        name: What the source is called.
        corpus: The documents.
        queries: The queries; None for documents alone.
        judgements: Judgements by split, read lazily.
        files: The files of corpus and queries, for errors, where there are some.
        notes: What a person should know of the reading.
    """

    name: str
    corpus: Dataset
    queries: Dataset | None
    judgements: Mapping[str, Iterable[Judgement]]
    files: Mapping[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def beir_file(folder: Path, name: str) -> Path | None:
    """Returns a file of a BEIR folder, compressed or not, or None.

    Raises:
        InputError: Where it is there twice.
    """
    found = [path for ending in ("", *COMPRESSED) if (path := folder / f"{name}{ending}").is_file()]
    if len(found) > 1:
        raise InputError(f"{found[0]}: {found[1].name} lies beside it; leave one of them.")
    return found[0] if found else None


def qrels_files(folder: Path) -> dict[str, Path]:
    """Returns the files of a BEIR folder's splits, by split.

    Raises:
        InputError: Where a split has two.
    """
    names = {
        path.name.removesuffix(path.suffix if path.suffix in COMPRESSED else "") for path in _tsv(folder)
    }
    splits = {}
    for name in sorted(names):
        path = beir_file(folder / "qrels", name)
        if path is not None:
            splits[name.removesuffix(".tsv")] = path
    return splits


def _tsv(folder: Path) -> list[Path]:
    return [path for ending in ("", *COMPRESSED) for path in (folder / "qrels").glob(f"*.tsv{ending}")]


def read_beir(folder: Path) -> RawSource:
    """Reads a BEIR folder; its files may be compressed (.gz, .zst).

    Raises:
        InputError: Where a file or column is missing or a line malformed.
    """
    splits = qrels_files(folder)
    if not splits:
        raise InputError(f"{folder}: qrels/<split>.tsv is missing. {BEIR_LAYOUT}")
    files = {kind: beir_file(folder, f"{kind}.jsonl") for kind in ("corpus", "queries")}
    for kind, path in files.items():
        if path is None:
            raise InputError(f"{folder / f'{kind}.jsonl'}: no such file. {BEIR_LAYOUT}")
    present = {kind: path for kind, path in files.items() if path is not None}
    return RawSource(
        name=folder.resolve().name,
        corpus=cached_dataset(jsonl_records, present["corpus"], CORPUS_FEATURES),
        queries=cached_dataset(jsonl_records, present["queries"], QUERY_FEATURES),
        judgements={split: read_qrels(path) for split, path in splits.items()},
        files=present,
    )


def cached_dataset(read: Any, path: Path, features: Features, **further: Any) -> Dataset:
    """Returns the records that a generator reads from a file, or a folder, as an Arrow file of the cache.

    Args:
        read: A function of (path, names of the features, stamp) that yields records.
        path: The file or folder.
        features: Columns of the records.
        **further: Other arguments of `read`.

    Raises:
        InputError: What `read` raises.
    """
    # Size and time are part of the arguments, so that a changed file is not served from the cache.
    # Tuples, since `datasets` takes lists for shards.
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stamps = tuple((str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
    arguments = {
        "path": str(path.resolve()),
        "names": tuple(features),
        "stamp": (PARSER, *stamps),
        **further,
    }
    if all(size == 0 for _, size, _ in stamps):
        return Dataset.from_dict({name: [] for name in features}, features=features)
    # `datasets` fails on a generator that yields nothing.
    first = next(iter(read(**arguments)), None)
    if first is None:
        return Dataset.from_dict({name: [] for name in features}, features=features)
    try:
        dataset = Dataset.from_generator(read, features=features, gen_kwargs=arguments)
    except DatasetGenerationError as error:
        raise (error.__cause__ if isinstance(error.__cause__, InputError) else error) from None
    assert isinstance(dataset, Dataset)
    return dataset


def jsonl_records(path: str | Path, names: Sequence[str], stamp: Any = None) -> Iterator[dict[str, str]]:
    """Yields the records of a BEIR file of documents or queries.

    Args:
        path: The file.
        names: Columns: id, text, and title of documents.
        stamp: What tells one content of the file from another; not read.

    Raises:
        InputError: For a malformed line; names its number.
    """
    for where, record in json_lines(path):
        yield text_record(record, names, where)


def text_record(record: Mapping[str, Any], names: Iterable[str], where: str) -> dict[str, str]:
    """Returns id, title and text of a BEIR record; only the title may be missing.

    Raises:
        InputError: Where a column is missing, or holds something else.
    """
    found: dict[str, str] = {}
    for name in names:
        column = ("_id" if "_id" in record or "id" not in record else "id") if name == "id" else name
        if column not in record and name != "title":
            raise InputError(
                f"{where}: column {column!r} is missing (found: {columns_seen(record)}). {BEIR_LAYOUT}"
            )
        value = record.get(column)
        found[name] = id_of(value, column, where) if name == "id" else text_of(value, column, where)
    return found


def read_qrels(path: str | Path) -> Iterator[Judgement]:
    """Yields the judgements of a BEIR file of qrels.

    Raises:
        InputError: For a header or a line that is malformed; names it.
    """
    at: list[int] = []
    for number, line in text_lines(path):
        # Never quoted: BEIR's files have none, and an id may begin with a quotation mark.
        cells = line.rstrip("\r\n").split("\t")
        where = f"{path}, line {number}"
        if not at:
            columns = qrels_columns(cells if line.strip() else [], where)
            at = [cells.index(name) for name in columns]
        elif line.strip():
            if len(cells) <= max(at) or not all(cells[i].strip() for i in at):
                raise InputError(
                    f"{where}: expected query id, document id and a number, separated by tabs; "
                    f"found {shown_cells(cells)}."
                )
            query_id, document_id, relevance = (cells[i] for i in at)
            try:
                yield Judgement(query_id, document_id, relevance_of(relevance, where), where)
            except InputError as error:
                raise InputError(
                    f"{error} A line is query id, document id and a number, separated by tabs."
                ) from None
    if not at:
        qrels_columns([], f"{path}, line 1")


def shown_cells(cells: Sequence[str]) -> str:
    """Returns the cells of a line for an error."""
    return f"{list(cells)!r:.200}"


def qrels_columns(found: Sequence[str], where: str) -> list[str]:
    """Returns which of the columns are query id, document id and score.

    Raises:
        InputError: Where one is missing.
    """
    plain = {name.strip().casefold().replace("_", "-"): name for name in reversed(found)}
    chosen = []
    for column, names in _QRELS_COLUMNS.items():
        name = next((name for name in names if name in plain), None)
        if name is None:
            raise InputError(
                f"{where}: column {column!r} is missing (found: {columns_seen(found)}). "
                f"The header is {' '.join(_QRELS_COLUMNS)}, separated by tabs."
            )
        chosen.append(plain[name])
    return chosen


def read_mteb(name: str) -> RawSource:
    """Reads the data set of an MTEB task.

    Raises:
        InputError: For an unknown task, or one without corpus and qrels.
    """
    import mteb

    try:
        task: Any = mteb.get_task(name)
    except KeyError:
        known = [t.metadata.name for t in mteb.get_tasks(task_types=["Retrieval"])]
        raise InputError(f"source 'mteb:{name}': no such MTEB task.{nearest(name, known)}") from None
    if not hasattr(task, "retrieval") and task.metadata.type not in ("Retrieval", "Reranking"):
        raise InputError(f"source 'mteb:{name}': a {task.metadata.type} task has no corpus and qrels.")
    path, revision = task.metadata.dataset["path"], task.metadata.dataset.get("revision")
    raw = read_hub(path, revision)
    return RawSource(name, raw.corpus, raw.queries, raw.judgements)


def read_hub(repo_id: str, revision: str | None = None) -> RawSource:
    """Reads a data set in BEIR's or MTEB's layout from the Hub.

    Raises:
        InputError: Where the Hub does not give it, or a configuration or column is missing.
    """
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
    except InputError:
        raise
    # ValueError: a name that the Hub does not allow, or a configuration that cannot be read.
    except (OSError, ValueError, HfHubHTTPError, DatasetsError, pa.ArrowException) as error:
        raise InputError(
            f"source {repo_id!r}: neither a folder here nor a data set that the Hub gives "
            f"({type(error).__name__}: {reason(error) if str(error) else 'no answer'})."
        ) from error
    return RawSource(
        name=repo_id,
        corpus=_hub_table(corpus, CORPUS_FEATURES, f"{repo_id} corpus"),
        queries=_hub_table(queries, QUERY_FEATURES, f"{repo_id} queries"),
        judgements={
            str(split): hub_judgements(part, part.column_names, f"{qrels_id} {split}")
            for split, part in qrels.items()
        },
    )


def _hub_table(splits: Mapping[str, Dataset], features: Features, where: str) -> Dataset:
    parts = list(splits.values())
    if len({tuple(sorted(part.column_names)) for part in parts}) > 1:
        raise InputError(f"{where}: its splits ({', '.join(map(str, splits))}) differ in their columns.")
    table = concatenate_datasets(parts)
    return table.map(
        lambda record, i, parser: text_record(record, features, f"{where}, row {i}"),
        with_indices=True,
        # Read here only for `datasets` to take what an older parser made for something else.
        fn_kwargs={"parser": PARSER},
        features=features,
        remove_columns=table.column_names,
        desc=f"Reading {where}",
    )


def hub_judgements(
    part: Iterable[Mapping[str, Any]], columns: Sequence[str], where: str
) -> Iterator[Judgement]:
    """Yields the judgements of a Hub table.

    Args:
        part: Its rows.
        columns: The names of its columns.
        where: What it is called in errors.

    Raises:
        InputError: For a column that is missing, or a row that is malformed; names it.
    """
    query, document, score = qrels_columns(columns, where)
    for i, row in enumerate(part):
        here = f"{where}, row {i}"
        yield Judgement(
            id_of(row[query], query, here),
            id_of(row[document], document, here),
            relevance_of(row[score], here),
            here,
        )
