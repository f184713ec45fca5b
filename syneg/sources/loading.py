"""Loading a source from whatever names it, and the checks that hold for all of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from syneg.errors import InputError, unknown
from syneg.reading import columns_seen, id_of, json_lines, json_object, read_text, reason, text_of
from syneg.sources.cutting import cut_test
from syneg.sources.pairs import DocumentColumns, PairsReader, columns_of
from syneg.sources.readers import (
    BEIR_LAYOUT,
    Judgement,
    RawSource,
    beir_file,
    cached_dataset,
    jsonl_records,
    qrels_files,
    read_beir,
    read_hub,
    read_mteb,
    text_record,
)
from syneg.sources.source import (
    CORPUS_FEATURES,
    QUERY_FEATURES,
    TRAIN,
    WRITTEN_NOTE,
    WRITTEN_QUERIES,
    Qrels,
    Source,
    SourceArguments,
)
from syneg.sources.tables import TAKEN, format_of, plain_name, read_table, rows_in_memory

TEXT_FILES = (".txt", ".md")
# What `datasets` writes beside its own files.
_OF_DATASETS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SPLIT_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "dev": "dev",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def load_source(
    spec: str | Path,
    unknown_documents: str = "error",
    query_column: str | None = None,
    positive_column: str | None = None,
    test_share: float = 0.0,
    seed: int = 0,
) -> Source:
    """Loads a source.

    Args:
        spec: The path of a BEIR folder; of a file or folder of pairs (CSV, TSV, JSON Lines, JSON or Parquet);
            of documents alone (the same formats, or a folder of .txt or .md files); ``mteb:TaskName``;
            ``pydocs``, the documentation of the installed Python packages; or the Hub id of a data set in
            BEIR's or MTEB's layout (configurations ``corpus``, ``queries`` and the qrels). What exists as a
            path is never looked for on the Hub.
        unknown_documents: "error", or "skip" to leave out and count judgements that name a
            document or query the source lacks.
        query_column: Pairs: the column of the queries; found by its name where it is None.
        positive_column: Pairs: the column of the positives; documents alone: that of their texts.
        test_share: Share of the queries of split "train" that a split "test" is cut from; no document is
            relevant on both sides.
        seed: Seed of that cut.

    Returns:
        The source, with every split that has qrels. Its notes say what was left out.

    Raises:
        InputError: Where something is missing, empty or malformed; says what, where and the remedy.
    """
    if unknown_documents not in ("error", "skip"):
        raise unknown("choice for unknown_documents", unknown_documents, ("error", "skip"))
    source = _load(str(spec), unknown_documents == "skip", query_column, positive_column)
    return cut_test(source, test_share, seed) if test_share else source


def source_of(args: SourceArguments) -> Source:
    """Loads the source that a command's arguments name, with all that they say of it.

    Raises:
        InputError: See `load_source`.
    """
    return load_source(
        args.source,
        args.unknown_documents,
        args.query_column,
        args.positive_column,
        args.test_share,
        args.test_seed,
    )


def source_from_pairs(
    pairs: Any,
    name: str = "pairs",
    query_column: str | None = None,
    positive_column: str | None = None,
    test_share: float = 0.0,
    seed: int = 0,
) -> Source:
    """Makes a source of pairs in memory, as `load_source` does of a file.

    Args:
        pairs: A pandas DataFrame or a `datasets.Dataset`; or a list of mappings, or of tuples (query,
            positive, any number of negatives).
        name: What the source is called.
        query_column: The column of the queries; found by its name where it is None.
        positive_column: The column of the positives, likewise.
        test_share: Share of the queries that a split "test" is cut from.
        seed: Seed of that cut.

    Returns:
        The source, with split "train" (and "test"); its notes say what was left out.

    Raises:
        InputError: For a row that is no pair; names it by its number, from 0.
    """
    reader = PairsReader(name, query_column, positive_column)
    reader.read(TRAIN, rows_in_memory(pairs))
    source = reader.source()
    return cut_test(source, test_share, seed) if test_share else source


# Here, since it needs the readers, and they need the class.
Source.from_pairs = staticmethod(source_from_pairs)


def _load(text: str, skip: bool, query_column: str | None, positive_column: str | None) -> Source:
    path = Path(text)
    if text.startswith("mteb:"):
        return _checked(read_mteb(text.removeprefix("mteb:")), skip)
    try:
        # An empty path would be the folder that one is in.
        is_folder, is_file = bool(text) and path.is_dir(), path.is_file()
    except OSError as error:  # a name that is too long
        raise InputError(f"source {text[:80]!r}: no such folder or file ({reason(error)}).") from None
    if is_folder:
        return _read_folder(path, skip, query_column, positive_column)
    if is_file:
        return _read_tables(plain_name(path), path, [path], query_column, positive_column)
    if text == "pydocs":
        from syneg.sources.pydocs import pydocs_source

        return pydocs_source()
    is_path = path.is_absolute() or text.startswith((".", "~")) or text.count("/") != 1
    if is_path or format_of(path) is not None or path.suffix in TEXT_FILES:
        raise InputError(f"source {text!r}: no such folder or file. {TAKEN} {BEIR_LAYOUT}")
    return _checked(read_hub(text), skip)


def _read_folder(folder: Path, skip: bool, query_column: str | None, positive_column: str | None) -> Source:
    """Reads a folder as what it holds: BEIR's files, tables, or texts."""
    if (folder / "syneg.json").is_file():
        raise InputError(f"{folder}: these are rows that syneg wrote, and no source; give them as --dataset.")
    corpus = beir_file(folder, "corpus.jsonl")
    if beir_file(folder, "queries.jsonl") or qrels_files(folder) or (folder / "qrels").is_dir():
        source = _checked(read_beir(folder), skip)
        if (folder / WRITTEN_NOTE).is_file():
            _note_written(source, folder)
        return source
    name = folder.resolve().name
    if corpus is not None:
        documents = cached_dataset(jsonl_records, corpus, CORPUS_FEATURES)
        return _checked(RawSource(name, documents, None, {}, {"corpus": corpus}), skip)
    files = _files(folder)
    tables = [path for path in files if format_of(path) is not None and path.name not in _OF_DATASETS]
    texts = [path for path in files if path.suffix.lower() in TEXT_FILES]
    if tables:
        source = _read_tables(name, folder, tables, query_column, positive_column)
        return _noting_others(source, files, tables)
    if texts:
        documents = cached_dataset(text_files, folder, CORPUS_FEATURES)
        return _noting_others(_checked(RawSource(name, documents, None, {}), skip), files, texts)
    endings = sorted({path.suffix or path.name for path in files})
    seen = f"it holds {', '.join(endings)[:100]}" if files else "it is empty"
    raise InputError(f"{folder}: no source: {seen}. {TAKEN} {BEIR_LAYOUT}")


def _note_written(source: Source, folder: Path) -> None:
    """Says of a source which of its queries an LLM wrote: all, or those that the folder names.

    Raises:
        InputError: Where real ones stand beside them, and the file that tells them apart is missing.
    """
    note = folder / WRITTEN_NOTE
    has_real = bool(json_object(read_text(note), str(note)).get("real_pairs"))
    source.written = frozenset(source.query_ids)
    if has_real:
        path = folder / WRITTEN_QUERIES
        named = {id_of(record.get("query_id"), "query_id", where) for where, record in json_lines(path)}
        source.written &= named
    too = ", those of split test too" if "test" in source.qrels else ""
    which = f"{len(source.written):,} of its {len(source.query_ids):,}" if has_real else "its"
    source.notes.append(f"{source.name}: {which} queries were written by an LLM{too}.")


def _noting_others(source: Source, files: list[Path], read: list[Path]) -> Source:
    """Notes how many files of a folder were not read."""
    others = {path for path in files if path.stem.upper() != "README"} - set(read)
    if others:
        endings = ", ".join(sorted({path.suffix or path.name for path in others}))
        source.notes.append(f"{source.name}: {len(others):,} other files are not read ({endings[:100]}).")
    return source


def _files(folder: Path) -> list[Path]:
    """Returns the files of a folder and of those in it, but for hidden ones, in order."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def text_files(path: str | Path, names: Sequence[str], stamp: Any = None) -> Iterator[dict[str, str]]:
    """Yields a document for each .txt and .md file of a folder; its id is the file's path within it.

    Args:
        path: The folder.
        names: The columns; not read.
        stamp: What tells one content of the folder from another; not read.

    Raises:
        InputError: For a file that is no text in UTF-8; names file and line.
    """
    for file in _files(Path(path)):
        if file.suffix.lower() in TEXT_FILES:
            text = read_text(file)
            if "\0" in text:
                line = text.count("\n", 0, text.index("\0")) + 1
                raise InputError(f"{file}, line {line}: this is no text (it holds a zero byte).")
            yield {"id": file.relative_to(path).as_posix(), "title": "", "text": text}


def _read_tables(
    name: str, path: Path, files: list[Path], query_column: str | None, positive_column: str | None
) -> Source:
    """Reads files of pairs, or files of documents alone."""
    first = next((record for file in files for record in read_table(file)), None)
    if first is None:
        raise InputError(f"{path}: there is no row in it. {TAKEN}")
    columns = columns_of(first[1], query_column, positive_column, first[0])
    if isinstance(columns, DocumentColumns):
        parts = tuple(str(file.resolve()) for file in files)
        corpus = cached_dataset(
            partial(document_records, column=positive_column), path, CORPUS_FEATURES, files=parts
        )
        return _checked(RawSource(name, corpus, None, {}), skip=False)
    reader = PairsReader(name, query_column, positive_column)
    for file in files:
        reader.read(_split_of(file, path), read_table(file))
    return reader.source()


def _split_of(file: Path, path: Path) -> str:
    """Returns the split that a file's name, or its folder's within `path`, speaks of; else train."""
    parts = file.relative_to(path).parts if file != path else ()
    words = [word for part in parts for word in re.split(r"[^a-z]+", part.lower())]
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), TRAIN)


def document_records(
    path: str | Path,
    names: Sequence[str],
    stamp: Any = None,
    files: Sequence[str] = (),
    column: str | None = None,
) -> Iterator[dict[str, str]]:
    """Yields the documents of tables without queries; one without an id is called by its file and row.

    Args:
        path: The file or folder.
        names: The columns; not read.
        stamp: What tells one content from another; not read.
        files: The tables; `path` alone where there are none.
        column: The column of the texts; found by its name where it is None.

    Raises:
        InputError: For a row that is malformed, or holds a pair; names it.
    """
    for file in files or [str(path)]:
        columns: DocumentColumns | None = None
        for number, (where, record) in enumerate(read_table(file)):
            if columns is None:
                found = columns_of(record, None, column, where)
                if not isinstance(found, DocumentColumns):
                    raise InputError(f"{where}: pairs beside documents alone; give each a source of its own.")
                columns = found
            if columns.text not in record:
                raise InputError(
                    f"{where}: column {columns.text!r} is missing (found: {columns_seen(record)})."
                )
            yield {
                "id": id_of(record.get(columns.id), columns.id, where)
                if columns.id
                else f"{plain_name(Path(file))}-{number}",
                "title": text_of(record.get(columns.title), columns.title, where) if columns.title else "",
                "text": text_of(record[columns.text], columns.text, where),
            }


def _checked(raw: RawSource, skip: bool) -> Source:
    queries = raw.queries
    if queries is None:
        queries = Dataset.from_dict({"id": [], "text": []}, features=QUERY_FEATURES)
    source = Source(raw.name, raw.corpus, queries, {}, notes=list(raw.notes))
    for kind, ids in (("corpus", source.document_ids), ("queries", source.query_ids)):
        if kind == "queries" and raw.queries is None:
            continue
        where = raw.files.get(kind, raw.name)
        if len(ids) == 0:
            raise InputError(f"{where}: the {kind} is empty. {TAKEN} {BEIR_LAYOUT}")
        if not ids.is_unique:
            twice = ids[ids.duplicated()][0]
            place = _second_place(raw.files.get(kind), twice) or where
            raise InputError(f"{place}: id {twice!r} stands twice in the {kind}; ids must be unique.")
    if raw.queries is not None and not raw.judgements:
        raise InputError(f"{raw.name}: there are no qrels, so no split. {BEIR_LAYOUT}")
    for split, judgements in raw.judgements.items():
        source.qrels[split], source.skipped[split] = _checked_qrels(source, split, judgements, skip)
    _note_blanks(source)
    return source


def _second_place(path: Path | None, name: str) -> str | None:
    """Returns the line of a file on which an id stands for the second time."""
    if path is None:
        return None
    places = (
        where for where, record in json_lines(path) if text_record(record, ("id",), where)["id"] == name
    )
    return next(islice(places, 1, None), None)


def _checked_qrels(
    source: Source, split: str, judgements: Iterable[Judgement], skip: bool
) -> tuple[Qrels, int]:
    rows = list(judgements)
    queries, rewritten = _known(source.query_ids, [row.query_id for row in rows])
    documents, rewritten_too = _known(source.document_ids, [row.document_id for row in rows])
    unknown_rows = (queries < 0) | (documents < 0)
    if unknown_rows.any() and not skip:
        first = int(unknown_rows.argmax())
        row = rows[first]
        kind, name = ("document", row.document_id) if documents[first] < 0 else ("query", row.query_id)
        raise InputError(
            f"{row.where}: {kind} {name!r} is not in the {'corpus' if kind == 'document' else 'queries'} "
            f"({int(unknown_rows.sum())} such judgements). Mend the file, or leave them out with "
            "--unknown_documents skip."
        )
    qrels: Qrels = {}
    query_ids, document_ids = source.query_ids[queries], source.document_ids[documents]
    for row, is_unknown, query, document in zip(rows, unknown_rows, query_ids, document_ids, strict=True):
        if is_unknown:
            continue
        before = qrels.setdefault(query, {}).setdefault(document, row.relevance)
        if before != row.relevance:
            raise InputError(
                f"{row.where}: query {query!r} and document {document!r} have relevance {before} before and "
                f"{row.relevance} here; leave one."
            )
    repeated = int((~unknown_rows).sum()) - sum(map(len, qrels.values()))
    skipped = int(unknown_rows.sum())
    told = f"{source.name}, split {split}: "
    if skipped:
        source.notes.append(f"{told}{skipped:,} judgements of unknown documents or queries are left out.")
    if repeated:
        source.notes.append(f"{told}{repeated:,} judgements stand there twice and count once.")
    if rewritten or rewritten_too:
        source.notes.append(
            f"{told}{rewritten + rewritten_too:,} ids are written in another Unicode form than in the "
            "corpus or the "
            "queries, which is the one that counts."
        )
    return qrels, skipped


def _known(ids: pd.Index, wanted: list[str]) -> tuple[np.ndarray, int]:
    """Returns the rows of ids, -1 for those that are not there, and how many differ in Unicode form.

    An id that is not there as it is written is looked for in its composed form, where that is no other's.
    """
    rows = ids.get_indexer(wanted)
    missing = [i for i in np.flatnonzero(rows < 0) if not wanted[i].isascii()]
    if not missing:
        return rows, 0
    forms = pd.Index([unicodedata.normalize("NFC", name) for name in ids])
    single = ~forms.duplicated(keep=False)
    found = forms[single].get_indexer([unicodedata.normalize("NFC", wanted[i]) for i in missing])
    places = np.where(found < 0, -1, np.flatnonzero(single)[found])
    rows[missing] = places
    return rows, int((places >= 0).sum())


def _note_blanks(source: Source) -> None:
    """Notes the documents and queries without text, which are in no pair and are no negatives."""
    for kind, blank in (("documents", source.blank_documents), ("queries", source.blank_queries)):
        if blank.any():
            source.notes.append(f"{source.name}: {int(blank.sum()):,} {kind} without text are left out.")
    if source.blank_documents.any() or source.blank_queries.any():
        for split in source.qrels:
            if pairs := source.pairs_without_text(split):
                source.notes.append(
                    f"{source.name}, split {split}: {pairs:,} pairs without a text on either side are "
                    "left out."
                )
