"""A model against the one it started from: before, after, the difference and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from syneg.errors import InputError
from syneg.evaluation.metrics import METRICS, QueryScores, aligned
from syneg.evaluation.significance import format_interval, format_p, paired_difference


def is_results_folder(spec: str) -> bool:
    """Returns whether `spec` is a folder that `syneg evaluate` wrote, or one within, and not a model's."""
    path = Path(spec)
    return path.is_dir() and ((path / "queries").is_dir() or "queries" in path.resolve().parts)


def find_queries(folder: str | Path, name: str) -> list[Path]:
    """Returns the queries' files of one task and split in a folder of results, one a model.

    Args:
        folder: What `syneg evaluate --output` wrote, or the part of one model in it (queries/NAME).
        name: The files' name.

    Raises:
        InputError: Where there is none.
    """
    found = sorted(Path(folder).rglob(name))
    if not found:
        raise InputError(
            f"--baseline {folder}: there is no {name}. Give the model itself, or another folder."
        )
    return found


def only_other(files: Sequence[Path], after: Path) -> Path:
    """Returns the one of the files that is not the model's own.

    Raises:
        InputError: Where there is none, or there are several.
    """
    others = [path for path in files if not path.samefile(after)]
    if len(others) == 1:
        return others[0]
    if not others:
        raise InputError(f"--baseline: {after} is the model's own result. Give another model or its folder.")
    raise InputError(
        f"--baseline: {len(others)} models have results there, as {others[0].parent} and {others[1].parent}; "
        "give one of these folders."
    )


def before_after_table(before: Sequence[QueryScores], after: Sequence[QueryScores]) -> str:
    """Returns a row a metric: before, after, the difference with its 95% interval and p-value, as Markdown.

    Args:
        before: What each query scored by the model to compare with.
        after: The same by the model that is looked at.

    Raises:
        InputError: Where they are not the same queries.
    """
    earlier = {(query.subset, query.query_id): query for query in before}
    if earlier.keys() != {(query.subset, query.query_id) for query in after}:
        raise InputError(
            f"the baseline was evaluated on other queries ({len(before):,}) than the model ({len(after):,}). "
            "Evaluate it again, with --overwrite true."
        )
    cells = [["metric", "before", "after", "difference", "95% interval", "p"]]
    for metric, heading in METRICS.items():
        theirs = np.array([getattr(earlier[query.subset, query.query_id], metric) for query in after])
        ours = np.array([getattr(query, metric) for query in after])
        difference = paired_difference(ours, theirs)
        cells.append(
            [
                heading,
                f"{theirs.mean():.4f}",
                f"{ours.mean():.4f}",
                f"{difference.mean:+.4f}",
                format_interval(difference),
                format_p(difference.p_value),
            ]
        )
    return aligned(cells)
