"""The metrics: their names, what a model and each of its queries scored, and tables of both."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from syneg.errors import InputError

METRICS = {"ndcg_at_10": "nDCG@10", "recall_at_10": "recall@10", "mrr_at_10": "MRR@10"}
"""MTEB's names of the metrics that are reported, and how tables and cards call them; its main score first."""


@dataclass(frozen=True)
class Scores:
    """What a model reached on a task; each metric is the mean over queries (and over subsets).

    Attributes:
        task: The task's name in MTEB's files.
        split: The split that was evaluated.
        ndcg_at_10: nDCG of the first ten documents, between 0 and 1.
        recall_at_10: Share of the relevant documents among the first ten.
        mrr_at_10: Reciprocal rank of the first relevant document, 0 where none is among the first ten.
        path: MTEB's result file.
        queries_path: One JSON object a query: see `read_queries`.
    """

    task: str
    split: str
    ndcg_at_10: float
    recall_at_10: float
    mrr_at_10: float
    path: Path
    queries_path: Path


@dataclass(frozen=True)
class QueryScores:
    """One query's scores; `retrieved` holds the ids of the first ten documents, best first."""

    query_id: str
    ndcg_at_10: float
    recall_at_10: float
    mrr_at_10: float
    retrieved: list[str]
    subset: str = "default"


def read_queries(path: str | Path) -> list[QueryScores]:
    """Reads what each query scored and retrieved, in the order of (subset, query id).

    Raises:
        InputError: Where the file is missing or was not written by `evaluate`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. `syneg evaluate` writes it beside its results.")
    records = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                records.append(QueryScores(**json.loads(line)))
            except (TypeError, ValueError):
                raise InputError(
                    f"{path}, line {number}: not the scores of a query. Evaluate again with --overwrite true."
                ) from None
    return records


def mean_scores(queries: Iterable[QueryScores]) -> dict[str, float]:
    """Returns metric -> its mean over the queries, of which there must be one."""
    scores = list(queries)
    return {metric: fmean(getattr(query, metric) for query in scores) for metric in METRICS}


def is_written(task: str) -> bool:
    """Returns whether a task's name says that an LLM wrote its queries, as "docs (written)" does."""
    return task.endswith("written)")


def worse_line(before: Mapping[str, float], after: Mapping[str, float]) -> str | None:
    """Returns one line that says on which metrics a model is worse than before training; None where on none.

    Args:
        before: Metric, by MTEB's name or as a table calls it -> the score before training.
        after: The same of the trained model; metrics that either lacks are left aside.
    """
    worse = [name for name in before if name in after and after[name] < before[name]]
    if not worse:
        return None
    told = ", ".join(
        f"{METRICS.get(name, name)} {after[name]:.4f} (before: {before[name]:.4f})" for name in worse
    )
    return f"WORSE than the model that training began with: {told}."


def markdown_table(
    rows: Mapping[str, Any] | Iterable[tuple[str, Any]],
    columns: Sequence[str] = tuple(METRICS),
    name: str = "model",
    digits: int = 4,
    path: str | Path | None = None,
) -> str:
    """Returns a Markdown table of names and metrics, aligned so that it also reads as plain text.

    Args:
        rows: Name -> `Scores`, or a mapping of metrics, or pairs of the two, in the table's order.
        columns: The metrics, as fields of the values.
        name: The first column's heading.
        digits: Digits after the point.
        path: Where the table is written too.

    Returns:
        The table; each line ends in a newline.
    """
    items = rows.items() if isinstance(rows, Mapping) else rows
    cells = [[name, *(METRICS.get(column, column) for column in columns)]]
    for label, values in items:
        cells.append([str(label), *(_cell(values, column, digits) for column in columns)])
    table = aligned(cells)
    if path is not None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table, encoding="utf-8")
    return table


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Returns rows of cells, the first of them the headings, as a Markdown table; all but the first
    column are aligned to the right."""
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in cells]
    widths = [max(3, *(len(row[i]) for row in escaped)) for i in range(len(escaped[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [escaped[0], rule, *escaped[1:]]
    return "".join(
        "| "
        + " | ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        + " |\n"
        for line in lines
    )


def _cell(values: Any, column: str, digits: int) -> str:
    value = values[column] if isinstance(values, Mapping) else getattr(values, column)
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
