"""How commands end: what happened in one line, and what to run next, with the paths as they are."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syneg.rows import SYNTHETIC

Reports = Mapping[str, Mapping[str, Any]]
"""For each split the stages' reports."""


def told(reports: Reports) -> list[str]:
    """Returns the lines of all splits' reports."""
    return [line for report in reports.values() for line in report["lines"]]


def outcome(output: str | Path, reports: Reports) -> str:
    """Returns one line on what was written, as in "out/mine: train has 120 rows with 310 negatives (...)"."""
    parts = []
    for split, report in reports.items():
        rows, negatives = _rows(report), _negatives(report)
        sources = ", ".join(f"{count:,} {source}" for source, count in negatives.items() if count)
        parts.append(
            f"{split} has {rows:,} rows with {sum(negatives.values()):,} negatives"
            + (f" ({sources})" if sources else "")
        )
    return f"{output}: {'; '.join(parts)}"


def next_steps(*commands: tuple[str, ...], one_of: bool = True) -> list[str]:
    """Returns what to run next, a line each: one of them, or one after the other."""
    further = "  or:" if one_of else " then:"
    lines = [shlex.join(words) for words in commands]
    return [f"{'Next:' if i == 0 else further} {line}" for i, line in enumerate(lines)]


def shard_ends(shard: str, journal: str | Path) -> list[str]:
    """Returns how a command ends that has asked for one shard's completions only."""
    return [
        f"shard {shard} is in {journal}; once all shards' files are in one journal, run:",
        f"Next: the same command without --shard, with --journal {shlex.quote(str(journal))}",
    ]


def look_and_train(
    output: str | Path, split: str, model: str | None = None, mixture: str | None = None
) -> list[str]:
    """Returns what to run on rows that are done.

    Args:
        output: The rows' folder.
        split: Its splits.
        model: The retriever to train, such as the encoder that mined; a common one if None.
        mixture: The mixture of negatives to name, where it is not the default one.
    """
    split = split.split(",")[0]
    named = ("--split", split) if split != "train" else ()
    mixed = ("--mixture", mixture) if mixture is not None else ()
    training = ("--model", model or _MODEL, "--dataset", str(output), *named, *mixed)
    return next_steps(
        ("syneg", "inspect", str(output), *named),
        ("syneg", "train", *training, "--output", f"{Path(output)}-model"),
    )


_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def _rows(report: Mapping[str, Any]) -> int:
    if "rows" in report:
        return int(report["rows"]["rows"])
    if "gating" in report:
        return int(report["gating"]["rows"] + report["gating"]["added"])
    return int(report.get("source", {}).get("pairs") or report.get("generation", {}).get("pairs", 0))


def _negatives(report: Mapping[str, Any]) -> dict[str, int]:
    if "gating" in report:
        return dict(report["gating"]["kept"])
    written = {SYNTHETIC: report["generation"]["kept"]} if "generation" in report else {}
    miners = report.get("mining", {}).get("miners", {})
    return {**written, **{name: found["kept"] + found.get("filled", 0) for name, found in miners.items()}}
