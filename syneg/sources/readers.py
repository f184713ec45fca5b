"""Readers of sources: a BEIR folder, a data set on the Hub, an MTEB task."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, concatenate_datasets
from datasets.exceptions import DatasetGenerationError

from syneg.errors import InputError, nearest
from syneg.sources.source import CORPUS_FEATURES, QUERY_FEATURES

BEIR_LAYOUT = "A BEIR folder holds corpus.jsonl, queries.jsonl and qrels/<split>.tsv."


@dataclass
class Judgement:
    """One line of qrels, and where it stands."""

    query_id: str
    document_id: str
    relevance: int
    where: str


@dataclass
class RawSource:
    """What a loader read, before it is checked. `judgements` is read lazily, split by split."""

    name: str
    corpus: Dataset
    queries: Dataset
    judgements: Mapping[str, Iterable[Judgement]]


def read_beir(folder: Path) -> RawSource:
    """Reads a BEIR folder.

    Raises:
        InputError: Where a file or column is missing or a line malformed.
    """
    splits = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    if not splits:
        raise InputError(f"{folder}: qrels/<split>.tsv is missing. {BEIR_LAYOUT}")
    return RawSource(
        name=folder.resolve().name,
        corpus=_read_jsonl(folder / "corpus.jsonl", CORPUS_FEATURES),
        queries=_read_jsonl(folder / "queries.jsonl", QUERY_FEATURES),
        judgements={split: _read_qrels(path) for split, path in splits.items()},
    )


def _read_jsonl(path: Path, features: Features) -> Dataset:
    if not path.is_file():
        raise InputError(f"{path}: no such file. {BEIR_LAYOUT}")
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
                f"{where}: column {column!r} is missing (found: {', '.join(map(str, record))}). {BEIR_LAYOUT}"
            )
        found[name] = "" if value is None else str(value)
    return found


def _read_qrels(path: Path) -> Iterator[Judgement]:
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
                yield Judgement(query_id, document_id, int(float(relevance)), where)
            except (IndexError, ValueError):
                raise InputError(
                    f"{where}: expected query id, document id and a number, separated by tabs; "
                    f"found {cells!r}."
                ) from None


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
    except (FileNotFoundError, ConnectionError, HfHubHTTPError) as error:
        raise InputError(
            f"source {repo_id!r}: neither a folder here nor a data set that the Hub gives "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no answer'})."
        ) from error
    return RawSource(
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


def _hub_judgements(part: Dataset, where: str) -> Iterator[Judgement]:
    columns = ["query-id", "corpus-id", "score"]
    missing = [name for name in columns if name not in part.column_names]
    if missing:
        raise InputError(
            f"{where}: column {missing[0]!r} is missing (found: {', '.join(part.column_names)})."
        )
    for i, row in enumerate(part.select_columns(columns)):
        yield Judgement(str(row["query-id"]), str(row["corpus-id"]), int(row["score"]), f"{where}, row {i}")
