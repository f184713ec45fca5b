"""`syneg report`: the page and the table of a comparison."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from syneg.config import ConfigParser
from syneg.errors import InputError, unknown
from syneg.evaluation.arguments import ReportArguments

if TYPE_CHECKING:
    from syneg.evaluation.comparison import Comparison
    from syneg.sources import Source


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the subcommand.

    Args:
        argv: The command line after ``report``.

    Raises:
        InputError: Where the folder holds no comparison, its source can no longer be read, or the
            baseline is none of its arms.
    """
    parser = ConfigParser(
        [ReportArguments],
        prog="syneg report",
        description="Writes report.html, which needs no network, and the tables table.md and work.md.",
    )
    (arguments,) = parser.parse(argv)

    from syneg.evaluation.comparison import load_comparison
    from syneg.evaluation.report.page import render
    from syneg.evaluation.summary import summary_table, work_notes
    from syneg.evaluation.work import run_time, work_table
    from syneg.sources import SourceArguments, source_of

    comparison = load_comparison(arguments.comparison, arguments.last)
    if arguments.baseline is not None:
        if arguments.baseline not in comparison.settings["arms"]:
            raise unknown("arm", arguments.baseline, comparison.settings["arms"])
        changed = {**comparison.settings, "baseline": arguments.baseline}
        comparison = dataclasses.replace(comparison, settings=changed)
    settings = comparison.settings
    known = [field.name for field in dataclasses.fields(SourceArguments)]
    source = source_of(SourceArguments(**{k: settings[k] for k in known if k in settings}))
    for note in source.notes:
        print(note)
    output = Path(arguments.output or Path(arguments.comparison, "last" if arguments.last else ""))
    output.mkdir(parents=True, exist_ok=True)
    table = summary_table(comparison)
    (output / "table.md").write_text(table, encoding="utf-8")
    work = work_table(comparison)
    (output / "work.md").write_text(work, encoding="utf-8")
    # Seen from the page, which may lie elsewhere.
    folder = Path(os.path.relpath(arguments.comparison, output)).as_posix()
    page = render(comparison, source, arguments.examples, folder)
    (output / "report.html").write_text(page, encoding="utf-8")
    print(table, end="")
    for note in work_notes(comparison):
        print(note)
    if arguments.overlap:
        _write_halves(comparison, source, output / "overlap.md")
    print()
    print(work, end="")
    print(run_time(comparison))
    print(output / "report.html")


def _write_halves(comparison: Comparison, source: Source, path: Path) -> None:
    """Prints and writes the table of the queries that a model may know from training, and of the others.

    Raises:
        InputError: Where the source has no other split to share documents with.
    """
    from syneg.evaluation.summary import summary_table
    from syneg.sources.overlap import shared_judgements

    settings = comparison.settings
    if settings["held_back"]:
        raise InputError("--overlap: held-back queries share no document with those that are trained on.")
    overlap = shared_judgements(source, settings["split"])
    tables = [str(overlap)]
    if overlap.shared:
        parts = overlap.halves().items()
        tables += [f"{label}\n\n{summary_table(comparison.select(part))}" for label, part in parts]
    text = "\n\n".join(table.rstrip("\n") for table in tables) + "\n"
    path.write_text(text, encoding="utf-8")
    print(f"\n{text}{path}")
