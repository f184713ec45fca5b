"""Tables of results in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HEADINGS = {"ndcg_at_10": "nDCG@10", "recall_at_10": "recall@10", "mrr_at_10": "MRR@10"}
"""How a table calls MTEB's metrics."""


def markdown_table(
    rows: Mapping[str, Any] | Iterable[tuple[str, Any]],
    columns: Sequence[str] = tuple(HEADINGS),
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
    cells = [[name, *(HEADINGS.get(column, column) for column in columns)]]
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
