"""The row of a hard-negative data set: its Features and conversions.

One row is one pair (query, positive) with its negatives. The same Features hold in memory, in
Parquet and on the Hub.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

from datasets import Dataset, Features, List, Value

from syneg.errors import InputError

SYNTHETIC = "synthetic"
"""The `source` of a negative that an LLM wrote; any other source names a miner."""

MIRROR = "mirror"
"""The `origin` of a mirrored row, and the `source` of its negative, the first row's positive."""

WRITTEN_ORIGIN = "written"
"""The `origin` of a row whose query an LLM wrote."""

_STRING = Value("string")
NEGATIVE_FEATURES: dict[str, Value] = {
    "text": _STRING,
    "source": _STRING,
    "doc_id": _STRING,
    "rank": Value("int32"),
    "score": Value("float32"),
    "teacher_score": Value("float32"),
    "positive_teacher_score": Value("float32"),
    "domain": _STRING,
    "difficulty": _STRING,
    "length": _STRING,
    "reasoning": _STRING,
    "generator": _STRING,
    "verdict": _STRING,
}
PAIR_FEATURES: dict[str, Value] = {
    "query_id": _STRING,
    "query": _STRING,
    "positive_id": _STRING,
    "positive": _STRING,
    "origin": _STRING,
}
FEATURES = Features({**PAIR_FEATURES, "negatives": List(NEGATIVE_FEATURES)})
"""Features of the `default` configuration."""

DROPPED_FEATURES = Features(
    {**PAIR_FEATURES, "negative": NEGATIVE_FEATURES, "gate": _STRING, "reason": _STRING}
)
"""Features of the `dropped` configuration: one row a dropped negative."""


class Negative(TypedDict):
    """A negative; see the README for what each field holds. All but text and source may be None."""

    text: str
    source: str
    doc_id: str | None
    rank: int | None
    score: float | None
    teacher_score: float | None
    positive_teacher_score: float | None
    domain: str | None
    difficulty: str | None
    length: str | None
    reasoning: str | None
    generator: str | None
    verdict: str | None


class Row(TypedDict):
    """A row of the `default` configuration."""

    query_id: str
    query: str
    positive_id: str
    positive: str
    origin: str
    negatives: list[Negative]


class Dropped(TypedDict):
    """A row of the `dropped` configuration."""

    query_id: str
    query: str
    positive_id: str
    positive: str
    origin: str
    negative: Negative
    gate: str
    reason: str


def mined_source(sources: Collection[str]) -> str | None:
    """Returns whose negatives to train on, of the sources that there are; None where none is a miner's."""
    known = [source for source in ("dense", "bm25", "random") if source in sources]
    return next(iter([*known, *sorted({*sources} - {SYNTHETIC, MIRROR})]), None)


def written_kind(written: int, queries: int) -> str | None:
    """Returns "written" where an LLM wrote all of so many queries, "partly written" for some, else None."""
    return None if not written else "written" if written == queries else "partly written"


def make_negative(text: str, source: str, **fields: Any) -> Negative:
    """Returns a negative with every field that is not given set to None.

    Raises:
        TypeError: For a field that a negative does not have.
    """
    strange = fields.keys() - NEGATIVE_FEATURES.keys()
    if strange:
        raise TypeError(f"a negative has no field {sorted(strange)[0]!r}")
    negative = dict.fromkeys(NEGATIVE_FEATURES) | {"text": text, "source": source} | fields
    return negative  # type: ignore[return-value]


def make_row(
    query_id: str,
    query: str,
    positive_id: str,
    positive: str,
    negatives: Iterable[Negative] = (),
    origin: str = "source",
) -> Row:
    """Returns a row.

    `origin` is "source", "written" where an LLM wrote the query, "mirror" for a row turned round, or
    "relabelled" by the judge.
    """
    return Row(
        query_id=query_id,
        query=query,
        positive_id=positive_id,
        positive=positive,
        origin=origin,
        negatives=list(negatives),
    )


def make_dropped(row: Row, negative: Negative, gate: str, reason: str) -> Dropped:
    """Returns the `dropped` row for a negative that a gate kept out of `row`."""
    return Dropped(
        query_id=row["query_id"],
        query=row["query"],
        positive_id=row["positive_id"],
        positive=row["positive"],
        origin=row["origin"],
        negative=negative,
        gate=gate,
        reason=reason,
    )


def mirror_ids(row: Mapping[str, Any], number: int) -> tuple[str, str]:
    """Returns the query's and the document's id of the `number`-th row that is made of `row` turned round.

    `source_query_id` reads the first query's id back.
    """
    identity = f"{row['query_id']}~{row['positive_id']}~{number}"
    return f"{identity}~query", f"{identity}~document"


def source_query_id(row: Mapping[str, Any]) -> str:
    """Returns the id of the source's query that a row comes from: its own, unless the row is a mirrored one.

    An id may hold "~" itself, so a mirrored row's is read with the first row's positive in hand: that is
    its negative, or its positive where the judge has relabelled it.

    Raises:
        InputError: For a mirrored row that has lost that negative and whose id can be read in two ways.
    """
    query_id = str(row["query_id"])
    if row["origin"] == "relabelled":
        document_ids = [row["positive_id"]]
    elif row["origin"] == MIRROR:
        document_ids = [one["doc_id"] for one in row["negatives"] if one["source"] == MIRROR]
    else:
        return query_id
    for document_id in document_ids:
        made = re.fullmatch(rf"(.*)~{re.escape(str(document_id))}~\d+~query", query_id, re.DOTALL)
        if made:
            return made[1]
    if row["origin"] == MIRROR:
        if query_id.count("~") != 3:
            raise InputError(
                f"row {query_id!r}: a mirrored row that lost its negative of source {MIRROR!r} does not say "
                "which query it comes from. Build the rows again without the gate that dropped it."
            )
        return query_id.split("~")[0]
    return query_id


def check_rows(dataset: Any, where: str) -> None:
    """Checks that a data set has the columns of a row.

    Raises:
        InputError: Names the missing column and those that are there.
    """
    columns = list(dataset.column_names or dataset.features or [])
    missing = [name for name in FEATURES if name not in columns]
    if missing:
        raise InputError(
            f"{where}: column {missing[0]!r} is missing (found: {', '.join(columns)}). "
            "Expected the rows that `syneg build` writes, configuration 'default'."
        )


def triplet_features(num_negatives: int) -> Features:
    """Returns the Features of the `triplet` configuration with `num_negatives` negative columns."""
    names = ["anchor", "positive", *(f"negative_{i + 1}" for i in range(num_negatives))]
    return Features(dict.fromkeys(names, _STRING))


def iter_triplets(rows: Iterable[Mapping[str, Any]], num_negatives: int) -> Iterator[dict[str, str]]:
    """Yields rows of the `triplet` configuration: anchor, positive, negative_1 ... negative_k.

    Negatives are taken in turns from each source, in each source's own order, so that a short row
    of k columns still holds every source. A row with fewer than `num_negatives` has no triplet:
    the caller counts those by comparing lengths.
    """
    for row in rows:
        negatives = interleave_sources(row["negatives"])
        if len(negatives) < num_negatives:
            continue
        triplet = {"anchor": row["query"], "positive": row["positive"]}
        for i, negative in enumerate(negatives[:num_negatives]):
            triplet[f"negative_{i + 1}"] = negative["text"]
        yield triplet


def interleave_sources(negatives: Sequence[Negative]) -> list[Negative]:
    """Returns the negatives ordered round-robin over their sources, keeping each source's order."""
    by_source: dict[str, list[Negative]] = {}
    for negative in negatives:
        by_source.setdefault(negative["source"], []).append(negative)
    turns = [(turn, k, n) for k, group in enumerate(by_source.values()) for turn, n in enumerate(group)]
    return [negative for _, _, negative in sorted(turns, key=lambda item: item[:2])]


def to_triplets(dataset: Dataset, num_negatives: int) -> Dataset:
    """Converts rows to (anchor, positive, negative_1 ... negative_k), which any trainer can use.

    Args:
        dataset: Rows with `FEATURES`.
        num_negatives: k. Rows with fewer negatives are left out.

    Raises:
        InputError: Where `dataset` does not have the columns of a row.
    """
    check_rows(dataset, "to_triplets")
    features = triplet_features(num_negatives)
    triplets = list(iter_triplets(dataset, num_negatives))
    # Column by column, since `from_list` of no rows has no columns.
    columns = {name: [triplet[name] for triplet in triplets] for name in features}
    return Dataset.from_dict(columns, features=features)
