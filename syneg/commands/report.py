"""`syneg report`: the page and the table of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from syneg.config import ConfigParser
from syneg.errors import unknown
from syneg.evaluation.arguments import ReportArguments


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

    comparison = load_comparison(arguments.comparison)
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
    output = Path(arguments.output or arguments.comparison)
    output.mkdir(parents=True, exist_ok=True)
    table = summary_table(comparison)
    (output / "table.md").write_text(table, encoding="utf-8")
    work = work_table(comparison)
    (output / "work.md").write_text(work, encoding="utf-8")
    (output / "report.html").write_text(render(comparison, source, arguments.examples), encoding="utf-8")
    print(table, end="")
    for note in work_notes(comparison):
        print(note)
    print()
    print(work, end="")
    print(run_time(comparison))
    print(output / "report.html")
