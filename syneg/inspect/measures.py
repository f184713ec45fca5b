"""What can be measured of the documents by source: length, similarity to the query, teacher's score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from syneg.inspect.marks import overlap
from syneg.rows import SYNTHETIC
from syneg.text import letter_runs

POSITIVE = "positive"
BINS = 32
TEACHER, SIMILARITY, OVERLAP = "teacher", "similarity to the query", "words of the query"
ABOVE = {
    TEACHER: "score above their positive by the teacher",
    SIMILARITY: "are nearer to the query than their positive by the encoder",
    OVERLAP: "have more of the query's words than their positive",
}
"""What a negative that is above its positive does, by measure; what says most of a negative is first."""


@dataclass(frozen=True)
class Distribution:
    """Values of one source.

    Attributes:
        source: "positive", or the source of the negatives.
        count: Number of documents.
        low: 10th percentile.
        median: The median.
        high: 90th percentile.
        above: Share of negatives whose value is above that of their own positive; None for positives.
        shares: Share of the documents in each bin, shape (BINS,).
    """

    source: str
    count: int
    low: float
    median: float
    high: float
    above: float | None
    shares: np.ndarray


@dataclass(frozen=True)
class Measure:
    """One measure by source; all its distributions have the same bins.

    Attributes:
        name: What is measured.
        meaning: One line on it.
        start: Lower edge of the first bin.
        stop: Upper edge of the last bin; what is above it is counted there.
        distributions: One for each source, the positives' first where they are measured.
    """

    name: str
    meaning: str
    start: float
    stop: float
    distributions: list[Distribution]


def measure_rows(rows: list[dict[str, Any]], encoder: Any = None) -> list[Measure]:
    """Measures rows of the `default` configuration.

    Args:
        rows: The rows.
        encoder: A SentenceTransformer for the similarity to the query; without one it is measured by
            words alone.
    """
    measures = [
        _measure(
            "length",
            "words; characters where the script has no blanks between words",
            _values(rows, lambda _, text: float(len(letter_runs(text)))),
        ),
        _measure(
            OVERLAP,
            "share of the query's words, stop words left out, that the document has",
            _values(rows, lambda row, text: overlap(row["query"], text)),
            edges=(0.0, 1.0),
        ),
    ]
    if encoder is not None:
        cosine = _cosines(rows, encoder)
        measures.append(
            _measure(
                SIMILARITY,
                "cosine of the encoder's embeddings",
                _values(rows, lambda row, text: cosine[row["query"], text]),
            )
        )
    teacher = _teacher(rows)
    if teacher:
        meaning = "teacher's score of the negative minus that of its positive; above 0 it is suspect"
        measures.append(_measure(TEACHER, meaning, teacher))
    return measures


def headline(measures: Sequence[Measure]) -> str:
    """Returns the sentence that matters most: how many negatives are above their own positive."""
    by_name = {measure.name: measure for measure in measures}
    name = next(name for name in ABOVE if name in by_name)
    shares = [(d.source, d.above) for d in by_name[name].distributions if d.above is not None]
    if not shares:
        return "There are no negatives."
    (first, above), *others = shares
    rest = ", ".join(f"{_percent(share)} of the {source} ones" for source, share in others)
    return f"{_percent(above)} of the {first} negatives {ABOVE[name]}{'; ' if rest else ''}{rest}."


def _percent(share: float) -> str:
    return "Under 1%" if 0 < share < 0.005 else f"{share:.0%}"


def suspicions(rows: list[dict[str, Any]], encoder: Any = None) -> tuple[str, list[list[float | None]]]:
    """Returns how suspect each negative is of being relevant, by the best measure that there is.

    Args:
        rows: Rows of the `default` configuration.
        encoder: As for `measure_rows`; used where no negative has a teacher's score.

    Returns:
        In words what is measured, and a number for each negative of each row: the larger, the more
        suspect. None where it is not known.
    """
    if any(_margin(negative) is not None for row in rows for negative in row["negatives"]):
        return "teacher's score less the positive's", [
            [_margin(negative) for negative in row["negatives"]] for row in rows
        ]
    if encoder is not None:
        meaning, cosine = "encoder's similarity less the positive's", _cosines(rows, encoder)
        value = lambda row, text: cosine[row["query"], text]  # noqa: E731
    else:
        meaning = "share of the query's words less the positive's"
        value = lambda row, text: overlap(row["query"], text)  # noqa: E731
    return meaning, [
        [value(row, negative["text"]) - value(row, row["positive"]) for negative in row["negatives"]]
        for row in rows
    ]


def _margin(negative: Mapping[str, Any]) -> float | None:
    score, of_positive = negative.get("teacher_score"), negative.get("positive_teacher_score")
    return score - of_positive if score is not None and of_positive is not None else None


def _values(rows: list[dict[str, Any]], value: Any) -> dict[str, list[tuple[float, float]]]:
    """Returns by source the value of each document and that of its positive."""
    found: dict[str, list[tuple[float, float]]] = {POSITIVE: []}
    for row in rows:
        of_positive = value(row, row["positive"])
        found[POSITIVE].append((of_positive, of_positive))
        for negative in row["negatives"]:
            found.setdefault(negative["source"], []).append((value(row, negative["text"]), of_positive))
    return _ordered(found)


def _ordered(found: dict[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """Positives first, then what an LLM wrote, then the miners by name."""
    order = {POSITIVE: 0, SYNTHETIC: 1}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], 2), item[0])))


def _teacher(rows: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for negative in row["negatives"]:
            margin = _margin(negative)
            if margin is not None:
                found.setdefault(negative["source"], []).append((margin, 0.0))
    return _ordered(found)


def _cosines(rows: list[dict[str, Any]], encoder: Any) -> Mapping[tuple[str, str], float]:
    queries = list(dict.fromkeys(row["query"] for row in rows))
    texts = list(
        dict.fromkeys(
            text
            for row in rows
            for text in (row["positive"], *(negative["text"] for negative in row["negatives"]))
        )
    )
    kwargs: dict[str, Any] = {"normalize_embeddings": True, "convert_to_numpy": True}
    of_query = dict(zip(queries, encoder.encode_query(queries, **kwargs), strict=True))
    of_text = dict(zip(texts, encoder.encode_document(texts, **kwargs), strict=True))
    return {
        (row["query"], text): float(of_query[row["query"]] @ of_text[text])
        for row in rows
        for text in (row["positive"], *(negative["text"] for negative in row["negatives"]))
    }


def _measure(
    name: str,
    meaning: str,
    values: Mapping[str, Iterable[tuple[float, float]]],
    edges: tuple[float, float] | None = None,
) -> Measure:
    arrays = {source: np.asarray(list(pairs), dtype=float) for source, pairs in values.items()}
    arrays = {source: array for source, array in arrays.items() if len(array)}
    everything = np.concatenate([array[:, 0] for array in arrays.values()])
    # The longest half percent would squeeze all others into the first bins.
    start, stop = edges or (float(everything.min()), float(np.quantile(everything, 0.995)))
    stop = stop if stop > start else start + 1.0
    distributions = []
    for source, array in arrays.items():
        own = array[:, 0]
        counts, _ = np.histogram(np.clip(own, start, stop), bins=BINS, range=(start, stop))
        low, median, high = np.quantile(own, [0.1, 0.5, 0.9])
        above = None if source == POSITIVE else float((own > array[:, 1]).mean())
        shares = counts / len(own)
        distributions.append(
            Distribution(source, len(own), float(low), float(median), float(high), above, shares)
        )
    return Measure(name, meaning, start, stop, distributions)
