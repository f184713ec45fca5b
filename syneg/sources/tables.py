"""Tables of any format: CSV, TSV, JSON Lines, JSON and Parquet, as records that know where they stand."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from syneg.errors import InputError
from syneg.reading import (
    COMPRESSED,
    columns_seen,
    json_lines,
    parse_json,
    read_text,
    reason,
    shown,
    text_lines,
)

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
TAKEN = (
    "Taken are .csv, .tsv, .jsonl, .ndjson and .json, each also as .gz or .zst, and .parquet; a folder "
    "of them; "
    "a folder of .txt or .md files; and a BEIR folder."
)

TableRecord = Mapping[str, Any]


def format_of(path: Path) -> str | None:
    """Returns a table's format by its ending, without what it is compressed with; None where it is none."""
    ending = Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    ending = ending.lower()
    is_packed_parquet = ending == ".parquet" and path.suffix.lower() in COMPRESSED
    return ending if ending in FORMATS and not is_packed_parquet else None


def plain_name(path: Path) -> str:
    """Returns a file's name without its endings for format and compression."""
    name = path.name
    for endings in (tuple(COMPRESSED), FORMATS):
        if name.lower().endswith(endings):
            name = name[: name.rindex(".")]
    return name or path.name


def read_table(path: str | Path) -> Iterator[tuple[str, TableRecord]]:
    """Yields a table's records, each with where it stands (file and line, or file and row).

    Raises:
        InputError: Where the file is no table of its format, or a record is malformed.
    """
    path = Path(path)
    kind = format_of(path)
    if kind is None:
        raise InputError(f"{path}: a file {path.suffix or 'without an ending'!r} is no source. {TAKEN}")
    if kind == ".parquet":
        return _parquet_records(path)
    if kind in (".csv", ".tsv"):
        return _csv_records(path, tabs=kind == ".tsv")
    if kind == ".json" and _starts_an_array(path):
        return _array_records(path)
    return json_lines(path)


def _starts_an_array(path: Path) -> bool:
    first = next((line for _, line in text_lines(path) if line.strip()), "")
    return first.lstrip().startswith("[")


def _array_records(path: Path) -> Iterator[tuple[str, TableRecord]]:
    for i, record in enumerate(parse_json(read_text(path), str(path))):
        if not isinstance(record, dict):
            raise InputError(f"{path}, row {i}: expected a JSON object, found {shown(record)}.")
        yield f"{path}, row {i}", record


def _csv_records(path: Path, tabs: bool) -> Iterator[tuple[str, TableRecord]]:
    csv.field_size_limit(sys.maxsize)
    first = next((line for _, line in text_lines(path) if line.strip()), "")
    delimiter = "\t" if tabs else max(",;\t", key=first.count)
    lines = (line for _, line in text_lines(path))
    # Strict: a stray quotation mark is an error, and not text that changes without a word.
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{where}: not {'TSV' if tabs else 'CSV'} ({reason(error)}). Double the quotation marks "
                "within a "
                "quoted cell, or write JSON Lines."
            ) from None
        if cells is None:
            return
        if not header:
            header = check_columns([name.strip() for name in cells], where)
        elif cells:
            if len(cells) != len(header):
                raise InputError(
                    f"{where}: {len(cells)} cells for {len(header)} columns; found {shown(cells)}."
                )
            yield where, dict(zip(header, cells, strict=True))


def check_columns(names: Sequence[str], where: str) -> list[str]:
    """Returns the names of columns.

    Raises:
        InputError: Where one stands twice.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: the column {twice!r} stands twice (found: {columns_seen(names)}).")
    return list(names)


def _parquet_records(path: Path) -> Iterator[tuple[str, TableRecord]]:
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, str(path))
            for batch in file.iter_batches(1000):
                for record in batch.to_pylist():
                    yield f"{path}, row {row}", record
                    row += 1
    except InputError:
        raise
    # ValueError: text that is not UTF-8; pyarrow's own errors are ValueErrors as well, or OSErrors.
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}, row {row}: not Parquet that can be read ({reason(error)}).") from None


def rows_in_memory(rows: Any) -> Iterator[tuple[str, TableRecord]]:
    """Yields the records of a DataFrame, of a `datasets.Dataset`, or of a list of mappings or tuples.

    A tuple is (query, positive, any number of negatives).

    Raises:
        InputError: For a row that is neither; names it by its number, from 0.
    """
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        check_columns([str(name) for name in rows.columns], "pairs")
        named = rows.rename(columns=str).astype(object)
        rows = named.where(rows.notna().to_numpy(), None).to_dict("records")
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise InputError(f"pairs: expected a DataFrame or a list of pairs, found {shown(rows)}.")
    for i, row in enumerate(rows):
        where = f"pairs, row {i}"
        if isinstance(row, Mapping):
            yield where, {str(name): value for name, value in row.items()}
        elif isinstance(row, list | tuple) and len(row) >= 2:
            names = ["query", "positive", *(f"negative_{n}" for n in range(1, len(row) - 1))]
            yield where, dict(zip(names, row, strict=True))
        else:
            raise InputError(f"{where}: expected (query, positive) or a mapping, found {shown(row)}.")
